"""What library functions do with their arguments, and what they say if one is wrong."""

from __future__ import annotations

import math
from typing import Final

from kvdb.lua.errors import argument_error
from kvdb.lua.values import Table, Value, to_number, to_text, type_name


class _Absent:
    """An argument that was not given, which is not the same as nil."""


ABSENT: Final = _Absent()


def given(value: Value) -> Value:
    """Return an argument as a value: what was not given is nil."""
    return None if value is ABSENT else value


def type_of(value: Value) -> str:
    """Return what errors call the type of an argument."""
    return "no value" if value is ABSENT else type_name(value)


def _wrong(number: int, expected: str, value: Value) -> Exception:
    return argument_error(number, f"{expected} expected, got {type_of(value)}")


def any_value(number: int, value: Value) -> Value:
    """Return an argument that may be anything, but has to be there."""
    if value is ABSENT:
        raise argument_error(number, "value expected")
    return value


def text(number: int, value: Value) -> bytes:
    """Return an argument that has to be a string; a number is made one."""
    found = value if type(value) is bytes else to_text(value)
    if found is None:
        raise _wrong(number, "string", value)
    return found


def number(place: int, value: Value, default: float | None = None) -> float:
    """Return an argument that has to be a number; a string that spells one is taken for it."""
    if type(value) is float:
        return value
    if default is not None and (value is None or value is ABSENT):
        return default
    found = to_number(value)
    if found is None:
        raise _wrong(place, "number", value)
    return found


def integer(place: int, value: Value, default: int | None = None) -> int:
    """As number(), without what is behind the point: as a cast to C's ptrdiff_t does it."""
    if default is not None and (value is None or value is ABSENT):
        return default
    return as_integer(number(place, value))


def as_integer(found: float) -> int:
    """Cast a number to an integer of 64 bits, as x86-64 does it."""
    if math.isfinite(found) and -(2.0**63) <= found < 2.0**63:
        return int(found)
    return -(2**63)


def table(number: int, value: Value) -> Table:
    """Return an argument that has to be a table."""
    if not isinstance(value, Table):
        raise _wrong(number, "table", value)
    return value


def function(number: int, value: Value) -> Value:
    """Return an argument that has to be a function."""
    if isinstance(value, Table) or not callable(value):
        raise _wrong(number, "function", value)
    return value
