"""What newer servers answer differently from Redis 7.0, which the suites were written against.

Each line names a server and since when it may say so: a line counts only if that server gives
exactly that answer, and kvdb exactly the one next to it; else the answers have to be the same.

Tried were Redis 7.0.15, 8.0.2 and 8.0.6, Valkey 8.1.1 and 9.1.2; what is told of a version
counts from the first one after the last that was seen to answer as before.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from tests.interop.servers import RedisAddress

Since = dict[str, tuple[int, int]]
"""The servers meant, each with its first version that may answer so."""

REDIS: Since = {"redis": (7, 2)}
VALKEY: Since = {"valkey": (7, 2)}  # which is the first Valkey
VALKEY_9: Since = {"valkey": (9, 0)}
ALL: Since = {**REDIS, **VALKEY}


def is_one_of(server: RedisAddress, since: Since) -> bool:
    """Tell whether it is one of these servers, of that version at least."""
    return server.name in since and server.version >= since[server.name]


# --- HELLO --------------------------------------------------------------------------------


def _modules(name: bytes) -> bytes:
    """Return the pattern of HELLO's list of modules, in RESP2 or RESP3, with this one in it."""
    return (
        rb"modules\r\n\*1\r\n(?:%%4|\*8)\r\n\$4\r\nname\r\n\$\d\r\n%b\r\n"
        rb"\$3\r\nver\r\n:1\r\n\$4\r\npath\r\n\$\d\r\n(?:%b)?\r\n\$4\r\nargs\r\n\*0\r\n"
    ) % (name, name)


_NO_MODULES = b"modules\r\n*0\r\n"

HELLO: list[tuple[Since, bytes, bytes, str]] = [
    (VALKEY, rb"server\r\n\$6\r\nvalkey\r\n", b"server\r\n$5\r\nredis\r\n", "its own name"),
    (REDIS, _modules(b"vectorset"), _NO_MODULES, "a module that is built in"),
    (VALKEY_9, _modules(b"lua"), _NO_MODULES, "a module that is built in"),
]


def hello_as_before(server: RedisAddress, reply: bytes) -> bytes:
    """Return what Redis 7.0 would have said of itself in place of this server's answer."""
    for since, said, before, _ in HELLO:
        if is_one_of(server, since):
            reply = re.sub(said, before, reply)
    return reply


# --- requests -----------------------------------------------------------------------------


class NewReply(NamedTuple):
    """A request that is answered differently; both answers are patterns of the whole reply."""

    since: Since
    requests: str  # pattern of the request's words, in upper case, joined by spaces
    theirs: bytes
    ours: bytes
    reason: str
    scenario: str | None = None  # where what came before the request makes the difference


NEW_REPLIES = [
    NewReply(
        ALL,
        "SCAN  0",
        rb"\*2\r\n\$1\r\n0\r\n\*4\r\n.*",
        rb"-ERR invalid cursor\r\n",
        "they skip the blank in front of the cursor, we want digits as Redis 7.0 does",
    ),
    NewReply(
        VALKEY,
        "CLIENT (KILL|LIST) ID (ABC|X)",
        rb"-ERR syntax error\r\n",
        rb"-ERR (client-id should be greater than 0|Invalid client ID)\r\n",
        "other words",
    ),
    NewReply(
        VALKEY,
        "CLIENT LIST ID 0",
        rb"-ERR client-id should be greater than 0\r\n",
        rb"(\$0|=4\r\ntxt:)\r\n(\r\n)?",
        "it refuses what no client can have, Redis finds none",
    ),
    NewReply(
        VALKEY,
        "OBJECT ENCODING S",
        rb"\$\d\r\n(embstr|raw)\r\n",
        rb"\$\d\r\n(embstr|raw)\r\n",
        "embstr ends with what fits into a cache line, with the key and its deadline",
    ),
    NewReply(
        VALKEY_9,
        "GETEX .* EX (0|-1|X|ABC)",
        rb"-ERR (invalid expire time in 'getex' command|value is not an integer or out of range)\r\n",
        rb"(\$-1|_)\r\n",
        "it looks at the time before the key; Redis does not when there is no such key",
    ),
    NewReply(
        VALKEY,
        "CLIENT PAUSE 1 ALL X",
        rb"\+OK\r\n",
        rb"-ERR unknown subcommand or wrong number of arguments for 'PAUSE'.*",
        "it does not look at what follows",
    ),
    NewReply(
        VALKEY,
        "CLUSTER KEYSLOT .*|READONLY|READWRITE",
        rb"(:15495|\+OK)\r\n",
        rb"-ERR This instance has cluster support disabled\r\n",
        "it answers what it can without a cluster",
    ),
    NewReply(
        VALKEY,
        "LATENCY DOCTOR",
        rb".*No latency spike was observed during the lifetime of this Valkey instance.*",
        rb".*Dave, no latency spike was observed during the lifetime of this Redis instance.*",
        "its own name",
    ),
    NewReply(
        VALKEY,
        "MULTI|WATCH .*|SAVE",
        rb"-ERR Command ('(multi|watch|save)' )?not allowed inside a transaction\r\n",
        rb"-ERR (MULTI calls can not be nested|WATCH inside MULTI is not allowed"
        rb"|Command not allowed inside a transaction)\r\n",
        "other words; and it gives the transaction up, see below",
    ),
    NewReply(
        VALKEY,
        "EXEC",
        rb"-EXECABORT Transaction discarded because of previous errors\.\r\n",
        rb"\*1\r\n:2\r\n",
        "MULTI and WATCH within a transaction make it fail",
        scenario="refused_in_a_transaction",
    ),
]


def _those_of(server: RedisAddress, request: list[bytes]) -> list[NewReply]:
    words = b" ".join(request).decode("latin-1").upper()
    return [
        new
        for new in NEW_REPLIES
        if is_one_of(server, new.since) and re.fullmatch(new.requests, words, re.DOTALL)
    ]


def is_new_reply(
    server: RedisAddress, request: list[bytes], theirs: bytes, ours: bytes, scenario: str | None
) -> bool:
    """Tell whether the two replies are the ones that differ since that version of the server."""
    return any(
        new.scenario in (None, scenario)
        and re.fullmatch(new.theirs, theirs, re.DOTALL)
        and re.fullmatch(new.ours, ours, re.DOTALL)
        for new in _those_of(server, request)
    )


def may_differ(server: RedisAddress, request: list[bytes]) -> bool:
    """Tell whether the request must not be queued, for in EXEC's reply it could not be told."""
    return any(new.scenario is None for new in _those_of(server, request))


# --- streams ------------------------------------------------------------------------------


class NewStream(NamedTuple):
    """A stream that is answered differently; both answers are the whole of what comes back."""

    since: Since
    name: str
    theirs: bytes
    ours: bytes
    reason: str


_TAIL = b"$4\r\ntail\r\n"
_UNBALANCED = b"-ERR Protocol error: unbalanced quotes in request\r\n"
_NOAUTH = b"-NOAUTH Authentication required.\r\n"
_WRONGPASS = b"-WRONGPASS invalid username-password pair or user is disabled.\r\n"
_HELLO_FOO = b"-ERR Syntax error in HELLO option 'FOO'\r\n"

_LOST_REPLY = "a bug: the reply to a wrong password is lost if more is already in its buffer"
_QUOTES = "Valkey's faster reader of lines is not as strict about quotes as the one before"
_ALL_NOAUTH = "it tells a stranger nothing, not even what is no command"

NEW_STREAMS = [
    NewStream(
        ALL,
        "wrong password",
        _WRONGPASS + _NOAUTH * 2,
        _WRONGPASS * 3 + _NOAUTH * 2,
        _LOST_REPLY,
    ),
    NewStream(
        ALL,
        "password",
        b"+OK\r\n$-1\r\n$-1\r\n" + _TAIL,
        b"+OK\r\n$-1\r\n" + _WRONGPASS + b"$-1\r\n" + _TAIL,
        _LOST_REPLY,
    ),
    NewStream(
        {"redis": (0, 0)},
        "HELLO with bad options",
        _HELLO_FOO + b"$-1\r\n" + _TAIL,
        _HELLO_FOO + _NOAUTH * 2,
        "Redis 7.0 logs in although it answers with an error",
    ),
    NewStream(
        VALKEY_9,
        "unknown command",
        _NOAUTH * 2,
        b"-ERR unknown command 'NOSUCH', with args beginning with: 'a' \r\n" + _NOAUTH,
        _ALL_NOAUTH,
    ),
    NewStream(
        VALKEY_9,
        "wrong arity",
        _NOAUTH + b"-ERR wrong number of arguments for 'auth' command\r\n" + _NOAUTH,
        b"-ERR wrong number of arguments for 'get' command\r\n"
        b"-ERR wrong number of arguments for 'auth' command\r\n" + _NOAUTH,
        _ALL_NOAUTH,
    ),
    NewStream(
        VALKEY_9,
        "unknown subcommand",
        _NOAUTH * 2,
        b"-ERR unknown subcommand 'NOSUCH'. Try CLIENT HELP.\r\n" + _NOAUTH,
        _ALL_NOAUTH,
    ),
    NewStream(
        VALKEY_9,
        "ten arguments",
        _NOAUTH * 2,
        b"-ERR unknown command 'x', with args beginning with: " + b"'x' " * 9 + b"\r\n" + _NOAUTH,
        _ALL_NOAUTH,
    ),
    NewStream(
        VALKEY,
        "bytes above 127",
        b"+OK\r\n$3\r\n\xfe\xc3\xa4\r\n" + _TAIL,
        b"+OK\r\n$4\r\n\xff\xfe\xc3\xa4\r\n" + _TAIL,
        "a bug: it drops the byte 0xFF, which is a blank for it",
    ),
    NewStream(
        VALKEY_9,
        "single quotes",
        b'+OK\r\n$13\r\na "b" \' \\n \\\\\r\n' + _TAIL,
        _UNBALANCED,
        _QUOTES,
    ),
    *(
        NewStream(VALKEY_9, name, b"+OK\r\n+PONG\r\n" + _TAIL, _UNBALANCED, _QUOTES)
        for name in (
            "no space after a double quote",
            "no space after a single quote",
            "two quoted words joined",
        )
    ),
    NewStream(VALKEY_9, "backslash at the end", b"+OK\r\n" + _TAIL, _UNBALANCED, _QUOTES),
]


def is_new_stream(server: RedisAddress, name: str, theirs: bytes, ours: bytes) -> bool:
    """Tell whether the two answers are the ones that differ since that version of the server."""
    return any(
        (new.name, new.theirs, new.ours) == (name, theirs, ours)
        for new in NEW_STREAMS
        if is_one_of(server, new.since)
    )
