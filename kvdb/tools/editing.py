"""Lines that a person types: a history in a file, and the completion of what has been begun."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Final

from kvdb.commands.table import TABLE

HISTORY: Final = Path("~/.kvdb_history")
LONGEST_HISTORY: Final = 1_000
"""Lines that a new shell keeps of the history."""

_SECRET: Final = re.compile(
    r"\b(auth2?|masterauth|setuser)\b|passw|requirepass|key-file-pass", re.IGNORECASE
)


def may_be_kept(line: str) -> bool:
    """Tell whether a line may be written to the history: it holds no password."""
    return bool(line.strip()) and not _SECRET.search(line)


class History:
    """The lines of earlier shells, in a file that nobody else can read. It works without a file, too."""

    def __init__(self, path: Path | None) -> None:
        self._path = path.expanduser() if path else None
        self._last = ""

    def load(self) -> list[str]:
        """Return the lines of the file, oldest first; forget the oldest if there are too many."""
        if self._path is None:
            return []
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError:
            return []
        if len(lines) > LONGEST_HISTORY:
            lines = lines[-LONGEST_HISTORY:]
            shortened = self._path.with_name(f"{self._path.name}.{os.getpid()}")
            with contextlib.suppress(OSError):
                _write(shortened, "".join(f"{line}\n" for line in lines))
                os.replace(shortened, self._path)
        return lines

    def add(self, line: str) -> bool:
        """Append a line, unless it may hold a password or repeats the last; tell whether it did."""
        if not may_be_kept(line) or line == self._last:
            return False
        self._last = line
        if self._path is None:
            return True
        with contextlib.suppress(OSError):  # a home folder that cannot be written to
            _write(self._path, line + "\n")
        return True


def _write(path: Path, text: str) -> None:
    """Append to a file that is its owner's only."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    with open(descriptor, "a", encoding="utf-8", errors="replace") as file:
        if os.name == "posix" and stat.S_ISREG(os.fstat(descriptor).st_mode):  # not /dev/null
            os.fchmod(descriptor, 0o600)
        file.write(text)


def candidates(
    before: list[str], begun: str, keys: Callable[[str], list[str]] = lambda begun: []
) -> list[str]:
    """Return how a word may go on that was begun after the words `before`.

    The names of commands and subcommands keep the case that was begun with; `keys` returns those
    that begin so.
    """
    if before and before[0].lower() in ("help", "?"):
        before = before[1:]
    if not before:
        return _names([name.decode() for name in TABLE], begun)
    row = TABLE.get(before[0].upper().encode())
    if row is None or len(before) > 1:
        return []
    if row.subcommands:
        return _names([name.decode() for name in row.subcommands], begun)
    return keys(begun) if row.keys[0] == 1 and begun else []


def _names(known: list[str], begun: str) -> list[str]:
    found = sorted(name for name in known if name.startswith(begun.upper()))
    return [name.lower() for name in found] if begun.islower() else found


def load_readline() -> ModuleType | None:
    """Return the module readline, or None where Python has none (on Windows)."""
    try:
        import readline
    except ImportError:
        return None
    return readline


def set_up(readline: ModuleType, history: History, keys: Callable[[str], list[str]]) -> None:
    """Give whoever types the history and the completion."""
    readline.set_auto_history(False)
    for line in history.load():
        readline.add_history(line)
    readline.set_completer_delims(" \t")
    found: list[str] = []

    def complete(begun: str, number: int) -> str | None:
        if number == 0:
            before = readline.get_line_buffer()[: readline.get_begidx()].split()
            found[:] = candidates(before, begun, keys)
        return found[number] + (" " if len(found) == 1 else "") if number < len(found) else None

    readline.set_completer(complete)
    libedit = "libedit" in (readline.__doc__ or "")
    readline.parse_and_bind("bind ^I rl_complete" if libedit else "tab: complete")
