"""Reading the arguments of commands, by the exact forms that Redis accepts.

`int()` would take `+5`, ` 5` and `1_000`, which Redis refuses, and Python's own limits on
long numbers raise errors of their own. So the form is checked first.
"""

from __future__ import annotations

import decimal
import re
from decimal import Decimal
from typing import Final

from kvdb import errors
from kvdb.errors import CommandError
from kvdb.store.entry import DATABASES

INT64_MIN: Final = -(2**63)
INT64_MAX: Final = 2**63 - 1

_INTEGER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
_INFINITY = re.compile(rb"[+-]?inf(?:inity)?", re.IGNORECASE)
_FLOAT = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,5})?")


def parse_integer(text: bytes) -> int | None:
    """Return a signed 64-bit integer, or None if the text is not one, to the letter."""
    if text.isdigit() and len(text) < 19 and text[0] != ord("0"):
        return int(text)  # what nearly all are: four times as fast as the form and the range
    if not _INTEGER.fullmatch(text):
        return None
    number = int(text)
    return number if INT64_MIN <= number <= INT64_MAX else None


def integer(text: bytes, message: str = errors.NOT_AN_INTEGER) -> int:
    """Return a signed 64-bit integer; raise CommandError(message) if the text is not one."""
    number = parse_integer(text)
    if number is None:
        raise CommandError(message)
    return number


def database(text: bytes) -> int:
    """Return the number of a database."""
    number = integer(text)
    if not 0 <= number < DATABASES:
        raise CommandError(errors.DB_OUT_OF_RANGE)
    return number


# Redis adds 80-bit long doubles (19 significant digits) and prints 17 decimals. We add exactly,
# within the same range.
LARGEST_FLOAT: Final = Decimal("1.18973149535723176502e+4932")
FLOAT_CONTEXT: Final = decimal.Context(prec=4932 + 40)


def decimal_number(text: bytes) -> Decimal:
    """Return a finite number, in the range of the long double that Redis computes with."""
    if is_infinity(text):
        raise CommandError(errors.NOT_FINITE)
    if len(text) > 5 * 1024 or not _FLOAT.fullmatch(text):
        raise CommandError(errors.NOT_A_FLOAT)
    number = Decimal(text.decode())
    if abs(number) > LARGEST_FLOAT or number.adjusted() < -4951:
        raise CommandError(errors.NOT_A_FLOAT)
    return number


def is_infinity(text: bytes) -> bool:
    """Tell whether the text says so."""
    return _INFINITY.fullmatch(text) is not None


def add_decimals(number: Decimal, increment: Decimal) -> bytes:
    """Return the sum as Redis prints it."""
    total = FLOAT_CONTEXT.add(number, increment)
    if abs(total) > LARGEST_FLOAT:
        raise CommandError(errors.NOT_FINITE)
    return show_decimal(total)


def show_decimal(number: Decimal) -> bytes:
    """Return a number as Redis prints it: no exponent, 17 decimals at most, no trailing zeros."""
    text = f"{FLOAT_CONTEXT.quantize(number, Decimal(1).scaleb(-17)):f}"
    text = text.rstrip("0").rstrip(".")
    return b"0" if text == "-0" else text.encode()


UNITS: Final = {
    b"EX": (1000, False),
    b"PX": (1, False),
    b"EXAT": (1000, True),
    b"PXAT": (1, True),
}
"""The options that give a deadline: milliseconds per unit, and whether they count from 1970."""


def deadline(
    text: bytes,
    unit: int,
    absolute: bool,
    command: str,
    now: float,
    positive: bool = True,
) -> float:
    """Return the moment (Unix seconds) that an option such as EX 10 means.

    It has the resolution of a millisecond, as in Redis, and the same bounds: as
    milliseconds it must fit into 64 bits and, where `positive`, the number must be above 0.
    """
    milliseconds = integer(text) * unit
    too_small = milliseconds < (1 if positive else INT64_MIN)
    if not absolute:
        milliseconds += int(now * 1000)
    if too_small or milliseconds > INT64_MAX:
        raise CommandError(f"ERR invalid expire time in '{command}' command")
    return milliseconds / 1000
