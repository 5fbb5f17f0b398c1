"""The keyspace: what is kept, in which order it was used, and what all of it costs.

It knows no time, no budget and no reader: the store tells it what to keep, and asks. Values
stand in the table as plain bytes; what few keys have beside them, in dicts of its own.
"""

from __future__ import annotations

import heapq
import random
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from operator import itemgetter
from typing import Any, cast

from kvdb.store.deadlines import Deadlines
from kvdb.store.entry import (
    CLIENT_FLAGS_COST,
    DATABASES,
    DEADLINE_COST,
    TUPLE_KEY_COST,
    Entry,
    Key,
    entry_cost,
    split_key,
)
from kvdb.store.recency import RecencyTable
from kvdb.store.scans import ScanIndexes

_DRAWS = 20  # of a random key, until it is of the database that is asked for
_LAST_DEADLINE = float(2**63 - 1)  # in milliseconds, as Redis has them: 64 bits


class Keyspace:
    """Entries, the least recently used first. Not thread-safe: the store's lock guards it.

    Two methods change an entry: put() and remove().
    """

    def __init__(self) -> None:
        self.freed = 0
        """Bytes that entries have given back so far: what may have left holes behind."""
        self.indexes = ScanIndexes()
        self.on_new: Callable[[Key], None] | None = None
        """Told of each key that was not there before."""
        self._orders_deadlines = False  # volatile-lru needs the order of their use
        self._start_empty()

    def _start_empty(self) -> None:
        self.table = RecencyTable()
        self.expires_at: dict[Key, float] = {}
        """The deadline, in Unix seconds, of each key that has one."""
        # The same dict while it keeps an order of use, else None.
        self._deadlines_used: OrderedDict[Key, float] | None = None
        if self._orders_deadlines:
            self.expires_at = self._deadlines_used = OrderedDict()
        self.client_flags: dict[Key, int] = {}
        """Only those that are not 0."""
        self.used = 0
        """What all entries cost, with their deadlines and flags."""
        self.key_counts = [0] * DATABASES
        self.deadline_counts = [0] * DATABASES
        self._deadlines: dict[int, Deadlines[Key]] = defaultdict(Deadlines)  # by database

    def __len__(self) -> int:
        return len(self.table)

    # --- reading -------------------------------------------------------------------------

    def use(self, key: Key) -> bytes | None:
        """Return a key's value, or None; the key is the most recently used one then."""
        young = self.table.young
        value = young.get(key)
        if value is not None:
            young.move_to_end(key)
        else:
            value = self.table.get(key)
            if value is None:
                return None
            self.table.touch(key)
        if self._deadlines_used is not None and key in self._deadlines_used:
            self._deadlines_used.move_to_end(key)
        return value

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
        return Keyspace.cost_of(key, value, self.expires_at.get(key), self.client_flags.get(key, 0))

    @staticmethod
    def cost_of(
        key: Key, value: bytes, expires_at: float | None = None, client_flags: int = 0
    ) -> int:
        """Return what such an entry costs, with all that belongs to it."""
        side_cost = DEADLINE_COST * (expires_at is not None) + CLIENT_FLAGS_COST * bool(
            client_flags
        )
        return entry_cost(key, value) + side_cost

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
        segments = self.table.segments()
        sizes = [len(each) for each in segments]
        for segment in random.choices(segments, sizes, k=_DRAWS):
            place = random.randrange(len(segment))
            key = next(islice(dict.keys(segment), place, None))
            if split_key(key)[0] == db:
                return key
        return random.choice(self.keys(db))  # a small part of all keys

    def lacks(self, keys: Iterable[Key]) -> bool:
        """Tell whether none of these keys is there; quicker than to look for each."""
        return all(segment.keys().isdisjoint(keys) for segment in self.table.segments())

    # --- writing: everything that changes an entry goes through one of these --------------

    def put(
        self,
        key: Key,
        value: bytes,
        expires_at: float | None = None,
        client_flags: int = 0,
        most: int = sys.maxsize,
        touch: bool = True,
        new: bool = False,
    ) -> bool:
        """Write an entry, unless more than `most` bytes would be in use then; tell whether.

        `touch`: the key is the most recently used one then; else it keeps its place.
        `new`: the caller knows that the key is not there, and nobody has to look.
        """
        table, young = self.table, self.table.young
        old = young.get(key)
        if (
            old is not None
            and expires_at is None
            and len(old) == len(value)
            and not client_flags
            and key not in self.expires_at
            and key not in self.client_flags
        ):  # the most frequent case: nothing changes but the value
            young[key] = value
            self.freed += len(value)
            if touch:
                young.move_to_end(key)
            return True
        before = self.expires_at.get(key)
        in_young = old is not None
        if not in_young and not new:
            old = table.get(key)
        if old is None:
            growth = entry_cost(key, value)
        elif len(old) == len(value):
            growth = 0
        else:
            growth = entry_cost(key, value) - entry_cost(key, old)
        if before is None:
            if expires_at is not None:
                growth += DEADLINE_COST
        elif expires_at is None:
            growth -= DEADLINE_COST
        if client_flags or self.client_flags:
            growth += CLIENT_FLAGS_COST * (bool(client_flags) - (key in self.client_flags))
        if growth:
            if growth > 0 and self.used + growth > most:
                return False
            self.used += growth
        if old is None:
            table.add(key, value)
            self.key_counts[0 if type(key) is bytes else split_key(key)[0]] += 1
            if self.indexes.followed:
                self.indexes.note(True, key)
            if self.on_new is not None:
                self.on_new(key)
        else:
            if old is not value:
                self.freed += len(old)
            if in_young:
                young[key] = value
                if touch:
                    young.move_to_end(key)
            elif touch:
                table.put(key, value)
            else:
                table.replace(key, value)
        if expires_at is not None:
            self._set_deadline(key, before, expires_at)
            if touch and self._deadlines_used is not None:
                self._deadlines_used.move_to_end(key)
        elif before is not None:
            self._drop_deadline(key, before)
        if client_flags:
            self.client_flags[key] = client_flags
        elif self.client_flags:
            self.client_flags.pop(key, 0)
        return True

    def remove(self, key: Key) -> None:
        """Take an existing key out, with all that is known of it."""
        value = self.table.pop(key)
        cost = entry_cost(key, value)
        self.used -= cost
        self.freed += cost
        self.key_counts[0 if type(key) is bytes else split_key(key)[0]] -= 1
        before = self.expires_at.get(key)
        if before is not None:
            self.used -= DEADLINE_COST
            self._drop_deadline(key, before)
        if self.client_flags and self.client_flags.pop(key, 0):
            self.used -= CLIENT_FLAGS_COST
        if self.indexes.followed:
            self.indexes.note(False, key)

    def _set_deadline(self, key: Key, before: float | None, expires_at: float) -> None:
        """Have a key expire at another moment than before (None: never)."""
        db = 0 if type(key) is bytes else split_key(key)[0]
        deadlines = self._deadlines[db]
        if before is None:
            self.deadline_counts[db] += 1
        else:
            deadlines.remove(key, round(before * 1000))
        milliseconds = expires_at * 1000
        deadline = round(milliseconds if milliseconds < _LAST_DEADLINE else _LAST_DEADLINE)
        self.expires_at[key] = deadline / 1000
        deadlines.add(key, deadline, self.expires_at)

    def _drop_deadline(self, key: Key, before: float) -> None:
        """Have a key that would expire at this moment never do so."""
        db = 0 if type(key) is bytes else split_key(key)[0]
        self.deadline_counts[db] -= 1
        self._deadlines[db].remove(key, round(before * 1000))
        del self.expires_at[key]

    def touch(self, key: Key) -> None:
        """Make an existing key the most recently used one."""
        self.table.touch(key)
        if self._deadlines_used is not None and key in self._deadlines_used:
            self._deadlines_used.move_to_end(key)

    def clear(self) -> list[OrderedDict[Key, bytes]]:
        """Take everything out; return what the entries were in, which takes long to free."""
        self.freed += self.used
        segments = self.table.segments()
        self.indexes.clear()
        self._start_empty()
        return segments

    # --- deadlines -----------------------------------------------------------------------

    def soonest_first(self) -> Iterator[Key]:
        """Yield the keys with a deadline, the earliest first; nothing may change meanwhile."""
        orders = [each.in_order(self.expires_at) for each in self._deadlines.values()]
        return (key for _, key in heapq.merge(*orders, key=itemgetter(0)))

    def order_deadlines(self, wanted: bool) -> None:
        """Let `expires_at` keep an order of use (volatile-lru needs it), or stop doing so."""
        if wanted == self._orders_deadlines:
            return
        self._orders_deadlines = wanted
        if not wanted:
            self.expires_at, self._deadlines_used = dict(self.expires_at), None
            return
        ordered = OrderedDict(self.expires_at)
        for key in self.table:  # the least recently used first
            if key in ordered:
                ordered.move_to_end(key)
        self.expires_at = self._deadlines_used = ordered

    def count_due(self, now: int, db: int) -> int:
        """Return how many keys of a database have a deadline up to `now` (milliseconds)."""
        return self._deadlines[db].count_due(now, self.expires_at) if db in self._deadlines else 0

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
        ordered = self.expires_at if self._orders_deadlines else None
        assert self._deadlines_used is ordered, "an order of deadlines that nobody keeps"
        for db in range(DATABASES):
            in_db = {key for key in there if split_key(key)[0] == db}
            expiring = {key: at for key, at in self.expires_at.items() if key in in_db}
            assert self.key_counts[db] == len(in_db), (db, self.key_counts[db], len(in_db))
            assert self.deadline_counts[db] == len(expiring), (db, self.deadline_counts[db])
            self._deadlines.get(db, Deadlines[Key]()).check(expiring)
        self.indexes.check(lambda db: {key for key in there if split_key(key)[0] == db})


def swap_databases(space: Keyspace, first: int, second: int) -> list[OrderedDict[Key, bytes]]:
    """Have all keys of two databases change places; the order of their use stays.

    Returns what the entries were in: to free it takes long. A million keys take about a second.
    """
    names = _other_names(space.table.all_keys(), first, second)
    before = space.table.rename(names)
    for side in cast(list[dict[Key, Any]], [space.expires_at, space.client_flags]):
        moved = list(zip(map(names.get, side, side), side.values(), strict=True))
        side.clear()
        side.update(moved)
    for counts in (space.key_counts, space.deadline_counts):
        counts[first], counts[second] = counts[second], counts[first]
    deadlines = space._deadlines
    deadlines[first], deadlines[second] = deadlines[second], deadlines[first]
    for db in (first, second):
        deadlines[db].rename(names)
        space.indexes.forget(db)
    # A key of database 0 stands there by itself, one of another database with its number.
    if 0 in (first, second):
        other = first or second
        space.used += TUPLE_KEY_COST * (space.key_counts[other] - space.key_counts[0])
    return before


def _other_names(keys: list[Key], first: int, second: int) -> dict[Key, Key]:
    """Return what each key of two databases is called in the other one."""
    names: dict[Key, Key] = {}
    for here, there in ((first, second), (second, first)):
        # (A function for each key would take twice as long.)
        if not here:
            names |= {key: (there, key) for key in keys if type(key) is bytes}
        elif there:
            names |= {key: (there, key[1]) for key in keys if type(key) is tuple and key[0] == here}
        else:
            names |= {key: key[1] for key in keys if type(key) is tuple and key[0] == here}
    return names
