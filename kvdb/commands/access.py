"""What a request does to which keys and channels: Redis's key specifications."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING, Final

from kvdb.acl import READ, WRITE

if TYPE_CHECKING:
    from kvdb.commands.table import Command

_KEYS: Final = {
    **dict.fromkeys(("APPEND",), ("RW insert",)),
    **dict.fromkeys(("DEL", "UNLINK", "DELETE", "DELIFEQ", "DELEX"), ("RM delete",)),
    **dict.fromkeys(("EXPIRE", "EXPIREAT", "PEXPIRE", "PEXPIREAT", "PERSIST"), ("RW update",)),
    **dict.fromkeys(("MSET", "MSETEX", "SETEX", "PSETEX", "RESTORE"), ("OW update",)),
    **dict.fromkeys(("MSETNX", "SETNX"), ("OW insert",)),
    **dict.fromkeys(("EXISTS", "TOUCH", "TYPE", "STRLEN", "WATCH"), ("RO",)),
    **dict.fromkeys(("OBJECT ENCODING", "OBJECT REFCOUNT", "MEMORY USAGE"), ("RO",)),
    **dict.fromkeys(("OBJECT FREQ", "OBJECT IDLETIME"), ("RO",)),
    **dict.fromkeys(("GETDEL", "MIGRATE"), ("RW access delete",)),
    "SETRANGE": ("RW update",),
    "BITOP": ("OW update", "RO access"),
    "COPY": ("RO access", "OW update"),
    "RENAME": ("RW access delete", "OW update"),
    "RENAMENX": ("RW access delete", "OW insert"),
    "SET": ("RW access update variable_flags",),
    **dict.fromkeys(("EVAL", "EVALSHA", "FCALL"), ("RW access update",)),
    "BITFIELD": ("RW access update variable_flags",),
}
"""What is done to the first key and, where that is something else, to the others."""

_NEEDS: Final = {"access": READ, "insert": WRITE, "update": WRITE, "delete": WRITE}

_CHANNELS: Final = {
    "PUBLISH": (1, False),
    "SPUBLISH": (1, False),
    "SUBSCRIBE": (None, False),
    "SSUBSCRIBE": (None, False),
    "PSUBSCRIBE": (None, True),
}
"""How many arguments are channels (None: all), and whether these are patterns."""


def key_flags(row: Command) -> tuple[str, ...]:
    """Return the flags of each key specification of a command, as Redis names them."""
    return _KEYS.get(row.name) or (("RW access update",) if row.writes else ("RO access",))


def flags_of_keys(row: Command, arguments: list[bytes]) -> Iterator[tuple[bytes, list[str]]]:
    """Return the keys of a request, and how Redis names what is done to each."""
    flags = _variable(row, arguments) or key_flags(row)
    for number, position in enumerate(row.find_keys(arguments)):
        yield arguments[position], (flags[-1] if number else flags[0]).split()


def keys_of(row: Command, arguments: list[bytes]) -> Iterator[tuple[bytes, int]]:
    """Return the keys of a request, and whether each is read, written or both.

    Nothing but looking whether a key is there is neither.
    """
    flags = _variable(row, arguments) or key_flags(row)
    first, others = _access(flags[0]), _access(flags[-1])
    for number, position in enumerate(row.find_keys(arguments)):
        yield arguments[position], others if number else first


def channels_of(row: Command, arguments: list[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Return the channels of a request, and whether each is a pattern."""
    count, are_patterns = _CHANNELS.get(row.name, (0, False))
    for channel in arguments[:count]:
        yield channel, are_patterns


def _variable(row: Command, arguments: list[bytes]) -> tuple[str, ...]:
    """Return the flags of commands that do it by their options whether they read or write."""
    if row.name == "SET":
        reads = any(word.upper() == b"GET" for word in arguments[2:])
        return ("RW access update",) if reads else ("OW update",)
    if row.name == "BITFIELD":
        writes = any(word.upper() in (b"SET", b"INCRBY") for word in arguments[1:])
        return ("RW access update",) if writes else ("RO access",)
    return ()


@cache
def _access(flags: str) -> int:
    needed = 0
    for flag in flags.split():
        needed |= _NEEDS.get(flag, 0)
    return needed
