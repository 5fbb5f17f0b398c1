"""Strings and lengths, as they stand everywhere in Redis's format."""

from __future__ import annotations

from typing import Final, Protocol

VERSION: Final = 9
"""What we write: the version of Redis 5. Strings have not changed since, and each server takes
versions up to its own: Redis 7 has 10, Redis 8 has 12, Valkey 9 has 80 and refuses 12 to 79."""

_IN_14_BITS, _IN_BYTES = 0x40, 0x80
_IN_4_BYTES, _IN_8_BYTES = 0x80, 0x81
_INTEGER_SIZES: Final = {0xC0: 1, 0xC1: 2, 0xC2: 4}  # first byte -> bytes of a signed number
_COMPRESSED: Final = 0xC3

_SKIPPED_AT_A_TIME: Final = 256 * 1024  # bytes


class BadFormat(ValueError):
    """This is not what it should be, or not all of it."""


class TooLong(ValueError):
    """It holds a longer string than wanted."""


def encode_length(length: int) -> bytes:
    """Return a length as it stands before a string, and at many other places of a file."""
    if length < 1 << 6:
        return bytes((length,))
    if length < 1 << 14:
        return (_IN_14_BITS << 8 | length).to_bytes(2, "big")
    if length < 1 << 32:
        return b"\x80" + length.to_bytes(4, "big")
    return b"\x81" + length.to_bytes(8, "big")


def encode_string(value: bytes) -> bytes:
    """Return a string with its length; neither as a number nor compressed, which is optional."""
    return encode_length(len(value)) + value


class Readable(Protocol):
    """A file, or what reads as one."""

    def read(self, size: int, /) -> bytes: ...


class Source:
    """Takes lengths and strings from a file, one after the other. Raises BadFormat at its end."""

    def __init__(self, file: Readable, most: int) -> None:
        """`most`: the longest string that is taken, in bytes; TooLong is raised above it."""
        self._read, self._most = file.read, most

    def take(self, size: int) -> bytes:
        """Return so many bytes as they stand there."""
        taken = self._read(size)
        if len(taken) != size:
            raise BadFormat
        return taken

    def length(self) -> int:
        """Return a length."""
        return self._length(self.take(1)[0])

    def _length(self, kind: int) -> int:
        if kind < _IN_14_BITS:
            return kind
        if kind < _IN_BYTES:
            return (kind & 0x3F) << 8 | self.take(1)[0]
        size = {_IN_4_BYTES: 4, _IN_8_BYTES: 8}.get(kind)
        if size is None:
            raise BadFormat
        return int.from_bytes(self.take(size), "big")

    def string(self) -> bytes:
        """Return a string. Raises TooLong before memory is taken for it."""
        kind = self.take(1)[0]
        if (size := _INTEGER_SIZES.get(kind)) is not None:
            return b"%d" % int.from_bytes(self.take(size), "little", signed=True)
        if kind == _COMPRESSED:
            compressed, length = self.length(), self.length()
            if max(compressed, length) > self._most:
                raise TooLong
            return decompress(self.take(compressed), length)
        length = self._length(kind)
        if length > self._most:
            raise TooLong
        return self.take(length)

    def skip(self, size: int) -> None:
        """Pass over so many bytes."""
        while size > 0:
            self.take(min(size, _SKIPPED_AT_A_TIME))
            size -= _SKIPPED_AT_A_TIME

    def skip_string(self) -> None:
        """Pass over a string of whatever length."""
        kind = self.take(1)[0]
        if (size := _INTEGER_SIZES.get(kind)) is not None:
            self.skip(size)
        elif kind == _COMPRESSED:
            compressed, _ = self.length(), self.length()
            self.skip(compressed)
        else:
            self.skip(self._length(kind))


def decompress(data: bytes, length: int) -> bytes:
    """Return what LZF has made `data` of: exactly `length` bytes. Raises BadFormat.

    The data is a series of runs, and of references to what is there already: a first byte below
    32 says how many bytes follow as they are; else its 3 highest bits and, if they are all set,
    the next byte say how many bytes come from as far back as the other 5 bits and a byte say.
    """
    out = bytearray()
    place, end = 0, len(data)
    try:
        while place < end:
            control = data[place]
            place += 1
            if control < 32:
                run = data[place : place + control + 1]
                if len(run) <= control:
                    raise BadFormat
                out += run
                place += control + 1
            else:
                count = control >> 5
                if count == 7:
                    count += data[place]
                    place += 1
                count += 2
                back = ((control & 0x1F) << 8 | data[place]) + 1
                place += 1
                start = len(out) - back
                if start < 0:
                    raise BadFormat
                if count <= back:
                    out += out[start : start + count]
                else:  # it refers to what it makes: the last `back` bytes over and over
                    out += (bytes(out[start:]) * (count // back + 1))[:count]
            if len(out) > length:
                raise BadFormat
    except IndexError:
        raise BadFormat from None
    if len(out) != length:
        raise BadFormat
    return bytes(out)
