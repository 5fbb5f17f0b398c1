"""SCAN's index: all keys of a database in the order of a stable hash of their names.

A cursor is a place in that order, so it needs nothing that is kept for its scan: any number of
scans go on side by side, and a cursor stays good after a restart. The index is built when
somebody scans, follows every key that comes and goes, and is dropped when nobody has scanned
for a while.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Final
from zlib import crc32

from kvdb.store.entry import Key, split_key

HASHES: Final = 1 << 31
"""How many different hashes there are. A cursor is below it: redis-cli --cluster import keeps it in an int."""

_PER_BUCKET: Final = 32  # keys, about: sorted when they are asked for
_LEAST_ROOM: Final = 256  # keys
_BUILT_AT_A_TIME: Final = 2_000  # keys; then other threads have the interpreter


def hash_of(key: Key) -> int:
    """Return a key's place in the order of a scan."""
    return crc32(split_key(key)[1]) >> 1


class ScanIndex:
    """The keys of one database by hash, in buckets. Not thread-safe: the store's lock guards it.

    Only `build()` is called without that lock, by one thread, before the index is used.
    """

    def __init__(self, expected: int) -> None:
        """`expected` is about how many keys there will be."""
        self._room = max(_LEAST_ROOM, 8 * expected)
        self._keys = 0
        bits = max(0, (expected // _PER_BUCKET).bit_length())
        self._shift = 31 - bits
        self._buckets: list[list[Key]] = [[] for _ in range(1 << bits)]
        self.idle_passes = 0
        """How often somebody has looked since the last scan and found that there was none."""

    @property
    def bytes(self) -> int:
        """About what it takes: a list for each bucket, a place for each key."""
        return len(self._buckets) * (64 + 8 * _PER_BUCKET)

    def build(self, keys: list[Key]) -> None:
        """Add all these keys, letting go of the interpreter between slices."""
        for start in range(0, len(keys), _BUILT_AT_A_TIME):
            for key in keys[start : start + _BUILT_AT_A_TIME]:
                self.add(key)
            time.sleep(0)

    def catch_up(self, log: Iterable[tuple[bool, Key]]) -> None:
        """Add (True) and discard (False) keys in this order."""
        for came, key in log:
            if came:
                self.add(key)
            else:
                self.discard(key)

    def add(self, key: Key) -> None:
        """Add a key that is not there."""
        self._buckets[hash_of(key) >> self._shift].append(key)
        self._keys += 1

    def discard(self, key: Key) -> None:
        """Take out a key that is there."""
        self._buckets[hash_of(key) >> self._shift].remove(key)
        self._keys -= 1

    @property
    def is_outgrown(self) -> bool:
        """Whether there are many more keys than it was made for: its buckets are too long."""
        return self._keys > self._room

    def page(self, cursor: int, count: int, wanted: Callable[[Key], bool]) -> tuple[int, list[Key]]:
        """Return the next cursor (0: the end), and about `count` wanted keys from this one on.

        Looks at about `count` keys. Keys of one hash come together, because the cursor cannot
        tell them apart.
        """
        self.idle_passes = 0
        page: list[Key] = []
        looked_at, last = 0, -1
        for number in range(cursor >> self._shift, len(self._buckets)):
            for place, key in sorted(
                ((hash_of(key), key) for key in self._buckets[number]), key=_place
            ):
                if place < cursor:
                    continue
                if looked_at >= count and place != last:
                    return place, page
                looked_at, last = looked_at + 1, place
                if wanted(key):
                    page.append(key)
        return 0, page

    def check(self, keys: set[Key]) -> None:
        """Raise AssertionError unless it holds exactly these keys, each in its bucket."""
        held = [key for bucket in self._buckets for key in bucket]
        assert sorted(held, key=split_key) == sorted(keys, key=split_key), "index and keys differ"
        for number, bucket in enumerate(self._buckets):
            assert all(hash_of(key) >> self._shift == number for key in bucket), "a wrong bucket"


class ScanIndexes:
    """The indexes of those databases that somebody scans, and how they come to be.

    The store's lock guards them. While one is built, without that lock, what comes and goes is
    noted, and the index catches up before it is used.
    """

    def __init__(self) -> None:
        self.building = threading.Lock()
        """Held while an index is built; the store's lock is taken under it for moments."""
        self.followed = False
        """Whether note() has to be told what comes and goes: a write tests this and no more."""
        self._indexes: dict[int, ScanIndex] = {}  # by database
        self._logs: dict[int, list[tuple[bool, Key]]] = {}  # what came and went during a build

    def get(self, db: int) -> ScanIndex | None:
        """Return the index of a database, if there is one now."""
        return self._indexes.get(db)

    def begin(self, db: int, expected: int) -> ScanIndex:
        """Return an index to build() from all keys that are there now."""
        self._logs[db] = []
        self.followed = True
        return ScanIndex(expected)

    def end(self, db: int, index: ScanIndex) -> None:
        """Take an index into use that was built from those keys."""
        log = self._logs.pop(db, None)
        if log is not None:  # else all keys were flushed meanwhile
            index.catch_up(log)
            self._indexes[db] = index
        self._see_who_follows()

    def note(self, came: bool, key: Key) -> None:
        """Have the index of a key's database follow its coming or going."""
        db = split_key(key)[0]
        if (index := self._indexes.get(db)) is not None:
            if not came:
                index.discard(key)
                return
            index.add(key)
            if index.is_outgrown:  # the next scan builds another one; cursors stay good
                del self._indexes[db]
                self._see_who_follows()
        elif (log := self._logs.get(db)) is not None:
            log.append((came, key))

    def drop_idle(self, passes: int) -> None:
        """Drop the indexes that were not used between so many calls of this."""
        for db, index in list(self._indexes.items()):
            index.idle_passes += 1
            if index.idle_passes > passes:
                del self._indexes[db]
        self._see_who_follows()

    def clear(self) -> None:
        """Forget everything: all keys are gone."""
        self._indexes.clear()
        self._logs.clear()
        self._see_who_follows()

    def forget(self, db: int) -> None:
        """Drop the index of a database, and the one that is being built: its keys are others."""
        self._indexes.pop(db, None)
        self._logs.pop(db, None)
        self._see_who_follows()

    def _see_who_follows(self) -> None:
        self.followed = bool(self._indexes or self._logs)

    @property
    def bytes(self) -> int:
        """What all of it takes, beside the budget. Any thread may ask."""
        logs = sum(len(log) for log in list(self._logs.values()))
        return sum(index.bytes for index in list(self._indexes.values())) + 80 * logs

    def check(self, keys_of: Callable[[int], set[Key]]) -> None:
        """Raise AssertionError unless each index holds exactly the keys of its database."""
        assert self.followed == bool(self._indexes or self._logs), "nobody follows, or in vain"
        for db, index in self._indexes.items():
            index.check(keys_of(db))


def _place(place_and_key: tuple[int, Key]) -> int:
    return place_and_key[0]
