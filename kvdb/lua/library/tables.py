"""The library `table`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kvdb.lua.errors import call_back, error
from kvdb.lua.library import arguments
from kvdb.lua.library.arguments import ABSENT, given
from kvdb.lua.meter import Meter
from kvdb.lua.runtime import READ_ONLY, less
from kvdb.lua.values import (
    NOTHING,
    ReadOnlyTable,
    Table,
    Value,
    is_true,
    key_value,
    length,
    put,
    single,
    to_text,
    type_name,
)

Builtin = Callable[..., Value]


def table_library(meter: Meter) -> dict[bytes, Builtin]:
    """Return the functions."""

    def concat(
        table: Value = ABSENT, separator: Value = ABSENT, start: Value = ABSENT,
        end: Value = ABSENT, *_: Value,
    ) -> Value:  # fmt: skip
        values = arguments.table(1, table)
        between = b"" if given(separator) is None else arguments.text(2, separator)
        begin = arguments.integer(3, start, 1)
        last = arguments.integer(4, end, int(length(values)))
        parts: list[bytes] = []
        size = 0
        for place in range(begin, last + 1):
            text = to_text(values.get(place))
            if text is None:
                kind = type_name(values.get(place))
                raise error(f"invalid value ({kind}) at index {place} in table for 'concat'")
            new = len(text) + len(between)
            size += new
            if not place % 1000:
                meter.tick()
            meter.check_size(size, new)
            parts.append(text)
        return between.join(parts)

    def sort(table: Value = ABSENT, comparator: Value = ABSENT, *_: Value) -> Value:
        values = _changeable(1, table)
        if given(comparator) is not None:
            arguments.function(2, comparator)
        _Sort(values, given(comparator), meter).sort()
        return NOTHING

    def insert(table: Value = ABSENT, *rest: Value) -> Value:
        values = _changeable(1, table)
        end = int(length(values)) + 1
        if len(rest) == 1:
            put(values, float(end), rest[0])
            return NOTHING
        if len(rest) != 2:
            raise error("wrong number of arguments to 'insert'")
        place = arguments.integer(2, rest[0])
        for number in range(max(end, place), place, -1):
            if not number % 1_000:
                meter.tick()
            put(values, float(number), values.get(number - 1))
        put(values, float(place), rest[1])
        return NOTHING

    def remove(table: Value = ABSENT, position: Value = ABSENT, *_: Value) -> Value:
        values = _changeable(1, table)
        end = int(length(values))
        place = arguments.integer(2, position, end)
        if not 1 <= place <= end:
            return NOTHING
        removed = values.get(place)
        for number in range(place, end):
            if not number % 1_000:
                meter.tick()
            put(values, float(number), values.get(number + 1))
        put(values, float(end), None)
        return removed

    def maxn(table: Value = ABSENT, *_: Value) -> Value:
        values = arguments.table(1, table)
        meter.check_work(len(values))
        numbers = (key for key in values if type(key) is float)
        return max((number for number in numbers if number > 0), default=0.0)

    return {
        b"concat": concat, b"foreach": foreach, b"foreachi": foreachi, b"getn": getn,
        b"insert": insert, b"maxn": maxn, b"remove": remove, b"setn": setn, b"sort": sort,
    }  # fmt: skip


def _changeable(number: int, value: Value) -> Table:
    table = arguments.table(number, value)
    if isinstance(table, ReadOnlyTable):
        raise error(READ_ONLY)
    return table


def getn(table: Value = ABSENT, *_: Value) -> Value:
    """table.getn(list)"""
    return length(arguments.table(1, table))


def setn(table: Value = ABSENT, *_: Value) -> Value:
    """table.setn(): as in Lua 5.1, it is obsolete."""
    arguments.table(1, table)
    raise error("'setn' is obsolete")


def foreach(table: Value = ABSENT, function: Value = ABSENT, *_: Value) -> Value:
    """table.foreach(table, function)"""
    values, call = arguments.table(1, table), arguments.function(2, function)
    for key in list(values):
        result = single(call_back(call, key_value(key), values.get(key)))
        if result is not None:
            return result
    return NOTHING


def foreachi(table: Value = ABSENT, function: Value = ABSENT, *_: Value) -> Value:
    """table.foreachi(list, function)"""
    values, call = arguments.table(1, table), arguments.function(2, function)
    for number in range(1, int(length(values)) + 1):
        result = single(call_back(call, float(number), values.get(number)))
        if result is not None:
            return result
    return NOTHING


class _Sort:
    """Sorts a table in place: Lua's own quicksort, so that equals end up where Lua puts them."""

    def __init__(self, table: Table, comparator: Value, meter: Meter) -> None:
        self._table, self._comparator, self._meter = table, comparator, meter

    def sort(self) -> None:
        table, count = self._table, int(length(self._table))
        self._meter.check_work(count)
        values: list[Any] = [table.get(number) for number in range(1, count + 1)]
        is_ordered = {type(value) for value in values} in ({float}, {bytes})
        if self._comparator is None and is_ordered and not any(each != each for each in values):
            for number, value in enumerate(sorted(values), 1):  # where equals are all the same
                table[float(number)] = value
            return
        self._sort(1, count)

    def _less(self, left: Value, right: Value) -> bool:
        self._meter.tick()
        if self._comparator is None:
            return bool(call_back(less, left, right))
        return is_true(single(call_back(self._comparator, left, right)))

    def _swap(self, one: int, other: int) -> None:
        table = self._table
        here, there = table.get(one), table.get(other)
        put(table, float(one), there)
        put(table, float(other), here)

    def _sort(self, low: int, high: int) -> None:
        value = self._table.get
        while low < high:
            if self._less(value(high), value(low)):
                self._swap(low, high)
            if high - low == 1:
                return
            middle = (low + high) // 2
            if self._less(value(middle), value(low)):
                self._swap(middle, low)
            elif self._less(value(high), value(middle)):
                self._swap(middle, high)
            if high - low == 2:
                return
            middle = self._partition(low, high, middle)
            if middle - low < high - middle:
                self._sort(low, middle - 1)
                low = middle + 1
            else:
                self._sort(middle + 1, high)
                high = middle - 1

    def _partition(self, low: int, high: int, middle: int) -> int:
        value = self._table.get
        pivot = value(middle)
        self._swap(middle, high - 1)
        left, right = low, high - 1
        while True:
            left += 1
            while self._less(value(left), pivot):
                if left > high:
                    raise error("invalid order function for sorting")
                left += 1
            right -= 1
            while self._less(pivot, value(right)):
                if right < low:
                    raise error("invalid order function for sorting")
                right -= 1
            if right < left:
                break
            self._swap(left, right)
        self._swap(high - 1, left)
        return left
