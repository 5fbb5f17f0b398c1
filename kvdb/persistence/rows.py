"""The journal's rows: how an entry stands in SQLite, and the checksum that belongs to it.

What is text stands there as text, the rest as blobs, so that any SQLite tool shows it.
"""

from __future__ import annotations

import math
from typing import Any
from zlib import crc32

from kvdb.store.entry import DATABASES, Entry, Key, key_in, split_key

Row = tuple[Any, ...]
"""db, key, value, expires_at, client_flags, checksum."""


class DamagedRow(ValueError):
    """A row does not hold what was written; the text says what is wrong with it."""


def encode(data: bytes) -> str | bytes:
    """Return what is text as text, so that SQLite's tools show it; a NUL would cut it there."""
    try:
        return data if b"\0" in data else data.decode()
    except UnicodeDecodeError:
        return data


def decode(value: object) -> bytes:
    """Return what a column holds as bytes. Raises DamagedRow."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError:
            raise DamagedRow("its text is not UTF-8") from None
    if isinstance(value, int | float):  # written by hand: insert into entries ... values (..., 5)
        return str(value).encode()
    raise DamagedRow(f"{value!r} is neither text nor a blob")


def encode_key(key: Key) -> tuple[int, str | bytes]:
    """Return database and name as the columns have them."""
    db, name = split_key(key)
    return db, encode(name)


def checksum(key: Key, entry: Entry) -> int:
    """Return a CRC-32 of everything that a row says."""
    db, name = split_key(key)
    value, expires_at, client_flags = entry
    start = len(name)
    if db or client_flags or expires_at is not None:
        start = crc32(b"%d %d %a" % (db, client_flags, expires_at), start)
    return crc32(value, crc32(name, start))


def encode_row(key: Key, entry: Entry) -> Row:
    """Return the row of an entry."""
    db, name = encode_key(key)
    value, expires_at, client_flags = entry
    return db, name, encode(value), expires_at, client_flags, checksum(key, entry)


def decode_row(row: Row) -> tuple[Key, Entry]:
    """Return what a row says. Raises DamagedRow unless its checksum fits.

    A row without a checksum was written by hand, and is taken as it is.
    """
    db, name, value, expires_at, client_flags, expected = row
    if not isinstance(db, int) or not 0 <= db < DATABASES:
        raise DamagedRow(f"db is {db!r}: it must be 0 to {DATABASES - 1}")
    if not isinstance(client_flags, int) or not 0 <= client_flags < 1 << 32:
        raise DamagedRow(f"client_flags is {client_flags!r}: it must be a number of 32 bits")
    match expires_at:
        case None:
            deadline = None
        case int() | float() if math.isfinite(expires_at):
            deadline = float(expires_at)
        case _:
            raise DamagedRow(f"expires_at is {expires_at!r}: it must be a number or NULL")
    key, entry = key_in(db, decode(name)), Entry(decode(value), deadline, client_flags)
    if expected is not None and checksum(key, entry) != expected:
        raise DamagedRow(f"the checksum of key {decode(name)[:100]!r} does not fit")
    return key, entry
