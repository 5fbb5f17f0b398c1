"""Which version of a key somebody has seen: tokens, and notes attached to a version."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Set
from typing import Final

from kvdb.store.entry import Key, split_key

MAX_TOKENS: Final = 100_000
"""Tokens that are remembered, about 10 MB. Whoever holds an older one is told that the key has
changed, and reads it again: what the readers of a cache remember may not cost it an entry."""


class Versions:
    """Tokens and notes of keys as they are now; a write to a key takes them away.

    Nobody who does not ask pays for them: where there are none, a write tests that and no
    more. Not thread-safe: the store's lock guards it.
    """

    def __init__(self, started_at: float) -> None:
        """`started_at` (Unix seconds) keeps tokens from being those of an earlier run."""
        self.notes: dict[Key, object] = {}
        self._tokens: dict[Key, int] = {}  # of keys that exist, the oldest first
        self._absent: dict[Key, int] = {}  # of keys that do not: only while somebody watches them
        self._watchers: dict[Key, int] = {}  # how many
        # 2**24 tokens a second are more than we can give out, so that a later start has larger
        # ones; should the clock have gone back, the random part makes a repetition unlikely.
        self._last = (max(0, int(started_at)) << 24) + secrets.randbelow(1 << 24)
        self.idle = True
        """Whether nothing is kept that a write would have to take away."""

    def token(self, key: Key, exists: bool) -> int:
        """Return the key's token, a new one if need be; 0 if it is absent and nobody watches it."""
        if not exists and key not in self._watchers:
            return 0
        tokens = self._tokens if exists else self._absent
        token = tokens.get(key)
        if token is None:
            self.idle = False
            self._last += 1
            token = tokens[key] = self._last
            self._forget_oldest()
        return token

    def set_token(self, key: Key, token: int) -> None:
        """Have an existing key's present version bear a token that somebody else has made up."""
        self.idle = False
        self._tokens.pop(key, None)  # the newest stands last
        self._tokens[key] = token
        self._forget_oldest()

    def _forget_oldest(self) -> None:
        if len(self._tokens) > MAX_TOKENS:
            del self._tokens[next(iter(self._tokens))]

    def is_current(self, key: Key, token: int, exists: bool) -> bool:
        return (self._tokens if exists else self._absent).get(key) == token

    def add_watcher(self, key: Key) -> None:
        self._watchers[key] = self._watchers.get(key, 0) + 1

    def remove_watcher(self, key: Key) -> None:
        self._watchers[key] -= 1
        if not self._watchers[key]:
            del self._watchers[key]
            self._absent.pop(key, None)

    def set_note(self, key: Key, note: object) -> None:
        """Attach something to the present version of an existing key; None takes it away."""
        if note is None:
            self.notes.pop(key, None)
        else:
            self.idle = False
            self.notes[key] = note

    def detach(self, key: Key) -> None:
        """Break the key's token and drop its note: it is being written."""
        if self._tokens:
            self._tokens.pop(key, None)
        if self._absent:
            self._absent.pop(key, None)
        if self.notes:
            self.notes.pop(key, None)
        self.idle = not (self._tokens or self._absent or self.notes)

    def detach_existing(self) -> None:
        """As detach(), for every key that exists."""
        self._tokens, self.notes = {}, {}

    def detach_databases(self, databases: Set[int], exists: Callable[[Key], bool]) -> None:
        """Break what depends on keys of these databases, in which other keys are now.

        As in Redis, who watches a key that was not there and is not there now sees no change.
        """
        for kept in (self._tokens, self.notes):
            for key in [key for key in kept if split_key(key)[0] in databases]:
                del kept[key]
        for key in [key for key in self._absent if split_key(key)[0] in databases and exists(key)]:
            del self._absent[key]
        self.idle = not (self._tokens or self._absent or self.notes)

    def check(self, existing: Set[Key]) -> None:
        """Raise AssertionError if anything is kept for a key that it cannot belong to."""
        assert self._tokens.keys() <= existing, "a version of a key that is gone"
        assert self.notes.keys() <= existing, "a note on a key that is gone"
        assert self._absent.keys() <= self._watchers.keys(), "a version nobody holds"
        assert self._absent.keys().isdisjoint(existing), "an absent key is there"
        assert not (self.idle and (self._tokens or self._absent or self.notes)), "kept though idle"
        assert all(count > 0 for count in self._watchers.values())
