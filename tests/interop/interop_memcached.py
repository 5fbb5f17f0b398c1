"""The memcached port against memcached itself: the same bytes to both, the same replies.

memcached's own test of a server (memccapable) and its clients are in here too. What may differ
is in KNOWN_DIFFERENCES, each with its reason. KVDB_INTEROP_SEED repeats the random part with the
seed that a failure names.
"""

from __future__ import annotations

import codecs
import json
import os
import random
import re
import shutil
import subprocess
import tempfile
import unittest
from collections.abc import Iterator
from typing import Any, NamedTuple

import memcache
import pylibmc
from pymemcache import serde
from pymemcache.client.base import Client as PlainClient
from pymemcache.client.base import PooledClient
from pymemcache.client.hash import HashClient
from pymemcache.client.retrying import RetryingClient

from tests.interop.curated_memcached import SCENARIOS
from tests.interop.servers import Address, running_kvdb_for_memcached, running_memcached
from tests.test_memcached_stats import BUSY, COUNTED, COUNTERS, NOT_RESET, PREPARED, RESET, changes

SEED = int(os.environ.get("KVDB_INTEROP_SEED", random.randrange(10**9)))
WRONG_TOKEN = b"77777777"


# --- a client that leaves replies as the bytes that they are -------------------------------


class Client:
    """One connection to one server; a request's reply is what comes before that to `mn`."""

    def __init__(self, address: Address) -> None:
        self._socket = address.connect()
        self.last_token = WRONG_TOKEN  # not 0, with which memcached compares nothing
        self._tokens: dict[bytes, int] = {}

    def __call__(self, request: bytes) -> bytes:
        """Send a request; return its reply in a form that can be compared."""
        self._socket.sendall(request.replace(b"{cas}", self.last_token) + b"mn\r\n")
        reply = b""
        own = request.startswith(b"mn")  # then two of them come, perhaps not together
        while not reply.endswith(b"MN\r\n") or reply.count(b"MN\r\n") == own:
            data = self._receive()
            if not data:
                return reply + b"(closed)"
            reply += data
        return self._comparable(reply[:-4])

    def _receive(self) -> bytes:
        try:
            return self._socket.recv(65536)
        except ConnectionResetError:
            return b""
        except TimeoutError:
            raise AssertionError("no reply: out of step?") from None

    def _comparable(self, reply: bytes) -> bytes:
        """Number the cas tokens as they appear; round times, as memcached's clock has no fractions.

        So equal tokens stay equal and others differ, whatever they are.
        """

        def token(found: re.Match[bytes]) -> bytes:
            self.last_token = found[2]
            number = self._tokens.setdefault(found[2], len(self._tokens) + 1)
            return b"%b(cas %d)" % (found[1], number)

        def unpadded(found: re.Match[bytes]) -> bytes:
            return b"%b%d%b\r\n%b\r\n" % (found[1], len(found[3]), found[2] or b"", found[3])

        def seconds(found: re.Match[bytes]) -> bytes:
            return b" t%d" % round(int(found[1]), -1)

        # memcached tells of a cas token 0 where nothing was stored.
        reply = re.sub(rb"^((?:NS|EX|NF)\b.*?) c0\b", rb"\1", reply)
        # memcached pads a decremented number or not, by whether it was read a moment ago.
        reply = re.sub(
            rb"^(VALUE \S+ \d+ |VA )\d+( .*?)?\r\n(\d+) +\r\n", unpadded, reply, flags=re.M
        )
        reply = re.sub(rb"(^VALUE \S+ \d+ \d+ )(\d+)(?=\r\n)", token, reply, flags=re.M)
        reply = re.sub(rb"(^(?:HD|VA \d+)(?: \S+)*? c)(\d+)\b", token, reply, flags=re.M)
        return re.sub(rb"(?<=[ 0-9a-zA-Z]) t(\d+)\b", seconds, reply)

    def close(self) -> None:
        self._socket.close()


def parse(text: str) -> bytes:
    """Return the bytes that a line of curated_memcached stands for."""
    return codecs.escape_decode(text.replace("|", "\r\n").encode())[0] + b"\r\n"  # type: ignore[attr-defined]


# --- the differences that we have decided on -----------------------------------------------


class Difference(NamedTuple):
    reason: str
    request: bytes
    memcached: bytes
    kvdb: bytes


BAD_FORMAT = b"CLIENT_ERROR bad command line format\r\n"

KNOWN_DIFFERENCES = [
    *(
        Difference(
            "the data block of a refused line is swallowed: it must not run as commands",
            request + b"\r\nflush_all\r\n",
            BAD_FORMAT + b"OK\r\n",
            BAD_FORMAT,
        )
        for request in (
            b"set k x 0 9",
            b"set k -1 0 9",
            b"set k 0 x 9",
            b"cas k 0 0 9 x",
            b"cas k 0 0 9 -1",
        )
    ),
    Difference(
        "so is that of a cas without its token; newer memcached does the same",
        b"cas k 0 0 9\r\nflush_all\r\n",
        b"ERROR\r\nOK\r\n",
        BAD_FORMAT,
    ),
    *(
        Difference(
            "nobody knows where the data ends, so the connection does",
            request + b"\r\nflush_all\r\n",
            BAD_FORMAT + b"OK\r\n",
            BAD_FORMAT + b"(closed)",
        )
        for request in (b"set k 0 0 x", b"set k 0 0 -1", b"ms k", b"ms k x", b"ms k -1")
    ),
    Difference(
        "flags are 32 bits wide",
        b"set k 4294967296 0 1\r\n1\r\nget k\r\n",
        b"STORED\r\nVALUE k 0 1\r\n1\r\nEND\r\n",
        BAD_FORMAT + b"END\r\n",
    ),
    Difference(
        "a value that only begins as a number is none: nothing of it gets lost",
        b"set k 0 0 3\r\n5 6\r\nincr k 1\r\n",
        b"STORED\r\n6\r\n",
        b"STORED\r\nCLIENT_ERROR cannot increment or decrement non-numeric value\r\n",
    ),
    Difference(
        "t tells the time left after the request, even if it stands before N",
        b"ma k t N100\r\n",
        b"HD t-1\r\n",
        b"HD t100\r\n",
    ),
    Difference(
        "newer memcached: an append may create the key (N)",
        b"ms k 2 MA N100\r\nhi\r\nmg k v\r\n",
        b"NS\r\nEN\r\n",
        b"HD\r\nVA 2\r\nhi\r\n",
    ),
    Difference(
        "newer memcached: md may empty the value (x)",
        b"set k 5 0 1\r\n1\r\nmd k x\r\nmg k f v\r\n",
        b"STORED\r\nCLIENT_ERROR invalid or duplicate flag\r\nVA 1 f5\r\n1\r\n",
        b"STORED\r\nHD\r\nVA 0 f0\r\n\r\n",
    ),
    Difference(
        "whether a key comes in base64 is for the request to say, not kept with the value",
        b"ms Zm9v 1 b\r\n1\r\nmg foo k\r\n",
        b"HD\r\nHD kZm9v b\r\n",
        b"HD\r\nHD kfoo\r\n",
    ),
    Difference(
        "a number that was counted is a new value, not read yet; memcached may change it in place",
        b"mg n h\r\nset n 0 0 1\r\n1\r\nget n\r\nincr n 1\r\nmg n h\r\n",
        b"EN\r\nSTORED\r\nVALUE n 0 1\r\n1\r\nEND\r\n2\r\nHD h1\r\n",
        b"EN\r\nSTORED\r\nVALUE n 0 1\r\n1\r\nEND\r\n2\r\nHD h0\r\n",
    ),
    Difference(
        "newer memcached: ms tells the size (s)",
        b"ms k 2 s\r\nhi\r\nms k 1 MA s\r\n!\r\n",
        b"HD\r\nHD\r\n",
        b"HD s2\r\nHD s3\r\n",
    ),
    Difference(
        "newer memcached: a client may choose the cas token (E)",
        b"ms k 1 E123\r\n1\r\nms k 1 C123\r\n2\r\n",
        b"CLIENT_ERROR invalid flag\r\nNF\r\n",
        b"HD\r\nHD\r\n",
    ),
    Difference(
        "newer memcached: a quiet ma that creates is quiet, too",
        b"ma n N0 J5 q\r\nma n v\r\n",
        b"HD\r\nVA 1\r\n6\r\n",
        b"VA 1\r\n6\r\n",
    ),
]
"""Beside these: what `version`, `stats` and `me` tell of a server that is another one."""


# --- random requests -----------------------------------------------------------------------


class Requests:
    """Makes up requests: few keys, so that they meet each other.

    Two keys are counted, two others are appended to, as
    memcached pads counters with spaces or does not, by whether they were read a moment ago.
    """

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def __call__(self) -> bytes:
        makers = [self._get, self._store, self._store, self._count, self._meta, self._meta]
        makers += [self._other, self._touch, self._cas]
        return self._random.choice(makers)() + b"\r\n"

    def _key(self, keys: bytes = b"abcd") -> bytes:
        return bytes([self._random.choice(keys)])

    def _data(self) -> bytes:
        # From 2^63 on, memcached looks for a minus sign beyond the end of the value, too.
        choose = self._random.choice
        number = b"%d" % choose([0, 1, 9, 10, 99, 100, 2**32, 2**62])
        return choose(
            [number, number, b"", b"text", b"a\r\nb", b"\xff" + self._random.randbytes(8)]
        )

    def _exptime(self) -> bytes:
        return self._random.choice([b"0", b"0", b"0", b"100", b"1000", b"-1"])

    def _noreply(self) -> bytes:
        return self._random.choice([b"", b"", b"", b" noreply"])

    def _get(self) -> bytes:
        name = self._random.choice([b"get", b"gets"])
        return b"%b %b %b" % (name, self._key(), self._key())

    def _store(self) -> bytes:
        name = self._random.choice([b"set", b"set", b"add", b"replace", b"append", b"prepend"])
        key = self._key(b"ab") if name in (b"append", b"prepend") else self._key()
        flags, data = self._random.choice([0, 1, 2**32 - 1]), self._data()
        line = b"%b %b %d %b %d%b\r\n%b"
        return line % (name, key, flags, self._exptime(), len(data), self._noreply(), data)

    def _cas(self) -> bytes:
        key, data = self._key(), self._data()
        if self._random.random() < 0.5:
            return b"gets %b" % key
        token = self._random.choice([b"{cas}", b"{cas}", WRONG_TOKEN])
        return b"cas %b 0 0 %d %b%b\r\n%b" % (key, len(data), token, self._noreply(), data)

    def _count(self) -> bytes:
        name = self._random.choice([b"incr", b"decr"])
        delta = self._random.choice([b"0", b"1", b"10", b"4294967296", b"-1", b"x"])
        return b"%b %b %b%b" % (name, self._key(b"cd"), delta, self._noreply())

    def _touch(self) -> bytes:
        return self._random.choice(
            [
                b"touch %b %b%b" % (self._key(), self._exptime(), self._noreply()),
                b"gat %b %b %b" % (self._exptime(), self._key(), self._key()),
                b"mg %b T%b v" % (self._key(), self._random.choice([b"0", b"100"])),
            ]
        )

    def _other(self) -> bytes:
        some = [b"delete %b%b" % (self._key(), self._noreply()), b"nosuch %b" % self._key()]
        if self._random.random() < 0.2:
            some.append(b"flush_all%b" % self._noreply())
        return self._random.choice(some)

    def _meta(self) -> bytes:
        # Without what marks an item as stale or won: see KNOWN_DIFFERENCES.
        tokens = [b"C{cas}", b"C" + WRONG_TOKEN]
        name, keys, flags = self._random.choice(
            [
                (b"mg", b"abcd", [b"f", b"k", b"v", b"q", b"O1"]),
                (b"ms", b"abcd", [b"k", b"q", b"O2", b"F5", b"T100", b"ME", b"MR", *tokens]),
                (b"ms", b"ab", [b"k", b"q", b"O3", b"MA", b"MP", *tokens]),
                (b"md", b"abcd", [b"k", b"q", b"O4", b"T100", *tokens]),
                (b"ma", b"cd", [b"k", b"q", b"v", b"N100", b"J5", b"D7", b"MD", *tokens]),
            ]
        )
        if name != b"md":
            flags.append(b"c")
        if keys == b"ab":  # only a request with a mode may append
            flags = [self._random.choice([b"MA", b"MP"]), *flags[:3], *tokens]
        chosen = self._random.sample(flags, self._random.randrange(4))
        if keys == b"ab" and flags[0] not in chosen:
            chosen.append(flags[0])
        if name == b"ma" and b"N100" in chosen and b"q" in chosen:  # in KNOWN_DIFFERENCES, too
            chosen.remove(b"q")
        words = [name, self._key(keys)]
        if name != b"ms":
            return b" ".join(words + chosen)
        data = self._data()
        return b" ".join([*words, b"%d" % len(data), *chosen]) + b"\r\n" + data


# --- the suites ----------------------------------------------------------------------------


class DifferentialTest(unittest.TestCase):
    memcached: Address
    kvdb: Address

    @classmethod
    def setUpClass(cls) -> None:
        cls.memcached = cls.enterClassContext(running_memcached())
        cls.kvdb = cls.enterClassContext(running_kvdb_for_memcached())

    def pair(self) -> tuple[Client, Client]:
        """Return a new connection to each server, both without keys."""
        clients = Client(self.memcached), Client(self.kvdb)
        for client in clients:
            self.addCleanup(client.close)
            client(b"flush_all\r\n")
        return clients

    def test_curated_requests_get_the_same_replies(self) -> None:
        for title, text in SCENARIOS.items():
            memcached, kvdb = self.pair()
            for line in text.splitlines()[1:]:
                request = parse(line.removeprefix(" " * 8))
                with self.subTest(title, request=line.strip()[:100]):
                    self.assertEqual(kvdb(request), memcached(request))

    def test_random_requests_get_the_same_replies(self) -> None:
        for seed in range(SEED, SEED + 20):
            memcached, kvdb = self.pair()
            requests, sent = Requests(seed), []
            for _ in range(300):
                sent.append(requests())
                self.assertEqual(
                    kvdb(sent[-1]), memcached(sent[-1]), f"seed {seed}, after {sent[-12:]}"
                )

    def test_known_differences_are_what_we_think_they_are(self) -> None:
        for difference in KNOWN_DIFFERENCES:
            memcached, kvdb = self.pair()
            with self.subTest(difference.reason, request=difference.request):
                # Newer ones (1.6.38 was tried) answer as we do in some of these.
                known = (difference.memcached, difference.kvdb)
                self.assertIn(memcached(difference.request), known)
                self.assertEqual(kvdb(difference.request), difference.kvdb)


UNEQUAL_COUNTS = {
    "cmd_meta": "memcached 1.6.18 counts nothing but me; here every meta command counts",
    "get_expired": "depends on whether memcached's crawler was there before",
}
"""Fields that are not compared, and why."""

COUNTED_OTHERWISE = {
    **dict.fromkeys(
        ("incr k 1", "decr k 1", "ma k", "ma k MD", "ma k C{cas}", "md k I"),
        "memcached changes the item in place and counts no new one",
    )
}
"""Requests whose total_items differ, and why."""


class StatisticsTest(unittest.TestCase):
    """The figures of `stats`, as tests/test_memcached_stats has them, against memcached's."""

    def setUp(self) -> None:
        self.memcached = Client(self.enterContext(running_memcached()))
        self.kvdb = Client(self.enterContext(running_kvdb_for_memcached()))
        self.addCleanup(self.memcached.close)
        self.addCleanup(self.kvdb.close)

    @staticmethod
    def stats(client: Client, what: str = "") -> dict[str, str]:
        lines = client(f"stats {what}".strip().encode() + b"\r\n").decode().splitlines()
        return {line.split(" ", 2)[1]: line.split(" ", 2)[2] for line in lines[:-1]}

    def test_each_command_counts_what_memcached_counts(self) -> None:
        client = self.memcached
        for request, text in COUNTED.items():
            if request == "mn":  # with which each request of ours ends
                continue
            with self.subTest(request):
                for line in PREPARED:
                    client(parse(line))
                reply = client(b"gets k\r\n")
                self.assertIn(b"(cas ", reply)
                before = self.stats(client)
                client(parse(request))
                after = self.stats(client)
                expected = changes(text)
                if request in COUNTED_OTHERWISE:
                    del expected["total_items"]
                self.assertEqual(
                    {
                        name: int(after[name]) - int(before[name])
                        for name in COUNTERS
                        if after[name] != before[name] and name not in UNEQUAL_COUNTS
                    },
                    expected,
                )

    def test_reset_sets_the_same_fields_back(self) -> None:
        for client in (self.memcached, self.kvdb):
            for request in BUSY:
                client(parse(request))
            before = self.stats(client)
            self.assertEqual(
                [name for name in RESET if before[name] == "0"], ["rejected_connections"]
            )
            self.assertEqual(client(b"stats reset\r\n"), b"RESET\r\n")
            after = self.stats(client)
            set_back = set(RESET) - {"cmd_meta"}  # mn has come since
            self.assertEqual({after[name] for name in set_back}, {"0"})
            self.assertEqual(
                {name: after[name] for name in NOT_RESET},
                {name: before[name] for name in NOT_RESET},
            )

    def test_no_field_has_a_name_that_memcached_does_not_know(self) -> None:
        for what in ("", "settings", "items", "slabs", "sizes"):
            for client in (self.memcached, self.kvdb):
                client(b"set k 0 0 1\r\n1\r\n")
            ours, theirs = (self.stats(each, what) for each in (self.kvdb, self.memcached))
            self.assertLessEqual(ours.keys(), theirs.keys(), what)


class MemccapableTest(unittest.TestCase):
    def test_memcacheds_own_test_of_a_server_passes(self) -> None:
        with running_kvdb_for_memcached() as address:
            done = subprocess.run(
                ["memccapable", "-a", "-h", address.host, "-p", str(address.port)],
                capture_output=True,
                text=True,
                timeout=60,
            )
        output = done.stdout + done.stderr
        self.assertEqual(done.returncode, 0, output)
        self.assertIn("All tests passed", output)
        self.assertNotIn("FAIL", output)


VALUE = {"name": "Grüße", "list": [1, 2.5, None, True]}


class JsonSerde:
    """Text as it is, all else as JSON; the flags tell which."""

    def serialize(self, key: bytes, value: Any) -> tuple[bytes, int]:
        return (value.encode(), 1) if isinstance(value, str) else (json.dumps(value).encode(), 2)

    def deserialize(self, key: bytes, value: bytes, flags: int) -> Any:
        return json.loads(value) if flags == 2 else value.decode()


class ClientsTest(unittest.TestCase):
    """The clients that people use: each sets, reads, compares, counts, touches and deletes."""

    address: Address

    @classmethod
    def setUpClass(cls) -> None:
        cls.address = cls.enterClassContext(running_kvdb_for_memcached())

    def server(self) -> str:
        return f"{self.address.host}:{self.address.port}"

    def pymemcache_clients(self) -> Iterator[tuple[str, Any]]:
        server = (self.address.host, self.address.port)
        for name, how in (
            ("JSON", JsonSerde()),
            ("pickle", serde.pickle_serde),
            ("compressed", serde.compressed_serde),
        ):
            # An error must not look like a miss, so ignore_exc stays off.
            options = {"serde": how, "default_noreply": False, "timeout": 10}
            yield f"plain, {name}", PlainClient(server, **options)
            yield f"pooled, {name}", PooledClient(server, max_pool_size=2, **options)
            yield f"hash, {name}", HashClient([server], use_pooling=True, **options)
            yield f"retrying, {name}", RetryingClient(PlainClient(server, **options), attempts=2)

    def test_pymemcache(self) -> None:
        many = {f"key:{number}": number for number in range(2000)}
        for title, client in self.pymemcache_clients():
            with self.subTest(title):
                client.flush_all()
                self.assertIsNone(client.get("k"))
                self.assertTrue(client.set("k", VALUE, expire=100))
                self.assertEqual(client.get("k"), VALUE)
                self.assertTrue(client.set("text", "Grüße"))
                self.assertEqual(client.get("text"), "Grüße")
                self.assertFalse(client.add("k", "other"))
                self.assertFalse(client.set_many({"a": [1], "b": "2"}))
                self.assertEqual(client.get_many(["a", "b", "no"]), {"a": [1], "b": "2"})
                value, token = client.gets("a")
                self.assertTrue(client.cas("a", [*value, 2], token))
                self.assertFalse(client.cas("a", "too late", token))
                self.assertIsNone(client.cas("no", "no", token))
                self.assertEqual(client.get("a"), [1, 2])
                client.set("n", "10")
                self.assertEqual([client.incr("n", 5), client.decr("n", 3)], [15, 12])
                self.assertIsNone(client.incr("no", 1))
                self.assertTrue(client.touch("k", 100))
                self.assertFalse(client.touch("no", 100))
                self.assertTrue(client.delete("k"))
                self.assertFalse(client.delete("k"))
                client.set("k", "v", noreply=True)
                client.incr("n", 1, noreply=True)
                client.delete("a", noreply=True)
                self.assertEqual(client.get_many(["k", "a", "n"]), {"k": "v", "n": "13"})
                client.set_many(many)
                self.assertEqual(client.get_many(list(many)), many)
                client.close()
        plain = PlainClient((self.address.host, self.address.port))
        self.addCleanup(plain.close)
        self.assertEqual(plain.stats()[b"curr_items"], 2004)
        self.assertIn(b"1.6.18", plain.version())

    def test_pylibmc(self) -> None:
        for no_block in (False, True):
            behaviours = {"cas": True, "tcp_nodelay": True, "no_block": no_block}
            client = pylibmc.Client([self.server()], behaviors=behaviours)
            with self.subTest(no_block=no_block):
                client.flush_all()
                self.assertIsNone(client.get("k"))
                self.assertTrue(client.set("k", VALUE, time=100))
                self.assertEqual(client.get("k"), VALUE)
                self.assertFalse(client.add("k", 1))
                self.assertEqual(client.set_multi({"a": [1], "b": "2"}), [])
                self.assertEqual(client.get_multi(["a", "b", "no"]), {"a": [1], "b": "2"})
                value, token = client.gets("a")
                self.assertTrue(client.cas("a", [*value, 2], token))
                self.assertFalse(client.cas("a", "too late", token))
                self.assertEqual(client.get("a"), [1, 2])
                client.set("n", 10)
                self.assertEqual([client.incr("n", 5), client.decr("n", 3)], [15, 12])
                self.assertEqual(client.get("n"), 12)
                self.assertTrue(client.touch("k", 100))
                self.assertTrue(client.append("b", "3") and client.prepend("b", "1"))
                self.assertEqual(client.get("b"), "123")
                client.set("large", "x" * 100_000, min_compress_len=1000)
                self.assertEqual(client.get("large"), "x" * 100_000)
                self.assertTrue(client.delete("k"))
                self.assertFalse(client.delete("k"))
                self.assertTrue(client.delete_multi(["a", "b"]))
                self.assertEqual(client.get_stats()[0][1]["curr_items"], b"2")
            client.disconnect_all()

    def test_python_memcached(self) -> None:
        client = memcache.Client([self.server()], cache_cas=True, socket_timeout=10)
        self.addCleanup(client.disconnect_all)
        client.flush_all()
        self.assertIsNone(client.get("k"))
        self.assertTrue(client.set("k", VALUE, time=100))
        self.assertEqual(client.get("k"), VALUE)
        self.assertFalse(client.add("k", 1))
        self.assertEqual(client.set_multi({"a": [1], "b": "2"}), [])
        self.assertEqual(client.get_multi(["a", "b", "no"]), {"a": [1], "b": "2"})
        self.assertEqual(client.gets("a"), [1])
        self.assertTrue(client.set("a", [1, 2]))
        self.assertFalse(client.cas("a", "too late"))
        self.assertEqual(client.gets("a"), [1, 2])
        self.assertTrue(client.cas("a", [3]))
        client.set("n", 10)
        self.assertEqual([client.incr("n", 5), client.decr("n", 3)], [15, 12])
        self.assertTrue(client.touch("k", 100))
        self.assertTrue(client.delete("k"))
        self.assertIsNone(client.get("k"))
        self.assertEqual(client.get_stats()[0][1]["curr_items"], "3")

    @unittest.skipUnless(shutil.which("node"), "there is no node on this machine")
    def test_memcached_of_npm(self) -> None:
        # As a file: node looks in NODE_PATH for what it requires.
        with tempfile.NamedTemporaryFile("w", suffix=".js", encoding="utf-8") as script:
            script.write(NODE_SCRIPT)
            script.flush()
            done = subprocess.run(
                ["node", script.name, self.server()], capture_output=True, text=True, timeout=60
            )
        self.assertEqual((done.returncode, done.stdout), (0, "all is well\n"), done.stderr)


NODE_SCRIPT = """
const assert = require('assert');
const { promisify } = require('util');
const Memcached = require('memcached');
const client = new Memcached(process.argv[2], { retries: 0, timeout: 10000 });
const call = (name, ...words) => promisify(client[name]).apply(client, words);
const value = { name: 'Grüße', list: [1, 2.5, null, true] };
async function main() {
  await call('flush');
  assert.strictEqual(await call('get', 'k'), undefined);
  assert.strictEqual(await call('set', 'k', value, 100), true);
  assert.deepStrictEqual(await call('get', 'k'), value);
  await call('set', 'a', 'one', 0);
  await call('set', 'b', 2, 0);
  assert.deepEqual(await call('getMulti', ['a', 'b', 'no']), { a: 'one', b: 2 });
  const { cas } = await call('gets', 'a');
  assert.strictEqual(await call('cas', 'a', 'two', cas, 0), true);
  assert.strictEqual(await call('cas', 'a', 'late', cas, 0), false);
  assert.strictEqual(await call('get', 'a'), 'two');
  assert.strictEqual(await call('incr', 'b', 5), 7);
  assert.strictEqual(await call('decr', 'b', 3), 4);
  assert.strictEqual(await call('touch', 'k', 100), true);
  assert.strictEqual(await call('append', 'a', '!'), true);
  assert.strictEqual(await call('del', 'k'), true);
  assert.strictEqual(await call('get', 'k'), undefined);
  client.end();
}
main().then(() => console.log('all is well'), (error) => { console.error(error); process.exit(1); });
"""
