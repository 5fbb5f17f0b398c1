"""All of the store at once: copied out for a snapshot, loaded at the start, or put back."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final, NamedTuple

from kvdb.errors import EntryTooLarge
from kvdb.store.core import Core
from kvdb.store.entry import Entry, Key, has_come
from kvdb.store.feed import Cause
from kvdb.store.keyspace import Keyspace

_RESTORED_TOGETHER: Final = 250  # entries loaded under one hold of the lock


class Dump(NamedTuple):
    """A consistent copy of the store at one moment; keys and values correspond by position."""

    keys: list[Key]
    values: list[bytes]
    expires_at: dict[Key, float]
    client_flags: dict[Key, int]
    changes: int  # Store.changes at that moment
    step: int = 0  # Store.step at that moment


class Copies(Core):
    """What persistence and replicas need. Needs the core's write and removal, and its budget."""

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

    def restore(self, entries: Iterable[tuple[Key, Entry]], now: float | None = None) -> int:
        """Put back entries that were saved, before anybody reads, writes or listens.

        To load what was there before the start is no change, and nobody is told of it: this
        alone does not go through the core's write. Entries that have expired by `now` are left
        out. Over budget, the first go; an entry larger than the whole budget is left out, too.
        Returns how many did not fit.
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
                        if not self._space.put(key, *entry, self._budget.limit, new=new):
                            self._budget.make_room({key: Keyspace.cost_of(key, *entry)}, now)
                            self._space.put(key, *entry)
                    except EntryTooLarge:
                        too_large += 1
        with self._lock:
            did_not_fit, self.evicted_keys = self.evicted_keys + too_large, 0
            self.changes = 0
        return did_not_fit

    def put_back(
        self, entries: Iterable[tuple[Key, Entry | None]], everything: bool = False
    ) -> None:
        """Have these keys hold what they held before (None: nothing), without asking for room.

        With `everything`, no other key is there then.
        """
        with self._step:
            if everything:
                self._flush_locked(None, Cause.TAKEN_BACK)
            for key, entry in entries:
                if entry is not None:
                    self._write_locked(key, *entry, cause=Cause.TAKEN_BACK, fits=True)
                elif key in self._space.table:
                    self._remove_locked(key, Cause.TAKEN_BACK)
