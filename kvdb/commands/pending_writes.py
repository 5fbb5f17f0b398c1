"""Interactive transactions: writes that wait for a COMMIT (Haus and the JSON lines have them)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from kvdb.errors import CommandError
from kvdb.store import Store
from kvdb.store.entry import Key, entry_cost, split_key

IDLE_LIMIT: Final = 60.0
"""Seconds after which an open transaction that nobody uses is rolled back."""

MAX_READ: Final = 10_000
"""Keys that a transaction may read: what it saw of each is remembered until its COMMIT."""


class TransactionEnded(Exception):
    """The transaction was rolled back by the server; the text says why.

    It is raised again until the client has sent its own COMMIT or ROLLBACK: what it sends before
    that belongs to the transaction, and must not be carried out without the rest of it.
    """


class Conflict(CommandError):
    """A key that the transaction has read was changed by somebody else before its COMMIT."""

    def __init__(self) -> None:
        super().__init__(
            "ERR a key that the transaction has read was changed meanwhile; nothing was written"
        )


class PendingWrites:
    """What one session has written since START and others do not see yet, and what it has read.

    `_lock` guards all of it: the housekeeping takes an idle transaction's memory away. The
    store's lock is taken under it, never the other way round.
    """

    def __init__(self, store: Store, max_bytes: int, clock: Callable[[], float]) -> None:
        """`max_bytes` is what the writes may cost together; `clock` measures idleness."""
        self._lock = threading.Lock()
        self._store = store
        self._clock = clock
        self._max_bytes = max_bytes
        self._writes: dict[Key, bytes | None] = {}  # None: deleted
        self._read: dict[Key, int] = {}  # key -> its version when it was read first
        self._cost = 0
        self._read_bytes = 0  # what the names of these keys take, about
        self._last_used = clock()
        self._ended = ""  # why, once the server has rolled it back

    @property
    def held_bytes(self) -> int:
        """What it keeps in memory, about."""
        return self._cost + self._read_bytes

    def put(self, key: Key, value: bytes) -> None:
        """Write a value. Raises TransactionEnded if that makes the transaction too large."""
        with self._lock:
            self._use_locked()
            self._write_locked(key, value)

    def delete(self, key: Key) -> bool:
        """Delete a key; tell whether this session saw it before. Raises as put() does.

        It is a blind write: whether the key is there may change until the COMMIT.
        """
        with self._lock:
            self._use_locked()
            there = (
                self._writes[key] is not None if key in self._writes else self._store.exists(key)
            )
            self._write_locked(key, None)
            return there

    def get(self, key: Key) -> bytes | None:
        """Return a value as this session sees it: its own writes before everybody's.

        If somebody else changes the key before the COMMIT, that will be refused.
        """
        with self._lock:
            self._use_locked()
            if key in self._writes:
                return self._writes[key]
            if key not in self._read:
                if len(self._read) >= MAX_READ:
                    self._end_locked(f"it has read more than {MAX_READ} keys")
                    self._use_locked()
                self._read[key] = self._store.watch(key)
                self._read_bytes += entry_cost(key, b"")
            return self._store.get(key)

    def commit(self) -> None:
        """Carry out all writes in one step, or none.

        Raises TransactionEnded, Conflict, or what `Store.write_many()` raises.
        """
        with self._lock:
            self._use_locked()
            with self._store.atomic():
                if not all(
                    self._store.unchanged(key, version) for key, version in self._read.items()
                ):
                    raise Conflict
                self._store.write_many(self._writes)

    def requests(self) -> list[list[bytes]]:
        """Return the requests that would do now what commit() does."""
        with self._lock:
            return [
                [b"DEL", split_key(key)[1]] if value is None else [b"SET", split_key(key)[1], b""]
                for key, value in self._writes.items()
            ]

    def release(self) -> None:
        """Forget everything: the session commits nothing more."""
        with self._lock:
            self._forget_locked()

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
        self._ended = reason
        self._forget_locked()

    def _forget_locked(self) -> None:
        self._writes, self._cost = {}, 0
        for key in self._read:
            self._store.unwatch(key)
        self._read, self._read_bytes = {}, 0
