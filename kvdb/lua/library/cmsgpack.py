"""The library `cmsgpack`: MessagePack, as lua-cmsgpack reads and writes it."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final

from kvdb.lua.errors import argument_error, error
from kvdb.lua.library import arguments
from kvdb.lua.library.arguments import ABSENT
from kvdb.lua.meter import Meter
from kvdb.lua.values import Results, Table, Value, key_value, put, results

Builtin = Callable[..., Value]

_MOST_NESTED: Final = 16
"""Tables deeper than that are nil, as in lua-cmsgpack."""

_INTEGERS: Final = {
    0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_FLOATS: Final = {0xCA: ">f", 0xCB: ">d"}
_STRINGS: Final = {
    0xD9: ">B", 0xDA: ">H", 0xDB: ">I",
}  # fmt: skip
_CONSTANTS: Final = {0xC0: None, 0xC2: False, 0xC3: True}


def cmsgpack_library(meter: Meter) -> dict[bytes, Value]:
    """Return the functions."""

    def pack(*values: Value) -> Value:
        if not values:
            raise argument_error(0, "MessagePack pack needs input.")
        parts: list[bytes] = []
        size = 0
        for value in values:
            begin = len(parts)
            _pack(value, 0, parts, meter)
            new = sum(map(len, parts[begin:]))
            size += new
            meter.check_size(size, new)
        return b"".join(parts)

    def unpack(string: Value = ABSENT, *_: Value) -> Value:
        return results(_Unpacker(arguments.text(1, string), 0, meter).take())

    def unpack_one(string: Value = ABSENT, offset: Value = ABSENT, *_: Value) -> Value:
        return some(arguments.text(1, string), 1, arguments.integer(2, offset, 0))

    def unpack_limit(
        string: Value = ABSENT, limit: Value = ABSENT, offset: Value = ABSENT, *_: Value
    ) -> Value:
        text = arguments.text(1, string)
        return some(text, arguments.integer(2, limit), arguments.integer(3, offset, 0))

    def some(text: bytes, limit: int, offset: int) -> Value:
        if limit < 0 or offset < 0:
            raise error(
                f"Invalid request to unpack with offset of {offset} and limit of {len(text)}."
            )
        if offset > len(text):
            raise error(f"Start offset {offset} greater than input length {len(text)}.")
        unpacker = _Unpacker(text, offset, meter)
        values = unpacker.take(limit or None)
        if not limit and not offset:
            return results(values)
        end = -1.0 if unpacker.at == len(text) else float(unpacker.at)
        return Results((end, *values))

    library: dict[bytes, Value] = {
        b"_COPYRIGHT": b"Copyright (C) 2012, Salvatore Sanfilippo",
        b"_DESCRIPTION": b"MessagePack C implementation for Lua",
        b"_NAME": b"cmsgpack", b"_VERSION": b"lua-cmsgpack 0.4.0", b"pack": pack,
        b"unpack": unpack, b"unpack_limit": unpack_limit, b"unpack_one": unpack_one,
    }  # fmt: skip
    return library


def _pack(value: Value, depth: int, parts: list[bytes], meter: Meter) -> None:
    if not len(parts) % 1_000:
        meter.tick()
    if type(value) is bytes:
        parts += (_string_head(len(value)), value)
    elif type(value) is float:
        parts.append(_number(value))
    elif type(value) is bool:
        parts.append(b"\xc3" if value else b"\xc2")
    elif isinstance(value, Table) and depth < _MOST_NESTED:
        _pack_table(value, depth + 1, parts, meter)
    else:
        parts.append(b"\xc0")


def _pack_table(table: Table, depth: int, parts: list[bytes], meter: Meter) -> None:
    count = len(table)
    if all(type(key) is float and 1 <= key <= count and key.is_integer() for key in table):
        parts.append(_head(count, 0x90, b"\xdc", b"\xdd"))
        for number in range(1, count + 1):
            _pack(table.get(number), depth, parts, meter)
        return
    parts.append(_head(count, 0x80, b"\xde", b"\xdf"))
    for key, value in table.items():
        _pack(key_value(key), depth, parts, meter)
        _pack(value, depth, parts, meter)


def _head(count: int, few: int, many: bytes, most: bytes) -> bytes:
    if count <= 15:
        return bytes([few | count])
    return many + struct.pack(">H", count) if count <= 0xFFFF else most + struct.pack(">I", count)


def _string_head(length: int) -> bytes:
    if length < 32:
        return bytes([0xA0 | length])
    if length <= 0xFF:
        return b"\xd9" + bytes([length])
    return (
        b"\xda" + struct.pack(">H", length)
        if length <= 0xFFFF
        else b"\xdb" + struct.pack(">I", length)
    )


def _number(number: float) -> bytes:
    if number.is_integer() and -(2.0**63) <= number < 2.0**63:
        return _integer(int(number))
    try:
        short = struct.pack(">f", number)
        if struct.unpack(">f", short)[0] == number:
            return b"\xca" + short
    except OverflowError:
        pass
    return b"\xcb" + struct.pack(">d", number)


def _integer(number: int) -> bytes:
    if -32 <= number < 128:
        return struct.pack(">b", number)
    kinds = (0xCC, 0xCD, 0xCE, 0xCF) if number >= 0 else (0xD0, 0xD1, 0xD2, 0xD3)
    for kind, size in zip(kinds, (8, 16, 32, 64), strict=True):
        if -(2 ** (size - 1)) <= number < 2**size:
            return bytes([kind]) + struct.pack(_INTEGERS[kind], number)
    raise AssertionError(number)


class _Unpacker:
    def __init__(self, text: bytes, at: int, meter: Meter) -> None:
        self._text, self.at, self._meter = text, at, meter
        self._count = 0

    def take(self, most: int | None = None) -> list[Value]:
        """Return so many values, or all there are."""
        values: list[Value] = []
        while self.at < len(self._text) and (most is None or len(values) < most):
            values.append(self._value())
        return values

    def _bytes(self, count: int) -> bytes:
        if self.at + count > len(self._text):
            raise error("Missing bytes in input.")
        self.at += count
        return self._text[self.at - count : self.at]

    def _read(self, form: str) -> Any:
        return struct.unpack(form, self._bytes(struct.calcsize(form)))[0]

    def _value(self) -> Value:
        self._count += 1
        if not self._count % 1_000:
            self._meter.tick()
        kind: int = self._read(">B")
        if kind < 0x80 or kind >= 0xE0:
            return float(kind if kind < 0x80 else kind - 256)
        if kind in _CONSTANTS:
            return _CONSTANTS[kind]
        if kind in _INTEGERS or kind in _FLOATS:
            return float(self._read(_INTEGERS.get(kind) or _FLOATS[kind]))
        if kind in _STRINGS:
            return self._bytes(self._read(_STRINGS[kind]))
        if kind & 0xE0 == 0xA0:
            return self._bytes(kind & 0x1F)
        if kind & 0xF0 == 0x90 or kind in (0xDC, 0xDD):
            return self._array(
                kind & 0x0F if kind < 0xC0 else self._read(">H" if kind == 0xDC else ">I")
            )
        if kind & 0xF0 == 0x80 or kind in (0xDE, 0xDF):
            return self._map(
                kind & 0x0F if kind < 0xC0 else self._read(">H" if kind == 0xDE else ">I")
            )
        raise error("Bad data format in input.")

    def _array(self, count: int) -> Table:
        table = Table()
        for number in range(1, count + 1):
            put(table, float(number), self._value())
        return table

    def _map(self, count: int) -> Table:
        table = Table()
        for _ in range(count):
            key = self._value()
            value = self._value()
            if key is None or key != key:
                raise error("table index is nil" if key is None else "table index is NaN")
            put(table, key, value)
        return table
