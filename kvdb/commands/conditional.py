"""Commands of newer servers that look at what is there before they write or delete."""

from __future__ import annotations

from typing import Final

from kvdb import errors
from kvdb.commands.arguments import UNITS, parse_integer
from kvdb.commands.session import Session
from kvdb.commands.set_options import parse_options
from kvdb.commands.table import FIRST_KEY, GROWS, WRITE, command
from kvdb.errors import CommandError
from kvdb.replies import Reply
from kvdb.store.entry import Key

_INVALID_NUMKEYS: Final = "ERR invalid numkeys value or out of range"
_MOST_KEYS: Final = 2**31 - 1

_MSETEX_OPTIONS: Final = frozenset((*UNITS, b"NX", b"XX", b"KEEPTTL"))


@command(
    "MSETEX",
    "numkeys key value [key value ...] [NX | XX] [EX seconds | PX milliseconds"
    " | EXAT unix-seconds | PXAT unix-milliseconds | KEEPTTL]",
    WRITE | GROWS,
    "Set several values in one step, and how long all of them live.",
    group="string",
    counted_keys=(0, 1, 2),
    open_ended=True,
)
def msetex(session: Session, numkeys: bytes, *words: bytes) -> Reply:
    count = parse_integer(numkeys)
    if count is None or not 0 < count <= _MOST_KEYS:
        raise CommandError(_INVALID_NUMKEYS)
    pairs, options = words[: 2 * count], words[2 * count :]
    if len(pairs) < 2 * count:
        raise CommandError(errors.SYNTAX)
    asked = parse_options(options, _MSETEX_OPTIONS)
    values: dict[Key, bytes] = dict(zip(pairs[::2], pairs[1::2], strict=True))
    store = session.store
    with store.atomic():
        expires_at = asked.expires_at(store.now(), "msetex")
        if not all(asked.is_met_by(store.entry(key)) for key in values):
            return 0
        if asked.timing == b"KEEPTTL":
            entries = {key: store.entry(key) for key in values}
            deadlines = {key: entry.expires_at for key, entry in entries.items() if entry}
        else:
            deadlines = dict.fromkeys(values, expires_at)
        store.write_many(values, deadlines)
        return 1


@command(
    "DELIFEQ",
    "key value",
    WRITE,
    "Delete a key if it holds this value; return 1 if it did.",
    group="string",
    keys=FIRST_KEY,
)
def delifeq(session: Session, key: Key, value: bytes) -> Reply:
    with session.store.atomic():
        entry = session.store.entry(key)
        return session.store.delete(key) if entry and entry.value == value else 0


@command(
    "DELEX",
    "key [IFEQ value | IFNE value]",
    WRITE,
    "Delete a key, or do so only if it holds, or does not hold, a value.",
    group="string",
    keys=FIRST_KEY,
    open_ended=True,
)
def delex(session: Session, key: Key, *condition: bytes) -> Reply:
    if not condition:
        return session.store.delete(key)
    if len(condition) != 2:
        raise CommandError("ERR wrong number of arguments for 'delex' command")
    name, value = condition[0].upper(), condition[1]
    if name not in (b"IFEQ", b"IFNE"):
        raise CommandError("ERR Invalid condition. Use IFEQ or IFNE")
    with session.store.atomic():
        entry = session.store.entry(key)
        if entry is None or (entry.value == value) != (name == b"IFEQ"):
            return 0
        return session.store.delete(key)
