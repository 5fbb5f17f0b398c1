"""What the store's test modules share: a store that is checked at the end of each test."""

from __future__ import annotations

import unittest
from collections.abc import Sequence

from kvdb.store import Dump, Store
from kvdb.store.entry import Entry, Key, entry_cost, has_come, key_in, split_key
from kvdb.store.feed import Change, Fact, Flush, Swap
from tests.support import ManualClock

COST = entry_cost(b"a", b"1")  # of every entry that fill() makes in database 0


class StoreCase(unittest.TestCase):
    """Has a store without a limit on a clock that stands still; ends with its check()."""

    def setUp(self) -> None:
        self.clock = ManualClock()
        self.store = Store(0, clock=self.clock)

    def tearDown(self) -> None:
        self.store.check()

    def limit(self, entries: int, more: int = 0) -> None:
        """Give the store room for exactly this many entries of fill(), and some bytes."""
        self.store.max_bytes = entries * COST + more

    def fill(self, *keys: Key) -> None:
        """Store `1` under each of these keys."""
        for key in keys:
            self.store.set(key, b"1")

    def soon(self, seconds: float = 10) -> float:
        return self.clock.now + seconds

    def there(self) -> set[Key]:
        """Return all keys of all databases, without using any."""
        return set(contents(self.store))

    def evict_all(self) -> list[Key]:
        """Shrink the budget to nothing; return the keys in the order in which they went."""
        feed = Feed(self.store)
        self.store.max_bytes = 1
        self.store.remove_listener(feed)
        return [fact.key for fact in feed.facts() if isinstance(fact, Change)]


class Feed:
    """A listener that remembers what it was told, one list for each atomic step."""

    def __init__(self, store: Store | None = None) -> None:
        self.steps: list[list[Fact]] = []
        self.numbers: list[int] = []
        if store is not None:
            store.add_listener(self)

    def __call__(self, step: int, facts: Sequence[Fact]) -> None:
        self.steps.append(list(facts))
        self.numbers.append(step)

    def facts(self) -> list[Fact]:
        return [fact for step in self.steps for fact in step]


class Replica:
    """A listener that follows a store by nothing but a copy and its change feed."""

    def __init__(self, store: Store) -> None:
        with store.atomic():  # nothing happens between the copy and the first step it hears of
            store.add_listener(self)
            self.entries = entries_of(store.dump())

    def __call__(self, step: int, facts: Sequence[Fact]) -> None:
        for fact in facts:
            if isinstance(fact, Flush):
                for key in list(self.entries):
                    if fact.db is None or split_key(key)[0] == fact.db:
                        del self.entries[key]
            elif isinstance(fact, Swap):
                place = {fact.first: fact.second, fact.second: fact.first}
                split = [(split_key(key), entry) for key, entry in self.entries.items()]
                self.entries = {
                    key_in(place.get(db, db), name): entry for (db, name), entry in split
                }
            elif fact.entry is None:
                del self.entries[fact.key]  # KeyError: gone twice, or never told
            else:
                self.entries[fact.key] = fact.entry


def entries_of(dump: Dump) -> dict[Key, Entry]:
    """Return everything that a dump holds."""
    return {
        key: Entry(value, dump.expires_at.get(key), dump.client_flags.get(key, 0))
        for key, value in zip(dump.keys, dump.values, strict=True)
    }


def contents(store: Store) -> dict[Key, Entry]:
    """Return everything that the store's dump holds, without what is due."""
    now = store.now()
    return {
        key: entry
        for key, entry in entries_of(store.dump()).items()
        if not has_come(entry.expires_at, now)
    }
