"""Where the journal's file is: under its name, beside the lock file that keeps other servers out.

The lock file of a running server also notes how far the file has come, for the start after a crash.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from kvdb.config import Fsync
from kvdb.persistence import PersistenceError
from kvdb.persistence.database import JournalFile
from kvdb.persistence.lockfile import LockFile


class JournalPlace:
    """The file and its lock file. Not thread-safe: the journal's `_writing` guards it."""

    def __init__(self, file: JournalFile, lock: LockFile | None) -> None:
        self._file, self._lock = file, lock

    def check_last_step(self, fsync: Fsync) -> None:
        """Refuse a file that lacks commits which are known to have been made.

        SQLite ends at the first damaged page of its log, and drops what follows without a word.
        The lock file of a server that was killed says how far it had come. After a power cut
        only what was synced can be expected.
        """
        try:
            noted = json.loads(self._lock.note) if self._lock else {}
            file, step, boot = noted["file"], int(noted["step"]), noted["boot"]
        except (ValueError, TypeError, KeyError):
            return
        expected = fsync is not Fsync.NEVER or (boot != "" and boot == _boot())
        if file == self._file.name and step > self._file.step and expected:
            self._file.close()
            raise PersistenceError(
                f"{self._file.path} is damaged: it ends at change {self._file.step}, and change "
                f"{step} had been written. It was left untouched: put a good copy in its place, "
                f"or remove {self._file.path}.lock to go on with what there is"
            )

    def note_step(self) -> None:
        """Note how far the file has come."""
        if self._lock:
            note = {"file": self._file.name, "step": self._file.step, "boot": _boot()}
            with contextlib.suppress(OSError):  # what is committed is committed
                self._lock.write_note(json.dumps(note))

    def has_moved(self) -> bool:
        """Tell whether what is written would be lost with the name of the file: see reopen()."""
        return self._file.has_moved()

    def reopen(self) -> bool:
        """Go back to where the file should be; tell whether it was removed, and is empty now.

        Raises OSError, PersistenceError or sqlite3.Error if what is written then would not be
        found again: the file may have been removed with its folder, or another one may have taken
        its name.
        """
        file = self._file
        gone = file.is_gone()
        if not (gone or file.is_ours()):
            raise OSError(
                "another file has taken its place; what this server holds is written as soon as "
                "that file is moved away"
            )
        if gone and not file.path.parent.is_dir():
            raise OSError(f"the folder {file.path.parent} is gone")
        try:
            file.reopen()
        except BaseException:
            if gone:  # else the next attempt would take it for somebody else's
                file.path.unlink(missing_ok=True)
            raise
        return gone

    def ensure_lock(self) -> None:
        """Take the lock again if it was removed. Raises what LockFile.ensure() raises."""
        if self._lock:
            self._lock.ensure()


def _boot() -> str:
    """Return what tells this run of the system from every other, where the system tells."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
