"""The reaper: deletes keys when their time has come, whether or not anybody asks for them."""

from __future__ import annotations

import time
from typing import Final

from kvdb.periodic import Periodic
from kvdb.store import Store

_LONGEST_WAIT: Final = 1.0  # seconds


class Reaper(Periodic):
    """Sleeps until the next deadline, then expires what is due in bounded slices."""

    def __init__(self, store: Store) -> None:
        super().__init__("reaper", self._expire, self._seconds_to_next_pass)
        self._store = store
        store.on_earlier_deadline = self.wake

    def _seconds_to_next_pass(self) -> float | None:
        """Return a second at most while anything will expire: the wall clock may jump."""
        wait = self._store.seconds_to_next_deadline()
        return None if wait is None else min(wait, _LONGEST_WAIT)

    def _expire(self) -> None:
        while self._store.expire_due() and not self.stopping:
            time.sleep(0)  # let waiting clients have the lock and the interpreter
