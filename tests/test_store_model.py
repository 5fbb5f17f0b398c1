"""The store against a model of it that knows nothing of tables, buckets and indexes.

Random operations go to both; after each, everything that can be seen of them must be the same.
`KVDB_MODEL_STEPS=20000` has it run longer than usual.
"""

from __future__ import annotations

import functools
import os
import random
import sys
import unittest
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from unittest import mock

from kvdb.errors import CommandError, EntryTooLarge, OutOfMemory
from kvdb.store import Store
from kvdb.store.budget import EvictionPolicy
from kvdb.store.entry import (
    CLIENT_FLAGS_COST,
    DEADLINE_COST,
    NOTE_COST,
    Entry,
    Key,
    entry_cost,
    has_come,
    key_in,
    split_key,
)
from kvdb.store.feed import Cause, Fact, Flush, Swap
from kvdb.store.recency import RecencyTable
from kvdb.store.scans import hash_of
from tests.store_case import COST, Replica, entries_of
from tests.support import ManualClock

BUDGETS = (10 * COST, 25 * COST, 25 * COST + 50, 60 * COST)
STEPS = int(os.environ.get("KVDB_MODEL_STEPS", "800"))  # of each run
DATABASES = (0, 1, 5)
KEYS = [key_in(db, b"%d" % number) for db in DATABASES for number in range(12)]
POLICIES = (  # those that leave nothing to chance
    EvictionPolicy.ALLKEYS_LRU,
    EvictionPolicy.VOLATILE_LRU,
    EvictionPolicy.NOEVICTION,
)
FIGURES = ("changes", "hits", "misses", "expired_keys", "evicted_keys", "used_bytes", "max_bytes")


class Model:
    """One dict, one list in order of use, one clock; each rule of the store in its plainest form.

    `volatile` is the order of those with a deadline. It is the order of use, except that a key
    joins at its end, even if nothing counts as use.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.entries: dict[Key, Entry] = {}
        self.order: list[Key] = []
        self.volatile: list[Key] = []
        self.notes: dict[Key, object] = {}
        self.writes: Counter[Key] = Counter()  # what breaks a version
        self.facts: Counter[object] = Counter()
        self.policy, self.touching = EvictionPolicy.ALLKEYS_LRU, True
        self.budget, self.allowance = 0, sys.maxsize
        self.changes = self.hits = self.misses = self.expired_keys = self.evicted_keys = 0

    @property
    def max_bytes(self) -> int:
        return self.budget

    @property
    def limit(self) -> int:
        return min(self.budget or sys.maxsize, self.allowance)

    @property
    def used_bytes(self) -> int:
        return sum(map(self.cost, self.order))

    def cost(self, key: Key) -> int:
        return cost_of(key, self.entries[key]) + NOTE_COST * (key in self.notes)

    def is_due(self, key: Key) -> bool:
        return has_come(self.entries[key].expires_at, self.clock())

    def live(self, db: int) -> list[Key]:
        return [key for key in self.order if split_key(key)[0] == db and not self.is_due(key)]

    def look(self, key: Key) -> Entry | None:
        if key in self.entries and self.is_due(key):
            self.remove(key, Cause.EXPIRED)
        return self.entries.get(key)

    def use(self, key: Key, always: bool = False) -> None:
        if key not in self.order:
            self.order.append(key)
        if self.touching or always:
            for order in (self.order, self.volatile):
                if key in order:
                    order.append(order.pop(order.index(key)))

    def keep(self, key: Key, entry: Entry) -> None:
        at = entry.expires_at
        self.entries[key] = entry if at is None else entry._replace(expires_at=round(at, 3))
        if at is None and key in self.volatile:
            self.volatile.remove(key)
        elif at is not None and key not in self.volatile:
            self.volatile.append(key)
        self.use(key)

    def choose(self, policy: EvictionPolicy) -> None:
        if policy is not self.policy:
            self.volatile.sort(key=self.order.index)
        self.policy = policy
        self.evict(0, ())

    def read(self, key: Key) -> Entry | None:
        entry = self.look(key)
        self.hits, self.misses = self.hits + (entry is not None), self.misses + (entry is None)
        if entry:
            self.use(key)
        return entry

    def record(self, key: Key, cause: Cause, keep_version: bool = False) -> None:
        self.changes += 1
        self.facts[key, cause] += 1
        if not keep_version:
            self.writes[key] += 1
            self.notes.pop(key, None)

    def remove(self, key: Key, cause: Cause) -> None:
        del self.entries[key]
        self.order.remove(key)
        if key in self.volatile:
            self.volatile.remove(key)
        self.record(key, cause)
        self.expired_keys += cause is Cause.EXPIRED
        self.evicted_keys += cause is Cause.EVICTED

    def put(self, key: Key, entry: Entry, cause: Cause = Cause.SET) -> None:
        """Write an entry for which there is room."""
        if not has_come(entry.expires_at, self.clock()):
            self.keep(key, entry)
            self.record(key, cause)
        elif key in self.entries:
            self.remove(key, Cause.DELETED)

    def swap(self, place: Mapping[int, int]) -> None:
        """Have the keys of two databases change places."""
        before = [key for key in self.order if split_key(key)[0] in place]
        names = {key: key_in(place[split_key(key)[0]], split_key(key)[1]) for key in before}
        self.entries = {names.get(key, key): entry for key, entry in self.entries.items()}
        self.order = [names.get(key, key) for key in self.order]
        self.volatile = [names.get(key, key) for key in self.volatile]
        for key in {*names, *names.values()}:
            self.writes[key] += 1
            self.notes.pop(key, None)
        self.changes += max(1, len(before))

    def write(self, key: Key, entry: Entry, cause: Cause = Cause.SET) -> None:
        """Write an entry and make room for it."""
        old = self.entries.get(key)
        growth = cost_of(key, entry) - (cost_of(key, old) if old else 0)
        passed = has_come(entry.expires_at, self.clock())
        if not passed and growth > 0 and self.used_bytes + growth > self.limit:
            self.make_room({key: cost_of(key, entry)})
        self.put(key, entry, cause)

    def make_room(self, costs: Mapping[Key, int]) -> None:
        total = sum(costs.values())
        if total > (self.budget or sys.maxsize):
            raise EntryTooLarge(total, self.budget)
        if self.used_bytes + total <= self.limit:
            return
        for key in filter(self.is_due, list(self.order)):
            self.remove(key, Cause.EXPIRED)
        needed = total - sum(self.cost(key) for key in costs if key in self.entries)
        fits = needed <= 0 or self.evict(needed, costs)
        # What is within the budget is stored beyond an allowance, if anything may be evicted.
        if not fits and (total <= self.limit or self.policy is not EvictionPolicy.ALLKEYS_LRU):
            raise OutOfMemory

    def evict(self, needed: int, keep: Iterable[Key]) -> bool:
        orders = {
            EvictionPolicy.ALLKEYS_LRU: self.order,
            EvictionPolicy.VOLATILE_LRU: self.volatile,
        }
        for key in list(orders.get(self.policy, ())):
            if self.used_bytes + needed > self.limit and key not in keep:
                self.remove(key, Cause.EVICTED)
        return self.used_bytes + needed <= self.limit


def cost_of(key: Key, entry: Entry) -> int:
    deadline, flags = entry.expires_at is not None, bool(entry.client_flags)
    return entry_cost(key, entry.value) + DEADLINE_COST * deadline + CLIENT_FLAGS_COST * flags


class Run:
    """One store, one model, and what is done to both of them."""

    def __init__(
        self,
        test: unittest.TestCase,
        chance: random.Random,
        policy: EvictionPolicy,
        listening: bool,
    ) -> None:
        self.test, self.chance = test, chance
        self.clock = ManualClock()
        self.frozen: float | None = None
        self.store = Store(0, clock=self.clock)
        self.model = Model(lambda: self.clock.now if self.frozen is None else self.frozen)
        self.store.max_bytes = self.model.budget = chance.choice((0, *BUDGETS))
        self.seen: list[tuple[Key, int, int]] = []  # key, token, writes to the key by then
        self.own_token = 2**62  # what was last given to set_version()
        self.watched: list[tuple[Key, int, int]] = []
        self.log: list[str] = []
        self.same("restore", self.store.restore, self.restore, self.entries(12))
        self.store.policy = policy
        self.model.choose(policy)
        self.facts: Counter[object] = Counter()
        self.replica: Replica | None = None
        if listening:
            self.model.facts.clear()
            self.replica = Replica(self.store)
            self.store.add_listener(self.listen)

    def listen(self, step: int, facts: Iterable[Fact]) -> None:
        for fact in facts:
            if isinstance(fact, Swap):
                self.facts[fact.first, fact.second, fact.cause] += 1
            else:
                self.facts[fact.db if isinstance(fact, Flush) else fact.key, fact.cause] += 1

    # --- chances -------------------------------------------------------------------------

    def key(self) -> Key:
        return self.chance.choice(KEYS)

    def keys(self) -> list[Key]:
        return [self.key() for _ in range(self.chance.randrange(1, 5))]

    def value(self) -> bytes:
        return b"x" * self.chance.choice((0, 1, 1, 1, 40, 200, 900))

    def moment(self) -> float | None:
        if self.chance.random() < 0.5:
            return None
        return self.clock.now + self.chance.choice(
            (-3.0, 0.0, 0.0004, 0.25, 1.0006, 2.0, 5.5, 60.0)
        )

    def entry(self) -> Entry:
        return Entry(self.value(), self.moment(), self.chance.choice((0, 0, 7)))

    def entries(self, most: int) -> list[tuple[Key, Entry]]:
        return [(self.key(), self.entry()) for _ in range(self.chance.randrange(most))]

    # --- operations ----------------------------------------------------------------------

    def same(
        self, name: str, real: Callable[..., Any], modelled: Callable[..., Any], *given: Any
    ) -> None:
        """Do this to both; they must answer alike, or refuse alike."""
        self.log.append(f"{name} {given}")
        answers = []
        for operation in (real, modelled):
            try:
                answers.append(operation(*given))
            except CommandError as refusal:
                answers.append((type(refusal), str(refusal)))
        self.test.assertEqual(*answers)

    def do(self) -> None:
        """Do something to both."""
        (name,) = self.chance.choices(list(OPERATIONS), list(OPERATIONS.values()))
        getattr(self, "do_" + name)()

    def do_get(self) -> None:
        self.same("get", self.store.get, lambda key: value_of(self.model.read(key)), self.key())

    def do_get_entry(self) -> None:
        self.same("get_entry", self.store.get_entry, self.model.read, self.key())

    def do_get_many(self) -> None:
        read = self.model.read
        self.same(
            "get_many", self.store.get_many, lambda keys: [value_of(read(key)) for key in keys],
            self.keys(),
        )  # fmt: skip

    def do_entry(self) -> None:
        self.same("entry", self.store.entry, self.model.look, self.key())

    def do_exists(self) -> None:
        self.same(
            "exists", self.store.exists, lambda key: self.model.look(key) is not None, self.key()
        )

    def do_touch(self) -> None:
        def touch(key: Key) -> bool:
            there = self.model.look(key) is not None
            if there:
                self.model.use(key, always=True)
            return there

        self.same("touch", self.store.touch, touch, self.key())

    def do_cost(self) -> None:
        def cost(key: Key) -> int | None:
            return self.model.cost(key) if self.model.look(key) else None

        self.same("cost", self.store.cost, cost, self.key())

    def do_scan(self) -> None:
        def scan(cursor: int, count: int, db: int) -> tuple[int, list[bytes]]:
            names = [split_key(key)[1] for key in self.model.order if split_key(key)[0] == db]
            names = sorted((name for name in names if hash_of(name) >= cursor), key=hash_of)
            live = {split_key(key)[1] for key in self.model.live(db)}
            following = hash_of(names[count]) if len(names) > count else 0
            return following, [name for name in names[:count] if name in live]

        cursor = self.chance.choice((0, 0, self.chance.randrange(2**31)))
        db = self.chance.choice(DATABASES)
        self.same("scan", self.store.scan, scan, cursor, self.chance.randrange(1, 10), db)

    def do_random_key(self) -> None:
        db = self.chance.choice(DATABASES)
        self.log.append(f"random_key {db}")
        name = self.store.random_key(db)
        self.learn_what_expired()
        live = self.model.live(db)
        self.test.assertIn(None if name is None else key_in(db, name), live or [None])

    def do_set(self) -> None:
        def write(key: Key, value: bytes, **sides: Any) -> None:
            self.model.write(key, Entry(value, sides["expires_at"], sides["client_flags"]))

        key, (value, expires_at, client_flags) = self.key(), self.entry()
        self.same(
            f"set {expires_at} {client_flags}",
            lambda *given: self.store.set(*given, expires_at=expires_at, client_flags=client_flags),
            lambda *given: write(*given, expires_at=expires_at, client_flags=client_flags),
            key,
            value,
        )

    def each(self, write: Callable[[Key, Any], Any], pairs: Iterable[tuple[Key, Any]]) -> list[Any]:
        """Do one after the other; return what each has returned, or the type of its refusal."""
        answers: list[Any] = []
        for key, value in pairs:
            try:
                answers.append(write(key, value))
            except CommandError as refusal:
                answers.append(type(refusal))
        return answers

    def do_set_each(self) -> None:
        def real(keys: list[Key], values: list[bytes]) -> list[Any]:
            return [error and type(error) for error in self.store.set_each(keys, values)]

        def modelled(keys: list[Key], values: list[bytes]) -> list[Any]:
            write = self.model.write
            return self.each(
                lambda key, value: write(key, Entry(value)), zip(keys, values, strict=True)
            )

        keys = self.keys()
        self.same("set_each", real, modelled, keys, [self.value() for _ in keys])

    def do_write_many(self) -> None:
        def write_many(values: dict[Key, bytes | None]) -> None:
            for key in values:
                self.model.look(key)
            self.model.make_room(
                {
                    key: 0 if value is None else entry_cost(key, value)
                    for key, value in values.items()
                }
            )
            for key, value in values.items():
                if value is not None:
                    self.model.put(key, Entry(value))
                elif key in self.model.entries:
                    self.model.remove(key, Cause.DELETED)

        values = {key: self.chance.choice((None, self.value())) for key in self.keys()}
        self.same("write_many", self.store.write_many, write_many, values)

    def update(self, key: Key, change: Callable[[bytes | None], bytes]) -> bytes:
        old = self.model.look(key)
        new = (old or Entry(b""))._replace(value=change(value_of(old)))
        self.model.write(key, new, Cause.CHANGED)
        return new.value

    def change(self) -> Callable[[bytes | None], bytes]:
        """Return a change for update(), which refuses some values."""
        more = self.value()

        def appended(old: bytes | None) -> bytes:
            if old and len(old) > 300:
                raise CommandError("ERR too long")
            return (old or b"") + more

        return appended

    def do_update(self) -> None:
        self.same("update", self.store.update, self.update, self.key(), self.change())

    def do_update_each(self) -> None:
        def real(keys: list[Key]) -> list[Any]:
            values = self.store.update_each(keys, change)
            return [each if isinstance(each, bytes) else type(each) for each in values]

        change = self.change()
        self.same(
            "update_each", real,
            lambda keys: self.each(self.update, ((key, change) for key in keys)), self.keys(),
        )  # fmt: skip

    def do_delete(self) -> None:
        def delete(*keys: Key) -> int:
            live = [key for key in dict.fromkeys(keys) if self.model.look(key)]
            for key in live:
                self.model.remove(key, Cause.DELETED)
            return len(live)

        self.same("delete", self.store.delete, delete, *self.keys())

    def do_rename(self) -> None:
        def rename(source: Key, destination: Key) -> bool:
            entry = self.model.look(source)
            if entry is None:
                return False
            cost = cost_of(destination, entry)
            if cost > (self.model.budget or sys.maxsize):
                raise EntryTooLarge(cost, self.model.budget)
            if source != destination:
                self.model.remove(source, Cause.RENAMED)
                self.model.put(destination, entry, Cause.RENAMED)
                self.model.evict(0, (destination,))
            return True

        self.same("rename", self.store.rename, rename, self.key(), self.key())

    def do_set_deadline(self) -> None:
        def set_deadline(key: Key, expires_at: float | None) -> bool:
            entry = self.model.look(key)
            if entry is None:
                return False
            if has_come(expires_at, self.model.clock()):
                self.model.remove(key, Cause.DELETED)
                return True
            self.model.keep(key, entry._replace(expires_at=expires_at))
            self.model.record(key, Cause.DEADLINE, keep)
            self.model.evict(0, (key,))
            return True

        keep = self.chance.choice((False, True))
        self.same(
            f"set_deadline keep_version={keep}",
            lambda *given: self.store.set_deadline(*given, keep_version=keep),
            set_deadline,
            self.key(),
            self.moment(),
        )

    def do_flush(self) -> None:
        def flush(db: int | None) -> None:
            for key in [key for key in self.model.order if db in (None, split_key(key)[0])]:
                self.model.remove(key, Cause.FLUSHED)
                del self.model.facts[key, Cause.FLUSHED]
            self.model.facts[db, Cause.FLUSHED] += 1

        self.same("flush", self.store.flush, flush, self.chance.choice((None, *DATABASES, 3)))

    def do_swap(self) -> None:
        def swap(first: int, second: int) -> None:
            if first != second:
                self.model.swap({first: second, second: first})
                self.model.facts[first, second, Cause.SWAPPED] += 1
                self.model.evict(0, ())

        self.same("swap", self.store.swap, swap, *self.chance.choices(DATABASES, k=2))

    def do_put_back(self) -> None:
        def put_back(entries: list[tuple[Key, Entry | None]]) -> None:
            for key, entry in entries:
                if entry is not None:
                    self.model.put(key, entry, Cause.TAKEN_BACK)
                elif key in self.model.entries:
                    self.model.remove(key, Cause.TAKEN_BACK)

        entries = [(self.key(), self.chance.choice((None, self.entry()))) for _ in range(3)]
        self.same("put_back", self.store.put_back, put_back, entries)

    def restore(self, entries: list[tuple[Key, Entry]]) -> int:
        now = self.model.clock()
        fresh = [
            (key, entry)
            for key, entry in dict(entries).items()
            if not has_come(entry.expires_at, now)
        ]
        refused = len([each for each in self.each(self.model.write, fresh) if each])
        did_not_fit = refused + self.model.evicted_keys
        self.model.changes = self.model.evicted_keys = 0
        return did_not_fit

    # --- versions ------------------------------------------------------------------------

    def do_version(self) -> None:
        key = self.key()
        self.log.append(f"version {key!r}")
        token, entry = self.store.version(key), self.model.look(key)
        if entry is None and key not in {watched for watched, _, _ in self.watched}:
            self.test.assertEqual(token, 0)
            return
        self.saw(key, token)

    def saw(self, key: Key, token: int) -> None:
        """A token is the one before if nobody has written the key since, or else a new one."""
        writes = self.model.writes[key]
        for other, earlier, writes_then in self.seen + self.watched:
            if other == key and writes_then == writes:
                self.test.assertEqual(token, earlier)
            else:
                self.test.assertNotEqual(token, earlier)
        if self.model.look(key):
            self.seen = [*self.seen[-10:], (key, token, writes)]

    def do_watch(self) -> None:
        key = self.key()
        if len(self.watched) > 5:
            self.store.unwatch(self.watched.pop(0)[0])
        self.log.append(f"watch {key!r}")
        token = self.store.watch(key)
        self.model.look(key)
        self.saw(key, token)
        self.watched.append((key, token, self.model.writes[key]))

    def do_unchanged(self) -> None:
        for key, token, writes in self.seen + self.watched:
            self.model.look(key)
            self.same(
                f"unchanged {key!r}", lambda key=key, token=token: self.store.unchanged(key, token),
                lambda key=key, writes=writes: self.model.writes[key] == writes,
            )  # fmt: skip

    def do_note(self) -> None:
        def note(key: Key) -> object:
            return self.model.notes.get(key) if self.model.look(key) else None

        self.same("note", self.store.note, note, self.key())

    def do_set_note(self) -> None:
        def set_note(key: Key, note: object) -> None:
            if self.model.look(key):
                self.model.notes[key] = note
                if note is None:
                    del self.model.notes[key]

        self.same(
            "set_note",
            self.store.set_note,
            set_note,
            self.key(),
            self.chance.choice((None, "a", "b")),
        )

    def do_set_version(self) -> None:
        key, self.own_token = self.key(), self.own_token + 1

        def set_version(key: Key, version: int) -> None:
            if self.model.look(key):  # who has another token has to see that it is another
                self.model.writes[key] += 1
                self.seen.append((key, version, self.model.writes[key]))

        self.same("set_version", self.store.set_version, set_version, key, self.own_token)

    # --- settings, time, steps -----------------------------------------------------------

    def do_max_bytes(self) -> None:
        budget = self.chance.choice((0, *BUDGETS))
        self.log.append(f"max_bytes {budget}")
        self.store.max_bytes = self.model.budget = budget
        self.model.evict(0, ())

    def do_allow(self) -> None:
        allowance = self.chance.choice((sys.maxsize, sys.maxsize, *BUDGETS, 0))
        self.log.append(f"allow {allowance}")
        self.store.allow(allowance)
        self.model.allowance = allowance
        self.model.evict(0, ())

    def do_policy(self) -> None:
        policy = self.chance.choice([self.store.policy, *POLICIES])
        self.log.append(f"policy {policy}")
        self.store.policy = policy
        self.model.choose(policy)

    def do_without_touching(self) -> None:
        if not self.model.touching:
            return
        self.log.append("without touching:")
        outer = self.frozen
        with self.store.atomic(touching=False):
            self.frozen, self.model.touching = self.store.now(), False
            self.do()
        self.frozen, self.model.touching = outer, True

    def do_atomic(self) -> None:
        if self.frozen is not None:
            return
        self.log.append("atomic:")
        with self.store.atomic():
            self.frozen = self.store.now()
            for _ in range(self.chance.randrange(4)):
                self.do()
                self.compare()
        self.frozen = None

    def do_expire_due(self) -> None:
        limit = self.chance.choice((1, 2, 1_000))
        self.log.append(f"expire_due {limit}")
        due = sum(map(self.model.is_due, self.model.order))
        more = self.store.expire_due(limit)
        self.test.assertEqual(self.learn_what_expired(), min(due, limit))
        self.test.assertEqual(more, due >= limit)

    def learn_what_expired(self) -> int:
        """Have the model lose what the store was free to choose among the keys that are due."""
        gone = self.model.entries.keys() - entries_of(self.store.dump()).keys()
        for key in gone:
            self.test.assertTrue(self.model.is_due(key), key)
            self.model.remove(key, Cause.EXPIRED)
        return len(gone)

    def do_clock(self) -> None:
        self.clock.now += self.chance.choice((0.25, 0.25, 0.001, 1.0, 1.0, 3.0, -0.5))
        self.log.append(f"clock {self.clock.now}")

    # --- comparing -----------------------------------------------------------------------

    def compare(self) -> None:
        """Compare everything that can be seen, and nothing that looking at it would change."""
        store, model, equal = self.store, self.model, self.test.assertEqual
        entries = entries_of(store.dump())
        equal(entries, model.entries)
        equal(list(store._space.table), model.order)
        for figure in FIGURES:
            equal(getattr(store, figure), getattr(model, figure), figure)
        if store.policy is EvictionPolicy.VOLATILE_LRU:
            equal(list(store._space.expires_at), model.volatile)
        sizes: dict[int, tuple[int, int, float]] = {}
        for db in DATABASES:
            live = model.live(db)
            equal(store.size(db), len(live))
            equal({key_in(db, name) for name in store.keys(db)}, set(live))
            left = [
                at - model.clock()
                for key in live
                if (at := model.entries[key].expires_at) is not None
            ]
            if live:
                sizes[db] = len(live), len(left), sum(left) / max(1, len(left))
        shown = store.sizes()
        equal(
            {db: size[:2] for db, size in shown.items()},
            {db: size[:2] for db, size in sizes.items()},
        )
        for db, (_, _, mean) in sizes.items():
            self.test.assertAlmostEqual(shown[db][2], mean, 6)
        if self.replica and self.frozen is None:
            equal(self.replica.entries, entries)
            equal(self.facts, model.facts)

    def run(self, steps: int) -> None:
        for step in range(steps):
            self.do()
            self.compare()
            if step % 20 == 0:
                self.check()
        for key, _, _ in self.watched:
            self.store.unwatch(key)
        self.check()

    def check(self) -> None:
        if self.model.used_bytes <= self.model.limit:
            self.store.check()
        else:  # put_back() asks nobody for room
            self.store._space.check()
            self.store._versions.check(set(self.model.entries))


def value_of(entry: Entry | None) -> bytes | None:
    return None if entry is None else entry.value


OPERATIONS = {name.removeprefix("do_"): 10 for name in vars(Run) if name.startswith("do_")}
"""How often each is done, compared with the others."""

OPERATIONS |= {"set": 60, "set_deadline": 20, "clock": 20, "get": 20, "delete": 5, "unchanged": 5}
OPERATIONS |= {
    "max_bytes": 2,
    "allow": 2,
    "policy": 1,
    "flush": 2,
    "swap": 3,
}  # or there is never much


class StoreModelTest(unittest.TestCase):
    def test_the_store_does_what_its_model_does(self) -> None:
        seed = random.randrange(2**32)
        for policy in POLICIES:
            for capacity in (None, 8):
                for listening in (False, True):
                    seed += 1
                    with self.subTest(policy, seed=seed, capacity=capacity, listening=listening):
                        table = mock.patch(
                            "kvdb.store.keyspace.RecencyTable",
                            functools.partial(RecencyTable, *[capacity] * bool(capacity)),
                        )
                        with table:
                            self.run_once(random.Random(seed), policy, listening)

    def run_once(self, chance: random.Random, policy: EvictionPolicy, listening: bool) -> None:
        run = Run(self, chance, policy, listening)
        try:
            run.compare()
            run.run(STEPS)
        except AssertionError as failure:
            failure.add_note("The last operations: " + "; ".join(run.log[-5:]))
            raise

    def test_every_method_that_reads_or_writes_entries_is_among_the_operations(self) -> None:
        """Whoever adds one has to say what it does in a few lines."""
        others = {
            "now", "step", "step_under_way", "clock", "dump", "size", "sizes", "keys",  # compared after each step
            "add_listener", "remove_listener", "follow", "unwatch", "restore", "has_index",  # used by every run
            "total_keys", "used_bytes", "index_bytes", "freed_bytes", "drop_idle_indexes", "reset_statistics",
            "seconds_to_next_deadline", "reclaimed_keys", "check",
            "is_full", "facts_under_way", "tell_miss", "set_noticers",  # tested elsewhere
        }  # fmt: skip
        public = {name for name in dir(Store) if not name.startswith("_")}
        self.assertEqual(public - others, set(OPERATIONS) - {"clock", "without_touching"})
