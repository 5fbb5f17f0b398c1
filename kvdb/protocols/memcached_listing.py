"""Lists of all keys, as memcached's tools ask for them: `lru_crawler` and `stats cachedump`."""

from __future__ import annotations

import urllib.parse
from collections.abc import Iterator
from typing import Final

from kvdb.store import Store
from kvdb.store.entry import Entry, key_in

_LISTED_TOGETHER: Final = 1_000  # keys


def dump_keys(store: Store, db: int, short: bool = False) -> Iterator[bytes]:
    """Yield a line for each key, some at a time, while others go on."""
    cursor = 0
    while True:
        cursor, names = store.scan(cursor, _LISTED_TOGETHER, db)
        with store.atomic():
            entries = [(name, store.entry(key_in(db, name))) for name in names]
            lines = [
                b"mg %b\r\n" % name if short else _dump_line(name, entry)
                for name, entry in entries
                if entry is not None
            ]
        yield b"".join(lines)
        if not cursor:
            break
    yield b"EN\r\n" if short else b"END\r\n"


def _dump_line(name: bytes, entry: Entry) -> bytes:
    exptime = -1 if entry.expires_at is None else int(entry.expires_at)
    key = urllib.parse.quote_from_bytes(name, safe="").encode()
    size = len(name) + len(entry.value)
    # Hardly ever is the last access known; memcached's tools want a number there.
    return b"key=%b exp=%d la=0 cas=0 fetch=no cls=1 size=%d\r\n" % (key, exptime, size)


def cachedump(store: Store, db: int, limit: int) -> bytes:
    """Return the answer to `stats cachedump`: some keys, `limit` of them at most (0: many)."""
    _, names = store.scan(0, limit or _LISTED_TOGETHER, db)
    lines = []
    for name in names:
        entry = store.entry(key_in(db, name))
        if entry is not None:
            exptime = int(entry.expires_at or 0)
            lines.append(b"ITEM %b [%d b; %d s]\r\n" % (name, len(entry.value), exptime))
    return b"".join([*lines, b"END\r\n"])
