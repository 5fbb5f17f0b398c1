"""RESP, the Redis protocol: requests and replies, in bytes and out of them.

Versions 2 and 3, after https://redis.io/docs/latest/develop/reference/protocol-spec/. Shared
by the server and the bundled client. Does no I/O, holds no lock, knows no command.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from kvdb.buffer import InputBuffer, LineTooLong
from kvdb.errors import CommandError, ProtocolError, ValueTooLarge
from kvdb.replies import NIL_ARRAY, NO_REPLY, OK, Reply, SimpleString, Verbatim

MAX_LINE: Final = 64 * 1024
"""Redis's limit for an inline request and for a header line."""

STRANGERS_LINE: Final = 4 * 1024
"""The same before a password was given: a stranger costs a few kilobytes."""

MAX_BULK: Final = 512 * 1024 * 1024
"""Redis's default proto-max-bulk-len. A longer announcement cannot be meant seriously."""


# --- requests, on the server's side -------------------------------------------------------


@dataclass
class RequestLimits:
    """What one request may ask us to keep in memory."""

    max_arguments: int = 1024 * 1024  # Redis's limit
    max_bulk: int = MAX_BULK  # a longer argument ends the connection
    max_value: int = 16 * 1024 * 1024  # a longer argument is read over, and the request refused
    max_request: int = 64 * 1024 * 1024  # all arguments together
    unauthenticated: bool = False

    @classmethod
    def before_authentication(cls) -> RequestLimits:
        """Return the limits that Redis has for strangers (CVE-2021-32675)."""
        limit = 16 * 1024
        return cls(
            max_arguments=10,
            max_bulk=limit,
            max_value=limit,
            max_request=limit + 4 * 1024,  # Redis takes ten such arguments; nobody needs them
            unauthenticated=True,
        )


class RequestParser:
    """Reads requests sent as arrays of bulk strings: `*2 $3 GET $1 k`.

    After a ProtocolError the position in the stream is lost: close. After a CommandError
    (an argument over the limit, read over without being kept) it is not: answer and go on.
    """

    def __init__(self, buffer: InputBuffer, limits: RequestLimits) -> None:
        self.limits = limits
        self._buffer = buffer
        self._arguments: list[bytes] = []
        self._missing = 0  # arguments still to come; 0 between requests
        self._length = -1  # of the argument that comes next; -1 until its header has been read
        self._to_skip = 0  # bytes of an argument over the limit
        self._size = 0
        self._refusal: CommandError | None = None

    def next_request(self) -> list[bytes] | None:
        """Return the next request, or None until it is whole. It may be empty: ignore it then."""
        if not self._missing:
            line = self._header(b"*", "too big mbulk count string")
            if line is None:
                return None
            count = _parse_length(line, negative=True)
            if count is None or count > 1024 * 1024:
                raise ProtocolError("invalid multibulk length")
            if count > self.limits.max_arguments:
                self._too_long("multibulk", count)
            if count <= 0:
                return []
            self._missing, self._arguments = count, []
        while self._missing:
            if self._length < 0 and not self._read_bulk_header():
                return None
            if not self._read_bulk():
                return None
            self._missing -= 1
        self._size = 0
        refusal, self._refusal = self._refusal, None
        arguments, self._arguments = self._arguments, []
        if refusal:
            raise refusal
        return arguments

    def _header(self, kind: bytes, too_long: str) -> bytes | None:
        """Return the rest of a header line that starts with `kind`, or None until it is whole."""
        first = self._buffer.first_byte()
        if first is None:
            return None
        if first != kind[0]:
            raise ProtocolError(f"expected '{kind.decode()}', got '{_printable(first)}'")
        try:
            line = self._buffer.take_line(MAX_LINE)
        except LineTooLong:
            raise ProtocolError(too_long) from None
        if line is None:
            return None
        if not line.endswith(b"\r\n"):
            raise ProtocolError("expected CRLF after a length")
        return line[1:-2]

    def _read_bulk_header(self) -> bool:
        line = self._header(b"$", "too big bulk count string")
        if line is None:
            return False
        length = _parse_length(line)
        if length is None or length > MAX_BULK:
            raise ProtocolError("invalid bulk length")
        if length > self.limits.max_bulk:
            self._too_long("bulk", length)
        self._size += length
        if self.limits.unauthenticated and self._size > self.limits.max_request:
            raise ProtocolError("unauthenticated bulk length")
        self._length = length
        self._refusal = self._refusal or self._too_large(length)
        if self._refusal:
            self._arguments = []
            self._to_skip = length
        return True

    def _too_large(self, length: int) -> CommandError | None:
        if length > self.limits.max_value:
            return ValueTooLarge(self.limits.max_value)
        if self._size > self.limits.max_request:
            return CommandError(
                f"ERR request exceeds maximum allowed size ({self.limits.max_request} bytes)"
            )
        return None

    def _read_bulk(self) -> bool:
        if self._to_skip:
            self._to_skip -= self._buffer.skip(self._to_skip)
            if self._to_skip:
                return False
            self._length = 0
        if len(self._buffer) < self._length + 2:
            return False
        data = self._buffer.take(self._length)
        if self._buffer.take(2) != b"\r\n":
            # Redis skips any two bytes here. We do not, so that no proxy and no client can be
            # made to see other requests in a stream than we do.
            raise ProtocolError("expected CRLF after an argument")
        if not self._refusal:
            assert data is not None
            self._arguments.append(data)
        self._length = -1
        return True

    def _too_long(self, what: str, value: int) -> None:
        if self.limits.unauthenticated:
            raise ProtocolError(f"unauthenticated {what} length")
        raise ProtocolError(f"invalid {what} length")


def _parse_length(text: bytes, negative: bool = False) -> int | None:
    """Parse a length by its exact form: no sign but an allowed minus, no space, no leading 0."""
    digits = text[1:] if negative and text[:1] == b"-" else text
    if not digits.isdigit() or len(digits) > 10 or (digits[0] == ord("0") and len(text) > 1):
        return None
    return int(text)


def _printable(byte: int) -> str:
    return chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}"


# --- replies, on the server's side --------------------------------------------------------


def encode_reply(reply: Reply, version: int = 2) -> bytes:
    """Put a command's answer into bytes, for a client that speaks RESP `version` (2 or 3)."""
    kind = type(reply)
    if kind is bytes:
        if len(reply) < _LONG:
            return b"%b%b\r\n" % (_BULK_HEADERS[len(reply)], reply)
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    if reply is OK:
        return b"+OK\r\n"
    if kind is int:
        return b":%d\r\n" % reply
    return b"".join(encode_pieces(reply, version))


def encode_pieces(reply: Reply, version: int = 2) -> Iterable[bytes]:
    """As encode_reply(), but not joined: long strings in it are not copied.

    The pieces of a long list are made some at a time.
    """
    if type(reply) is list and len(reply) > _MADE_TOGETHER:
        return _encode_in_slices(reply, version)
    pieces: list[bytes] = []
    if type(reply) is list:
        pieces.append(b"*%d\r\n" % len(reply))
        pieces += encode_each(reply, version)
    else:
        _encode(reply, version, pieces.append)
    return pieces


def _encode_in_slices(reply: list[Reply], version: int) -> Iterator[bytes]:
    yield b"*%d\r\n" % len(reply)
    for start in range(0, len(reply), _MADE_TOGETHER):
        yield from encode_each(reply[start : start + _MADE_TOGETHER], version)


def encode_each(replies: Iterable[Reply], version: int = 2) -> list[bytes]:
    """Return the pieces of many replies that follow each other; no string in them is copied."""
    pieces: list[bytes] = []
    for reply in replies:
        if type(reply) is bytes and len(reply) < len(_BULK_HEADERS):
            pieces += (_BULK_HEADERS[len(reply)], reply, b"\r\n")
        elif reply is OK:
            pieces.append(b"+OK\r\n")
        elif type(reply) is int:
            pieces.append(b":%d\r\n" % reply)
        else:
            _encode(reply, version, pieces.append)
    return pieces


def encode_error(text: str) -> bytes:
    """Put an error into bytes. Line ends would let its text pass for another reply: no more."""
    return b"-%b\r\n" % text.translate(_ONE_LINE).encode("utf-8", "surrogateescape")


_MADE_TOGETHER: Final = 1_000  # elements of a list

_LONG: Final = 2 * 1024
"""Strings of this length and above are pieces of their own."""

_BULK_HEADERS: Final = tuple(b"$%d\r\n" % length for length in range(_LONG))

_ONE_LINE = {ord("\r"): " ", ord("\n"): " "}


def _encode(reply: Reply, version: int, write: Callable[[bytes], object]) -> None:
    match reply:
        case SimpleString():
            write(b"+%b\r\n" % reply)
        case bytes() if len(reply) >= _LONG:
            write(b"$%d\r\n" % len(reply))
            write(reply)
            write(b"\r\n")
        case bytes():
            write(b"$%d\r\n%b\r\n" % (len(reply), reply))
        case None:
            write(b"_\r\n" if version == 3 else b"$-1\r\n")
        case bool():
            write((b"#t\r\n" if reply else b"#f\r\n") if version == 3 else b":%d\r\n" % reply)
        case int():
            write(b":%d\r\n" % reply)
        case float():
            text = _format_double(reply)
            write(b",%b\r\n" % text if version == 3 else b"$%d\r\n%b\r\n" % (len(text), text))
        case str():
            text = reply.encode()
            if version == 3 and isinstance(reply, Verbatim):
                write(b"=%d\r\ntxt:%b\r\n" % (len(text) + 4, text))
            else:
                write(b"$%d\r\n%b\r\n" % (len(text), text))
        case list() | tuple():
            write(b"*%d\r\n" % len(reply))
            for each in reply:
                _encode(each, version, write)
        case dict():
            write(b"%%%d\r\n" % len(reply) if version == 3 else b"*%d\r\n" % (2 * len(reply)))
            for key, value in reply.items():
                _encode(key, version, write)
                _encode(value, version, write)
        case frozenset():
            write(b"%b%d\r\n" % (b"~" if version == 3 else b"*", len(reply)))
            for each in sorted(reply):
                _encode(each, version, write)
        case CommandError():
            write(encode_error(reply.text))
        case _ if reply is NIL_ARRAY:
            write(b"_\r\n" if version == 3 else b"*-1\r\n")
        case _ if reply is NO_REPLY:
            pass
        case _:
            raise TypeError(f"no RESP for a {type(reply).__name__}")


def _format_double(number: float) -> bytes:
    if math.isinf(number):
        return b"inf" if number > 0 else b"-inf"
    return b"%d" % number if number.is_integer() and abs(number) < 1e17 else repr(number).encode()


# --- the client's side --------------------------------------------------------------------

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
    length = _parse_length(text)
    if length is None:
        raise ProtocolError(f"not a length: {text[:40]!r}")
    return length
