"""The same bytes to Redis and to kvdb: the replies must be the same, byte for byte.

What may differ is in KNOWN_DIFFERENCES and in KNOWN_STREAM_DIFFERENCES, each with its reason;
what a Redis newer than 7.0 or a Valkey answers differently is in newer_servers.py.
KVDB_INTEROP_SEED repeats the random part with the seed that a failure names.
"""

from __future__ import annotations

import codecs
import io
import os
import random
import re
import shlex
import socket
import unittest
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from kvdb import rdb
from kvdb.resp.replies import encode_request
from tests.interop import curated_commands, curated_values
from tests.interop.newer_servers import (
    hello_as_before,
    is_new_reply,
    is_new_stream,
    is_one_of,
    may_differ,
)
from tests.interop.servers import Address, RedisAddress, running_kvdb, running_redis

Request = list[bytes]

SCENARIOS = curated_commands.SCENARIOS | curated_values.SCENARIOS
OF_NEWER = curated_values.OF_NEWER

SEED = int(os.environ.get("KVDB_INTEROP_SEED", random.randrange(10**9)))
FULL = os.environ.get("KVDB_INTEROP_FULL") == "1"


# --- a client that leaves replies as the bytes that they are -------------------------------


def read_reply(stream: io.BufferedIOBase) -> bytes:
    """Return the bytes of one whole reply; what there is of it, if the connection ends."""
    line = stream.readline()
    kind, rest = line[:1], line[1:-2]
    if rest == b"-1" or not line.endswith(b"\r\n"):
        return line
    if kind in b"$=!":
        return line + stream.read(int(rest) + 2)
    if kind in b"*~>%":
        count = int(rest) * (2 if kind == b"%" else 1)
        return line + b"".join(read_reply(stream) for _ in range(count))
    return line


class Client:
    """One connection to one server."""

    def __init__(self, address: Address) -> None:
        self._socket = address.connect()
        self._stream = self._socket.makefile("rb")

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def reply(self) -> bytes:
        return read_reply(self._stream)  # type: ignore[arg-type]

    def __call__(self, *request: bytes) -> bytes:
        self.send(encode_request(request))
        return self.reply()

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


def replies_to(address: Address, data: bytes, bytewise: bool = False) -> bytes:
    """Send a stream on a connection of its own; return all that comes back until its end."""
    connection = address.connect()
    with connection:
        try:
            for piece in [bytes([byte]) for byte in data] if bytewise else [data]:
                connection.sendall(piece)
            connection.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # closed before it has read everything: what was answered still counts
        received = b""
        try:
            while piece := connection.recv(65536):
                received += piece
        except ConnectionResetError:
            pass
        return received


# --- what may differ ----------------------------------------------------------------------


class Difference(NamedTuple):
    """A kind of request whose replies may differ, after `normalise` they must be the same."""

    requests: str  # pattern of the request's words, in upper case, joined by spaces
    normalise: Callable[[bytes], object]
    reason: str


def _kind(reply: bytes) -> bytes:
    return reply[:1]


def _anything(reply: bytes) -> object:
    return None


def _sorted(reply: bytes) -> object:
    """Return the parts of a reply without their order: good enough for arrays of strings."""
    return reply[:1], sorted(re.findall(rb"\$\d+\r\n.*?\r\n(?=\$|\*|\Z)", reply, re.DOTALL))


class _Near:
    """A whole number that equals another one nearby."""

    def __init__(self, number: int, tolerance: int) -> None:
        self._number, self._tolerance = number, tolerance

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, _Near):
            return False
        if min(self._number, other._number) < 0:  # -1 and -2 have meanings of their own
            return self._number == other._number
        return abs(self._number - other._number) <= self._tolerance

    __hash__ = None  # type: ignore[assignment]


def _near(tolerance: int) -> Callable[[bytes], object]:
    def normalise(reply: bytes) -> object:
        return _Near(int(reply[1:]), tolerance) if reply.startswith(b":") else reply

    return normalise


def _dumped(reply: bytes) -> object:
    """Return what is in a dump."""
    return rdb.load(reply.split(b"\r\n", 1)[1][:-2], 10**6) if reply[:2] != b"$-" else reply


def _hello(reply: bytes) -> bytes:
    """Blank out what HELLO tells of the server: its version, the connection's number.

    And the words in which Redis 7.2 explains HELLO better than 7.0 does.
    """
    reply = reply.replace(b"HELLO <proto> AUTH", b"HELLO AUTH")
    reply = re.sub(rb"(version\r\n)\$\d+\r\n[\d.]+", rb"\1VERSION", reply)
    return re.sub(rb"(id\r\n):\d+", rb"\1:ID", reply)


KNOWN_DIFFERENCES = [
    Difference("(TTL|EXPIRETIME) .*", _near(1), "the servers get it at different moments"),
    Difference("(PTTL|PEXPIRETIME) .*", _near(1000), "the servers get it at different moments"),
    Difference("KEYS .*", _sorted, "the order of keys is not promised"),
    Difference("SCAN .*", _sorted, "the order of keys is not promised"),
    Difference("COMMAND LIST .*", _sorted, "the order of commands is not promised"),
    Difference("CONFIG GET .*", _sorted, "the order of parameters is not promised"),
    Difference("RANDOMKEY", _kind, "random"),
    Difference("HELLO.*|EXEC", _hello, "version, number of the connection"),
    Difference("SCAN (-1||\\+0)", _anything, "Redis takes what strtoul takes; we want digits"),
    Difference(
        "SET TWICE .*|GETEX K PERSIST PERSIST", _anything, "options given twice are an error"
    ),
    Difference("INCRBYFLOAT EXACT .*", _kind, "we add exactly, not in 80 bits"),
    Difference(
        "COMMAND GETKEYS(ANDFLAGS)? (PING|GET|NOSUCH)", _kind, "an arity that changed in Redis 7.2"
    ),
    Difference(
        "CONFIG SET (MAXMEMORY-POLICY FOO|MAXCLIENTS 0|LOGLEVEL FOO)",
        _kind,
        "the text lists the choices, and ours are others",
    ),
    Difference("CONFIG SET MAXMEMORY ", _anything, "Redis takes nothing for 0"),
    Difference("DUMP .*", _dumped, "version; we dump neither as a number nor compressed"),
    Difference("OBJECT IDLETIME A", _anything, "we know the order of use, not the time"),
    Difference("\\x00\\x01 .*", _kind, "Redis shows what is before the NUL"),
]


def same(
    server: RedisAddress,
    request: Request,
    expected: bytes,
    actual: bytes,
    scenario: str | None = None,
) -> bool:
    if expected == actual or is_new_reply(server, request, expected, actual, scenario):
        return True
    words = b" ".join(request).decode("latin-1").upper()
    if re.fullmatch("HELLO.*|EXEC", words, re.DOTALL):
        expected = hello_as_before(server, expected)
    return any(
        known.normalise(expected) == known.normalise(actual)
        for known in KNOWN_DIFFERENCES
        if re.fullmatch(known.requests, words, re.DOTALL)
    )


# --- the suites ---------------------------------------------------------------------------


class _TwoServers(unittest.TestCase):
    redis: RedisAddress
    kvdb: Address
    version = 2

    @classmethod
    def setUpClass(cls) -> None:
        cls.redis = cls.enterClassContext(running_redis())
        flags = ("data.json", "--enable-debug-command", "local")
        cls.kvdb = cls.enterClassContext(running_kvdb(*flags))

    def connect(self) -> tuple[Client, Client]:
        """Return a connection to Redis and one to kvdb, in the RESP version of this suite."""
        clients = Client(self.redis), Client(self.kvdb)
        for client in clients:
            self.addCleanup(client.close)
            if self.version == 3:
                self.assertIn(b"proto\r\n:3", client(b"HELLO", b"3"))
        return clients

    def forget_everything(self) -> None:
        for client in self.connect():
            self.assertEqual(client(b"FLUSHALL"), b"+OK\r\n")

    @contextmanager
    def differences(self, what: str) -> Iterator[list[str]]:
        """Collect the differences, to show all of them at once."""
        found: list[str] = []
        yield found
        if found:
            server = f"{self.redis.name} {'.'.join(map(str, self.redis.version))}"
            title = f"{len(found)} differences to {server}, {what}"
            self.fail("\n".join([f"{title}:", *found[:40]]))

    def compare_streams(
        self, streams: dict[str, bytes], bytewise: bool, found: list[str], limit: int | None = None
    ) -> None:
        """Send each stream to both servers; to kvdb byte by byte, if so told."""
        for name, stream in streams.items():
            if bytewise and limit is not None and len(stream) > limit:
                continue
            self.forget_everything()
            data = _with_tail(name, stream)
            expected = _hello(hello_as_before(self.redis, replies_to(self.redis, data)))
            actual = _without_hints(_hello(replies_to(self.kvdb, data, bytewise)))
            if expected != actual and not is_new_stream(self.redis, name, expected, actual):
                found.append(_show([stream], expected, actual, f"{name}: "))


def _without_hints(replies: bytes) -> bytes:
    """Return replies without what kvdb tells a person who types: see kvdb/commands/hints.py."""
    replies = re.sub(rb" \(HELP \w+ tells how it is written\)", b"", replies)
    replies = re.sub(rb"(HELP\.) \((did[^)]*|HELP[^)]*)\)", rb"\1", replies)
    return re.sub(
        rb"\((did you mean [^)]*\?|kvdb has no [^)]*|HELP lists the commands)\)", b"", replies
    )


def _show(request: Request, expected: bytes, actual: bytes, note: str = "") -> str:
    words = " ".join(repr(word)[1:][:200] for word in request)
    return f"  {note}{words}\n    redis {expected[:400]!r}\n    kvdb  {actual[:400]!r}"


def parse_scenario(text: str) -> Iterator[tuple[int, Request]]:
    """Return the requests, each with the number (1 or 2) of the client that sends it."""
    for line in text.strip().splitlines():
        first, *rest = words = shlex.split(line)
        client, words = (2, rest) if first == "@2" else (1, words)
        yield client, [codecs.escape_decode(word.encode())[0] for word in words]  # type: ignore[attr-defined]


class _Curated(_TwoServers):
    def run_scenario(self, name: str) -> None:
        if name in OF_NEWER:
            since, text = OF_NEWER[name]
            if not is_one_of(self.redis, since):
                self.skipTest("the server does not have these commands")
        else:
            text = SCENARIOS[name]
        self.forget_everything()
        clients = {1: self.connect(), 2: self.connect()}
        with self.differences(f"RESP{self.version}, {name}") as found:
            for number, (client, request) in enumerate(parse_scenario(text), 1):
                redis, kvdb = clients[client]
                expected, actual = redis(*request), kvdb(*request)
                if not same(self.redis, request, expected, actual, name):
                    found.append(_show(request, expected, actual, f"{number}: "))


def _add_scenarios() -> None:
    for name in (*SCENARIOS, *OF_NEWER):

        def test(self: _Curated, name: str = name) -> None:
            self.run_scenario(name)

        setattr(_Curated, f"test_{name}", test)


_add_scenarios()


class CuratedInResp2(_Curated):
    version = 2


class CuratedInResp3(_Curated):
    version = 3


KEYS = [b"a", b"b", b"c", b"n", b"n2"]
NUMBERS = [b"0", b"1", b"-1", b"7", b"9223372036854775807", b"-9223372036854775808", b"1.5", b"x"]
VALUES = [b"", b"v", b"10", b"-3", b"9223372036854775806", b"0.25", b"\x00\r\n\xff", b"long" * 20]
# Far apart, so that the time which passes between two requests decides nothing.
SECONDS = [b"1000", b"5000", b"0", b"-1", b"x"]
MOMENTS = [b"4102444800", b"4202444800", b"4302444800", b"1", b"x"]
TEMPLATES = [
    line.split()
    for line in """
    SET K V|SET K V|SET K V NX|SET K V XX GET|SET K V EX S|SET K V KEEPTTL|SET K V EXAT L NX
    SET K V GET|SETNX K V|SETEX K S V|GET K|GET K|GET K|GETSET K V|GETDEL K|GETEX K|GETEX K EX S
    GETEX K PERSIST|MGET K K K|MSET K V K V|MSETNX K V K V|APPEND K V|STRLEN K|GETRANGE K N N
    SETRANGE K R V|INCR K|INCR K|DECR K|INCRBY K N|DECRBY K N|INCRBYFLOAT f F|SET f 0.25|GET f|DEL K|DEL K K|UNLINK K
    EXISTS K K K|TOUCH K K|TYPE K|EXPIRE K S|EXPIRE K S NX|EXPIRE K S XX|PEXPIREAT K M000 GT
    EXPIREAT K M LT|EXPIREAT K M GT|PEXPIREAT K M000|TTL K|PTTL K|EXPIRETIME K|PEXPIRETIME K
    PERSIST K|KEYS *|SCAN 0 COUNT 1000|DBSIZE|RENAME K K|RENAMENX K K|COPY K K|COPY K K REPLACE
    COPY K K DB 1|MOVE K 1|SELECT 1|SELECT 0|SELECT 0|MULTI|MULTI|EXEC|EXEC|EXEC
    DISCARD|WATCH K|WATCH K K|UNWATCH|FLUSHDB|PING|ECHO V|GET|SET K|NOSUCH K K|SET K V FOO
    EXPIRE K N FOO|PUBLISH K V|SPUBLISH K V|PUBSUB NUMPAT|PUBSUB CHANNELS|PUBSUB NUMSUB K K|RESETVERSION|SETBIT K O B|SETBIT K O B|GETBIT K O|BITCOUNT K|BITCOUNT K I I BIT
    BITCOUNT K I I|BITPOS K B|BITPOS K B I|BITPOS K B I I BIT|BITOP AND K K K|BITOP OR K K K
    BITOP XOR K K K|BITOP NOT K K|BITFIELD K GET T O SET T O N|BITFIELD_RO K GET T O
    BITFIELD K OVERFLOW SAT INCRBY T O N OVERFLOW FAIL INCRBY T O N SET T O N
    LCS K K|LCS K K LEN|LCS K K IDX WITHMATCHLEN|SWAPDB 0 1
    """.replace("\n", "|").split("|")
    if line.strip()
]
NOT_COMPARABLE_IN_EXEC = {b"TTL", b"PTTL", b"EXPIRETIME", b"PEXPIRETIME", b"KEYS", b"SCAN"}


class RequestSource:
    """Random requests; knows what of the state of a connection decides which are comparable."""

    def __init__(self, chance: random.Random, server: RedisAddress) -> None:
        self._chance, self._server = chance, server
        self.in_transaction = False

    def next(self) -> Request:
        while True:
            request = [self._fill(word) for word in self._chance.choice(TEMPLATES)]
            if request[0] == b"RESETVERSION":
                request = [b"HELLO", self._chance.choice([b"2", b"3"])]
                if self.in_transaction:
                    continue
            if not self.in_transaction:
                break
            if request[0] not in NOT_COMPARABLE_IN_EXEC and not may_differ(self._server, request):
                break
        if request == [b"MULTI"]:
            self.in_transaction = True
        elif request in ([b"EXEC"], [b"DISCARD"]):
            self.in_transaction = False
        return request

    def _fill(self, word: str) -> bytes:
        chance = self._chance
        match word:
            case "K":
                return chance.choice(KEYS)
            case "V":
                return chance.choice(VALUES)
            case "N":
                return chance.choice(NUMBERS)
            case "O":
                return chance.choice([b"0", b"7", b"12", b"#3", b"300", b"-1", b"x"])
            case "B":
                return chance.choice([b"0", b"1", b"1", b"2"])
            case "I":  # Redis 7.0 overlooks what is no number where there is no key
                return chance.choice([b"0", b"1", b"-1", b"7", b"-5", b"-1000", b"1000"])
            case "T":
                return chance.choice([b"u8", b"i8", b"u1", b"i5", b"u63", b"i64", b"u64"])
            case "R":
                return chance.choice([b"0", b"3", b"30", b"-1", b"x"])
            case "F":
                return chance.choice([b"0.5", b"-0.25", b"3", b"1e3", b"x"])
            case "S":
                return chance.choice(SECONDS)
            case "M":
                return chance.choice(MOMENTS)
            case "L":  # later: Redis's DBSIZE counts what has expired for a while
                return chance.choice(MOMENTS[:3])
            case "M000":
                return chance.choice(MOMENTS) + b"000"
        return word.encode()


class _Random(_TwoServers):
    def test_random_sequences_are_answered_alike(self) -> None:
        for sequence in range(400 if FULL else 40):
            self.run_sequence(SEED + sequence)

    def run_sequence(self, seed: int) -> None:
        chance = random.Random(seed)
        self.forget_everything()
        connections = [self.connect(), self.connect()]
        sources = [RequestSource(chance, self.redis), RequestSource(chance, self.redis)]
        history: list[str] = []
        with self.differences(f"RESP{self.version}, KVDB_INTEROP_SEED={seed}") as found:
            while len(history) < 300 and not found:
                client = chance.randrange(2)
                source, (redis, kvdb) = sources[client], connections[client]
                batch = [source.next() for _ in range(chance.choice([1, 1, 1, 2, 5]))]
                data = b"".join(encode_request(request) for request in batch)
                redis.send(data)
                kvdb.send(data)
                for request in batch:
                    expected, actual = redis.reply(), kvdb.reply()
                    history.append(_show(request, expected, actual, f"@{client + 1} "))
                    if not same(self.redis, request, expected, actual):
                        found.append("\n".join(history[-15:]))
            if not found:
                self.compare_all_keys(found)
        for pair in connections:
            for each in pair:
                each.close()

    def compare_all_keys(self, found: list[str]) -> None:
        redis, kvdb = self.connect()
        for db in (b"0", b"1"):
            for request in [
                [b"SELECT", db],
                [b"DBSIZE"],
                *([b"GET", key] for key in KEYS),
                *([b"PTTL", key] for key in KEYS),
            ]:
                expected, actual = redis(*request), kvdb(*request)
                if not same(self.redis, request, expected, actual):
                    found.append(_show(request, expected, actual, "in the end "))


class Dumps(_TwoServers):
    """What one server has dumped the other takes, and it is the same value there."""

    def test_values_move_both_ways(self) -> None:
        chance = random.Random(SEED)
        self.forget_everything()
        redis, kvdb = self.connect()
        values = [b"", b"0", b"-1", b"127", b"128", b"-129", b"40000", b"2147483648", b"007"]
        values += [b"a" * length for length in (20, 63, 64, 1_000, 16_384, 300_000)]
        values += [b"abcabcab" * 50 + chance.randbytes(30) + b"abcabc" * 9]
        values += [chance.randbytes(chance.randrange(200)) for _ in range(50)]
        values += [bytes(chance.choices(b"ab", k=chance.randrange(2_000))) for _ in range(100)]
        for value in values:
            for source, destination in ((redis, kvdb), (kvdb, redis)):
                self.assertEqual(source(b"SET", b"k", value), b"+OK\r\n")
                dumped = _bulk(source(b"DUMP", b"k"))
                restored = destination(b"RESTORE", b"k", b"0", dumped, b"REPLACE")
                self.assertEqual(restored, b"+OK\r\n", (SEED, value[:100]))
                self.assertEqual(_bulk(destination(b"GET", b"k")), value, SEED)


def _bulk(reply: bytes) -> bytes:
    return reply.split(b"\r\n", 1)[1][:-2]


class RandomInResp2(_Random):
    version = 2


class RandomInResp3(_Random):
    version = 3


# --- streams: what is not a well-formed request, and what follows it -----------------------

TAIL = b"*2\r\n$4\r\nECHO\r\n$4\r\ntail\r\n"
"""Follows every stream, to show whether the connection is still open and in step.

But not those "without an end", whose end it would be.
"""


def _with_tail(name: str, stream: bytes) -> bytes:
    return stream if name.endswith("without an end") else stream + TAIL


PLAIN_SET = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n"
PLAIN_GET = b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"

STREAMS: dict[str, bytes] = {
    "empty lines": b"\r\n\n\r\nPING\r\n",
    "spaces only": b"   \r\n\t\r\nPING\r\n",
    "no arguments": b"*0\r\n*-1\r\n*-10\r\nPING\r\n",
    "bare newlines": b"SET k v\nGET k\n",
    "mixed": PLAIN_SET + b"GET k\r\n" + PLAIN_GET + b"get k\n",
    "count is a word": PLAIN_SET + b"*abc\r\n" + PLAIN_GET,
    "count is empty": b"*\r\n",
    "count has a space": b"* 1\r\n$4\r\nPING\r\n",
    "count has a plus": b"*+1\r\n$4\r\nPING\r\n",
    "count has a zero in front": b"*01\r\n$4\r\nPING\r\n",
    "count is too big": b"*2147483648\r\n",
    "count is far too big": b"*99999999999999999999999\r\n",
    "count is minus zero": b"*-0\r\nPING\r\n",
    "length is negative": b"*1\r\n$-10\r\n",
    "length is minus one": b"*1\r\n$-1\r\n",
    "length is a word": b"*1\r\n$blabla\r\n",
    "length has a plus": b"*1\r\n$+4\r\nPING\r\n",
    "length has a space": b"*1\r\n$ 4\r\nPING\r\n",
    "length has a zero in front": b"*1\r\n$04\r\nPING\r\n",
    "length is too big": b"*2\r\n$3\r\nGET\r\n$2000000000\r\n",
    "length is far too big": b"*1\r\n$99999999999999999999\r\n",
    "length is empty": b"*1\r\n$\r\n\r\n",
    "length is zero": b"*1\r\n$0\r\n\r\n",
    "no dollar": b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n",
    "an integer for an argument": b"*2\r\n$3\r\nGET\r\n:1\r\n",
    "an array in an array": b"*2\r\n*1\r\n$3\r\nGET\r\n",
    "good requests before a bad one": PLAIN_SET * 3 + b"*1\r\n$x\r\n" + PLAIN_GET,
    "long line without an end": b"x" * 70_000,
    "long count without an end": b"*" + b"1" * 70_000,
    "long length without an end": b"*1\r\n$" + b"1" * 70_000,
    "long key inline": b"SET " + b"k" * 60_000 + b" v\r\nGET " + b"k" * 60_000 + b"\r\n",
    "double quotes": b'SET k "hello world"\r\nGET k\r\n',
    "escapes": b'SET k "\\x41\\n\\t\\r\\a\\b\\\\\\"\\q\\xZZ\\x4"\r\nGET k\r\n',
    "single quotes": b"SET k 'a \"b\" \\' \\n \\\\'\r\nGET k\r\n",
    "empty quotes": b"SET k \"\"\r\nGET k\r\nSET k ''\r\nGET k\r\n",
    "quotes within a word": b"SET k a\"b c\"\r\nGET k\r\nSET k x'y z'\r\nGET k\r\n",
    "quoted command": b'"PING"\r\n\'ping\'\r\n"PI"\r\n',
    "open double quote": b'SET k "a\r\nPING\r\n',
    "open single quote": b"SET k 'a\r\nPING\r\n",
    "no space after a double quote": b'SET k "a"b\r\nPING\r\n',
    "no space after a single quote": b"SET k 'a'b\r\nPING\r\n",
    "two quoted words joined": b'SET k "a""b"\r\nPING\r\n',
    "backslash at the end": b'SET k "a\\"\r\n',
    "backslash outside of quotes": b"SET k a\\nb\r\nGET k\r\n",
    "tabs between words": b"SET\tk\t v\r\nGET \t k  \r\n",
    "other white space between words": b"SET k a\x0bb\x0cc\r\nGET k\r\n",
    "carriage return within a line": b"SET k a\rb\r\nGET k\r\n",
    "two carriage returns": b"PING\r\r\n",
    "bytes above 127": b"SET k \xff\xfe\xc3\xa4\r\nGET k\r\n",
    "POST": b"POST / HTTP/1.1\r\nHost: x\r\n\r\n" + PLAIN_SET,
    "post in small letters": b"post / HTTP/1.1\r\n" + PLAIN_SET,
    "Host": b"Host: localhost\r\n" + PLAIN_SET,
    "random bytes": b"\xde\xad\xbe\xef \x80\x81\r\n",
    "unknown command inline": b"STE k v\r\nPING\r\n",
    "wrong arity inline": b"GET\r\nGET a b\r\nPING\r\n",
    "HELLO in a pipeline": b"GET x\r\nHELLO 3\r\nGET x\r\nHELLO 2\r\nGET x\r\n",
    "QUIT in a pipeline": b"PING\r\nQUIT\r\nPING\r\n",
    "quit as an array": b"*1\r\n$4\r\nquit\r\n" + PLAIN_SET,
    "QUIT in a transaction": b"MULTI\r\nSET k v\r\nQUIT\r\nEXEC\r\n",
    "QUIT with an argument": b"QUIT now\r\nPING\r\n",
    "RESET in a pipeline": b"HELLO 3\r\nSELECT 3\r\nMULTI\r\nGET x\r\nRESET\r\nGET x\r\n",
    "CLIENT REPLY OFF": b"CLIENT REPLY OFF\r\nSET k v\r\nNOSUCH\r\nCLIENT REPLY ON\r\nGET k\r\n",
    "CLIENT REPLY SKIP": b"CLIENT REPLY SKIP\r\nSET k v\r\nGET k\r\n",
    "CLIENT REPLY SKIP twice": b"CLIENT REPLY SKIP\r\nCLIENT REPLY SKIP\r\nGET k\r\nGET k\r\n",
    "CLIENT REPLY SKIP when off": b"CLIENT REPLY OFF\r\nCLIENT REPLY SKIP\r\nPING\r\nPING\r\n",
    "CLIENT REPLY OFF then HELLO": b"CLIENT REPLY OFF\r\nHELLO 3\r\nRESET\r\nPING\r\n",
    "CLIENT REPLY OFF and EXEC": b"CLIENT REPLY OFF\r\nMULTI\r\nSET k v\r\nEXEC\r\nCLIENT REPLY ON\r\n",
    "subscriptions": b"SUBSCRIBE a b\r\nGET x\r\nPING\r\nPING hi\r\nUNSUBSCRIBE b\r\nPSUBSCRIBE p*\r\n"
    b"UNSUBSCRIBE\r\nPUNSUBSCRIBE\r\nSSUBSCRIBE s\r\nECHO x\r\nSUNSUBSCRIBE\r\nGET x\r\n",
    "subscriptions in RESP3": b"HELLO 3\r\nSUBSCRIBE a\r\nGET x\r\nPING\r\nHELLO 2\r\nPING\r\nRESET\r\n",
    "subscriptions in a transaction": b"MULTI\r\nSUBSCRIBE a b\r\nUNSUBSCRIBE b\r\nSSUBSCRIBE s\r\nEXEC\r\n"
    b"GET x\r\nRESET\r\n",
    "subscriptions with replies off": b"CLIENT REPLY OFF\r\nSUBSCRIBE a\r\nUNSUBSCRIBE a\r\n"
    b"CLIENT REPLY ON\r\nCLIENT REPLY SKIP\r\nSUBSCRIBE a\r\nUNSUBSCRIBE a\r\n",
    "QUIT while subscribed": b"SUBSCRIBE a\r\nQUIT\r\nPING\r\n",
    "CLIENT KILL of oneself": b"CLIENT KILL TYPE normal SKIPME no\r\nPING\r\n",
    "protocol error with replies off": b"CLIENT REPLY OFF\r\n*x\r\n",
    "protocol error in a transaction": b"MULTI\r\nSET k lost\r\n*x\r\n",
    "a pipeline of a thousand": (PLAIN_SET + PLAIN_GET + b"INCR n\r\n") * 1000,
    "line end in an error": b"*2\r\n$6\r\nNO\r\nXX\r\n$4\r\na\r\nb\r\n",
    "long unknown command": b"*2\r\n$300\r\n" + b"x" * 300 + b"\r\n$500\r\n" + b"y" * 500 + b"\r\n",
    "half a request": b"*2\r\n$4\r\nECHO\r\n$100\r\nabc",
}

KNOWN_STREAM_DIFFERENCES: dict[str, tuple[bytes, bytes, str]] = {
    "argument without CRLF": (
        b"*2\r\n$4\r\nECHO\r\n$1\r\nkXX",
        b"-ERR Protocol error: expected CRLF after an argument\r\n",
        "Redis skips any two bytes; we stop request smuggling",
    ),
    "count above a million": (
        b"*1048577\r\n",
        b"-ERR Protocol error: invalid multibulk length\r\n",
        "Redis 7.0 waits for the arguments; we have the limit of Redis 6",
    ),
    "GET of a browser": (
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"",
        "Redis carries out the first line and closes at Host:; we close at once",
    ),
    "POST after a request": (
        PLAIN_SET + b"POST / HTTP/1.1\r\n" + PLAIN_GET,
        b"+OK\r\n",
        "Redis forgets the replies that were due",
    ),
    "CLIENT REPLY in a transaction": (
        b"MULTI\r\nCLIENT REPLY OFF\r\nDISCARD\r\n",
        b"+OK\r\n-ERR Command not allowed inside a transaction\r\n+OK\r\n$4\r\ntail\r\n",
        "Redis queues it, and then EXEC's own reply goes missing",
    ),
    "TLS handshake": (b"\x16\x03\x01\x02\x00\n", b"", "Redis goes on reading; we close at once"),
}


class Streams(_TwoServers):
    def setUp(self) -> None:
        self.forget_everything()

    def assert_same_replies(self, bytewise: bool) -> None:
        with self.differences("streams") as found:
            self.compare_streams(STREAMS, bytewise, found, limit=1000)

    def test_whole_streams_are_answered_alike(self) -> None:
        self.assert_same_replies(bytewise=False)

    def test_streams_byte_by_byte_are_answered_alike(self) -> None:
        self.assert_same_replies(bytewise=True)

    def test_known_differences_are_as_we_say(self) -> None:
        for name, (stream, answer, reason) in KNOWN_STREAM_DIFFERENCES.items():
            with self.subTest(name, reason=reason):
                self.assertEqual(replies_to(self.kvdb, stream + TAIL), answer)


PASSWORD = b"secret"
_ONE_ARGUMENT = b"$1\r\nx\r\n"

STREAMS_OF_STRANGERS: dict[str, bytes] = {
    "commands": b"PING\r\nGET k\r\nSET k v\r\nCOMMAND\r\nINFO\r\nCLIENT SETNAME x\r\nMULTI\r\n",
    "unknown command": b"NOSUCH a\r\n",
    "wrong arity": b"GET\r\nAUTH\r\n",
    "unknown subcommand": b"CLIENT NOSUCH\r\n",
    "wrong password": b"AUTH wrong\r\nAUTH default wrong\r\nAUTH nobody secret\r\nGET k\r\n",
    "password": b"AUTH secret\r\nGET k\r\nAUTH wrong\r\nGET k\r\n",
    "user and password": b"AUTH default secret\r\nGET k\r\n",
    "HELLO": b"HELLO\r\nHELLO 3\r\nHELLO 3 SETNAME x\r\nHELLO 4\r\nHELLO x\r\nGET k\r\n",
    "HELLO with the wrong password": b"HELLO 3 AUTH default wrong\r\nGET k\r\n",
    "HELLO with the password": b"HELLO 3 AUTH default secret SETNAME me\r\nCLIENT GETNAME\r\nGET k\r\n",
    "HELLO with bad options": b"HELLO 3 AUTH default secret FOO\r\nGET k\r\n",
    "QUIT": b"QUIT\r\nAUTH secret\r\n",
    "RESET": b"AUTH secret\r\nGET k\r\nRESET\r\nGET k\r\n",
    "ten arguments": b"*10\r\n" + _ONE_ARGUMENT * 10,
    "eleven arguments": b"*11\r\n" + _ONE_ARGUMENT * 11,
    "16 KiB": b"*2\r\n$4\r\nAUTH\r\n$16384\r\n" + b"x" * 16384 + b"\r\n",
    "more than 16 KiB": b"*2\r\n$4\r\nAUTH\r\n$16385\r\n" + b"x" * 16385 + b"\r\n",
    "eleven arguments after the password": b"AUTH secret\r\n*11\r\n$5\r\nMGET \r\n"
    + _ONE_ARGUMENT * 10,
    "POST": b"POST / HTTP/1.1\r\n",
}


class StreamsOfStrangers(Streams):
    """What is answered before a password was given."""

    @classmethod
    def setUpClass(cls) -> None:
        password = PASSWORD.decode()
        cls.redis = cls.enterClassContext(running_redis(password=password))
        cls.kvdb = cls.enterClassContext(running_kvdb("--in-memory", password=password))

    def setUp(self) -> None:
        pass

    def forget_everything(self) -> None:
        pass

    def assert_same_replies(self, bytewise: bool) -> None:
        with self.differences("streams before AUTH") as found:
            self.compare_streams(STREAMS_OF_STRANGERS, bytewise, found)

    def test_known_differences_are_as_we_say(self) -> None:
        """None are known here."""


def load_tests(
    loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None
) -> unittest.TestSuite:
    """Leave out the classes that only others derive from."""
    suites = CuratedInResp2, CuratedInResp3, RandomInResp2, RandomInResp3
    return unittest.TestSuite(
        loader.loadTestsFromTestCase(suite)
        for suite in (*suites, Dumps, Streams, StreamsOfStrangers)
    )


if __name__ == "__main__":
    unittest.main()
