"""The library `string`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from kvdb.lua.errors import argument_error, call_back, error
from kvdb.lua.library import arguments
from kvdb.lua.library.arguments import ABSENT
from kvdb.lua.library.formatting import format_text
from kvdb.lua.library.patterns import SPECIALS, Matcher, compile_pattern
from kvdb.lua.meter import Meter
from kvdb.lua.values import (
    Results,
    Table,
    Value,
    is_true,
    results,
    single,
    to_text,
    type_name,
)

Builtin = Callable[..., Value]

_MOST_RESULTS: Final = 8_000
"""How many values may be returned at once (LUAI_MAXCSTACK of Lua 5.1)."""


def string_library(meter: Meter, index: Callable[[Value, Value], Value]) -> dict[bytes, Builtin]:
    """Return the functions; gsub() looks up replacements with `index`."""
    patterns = _Patterns(meter, index)

    def rep(string: Value = ABSENT, count: Value = ABSENT, *_: Value) -> Value:
        text, times = arguments.text(1, string), arguments.integer(2, count)
        meter.check_size(len(text) * max(times, 0))
        return text * times

    def format_(form: Value = ABSENT, *values: Value) -> Value:
        return format_text(arguments.text(1, form), values, meter)

    def measured(number: int, value: Value) -> bytes:
        """Return an argument that takes time in proportion to its length."""
        given = arguments.text(number, value)
        meter.check_work(len(given))
        return given

    def lower(string: Value = ABSENT, *_: Value) -> Value:
        return measured(1, string).lower()

    def upper(string: Value = ABSENT, *_: Value) -> Value:
        return measured(1, string).upper()

    def reverse(string: Value = ABSENT, *_: Value) -> Value:
        return measured(1, string)[::-1]

    def sub(string: Value = ABSENT, start: Value = ABSENT, end: Value = ABSENT, *_: Value) -> Value:
        text = arguments.text(1, string)
        begin = max(_from(arguments.integer(2, start), len(text)), 1)
        last = min(_from(arguments.integer(3, end, -1), len(text)), len(text))
        if begin > last:
            return b""
        meter.check_work(last - begin)
        return text[begin - 1 : last]

    return {
        b"byte": byte, b"char": char, b"dump": dump, b"find": patterns.find, b"format": format_,
        b"gfind": gfind, b"gmatch": patterns.gmatch, b"gsub": patterns.gsub, b"len": len_,
        b"lower": lower, b"match": patterns.match, b"rep": rep, b"reverse": reverse, b"sub": sub,
        b"upper": upper,
    }  # fmt: skip


def _from(position: int, length: int) -> int:
    """Return a position that may have been counted from the end; never below 0."""
    return max(position + length + 1, 0) if position < 0 else position


def byte(string: Value = ABSENT, start: Value = ABSENT, end: Value = ABSENT, *_: Value) -> Value:
    """string.byte(s [, i [, j]])"""
    text = arguments.text(1, string)
    begin = _from(arguments.integer(2, start, 1), len(text))
    last = min(_from(arguments.integer(3, end, begin), len(text)), len(text))
    begin = max(begin, 1)
    if last - begin + 1 > _MOST_RESULTS:
        raise error("string slice too long")
    return results([float(each) for each in text[begin - 1 : max(last, 0)]])


def char(*codes: Value) -> Value:
    """string.char(...)"""
    made = bytearray()
    for place, code in enumerate(codes, 1):
        number = arguments.integer(place, code)
        if not 0 <= number <= 255:
            raise argument_error(place, "invalid value")
        made.append(number)
    return bytes(made)


def dump(function: Value = ABSENT, *_: Value) -> Value:
    """string.dump(function): refused."""
    arguments.function(1, function)
    raise error("unable to dump given function")


def gfind(*_: Value) -> Value:
    """string.gfind(): as in Lua 5.1, it says how it is called now."""
    raise error("'string.gfind' was renamed to 'string.gmatch'")


def len_(string: Value = ABSENT, *_: Value) -> Value:
    """string.len(s)"""
    return float(len(arguments.text(1, string)))


class _Patterns:
    """The functions that match patterns."""

    def __init__(self, meter: Meter, index: Callable[[Value, Value], Value]) -> None:
        self._meter, self._index = meter, index

    def find(
        self, string: Value = ABSENT, pattern: Value = ABSENT, start: Value = ABSENT,
        plain: Value = None, *_: Value,
    ) -> Value:  # fmt: skip
        text, looked_for = arguments.text(1, string), arguments.text(2, pattern)
        begin = self._begin(text, start)
        if is_true(plain) or not SPECIALS.search(looked_for.partition(b"\0")[0]):
            self._meter.check_work(len(text) - begin)
            at = text.find(looked_for, begin)
            return None if at < 0 else Results((float(at + 1), float(at + len(looked_for))))
        found = self._search(text, looked_for, begin)
        if found is None:
            return None
        matcher, begin, end = found
        captures = matcher.captures(begin, end) if matcher.explicit_captures else []
        return Results([float(begin + 1), float(end), *captures])

    def match(
        self, string: Value = ABSENT, pattern: Value = ABSENT, start: Value = ABSENT, *_: Value
    ) -> Value:
        text, looked_for = arguments.text(1, string), arguments.text(2, pattern)
        found = self._search(text, looked_for, self._begin(text, start))
        if found is None:
            return None
        matcher, begin, end = found
        return results(matcher.captures(begin, end))

    @staticmethod
    def _begin(text: bytes, start: Value) -> int:
        return min(max(_from(arguments.integer(3, start, 1), len(text)) - 1, 0), len(text))

    def _search(self, text: bytes, pattern: bytes, begin: int) -> tuple[Matcher, int, int] | None:
        is_anchored = pattern.startswith(b"^")
        matcher = Matcher(compile_pattern(pattern[is_anchored:]), text, self._meter)
        while begin <= len(text):
            end = matcher.match(begin)
            if end is not None:
                return matcher, begin, end
            if is_anchored:
                break
            begin += 1
        return None

    def gmatch(self, string: Value = ABSENT, pattern: Value = ABSENT, *_: Value) -> Value:
        text, looked_for = arguments.text(1, string), arguments.text(2, pattern)
        matcher = Matcher(compile_pattern(looked_for), text, self._meter)
        at = 0

        def next_match(*_: Value) -> Value:
            nonlocal at
            while at <= len(text):
                begin, end = at, matcher.match(at)
                if end is not None:
                    at = end + (end == begin)  # an empty match: go on all the same
                    return results(matcher.captures(begin, end))
                at += 1
            return None

        return next_match

    def gsub(
        self, string: Value = ABSENT, pattern: Value = ABSENT, replacement: Value = ABSENT,
        most: Value = ABSENT, *_: Value,
    ) -> Value:  # fmt: skip
        text, looked_for = arguments.text(1, string), arguments.text(2, pattern)
        if type(replacement) is float:
            replacement = to_text(replacement)
        if not (
            type(replacement) is bytes or isinstance(replacement, Table) or callable(replacement)
        ):
            raise argument_error(3, "string/function/table expected")
        limit = arguments.integer(4, most, len(text) + 1)
        is_anchored = looked_for.startswith(b"^")
        matcher = Matcher(compile_pattern(looked_for[is_anchored:]), text, self._meter)
        parts: list[bytes] = []
        at = count = size = 0
        while count < limit:
            end = matcher.match(at)
            if end is not None:
                count += 1
                part = self._replaced(matcher, replacement, at, end)
                size += len(part)
                self._meter.check_size(size, len(part))
                parts.append(part)
            if end is not None and end > at:
                at = end
            elif at < len(text):
                parts.append(text[at : at + 1])
                at += 1
            else:
                break
            if is_anchored:
                break
        parts.append(text[at:])
        return Results((b"".join(parts), float(count)))

    def _replaced(self, matcher: Matcher, replacement: Any, start: int, end: int) -> bytes:
        whole = matcher._subject[start:end]
        if type(replacement) is bytes:
            return _filled_in(matcher, replacement, start, end, self._meter)
        if isinstance(replacement, Table):
            value = call_back(self._index, replacement, matcher.capture(0, start, end))
        else:
            value = single(call_back(replacement, *matcher.captures(start, end)))
        if not is_true(value):
            return whole
        text = to_text(value)
        if text is None:
            raise error(f"invalid replacement value (a {type_name(value)})")
        return text


def _filled_in(matcher: Matcher, replacement: bytes, start: int, end: int, meter: Meter) -> bytes:
    """Return a replacement with the captures in the places of %1 to %9."""
    if b"%" not in replacement:
        return replacement
    parts: list[bytes] = []
    pieces = iter(replacement.split(b"%"))
    parts.append(next(pieces))
    size = len(replacement)
    for piece in pieces:
        letter = piece[:1]
        size += len(parts[-1])
        meter.check_size(size, len(parts[-1]))
        if letter == b"":  # two of them, or the end: C finds a zero byte there
            following = next(pieces, None)
            parts.append(b"\0" if following is None else b"%" + following)
        elif letter == b"0":
            parts.append(matcher._subject[start:end] + piece[1:])
        elif letter.isdigit():
            value = matcher.capture(int(letter) - 1, start, end)
            parts.append((to_text(value) or b"") + piece[1:])
        else:
            parts.append(piece)
    return b"".join(parts)
