"""The string keys of a file of Redis or Valkey, into an empty store."""

from __future__ import annotations

from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from kvdb.errors import CommandError
from kvdb.rdb.files import RdbReader, check_checksum
from kvdb.store import Store
from kvdb.store.entry import has_come

_TOGETHER: Final = 500  # entries that are stored in one step


class Imported(NamedTuple):
    """What has become of the keys of a file."""

    stored: int
    expired: int
    refused: int
    """Larger than the budget allows."""
    others: Counter[str]
    """Keys of other types, by type: left out."""


def check_rdb(path: Path, longest: int) -> Counter[str]:
    """Read a file as a whole; return how many keys of other types it has.

    `longest`: bytes that a value may have. Raises NotRdb or OSError.
    """
    with open(path, "rb") as file:
        check_checksum(file)
        file.seek(0)
        reader = RdbReader(file, longest)
        for _ in reader.entries():
            pass
    return reader.others


def import_rdb(path: Path, store: Store, longest: int) -> Imported:
    """Store the string keys of a file. Raises NotRdb or OSError, before anything is stored."""
    others = check_rdb(path, longest)
    stored = expired = refused = 0
    with open(path, "rb") as file:
        entries = RdbReader(file, longest).entries()
        while batch := list(islice(entries, _TOGETHER)):
            with store.atomic():
                now = store.now()
                for key, entry in batch:
                    if has_come(entry.expires_at, now):
                        expired += 1
                        continue
                    try:
                        store.set(key, entry.value, expires_at=entry.expires_at, now=now)
                        stored += 1
                    except CommandError:
                        refused += 1
    return Imported(stored, expired, refused, others)
