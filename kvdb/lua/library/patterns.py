"""Lua's patterns: strings that describe strings, matched with backtracking.

A pattern is cut into items once. How far a run of one class of characters goes (`%d+`, `.*`) the
regular expressions of Python find out; what comes after it, and going back if that does not
match, is done here, where somebody can look at the clock meanwhile.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import Final

from kvdb.lua.errors import error
from kvdb.lua.meter import Meter
from kvdb.lua.values import Value

SPECIALS: Final = re.compile(rb"[\^$*+?.(\[%\-]")
"""What makes a pattern more than a string to be looked for."""

_MOST_CAPTURES: Final = 32
_LONGEST_PATTERN: Final = 64 * 1024  # nobody can look at the clock while one is compiled
_UNFINISHED: Final = -1
_POSITION: Final = -2
_TURNS: Final = 1_000  # between two looks at the clock

_CLASSES: Final = {
    b"a": rb"A-Za-z", b"c": rb"\x00-\x1f\x7f", b"d": rb"0-9", b"l": rb"a-z",
    b"p": rb"!-/:-@\[-`{-~", b"s": rb" \t\n\v\f\r", b"u": rb"A-Z", b"w": rb"A-Za-z0-9",
    b"x": rb"A-Fa-f0-9", b"z": rb"\x00",
}  # fmt: skip
"""The classes of the C locale, as ranges."""


class _Item:
    """A part of a pattern."""


@dataclass
class _Run(_Item):
    """Characters of a class: as many as there are, or (`is_lazy`) as few as possible."""

    characters: bytes  # for each byte, 1 if it is in the class
    least: int
    most: int | None
    is_lazy: bool
    run: re.Pattern[bytes]


@dataclass
class _One(_Item):
    """Exactly one character of a class."""

    characters: bytes


@dataclass
class _Open(_Item):
    is_position: bool


class _Close(_Item):
    pass


class _AtEnd(_Item):
    pass


@dataclass
class _Back(_Item):
    """What a capture has matched, once more."""

    digit: int


@dataclass
class _Balanced(_Item):
    begin: int
    end: int


@dataclass
class _Frontier(_Item):
    characters: bytes


@dataclass
class _Malformed(_Item):
    """An error, raised when matching has come so far: as Lua does it."""

    message: str


class _Malformation(Exception):
    pass


@functools.lru_cache(maxsize=500)
def compile_pattern(pattern: bytes) -> tuple[_Item, ...]:
    """Cut a pattern into its items; a `^` in front is the caller's business.

    As for C's strings, a zero byte ends it.
    """
    pattern = pattern.partition(b"\0")[0]
    if len(pattern) > _LONGEST_PATTERN:
        return (_Malformed("pattern too complex"),)
    items: list[_Item] = []
    at = 0
    try:
        while at < len(pattern):
            item, at = _item(pattern, at)
            items.append(item)
    except _Malformation as malformed:
        items.append(_Malformed(str(malformed)))
    return tuple(items)


def _item(pattern: bytes, at: int) -> tuple[_Item, int]:
    """Return the item that begins there, and where the next one does."""
    head, following = pattern[at : at + 1], pattern[at + 1 : at + 2]
    if head == b"(":
        return (_Open(True), at + 2) if following == b")" else (_Open(False), at + 1)
    if head == b")":
        return _Close(), at + 1
    if head == b"$" and at + 1 == len(pattern):
        return _AtEnd(), at + 1
    if head == b"%" and following == b"b":
        if at + 4 > len(pattern):
            raise _Malformation("unbalanced pattern")
        return _Balanced(pattern[at + 2], pattern[at + 3]), at + 4
    if head == b"%" and following == b"f":
        if pattern[at + 2 : at + 3] != b"[":
            raise _Malformation("missing '[' after '%f' in pattern")
        characters, at = _class(pattern, at + 2)
        return _Frontier(_members(characters)), at
    if head == b"%" and following.isdigit():
        return _Back(int(following)), at + 2
    characters, at = _class(pattern, at)
    members = _members(characters)
    suffix = pattern[at : at + 1]
    if suffix and suffix in b"*+-?":
        least = 1 if suffix == b"+" else 0
        most = 1 if suffix == b"?" else None
        bound = b"?" if suffix == b"?" else b"*"
        run = re.compile(b"[%b]%b" % (characters, bound), re.DOTALL)
        return _Run(members, least, most, suffix == b"-", run), at + 1
    return _One(members), at


def _class(pattern: bytes, at: int) -> tuple[bytes, int]:
    """Return the class that begins there, as what stands in the brackets of Python's."""
    head = pattern[at : at + 1]
    if head == b"%":
        if at + 1 == len(pattern):
            raise _Malformation("malformed pattern (ends with '%')")
        return _escaped(pattern[at + 1 : at + 2]), at + 2
    if head == b".":
        return rb"\x00-\xff", at + 1
    if head == b"[":
        return _set(pattern, at + 1)
    return re.escape(head), at + 1


def _escaped(letter: bytes) -> bytes:
    ranges = _CLASSES.get(letter.lower())
    if ranges is None:
        return re.escape(letter)
    return ranges if letter.islower() else _complement(ranges)


def _complement(ranges: bytes) -> bytes:
    members = _members(ranges)
    return b"".join(rb"\x%02x" % byte for byte in range(256) if not members[byte])


def _set(pattern: bytes, at: int) -> tuple[bytes, int]:
    """Return the set whose `[` is just before that place."""
    is_negative = pattern[at : at + 1] == b"^"
    at += is_negative
    end = _set_end(pattern, at)
    parts: list[bytes] = []
    while at < end:
        letter = pattern[at : at + 1]
        if letter == b"%":
            parts.append(_escaped(pattern[at + 1 : at + 2]))
            at += 2
        elif pattern[at + 1 : at + 2] == b"-" and at + 2 < end:
            first, last = pattern[at], pattern[at + 2]
            parts.append(rb"\x%02x-\x%02x" % (first, last) if first <= last else b"")
            at += 3
        else:
            parts.append(re.escape(letter))
            at += 1
    ranges = b"".join(parts)
    # Python has no empty set: nothing is outside of everything.
    if is_negative:
        ranges = _complement(ranges) if ranges else rb"\x00-\xff"
    return ranges or rb"^\x00-\xff", end + 1


def _set_end(pattern: bytes, at: int) -> int:
    """Return where the `]` of a set is; the first character is no end, nor an escaped one."""
    while at < len(pattern):
        at += 2 if pattern[at : at + 1] == b"%" else 1
        if pattern[at : at + 1] == b"]":
            return at
    raise _Malformation("malformed pattern (missing ']')")


@functools.lru_cache(maxsize=500)
def _members(ranges: bytes) -> bytes:
    expression = re.compile(b"[%b]" % ranges, re.DOTALL)
    return bytes(expression.match(bytes([byte])) is not None for byte in range(256))


class Matcher:
    """Matches one pattern against one string, from wherever it is asked to."""

    def __init__(self, items: tuple[_Item, ...], subject: bytes, meter: Meter) -> None:
        self._items, self._subject, self._meter = items, subject, meter
        self._turns = _TURNS
        self._captures: list[list[int]] = []  # start and length, or one of the two marks

    def match(self, start: int) -> int | None:
        """Return where a match that begins there ends, or None."""
        self._captures = []
        return self._match(0, start)

    def captures(self, start: int, end: int) -> list[Value]:
        """Return what was captured: the whole match if the pattern has no captures."""
        if not self._captures:
            return [self._subject[start:end]]
        return [self._capture(number) for number in range(len(self._captures))]

    def capture(self, number: int, start: int, end: int) -> Value:
        """Return one capture, counted from 0; without any, the first is the whole match."""
        if number >= len(self._captures):
            if number == 0:
                return self._subject[start:end]
            raise error("invalid capture index")
        return self._capture(number)

    @property
    def explicit_captures(self) -> int:
        """How many captures the pattern has had so far."""
        return len(self._captures)

    def _capture(self, number: int) -> Value:
        start, length = self._captures[number]
        if length == _UNFINISHED:
            raise error("unfinished capture")
        return float(start + 1) if length == _POSITION else self._subject[start : start + length]

    def _tick(self) -> None:
        self._turns -= 1
        if self._turns <= 0:
            self._turns = _TURNS
            self._meter.tick()

    def _match(self, place: int, at: int) -> int | None:
        """Match the items from `place` on against the subject from `at` on."""
        subject, items = self._subject, self._items
        first = place
        self._tick()
        while place < len(items):
            item = items[place]
            place += 1
            match item:
                case _One():
                    if at >= len(subject) or not item.characters[subject[at]]:
                        self._turns -= place - first  # a long pattern takes long
                        return None
                    at += 1
                case _Run():
                    return (
                        self._lazily(item, place, at)
                        if item.is_lazy
                        else self._greedily(item, place, at)
                    )
                case _Open():
                    return self._open(item, place, at)
                case _Close():
                    return self._close(place, at)
                case _AtEnd():
                    return at if at == len(subject) else None
                case _Frontier():
                    before = subject[at - 1] if at else 0
                    after = subject[at] if at < len(subject) else 0
                    if item.characters[before] or not item.characters[after]:
                        return None
                case _Balanced():
                    end = self._balanced(item, at)
                    if end is None:
                        return None
                    at = end
                case _Back():
                    text = self._back(item.digit)
                    if text is None or not subject.startswith(text, at):
                        return None
                    at += len(text)
                case _Malformed():
                    raise error(item.message)
        return at

    def _greedily(self, item: _Run, place: int, at: int) -> int | None:
        found = item.run.match(self._subject, at)
        assert found
        end = found.end()
        if place == len(self._items):
            return end if end >= at + item.least else None
        while end >= at + item.least:
            result = self._match(place, end)
            if result is not None:
                return result
            end -= 1
        return None

    def _lazily(self, item: _Run, place: int, at: int) -> int | None:
        while True:
            result = self._match(place, at)
            if result is not None:
                return result
            if at >= len(self._subject) or not item.characters[self._subject[at]]:
                return None
            at += 1

    def _open(self, item: _Open, place: int, at: int) -> int | None:
        if len(self._captures) >= _MOST_CAPTURES:
            raise error("too many captures")
        self._captures.append([at, _POSITION if item.is_position else _UNFINISHED])
        level = len(self._captures)
        result = self._match(place, at)
        if result is None:
            del self._captures[level - 1 :]
        return result

    def _close(self, place: int, at: int) -> int | None:
        for capture in reversed(self._captures):
            if capture[1] == _UNFINISHED:
                capture[1] = at - capture[0]
                result = self._match(place, at)
                if result is None:
                    capture[1] = _UNFINISHED
                return result
        raise error("invalid pattern capture")

    def _balanced(self, item: _Balanced, at: int) -> int | None:
        subject = self._subject
        if at >= len(subject) or subject[at] != item.begin:
            return None
        depth = 1
        while depth:
            at += 1
            if at >= len(subject):
                return None
            self._tick()
            if subject[at] == item.end:
                depth -= 1
            elif subject[at] == item.begin:
                depth += 1
        return at + 1

    def _back(self, digit: int) -> bytes | None:
        """Return what a capture has matched; None if that was a position, which never matches."""
        if not 1 <= digit <= len(self._captures) or self._captures[digit - 1][1] == _UNFINISHED:
            raise error("invalid capture index")
        start, length = self._captures[digit - 1]
        return None if length == _POSITION else self._subject[start : start + length]
