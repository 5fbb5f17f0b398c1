"""The keyspace: what is kept, in which order it was used, and what all of it costs.

It knows no time, no budget and no reader: the store tells it what to keep, and asks.
"""

from __future__ import annotations

import random
import sys
from collections import OrderedDict
from collections.abc import Iterable
from itertools import islice

from kvdb.store.deadlines import Deadlines
from kvdb.store.entry import (
    CLIENT_FLAGS_COST,
    DATABASES,
    DEADLINE_COST,
    Entry,
    Key,
    entry_cost,
    split_key,
)
from kvdb.store.recency import RecencyTable
from kvdb.store.scans import ScanIndex

_LAST_DEADLINE = float(2**63 - 1)  # in milliseconds, as Redis has them: 64 bits


class Keyspace:
    """Entries, the least recently used first. Not thread-safe: the store's lock guards it."""

    def __init__(self) -> None:
        self.table = RecencyTable()
        self.expires_at: dict[Key, float] = {}
        """The deadline, in Unix seconds, of each key that has one."""
        self.client_flags: dict[Key, int] = {}
        """Only those that are not 0."""
        self.used = 0
        """What all entries cost, with their deadlines and flags."""
        self.key_counts = [0] * DATABASES
        self.deadline_counts = [0] * DATABASES
        self.touching = True
        """Whether reads and writes count as use."""
        self.freed = 0
        """Bytes that entries have given back so far: what may have left holes behind."""
        self._deadlines: dict[int, Deadlines[Key]] = {}  # by database
        self._indexes: dict[int, ScanIndex] = {}  # by database
        self._logs: dict[int, list[tuple[bool, Key]]] = {}  # what came and went during a build

    def __len__(self) -> int:
        return len(self.table)

    # --- reading -------------------------------------------------------------------------

    def use(self, key: Key) -> bytes | None:
        """Return a key's value, or None; the key is the most recently used one then."""
        young = self.table.young
        value = young.get(key)
        if value is not None:
            if self.touching:
                young.move_to_end(key)
        else:
            value = self.table.get(key)
            if value is not None and self.touching:
                self.table.touch(key)
        return value

    def touch(self, key: Key) -> None:
        """Make an existing key the most recently used one, whatever `touching` says."""
        self.table.touch(key)

    def entry(self, key: Key) -> Entry | None:
        """Return all that is known of a key. Does not count as use."""
        value = self.table.get(key)
        if value is None:
            return None
        return Entry(value, self.expires_at.get(key), self.client_flags.get(key, 0))

    def cost(self, key: Key) -> int:
        """Return what would be free if the key were gone."""
        value = self.table.get(key)
        if value is None:
            return 0
        return entry_cost(key, value) + self.side_cost(
            self.expires_at.get(key), self.client_flags.get(key, 0)
        )

    @staticmethod
    def side_cost(expires_at: float | None, client_flags: int) -> int:
        """Return what an entry costs beside its key and value."""
        return DEADLINE_COST * (expires_at is not None) + CLIENT_FLAGS_COST * bool(client_flags)

    def keys(self, db: int) -> list[Key]:
        """Return all keys of a database, in no order."""
        keys = self.table.all_keys()
        if self.key_counts[db] == len(keys):
            return keys
        return [key for key in keys if split_key(key)[0] == db]

    def random_key(self, db: int) -> Key | None:
        """Return some key of a database, or None if it has none."""
        if not self.key_counts[db]:
            return None
        if self.key_counts[db] < len(self.table):
            return random.choice(self.keys(db))
        segments = self.table.segments()
        (segment,) = random.choices(segments, [len(each) for each in segments])
        place = random.randrange(len(segment))
        return next(islice(dict.keys(segment), place, None))

    # --- writing: everything that changes an entry goes through one of these --------------

    def put(
        self,
        key: Key,
        value: bytes,
        expires_at: float | None = None,
        client_flags: int = 0,
        most: int = sys.maxsize,
        *,
        new: bool = False,
    ) -> bool:
        """Write an entry, unless more than `most` bytes would be in use then; tell whether.

        `new`: the caller knows that the key is not there, and nobody has to look.
        """
        young = self.table.young
        old = young.get(key)
        plain = expires_at is None and not client_flags
        if (
            old is not None
            and plain
            and len(old) == len(value)
            and key not in self.expires_at
            and key not in self.client_flags
        ):  # the most frequent case: nothing changes but the value
            young[key] = value
            self.freed += len(value)
            if self.touching:
                young.move_to_end(key)
            return True
        if old is None and not new:
            old = self.table.get(key)
        cost = entry_cost(key, value)
        growth = cost if old is None else cost - entry_cost(key, old)
        growth += DEADLINE_COST * ((expires_at is not None) - (key in self.expires_at))
        growth += CLIENT_FLAGS_COST * (bool(client_flags) - (key in self.client_flags))
        if self.used + growth > most and growth > 0:
            return False
        self.used += growth
        if old is None:
            self.table.add(key, value)
            self.key_counts[0 if type(key) is bytes else split_key(key)[0]] += 1
            if self._indexes or self._logs:
                self._note_for_scans(True, key)
        else:
            self.freed += len(old)
            if self.touching:
                self.table.put(key, value)
            else:
                self.table.replace(key, value)
        if plain and key not in self.expires_at and key not in self.client_flags:
            return True
        self.set_deadline(key, expires_at, counted=True)
        if client_flags:
            self.client_flags[key] = client_flags
        else:
            self.client_flags.pop(key, 0)
        if isinstance(self.expires_at, OrderedDict) and self.touching and expires_at is not None:
            self.expires_at.move_to_end(key)
        return True

    def set_deadline(self, key: Key, expires_at: float | None, counted: bool = False) -> None:
        """Give an existing key a deadline, or none; `counted`: `used` knows of it already."""
        db = split_key(key)[0]
        before = self.expires_at.get(key)
        if before is not None:
            if expires_at is None:
                del self.expires_at[key]
                self.deadline_counts[db] -= 1
                if not counted:
                    self.used -= DEADLINE_COST
            self._deadlines[db].remove(key, round(before * 1000))
        if expires_at is None:
            return
        if before is None:
            self.deadline_counts[db] += 1
            if not counted:
                self.used += DEADLINE_COST
        deadline = round(min(expires_at * 1000, _LAST_DEADLINE))
        self.expires_at[key] = deadline / 1000
        deadlines = self._deadlines.get(db)
        if deadlines is None:
            deadlines = self._deadlines[db] = Deadlines()
        deadlines.add(key, deadline)
        deadlines.split_if_large(deadline, self.expires_at)

    def remove(self, key: Key) -> None:
        """Take an existing key out, with all that is known of it."""
        value = self.table.pop(key)
        cost = entry_cost(key, value)
        self.used -= cost
        self.freed += cost
        self.key_counts[0 if type(key) is bytes else split_key(key)[0]] -= 1
        if key in self.expires_at:
            self.set_deadline(key, None)
        if self.client_flags and self.client_flags.pop(key, 0):
            self.used -= CLIENT_FLAGS_COST
        if self._indexes or self._logs:
            self._note_for_scans(False, key)

    def lacks(self, keys: Iterable[Key]) -> bool:
        """Tell whether none of these keys is there; quicker than to look for each."""
        return all(segment.keys().isdisjoint(keys) for segment in self.table.segments())

    # --- the order of use ----------------------------------------------------------------

    def keep_recency_of_deadlines(self, wanted: bool) -> None:
        """Let `expires_at` keep an order of use (volatile-lru needs it), or stop doing so."""
        if not wanted:
            self.expires_at = dict(self.expires_at)
        elif not isinstance(self.expires_at, OrderedDict):
            ordered = OrderedDict(self.expires_at)
            for key in self.table:  # the least recently used first
                if key in ordered:
                    ordered.move_to_end(key)
            self.expires_at = ordered

    # --- deadlines -----------------------------------------------------------------------

    def count_due(self, now: int, db: int) -> int:
        """Return how many keys of a database have a deadline up to `now` (milliseconds)."""
        deadlines = self._deadlines.get(db)
        return deadlines.count_due(now, self.expires_at) if deadlines else 0

    def find_due(self, now: int, limit: int) -> list[Key]:
        """Return up to `limit` keys of all databases whose deadline has come by `now`."""
        due: list[Key] = []
        for deadlines in self._deadlines.values():
            due += deadlines.find_due(now, limit - len(due), self.expires_at)
        return due

    def earliest_deadline(self) -> float | None:
        """A moment (Unix seconds) before which no key expires, or None if no key ever does."""
        moments = [deadlines.earliest() for deadlines in self._deadlines.values()]
        return min((each / 1000 for each in moments if each is not None), default=None)

    # --- scans ---------------------------------------------------------------------------

    def scan_index(self, db: int) -> ScanIndex | None:
        """Return the index of a database, if there is one now."""
        return self._indexes.get(db)

    def begin_index(self, db: int) -> tuple[ScanIndex, list[Key]]:
        """Return an empty index and the keys to build it from; what comes and goes is noted."""
        keys = self.keys(db)
        self._logs[db] = []
        return ScanIndex(len(keys)), keys

    def end_index(self, db: int, index: ScanIndex) -> None:
        """Take an index into use that was built from those keys."""
        log = self._logs.pop(db, None)
        if log is not None:  # else all keys were flushed meanwhile
            index.catch_up(log)
            self._indexes[db] = index

    def drop_idle_indexes(self, passes: int) -> None:
        """Drop the indexes that were not used between so many calls of this."""
        for db, index in list(self._indexes.items()):
            index.idle_passes += 1
            if index.idle_passes > passes:
                del self._indexes[db]

    @property
    def index_bytes(self) -> int:
        """What the indexes of scans take."""
        logs = sum(len(log) for log in self._logs.values())
        return sum(index.bytes for index in self._indexes.values()) + 80 * logs

    def _note_for_scans(self, came: bool, key: Key) -> None:
        db = split_key(key)[0]
        if (index := self._indexes.get(db)) is not None:
            if came:
                index.add(key)
                if index.is_outgrown:  # the next scan builds another one; cursors stay good
                    del self._indexes[db]
            else:
                index.discard(key)
        elif (log := self._logs.get(db)) is not None:
            log.append((came, key))

    def check(self) -> None:
        """Recount everything that is kept as a running figure; AssertionError where it differs."""
        keys, values = self.table.all_keys(), self.table.all_values()
        used = sum(map(entry_cost, keys, values))
        used += DEADLINE_COST * len(self.expires_at) + CLIENT_FLAGS_COST * len(self.client_flags)
        assert self.used == used, (self.used, used)
        self.table.check()
        there = set(keys)
        assert self.expires_at.keys() <= there, "a deadline without a key"
        assert self.client_flags.keys() <= there, "client flags without a key"
        assert all(self.client_flags.values()), "client flags of 0 are kept"
        for db in range(DATABASES):
            in_db = {key for key in there if split_key(key)[0] == db}
            expiring = {key: at for key, at in self.expires_at.items() if key in in_db}
            assert self.key_counts[db] == len(in_db), (db, self.key_counts[db], len(in_db))
            assert self.deadline_counts[db] == len(expiring), (db, self.deadline_counts[db])
            self._deadlines.get(db, Deadlines[Key]()).check(expiring)
            if db in self._indexes:
                self._indexes[db].check(in_db)
