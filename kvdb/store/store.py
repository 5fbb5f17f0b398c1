"""The store: keys and values within a byte budget; the least recently used is evicted first.

One lock (`Store._lock`) guards everything in here. It is re-entrant, so that `atomic()` can
make one step of several operations. Nothing does I/O, logs or waits while holding it, and no
other lock is taken under it, except for a moment by the two hooks that say so:
`add_listener()` and `on_earlier_deadline`.
"""

from __future__ import annotations

import math
import random
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from itertools import islice
from typing import Final, NamedTuple

from kvdb.errors import CommandError, EntryTooLarge, OutOfMemory
from kvdb.store.deadlines import Deadlines
from kvdb.store.entry import (
    CLIENT_FLAGS_COST,
    DATABASES,
    DEADLINE_COST,
    VERSION_COST,
    Change,
    Entry,
    EvictionPolicy,
    Flush,
    Key,
    Listener,
    entry_cost,
    split_key,
)
from kvdb.store.recency import RecencyTable
from kvdb.store.scans import Scans
from kvdb.store.versions import Versions

_FREEING_SLICE: Final = 500  # entries freed at a time after a flush: well under a millisecond
_MOST_SCANNED: Final = 10_000  # keys looked at under one hold of the lock
_EXPIRY_SLICE: Final = 200  # keys expired, or evicted after the fact, under one hold of the lock


class Dump(NamedTuple):
    """A consistent copy of the store at one moment; keys and values correspond by position."""

    keys: list[Key]
    values: list[bytes]
    expires_at: dict[Key, float]
    client_flags: dict[Key, int]
    changes: int  # Store.changes at that moment


def _side_cost(expires_at: float | None, client_flags: int) -> int:
    """Return what an entry costs beside its key and value."""
    return DEADLINE_COST * (expires_at is not None) + CLIENT_FLAGS_COST * bool(client_flags)


class _AtomicStep(AbstractContextManager[None]):
    """What Store.atomic() returns: one object for all steps, because the lock is re-entrant."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> None:
        self._store._lock.acquire()
        self._store._depth += 1

    def __exit__(self, *error: object) -> None:
        store = self._store
        try:
            store._depth -= 1
            store._publish_locked()
        finally:
            free = store._garbage and not store._depth
            store._lock.release()
        if free:
            store._free_garbage()


class Store:
    """Keys and values within `max_bytes`; exact LRU; expiry to the clock's resolution.

    Thread-safe: public methods take self._lock; a method ending in _locked expects its
    caller to hold it. Counters (`hits`, `evicted_keys`, ...) are written under the lock;
    a reader without it may see them a moment old.
    """

    def __init__(self, max_bytes: int, *, clock: Callable[[], float] = time.time) -> None:
        """Make an empty store. `max_bytes` 0 means no limit; `clock` returns Unix seconds."""
        self._lock = threading.RLock()
        self._clock = clock
        self._max_bytes = max_bytes or sys.maxsize
        self._allowance = sys.maxsize  # what the process can afford now: see allow()
        self._limit = self._max_bytes  # what writes have to keep to: see _come_down()
        self._policy = EvictionPolicy.ALLKEYS_LRU
        self._entries = RecencyTable()
        self._entry_bytes = 0  # sum of entry_cost() over self._entries
        self._deadlines: Deadlines[Key] = Deadlines()
        self._expires_at = self._deadlines.expires_at  # the same dict, one look-up nearer
        self._client_flags: dict[Key, int] = {}  # only those that are not 0
        self._key_counts = [0] * DATABASES
        self._deadline_counts = [0] * DATABASES
        self._versions = Versions()
        self._listeners: tuple[Listener, ...] = ()
        self._pending: list[Change | Flush] = []  # facts of the atomic step under way
        self._depth = 0  # how many atomic() blocks are open
        self._step = _AtomicStep(self)
        self._touching = True
        self._garbage: list[OrderedDict[Key, bytes]] = []  # flushed, waiting to be freed
        self._scans = Scans()
        self._insertions = 0  # how often a key has come into being
        self._flush_at: float | None = None
        self._reaper_wakes_at = math.inf
        self.on_earlier_deadline: Callable[[], None] = lambda: None
        """Called, under the lock, when the reaper has to wake up earlier than it was told."""

        self.changes = 0  # since the start: writes, deletions, expiries, evictions
        self.hits = 0
        self.misses = 0
        self.expired_keys = 0
        self.evicted_keys = 0

    # --- reading -------------------------------------------------------------------------

    def get(self, key: Key) -> bytes | None:
        """Return the value; counts as use, and as a hit or a miss."""
        with self._lock:
            young = self._entries.young
            value = young.get(key)
            if value is not None and self._touching and key not in self._expires_at:
                young.move_to_end(key)  # the most frequent case, without any further call
            else:
                value = self._live_value_locked(key)
                if value is None:
                    self.misses += 1
                    return None
                self._touch_locked(key)
            self.hits += 1
            return value

    def get_entry(self, key: Key) -> Entry | None:
        """As get(), but return all that is known of the key."""
        with self._lock:
            value = self.get(key)
            return None if value is None else self._entry_locked(key, value)

    def get_many(self, keys: Iterable[Key]) -> list[bytes | None]:
        """Return the values of all these keys as they are at one moment; counts as use of them."""
        with self._lock:
            if not self._touching:
                return [self.get(key) for key in keys]
            young, expires_at = self._entries.young, self._expires_at
            values: list[bytes | None] = []
            hits = 0
            for key in keys:  # as get(), which each of them would have to call
                value = young.get(key)
                if value is None or key in expires_at:
                    value = self.get(key)
                    young = self._entries.young
                else:
                    young.move_to_end(key)
                    hits += 1
                values.append(value)
            self.hits += hits
            return values

    def entry(self, key: Key) -> Entry | None:
        """Return all that is known of a key. Does not count as use."""
        with self._lock:
            value = self._live_value_locked(key)
            return None if value is None else self._entry_locked(key, value)

    def exists(self, key: Key) -> bool:
        """Tell whether the key is there. Does not count as use."""
        with self._lock:
            return self._live_value_locked(key) is not None

    def cost(self, key: Key) -> int | None:
        """Return what a key costs of the budget, all in all; None if there is no such key."""
        with self._lock:
            return self._cost_locked(key) if self.exists(key) else None

    def touch(self, key: Key) -> bool:
        """Count as use of the key, whatever `without_touching()` says; tell whether it is there."""
        with self._lock:
            if self._live_value_locked(key) is None:
                return False
            self._move_to_young_end_locked(key)
            return True

    def size(self, db: int = 0) -> int:
        """Return the number of keys in a database."""
        self.expire_all_due()
        with self._lock:
            return self._key_counts[db]

    def sizes(self) -> dict[int, tuple[int, int, float]]:
        """Return keys, keys with a deadline and their mean seconds to live (of a sample of 20).

        Only databases that have keys are listed.
        """
        self.expire_all_due()
        with self._lock:
            now = self._clock()
            sizes = {}
            for db, keys in enumerate(self._key_counts):
                if keys:
                    expiring = self._deadline_counts[db]
                    deadlines = (
                        at for key, at in self._expires_at.items() if split_key(key)[0] == db
                    )
                    sample = list(islice(deadlines, min(20, expiring)))
                    mean = sum(sample) / len(sample) - now if sample else 0.0
                    sizes[db] = (keys, expiring, mean)
            return sizes

    def keys(self, db: int = 0) -> list[bytes]:
        """Return the names of all keys in a database."""
        self.expire_all_due()
        with self._lock:
            keys = self._list_keys_locked(db)
        return [split_key(key)[1] for key in keys]

    def random_key(self, db: int = 0) -> bytes | None:
        """Return the name of some key in a database, or None if it is empty."""
        self.expire_all_due()
        with self._lock:
            if not self._key_counts[db]:
                return None
            names = (
                name for key_db, name in map(split_key, self._entries.all_keys()) if key_db == db
            )
            return next(islice(names, random.randrange(self._key_counts[db]), None))

    def scan(self, cursor: int, count: int, db: int = 0) -> tuple[int, list[bytes]]:
        """Return the next cursor (0: the scan has ended) and up to `count` names of keys.

        A `count` above 10,000 counts as that, so that nobody else has to wait for long.

        Every key that is there from the first call to the last is returned exactly once,
        whatever is written meanwhile. Until the scan has ended, a call may be repeated.

        The keys are listed when the scan begins (measured: 5 ms for a million) and kept until
        it ends, because no place in a hash table or in the order of use stays put. Unfinished
        scans are forgotten, the oldest first, when there are very many.

        Raises CommandError if the cursor belongs to no scan that we remember.
        """
        if cursor == 0:
            self.expire_all_due()
        with self._lock:
            if cursor == 0:
                cursor = self._scans.begin(db, self._insertions, self._list_keys_locked)
            next_cursor, keys = self._scans.continue_(cursor, min(count, _MOST_SCANNED), db)
            live = [key for key in keys if self._live_value_locked(key) is not None]
            return next_cursor, [split_key(key)[1] for key in live]

    def dump(self) -> Dump:
        """Return a consistent copy of everything, for a snapshot.

        The lock is held for that long: 12 ms for a million keys.
        """
        self.expire_all_due()
        with self._lock:
            return Dump(
                self._entries.all_keys(),
                self._entries.all_values(),
                dict(self._expires_at),
                dict(self._client_flags),
                self.changes,
            )

    # --- writing -------------------------------------------------------------------------

    def set(
        self, key: Key, value: bytes, *, expires_at: float | None = None, client_flags: int = 0
    ) -> None:
        """Store the value with this deadline, or with none; counts as use.

        Raises EntryTooLarge if it alone exceeds the budget (nothing is evicted for it), and
        OutOfMemory if the eviction policy forbids making room.
        """
        with self._lock:
            if expires_at is None and not client_flags and self._put_plainly_locked(key, value):
                return
            side_cost = _side_cost(expires_at, client_flags)
            if self._used_bytes_locked() + entry_cost(key, value) + side_cost > self._limit:
                self._make_room_locked({key: value}, side_cost)
            self._put_locked(key, value, expires_at, client_flags)
            self._publish_locked()

    def set_each(self, keys: Iterable[Key], values: Iterable[bytes]) -> list[CommandError | None]:
        """As set() for one pair after the other, but return what it raises, or None, for each."""
        errors: list[CommandError | None] = []
        with self._lock:
            plain = self._writes_are_plain_locked()
            for key, value in zip(keys, values, strict=True):
                error = None
                if not (plain and self._put_alike_locked(key, value)):
                    try:
                        self.set(key, value)
                    except CommandError as raised:
                        error = raised
                errors.append(error)
        return errors

    def write_many(self, values: Mapping[Key, bytes | None]) -> None:
        """Store all these values without a deadline, and delete the keys that come with None.

        If they do not fit into the budget, nothing is done: raises as set() does.
        """
        with self._lock:
            if self._write_plainly_locked(values):
                return
            for key in values:
                self._live_value_locked(key)  # what has expired is a step of its own
            self._make_room_locked(values)
            for key, value in values.items():
                if value is not None:
                    self._put_locked(key, value, None, 0)
                elif key in self._entries:
                    self._remove_locked(key)
            self._publish_locked()

    def update_each(
        self, keys: Iterable[Key], change: Callable[[bytes | None], bytes]
    ) -> list[bytes | CommandError]:
        """As update() for one key after the other, but return what it raises in its place."""
        values: list[bytes | CommandError] = []
        with self._lock:
            plain, expires_at = self._writes_are_plain_locked(), self._expires_at
            for key in keys:
                young = self._entries.young
                try:
                    old = young.get(key) if plain and key not in expires_at else None
                    if old is not None and len(value := change(old)) == len(old):
                        young[key] = value  # as _put_alike_locked() would, without its look-ups
                        young.move_to_end(key)
                        self.changes += 1
                    else:
                        value = self.update(key, change)
                    values.append(value)
                except CommandError as error:
                    values.append(error)
        return values

    def update(self, key: Key, change: Callable[[bytes | None], bytes]) -> bytes:
        """Replace the value by change(value or None) in one step; deadline and flags stay.

        `change` runs under the lock: it must be short and without side effects. What it
        raises is passed on, and nothing is changed.
        """
        with self._lock:
            old = self._entries.get(key)
            if old is not None and key in self._expires_at:
                old = self._live_value_locked(key)
            value = change(old)
            if self._put_plainly_locked(key, value):
                return value
            expires_at, client_flags = self._expires_at.get(key), self._client_flags.get(key, 0)
            self._make_room_locked({key: value}, _side_cost(expires_at, client_flags))
            self._put_locked(key, value, expires_at, client_flags)
            self._publish_locked()
            return value

    def delete(self, *keys: Key) -> int:
        """Delete the keys; return how many of them were there."""
        with self._lock:
            live = [key for key in dict.fromkeys(keys) if self._live_value_locked(key) is not None]
            for key in live:
                self._remove_locked(key)
            self._publish_locked()
            return len(live)

    def rename(self, source: Key, destination: Key) -> bool:
        """Give an entry another key, in place of what that one held; tell whether there was one.

        Deadline and flags come along. Raises EntryTooLarge if the new key makes the entry so.
        """
        with self._lock:
            value = self._live_value_locked(source)
            if value is None:
                return False
            entry = self._entry_locked(source, value)
            cost = entry_cost(destination, value) + _side_cost(*entry[1:])
            if cost > self._max_bytes:
                raise EntryTooLarge(cost, self._max_bytes)
            if source != destination:
                self._remove_locked(source)
                self._put_locked(destination, *entry)
                self._evict_locked(0, (destination,))
            self._publish_locked()
            return True

    def set_deadline(
        self, key: Key, expires_at: float | None, *, keep_version: bool = False
    ) -> bool:
        """Give the key a deadline or, with None, take it away; tell whether the key is there.

        A deadline that has passed deletes the key, as in Redis. With `keep_version` the key's
        version and note stay, as memcached has it: its touch changes no cas token.
        """
        with self._lock:
            value = self._live_value_locked(key)
            if value is None:
                return False
            if expires_at is not None and expires_at <= self._clock():
                self._remove_locked(key)
            else:
                self._touch_locked(key)
                self._put_deadline_locked(key, expires_at)
                self._changed_locked(key, keep_version)
                self._evict_locked(0, (key,))
            self._publish_locked()
            return True

    def flush(self, db: int | None = None) -> None:
        """Delete every key of one database, or of all.

        All others go on while the memory of everything is freed; beside other databases, one
        database is emptied key by key under the lock.
        """
        with self.atomic():
            if db is None or self._key_counts[db] == len(self._entries):
                self._flush_everything_locked()
            else:
                for key in self._list_keys_locked(db):
                    self._forget_locked(key)
            if self._listeners:
                self._pending.append(Flush(db))

    def flush_later(self, flush_at: float | None) -> None:
        """Have the reaper flush database 0 at a moment (Unix seconds), in place of any earlier plan.

        None gives the plan up. This is memcached's flush_all with a delay.
        """
        with self._lock:
            self._flush_at = flush_at
            if flush_at is not None and flush_at < self._reaper_wakes_at:
                self._reaper_wakes_at = flush_at
                self.on_earlier_deadline()

    def restore(self, entries: Iterable[tuple[Key, Entry]]) -> int:
        """Put back entries that were saved, before anybody is served or listens.

        Entries that have expired meanwhile are left out. Over budget, the first go; an entry
        larger than the whole budget is left out, too. Returns how many did not fit.
        """
        now = self._clock()
        too_large = 0
        with self._lock:
            room = 0  # bytes that are certainly free
            for key, (value, expires_at, client_flags) in entries:
                if expires_at is not None and expires_at <= now:
                    continue
                plain = expires_at is None and not client_flags
                side_cost = 0 if plain else _side_cost(expires_at, client_flags)
                cost = entry_cost(key, value) + side_cost
                if cost > room:
                    try:
                        self._make_room_locked({key: value}, side_cost)
                    except EntryTooLarge:
                        too_large += 1
                        continue
                    room = self._limit - self._used_bytes_locked()
                room -= cost
                if plain and key not in self._entries:
                    # As _put_locked() would do; its calls are a third of the time of loading.
                    self._entries.add(key, value)
                    self._entry_bytes += cost
                    self._key_counts[split_key(key)[0]] += 1
                    self._insertions += 1
                else:
                    self._put_locked(key, value, expires_at, client_flags)
            did_not_fit, self.evicted_keys = self.evicted_keys + too_large, 0
            self.changes = 0
        return did_not_fit

    def put_back(self, entries: Iterable[tuple[Key, Entry | None]]) -> None:
        """Have these keys hold what they held before (None: nothing), without asking for room."""
        with self._lock:
            for key, entry in entries:
                if entry is not None:
                    self._put_locked(key, entry.value, entry.expires_at, entry.client_flags)
                elif key in self._entries:
                    self._remove_locked(key)
            self._publish_locked()

    def atomic(self) -> AbstractContextManager[None]:
        """Hold the lock over several operations: one step for every reader and for the feed.

        There is no rollback: check everything before the first write.
        """
        return self._step

    @contextmanager
    def without_touching(self) -> Iterator[None]:
        """Within the block, reads and writes leave the order of use as it is (CLIENT NO-TOUCH)."""
        with self._lock:
            before, self._touching = self._touching, False
            try:
                yield
            finally:
                self._touching = before

    # --- versions ------------------------------------------------------------------------

    def watch(self, key: Key) -> int:
        """Return a token that `unchanged()` compares; any write to the key breaks it.

        Pair each call with one of `unwatch()`.
        """
        with self._lock:
            self._versions.add_watcher(key)
            return self.version(key)

    def unwatch(self, key: Key) -> None:
        """Take one `watch()` back."""
        with self._lock:
            self._versions.remove_watcher(key)

    def unchanged(self, key: Key, version: int) -> bool:
        """Tell whether nobody has written the key, and it has not expired, since `version`."""
        with self._lock:
            exists = self._live_value_locked(key) is not None  # an expiry is a write, too
            return self._versions.is_current(key, version, exists)

    def version(self, key: Key) -> int:
        """Return the key's version token: the same number until somebody writes the key.

        It is 0 for a key that does not exist and that nobody watches.
        """
        with self._lock:
            token = self._versions.token(key, self._live_value_locked(key) is not None)
            self._evict_locked(0, (key,))
            self._publish_locked()
            return token

    def note(self, key: Key) -> object:
        """Return what was last given to `set_note()`, if nobody has written the key since."""
        with self._lock:
            return self._versions.notes.get(key) if self.exists(key) else None

    def set_note(self, key: Key, note: object) -> None:
        """Attach something to the present version of an existing key; None takes it away.

        Whoever writes the key next detaches it. It is not saved.
        """
        with self._lock:
            if note is None:
                self._versions.notes.pop(key, None)
            elif self.exists(key):
                self._versions.set_note(key, note)
                self._evict_locked(0, (key,))
                self._publish_locked()

    # --- expiry, eviction, settings ------------------------------------------------------

    def expire_due(self, limit: int = _EXPIRY_SLICE) -> bool:
        """Delete up to about `limit` keys whose time has come; tell whether more are due."""
        with self._lock:
            now = self._clock()
            flush_now = self._flush_at is not None and self._flush_at <= now
            if flush_now:
                self._flush_at = None
        if flush_now:
            self.flush(0)
        with self._lock:
            self._expire_due_locked(now, limit)
            self._publish_locked()
            earliest = self._deadlines.earliest()
            return earliest is not None and earliest <= now

    def expire_all_due(self) -> None:
        """Delete every key whose time has come, letting go of the lock between slices."""
        while self.expire_due():
            time.sleep(0)

    def seconds_to_next_deadline(self) -> float | None:
        """Return how long nothing will expire, or None if nothing ever will.

        From then on `on_earlier_deadline` is called when that answer becomes too long.
        """
        with self._lock:
            earliest = self._deadlines.earliest()
            if self._flush_at is not None:
                earliest = self._flush_at if earliest is None else min(earliest, self._flush_at)
            self._reaper_wakes_at = math.inf if earliest is None else earliest
            return None if earliest is None else max(0.0, earliest - self._clock())

    @property
    def clock(self) -> Callable[[], float]:
        """The clock that deadlines are measured with, in Unix seconds."""
        return self._clock

    @property
    def max_bytes(self) -> int:
        """The byte budget; 0 means no limit."""
        return 0 if self._max_bytes == sys.maxsize else self._max_bytes

    @max_bytes.setter
    def max_bytes(self, max_bytes: int) -> None:
        """Change the budget; evicts at once what no longer fits, as far as the policy allows."""
        with self._lock:
            self._max_bytes = max_bytes or sys.maxsize
        self._come_down()

    def allow(self, allowance: int) -> None:
        """Keep the entries to so many bytes for now, if that is less than the budget.

        The process takes more than its entries: when that is too much, some of them have to go.
        An entry that fits into the budget is stored all the same.
        """
        with self._lock:
            self._allowance = allowance
        self._come_down()

    @property
    def policy(self) -> EvictionPolicy:
        """Who has to go when the budget is used up."""
        return self._policy

    @policy.setter
    def policy(self, policy: EvictionPolicy) -> None:
        with self._lock:
            self._policy = policy
            self._deadlines.keep_recency(policy is EvictionPolicy.VOLATILE_LRU)
            self._expires_at = self._deadlines.expires_at
            if isinstance(self._expires_at, OrderedDict):
                for key in self._entries:  # oldest first
                    if key in self._expires_at:
                        self._expires_at.move_to_end(key)
        self._come_down()

    @property
    def used_bytes(self) -> int:
        """What all entries cost, with their deadlines, flags and versions."""
        with self._lock:
            return self._used_bytes_locked()

    def add_listener(self, listener: Listener) -> None:
        """Have every change reported, in commit order, one call per atomic step.

        The listener is called under the lock: it may put the facts in a queue, nothing more.
        """
        with self._lock:
            self._listeners += (listener,)

    def remove_listener(self, listener: Listener) -> None:
        """Stop reporting to this listener."""
        with self._lock:
            self._listeners = tuple(each for each in self._listeners if each != listener)

    def reset_statistics(self) -> None:
        """Set hits, misses, expired and evicted keys back to 0 (CONFIG RESETSTAT)."""
        with self._lock:
            self.hits = self.misses = self.expired_keys = self.evicted_keys = 0

    def check(self) -> None:
        """Recount everything that is kept as a running figure; AssertionError where it differs."""
        with self._lock:
            entry_bytes = sum(map(entry_cost, self._entries.all_keys(), self._entries.all_values()))
            assert self._entry_bytes == entry_bytes, (self._entry_bytes, entry_bytes)
            self._entries.check()
            there = set(self._entries)
            self._deadlines.check()
            assert self._expires_at is self._deadlines.expires_at
            assert self._expires_at.keys() <= there, "a deadline without a key"
            assert self._client_flags.keys() <= there, "client flags without a key"
            assert all(self._client_flags.values()), "client flags of 0 are kept"
            for db in range(DATABASES):
                keys = sum(split_key(key)[0] == db for key in self._entries)
                expiring = sum(split_key(key)[0] == db for key in self._expires_at)
                assert self._key_counts[db] == keys, (db, self._key_counts[db], keys)
                assert self._deadline_counts[db] == expiring, (
                    db,
                    self._deadline_counts[db],
                    expiring,
                )
            self._versions.check(there)
            assert not self._pending, "facts were not published"
            assert self._depth == 0, "a step was left open"
            # An allowance gives way to what fits into the budget.
            over = self._used_bytes_locked() - max(self._limit, self._max_bytes)
            # A lone entry may exceed the budget by a deadline or a version that it got later.
            strict = self._policy is EvictionPolicy.ALLKEYS_LRU and len(self._entries) > 1
            assert over <= 0 or not strict, over

    # --- inside the lock -----------------------------------------------------------------

    def _live_value_locked(self, key: Key) -> bytes | None:
        """Return the value unless it has expired; the one place that decides so."""
        value = self._entries.get(key)
        if value is not None and key in self._expires_at and self._expires_at[key] <= self._clock():
            self._remove_locked(key)
            self.expired_keys += 1
            self._publish_locked()
            return None
        return value

    def _entry_locked(self, key: Key, value: bytes) -> Entry:
        return Entry(value, self._expires_at.get(key), self._client_flags.get(key, 0))

    def _list_keys_locked(self, db: int) -> list[Key]:
        if self._key_counts[db] == len(self._entries):
            return self._entries.all_keys()
        keys = self._entries.all_keys()
        return [key for key in keys if split_key(key)[0] == db]

    def _touch_locked(self, key: Key) -> None:
        if self._touching:
            self._move_to_young_end_locked(key)

    def _move_to_young_end_locked(self, key: Key) -> None:
        self._entries.touch(key)
        if self._policy is EvictionPolicy.VOLATILE_LRU and key in self._expires_at:
            self._expires_at.move_to_end(key)  # type: ignore[attr-defined]

    def _used_bytes_locked(self) -> int:
        return (
            self._entry_bytes
            + DEADLINE_COST * len(self._expires_at)
            + CLIENT_FLAGS_COST * len(self._client_flags)
            + VERSION_COST * len(self._versions)
        )

    def _make_room_locked(self, values: Mapping[Key, bytes | None], side_cost: int = 0) -> None:
        """Evict until these values (None: deleted) fit into the budget, each with this side cost.

        Raises before anything is evicted if they are too large for an empty store.
        """
        costs = {
            key: 0 if value is None else entry_cost(key, value) + side_cost
            for key, value in values.items()
        }
        total = sum(costs.values())
        if total > self._max_bytes:
            raise EntryTooLarge(total, self._max_bytes)
        if self._used_bytes_locked() + total <= self._limit:
            return
        if self._expires_at:  # what has expired goes before what has not
            self._expire_due_locked(self._clock(), _EXPIRY_SLICE)
        needed = sum(cost - self._cost_locked(key) for key, cost in costs.items())
        if needed <= 0 or self._evict_locked(needed, values):
            return
        self._publish_locked()
        if total <= self._limit or self._policy is not EvictionPolicy.ALLKEYS_LRU:
            raise OutOfMemory

    def _cost_locked(self, key: Key) -> int:
        """Return what would be free if the key were gone."""
        version = VERSION_COST * self._versions.kept_for(key)
        value = self._entries.get(key)
        if value is None:
            return version
        deadline = DEADLINE_COST * (key in self._expires_at)
        client_flags = CLIENT_FLAGS_COST * (key in self._client_flags)
        return entry_cost(key, value) + deadline + client_flags + version

    def _expire_due_locked(self, now: float, limit: int) -> None:
        for key in self._deadlines.take_due(now, limit):
            self._deadline_counts[split_key(key)[0]] -= 1
            self._remove_locked(key)
            self.expired_keys += 1

    def _come_down(self) -> None:
        """Have writes keep to budget and allowance; evict what no longer fits, step by step.

        Lets go of the lock in between. Until then what is in use counts as the limit, so that
        no single write has to evict all the rest at once.
        """
        done = False
        while not done:
            with self._lock:
                before, self._limit = self.evicted_keys, min(self._max_bytes, self._allowance)
                fits = self._evict_locked(0, (), limit=_EXPIRY_SLICE)
                done = fits or before == self.evicted_keys
                if not done:
                    self._limit = self._used_bytes_locked()
                self._publish_locked()
            time.sleep(0)

    def _evict_locked(self, needed: int, keep: Collection[Key], limit: int = sys.maxsize) -> bool:
        """Evict up to `limit` keys, `keep` excepted, until `needed` more bytes fit.

        Returns False if they still do not fit.
        """
        allowed = self._limit - needed
        if self._policy is EvictionPolicy.ALLKEYS_LRU:
            # Nearly always the oldest may go, and then no list has to be made first.
            while limit > 0 and self._used_bytes_locked() > allowed:
                oldest = self._entries.oldest()
                if oldest is None or oldest in keep:
                    break
                self._remove_locked(oldest)
                self.evicted_keys += 1
                limit -= 1
        excess = self._used_bytes_locked() - allowed
        victims: list[Key] = []
        for key in self._candidates_locked() if excess > 0 else ():
            if excess <= 0 or len(victims) == limit:
                break
            if key not in keep:
                victims.append(key)
                excess -= self._cost_locked(key)
        for key in victims:
            self._remove_locked(key)
        self.evicted_keys += len(victims)
        return excess <= 0

    def _candidates_locked(self) -> Iterable[Key]:
        """Return the keys that may have to go, in the order in which they would."""
        if self._policy is EvictionPolicy.NOEVICTION:
            return ()
        return self._expires_at if self._policy is EvictionPolicy.VOLATILE_LRU else self._entries

    def _put_locked(
        self, key: Key, value: bytes, expires_at: float | None, client_flags: int
    ) -> None:
        """Write an entry for which there is room."""
        old = self._entries.get(key)
        if old is None:
            self._entries.add(key, value)
            self._entry_bytes += entry_cost(key, value)
            self._key_counts[split_key(key)[0]] += 1
            self._insertions += 1
        else:
            self._entries.replace(key, value)
            self._entry_bytes += entry_cost(key, value) - entry_cost(key, old)
            self._touch_locked(key)
        if expires_at is not None or key in self._expires_at:
            self._put_deadline_locked(key, expires_at)
        if client_flags:
            self._client_flags[key] = client_flags
        elif self._client_flags:
            self._client_flags.pop(key, None)
        self._changed_locked(key)

    def _writes_are_plain_locked(self) -> bool:
        """Tell whether there is nobody to be told of a write, and nothing beside the table.

        Then the fast ways below do what _make_room_locked(), _put_locked() and
        _publish_locked() together would do.
        """
        return (
            not (self._listeners or self._client_flags) and self._versions.idle and self._touching
        )

    def _put_alike_locked(self, key: Key, value: bytes) -> bool:
        """Replace a value by one as long, if that takes no more than the table; tell whether."""
        young = self._entries.young
        old = young.get(key)
        if old is None or len(old) != len(value) or key in self._expires_at:
            return False
        young[key] = value
        young.move_to_end(key)
        self.changes += 1
        return True

    def _put_plainly_locked(self, key: Key, value: bytes) -> bool:
        """Write an entry without a deadline, if that takes no more than the table; tell whether."""
        if not self._writes_are_plain_locked() or key in self._expires_at:
            return False
        if self._put_alike_locked(key, value):
            return True
        old = self._entries.get(key)
        entry_bytes = self._entry_bytes + entry_cost(key, value)
        if old is not None:
            entry_bytes -= entry_cost(key, old)
        if entry_bytes + DEADLINE_COST * len(self._expires_at) > self._limit:
            return False
        self._entry_bytes = entry_bytes
        self.changes += 1
        if old is not None:
            self._entries.put(key, value)
        else:
            self._entries.add(key, value)
            self._key_counts[split_key(key)[0]] += 1
            self._insertions += 1
        return True

    def _write_plainly_locked(self, values: Mapping[Key, bytes | None]) -> bool:
        """Write all these entries, if that takes no more than the table; tell whether."""
        if not self._writes_are_plain_locked() or not self._expires_at.keys().isdisjoint(values):
            return False
        find, growth = self._entries.young.get, 0
        for key, value in values.items():
            if value is None:
                return False
            old = find(key)
            if old is None or len(old) != len(value):
                growth += entry_cost(key, value)
        if self._used_bytes_locked() + growth > self._limit:
            return False
        for key, value in values.items():
            assert value is not None
            if not self._put_alike_locked(key, value):
                self._put_plainly_locked(key, value)
        return True

    def _put_deadline_locked(self, key: Key, expires_at: float | None) -> None:
        db = split_key(key)[0]
        self._deadline_counts[db] -= key in self._expires_at
        if expires_at is None:
            self._deadlines.discard(key)
            return
        self._deadline_counts[db] += 1
        self._deadlines.set(key, expires_at)
        if expires_at < self._reaper_wakes_at:
            self._reaper_wakes_at = expires_at
            self.on_earlier_deadline()

    def _remove_locked(self, key: Key) -> None:
        """Take the entry out and record that it is gone."""
        self._forget_locked(key)
        if self._listeners:
            self._pending.append(Change(key, None))

    def _forget_locked(self, key: Key) -> None:
        self._entry_bytes -= entry_cost(key, self._entries.pop(key))
        self._key_counts[split_key(key)[0]] -= 1
        if key in self._expires_at:
            self._put_deadline_locked(key, None)
        if self._client_flags:
            self._client_flags.pop(key, None)
        self._versions.detach(key)
        self.changes += 1

    def _changed_locked(self, key: Key, keep_version: bool = False) -> None:
        """Record that the key has been written: break its version, tell the feed."""
        self.changes += 1
        if not keep_version:
            self._versions.detach(key)
        if self._listeners and (value := self._entries.get(key)) is not None:
            self._pending.append(Change(key, self._entry_locked(key, value)))

    def _publish_locked(self) -> None:
        """Hand the facts of a finished step to the listeners."""
        if self._pending and self._depth == 0:
            facts, self._pending = self._pending, []
            for listener in self._listeners:
                listener(facts)

    def _flush_everything_locked(self) -> None:
        """Start with new, empty tables; the old ones are freed later, without the lock."""
        self._versions.detach_existing()
        self.changes += len(self._entries)
        self._garbage += self._entries.segments()
        self._entries = RecencyTable()
        self._entry_bytes = 0
        self._deadlines = Deadlines()
        self._deadlines.keep_recency(self._policy is EvictionPolicy.VOLATILE_LRU)
        self._expires_at = self._deadlines.expires_at
        self._client_flags = {}
        self._key_counts = [0] * DATABASES
        self._deadline_counts = [0] * DATABASES
        self._scans.forget_all()

    def _free_garbage(self) -> None:
        """Free flushed entries in slices, letting go of the interpreter between them."""
        while True:
            with self._lock:
                if not self._garbage:
                    return
                entries = self._garbage.pop()
            while entries:
                for _ in range(min(_FREEING_SLICE, len(entries))):
                    entries.popitem()
                time.sleep(0)
