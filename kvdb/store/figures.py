"""The figures of the store: how many keys there are, what they take, what has happened."""

from __future__ import annotations

from itertools import islice

from kvdb.store.core import Core
from kvdb.store.entry import has_come, milliseconds, split_key


class Figures(Core):
    """What INFO, the metrics and the memory's governor ask for. Only reads the core's parts."""

    def size(self, db: int = 0) -> int:
        """Return the number of keys in a database; what is due and not yet gone does not count."""
        with self._lock:
            now = milliseconds(self._now_locked())
            return self._space.key_counts[db] - self._space.count_due(now, db)

    def sizes(self) -> dict[int, tuple[int, int, float]]:
        """Return keys, keys with a deadline and their mean seconds to live (of a sample of 20).

        Only databases that have keys are listed.
        """
        with self._lock:
            space, now = self._space, self._now_locked()
            sizes = {}
            for db, keys in enumerate(space.key_counts):
                due = space.count_due(milliseconds(now), db) if keys else 0
                if keys > due:
                    expiring = space.deadline_counts[db] - due
                    deadlines = (
                        at - now
                        for key, at in islice(space.expires_at.items(), 10_000)
                        if split_key(key)[0] == db and not has_come(at, now)
                    )
                    sample = list(islice(deadlines, 20)) if expiring else []
                    sizes[db] = (keys - due, expiring, sum(sample) / max(1, len(sample)))
            return sizes

    @property
    def total_keys(self) -> int:
        """How many entries there are in all databases, with what is due and not yet gone."""
        return len(self._space)

    @property
    def used_bytes(self) -> int:
        """What all entries cost, with their deadlines, flags and notes."""
        with self._lock:
            return self._budget.used()

    @property
    def index_bytes(self) -> int:
        """What the indexes of scans take, beside the budget."""
        return self._space.indexes.bytes

    @property
    def freed_bytes(self) -> int:
        """Bytes of entries that were freed since the start, and may have left holes behind."""
        return self._space.freed

    @property
    def reclaimed_keys(self) -> int:
        """How many of the expired keys went because a write needed their memory."""
        return self._budget.reclaimed_keys

    def reset_statistics(self) -> None:
        """Set all counters but `changes` back to 0 (CONFIG RESETSTAT)."""
        with self._lock:
            self.hits = self.misses = self.expired_keys = self.evicted_keys = 0
            self.found_expired = self.stored_entries = self._budget.reclaimed_keys = 0
