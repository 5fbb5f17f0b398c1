"""The reaper: deletes keys when their time has come, whether or not anybody asks for them."""

from __future__ import annotations

import time

from kvdb.periodic import Periodic
from kvdb.store import Store


class Reaper(Periodic):
    """Sleeps until the next deadline, then expires what is due in bounded slices."""

    def __init__(self, store: Store) -> None:
        super().__init__("reaper", self._expire, store.seconds_to_next_deadline)
        self._store = store
        store.on_earlier_deadline = self.wake

    def _expire(self) -> None:
        while self._store.expire_due() and not self.stopping:
            time.sleep(0)  # let waiting clients have the lock and the interpreter
