"""Client-side caching: the same sequences to Redis and to kvdb, and the same replies and pushes.

KVDB_INTEROP_SEED repeats the random part with the seed that a failure names.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import select
import shlex
import unittest

from kvdb.resp.replies import encode_request
from tests.interop.interop_differential import Client
from tests.interop.servers import Address, running_kvdb, running_redis

SEED = int(os.environ.get("KVDB_INTEROP_SEED", random.randrange(10**9)))

SCENARIOS: dict[str, str] = {
    # Who sends it, and the request; `{b}` is the number of client b.
    "one_by_one": """
        a HELLO 3
        a CLIENT TRACKING ON
        a GET k
        b SET k 1
        b SET k 2
        a MGET x y z
        b MSET x 1 y 2 z 3 w 4
        a EXISTS x y
        b DEL x y nothing
        a GET k
        a SET k mine
        a GET k
        a APPEND k more
        a STRLEN k
        b EXPIRE k 100
        a TTL k
        b PERSIST k
        a TYPE k
        b RENAME k l
        a MGET k l
        b RENAME l k
        a GETRANGE k 0 1
        a GETRANGE k 0 x
        b SETRANGE k 0 ''
        b SETRANGE k 0 z
        a GETEX k EX 100
        b SET k 1
        a OBJECT ENCODING k
        b INCR k
        a MEMORY USAGE nothing
        b SET nothing 1
        a TOUCH k
        b GETDEL k
        a GET k
        b SETNX k 1
        a GET k
        b SETNX k 2
        b SET k 2 XX GET
        a EXPIRETIME k
        b COPY nothing k REPLACE
        a WATCH k
        b SET k 3
        a UNWATCH
        a SUBSTR k 0 0
        b GETSET k 4
        a GET k
        b EXPIRE k -1
        a CLIENT TRACKINGINFO
        a CLIENT GETREDIR
        a CLIENT TRACKING OFF
        a GET k
        b SET k 1
        a CLIENT TRACKINGINFO
    """,
    "flushes_and_databases": """
        a HELLO 3
        a CLIENT TRACKING ON
        a GET k
        b FLUSHALL
        b SET k 1
        b FLUSHDB
        a FLUSHALL
        a GET k
        b SELECT 1
        b SET k 1
        a GET k
        b FLUSHDB
        c CLIENT TRACKING ON
        c GET k
        c SET k 2
        a SELECT 3
        a GET k
        b SET k 3
    """,
    "transactions": """
        a HELLO 3
        a CLIENT TRACKING ON
        a MULTI
        a SET x 1
        a GET x
        a GET y
        a SET y 1
        a EXEC
        b MSET x 2 y 2
        a MULTI
        a GET x
        a DISCARD
        b SET x 3
        a MULTI
        a GET x
        a NOSUCH
        a EXEC
        b SET x 4
        b MULTI
        b SET x 5
        b SET z 1
        b EXEC
        a GET z
        b MULTI
        b SET z 5
        b FLUSHALL
        b SET z 1
        b EXEC
        a MULTI
        a CLIENT TRACKING OFF
        a CLIENT TRACKING ON OPTIN
        a CLIENT CACHING YES
        a GET q
        a EXEC
        b SET q 1
    """,
    "opting_in_and_out": """
        a HELLO 3
        a CLIENT CACHING YES
        a CLIENT TRACKING ON OPTIN
        a GET k
        a CLIENT CACHING YES
        a CLIENT TRACKINGINFO
        a CLIENT ID
        a GET l
        a GET m
        b MSET k 1 l 1 m 1
        a CLIENT CACHING YES
        a PING
        a GET k
        a CLIENT CACHING YES
        a MULTI
        a MGET k l
        a GET m
        a EXEC
        a GET n
        b MSET k 2 l 2 m 2 n 2
        a CLIENT CACHING NO
        a CLIENT CACHING FOO
        a CLIENT CACHING
        a CLIENT TRACKING ON OPTOUT
        a CLIENT TRACKING OFF
        a CLIENT TRACKING ON OPTOUT
        a GET k
        a CLIENT CACHING NO
        a CLIENT TRACKINGINFO
        a GET l
        a GET m
        b MSET k 3 l 3 m 3
        a CLIENT CACHING YES
        a CLIENT TRACKING ON
        a GET k
        b SET k 4
    """,
    "broadcasts": """
        a HELLO 3
        a CLIENT TRACKING ON BCAST PREFIX a: PREFIX b:
        b MSET b:2 1 b:1 1 a:1 1 c:1 1
        b DEL a:1 a:2
        a SET a:3 1
        a CLIENT TRACKING ON BCAST PREFIX a:b
        a CLIENT TRACKING ON BCAST PREFIX c:
        b MSET c:2 1 b:1 2
        b MULTI
        b SET a:1 1
        b SET a:1 2
        b SET a:0 2
        b EXEC
        b RENAME a:1 b:5
        a CLIENT TRACKING ON
        a CLIENT TRACKING ON BCAST OPTIN
        a CLIENT TRACKINGINFO
        c HELLO 3
        c CLIENT TRACKING ON BCAST NOLOOP
        c MSET a:1 1 d 1
        b MSET a:1 1 d 1
        c MULTI
        c SET a:1 2
        c EXEC
        b SET e 1 EX 100
        b PEXPIRE e 100000
        b FLUSHALL
        a RESET
        b SET a:1 1
    """,
    "no_loop": """
        a HELLO 3
        a CLIENT TRACKING ON NOLOOP
        c HELLO 3
        c CLIENT TRACKING ON
        a GET k
        c GET k
        a SET k 1
        b SET k 2
        a GET k
        c GET k
        b SET k 3
        a GET k
        a MULTI
        a SET k 4
        a EXEC
        a FLUSHALL
    """,
    "redirection": """
        b CLIENT ID
        a CLIENT TRACKING ON REDIRECT {b}
        a CLIENT GETREDIR
        a GET k
        c SET k 1
        b SUBSCRIBE __redis__:invalidate
        a GET k
        c SET k 2
        c FLUSHALL
        a MGET x y
        c MSET x 1 y 2
        a CLIENT TRACKING ON BCAST REDIRECT {b}
        a CLIENT TRACKING OFF
        a CLIENT TRACKING ON BCAST REDIRECT {b}
        c MSET x 1 y 2
        c PUBLISH __redis__:invalidate own
        b UNSUBSCRIBE
        c SET x 1
        b HELLO 3
        c SET x 2
        b SUBSCRIBE other
        c SET x 3
        a CLIENT TRACKINGINFO
    """,
    "broken_redirection": """
        a HELLO 3
        b SUBSCRIBE __redis__:invalidate
        a CLIENT TRACKING ON REDIRECT {b}
        a MGET k l m
        c SET k 1
        b QUIT
        c SET l 1
        c SET m 1
        a CLIENT TRACKINGINFO
        a CLIENT TRACKING ON
        a CLIENT TRACKINGINFO
        a GET k
        c SET k 2
    """,
    "what_is_refused": """
        a CLIENT TRACKING
        a CLIENT TRACKING FOO
        a CLIENT TRACKING ON FOO
        a CLIENT TRACKING OFF FOO
        a CLIENT TRACKING ON REDIRECT
        a CLIENT TRACKING ON REDIRECT x
        a CLIENT TRACKING ON REDIRECT 0
        a CLIENT TRACKING ON REDIRECT 99999
        a CLIENT TRACKING FOO REDIRECT 99999
        a CLIENT TRACKING ON REDIRECT {b} REDIRECT {b}
        a CLIENT TRACKING ON PREFIX
        a CLIENT TRACKING ON PREFIX a
        a CLIENT TRACKING ON OPTIN OPTOUT
        a CLIENT TRACKING ON BCAST OPTOUT
        a CLIENT TRACKING ON BCAST PREFIX a PREFIX ab
        a CLIENT TRACKING ON BCAST PREFIX ab PREFIX a
        a CLIENT TRACKING ON BCAST PREFIX a PREFIX a
        a CLIENT TRACKINGINFO
        a CLIENT TRACKINGINFO x
        a CLIENT GETREDIR x
        a CLIENT CACHING
        a CLIENT CACHING YES
        a CLIENT CACHING FOO
        a CLIENT TRACKING ON
        a CLIENT CACHING YES
        a CLIENT CACHING NO
        a CLIENT CACHING YES NO
        a CLIENT TRACKING ON BCAST
        a CONFIG GET tracking-table-max-keys
        a CONFIG SET tracking-table-max-keys x
        a CONFIG SET tracking-table-max-keys -1
        a RESET
        a CLIENT TRACKINGINFO
    """,
}


def _in_any_order(reply: bytes) -> bytes:
    """Return a reply in which the flags of CLIENT TRACKINGINFO are sorted: they are a set."""

    def sort(found: re.Match[bytes]) -> bytes:
        flags = sorted(re.findall(rb"\$\d+\r\n[a-z_-]+\r\n", found[2]))
        return found[1] + b"".join(flags) + found[3]

    pattern = rb"(\$5\r\nflags\r\n[*~]\d+\r\n)(.*?)(\$8\r\nredirect)"
    return re.sub(pattern, sort, reply, flags=re.DOTALL)


_END = rb"-ERR syntax error|\+PONG|\*2\r\n\$4\r\npong"
"""What answers the request that asks for all that has come before."""


class Talk:
    """Three clients of one server."""

    def __init__(self, address: Address) -> None:
        self.clients = {name: Client(address) for name in "abc"}
        self.numbers = {name: client(b"CLIENT", b"ID") for name, client in self.clients.items()}
        self.clients["a"](b"FLUSHALL")
        self._queuing: set[str] = set()
        self._subscribed: set[str] = set()
        self._early: dict[str, list[bytes]] = {}

    def request(self, line: str) -> bytes:
        """Send a line of a scenario; return the reply, the numbers of clients by their names."""
        name, *words = shlex.split(line)
        numbers = {each: number[1:-2].decode() for each, number in self.numbers.items()}
        request = [word.format(**numbers).encode() for word in words]
        reply = self.clients[name](*request)
        while reply.startswith(b">") and words[0].startswith("FLUSH"):  # Redis 8 tells it first
            self._early.setdefault(name, []).append(reply)
            reply = self.clients[name].reply()
        for state, begin, ends in (
            (self._queuing, "MULTI", ("EXEC", "DISCARD", "RESET")),
            (self._subscribed, "SUBSCRIBE", ("UNSUBSCRIBE", "RESET")),
        ):
            if words[0] == begin:
                state.add(name)
            elif words[0] in ends:
                state.discard(name)
        if words[0] == "HELLO":
            return b""  # what servers say of themselves differs
        if words == ["QUIT"]:
            self.clients.pop(name).close()
        return self._without_numbers(_in_any_order(reply)) if words[0] == "CLIENT" else reply

    def _without_numbers(self, reply: bytes) -> bytes:
        for each, number in self.numbers.items():
            reply = reply.replace(number, b":<%b>\r\n" % each.encode())
        return reply

    def pushed(self) -> dict[str, list[bytes]]:
        """Return what each client has been told since: behind it comes the answer to a request.

        A PING would end what CLIENT CACHING has begun, and anything would be queued by MULTI.
        """
        told = {}
        for name, client in self.clients.items():
            if name in self._queuing:
                continue
            end = [b"PING"] if name in self._subscribed else [b"CLIENT", b"TRACKING", b"FOO"]
            client.send(encode_request(end))
            messages: list[bytes] = []
            while not re.match(_END, reply := client.reply()):
                assert reply, "the connection has ended"
                is_broken = b"redir-broken" in reply
                messages.append(self._without_numbers(reply) if is_broken else reply)
            told[name] = messages
            messages[:0] = self._early.pop(name, [])
        return told

    def close(self) -> None:
        for client in self.clients.values():
            client.close()


class TrackingInterop(unittest.TestCase):
    redis: Address
    kvdb: Address

    @classmethod
    def setUpClass(cls) -> None:
        stack = contextlib.ExitStack()
        cls.addClassCleanup(stack.close)
        cls.redis = stack.enter_context(running_redis())
        cls.kvdb = stack.enter_context(running_kvdb())

    def compare(self, lines: list[str]) -> None:
        talks = Talk(self.redis), Talk(self.kvdb)
        try:
            for number, line in enumerate(lines):
                expected, actual = (talk.request(line) for talk in talks)
                told, told_by_us = (talk.pushed() for talk in talks)
                place = "\n".join(lines[: number + 1])
                self.assertEqual(expected, actual, place)
                self.assertEqual(told, told_by_us, place)
        finally:
            for talk in talks:
                talk.close()

    def test_scenarios(self) -> None:
        for name, text in SCENARIOS.items():
            with self.subTest(name):
                self.compare([line.strip() for line in text.strip().splitlines()])

    def test_random_sequences(self) -> None:
        for number in range(40):
            seed = SEED + number
            with self.subTest(KVDB_INTEROP_SEED=seed):
                self.compare(random_lines(random.Random(seed)))

    def test_a_key_that_expires_is_told_without_anybody_asking(self) -> None:
        for address in (self.redis, self.kvdb):
            talk = Talk(address)
            for line in ("a HELLO 3", "a CLIENT TRACKING ON", "b SET k 1 PX 50", "a GET k"):
                talk.request(line)
            reader = talk.clients["a"]
            self.assertTrue(select.select([reader._socket], [], [], 5)[0])
            self.assertEqual(reader.reply(), b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n")
            talk.close()

    def test_beyond_the_limit_as_many_are_forgotten(self) -> None:
        for address in (self.redis, self.kvdb):
            talk = Talk(address)
            talk.request("a HELLO 3")
            talk.request("a CLIENT TRACKING ON")
            talk.request("b CONFIG SET tracking-table-max-keys 3")
            talk.request("a MGET a b c d e f g")
            self.assertEqual(len(talk.pushed()["a"]), 4, address)
            talk.request("b CONFIG SET tracking-table-max-keys 1000000")
            told = [talk.request(f"b SET {name} 1") and talk.pushed()["a"] for name in "abcdefg"]
            self.assertEqual(len([each for each in told if each]), 3, address)
            talk.close()

    def test_the_list_of_clients_shows_it(self) -> None:
        for options, flags in (("", "t"), (" BCAST", "tB"), (" REDIRECT {b}", "t")):
            shown = []
            for address in (self.redis, self.kvdb):
                talk = Talk(address)
                talk.request(f"a CLIENT TRACKING ON{options}")
                text = (
                    talk.request("a CLIENT INFO").decode() + talk.request("a INFO clients").decode()
                )
                found = re.findall(r"flags=\w+|redir=\d+|tracking_clients:\d+", text)
                number = talk.numbers["b"][1:-2].decode()
                shown.append([each.replace(f"redir={number}", "redir=b") for each in found])
                talk.request("a CLIENT TRACKING OFF")
                talk.close()
            self.assertEqual(shown[0], shown[1])
            self.assertIn(f"flags={flags}", shown[0])


def random_lines(chance: random.Random) -> list[str]:
    """Return a sequence of requests by three clients, of which two or three track."""
    lines = ["a HELLO 3", "b HELLO 3"]
    for name in "abc":
        mode = chance.choice(("", "NOLOOP", "OPTIN", "OPTOUT", "BCAST", "BCAST NOLOOP",
                              "BCAST PREFIX k1 PREFIX k2", "OPTIN NOLOOP"))  # fmt: skip
        if name != "c":
            lines.append(f"{name} CLIENT TRACKING ON {mode}")
    names = [f"k{number}" for number in range(6)]

    def request() -> str:
        key, other = chance.choice(names), chance.choice(names)
        return chance.choice((
            f"GET {key}", f"GET {key}", f"GET {key}", f"MGET {key} {other}", f"EXISTS {key}",
            f"STRLEN {key}", f"TYPE {key}", f"TTL {key}", f"SET {key} 1", f"DEL {key} {other}",
            f"MSET {key} 1 {other} 2", f"INCR {key}", f"APPEND {key} 0", f"SETNX {key} 1",
            f"RENAME {key} {other}", f"RENAMENX {key} {other}", f"EXPIRE {key} 100",
            f"PERSIST {key}", f"COPY {key} {other}", f"GETDEL {key}", f"GETEX {key} PERSIST",
            "CLIENT CACHING YES", "CLIENT CACHING NO", "PING", f"SET {key} 1 NX", f"INCR {key} x",
            f"SET {key} 1 XX GET", f"EXPIRE {key} -1", f"MSETNX {key} 1 {other} 2",
        ))  # fmt: skip

    for _ in range(60):
        name = chance.choice("abc")
        if chance.random() < 0.1:
            lines.append(f"{name} MULTI")
            lines += [f"{name} {request()}" for _ in range(chance.randrange(1, 5))]
            lines.append(f"{name} {chance.choice(('EXEC', 'EXEC', 'EXEC', 'DISCARD'))}")
        elif chance.random() < 0.02:
            lines.append(f"{name} {chance.choice(('FLUSHALL', 'FLUSHDB'))}")
        else:
            lines.append(f"{name} {request()}")
    return lines
