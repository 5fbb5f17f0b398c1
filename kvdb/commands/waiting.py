"""Why a request was not carried out yet: its dialect keeps it, and asks again."""

from __future__ import annotations

from collections.abc import Callable

from kvdb.errors import CommandError
from kvdb.pause import Waiting

UNBLOCKED = "UNBLOCKED client unblocked via CLIENT UNBLOCK"


class TakesLong(Exception):
    """The request was not carried out: it takes long, and others would have to wait for it."""


class MustWait(TakesLong):
    """The request was not carried out: something has to happen before. It costs no thread."""

    def __init__(self, waiting: Waiting) -> None:
        """`waiting.is_over` tells when the request may be tried again."""
        super().__init__()
        self.waiting = waiting


class TimedWait:
    """What a client itself waits for, for some time at most (WAIT); CLIENT UNBLOCK may end it.

    Its end is one assignment: any thread may ask for it.
    """

    def __init__(
        self,
        seconds: float | None,
        monotonic: Callable[[], float],
        has_come: Callable[[], bool] = lambda: False,
    ) -> None:
        """With None, it may take any time."""
        self._monotonic = monotonic
        self._until = None if seconds is None else monotonic() + seconds
        self.has_come = has_come
        self._ended: bool | None = None  # by CLIENT UNBLOCK; True: with an error

    @property
    def is_over(self) -> bool:
        """See `Waiting`."""
        is_late = self._until is not None and self._monotonic() >= self._until
        return is_late or self._ended is not None or self.has_come()

    def end(self, with_error: bool) -> None:
        """Have it end now."""
        self._ended = with_error

    def check(self) -> None:
        """Raise CommandError if it was ended with an error."""
        if self._ended:
            raise CommandError(UNBLOCKED)
