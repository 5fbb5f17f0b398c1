"""When keys expire: deadlines in buckets of a second, some of which are split into milliseconds.

A heap of (deadline, key) would collect a stale pair each time a deadline is replaced. So keys
wait in a set for each second, from which they can be taken out again at once. A second that has
come, or that holds many keys, is split into its milliseconds: then what is due can be counted
without looking at each key.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final, Generic, TypeVar

K = TypeVar("K", bound=object)

LARGE: Final = 2_000
"""Keys above which a second is split: that takes about a millisecond."""

_Moments = dict[int, set[K]]  # millisecond -> the keys that expire then


class Deadlines(Generic[K]):
    """Keys by their deadlines, in milliseconds since 1970. Not thread-safe: the store's lock guards it.

    It does not remember a key's deadline: whoever takes a key out has to know it.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, set[K] | _Moments[K]] = {}  # none of them empty
        # Heap of the seconds that have a bucket, and of some whose bucket has been emptied: a
        # heap gives up only its first element cheaply, so those are cleared out in bulk.
        self._order: list[int] = []

    def add(self, key: K, deadline: int, deadline_of: dict[K, float]) -> None:
        """Have a key that waits nowhere expire at this deadline, which `deadline_of` knows already."""
        second = deadline // 1000
        bucket = self._seconds.get(second)
        if bucket is None:
            self._seconds[second] = {key}
            heapq.heappush(self._order, second)
        elif type(bucket) is set:
            bucket.add(key)
            if len(bucket) > LARGE:
                self._split(second, deadline_of)
        elif deadline in bucket:
            bucket[deadline].add(key)  # type: ignore[index]
        else:
            bucket[deadline] = {key}  # type: ignore[index]

    def remove(self, key: K, deadline: int) -> None:
        """Take out a key that has this deadline."""
        second = deadline // 1000
        bucket = self._seconds[second]
        if type(bucket) is dict:
            keys = bucket[deadline]
            keys.remove(key)
            if not keys:
                del bucket[deadline]
        else:
            bucket.remove(key)  # type: ignore[union-attr]
        if not bucket:
            del self._seconds[second]
            if len(self._order) > 2 * len(self._seconds) + 100:
                self._order = list(self._seconds)
                heapq.heapify(self._order)

    def earliest(self) -> int | None:
        """A moment before which no key expires, or None if no key ever does.

        It may be early by less than a second, never late.
        """
        while self._order and self._order[0] not in self._seconds:
            heapq.heappop(self._order)
        if not self._order:
            return None
        bucket = self._seconds[self._order[0]]
        return min(bucket) if type(bucket) is dict else self._order[0] * 1000

    def in_order(self, deadline_of: dict[K, float]) -> Iterator[tuple[int, K]]:
        """Yield deadlines and their keys, the earliest first; nothing may change meanwhile.

        The first of them costs no more than a look at the milliseconds of their second.
        """
        for second in self._begun():
            bucket = self._seconds[second]
            if type(bucket) is not dict:
                bucket = self._split(second, deadline_of)
            moments = list(bucket)
            heapq.heapify(moments)
            while moments:
                moment = heapq.heappop(moments)
                for key in bucket[moment]:
                    yield moment, key

    def rename(self, names: Mapping[K, K]) -> None:
        """Have these keys wait under other names."""
        for second, bucket in self._seconds.items():
            if type(bucket) is dict:
                for moment, keys in bucket.items():
                    bucket[moment] = {names.get(key, key) for key in keys}
            else:
                self._seconds[second] = {names.get(key, key) for key in bucket}  # type: ignore

    def count_due(self, now: int, deadline_of: dict[K, float]) -> int:
        """Return how many keys have a deadline that has come by `now`."""
        due = 0
        for second in self._begun(now // 1000):
            moments = self._moments(second, now, deadline_of)
            if moments is None:
                due += sum(map(len, self._all(second)))
            else:
                due += sum(len(keys) for moment, keys in moments.items() if moment <= now)
        return due

    def find_due(self, now: int, limit: int, deadline_of: dict[K, float]) -> list[K]:
        """Return up to `limit` keys whose deadline has come, about the earliest first."""
        found: list[K] = []
        for second in self._begun(now // 1000):
            moments = self._moments(second, now, deadline_of)
            for keys in self._all(second) if moments is None else _due(moments, now):
                found += islice(keys, limit - len(found))
                if len(found) == limit:
                    return found
        return found

    def _moments(self, second: int, now: int, deadline_of: dict[K, float]) -> _Moments[K] | None:
        """Return the milliseconds of a second that has begun, or None if it is over."""
        if second < now // 1000:
            return None
        bucket = self._seconds[second]
        if type(bucket) is not dict:
            bucket = self._split(second, deadline_of)
        return bucket

    def _split(self, second: int, deadline_of: dict[K, float]) -> _Moments[K]:
        moments: _Moments[K] = {}
        for key in self._seconds[second]:
            moments.setdefault(round(deadline_of[key] * 1000), set()).add(key)  # type: ignore
        self._seconds[second] = moments
        return moments

    def _all(self, second: int) -> list[set[K]]:
        bucket = self._seconds[second]
        return list(bucket.values()) if type(bucket) is dict else [bucket]  # type: ignore[list-item]

    def _begun(self, now: float = math.inf) -> Iterator[int]:
        """Yield the seconds up to `now` that have a bucket, the earliest first.

        Whoever stops early has paid for the first of them only.
        """
        self.earliest()  # what has been emptied leaves the top of the heap
        order, last = self._order, None
        to_see = [(second, 0) for second in order[:1]]
        while to_see and to_see[0][0] <= now:
            second, place = heapq.heappop(to_see)
            for below in range(2 * place + 1, min(2 * place + 3, len(order))):
                heapq.heappush(to_see, (order[below], below))
            if second != last and second in self._seconds:
                last = second
                yield second

    def check(self, deadline_of: dict[K, float]) -> None:
        """Raise AssertionError unless each of these deadlines waits where it will be found."""
        waiting: dict[K, int] = {}
        for second, bucket in self._seconds.items():
            assert bucket, "an empty second is kept"
            for moment, keys in (
                bucket.items() if isinstance(bucket, dict) else [(second * 1000, bucket)]
            ):
                assert keys, "an empty millisecond is kept"
                assert moment // 1000 == second
                for key in keys:
                    assert key not in waiting, "a key waits in two places"
                    waiting[key] = moment if isinstance(bucket, dict) else second
        assert waiting.keys() == deadline_of.keys(), "a deadline waits nowhere"
        for key, place in waiting.items():
            deadline = round(deadline_of[key] * 1000)
            assert place in (deadline, deadline // 1000), "a key in a wrong place"
        assert set(self._order) >= self._seconds.keys(), "a second that would never be looked at"


def _due(moments: _Moments[K], now: int) -> list[set[K]]:
    return [moments[moment] for moment in sorted(moments) if moment <= now]
