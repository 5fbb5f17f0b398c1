"""Redis's own format for values (RDB), as far as strings go: DUMP, RESTORE, replicas.

A payload of DUMP is

    type (0: a string) | the string | RDB version, 2 bytes | CRC-64 of all that, 8 bytes

and a string begins with its length, of which the two highest bits of its first byte say how it
stands there: in 6 bits, in 14, in 4 or 8 bytes of its own, or that what follows is not text but
a number, or compressed with LZF.
"""

from __future__ import annotations

import struct
from typing import Final

STRING: Final = 0
"""The type of a string value; all others are structures that we do not have."""

VERSION: Final = 9
"""What we write: the version of Redis 5. Strings have not changed since, and each server takes
versions up to its own: Redis 7 has 10, Redis 8 has 12, Valkey 9 has 80 and refuses 12 to 79."""

_FOOTER: Final = struct.Struct("<HQ")  # version, checksum

_IN_14_BITS, _IN_BYTES = 0x40, 0x80
_IN_4_BYTES, _IN_8_BYTES = 0x80, 0x81
_INTEGER_SIZES: Final = {0xC0: 1, 0xC1: 2, 0xC2: 4}  # first byte -> bytes of a signed number
_COMPRESSED: Final = 0xC3


class WrongChecksum(ValueError):
    """A payload is not what some server has dumped."""


class BadFormat(ValueError):
    """It is, but does not hold a string that can be read."""


class TooLong(ValueError):
    """It holds a longer string than wanted."""


# --- payloads -----------------------------------------------------------------------------


def dump(value: bytes) -> bytes:
    """Return the payload that DUMP answers for a string."""
    head = b"\x00%b%b" % (encode_string(value), VERSION.to_bytes(2, "little"))
    return head + crc64(head).to_bytes(8, "little")


def load(payload: bytes, most: int) -> bytes:
    """Return the string of a payload. Raises WrongChecksum, BadFormat, or TooLong above `most`.

    Payloads of any version are taken: the checksum tells that they are whole, and if the form
    of strings should ever change, their type will, too.
    """
    if len(payload) < _FOOTER.size:
        raise WrongChecksum
    _, checksum = _FOOTER.unpack_from(payload, len(payload) - _FOOTER.size)
    if crc64(memoryview(payload)[:-8]) != checksum:
        raise WrongChecksum
    body = payload[: -_FOOTER.size]
    if not body or body[0] != STRING:
        raise BadFormat
    return decode_string(body, 1, most)[0]


# --- strings ------------------------------------------------------------------------------


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


def decode_string(data: bytes, start: int, most: int) -> tuple[bytes, int]:
    """Return the string that begins at `start`, and where it ends.

    Raises BadFormat, or TooLong above `most` bytes, before memory is taken for it.
    """
    first = data[start : start + 1]
    if not first:
        raise BadFormat
    kind = first[0]
    if (size := _INTEGER_SIZES.get(kind)) is not None:
        number = _take(data, start + 1, size)
        return b"%d" % int.from_bytes(number, "little", signed=True), start + 1 + size
    if kind == _COMPRESSED:
        compressed, place = _decode_length(data, start + 1)
        length, place = _decode_length(data, place)
        if length > most:
            raise TooLong
        return decompress(_take(data, place, compressed), length), place + compressed
    length, place = _decode_length(data, start)
    if length > most:
        raise TooLong
    return _take(data, place, length), place + length


def _decode_length(data: bytes, start: int) -> tuple[int, int]:
    """Return the length that begins at `start`, and where it ends."""
    kind = _take(data, start, 1)[0]
    if kind < _IN_14_BITS:
        return kind, start + 1
    if kind < _IN_BYTES:
        return (kind & 0x3F) << 8 | _take(data, start + 1, 1)[0], start + 2
    size = {_IN_4_BYTES: 4, _IN_8_BYTES: 8}.get(kind)
    if size is None:
        raise BadFormat
    return int.from_bytes(_take(data, start + 1, size), "big"), start + 1 + size


def _take(data: bytes, start: int, size: int) -> bytes:
    taken = data[start : start + size]
    if len(taken) != size:
        raise BadFormat
    return taken


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
                out += _take(data, place, control + 1)
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


# --- the checksum -------------------------------------------------------------------------


def _make_tables() -> list[list[int]]:
    """Return what each byte adds to a checksum that is 0 to 7 bytes further on."""
    polynomial = 0x95AC9329AC4BC9B5  # Jones's, its bits the other way round
    first = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (polynomial if byte & 1 else 0)
        first.append(byte)
    tables = [first]
    for _ in range(7):
        tables.append([first[each & 0xFF] ^ each >> 8 for each in tables[-1]])
    return tables


_TABLES: Final[list[list[int]]] = []  # made when they are first asked for: it takes 2 ms


def crc64(data: bytes | memoryview, checksum: int = 0) -> int:
    """Return the CRC-64 that Redis uses, of `data` after what has this checksum.

    Eight bytes at a time: 50 ms for a megabyte, one by one it would be 100.
    """
    if not _TABLES:
        _TABLES[:] = _make_tables()
    t0, t1, t2, t3, t4, t5, t6, t7 = _TABLES
    whole = len(data) & ~7
    view = memoryview(data)
    for (word,) in struct.iter_unpack("<Q", view[:whole]):
        c = checksum ^ word
        checksum = (
            t7[c & 0xFF] ^ t6[c >> 8 & 0xFF] ^ t5[c >> 16 & 0xFF] ^ t4[c >> 24 & 0xFF]
            ^ t3[c >> 32 & 0xFF] ^ t2[c >> 40 & 0xFF] ^ t1[c >> 48 & 0xFF] ^ t0[c >> 56]
        )  # fmt: skip
    for byte in view[whole:]:
        checksum = t0[(checksum ^ byte) & 0xFF] ^ checksum >> 8
    return checksum
