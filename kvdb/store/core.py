"""The heart of the store: the one write, the one removal, and who makes room for them."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Final

from kvdb.errors import OutOfMemory
from kvdb.store.budget import Budget, EvictionPolicy
from kvdb.store.entry import NOTE_COST, Key, has_come, milliseconds
from kvdb.store.feed import Cause, Change, Flush, Swap
from kvdb.store.keyspace import Keyspace, swap_databases
from kvdb.store.steps import Steps
from kvdb.store.versions import Versions

_SLICE: Final = 1_000  # keys expired, or evicted after the fact, under one hold of the lock

# What every change asks for: an attribute of an Enum takes 50 ns in Python 3.11, and a
# NamedTuple that is made this way takes 90 ns, not 160.
_SET, _DEADLINE = Cause.SET, Cause.DEADLINE
_EXPIRED, _EVICTED = Cause.EXPIRED, Cause.EVICTED
_new_tuple = tuple.__new__


class Core(Steps):
    """Keyspace, budget and versions, and the only methods that change them together.

    Counters (`hits`, `evicted_keys`, ...) are written under the lock; a reader without it may
    see them a moment old.
    """

    def __init__(self, max_bytes: int, *, clock: Callable[[], float] = time.time) -> None:
        """Make an empty store. `max_bytes` 0 means no limit; `clock` returns Unix seconds."""
        super().__init__(clock)
        self._space = Keyspace()
        self._versions = Versions(clock())
        self._budget = Budget(max_bytes, self._space, self._versions, self._remove_locked)
        self.expires = True
        """Whether keys go when their time has come. Not where another server says what is here: it
        will say that, too; and until it does, it may give the key more time."""
        self.hides_due = True
        """Where they do not go: whether readers are told that they have."""
        self._reaper_wakes_at = math.inf
        self.on_earlier_deadline: Callable[[], None] = lambda: None
        """Called, under the lock, when the reaper has to wake up earlier than it was told."""

        self.changes = 0  # since the start: writes, deletions, expiries, evictions
        self.hits = 0
        self.misses = 0
        self.expired_keys = 0
        self.found_expired = 0  # of these, what a request found when its time had come
        self.evicted_keys = 0
        self.stored_entries = 0  # how often an entry was written

    # --- every change of an entry ends in one of these ------------------------------------

    def _write_locked(
        self,
        key: Key,
        value: bytes,
        expires_at: float | None = None,
        client_flags: int = 0,
        now: float | None = None,
        cause: Cause = _SET,
        fits: bool = False,
        keep_version: bool = False,
    ) -> None:
        """Write an entry and make room for it, and record that.

        A deadline that has passed by `now` deletes the key. `fits`: nobody has to make room.
        """
        if expires_at is not None:
            if now is None:
                now = self._now_locked()
            if expires_at <= now and self.expires:  # has_come(), without a call
                if key in self._space.table:
                    self._remove_locked(key, Cause.DELETED)
                return
            if expires_at < self._reaper_wakes_at:
                self._reaper_wakes_at = expires_at
                self.on_earlier_deadline()
        space, versions = self._space, self._versions
        most = sys.maxsize if fits else self._budget.limit
        if not versions.idle:
            most -= NOTE_COST * len(versions.notes)
        if not space.put(key, value, expires_at, client_flags, most, not self._untouched):
            cost = Keyspace.cost_of(key, value, expires_at, client_flags)
            self._make_room_locked({key: cost}, now)
            space.put(key, value, expires_at, client_flags, touch=not self._untouched)
        self.changes += 1
        if cause is not _DEADLINE:
            self.stored_entries += 1
        if not (versions.idle or keep_version):
            versions.detach(key)
        if self._feed.listeners:
            if expires_at is not None:
                expires_at = space.expires_at[key]  # in whole milliseconds
            fact = _new_tuple(Change, (key, value, expires_at, client_flags, cause))
            self._feed.facts.append(fact)

    def _remove_locked(self, key: Key, cause: Cause) -> None:
        """Take an existing entry out, and record that it is gone."""
        self._space.remove(key)
        self.changes += 1
        if cause is _EXPIRED:
            self.expired_keys += 1
        elif cause is _EVICTED:
            self.evicted_keys += 1
        if not self._versions.idle:
            self._versions.detach(key)
        if self._feed.listeners:
            self._feed.facts.append(Change(key, None, cause=cause))

    def _flush_locked(self, db: int | None, cause: Cause) -> None:
        """Take out every entry of a database, or of all: one fact, however many they are."""
        space = self._space
        if db is None or space.key_counts[db] == len(space):
            self.changes += len(space)
            self._versions.detach_existing()
            self._garbage += space.clear()
        else:
            for key in space.keys(db):
                space.remove(key)
                self.changes += 1
                self._versions.detach(key)
        if self._feed.listeners:
            self._feed.facts.append(Flush(db, cause))

    def _swap_locked(self, first: int, second: int) -> None:
        """Have all keys of two databases change places: one fact, however many they are."""
        space = self._space
        self.changes += max(1, space.key_counts[first] + space.key_counts[second])
        self._garbage += swap_databases(space, first, second)
        if not self._versions.idle:
            self._versions.detach_databases({first, second}, space.table.__contains__)
        if self._feed.listeners:
            self._feed.facts.append(Swap(first, second))

    # --- expiry --------------------------------------------------------------------------

    def _expire_if_due_locked(self, key: Key, now: float | None = None) -> bool:
        """Take the key out if its deadline has come; the one place where a key's is looked at.

        Tells whether it is gone, or has to be taken for that.
        """
        expires_at = self._space.expires_at.get(key)
        if expires_at is None or not has_come(
            expires_at, self._now_locked() if now is None else now
        ):
            return False
        if not self.expires:
            return self.hides_due
        self.found_expired += 1
        self._remove_locked(key, Cause.EXPIRED)
        return True

    def _exists_locked(self, key: Key) -> bool:
        if key in self._space.expires_at and self._expire_if_due_locked(key):
            self._publish_locked()
            return False
        return self._space.table.get(key) is not None

    def expire_due(self, limit: int = _SLICE) -> bool:
        """Delete up to `limit` keys whose time has come; tell whether more are due."""
        with self._step:
            due = self._space.find_due(milliseconds(self._now_locked()), limit)
            for key in due:
                self._remove_locked(key, Cause.EXPIRED)
            return len(due) == limit

    def seconds_to_next_deadline(self) -> float | None:
        """Return how long nothing will expire, or None if nothing ever will.

        From then on `on_earlier_deadline` is called when that answer becomes too long.
        """
        with self._lock:
            earliest = self._space.earliest_deadline()
            self._reaper_wakes_at = math.inf if earliest is None else earliest
            return None if earliest is None else max(0.0, earliest - self._clock())

    # --- the budget ----------------------------------------------------------------------

    def _make_room_locked(self, costs: Mapping[Key, int], now: float | None = None) -> None:
        """See Budget.make_room(); what has gone is told even if that was not enough."""
        try:
            self._budget.make_room(costs, self._now_locked() if now is None else now)
        except OutOfMemory:
            self._publish_locked()
            raise

    @property
    def max_bytes(self) -> int:
        """The byte budget; 0 means no limit."""
        return 0 if self._budget.max_bytes == sys.maxsize else self._budget.max_bytes

    @max_bytes.setter
    def max_bytes(self, max_bytes: int) -> None:
        """Change the budget; evicts at once what no longer fits, as far as the policy allows."""
        with self._lock:
            self._budget.max_bytes = max_bytes or sys.maxsize
        self._shrink()

    def allow(self, allowance: int) -> None:
        """Keep the entries to so many bytes for now, if that is less than the budget.

        An entry that fits into the budget is stored all the same.
        """
        with self._lock:
            self._budget.allowance = allowance
        self._shrink()

    @property
    def policy(self) -> EvictionPolicy:
        """Who has to go when the budget is used up."""
        return self._budget.policy

    @policy.setter
    def policy(self, policy: EvictionPolicy) -> None:
        with self._lock:
            self._budget.policy = policy
            self._space.order_deadlines(policy is EvictionPolicy.VOLATILE_LRU)
        self._shrink()

    @property
    def is_full(self) -> bool:
        """Whether not even the smallest new entry fits, and nothing may be evicted for it."""
        with self._lock:
            return self._budget.is_full(self._now_locked)

    def _shrink(self) -> None:
        """Keep to the budget as it is now, in slices: the lock is free between them."""
        done = False
        while not done:
            with self._step:
                done = self._budget.shrink(_SLICE)
            time.sleep(0)

    # --- who wants to know more than the change feed tells -----------------------------------

    def set_noticers(
        self, on_miss: Callable[[Key], None] | None, on_new: Callable[[Key], None] | None
    ) -> None:
        """Have these told, under the lock, of keys that readers do not find, and of new keys.

        Of a new key, right before its fact is added to those of the step under way.
        """
        with self._lock:
            self._feed.on_miss, self._space.on_new = on_miss, on_new

    def check(self) -> None:
        """Recount everything that is kept as a running figure; AssertionError where it differs."""
        with self._lock:
            super().check()
            self._space.check()
            self._versions.check(set(self._space.table))
            self._budget.check()
