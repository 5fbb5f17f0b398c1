"""`kvdb repair FILE`: what is sound in a damaged data file, into a new file beside it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

from kvdb.config import Fsync
from kvdb.flags import Parser
from kvdb.persistence import PersistenceError
from kvdb.persistence.database import JournalFile
from kvdb.persistence.snapshot_writing import write_snapshot
from kvdb.store import Store
from kvdb.store.entry import Entry, Key, has_come
from kvdb.tools import complain, counted
from kvdb.tools.files import Findings, is_journal, salvage_data

_TOGETHER = 500  # entries that are written to a journal at a time


def main(arguments: Sequence[str]) -> int:
    """Save the sound entries of a file; return 0 if it is sound, or its sound entries are saved."""
    parser = Parser(
        prog="kvdb repair",
        description="Write the entries of a damaged snapshot or journal that can still be read to a new "
        "file, and say what was lost. The damaged one stays as it is.",
        allow_abbrev=False,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the damaged data file")
    parser.add_argument(
        "new",
        nargs="?",
        type=Path,
        metavar="NEW",
        help="the file to be written (default: FILE with .repaired before its suffix)",
    )
    options = parser.parse_args(arguments)
    path: Path = options.file.expanduser()
    new: Path = (
        options.new.expanduser()
        if options.new is not None
        else path.with_name(f"{path.stem}.repaired{path.suffix}")
    )
    if new.exists():
        return complain("repair", f"{new} exists already: name another file")
    try:
        if is_journal(path):
            findings, saved = _into_journal(path, new)
        else:
            findings, saved = _into_snapshot(path, new)
    except PersistenceError as error:
        new.unlink(missing_ok=True)
        return complain("repair", str(error))
    except (OSError, sqlite3.Error) as error:
        return complain("repair", f"cannot write {new}: {error}")
    for sentence in findings.problems:
        print(sentence)
    if not findings.problems:
        new.unlink()
        print(f"{path} is sound: there is nothing to repair.")
        return 0
    if not saved:
        new.unlink()
        return complain("repair", f"no entry of {path} can be read")
    entries = counted(saved, "entry was", "entries were")
    print(f"{entries} saved to {new}; {path} is as it was.")
    print(f"To go on with them: python -m kvdb {new}")
    return 0


def _into_snapshot(path: Path, new: Path) -> tuple[Findings, int]:
    """It takes as much memory as the server will, which keeps everything there."""
    kept: dict[Key, Entry] = {}
    findings = salvage_data(path, _unless_expired(kept.__setitem__))
    store = Store(max_bytes=0)
    store.restore(kept.items())
    write_snapshot(new, store.dump(), store.now())
    return findings, len(kept)


def _into_journal(path: Path, new: Path) -> tuple[Findings, int]:
    group: dict[Key, Entry | None] = {}
    with closing(JournalFile(new, Fsync.EVERYSEC)) as file:
        file.begin_writing()

        def take(key: Key, entry: Entry) -> None:
            group[key] = entry
            if len(group) == _TOGETHER:
                file.write(group, set(), file.step + 1, None)
                group.clear()

        findings = salvage_data(path, _unless_expired(take))
        file.write(group, set(), file.step + 1, None)
        rows = sum(1 for _ in file.rows())
        file.write({}, set(), file.step, rows)
    return findings, rows


def _unless_expired(take: Callable[[Key, Entry], None]) -> Callable[[Key, Entry], None]:
    now = time.time()
    return lambda key, entry: None if has_come(entry.expires_at, now) else take(key, entry)
