"""What generated code calls when an operation is not the usual one."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, Final

from kvdb.lua.errors import LuaError, error, operand_error
from kvdb.lua.meter import LARGE, Meter
from kvdb.lua.values import (
    NOTHING,
    GuardedTable,
    ReadOnlyTable,
    Results,
    Table,
    Value,
    adjust,
    expand,
    first,
    get,
    handler_of,
    is_true,
    key_value,
    length,
    put,
    results,
    single,
    table_of,
    to_number,
    to_text,
    type_name,
)

READ_ONLY: Final = "Attempt to modify a readonly table"

_MOST_METATABLES: Final = 100
"""How many of them an index may lead through (MAXTAGLOOP of Lua 5.1)."""


class Globals(ReadOnlyTable):
    """The global variables, as Redis has them: nobody may add one, or ask for one there is not."""

    __slots__ = ()

    def __missing__(self, name: Value) -> Value:
        shown = to_text(name)
        if shown is None:
            text = "Second argument to luaProtectedTableError must be a string or number"
            raise error(text)
        text = shown.decode("utf-8", "surrogateescape")
        raise error(f"Script attempted to access nonexistent global variable '{text}'")


class Runtime:
    """The operations of the language, for the programs of one engine."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.globals: Table = Globals()
        self.strings: Table = ReadOnlyTable()
        """What strings are indexed with: the library `string`."""
        self.next: Callable[..., Value] = _nothing
        self.next_of_array: Callable[..., Value] = _nothing
        """What pairs() and ipairs() return: loops over these are made quick."""

    def namespace(self) -> dict[str, Any]:
        """Return the names that generated code uses. It has none of Python's own."""
        return {
            "__builtins__": {},
            "G": self.globals, "NOTHING": NOTHING, "Results": Results, "Table": Table,
            "float": float, "type": type, "next": next, "ticks": self.meter.turns,
            "adjust": adjust, "expand": expand, "first": first, "results": results,
            "table_of": table_of, "construct": construct, "rest_table": rest_table,
            "is_number": is_number,
            "add": add, "subtract": subtract, "multiply": multiply, "divide": divide,
            "modulo": modulo, "power": power, "negate": negate, "less": less,
            "less_or_equal": less_or_equal, "length": length_of,
            "concatenate": self.concatenate, "index": self.index, "set_index": self.set_index,
            "set_global": self.set_global, "counting": self.counting, "iterate": self.iterate,
            "forever": self.meter.forever,
        }  # fmt: skip

    # --- tables ------------------------------------------------------------------------------

    def index(self, table: Value, key: Value) -> Value:
        """Return table[key], with metatables."""
        for turn in range(_MOST_METATABLES):
            kind = type(table)
            if kind is Table or kind is ReadOnlyTable:
                return get(table, key)
            if kind is bytes:
                return self.strings.get(key)
            if kind is GuardedTable:
                value = get(table, key)
                if value is not None:
                    return value
                handler = handler_of(table, b"__index")
                if handler is None:
                    return None
                if not isinstance(handler, Table) and callable(handler):
                    return single(handler(table, key))
                table = handler
                continue
            if kind is Globals:
                return table[key]
            raise operand_error("index", table, None if turn else 0)
        raise error("loop in gettable")

    def set_index(self, table: Value, key: Value, value: Value) -> None:
        """Carry out table[key] = value, with metatables."""
        for turn in range(_MOST_METATABLES):
            kind = type(table)
            if kind is GuardedTable and get(table, key) is None:
                handler = handler_of(table, b"__newindex")
                if handler is not None:
                    if not isinstance(handler, Table) and callable(handler):
                        handler(table, key, value)
                        return
                    table = handler
                    continue
            if kind is Table or kind is GuardedTable:
                if key is None:
                    raise error("table index is nil")
                if key != key:
                    raise error("table index is NaN")
                put(table, key, value)
                return
            if isinstance(table, ReadOnlyTable):
                raise error(READ_ONLY)
            raise operand_error("index", table, None if turn else 0)
        raise error("loop in settable")

    def set_global(self, name: bytes, value: Value) -> None:
        """Carry out an assignment to a global variable."""
        self.set_index(self.globals, name, value)

    # --- strings -----------------------------------------------------------------------------

    def concatenate(self, *parts: Value) -> Value:
        """Return a .. b .. c."""
        try:
            size = sum(map(len, parts))
            if size > LARGE:
                self.meter.check_size(size)
            return b"".join(parts)
        except TypeError:
            return self._concatenate_slowly(parts)

    def _concatenate_slowly(self, parts: tuple[Value, ...]) -> Value:
        place = len(parts) - 1
        right = parts[place]
        while place:
            place -= 1
            left = parts[place]
            left_text, right_text = to_text(left), to_text(right)
            if left_text is not None and right_text is not None:
                self.meter.check_size(len(left_text) + len(right_text))
                right = left_text + right_text
                continue
            handler = handler_of(left, b"__concat")
            if handler is None:
                handler = handler_of(right, b"__concat")
            if handler is None:
                at, wrong = (place, left) if left_text is None else (place + 1, right)
                raise operand_error("concatenate", wrong, at)
            right = single(handler(left, right))
        return right

    # --- loops -------------------------------------------------------------------------------

    def counting(self, start: Value, stop: Value, step: Value) -> Iterator[float]:
        """Return the numbers that `for i = start, stop, step` goes through."""
        numbers = [to_number(each) for each in (start, stop, step)]
        for number, name in zip(numbers, ("initial value", "limit", "step"), strict=True):
            if number is None:
                raise error(f"'for' {name} must be a number")
        return self.meter.counting(*numbers)  # type: ignore[arg-type]

    def iterate(
        self,
        count: int,
        function: Value = None,
        state: Value = None,
        control: Value = None,
        *_: Value,
    ) -> Iterator[Value]:
        """Return what a generic `for` with so many variables goes through."""
        self.meter.tick()
        if not callable(function):
            raise operand_error("call", function)
        if function is self.next and control is None and isinstance(state, Table):
            return self._each_pair(count, state)
        if function is self.next_of_array and type(state) is Table and control == 0.0:
            return self._each_element(count, state)
        return self._each(count, function, state, control)

    def _each_pair(self, count: int, table: Table) -> Iterator[Value]:
        for turn, key in enumerate(list(table)):
            if not turn % 256:
                self.meter.tick()
            value = table.get(key)
            if value is not None:  # it may have been taken out meanwhile
                key = key_value(key)
                yield key if count == 1 else adjust(count, key, value)

    def _each_element(self, count: int, table: Table) -> Iterator[Value]:
        number = 1.0
        while (value := table.get(number)) is not None:
            if not number % 256:
                self.meter.tick()
            yield number if count == 1 else adjust(count, number, value)
            number += 1.0

    def _each(self, count: int, function: Value, state: Value, control: Value) -> Iterator[Value]:
        while True:
            self.meter.tick()
            values = expand(function(state, control))
            control = first(values)
            if control is None:
                return
            yield control if count == 1 else adjust(count, *values)


def _nothing(*arguments: Value) -> Value:
    return NOTHING


def construct(*items: Value) -> Table:
    """Return what {1, a = 2, [k] = 3, f()} stands for.

    Each item is True and the pair (key, value); False and (nil, value), a value without a key; or
    None and all the values of the last item.
    """
    kinds, pairs = items[::2], items[1::2]
    values: list[Value] = []
    for kind, item in zip(kinds, pairs, strict=True):
        if not kind:
            values += item if kind is None else item[1:]
    table = table_of(*values)
    for key, value in [item for kind, item in zip(kinds, pairs, strict=True) if kind]:
        if key is None or key != key:
            raise error("table index is nil" if key is None else "table index is NaN")
        if not (type(key) is float and 1 <= key <= len(values) and key.is_integer()):
            put(table, key, value)  # else the value without a key has come later
    return table


def is_number(value: Value, number: float) -> bool:
    """Tell whether a value is this number. (To Python, true is 1.)"""
    return type(value) is float and value == number


def rest_table(values: tuple[Value, ...]) -> Table:
    """Return the table `arg` of a function."""
    table = table_of(*values)
    table[b"n"] = float(len(values))
    return table


# --- arithmetic ---------------------------------------------------------------------------------


def _arithmetic(
    name: bytes, operation: Callable[[float, float], float]
) -> Callable[[Value, Value], Value]:
    """Return what does arithmetic with any two values."""

    def operate(left: Value, right: Value) -> Value:
        left_number, right_number = to_number(left), to_number(right)
        if left_number is not None and right_number is not None:
            return operation(left_number, right_number)
        handler = handler_of(left, name)
        if handler is None:
            handler = handler_of(right, name)
        if handler is not None:
            return single(handler(left, right))
        at, wrong = (1, right) if left_number is not None else (0, left)
        raise operand_error("perform arithmetic on", wrong, at)

    return operate


def _divide(left: float, right: float) -> float:
    if right:
        return left / right
    if left == 0 or left != left:
        return -math.nan if left == 0 else left
    return math.copysign(math.inf, left) * math.copysign(1.0, right)


def _modulo(left: float, right: float) -> float:
    """Return left - floor(left / right) * right, as Lua 5.1 computes it."""
    quotient = _divide(left, right)
    if math.isfinite(quotient) and quotient:
        quotient = float(math.floor(quotient))
    return left - quotient * right


def raise_to_power(base: float, exponent: float) -> float:
    """Return base ^ exponent, as C's pow has it: NaN and infinity are no errors."""
    try:
        return math.pow(base, exponent)
    except OverflowError:
        is_odd = exponent.is_integer() and exponent % 2 == 1
        return -math.inf if base < 0 and is_odd else math.inf
    except ValueError:
        if base == 0:
            is_odd = exponent.is_integer() and exponent % 2 == 1
            return math.copysign(math.inf, base) if is_odd else math.inf
        return -math.nan


add = _arithmetic(b"__add", lambda left, right: left + right)
subtract = _arithmetic(b"__sub", lambda left, right: left - right)
multiply = _arithmetic(b"__mul", lambda left, right: left * right)
divide = _arithmetic(b"__div", _divide)
modulo = _arithmetic(b"__mod", _modulo)
power = _arithmetic(b"__pow", raise_to_power)


def negate(value: Value) -> Value:
    """Return -value."""
    number = to_number(value)
    if number is not None:
        return -number
    handler = handler_of(value, b"__unm")
    if handler is None:
        raise operand_error("perform arithmetic on", value)
    return single(handler(value, value))


def length_of(value: Value) -> float:
    """Return #value."""
    if isinstance(value, Table):
        return length(value)
    if type(value) is bytes:
        return float(len(value))
    raise operand_error("get length of", value)


# --- comparisons --------------------------------------------------------------------------------


def less(left: Value, right: Value) -> bool:
    """Return left < right."""
    if type(left) is type(right) and type(left) in (float, bytes):
        return bool(left < right)
    result = _ordered(left, right, b"__lt")
    if result is None:
        raise comparison_error(left, right)
    return result


def less_or_equal(left: Value, right: Value) -> bool:
    """Return left <= right."""
    if type(left) is type(right) and type(left) in (float, bytes):
        return bool(left <= right)
    result = _ordered(left, right, b"__le")
    if result is not None:
        return result
    result = _ordered(right, left, b"__lt")
    if result is None:
        raise comparison_error(left, right)
    return not result


def _ordered(left: Value, right: Value, name: bytes) -> bool | None:
    """Return what the handler that both values have says, or None if they have none."""
    handler = handler_of(left, name)
    if handler is None or handler_of(right, name) is not handler:
        return None
    return is_true(single(handler(left, right)))


def comparison_error(left: Value, right: Value) -> LuaError:
    """Return the error of two values that have no order."""
    one, other = type_name(left), type_name(right)
    if one == other:
        return error(f"attempt to compare two {one} values")
    return error(f"attempt to compare {one} with {other}")
