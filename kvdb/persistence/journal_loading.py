"""Loading what the journal's file holds, and making the file agree with what was loaded."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator

from kvdb.persistence import PersistenceError, Progress
from kvdb.persistence.database import JournalFile
from kvdb.persistence.rows import Row, encode_key
from kvdb.persistence.waiting import Group
from kvdb.store import Store
from kvdb.store.entry import Entry, Key

log = logging.getLogger(__name__)


def load_journal(file: JournalFile, store: Store, progress: Progress) -> int:
    """Fill the store; return the number of entries in the file. Raises PersistenceError.

    Nobody else uses the file or the store yet.
    """
    count = 0
    strays: list[Row] = []
    rewritten: dict[Key, Entry] = {}

    def entries() -> Iterator[tuple[Key, Entry]]:
        nonlocal count
        for row, key, entry in file.rows():
            count += 1
            if count % 1_000 == 0:
                progress.report(count)
            if row[5] is None:  # by hand, or by an earlier version
                rewritten[key] = entry
                if type(row[1]) is not type(encode_key(key)[1]):
                    strays.append(row)
            yield key, entry

    now = store.now()
    with file.refusing("is damaged"):
        did_not_fit = store.restore(entries(), now)
    if did_not_fit:
        backup = file.path.with_name(file.path.name + ".bak")
        file.copy_to(backup)
        log.warning(
            "%s: %d of %d entries do not fit into the budget (--max-mb) and were evicted; "
            "all of them are in %s",
            file.path, did_not_fit, count, backup,
        )  # fmt: skip
    try:
        file.begin_writing()
        # What stands there in another form (a number, text as a blob), has expired or did
        # not fit would outlive its deletion: nobody would find it, or know of it.
        left = file.clean_up(strays, rewritten, now)
        if left != store.total_keys:
            group = Group.of_everything(store.dump(), file.step + 1)
            file.write(group.changes, group.flushed, group.step, group.entries)
    except (sqlite3.Error, OSError) as error:
        file.close()
        raise PersistenceError(f"cannot write {file.path}: {error}") from None
    return count
