"""Somebody who looks now and then at a program that is running, so that it can be ended.

Loops and functions of the program call for a look; most of the time that costs next to nothing,
because the looks of a thousand turns are one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import chain, cycle, repeat
from operator import call
from typing import Final

from kvdb.lua.errors import ScriptEnded

_TURNS: Final = 1_000  # between two looks at the clock

LARGE: Final = 64 * 1024
"""Bytes of a string that has to be accounted for."""

MOST_STRING: Final = 64 * 1024 * 1024
"""Bytes that a string may have."""

_STRINGS_BETWEEN: Final = 4 * 1024 * 1024  # bytes of strings between two looks


class Meter:
    """Looks at the clock, and calls `on_look` when that is due."""

    def __init__(
        self, monotonic: Callable[[], float], on_look: Callable[[], None], interval: float = 0.02
    ) -> None:
        """`on_look()` is called every `interval` seconds; it raises ScriptEnded, or returns."""
        self._monotonic, self._on_look, self._interval = monotonic, on_look, interval
        self._next_look = 0.0
        self._strings = 0
        # `tuple` stands for a function that does next to nothing. A generator would be plainer,
        # but it is over once an error has come out of it, and functions are called again.
        self.turns: Iterator[object] = map(call, cycle([tuple] * _TURNS + [self.tick]))
        """What each call of a function takes a turn of."""

    def begin(self) -> None:
        """A program begins."""
        self._next_look, self._strings = self._monotonic() + self._interval, 0

    def tick(self) -> None:
        """A thousand turns of a loop, or calls, or a piece of other work."""
        if self._monotonic() >= self._next_look:
            self._look()

    def _look(self) -> None:
        self._on_look()
        self._next_look, self._strings = self._monotonic() + self._interval, 0

    def check_work(self, amount: int) -> None:
        """A library function is about to handle so many bytes or elements at once."""
        if amount > _TURNS:
            self.tick()

    def check_size(self, size: int, new: int | None = None) -> None:
        """A string of so many bytes is about to be made. Raises ScriptEnded if it is too long.

        Of one that is made piece by piece, `new` bytes have come since the last time.
        """
        if size > LARGE:
            if size > MOST_STRING:
                raise ScriptEnded("not enough memory")
            self._strings += size if new is None else new
            if self._strings > _STRINGS_BETWEEN:
                self._look()

    # --- what generated code goes through --------------------------------------------------

    def forever(self) -> Iterator[None]:
        """Return what a loop without end goes through."""
        return chain.from_iterable(self._batches())

    def _batches(self) -> Iterator[Iterator[None]]:
        while True:
            self.tick()
            yield repeat(None, _TURNS)

    def counting(self, start: float, stop: float, step: float) -> Iterator[float]:
        """Return the numbers that a numeric `for` goes through."""
        is_whole = start.is_integer() and step.is_integer() and step != 0
        if is_whole and abs(start) + abs(stop) + abs(step) < 2**52:
            return self._whole_numbers(int(start), stop, int(step))
        return self._any_numbers(start, stop, step)

    def _whole_numbers(self, start: int, stop: float, step: int) -> Iterator[float]:
        end = math.floor(stop) + 1 if step > 0 else math.ceil(stop) - 1
        numbers = range(start, end, step)
        self.tick()
        if len(numbers) <= _TURNS:
            return map(float, numbers)
        return chain.from_iterable(self._slices(numbers))

    def _slices(self, numbers: range) -> Iterator[Iterator[float]]:
        for begin in range(0, len(numbers), _TURNS):
            self.tick()
            yield map(float, numbers[begin : begin + _TURNS])

    def _any_numbers(self, start: float, stop: float, step: float) -> Iterator[float]:
        number = start - step + step  # as Lua does it: it may be another number than the first
        while number <= stop if step > 0 else stop <= number:
            self.tick()
            yield number
            number += step
