"""The functions that have no library in front of their name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from kvdb.lua.errors import (
    CATCHABLE,
    LuaError,
    argument_error,
    call_back,
    error,
    lua_error,
    position,
)
from kvdb.lua.lexer import LuaSyntaxError
from kvdb.lua.library import arguments
from kvdb.lua.library.arguments import ABSENT, given
from kvdb.lua.library.walking import walking_functions
from kvdb.lua.runtime import READ_ONLY, Runtime
from kvdb.lua.values import (
    NOTHING,
    Function,
    GuardedTable,
    ReadOnlyTable,
    Results,
    Table,
    Userdata,
    Value,
    expand,
    get,
    is_true,
    length,
    number_text,
    put,
    results,
    single,
    to_number,
    type_name,
)

Builtin = Callable[..., Value]

_MOST_RESULTS: Final = 8_000
"""How many values may be returned at once (LUAI_MAXCSTACK of Lua 5.1)."""

_KILOBYTES: Final = 64.0
"""What a program is told of the memory in use: Python keeps no account of it."""

_LONGEST_SOURCE: Final = 16 * 1024
"""Bytes that a program may compile at a time: nobody can look at the clock meanwhile."""

_LONGEST_FILE: Final = 52
_LONGEST_LINE: Final = 43
"""How much of a chunk's name errors show: LUA_IDSIZE of Lua 5.1, less what surrounds it."""

_DIGITS: Final = b"0123456789abcdefghijklmnopqrstuvwxyz"


def basic_library(runtime: Runtime, load: Callable[[bytes, str], Function]) -> dict[bytes, Value]:
    """Return the functions, and tell the runtime of those that loops know.

    `load` makes a function of a source text, under a name; it raises LuaSyntaxError.
    """
    walking = walking_functions(runtime)
    string_metatable = ReadOnlyTable({b"__index": runtime.strings})

    def setmetatable(table: Value = ABSENT, metatable: Value = ABSENT, *_: Value) -> Value:
        changed = arguments.table(1, table)
        _set_metatable(changed, metatable)
        changed.ticks = runtime.meter.turns
        return changed

    def getmetatable(value: Value = ABSENT, *_: Value) -> Value:
        arguments.any_value(1, value)
        if type(value) is bytes:
            return string_metatable
        if type(value) is not GuardedTable:
            return None
        protected = value.metatable.get(b"__metatable")
        return value.metatable if protected is None else protected

    def loadstring(source: Value = ABSENT, name: Value = ABSENT, *_: Value) -> Value:
        text = arguments.text(1, source)
        runtime.meter.tick()
        return _loaded(load, text, text if given(name) is None else arguments.text(2, name))

    def load_(function: Value = ABSENT, name: Value = ABSENT, *_: Value) -> Value:
        arguments.function(1, function)
        parts: list[bytes] = []
        size = 0
        while True:
            runtime.meter.tick()
            try:
                part = single(call_back(function))
            except CATCHABLE as raised:
                return Results((None, lua_error(raised).value))
            if part is None or part == b"":
                break
            if type(part) is not bytes:
                return Results((None, b"reader function must return a string"))
            parts.append(part)
            size += len(part)
            runtime.meter.check_size(size, len(part))
        shown = b"=(load)" if given(name) is None else arguments.text(2, name)
        return _loaded(load, b"".join(parts), shown)

    def caught(raised: Exception) -> Value:
        """Return the value of an error. To come here may have taken long: nests are unwound."""
        runtime.meter.tick()
        return lua_error(raised).value

    def pcall(function: Value = ABSENT, *values: Value) -> Value:
        arguments.any_value(1, function)
        try:
            return Results((True, *expand(call_back(function, *values))))
        except CATCHABLE as raised:
            return Results((False, caught(raised)))

    def xpcall(function: Value = ABSENT, handler: Value = ABSENT, *_: Value) -> Value:
        arguments.any_value(2, handler)
        try:
            return Results((True, *expand(call_back(function))))
        except CATCHABLE as raised:
            value = caught(raised)
        try:
            return Results((False, *expand(call_back(handler, value))))
        except CATCHABLE as raised:
            caught(raised)
            return Results((False, b"error in error handling"))

    return {
        b"_VERSION": b"Lua 5.1", b"assert": assert_, b"collectgarbage": collectgarbage,
        b"error": error_, b"gcinfo": gcinfo, b"getmetatable": getmetatable, b"load": load_,
        b"loadstring": loadstring, b"pcall": pcall, b"rawequal": rawequal, b"rawget": rawget,
        b"rawset": rawset, b"select": select, b"setmetatable": setmetatable,
        b"tonumber": tonumber, b"tostring": tostring, b"type": type_, b"unpack": unpack,
        b"xpcall": xpcall,
    } | walking  # fmt: skip


def _loaded(load: Callable[[bytes, str], Function], source: bytes, name: bytes) -> Value:
    shown = _chunk_name(name)
    if len(source) > _LONGEST_SOURCE:
        return Results((None, f"{shown}:1: chunk is too long".encode("utf-8", "surrogateescape")))
    try:
        return load(source, shown)
    except LuaSyntaxError as wrong:
        return Results((None, str(wrong).encode("utf-8", "surrogateescape")))


def _chunk_name(name: bytes) -> str:
    """Return what errors call a text that has this name (luaO_chunkid)."""
    text = name.partition(b"\0")[0]
    if text[:1] == b"=":
        shown = text[1:60]
    elif text[:1] == b"@":
        shown = text[1:] if len(text) <= _LONGEST_FILE + 1 else b"..." + text[-_LONGEST_FILE:]
    else:
        line = re.split(rb"[\r\n]", text, maxsplit=1)[0][:_LONGEST_LINE]
        shown = b'[string "%b%b"]' % (line, b"..." if line != text else b"")
    return shown.decode("utf-8", "surrogateescape")


# --- errors -------------------------------------------------------------------------------------


def assert_(value: Value = ABSENT, message: Value = ABSENT, *rest: Value) -> Value:
    """assert(v [, message])"""
    arguments.any_value(1, value)
    if is_true(value):
        return results([value, *(() if message is ABSENT else (message, *rest))])
    if given(message) is None:
        raise error("assertion failed!")
    raise LuaError(arguments.text(2, message))


def error_(message: Value = None, level: Value = ABSENT, *_: Value) -> Value:
    """error(message [, level])"""
    at = arguments.integer(2, level, 1)
    if type(message) is float:
        message = number_text(message)
    if type(message) is bytes and at > 0:
        message = position(at) + message
    raise LuaError(message)


# --- tables -------------------------------------------------------------------------------------


def _set_metatable(changed: Table, metatable: Value) -> None:
    if metatable is not None and not isinstance(metatable, Table):
        raise argument_error(2, "nil or table expected")
    if isinstance(changed, ReadOnlyTable):
        raise LuaError(READ_ONLY.encode())
    if type(changed) is GuardedTable and changed.metatable.get(b"__metatable") is not None:
        raise error("cannot change a protected metatable")
    if metatable is None:
        changed.__class__ = Table
    else:
        changed.__class__ = GuardedTable
        changed.metatable = metatable


def rawget(table: Value = ABSENT, key: Value = ABSENT, *_: Value) -> Value:
    """rawget(table, key)"""
    arguments.any_value(2, key)
    return get(arguments.table(1, table), key)


def rawset(table: Value = ABSENT, key: Value = ABSENT, value: Value = ABSENT, *_: Value) -> Value:
    """rawset(table, key, value)"""
    changed = arguments.table(1, table)
    arguments.any_value(2, key)
    arguments.any_value(3, value)
    if isinstance(changed, ReadOnlyTable):
        raise LuaError(READ_ONLY.encode())
    if key is None or key != key:
        raise LuaError(b"table index is nil" if key is None else b"table index is NaN")
    put(changed, key, value)
    return changed


def rawequal(left: Value = ABSENT, right: Value = ABSENT, *_: Value) -> Value:
    """rawequal(one, other)"""
    arguments.any_value(1, left)
    arguments.any_value(2, right)
    if isinstance(left, Table):
        return left is right
    return type(left) is type(right) and left == right


def unpack(table: Value = ABSENT, start: Value = ABSENT, end: Value = ABSENT, *_: Value) -> Value:
    """unpack(list [, i [, j]])"""
    values = arguments.table(1, table)
    begin = arguments.integer(2, start, 1)
    last = arguments.integer(3, end, int(length(values)))
    if begin > last:
        return NOTHING
    if last - begin >= _MOST_RESULTS:
        raise error("too many results to unpack")
    return results([values.get(number) for number in range(begin, last + 1)])


def select(place: Value = ABSENT, *values: Value) -> Value:
    """select(n or "#", ...)"""
    if type(place) is bytes and place[:1] == b"#":
        return float(len(values))
    number = arguments.integer(1, place)
    if number < 0:
        number += len(values) + 1
    if number < 1:
        raise argument_error(1, "index out of range")
    return results(values[number - 1 :])


# --- types --------------------------------------------------------------------------------------


def type_(value: Value = ABSENT, *_: Value) -> Value:
    """type(value)"""
    return type_name(arguments.any_value(1, value)).encode()


def tostring(value: Value = ABSENT, *_: Value) -> Value:
    """tostring(value)"""
    if type(value) is bytes:
        return value
    if type(value) is float:
        return number_text(value)
    arguments.any_value(1, value)
    if value is None or type(value) is bool:
        return b"nil" if value is None else b"true" if value else b"false"
    if type(value) is GuardedTable:
        handler = value.metatable.get(b"__tostring")
        if handler is not None:
            return single(call_back(handler, value))
    if isinstance(value, Userdata):
        return value.shown
    return f"{type_name(value)}: 0x{id(value):x}".encode()


def tonumber(value: Value = ABSENT, base: Value = ABSENT, *_: Value) -> Value:
    """tonumber(value [, base])"""
    radix = arguments.integer(2, base, 10)
    if radix == 10:
        return to_number(arguments.any_value(1, value))
    digits = arguments.text(1, value)
    if not 2 <= radix <= 36:
        raise argument_error(2, "base out of range")
    return _parse_in_base(digits, radix)


def _parse_in_base(text: bytes, base: int) -> float | None:
    """Return what C's strtoul makes of a string, or None if there is something else in it."""
    digits = text.strip(b" \t\n\v\f\r").lower()
    is_negative = digits.startswith(b"-")
    digits = digits[1:] if digits[:1] in (b"-", b"+") else digits
    if base == 16 and digits.startswith(b"0x"):
        digits = digits[2:]
    if not digits or not all(each in _DIGITS[:base] for each in digits):
        return None
    digits = digits.lstrip(b"0") or b"0"
    number = min(int(digits, base), 2**64 - 1) if len(digits) <= 64 else 2**64 - 1
    return float(-number % 2**64 if is_negative else number)


# --- memory: Python's business --------------------------------------------------------------------


def collectgarbage(option: Value = ABSENT, *_: Value) -> Value:
    """collectgarbage([option]): does nothing."""
    what = b"collect" if given(option) is None else arguments.text(1, option)
    match what:
        case b"count":
            return _KILOBYTES
        case b"collect" | b"stop" | b"restart" | b"step" | b"setpause" | b"setstepmul":
            return 0.0
    raise argument_error(1, f"invalid option '{what.decode('utf-8', 'replace')}'")


def gcinfo(*_: Value) -> Value:
    """gcinfo()"""
    return _KILOBYTES
