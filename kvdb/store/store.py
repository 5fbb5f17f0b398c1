"""The store: keys and values within a byte budget; the least recently used is evicted first.

One lock (`Store._lock`) guards everything in this folder. It is re-entrant, so that `atomic()`
can make one step of several operations. Nothing does I/O, logs or waits while holding it, and
no other lock is taken under it, except for a moment by the two hooks that say so:
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
from kvdb.store.entry import (
    NOTE_COST,
    Cause,
    Change,
    Entry,
    EvictionPolicy,
    Flush,
    Key,
    Listener,
    entry_cost,
    has_come,
    milliseconds,
    split_key,
)
from kvdb.store.feed import ChangeFeed
from kvdb.store.keyspace import Keyspace
from kvdb.store.scans import HASHES
from kvdb.store.versions import Versions

_FREEING_SLICE: Final = 500  # entries freed at a time after a flush: well under a millisecond
_MOST_SCANNED: Final = 10_000  # keys looked at under one hold of the lock
_EXPIRY_SLICE: Final = 1_000  # keys expired, or evicted after the fact, under one hold of the lock
_RESTORED_TOGETHER: Final = 250
_RANDOM_TRIES: Final = 20
_INDEX_KEPT: Final = 10  # passes of drop_idle_indexes() that an unused index survives


class Dump(NamedTuple):
    """A consistent copy of the store at one moment; keys and values correspond by position."""

    keys: list[Key]
    values: list[bytes]
    expires_at: dict[Key, float]
    client_flags: dict[Key, int]
    changes: int  # Store.changes at that moment
    step: int = 0  # Store.step at that moment


class _AtomicStep(AbstractContextManager[None]):
    """What Store.atomic() returns: one object for all steps, because the lock is re-entrant."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __enter__(self) -> None:
        self._store._lock.acquire()
        self._store._depth += 1

    def __exit__(self, *error: object) -> None:
        store = self._store
        free = False
        try:
            store._depth -= 1
            if not store._depth:
                store._moment = None
                if store._feed.facts:
                    store._feed.publish()
                free = bool(store._garbage)
        finally:
            store._lock.release()
        if free:
            store._free_garbage()


class Store:
    """Keys and values within `max_bytes`; exact LRU; expiry to the millisecond.

    Thread-safe: public methods take self._lock; a method ending in _locked expects its
    caller to hold it. Counters (`hits`, `evicted_keys`, ...) are written under the lock;
    a reader without it may see them a moment old.

    One moment: the clock is read once for each operation, and once for all that is done within
    `atomic()`. Whoever looks twice does it in there.
    """

    def __init__(self, max_bytes: int, *, clock: Callable[[], float] = time.time) -> None:
        """Make an empty store. `max_bytes` 0 means no limit; `clock` returns Unix seconds."""
        self._lock = threading.RLock()
        self._clock = clock
        self._max_bytes = max_bytes or sys.maxsize
        self._allowance = sys.maxsize  # what fragmentation leaves to the entries: see allow()
        self._limit = self._max_bytes  # what writes have to keep to: see _come_down()
        self._policy = EvictionPolicy.ALLKEYS_LRU
        self._space = Keyspace()
        self._versions = Versions(clock())
        self._feed = ChangeFeed()
        self._depth = 0  # how many atomic() blocks are open
        self._moment: float | None = None  # what the clock said within them
        self._step = _AtomicStep(self)
        self._garbage: list[OrderedDict[Key, bytes]] = []  # flushed, waiting to be freed
        self._indexing = threading.Lock()
        """Held while a scan's index is built; the store's lock is taken under it for moments."""
        self._flush_at: float | None = None
        self._flush_db = 0
        self._reaper_wakes_at = math.inf
        self.on_earlier_deadline: Callable[[], None] = lambda: None
        """Called, under the lock, when the reaper has to wake up earlier than it was told."""

        self.changes = 0  # since the start: writes, deletions, expiries, evictions
        self.hits = 0
        self.misses = 0
        self.expired_keys = 0
        self.found_expired = 0  # of these, what a request found when its time had come
        self.reclaimed_keys = 0  # of these, what went because a write needed its memory
        self.evicted_keys = 0
        self.stored_entries = 0  # how often an entry was written

    # --- the moment ----------------------------------------------------------------------

    def now(self) -> float:
        """Return the moment of the step under way, in Unix seconds, or of the clock."""
        with self._lock:
            return self._now_locked()

    def _now_locked(self) -> float:
        if not self._depth:
            return self._clock()
        if self._moment is None:
            self._moment = self._clock()
        return self._moment

    def _expire_if_due_locked(self, key: Key, now: float | None = None) -> None:
        """Take the key out if its deadline has come; the one place where a key's is looked at."""
        expires_at = self._space.expires_at.get(key)
        if expires_at is not None and has_come(
            expires_at, self._now_locked() if now is None else now
        ):
            self.found_expired += 1
            self._remove_locked(key, Cause.EXPIRED)

    # --- reading -------------------------------------------------------------------------

    def get(self, key: Key) -> bytes | None:
        """Return the value; counts as use, and as a hit or a miss."""
        with self._lock:
            if key in self._space.expires_at:
                self._expire_if_due_locked(key)
            value = self._space.use(key)
            if value is None:
                self.misses += 1
                if self._feed.facts:
                    self._publish_locked()
            else:
                self.hits += 1
                if isinstance(self._space.expires_at, OrderedDict):
                    self._touch_deadline_locked(key)
            return value

    def get_entry(self, key: Key) -> Entry | None:
        """As get(), but return all that is known of the key."""
        with self._lock:
            return None if self.get(key) is None else self._space.entry(key)

    def get_many(self, keys: Iterable[Key]) -> list[bytes | None]:
        """Return the values of all these keys as they are at one moment; counts as use of them."""
        with self._step:
            space = self._space
            use, expires_at = space.use, space.expires_at
            ordered = isinstance(expires_at, OrderedDict)
            values: list[bytes | None] = []
            young, touching = space.table.young, space.touching
            for key in keys:
                if touching and key in young and key not in expires_at:
                    values.append(young[key])  # as use(), without a call
                    young.move_to_end(key)
                    continue
                if key in expires_at:
                    self._expire_if_due_locked(key)
                    if ordered:
                        self._touch_deadline_locked(key)
                values.append(use(key))
                young = space.table.young  # a key that moves may fill it
            misses = values.count(None)
            self.misses += misses
            self.hits += len(values) - misses
            return values

    def entry(self, key: Key) -> Entry | None:
        """Return all that is known of a key. Does not count as use."""
        with self._lock:
            return self._space.entry(key) if self._exists_locked(key) else None

    def exists(self, key: Key) -> bool:
        """Tell whether the key is there. Does not count as use."""
        with self._lock:
            return self._exists_locked(key)

    def _exists_locked(self, key: Key) -> bool:
        if key in self._space.expires_at:
            self._expire_if_due_locked(key)
            self._publish_locked()
        return key in self._space.table

    def cost(self, key: Key) -> int | None:
        """Return what a key costs of the budget, all in all; None if there is no such key."""
        with self._lock:
            return self._cost_locked(key) if self._exists_locked(key) else None

    def touch(self, key: Key) -> bool:
        """Count as use of the key, whatever `without_touching()` says; tell whether it is there."""
        with self._lock:
            if not self._exists_locked(key):
                return False
            self._space.touch(key)
            if isinstance(self._space.expires_at, OrderedDict):
                self._touch_deadline_locked(key, always=True)
            return True

    def size(self, db: int = 0) -> int:
        """Return the number of keys in a database; what is due and not yet gone does not count."""
        with self._lock:
            now = milliseconds(self._now_locked())
            return self._space.key_counts[db] - self._space.count_due(now, db)

    def sizes(self) -> dict[int, tuple[int, int, float]]:
        """Return keys, keys with a deadline and their mean seconds to live (of a sample of 20).

        Only databases that have keys are listed.
        """
        with self._lock:
            space, now = self._space, self._now_locked()
            sizes = {}
            for db, keys in enumerate(space.key_counts):
                due = space.count_due(milliseconds(now), db) if keys else 0
                if keys > due:
                    expiring = space.deadline_counts[db] - due
                    deadlines = (
                        at - now
                        for key, at in islice(space.expires_at.items(), 10_000)
                        if split_key(key)[0] == db and not has_come(at, now)
                    )
                    sample = list(islice(deadlines, 20)) if expiring else []
                    sizes[db] = (keys - due, expiring, sum(sample) / max(1, len(sample)))
            return sizes

    def keys(self, db: int = 0) -> list[bytes]:
        """Return the names of all keys in a database."""
        with self._lock:
            keys, now = self._space.keys(db), self._now_locked()
            if self._space.count_due(milliseconds(now), db):
                find = self._space.expires_at.get
                keys = [key for key in keys if not has_come(find(key), now)]
        return [split_key(key)[1] for key in keys]

    def random_key(self, db: int = 0) -> bytes | None:
        """Return the name of some key in a database, or None if it is empty."""
        with self._step:
            for _ in range(_RANDOM_TRIES):
                key = self._space.random_key(db)
                if key is None or self._exists_locked(key):
                    return None if key is None else split_key(key)[1]
            names = self.keys(db)  # where nearly everything is due
            return random.choice(names) if names else None

    def scan(self, cursor: int, count: int, db: int = 0) -> tuple[int, list[bytes]]:
        """Return the next cursor (0: the scan has ended) and about `count` names of keys.

        A `count` above 10,000 counts as that, so that nobody else has to wait for long.

        Every key that is there from the first call to the last is returned at least once,
        whatever is written meanwhile. A cursor is a place in the order of `scans.hash_of()`,
        below 2**32: it needs nothing that is kept for its scan, and stays good for ever.
        """
        if cursor >= HASHES:
            return 0, []
        while True:
            with self._step:
                index = self._space.scan_index(db)
                if index is not None:
                    next_cursor, keys = index.page(
                        cursor, min(count, _MOST_SCANNED), self._is_live_locked
                    )
                    return next_cursor, [split_key(key)[1] for key in keys]
            self._build_index(db)

    def _is_live_locked(self, key: Key) -> bool:
        return not has_come(self._space.expires_at.get(key), self._now_locked())

    def _build_index(self, db: int) -> None:
        """Build the index of a database's scans, while others go on: 0.4 s for a million keys."""
        with self._indexing:
            with self._lock:
                if self._space.scan_index(db) is not None:
                    return  # by another thread, while this one waited
                index, keys = self._space.begin_index(db)
            index.build(keys)
            with self._lock:
                self._space.end_index(db, index)

    def drop_idle_indexes(self) -> None:
        """One pass of what is to be called each second: drop the indexes nobody has used lately."""
        with self._lock:
            self._space.drop_idle_indexes(_INDEX_KEPT)

    @property
    def total_keys(self) -> int:
        """How many entries there are in all databases, with what is due and not yet gone."""
        return len(self._space)

    @property
    def index_bytes(self) -> int:
        """What the indexes of scans take, beside the budget."""
        return self._space.index_bytes

    @property
    def freed_bytes(self) -> int:
        """Bytes of entries that were freed since the start, and may have left holes behind."""
        return self._space.freed

    def dump(self) -> Dump:
        """Return a consistent copy of everything, for a snapshot; with what is due, not yet gone.

        The lock is held for that long: 12 ms for a million keys.
        """
        with self._lock:
            return Dump(
                self._space.table.all_keys(),
                self._space.table.all_values(),
                dict(self._space.expires_at),
                dict(self._space.client_flags),
                self.changes,
                self._feed.step,
            )

    # --- writing -------------------------------------------------------------------------

    def set(
        self,
        key: Key,
        value: bytes,
        *,
        expires_at: float | None = None,
        client_flags: int = 0,
        now: float | None = None,
    ) -> None:
        """Store the value with this deadline, or with none; counts as use.

        `now` is the moment that the caller has read already, to compute the deadline with.
        A deadline that has passed deletes the key, as in Redis. Raises EntryTooLarge if the
        entry alone exceeds the budget (nothing is evicted for it), and OutOfMemory if the
        eviction policy forbids making room.
        """
        with self._lock:
            self._write_locked(key, value, expires_at, client_flags, now)
            if self._feed.facts:
                self._publish_locked()

    def set_each(self, keys: Iterable[Key], values: Iterable[bytes]) -> list[CommandError | None]:
        """As set() for one pair after the other, but return what it raises, or None, for each."""
        errors: list[CommandError | None] = []
        with self._lock:
            for key, value in zip(keys, values, strict=True):
                error = None
                try:
                    self._write_locked(key, value)
                except CommandError as raised:
                    error = raised.as_reply()
                errors.append(error)
                if self._feed.facts:
                    self._publish_locked()
        return errors

    def write_many(self, values: Mapping[Key, bytes | None]) -> None:
        """Store all these values without a deadline, and delete the keys that come with None.

        If they do not fit into the budget, nothing is done: raises as set() does.
        """
        with self._step:
            for key in values:
                if key in self._space.expires_at:
                    self._expire_if_due_locked(key)  # what has expired is a fact of its own
            self._make_room_locked(values, 0, self._now_locked())
            for key, value in values.items():
                if value is not None:
                    self._write_locked(key, value, fits=True)
                elif key in self._space.table:
                    self._remove_locked(key, Cause.DELETED)

    def update(self, key: Key, change: Callable[[bytes | None], bytes]) -> bytes:
        """Replace the value by change(value or None) in one step; deadline and flags stay.

        `change` runs under the lock: it must be short and without side effects. What it
        raises is passed on, and nothing is changed.
        """
        with self._lock:
            value = self._update_locked(key, change)
            if self._feed.facts:
                self._publish_locked()
            return value

    def update_each(
        self, keys: Iterable[Key], change: Callable[[bytes | None], bytes]
    ) -> list[bytes | CommandError]:
        """As update() for one key after the other, but return what it raises in its place."""
        values: list[bytes | CommandError] = []
        with self._lock:
            for key in keys:
                try:
                    values.append(self._update_locked(key, change))
                except CommandError as error:
                    values.append(error.as_reply())
                if self._feed.facts:
                    self._publish_locked()
        return values

    def _update_locked(self, key: Key, change: Callable[[bytes | None], bytes]) -> bytes:
        space = self._space
        now = None
        if key in space.expires_at:
            now = self._now_locked()
            self._expire_if_due_locked(key, now)
            self._publish_locked()  # now: `change` may raise
        value = change(space.table.get(key))
        expires_at, client_flags = space.expires_at.get(key), space.client_flags.get(key, 0)
        self._write_locked(key, value, expires_at, client_flags, now)
        return value

    def delete(self, *keys: Key) -> int:
        """Delete the keys; return how many of them were there."""
        with self._step:
            live = [key for key in dict.fromkeys(keys) if self._exists_locked(key)]
            for key in live:
                self._remove_locked(key, Cause.DELETED)
            return len(live)

    def rename(self, source: Key, destination: Key) -> bool:
        """Give an entry another key, in place of what that one held; tell whether there was one.

        Deadline and flags come along. Raises EntryTooLarge if the new key makes the entry so.
        """
        with self._step:
            entry = self.entry(source)
            if entry is None:
                return False
            cost = entry_cost(destination, entry.value) + Keyspace.side_cost(*entry[1:])
            if cost > self._max_bytes:
                raise EntryTooLarge(cost, self._max_bytes)
            if source != destination:
                self._remove_locked(source, Cause.RENAMED)
                self._write_locked(destination, *entry, cause=Cause.RENAMED, fits=True)
                self._evict_locked(0, (destination,))
            return True

    def set_deadline(
        self, key: Key, expires_at: float | None, *, keep_version: bool = False
    ) -> bool:
        """Give the key a deadline or, with None, take it away; tell whether the key is there.

        A deadline that has passed deletes the key, as in Redis. With `keep_version` the key's
        version and note stay, as memcached has it: its touch changes no cas token.
        """
        with self._step:
            if not self._exists_locked(key):
                return False
            if has_come(expires_at, self._now_locked()):
                self._remove_locked(key, Cause.DELETED)
                return True
            space = self._space
            if space.touching:
                space.touch(key)
            space.set_deadline(key, expires_at)
            if isinstance(space.expires_at, OrderedDict):
                self._touch_deadline_locked(key)
            self.changes += 1
            if not (keep_version or self._versions.idle):
                self._versions.detach(key)
            self._wake_reaper_locked(expires_at)
            entry = space.entry(key)
            if self._feed.listeners and entry is not None:
                self._feed.facts.append(Change(key, *entry, Cause.DEADLINE))
            self._evict_locked(0, (key,))
            return True

    def flush(self, db: int | None = None) -> None:
        """Delete every key of one database, or of all.

        All others go on while the memory of everything is freed; beside other databases, one
        database is emptied key by key under the lock.
        """
        with self._step:
            space = self._space
            if db is None or space.key_counts[db] == len(space):
                self.changes += len(space)
                self._versions.detach_existing()
                self._garbage += space.table.segments()
                self._space = Keyspace()
                self._space.touching = space.touching
                self._space.freed = space.freed + space.used
                self._space.keep_recency_of_deadlines(self._policy is EvictionPolicy.VOLATILE_LRU)
            else:
                for key in space.keys(db):
                    space.remove(key)
                    self.changes += 1
                    self._versions.detach(key)
            if self._feed.listeners:
                self._feed.facts.append(Flush(db))

    def flush_later(self, flush_at: float | None, db: int = 0) -> None:
        """Have the reaper flush a database at a moment (Unix seconds), in place of any earlier plan.

        None gives the plan up. This is memcached's flush_all with a delay.
        """
        with self._lock:
            self._flush_at, self._flush_db = flush_at, db
            self._wake_reaper_locked(flush_at)

    def restore(self, entries: Iterable[tuple[Key, Entry]], now: float | None = None) -> int:
        """Put back entries that were saved, before anybody reads, writes or listens.

        Entries that have expired by `now` are left out. Over budget, the first go; an entry
        larger than the whole budget is left out, too. Returns how many did not fit.
        """
        too_large = 0
        source = iter(entries)
        now = self.now() if now is None else now
        while batch := dict(islice(source, _RESTORED_TOGETHER)):
            with self._lock:  # let go of in between: others may ask how far it has come
                # That none of the keys is there, as in every file of ours, is found out for all
                # of them at once: to search for each is a third of the time of loading a million.
                new = self._space.lacks(batch)
                for key, entry in batch.items():
                    if has_come(entry.expires_at, now):
                        continue
                    try:
                        if not self._space.put(key, *entry, self._limit, new=new):
                            side_cost = Keyspace.side_cost(*entry[1:])
                            self._make_room_locked({key: entry.value}, side_cost, now)
                            self._space.put(key, *entry)
                    except EntryTooLarge:
                        too_large += 1
        with self._lock:
            did_not_fit, self.evicted_keys = self.evicted_keys + too_large, 0
            self.changes = 0
        return did_not_fit

    def put_back(self, entries: Iterable[tuple[Key, Entry | None]]) -> None:
        """Have these keys hold what they held before (None: nothing), without asking for room."""
        with self._step:
            for key, entry in entries:
                if entry is not None:
                    self._write_locked(key, *entry, cause=Cause.TAKEN_BACK, fits=True)
                elif key in self._space.table:
                    self._remove_locked(key, Cause.TAKEN_BACK)

    def atomic(self) -> AbstractContextManager[None]:
        """Hold the lock over several operations: one step, and one moment, for every reader.

        There is no rollback: check everything before the first write.
        """
        return self._step

    @contextmanager
    def without_touching(self) -> Iterator[None]:
        """Within the block, reads and writes leave the order of use as it is (CLIENT NO-TOUCH)."""
        with self._lock:
            before, self._space.touching = self._space.touching, False
            try:
                yield
            finally:
                self._space.touching = before

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
            exists = self._exists_locked(key)  # an expiry is a write, too
            return self._versions.is_current(key, version, exists)

    def version(self, key: Key) -> int:
        """Return the key's version token: the same number until somebody writes the key.

        It is 0 for a key that does not exist and that nobody watches. Tokens grow from one to
        the next, over restarts, too.
        """
        with self._lock:
            return self._versions.token(key, self._exists_locked(key))

    def set_version(self, key: Key, version: int) -> None:
        """Have the present version of an existing key bear this token (memcached's E).

        It is as good as one of ours: a write breaks it. That it is a new one, and larger than
        the last, is for the caller to see to.
        """
        with self._lock:
            if self._exists_locked(key):
                self._versions.set_token(key, version)

    def note(self, key: Key) -> object:
        """Return what was last given to `set_note()`, if nobody has written the key since."""
        with self._lock:
            return self._versions.notes.get(key) if self._exists_locked(key) else None

    def set_note(self, key: Key, note: object) -> None:
        """Attach something to the present version of an existing key; None takes it away.

        Whoever writes the key next detaches it. It is not saved.
        """
        with self._lock:
            if self._exists_locked(key):
                self._versions.set_note(key, note)

    # --- expiry, eviction, settings ------------------------------------------------------

    def expire_due(self, limit: int = _EXPIRY_SLICE) -> bool:
        """Delete up to `limit` keys whose time has come; tell whether more are due."""
        with self._step:
            now = self._now_locked()
            if has_come(self._flush_at, now):
                self._flush_at = None
                self.flush(self._flush_db)
            due = self._space.find_due(milliseconds(now), limit)
            for key in due:
                self._remove_locked(key, Cause.EXPIRED)
            return len(due) == limit

    def seconds_to_next_deadline(self) -> float | None:
        """Return how long nothing will expire, or None if nothing ever will.

        From then on `on_earlier_deadline` is called when that answer becomes too long.
        """
        with self._lock:
            earliest = self._space.earliest_deadline()
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
            self._space.keep_recency_of_deadlines(policy is EvictionPolicy.VOLATILE_LRU)
        self._come_down()

    @property
    def used_bytes(self) -> int:
        """What all entries cost, with their deadlines, flags and notes."""
        with self._lock:
            return self._used_locked()

    @property
    def step(self) -> int:
        """Number of the last step that the feed has told."""
        return self._feed.step

    def add_listener(self, listener: Listener) -> None:
        """Have every change reported, in commit order, one call per atomic step.

        The listener is called under the lock: it may put the facts in a queue, nothing more.
        """
        with self._lock:
            self._feed.add(listener)

    def follow(self, listener: Listener) -> Dump:
        """As add_listener(); return a copy of all that was there before the first step it hears of."""
        with self._lock:
            self._feed.add(listener)
            return self.dump()

    def remove_listener(self, listener: Listener) -> None:
        """Stop reporting to this listener."""
        with self._lock:
            self._feed.remove(listener)

    def reset_statistics(self) -> None:
        """Set all counters but `changes` back to 0 (CONFIG RESETSTAT)."""
        with self._lock:
            self.hits = self.misses = self.expired_keys = self.evicted_keys = 0
            self.found_expired = self.reclaimed_keys = self.stored_entries = 0

    def check(self) -> None:
        """Recount everything that is kept as a running figure; AssertionError where it differs."""
        with self._lock:
            self._space.check()
            self._versions.check(set(self._space.table))
            assert not self._feed.facts, "facts were not published"
            assert self._depth == 0, "a step was left open"
            assert self._moment is None, "a moment outlived its step"
            # An allowance gives way to what fits into the budget, and notes to the next write.
            over = self._space.used - max(self._limit, self._max_bytes)
            # A lone entry may exceed the budget by a deadline that it got later.
            strict = self._policy is EvictionPolicy.ALLKEYS_LRU and len(self._space) > 1
            assert over <= 0 or not strict, over

    # --- inside the lock: every change of an entry ends in one of the next two ------------

    def _write_locked(
        self,
        key: Key,
        value: bytes,
        expires_at: float | None = None,
        client_flags: int = 0,
        now: float | None = None,
        *,
        cause: Cause = Cause.SET,
        fits: bool = False,
    ) -> None:
        """Write an entry and make room for it (`fits`: there is room), and record that."""
        if expires_at is not None:
            if now is None:
                now = self._now_locked()
            if has_come(expires_at, now):
                if key in self._space.table:
                    self._remove_locked(key, Cause.DELETED)
                return
            self._wake_reaper_locked(expires_at)
        most = sys.maxsize if fits else self._limit
        if self._versions.notes:
            most -= NOTE_COST * len(self._versions.notes)
        if not self._space.put(key, value, expires_at, client_flags, most):
            side_cost = Keyspace.side_cost(expires_at, client_flags)
            self._make_room_locked(
                {key: value}, side_cost, self._now_locked() if now is None else now
            )
            self._space.put(key, value, expires_at, client_flags)
        self.changes += 1
        self.stored_entries += 1
        if not self._versions.idle:
            self._versions.detach(key)
        if self._feed.listeners:
            self._feed.facts.append(
                Change(key, value, self._space.expires_at.get(key), client_flags, cause)
            )

    def _remove_locked(self, key: Key, cause: Cause) -> None:
        """Take an existing entry out, and record that it is gone."""
        self._space.remove(key)
        self.changes += 1
        if cause is Cause.EXPIRED:
            self.expired_keys += 1
        elif cause is Cause.EVICTED:
            self.evicted_keys += 1
        if not self._versions.idle:
            self._versions.detach(key)
        if self._feed.listeners:
            self._feed.facts.append(Change(key, None, cause=cause))

    def _publish_locked(self) -> None:
        """Hand the facts of a finished step to the listeners."""
        if self._feed.facts and not self._depth:
            self._feed.publish()

    def _wake_reaper_locked(self, moment: float | None) -> None:
        if moment is not None and moment < self._reaper_wakes_at:
            self._reaper_wakes_at = moment
            self.on_earlier_deadline()

    def _touch_deadline_locked(self, key: Key, always: bool = False) -> None:
        """Count a use in the order of the keys that volatile-lru may evict."""
        expires_at = self._space.expires_at
        counts = always or self._space.touching
        if counts and isinstance(expires_at, OrderedDict) and key in expires_at:
            expires_at.move_to_end(key)

    # --- inside the lock: the budget ------------------------------------------------------

    def _used_locked(self) -> int:
        return self._space.used + NOTE_COST * len(self._versions.notes)

    def _cost_locked(self, key: Key) -> int:
        """Return what would be free if the key were gone."""
        return self._space.cost(key) + NOTE_COST * (key in self._versions.notes)

    def _make_room_locked(
        self, values: Mapping[Key, bytes | None], side_cost: int, now: float
    ) -> None:
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
        if self._used_locked() + total <= self._limit:
            return
        # What has expired goes before what has not.
        for key in self._space.find_due(milliseconds(now), _EXPIRY_SLICE):
            self.reclaimed_keys += 1
            self._remove_locked(key, Cause.EXPIRED)
        needed = sum(cost - self._cost_locked(key) for key, cost in costs.items())
        if needed <= 0 or self._evict_locked(needed, values):
            return
        if total <= self._limit or self._policy is not EvictionPolicy.ALLKEYS_LRU:
            self._publish_locked()
            raise OutOfMemory

    def _come_down(self) -> None:
        """Have writes keep to budget and allowance; evict what no longer fits, step by step.

        Lets go of the lock in between. Until then what is in use counts as the limit, so that
        no single write has to evict all the rest at once.
        """
        done = False
        while not done:
            with self._step:
                before, self._limit = self.evicted_keys, min(self._max_bytes, self._allowance)
                fits = self._evict_locked(0, (), limit=_EXPIRY_SLICE)
                done = fits or before == self.evicted_keys
                if not done:
                    self._limit = self._used_locked()
            time.sleep(0)

    def _evict_locked(self, needed: int, keep: Collection[Key], limit: int = sys.maxsize) -> bool:
        """Evict up to `limit` keys, `keep` excepted, until `needed` more bytes fit.

        Returns False if they still do not fit.
        """
        allowed = self._limit - needed
        if self._policy is EvictionPolicy.ALLKEYS_LRU:
            # Nearly always the oldest may go, and then no list has to be made first.
            while limit > 0 and self._used_locked() > allowed:
                oldest = self._space.table.oldest()
                if oldest is None or oldest in keep:
                    break
                self._remove_locked(oldest, Cause.EVICTED)
                limit -= 1
        excess = self._used_locked() - allowed
        victims: list[Key] = []
        for key in self._candidates_locked() if excess > 0 else ():
            if excess <= 0 or len(victims) == limit:
                break
            if key not in keep:
                victims.append(key)
                excess -= self._cost_locked(key)
        for key in victims:
            self._remove_locked(key, Cause.EVICTED)
        return excess <= 0

    def _candidates_locked(self) -> Iterable[Key]:
        """Return the keys that may have to go, in the order in which they would."""
        match self._policy:
            case EvictionPolicy.NOEVICTION:
                return ()
            case EvictionPolicy.VOLATILE_LRU:
                return self._space.expires_at
            case EvictionPolicy.ALLKEYS_LRU:
                return self._space.table

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
