"""Snapshots: when everything that the store holds is written to one file, and how that went."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from kvdb.persistence import PersistenceError, SaveInProgress, Seen
from kvdb.persistence.lockfile import AlreadyLocked, LockFile
from kvdb.persistence.snapshot_writing import unfinished, write_snapshot
from kvdb.persistence.turns import PAUSE, Turns
from kvdb.store import Dump, Store

log = logging.getLogger(__name__)

_MOST_HELD: Final = 32 * 1024 * 1024
"""Bytes that a save may keep alive which the store has given up meanwhile; beyond, it hurries,
and clients have to wait a little at each turn."""


class Snapshots:
    """Saves a store to one file, and remembers how that went.

    `_saving` is held while the file is written; `_lock` guards the figures, and is never
    held together with any other lock.
    """

    def __init__(
        self,
        store: Store,
        path: Path,
        interval: Callable[[], float] = lambda: 0.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`interval()` returns the seconds between saves of a store that changes; 0: none."""
        self._store = store
        self._monotonic = monotonic
        self.path = path.resolve()  # a link stays a link: its target is what gets replaced
        try:
            unfinished(self.path).unlink(missing_ok=True)  # of a server that was killed
        except OSError as error:
            raise PersistenceError(
                f"cannot remove {unfinished(self.path)}: {error.strerror or error}"
            ) from None
        self._interval = interval
        self._saving = threading.Lock()
        self._lock = threading.Lock()
        self._requested = False  # BGSAVE: save now, changed or not
        self._saved_changes = store.changes
        self._next_save = self._monotonic() + interval()
        self.last_save = store.clock()  # Unix seconds; at first, of the start, as in Redis
        self._saved_at = self._monotonic()  # when there was nothing but what is on disk
        self.last_duration: float | None = None  # seconds that the last save took
        self.last_error: str | None = None  # of the last save; None if it went well
        self.failing_since: float | None = None
        self.saves = 0
        self._dump: Dump | None = None  # what is still to be written of a save under way
        self._dump_bytes = 0  # what the store had freed when it was taken
        self._hurried = threading.Event()  # somebody waits for a save to end
        self.lock: LockFile | None = None
        """Keeps other servers out; it is looked at before each save."""
        self.on_progress: Callable[[], None] = lambda: None
        self.on_request: Callable[[], object] = lambda: None
        """Called when a save is wanted soon: it wakes the thread that runs `save_if_due`."""

    @property
    def changes_since_save(self) -> int:
        """How many changes would be lost by a crash now."""
        return self._store.changes - self._saved_changes

    @property
    def in_progress(self) -> bool:
        return self._saving.locked()

    @property
    def held_bytes(self) -> int:
        """What a save under way takes: references, and at most what the store has freed since."""
        dump = self._dump
        if dump is None:
            return 0
        return 16 * len(dump.keys) + self._store.freed_bytes - self._dump_bytes

    @property
    def age(self) -> float:
        """Seconds since all was on disk, if something has changed since; else 0.0."""
        return self._monotonic() - self._saved_at if self.changes_since_save else 0.0

    def save(self) -> None:
        """Write the snapshot now. Raises SaveInProgress or PersistenceError."""
        if not self._saving.acquire(blocking=False):
            raise SaveInProgress
        try:
            self._save(gently=True)
        finally:
            self._saving.release()

    @property
    def waits(self) -> bool:
        """No reply waits for a snapshot."""
        return False

    def arrive(self) -> int:
        """No reply waits for a snapshot."""
        return 0

    def leave(self, ticket: int) -> None:
        """No reply waits for a snapshot."""

    @property
    def undos(self) -> int:
        """Nothing is undone here."""
        return 0

    durable_step = sys.maxsize
    """No reply waits for a snapshot."""

    def outcome(self, seen: Seen) -> bool:
        """No reply waits for a snapshot."""
        return True

    def wait_until_durable(self, seen: Seen) -> bool:
        """No reply waits for a snapshot."""
        return True

    @property
    def congested(self) -> bool:
        """Whether a save keeps so much alive that clients have to be slower."""
        return self._dump is not None and self.held_bytes > _MOST_HELD

    longest_wait = PAUSE
    """Clients are slower meanwhile; none is held up for long."""

    def hurry(self) -> None:
        """Save without pauses from now on."""
        self._hurried.set()

    def wait_for_room(self) -> None:
        """Wait for a moment while a save keeps too much alive."""
        if self.congested:
            self.hurry()
            time.sleep(PAUSE)

    def save_at_end(self) -> None:
        """Write what has not been written yet, after a save under way has ended.

        That one is asked to hurry: whoever stops a server may not wait for long.
        """
        self._hurried.set()
        with self._saving:
            if self.changes_since_save or not self.path.exists():
                self._save(gently=False)

    def save_soon(self, schedule: bool = False) -> bool:
        """Ask for a save in the background; False if one is under way or asked for already.

        With `schedule` another one follows the one under way.
        """
        with self._lock:
            if self._requested or (self.in_progress and not schedule):
                return False
            self._requested = True
        self.on_request()
        return True

    def interval_changed(self) -> None:
        """Count the interval anew from now (CONFIG SET save)."""
        with self._lock:
            self._next_save = self._monotonic() + self._interval()
        self.on_request()

    def seconds_to_next(self) -> float | None:
        """Return how long the background thread has nothing to do; None: until it is asked."""
        with self._lock:
            if self._requested:
                return 0.0
            if not self._interval():
                return None
            return max(0.0, self._next_save - self._monotonic())

    def save_if_due(self) -> None:
        """One pass of the background thread: save if asked to, or if the time has come."""
        with self._lock:
            interval = self._interval()
            due = bool(interval) and self._monotonic() >= self._next_save
            requested, self._requested = self._requested, False
            if due:
                self._next_save = self._monotonic() + interval
        if requested or (due and self.changes_since_save):
            # What goes wrong is logged and kept in last_error; the next pass tries again. A save
            # under way (SAVE) is waited for: it may have begun before what is to be saved.
            with self._saving, contextlib.suppress(PersistenceError):
                self._save(gently=True)

    def _save(self, gently: bool) -> None:
        """Save; `gently`: slower while somebody uses the store."""
        started = self._monotonic()
        with self._store.atomic():
            dump, now = self._store.dump(), self._store.now()
            self._dump_bytes = self._store.freed_bytes
        self._dump = dump
        changes, entries = dump.changes, len(dump.keys)
        try:
            if self.lock:
                self.lock.ensure()
            turns = Turns(self._count_uses if gently else lambda: 0, self._hurried)
            write_snapshot(self.path, dump, now, turns, self.lock)
        except (OSError, AlreadyLocked, MemoryError) as error:
            reason = f"cannot write {self.path}: {_why(error)}"
            if self.last_error != reason:  # once per change of state, not once per interval
                log.error("snapshot: %s; the file is as before, trying again", reason)
            with self._lock:
                self.last_error = reason
                self.failing_since = self.failing_since or self._store.clock()
            raise PersistenceError(reason) from error
        finally:
            self._dump = None
            self._hurried.clear()  # whoever waits for this one is served; the next is another
        with self._lock:
            recovered, self.last_error = self.last_error is not None, None
            self.failing_since = None
            self._saved_changes, self._saved_at = changes, started
            self.last_save = self._store.clock()
            self.last_duration = self._monotonic() - started
            self.saves += 1
        if recovered:
            log.info("snapshot: writing %s works again", self.path)
        log.debug("snapshot: saved %d entries in %.3f s", entries, self.last_duration)

    def _count_uses(self) -> int:
        return self._store.hits + self._store.misses + self._store.changes


def _why(error: OSError | AlreadyLocked | MemoryError) -> str:
    if isinstance(error, AlreadyLocked):
        return "another kvdb server keeps its data there"
    if isinstance(error, MemoryError):
        return "not enough memory"
    return str(error.strerror or error)
