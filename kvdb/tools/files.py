"""Reading data files without changing them: snapshots and journals, sound or not."""

from __future__ import annotations

import json
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import quote

from kvdb.config import SQLITE_MAGIC, Config
from kvdb.persistence import PersistenceError
from kvdb.persistence.database import FORMAT_VERSION
from kvdb.persistence.lockfile import AlreadyLocked, LockFile
from kvdb.persistence.rows import DamagedRow, decode_row
from kvdb.persistence.snapshot_loading import load_snapshot, salvage_snapshot
from kvdb.persistence.snapshot_writing import unfinished
from kvdb.store import Store
from kvdb.store.entry import Entry, Key

if sys.platform != "win32":
    import fcntl

_MOST_PROBLEMS: Final = 10
"""Damaged rows of which each is told; the others are counted."""

_MOST_MISSING: Final = 1 << 33
"""Bytes that are taken to be missing at the end of a file that was cut: they are a hole on the disk."""

_COLUMNS: Final = "db, key, value, expires_at, client_flags"

Take = Callable[[Key, Entry], None]
"""Is called with each entry that can be read."""


@dataclass
class Findings:
    """What a file turned out to be."""

    kind: str
    """`a snapshot` or `a journal`."""
    entries: int = 0
    """How many could be read."""
    problems: list[str] = field(default_factory=list)
    """Sentences about what is damaged or missing; none if the file is sound."""
    remarks: list[str] = field(default_factory=list)
    """Sentences about what is worth knowing, and no damage."""


def is_journal(path: Path) -> bool:
    """Tell whether a file is a journal, as a server decides it: by what is in it, else by its name."""
    return Config(data=path).is_journal


def read_data(path: Path, take: Take) -> Findings:
    """Read a data file, as far as a server would read it; return what was found.

    Raises PersistenceError if there is no such file, it is another program's, or it is a journal that
    a server is using. (A snapshot can be read all the same: a save replaces it as a whole.)
    """
    return _read(path, take, salvage=False)


def salvage_data(path: Path, take: Take) -> Findings:
    """Read everything in a data file that can be read, behind damage as well.

    Where a snapshot's checksum does not fit, one of its entries may be another than was written.
    Raises PersistenceError as read_data() does.
    """
    return _read(path, take, salvage=True)


def _read(path: Path, take: Take, salvage: bool) -> Findings:
    try:
        with open(path, "rb"):
            pass
    except OSError as error:
        raise PersistenceError(f"cannot read {path}: {error.strerror or error}") from None
    if not is_journal(path):
        return _read_snapshot(path, take, salvage)
    with _keeping_servers_out(path):
        return _read_journal(path, take, salvage)


# --- snapshots ----------------------------------------------------------------------------


class _Receiver:
    """Takes the entries that are loaded where there is no store, one after the other."""

    def __init__(self, findings: Findings, take: Take) -> None:
        self._findings, self._take = findings, take

    def restore(self, entries: Iterable[tuple[Key, Entry]], now: float | None = None) -> int:
        """As Store.restore(); everything fits."""
        for key, entry in entries:
            self._findings.entries += 1
            self._take(key, entry)
        return 0


def _read_snapshot(path: Path, take: Take, salvage: bool) -> Findings:
    findings = Findings("a snapshot")
    receiver = _Receiver(findings, take)
    if salvage:
        receiver.restore(salvage_snapshot(path, findings.problems.append))
    else:
        try:
            load_snapshot(path, cast(Store, receiver))
        except PersistenceError as error:
            findings.problems.append(f"{error}.")
    if unfinished(path).exists():
        findings.remarks.append(f"{unfinished(path)} is a save that was not finished.")
    return findings


# --- journals -----------------------------------------------------------------------------


@contextmanager
def _keeping_servers_out(path: Path) -> Iterator[None]:
    """Raise PersistenceError if a server uses the file, and let none begin to meanwhile."""
    in_use = PersistenceError(
        f"{path} is in use by a kvdb server: stop it, or ask it by its address"
    )
    if sys.platform == "win32":
        try:
            lock = LockFile(path.resolve())
        except AlreadyLocked:
            raise in_use from None
        try:
            yield
        finally:
            lock.release(keep_note=True)
    else:
        with open(path, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                raise in_use from None
            yield


def _read_journal(path: Path, take: Take, salvage: bool) -> Findings:
    findings = Findings("a journal")
    with ExitStack() as stack:
        try:
            where = findings if salvage else None
            database = stack.enter_context(closing(_open_copy(path, stack, where)))
            database.text_factory = _text  # else one damaged text would end the reading
            _read_rows(path, database, findings, take, salvage)
        except sqlite3.Error as error:
            findings.problems.append(f"SQLite cannot read on: {error}.")
        except OSError as error:
            raise PersistenceError(f"cannot copy {path}: {error.strerror or error}") from None
    return findings


def _text(data: bytes) -> str | bytes:
    """Return a text; as bytes if it is none, so that the row's checksum does not fit."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


def _open_copy(path: Path, stack: ExitStack, mended: Findings | None) -> sqlite3.Connection:
    """Open the file so that nothing of it changes, not even files beside it.

    What a crash has left in SQLite's log belongs to the data, and SQLite would write it back: then
    it is a copy that is opened. To salvage, too: a copy whose header is mended, as `mended` tells.
    """
    log = path.with_name(path.name + "-wal")
    if mended is None and (not log.exists() or not log.stat().st_size):
        where = quote(str(path.resolve()))
        return sqlite3.connect(f"file:{where}?mode=ro&immutable=1", uri=True)
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kvdb-")))
    for each in (path, log):
        if each.exists():
            shutil.copyfile(each, folder / each.name)
    if mended is not None:
        mended.problems += _mend_header(folder / path.name)
    return sqlite3.connect(folder / path.name)


def _mend_header(path: Path) -> list[str]:
    """Let SQLite open a file that was cut, or whose first bytes are not what they should be.

    Returns sentences about what was wrong.

    https://www.sqlite.org/fileformat.html: a magic string, the size of a page at byte 16, how many
    pages there are at byte 28. Pages that are missing become zeros.
    """
    found: list[str] = []
    with open(path, "r+b") as file:
        head = file.read(100)
        if len(head) < 100:
            return found
        if head[:16] != SQLITE_MAGIC:
            found.append("It does not begin as a database does.")
            file.seek(0)
            file.write(SQLITE_MAGIC)
        page_size = int.from_bytes(head[16:18], "big")
        page_size = 65536 if page_size == 1 else page_size
        whole = page_size * int.from_bytes(head[28:32], "big")
        size = file.seek(0, 2)
        if size < whole <= size + _MOST_MISSING:
            found.append(f"It was cut: {whole - size:,} bytes of {whole:,} are missing.")
            file.truncate(whole)
    return found


def _read_rows(
    path: Path, database: sqlite3.Connection, findings: Findings, take: Take, salvage: bool
) -> None:
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version > FORMAT_VERSION:
        raise PersistenceError(f"{path} was written by a newer kvdb: use that one")
    (tables,) = database.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if version == 0 and tables:
        raise PersistenceError(f"{path} holds the tables of another program")
    if version == 0:
        findings.remarks.append("It is empty.")
        return
    try:
        for (text,) in database.execute(f"PRAGMA integrity_check({_MOST_PROBLEMS})"):
            if text != "ok":
                findings.problems.append(f"SQLite finds: {text}.")
    except sqlite3.DatabaseError as error:
        if not salvage:
            raise
        findings.problems.append(f"SQLite cannot check it: {error}.")
    checksum = "checksum" if version > 1 else "NULL"
    damaged = by_hand = 0
    for row in _all_rows(
        database, f"SELECT {_COLUMNS}, {checksum} FROM entries", findings, salvage
    ):
        try:
            key, entry = decode_row(row)
        except DamagedRow as error:
            damaged += 1
            if damaged <= _MOST_PROBLEMS:
                findings.problems.append(f"The entry {str(row[1])[:100]!r} is damaged: {error}.")
            continue
        by_hand += row[5] is None
        findings.entries += 1
        take(key, entry)
    if damaged > _MOST_PROBLEMS:
        findings.problems.append(f"{damaged - _MOST_PROBLEMS:,} more entries are damaged.")
    if version == 1:
        findings.remarks.append("An older kvdb wrote it: there are no checksums.")
        return
    if by_hand:
        findings.remarks.append(f"Written by hand, without checksums: {by_hand:,}.")
    _check_state(path, database, findings, findings.entries + damaged)


def _all_rows(
    database: sqlite3.Connection, query: str, findings: Findings, salvage: bool
) -> Iterator[Any]:
    """Yield the rows; to salvage them, from the end as well, where SQLite cannot read on."""
    try:
        yield from database.execute(query)
    except sqlite3.DatabaseError as error:
        if not salvage:
            raise
        findings.problems.append(f"SQLite cannot read on, and begins from the end: {error}.")
        with suppress(sqlite3.DatabaseError):
            yield from database.execute(f"{query} ORDER BY db DESC, key DESC")


def _check_state(
    path: Path, database: sqlite3.Connection, findings: Findings, entries: int
) -> None:
    """Compare what was found with what the server has noted."""
    step, expected, name = database.execute("SELECT step, entries, file FROM state").fetchone()
    if expected is not None and expected != entries:
        findings.problems.append(f"It holds {entries:,} entries instead of {expected:,}.")
    try:
        note = json.loads(path.with_name(path.name + ".lock").read_text(encoding="utf-8"))
        noted_step, noted_name = int(note["step"]), note["file"]
    except (OSError, ValueError, TypeError, KeyError):
        return
    findings.remarks.append("The server that used it last did not end cleanly.")
    if noted_name == name and noted_step > step:
        findings.problems.append(
            f"It ends at change {step:,}, and change {noted_step:,} had been written."
        )
