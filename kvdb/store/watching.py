"""Versions of keys, for those who want to know whether anybody has written since they looked."""

from __future__ import annotations

from kvdb.store.core import Core
from kvdb.store.entry import Key


class Watching(Core):
    """WATCH, memcached's cas and its marks. Needs the core's versions, and whether a key exists."""

    def watch(self, key: Key) -> int:
        """Return a token that `unchanged()` compares; any write to the key breaks it.

        Pair each call with one of `unwatch()`.
        """
        with self._lock:
            self._versions.add_watcher(key)
            return self.version(key)

    def unwatch(self, key: Key) -> None:
        """Take one `watch()` back."""
        with self._lock:
            self._versions.remove_watcher(key)

    def unchanged(self, key: Key, version: int) -> bool:
        """Tell whether nobody has written the key, and it has not expired, since `version`."""
        with self._lock:
            exists = self._exists_locked(key)  # an expiry is a write, too
            return self._versions.is_current(key, version, exists)

    def version(self, key: Key) -> int:
        """Return the key's version token: the same number until somebody writes the key.

        It is 0 for a key that does not exist and that nobody watches. Tokens grow from one to
        the next, over restarts, too.
        """
        with self._lock:
            return self._versions.token(key, self._exists_locked(key))

    def set_version(self, key: Key, version: int) -> None:
        """Have the present version of an existing key bear this token (memcached's E).

        It is as good as one of ours: a write breaks it. That it is a new one, and larger than
        the last, is for the caller to see to.
        """
        with self._lock:
            if self._exists_locked(key):
                self._versions.set_token(key, version)

    def note(self, key: Key) -> object:
        """Return what was last given to `set_note()`, if nobody has written the key since."""
        with self._lock:
            return self._versions.notes.get(key) if self._exists_locked(key) else None

    def set_note(self, key: Key, note: object) -> None:
        """Attach something to the present version of an existing key; None takes it away.

        Whoever writes the key next detaches it. It is not saved.
        """
        with self._lock:
            if self._exists_locked(key):
                self._versions.set_note(key, note)
