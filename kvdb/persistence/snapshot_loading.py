"""Loading a snapshot; `snapshot_writing` shows what it looks like."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
import logging
import math
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final

from kvdb.persistence import PersistenceError, Progress
from kvdb.persistence.snapshot_writing import FORMAT, VERSION
from kvdb.store import Store
from kvdb.store.entry import DATABASES, Entry, Key, key_in

log = logging.getLogger(__name__)

_TEXT: Final = rb'"([^"\\\x00-\x1f]{0,500}+)"'
_LINE: Final = re.compile(
    rb'\{"key": ' + _TEXT + rb', "value": ' + _TEXT
    + rb'(?:, "expires_at": ([1-9][0-9]{0,14}(?:\.[0-9]+)?))?\}\n'
    + rb"|(.+\n?|\n)"
)  # fmt: skip
"""One line: key, value and deadline if they stand there as they are, or any other line as a whole.

A JSON string without quotes, backslashes and control characters is its own UTF-8. To find such
lines in bulk takes a quarter of the time that json.loads() needs for them; for texts of more
than about 800 bytes, it is the slower way.
"""

_PIECE: Final = 64 * 1024  # bytes that are split into lines at a time, beside the rest of a line


def load_snapshot(path: Path, store: Store, progress: Progress | None = None) -> int:
    """Fill the store from `path`; return the number of entries in the file.

    The file is left untouched, whatever it holds. Raises PersistenceError with a sentence that
    names file, line and way out if it cannot be read or is damaged; the store is then not to
    be used.
    """
    try:
        with open(path, "rb") as file:
            reader = _Reader(path, file, progress or Progress(path))
            did_not_fit = store.restore(reader.entries())
    except OSError as error:
        raise PersistenceError(f"cannot read {path}: {error.strerror or error}") from error
    if did_not_fit:
        backup = path.with_name(path.name + ".bak")
        try:
            shutil.copy2(path, backup)
        except OSError as error:
            raise PersistenceError(f"cannot write {backup}: {error.strerror or error}") from None
        log.warning(
            "%s: %d of %d entries do not fit into the budget (--max-mb) and were evicted; "
            "all of them are in %s",
            path,
            did_not_fit,
            reader.count,
            backup,
        )
    return reader.count


def salvage_snapshot(path: Path, tell: Callable[[str], None]) -> Iterator[tuple[Key, Entry]]:
    """Yield every entry of a damaged file that can be read, and tell what cannot.

    Raises PersistenceError if it cannot be opened, or was written by a newer kvdb.
    """
    try:
        with open(path, "rb") as file:
            yield from _Reader(path, file, Progress(path), tell).entries()
    except OSError as error:
        raise PersistenceError(f"cannot read {path}: {error.strerror or error}") from error


class _Damaged(Exception):
    """A line is not what it should be."""


class _Reader:
    """Reads the lines of a snapshot and checks them. One thread uses it, at the start."""

    def __init__(
        self,
        path: Path,
        file: BinaryIO,
        progress: Progress,
        tell: Callable[[str], None] | None = None,
    ) -> None:
        """`tell` is told what is damaged, and the reader goes on; without it, it raises."""
        self._path, self._file, self._progress, self._tell = path, file, progress, tell
        self._line_number = 0
        self._footer: dict[str, Any] | None = None

    @property
    def count(self) -> int:
        """The number of entries read so far: every line is one, but the first and the last."""
        return self._line_number - 1 - (self._footer is not None)

    def entries(self) -> Iterator[tuple[Key, Entry]]:
        """Yield what the file holds. Raises PersistenceError at the first line that is wrong."""
        try:
            yield from self._lines()
        except _Damaged as damage:
            raise PersistenceError(
                f"{self._path}, line {self._line_number}: {damage}. It was left untouched: put a "
                "good copy in its place, or move it away to start empty"
            ) from None

    def _lines(self) -> Iterator[tuple[Key, Entry]]:
        header = self._file.readline()
        if header:
            self._line_number = 1
            self._check_header(self._parse(header) or {})
        checksum = hashlib.sha256(header)
        while piece := self._file.read(_PIECE) + self._file.readline():
            covered = len(piece)  # by the checksum
            for key, value, expires_at, other_line in _split_lines(piece):
                self._line_number += 1
                if self._footer is not None:
                    self._damaged("there is more after its last line")
                if not other_line:
                    yield key, Entry(value, float(expires_at) if expires_at else None)
                    continue
                record = self._parse(other_line)
                if record is not None and "sha256" in record:
                    self._footer = record
                    covered -= len(other_line)
                elif record is not None and (entry := self._entry(record)):
                    yield entry
            checksum.update(piece[:covered])
            self._progress.report(self.count)
        self._check_footer(checksum.hexdigest())

    def _check_footer(self, checksum: str) -> None:
        footer = self._footer
        if footer is None:
            self._damaged("it ends too early: it has been cut short")
        elif footer.get("entries") != self.count:
            self._damaged(f"it holds {self.count} entries instead of {footer.get('entries')}")
        elif footer["sha256"] != checksum:
            self._damaged("its checksum does not fit: some line has been changed")

    def _parse(self, line: bytes) -> dict[str, Any] | None:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict):
            return record
        self._damaged("this is not a JSON object")
        return None

    def _check_header(self, record: dict[str, Any]) -> None:
        if record.get("format") != FORMAT:
            self._damaged("this is not a kvdb snapshot")
        elif record.get("version") != VERSION:
            raise PersistenceError(
                f"{self._path} has format version {record.get('version')}, and this kvdb reads "
                f"version {VERSION}: start the kvdb that wrote it, or a newer one"
            )

    def _entry(self, record: dict[str, Any]) -> tuple[Key, Entry] | None:
        try:
            name, value = _decode_field(record, "key"), _decode_field(record, "value")
            db, expires_at = record.get("db", 0), record.get("expires_at")
            client_flags = record.get("client_flags", 0)
            if type(db) is not int or not 0 <= db < DATABASES or type(client_flags) is not int:
                raise ValueError
            deadline = None if expires_at is None else float(expires_at)
            if deadline is not None and not math.isfinite(deadline):
                raise ValueError
            return key_in(db, name), Entry(value, deadline, client_flags)
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
            self._damaged("this is not an entry")
            return None

    def _damaged(self, what: str) -> None:
        """Raise _Damaged, or tell it."""
        if self._tell is None:
            raise _Damaged(what)
        self._tell(f"Line {self._line_number}: {what}.")


def _split_lines(piece: bytes) -> list[tuple[bytes, bytes, bytes, bytes]]:
    """Return the groups of _LINE for each line."""
    try:
        piece.decode()
    except UnicodeDecodeError:  # then no line may pass for one that needs no decoding
        return [(b"", b"", b"", line) for line in io.BytesIO(piece)]
    return _LINE.findall(piece)


def _decode_field(record: dict[str, Any], name: str) -> bytes:
    text = record.get(name)
    if text is not None:
        return text.encode()  # type: ignore[no-any-return]
    try:
        return base64.b64decode(record[name + "_base64"], validate=True)
    except binascii.Error as error:
        raise ValueError from error
