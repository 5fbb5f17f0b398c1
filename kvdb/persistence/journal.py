"""The journal: every change, in groups, into an SQLite file that any SQLite tool can read.

    sqlite3 database.sqlite 'select key, value from entries'

The store's change feed tells what has changed; one thread writes it down, many changes in one
transaction. What is text stands there as text, the rest as blobs.
"""

from __future__ import annotations

import contextlib
import logging
import math
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from kvdb.config import Fsync
from kvdb.persistence import PersistenceError
from kvdb.store import Store
from kvdb.store.entry import DATABASES, Change, Entry, Flush, Key, key_in, split_key

log = logging.getLogger(__name__)

FORMAT_VERSION: Final = 1
_INTERVAL: Final = 1.0  # seconds between commits where nobody waits for them
_RETRY: Final = 1.0  # seconds between attempts while the disk refuses
_RETRY_ALWAYS: Final = 0.05  # the same where clients are waiting for the outcome

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (
    db INTEGER NOT NULL,           -- database, 0 to 15
    key NOT NULL,                  -- text, or a blob where it is not UTF-8
    value NOT NULL,                -- likewise
    expires_at REAL,               -- Unix seconds; NULL: never
    client_flags INTEGER NOT NULL, -- memcached's number per value
    PRIMARY KEY (db, key)
) WITHOUT ROWID
"""
_READ_ALL: Final = "SELECT db, key, value, expires_at, client_flags FROM entries"
_READ_ONE: Final = _READ_ALL + " WHERE db = ? AND key = ?"
_WRITE: Final = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?)"
_DELETE: Final = "DELETE FROM entries WHERE db = ? AND key = ?"
_DELETE_DB: Final = "DELETE FROM entries WHERE db = ?"
_DELETE_ALL: Final = "DELETE FROM entries"
_DELETE_EXPIRED: Final = "DELETE FROM entries WHERE expires_at <= ?"


Row = tuple[object, ...]
"""As _READ_ALL gives it."""


class Journal:
    """Writes a store's changes to an SQLite file.

    `_changed` guards what is waiting to be written and the figures. The listener takes it
    under the store's lock for a moment; nobody takes the store's lock while holding it.
    `_writing` is held by whoever uses the database connection; it comes before the store's.
    """

    def __init__(self, store: Store, path: Path, fsync: Fsync) -> None:
        """Open the file, and create it if it does not exist. Raises PersistenceError."""
        self._store = store
        self.path = path
        self.fsync = fsync
        self._writing = threading.Lock()
        self._changed = threading.Condition()
        self._waiting: dict[Key, Entry | None] = {}  # None: gone
        self._flushed: set[int | None] = set()  # databases flushed before that; None: every one
        self._told = 0  # number of the last atomic step that the feed has told
        self._durable = 0  # number of the last step that is on disk, or has been undone
        self._undone: list[range] = []  # steps that were undone because the disk refused
        self._own = threading.local()  # .step: the last step of this thread
        self._stopping = False
        self._asked = False  # to write down what is waiting now
        self.last_save = store.clock()  # Unix seconds of when all was on disk
        self.last_duration: float | None = None
        self.last_error: str | None = None
        self.saves = 0
        self._thread = threading.Thread(target=self._loop, name="journal", daemon=True)
        try:
            self._database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        except sqlite3.Error as error:
            raise PersistenceError(f"{path} cannot be used: {error}") from None
        with self._closed_on_error("cannot be used"):
            self._prepare()

    @contextlib.contextmanager
    def _closed_on_error(self, trouble: str) -> Iterator[None]:
        """Close the file if it cannot be used, and raise what has to be done about it."""
        try:
            yield
        except (sqlite3.Error, ValueError) as error:
            self._database.close()
            raise PersistenceError(
                f"{self.path} {trouble}: {error}. It was left untouched: put a good copy in its "
                "place, or move it away to start empty"
            ) from None
        except PersistenceError:
            self._database.close()
            raise

    def _prepare(self) -> None:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version > FORMAT_VERSION:
            raise PersistenceError(f"{self.path} was written by a newer kvdb: start that one")
        (tables,) = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version == 0 and tables:
            raise PersistenceError(f"{self.path} holds the tables of another program")
        if version < FORMAT_VERSION:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute(_SCHEMA)
            self._database.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
            self._database.execute("COMMIT")

    def load(self) -> int:
        """Fill the store; return the number of entries in the file. Raises PersistenceError."""
        count = 0
        strays: list[tuple[Row, Key, Entry]] = []

        def entries() -> Iterator[tuple[Key, Entry]]:
            nonlocal count
            for row in self._database.execute(_READ_ALL):
                count += 1
                if count % 1_000_000 == 0:
                    log.info("%s: %d entries loaded", self.path, count)
                key, entry = _decode_row(row)
                if type(row[1]) is not type(_encode_key(key)[1]):
                    strays.append((row, key, entry))
                yield key, entry

        with self._closed_on_error("is damaged"):
            did_not_fit = self._store.restore(entries())
        self._begin_writing(strays)
        if did_not_fit:
            backup = self._drop_what_did_not_fit()
            log.warning(
                "%s: %d of %d entries do not fit into the budget (--max-mb) and were evicted; "
                "all of them are in %s",
                self.path, did_not_fit, count, backup,
            )  # fmt: skip
        return count

    def _drop_what_did_not_fit(self) -> Path:
        """Have the file hold what the store holds, and a copy beside it all; return the copy.

        A key that the store does not know would outlive its deletion.
        """
        backup = self.path.with_name(self.path.name + ".bak")
        try:
            backup.unlink(missing_ok=True)
            self._database.execute("VACUUM INTO ?", (str(backup),))
        except (OSError, sqlite3.Error) as error:
            self._database.close()
            raise PersistenceError(f"cannot write {backup}: {error}") from None
        with self._changed:
            self._flushed = {None}
            self._waiting = {key: self._store.entry(key) for key in self._store.dump().keys}
            self._told += 1
        return backup

    def _begin_writing(self, strays: Sequence[tuple[Row, Key, Entry]]) -> None:
        """Delete what has expired, and write anew what was written by hand in another form.

        Nothing is written before all could be read: a damaged file is left as it is.
        A key that stands there as a number, or text as a blob, would not be found again: it would
        outlive its deletion.
        """
        try:
            self._database.execute("PRAGMA journal_mode = WAL")
            # In WAL mode only FULL syncs at each commit; NORMAL would lose some in a power cut.
            level = "OFF" if self.fsync is Fsync.NEVER else "FULL"
            self._database.execute(f"PRAGMA synchronous = {level}")
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute(_DELETE_EXPIRED, (self._store.clock(),))
            self._database.executemany(_DELETE, [row[:2] for row, _, _ in strays])
            self._database.executemany(
                _WRITE, _encode_rows({key: entry for _, key, entry in strays})
            )
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            self._database.close()
            raise PersistenceError(f"cannot write {self.path}: {error}") from None

    def start(self) -> None:
        """Write down every change from now on."""
        self._store.add_listener(self._listen)
        self._thread.start()

    def stop(self) -> bool:
        """Write down what is waiting and close the file; tell whether nothing was lost."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._thread.ident is not None:
            self._thread.join()
        self._store.remove_listener(self._listen)
        written = self._write_down()
        with contextlib.suppress(sqlite3.Error):
            self._database.close()
        return written

    # --- what sessions ask ---------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether a reply to a change has to wait until the change is on disk."""
        return self.fsync is Fsync.ALWAYS

    def take_step(self) -> int:
        """Return the number of this thread's last step if its durability must be awaited, or 0."""
        if not self.waits:
            return 0
        step: int = getattr(self._own, "step", 0)
        self._own.step = 0
        return step

    def wait_until_durable(self, step: int) -> bool:
        """Wait until a step is on disk; False if the disk refused it and it has been undone."""
        with self._changed:
            self._changed.wait_for(lambda: self._durable >= step)
            return not any(step in steps for steps in self._undone)

    @property
    def changes_since_save(self) -> int:
        """How many keys are waiting to be written."""
        with self._changed:
            return len(self._waiting) + len(self._flushed)

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

    def save_soon(self) -> bool:
        """Have the thread write down what is waiting now."""
        with self._changed:
            self._asked = True
            self._changed.notify_all()
        return True

    def interval_changed(self) -> None:
        """The journal has none."""

    # --- the thread ----------------------------------------------------------------------

    def _listen(self, facts: Sequence[Change | Flush]) -> None:
        with self._changed:
            for fact in facts:
                if isinstance(fact, Change):
                    self._waiting[fact.key] = fact.entry
                elif fact.db is None:
                    self._waiting.clear()
                    self._flushed = {None}
                else:
                    for key in [key for key in self._waiting if split_key(key)[0] == fact.db]:
                        del self._waiting[key]
                    self._flushed.add(fact.db)
            self._told += 1
            self._own.step = self._told
            if self.fsync is Fsync.ALWAYS:
                self._changed.notify_all()

    def _loop(self) -> None:
        always = self.fsync is Fsync.ALWAYS
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: (
                        self._stopping or self._asked or (always and self._durable < self._told)
                    ),
                    timeout=None if always else _INTERVAL,
                )
                if self._stopping:
                    return
                self._asked = False
            if not self._write_down():
                with self._changed:
                    retry = _RETRY_ALWAYS if always else _RETRY
                    self._changed.wait_for(lambda: self._stopping, timeout=retry)

    def _write_down(self) -> bool:
        """Write what is waiting in one transaction; tell whether that went well."""
        with self._writing:
            with self._changed:
                if self._durable == self._told and not self._waiting and not self._flushed:
                    self.last_save = self._store.clock()  # all is on disk, as of now
                    return True
                waiting, self._waiting = self._waiting, {}
                flushed, self._flushed = self._flushed, set()
                step = self._told
            started = time.monotonic()
            try:
                self._commit(waiting, flushed)
            except Exception as error:  # whatever it is: clients wait for the outcome
                self._report(str(error))
                if self.fsync is Fsync.ALWAYS:
                    self._undo(waiting, flushed)
                else:
                    self._keep_waiting(waiting, flushed)
                return False
            self._report(None)
            with self._changed:
                self._durable = step
                self.last_save = self._store.clock()
                self.last_duration = time.monotonic() - started
                self.saves += 1
                self._changed.notify_all()
            return True

    def _commit(self, waiting: dict[Key, Entry | None], flushed: set[int | None]) -> None:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            for db in flushed:
                self._database.execute(*((_DELETE_ALL,) if db is None else (_DELETE_DB, (db,))))
            gone = [_encode_key(key) for key, entry in waiting.items() if entry is None]
            self._database.executemany(_DELETE, gone)
            self._database.executemany(_WRITE, _encode_rows(waiting))
            self._database.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise

    def _report(self, error: str | None) -> None:
        """Log once per change of state, not once per attempt."""
        with self._changed:
            before, self.last_error = (
                self.last_error,
                error and f"cannot write {self.path}: {error}",
            )
        if error and not before:
            log.error("journal: %s; trying again", self.last_error)
        elif before and not error:
            log.info("journal: writing %s works again", self.path)

    def _keep_waiting(self, waiting: dict[Key, Entry | None], flushed: set[int | None]) -> None:
        """Put back what could not be written, under what has come since."""
        with self._changed:
            if None not in self._flushed:
                newer = {split_key(key)[0] for key in waiting} & self._flushed
                kept = {k: entry for k, entry in waiting.items() if split_key(k)[0] not in newer}
                self._waiting = kept | self._waiting
                self._flushed |= flushed

    def _undo(self, waiting: dict[Key, Entry | None], flushed: set[int | None]) -> None:
        """Give the store back what the file holds of every key that nobody was told of yet.

        The store's lock is held while the file is read: rare, and nobody may see more of what
        is being taken back.
        """
        with self._store.atomic():
            with self._changed:
                keys = {**waiting, **self._waiting}.keys()
                everything = bool(flushed or self._flushed)
            try:
                before = list(self._read_all() if everything else self._read(keys))
            except Exception:  # then nothing is decided yet: those who wait go on waiting
                log.exception("journal: refused writes could not be undone; trying again")
                self._keep_waiting(waiting, flushed)
                return
            self._store.remove_listener(self._listen)
            try:
                if everything:
                    self._store.flush()
                self._store.put_back(before)
            finally:
                self._store.add_listener(self._listen)
            with self._changed:
                self._waiting, self._flushed = {}, set()
                self._undone = [*self._undone[-100:], range(self._durable + 1, self._told + 1)]
                self._durable = self._told
                self._changed.notify_all()

    def _read_all(self) -> Iterator[tuple[Key, Entry]]:
        now = self._store.clock()
        for row in self._database.execute(_READ_ALL):
            key, entry = _decode_row(row)
            if entry.expires_at is None or entry.expires_at > now:
                yield key, entry

    def _read(self, keys: Iterable[Key]) -> Iterator[tuple[Key, Entry | None]]:
        for key in keys:
            row = self._database.execute(_READ_ONE, _encode_key(key)).fetchone()
            entry = None if row is None else _decode_row(row)[1]
            if entry and entry.expires_at is not None and entry.expires_at <= self._store.clock():
                entry = None  # it would only expire again
            yield key, entry


# --- rows ---------------------------------------------------------------------------------


def _encode(data: bytes) -> str | bytes:
    """Return what is text as text, so that SQLite's tools show it; a NUL would cut it there."""
    try:
        return data if b"\0" in data else data.decode()
    except UnicodeDecodeError:
        return data


def _decode(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, int | float):  # written by hand: insert into entries values (..., 5, ...)
        return str(value).encode()
    raise ValueError(f"{value!r} is neither text nor a blob")


def _encode_key(key: Key) -> tuple[int, str | bytes]:
    db, name = split_key(key)
    return db, _encode(name)


def _encode_rows(
    waiting: dict[Key, Entry | None],
) -> Iterator[tuple[int, str | bytes, str | bytes, float | None, int]]:
    for key, entry in waiting.items():
        if entry is not None:
            db, name = _encode_key(key)
            yield db, name, _encode(entry.value), entry.expires_at, entry.client_flags


def _decode_row(row: Row) -> tuple[Key, Entry]:
    db, name, value, expires_at, client_flags = row
    if not isinstance(db, int) or not 0 <= db < DATABASES:
        raise ValueError(f"db is {db!r}: it must be 0 to {DATABASES - 1}")
    if not isinstance(client_flags, int) or not 0 <= client_flags < 1 << 32:
        raise ValueError(f"client_flags is {client_flags!r}: it must be a number of 32 bits")
    match expires_at:
        case None:
            deadline = None
        case int() | float() if math.isfinite(expires_at):
            deadline = float(expires_at)
        case _:
            raise ValueError(f"expires_at is {expires_at!r}: it must be a number or NULL")
    return key_in(db, _decode(name)), Entry(_decode(value), deadline, client_flags)
