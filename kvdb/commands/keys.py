"""Commands on keys, whatever they hold."""

from __future__ import annotations

from kvdb import errors
from kvdb.commands.arguments import INT64_MAX, database, deadline, integer
from kvdb.commands.session import Session
from kvdb.commands.table import (
    ALL_KEYS,
    FIRST_KEY,
    GROWS,
    READ,
    SLOW,
    TWO_KEYS,
    WRITE,
    command,
)
from kvdb.errors import CommandError
from kvdb.glob import compile_glob
from kvdb.replies import OK, Reply, SimpleString
from kvdb.store.entry import Key, key_in, milliseconds, split_key
from kvdb.store.feed import Cause

_STRING = SimpleString(b"string")
_NO_TYPE = SimpleString(b"none")

_QUICK_COUNT = 1_000
"""Keys that a SCAN may ask for while others wait: about a millisecond."""


def _misses(session: Session, key: Key) -> bool:
    """Have a key that a reader does not find told to whoever wants to know; return False."""
    session.store.tell_miss(key)
    return False


def _finds(session: Session, key: Key) -> bool:
    """Tell whether a key is there; if it is not, that is a miss."""
    return session.store.exists(key) or _misses(session, key)


@command(
    "DEL",
    "key [key ...]",
    WRITE,
    "Delete keys; return how many there were.",
    group="generic",
    keys=ALL_KEYS,
    aliases=("DELETE", "UNLINK"),
)
def delete(session: Session, *keys: Key) -> Reply:
    return session.store.delete(*keys)


@command(
    "EXISTS",
    "key [key ...]",
    READ,
    "Count how many of these keys exist.",
    group="generic",
    keys=ALL_KEYS,
)
def exists(session: Session, *keys: Key) -> Reply:
    with session.store.atomic():
        return sum(_finds(session, key) for key in keys)


@command(
    "TOUCH",
    "key [key ...]",
    READ,
    "Mark the keys as just used; return how many exist.",
    group="generic",
    keys=ALL_KEYS,
)
def touch(session: Session, *keys: Key) -> Reply:
    with session.store.atomic():
        return sum(session.store.touch(key) or _misses(session, key) for key in keys)


@command(
    "TYPE",
    "key",
    READ,
    "Return the type of a key's value: string or none.",
    group="generic",
    keys=FIRST_KEY,
)
def type_(session: Session, key: Key) -> Reply:
    return _STRING if _finds(session, key) else _NO_TYPE


# --- expiry -------------------------------------------------------------------------------


def _expire(
    session: Session,
    name: str,
    key: Key,
    time: bytes,
    options: tuple[bytes, ...],
    unit: int,
    absolute: bool,
) -> Reply:
    for option in options:
        if option.upper() not in (b"NX", b"XX", b"GT", b"LT"):
            shown = option[:128].decode("utf-8", "surrogateescape")
            raise CommandError(f"ERR Unsupported option {shown}")
    asked = {option.upper() for option in options}
    if b"NX" in asked and len(asked) > 1:
        raise CommandError("ERR NX and XX, GT or LT options at the same time are not compatible")
    if asked >= {b"GT", b"LT"}:
        raise CommandError("ERR GT and LT options at the same time are not compatible")
    with session.store.atomic():
        expires_at = deadline(time, unit, absolute, name, session.store.now(), positive=False)
        entry = session.store.entry(key)
        if entry is None:
            return 0
        current = entry.expires_at
        refused = (
            (b"NX" in asked and current is not None)
            or (b"XX" in asked and current is None)
            or (b"GT" in asked and (current is None or expires_at <= current))
            or (b"LT" in asked and current is not None and expires_at >= current)
        )
        return 0 if refused else int(session.store.set_deadline(key, expires_at))


@command(
    "EXPIRE",
    "key seconds [NX | XX | GT | LT] ...",
    WRITE,
    "Have a key expire after some seconds.",
    group="generic",
    keys=FIRST_KEY,
)
def expire(session: Session, key: Key, seconds: bytes, *options: bytes) -> Reply:
    return _expire(session, "expire", key, seconds, options, 1000, False)


@command(
    "PEXPIRE",
    "key milliseconds [NX | XX | GT | LT] ...",
    WRITE,
    "Have a key expire after some milliseconds.",
    group="generic",
    keys=FIRST_KEY,
)
def pexpire(session: Session, key: Key, milliseconds: bytes, *options: bytes) -> Reply:
    return _expire(session, "pexpire", key, milliseconds, options, 1, False)


@command(
    "EXPIREAT",
    "key unix-seconds [NX | XX | GT | LT] ...",
    WRITE,
    "Have a key expire at a moment in Unix seconds.",
    group="generic",
    keys=FIRST_KEY,
)
def expireat(session: Session, key: Key, seconds: bytes, *options: bytes) -> Reply:
    return _expire(session, "expireat", key, seconds, options, 1000, True)


@command(
    "PEXPIREAT",
    "key unix-milliseconds [NX | XX | GT | LT] ...",
    WRITE,
    "Have a key expire at a moment in Unix milliseconds.",
    group="generic",
    keys=FIRST_KEY,
)
def pexpireat(session: Session, key: Key, milliseconds: bytes, *options: bytes) -> Reply:
    return _expire(session, "pexpireat", key, milliseconds, options, 1, True)


def _expires_at_milliseconds(session: Session, key: Key) -> int:
    """Return the deadline in Unix milliseconds; -2 without such a key, -1 without a deadline."""
    entry = session.store.entry(key)
    if entry is None:
        return _misses(session, key) or -2
    # A float cannot tell the last numbers before 2**63 apart.
    return -1 if entry.expires_at is None else min(round(entry.expires_at * 1000), INT64_MAX)


@command(
    "PTTL",
    "key",
    READ,
    "Return the milliseconds a key has to live; -1: for ever; -2: no such key.",
    group="generic",
    keys=FIRST_KEY,
)
def pttl(session: Session, key: Key) -> Reply:
    with session.store.atomic():
        expires_at = _expires_at_milliseconds(session, key)
        left = expires_at - milliseconds(session.store.now())
        return expires_at if expires_at < 0 else max(0, left)


@command(
    "TTL",
    "key",
    READ,
    "Return the seconds a key has to live; -1: for ever; -2: no such key.",
    group="generic",
    keys=FIRST_KEY,
)
def ttl(session: Session, key: Key) -> Reply:
    milliseconds = pttl(session, key)
    return (
        milliseconds if milliseconds < 0 else (milliseconds + 500) // 1000
    )  # rounded, as in Redis


@command(
    "EXPIRETIME",
    "key",
    READ,
    "Return when a key expires, in Unix seconds; -1 and -2 as in TTL.",
    group="generic",
    keys=FIRST_KEY,
)
def expiretime(session: Session, key: Key) -> Reply:
    milliseconds = _expires_at_milliseconds(session, key)
    return milliseconds if milliseconds < 0 else (milliseconds + 500) // 1000


@command(
    "PEXPIRETIME",
    "key",
    READ,
    "Return when a key expires, in Unix milliseconds; -1 and -2 as in TTL.",
    group="generic",
    keys=FIRST_KEY,
)
def pexpiretime(session: Session, key: Key) -> Reply:
    return _expires_at_milliseconds(session, key)


@command("PERSIST", "key", WRITE, "Take a key's deadline away.", group="generic", keys=FIRST_KEY)
def persist(session: Session, key: Key) -> Reply:
    with session.store.atomic():
        entry = session.store.entry(key)
        if entry is None or entry.expires_at is None:
            return 0
        return int(session.store.set_deadline(key, None))


# --- finding keys -------------------------------------------------------------------------


@command(
    "KEYS", "pattern", READ | SLOW, "List the keys that match a glob pattern.", group="generic"
)
def keys(session: Session, pattern: bytes) -> Reply:
    matches = compile_glob(pattern)
    return [name for name in session.store.keys(session.db) if matches(name)]


@command(
    "SCAN",
    "cursor [MATCH pattern] [COUNT count] [TYPE type]",
    READ,
    "List keys a few at a time; start with 0, end at 0.",
    group="generic",
)
def scan(session: Session, cursor: bytes, *options: bytes) -> Reply:
    if not cursor.isdigit() or len(cursor) > 20 or int(cursor) >= 2**64:
        raise CommandError(errors.INVALID_CURSOR)
    matches, count, kind = compile_glob(b"*"), 10, b"string"
    for option, value in zip(options[::2], options[1::2], strict=False):
        match option.upper():
            case b"MATCH":
                matches = compile_glob(value)
            case b"COUNT":
                count = integer(value)
            case b"TYPE":
                kind = value.lower()
            case _:
                raise CommandError(errors.SYNTAX)
    if len(options) % 2 or count < 1:
        raise CommandError(errors.SYNTAX)
    session.take_leisure(count > _QUICK_COUNT or not session.store.has_index(session.db))
    next_cursor, names = session.store.scan(int(cursor), count, session.db)
    found = [name for name in names if matches(name)] if kind == b"string" else []
    return [b"%d" % next_cursor, found]


@command("RANDOMKEY", "", READ | SLOW, "Return some key.", group="generic")
def randomkey(session: Session) -> Reply:
    return session.store.random_key(session.db)


@command("DBSIZE", "", READ, "Return the number of keys.", group="server")
def dbsize(session: Session) -> Reply:
    return session.store.size(session.db)


# --- whole entries ------------------------------------------------------------------------


def _rename(session: Session, source: Key, destination: Key, replace: bool) -> bool:
    """Rename an entry; with `replace` False not onto another. Tell whether that was done."""
    with session.store.atomic():
        if not replace and session.store.exists(destination):
            return False
        return session.store.rename(source, destination)


@command(
    "RENAME",
    "key newkey",
    WRITE,
    "Rename a key; what newkey held is gone.",
    group="generic",
    keys=TWO_KEYS,
)
def rename(session: Session, key: Key, newkey: Key) -> Reply:
    if not _rename(session, key, newkey, replace=True):
        raise CommandError(errors.NO_SUCH_KEY)
    return OK


@command(
    "RENAMENX",
    "key newkey",
    WRITE,
    "Rename a key only if newkey does not exist.",
    group="generic",
    keys=TWO_KEYS,
)
def renamenx(session: Session, key: Key, newkey: Key) -> Reply:
    with session.store.atomic():
        if not session.store.exists(key):
            raise CommandError(errors.NO_SUCH_KEY)
        return int(_rename(session, key, newkey, replace=False))


@command(
    "COPY",
    "source destination [DB destination-db] [REPLACE]",
    WRITE | GROWS,
    "Copy a key, its deadline included.",
    group="generic",
    keys=TWO_KEYS,
)
def copy(session: Session, source: Key, destination: Key, *options: bytes) -> Reply:
    db, replace = session.db, False
    words = iter(options)
    for word in words:
        option = word.upper()
        number = next(words, None) if option == b"DB" else None
        if option == b"REPLACE":
            replace = True
        elif number is not None:
            db = database(number)
        else:
            raise CommandError(errors.SYNTAX)
    destination = key_in(db, split_key(destination)[1])
    if source == destination:
        raise CommandError(errors.SAME_OBJECT)
    store = session.store
    with store.atomic():
        entry = store.entry(source)
        if entry is None:
            return int(_misses(session, source))
        if not replace and store.exists(destination):
            return 0
        store.set(
            destination, entry.value, expires_at=entry.expires_at,
            client_flags=entry.client_flags, cause=Cause.COPIED,
        )  # fmt: skip
        return 1


@command(
    "MOVE", "key db", WRITE, "Move a key to another database.", group="generic", keys=FIRST_KEY
)
def move(session: Session, key: Key, db: bytes) -> Reply:
    destination = key_in(database(db), split_key(key)[1])
    if key == destination:
        raise CommandError(errors.SAME_OBJECT)
    return int(_rename(session, key, destination, replace=False))


def _flush(session: Session, db: int | None, mode: tuple[bytes, ...]) -> Reply:
    # SYNC and ASYNC are one: the keys are gone at once, and memory is freed while others go on.
    if mode and (len(mode) > 1 or mode[0].upper() not in (b"ASYNC", b"SYNC")):
        raise CommandError(errors.SYNTAX)
    session.store.flush(db)
    return OK


@command(
    "FLUSHDB", "[ASYNC | SYNC]", WRITE | SLOW, "Delete every key of this database.", group="server"
)
def flushdb(session: Session, *mode: bytes) -> Reply:
    return _flush(session, session.db, mode)


@command(
    "FLUSHALL",
    "[ASYNC | SYNC]",
    WRITE | SLOW,
    "Delete every key of every database.",
    group="server",
)
def flushall(session: Session, *mode: bytes) -> Reply:
    return _flush(session, None, mode)


@command(
    "SWAPDB",
    "index1 index2",
    WRITE | SLOW,
    "Exchange the keys of two databases.",
    group="server",
)
def swapdb(session: Session, index1: bytes, index2: bytes) -> Reply:
    first = integer(index1, "ERR invalid first DB index")
    second = integer(index2, "ERR invalid second DB index")
    session.store.swap(database(b"%d" % first), database(b"%d" % second))
    return OK
