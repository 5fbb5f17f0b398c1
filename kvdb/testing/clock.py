"""The clock of a server for tests: it goes on as it is told."""

from __future__ import annotations

import time
from collections.abc import Callable


class Clock:
    """The clock of a server: real time, and what a test adds to it. Any thread may read it."""

    def __init__(self) -> None:
        self._ahead = 0.0  # seconds
        self._frozen_at: float | None = None  # Unix seconds
        self.on_change: Callable[[], None] = lambda: None
        """Called when the time has jumped."""

    def __call__(self) -> float:
        """Return what time it is for the server, in Unix seconds."""
        frozen_at = self._frozen_at
        return time.time() + self._ahead if frozen_at is None else frozen_at

    def advance(self, seconds: float) -> None:
        """Have so much time pass at once. Raises ValueError: it does not go back."""
        if not seconds >= 0:
            raise ValueError(f"the clock can go on, but not by {seconds} seconds")
        if self._frozen_at is None:
            self._ahead += seconds
        else:
            self._frozen_at += seconds
        self.on_change()

    def freeze(self) -> None:
        """Have time pass only by advance() from now on: what is left of a TTL is exact then."""
        self._frozen_at = self()

    def unfreeze(self) -> None:
        """Have time go on by itself again, from where it is."""
        if self._frozen_at is not None:
            self._ahead, self._frozen_at = self._frozen_at - time.time(), None

    def reset(self) -> None:
        """Go back to real time."""
        self._ahead, self._frozen_at = 0.0, None
        self.on_change()
