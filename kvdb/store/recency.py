"""The table of entries in the order of their use, exact, in segments of limited size.

A table of this kind grows by building a larger one beside the old, while everybody waits:
measured 60 to 250 ms at a million keys, and 30 MB more for a moment at 350,000. So there are
several `OrderedDict`s. The young one takes whatever is written or used. When it is full, it
becomes the first of the older ones, and a new one takes its place: whatever is in a segment was
used later than all that is in the segments behind it.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import chain, pairwise
from typing import Final

from kvdb.store.entry import Key

SMALLEST: Final = 87_381
"""Insertions that a segment takes, at least: as many as fit into a table of 2**17 places, which
is 3.7 MB. To grow to that size takes it 6 ms."""

_MOST_SEGMENTS: Final = 16
"""Full segments above which they become larger: a key may have to be looked for in each."""

_COMPACTION_EVERY: Final = 64  # insertions
_MOVED_AT_A_TIME: Final = 128  # entries: twice as many as have come, so that it keeps up


class RecencyTable:
    """Keys and their values, the least recently used first.

    Not thread-safe: the store's lock guards it.
    """

    def __init__(self, capacity: int = SMALLEST) -> None:
        """`capacity` is how many insertions a segment takes, at first."""
        self.young: OrderedDict[Key, bytes] = OrderedDict()
        """The segment in front. What is found in it may be replaced and moved to its end."""
        self._older: list[OrderedDict[Key, bytes]] = []  # the most recently used first; none empty
        self._capacity = capacity
        self._insertions = 0  # into the young segment; removals give no place back
        # The older segment whose entries are moving to the one behind it.
        self._emptying: OrderedDict[Key, bytes] | None = None

    def __len__(self) -> int:
        return len(self.young) + sum(map(len, self._older))

    def __contains__(self, key: Key) -> bool:
        return self.get(key) is not None

    def __iter__(self) -> Iterator[Key]:
        """Yield the keys, the least recently used first."""
        return chain(*reversed(self._older), self.young)

    def oldest(self) -> Key | None:
        """Return the least recently used key, or None if there is none."""
        return next(iter(self._older[-1] if self._older else self.young), None)

    def all_keys(self) -> list[Key]:
        """Return all keys, roughly from the least recently used on.

        `dict.keys` walks a table in memory order, about a hundred times as fast as the
        OrderedDict's own view, which follows a linked list with a hash look-up each (a million
        entries: 12 ms against 1,171 ms).
        """
        keys: list[Key] = []
        for segment in self.segments():
            keys += dict.keys(segment)
        return keys

    def all_values(self) -> list[bytes]:
        """Return all values, in the order of `all_keys()`."""
        values: list[bytes] = []
        for segment in self.segments():
            values += dict.values(segment)
        return values

    def segments(self) -> list[OrderedDict[Key, bytes]]:
        """Return the segments that everything is in, the least recently used first."""
        return [*reversed(self._older), self.young]

    def get(self, key: Key) -> bytes | None:
        """Return a key's value, or None. Does not count as use."""
        value = self.young.get(key)
        if value is None:
            for segment in self._older:
                value = segment.get(key)
                if value is not None:
                    break
        return value

    def put(self, key: Key, value: bytes) -> None:
        """Give a key this value; it is the most recently used one then."""
        if key in self.young:
            self.young[key] = value
            self.young.move_to_end(key)
            return
        if self._older:
            self._take_from_older(key)
        self.add(key, value)

    def add(self, key: Key, value: bytes) -> None:
        """As put(), for a key that is not there: nothing has to be searched for it."""
        self.young[key] = value
        self._insertions += 1
        if self._insertions >= self._capacity:
            self._start_segment()
        elif self._insertions % _COMPACTION_EVERY == 0:
            self._compact()

    def touch(self, key: Key) -> None:
        """Make an existing key the most recently used one."""
        if key in self.young:
            self.young.move_to_end(key)
        elif (value := self._take_from_older(key)) is not None:
            self.add(key, value)

    def replace(self, key: Key, value: bytes) -> None:
        """Give an existing key another value; it keeps its place in the order."""
        for segment in (self.young, *self._older):
            if key in segment:
                segment[key] = value
                return

    def pop(self, key: Key) -> bytes:
        """Take an existing key out; return its value."""
        value = self.young.pop(key, None)
        if value is None:
            value = self._take_from_older(key)
            if value is None:
                raise KeyError(key)
        return value

    def rename(self, names: Mapping[Key, Key]) -> list[OrderedDict[Key, bytes]]:
        """Give these keys other names; nothing else changes, nor the order.

        Returns what the entries were in: to free it takes long.
        """
        before = [self.young, *self._older]
        after = [
            OrderedDict(zip(map(names.get, segment, segment), segment.values(), strict=True))
            for segment in before
        ]
        self.young, *self._older = after
        self._emptying = None  # another one may be chosen at once
        return before

    def _take_from_older(self, key: Key) -> bytes | None:
        for number, segment in enumerate(self._older):
            value = segment.pop(key, None)
            if value is not None:
                if not segment:
                    del self._older[number]
                return value
        return None

    def _start_segment(self) -> None:
        if self.young:
            self._older.insert(0, self.young)
        self.young = OrderedDict()
        self._insertions = 0
        if len(self) > _MOST_SEGMENTS * self._capacity:
            self._capacity *= 2

    def _compact(self) -> None:
        """Move some entries to the segment behind theirs, of two that would fit into one.

        Use empties the older segments bit by bit, and each would keep its table.
        """
        number = self._choose_to_empty()
        if number is None:
            return
        newer, older = self._older[number : number + 2]
        for _ in range(min(_MOVED_AT_A_TIME, len(newer))):
            key, value = newer.popitem(last=False)
            older[key] = value
        if not newer:
            del self._older[number]

    def _choose_to_empty(self) -> int | None:
        """Return which older segment is to be emptied into the one behind it, or None.

        The same one until it is empty: of all pairs that would fit into one segment, the one
        with the fewest entries.
        """
        for number, segment in enumerate(self._older[:-1]):
            if segment is self._emptying:
                return number
        pairs = [
            (len(newer) + len(older), number)
            for number, (newer, older) in enumerate(pairwise(self._older))
        ]
        size, number = min(pairs, default=(sys.maxsize, 0))
        self._emptying = self._older[number] if size <= self._capacity else None
        return number if self._emptying else None

    def check(self) -> None:
        """Raise AssertionError unless every key is in one segment, and no older one is empty."""
        assert all(self._older), "an empty segment is kept"
        for segment in self.segments():
            assert set(segment) == set(dict.keys(segment)), "order and table differ"
        assert len(set(self)) == len(self), "a key in two segments"
        assert len(self.young) <= self._insertions < self._capacity, "a segment beyond its size"
