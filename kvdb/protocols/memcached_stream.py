"""What arrives on the memcached port: lines, and the data blocks that follow some of them.

After every error the connection is in step: the data block of a refused line is read over, and
where nobody can know how long it is, the connection ends.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Final

from kvdb.commands.refusals import tell_refusal
from kvdb.commands.session import Session, TakesLong
from kvdb.commands.table import Named, Operation, needs_nothing
from kvdb.errors import (
    BUSY,
    READ_ONLY,
    TLS_HANDSHAKE,
    CommandError,
    NotOurProtocol,
    OutOfMemory,
)
from kvdb.protocols import RequestLoop
from kvdb.protocols.memcached_values import (
    BAD_CHUNK,
    INTERNAL,
    NO_MEMORY,
    TOO_LARGE,
    UNAUTHENTICATED,
    parse_unsigned,
)
from kvdb.resp.buffer import LineTooLong
from kvdb.resp.limits import MAX_LINE, STRANGERS_LINE
from kvdb.store.entry import Key

log = logging.getLogger(__name__)

MAX_GET_LINE: Final = 4 * 1024 * 1024
"""A get may name thousands of keys: lines of 187 KB have been seen."""

_HTTP_REQUEST = re.compile(rb"(?:GET|POST|PUT|DELETE|HEAD|OPTIONS|PATCH|CONNECT) \S+ HTTP/")

_LOG_IN: Final = Named("auth", needs_nothing, is_step=False)


class MemcachedStream(RequestLoop):
    """Takes lines and data blocks off the stream, and lets nobody in without the password."""

    names: ClassVar[frozenset[bytes]]
    """The commands there are: whatever else looks like HTTP is HTTP."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        session.protocol = "memcached"
        self._storing: Callable[[bytes], bytes] | None = None  # waits for its data block
        self._length = 0  # of that data block
        self._operation: Operation = _LOG_IN  # what the request is that waits
        self._request: list[bytes] = []  # its words
        self._noreply = False
        self._to_skip = 0  # bytes of a data block that nobody wants
        self._reply_after_skip = b""
        self._outdated: Key | None = None  # is deleted then
        self._again: Callable[[], bytes] | None = None  # what had to wait, with its data block

    def end(self) -> None:
        """See `Dialect.end`. What waits for its data block refers to us."""
        super().end()
        self._storing = self._outdated = self._again = None

    def _is_incomplete(self) -> bool:
        return self._storing is not None or self._to_skip > 0

    def _answer_words(self, words: list[bytes]) -> bytes | None:
        """Carry out a request; return its reply, or None until its data block has come."""
        raise NotImplementedError

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
        except (NotOurProtocol, TakesLong):
            raise
        except Exception as error:
            return self._failure(error)

    def _answer_last(self) -> bytes | None:
        again, self._again = self._again, None
        try:
            return self._answer_words(self._last) if again is None else again()
        except TakesLong:
            raise
        except Exception as error:
            return self._failure(error)

    def _failure(self, error: Exception) -> bytes:
        """Return the reply to what went wrong."""
        if isinstance(error, CommandError):  # of the store
            return self._refusal(error)
        log.exception("internal error on the memcached port")
        return INTERNAL

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
        if name not in self.names and _HTTP_REQUEST.match(line):
            raise NotOurProtocol("an HTTP request on the memcached port")
        if not self.session.authenticated:
            return self._authenticate(words)
        if self.session.instance.loading:  # what follows the line as data is not looked at
            self.closing = True
            return b"SERVER_ERROR loading the data; try again\r\n"
        self._last = words
        return self._answer_words(words)

    def expect_data(
        self,
        operation: Operation,
        length: int,
        store: Callable[[bytes], bytes],
        noreply: bool = False,
        replaces: Key | None = None,
    ) -> bytes | None:
        """Have `store` called with the data block of a line; return the reply if it is there.

        If the data is too large, the old value of the key that it `replaces` goes too, as in
        memcached: better none than one that is out of date.
        """
        self._operation, self._request = operation, self._last
        if length > self.session.instance.config.max_value_bytes:
            reply = self.too_large()
            self._outdated = replaces
            return self.skip_data(length, b"" if noreply else reply)
        self._length = length
        self._storing, self._noreply = store, noreply
        return self._store_data()

    def skip_data(self, length: int, reply: bytes) -> bytes | None:
        """Read a data block over, then answer with `reply`."""
        self._to_skip, self._reply_after_skip = length + 2, reply
        return self._skip()

    def _skip(self) -> bytes | None:
        self._to_skip -= self._buffer.skip(self._to_skip)
        if self._to_skip:
            return None
        # Not as soon as the line has come: the reply has to wait for the disk because of it.
        outdated, self._outdated = self._outdated, None
        return self._reply_after_skip if outdated is None else self._delete_outdated(outdated)

    def _delete_outdated(self, outdated: Key) -> bytes:
        delete = self.session.store.delete
        try:
            self.session.perform(self._operation, delete, outdated, (), self._request)
        except TakesLong:  # clients are paused
            self._again = partial(self._delete_outdated, outdated)
            raise
        except CommandError as error:
            return self._reply_after_skip and self._refusal(error)
        return self._reply_after_skip

    def _store_data(self) -> bytes | None:
        data = self._buffer.take(self._length + 2)
        if data is None:
            return None
        store, self._storing = self._storing, None
        assert store is not None
        if data[-2:] != b"\r\n":
            return b"" if self._noreply else BAD_CHUNK
        return self._store(store, data[:-2])

    def _store(self, store: Callable[[bytes], bytes], data: bytes) -> bytes:
        try:
            reply: bytes = self.session.perform(self._operation, store, data, (), self._request)
        except TakesLong:  # clients are paused, and the data block is in the buffer no more
            self._again = partial(self._store, store, data)
            raise
        except CommandError as error:
            return b"" if self._noreply else self._refusal(error)
        return reply

    def _authenticate(self, words: list[bytes]) -> bytes | None:
        """Take a password as memcached does: `set` with any key and `username password` as data."""
        length = parse_unsigned(words[4], 20) if len(words) == 5 and words[0] == b"set" else None
        if length is None:
            self.closing = words[:1] == [b"quit"]
            return b"" if self.closing else UNAUTHENTICATED
        if length > STRANGERS_LINE:  # nobody has a password as long as that
            self.count("auth_cmds")
            self.count("auth_errors")
            self.closing = True
            return UNAUTHENTICATED

        def check(data: bytes) -> bytes:
            name, _, password = data.partition(b" ")
            self.count("auth_cmds")
            instance = self.session.instance
            if not instance.log_in(self.session, password, instance.users.meant_by(name)):
                self.count("auth_errors")
                return b"CLIENT_ERROR authentication failure\r\n"
            return b"STORED\r\n"

        return self.expect_data(_LOG_IN, length, check)

    def count(self, name: str) -> None:
        self.session.counts[name] += 1

    def _refusal(self, error: CommandError) -> bytes:
        """Return the reply to what the store has refused, or what the user may not do."""
        tell_refusal(self.session, error.text)
        if error.text.startswith("NOPERM "):
            text = error.text.removeprefix("NOPERM ").encode("utf-8", "surrogateescape")
            return b"CLIENT_ERROR not permitted: %b\r\n" % text
        if error.text == READ_ONLY:
            return b"SERVER_ERROR this server is a replica, which cannot be written to\r\n"
        if error.text == BUSY:
            return b"SERVER_ERROR busy running a script\r\n"
        if isinstance(error, OutOfMemory):
            self.count("store_no_memory")
            return NO_MEMORY
        return self.too_large()

    def too_large(self) -> bytes:
        """Return the reply to a value that is too large."""
        self.count("store_too_large")
        return TOO_LARGE
