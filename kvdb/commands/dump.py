"""DUMP and RESTORE: values in Redis's own format, to and from other servers."""

from __future__ import annotations

from typing import Final

from kvdb import errors, rdb
from kvdb.commands.arguments import INT64_MAX, integer
from kvdb.commands.session import Session
from kvdb.commands.table import FIRST_KEY, GROWS, READ, WRITE, command
from kvdb.errors import CommandError, ValueTooLarge
from kvdb.replies import OK, Reply
from kvdb.store.entry import Key
from kvdb.store.feed import Cause

_QUICK: Final = 8 * 1024  # bytes of a value: half a millisecond for the checksum

_BUSY_KEY: Final = "BUSYKEY Target key name already exists."


@command(
    "DUMP",
    "key",
    READ,
    "Return a value as other servers take it with RESTORE.",
    group="generic",
    keys=FIRST_KEY,
)
def dump(session: Session, key: Key) -> Reply:
    if not session.at_leisure:
        session.take_leisure((session.store.cost(key) or 0) > _QUICK)
    value = session.store.get(key)
    return None if value is None else rdb.dump(value)


def _parse(options: tuple[bytes, ...]) -> tuple[bool, bool]:
    """Return whether REPLACE and ABSTTL are asked for.

    IDLETIME and FREQ are taken and do nothing: the order of use is all that is known here.
    """
    replace = absolute = False
    number = b""  # the option of a number that was given
    words = iter(options)
    for word in words:
        option = word.upper()
        if option == b"REPLACE":
            replace = True
        elif option == b"ABSTTL":
            absolute = True
        elif option in (b"IDLETIME", b"FREQ") and number in (b"", option):
            number, text = option, next(words, None)
            if text is None:
                raise CommandError(errors.SYNTAX)
            value = integer(text)
            if option == b"IDLETIME" and value < 0:
                raise CommandError("ERR Invalid IDLETIME value, must be >= 0")
            if option == b"FREQ" and not 0 <= value <= 255:
                raise CommandError("ERR Invalid FREQ value, must be >= 0 and <= 255")
        else:
            raise CommandError(errors.SYNTAX)
    return replace, absolute


@command(
    "RESTORE",
    "key ttl serialized-value [REPLACE] [ABSTTL] [IDLETIME seconds] [FREQ frequency]",
    WRITE | GROWS,
    "Store a value that a server has dumped, with milliseconds to live (0: for ever).",
    group="generic",
    keys=FIRST_KEY,
    open_ended=True,
)
def restore(session: Session, key: Key, ttl: bytes, payload: bytes, *options: bytes) -> Reply:
    replace, absolute = _parse(options)
    store = session.store
    if not replace and store.exists(key):
        raise CommandError(_BUSY_KEY)
    milliseconds = integer(ttl)
    if milliseconds < 0:
        raise CommandError("ERR Invalid TTL value, must be >= 0")
    session.take_leisure(len(payload) > _QUICK)
    value = _read(session, payload)
    with store.atomic():
        if not replace and store.exists(key):  # it has come while the payload was read
            raise CommandError(_BUSY_KEY)
        expires_at = None
        if milliseconds:
            now = 0 if absolute else int(store.now() * 1000)
            expires_at = min(milliseconds + now, INT64_MAX) / 1000
        store.set(key, value, expires_at=expires_at, cause=Cause.RESTORED)
        return OK


def _read(session: Session, payload: bytes) -> bytes:
    most = session.instance.config.max_value_bytes
    try:
        return rdb.load(payload, most)
    except rdb.WrongChecksum:
        raise CommandError("ERR DUMP payload version or checksum are wrong") from None
    except rdb.TooLong:
        raise ValueTooLarge(most) from None
    except rdb.BadFormat:
        raise CommandError("ERR Bad data format") from None
