"""Requests, on the server's side: arrays of bulk strings, `*2 $3 GET $1 k`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from kvdb.errors import CommandError, ProtocolError, ValueTooLarge
from kvdb.resp.buffer import InputBuffer, LineTooLong
from kvdb.resp.limits import MAX_BULK, MAX_LINE, STRANGERS_LINE, parse_length


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


class NotAnArray(Exception):
    """What comes next is no array: another dialect may know it. Nothing of it was used up."""


class Run(NamedTuple):
    """Requests that follow each other with the same name and the same number of arguments."""

    name: bytes
    columns: list[list[bytes]]  # the first arguments of all requests, the second ones, ...


_MOST_ARGUMENTS: Final = 1024
_LONGEST: Final = 1023  # bytes of an argument that the fast branch takes; above, copying tells
_COUNTS: Final = {b"*%d" % count: count for count in range(1, _MOST_ARGUMENTS + 1)}
_LENGTHS: Final = tuple(b"$%d" % length for length in range(_LONGEST + 1))

_NOTHING: Final[list[bytes]] = []
_NO_RUNS: Final[Mapping[bytes, int]] = {}
_SURELY_SHORT: Final = 4096  # bytes in which no long argument has room to matter
_NARROW: Final = 512  # bytes that are split at a time, after what had to be read exactly
_WIDE: Final = 64 * 1024  # and at most
_FEWEST: Final = 4  # requests that are looked at for being alike, at first
_MANY: Final = 4096  # and at most


class RequestParser:
    """Reads requests sent as arrays of bulk strings: `*2 $3 GET $1 k`.

    After a ProtocolError the position in the stream is lost: close. After a CommandError
    (an argument over the limit, read over without being kept) it is not: answer and go on.

    What clients send usually arrives whole and in short arguments. Then one split at the line
    ends finds every argument, and a look into a table tells whether the length before it is
    right: a fifth of the time of reading it exactly. What is not of that form is put back, and
    read exactly: an argument that is long, holds a CRLF or is not whole yet, a number that is
    badly written.
    """

    def __init__(self, buffer: InputBuffer, limits: RequestLimits) -> None:
        self._buffer = buffer
        self._parts = _NOTHING  # of the window that was split, from the buffer's start on
        self._next = 0  # the first that is not used
        self._end = 0  # where the window ends in the buffer's head
        self._window = _WIDE  # bytes of the next one, where so many have arrived
        self.limits = limits
        self._together = _FEWEST  # requests that are looked at for being alike
        self._arguments: list[bytes] = []
        self._missing = 0  # arguments still to come; 0 between requests
        self._length = -1  # of the argument that comes next; -1 until its header has been read
        self._to_skip = 0  # bytes of an argument over the limit
        self._size = 0
        self._refusal: CommandError | None = None

    @property
    def limits(self) -> RequestLimits:
        """What one request may ask for."""
        return self._limits

    @limits.setter
    def limits(self, limits: RequestLimits) -> None:
        self._limits = limits
        self._may_split = (
            limits.max_arguments >= _MOST_ARGUMENTS
            and limits.max_value >= _LONGEST
            and limits.max_request >= _MOST_ARGUMENTS * _LONGEST
        )
        if self._parts:
            self._put_back(self._next)

    def next_request(self, runs: Mapping[bytes, int] = _NO_RUNS) -> list[bytes] | Run | None:
        """Return the next request, or None until it is whole. It may be empty: ignore it then.

        Those that follow it with the same name and number of words may come along, if `runs`
        has the name with that number. Raises NotAnArray, ProtocolError or CommandError.
        """
        parts, start = self._parts, self._next
        if not parts:
            if self._missing or not self._split():
                return self._read_exactly()
            parts, start = self._parts, 0
        count = _COUNTS.get(parts[start], 0)
        end = start + 1 + 2 * count
        left = len(parts) - end
        if count and left > 0:  # the last part is what follows the last line end
            arguments = parts[start + 2 : end : 2]
            place = start + 1
            for argument in arguments:
                if len(argument) > _LONGEST or parts[place] != _LENGTHS[len(argument)]:
                    break
                place += 2
            else:
                if left == 1 and not parts[end]:  # nothing, as nearly always
                    self._parts = _NOTHING
                    self._buffer.advance(self._end)
                elif left < 3:  # the beginning of a header
                    self._put_back(end)
                elif (  # two alike are a chance; three are worth a look
                    left > end - start + 2
                    and parts[end + 2] == arguments[0]
                    and parts[2 * end - start + 2] == arguments[0]
                    and runs.get(arguments[0]) == count
                    and (run := self._find_run(start, count))
                ):
                    return run
                else:
                    self._next = end
                return arguments
        if not count or left > 0:
            # Not cut, but of another form. More of that may follow: with 64 KB split and put
            # back for each, GET and an inline PING in turn took 76 instead of 3 microseconds.
            self._window = _NARROW
        self._put_back(start)
        return self._read_exactly()

    def _split(self) -> bool:
        """Split what has arrived at its line ends, if that promises short arguments."""
        buffer = self._buffer
        data, start = buffer.head, buffer.start
        if start or len(data) > _SURELY_SHORT:
            if start == len(data) or data[start] != ord("*"):
                return False
            # Long arguments are not searched: 60 KB take 50 microseconds.
            most = start + _SURELY_SHORT
            if len(data) > most and data.count(b"\n", start, most) < 12:
                return False
            data = data[start : start + self._window]
            self._window = min(4 * self._window, _WIDE)
        if not self._may_split:
            return False
        self._parts = data.split(b"\r\n")
        self._next, self._end = 0, start + len(data)
        return True

    def _put_back(self, place: int) -> None:
        """Leave the parts from this place on to the buffer."""
        parts = self._parts
        rest = parts[place] if place + 1 == len(parts) else b"\r\n".join(parts[place:])
        self._parts = _NOTHING
        self._buffer.advance(self._end - len(rest))

    def _find_run(self, start: int, count: int) -> Run | None:
        """Take the requests from there on that are alike, as far as it is worth while to look.

        None: there are fewer than two, and nothing is taken.
        """
        parts, width = self._parts, 2 * count + 1
        whole = requests = min((len(parts) - 1 - start) // width, self._together)
        end = start + requests * width
        for place in (start, start + 2):  # the same number of arguments, the same name
            column = parts[place:end:width]
            if column.count(parts[place]) < len(column):
                requests = next(n for n, part in enumerate(column) if part != parts[place])
                end = start + requests * width
        columns = []
        for place in range(start + 1, start + width, 2):
            column = parts[place + 1 : end : width]
            headers = parts[place:end:width]
            # None for a long one: it is unlike any header, also unlike one that is empty.
            expected = [_LENGTHS[len(each)] if len(each) <= _LONGEST else None for each in column]
            if headers != expected:
                requests = next(n for n in range(requests) if headers[n] != expected[n])
                end = start + requests * width
            columns.append(column)
        if requests < whole:
            self._together = _FEWEST
            columns = [column[:requests] for column in columns]
        else:
            self._together = min(4 * self._together, _MANY)
        if requests < 2:
            return None
        if end + 1 == len(parts):
            self._put_back(end)
        else:
            self._next = end
        return Run(parts[start + 2], columns[1:])

    def _read_exactly(self) -> list[bytes] | None:
        if not self._missing:
            if self._buffer.first_byte() not in (None, ord("*")):
                raise NotAnArray
            line = self._header(b"*", "too big mbulk count string")
            if line is None:
                return None
            count = parse_length(line, negative=True)
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
            line = self._buffer.take_line(
                STRANGERS_LINE if self.limits.unauthenticated else MAX_LINE
            )
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
        length = parse_length(line)
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


def _printable(byte: int) -> str:
    return chr(byte) if 32 <= byte < 127 else f"\\x{byte:02x}"
