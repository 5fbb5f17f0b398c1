"""Scans under way: the lists of keys behind SCAN's cursors."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, NamedTuple

from kvdb.errors import INVALID_CURSOR, CommandError
from kvdb.store.entry import Key, split_key

MAX_SCANS: Final = 1_000
MAX_BYTES: Final = 64 * 1024 * 1024
"""What the lists of all unfinished scans may keep together, the names of deleted keys included."""

_POSITIONS: Final = 1 << 32  # a cursor is the scan's number * this + a position in its list


class _Scan(NamedTuple):
    db: int
    insertions: int
    keys: list[Key]
    bytes: int


class Scans:
    """Unfinished scans by number, the least recently continued first. Not thread-safe: the store's lock guards it."""

    def __init__(self) -> None:
        self._scans: OrderedDict[int, _Scan] = OrderedDict()
        # Numbered from a random start, so that a cursor from before a restart is refused
        # instead of continuing somebody else's scan.
        self._first = self._last = self._last_forgotten = secrets.randbelow(1 << 30)

    def begin(self, db: int, insertions: int, list_keys: Callable[[int], list[Key]]) -> int:
        """Return the cursor of a new scan of a database.

        `insertions` is how often a key has come into being: while it stays the same, scans
        share one list.
        """
        newest = self._scans.get(self._last)
        if newest and (newest.db, newest.insertions) == (db, insertions):
            scan = newest
        else:
            keys = list_keys(db)
            scan = _Scan(db, insertions, keys, _estimate_bytes(keys))
        self._last += 1
        self._scans[self._last] = scan
        while len(self._scans) > 1 and (
            len(self._scans) > MAX_SCANS or self._kept_bytes() > MAX_BYTES
        ):
            self._scans.popitem(last=False)
        return self._last * _POSITIONS

    def _kept_bytes(self) -> int:
        lists = {id(scan.keys): scan.bytes for scan in self._scans.values()}
        return sum(lists.values())

    def continue_(self, cursor: int, count: int, db: int) -> tuple[int, list[Key]]:
        """Return the next cursor (0: the scan has ended) and the keys at this one.

        Raises CommandError if the cursor belongs to no scan that is remembered.
        """
        number, position = divmod(cursor, _POSITIONS)
        scan = self._scans.get(number)
        if scan is None:
            if self._first < number <= self._last_forgotten:
                return 0, []  # a flush took all that was left of it
            raise CommandError(INVALID_CURSOR)
        if scan.db != db:
            raise CommandError(INVALID_CURSOR)
        self._scans.move_to_end(number)
        end = position + count
        if end < len(scan.keys):
            return number * _POSITIONS + end, scan.keys[position:end]
        del self._scans[number]
        return 0, scan.keys[position:end]

    def forget_all(self) -> None:
        """End every scan: there are no keys left to be returned."""
        self._scans.clear()
        self._last_forgotten = self._last


def _estimate_bytes(keys: list[Key]) -> int:
    """Return what a list and its names take: exactly for short lists, else from a sample."""
    sample = keys if len(keys) <= 10_000 else keys[:: len(keys) // 10_000]
    names = sum(len(split_key(key)[1]) for key in sample)
    return 8 * len(keys) + names * len(keys) // max(1, len(sample))
