"""What a command may answer, before any protocol has put it into bytes.

bytes and str are strings (str is sent as UTF-8), None is nil, and int, float, bool,
list, dict and frozenset are themselves. A `CommandError` in a list is the error of one
command among many (EXEC). The few kinds that Python has no type for are here.
"""

from __future__ import annotations

from typing import Any, Final

Reply = Any
"""A union of the types above that nests in itself; spelled out it would say less."""


class SimpleString(bytes):
    """A short status such as OK, told apart from a stored value on the wire."""


class Verbatim(str):
    """Text for a person to read (INFO, HELP); RESP3 marks it as such."""


class BigNumber(bytes):
    """A number of any size in decimal digits; RESP2 has strings for it."""


class Push(list[Any]):
    """What a client has not asked for, or what confirms that it will be sent such things.

    RESP3 marks it; in RESP2 it is an array like any other. The first element says what it is.
    """


class Pushes(list[Any]):
    """Several of them that answer one request, each on its own. Bytes among them are `Push`es
    that were put into the client's form already, for some other connection as well."""


class _Marker:
    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


OK: Final = SimpleString(b"OK")
PONG: Final = SimpleString(b"PONG")
QUEUED: Final = SimpleString(b"QUEUED")

NIL_ARRAY: Final = _Marker("NIL_ARRAY")
"""EXEC's answer when a watched key has changed: a null that RESP2 spells as an array."""

NO_REPLY: Final = _Marker("NO_REPLY")
"""Nothing is sent (CLIENT REPLY OFF, SHUTDOWN)."""
