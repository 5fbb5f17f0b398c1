"""memcached's text protocol, after its doc/protocol.txt and what memcached 1.6 answers.

The classic commands are here; the stream, the meta commands, `stats` and lists of keys have
modules beside this one. Keys live in one database (`--memcached-db`), flags beside the value, and
a cas token is the store's version: a write through any other port breaks it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from kvdb.commands.session import Session
from kvdb.commands.table import QUICK_WORDS, Named
from kvdb.errors import CommandError
from kvdb.protocols import Instead
from kvdb.protocols.memcached_listing import dump_keys
from kvdb.protocols.memcached_marks import Marks
from kvdb.protocols.memcached_meta import MetaCommands
from kvdb.protocols.memcached_needs import NEEDS
from kvdb.protocols.memcached_stats import VERSION, Statistics
from kvdb.protocols.memcached_stream import MemcachedStream
from kvdb.protocols.memcached_values import (
    BAD_DELTA,
    BAD_EXPTIME,
    BAD_FORMAT,
    ERROR,
    MAX_KEY,
    NOT_A_NUMBER,
    add_wrapping,
    deadline,
    parse_exptime,
    parse_unsigned,
)
from kvdb.store.entry import Entry, Key, has_come, key_in, split_key
from kvdb.store.feed import Cause


class Memcached(MemcachedStream):
    """One client's conversation on the memcached port."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.store = session.store
        self.marks = Marks(session)
        self._meta = MetaCommands(self)
        self._statistics = Statistics(session)
        self.db = session.db = session.instance.config.memcached_db

    def end(self) -> None:
        """See `Dialect.end`. The meta commands refer to us."""
        super().end()
        del self._meta

    def _instead(self) -> Instead | None:
        words: list[bytes] = self._last or []
        name = words[0] if words else b""
        if name not in _COMMANDS.keys() - _NO_CHANGES | MetaCommands.NAMES - {b"mn"}:
            return None

        def again() -> bytes:
            self._last = words
            return self._answer_last() or b""

        return Instead(
            lambda reason: b"SERVER_ERROR not saved: %b\r\n" % reason.encode(),
            # What has come with a data block cannot be repeated: that is gone.
            None if name in _WITH_DATA else again,
            only_reads=name in (b"get", b"gets", b"me"),
        )

    def _answer_words(self, words: list[bytes]) -> bytes | None:
        name = words[0] if words else b""
        operation = _OPERATIONS.get(name)
        if operation is None:
            return ERROR
        if name in _WITH_DATA:  # carried out when that has come
            return self._storage(words) if name != b"ms" else self._meta.answer(words)
        session = self.session
        session.take_leisure(len(words) > QUICK_WORDS or name in _SLOW)
        if name not in _COMMANDS:
            answer: bytes = session.perform(
                operation, MetaCommands.answer, self._meta, (words,), words
            )
            return answer
        try:
            reply: bytes = session.perform(operation, _COMMANDS[name], self, (words,), words)
        except CommandError as error:
            reply = self._refusal(error)
        # Nobody reads the reply to a noreply, so none may come: no error about its words.
        # (`ERROR` does, as from memcached: too few words to see a noreply in them.)
        silent = name in _MAY_BE_SILENT and words[-1] == b"noreply" and reply != ERROR
        return b"" if silent else reply

    # --- storing -------------------------------------------------------------------------

    def _storage(self, words: list[bytes]) -> bytes | None:
        """set add replace append prepend cas: read the line, then wait for the data."""
        name, with_cas = words[0], words[0] == b"cas"
        if not 5 + with_cas <= len(words) <= 6 + with_cas:
            if (
                with_cas
                and len(words) == 5
                and (length := parse_unsigned(words[4], 31)) is not None
            ):
                return self.skip_data(length, BAD_FORMAT)  # only the token is missing
            return ERROR
        key, noreply = words[1], words[-1] == b"noreply"
        flags, exptime = parse_unsigned(words[2], 32), parse_exptime(words[3])
        length = parse_unsigned(words[4], 31)
        token = parse_unsigned(words[5]) if with_cas else 0
        if length is None:
            self.closing = True  # nobody knows where the data ends: it must not run as commands
            return BAD_FORMAT
        if flags is None or exptime is None or token is None or len(key) > MAX_KEY:
            return self.skip_data(length, b"" if noreply else BAD_FORMAT)
        self.count("cmd_set")

        def store(data: bytes) -> bytes:
            try:
                if exptime == 0:
                    reply = self.put(name, key_in(self.db, key), Entry(data, None, flags), token)
                else:
                    with self.store.atomic():
                        expires_at = deadline(exptime, self.store.now)
                        entry = Entry(data, expires_at, flags)
                        reply = self.put(name, key_in(self.db, key), entry, token)
            except CommandError as error:
                if name == b"set":
                    self.store.delete(key_in(self.db, key))
                reply = self._refusal(error)
            return b"" if noreply else reply

        replaces = key_in(self.db, key) if name == b"set" else None
        return self.expect_data(_OPERATIONS[name], length, store, noreply, replaces)

    def put(self, name: bytes, key: Key, entry: Entry, token: int) -> bytes:
        """Carry out a storage command; return its reply."""
        if self.session.instance.prefixes.enabled:
            self.session.instance.prefixes.count(split_key(key)[1], set=1)
        if name == b"set":
            self.write(key, entry)
            return b"STORED\r\n"
        with self.store.atomic():
            old = self.store.entry(key)
            match name:
                case b"add" if old:
                    self.store.touch(key)
                    return b"NOT_STORED\r\n"
                case b"replace" | b"append" | b"prepend" if not old:
                    return b"NOT_STORED\r\n"
                case b"append" | b"prepend":
                    assert old is not None
                    pair = (
                        (old.value, entry.value) if name == b"append" else (entry.value, old.value)
                    )
                    entry = old._replace(value=b"".join(pair))
                    if len(entry.value) > self.session.instance.config.max_value_bytes:
                        return self.too_large()
                case b"cas":
                    if old is None:
                        self.count("cas_misses")
                        return b"NOT_FOUND\r\n"
                    if not self.store.unchanged(key, token):
                        self.count("cas_badval")
                        return b"EXISTS\r\n"
                    self.count("cas_hits")
            self.write(key, entry)
        return b"STORED\r\n"

    def write(self, key: Key, entry: Entry) -> None:
        """Store an entry; one that has expired already only takes away what was there."""
        value, expires_at, client_flags = entry
        self.store.set(key, value, expires_at=expires_at, client_flags=client_flags)
        if self.marks.noted:
            self.marks.was_stored(key)

    # --- retrieving ----------------------------------------------------------------------

    def _get(self, words: list[bytes]) -> bytes:
        if len(words) < 2:
            return ERROR
        return self._retrieve(words[1:], words[0] == b"gets", None)

    def _get_and_touch(self, words: list[bytes]) -> bytes:
        if len(words) < 2:
            return ERROR
        exptime = parse_exptime(words[1])
        if exptime is None:
            return BAD_EXPTIME
        return self._retrieve(words[2:], words[0] == b"gats", exptime)

    def _retrieve(self, keys: list[bytes], with_cas: bool, exptime: int | None) -> bytes:
        if keys and max(map(len, keys)) > MAX_KEY:
            return BAD_FORMAT
        replies = []
        hits = expired = 0
        store, noted = self.store, self.marks.noted
        prefixes = self.session.instance.prefixes
        for start in range(0, len(keys), QUICK_WORDS):
            with store.atomic():  # others have their turn in between
                expired -= store.found_expired
                for name in keys[start : start + QUICK_WORDS]:
                    key = key_in(self.db, name)
                    entry = store.get_entry(key)
                    if prefixes.enabled:
                        prefixes.count(name, get=1, hit=entry is not None)
                    if entry is None:
                        continue
                    hits += 1
                    if noted:
                        self.marks.was_read(key)
                    value, _, flags = entry
                    if exptime is not None:
                        moment = deadline(exptime, store.now)
                        store.set_deadline(key, moment, keep_version=True)
                    token = b" %d" % store.version(key) if with_cas else b""
                    replies.append(b"VALUE %b %d %d%b\r\n" % (name, flags, len(value), token))
                    replies += (value, b"\r\n")
                expired += store.found_expired
        counts, kind = self.session.counts, "get" if exptime is None else "touch"
        if hits:
            counts[f"{kind}_hits"] += hits
        if hits < len(keys):
            counts[f"{kind}_misses"] += len(keys) - hits
            counts["get_expired"] += expired
        replies.append(b"END\r\n")
        return self._in_batches(replies)

    # --- changing ------------------------------------------------------------------------

    def _delete(self, words: list[bytes]) -> bytes:
        if not 2 <= len(words) <= 4:
            return ERROR
        # A hold time of 0 is what old clients send; nothing else is taken.
        if words[2:] not in ([], [b"0"], [b"noreply"], [b"0", b"noreply"]):
            return b"CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]\r\n"
        if len(words[1]) > MAX_KEY:
            return BAD_FORMAT
        deleted = self.store.delete(key_in(self.db, words[1]))
        if self.session.instance.prefixes.enabled:
            self.session.instance.prefixes.count(words[1], delete=1)
        self.count("delete_hits" if deleted else "delete_misses")
        return b"DELETED\r\n" if deleted else b"NOT_FOUND\r\n"

    def _arithmetic(self, words: list[bytes]) -> bytes:
        if not 3 <= len(words) <= 4:
            return ERROR
        name, key = words[0].decode(), key_in(self.db, words[1])
        if len(words[1]) > MAX_KEY:
            return BAD_FORMAT
        delta = parse_unsigned(words[2])
        if delta is None:
            return BAD_DELTA
        with self.store.atomic():
            entry = self.store.entry(key)
            if entry is None:
                self.count(f"{name}_misses")
                return b"NOT_FOUND\r\n"
            value = add_wrapping(entry.value, delta if name == "incr" else -delta)
            if value is None:
                return NOT_A_NUMBER
            self.count(f"{name}_hits")
            self.store.update(key, lambda old: value, Cause.INCREMENTED)
            if self.marks.noted:
                self.marks.was_stored(key)
        return value.rstrip() + b"\r\n"

    def _touch(self, words: list[bytes]) -> bytes:
        if not 3 <= len(words) <= 4:
            return ERROR
        if len(words[1]) > MAX_KEY:
            return BAD_FORMAT
        exptime = parse_exptime(words[2])
        if exptime is None:
            return BAD_EXPTIME
        key = key_in(self.db, words[1])
        with self.store.atomic():
            expires_at = deadline(exptime, self.store.now)
            touched = self.store.set_deadline(key, expires_at, keep_version=True)
            if touched and self.marks.noted:
                self.marks.was_read(key)
        self.count("touch_hits" if touched else "touch_misses")
        return b"TOUCHED\r\n" if touched else b"NOT_FOUND\r\n"

    def _flush_all(self, words: list[bytes]) -> bytes:
        delays = words[1 : len(words) - (words[-1] == b"noreply")]
        if len(delays) > 1:
            return ERROR
        exptime = parse_exptime(delays[0]) if delays else 0
        if exptime is None:
            return BAD_EXPTIME
        self.count("cmd_flush")
        with self.store.atomic():
            flush_at = deadline(exptime, self.store.now)
            if flush_at is None or has_come(flush_at, self.store.now()):
                self.session.instance.planned_flush.plan(None)
                self.store.flush(self.db)
            else:
                self.session.instance.planned_flush.plan(flush_at, self.db)
        return b"OK\r\n"

    # --- the server ----------------------------------------------------------------------

    def _version(self, words: list[bytes]) -> bytes:
        return b"VERSION %b\r\n" % VERSION.encode()

    def _verbosity(self, words: list[bytes]) -> bytes:
        if words[-1] == b"noreply":
            return b""
        if len(words) != 2:
            return ERROR
        return b"OK\r\n" if parse_unsigned(words[1]) is not None else BAD_FORMAT

    def _quit(self, words: list[bytes]) -> bytes:
        self.closing = True
        return b""

    def _lru_crawler(self, words: list[bytes]) -> bytes:
        """Answer what tools ask: metadump lists the keys, the rest has nothing to do here."""
        match words[1:]:
            case [b"metadump", b"all" | b"1"]:
                return self._in_batches(dump_keys(self.store, self.db))
            case [b"mgdump", b"all" | b"1"]:
                return self._in_batches(dump_keys(self.store, self.db, short=True))
            case [b"enable" | b"disable"] | [b"sleep" | b"tocrawl" | b"crawl", _]:
                return b"OK\r\n"
            case _:
                return ERROR

    def _shutdown(self, words: list[bytes]) -> bytes:
        return b"ERROR: shutdown not enabled\r\n"

    def _stats(self, words: list[bytes]) -> bytes:
        return self._statistics.answer(words)


_MAY_BE_SILENT: Final = frozenset(
    (b"incr", b"decr", b"delete", b"touch", b"flush_all", b"verbosity")
)
"""The commands without data that can end in noreply; those with data see to it themselves."""

_WITH_DATA: Final = frozenset((b"set", b"add", b"replace", b"append", b"prepend", b"cas", b"ms"))

_SLOW: Final = frozenset((b"stats", b"lru_crawler", b"flush_all"))
"""They look at all keys, or wait for a lock."""

_NO_CHANGES: Final = frozenset(
    (b"lru_crawler", b"stats", b"version", b"verbosity", b"quit", b"shutdown")
)

_COMMANDS: Final[dict[bytes, Callable[[Memcached, list[bytes]], bytes | None]]] = {
    **dict.fromkeys(
        (b"set", b"add", b"replace", b"append", b"prepend", b"cas"), Memcached._storage
    ),
    **dict.fromkeys((b"get", b"gets"), Memcached._get),
    **dict.fromkeys((b"gat", b"gats"), Memcached._get_and_touch),
    **dict.fromkeys((b"incr", b"decr"), Memcached._arithmetic),
    b"delete": Memcached._delete,
    b"touch": Memcached._touch,
    b"flush_all": Memcached._flush_all,
    b"stats": Memcached._stats,
    b"lru_crawler": Memcached._lru_crawler,
    b"version": Memcached._version,
    b"verbosity": Memcached._verbosity,
    b"quit": Memcached._quit,
    b"shutdown": Memcached._shutdown,
}

Memcached.names = frozenset(_COMMANDS)

_OPERATIONS: Final = {
    name: Named(name.decode(), NEEDS[name], is_step=name not in _NO_CHANGES)
    for name in _COMMANDS.keys() | MetaCommands.NAMES
}
