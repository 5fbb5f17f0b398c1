"""The journal: every change, in groups, into an SQLite file (`database.py` says how it looks).

The store's change feed tells what has changed; one thread writes it down, many changes in one
transaction. What waits is bounded, in bytes and in age: beyond, whoever writes has to wait.

Beside this module are what waits (`waiting`), what has become of each step (`outcomes`), how a
group is written or undone (`journal_writing`), the file's place (`journal_place`), and how it is
loaded (`journal_loading`).
"""

from __future__ import annotations

import contextlib
import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from kvdb.config import Fsync
from kvdb.persistence import PersistenceError, Progress, Seen
from kvdb.persistence.database import JournalFile
from kvdb.persistence.journal_loading import load_journal
from kvdb.persistence.journal_place import JournalPlace
from kvdb.persistence.journal_writing import JournalWriter
from kvdb.persistence.lockfile import AlreadyLocked, LockFile
from kvdb.persistence.outcomes import Outcomes
from kvdb.persistence.waiting import WaitingChanges
from kvdb.store import Store
from kvdb.store.feed import Cause, Fact

log = logging.getLogger(__name__)

_INTERVAL: Final = 0.5  # seconds between commits where nobody waits for them
_BETWEEN_SHRINKING: Final = 0.05  # seconds: clients that wait for a commit come first
_RETRY: Final = 1.0  # seconds between attempts while the disk refuses
_RETRY_ALWAYS: Final = 0.05  # the same where clients are waiting for the outcome
_OLDEST: Final = 0.9  # seconds that a change may wait before whoever writes has to wait, too

QUEUE_BYTES: Final = 16 * 1024 * 1024
"""What may wait for the disk together; beyond, whoever writes has to wait."""


class Journal:
    """Writes a store's changes to an SQLite file.

    `_changed` guards what is waiting to be written, the outcomes and the figures. The listener
    takes it under the store's lock for a moment; nobody takes the store's lock while holding it.
    `_writing` is held by whoever uses the file and the writer; it comes before the store's lock.
    """

    def __init__(
        self,
        store: Store,
        path: Path,
        fsync: Fsync,
        lock: LockFile | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the file, and create it if it does not exist. Raises PersistenceError.

        `lock`, which keeps other servers out, is looked at before each commit.
        """
        self._store = store
        self.path = path
        self.fsync = fsync
        self._monotonic = monotonic
        self._writing = threading.Lock()
        self._changed = threading.Condition()
        self._waiting = WaitingChanges(monotonic)
        self._outcomes = Outcomes(self._changed)
        self._stopping = False
        self._asked = False  # to write down what is waiting now
        self._crowded = False  # writers have to wait: said in the log once
        self.on_progress: Callable[[], None] = lambda: None
        self.last_save = store.clock()  # Unix seconds of when all was on disk
        self.last_duration: float | None = None
        self.last_error: str | None = None
        self.failing_since: float | None = None
        self.saves = 0
        self.thread = threading.Thread(target=self._loop, name="journal", daemon=True)
        self._file = JournalFile(path, fsync)
        self._place = JournalPlace(self._file, lock)
        self._writer = JournalWriter(
            store, self._file, self._place, self._waiting, self._outcomes, self._changed
        )

    def load(self, progress: Progress | None = None) -> int:
        """Fill the store; return the number of entries in the file. Raises PersistenceError."""
        self._place.check_last_step(self.fsync)
        count = load_journal(self._file, self._store, progress or Progress(self.path))
        self._place.note_step()
        return count

    def start(self) -> None:
        """Write down every change from now on."""
        with self._store.atomic():
            self._store.add_listener(self._listen)
            with self._changed:
                self._outcomes.told = self._outcomes.durable = self._store.step
                self._writer.count_from_here()
        self.thread.start()

    def stop(self) -> bool:
        """Write down what is waiting and close the file; tell whether nothing was lost."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self.thread.ident is None:  # the start was refused
            self._file.close()
            return True
        self.thread.join()
        self._store.remove_listener(self._listen)
        written = self._write_down()
        self._file.close()
        return written

    # --- replies that wait for the disk: see `Outcomes` ------------------------------------

    @property
    def waits(self) -> bool:
        """Whether a reply has to wait until all that it depends on is on disk."""
        return self.fsync is Fsync.ALWAYS

    def arrive(self) -> int:
        return self._outcomes.arrive()

    def leave(self, ticket: int) -> None:
        self._outcomes.leave(ticket)

    @property
    def undos(self) -> int:
        return self._outcomes.undos

    @property
    def durable_step(self) -> int:
        return self._outcomes.durable

    def outcome(self, seen: Seen) -> bool:
        return self._outcomes.outcome(seen)

    def wait_until_durable(self, seen: Seen) -> bool:
        return self._outcomes.wait_until_durable(seen)

    # --- writers that wait for the disk --------------------------------------------------

    @property
    def congested(self) -> bool:
        """Whether so much waits for the disk, or for so long, that whoever writes has to wait."""
        if self.last_error or self.fsync is Fsync.ALWAYS:  # see _listen(); there each reply waits
            return False
        return self.held_bytes > QUEUE_BYTES or self.age > _OLDEST

    longest_wait = math.inf
    """However slow the disk is, the queue is bounded."""

    def hurry(self) -> None:
        """Write down now what is waiting: somebody has to wait for it."""
        with self._changed:
            if not self._crowded:
                self._crowded = True
                log.warning("journal: the disk lags behind; clients that write wait for it")
            self._asked = True
            self._changed.notify_all()

    def wait_for_room(self) -> None:
        """Wait as long as whoever writes has to."""
        if self.congested:
            self.hurry()
            with self._changed:
                while self.congested and not self._stopping:
                    self._changed.wait(0.1)

    # --- how it stands, and saving -------------------------------------------------------

    @property
    def held_bytes(self) -> int:
        """What the changes that wait for the disk take."""
        return self._waiting.held_bytes

    @property
    def age(self) -> float:
        """Seconds since the oldest change that is not on disk; 0.0 if all is."""
        return self._waiting.age

    @property
    def changes_since_save(self) -> int:
        """How many keys are waiting to be written."""
        with self._changed:
            return self._waiting.count

    @property
    def in_progress(self) -> bool:
        return self._writing.locked()

    def save(self) -> None:
        """Write down what is waiting. Raises PersistenceError."""
        if not self._write_down():
            raise PersistenceError(self.last_error or "the disk refuses")

    def save_at_end(self) -> None:
        """As save(): it waits for its turn anyway."""
        self.save()

    def save_soon(self, schedule: bool = False) -> bool:
        """Have the thread write down what is waiting now."""
        with self._changed:
            self._asked = True
            self._changed.notify_all()
        return True

    def interval_changed(self) -> None:
        """The journal has none."""

    # --- the thread ----------------------------------------------------------------------

    def _listen(self, step: int, facts: Sequence[Fact]) -> None:
        with self._changed:
            self._outcomes.told = step
            if facts[-1].cause is Cause.TAKEN_BACK:  # the file holds that
                self._outcomes.durable = step
                self._changed.notify_all()
                return
            waiting = self._waiting
            waiting.add_locked(facts)
            if self.fsync is Fsync.ALWAYS:
                self._changed.notify_all()
            elif waiting.bytes > QUEUE_BYTES and self.last_error:
                # The disk refuses, and nobody knows for how long: once it is well again, all
                # that there is then is written.
                waiting.write_everything_locked()
            elif waiting.bytes > QUEUE_BYTES // 4 and not self._asked:
                self._asked = True
                self._changed.notify_all()

    def _loop(self) -> None:
        always = self.fsync is Fsync.ALWAYS
        shrinking = False
        while True:
            interval = None if always else _INTERVAL
            with self._changed:
                self._changed.wait_for(
                    lambda: (
                        self._stopping
                        or self._asked
                        or (always and self._outcomes.durable < self._outcomes.told)
                    ),
                    timeout=_BETWEEN_SHRINKING if shrinking else interval,
                )
                if self._stopping:
                    return
                self._asked = False
            while not self._write_down():
                with self._changed:
                    retry = _RETRY_ALWAYS if always else _RETRY
                    if self._changed.wait_for(lambda: self._stopping, timeout=retry):
                        return
            with self._writing:
                shrinking = self._writer.shrink()

    def _write_down(self) -> bool:
        """Write what is waiting in one transaction; tell whether that went well.

        Whatever goes wrong, a bug or a lack of memory included, nothing that was waiting is
        lost, and the thread lives on.
        """
        with self._writing:
            started = self._monotonic()
            try:
                group = self._writer.write()
            except Exception as error:
                with contextlib.suppress(Exception):  # a lack of memory may last
                    self._report(error)  # first: those whose change is undone are told the reason
                self._writer.recover(error, undoing=self.fsync is Fsync.ALWAYS)
                self.on_progress()
                return False
            if group is not None:  # else nothing shows whether the disk is well again
                self._report(None)
            with self._changed:
                self._waiting.end_group_locked()
                self._crowded = self._crowded and self.congested
                self.last_save = self._store.clock()
                if group is not None:
                    self._outcomes.durable = group.step
                    self.last_duration = self._monotonic() - started
                    self.saves += 1
                self._changed.notify_all()
            self.on_progress()
            return True

    def _report(self, error: Exception | None) -> None:
        """Log once per change of state, not once per attempt."""
        text = None
        if error is not None:
            reason = str(error) or type(error).__name__
            if isinstance(error, AlreadyLocked):
                reason = "another kvdb server keeps its data there"
            text = f"cannot write {self.path}: {reason}"
        with self._changed:
            before, self.last_error = self.last_error, text
            self.failing_since = (self.failing_since or self._store.clock()) if text else None
        if text and not before:
            known = isinstance(error, sqlite3.Error | OSError | AlreadyLocked)
            log.error("journal: %s; trying again", text, exc_info=None if known else error)
        elif before and not text:
            log.info("journal: writing %s works again", self.path)
