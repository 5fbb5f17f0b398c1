"""One server per data file: a lock that the operating system drops when the process ends."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from pathlib import Path

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


class AlreadyLocked(Exception):
    """Another process holds the lock."""


class LockFile:
    """Holds `<data file>.lock` from its construction to release().

    The data file itself cannot carry the lock, because each save replaces it.
    """

    def __init__(self, data: Path) -> None:
        """Take the lock. Raises AlreadyLocked, or OSError if the file cannot be made."""
        self._path = data.with_name(data.name + ".lock")
        self._descriptor = _take(self._path)

    def ensure(self) -> None:
        """Take the lock again if its file has been removed. Raises as the constructor does."""
        if not _is_open_as(self._descriptor, self._path):
            descriptor = _take(self._path)
            os.close(self._descriptor)
            self._descriptor = descriptor

    def release(self) -> None:
        """Remove the file, and with it the lock. Once only: then it may be another's."""
        ours = _is_open_as(self._descriptor, self._path)
        if sys.platform == "win32":  # an open file cannot be removed there
            os.close(self._descriptor)
        if ours:
            with contextlib.suppress(OSError):
                self._path.unlink()
        if sys.platform != "win32":
            os.close(self._descriptor)
        self._descriptor = -1


def _take(path: Path) -> int:
    """Open and lock the file; return its descriptor."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(descriptor)
        except OSError as error:
            os.close(descriptor)
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                raise AlreadyLocked from None
            raise
        if _is_open_as(descriptor, path):
            return descriptor
        os.close(descriptor)  # whoever held it has just removed it: take the next one


def _is_open_as(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
