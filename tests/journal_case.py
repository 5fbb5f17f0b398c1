"""What the journal's test modules share: a store, its file, and a disk that can be full."""

from __future__ import annotations

import random
import sqlite3
import tempfile
import threading
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from kvdb.commands.instance import Instance
from kvdb.config import Config
from kvdb.persistence.database import JournalFile
from kvdb.persistence.journal import Fsync, Journal
from kvdb.protocols import RequestLoop
from kvdb.store import Store
from kvdb.store.entry import Entry, Key, key_in
from tests.store_case import contents
from tests.support import Conversation, ManualClock

FULL = "database or disk is full"


class Disk:
    """Stands between a journal and its file: fails, waits or looks on when a test says so."""

    def __init__(self) -> None:
        self.full = False
        self.fails_at: int | None = None  # number of the statement that fails, from now on
        self.before_commit: Callable[[], object] = lambda: None
        self.after_statement: Callable[[], object] = lambda: None
        self.commits = 0

    def stand_before(self, file: JournalFile) -> None:
        """Have all that this file's connections do come through here."""
        connect = file._connect
        file._database = Through(self, file._database)  # type: ignore[assignment]
        file._connect = lambda: Through(self, connect())  # type: ignore[method-assign, assignment, return-value]

    def may_fail(self, sql: str) -> None:
        """Reading and rolling back always work, as they do where only room is lacking."""
        if sql.startswith(("SELECT", "ROLLBACK")) or sql == "PRAGMA user_version":
            return
        if self.fails_at is not None:
            self.fails_at -= 1
        if self.full or self.fails_at == -1:
            raise sqlite3.OperationalError(FULL)


class Through:
    """A connection to a file on such a disk."""

    def __init__(self, disk: Disk, database: sqlite3.Connection) -> None:
        self._disk, self._database = disk, database

    def execute(self, sql: str, *arguments: Any) -> Any:
        if sql == "COMMIT":
            self._disk.before_commit()
        self._disk.may_fail(sql)
        cursor = self._database.execute(sql, *arguments)
        self._disk.commits += sql == "COMMIT"
        self._disk.after_statement()
        return cursor

    def executescript(self, sql: str) -> Any:
        self._disk.may_fail(sql)
        return self._database.executescript(sql)

    def close(self) -> None:
        self._database.close()


class Gate:
    """Holds whoever passes until a test opens it."""

    def __init__(self) -> None:
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self) -> None:
        self.reached.set()
        assert self.opened.wait(10)


def answers(dialect: RequestLoop, data: bytes) -> bytes:
    """Send bytes; return what comes back, as soon as the disk has decided about it."""
    replies = dialect.receive(data)
    while True:
        while (undecided := dialect.undecided) is not None:
            journal = dialect.session.instance.persistence
            assert isinstance(journal, Journal)
            with journal._changed:
                assert journal._changed.wait_for(lambda: undecided.is_decided, 10), "still waiting"
            replies += undecided.settle() or b""
        if not dialect.more:
            return replies
        replies += dialect.receive(b"")


class Client(Conversation):
    """A client whose replies may have to wait for the disk."""

    def bytes(self, data: bytes | str) -> bytes:
        return answers(self.dialect, data if isinstance(data, bytes) else data.encode())


class JournalCase(unittest.TestCase):
    """`self.store` keeps its entries in the file `self.path`; the test looks at both."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.path = self.folder / "data.sqlite"
        self.clock = ManualClock()
        # The disk comes back when the test says so: nobody has to wait before asking again.
        self.enterContext(mock.patch("kvdb.persistence.journal._RETRY", 0.001))
        self.enterContext(mock.patch("kvdb.persistence.journal._RETRY_ALWAYS", 0.001))

    def open(
        self, fsync: Fsync = Fsync.EVERYSEC, max_bytes: int = 0, *, thread: bool = True
    ) -> None:
        """Start a server's store and journal on the file.

        Without a thread, nothing is written before the test calls write_down().
        """
        self.store = Store(max_bytes, clock=self.clock)
        self.journal = Journal(self.store, self.path, fsync)
        self.addCleanup(self.journal.stop)
        self.loaded = self.journal.load()
        self.disk = Disk()
        self.disk.stand_before(self.journal._file)
        if thread:
            self.journal.start()
        else:
            with mock.patch.object(self.journal.thread, "start"):
                self.journal.start()
        self.addCleanup(self.store.check)
        config = Config(max_bytes=0, data=self.path)
        self.instance = Instance(self.store, config, self.journal, monotonic=ManualClock())

    def reopen(self, fsync: Fsync = Fsync.EVERYSEC) -> None:
        """Stop, and start again."""
        self.assertTrue(self.journal.stop())
        self.open(fsync)

    def write_down(self, refused: bool = False) -> None:
        """One pass of what the journal's thread does, on a disk that may refuse it."""
        self.disk.full = refused
        self.assertEqual(self.journal._write_down(), not refused)
        self.disk.full = False

    def fail_to_commit(self, meanwhile: Callable[[], object]) -> None:
        """Have the disk refuse what is waiting at its very end, after something else has come."""

        def before_commit() -> None:
            self.disk.before_commit = lambda: None
            meanwhile()
            self.disk.full = True

        self.disk.before_commit = before_commit
        self.assertFalse(self.journal._write_down())
        self.disk.full = False

    def rows(
        self, path: Path | None = None, columns: str = "db, key, value, expires_at, client_flags"
    ) -> list[tuple[Any, ...]]:
        """Read the file as any other program would."""
        database = sqlite3.connect(path or self.path)
        try:
            return database.execute(f"SELECT {columns} FROM entries ORDER BY db, key").fetchall()
        finally:
            database.close()

    def entries_on_disk(self, path: Path | None = None) -> dict[Key, Entry]:
        def to_bytes(value: str | bytes) -> bytes:
            return value.encode() if isinstance(value, str) else value

        return {
            key_in(db, to_bytes(key)): Entry(to_bytes(value), expires_at, client_flags)
            for db, key, value, expires_at, client_flags in self.rows(path)
        }

    def assert_on_disk(self) -> None:
        """Once saved, the file holds what the store holds."""
        self.journal.save()
        self.assertEqual(self.entries_on_disk(), contents(self.store))

    def talk(self) -> Client:
        return Client(self.instance)

    def by_hand(self, *statements: str) -> None:
        """Work on the file as a person does with the sqlite3 program."""
        database = sqlite3.connect(self.path)
        for statement in statements:
            database.execute(statement)
        database.commit()
        database.close()


def random_operations(
    store: Store, dice: random.Random, clock: ManualClock
) -> list[Callable[[], object]]:
    """Return what can happen to a store, on few keys so that they meet."""

    def key() -> Key:
        return key_in(dice.randrange(3), dice.choice([b"a", b"b", b"c", b"\xff"]))

    def step() -> None:
        with store.atomic():
            for _ in range(3):
                dice.choice(operations)()

    operations: list[Callable[[], object]] = [
        lambda: store.set(key(), b"%d" % dice.randrange(100)),
        lambda: store.set(
            key(),
            b"v",
            expires_at=clock.now + dice.randrange(1, 20),
            client_flags=dice.randrange(9),
        ),
        lambda: store.write_many({key(): b"1", key(): None, key(): b"2"}),
        lambda: store.update(key(), lambda old: (old or b"") + b"+"),
        lambda: store.delete(key(), key()),
        lambda: store.rename(key(), key()),
        lambda: store.set_deadline(key(), clock.now + dice.randrange(-1, 20)),
        lambda: dice.random() < 0.2 and store.flush(dice.choice([0, 1, 2, None])),
        step,
    ]
    return operations
