"""What Lua's values are in Python.

nil is None, booleans are bool, every number is a float, a string is bytes, a function is any
Python function that takes any number of arguments, and a table is a `Table`. A function returns
its one value as it is, and any other number of values as `Results`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, Final

Value = Any
"""A union of the types above; spelled out it would say less."""

Function = Callable[..., Value]


class Results(tuple[Value, ...]):
    """What a function returns if it is not exactly one value."""

    __slots__ = ()


NOTHING: Final = Results()


def results(values: list[Value] | tuple[Value, ...]) -> Value:
    """Return what a function returns for these values."""
    return values[0] if len(values) == 1 else Results(values)


def expand(result: Value) -> tuple[Value, ...]:
    """Return all values that a call has returned."""
    return result if type(result) is Results else (result,)


def first(results: tuple[Value, ...]) -> Value:
    """Return the first of several values, or nil."""
    return results[0] if results else None


def adjust(number: int, *values: Value) -> tuple[Value, ...]:
    """Return exactly so many values: what is too much is left out, what is missing is nil."""
    return values[:number] + (None,) * (number - len(values))


class _BooleanKey:
    """Stands for a boolean among a table's keys: to Python, True is the number 1."""

    def __init__(self, value: bool) -> None:
        self.value = value


TRUE_KEY: Final = _BooleanKey(True)
FALSE_KEY: Final = _BooleanKey(False)


class Table(dict[Any, Any]):
    """A table without a metatable: a dict that never holds nil.

    One that gets a metatable becomes a `GuardedTable`, so that generated code has only one
    question to ask before it uses the dict. Two tables are equal if they are the same.
    """

    __slots__ = ("array_size", "metatable", "ticks", "walk")

    array_size: int
    """How many values its constructor had: where a table has holes, `#` begins there."""
    metatable: Table
    """Of a `GuardedTable`."""
    ticks: Iterator[object]
    """Of a `GuardedTable`: takes a turn for each handler that is called, see `handler_of`."""
    walk: tuple[list[Any], int]
    """Where next() has come to."""

    __hash__ = object.__hash__  # type: ignore[assignment]
    __eq__ = object.__eq__
    __ne__ = object.__ne__


class GuardedTable(Table):
    """A table that has a metatable."""

    __slots__ = ()

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        if self is other or not isinstance(other, GuardedTable):
            return self is other
        handler: Value = handler_of(self, b"__eq")
        if other.metatable.get(b"__eq") is not handler or handler is None:
            return False
        return is_true(single(handler(self, other)))

    def __ne__(self, other: object) -> bool:
        return not GuardedTable.__eq__(self, other)

    def __call__(self, *arguments: Value) -> Value:
        handler: Value = self.metatable.get(b"__call")
        if isinstance(handler, Table) or not callable(handler):
            raise TypeError("'Table' object is not callable")
        return handler(self, *arguments)


def handler_of(value: Value, name: bytes) -> Value:
    """Return the function of a metatable that handles an operation, or nil.

    It takes a turn of the meter: handlers may call each other without end, and without any code
    in between that looks at the clock.
    """
    if type(value) is not GuardedTable:
        return None
    next(value.ticks)
    return value.metatable.get(name)


class Userdata:
    """A value that a program can only hand on."""

    def __init__(self, shown: bytes) -> None:
        self.shown = shown


NULL: Final = Userdata(b"userdata: (nil)")
"""What stands for JSON's null, which a table could not hold as nil."""


class ReadOnlyTable(Table):
    """A table that no script may change."""

    __slots__ = ()


def table_of(*values: Value) -> Table:
    """Return the table {value, value, ...}."""
    numbers = _NUMBERS if len(values) <= len(_NUMBERS) else map(float, count(1))
    table = Table(zip(numbers, values, strict=False))
    table.array_size = len(values)
    if None in values:
        for number, value in enumerate(values, 1):
            if value is None:
                del table[number]
    return table


_NUMBERS: Final = tuple(map(float, range(1, 100)))


def is_true(value: Value) -> bool:
    """Tell whether a condition with this value holds: 0 and the empty string do."""
    return value is not None and value is not False


def single(result: Value) -> Value:
    """Return the one value that a call stands for in an expression."""
    return first(result) if type(result) is Results else result


# --- tables -------------------------------------------------------------------------------


def get(table: Table, key: Value) -> Value:
    """Return what a table holds, whatever its metatable says."""
    if type(key) is bool:
        key = TRUE_KEY if key else FALSE_KEY
    return table.get(key)


def put(table: Table, key: Value, value: Value) -> None:
    """Have a table hold that, whatever its metatable says. The key is neither nil nor NaN."""
    if type(key) is bool:
        key = TRUE_KEY if key else FALSE_KEY
    if value is None:
        table.pop(key, None)
    else:
        table[key] = value


def key_value(key: Any) -> Value:
    """Return the Lua value that a key of the dict stands for."""
    return key.value if type(key) is _BooleanKey else key


def length(table: Table) -> float:
    """Return a border, as `#` does: 0, or a number that is a key while the next one is not."""
    number = len(table)
    if number in table and number + 1 not in table and (number == 1 or number - 1 in table):
        return float(number)  # surely so, if all keys are 1, 2, 3 and so on
    if 1 not in table and not getattr(table, "array_size", 0):
        return 0.0
    low, high = 0, getattr(table, "array_size", 0)
    if high and high not in table:
        while high - low > 1:  # as Lua does where the last value of the constructor is nil
            middle = (low + high) // 2
            low, high = (low, middle) if middle not in table else (middle, high)
        return float(low)
    low = high
    high += 1
    while high in table:
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if middle not in table else (middle, high)
    return float(low)


# --- numbers and strings --------------------------------------------------------------------

_DECIMAL: Final = re.compile(
    rb"[ \t\n\v\f\r]*([+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|inf(?:inity)?|nan))"
    rb"(?:(?<=[nN])\([0-9a-z_]*\))?[ \t\n\v\f\r]*",
    re.IGNORECASE,
)
_HEXADECIMAL: Final = re.compile(
    rb"[ \t\n\v\f\r]*([+-]?)0x([0-9a-f]*)(?:\.([0-9a-f]*))?(?:p([+-]?[0-9]+))?[ \t\n\v\f\r]*",
    re.IGNORECASE,
)

_FAR: Final = 1e8
"""A power of two beyond all numbers."""


def parse_number(text: bytes) -> float | None:
    """Return the number that a string spells (C's strtod), or None if it spells none."""
    text = text.partition(b"\0")[0]  # where C's strings end
    found = _DECIMAL.fullmatch(text)
    if found:
        return float(found[1])
    found = _HEXADECIMAL.fullmatch(text)
    if found is None or not (found[2] or found[3]):
        return None
    fraction = found[3] or b""
    exponent = int(max(-_FAR, min(_FAR, float(found[4] or 0)))) - 4 * len(fraction)
    try:
        number = math.ldexp(int(found[2] + fraction, 16), exponent)
    except OverflowError:
        number = math.inf
    return -number if found[1] == b"-" else number


def number_text(number: float) -> bytes:
    """Return a number as Lua shows it: C's %.14g."""
    if (
        -1e14 < number < 1e14
        and number == (whole := int(number))
        and (whole or not _is_negative(number))
    ):
        return b"%d" % whole
    if number != number:
        return b"-nan" if _is_negative(number) else b"nan"
    return b"%.14g" % number


def _is_negative(number: float) -> bool:
    return math.copysign(1.0, number) < 0


def to_number(value: Value) -> float | None:
    """Return a value as a number if it is one, or a string that spells one."""
    if type(value) is float:
        return value
    return parse_number(value) if type(value) is bytes else None


def to_text(value: Value) -> bytes | None:
    """Return a value as a string if it is one, or a number."""
    if type(value) is bytes:
        return value
    return number_text(value) if type(value) is float else None


def type_name(value: Value) -> str:
    """Return the name of a value's type, as type() tells it."""
    if value is None:
        return "nil"
    return _NAMES.get(type(value)) or ("table" if isinstance(value, Table) else "function")


_NAMES: Final[dict[type, str]] = {
    bool: "boolean", float: "number", bytes: "string", Table: "table", Userdata: "userdata",
}  # fmt: skip
