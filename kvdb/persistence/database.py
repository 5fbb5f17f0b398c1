"""The journal's file: one SQLite database with a table of entries that any SQLite tool can read.

    sqlite3 database.sqlite 'select key, value from entries'

Each row carries a checksum, and the table `state` the number of rows and of the last step: so
what SQLite itself does not notice, a changed byte or a row that is gone, is noticed at the next
start. Whoever changes rows by hand does so between two runs of the server; triggers see to it that
such changes are not taken for damage.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

from kvdb.config import Fsync
from kvdb.persistence import PersistenceError
from kvdb.persistence.rows import Row, decode_row, encode_key, encode_row
from kvdb.store.entry import Entry, Key

log = logging.getLogger(__name__)

FORMAT_VERSION: Final = 2

_ENTRIES: Final = """
CREATE TABLE IF NOT EXISTS entries (
    db INTEGER NOT NULL,           -- database, 0 to 15
    key NOT NULL,                  -- text, or a blob where it is not UTF-8
    value NOT NULL,                -- likewise
    expires_at REAL,               -- Unix seconds; NULL: never
    client_flags INTEGER NOT NULL DEFAULT 0, -- memcached's number per value
    checksum INTEGER,              -- CRC-32 of the row; NULL: written by hand
    PRIMARY KEY (db, key)
) WITHOUT ROWID
"""
_ADD_CHECKSUM: Final = "ALTER TABLE entries ADD COLUMN checksum INTEGER"  # to version 1
_STATE: Final = """
CREATE TABLE IF NOT EXISTS state (
    step INTEGER NOT NULL,         -- number of the last change that is in here
    entries INTEGER,               -- how many rows there are; NULL: changed by hand
    file TEXT NOT NULL             -- a name of this file that no other one has
)
"""
_FIRST_STATE: Final = "INSERT INTO state SELECT 0, NULL, ? WHERE NOT EXISTS (SELECT 1 FROM state)"
# The server itself never updates a row, inserts none without a checksum, and counts what it
# deletes, at the end of each transaction.
_TRIGGERS: Final = {
    "inserted_by_hand": "AFTER INSERT ON entries WHEN NEW.checksum IS NULL "
    "BEGIN UPDATE state SET entries = NULL; END",
    "updated_by_hand": "AFTER UPDATE ON entries WHEN NEW.checksum IS OLD.checksum "
    "BEGIN UPDATE entries SET checksum = NULL WHERE db = NEW.db AND key = NEW.key; END",
    "deleted_by_hand": "AFTER DELETE ON entries BEGIN UPDATE state SET entries = NULL; END",
}

_READ_ALL: Final = "SELECT db, key, value, expires_at, client_flags, checksum FROM entries"
_READ_ALL_OF_VERSION_1: Final = _READ_ALL.replace("checksum", "NULL")
_READ_ONE: Final = _READ_ALL + " WHERE db = ? AND key = ?"
_READ_STATE: Final = "SELECT step, entries, file FROM state"
_WRITE: Final = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?)"
_DELETE: Final = "DELETE FROM entries WHERE db = ? AND key IN (?)"
_DELETE_EXPIRED: Final = "DELETE FROM entries WHERE expires_at <= ?"
_DELETE_DB: Final = "DELETE FROM entries WHERE db = ?"
_DELETE_ALL: Final = "DELETE FROM entries"
_WRITE_STATE: Final = "UPDATE state SET step = ?, entries = ?"

# Rows that go to SQLite in one call. Each call lets the interpreter go, and beside busy threads
# it takes 5 ms to have it back: with rows one by one, 424 of them a second are written beside
# four such threads, with 5,000 together 55,000. Few different sizes, so that SQLite has the
# statements ready.
_TOGETHER: Final = (5_000, 500, 50, 5, 1)
_LARGEST_CALL: Final = 4 * 1024 * 1024  # bytes of values in one call

_INCREMENTAL: Final = 2  # as PRAGMA auto_vacuum has it

_FREE_PAGES: Final = 1_000
"""Free pages (4 MB) that the file may have, and pages that are given back to the system at a time:
a few milliseconds."""

_WAL_KEPT: Final = 4 * 1024 * 1024  # bytes that the log may keep once it has been written back


class JournalFile:
    """One connection to the file. Not thread-safe: the journal's lock guards it."""

    def __init__(self, path: Path, fsync: Fsync) -> None:
        """Open the file, and create it if it does not exist. Raises PersistenceError."""
        self.path = path
        self._fsync = fsync
        self._entries: int | None = None  # how many rows there should be; None: unknown
        self._identity: tuple[int, int] | None = None
        self._wal_identity: tuple[int, int] | None = None
        self.step = 0
        """Number of the last step that is in the file, counted from its creation on."""
        self.name = ""
        """What tells it from any other file."""
        self._database = self._connect()
        with self.refusing("cannot be used"):
            self._prepare()

    def _connect(self) -> sqlite3.Connection:
        try:
            if not self.path.exists():  # it holds everybody's data: nobody else's to read
                os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            database = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        except (sqlite3.Error, OSError) as error:
            raise PersistenceError(f"{self.path} cannot be used: {error}") from None
        variables = database.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
        self._together = [size for size in _TOGETHER if 6 * size <= variables]
        return database

    @contextlib.contextmanager
    def refusing(self, trouble: str) -> Iterator[None]:
        """Close the file if it cannot be used, and raise what has to be done about it."""
        try:
            yield
        except (sqlite3.Error, ValueError) as error:
            self.close()
            raise PersistenceError(
                f"{self.path} {trouble}: {error}. It was left untouched: put a good copy in its "
                "place, or move it away to start empty"
            ) from None
        except PersistenceError:
            self.close()
            raise

    def _prepare(self) -> None:
        (version,) = self._database.execute("PRAGMA user_version").fetchone()
        if version > FORMAT_VERSION:
            raise PersistenceError(f"{self.path} was written by a newer kvdb: start that one")
        (tables,) = self._database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if version == 0 and tables:
            raise PersistenceError(f"{self.path} holds the tables of another program")
        self._version = version
        if version == 0:
            self._database.execute("PRAGMA auto_vacuum = INCREMENTAL")  # before there are tables
            self._upgrade()
        if self._version == FORMAT_VERSION:
            self.step, self._entries, self.name = self._database.execute(_READ_STATE).fetchone()

    def _upgrade(self) -> None:
        """Make the file one of this version, from an empty one or one of version 1."""
        with self._transaction():
            if self._version == 1:
                self._database.execute(_ADD_CHECKSUM)
            self._database.execute(_ENTRIES)
            self._database.execute(_STATE)
            self._database.execute(_FIRST_STATE, (secrets.token_hex(8),))
            self._create_triggers()
            self._database.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
        self._version = FORMAT_VERSION

    def _create_triggers(self) -> None:
        for name, body in _TRIGGERS.items():
            self._database.execute(f"CREATE TRIGGER IF NOT EXISTS {name} {body}")

    # --- reading -------------------------------------------------------------------------

    def rows(self) -> Iterator[tuple[Row, Key, Entry]]:
        """Yield every row and what it says. Raises DamagedRow, also if rows are missing."""
        count = 0
        read_all = _READ_ALL if self._version > 1 else _READ_ALL_OF_VERSION_1
        for row in self._database.execute(read_all):
            count += 1
            yield row, *decode_row(row)
        if self._entries is not None and count != self._entries:
            raise ValueError(f"it holds {count} entries instead of {self._entries}")

    def read(self, keys: Iterable[Key]) -> Iterator[tuple[Key, Entry | None]]:
        """Yield what the file holds of each of these keys."""
        for key in keys:
            row = self._database.execute(_READ_ONE, encode_key(key)).fetchone()
            yield key, None if row is None else decode_row(row)[1]

    def copy_to(self, path: Path) -> None:
        """Write all that the file holds to another one, in place of what that one held."""
        try:
            path.unlink(missing_ok=True)
            self._database.execute("VACUUM INTO ?", (str(path),))
        except (OSError, sqlite3.Error) as error:
            self.close()
            raise PersistenceError(f"cannot write {path}: {error}") from None

    # --- writing -------------------------------------------------------------------------

    def begin_writing(self) -> None:
        """Prepare for write(). Nothing is changed before: a damaged file is left as it is.

        Raises sqlite3.Error.
        """
        if self._version == 1:
            self._upgrade()
            with contextlib.suppress(sqlite3.Error):  # so that it can shrink from now on
                self._database.execute("PRAGMA auto_vacuum = INCREMENTAL")
                self._database.execute("VACUUM")
            self.step, _, self.name = self._database.execute(_READ_STATE).fetchone()
        self._database.execute("PRAGMA journal_mode = WAL")
        # In WAL mode FULL syncs at each commit. NORMAL does so before the log is written back:
        # a power cut takes back the last commits, whole and in their order; OFF would tear.
        level = "NORMAL" if self._fsync is Fsync.NEVER else "FULL"
        self._database.execute(f"PRAGMA synchronous = {level}")
        self._database.execute(f"PRAGMA journal_size_limit = {_WAL_KEPT}")
        self.write({}, set(), self.step, self._entries)
        self._identity, self._wal_identity = _identity(self.path), _identity(self._wal)

    @property
    def _wal(self) -> Path:
        return self.path.with_name(self.path.name + "-wal")

    def write(
        self,
        changes: dict[Key, Entry | None],
        flushed: set[int | None],
        step: int,
        entries: int | None,
    ) -> None:
        """Write what has changed (None: gone) after flushes, in one transaction.

        `entries` is how many the file holds then. Raises sqlite3.Error; the file is as before.
        """
        with self._transaction():
            for db in flushed:
                self._flush(db)
            gone: dict[int, list[str | bytes]] = {}
            for key, entry in changes.items():
                if entry is None:
                    db, name = encode_key(key)
                    gone.setdefault(db, []).append(name)
            for db, names in gone.items():
                self._delete(db, names)
            self._insert(encode_row(key, entry) for key, entry in changes.items() if entry)
            self._database.execute(_WRITE_STATE, (step, entries))
        self.step, self._entries = step, entries

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Make one transaction of the block: committed at its end, undone if it raises."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._database.execute("ROLLBACK")
            raise

    def shrink(self) -> bool:
        """Give some free pages back to the system, if there are many; tell whether there were.

        A file that was made by another program may be one that SQLite cannot shrink bit by bit.
        """
        (free,) = self._database.execute("PRAGMA freelist_count").fetchone()
        (pages,) = self._database.execute("PRAGMA page_count").fetchone()
        (mode,) = self._database.execute("PRAGMA auto_vacuum").fetchone()
        if mode != _INCREMENTAL or free < max(_FREE_PAGES, pages // 4):
            return False
        self._database.executescript(f"PRAGMA incremental_vacuum({_FREE_PAGES})")
        return True

    def _flush(self, db: int | None) -> None:
        if db is not None:
            self._database.execute(_DELETE_DB, (db,))
            return
        # Without triggers SQLite drops the pages, instead of deleting row by row.
        for name in _TRIGGERS:
            self._database.execute(f"DROP TRIGGER IF EXISTS {name}")
        self._database.execute(_DELETE_ALL)
        self._create_triggers()

    def _delete(self, db: int, names: list[str | bytes]) -> None:
        start = 0
        for size in self._together:
            statement = _DELETE.replace("(?)", f"({', '.join('?' * size)})")
            while len(names) - start >= size:
                self._database.execute(statement, (db, *names[start : start + size]))
                start += size

    def _insert(self, rows: Iterator[Row]) -> None:
        while batch := _take_batch(rows, self._together[0]):
            start = 0
            for size in self._together:
                statement = _WRITE + ", (?, ?, ?, ?, ?, ?)" * (size - 1)
                while len(batch) - start >= size:
                    some = batch[start : start + size]
                    self._database.execute(statement, [each for row in some for each in row])
                    start += size

    def clean_up(self, strays: Sequence[Row], rewritten: dict[Key, Entry], now: float) -> int:
        """Write anew what was written by hand, delete strays and what has expired.

        Returns how many rows there are then.
        """
        with self._transaction():
            for row in strays:
                self._database.execute(_DELETE, row[:2])
            self._insert(encode_row(key, entry) for key, entry in rewritten.items())
            self._database.execute(_DELETE_EXPIRED, (now,))
            (left,) = self._database.execute("SELECT count(*) FROM entries").fetchone()
            self._database.execute(_WRITE_STATE, (self.step, left))
        self._entries = int(left)
        return self._entries

    def has_moved(self) -> bool:
        """Tell whether the path leads elsewhere: to another file, or (see is_gone) to none.

        What is written then would be lost with the name of the file.
        """
        return _identity(self.path) != self._identity or _identity(self._wal) != self._wal_identity

    def is_gone(self) -> bool:
        """Tell whether the path leads nowhere."""
        return _identity(self.path) is None

    def is_ours(self) -> bool:
        """Tell whether the path leads to the file that we have opened."""
        return _identity(self.path) == self._identity

    def reopen(self) -> None:
        """Open the path anew, for writing. Raises PersistenceError or sqlite3.Error.

        If that fails, the connection stays as it is: what it can still read may be needed.
        """
        if self.is_ours() and _identity(self._wal) != self._wal_identity:
            # The log has lost its name. Closing writes what is in it back to the file.
            self.close()
        before = self._database
        try:
            self._database = self._connect()
            self._prepare()
            self.begin_writing()
        except BaseException:
            if self._database is not before:
                self.close()
                self._database = before
            raise
        with contextlib.suppress(sqlite3.Error):
            before.close()

    def close(self) -> None:
        """Close the connection, whatever state it is in."""
        with contextlib.suppress(sqlite3.Error):
            self._database.close()


def _take_batch(rows: Iterator[Row], most: int) -> list[Row]:
    """Take rows for one call: not too many, and not too large together."""
    batch: list[Row] = []
    size = 0
    for row in islice(rows, most):
        batch.append(row)
        size += len(row[1]) + len(row[2])
        if size > _LARGEST_CALL:
            break
    return batch


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from every other, or None if there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino
