"""One server per data file: locks that the operating system drops when the process ends."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path
from typing import Final

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_NOTE_BYTES: Final = 256


class AlreadyLocked(Exception):
    """Another process holds the lock."""


class LockFile:
    """Holds `<data file>.lock`, and the data file itself, from its construction to release().

    The name alone would not do: a file may have several (hard links), and the lock file may be
    removed. The data file alone would not, either: at first there is none, and each save of a
    snapshot replaces it. (On Windows only the name is locked: an open file cannot be replaced
    there, and a second process cannot remove the lock file.)
    """

    def __init__(self, data: Path) -> None:
        """Take the locks. Raises AlreadyLocked, or OSError if the file cannot be made.

        `data` is where links lead to: the same file must have the same path.
        """
        self._path = data.with_name(data.name + ".lock")
        self._data = data
        self._data_descriptor = -1
        self.note = ""
        self._descriptor = _take(self._path)
        try:
            self.note = self._read_note()
            self._lock_data()
        except BaseException:
            self.release()
            raise

    def ensure(self) -> None:
        """Take again what was removed or replaced. Raises as the constructor does."""
        if not _is_open_as(self._descriptor, self._path):
            descriptor = _take(self._path)
            os.close(self._descriptor)
            self._descriptor = descriptor
        self._lock_data()

    def adopt(self, descriptor: int) -> None:
        """Lock a file that is about to take the data file's place."""
        if sys.platform != "win32":
            self._keep(os.dup(descriptor))

    def write_note(self, text: str) -> None:
        """Leave a line in the lock file, for whoever finds it after a crash."""
        os.lseek(self._descriptor, 0, os.SEEK_SET)
        os.write(self._descriptor, text.encode().ljust(_NOTE_BYTES)[:_NOTE_BYTES])

    def release(self, keep_note: bool = False) -> None:
        """Remove the lock file, and drop both locks. Once only: then it may be another's.

        With `keep_note` a file that a crash has left stays: the next start has to read it again.
        """
        ours = _is_open_as(self._descriptor, self._path) and not (keep_note and self.note)
        if sys.platform == "win32":  # an open file cannot be removed there
            os.close(self._descriptor)
        if ours:
            with contextlib.suppress(OSError):
                self._path.unlink()
        if sys.platform != "win32":
            os.close(self._descriptor)
        self._descriptor = -1
        if self._data_descriptor >= 0:
            os.close(self._data_descriptor)
            self._data_descriptor = -1

    def _read_note(self) -> str:
        """Return what a server that did not end cleanly has left there."""
        return os.read(self._descriptor, _NOTE_BYTES).decode("utf-8", "replace").strip()

    def _lock_data(self) -> None:
        if sys.platform == "win32":
            return
        if self._data_descriptor >= 0 and _is_open_as(self._data_descriptor, self._data):
            return
        try:
            descriptor = os.open(self._data, os.O_RDONLY)
        except FileNotFoundError:
            return
        self._keep(descriptor)

    def _keep(self, descriptor: int) -> None:
        """Lock an open file, and let go of the one before; close it if that is refused."""
        try:
            _lock_or_refuse(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if self._data_descriptor >= 0:
            os.close(self._data_descriptor)
        self._data_descriptor = descriptor


def _take(path: Path) -> int:
    """Open and lock the file; return its descriptor."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock_or_refuse(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        if _is_open_as(descriptor, path):
            return descriptor
        os.close(descriptor)  # whoever held it has just removed it: take the next one


def _is_open_as(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _lock_or_refuse(descriptor: int) -> None:
    try:
        _lock(descriptor)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
            raise AlreadyLocked from None
        raise


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
