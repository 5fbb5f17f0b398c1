"""Writing a snapshot: everything that the store holds, as JSON lines in one file.

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
import contextlib
import errno
import hashlib
import json
import os
import stat
import time
from collections.abc import Iterator
from itertools import compress, repeat
from json.encoder import encode_basestring
from pathlib import Path
from typing import BinaryIO, Final

from kvdb.persistence.lockfile import LockFile
from kvdb.persistence.turns import Turns
from kvdb.store import Dump
from kvdb.store.entry import Key, has_come, split_key

FORMAT: Final = "kvdb-snapshot"
VERSION: Final = 1

_SLICE: Final = 50  # entries that are encoded at a time
_SLICE_BYTES: Final = 64 * 1024  # of values, above which a slice has fewer entries

_WRITTEN_AT_A_TIME: Final = 1024 * 1024
"""Bytes. Each write lets go of the interpreter, and beside busy threads it takes 5 ms to have it
back: a save of 500,000 entries with writes of 64 KB took more than a minute there."""


def write_snapshot(
    path: Path,
    dump: Dump,
    now: float,
    turns: Turns | None = None,
    lock: LockFile | None = None,
) -> None:
    """Write the entries to `path`; a crash leaves the old file or the new one, never a part.

    What is due at `now` is left out. Empties `dump` as it goes, so that memory is given back
    piece by piece. `turns` says when to pause; `lock` goes over to the new file.
    """
    under_way = unfinished(path)
    try:
        with open(under_way, "wb", opener=_open_private) as file:
            if path.exists():  # it keeps the permissions that somebody gave it
                os.chmod(under_way, stat.S_IMODE(path.stat().st_mode))
            _write_lines(file, dump, now, turns or Turns())
            file.flush()
            os.fsync(file.fileno())
            if lock:
                lock.adopt(file.fileno())
        _replace(under_way, path)
    except BaseException:
        with contextlib.suppress(OSError):
            under_way.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _write_lines(file: BinaryIO, dump: Dump, now: float, turns: Turns) -> None:
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


def unfinished(path: Path) -> Path:
    """Return where a snapshot stands until it is whole."""
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
