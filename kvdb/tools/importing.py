"""`kvdb import`: JSON lines (see `lines`) or an RDB of Redis, into a data file or onto a server."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import urlsplit

from kvdb.client.address import Address
from kvdb.client.connection import Connection
from kvdb.client.errors import Error, ServerError
from kvdb.config import Fsync
from kvdb.flags import Parser
from kvdb.persistence import PersistenceError
from kvdb.persistence.database import JournalFile
from kvdb.persistence.lockfile import AlreadyLocked, LockFile
from kvdb.persistence.snapshot_loading import load_snapshot
from kvdb.persistence.snapshot_writing import write_snapshot
from kvdb.rdb.files import NotRdb, RdbReader, is_rdb
from kvdb.rdb.importing import check_rdb
from kvdb.store import Store
from kvdb.store.entry import Entry, Key, has_come, split_key
from kvdb.tools import FAILED, complain, counted
from kvdb.tools.addresses import add_flags, address_of, is_url
from kvdb.tools.files import is_journal, read_data
from kvdb.tools.lines import LONGEST_LINE, decode_line

_TOGETHER: Final = 500  # entries that are sent, or written, at a time
_BYTES_TOGETHER: Final = 1024 * 1024  # of values
_MOST_TOLD: Final = 10  # problems that are told; the others are counted


def main(arguments: Sequence[str]) -> int:
    """Import a file and say how many entries there were; 0 if all of them arrived, else 1."""
    parser = Parser(
        prog="kvdb import",
        description="Put the entries of a file of JSON lines, as `kvdb export` writes it, or the string "
        "keys of a dump.rdb of Redis or Valkey into a data file or onto a server. What is there "
        "already stays, unless it has the same key.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "lines", metavar="FILE", help="the lines, - : from standard input; or a dump.rdb"
    )
    parser.add_argument(
        "target",
        nargs="?",
        metavar="URL|DATA",
        help="kvdb://HOST:PORT, redis://HOST, or a data file",
    )
    add_flags(parser)
    options = parser.parse_args(arguments)
    target: str | None = options.target
    progress = Import()
    with ExitStack() as stack:
        try:
            lines: BinaryIO = sys.stdin.buffer
            if options.lines != "-":
                path = Path(options.lines).expanduser()
                lines = stack.enter_context(open(path, "rb"))
                if is_rdb(path):
                    progress.rdb = check_rdb(path, LONGEST_LINE)
            if target is None or is_url(target):
                address = address_of(parser, target, options)
                named = options.db is not None or (target and urlsplit(target).path.strip("/"))
                _import_to_server(progress, lines, address, address.db if named else None)
            else:
                _import_to_file(progress, lines, Path(target).expanduser().resolve())
        except (Error, PersistenceError) as error:
            progress.end(str(error))
        except NotRdb as error:
            progress.end(f"nothing was imported from {options.lines}: {error}")
        except OSError as error:
            progress.end(f"cannot read {options.lines}: {error.strerror or error}")
        except KeyboardInterrupt:
            progress.problem("interrupted")
    return progress.report()


@dataclass
class Import:
    """How far an import has come, and what went wrong."""

    imported: int = 0
    expired: int = 0
    flags_lost: int = 0
    problems: int = 0
    under_way: int = 0
    """How many have been sent and not been answered."""
    rdb: Counter[str] | None = None
    """The lines are none, but an RDB file, which has so many keys of other types."""

    def problem(self, text: str) -> None:
        """Count a problem, and tell it if it is one of the first."""
        self.problems += 1
        if self.problems <= _MOST_TOLD:
            complain("import", text)

    def end(self, text: str) -> None:
        """Tell a problem after which nothing more is imported."""
        if self.under_way:
            text += f"; some of the next {self.under_way:,} entries may have arrived, too"
        if self.imported:
            text += "; what comes after these was not imported"
        self.problem(text)

    def entries(self, lines: BinaryIO) -> Iterator[tuple[Key, Entry]]:
        """Yield what the lines say; wrong and expired ones are counted and left out."""
        number, now = 0, time.time()
        if self.rdb is not None:
            for key, entry in RdbReader(lines, LONGEST_LINE).entries():
                if has_come(entry.expires_at, now):
                    self.expired += 1
                else:
                    yield key, entry
            return
        while line := lines.readline(LONGEST_LINE):
            number += 1
            if not line.strip():
                continue
            try:
                key, entry = decode_line(line, now)
            except ValueError as error:
                self.problem(f"line {number}: {error}")
                continue
            if has_come(entry.expires_at, now):
                self.expired += 1
            else:
                yield key, entry

    def groups(self, lines: BinaryIO) -> Iterator[list[tuple[Key, Entry]]]:
        """Yield the entries in groups that can be held in memory."""
        group: list[tuple[Key, Entry]] = []
        size = 0
        for key, entry in self.entries(lines):
            group.append((key, entry))
            size += len(entry.value)
            if len(group) == _TOGETHER or size > _BYTES_TOGETHER:
                yield group
                group, size = [], 0
        if group:
            yield group

    def report(self) -> int:
        """Say what has become of the entries; return the exit code."""
        parts = [counted(self.imported, "entry", "entries") + " imported"]
        if self.expired:
            parts.append(f"{self.expired:,} expired left out")
        if self.flags_lost:
            parts.append(f"{self.flags_lost:,} of them without their client_flags")
        for name, number in sorted((self.rdb or {}).items()):
            parts.append(f"{counted(number, 'key', 'keys')} of type {name} left out")
        if self.problems:
            parts.append(counted(self.problems, "problem", "problems"))
        complain("import", ", ".join(parts))
        return FAILED if self.problems or self.rdb else 0


# --- onto a server ------------------------------------------------------------------------


def _import_to_server(
    progress: Import, lines: BinaryIO, address: Address, only: int | None
) -> None:
    """Set every entry; those of all databases in `only`, if there is one. Raises client errors."""
    connection = Connection(address)
    here = address.db
    try:
        for group in progress.groups(lines):
            requests: list[list[bytes]] = []
            for key, entry in group:
                db, name = split_key(key)
                if only is None and db != here:
                    requests.append([b"SELECT", b"%d" % db])
                    here = db
                requests.append(_set_request(name, entry))
            progress.under_way = len(group)
            replies = connection.ask(requests)
            progress.under_way = 0
            for request, reply in zip(requests, replies, strict=True):
                if isinstance(reply, ServerError) and request[0] == b"SELECT":
                    raise reply  # what follows would go to another database
                if isinstance(reply, ServerError):
                    progress.problem(f"key {request[1].decode('utf-8', 'replace')!r}: {reply}")
                elif request[0] == b"SET":
                    progress.imported += 1
            progress.flags_lost += sum(entry.client_flags > 0 for _, entry in group)
    finally:
        connection.close()


def _set_request(name: bytes, entry: Entry) -> list[bytes]:
    request = [b"SET", name, entry.value]
    if entry.expires_at is not None:
        request += [b"PXAT", b"%d" % max(1, round(entry.expires_at * 1000))]
    return request


# --- into a file --------------------------------------------------------------------------


def _import_to_file(progress: Import, lines: BinaryIO, path: Path) -> None:
    """Add every entry to a data file, which is made if need be. Raises PersistenceError."""
    to_journal = is_journal(path)
    if to_journal and path.exists():  # looked at before SQLite may change anything
        findings = read_data(path, lambda key, entry: None)
        if findings.problems:
            reason = findings.problems[0].removesuffix(".")
            raise PersistenceError(f"{path} was left as it is: {reason}")
    try:
        lock = LockFile(path)
    except AlreadyLocked:
        raise PersistenceError(
            f"{path} is in use by a kvdb server: stop it, or give its address"
        ) from None
    except OSError as error:
        raise PersistenceError(f"cannot write {path}: {error.strerror or error}") from None
    done = False
    try:
        if to_journal:
            _into_journal(progress, lines, path)
        else:
            _into_snapshot(progress, lines, path, lock)
        done = True
    finally:
        lock.release(keep_note=not done)


def _into_journal(progress: Import, lines: BinaryIO, path: Path) -> None:
    """Write group by group; what was written stays, whatever happens later."""
    file = JournalFile(path, Fsync.EVERYSEC)
    try:
        file.begin_writing()
        for group in progress.groups(lines):
            file.write(dict(group), set(), file.step + 1, None)
            progress.imported += len(group)
        file.write({}, set(), file.step, sum(1 for _ in file.rows()))
    except sqlite3.Error as error:
        raise PersistenceError(f"cannot write {path}: {error}") from None
    finally:
        file.close()


def _into_snapshot(progress: Import, lines: BinaryIO, path: Path, lock: LockFile) -> None:
    """Read the file, add the entries, and replace it as a whole: until then nothing is changed.

    It takes as much memory as the server will, which keeps everything there.
    """
    store = Store(max_bytes=0)
    if path.exists():
        load_snapshot(path, store)
    count = 0

    def all_entries() -> Iterator[tuple[Key, Entry]]:
        nonlocal count
        for key, entry in progress.entries(lines):
            count += 1
            yield key, entry

    store.restore(all_entries())
    try:
        write_snapshot(path, store.dump(), store.now(), lock=lock)
    except OSError as error:
        raise PersistenceError(f"cannot write {path}: {error.strerror or error}") from None
    progress.imported = count
