"""What memcached knows of an item beside its entry: stale and win marks, hits and ages.

All of it is one note on the present version of a key: any write to the key, through whatever
port, takes it away, as memcached's new item begins without marks and without hits.
"""

from __future__ import annotations

from typing import NamedTuple

from kvdb.commands.session import Session
from kvdb.store.entry import Key


class Mark(NamedTuple):
    """What is known of one version of a key."""

    stale: bool = False
    win_sent: bool = False  # somebody has been told to recache it
    hit: bool = False
    accessed_at: float | None = None  # Unix seconds; None: it is not known


class Marks:
    """The marks in one server's store, as one session reads and sets them.

    Hits and ages are noted from the first request on that asks for one (mg with h or l): who
    never does pays nothing for them, and who does pays NOTE_COST bytes of the budget for each
    key that is read or written on the memcached port. So h is 1 if the value was read on this
    port since then, and l the time since it was read or stored here; where neither has happened,
    since noting began. What other ports read is no hit, and what they write begins as not read.
    """

    def __init__(self, session: Session) -> None:
        self._instance, self._store = session.instance, session.store

    @property
    def noted(self) -> bool:
        """Whether hits and ages are noted by now."""
        return self._instance.accesses_noted_since is not None

    def begin(self) -> None:
        """Note hits and ages from now on."""
        if not self.noted:
            self._instance.accesses_noted_since = self._store.now()

    def of(self, key: Key) -> Mark:
        """Return what is known of the key's present version."""
        note = self._store.note(key)
        return note if isinstance(note, Mark) else Mark()

    def set(self, key: Key, mark: Mark) -> None:
        """Replace what is known of it."""
        self._store.set_note(key, mark)

    def age(self, mark: Mark) -> int:
        """Return the whole seconds since the last access."""
        began = self._instance.accesses_noted_since
        last = mark.accessed_at if mark.accessed_at is not None else began
        return 0 if last is None else max(0, int(self._store.now() - last))

    def was_read(self, key: Key) -> None:
        """Note that an existing key was read, or touched; call it if `noted`."""
        self.set(key, self.of(key)._replace(hit=True, accessed_at=self._store.now()))

    def was_stored(self, key: Key) -> None:
        """Note that a key has a new value; call it if `noted`."""
        self.set(key, Mark(accessed_at=self._store.now()))
