"""The store: keys and values within a byte budget; the least recently used is evicted first."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from kvdb.errors import CommandError
from kvdb.store.copies import Copies
from kvdb.store.entry import Entry, Key, has_come
from kvdb.store.feed import Cause
from kvdb.store.figures import Figures
from kvdb.store.keyspace import Keyspace
from kvdb.store.listing import Listing
from kvdb.store.watching import Watching

_SET, _CHANGED = Cause.SET, Cause.CHANGED  # an attribute of an Enum takes 50 ns in Python 3.11

_NONE: Mapping[Key, float | None] = {}


class Store(Figures, Listing, Watching, Copies):
    """Keys and values within `max_bytes`; exact LRU; expiry to the millisecond.

    Thread-safe. What stands here is what clients do to single keys. What every change goes
    through is in core.Core, what every operation begins and ends with in steps.Steps.

    One moment: the clock is read once for each operation, and once for all that is done within
    `atomic()`. Whoever looks twice does it in there.
    """

    # --- reading -------------------------------------------------------------------------

    def get(self, key: Key) -> bytes | None:
        """Return the value; counts as use, and as a hit or a miss."""
        with self._lock:
            space = self._space
            if key in space.expires_at and self._expire_if_due_locked(key):
                value = None
            else:
                value = space.table.get(key) if self._untouched else space.use(key)
            if value is None:
                self.misses += 1
                if self._feed.on_miss is not None:
                    self._feed.on_miss(key)
                if self._feed.facts and not self._depth:
                    self._feed.publish()
            else:
                self.hits += 1
            return value

    def get_entry(self, key: Key) -> Entry | None:
        """As get(), but return all that is known of the key."""
        with self._lock:
            return None if self.get(key) is None else self._space.entry(key)

    def get_many(self, keys: Iterable[Key]) -> list[bytes | None]:
        """Return the values of all these keys as they are at one moment; counts as use of them."""
        with self._step:
            space = self._space
            expires_at, young = space.expires_at, space.table.young
            touching = not self._untouched
            use = space.use if touching else space.table.get
            values: list[bytes | None] = []
            now = None
            on_miss = self._feed.on_miss
            for key in keys:
                if touching and key in young and key not in expires_at:
                    values.append(young[key])  # as use(), without a call
                    young.move_to_end(key)
                    continue
                if key in expires_at:
                    if now is None:
                        now = self._now_locked()
                    if self._expire_if_due_locked(key, now):
                        values.append(None)
                        if on_miss is not None:
                            on_miss(key)
                        continue
                values.append(use(key))
                if on_miss is not None and values[-1] is None:
                    on_miss(key)
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

    def tell_miss(self, key: Key) -> None:
        """Say that a reader has looked for a key in vain. get() and get_many() say it themselves."""
        if self._feed.on_miss is not None:
            with self._lock:
                if self._feed.on_miss is not None:
                    self._feed.on_miss(key)

    def cost(self, key: Key) -> int | None:
        """Return what a key costs of the budget, all in all; None if there is no such key."""
        with self._lock:
            return self._budget.cost(key) if self._exists_locked(key) else None

    def touch(self, key: Key) -> bool:
        """Count as use of the key, even within atomic(touching=False); tell whether it is there."""
        with self._lock:
            if not self._exists_locked(key):
                return False
            self._space.touch(key)
            return True

    # --- writing -------------------------------------------------------------------------

    def set(
        self,
        key: Key,
        value: bytes,
        *,
        expires_at: float | None = None,
        client_flags: int = 0,
        now: float | None = None,
        cause: Cause = _SET,
    ) -> None:
        """Store the value with this deadline, or with none; counts as use.

        `now` is the moment that the caller has read already, to compute the deadline with;
        `cause` is how the change feed calls it.
        A deadline that has passed deletes the key, as in Redis. Raises EntryTooLarge if the
        entry alone exceeds the budget (nothing is evicted for it), and OutOfMemory if the
        eviction policy forbids making room.
        """
        with self._lock:
            self._write_locked(key, value, expires_at, client_flags, now, cause)
            if self._feed.facts and not self._depth:
                self._feed.publish()

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
                if self._feed.facts and not self._depth:
                    self._feed.publish()
        return errors

    def write_many(
        self,
        values: Mapping[Key, bytes | None],
        deadlines: Mapping[Key, float | None] = _NONE,
    ) -> None:
        """Store all these values with their deadline, if any; delete the keys that come with None.

        If they do not fit into the budget, nothing is done: raises as set() does.
        """
        with self._step:
            for key in values:
                if key in self._space.expires_at:
                    self._expire_if_due_locked(key)  # what has expired is a fact of its own
            if deadlines or not self._budget.surely_fit(values):
                costs = {
                    key: 0 if value is None else Keyspace.cost_of(key, value, deadlines.get(key))
                    for key, value in values.items()
                }
                self._make_room_locked(costs)
            for key, value in values.items():
                if value is not None:
                    self._write_locked(key, value, deadlines.get(key), fits=True)
                elif key in self._space.table:
                    self._remove_locked(key, Cause.DELETED)

    def update(
        self, key: Key, change: Callable[[bytes | None], bytes], cause: Cause = _CHANGED
    ) -> bytes:
        """Replace the value by change(value or None) in one step; deadline and flags stay.

        `change` runs under the lock: it must be short and without side effects. What it
        raises is passed on, and nothing is changed.
        """
        with self._lock:
            value = self._update_locked(key, change, cause)
            if self._feed.facts and not self._depth:
                self._feed.publish()
            return value

    def update_each(
        self,
        keys: Iterable[Key],
        change: Callable[[bytes | None], bytes],
        cause: Cause = _CHANGED,
    ) -> list[bytes | CommandError]:
        """As update() for one key after the other, but return what it raises in its place."""
        values: list[bytes | CommandError] = []
        with self._lock:
            for key in keys:
                try:
                    values.append(self._update_locked(key, change, cause))
                except CommandError as error:
                    values.append(error.as_reply())
                if self._feed.facts and not self._depth:
                    self._feed.publish()
        return values

    def _update_locked(
        self, key: Key, change: Callable[[bytes | None], bytes], cause: Cause
    ) -> bytes:
        space = self._space
        now = None
        if key in space.expires_at:
            now = self._now_locked()
            self._expire_if_due_locked(key, now)
            self._publish_locked()  # now: `change` may raise
        value = change(space.table.get(key))
        expires_at, client_flags = space.expires_at.get(key), space.client_flags.get(key, 0)
        self._write_locked(key, value, expires_at, client_flags, now, cause)
        return value

    def set_deadline(
        self, key: Key, expires_at: float | None, *, keep_version: bool = False
    ) -> bool:
        """Give the key a deadline or, with None, take it away; tell whether the key is there.

        A deadline that has passed deletes the key, as in Redis. With `keep_version` the key's
        version and note stay, as memcached has it: its touch changes no cas token.
        """
        with self._lock:
            space, now = self._space, self._now_locked()
            if key in space.expires_at:
                self._expire_if_due_locked(key, now)
            value = space.table.get(key)
            if value is not None:
                # A write of the value that is there: recorded and told where every write is.
                self._write_locked(
                    key, value, expires_at, space.client_flags.get(key, 0), now,
                    cause=Cause.DEADLINE, fits=True, keep_version=keep_version,
                )  # fmt: skip
                if not has_come(expires_at, now):
                    self._budget.evict(0, (key,))
            self._publish_locked()
            return value is not None

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
            self._budget.refuse_too_large(Keyspace.cost_of(destination, *entry))
            if source != destination:
                self._remove_locked(source, Cause.RENAMED)
                self._write_locked(destination, *entry, cause=Cause.RENAMED, fits=True)
                self._budget.evict(0, (destination,))
            return True

    def flush(self, db: int | None = None) -> None:
        """Delete every key of one database, or of all.

        All others go on while the memory of everything is freed; beside other databases, one
        database is emptied key by key under the lock.
        """
        with self._step:
            self._flush_locked(db, Cause.FLUSHED)

    def swap(self, first: int, second: int) -> None:
        """Have all keys of two databases change places, with all that belongs to them.

        Under the lock it takes about a second for a million keys.
        """
        if first != second:
            with self._step:
                self._swap_locked(first, second)
                self._budget.evict(0, ())  # keys of database 0 take less than those of another
