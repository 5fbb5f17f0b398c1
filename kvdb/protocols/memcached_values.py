"""What memcached's classic and meta commands have in common: numbers, times, error texts."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

MAX_KEY: Final = 250

THIRTY_DAYS: Final = 60 * 60 * 24 * 30
"""A longer exptime is a moment in Unix seconds, not a duration (doc/protocol.txt)."""

ERROR: Final = b"ERROR\r\n"
BAD_FORMAT: Final = b"CLIENT_ERROR bad command line format\r\n"
BAD_CHUNK: Final = b"CLIENT_ERROR bad data chunk\r\n"
BAD_EXPTIME: Final = b"CLIENT_ERROR invalid exptime argument\r\n"
BAD_DELTA: Final = b"CLIENT_ERROR invalid numeric delta argument\r\n"
NOT_A_NUMBER: Final = b"CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
TOO_LARGE: Final = b"SERVER_ERROR object too large for cache\r\n"
NO_MEMORY: Final = b"SERVER_ERROR out of memory storing object\r\n"
INTERNAL: Final = b"SERVER_ERROR internal error\r\n"
UNAUTHENTICATED: Final = b"CLIENT_ERROR unauthenticated\r\n"

_UNSIGNED = re.compile(rb"[0-9]{1,20}")
_SIGNED = re.compile(rb"-?[0-9]{1,18}")
_NUMBER_IN_VALUE = re.compile(rb"\s*\+?0*([0-9]{1,20})\s*")
UINT64: Final = 2**64


def parse_unsigned(text: bytes, bits: int = 64) -> int | None:
    """Return an unsigned number of so many bits, or None if the text is not one."""
    if text.isdigit() and len(text) < 7:
        return int(text)  # what nearly all are: below any limit
    if not _UNSIGNED.fullmatch(text):
        return None
    number = int(text)
    return number if number < 1 << bits else None


def parse_exptime(text: bytes) -> int | None:
    """Return an exptime, or None if it is not a number.

    As in memcached it is a signed number of 32 bits: libmemcached sends 4294967295 for -1, at once.
    """
    if text == b"0":
        return 0
    if not _SIGNED.fullmatch(text):
        return None
    return (int(text) + 2**31) % 2**32 - 2**31


def deadline(exptime: int, now: Callable[[], float]) -> float | None:
    """Return the moment that an exptime means: None is never, a moment in the past at once."""
    if exptime == 0:
        return None
    if exptime < 0:
        return 0.0
    return float(exptime) if exptime > THIRTY_DAYS else now() + exptime


def add_wrapping(value: bytes, delta: int) -> bytes | None:
    """Return the sum as memcached has it, or None if the value is not a number.

    It wraps at 64 bits upwards and stops at 0 downwards; a result that is shorter than the
    value is padded with spaces when it was decremented or wrapped.
    """
    found = _NUMBER_IN_VALUE.fullmatch(value)
    number = parse_unsigned(found[1]) if found else None
    if number is None:
        return None
    total = b"%d" % (max(0, number + delta) if delta < 0 else (number + delta) % UINT64)
    return total.ljust(len(value)) if len(total) < len(value) else total
