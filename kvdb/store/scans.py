"""SCAN's index: all keys of a database in the order of a stable hash of their names.

A cursor is a place in that order, so it needs nothing that is kept for its scan: any number of
scans go on side by side, and a cursor stays good after a restart. The index is built when
somebody scans, follows every key that comes and goes, and is dropped when nobody has scanned
for a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Final
from zlib import crc32

from kvdb.store.entry import Key, split_key

HASHES: Final = 1 << 32
"""How many different hashes there are; a cursor is below it, so a double holds it exactly."""

_PER_BUCKET: Final = 32  # keys, about: sorted when they are asked for
_LEAST_ROOM: Final = 256  # keys
_BUILT_AT_A_TIME: Final = 2_000  # keys; then other threads have the interpreter


def hash_of(key: Key) -> int:
    """Return a key's place in the order of a scan."""
    return crc32(split_key(key)[1])


class ScanIndex:
    """The keys of one database by hash, in buckets. Not thread-safe: the store's lock guards it.

    Only `build()` is called without that lock, by one thread, before the index is used.
    """

    def __init__(self, expected: int) -> None:
        """`expected` is about how many keys there will be."""
        self._room = max(_LEAST_ROOM, 8 * expected)
        self._keys = 0
        bits = max(0, (expected // _PER_BUCKET).bit_length())
        self._shift = 32 - bits
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


def _place(place_and_key: tuple[int, Key]) -> int:
    return place_and_key[0]
