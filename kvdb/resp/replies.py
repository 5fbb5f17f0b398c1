"""The client's side: requests into bytes, and replies out of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from kvdb.errors import CommandError, ProtocolError
from kvdb.resp.limits import MAX_LINE, parse_length

NEED_DATA: Final = object()
"""What `ReplyParser.next_reply()` returns until a reply is whole."""


def encode_request(arguments: Iterable[bytes]) -> bytes:
    """Put one request into bytes."""
    parts = [b""]
    for argument in arguments:
        parts += (b"$%d\r\n" % len(argument), argument, b"\r\n")
    parts[0] = b"*%d\r\n" % (len(parts) // 3)
    return b"".join(parts)


class ReplyParser:
    """Reads replies of RESP2 and RESP3.

    Strings of all kinds become bytes, errors a `CommandError` (returned, not raised), sets
    and pushes a list, maps a dict. After a ProtocolError the stream is out of step: close.

    A string is read when it is whole, and not in parts: what is read twice is its header only.
    """

    def __init__(self) -> None:
        self._data = b""  # what has arrived, unused from _start on
        self._start = 0
        self._later: list[bytes] = []  # what has arrived after that
        self._missing = 0  # bytes that must come before it is worth while to join the two
        self._open: list[_Container] = []  # arrays that are being filled, outermost first

    def receive(self, data: bytes) -> None:
        if self._start == len(self._data):
            self._data, self._start = data, 0
        else:
            self._later.append(data)
            self._missing -= len(data)

    def next_reply(self) -> Any:
        """Return the next reply, or NEED_DATA until it is whole."""
        if self._later:
            if self._missing > 0:
                return NEED_DATA
            self._join()
        while True:
            value = self._next_value()
            if value is NEED_DATA:
                return NEED_DATA
            # A whole value may complete the array that it is in, and that one the next.
            while value is not _STARTED:
                if not self._open:
                    return value
                container = self._open[-1]
                container.items.append(value)
                if len(container.items) < container.length:
                    break
                value = self._open.pop().value()

    def _join(self) -> None:
        self._data = b"".join((self._data[self._start :], *self._later))
        self._start = self._missing = 0
        self._later.clear()

    def _next_value(self) -> Any:
        """Return a value that is no array, or _STARTED if one has begun, or NEED_DATA."""
        data, start = self._data, self._start
        end = data.find(b"\n", start) + 1
        line = data[start:end]
        short = _SHORT_STRINGS.get(line)
        if short is not None and data[end + short : end + short + 2] == b"\r\n":
            self._start = end + short + 2
            return data[end : end + short]
        if line in _COMMON_LINES:
            self._start = end
            return _COMMON_LINES[line]
        if (len(line) - 1 if end else len(data) - start) > MAX_LINE:
            raise ProtocolError("a reply's line is too long")
        if not end:
            return NEED_DATA
        if len(line) < 3 or not line.endswith(b"\r\n"):
            raise ProtocolError(f"not a reply: {line[:40]!r}")
        kind, text = line[:1], line[1:-2]
        if kind in b"$=!" and text != b"-1":
            return self._next_string(kind, end, _reply_length(text))
        self._start = end
        if kind in b"*%~>" and text != b"-1":
            return self._start_array(kind, _reply_length(text))
        return _parse_line(kind, text)

    def _next_string(self, kind: bytes, start: int, length: int) -> Any:
        """Return the string whose bytes begin at `start`, or NEED_DATA."""
        end = start + length
        self._missing = end + 2 - len(self._data)
        if self._missing > 0:
            return NEED_DATA
        if self._data[end : end + 2] != b"\r\n":
            raise ProtocolError("a reply's string does not end where it should")
        self._start = end + 2
        string = self._data[start:end]
        if kind == b"!":
            return CommandError(string.decode("utf-8", "replace"))
        return string[4:] if kind == b"=" else string

    def _start_array(self, kind: bytes, length: int) -> Any:
        container = _Container(kind, 2 * length if kind == b"%" else length, [])
        if not length:
            return container.value()
        self._open.append(container)
        return _STARTED


_STARTED: Final = object()

# Looked up, a line need not be taken apart and checked: a short string is read in 0.5 instead of
# 1.2 microseconds, an OK in 0.4 instead of 1.0.
_SHORT_STRINGS: Final = {b"$%d\r\n" % length: length for length in range(1024)}
_COMMON_LINES: Final = {b"+OK\r\n": b"OK", b"$-1\r\n": None, b":0\r\n": 0, b":1\r\n": 1}


@dataclass
class _Container:
    kind: bytes
    length: int
    items: list[Any]

    def value(self) -> Any:
        if self.kind == b"%":
            try:
                return dict(zip(self.items[::2], self.items[1::2], strict=True))
            except TypeError:
                raise ProtocolError("a map's key is an array") from None
        return self.items


def _parse_line(kind: bytes, text: bytes) -> Any:
    try:
        match kind:
            case b"+":
                return text
            case b"-":
                return CommandError(text.decode("utf-8", "replace"))
            case b":" | b"(":
                return int(text)
            case b"_" | b"$" | b"*":
                return None
            case b",":
                return float(text)
            case b"#" if text in (b"t", b"f"):
                return text == b"t"
    except ValueError:
        pass
    raise ProtocolError(f"not a reply: {(kind + text)[:40]!r}")


def _reply_length(text: bytes) -> int:
    length = parse_length(text)
    if length is None:
        raise ProtocolError(f"not a length: {text[:40]!r}")
    return length
