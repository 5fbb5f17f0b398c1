"""Interactive transactions: writes that wait for a COMMIT (Haus and the JSON lines have them)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from kvdb.store import Store
from kvdb.store.entry import Key, entry_cost

IDLE_LIMIT: Final = 60.0
"""Seconds after which an open transaction that nobody uses is rolled back."""


class TransactionEnded(Exception):
    """The transaction was rolled back by the server; the text says why.

    It is raised again until the client has sent its own COMMIT or ROLLBACK: what it sends before
    that belongs to the transaction, and must not be carried out without the rest of it.
    """


class PendingWrites:
    """What one session has written since START and others do not see yet.

    `_lock` guards all of it: the housekeeping takes an idle transaction's memory away.
    """

    def __init__(self, max_bytes: int, clock: Callable[[], float]) -> None:
        """`max_bytes` is what the writes may cost together; `clock` measures idleness."""
        self._lock = threading.Lock()
        self._clock = clock
        self._max_bytes = max_bytes
        self._writes: dict[Key, bytes | None] = {}  # None: deleted
        self._cost = 0
        self._last_used = clock()
        self._ended = ""  # why, once the server has rolled it back

    def put(self, key: Key, value: bytes) -> None:
        """Write a value. Raises TransactionEnded if that makes the transaction too large."""
        with self._lock:
            self._use_locked()
            self._write_locked(key, value)

    def delete(self, store: Store, key: Key) -> bool:
        """Delete a key; tell whether this session saw it before. Raises as put() does."""
        there = self.get(store, key) is not None
        with self._lock:
            self._use_locked()
            self._write_locked(key, None)
        return there

    def get(self, store: Store, key: Key) -> bytes | None:
        """Return a value as this session sees it: its own writes before everybody's."""
        with self._lock:
            self._use_locked()
            if key in self._writes:
                return self._writes[key]
        return store.get(key)

    def commit(self, store: Store) -> None:
        """Carry out all writes in one step, or, if they do not fit into the budget, none.

        Raises TransactionEnded, or what `Store.write_many()` raises.
        """
        with self._lock:
            self._use_locked()
            writes = self._writes
        store.write_many(writes)

    def end_if_idle(self) -> None:
        """Roll back if nobody has used the transaction for IDLE_LIMIT seconds."""
        with self._lock:
            if not self._ended and self._clock() - self._last_used > IDLE_LIMIT:
                self._end_locked(f"nobody used it for {IDLE_LIMIT:g} seconds")

    def _write_locked(self, key: Key, value: bytes | None) -> None:
        cost = self._cost + entry_cost(key, value or b"")
        if key in self._writes:
            cost -= entry_cost(key, self._writes[key] or b"")
        if cost > self._max_bytes:
            self._end_locked(f"it is larger than {self._max_bytes} bytes")
            self._use_locked()
        self._writes[key], self._cost = value, cost

    def _use_locked(self) -> None:
        if self._ended:
            raise TransactionEnded(f"The transaction was rolled back: {self._ended}!")
        self._last_used = self._clock()

    def _end_locked(self, reason: str) -> None:
        self._ended, self._writes, self._cost = reason, {}, 0
