"""MIGRATE: keys of ours onto another server. `redis-cli --cluster import` moves a whole server with it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from kvdb import errors, rdb
from kvdb.commands.arguments import integer
from kvdb.commands.session import Session
from kvdb.commands.table import SLOW, WRITE, command
from kvdb.errors import CommandError
from kvdb.replies import OK, Reply, SimpleString
from kvdb.store.entry import Key, split_key

if TYPE_CHECKING:
    from kvdb.client.connection import Connection

_TOGETHER: Final = 100  # keys that are sent at a time
_ATTEMPTS: Final = 5  # to move a key that somebody changes all the time
_LEAST_TIMEOUT: Final = 1000  # milliseconds, if 0 or less is given, as in Redis
_MOST_TIMEOUT: Final = 7 * 24 * 3600 * 1000  # milliseconds; sockets do not take any number


class _Options(NamedTuple):
    copy: bool
    replace: bool
    user: str | None
    password: str | None
    keys: list[Key]


@command(
    "MIGRATE",
    "host port key destination-db timeout [COPY] [REPLACE] [AUTH password] "
    "[AUTH2 username password] [KEYS key ...]",
    WRITE | SLOW,
    "Move keys to another server, or copy them. The timeout is in milliseconds.",
    group="generic",
    keys=(3, 3, 1),
    open_ended=True,
)
def migrate(
    session: Session, host: bytes, port: bytes, key: Key, db: bytes, timeout: bytes, *words: Key
) -> Reply:
    """A key is deleted here only once the other server has it, and only as it has it."""
    # The client's half of the package takes a while to be imported: only who needs it waits.
    from kvdb.client.address import Address
    from kvdb.client.connection import Connection
    from kvdb.client.errors import Error, ServerError, TimedOut

    options = _parse(key, words)
    milliseconds = min(integer(timeout), _MOST_TIMEOUT)
    address = Address(
        host=host.decode("utf-8", "replace"),
        port=integer(port),
        timeout=(milliseconds if milliseconds > 0 else _LEAST_TIMEOUT) / 1000,
        user=options.user,
        password=options.password,
        db=integer(db),
    )
    if session.in_exec:
        raise CommandError("ERR MIGRATE is not possible inside a transaction")
    keys = [each for each in options.keys if session.store.exists(each)]
    if not keys:
        return SimpleString(b"NOKEY")
    try:
        connection = Connection(address)
    except ServerError as refused:
        raise _refused(refused) from None
    except Error:
        raise CommandError("IOERR error or timeout connecting to the client") from None
    try:
        for start in range(0, len(keys), _TOGETHER):
            _move(session, connection, keys[start : start + _TOGETHER], options)
    except TimedOut:
        raise CommandError("IOERR error or timeout reading to target instance") from None
    except ServerError as refused:
        raise _refused(refused) from None
    except Error:
        raise CommandError("IOERR error or timeout writing to target instance") from None
    finally:
        connection.close()
    return OK


def _parse(key: Key, words: tuple[Key, ...]) -> _Options:
    copy = replace = False
    user = password = None
    keys = [key]
    left = list(words)
    while left:
        word = left.pop(0)
        option = word.upper() if isinstance(word, bytes) else b""
        if option == b"COPY":
            copy = True
        elif option == b"REPLACE":
            replace = True
        elif option == b"AUTH" and left:
            password = _text(left.pop(0))
        elif option == b"AUTH2" and len(left) > 1:
            user, password = _text(left.pop(0)), _text(left.pop(0))
        elif option == b"KEYS":
            if split_key(key)[1]:
                raise CommandError(
                    "ERR When using MIGRATE KEYS option, the key argument must be set to the empty "
                    "string"
                )
            keys, left = left, []
        else:
            raise CommandError(errors.SYNTAX)
    return _Options(copy, replace, user, password, keys)


def _text(word: Key) -> str:
    return split_key(word)[1].decode("utf-8", "surrogateescape")


def _move(session: Session, connection: Connection, keys: list[Key], options: _Options) -> None:
    """Send some keys, and delete them here. Raises the client's errors."""
    from kvdb.client.errors import ServerError

    store = session.store
    replace = options.replace
    for _ in range(_ATTEMPTS):
        versions: list[tuple[Key, int]] = []
        requests: list[list[bytes]] = []
        for key in keys:
            with store.atomic(touching=False):
                entry, now = store.entry(key), store.now()
                if entry is None:
                    continue
                version = 0 if options.copy else store.version(key)
            versions.append((key, version))
            ttl = 0 if entry.expires_at is None else max(1, round((entry.expires_at - now) * 1000))
            name = split_key(key)[1]
            request = [b"RESTORE", name, b"%d" % ttl, rdb.dump(entry.value)]
            requests.append(request + ([b"REPLACE"] if replace else []))
        if not requests:
            return
        replies = connection.ask(requests)
        keys = []
        for (key, version), reply in zip(versions, replies, strict=True):
            if options.copy or isinstance(reply, ServerError):
                continue
            with store.atomic():
                if store.unchanged(key, version):
                    store.delete(key)
                else:  # somebody has changed it since: what the other server has is out of date
                    keys.append(key)
        for reply in replies:
            if isinstance(reply, ServerError):
                raise reply
        if not keys:
            return
        replace = True
    raise CommandError("ERR a key was changed all the time while it was to be moved")


def _refused(error: Exception) -> CommandError:
    text = re.sub(r"[\r\n]", " ", str(error))
    return CommandError(f"ERR Target instance replied with error: {text}")
