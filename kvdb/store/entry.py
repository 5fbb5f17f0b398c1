"""What the store keeps: keys, entries, deadlines, and what they cost."""

from __future__ import annotations

import sys
from typing import Final, NamedTuple

Key = bytes | tuple[int, bytes]
"""A key of database 0 is the client's bytes; a key of database n is the tuple (n, bytes).

So all databases share one recency order and one budget, and database 0, in which nearly
everybody lives, pays nothing for the others.
"""

DATABASES: Final = 16

# What one entry costs, in bytes. The allocator hands out memory in steps of 16; a bytes object
# has a header of sys.getsizeof(b"") bytes. The share of the tables is a mean: measured with
# sys.getsizeof() on a RecencyTable of 10,000 to 1,000,000 entries, growing, under steady use and
# under steady replacement, it swings between 74 and 149 bytes per entry (node, hash table, node
# index). A mean evicts one entry for one entry; the exact figure would evict many at once
# whenever a table doubles.
_HEADER: Final = sys.getsizeof(b"") + 15
TABLE_SHARE: Final = 96
TUPLE_KEY_COST: Final = 64
DEADLINE_COST: Final = 144  # a slot in a dict, one in a set, a float
CLIENT_FLAGS_COST: Final = 96  # a slot in a dict, an int
NOTE_COST: Final = 96


MOST_BESIDE: Final = 2 * _HEADER + TABLE_SHARE + TUPLE_KEY_COST
"""What an entry without deadline and flags costs beside the bytes of its key and value, at most."""


def entry_cost(key: Key, value: bytes) -> int:
    """Return what this entry costs of the budget, its share of the tables included."""
    if type(key) is tuple:
        name, extra = key[1], TABLE_SHARE + TUPLE_KEY_COST
    else:
        name, extra = key, TABLE_SHARE  # type: ignore[assignment]
    return (len(name) + _HEADER & ~15) + (len(value) + _HEADER & ~15) + extra


def key_in(db: int, name: bytes) -> Key:
    """Return the store's key for what clients call `name` in database `db`."""
    return (db, name) if db else name


def split_key(key: Key) -> tuple[int, bytes]:
    """Return database and name of a key: the inverse of `key_in`."""
    return key if type(key) is tuple else (0, key)  # type: ignore[return-value]


class Entry(NamedTuple):
    """What the store knows of one key."""

    value: bytes
    expires_at: float | None = None  # Unix seconds
    client_flags: int = 0  # memcached's number per value


def milliseconds(moment: float) -> int:
    """Return a moment (Unix seconds) in whole milliseconds: the last that has come by then.

    `ms <= milliseconds(now)` if and only if `ms / 1000 <= now`, whatever floats do to the product.
    """
    whole = int(moment * 1000)
    if (whole + 1) / 1000 <= moment:
        return whole + 1
    return whole - (whole / 1000 > moment)


def has_come(expires_at: float | None, now: float) -> bool:
    """Tell whether a deadline has come: from that very moment on, the key is gone."""
    return expires_at is not None and expires_at <= now
