"""Commands on string values."""

from __future__ import annotations

from typing import Final

from kvdb import errors
from kvdb.commands.arguments import (
    INT64_MAX,
    INT64_MIN,
    UNITS,
    add_decimals,
    deadline,
    decimal_number,
    integer,
)
from kvdb.commands.session import Session
from kvdb.commands.set_options import CONDITIONS, parse_options
from kvdb.commands.table import (
    ALL_KEYS,
    FIRST_KEY,
    GROWS,
    KEY_VALUE_PAIRS,
    READ,
    WRITE,
    command,
    in_runs,
)
from kvdb.errors import CommandError, ValueTooLarge
from kvdb.replies import OK, Reply
from kvdb.store.entry import Key
from kvdb.store.feed import Cause

_INCREMENTED: Final = Cause.INCREMENTED  # an attribute of an Enum takes 50 ns in Python 3.11


@command("GET", "key", READ, "Return the value of a key.", group="string", keys=FIRST_KEY)
def get(session: Session, key: Key) -> Reply:
    return session.store.get(key)


@in_runs("GET")
def get_run(session: Session, keys: list[Key]) -> list[Reply]:
    return session.store.get_many(keys)


_SET_OPTIONS: Final = frozenset((*UNITS, *CONDITIONS, b"GET", b"KEEPTTL"))
_GETEX_OPTIONS: Final = frozenset((*UNITS, b"PERSIST"))


@command(
    "SET",
    "key value [NX | XX | IFEQ value | IFNE value] [GET] [EX seconds | PX milliseconds | EXAT unix-seconds"
    " | PXAT unix-milliseconds | KEEPTTL]",
    WRITE | GROWS,
    "Set the value of a key, and how long it lives.",
    group="string",
    keys=FIRST_KEY,
)
def set_(session: Session, key: Key, value: bytes, *options: bytes) -> Reply:
    if not options:
        session.store.set(key, value)
        return OK
    asked = parse_options(options, _SET_OPTIONS)
    if not (asked.condition or asked.return_old) and asked.timing != b"KEEPTTL":
        now = session.store.now()
        session.store.set(key, value, expires_at=asked.expires_at(now, "set"), now=now)
        return OK
    with session.store.atomic():
        expires_at = asked.expires_at(session.store.now(), "set")
        old = session.store.get(key) if asked.return_old else None
        entry = session.store.entry(key)
        stored = asked.is_met_by(entry)
        if stored:
            cause = Cause.SET
            if entry and asked.timing == b"KEEPTTL":
                expires_at, cause = entry.expires_at, Cause.CHANGED
            session.store.set(key, value, expires_at=expires_at, cause=cause)
    if asked.return_old:
        return old
    return OK if stored else None


@in_runs("SET")
def set_run(session: Session, keys: list[Key], values: list[bytes]) -> list[Reply]:
    return [error or OK for error in session.store.set_each(keys, values)]


@command(
    "SETNX",
    "key value",
    WRITE | GROWS,
    "Set a value only if the key does not exist.",
    group="string",
    keys=FIRST_KEY,
)
def setnx(session: Session, key: Key, value: bytes) -> Reply:
    with session.store.atomic():
        if session.store.exists(key):
            return 0
        session.store.set(key, value)
        return 1


def _set_expiring(
    session: Session, key: Key, value: bytes, name: str, time: bytes, unit: int
) -> Reply:
    now = session.store.now()
    session.store.set(key, value, expires_at=deadline(time, unit, False, name, now), now=now)
    return OK


@command(
    "SETEX",
    "key seconds value",
    WRITE | GROWS,
    "Set a value that expires after some seconds.",
    group="string",
    keys=FIRST_KEY,
)
def setex(session: Session, key: Key, seconds: bytes, value: bytes) -> Reply:
    return _set_expiring(session, key, value, "setex", seconds, 1000)


@command(
    "PSETEX",
    "key milliseconds value",
    WRITE | GROWS,
    "Set a value that expires after some milliseconds.",
    group="string",
    keys=FIRST_KEY,
)
def psetex(session: Session, key: Key, milliseconds: bytes, value: bytes) -> Reply:
    return _set_expiring(session, key, value, "psetex", milliseconds, 1)


@command(
    "GETSET",
    "key value",
    WRITE | GROWS,
    "Set a value and return the one before.",
    group="string",
    keys=FIRST_KEY,
)
def getset(session: Session, key: Key, value: bytes) -> Reply:
    with session.store.atomic():
        old = session.store.get(key)
        session.store.set(key, value)
        return old


@command(
    "GETDEL",
    "key",
    WRITE,
    "Return the value of a key and delete it.",
    group="string",
    keys=FIRST_KEY,
)
def getdel(session: Session, key: Key) -> Reply:
    with session.store.atomic():
        value = session.store.get(key)
        session.store.delete(key)
        return value


@command(
    "GETEX",
    "key [EX seconds | PX milliseconds | EXAT unix-seconds | PXAT unix-milliseconds | PERSIST]",
    WRITE,
    "Return the value of a key and change how long it lives.",
    group="string",
    keys=FIRST_KEY,
)
def getex(session: Session, key: Key, *options: bytes) -> Reply:
    asked = parse_options(options, _GETEX_OPTIONS)
    with session.store.atomic():
        value = session.store.get(key)
        entry = session.store.entry(key)
        if entry:  # else, as in Redis, nobody looks at the number
            expires_at = asked.expires_at(session.store.now(), "getex")
            if expires_at or (asked.timing == b"PERSIST" and entry.expires_at):
                session.store.set_deadline(key, expires_at)
        return value


@command(
    "MGET",
    "key [key ...]",
    READ,
    "Return the values of all these keys.",
    group="string",
    keys=ALL_KEYS,
)
def mget(session: Session, *keys: Key) -> Reply:
    return session.store.get_many(keys)


def _pairs(name: str, keys_and_values: tuple[bytes, ...]) -> dict[Key, bytes]:
    if len(keys_and_values) % 2:
        raise CommandError(f"ERR wrong number of arguments for '{name}' command")
    return dict(zip(keys_and_values[::2], keys_and_values[1::2], strict=True))


@command(
    "MSET",
    "key value [key value ...]",
    WRITE | GROWS,
    "Set several values in one step.",
    group="string",
    keys=KEY_VALUE_PAIRS,
)
def mset(session: Session, *keys_and_values: bytes) -> Reply:
    session.store.write_many(_pairs("mset", keys_and_values))
    return OK


@command(
    "MSETNX",
    "key value [key value ...]",
    WRITE | GROWS,
    "Set several values only if none of the keys exists.",
    group="string",
    keys=KEY_VALUE_PAIRS,
)
def msetnx(session: Session, *keys_and_values: bytes) -> Reply:
    values = _pairs("msetnx", keys_and_values)
    with session.store.atomic():
        if any(session.store.exists(key) for key in values):
            return 0
        session.store.write_many(values)
        return 1


def _check_length(session: Session, length: int) -> None:
    limit = session.instance.config.max_value_bytes
    if length > limit:
        raise ValueTooLarge(limit)


@command(
    "APPEND",
    "key value",
    WRITE | GROWS,
    "Append to the value of a key; return its length.",
    group="string",
    keys=FIRST_KEY,
)
def append(session: Session, key: Key, value: bytes) -> Reply:
    def appended(old: bytes | None) -> bytes:
        _check_length(session, len(old or b"") + len(value))
        return (old or b"") + value

    return len(session.store.update(key, appended, Cause.APPENDED))


@command(
    "STRLEN", "key", READ, "Return the length of a value in bytes.", group="string", keys=FIRST_KEY
)
def strlen(session: Session, key: Key) -> Reply:
    return len(session.store.get(key) or b"")


@command(
    "GETRANGE",
    "key start end",
    READ,
    "Return a part of a value; both ends count.",
    group="string",
    keys=FIRST_KEY,
    aliases=("SUBSTR",),
)
def getrange(session: Session, key: Key, start: bytes, end: bytes) -> Reply:
    first, last = integer(start), integer(end)
    value = session.store.get(key) or b""
    if first < 0 and last < 0 and first > last:
        return b""
    if first < 0:
        first = max(0, len(value) + first)
    if last < 0:
        last = max(0, len(value) + last)
    return value[first : last + 1]


@command(
    "SETRANGE",
    "key offset value",
    WRITE | GROWS,
    "Overwrite a part of a value; return its length.",
    group="string",
    keys=FIRST_KEY,
)
def setrange(session: Session, key: Key, offset: bytes, value: bytes) -> Reply:
    start = integer(offset)
    if start < 0:
        raise CommandError(errors.OFFSET_OUT_OF_RANGE)

    def overwritten(old: bytes | None) -> bytes:
        _check_length(session, start + len(value))
        before = (old or b"")[:start].ljust(start, b"\0")
        return before + value + (old or b"")[start + len(value) :]

    if not value:  # changes nothing, and makes no key
        entry = session.store.entry(key)
        return len(entry.value) if entry else 0
    return len(session.store.update(key, overwritten, Cause.OVERWRITTEN))


def _increment(session: Session, key: Key, amount: int) -> int:
    number = 0

    def incremented(old: bytes | None) -> bytes:
        nonlocal number
        number = amount if old is None else integer(old) + amount
        if not INT64_MIN <= number <= INT64_MAX:
            raise CommandError(errors.OVERFLOW)
        return b"%d" % number

    session.store.update(key, incremented, _INCREMENTED)
    return number


@command("INCR", "key", WRITE | GROWS, "Add 1 to a counter.", group="string", keys=FIRST_KEY)
def incr(session: Session, key: Key) -> Reply:
    return int(session.store.update(key, _plus_one, _INCREMENTED))


@in_runs("INCR")
def incr_run(session: Session, keys: list[Key]) -> list[Reply]:
    values = session.store.update_each(keys, _plus_one, _INCREMENTED)
    return [int(value) if type(value) is bytes else value for value in values]


def _plus_one(old: bytes | None) -> bytes:
    if old is not None and old.isdigit() and len(old) < 18 and old[0] != ord("0"):
        return b"%d" % (int(old) + 1)  # as integer() would have it, without two calls
    number = 1 if old is None else integer(old) + 1
    if number > INT64_MAX:
        raise CommandError(errors.OVERFLOW)
    return b"%d" % number


@command("DECR", "key", WRITE | GROWS, "Subtract 1 from a counter.", group="string", keys=FIRST_KEY)
def decr(session: Session, key: Key) -> Reply:
    return _increment(session, key, -1)


@command(
    "INCRBY",
    "key increment",
    WRITE | GROWS,
    "Add a number to a counter.",
    group="string",
    keys=FIRST_KEY,
)
def incrby(session: Session, key: Key, increment: bytes) -> Reply:
    return _increment(session, key, integer(increment))


@command(
    "DECRBY",
    "key decrement",
    WRITE | GROWS,
    "Subtract a number from a counter.",
    group="string",
    keys=FIRST_KEY,
)
def decrby(session: Session, key: Key, decrement: bytes) -> Reply:
    amount = integer(decrement)
    if amount == INT64_MIN:  # has no positive counterpart
        raise CommandError("ERR decrement would overflow")
    return _increment(session, key, -amount)


@command(
    "INCRBYFLOAT",
    "key increment",
    WRITE | GROWS,
    "Add a decimal number to a value.",
    group="string",
    keys=FIRST_KEY,
)
def incrbyfloat(session: Session, key: Key, increment: bytes) -> Reply:
    amount = decimal_number(increment)

    def incremented(old: bytes | None) -> bytes:
        return add_decimals(decimal_number(b"0" if old is None else old), amount)

    return session.store.update(key, incremented, Cause.INCREMENTED_BY_FLOAT)
