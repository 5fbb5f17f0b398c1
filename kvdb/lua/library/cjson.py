"""The library `cjson`: JSON, as lua-cjson 2.1 reads and writes it."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Final

from kvdb.lua.errors import argument_error, error
from kvdb.lua.library import arguments
from kvdb.lua.library.arguments import ABSENT, given
from kvdb.lua.meter import Meter
from kvdb.lua.values import (
    NULL,
    ReadOnlyTable,
    Results,
    Table,
    Value,
    is_true,
    key_value,
    parse_number,
    put,
    type_name,
)

Builtin = Callable[..., Value]

_ESCAPED: Final = re.compile(rb'["\\/\x00-\x1f\x7f]')
_ESCAPES: Final = {
    b'"': b'\\"', b"\\": b"\\\\", b"/": b"\\/", b"\b": b"\\b", b"\t": b"\\t", b"\n": b"\\n",
    b"\f": b"\\f", b"\r": b"\\r",
}  # fmt: skip
_UNESCAPES: Final = {
    b'"': b'"', b"\\": b"\\", b"/": b"/", b"b": b"\b", b"t": b"\t", b"n": b"\n", b"f": b"\f",
    b"r": b"\r",
}  # fmt: skip
_BLANKS: Final = re.compile(rb"[ \t\r\n]*")
_PLAIN: Final = re.compile(rb'[^"\\\x00]*')
_NUMBER: Final = re.compile(
    rb"[+-]?(?:0[xX][0-9a-fA-F]+|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"
    rb"|(?i:infinity|inf|nan))"
)
_STRICT: Final = re.compile(rb"-?(?:0(?![0-9xX])|[1-9])[0-9.eE+-]*")
_SYMBOLS: Final = {
    b"{": "T_OBJ_BEGIN", b"}": "T_OBJ_END", b"[": "T_ARR_BEGIN", b"]": "T_ARR_END",
    b":": "T_COLON", b",": "T_COMMA",
}  # fmt: skip
_WORDS: Final[dict[bytes, tuple[str, Value]]] = {
    b"true": ("T_BOOLEAN", True), b"false": ("T_BOOLEAN", False), b"null": ("T_NULL", NULL),
}  # fmt: skip


class _Settings:
    """What can be chosen; the values are lua-cjson's."""

    def __init__(self) -> None:
        self.convert_sparse = False
        self.sparse_ratio, self.sparse_safe = 2, 10
        self.encode_depth = self.decode_depth = 1_000
        self.precision = 14
        self.encode_invalid: bool | bytes = False
        self.decode_invalid = True


def cjson_library(meter: Meter) -> dict[bytes, Value]:
    """Return the functions."""
    settings = _Settings()

    def encode(value: Value = ABSENT, *rest: Value) -> Value:
        if value is ABSENT or rest:
            raise argument_error(1, "expected 1 argument")
        return _Encoder(settings, meter).encode(value)

    def decode(string: Value = ABSENT, *rest: Value) -> Value:
        if string is ABSENT or rest:
            raise argument_error(1, "expected 1 argument")
        return _Decoder(settings, meter, arguments.text(1, string)).decode()

    def sparse(
        convert: Value = ABSENT, ratio: Value = ABSENT, safe: Value = ABSENT, *_: Value
    ) -> Value:
        settings.convert_sparse = _switch(convert, settings.convert_sparse)
        settings.sparse_ratio = arguments.integer(2, ratio, settings.sparse_ratio)
        settings.sparse_safe = arguments.integer(3, safe, settings.sparse_safe)
        chosen = float(settings.sparse_ratio), float(settings.sparse_safe)
        return Results((settings.convert_sparse, *chosen))

    def encode_depth(depth: Value = ABSENT, *_: Value) -> Value:
        settings.encode_depth = _bounded(depth, settings.encode_depth, 2**31 - 1)
        return float(settings.encode_depth)

    def decode_depth(depth: Value = ABSENT, *_: Value) -> Value:
        settings.decode_depth = _bounded(depth, settings.decode_depth, 2**31 - 1)
        return float(settings.decode_depth)

    def precision(digits: Value = ABSENT, *_: Value) -> Value:
        settings.precision = _bounded(digits, settings.precision, 14)
        return float(settings.precision)

    def encode_invalid(allowed: Value = ABSENT, *_: Value) -> Value:
        if allowed == b"null":
            settings.encode_invalid = b"null"
        else:
            settings.encode_invalid = _switch(allowed, bool(settings.encode_invalid))
        return settings.encode_invalid

    def decode_invalid(allowed: Value = ABSENT, *_: Value) -> Value:
        settings.decode_invalid = _switch(allowed, settings.decode_invalid)
        return settings.decode_invalid

    return {
        b"_NAME": b"cjson", b"_VERSION": b"2.1.0", b"decode": decode, b"encode": encode,
        b"decode_invalid_numbers": decode_invalid, b"decode_max_depth": decode_depth,
        b"encode_invalid_numbers": encode_invalid, b"encode_keep_buffer": _keep_buffer,
        b"encode_max_depth": encode_depth, b"encode_number_precision": precision,
        b"encode_sparse_array": sparse, b"null": NULL,
        b"new": lambda *_: ReadOnlyTable(cjson_library(meter)),
    }  # fmt: skip


def _keep_buffer(keep: Value = ABSENT, *_: Value) -> Value:
    return _switch(keep, True)  # there is none


def _switch(value: Value, default: bool) -> bool:
    if given(value) is None or type(value) is bool:
        return default if given(value) is None else is_true(value)
    option = arguments.text(1, value)
    if option not in (b"on", b"off"):
        shown = option.decode("utf-8", "surrogateescape")
        raise argument_error(1, f"invalid option '{shown}'")
    return option == b"on"


def _bounded(value: Value, default: int, most: int) -> int:
    number = arguments.integer(1, value, default)
    if not 1 <= number <= most:
        raise argument_error(1, f"expected integer between 1 and {most}")
    return number


class _Encoder:
    def __init__(self, settings: _Settings, meter: Meter) -> None:
        self._settings, self._meter = settings, meter
        self._parts: list[bytes] = []
        self._size = 0

    def encode(self, value: Value) -> bytes:
        self._encode(value, 0)
        return b"".join(self._parts)

    def _write(self, part: bytes) -> None:
        self._parts.append(part)
        self._size += len(part)
        if not len(self._parts) % 1_000:
            self._meter.tick()
        self._meter.check_size(self._size, len(part))

    def _encode(self, value: Value, depth: int) -> None:
        if type(value) is bytes:
            self._write(_quoted(value))
        elif type(value) is float:
            self._write(self._number(value))
        elif isinstance(value, Table):
            self._encode_table(value, depth + 1)
        elif value is None or value is NULL:
            self._write(b"null")
        elif type(value) is bool:
            self._write(b"true" if value else b"false")
        else:
            raise error(f"Cannot serialise {type_name(value)}: type not supported")

    def _number(self, number: float) -> bytes:
        if not math.isfinite(number):
            if self._settings.encode_invalid is False:
                raise error("Cannot serialise number: must not be NaN or Inf")
            if self._settings.encode_invalid == b"null":
                return b"null"
            return b"nan" if number != number else b"inf" if number > 0 else b"-inf"
        return b"%.*g" % (self._settings.precision, number)

    def _encode_table(self, table: Table, depth: int) -> None:
        if depth > self._settings.encode_depth:
            raise error(f"Cannot serialise, excessive nesting ({depth})")
        length = self._array_length(table)
        if length:
            for number in range(1, length + 1):
                self._write(b"," if number > 1 else b"[")
                self._encode(table.get(number), depth)
            self._write(b"]")
            return
        self._write(b"{")
        is_first = True
        for key, value in table.items():
            if type(key) is float:
                name = b'"%b":' % self._number(key)
            elif type(key) is bytes:
                name = _quoted(key) + b":"
            else:
                kind = type_name(key_value(key))
                raise error(f"Cannot serialise {kind}: table key must be a number or string")
            self._write(name if is_first else b"," + name)
            is_first = False
            self._encode(value, depth)
        self._write(b"}")

    def _array_length(self, table: Table) -> int:
        """Return how long the array is that a table stands for; 0 if it is written as an object."""
        most = 0
        for key in table:
            if type(key) is not float or key < 1 or not key.is_integer():
                return 0
            most = max(most, int(key))
        settings = self._settings
        ratio = settings.sparse_ratio
        if ratio > 0 and most > len(table) * ratio and most > settings.sparse_safe:
            if not settings.convert_sparse:
                raise error("Cannot serialise table: excessively sparse array")
            return 0
        return most


def _quoted(text: bytes) -> bytes:
    return b'"%b"' % (_ESCAPED.sub(_escape, text) if _ESCAPED.search(text) else text)


def _escape(found: re.Match[bytes]) -> bytes:
    return _ESCAPES.get(found[0]) or b"\\u%04x" % found[0][0]


class _Decoder:
    def __init__(self, settings: _Settings, meter: Meter, text: bytes) -> None:
        self._settings, self._meter, self._text = settings, meter, text
        self._at = 0
        self._kind = ""  # of the token read last
        self._value: Value = None
        self._begin = self._tokens = 0

    def decode(self) -> Value:
        if b"\0" in self._text[:2] and len(self._text) >= 2:
            raise error("JSON parser does not support UTF-16 or UTF-32")
        self._next()
        value = self._parse(0)
        self._next()
        if self._kind != "T_END":
            raise self._unexpected("the end")
        return value

    def _unexpected(self, expected: str) -> Exception:
        found = self._value if self._kind == "T_ERROR" else self._kind
        return error(f"Expected {expected} but found {found} at character {self._begin + 1}")

    def _parse(self, depth: int) -> Value:
        """Return the value that begins with the token read last."""
        if self._kind in ("T_STRING", "T_NUMBER", "T_BOOLEAN", "T_NULL"):
            return self._value
        if self._kind not in ("T_OBJ_BEGIN", "T_ARR_BEGIN"):
            raise self._unexpected("value")
        if depth + 1 > self._settings.decode_depth:
            raise error(
                f"Found too many nested data structures ({depth + 1}) at character {self._at}"
            )
        return self._object(depth + 1) if self._kind == "T_OBJ_BEGIN" else self._array(depth + 1)

    def _object(self, depth: int) -> Table:
        table = Table()
        self._next()
        if self._kind == "T_OBJ_END":
            return table
        while True:
            if self._kind != "T_STRING":
                raise self._unexpected("object key string")
            key = self._value
            self._next()
            if self._kind != "T_COLON":
                raise self._unexpected("colon")
            self._next()
            put(table, key, self._parse(depth))
            self._next()
            if self._kind == "T_OBJ_END":
                return table
            if self._kind != "T_COMMA":
                raise self._unexpected("comma or object end")
            self._next()

    def _array(self, depth: int) -> Table:
        table = Table()
        self._next()
        if self._kind == "T_ARR_END":
            return table
        number = 1.0
        while True:
            table[number] = self._parse(depth)
            number += 1.0
            self._next()
            if self._kind == "T_ARR_END":
                return table
            if self._kind != "T_COMMA":
                raise self._unexpected("comma or array end")
            self._next()

    def _next(self) -> None:
        """Read a token."""
        text = self._text
        blanks = _BLANKS.match(text, self._at)
        assert blanks
        self._begin = at = blanks.end()
        self._tokens += 1
        if not self._tokens % 1_000:
            self._meter.tick()
        byte = text[at : at + 1]
        if not byte or byte == b"\0":
            self._kind, self._at = "T_END", at
        elif byte in _SYMBOLS:
            self._kind, self._at = _SYMBOLS[byte], at + 1
        elif byte == b'"':
            self._string(at + 1)
        else:
            self._word_or_number(at)

    def _word_or_number(self, at: int) -> None:
        text = self._text
        for word, (kind, value) in _WORDS.items():
            if text.startswith(word, at):
                self._kind, self._value, self._at = kind, value, at + len(word)
                return
        allowed = self._settings.decode_invalid
        found = _NUMBER.match(text, at)
        if text[at : at + 1] == b".":
            self._fail("invalid token", at)
        elif found and not allowed and not _STRICT.match(text, at):
            self._fail("invalid number", at)
        elif found:
            self._kind, self._value, self._at = "T_NUMBER", parse_number(found[0]), found.end()
        elif text[at : at + 1] in b"-+":
            self._fail("invalid number", at)
        else:
            self._fail("invalid token", at)

    def _fail(self, reason: str, at: int) -> None:
        self._kind, self._value, self._begin = "T_ERROR", reason, at

    def _string(self, at: int) -> None:
        """Read a string, from after its quote on."""
        text, parts = self._text, []
        while True:
            plain = _PLAIN.match(text, at)
            assert plain
            parts.append(plain[0])
            at = plain.end()
            byte = text[at : at + 1]
            if byte == b'"':
                break
            if byte != b"\\":
                return self._fail("unexpected end of string", at)
            letter = text[at + 1 : at + 2]
            if letter == b"u":
                character, end = _unicode(text, at)
                if character is None:
                    return self._fail("invalid unicode escape code", at)
                parts.append(character)
                at = end
            elif letter in _UNESCAPES:
                parts.append(_UNESCAPES[letter])
                at += 2
            else:
                return self._fail("invalid escape code", at)
        self._kind, self._value, self._at = "T_STRING", b"".join(parts), at + 1
        return None


_UNICODE: Final = re.compile(rb"\\u([0-9a-fA-F]{4})")


def _unicode(text: bytes, at: int) -> tuple[bytes | None, int]:
    """Return what \\uXXXX there stands for, and where it ends; two of them may be one character."""
    found = _UNICODE.match(text, at)
    if found is None:
        return None, at
    code = int(found[1], 16)
    if 0xD800 <= code < 0xE000:
        second = _UNICODE.match(text, found.end())
        low = int(second[1], 16) if second else 0
        if code >= 0xDC00 or second is None or not 0xDC00 <= low < 0xE000:
            return None, at
        return chr(0x10000 + ((code & 0x3FF) << 10) + (low & 0x3FF)).encode(), second.end()
    return chr(code).encode(), found.end()
