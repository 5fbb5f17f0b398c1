"""next(), pairs() and ipairs(): the ways through a table."""

from __future__ import annotations

from typing import Any

from kvdb.lua.errors import LuaError
from kvdb.lua.library import arguments
from kvdb.lua.library.arguments import ABSENT
from kvdb.lua.meter import Meter
from kvdb.lua.runtime import Runtime
from kvdb.lua.values import NOTHING, Results, Table, Value, key_value


def walking_functions(runtime: Runtime) -> dict[bytes, Value]:
    """Return the functions, and tell the runtime of those that loops know."""

    def next_(table: Value = ABSENT, key: Value = None, *_: Value) -> Value:
        return _following(arguments.table(1, table), key, runtime.meter)

    def pairs(table: Value = ABSENT, *_: Value) -> Value:
        return Results((next_, arguments.table(1, table), None))

    runtime.next, runtime.next_of_array = next_, _next_of_array
    return {b"ipairs": ipairs, b"next": next_, b"pairs": pairs}


def ipairs(table: Value = ABSENT, *_: Value) -> Value:
    """ipairs(list)"""
    return Results((_next_of_array, arguments.table(1, table), 0.0))


def _next_of_array(table: Value = ABSENT, number: Value = ABSENT, *_: Value) -> Value:
    following = float(arguments.integer(2, number) + 1)
    value = arguments.table(1, table).get(following)
    return NOTHING if value is None else Results((following, value))


def _following(table: Table, key: Value, meter: Meter) -> Value:
    """Return the key after this one, and its value.

    The table keeps the keys that were there when the walk began, and where it has come to: a
    dict does not tell which key follows another, and a program may take out the key that it is at.
    """
    if key is None:
        keys, place = [next(iter(table), None)][: len(table)], -1
    else:
        keys, place = getattr(table, "walk", ([], 0))
        if not (place < len(keys) and key_value(keys[place]) is key):
            meter.check_work(len(table) + len(keys))
            place = _place_of(keys, key)
            if place < 0:
                keys = list(table)
                place = _place_of(keys, key)
            if place < 0:
                raise LuaError(b"invalid key to 'next'")
    found = _value_after(table, keys, place)
    if found is None:
        meter.check_work(len(table))
        known = set(keys)
        place, keys = len(keys) - 1, keys + [each for each in table if each not in known]
        found = _value_after(table, keys, place)
    return found


def _value_after(table: Table, keys: list[Any], place: int) -> Results | None:
    """Return the next key of these that is still there, and its value."""
    for number in range(place + 1, len(keys)):
        value = table.get(keys[number])
        if value is not None:
            table.walk = keys, number
            return Results((key_value(keys[number]), value))
    table.walk = [], 0
    return None


def _place_of(keys: list[Any], key: Value) -> int:
    """Return where a key is among the dict's keys; -1 if it is not."""
    for place, each in enumerate(keys):
        value = key_value(each)
        if type(value) is type(key) and (
            value is key or (not isinstance(key, Table) and value == key)
        ):
            return place
    return -1
