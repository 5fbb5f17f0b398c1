"""memcached's text protocol, after its doc/protocol.txt and what memcached 1.6 answers.

The classic commands are here, the meta commands in `memcached_meta`. Keys live in one database
(`--memcached-db`), flags beside the value, and a cas token is the store's version: a write through any other door
breaks it. Errors are in memcached's words, and after each the connection is in step.
"""

from __future__ import annotations

import logging
import os
import re
import urllib.parse
from collections.abc import Callable, Iterator
from typing import Final

import kvdb
from kvdb.buffer import LineTooLong
from kvdb.commands.session import Session
from kvdb.errors import TLS_HANDSHAKE, CommandError, NotOurProtocol, OutOfMemory
from kvdb.memory import resident_bytes
from kvdb.protocols import Instead, RequestLoop
from kvdb.protocols.memcached_meta import MetaCommands
from kvdb.protocols.memcached_values import (
    BAD_CHUNK,
    BAD_DELTA,
    BAD_EXPTIME,
    BAD_FORMAT,
    ERROR,
    INTERNAL,
    MAX_KEY,
    NO_MEMORY,
    NOT_A_NUMBER,
    TOO_LARGE,
    UNAUTHENTICATED,
    add_wrapping,
    deadline,
    parse_exptime,
    parse_unsigned,
)
from kvdb.resp import STRANGERS_LINE
from kvdb.store.entry import Entry, EvictionPolicy, Key, has_come, key_in, split_key

log = logging.getLogger(__name__)

_DUMPED_TOGETHER: Final = 1_000  # keys

MAX_LINE: Final = 64 * 1024
MAX_GET_LINE: Final = 4 * 1024 * 1024
"""A get may name thousands of keys: lines of 187 KB have been seen."""

_HTTP_REQUEST = re.compile(rb"(?:GET|POST|PUT|DELETE|HEAD|OPTIONS|PATCH|CONNECT) \S+ HTTP/")


class Memcached(RequestLoop):
    """One client's conversation on the memcached port."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.store = session.store
        self._storing: Callable[[bytes], bytes] | None = None  # waits for its data block
        self._length = 0  # of that data block
        self._noreply = False
        self._to_skip = 0  # bytes of a data block that nobody wants
        self._reply_after_skip = b""
        self._meta = MetaCommands(self)
        self.db = session.db = session.instance.config.memcached_db

    def end(self) -> None:
        """See `Dialect.end`. What waits for its data block refers to us, and so does `_meta`."""
        super().end()
        self._storing = None
        del self._meta

    # --- the stream ----------------------------------------------------------------------

    def answer_quickly(self, data: bytes) -> bytes | None:
        """See `Dialect.answer_quickly`: one command on one key or some."""
        between_requests = not (self._storing or self._to_skip or len(self._buffer))
        lines = 2 if data[:2] in (b"se", b"ms") else 1
        if (
            not between_requests
            or data.partition(b" ")[0] not in _QUICK
            or data.count(b"\n") != lines
            or self._must_wait()
        ):
            return None
        return self.receive(data)

    def _answer_next(self) -> bytes | None:
        try:
            if self._to_skip:
                return self._skip()
            if self._storing:
                return self._store_data()
            return self._answer_line()
        except LineTooLong:
            self.closing = True
            return None
        except NotOurProtocol:
            raise
        except CommandError as error:  # of the store
            return NO_MEMORY if isinstance(error, OutOfMemory) else TOO_LARGE
        except Exception:
            log.exception("internal error on the memcached port")
            return INTERNAL

    def _instead(self) -> Instead | None:
        words: list[bytes] = self._last or []
        name = words[0] if words else b""
        if name not in _COMMANDS.keys() - _NO_CHANGES | MetaCommands.NAMES - {b"mn"}:
            return None
        return Instead(
            lambda reason: b"SERVER_ERROR not saved: %b\r\n" % reason.encode(),
            # What has come with a data block cannot be repeated: that is gone.
            None if name in _WITH_DATA else lambda: self._answer_words(words) or b"",
            only_reads=name in (b"get", b"gets", b"me"),
        )

    def _answer_line(self) -> bytes | None:
        first = self._buffer.first_byte()
        if first == 0x80:  # memcached itself has deprecated it
            raise NotOurProtocol("the binary protocol, which is not spoken here")
        if first == TLS_HANDSHAKE:
            raise NotOurProtocol("a TLS handshake on the memcached port")
        longest = MAX_GET_LINE if first == ord("g") else MAX_LINE
        line = self._buffer.take_line(longest if self.session.authenticated else STRANGERS_LINE)
        if line is None:
            return None
        # A tab and its like may be a part of a key.
        words = line[: -2 if line.endswith(b"\r\n") else -1].split(b" ")
        if b"" in words:
            words = [word for word in words if word]
        name = words[0] if words else b""
        if name not in _COMMANDS and _HTTP_REQUEST.match(line):
            raise NotOurProtocol("an HTTP request on the memcached port")
        self.session.commands += 1
        self.session.last_command = name[:20].decode("ascii", "replace")
        if not self.session.authenticated:
            return self._authenticate(words)
        if self.session.instance.loading:  # what follows the line as data is not looked at
            self.closing = True
            return b"SERVER_ERROR loading the data; try again\r\n"
        self._last = words
        return self._answer_words(words)

    def _answer_words(self, words: list[bytes]) -> bytes | None:
        name = words[0] if words else b""
        handler = _COMMANDS.get(name)
        if handler is not None:
            reply = handler(self, words)
            # Nobody reads the reply to a noreply, so none may come: no error about its words.
            # (`ERROR` does, as from memcached: too few words to see a noreply in them.)
            silent = name in _MAY_BE_SILENT and words[-1] == b"noreply" and reply != ERROR
            return b"" if silent else reply
        return self._meta.answer(words) if name in MetaCommands.NAMES else ERROR

    def expect_data(
        self, length: int, store: Callable[[bytes], bytes], noreply: bool = False
    ) -> bytes | None:
        """Have `store` called with the data block of a line; return the reply if it is there."""
        if length > self.session.instance.config.max_value_bytes:
            return self.skip_data(length, b"" if noreply else TOO_LARGE)
        self._length, self._storing, self._noreply = length, store, noreply
        return self._store_data()

    def skip_data(self, length: int, reply: bytes) -> bytes | None:
        """Read a data block over, then answer with `reply`."""
        self._to_skip, self._reply_after_skip = length + 2, reply
        return self._skip()

    def _skip(self) -> bytes | None:
        self._to_skip -= self._buffer.skip(self._to_skip)
        return None if self._to_skip else self._reply_after_skip

    def _store_data(self) -> bytes | None:
        data = self._buffer.take(self._length + 2)
        if data is None:
            return None
        store, self._storing = self._storing, None
        assert store is not None
        if data[-2:] != b"\r\n":
            return b"" if self._noreply else BAD_CHUNK
        return store(data[:-2])

    def _authenticate(self, words: list[bytes]) -> bytes | None:
        """Take a password as memcached does: `set` with any key and `username password` as data."""
        length = parse_unsigned(words[4], 20) if len(words) == 5 and words[0] == b"set" else None
        if length is None:
            self.closing = words[:1] == [b"quit"]
            return b"" if self.closing else UNAUTHENTICATED
        if length > STRANGERS_LINE:  # nobody has a password as long as that
            self.closing = True
            return UNAUTHENTICATED

        def check(data: bytes) -> bytes:
            password = data.partition(b" ")[2]
            if not self.session.instance.log_in(self.session, password):
                return b"CLIENT_ERROR authentication failure\r\n"
            return b"STORED\r\n"

        return self.expect_data(length, check)

    def count(self, name: str) -> None:
        self.session.counts[name] += 1

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
        if name == b"set" and length > self.session.instance.config.max_value_bytes:
            # As in memcached, the old value goes too: better none than one that is out of date.
            self.store.delete(key_in(self.db, key))

        def store(data: bytes) -> bytes:
            try:
                if exptime == 0:
                    reply = self.put(name, key_in(self.db, key), Entry(data, None, flags), token)
                else:
                    with self.store.atomic():
                        expires_at = deadline(exptime, self.store.now)
                        entry = Entry(data, expires_at, flags)
                        reply = self.put(name, key_in(self.db, key), entry, token)
            except CommandError:
                if name == b"set":
                    self.store.delete(key_in(self.db, key))
                if not noreply:
                    raise
                reply = b""
            return b"" if noreply else reply

        return self.expect_data(length, store, noreply)

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
                        return TOO_LARGE
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
        store = self.store
        prefixes = self.session.instance.prefixes
        with store.atomic():
            for name in keys:
                key = key_in(self.db, name)
                entry = store.get_entry(key)
                if prefixes.enabled:
                    prefixes.count(name, get=1, hit=entry is not None)
                if exptime is not None:
                    self.count("cmd_touch")
                    self.count("touch_hits" if entry else "touch_misses")
                if entry is None:
                    continue
                if exptime is not None:
                    store.set_deadline(key, deadline(exptime, store.now), keep_version=True)
                token = b" %d" % store.version(key) if with_cas else b""
                size = len(entry.value)
                replies.append(b"VALUE %b %d %d%b\r\n" % (name, entry.client_flags, size, token))
                replies += (entry.value, b"\r\n")
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
            self.store.update(key, lambda old: value)
        return value.rstrip() + b"\r\n"

    def _touch(self, words: list[bytes]) -> bytes:
        if not 3 <= len(words) <= 4:
            return ERROR
        if len(words[1]) > MAX_KEY:
            return BAD_FORMAT
        exptime = parse_exptime(words[2])
        if exptime is None:
            return BAD_EXPTIME
        self.count("cmd_touch")
        with self.store.atomic():
            expires_at = deadline(exptime, self.store.now)
            touched = self.store.set_deadline(
                key_in(self.db, words[1]), expires_at, keep_version=True
            )
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
                self.store.flush_later(None)
                self.store.flush(self.db)
            else:
                self.store.flush_later(flush_at, self.db)
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
                return self._in_batches(self._dump_keys())
            case [b"mgdump", b"all" | b"1"]:
                return self._in_batches(self._dump_keys(short=True))
            case [b"enable" | b"disable"] | [b"sleep" | b"tocrawl" | b"crawl", _]:
                return b"OK\r\n"
            case _:
                return ERROR

    def _dump_keys(self, short: bool = False) -> Iterator[bytes]:
        """Yield a line for each key, some at a time, while others go on."""
        store, cursor = self.store, 0
        while True:
            cursor, names = store.scan(cursor, _DUMPED_TOGETHER, self.db)
            with store.atomic():
                entries = [(name, store.entry(key_in(self.db, name))) for name in names]
                lines = [
                    b"mg %b\r\n" % name if short else self._dump_line(name, entry)
                    for name, entry in entries
                    if entry is not None
                ]
            yield b"".join(lines)
            if not cursor:
                break
        yield b"EN\r\n" if short else b"END\r\n"

    def _dump_line(self, name: bytes, entry: Entry) -> bytes:
        exptime = -1 if entry.expires_at is None else int(entry.expires_at)
        key = urllib.parse.quote_from_bytes(name, safe="").encode()
        size = len(name) + len(entry.value)
        # The last access is not kept; memcached's tools want a number there.
        return b"key=%b exp=%d la=0 cas=0 fetch=no cls=1 size=%d\r\n" % (key, exptime, size)

    def _cachedump(self, limit: int) -> bytes:
        _, names = self.store.scan(0, limit or _DUMPED_TOGETHER, self.db)
        lines = []
        for name in names:
            entry = self.store.entry(key_in(self.db, name))
            if entry is not None:
                exptime = int(entry.expires_at or 0)
                lines.append(b"ITEM %b [%d b; %d s]\r\n" % (name, len(entry.value), exptime))
        return b"".join([*lines, b"END\r\n"])

    def _shutdown(self, words: list[bytes]) -> bytes:
        return b"ERROR: shutdown not enabled\r\n"

    def _stats(self, words: list[bytes]) -> bytes:
        match words[1:]:
            case []:
                return _listed(self._general())
            case [b"settings"]:
                return _listed(self._settings())
            case [b"reset"]:
                self.session.instance.reset_statistics()
                return b"RESET\r\n"
            case [b"items"] | [b"slabs"] | [b"sizes"]:
                # There are no slabs: one class holds everything.
                return _listed(self._classes(words[1]))
            case [b"conns"]:
                return _listed(self._connections())
            case [b"cachedump", _, limit] if parse_unsigned(limit, 32) is not None:
                return self._cachedump(int(limit))
            case [b"cachedump", *_]:
                return BAD_FORMAT
            case [b"detail", b"on" | b"off" as switch]:
                self.session.instance.prefixes.enabled = switch == b"on"
                return b"OK\r\n"
            case [b"detail", b"dump"]:
                return self.session.instance.prefixes.dump()
            case [b"detail", *_]:
                return b"CLIENT_ERROR usage: stats detail on|off|dump\r\n"
            case _:
                return ERROR

    def _general(self) -> dict[str, object]:
        instance, store = self.session.instance, self.store
        counts, times = instance.counts(), os.times()
        sizes = store.sizes()
        figures: dict[str, object] = {
            "pid": os.getpid(),
            "uptime": int(instance.monotonic() - instance.started_at),
            "time": int(store.now()),
            "version": VERSION,
            "pointer_size": 64,
            "rusage_user": f"{times.user:.6f}",
            "rusage_system": f"{times.system:.6f}",
            "max_connections": instance.config.max_clients,
            "curr_connections": len(instance.sessions()),
            "total_connections": instance.connections_received,
            "rejected_connections": instance.connections_rejected,
            "cmd_get": store.hits + store.misses,
            "cmd_set": counts["cmd_set"],
            "cmd_flush": counts["cmd_flush"],
            "cmd_touch": counts["cmd_touch"],
            "get_hits": store.hits,
            "get_misses": store.misses,
            "get_expired": 0,
            "get_flushed": 0,
        }
        for name in ("delete", "incr", "decr", "cas", "touch"):
            for outcome in ("misses", "hits"):
                figures[f"{name}_{outcome}"] = counts[f"{name}_{outcome}"]
        return figures | {
            "cas_badval": counts["cas_badval"],
            "bytes_read": counts["received"],
            "bytes_written": counts["sent"],
            "limit_maxbytes": store.max_bytes,
            "accepting_conns": 1,
            "listen_disabled_num": 0,
            "threads": len(instance.sessions()),
            "bytes": store.used_bytes,
            "rss": resident_bytes() or 0,
            "curr_items": sizes.get(self.db, (0, 0, 0))[0],
            "total_items": store.changes,
            "evictions": store.evicted_keys,
            "reclaimed": store.expired_keys,
        }

    def _settings(self) -> dict[str, object]:
        config, policy = self.session.instance.config, self.store.policy
        return {
            "maxbytes": self.store.max_bytes,
            "maxconns": config.max_clients,
            "tcpport": config.memcached_port,
            "udpport": 0,
            "inter": config.host,
            "verbosity": 0,
            "evictions": "off" if policy is EvictionPolicy.NOEVICTION else "on",
            "cas_enabled": "yes",
            "auth_enabled_sasl": "no",
            "auth_enabled_ascii": "yes" if config.password else "no",
            "item_size_max": config.max_value_bytes,
            "maxconns_fast": "yes",
            "idle_timeout": f"{config.idle_timeout:g}",
            "detail_enabled": "no",
        }

    def _classes(self, kind: bytes) -> dict[str, object]:
        keys = self.store.sizes().get(self.db, (0, 0, 0))[0]
        if kind == b"sizes":
            return {"sizes_status": "disabled"}
        if kind == b"slabs":
            return {"active_slabs": 1, "total_malloced": self.store.used_bytes}
        if not keys:
            return {}
        return {
            "items:1:number": keys,
            "items:1:mem_requested": self.store.used_bytes,
            "items:1:evicted": self.store.evicted_keys,
            "items:1:reclaimed": self.store.expired_keys,
        }

    def _connections(self) -> dict[str, object]:
        now = self.session.instance.monotonic()
        figures: dict[str, object] = {}
        for session in self.session.instance.sessions():
            figures[f"{session.id}:addr"] = f"tcp:{session.address}"
            figures[f"{session.id}:listen_addr"] = f"tcp:{session.local_address}"
            figures[f"{session.id}:secs_since_last_cmd"] = int(now - session.last_active)
        return figures


VERSION: Final = f"1.6.18-kvdb-{kvdb.__version__}"
"""The memcached whose answers ours follow, for clients that decide by it what they may send."""


def _listed(figures: dict[str, object]) -> bytes:
    lines = [f"STAT {name} {value}\r\n" for name, value in figures.items()]
    return "".join([*lines, "END\r\n"]).encode()


_MAY_BE_SILENT: Final = frozenset(
    (b"incr", b"decr", b"delete", b"touch", b"flush_all", b"verbosity")
)
"""The commands without data that can end in noreply; those with data see to it themselves."""

_WITH_DATA: Final = frozenset((b"set", b"add", b"replace", b"append", b"prepend", b"cas", b"ms"))

_NO_CHANGES: Final = frozenset(
    (b"lru_crawler", b"stats", b"version", b"verbosity", b"quit", b"shutdown")
)

_QUICK: Final = frozenset((b"get", b"gets", b"set", b"delete", b"incr", b"decr", b"mg", b"ms"))

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
