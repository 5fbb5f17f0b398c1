"""DEBUG: what other people's test suites ask for. Off unless --enable-debug-command says so."""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
import time
from collections.abc import Callable
from typing import Final

from kvdb.commands.arguments import integer
from kvdb.commands.session import Session
from kvdb.commands.table import ADMIN, QUICK_WORDS, command
from kvdb.errors import NO_SUCH_KEY, CommandError
from kvdb.glob import compile_glob
from kvdb.persistence import PersistenceError, SaveInProgress
from kvdb.replies import OK, BigNumber, Reply, SimpleString, Verbatim
from kvdb.store.entry import Entry, key_in

log = logging.getLogger(__name__)

_NOT_ALLOWED: Final = (
    'ERR DEBUG command not allowed. If the enable-debug-command option is set to "local", you '
    "can run it from a local connection, otherwise you need to set this option in the "
    "configuration file, and then restart the server."
)
_LOOPBACK: Final = ("127.", "[::1]", "[::ffff:127.")
_LONGEST_SLEEP: Final = 3600.0

_Handler = Callable[..., Reply]
_SUBCOMMANDS: Final[dict[bytes, tuple[_Handler, int, int]]] = {}
"""What is done, and how many arguments it takes at least and at most."""


def _subcommand(name: str, least: int, most: int | None = None) -> Callable[[_Handler], _Handler]:
    def register(handler: _Handler) -> _Handler:
        _SUBCOMMANDS[name.encode()] = handler, least, least if most is None else most
        return handler

    return register


@command(
    "DEBUG",
    "subcommand [argument ...]",
    ADMIN,
    "For tests; refused unless --enable-debug-command allows it. DEBUG HELP lists what there is.",
    group="server",
)
def debug(session: Session, name: bytes, *arguments: bytes) -> Reply:
    allowed = session.instance.config.enable_debug_command
    is_local = session.address.startswith(_LOOPBACK)
    if allowed != "yes" and not (allowed == "local" and is_local):
        raise CommandError(_NOT_ALLOWED)
    handler, least, most = _SUBCOMMANDS.get(name.upper(), (None, 0, 0))
    if handler is None or not least <= len(arguments) <= most:
        shown = name[:128].decode("utf-8", "replace")
        raise CommandError(
            f"ERR unknown subcommand or wrong number of arguments for '{shown}'. Try DEBUG HELP."
        )
    return handler(session, *arguments)


@_subcommand("HELP", 0)
def _help(session: Session) -> Reply:
    return [
        b"DEBUG <subcommand> [<arg> [value] [opt] ...]. Subcommands are:",
        *sorted(_SUBCOMMANDS),
    ]


@_subcommand("SLEEP", 1)
def _sleep(session: Session, seconds: bytes) -> Reply:
    """Sleep; only this client has to wait, unless it is within a transaction."""
    try:
        number = float(seconds)
    except ValueError:
        number = 0.0  # as in Redis
    if math.isfinite(number) and number > 0:
        time.sleep(min(number, _LONGEST_SLEEP))
    return OK


@_subcommand("SET-ACTIVE-EXPIRE", 1)
def _set_active_expire(session: Session, on: bytes) -> Reply:
    session.instance.expires_actively = on.strip() not in (b"0", b"")
    return OK


@_subcommand("SET-DISABLE-DENY-SCRIPTS", 1)
def _set_disable_deny_scripts(session: Session, on: bytes) -> Reply:
    """Let scripts call what they may not call, DEBUG for one."""
    session.instance.scripts.may_call_anything = on.strip() not in (b"0", b"")
    return OK


@_subcommand("OBJECT", 1, 2)
def _object(session: Session, name: bytes, *fast: bytes) -> Reply:
    key = key_in(session.db, name)
    entry = session.store.entry(key)
    if entry is None:
        raise CommandError(NO_SUCH_KEY)
    value = entry.value
    try:
        integer(value)
        encoding = "int"
    except CommandError:
        encoding = "embstr" if len(value) <= 44 else "raw"
    return SimpleString(
        f"Value at:0x{id(value):x} refcount:1 encoding:{encoding} "
        f"serializedlength:{len(value) + 1} lru:0 lru_seconds_idle:0".encode()
    )


@_subcommand("RELOAD", 0, 3)
def _reload(session: Session, *options: bytes) -> Reply:
    """Save, if there is anything to save in: what is in memory is what would be read again."""
    persistence = session.instance.persistence
    if persistence is not None and b"NOSAVE" not in {option.upper() for option in options}:
        try:
            persistence.save()
        except SaveInProgress:
            pass
        except PersistenceError as error:
            raise CommandError(f"ERR {error}") from None
    return OK


@_subcommand("LOADAOF", 0)
def _loadaof(session: Session) -> Reply:
    return _reload(session)


@_subcommand("CHANGE-REPL-ID", 0)
def _change_repl_id(session: Session) -> Reply:
    session.instance.replication.change_id()
    return OK


@_subcommand("POPULATE", 1, 3)
def _populate(session: Session, count: bytes, prefix: bytes = b"key", size: bytes = b"") -> Reply:
    """Set keys that are not there yet to `value:` and their number, filled up with zeros."""
    number, length = integer(count), integer(size) if size else None
    if number < 0 or (length is not None and length < 0):
        raise CommandError("ERR value is out of range, must be positive")
    for each in range(number):
        key = key_in(session.db, b"%b:%d" % (prefix, each))
        value = b"value:%d" % each
        with session.store.atomic():
            if not session.store.exists(key):
                session.store.set(
                    key, value if length is None else value.ljust(length, b"\0")[:length]
                )
    return OK


@_subcommand("ERROR", 1)
def _error(session: Session, text: bytes) -> Reply:
    shown = text.decode("utf-8", "surrogateescape").replace("\r", " ").replace("\n", " ")
    raise CommandError(shown)


@_subcommand("LOG", 1)
def _log(session: Session, text: bytes) -> Reply:
    log.warning("DEBUG LOG: %s", text.decode("utf-8", "replace"))
    return OK


@_subcommand("SDSLEN", 1)
def _sdslen(session: Session, name: bytes) -> Reply:
    entry = session.store.entry(key_in(session.db, name))
    if entry is None:
        raise CommandError(NO_SUCH_KEY)
    key_length, length = len(name), len(entry.value)
    return SimpleString(
        f"key_sds_len:{key_length}, key_sds_avail:0, key_zmalloc: {key_length}, "
        f"val_sds_len:{length}, val_sds_avail:0, val_zmalloc: {length}".encode()
    )


@_subcommand("DIGEST", 0)
def _digest(session: Session) -> Reply:
    """Return what is the same for two servers, also of Redis, that hold the same."""
    store, total = session.store, _Digest()
    for db in sorted(store.sizes()):
        total.mix(db.to_bytes(4, "big"))
        for name in store.keys(db):
            entry = store.entry(key_in(db, name))
            if entry is not None:
                each = _Digest()
                each.mix(name)
                each.mix_entry(entry)
                total.add(each.value)
    return SimpleString(total.value.hex().encode())


@_subcommand("DIGEST-VALUE", 1, QUICK_WORDS)
def _digest_value(session: Session, *names: bytes) -> Reply:
    found = []
    for name in names:
        entry, each = session.store.entry(key_in(session.db, name)), _Digest()
        if entry is not None:
            each.mix_entry(entry)
        found.append(SimpleString(each.value.hex().encode()))
    return found


class _Digest:
    """Redis's digest: SHA-1 of what follows in order, exclusive or of what has none."""

    def __init__(self) -> None:
        self.value = bytes(20)

    def add(self, data: bytes) -> None:
        """Add what may come in any order."""
        digest = hashlib.sha1(data, usedforsecurity=False).digest()
        self.value = bytes(a ^ b for a, b in zip(self.value, digest, strict=True))

    def mix(self, data: bytes) -> None:
        """Add what has its place."""
        self.add(data)
        self.value = hashlib.sha1(self.value, usedforsecurity=False).digest()

    def mix_entry(self, entry: Entry) -> None:
        self.mix(bytes(4))  # the type: a string
        self.mix(entry.value)
        if entry.expires_at is not None:
            self.add(b"!!expire!!")


_KINDS: Final[dict[bytes, Reply]] = {
    b"string": b"Hello World",
    b"integer": 12345,
    b"double": 3.141,
    b"null": None,
    b"array": [0, 1, 2],
    b"set": frozenset((0, 1, 2)),
    b"map": {0: False, 1: True, 2: False},
    b"verbatim": Verbatim("This is a verbatim\nstring"),
    b"true": True,
    b"false": False,
    b"bignum": BigNumber(b"1234567999999999999999999999999999999"),
}


@_subcommand("PROTOCOL", 1)
def _protocol(session: Session, kind: bytes) -> Reply:
    """Answer with a reply of this kind, for tests of clients."""
    if kind.lower() not in _KINDS:
        raise CommandError(
            "ERR Wrong protocol type name. Please use one of the following: "
            "string|integer|double|bignum|null|array|set|map|verbatim|true|false"
        )
    return _KINDS[kind.lower()]


@_subcommand("STRINGMATCH-LEN", 0)
def _stringmatch_len(session: Session) -> Reply:
    """Match random patterns with random texts, as Redis's own test does."""
    for _ in range(1000):
        pattern, text = (
            bytes(secrets.choice(b"ab*?[]^-\\") for _ in range(secrets.randbelow(16)))
            for _ in range(2)
        )
        compile_glob(pattern)(text)
    return SimpleString(b"Apparently Redis did not crash: test passed")


def _do_nothing(session: Session, *ignored: bytes) -> Reply:
    return OK


# Accepted, because suites set up the server with them: they are about how Redis does things.
for _name in (
    "JMAP", "QUICKLIST-PACKED-THRESHOLD", "PAUSE-CRON", "REPLYBUFFER", "REPLICATE", "LEAK",
    "DICT-RESIZING", "HASHTABLE-RESIZE", "REPLYBUFFER-PEAK-RESET-TIME",
    "CONFIG-REWRITE-FORCE-ALL", "CLIENT-ENFORCE-REPLY-LIST",
):  # fmt: skip
    _subcommand(_name, 0, 9)(_do_nothing)
