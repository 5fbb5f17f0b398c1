"""What is not in the journal's file yet: the queue of changes, and the group being written."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Final

from kvdb.store import Dump
from kvdb.store.entry import Entry, Key, split_key
from kvdb.store.feed import Change, Fact, Flush

_CHANGE_BYTES: Final = 150  # what a change takes in the queue beside its key and value


class Group:
    """What is written together: changes after flushes, up to a step."""

    def __init__(
        self,
        changes: dict[Key, Entry | None],
        flushed: set[int | None],
        step: int,
        entries: int | None,
    ) -> None:
        """`entries` is how many there are in the store then."""
        self._changes, self.flushed, self.step, self.entries = changes, flushed, step, entries
        self.everything: Dump | None = None
        """All that the store holds, if that is what is written."""

    @classmethod
    def of_everything(cls, dump: Dump, step: int) -> Group:
        """Return what replaces whatever the file holds."""
        group = cls({}, {None}, step, len(dump.keys))
        group.everything = dump
        return group

    @cached_property
    def changes(self) -> dict[Key, Entry | None]:
        """What has changed by key (None: gone). Made of the dump outside the store's lock."""
        dump = self.everything
        if dump is None:
            return self._changes
        return {
            key: Entry(value, dump.expires_at.get(key), dump.client_flags.get(key, 0))
            for key, value in zip(dump.keys, dump.values, strict=True)
        }


class WaitingChanges:
    """The changes that wait, by key, and how much they and those being written take.

    The journal's condition guards them: a method ending in _locked expects its caller to hold it.
    `held_bytes` and `age` may be looked at without it, and are a moment old then.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self.monotonic = monotonic
        self.changes: dict[Key, Entry | None] = {}  # None: gone
        self.flushed: set[int | None] = set()  # databases flushed before that; None: every one
        self.everything = False
        """The file has to be written as a whole, whatever is in `changes` and `flushed`."""
        self.bytes = 0
        """What `changes` take, about."""
        self._since: float | None = None  # when the oldest of them came, by `monotonic`
        # The same of the group that is being written:
        self._written_bytes = 0
        self._since_written: float | None = None

    @property
    def held_bytes(self) -> int:
        """What all that is not on disk takes."""
        return self.bytes + self._written_bytes

    @property
    def age(self) -> float:
        """Seconds since the oldest change that is not on disk; 0.0 if all is."""
        since = self._since_written
        if since is None:
            since = self._since
        return 0.0 if since is None else self.monotonic() - since

    @property
    def count(self) -> int:
        """How many keys and flushes wait. The caller holds the condition."""
        return len(self.changes) + len(self.flushed) + self.everything

    def add_locked(self, facts: Sequence[Fact]) -> None:
        """Add what one step has changed."""
        if self._since is None:
            self._since = self.monotonic()
        for fact in facts:
            if isinstance(fact, Change):
                value = fact.value
                self.bytes += _CHANGE_BYTES + len(fact.key) + len(value or b"")
                self.changes[fact.key] = (
                    None if value is None else Entry(value, fact.expires_at, fact.client_flags)
                )
            elif not isinstance(fact, Flush):
                # The file's rows know their databases, down to their checksums: it is as quick
                # to write all of them anew.
                self.write_everything_locked()
            elif fact.db is None:
                self._forget_changes_locked()
                self.flushed = {None}
            else:
                for key in [key for key in self.changes if split_key(key)[0] == fact.db]:
                    del self.changes[key]
                self.flushed.add(fact.db)

    def write_everything_locked(self) -> None:
        """Remember no single changes any more: all that there is will be written."""
        self._forget_changes_locked()
        self.everything = True

    def take_locked(self, step: int, entries: int, dump: Callable[[], Dump]) -> Group:
        """Take what waits as the group that is written from now on, up to this step."""
        if self.everything:
            group = Group.of_everything(dump(), step)
        else:
            group = Group(self.changes, self.flushed, step, entries)
        self.changes, self.flushed, self.everything = {}, set(), False
        self._written_bytes, self.bytes = self.bytes, 0
        self._since_written, self._since = self._since, None
        return group

    def end_group_locked(self) -> None:
        """Nothing is being written any more."""
        self._written_bytes, self._since_written = 0, None

    def put_back_locked(self, group: Group) -> None:
        """Let a group that could not be written wait again, under what has come since."""
        if self._since_written is not None:
            self._since = self._since_written
        if group.everything or self.everything:
            self.everything = True
            return
        if None not in self.flushed:
            newer = {split_key(key)[0] for key in group.changes} & self.flushed
            kept = {
                key: entry for key, entry in group.changes.items() if split_key(key)[0] not in newer
            }
            self.changes = kept | self.changes
            self.bytes += self._written_bytes
            self.flushed |= group.flushed

    def start_anew_locked(self, gone: dict[Key, Entry | None]) -> None:
        """Forget what waits: it was undone. Of the file, only these keys have gone meanwhile."""
        self._forget_changes_locked()
        self.changes = gone
        self.flushed, self._since = set(), None

    def _forget_changes_locked(self) -> None:
        self.changes, self.bytes = {}, 0
