"""Replies as a script sees them, and what a script returns as a reply: as Redis documents it."""

from __future__ import annotations

from typing import Final

from kvdb.errors import CommandError
from kvdb.lua.library.arguments import as_integer
from kvdb.lua.values import Table, Value, key_value, table_of
from kvdb.replies import NIL_ARRAY, BigNumber, Reply, SimpleString, Verbatim
from kvdb.resp.encoding import format_double

MOST_NESTED: Final = 200
"""How deep the tables may nest that a script returns."""


def error_table(text: str) -> Table:
    """Return what an error is to a script."""
    return Table({b"err": text.encode("utf-8", "surrogateescape")})


def to_lua(reply: Reply, version: int = 2) -> Value:
    """Return what a command has answered, for a script that has chosen this version of RESP."""
    kind = type(reply)
    if kind is bytes:
        return reply
    if kind is int:
        return float(reply)
    if kind is SimpleString:
        return Table({b"ok": bytes(reply)})
    if reply is None or reply is NIL_ARRAY:
        return None if version == 3 else False
    if kind is list or kind is tuple:
        return table_of(*[to_lua(each, version) for each in reply])
    if isinstance(reply, CommandError):
        return error_table(reply.text)
    return _rare_to_lua(reply, version)


def _rare_to_lua(reply: Reply, version: int) -> Value:
    """Convert what RESP3 has a type for."""
    if isinstance(reply, BigNumber):
        return Table({b"big_number": bytes(reply)}) if version == 3 else bytes(reply)
    if isinstance(reply, bool):
        return reply if version == 3 else float(reply)
    if isinstance(reply, float):
        return Table({b"double": reply}) if version == 3 else format_double(reply)
    if isinstance(reply, str):
        text = reply.encode("utf-8", "surrogateescape")
        if version == 2 or not isinstance(reply, Verbatim):
            return text
        return Table({b"verbatim_string": Table({b"string": text, b"format": b"txt"})})
    if isinstance(reply, dict):
        if version == 2:
            return to_lua([each for pair in reply.items() for each in pair])
        pairs = {to_lua(key, 3): to_lua(value, 3) for key, value in reply.items()}
        return Table({b"map": Table({k: v for k, v in pairs.items() if v is not None})})
    if isinstance(reply, frozenset):
        if version == 2:
            return to_lua(sorted(reply))
        return Table({b"set": Table({to_lua(each, 3): True for each in reply})})
    return False


def to_reply(value: Value, version: int = 2, depth: int = 0) -> Reply:
    """Return what a script has returned as a reply. Raises CommandError if it nests too deep."""
    if type(value) is bytes:
        return value
    if type(value) is float:
        return as_integer(value)
    if type(value) is bool:
        if version == 3:
            return value
        return 1 if value else None
    if not isinstance(value, Table):
        return None
    if depth >= MOST_NESTED:
        raise CommandError("ERR reached lua stack limit")
    special = _special(value, version, depth + 1)
    if special is not None:
        return special
    replies: list[Reply] = []
    while (element := value.get(len(replies) + 1)) is not None:
        replies.append(to_reply(element, version, depth + 1))
    return replies


def _special(table: Table, version: int, depth: int) -> Reply:
    """Return what a table stands for by the name of a field; None if it is a list."""
    error = table.get(b"err")
    if type(error) is bytes:
        return CommandError(error.decode("utf-8", "surrogateescape"))
    status = table.get(b"ok")
    if type(status) is bytes:
        return SimpleString(status.replace(b"\r", b" ").replace(b"\n", b" "))
    double = table.get(b"double")
    if type(double) is float:
        return double
    pairs = table.get(b"map")
    if isinstance(pairs, Table):
        return {
            _hashable(to_reply(key_value(key), version, depth)): to_reply(value, version, depth)
            for key, value in pairs.items()
        }
    members = table.get(b"set")
    if isinstance(members, Table):
        return frozenset(_hashable(to_reply(key_value(key), version, depth)) for key in members)
    number = table.get(b"big_number")
    if type(number) is bytes:
        return BigNumber(number.replace(b"\r", b" ").replace(b"\n", b" "))
    text = table.get(b"verbatim_string")
    if isinstance(text, Table) and type(text.get(b"format")) is bytes:
        string = text.get(b"string")
        if type(string) is bytes:
            return Verbatim(string.decode("utf-8", "surrogateescape"))
    return None


def _hashable(reply: Reply) -> Reply:
    return tuple(reply) if type(reply) is list else reply
