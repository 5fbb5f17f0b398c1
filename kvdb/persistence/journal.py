"""The journal: every change, in groups, into an SQLite file (`database.py` says how it looks).

The store's change feed tells what has changed; one thread writes it down, many changes in one
transaction. What waits is bounded, in bytes and in age: beyond, whoever writes has to wait.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

from kvdb.config import Fsync
from kvdb.persistence import PersistenceError, Progress, Seen
from kvdb.persistence.database import JournalFile
from kvdb.persistence.lockfile import AlreadyLocked, LockFile
from kvdb.persistence.rows import Row, encode_key
from kvdb.store import Dump, Store
from kvdb.store.entry import Change, Entry, Flush, Key, split_key

log = logging.getLogger(__name__)

_INTERVAL: Final = 0.5  # seconds between commits where nobody waits for them
_BETWEEN_SHRINKING: Final = 0.05  # seconds: clients that wait for a commit come first
_RETRY: Final = 1.0  # seconds between attempts while the disk refuses
_RETRY_ALWAYS: Final = 0.05  # the same where clients are waiting for the outcome
_OLDEST: Final = 0.9  # seconds that a change may wait before whoever writes has to wait, too

QUEUE_BYTES: Final = 16 * 1024 * 1024
"""What may wait for the disk together; beyond, whoever writes has to wait."""

_CHANGE_BYTES: Final = 150  # what a change takes in the queue beside its key and value


class Journal:
    """Writes a store's changes to an SQLite file.

    `_changed` guards what is waiting to be written and the figures. The listener takes it
    under the store's lock for a moment; nobody takes the store's lock while holding it.
    `_writing` is held by whoever uses the file; it comes before the store's lock.
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
        self._lock = lock
        self._monotonic = monotonic
        self._writing = threading.Lock()
        self._changed = threading.Condition()
        self._waiting: dict[Key, Entry | None] = {}  # None: gone
        self._waiting_bytes = 0
        self._written_bytes = 0  # of the group that is being written
        self._since: float | None = None  # when the oldest of `_waiting` came, by `monotonic`
        self._since_written: float | None = None  # likewise, of the group that is being written
        self._flushed: set[int | None] = set()  # databases flushed before that; None: every one
        self._everything = False  # the file has to be written as a whole: see _take_locked()
        self._told = 0  # number of the last step that the feed has told
        self._durable = 0  # number of the last step that is on disk, or has been undone
        self._undone: list[range] = []  # steps that were undone because the disk refused
        self._undos_forgotten = 0  # how many have left that list
        self._tickets: dict[int, int] = {}  # number -> how many undos there were when it was taken
        self._next_ticket = 0
        # .step, .wrote: what take_step() and wait_for_room() tell of this thread. Which of all
        # steps is its own is known under the store's lock only, in the middle of a command.
        # .undoing: this thread is taking something back.
        self._own = threading.local()
        self._stopping = False
        self._failures = 0  # one after the other
        self._asked = False  # to write down what is waiting now
        self._crowded = False  # writers have to wait: said in the log once
        self.last_save = store.clock()  # Unix seconds of when all was on disk
        self.last_duration: float | None = None
        self.last_error: str | None = None
        self.saves = 0
        self.thread = threading.Thread(target=self._loop, name="journal", daemon=True)
        self._file = JournalFile(path, fsync)
        self._first_step = self._file.step  # what the file's numbers are ahead of the store's

    def load(self, progress: Progress | None = None) -> int:
        """Fill the store; return the number of entries in the file. Raises PersistenceError."""
        progress = progress or Progress(self.path)
        count = 0
        strays: list[Row] = []
        rewritten: dict[Key, Entry] = {}
        self._check_last_step()

        def entries() -> Iterator[tuple[Key, Entry]]:
            nonlocal count
            for row, key, entry in self._file.rows():
                count += 1
                if count % 1_000 == 0:
                    progress.report(count)
                if row[5] is None:  # by hand, or by an earlier version
                    rewritten[key] = entry
                    if type(row[1]) is not type(encode_key(key)[1]):
                        strays.append(row)
                yield key, entry

        now = self._store.now()
        with self._file.refusing("is damaged"):
            did_not_fit = self._store.restore(entries(), now)
        if did_not_fit:
            backup = self.path.with_name(self.path.name + ".bak")
            self._file.copy_to(backup)
            log.warning(
                "%s: %d of %d entries do not fit into the budget (--max-mb) and were evicted; "
                "all of them are in %s",
                self.path, did_not_fit, count, backup,
            )  # fmt: skip
        try:
            self._file.begin_writing()
            # What stands there in another form (a number, text as a blob), has expired or did
            # not fit would outlive its deletion: nobody would find it, or know of it.
            left = self._file.clean_up(strays, rewritten, now, self._store.total_keys)
            if left != self._store.total_keys:
                self._write_everything()
        except (sqlite3.Error, OSError) as error:
            self._file.close()
            raise PersistenceError(f"cannot write {self.path}: {error}") from None
        self._note_step()
        return count

    def _check_last_step(self) -> None:
        """Refuse a file that lacks commits which are known to have been made.

        SQLite ends at the first damaged page of its log, and drops what follows without a word.
        The lock file of a server that was killed says how far it had come. After a power cut
        only what was synced can be expected.
        """
        try:
            noted = json.loads(self._lock.note) if self._lock else {}
            file, step, boot = noted["file"], int(noted["step"]), noted["boot"]
        except (ValueError, TypeError, KeyError):
            return
        expected = self.fsync is not Fsync.NEVER or boot == _boot()
        if file == self._file.name and step > self._file.step and expected:
            self._file.close()
            raise PersistenceError(
                f"{self.path} is damaged: it ends at change {self._file.step}, and change {step} "
                "had been written. It was left untouched: put a good copy in its place, or remove "
                f"{self.path}.lock to go on with what there is"
            )

    def _note_step(self) -> None:
        if self._lock:
            note = {"file": self._file.name, "step": self._file.step, "boot": _boot()}
            with contextlib.suppress(OSError):  # what is committed is committed
                self._lock.write_note(json.dumps(note))

    def start(self) -> None:
        """Write down every change from now on."""
        with self._store.atomic():
            self._store.add_listener(self._listen)
            with self._changed:
                self._told = self._durable = self._store.step
                self._first_step = self._file.step - self._told
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

    # --- what sessions ask ---------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether a reply has to wait until all that it depends on is on disk."""
        return self.fsync is Fsync.ALWAYS

    def arrive(self) -> int:
        """Say that somebody will ask for the outcome of steps from now on; return a ticket."""
        with self._changed:
            self._next_ticket += 1
            self._tickets[self._next_ticket] = self.undos
            return self._next_ticket

    def leave(self, ticket: int) -> None:
        """Give a ticket back; outcomes that nobody can ask for any more are forgotten."""
        with self._changed:
            del self._tickets[ticket]
            needed = min(self._tickets.values(), default=self.undos)
            del self._undone[: needed - self._undos_forgotten]
            self._undos_forgotten = needed

    @property
    def undos(self) -> int:
        """How often the disk has refused something that was undone then."""
        return self._undos_forgotten + len(self._undone)

    def take_step(self) -> int:
        """Return this thread's last step since it last asked, or 0."""
        step: int = getattr(self._own, "step", 0)
        self._own.step = 0
        return step

    def wait_until_durable(self, seen: Seen) -> bool:
        """Wait until all of that is on disk; False if the disk refused some and it was undone.

        A change was undone if its step was. Whatever else a reply tells may have been taken from
        any step that was not on disk yet: so it is in doubt if anything was undone since.
        """
        wrote, undos, last = seen
        with self._changed:
            self._changed.wait_for(lambda: self._durable >= (wrote or last))
            since = self._undone[undos - self._undos_forgotten :]
            if wrote:
                return not any(wrote in steps for steps in since)
            return all(steps.start > last for steps in since)

    @property
    def congested(self) -> bool:
        """Whether so much waits for the disk, or for so long, that whoever writes has to wait."""
        if self.last_error:  # serving goes on, whatever the disk does: see _listen()
            return False
        return self.held_bytes > QUEUE_BYTES or self.age > _OLDEST

    def wait_for_room(self) -> None:
        """Wait as long as whoever writes has to, if this thread has written since it last asked."""
        if not getattr(self._own, "wrote", False):
            return
        self._own.wrote = False
        if self.fsync is Fsync.ALWAYS or not self.congested:
            return
        with self._changed:
            if not self._crowded:
                self._crowded = True
                log.warning("journal: the disk lags behind; clients that write wait for it")
            self._asked = True
            self._changed.notify_all()
            while self.congested and not self._stopping:
                self._changed.wait(0.1)

    @property
    def held_bytes(self) -> int:
        """What the changes that wait for the disk take."""
        return self._waiting_bytes + self._written_bytes

    @property
    def age(self) -> float:
        """Seconds since the oldest change that is not on disk; 0.0 if all is."""
        since = self._since_written
        if since is None:
            since = self._since
        return 0.0 if since is None else self._monotonic() - since

    @property
    def changes_since_save(self) -> int:
        """How many keys are waiting to be written."""
        with self._changed:
            return len(self._waiting) + len(self._flushed) + self._everything

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

    def _listen(self, step: int, facts: Sequence[Change | Flush]) -> None:
        with self._changed:
            self._told = step
            if getattr(self._own, "undoing", False):  # the file holds that
                self._durable = step
                self._changed.notify_all()
                return
            self._own.step = step
            self._own.wrote = True
            if self._since is None:
                self._since = self._monotonic()
            for fact in facts:
                if isinstance(fact, Change):
                    value = fact.value
                    self._waiting_bytes += _CHANGE_BYTES + len(fact.key) + len(value or b"")
                    self._waiting[fact.key] = (
                        None if value is None else Entry(value, fact.expires_at, fact.client_flags)
                    )
                elif fact.db is None:
                    self._forget_waiting_locked()
                    self._flushed = {None}
                else:
                    for key in [key for key in self._waiting if split_key(key)[0] == fact.db]:
                        del self._waiting[key]
                    self._flushed.add(fact.db)
            if self.fsync is Fsync.ALWAYS:
                self._changed.notify_all()
            elif self._waiting_bytes > QUEUE_BYTES and self.last_error:
                # The disk refuses, and nobody knows for how long: once it is well again, all
                # that there is then is written.
                self._forget_waiting_locked()
                self._everything = True
            elif self._waiting_bytes > QUEUE_BYTES // 4 and not self._asked:
                self._asked = True
                self._changed.notify_all()

    def _forget_waiting_locked(self) -> None:
        self._waiting, self._waiting_bytes = {}, 0

    def _loop(self) -> None:
        always = self.fsync is Fsync.ALWAYS
        shrinking = False
        while True:
            interval = None if always else _INTERVAL
            with self._changed:
                self._changed.wait_for(
                    lambda: (
                        self._stopping or self._asked or (always and self._durable < self._told)
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
            shrinking = self._shrink()

    def _shrink(self) -> bool:
        """Make the file smaller, if it can be; tell whether there may be more to do."""
        try:
            with self._writing:
                return self._file.shrink()
        except sqlite3.Error:  # the next commit tells whether there is trouble
            return False

    def _write_down(self) -> bool:
        """Write what is waiting in one transaction; tell whether that went well.

        Whatever goes wrong, a bug or a lack of memory included, nothing that was waiting is
        lost, and the thread lives on.
        """
        with self._writing:
            group: _Group | None = None
            try:
                started = self._monotonic()
                self._look_at_file()
                group = self._take()
                if group is not None:
                    self._file.write(
                        group.changes, group.flushed, self._first_step + group.step, group.entries
                    )
                    self._note_step()
            except Exception as error:
                self._recover(group, error)
                return False
            if group is not None:  # else nothing shows whether the disk is well again
                self._report(None)
                self._failures = 0
            with self._changed:
                self._since_written, self._written_bytes = None, 0
                self._crowded = self._crowded and self.congested
                self.last_save = self._store.clock()
                if group is not None:
                    self._durable = group.step
                    self.last_duration = self._monotonic() - started
                    self.saves += 1
                self._changed.notify_all()
            return True

    def _take(self) -> _Group | None:
        """Take what is waiting as a group; None if there is nothing.

        The store's lock keeps the group, its number and the number of entries together.
        """
        with self._store.atomic(), self._changed:
            if self._durable == self._told and not (
                self._waiting or self._flushed or self._everything
            ):
                return None
            group = _Group(self._waiting, self._flushed, self._told, self._store.total_keys)
            if self._everything:
                group.everything = self._store.dump()
                group.flushed = {None}
            self._waiting, self._flushed, self._everything = {}, set(), False
            self._written_bytes, self._waiting_bytes = self._waiting_bytes, 0
            self._since_written, self._since = self._since, None
            return group

    def _write_everything(self) -> None:
        """Have the file hold what the store holds, before it is served."""
        self._everything = True
        group = self._take()
        assert group is not None
        self._file.write(group.changes, group.flushed, self._file.step + 1, group.entries)
        self._written_bytes, self._since_written = 0, None

    def _look_at_file(self) -> None:
        """See to it that what is written will be found again. Raises OSError if it would not be.

        The file may have been removed, with or without its folder, or another one may have
        taken its name, while we go on writing to what has no name any more.
        """
        if not self._file.has_moved():
            if self._lock:
                self._lock.ensure()
            return
        if not (self._file.is_gone() or self._file.is_ours()):
            raise OSError(
                "another file has taken its place; what this server holds is written as soon as "
                "that file is moved away"
            )
        gone = self._file.is_gone()
        if gone and not self.path.parent.is_dir():
            raise OSError(f"the folder {self.path.parent} is gone")
        try:
            self._file.reopen()
        except BaseException:
            if gone:  # else the next attempt would take it for somebody else's
                self.path.unlink(missing_ok=True)
            raise
        if gone:
            log.error("journal: %s was removed; writing all of it anew", self.path)
            with self._changed:
                self._everything = True
        if self._lock:
            self._lock.ensure()
        self._first_step = self._file.step - self._durable

    def _recover(self, group: _Group | None, error: Exception) -> None:
        """Report what went wrong; undo what was refused (`always`) or put it back to wait."""
        with contextlib.suppress(Exception):  # a lack of memory may last
            text = str(error) or type(error).__name__
            if isinstance(error, AlreadyLocked):
                text = "another kvdb server keeps its data there"
            self._report(text, error)
        if self.fsync is Fsync.ALWAYS and not (group and group.everything):
            self._undo(group or _Group({}, set(), self._durable, None))
        elif group is not None:
            self._keep_waiting(group)
        with self._changed:
            self._written_bytes, self._since_written = 0, None
            self._changed.notify_all()
        self._failures += 1
        if isinstance(error, sqlite3.Error) and self._failures.bit_count() == 1 < self._failures:
            # At the second failure, the fourth, the eighth: whatever state the connection is
            # in, a new one is not in it.
            with contextlib.suppress(Exception):
                self._file.reopen()

    def _report(self, error: str | None, exception: Exception | None = None) -> None:
        """Log once per change of state, not once per attempt."""
        text = error and f"cannot write {self.path}: {error}"
        with self._changed:
            before, self.last_error = self.last_error, text
        if text and not before:
            known = isinstance(exception, sqlite3.Error | OSError | AlreadyLocked)
            log.error("journal: %s; trying again", text, exc_info=None if known else exception)
        elif before and not text:
            log.info("journal: writing %s works again", self.path)

    def _keep_waiting(self, group: _Group) -> None:
        """Put back what could not be written, under what has come since."""
        with self._changed:
            if group.everything or self._everything:
                self._everything = True
                return
            if None not in self._flushed:
                newer = {split_key(key)[0] for key in group.changes} & self._flushed
                kept = {
                    key: entry
                    for key, entry in group.changes.items()
                    if split_key(key)[0] not in newer
                }
                self._waiting = kept | self._waiting
                self._waiting_bytes += self._written_bytes
                self._flushed |= group.flushed
            self._since = self._since_written or self._since

    def _undo(self, group: _Group) -> None:
        """Give the store back what the file holds of every key that nobody was told of yet.

        The store's lock is held while the file is read: rare, and nobody may see more of what
        is being taken back.
        """
        try:
            with self._store.atomic():
                self._undo_atomically(group)
        finally:
            self._own.undoing = False

    def _undo_atomically(self, group: _Group) -> None:
        with self._changed:
            keys = {**group.changes, **self._waiting}.keys()
            everything = bool(group.flushed or self._flushed)
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
            self._keep_waiting(group)
            return
        self._own.undoing = True  # until the end of the step, when _listen() hears of it
        if everything:
            self._store.flush()
        self._store.put_back(before)
        with self._changed:
            self._forget_waiting_locked()
            self._flushed, self._since = set(), None
            self._undone.append(range(self._durable + 1, self._told + 1))
            self._durable = self._told
            self._changed.notify_all()


class _Group:
    """What is written together: changes after flushes, up to a step."""

    def __init__(
        self,
        changes: dict[Key, Entry | None],
        flushed: set[int | None],
        step: int,
        entries: int | None,
    ) -> None:
        self._changes, self.flushed, self.step, self.entries = changes, flushed, step, entries
        self.everything: Dump | None = None
        """All that the store holds, if that is what is written."""

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


def _boot() -> str:
    """Return what tells this run of the system from every other, where the system tells."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
