"""The change feed: what was done to the store and why, told in the order in which it was done."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from typing import NamedTuple

from kvdb.store.entry import Entry, Key


class Cause(enum.Enum):
    """Why an entry is what it is now."""

    SET = "set"
    """Its value was written, and its deadline with it."""
    CHANGED = "changed"
    """Its value was written; the deadline is as before."""
    APPENDED = "appended"
    OVERWRITTEN = "overwritten"
    """A part of its value was written; the deadline is as before, here and in the next three."""
    BITS_SET = "bits set"
    INCREMENTED = "incremented"
    INCREMENTED_BY_FLOAT = "incremented by float"
    COPIED = "copied"
    """It is a copy of another key, with that one's deadline."""
    RESTORED = "restored"
    """It was dumped somewhere, value and deadline."""
    DEADLINE = "deadline"
    """Its deadline was set, or taken away; the value is as before."""
    DELETED = "deleted"
    EXPIRED = "expired"
    EVICTED = "evicted"
    RENAMED = "renamed"
    """It has come from another key, or gone to one."""
    FLUSHED = "flushed"
    SWAPPED = "swapped"
    TAKEN_BACK = "taken back"
    """It holds again what it held before, because the disk refused what came since."""


class Change(NamedTuple):
    """One fact of the change feed: what a key holds now, or that it is gone, and why."""

    key: Key
    value: bytes | None  # None: gone
    expires_at: float | None = None
    client_flags: int = 0
    cause: Cause = Cause.SET

    @property
    def entry(self) -> Entry | None:
        """The entry as it is now; None if it is gone."""
        if self.value is None:
            return None
        return Entry(self.value, self.expires_at, self.client_flags)


class Flush(NamedTuple):
    """One fact of the change feed: a database (None: every one) is empty now."""

    db: int | None
    cause: Cause = Cause.FLUSHED


class Swap(NamedTuple):
    """One fact of the change feed: the keys of two databases have changed places."""

    first: int
    second: int
    cause: Cause = Cause.SWAPPED


Fact = Change | Flush | Swap
"""Whoever listens has to know all three of them."""

Listener = Callable[[int, Sequence[Fact]], None]
"""Takes the number of a step and its facts. Steps are numbered from 1 on, without gaps."""


class ChangeFeed:
    """Facts of the step under way, and who is told of them. The store's lock guards it."""

    def __init__(self) -> None:
        self.listeners: tuple[Listener, ...] = ()
        self.step = 0
        """Number of the last step that was told. Without a listener, nothing is numbered."""
        self.facts: list[Fact] = []
        """Of the step under way. Whoever adds one has made sure that somebody listens."""
        self.on_miss: Callable[[Key], None] | None = None
        """Told, under the lock, of each key that a reader has not found."""

    def add(self, listener: Listener) -> None:
        """Have this listener told of every step from now on."""
        self.listeners += (listener,)

    def remove(self, listener: Listener) -> None:
        """Tell this listener no more."""
        self.listeners = tuple(each for each in self.listeners if each != listener)

    def publish(self) -> None:
        """End a step that has facts: number it, and hand them to the listeners."""
        facts, self.facts = self.facts, []
        self.step = step = self.step + 1
        for listener in self.listeners:
            listener(step, facts)
