"""OBJECT: what the store knows of a value."""

from __future__ import annotations

from typing import Final

from kvdb.commands.arguments import integer
from kvdb.commands.session import Session
from kvdb.commands.table import FIRST_KEY, READ, command, container
from kvdb.errors import CommandError
from kvdb.replies import Reply
from kvdb.store.entry import Key

container("OBJECT", "What the store knows of a value.", group="generic")

_NO_FREQUENCY: Final = (
    "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that "
    "when switching between policies at runtime LRU and LFU data will take some time to adjust."
)
_NO_IDLE_TIME: Final = (
    "ERR idle time not tracked: the store knows in which order keys were used, and not when."
)


@command(
    "OBJECT ENCODING",
    "key",
    READ,
    "Return how Redis would keep the value: int, embstr or raw.",
    group="generic",
    keys=FIRST_KEY,
)
def object_encoding(session: Session, key: Key) -> Reply:
    entry = session.store.entry(key)
    if entry is None:
        return None
    try:
        integer(entry.value)
        return b"int"
    except CommandError:
        return b"embstr" if len(entry.value) <= 44 else b"raw"  # 44: OBJ_ENCODING_EMBSTR_SIZE_LIMIT


@command(
    "OBJECT REFCOUNT",
    "key",
    READ,
    "Return 1: values are not shared.",
    group="generic",
    keys=FIRST_KEY,
)
def object_refcount(session: Session, key: Key) -> Reply:
    return 1 if session.store.exists(key) else None


@command(
    "OBJECT FREQ",
    "key",
    READ,
    "Refused: uses are not counted (Redis answers the same without an LFU policy).",
    group="generic",
    keys=FIRST_KEY,
)
def object_freq(session: Session, key: Key) -> Reply:
    if not session.store.exists(key):
        return None
    raise CommandError(_NO_FREQUENCY)


@command(
    "OBJECT IDLETIME",
    "key",
    READ,
    "Refused: the order in which keys were used is known, and not the time.",
    group="generic",
    keys=FIRST_KEY,
)
def object_idletime(session: Session, key: Key) -> Reply:
    if not session.store.exists(key):
        return None
    raise CommandError(_NO_IDLE_TIME)
