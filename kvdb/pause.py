"""CLIENT PAUSE: for some time no request is carried out, or none that may write."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import Protocol


class Held(enum.IntEnum):
    """Which requests have to wait; the larger is the stricter."""

    NOTHING = 0
    WRITES = 1
    ALL = 2


class Waiting(Protocol):
    """What a session waits for before its request is carried out."""

    @property
    def is_over(self) -> bool:
        """Whether the request may be tried again."""


class Pause:
    """Whether there is a pause. A change is one assignment: any thread may look without a lock."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._now: tuple[Held, float] = Held.NOTHING, 0.0  # and until when

    @property
    def held(self) -> Held:
        """Which requests have to wait now."""
        held, until = self._now
        return held if held and self._monotonic() < until else Held.NOTHING

    @property
    def seconds_left(self) -> float:
        """How long it will last."""
        return max(0.0, self._now[1] - self._monotonic()) if self._now[0] else 0.0

    @property
    def is_noted(self) -> bool:
        """Whether end() has something to do: there is a pause, or one has run out."""
        return bool(self._now[0])

    def begin(self, held: Held, seconds: float) -> None:
        """Pause from now on; of two pauses, what is stricter and what is longer counts."""
        before, until = (self.held, self._now[1]) if self.held else (Held.NOTHING, 0.0)
        self._now = max(held, before), max(self._monotonic() + seconds, until)

    def end(self) -> None:
        """Let everything go on."""
        self._now = Held.NOTHING, 0.0

    def wait(self) -> PauseWait:
        """Return what a request waits for that is held now."""
        return PauseWait(self, self._now)


class PauseWait:
    """The end of a pause, or a change of it, which may let the request go."""

    def __init__(self, pause: Pause, now: tuple[Held, float]) -> None:
        self._pause, self._then = pause, now

    @property
    def is_over(self) -> bool:
        """See `Waiting`."""
        return self._pause._now is not self._then or not self._pause.held
