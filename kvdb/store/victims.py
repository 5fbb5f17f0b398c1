"""Keys at random, for the eviction policies that ask for no more than that."""

from __future__ import annotations

import random
from collections.abc import Collection
from itertools import islice
from typing import Final

from kvdb.store.entry import Key
from kvdb.store.keyspace import Keyspace

_DRAWN_TOGETHER: Final = 1_000  # keys, at most: it takes about a millisecond
_SHARE: Final = 100  # of all keys, one in so many is drawn
_TRIES: Final = 20  # to find keys with a deadline among all


class RandomVictims:
    """Draws keys, each of them as likely as any other. Not thread-safe: as the keyspace.

    A table gives up its n-th key only by a walk along those before it. So some are drawn in one
    walk, and wait here for their turn; those that have gone meanwhile are passed over.
    """

    def __init__(self, space: Keyspace, volatile: bool) -> None:
        """`volatile`: only keys with a deadline."""
        self._space, self._volatile = space, volatile
        self._drawn: list[Key] = []

    def take(self) -> Key | None:
        """Return some key, or None if there is none to be had."""
        there = self._space.expires_at if self._volatile else self._space.table
        while True:
            while self._drawn:
                key = self._drawn.pop()
                if key in there:
                    return key
            if not there:
                return None
            self._draw()

    def everything(self) -> list[Key]:
        """Return all keys that may be drawn, in a random order."""
        space = self._space
        keys = list(space.expires_at) if self._volatile else space.table.all_keys()
        random.shuffle(keys)
        return keys

    def _draw(self) -> None:
        table, expires_at = self._space.table, self._space.expires_at
        segments = table.segments()
        # Where most keys have no deadline, those that have one are the shorter way.
        if not self._volatile or len(expires_at) * 8 > len(table):
            weights = [len(segment) for segment in segments]
            for _ in range(_TRIES):
                (segment,) = random.choices(segments, weights)
                drawn = _sample(segment)
                self._drawn = [k for k in drawn if k in expires_at] if self._volatile else drawn
                if self._drawn:
                    return
        self._drawn = _sample(expires_at)


def _sample(keys: Collection[Key]) -> list[Key]:
    """Return some of the keys at random, in a random order."""
    count = min(_DRAWN_TOGETHER, -(-len(keys) // _SHARE))
    # As dict.keys(), for an OrderedDict follows a linked list instead.
    rest = iter(dict.keys(keys) if isinstance(keys, dict) else keys)
    drawn, passed = [], 0
    for place in sorted(random.sample(range(len(keys)), count)):
        drawn.append(next(islice(rest, place - passed, None)))
        passed = place + 1
    random.shuffle(drawn)
    return drawn
