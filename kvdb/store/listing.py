"""Finding keys: all of a database, a few at a time, or any."""

from __future__ import annotations

import random
from typing import Final

from kvdb.store.core import Core
from kvdb.store.entry import Key, has_come, milliseconds, split_key
from kvdb.store.scans import HASHES, ScanIndex

_MOST_SCANNED: Final = 10_000  # keys looked at under one hold of the lock
_RANDOM_TRIES: Final = 20
_INDEX_KEPT: Final = 10  # passes of drop_idle_indexes() that an unused index survives


class Listing(Core):
    """KEYS, SCAN and RANDOMKEY: none of them counts as use of a key.

    Needs the core's keyspace with its indexes, and its steps.
    """

    def keys(self, db: int = 0) -> list[bytes]:
        """Return the names of all keys in a database."""
        with self._lock:
            keys, now = self._space.keys(db), self._now_locked()
            if self._space.count_due(milliseconds(now), db):
                find = self._space.expires_at.get
                keys = [key for key in keys if not has_come(find(key), now)]
        return [split_key(key)[1] for key in keys]

    def random_key(self, db: int = 0) -> bytes | None:
        """Return the name of some key in a database, or None if it is empty."""
        with self._step:
            for _ in range(_RANDOM_TRIES):
                key = self._space.random_key(db)
                if key is None or self._exists_locked(key):
                    return None if key is None else split_key(key)[1]
            names = self.keys(db)  # where nearly everything is due
            return random.choice(names) if names else None

    def scan(self, cursor: int, count: int, db: int = 0) -> tuple[int, list[bytes]]:
        """Return the next cursor (0: the scan has ended) and about `count` names of keys.

        A `count` above 10,000 counts as that, so that nobody else has to wait for long.

        Every key that is there from the first call to the last is returned at least once,
        whatever is written meanwhile. A cursor is a place in the order of `scans.hash_of()`,
        below 2**31: it needs nothing that is kept for its scan, and stays good for ever.
        """
        if cursor >= HASHES:
            return 0, []
        while True:
            with self._step:
                index = self._space.indexes.get(db)
                if index is None and self._depth > 1:
                    # Whoever builds an index waits for the lock that our caller holds.
                    index = ScanIndex(self._space.key_counts[db])
                    index.build(self._space.keys(db))
                if index is not None:
                    next_cursor, keys = index.page(
                        cursor, min(count, _MOST_SCANNED), self._is_live_locked
                    )
                    return next_cursor, [split_key(key)[1] for key in keys]
            self._build_index(db)

    def _is_live_locked(self, key: Key) -> bool:
        return not has_come(self._space.expires_at.get(key), self._now_locked())

    def has_index(self, db: int) -> bool:
        """Tell whether a scan can go on at once; else an index is built first."""
        return self._space.indexes.get(db) is not None

    def _build_index(self, db: int) -> None:
        """Build the index of a database's scans, while others go on: 0.4 s for a million keys."""
        indexes = self._space.indexes
        with indexes.building:
            with self._lock:
                if indexes.get(db) is not None:
                    return  # by another thread, while this one waited
                keys = self._space.keys(db)
                index = indexes.begin(db, len(keys))
            index.build(keys)
            with self._lock:
                indexes.end(db, index)

    def drop_idle_indexes(self) -> None:
        """One pass of what is to be called each second: drop the indexes nobody has used lately."""
        with self._lock:
            self._space.indexes.drop_idle(_INDEX_KEPT)
