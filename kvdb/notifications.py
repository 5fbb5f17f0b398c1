"""Keyspace notifications: what happens to keys, published for whoever listens (Redis's).

The change feed says what was done to which key; its causes are as fine as the names of Redis's
events. What is no change, or does not show in one, the store notices for us while somebody wants
to know: keys that readers do not find, and keys that were not there before.

The store tells all of it under its lock, where it is only put aside; publish() turns it into
messages later, on the event loop's thread, in the order in which it happened. A key's event
comes after the reply to the command that caused it.

While notify-keyspace-events asks for nothing, nobody is told anything: it costs nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from kvdb.event_classes import (
    EVICTED,
    EXPIRED,
    GENERIC,
    KEYEVENT,
    KEYSPACE,
    MISS,
    NEW,
    STRING,
    parse_event_classes,
    show_event_classes,
)
from kvdb.pubsub import Hub, Kind
from kvdb.store import Store
from kvdb.store.entry import Key, split_key
from kvdb.store.feed import Cause, Change, Fact

_TURN: Final = 50_000  # patterns that events are held against, before others have their turn
_EVENT: Final = 100  # what an event itself costs, beside the patterns, in the same unit
_HELD_BYTES: Final = 8 * 1024 * 1024  # of what waits to be published; then writers wait
_FACT_BYTES: Final = 400  # what a fact takes beside its value, or a miss

_VALUE_EVENTS: Final = {
    Cause.SET: (STRING, b"set"),
    Cause.CHANGED: (STRING, b"set"),
    Cause.APPENDED: (STRING, b"append"),
    Cause.OVERWRITTEN: (STRING, b"setrange"),
    Cause.BITS_SET: (STRING, b"setbit"),
    Cause.INCREMENTED: (STRING, b"incrby"),
    Cause.INCREMENTED_BY_FLOAT: (STRING, b"incrbyfloat"),
    Cause.COPIED: (GENERIC, b"copy_to"),
    Cause.RESTORED: (GENERIC, b"restore"),
    Cause.TAKEN_BACK: (STRING, b"set"),  # Redis has no such thing; the value is another one
}
"""The class of the event and its name, for a key that holds a value now."""

_END_EVENTS: Final = {
    Cause.DELETED: (GENERIC, b"del"),
    Cause.TAKEN_BACK: (GENERIC, b"del"),
    Cause.EXPIRED: (EXPIRED, b"expired"),
    Cause.EVICTED: (EVICTED, b"evicted"),
}
"""The same, for a key that is gone."""

_REPLACES: Final = (Cause.COPIED, Cause.RESTORED)
"""What takes the place of the key that was there: to Redis that is a new one."""

Event = tuple[str, bytes, Key]
"""Its class, its name, and the key that it has happened to."""


class _Step(NamedTuple):
    """What one step of the store has done, and what was noticed meanwhile."""

    facts: Sequence[Fact]
    new: set[int]  # the places of facts that are the first of their key
    misses: list[
        tuple[int, Key]
    ]  # keys that were not found, each with how many facts it came after

    @property
    def held_bytes(self) -> int:
        """What it takes, about."""
        total = _FACT_BYTES * (len(self.facts) + len(self.misses))
        for fact in self.facts:
            if isinstance(fact, Change):
                total += len(fact.value or b"")
        return total


class Notifications:
    """Turns what the store tells into messages. The store's lock guards what is put aside.

    What has been put aside and published is counted apart, each by one thread at a time.
    """

    def __init__(self, store: Store, hub: Hub) -> None:
        self._store, self._hub = store, hub
        self.classes: frozenset[str] = frozenset()
        """The letters of what is told; they are changed by use() only."""
        self.call_soon: Callable[[Callable[[], None]], object] = lambda call: call()
        """Has something called on the one thread that publishes what happens."""
        self._listens = False
        self._steps: deque[_Step] = deque()
        self._is_called = False  # publish() was asked for, and has not begun since
        self._new: set[int] = set()  # of the step under way, as in _Step
        self._misses: list[tuple[int, Key]] = []
        self._events: Iterator[Event] = iter(())  # of the step that is being published
        self._bytes_of_step = 0  # of the same
        self._bytes_put_aside = self._bytes_published = 0  # since the start
        self._room = threading.Condition()  # notified when there is some again

    def use(self, text: str) -> None:
        """Tell what these letters of notify-keyspace-events say from now on. Raises ValueError."""
        classes = parse_event_classes(text)
        told = classes - {KEYSPACE, KEYEVENT} if classes & {KEYSPACE, KEYEVENT} else frozenset()
        with self._store.atomic():
            self.classes = classes
            if bool(told) != self._listens:
                self._listens = bool(told)
                if told:
                    self._store.add_listener(self._hear)
                else:
                    self._store.remove_listener(self._hear)
            self._store.set_noticers(
                self._note_miss if MISS in told else None, self._note_new if NEW in told else None
            )

    def __str__(self) -> str:
        return show_event_classes(self.classes)

    # --- how much waits ------------------------------------------------------------------

    @property
    def held_bytes(self) -> int:
        """What waits to be published takes."""
        return max(0, self._bytes_put_aside - self._bytes_published)

    @property
    def congested(self) -> bool:
        """Whether so much waits to be published that whoever writes has to wait."""
        return self.held_bytes > _HELD_BYTES

    def wait_for_room(self) -> None:
        """Wait as long as whoever writes has to, a second at most.

        The thread that publishes must not call it.
        """
        if self.congested:
            with self._room:
                self._room.wait_for(lambda: not self.congested, timeout=1.0)

    # --- called by the store, under its lock ---------------------------------------------

    def _note_new(self, key: Key) -> None:
        self._new.add(len(self._store.facts_under_way))

    def _note_miss(self, key: Key) -> None:
        place = len(self._store.facts_under_way)
        if place:
            self._misses.append((place, key))
        else:
            self._put_aside(_Step((), set(), [(0, key)]))

    def _hear(self, step: int, facts: Sequence[Fact]) -> None:
        new, misses = self._new, self._misses
        if new:
            self._new = set()
        if misses:
            self._misses = []
        self._put_aside(_Step(facts, new, misses))

    def _put_aside(self, step: _Step) -> None:
        if not self._hub.clients:
            return  # nobody could hear of it
        self._steps.append(step)
        self._bytes_put_aside += step.held_bytes
        if not self._is_called:
            self._is_called = True
            self.call_soon(self.publish)

    # --- called by the one thread that publishes -----------------------------------------

    def publish(self) -> None:
        """Publish what was put aside, some of it at a time; without the store's lock."""
        self._is_called = False  # first: what comes now is found below, or asks for another call
        classes, publish = self.classes, self._hub.publish
        for _ in range(max(1, _TURN // (_EVENT + self._hub.count(Kind.PATTERN)))):
            event = next(self._events, None)
            if event is None:
                self._note_published()
                if not self._steps:
                    return
                step = self._steps.popleft()
                self._events, self._bytes_of_step = _events_of(step), step.held_bytes
                continue
            letter, name, key = event
            if letter not in classes:
                continue
            db, key_name = split_key(key)
            if KEYSPACE in classes:
                publish(b"__keyspace@%d__:%b" % (db, key_name), name)
            if KEYEVENT in classes:
                publish(b"__keyevent@%d__:%b" % (db, name), key_name)
        self._is_called = True
        self.call_soon(self.publish)

    def _note_published(self) -> None:
        was_congested = self.congested
        self._bytes_published += self._bytes_of_step
        self._bytes_of_step = 0
        if was_congested and not self.congested:
            with self._room:
                self._room.notify_all()


def _events_of(step: _Step) -> Iterator[Event]:
    """Yield the events of a step in the order in which they happened."""
    facts, new, misses = step
    missed = iter(misses)
    miss = next(missed, None)
    for place, fact in enumerate(facts):
        while miss is not None and miss[0] <= place:
            yield MISS, b"keymiss", miss[1]
            miss = next(missed, None)
        if not isinstance(fact, Change):
            continue  # as in Redis, nobody is told of each key
        if fact.cause is Cause.RENAMED:
            if fact.value is None:  # the next fact is where it has gone
                yield from _renamed(fact.key, facts[place + 1].key)  # type: ignore[union-attr]
            continue
        if place in new or fact.cause in _REPLACES:
            yield NEW, b"new", fact.key
        yield from _events_of_change(fact)
    while miss is not None:
        yield MISS, b"keymiss", miss[1]
        miss = next(missed, None)


def _events_of_change(fact: Change) -> Iterator[Event]:
    key, cause, expires_at = fact.key, fact.cause, fact.expires_at
    if fact.value is None:
        yield (*_END_EVENTS[cause], key)
    elif cause is Cause.DEADLINE:
        yield GENERIC, b"persist" if expires_at is None else b"expire", key
    else:
        yield (*_VALUE_EVENTS[cause], key)
        if cause is Cause.SET and expires_at is not None:
            yield GENERIC, b"expire", key


def _renamed(source: Key, destination: Key) -> Iterator[Event]:
    """Yield what is told of an entry that has another key now; to Redis that is a new one."""
    word = b"rename" if split_key(source)[0] == split_key(destination)[0] else b"move"
    yield NEW, b"new", destination
    yield GENERIC, word + b"_from", source
    yield GENERIC, word + b"_to", destination
