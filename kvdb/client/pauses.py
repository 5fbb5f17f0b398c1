"""Between two tries: longer each time, and not the same for all who try."""

from __future__ import annotations

import random


class Pauses:
    """How many seconds to wait before the next try."""

    def __init__(self, first: float, longest: float) -> None:
        """Each is up to twice as long as the last."""
        self._first, self._longest = first, longest
        self._next = first

    def next(self) -> float:
        """Return the next pause: at least half of what it may be."""
        pause = random.uniform(0.5, 1.0) * self._next
        self._next = min(2 * self._next, self._longest)
        return pause

    def start_over(self) -> None:
        """The last try went well."""
        self._next = self._first
