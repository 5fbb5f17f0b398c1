"""What DUMP answers, and RESTORE takes:

type (0: a string) | the string | RDB version, 2 bytes | CRC-64 of all that, 8 bytes
"""

from __future__ import annotations

import io
import struct
from typing import Final

from kvdb.rdb.crc64 import crc64
from kvdb.rdb.strings import VERSION, BadFormat, Source, encode_string

_FOOTER: Final = struct.Struct("<HQ")  # version, checksum


class WrongChecksum(ValueError):
    """A payload is not what some server has dumped."""


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
    body = io.BytesIO(payload[: -_FOOTER.size])
    if body.read(1) != b"\0":
        raise BadFormat
    return Source(body, most).string()
