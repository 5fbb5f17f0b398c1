"""The reaper: does what is due at a moment, whether or not anybody asks for the keys."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from kvdb.periodic import Periodic
from kvdb.store import Store
from kvdb.store.entry import has_come

_LONGEST_WAIT: Final = 1.0  # seconds


class PlannedFlush:
    """A flush of one database at a moment to come: memcached's flush_all with a delay.

    There is one plan at most. The store's lock guards it, so that to flush now and to give up
    what was planned can be one step.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._flush_at: float | None = None  # Unix seconds
        self._db = 0
        self.on_new_plan: Callable[[], None] = lambda: None
        """Called, under the store's lock, when the reaper has to look anew when to wake up."""

    def plan(self, flush_at: float | None, db: int = 0) -> None:
        """Plan a flush in place of any earlier plan; None gives that up."""
        with self._store.atomic():
            self._flush_at, self._db = flush_at, db
            self.on_new_plan()

    def seconds_left(self) -> float | None:
        """Return how long it is until the flush, or None if none is planned."""
        with self._store.atomic():
            left = None if self._flush_at is None else self._flush_at - self._store.now()
        return None if left is None else max(0.0, left)

    def run_if_due(self) -> None:
        """Flush if the moment has come."""
        with self._store.atomic():
            if has_come(self._flush_at, self._store.now()):
                self._flush_at = None
                self._store.flush(self._db)


class Reaper(Periodic):
    """Sleeps until the next deadline or planned flush, then does what is due in bounded slices."""

    def __init__(self, store: Store, planned_flush: PlannedFlush) -> None:
        super().__init__("reaper", self._reap, self._seconds_to_next_pass)
        self._store, self._planned_flush = store, planned_flush
        self.may_expire: Callable[[], bool] = lambda: True
        """Whether keys may go before somebody asks for them (DEBUG, CLIENT PAUSE)."""
        store.on_earlier_deadline = planned_flush.on_new_plan = self.wake

    def _seconds_to_next_pass(self) -> float | None:
        """Return a second at most while anything will expire: the wall clock may jump."""
        if not self.may_expire():
            return _LONGEST_WAIT
        waits = self._store.seconds_to_next_deadline(), self._planned_flush.seconds_left()
        return min((min(each, _LONGEST_WAIT) for each in waits if each is not None), default=None)

    def _reap(self) -> None:
        if self.may_expire():
            self._planned_flush.run_if_due()
        while self.may_expire() and self._store.expire_due() and not self.stopping:
            time.sleep(0)  # let waiting clients have the lock and the interpreter
