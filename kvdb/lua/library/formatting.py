"""string.format: C's printf, as far as Lua has it."""

from __future__ import annotations

import math
import re
from typing import Final

from kvdb.lua.errors import argument_error, error
from kvdb.lua.library import arguments
from kvdb.lua.library.arguments import as_integer
from kvdb.lua.meter import Meter
from kvdb.lua.values import Value

_ITEM: Final = re.compile(rb"%([-+ #0]*)([0-9]*)(?:(\.)([0-9]*))?(.?)", re.DOTALL)
_MOST_FLAGS: Final = 5
_LONG_TEXT: Final = 100
"""A string of that length is taken over as it is, unless the format cuts it."""


def format_text(form: bytes, values: tuple[Value, ...], meter: Meter) -> bytes:
    """Return what string.format makes of its arguments."""
    parts: list[bytes] = []
    at = number = 0
    size = len(form)
    while (begin := form.find(b"%", at)) >= 0:
        parts.append(form[at:begin])
        if form.startswith(b"%%", begin):
            parts.append(b"%")
            at = begin + 2
            continue
        if number == len(values):
            raise argument_error(number + 2, "no value")
        found = _ITEM.match(form, begin)
        assert found
        flags, width, point, precision, letter = found.groups(b"")
        if len(flags) > _MOST_FLAGS:
            raise error("invalid format (repeated flags)")
        if len(width) > 2 or len(precision) > 2:
            raise error("invalid format (width or precision too long)")
        if not letter or letter not in b"cdiouxXeEfgGqs":
            raise error(f"invalid option '%{letter.decode('latin-1')}' to 'format'")
        value = values[number]
        number += 1
        if letter in b"diouxX":
            given = arguments.number(number + 1, value)
            whole = as_integer(given) if letter in b"di" else _as_unsigned(given)
            digits = int(precision or 0) if point else None
            part = _integer(flags.decode(), int(width or 0), digits, letter.decode(), whole)
        else:
            part = _formatted(found[0], letter, number + 1, value)
        size += len(part)
        meter.check_size(size, len(part))
        parts.append(part)
        at = found.end()
    parts.append(form[at:])
    return b"".join(parts)


def _formatted(item: bytes, letter: bytes, place: int, value: Value) -> bytes:
    if letter in b"sq":
        text = arguments.text(place, value)
        if letter == b"q":
            return _quoted(text)
        if len(text) >= _LONG_TEXT and b"." not in item:
            return text
        return _c_string(item % _c_string(text))
    number = arguments.number(place, value)
    if letter == b"c":
        return _c_string(item % bytes([as_integer(number) & 0xFF]))
    if math.isfinite(number):
        return item % number
    if math.isnan(number) and math.copysign(1, number) < 0:
        # Python knows no sign of NaN: write a number of as many letters instead.
        nan = b"-NAN" if letter.isupper() else b"-nan"
        return (_not_finite(item, letter) % -math.inf).replace(b"-inf", nan).replace(b"-INF", nan)
    return _not_finite(item, letter) % number


def _not_finite(item: bytes, letter: bytes) -> bytes:
    """Return the item without zeros in front: infinity and NaN are filled up with blanks."""
    found = _ITEM.match(item)
    assert found
    return b"%%%b%b%b" % (found[1].replace(b"0", b""), found[2].lstrip(b"0"), letter)


def _c_string(text: bytes) -> bytes:
    """Return what C takes for a string: it ends before the first zero byte."""
    return text.partition(b"\0")[0]


def _as_unsigned(found: float) -> int:
    """Cast a number to an integer of 64 bits without a sign, as x86-64 does it."""
    if not found >= 2.0**63:  # NaN, too
        return as_integer(found)
    return as_integer(found - 2.0**63) + 2**63


def _integer(flags: str, width: int, precision: int | None, letter: str, number: int) -> bytes:
    """Return an integer as printf shows it; of o, u, x and X, as one without a sign."""
    sign = ""
    if letter in "di":
        sign = "-" if number < 0 else "+" if "+" in flags else " " if " " in flags else ""
        digits = str(abs(number))
    else:
        digits = format(number % 2**64, "d" if letter == "u" else letter)
    if precision is not None:
        digits = digits.rjust(precision, "0") if number or precision else ""
    if "#" in flags and letter == "o" and not digits.startswith("0"):
        digits = "0" + digits
    if "#" in flags and letter in "xX" and number:
        sign = f"0{letter}"
    if "0" in flags and "-" not in flags and precision is None:
        digits = digits.rjust(width - len(sign), "0")
    text = sign + digits
    return (text.ljust(width) if "-" in flags else text.rjust(width)).encode()


def _quoted(text: bytes) -> bytes:
    """Return a string in quotes, so that Lua can read it again."""
    text = text.replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\\n")
    return b'"%b"' % text.replace(b"\r", b"\\r").replace(b"\0", b"\\000")
