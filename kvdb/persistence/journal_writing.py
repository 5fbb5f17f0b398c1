"""Bringing what waits to the journal's file, and what becomes of it if the disk refuses."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import threading

from kvdb.persistence.database import JournalFile
from kvdb.persistence.journal_place import JournalPlace
from kvdb.persistence.outcomes import Outcomes
from kvdb.persistence.waiting import Group, WaitingChanges
from kvdb.store import Store
from kvdb.store.entry import Entry, Key, has_come

log = logging.getLogger(__name__)


class JournalWriter:
    """Writes one group after the other. After a failure, recover() has to be called.

    Whoever calls it holds the journal's `_writing`. It takes `changed`, the condition that
    guards what waits and the outcomes, and before that the store's lock where it needs both.
    """

    def __init__(
        self,
        store: Store,
        file: JournalFile,
        place: JournalPlace,
        waiting: WaitingChanges,
        outcomes: Outcomes,
        changed: threading.Condition,
    ) -> None:
        self._store, self._file, self._place = store, file, place
        self._waiting, self._outcomes, self._changed = waiting, outcomes, changed
        self._first_step = file.step  # what the file's numbers are ahead of the store's
        self._failures = 0  # one after the other
        self._group: Group | None = None  # what is being written, or has just failed

    def count_from_here(self) -> None:
        """Number what is written from now on after what the file and the outcomes say."""
        self._first_step = self._file.step - self._outcomes.durable

    def write(self) -> Group | None:
        """Write what waits in one transaction; return it, or None if there was nothing.

        Raises whatever went wrong.
        """
        self._look_at_file()
        self._group = group = self._take()
        if group is not None:
            self._file.write(
                group.changes, group.flushed, self._first_step + group.step, group.entries
            )
            self._place.note_step()
            self._failures = 0  # otherwise, nothing shows whether the disk is well again
        self._group = None
        return group

    def _take(self) -> Group | None:
        """Take what is waiting as a group; None if there is nothing.

        The store's lock keeps the group, its number and the number of entries together.
        """
        store, outcomes = self._store, self._outcomes
        with store.atomic(), self._changed:
            if outcomes.durable == outcomes.told and not self._waiting.count:
                return None
            return self._waiting.take_locked(outcomes.told, store.total_keys, store.dump)

    def _look_at_file(self) -> None:
        """See to it that what is written will be found again: the file may have been removed."""
        if self._place.has_moved():
            if self._place.reopen():
                log.error("journal: %s was removed; writing all of it anew", self._file.path)
                with self._changed:
                    self._waiting.everything = True
            self.count_from_here()
        self._place.ensure_lock()

    def recover(self, error: Exception, undoing: bool) -> None:
        """After a failure: have what was to be written wait again or, with `undoing`, undo it.

        Whatever went wrong, a bug or a lack of memory included, nothing is lost.
        """
        group, self._group = self._group, None
        lacks_entries = group.everything if group else self._waiting.everything
        if undoing and not lacks_entries:  # else the file does not tell what there was before
            self._undo(group or Group({}, set(), self._outcomes.durable, None))
        elif group is not None:
            with self._changed:
                self._waiting.put_back_locked(group)
        with self._changed:
            self._waiting.end_group_locked()
            self._changed.notify_all()
        self._failures += 1
        if isinstance(error, sqlite3.Error) and self._failures.bit_count() == 1 < self._failures:
            # At the second failure, the fourth, the eighth: whatever state the connection is
            # in, a new one is not in it.
            with contextlib.suppress(Exception):
                if not self._place.has_moved():  # else the next write() opens it anew
                    self._file.reopen()

    def _undo(self, group: Group) -> None:
        """Give the store back what the file holds of every key that nobody was told of yet.

        The store's lock is held while the file is read: rare, and nobody may see more of what
        is being taken back.
        """
        waiting = self._waiting
        with self._store.atomic():
            with self._changed:
                if waiting.everything:  # the file does not tell what there was before a swap
                    waiting.put_back_locked(group)
                    return
                keys = {**group.changes, **waiting.changes}.keys()
                everything = bool(group.flushed or waiting.flushed)
                if not (keys or everything):
                    return
            try:
                before: list[tuple[Key, Entry | None]] = (
                    [(key, entry) for _, key, entry in self._file.rows()]
                    if everything
                    else list(self._file.read(keys))
                )
            except Exception:  # then nothing is decided yet: those who wait go on waiting
                log.exception("journal: refused writes could not be undone; trying again")
                with self._changed:
                    waiting.put_back_locked(group)
                return
            self._store.put_back(before, everything=everything)
            now = self._store.now()
            with self._changed:
                # What has expired meanwhile did not come back: it leaves the file with what is
                # next.
                waiting.start_anew_locked(
                    {
                        key: None
                        for key, entry in before
                        if entry and has_come(entry.expires_at, now)
                    }
                )
                self._outcomes.undo_locked()

    def shrink(self) -> bool:
        """Make the file smaller, if it can be; tell whether there may be more to do."""
        try:
            return self._file.shrink()
        except sqlite3.Error:  # the next commit tells whether there is trouble
            return False
