"""Which version of a key somebody has seen: tokens, and notes attached to a version."""

from __future__ import annotations

from collections.abc import Set

from kvdb.store.entry import Key


class Versions:
    """Tokens and notes of keys as they are now; a write to a key takes them away.

    Nobody who does not ask pays for them: where there are none, a write tests that and no
    more. Not thread-safe: the store's lock guards it.
    """

    def __init__(self) -> None:
        self.notes: dict[Key, object] = {}
        self._tokens: dict[Key, int] = {}  # of keys that exist
        self._absent: dict[Key, int] = {}  # of keys that do not: only while somebody watches them
        self._watchers: dict[Key, int] = {}  # how many
        self._last = 0
        self.idle = True
        """Whether nothing is kept that a write would have to take away."""

    def __len__(self) -> int:
        """How many things of existing keys are kept; each costs VERSION_COST."""
        return len(self._tokens) + len(self.notes)

    def kept_for(self, key: Key) -> int:
        """Return how many of them are this key's."""
        return (key in self._tokens) + (key in self.notes)

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
        return token

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
        """Attach something to the present version of an existing key."""
        self.idle = False
        self.notes[key] = note

    def detach(self, key: Key) -> None:
        """Break the key's token and drop its note: it is being written."""
        if self.idle:
            return
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

    def check(self, existing: Set[Key]) -> None:
        """Raise AssertionError if anything is kept for a key that it cannot belong to."""
        assert self._tokens.keys() <= existing, "a version of a key that is gone"
        assert self.notes.keys() <= existing, "a note on a key that is gone"
        assert self._absent.keys() <= self._watchers.keys(), "a version nobody holds"
        assert self._absent.keys().isdisjoint(existing), "an absent key is there"
        assert not (self.idle and (self._tokens or self._absent or self.notes)), "kept though idle"
        assert all(count > 0 for count in self._watchers.values())
