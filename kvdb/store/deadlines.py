"""Which keys expire, and when: deadlines in buckets of one second.

A heap of (deadline, key) would collect a stale pair each time a deadline is replaced,
and clearing those out means rebuilding the heap while everybody waits. So keys wait in
a set for each second, from which they can be taken out again at once; only the keys of
a second that has begun are put in order, in a small heap.
"""

from __future__ import annotations

import heapq
import itertools
from collections import OrderedDict
from typing import Generic, TypeVar

K = TypeVar("K", bound=object)


class Deadlines(Generic[K]):
    """Deadlines of keys, in Unix seconds. Not thread-safe: the store's lock guards it."""

    def __init__(self) -> None:
        self.expires_at: dict[K, float] = {}
        """The deadline of each key that has one. Readers may look; changes go through set()."""
        self._buckets: dict[int, set[K]] = {}  # second -> keys that expire within it
        # Heap of the seconds that have a bucket, and of some whose bucket has been emptied: a
        # heap gives up only its first element cheaply, so those are cleared out in bulk.
        self._seconds: list[int] = []
        # Keys of the seconds that have begun, earliest first. Replaced deadlines stay in
        # here until their time: each lives for less than a second, so they stay few.
        # The number between breaks ties, because keys need not be comparable.
        self._begun: list[tuple[float, int, K]] = []
        self._ticket = itertools.count()
        self._begun_until = 0  # seconds before this one have no bucket any more

    def __len__(self) -> int:
        return len(self.expires_at)

    def keep_recency(self, wanted: bool) -> None:
        """Let `expires_at` keep an order of use (volatile-lru needs it), or stop doing so."""
        kind = OrderedDict if wanted else dict
        self.expires_at = kind(self.expires_at)

    def set(self, key: K, expires_at: float) -> None:
        """Give the key this deadline, in place of any earlier one."""
        self._leave_bucket(key)
        self.expires_at[key] = expires_at  # a key that is there keeps its place in the order
        second = int(expires_at)
        if second < self._begun_until:
            heapq.heappush(self._begun, (expires_at, next(self._ticket), key))
            return
        bucket = self._buckets.get(second)
        if bucket is None:
            bucket = self._buckets[second] = set()
            heapq.heappush(self._seconds, second)
        bucket.add(key)

    def discard(self, key: K) -> None:
        """Forget the key's deadline, if it has one."""
        self._leave_bucket(key)
        self.expires_at.pop(key, None)

    def _leave_bucket(self, key: K) -> None:
        expires_at = self.expires_at.get(key)
        if expires_at is None:
            return
        second = int(expires_at)
        bucket = self._buckets.get(second)
        if bucket is None:
            return
        bucket.discard(key)
        if not bucket:
            del self._buckets[second]
            if len(self._seconds) > 2 * len(self._buckets) + 100:
                self._seconds = list(self._buckets)
                heapq.heapify(self._seconds)

    def earliest(self) -> float | None:
        """A moment before which no key expires, or None if no key ever does.

        It may be early by less than a second, never late.
        """
        while self._seconds and self._seconds[0] not in self._buckets:
            heapq.heappop(self._seconds)
        begun = self._begun[0][0] if self._begun else None
        bucket = self._seconds[0] if self._seconds else None
        if begun is None or bucket is None:
            return bucket if begun is None else begun
        return min(begun, bucket)

    def take_due(self, now: float, limit: int) -> list[K]:
        """Return up to `limit` keys whose deadline has come; their deadlines are forgotten.

        Does at most about `limit` steps. Fewer keys than that may come back while more are
        due: ask again until `earliest()` lies ahead.
        """
        self._begin(now, limit)
        due: list[K] = []
        while self._begun and self._begun[0][0] <= now and limit > 0:
            expires_at, _, key = heapq.heappop(self._begun)
            limit -= 1
            if self.expires_at.get(key) == expires_at:  # else it was replaced or forgotten
                self.discard(key)
                due.append(key)
        return due

    def _begin(self, now: float, limit: int) -> None:
        """Move up to `limit` keys of the seconds that have begun from their buckets to the heap."""
        while self._seconds and self._seconds[0] <= now and limit > 0:
            second = self._seconds[0]
            bucket = self._buckets.get(second, set())
            while bucket and limit > 0:
                key = bucket.pop()
                heapq.heappush(self._begun, (self.expires_at[key], next(self._ticket), key))
                limit -= 1
            if bucket:
                return  # the rest is for the next call
            heapq.heappop(self._seconds)
            self._buckets.pop(second, None)
            self._begun_until = max(self._begun_until, second + 1)

    def check(self) -> None:
        """Raise AssertionError unless every deadline waits where it will be found."""
        waiting = {key for bucket in self._buckets.values() for key in bucket}
        assert sum(map(len, self._buckets.values())) == len(waiting), "a key waits in two buckets"
        for second, bucket in self._buckets.items():
            assert all(int(self.expires_at[key]) == second for key in bucket), (
                "a key in a wrong bucket"
            )
        begun = {
            key for expires_at, _, key in self._begun if self.expires_at.get(key) == expires_at
        }
        assert waiting | begun == self.expires_at.keys(), "a deadline waits nowhere"
        assert all(self._buckets.values()), "an empty bucket is kept"
        assert set(self._seconds) >= self._buckets.keys(), "a bucket that would never be looked at"
