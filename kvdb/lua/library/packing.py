"""The library `struct`: values as C has them in memory."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from kvdb.lua.errors import argument_error, error
from kvdb.lua.library import arguments
from kvdb.lua.library.arguments import ABSENT
from kvdb.lua.meter import Meter
from kvdb.lua.values import Value, results

Builtin = Callable[..., Value]

_SIZES: Final = {"b": 1, "h": 2, "l": 8, "t": 8, "f": 4, "d": 8}
_MOST_INTEGER: Final = 32


class _Item(NamedTuple):
    """One letter of a format: how many bytes, and in which order."""

    letter: str
    size: int
    is_little: bool
    alignment: int

    def padding(self, position: int) -> int:
        """Return how many bytes are left out before it."""
        alignment = self.alignment
        return (alignment - (position & (alignment - 1))) & (alignment - 1)


def struct_library(meter: Meter) -> dict[bytes, Builtin]:
    """Return the functions."""

    def pack(form: Value = ABSENT, *values: Value) -> Value:
        made = bytearray()
        place = 0
        for item in items(form):
            made += bytes(item.padding(len(made)))
            if item.letter == "x":
                made.append(0)
                continue
            value = (
                values[place] if place < len(values) else None if place == len(values) else ABSENT
            )
            place += 1
            packed = _packed(item, place + 1, value)
            made += packed
            meter.check_size(len(made), len(packed))
        return bytes(made)

    def items(form: Value) -> Iterator[_Item]:
        for number, item in enumerate(_items(arguments.text(1, form))):
            if not number % 1_000:
                meter.tick()
            yield item

    def unpack(
        form: Value = ABSENT, string: Value = ABSENT, start: Value = ABSENT, *_: Value
    ) -> Value:
        data = arguments.text(2, string)
        return _unpack(items(form), data, arguments.integer(3, start, 1) - 1)

    def size(form: Value = ABSENT, *_: Value) -> Value:
        return _size(items(form))

    return {b"pack": pack, b"unpack": unpack, b"size": size}


def _items(form: bytes) -> Iterator[_Item]:
    """Yield the items of a format."""
    text, at = form.decode("latin-1"), 0
    is_little, alignment = True, 1
    while at < len(text):
        letter = text[at]
        at += 1
        digits = ""
        while at < len(text) and text[at].isdigit() and letter in "iIc!":
            digits += text[at]
            at += 1
        match letter:
            case " ":
                continue
            case "<" | ">":
                is_little = letter == "<"
                continue
            case "!":
                alignment = int(digits or 8)
                if alignment & (alignment - 1) or not alignment:
                    raise error(f"alignment {alignment} is not a power of 2")
                continue
        size = _size_of(letter, digits)
        aligned = min(size, alignment) if letter in "bBhHlLTiIfd" else 1
        yield _Item(letter, size, is_little, max(aligned, 1))


def _size_of(letter: str, digits: str) -> int:
    if letter in ("i", "I"):
        size = int(digits or 4)
        if size > _MOST_INTEGER:
            raise error(f"integral size {size} is larger than limit of {_MOST_INTEGER}")
        return size
    if letter == "c":
        return int(digits or 1)
    if letter in ("s", "x"):
        return 1 if letter == "x" else 0
    size = _SIZES.get(letter.lower() if letter not in ("f", "d") else letter, 0)
    if not size or letter in ("F", "D", "t"):
        raise argument_error(1, f"invalid format option '{letter}'")
    return size


def _packed(item: _Item, place: int, value: Value) -> bytes:
    match item.letter:
        case "s":
            return arguments.text(place, value) + b"\0"
        case "c":
            text = arguments.text(place, value)
            size = item.size or len(text)
            if len(text) < size:
                raise argument_error(place + 1, "string too short")
            return text[:size]
        case "f" | "d":
            number = arguments.number(place, value)
            try:
                return struct.pack(("<" if item.is_little else ">") + item.letter, number)
            except OverflowError:
                return struct.pack(("<" if item.is_little else ">") + "f", float("inf") * number)
    bits: int = arguments.integer(place, value) % 2 ** (8 * item.size)
    return bits.to_bytes(item.size, "little" if item.is_little else "big")


def _unpack(items: Iterator[_Item], data: bytes, at: int) -> Value:
    if at < 0:
        raise argument_error(3, "offset must be 1 or greater")
    values: list[Value] = []
    for item in items:
        at += item.padding(at)
        size = item.size
        if at + size > len(data):
            raise argument_error(2, "data string too short")
        match item.letter:
            case "x":
                pass
            case "c":
                if not size:
                    size = _counted(values)
                    if at + size > len(data):
                        raise argument_error(2, "data string too short")
                values.append(data[at : at + size])
            case "s":
                end = data.find(b"\0", at)
                if end < 0:
                    raise error("unfinished string in data")
                values.append(data[at:end])
                size = end - at + 1
            case _:
                values.append(_number(item, data[at : at + size]))
        at += size
    return results([*values, float(at + 1)])


def _counted(values: list[Value]) -> int:
    """Take the number that was read last: it says how long the string is that follows."""
    if not values or type(values[-1]) is not float:
        raise error("format 'c0' needs a previous size")
    return int(values.pop())


def _number(item: _Item, data: bytes) -> float:
    if item.letter in "fd":
        return float(struct.unpack(("<" if item.is_little else ">") + item.letter, data)[0])
    is_signed = item.letter.islower()
    number = int.from_bytes(data, "little" if item.is_little else "big", signed=is_signed)
    return float(number)


def _size(items: Iterator[_Item]) -> Value:
    total = 0
    for item in items:
        if item.letter == "s":
            raise argument_error(1, "variable-size format for 'size'")
        if item.letter == "c" and not item.size:
            raise argument_error(1, "variable-length format for 'size'")
        total += item.padding(total) + item.size
    return float(total)
