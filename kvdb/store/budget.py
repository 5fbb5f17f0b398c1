"""The budget: how many bytes entries may take, and who has to go when they would take more."""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Final

from kvdb.errors import EntryTooLarge, OutOfMemory
from kvdb.store.entry import MOST_BESIDE, NOTE_COST, Key, entry_cost, milliseconds
from kvdb.store.feed import Cause
from kvdb.store.keyspace import Keyspace
from kvdb.store.versions import Versions
from kvdb.store.victims import RandomVictims

_EVICTED: Final = Cause.EVICTED  # an attribute of an Enum takes 50 ns in Python 3.11

_MOST_RECLAIMED: Final = 1_000  # keys that have expired, taken out for one write


class EvictionPolicy(enum.Enum):
    """Who has to go when the budget is used up, under Redis's names."""

    ALLKEYS_LRU = "allkeys-lru"
    ALLKEYS_RANDOM = "allkeys-random"
    VOLATILE_LRU = "volatile-lru"  # of keys with a deadline only; the next two as well
    VOLATILE_RANDOM = "volatile-random"
    VOLATILE_TTL = "volatile-ttl"  # the one with the earliest deadline
    NOEVICTION = "noeviction"


_ANY_KEY: Final = (EvictionPolicy.ALLKEYS_LRU, EvictionPolicy.ALLKEYS_RANDOM)
_ALLKEYS_LRU: Final = EvictionPolicy.ALLKEYS_LRU  # as above
_RANDOM: Final = (EvictionPolicy.ALLKEYS_RANDOM, EvictionPolicy.VOLATILE_RANDOM)


class Budget:
    """The byte limit, and the choice of those that have to go.

    It is told the moment, and removes nothing itself: `remove(key, cause)` does that, and
    records it. Not thread-safe: the store's lock guards it.
    """

    def __init__(
        self,
        max_bytes: int,
        space: Keyspace,
        versions: Versions,
        remove: Callable[[Key, Cause], None],
    ) -> None:
        """`max_bytes` 0 means no limit."""
        self._space, self._versions, self._remove = space, versions, remove
        self._policy = EvictionPolicy.ALLKEYS_LRU
        self._random: RandomVictims | None = None  # where the policy asks for it
        self.evicts_any = True
        """Whether every key may have to go."""
        self.max_bytes = max_bytes or sys.maxsize
        self.allowance = sys.maxsize
        """What the fragmentation of memory leaves to the entries."""
        self.limit = self.max_bytes
        """What writes have to keep to: the lower of the two, or more while shrink() is under way."""
        self.reclaimed_keys = 0
        """How many had expired and went because a write needed their memory."""

    @property
    def policy(self) -> EvictionPolicy:
        """Who has to go."""
        return self._policy

    @policy.setter
    def policy(self, policy: EvictionPolicy) -> None:
        self._policy = policy
        self.evicts_any = policy in _ANY_KEY
        volatile = policy is EvictionPolicy.VOLATILE_RANDOM
        self._random = RandomVictims(self._space, volatile) if policy in _RANDOM else None

    def used(self) -> int:
        """Return what all entries cost, with their deadlines, flags and notes."""
        return self._space.used + NOTE_COST * len(self._versions.notes)

    def cost(self, key: Key) -> int:
        """Return what would be free if the key were gone."""
        return self._space.cost(key) + NOTE_COST * (key in self._versions.notes)

    def refuse_too_large(self, cost: int) -> None:
        """Raise EntryTooLarge if so many bytes would not fit into an empty store."""
        if cost > self.max_bytes:
            raise EntryTooLarge(cost, self.max_bytes)

    def surely_fit(self, values: Mapping[Key, bytes | None]) -> bool:
        """Tell, in a third of the time of counting, whether all of it fits beside what is there."""
        names = sum(len(key if isinstance(key, bytes) else key[1]) for key in values)
        most = names + sum(map(len, filter(None, values.values()))) + len(values) * MOST_BESIDE
        return self.used() + most <= self.limit

    def make_room(self, costs: Mapping[Key, int], now: float) -> None:
        """Evict until each of these keys can have an entry of this cost (0: it is deleted).

        Raises EntryTooLarge before anything is evicted, and OutOfMemory if what may be evicted
        is not enough.
        """
        total = sum(costs.values())
        self.refuse_too_large(total)
        if self.used() + total <= self.limit:
            return
        # What has expired goes before what has not.
        if self._space.expires_at:
            for key in self._space.find_due(milliseconds(now), _MOST_RECLAIMED):
                self.reclaimed_keys += 1
                self._remove(key, Cause.EXPIRED)
        needed = total - sum(map(self.cost, costs))
        if needed <= 0 or self.evict(needed, costs):
            return
        # What fits into the budget is stored beyond an allowance, if anything may be evicted.
        if total <= self.limit or not self.evicts_any:
            raise OutOfMemory

    def is_full(self, clock: Callable[[], float]) -> bool:
        """Tell whether not even the smallest new entry fits, and nothing may be evicted for it."""
        space = self._space
        if self.used() + entry_cost(b"", b"") <= self.limit:
            return False
        if self._policy is not EvictionPolicy.NOEVICTION and (self.evicts_any or space.expires_at):
            return False
        return not space.find_due(milliseconds(clock()), 1)  # what has expired goes anyway

    def evict(self, needed: int, keep: Collection[Key], most: int = sys.maxsize) -> bool:
        """Evict up to `most` keys, `keep` excepted, until `needed` more bytes fit.

        Returns False if they still do not fit.
        """
        allowed = self.limit - needed
        if self.used() <= allowed:
            return True
        take = self._random.take if self._random else None
        if self._policy is _ALLKEYS_LRU:
            take = self._space.table.oldest
        if take is not None:
            # Nearly always the first of them may go, and then no list has to be made first.
            while most > 0:
                key = take()
                if key is None or key in keep:
                    break
                self._remove(key, _EVICTED)
                most -= 1
                if self.used() <= allowed:
                    return True
            if not most:
                return False
        excess = self.used() - allowed
        victims: list[Key] = []
        for key in self._candidates():
            if excess <= 0 or len(victims) >= most:
                break
            if key not in keep:
                victims.append(key)
                excess -= self.cost(key)
        for key in victims:
            self._remove(key, _EVICTED)
        return excess <= 0

    def _candidates(self) -> Iterable[Key]:
        """Return the keys that may have to go, in the order in which they would."""
        if self._random is not None:
            return self._random.everything()
        match self._policy:
            case EvictionPolicy.NOEVICTION:
                return ()
            case EvictionPolicy.VOLATILE_TTL:
                return self._space.soonest_first()
            case EvictionPolicy.VOLATILE_LRU:
                return self._space.expires_at
            case _:
                return self._space.table

    def shrink(self, most: int) -> bool:
        """Evict up to `most` keys that budget and allowance leave no room for.

        Returns whether that is done, as far as it can be. Until then what is in use counts as
        the limit, so that no single write has to evict all the rest at once.
        """
        before, self.limit = self.used(), min(self.max_bytes, self.allowance)
        done = self.evict(0, (), most) or self.used() == before
        if not done:
            self.limit = self.used()
        return done

    def check(self) -> None:
        """Raise AssertionError if entries take more than they may."""
        # An allowance gives way to what fits into the budget, and notes to the next write.
        over = self._space.used - max(self.limit, self.max_bytes)
        # A lone entry may exceed the budget by a deadline that it got later.
        strict = self.evicts_any and len(self._space) > 1
        assert over <= 0 or not strict, over
