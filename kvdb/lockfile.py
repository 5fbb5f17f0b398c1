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
        while True:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                _lock(self._descriptor)
                if os.path.samestat(os.fstat(self._descriptor), os.stat(self._path)):
                    return
            except FileNotFoundError:
                pass  # whoever held it has just removed it: take the next one
            except OSError as error:
                os.close(self._descriptor)
                if error.errno in (errno.EACCES, errno.EAGAIN, errno.EDEADLK):
                    raise AlreadyLocked from None
                raise
            os.close(self._descriptor)

    def release(self) -> None:
        """Remove the file, and with it the lock. Once only: then it may be another's."""
        if sys.platform == "win32":  # an open file cannot be removed there
            os.close(self._descriptor)
            with contextlib.suppress(OSError):
                self._path.unlink()
        else:
            with contextlib.suppress(OSError):
                self._path.unlink()
            os.close(self._descriptor)


def _lock(descriptor: int) -> None:
    if sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
