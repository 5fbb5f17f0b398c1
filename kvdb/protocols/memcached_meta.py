"""memcached's meta commands: mg ms md ma mn me.

A request is a key and flags, each a letter and perhaps a token; the reply is a two-letter code,
the flags that were asked for and, after VA, a value. What is known of a value beside its entry
(stale, won, hit, age) is in `memcached_marks`. Where memcached 1.6.18 is older than
doc/protocol.txt, that is followed: E, md x, the s of ms, N of an append, a quiet ma that creates.
"""

from __future__ import annotations

import binascii
import re
from typing import TYPE_CHECKING, Final

from kvdb.commands.table import Named
from kvdb.protocols.memcached_marks import Mark
from kvdb.protocols.memcached_needs import NEEDS
from kvdb.protocols.memcached_values import (
    BAD_FORMAT,
    ERROR,
    MAX_KEY,
    NOT_A_NUMBER,
    UINT64,
    add_wrapping,
    deadline,
    parse_unsigned,
)
from kvdb.store.entry import Entry, Key, key_in, split_key

if TYPE_CHECKING:
    from kvdb.protocols.memcached import Memcached


class Refused(Exception):
    """The request is not well formed; the text is what memcached says then."""


class FlagRefused(Refused):
    """A flag or its token is not well formed. md and ma have one text for all of these."""


_FLAGS: Final = b"bcfhklqstuvCDEFIJLMNOPRT"
"""Every command takes all of them and makes nothing of some; md takes x, too."""

_MOST_FLAGS: Final = {b"mg": 17, b"md": 17, b"ma": 17, b"ms": 16}
_MAX_OPAQUE = 31
_NUMBER = re.compile(rb"-?[0-9]{1,20}")
_NOT_NEGATIVE: Final = (b"C", b"D", b"E", b"J")


class _Request:
    """A meta request: its key as the store has it, and its flags in their order."""

    def __init__(self, name: bytes, key: bytes, flags: list[bytes], db: int) -> None:
        if len(key) > MAX_KEY:
            raise Refused("bad command line format")
        if len(flags) > _MOST_FLAGS.get(name, len(flags)):
            raise Refused(f"options flags {'are ' if name == b'mg' else ''}too long")
        self.flags = {flag[:1]: flag[1:] for flag in flags}
        if len(self.flags) < len(flags):
            raise FlagRefused("duplicate flag")
        if any(flag not in (_FLAGS + b"x" if name == b"md" else _FLAGS) for flag in self.flags):
            raise FlagRefused("invalid flag")
        if len(self.flags.get(b"O", b"")) > _MAX_OPAQUE:
            raise Refused("opaque token too long")
        if len(self.flags.get(b"M", b" ")) != 1:
            raise FlagRefused("incorrect length for M token")
        for flag in self.flags.keys() & {b"C", b"D", b"E", b"J", b"N", b"R", b"T"}:
            self.number(flag)
        if (token := self.flags.get(b"F")) is not None and parse_unsigned(token, 32) is None:
            raise FlagRefused("bad command line format")
        self.sent_key = name_of_key = key
        if b"b" in self.flags:
            try:
                name_of_key = binascii.a2b_base64(key, strict_mode=True)
            except ValueError:
                name_of_key = b""
            if not name_of_key or len(key) % 4:
                raise FlagRefused("error decoding key")
        self.key = key_in(db, name_of_key)
        self.quiet = b"q" in self.flags

    def __contains__(self, flag: bytes) -> bool:
        return flag in self.flags

    def number(self, flag: bytes, default: int | None = None) -> int:
        """Return the number behind a flag."""
        token = self.flags.get(flag)
        if token is None:
            assert default is not None
            return default
        if not _NUMBER.fullmatch(token):
            raise FlagRefused("bad token in command line format")
        number = int(token)
        if flag in _NOT_NEGATIVE and not 0 <= number < UINT64:
            raise FlagRefused("bad token in command line format")
        return number

    def returned(self, figures: dict[bytes, bytes]) -> bytes:
        """Return the flags of a reply: what was asked for, in the request's order."""
        key = self.sent_key + (b" b" if b"b" in self.flags else b"")
        figures = figures | {b"k": key, b"O": self.flags.get(b"O", b"")}
        return b"".join(b" " + flag + figures[flag] for flag in self.flags if flag in figures)


_MS: Final = Named("ms", NEEDS[b"ms"])


class MetaCommands:
    """The meta commands of one conversation."""

    NAMES: Final = frozenset((b"mg", b"ms", b"md", b"ma", b"me", b"mn"))

    def __init__(self, dialect: Memcached) -> None:
        self._dialect = dialect
        self._store, self._marks = dialect.store, dialect.marks

    def answer(self, words: list[bytes]) -> bytes | None:
        """Return the reply to a meta request, or None until its data block has come."""
        name = words[0]
        self._dialect.count("cmd_meta")
        if name == b"mn":
            return b"MN\r\n"
        if len(words) < 2:
            return BAD_FORMAT if name == b"me" else ERROR
        if name == b"ms":
            return self._begin_set(words)
        try:
            request = _Request(name, words[1], words[2:], self._dialect.db)
            match name:
                case b"mg":
                    return self._get(request)
                case b"md":
                    return self._delete(request)
                case b"ma":
                    return self._arithmetic(request)
                case _:
                    return self._debug(request)
        except FlagRefused as refused:
            text = "invalid or duplicate flag" if name in (b"md", b"ma") else str(refused)
        except Refused as refused:
            text = str(refused)
        return b"CLIENT_ERROR %b\r\n" % text.encode()

    def _figures(self, key: Key, entry: Entry, cas: bool = True) -> dict[bytes, bytes]:
        """Return what the flags c, f, s and t ask for."""
        left = -1
        if entry.expires_at is not None:
            left = max(0, round(entry.expires_at - self._store.now()))
        figures = {
            b"f": b"%d" % entry.client_flags,
            b"s": b"%d" % len(entry.value),
            b"t": b"%d" % left,
        }
        if cas:
            figures[b"c"] = b"%d" % self._store.version(key)
        return figures

    def _renumber(self, request: _Request) -> None:
        """Give what was just written the cas token of E, if there is one."""
        if b"E" in request:
            self._store.set_version(request.key, request.number(b"E"))

    def _deadline(self, exptime: int) -> float | None:
        return deadline(exptime, self._store.now)

    # --- mg ------------------------------------------------------------------------------

    def _get(self, request: _Request) -> bytes:
        key, store, marks = request.key, self._store, self._marks
        if b"h" in request or b"l" in request:
            marks.begin()
        with store.atomic():
            entry = self._find(request)
            won = False
            if entry is None:
                if b"N" not in request:
                    self._dialect.count("get_misses")
                    return b"" if request.quiet else self._coded(b"EN", request)
                entry = Entry(b"", self._deadline(request.number(b"N")))
                self._dialect.write(key, entry)
                self._renumber(request)
                won = True
            elif b"T" in request:
                store.set_deadline(key, self._deadline(request.number(b"T")), keep_version=True)
                entry = store.entry(key) or entry
            self._dialect.count("touch_hits" if b"T" in request else "get_hits")
            mark = marks.of(key)
            if b"R" in request and entry.expires_at is not None and not mark.win_sent:
                won = won or entry.expires_at - store.now() < request.number(b"R")
            won = won or (mark.stale and not mark.win_sent)
            figures = self._figures(key, entry, b"c" in request)
            if b"h" in request or b"l" in request:
                figures |= {b"h": b"%d" % mark.hit, b"l": b"%d" % marks.age(mark)}
            flags = request.returned(figures)
            flags += (b" Z" if mark.win_sent else b"") + (b" X" if mark.stale else b"")
            if won:
                flags += b" W"
                marks.set(key, mark._replace(win_sent=True))
            if marks.noted and b"u" not in request:
                marks.was_read(key)
        if b"v" in request:
            return b"VA %d%b\r\n%b\r\n" % (len(entry.value), flags, entry.value)
        return b"HD%b\r\n" % flags

    def _find(self, request: _Request) -> Entry | None:
        """Return the entry; that counts as use of it, unless u says otherwise."""
        store, key = self._store, request.key
        expired_before = store.found_expired
        with store.atomic(touching=b"u" not in request):
            entry = store.get_entry(key)
        if store.found_expired > expired_before:
            self._dialect.count("get_expired")
        prefixes = self._dialect.session.instance.prefixes
        if prefixes.enabled:
            prefixes.count(split_key(key)[1], get=1, hit=entry is not None)
        return entry

    # --- ms ------------------------------------------------------------------------------

    _MODES: Final = {
        b"S": b"set", b"E": b"add", b"A": b"append", b"P": b"prepend", b"R": b"replace",
    }  # fmt: skip

    def _begin_set(self, words: list[bytes]) -> bytes | None:
        length = (
            int(words[2]) if len(words) > 2 and re.fullmatch(rb"[0-9]{1,9}", words[2]) else None
        )
        if length is None:
            self._dialect.closing = True  # nobody knows where the data ends
            return BAD_FORMAT
        try:
            request = _Request(b"ms", words[1], words[3:], self._dialect.db)
            mode = self._MODES.get(request.flags.get(b"M", b"S"))
            if mode is None:
                raise Refused("invalid mode for ms M token")
        except Refused as refused:
            return self._dialect.skip_data(length, b"CLIENT_ERROR %b\r\n" % str(refused).encode())
        self._dialect.count("cmd_set")
        return self._dialect.expect_data(
            _MS,
            length,
            lambda data: self._set(request, mode, data),
            replaces=request.key if mode == b"set" else None,
        )

    def _set(self, request: _Request, mode: bytes, data: bytes) -> bytes:
        key, store = request.key, self._store
        with store.atomic():
            entry = Entry(data, self._deadline(request.number(b"T", 0)), request.number(b"F", 0))
            stale = False
            if b"C" in request and mode in (b"set", b"replace"):
                code = self._compare(request)
                # An older token than the item's may store a value that is known to be stale.
                stale = code == b"EX" and b"I" in request
                stale = stale and request.number(b"C") < store.version(key)
                self._dialect.count(self._COMPARED[b"" if stale else code])
                if code and not stale:
                    return self._coded(code, request)
            elif b"C" in request and mode != b"add" and self._compare(request) == b"EX":
                return self._coded(b"EX", request)
            if b"N" in request and mode in (b"append", b"prepend") and not store.exists(key):
                entry = entry._replace(expires_at=self._deadline(request.number(b"N")))
                mode = b"set"
            reply = self._dialect.put(mode, key, entry, 0)
            if reply != b"STORED\r\n":
                return self._coded(b"NS", request) if reply == b"NOT_STORED\r\n" else reply
            self._renumber(request)
            if stale:
                self._marks.set(key, self._marks.of(key)._replace(stale=True))
            figures = {}
            if b"c" in request:
                figures[b"c"] = b"%d" % store.version(key)
            if b"s" in request:
                stored = store.entry(key) or entry  # longer than the data after an append
                figures[b"s"] = b"%d" % len(stored.value)
            flags = request.returned(figures)
        return b"" if request.quiet else b"HD%b\r\n" % flags

    _COMPARED: Final = {b"": "cas_hits", b"EX": "cas_badval", b"NF": "cas_misses"}

    def _compare(self, request: _Request) -> bytes:
        """Return NF or EX if the item is not there or is not the version of the C token."""
        if not self._store.exists(request.key):
            return b"NF"
        if not self._store.unchanged(request.key, request.number(b"C")):
            return b"EX"
        return b""

    def _coded(self, code: bytes, request: _Request) -> bytes:
        return code + request.returned({}) + b"\r\n"

    # --- md ------------------------------------------------------------------------------

    def _delete(self, request: _Request) -> bytes:
        key, store = request.key, self._store
        with store.atomic():
            entry = store.entry(key)
            if entry is None:
                self._dialect.count("delete_misses")
                return self._coded(b"NF", request)
            if b"C" in request and (code := self._compare(request)):
                self._dialect.count("delete_misses")
                return self._coded(code, request)
            if b"I" not in request:  # else nothing is deleted
                self._dialect.count("delete_hits")
            if self._dialect.session.instance.prefixes.enabled:
                self._dialect.session.instance.prefixes.count(split_key(key)[1], delete=1)
            if b"I" not in request and b"x" not in request:
                store.delete(key)
            else:
                # Written anew, so that its version is another one.
                if b"T" in request:
                    entry = entry._replace(expires_at=self._deadline(request.number(b"T")))
                if b"x" in request:
                    entry = Entry(b"", entry.expires_at)
                mark = self._marks.of(key)
                self._dialect.write(key, entry)
                self._renumber(request)
                if b"I" in request:
                    self._marks.set(key, Mark(True, False, mark.hit, mark.accessed_at))
        return b"" if request.quiet else self._coded(b"HD", request)

    # --- ma, me --------------------------------------------------------------------------

    def _arithmetic(self, request: _Request) -> bytes:
        key, store = request.key, self._store
        mode = request.flags.get(b"M", b"I")
        if mode not in (b"I", b"+", b"D", b"-"):
            raise Refused("invalid mode for ma M token")
        delta, initial = request.number(b"D", 1), request.number(b"J", 0)
        name = "incr" if mode in (b"I", b"+") else "decr"
        with store.atomic():
            entry = store.entry(key)
            if entry is None:
                if b"N" not in request:
                    self._dialect.count(f"{name}_misses")
                    return self._coded(b"NF", request)
                entry = Entry(b"%d" % initial, self._deadline(request.number(b"N")))
            else:
                if entry.value and b"C" in request and (code := self._compare(request)):
                    return self._coded(code, request)
                value = add_wrapping(entry.value, delta if name == "incr" else -delta)
                if value is None:
                    return NOT_A_NUMBER
                self._dialect.count(f"{name}_hits")
                entry = entry._replace(value=value)
                if b"T" in request:
                    entry = entry._replace(expires_at=self._deadline(request.number(b"T")))
            self._dialect.write(key, entry)
            self._renumber(request)
            figures = self._figures(key, entry, b"c" in request)
            flags = request.returned(
                {flag: figures[flag] for flag in figures.keys() & {b"c", b"t"}}
            )
        if request.quiet:
            return b""
        if b"v" in request:
            value = entry.value.rstrip()
            return b"VA %d%b\r\n%b\r\n" % (len(value), flags, value)
        return b"HD%b\r\n" % flags

    def _debug(self, request: _Request) -> bytes:
        store, marks, key = self._store, self._marks, request.key
        with store.atomic():
            entry = store.entry(key)
            if entry is None:
                return b"EN\r\n"
            figures, mark = self._figures(key, entry), marks.of(key)
            size = store.cost(key) or 0
        accesses = b" la=%d" % marks.age(mark) if marks.noted else b""
        fetched = b" fetch=%b" % (b"yes" if mark.hit else b"no") if marks.noted else b""
        return b"ME %b exp=%b%b cas=%b%b cls=1 size=%d\r\n" % (
            request.sent_key, figures[b"t"], accesses, figures[b"c"], fetched, size,
        )  # fmt: skip
