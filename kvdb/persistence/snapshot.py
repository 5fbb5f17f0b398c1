"""The snapshot: everything that the store holds, as JSON lines in one file.

    {"format": "kvdb-snapshot", "version": 1, "saved_at": 1767225600.0}
    {"key": "greeting", "value": "hello world"}
    {"key": "session", "value_base64": "AAEC", "expires_at": 1767229200.0, "db": 1}
    {"entries": 2, "sha256": "..."}

A key or value that is not UTF-8 stands there in base64. The last line counts the entries and
carries a checksum of every line before it (`head -n -1 kvdb.json | sha256sum` gives the
same), so that a cut or damaged file is noticed.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import hashlib
import io
import json
import logging
import math
import os
import re
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterator
from itertools import compress, repeat
from json.encoder import encode_basestring
from pathlib import Path
from typing import Any, BinaryIO

from kvdb.persistence import PersistenceError, Progress, SaveInProgress, Seen
from kvdb.persistence.lockfile import AlreadyLocked, LockFile
from kvdb.store import Dump, Store
from kvdb.store.entry import DATABASES, Entry, Key, has_come, key_in, split_key

log = logging.getLogger(__name__)

FORMAT = "kvdb-snapshot"
VERSION = 1

_SLICE = 50  # entries that are encoded at a time
_SLICE_BYTES = 64 * 1024  # of values, above which a slice has fewer entries

_TURN = 1e-3  # seconds of encoding after which other threads get their turn
_SLOWEST = 20
"""How many times as long as alone a save may take for the sake of others. Beside threads that
always want the interpreter each turn has to be waited for: then there are no pauses as well."""

_WRITTEN_AT_A_TIME = 1024 * 1024
"""Bytes. Each write lets go of the interpreter, and beside busy threads it takes 5 ms to have it
back: a save of 500,000 entries with writes of 64 KB took more than a minute there."""

_MOST_HELD = 32 * 1024 * 1024
"""Bytes that a save may keep alive which the store has given up meanwhile; beyond, it hurries,
and clients have to wait a little at each turn."""

_PAUSE = 16e-3
"""Seconds that they get while somebody uses the store.

Whoever asks during a turn waits until it ends, and a thread that is woken for a moment disturbs
those on other processors, too. So a few long turns are better than many short ones: with a
client that asks as fast as it is answered they meet less than 1 % of its requests. Measured
while 500,000 entries are saved: the median of its GETs stays as it is, and 1 % take 1.4 times
as long or more; with turns of 0.04 ms and pauses of 0.07, GETs take twice as long in the median.
"""

_TEXT = rb'"([^"\\\x00-\x1f]{0,500}+)"'
_LINE = re.compile(
    rb'\{"key": ' + _TEXT + rb', "value": ' + _TEXT
    + rb'(?:, "expires_at": ([1-9][0-9]{0,14}(?:\.[0-9]+)?))?\}\n'
    + rb"|(.+\n?|\n)"
)  # fmt: skip
"""One line: key, value and deadline if they stand there as they are, or any other line as a whole.

A JSON string without quotes, backslashes and control characters is its own UTF-8. To find such
lines in bulk takes a quarter of the time that json.loads() needs for them; for texts of more
than about 800 bytes, it is the slower way.
"""

_PIECE = 64 * 1024  # bytes of the file, and the rest of a line, that are split into lines at a time


class Snapshots:
    """Saves a store to one file, and remembers how that went.

    `_saving` is held while the file is written; `_lock` guards the figures, and is never
    held together with any other lock.
    """

    def __init__(
        self, store: Store, path: Path, interval: Callable[[], float] = lambda: 0.0
    ) -> None:
        """`interval()` returns the seconds between saves of a store that changes; 0: none."""
        self._store = store
        self.path = path.resolve()  # a link stays a link: its target is what gets replaced
        try:
            _unfinished(self.path).unlink(missing_ok=True)  # of a server that was killed
        except OSError as error:
            raise PersistenceError(
                f"cannot remove {_unfinished(self.path)}: {error.strerror or error}"
            ) from None
        self._interval = interval
        self._saving = threading.Lock()
        self._lock = threading.Lock()
        self._requested = False  # BGSAVE: save now, changed or not
        self._saved_changes = store.changes
        self._next_save = time.monotonic() + interval()
        self.last_save = store.clock()  # Unix seconds; at first, of the start, as in Redis
        self.last_duration: float | None = None  # seconds that the last save took
        self.last_error: str | None = None  # of the last save; None if it went well
        self.saves = 0
        self._dump: Dump | None = None  # what is still to be written of a save under way
        self._dump_bytes = 0  # what the store had freed when it was taken
        self._hurried = threading.Event()  # somebody waits for a save to end
        self.lock: LockFile | None = None
        """Keeps other servers out; it is looked at before each save."""
        self.on_request: Callable[[], object] = lambda: None
        """Called when a save is wanted soon: it wakes the thread that runs `save_if_due`."""

    @property
    def changes_since_save(self) -> int:
        """How many changes would be lost by a crash now."""
        return self._store.changes - self._saved_changes

    @property
    def in_progress(self) -> bool:
        return self._saving.locked()

    @property
    def held_bytes(self) -> int:
        """What a save under way takes: references, and at most what the store has freed since."""
        dump = self._dump
        if dump is None:
            return 0
        return 16 * len(dump.keys) + self._store.freed_bytes - self._dump_bytes

    @property
    def age(self) -> float:
        """Seconds since all was on disk, if something has changed since; else 0.0."""
        return self._store.clock() - self.last_save if self.changes_since_save else 0.0

    def save(self) -> None:
        """Write the snapshot now. Raises SaveInProgress or PersistenceError."""
        if not self._saving.acquire(blocking=False):
            raise SaveInProgress
        try:
            self._save(gently=True)
        finally:
            self._saving.release()

    @property
    def waits(self) -> bool:
        """No reply waits for a snapshot."""
        return False

    def arrive(self) -> int:
        """No reply waits for a snapshot."""
        return 0

    def leave(self, ticket: int) -> None:
        """No reply waits for a snapshot."""

    @property
    def undos(self) -> int:
        """Nothing is undone here."""
        return 0

    def take_step(self) -> int:
        """No reply waits for a snapshot."""
        return 0

    def wait_until_durable(self, seen: Seen) -> bool:
        """No reply waits for a snapshot."""
        return True

    @property
    def congested(self) -> bool:
        """Whether a save keeps so much alive that clients have to be slower."""
        return self._dump is not None and self.held_bytes > _MOST_HELD

    def wait_for_room(self) -> None:
        """Wait for a moment while a save keeps too much alive."""
        if self.congested:
            self._hurried.set()
            time.sleep(_PAUSE)

    def save_at_end(self) -> None:
        """Write what has not been written yet, after a save under way has ended.

        That one is asked to hurry: whoever stops a server may not wait for long.
        """
        self._hurried.set()
        with self._saving:
            if self.changes_since_save or not self.path.exists():
                self._save(gently=False)

    def save_soon(self, schedule: bool = False) -> bool:
        """Ask for a save in the background; False if one is under way or asked for already.

        With `schedule` another one follows the one under way.
        """
        with self._lock:
            if self._requested or (self.in_progress and not schedule):
                return False
            self._requested = True
        self.on_request()
        return True

    def interval_changed(self) -> None:
        """Count the interval anew from now (CONFIG SET save)."""
        with self._lock:
            self._next_save = time.monotonic() + self._interval()
        self.on_request()

    def seconds_to_next(self) -> float | None:
        """Return how long the background thread has nothing to do; None: until it is asked."""
        with self._lock:
            if self._requested:
                return 0.0
            if not self._interval():
                return None
            return max(0.0, self._next_save - time.monotonic())

    def save_if_due(self) -> None:
        """One pass of the background thread: save if asked to, or if the time has come."""
        with self._lock:
            interval = self._interval()
            due = bool(interval) and time.monotonic() >= self._next_save
            requested, self._requested = self._requested, False
            if due:
                self._next_save = time.monotonic() + interval
        if requested or (due and self.changes_since_save):
            # What goes wrong is logged and kept in last_error; the next pass tries again. A save
            # under way (SAVE) is waited for: it may have begun before what is to be saved.
            with self._saving, contextlib.suppress(PersistenceError):
                self._save(gently=True)

    def _save(self, gently: bool) -> None:
        """Save; `gently`: slower while somebody uses the store."""
        started = time.monotonic()
        with self._store.atomic():
            dump, now = self._store.dump(), self._store.now()
            self._dump_bytes = self._store.freed_bytes
        self._dump = dump
        changes, entries = dump.changes, len(dump.keys)
        try:
            if self.lock:
                self.lock.ensure()
            turns = _Turns(self._count_uses if gently else lambda: 0, self._hurried)
            write_snapshot(self.path, dump, now, turns, self.lock)
        except (OSError, AlreadyLocked, MemoryError) as error:
            why = {
                AlreadyLocked: "another kvdb server keeps its data there",
                MemoryError: "not enough memory",
            }
            reason = f"cannot write {self.path}: {why.get(type(error)) or _words(error)}"
            if self.last_error != reason:  # once per change of state, not once per interval
                log.error("snapshot: %s; the file is as before, trying again", reason)
            with self._lock:
                self.last_error = reason
            raise PersistenceError(reason) from error
        finally:
            self._dump = None
            self._hurried.clear()  # whoever waits for this one is served; the next is another
        with self._lock:
            recovered, self.last_error = self.last_error is not None, None
            self._saved_changes = changes
            self.last_save = self._store.clock()
            self.last_duration = time.monotonic() - started
            self.saves += 1
        if recovered:
            log.info("snapshot: writing %s works again", self.path)
        log.debug("snapshot: saved %d entries in %.3f s", entries, self.last_duration)

    def _count_uses(self) -> int:
        return self._store.hits + self._store.misses + self._store.changes


# --- writing ------------------------------------------------------------------------------


class _Turns:
    """Lets other threads have the interpreter from time to time: longer if there is use for it."""

    def __init__(
        self, count_uses: Callable[[], int] = lambda: 0, hurried: threading.Event | None = None
    ) -> None:
        """`count_uses` returns a number that changes when somebody uses the store.

        While `hurried` is set there are no pauses.
        """
        self._count_uses, self._hurried = count_uses, hurried
        self._uses = count_uses()
        self._started, self._worked = time.perf_counter(), time.thread_time()
        self._end = self._started + _TURN

    def pause_if_over(self) -> None:
        """Pause if this turn has lasted long enough."""
        now = time.perf_counter()
        if now < self._end:
            return
        uses = self._count_uses()
        in_use = uses != self._uses
        self._uses = uses  # those of before the pause: whoever comes in it may come again
        left = (time.thread_time() - self._worked) * _SLOWEST - (now - self._started)
        if in_use and left > 0 and not (self._hurried and self._hurried.is_set()):
            time.sleep(min(_PAUSE, left))
        elif not in_use:
            time.sleep(0)
        # In a hurry, or behind: whoever wants the interpreter takes it, after 5 ms.
        self._end = time.perf_counter() + _TURN


def write_snapshot(
    path: Path,
    dump: Dump,
    now: float,
    turns: _Turns | None = None,
    lock: LockFile | None = None,
) -> None:
    """Write the entries to `path`; a crash leaves the old file or the new one, never a part.

    What is due at `now` is left out. Empties `dump` as it goes, so that memory is given back
    piece by piece. `turns` says when to pause; `lock` goes over to the new file.
    """
    unfinished = _unfinished(path)
    try:
        with open(unfinished, "wb", opener=_open_private) as file:
            if path.exists():  # it keeps the permissions that somebody gave it
                os.chmod(unfinished, stat.S_IMODE(path.stat().st_mode))
            _write_lines(file, dump, now, turns or _Turns())
            file.flush()
            os.fsync(file.fileno())
            if lock:
                lock.adopt(file.fileno())
        _replace(unfinished, path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _write_lines(file: BinaryIO, dump: Dump, now: float, turns: _Turns) -> None:
    checksum = hashlib.sha256()
    header = {"format": FORMAT, "version": VERSION, "saved_at": round(now, 3)}
    lines = [json.dumps(header).encode() + b"\n"]
    size = entries = 0
    some_due = any(has_come(expires_at, now) for expires_at in dump.expires_at.values())
    for keys, values in _take_slices(dump):
        if some_due:
            live = [not has_come(dump.expires_at.get(key), now) for key in keys]
            keys, values = list(compress(keys, live)), list(compress(values, live))
        entries += len(keys)
        lines.append(_encode_entries(keys, values, dump))
        size += len(lines[-1])
        if size >= _WRITTEN_AT_A_TIME:
            _write(file, checksum, lines)
            size = 0
        turns.pause_if_over()
    _write(file, checksum, lines)
    file.write(json.dumps({"entries": entries, "sha256": checksum.hexdigest()}).encode() + b"\n")


def _write(file: BinaryIO, checksum: hashlib._Hash, lines: list[bytes]) -> None:
    """Write these lines in one call, and forget them."""
    together = b"".join(lines)
    lines.clear()
    checksum.update(together)
    file.write(together)


def _open_private(path: str, flags: int) -> int:
    """As open() does it, but a new file is nobody else's to read: it holds everybody's data."""
    return os.open(path, flags, 0o600)


def _words(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error)


def _take_slices(dump: Dump) -> Iterator[tuple[list[Key], list[bytes]]]:
    """Take all keys and values out of `dump`, some at a time."""
    dump.keys.reverse()  # to be shortened at the end
    dump.values.reverse()
    while dump.keys:
        count = _SLICE
        while count > 1 and sum(map(len, dump.values[-count:])) > _SLICE_BYTES:
            count //= 2
        keys, values = dump.keys[: -count - 1 : -1], dump.values[: -count - 1 : -1]
        del dump.keys[-count:], dump.values[-count:]
        yield keys, values


def _encode_entries(keys: list[Key], values: list[bytes], dump: Dump) -> bytes:
    """Return the lines of these entries."""
    names = [key for key in keys if isinstance(key, bytes)]  # those of database 0
    flagged = not dump.client_flags.keys().isdisjoint(names)
    if len(names) < len(keys) or flagged or not _are_plain(names + values):
        return "".join(map(_encode_entry, keys, values, repeat(dump))).encode()
    ends = [
        b"" if expires_at is None else b', "expires_at": %r' % expires_at
        for expires_at in map(dump.expires_at.get, names)
    ]
    lines = zip(names, values, ends, strict=True)
    return b"".join([b'{"key": "%b", "value": "%b"%b}\n' % line for line in lines])


def _are_plain(texts: list[bytes]) -> bool:
    """Tell whether all of them stand in JSON as they are.

    To look at all together, and write them without looking at each, takes half the time.
    """
    try:
        text = b" ".join(texts).decode()
    except UnicodeDecodeError:
        return False
    return len(encode_basestring(text)) == len(text) + len('""')


def _encode_entry(key: Key, value: bytes, dump: Dump) -> str:
    db, name = split_key(key)
    line = f"{{{_encode_field('key', name)}, {_encode_field('value', value)}"
    if key in dump.expires_at:
        line += f', "expires_at": {dump.expires_at[key]!r}'
    if key in dump.client_flags:
        line += f', "client_flags": {dump.client_flags[key]}'
    if db:
        line += f', "db": {db}'
    return line + "}\n"


def _encode_field(name: str, data: bytes) -> str:
    try:
        return f'"{name}": {encode_basestring(data.decode())}'
    except UnicodeDecodeError:
        return f'"{name}_base64": "{base64.b64encode(data).decode()}"'


def _replace(source: Path, target: Path) -> None:
    """As os.replace(); on Windows it fails for a moment while another program reads the target."""
    for _ in range(10 if os.name == "nt" else 0):
        try:
            os.replace(source, target)
            return
        except PermissionError:
            time.sleep(0.05)
    os.replace(source, target)


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


def _sync_folder(folder: Path) -> None:
    """Make a rename survive a power cut, where the system lets us (Windows does not)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot sync folders
            raise
    finally:
        os.close(descriptor)


# --- reading ------------------------------------------------------------------------------


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
            raise PersistenceError(f"cannot write {backup}: {_words(error)}") from None
        log.warning(
            "%s: %d of %d entries do not fit into the budget (--max-mb) and were evicted; "
            "all of them are in %s",
            path,
            did_not_fit,
            reader.count,
            backup,
        )
    return reader.count


class _Reader:
    """Reads the lines of a snapshot and checks them."""

    def __init__(self, path: Path, file: BinaryIO, progress: Progress) -> None:
        self._path, self._file, self._progress = path, file, progress
        self._line_number = 0
        self._footer: dict[str, Any] | None = None

    @property
    def count(self) -> int:
        """The number of entries read so far: every line is one, but the first and the last."""
        return self._line_number - 1 - (self._footer is not None)

    def entries(self) -> Iterator[tuple[Key, Entry]]:
        """Yield what the file holds. Raises PersistenceError at the first line that is wrong."""
        header = self._file.readline()
        if header:
            self._line_number = 1
            self._check_header(self._parse(header))
        checksum = hashlib.sha256(header)
        while piece := self._file.read(_PIECE) + self._file.readline():
            covered = len(piece)  # by the checksum
            for key, value, expires_at, other_line in _split_lines(piece):
                self._line_number += 1
                if self._footer is not None:
                    raise self._damaged("there is more after its last line")
                if not other_line:
                    yield key, Entry(value, float(expires_at) if expires_at else None)
                    continue
                record = self._parse(other_line)
                if "sha256" in record:
                    self._footer = record
                    covered -= len(other_line)
                else:
                    yield self._entry(record)
            checksum.update(piece[:covered])
            self._progress.report(self.count)
        self._check_footer(checksum.hexdigest())

    def _check_footer(self, checksum: str) -> None:
        footer = self._footer
        if footer is None:
            raise self._damaged("it ends too early: it has been cut short")
        if footer.get("entries") != self.count:
            raise self._damaged(f"it holds {self.count} entries instead of {footer.get('entries')}")
        if footer["sha256"] != checksum:
            raise self._damaged("its checksum does not fit: some line has been changed")

    def _parse(self, line: bytes) -> dict[str, Any]:
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise self._damaged("this is not a JSON object")
        return record

    def _check_header(self, record: dict[str, Any]) -> None:
        if record.get("format") != FORMAT:
            raise self._damaged("this is not a kvdb snapshot")
        if record.get("version") != VERSION:
            raise PersistenceError(
                f"{self._path} has format version {record.get('version')}, and this kvdb reads "
                f"version {VERSION}: start the kvdb that wrote it, or a newer one"
            )

    def _entry(self, record: dict[str, Any]) -> tuple[Key, Entry]:
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
            raise self._damaged("this is not an entry") from None

    def _damaged(self, what: str) -> PersistenceError:
        return PersistenceError(
            f"{self._path}, line {self._line_number}: {what}. It was left untouched: put a good "
            "copy in its place, or move it away to start empty"
        )


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
