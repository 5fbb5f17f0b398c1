"""The libraries `math` and `bit`, and what there is of `os`."""

from __future__ import annotations

import math
import struct
import time
from collections.abc import Callable
from typing import Final

from kvdb.lua.errors import argument_error, error
from kvdb.lua.library import arguments
from kvdb.lua.library.arguments import ABSENT
from kvdb.lua.runtime import raise_to_power
from kvdb.lua.values import NOTHING, Results, Value

Builtin = Callable[..., Value]

_MOST_RANDOM: Final = 2**31 - 1

_TO_LOW_BITS: Final = 2.0**52 + 2.0**51
"""Added to a number, it moves its integer part to the lowest bits."""


class Random:
    """The numbers of math.random: drand48's, from the same seed for every program, as in Redis."""

    def __init__(self) -> None:
        self.seed(0)

    def seed(self, number: int) -> None:
        self._state = (number % 2**32) << 16 | 0x330E

    def next(self) -> float:
        self._state = (self._state * 0x5DEECE66D + 0xB) % 2**48
        return (self._state >> 17) % _MOST_RANDOM / _MOST_RANDOM


def _one(function: Callable[[float], float], undefined: float = -math.nan) -> Builtin:
    """Return a library function of one number.

    Where C has infinity or NaN, Python has errors. `undefined` is C's NaN, which has a sign.
    """

    def call(value: Value = ABSENT, *_: Value) -> Value:
        number = arguments.number(1, value)
        try:
            return float(function(number))
        except OverflowError:
            return -math.inf if function is math.sinh and number < 0 else math.inf
        except ValueError:
            return number if math.isnan(number) else undefined

    return call


def _logarithm(function: Callable[[float], float]) -> Callable[[float], float]:
    return lambda number: function(number) if number else -math.inf


def _rounded(function: Callable[[float], int]) -> Callable[[float], float]:
    """Return floor or ceil for numbers that are no integers of Python's, too; -0 stays."""
    return lambda number: (
        number
        if not math.isfinite(number) or number == 0
        else math.copysign(function(number), number)
    )


def _extreme(better: Callable[[float, float], bool]) -> Builtin:
    def call(*values: Value) -> Value:
        best = arguments.number(1, values[0] if values else ABSENT)
        for place, value in enumerate(values[1:], 2):
            number = arguments.number(place, value)
            if better(number, best):
                best = number
        return best

    return call


def math_library(random: Random) -> dict[bytes, Value]:
    """Return the functions and the two numbers."""

    def random_(low: Value = ABSENT, high: Value = ABSENT, *rest: Value) -> Value:
        number = random.next()
        if rest:
            raise error("wrong number of arguments")
        if low is ABSENT:
            return number
        if high is ABSENT:
            most = arguments.integer(1, low)
            if most < 1:
                raise argument_error(1, "interval is empty")
            return float(math.floor(number * most) + 1)
        begin, end = arguments.integer(1, low), arguments.integer(2, high)
        if begin > end:
            raise argument_error(2, "interval is empty")
        return float(math.floor(number * (end - begin + 1)) + begin)

    def randomseed(seed: Value = ABSENT, *_: Value) -> Value:
        random.seed(arguments.integer(1, seed))
        return NOTHING

    return {
        b"abs": _one(abs), b"acos": _one(math.acos, math.nan), b"asin": _one(math.asin, math.nan),
        b"atan": _one(math.atan), b"atan2": _two(math.atan2), b"ceil": _one(_rounded(math.ceil)),
        b"cos": _one(math.cos), b"cosh": _one(math.cosh), b"deg": _one(math.degrees),
        b"exp": _one(math.exp), b"floor": _one(_rounded(math.floor)), b"fmod": _two(_fmod),
        b"frexp": _frexp, b"huge": math.inf, b"ldexp": _ldexp, b"log": _one(_logarithm(math.log)),
        b"log10": _one(_logarithm(math.log10), math.nan), b"max": _extreme(lambda new, old: new > old),
        b"min": _extreme(lambda new, old: new < old), b"mod": _two(_fmod), b"modf": _modf,
        b"pi": math.pi, b"pow": _two(raise_to_power), b"rad": _one(math.radians),
        b"random": random_, b"randomseed": randomseed, b"sin": _one(math.sin),
        b"sinh": _one(math.sinh), b"sqrt": _one(math.sqrt), b"tan": _one(math.tan),
        b"tanh": _one(math.tanh),
    }  # fmt: skip


def _two(function: Callable[[float, float], float]) -> Builtin:
    def call(one: Value = ABSENT, other: Value = ABSENT, *_: Value) -> Value:
        return function(arguments.number(1, one), arguments.number(2, other))

    return call


def _fmod(one: float, other: float) -> float:
    try:
        return math.fmod(one, other)
    except ValueError:
        return -math.nan


def _frexp(value: Value = ABSENT, *_: Value) -> Value:
    fraction, exponent = math.frexp(arguments.number(1, value))
    return Results((fraction, float(exponent)))


def _ldexp(fraction: Value = ABSENT, exponent: Value = ABSENT, *_: Value) -> Value:
    number, power = arguments.number(1, fraction), arguments.integer(2, exponent)
    try:
        return math.ldexp(number, power)
    except OverflowError:
        return math.copysign(math.inf, number)


def _modf(value: Value = ABSENT, *_: Value) -> Value:
    number = arguments.number(1, value)
    if math.isinf(number):
        return Results((number, math.copysign(0.0, number)))
    fraction, whole = math.modf(number)
    return Results((whole, fraction))


# --- bit: integers of 32 bits ---------------------------------------------------------------------


def _bits(place: int, value: Value) -> int:
    """Return an argument as 32 bits: the nearest integer modulo 2 ** 32.

    Numbers that are no integers of 53 bits give what the library BitOp makes of them.
    """
    moved = struct.pack("<d", arguments.number(place, value) + _TO_LOW_BITS)
    return int.from_bytes(moved[:4], "little")


def _signed(bits: int) -> float:
    bits %= 2**32
    return float(bits - 2**32 if bits >= 2**31 else bits)


def _all_of(operation: Callable[[int, int], int]) -> Builtin:
    def call(*values: Value) -> Value:
        result = _bits(1, values[0] if values else ABSENT)
        for place, value in enumerate(values[1:], 2):
            result = operation(result, _bits(place, value))
        return _signed(result)

    return call


def _shift(operation: Callable[[int, int], int]) -> Builtin:
    def call(value: Value = ABSENT, distance: Value = ABSENT, *_: Value) -> Value:
        return _signed(operation(_bits(1, value), _bits(2, distance) % 32))

    return call


def _on_bits(operation: Callable[[int], int]) -> Builtin:
    def call(value: Value = ABSENT, *_: Value) -> Value:
        return _signed(operation(_bits(1, value)))

    return call


def _to_hex(value: Value = ABSENT, digits: Value = ABSENT, *_: Value) -> Value:
    bits, count = _bits(1, value), 8
    if digits is not ABSENT:
        count = int(_signed(_bits(2, digits)))
    text = b"%08X" % bits if count < 0 else b"%08x" % bits
    return text[8 - min(abs(count), 8) :]


def bit_library() -> dict[bytes, Builtin]:
    """Return the functions."""
    return {
        b"arshift": _shift(lambda bits, by: int(_signed(bits)) >> by),
        b"band": _all_of(lambda one, other: one & other),
        b"bnot": _on_bits(lambda bits: ~bits),
        b"bor": _all_of(lambda one, other: one | other),
        b"bswap": _on_bits(lambda bits: int.from_bytes(bits.to_bytes(4, "little"), "big")),
        b"bxor": _all_of(lambda one, other: one ^ other),
        b"lshift": _shift(lambda bits, by: bits << by),
        b"rol": _shift(lambda bits, by: bits << by | bits >> (32 - by)),
        b"ror": _shift(lambda bits, by: bits >> by | bits << (32 - by)),
        b"rshift": _shift(lambda bits, by: bits >> by),
        b"tobit": _on_bits(lambda bits: bits),
        b"tohex": _to_hex,
    }


def os_library() -> dict[bytes, Builtin]:
    """Return os.clock(): there is no way to anything else of the system."""
    return {b"clock": lambda *_: time.process_time()}
