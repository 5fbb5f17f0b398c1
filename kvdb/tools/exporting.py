"""`kvdb export`: everything in a data file, or on a server, as JSON lines (see `lines`) or as an RDB."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

from kvdb.client.address import Address
from kvdb.client.connection import Connection
from kvdb.client.errors import Error, ServerError
from kvdb.flags import Parser
from kvdb.persistence import PersistenceError
from kvdb.rdb.files import RdbWriter
from kvdb.store.entry import Entry, Key, has_come, key_in
from kvdb.tools import FAILED, OutputFailed, complain, counted
from kvdb.tools.addresses import add_flags, address_of, is_url
from kvdb.tools.files import read_data
from kvdb.tools.lines import encode_line

_PAGE: Final = 500  # keys that are asked for at a time
_TOGETHER: Final = 4 * 1024 * 1024  # bytes of values that are asked for at a time


def main(arguments: Sequence[str]) -> int:
    """Write the entries to standard output, and to standard error how many; 1 if any is missing."""
    parser = Parser(
        prog="kvdb export",
        description="Write every entry of a data file, or of a server, as a line of JSON; with --rdb all "
        "of them as a dump.rdb for Redis or Valkey. From a server of several databases come all, "
        "unless one is named.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "source",
        nargs="?",
        metavar="FILE|URL",
        help="a data file, or kvdb://HOST:PORT, redis://HOST",
    )
    parser.add_argument(
        "--rdb",
        action="store_true",
        help="write Redis's own format; memcached's flags are left out",
    )
    add_flags(parser)
    options = parser.parse_args(arguments)
    source: str | None = options.source
    written = _Written(sys.stdout.buffer, options.rdb)
    if source is None or is_url(source):
        address = address_of(parser, source, options)
        only_one = options.db is not None or (source and urlsplit(source).path.strip("/"))
        return _export_server(written, address, [address.db] if only_one else None)
    return _export_file(written, Path(source).expanduser())


class _Written:
    """What has been written, and how many entries that is."""

    def __init__(self, output: BinaryIO, as_rdb: bool) -> None:
        self._output = output
        self._rdb = RdbWriter(output) if as_rdb else None
        self.count = 0

    def add(self, key: Key, entry: Entry) -> None:
        """Write an entry. Raises OutputFailed."""
        try:
            if self._rdb is None:
                self._output.write(encode_line(key, entry))
            else:
                self._rdb.add(key, entry)
        except OSError as error:
            raise OutputFailed(error) from None
        self.count += 1

    def end(self) -> None:
        """Nothing is missing: without its end, Redis refuses an RDB. Raises OutputFailed."""
        try:
            if self._rdb is not None:
                self._rdb.end()
            self._output.flush()
        except OSError as error:
            raise OutputFailed(error) from None

    def __str__(self) -> str:
        return counted(self.count, "entry", "entries")


def _export_file(written: _Written, path: Path) -> int:
    now, expired = time.time(), 0

    def take(key: Key, entry: Entry) -> None:
        nonlocal expired
        if has_come(entry.expires_at, now):
            expired += 1
        else:
            written.add(key, entry)

    try:
        findings = read_data(path, take)
    except PersistenceError as error:
        return complain("export", str(error))
    written.end()
    complain("export", f"{written} written, {expired:,} expired left out")
    for problem in findings.problems:
        complain("export", problem)
    return FAILED if findings.problems else 0


def _export_server(written: _Written, address: Address, databases: list[int] | None) -> int:
    export = None
    try:
        export = Export(Connection(replace(address, db=0)))
        for key, entry in export.entries(databases):
            written.add(key, entry)
        written.end()
    except Error as error:
        return complain("export", f"{error}; {written} had been written, and more are missing")
    finally:
        if export is not None:
            export.connection.close()
    others = export.other_types
    left_out = f", {counted(others, 'key', 'keys')} left out: no string" if others else ""
    complain("export", f"{written} written{left_out}")
    return FAILED if others else 0


@dataclass
class Export:
    """Reads all entries of a server, some at a time.

    What changes meanwhile may be there in either state, and a key may come twice; each value
    belongs to its deadline.
    """

    connection: Connection
    other_types: int = 0
    """Keys that hold no string but a list or the like."""

    def entries(self, databases: list[int] | None) -> Iterator[tuple[Key, Entry]]:
        """Yield the entries of these databases, or of all. Raises the client's errors."""
        self.connection.ask([[b"CLIENT", b"NO-TOUCH", b"ON"]])  # reading them is no use of them
        (probe,) = self.connection.ask([[b"PEXPIRETIME", b""]])
        lacks_it = isinstance(probe, ServerError) and "unknown command" in str(probe)
        for db in self._databases() if databases is None else databases:
            self._ask([b"SELECT", b"%d" % db])
            for names in self._pages():
                for some in self._in_groups(names):
                    yield from self._read(db, some, b"PTTL" if lacks_it else b"PEXPIRETIME")

    def _ask(self, request: list[bytes]) -> Any:
        (reply,) = self.connection.ask([request])
        if isinstance(reply, ServerError):
            raise reply
        return reply

    def _databases(self) -> list[int]:
        """Return which databases have keys."""
        return sorted(
            int(db) for db in re.findall(rb"(?m)^db(\d+):", self._ask([b"INFO", b"keyspace"]))
        )

    def _pages(self) -> Iterator[list[bytes]]:
        cursor = b"0"
        while True:
            cursor, names = self._ask([b"SCAN", cursor, b"COUNT", b"%d" % _PAGE])
            yield list(dict.fromkeys(names))
            if cursor == b"0":
                return

    def _in_groups(self, names: list[bytes]) -> Iterator[list[bytes]]:
        """Yield the names of strings, in groups whose values can be held in memory."""
        group: list[bytes] = []
        size = 0
        lengths = self.connection.ask([[b"STRLEN", name] for name in names])
        for name, length in zip(names, lengths, strict=True):
            if isinstance(length, ServerError):
                if length.code != "WRONGTYPE":
                    raise length
                self.other_types += 1
                continue
            if group and size + length > _TOGETHER:
                yield group
                group, size = [], 0
            group.append(name)
            size += length
        if group:
            yield group

    def _read(self, db: int, names: list[bytes], deadlines: bytes) -> Iterator[tuple[Key, Entry]]:
        """Yield what these hold, all of one moment. What is no string any more is gone."""
        requests = [[b"MGET", *names], *([deadlines, name] for name in names)]
        *_, replies = self.connection.ask([[b"MULTI"], *requests, [b"EXEC"]])
        if isinstance(replies, ServerError):
            raise replies
        for reply in replies:
            if isinstance(reply, Exception):
                raise ServerError(str(reply))
        base = 0.0 if deadlines == b"PEXPIRETIME" else time.time()
        for name, value, left in zip(names, replies[0], replies[1:], strict=True):
            if value is not None and left != -2:
                yield key_in(db, name), Entry(value, base + left / 1000 if left >= 0 else None)
