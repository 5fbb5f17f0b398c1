"""`kvdb check FILE`: is a data file sound? It changes nothing."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from kvdb.flags import Parser
from kvdb.persistence import PersistenceError
from kvdb.store.entry import Entry, Key, has_come, split_key
from kvdb.tools import FAILED, complain, counted
from kvdb.tools.files import read_data


def main(arguments: Sequence[str]) -> int:
    """Say what is in a file and what is wrong with it; return 0 if it is sound, else 1."""
    parser = Parser(
        prog="kvdb check",
        description="Say whether a snapshot or a journal is sound (code 0) or not (code 1). Nothing "
        "is changed. A journal with a log beside it is copied to the folder for temporary files.",
        allow_abbrev=False,
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="the data file of a server")
    path: Path = parser.parse_args(arguments).file.expanduser()
    now = time.time()
    databases: Counter[int] = Counter()
    expired = 0

    def take(key: Key, entry: Entry) -> None:
        nonlocal expired
        databases[split_key(key)[0]] += 1
        expired += has_come(entry.expires_at, now)

    try:
        findings = read_data(path, take)
    except PersistenceError as error:
        return complain("check", str(error))
    entries = counted(findings.entries, "entry", "entries")
    found = f"; {entries} can be read" if findings.problems else f" with {entries}"
    print(f"{path} is {findings.kind}{found}, {expired:,} of them expired.")
    if len(databases) > 1 or any(databases):
        shares = (f"{count:,} in database {db}" for db, count in sorted(databases.items()))
        print(f"There are {', '.join(shares)}.")
    for sentence in (*findings.remarks, *findings.problems):
        print(sentence)
    print("It is NOT sound." if findings.problems else "It is sound.")
    return FAILED if findings.problems else 0
