"""The dialects: bytes in, bytes out. No socket, no thread and no clock in here."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from typing import Any, Final, NamedTuple, Protocol

from kvdb.buffer import InputBuffer
from kvdb.commands.session import Session
from kvdb.errors import NotOurProtocol
from kvdb.persistence import Seen

ATTEMPTS: Final = 5  # to answer what others have changed meanwhile, and the disk has refused

BATCH_BYTES: Final = 1024 * 1024
"""Replies that come together before they are sent."""


class Dialect(Protocol):
    """What the server needs of a dialect. One lives as long as its connection."""

    closing: bool
    """Send what `receive` returned, then close the connection."""

    more: bool
    """Send what `receive` returned, then call it with b"": more replies are due.

    A dialect stops at about BATCH_BYTES of replies, so that a client that asks for much at once
    cannot make us hold it all.
    """

    @property
    def held_bytes(self) -> int:
        """What has arrived and is not answered yet."""

    def receive(self, data: bytes) -> bytes:
        """Take what has arrived (a part of a request, or fifty); return the replies now due."""

    def answer_quickly(self, data: bytes) -> bytes | None:
        """As receive(), if that takes some microseconds and waits for nobody.

        Else nothing is done, and None returned.
        """

    def end(self) -> None:
        """Let go of everything: the connection has ended, and its memory is wanted back at once."""


class Instead(NamedTuple):
    """What becomes of a reply if what it depends on could not be saved and was undone."""

    refuse: Callable[[str], bytes]
    """Makes the error that replaces it, in the words of its request, from the reason."""
    again: Callable[[], bytes] | None
    """Answers the request anew, if it has changed nothing; None: it cannot be repeated."""
    only_reads: bool
    """All that it can have changed is that a key has expired: that is no reason to refuse it."""


class _Dependent(NamedTuple):
    """A reply that must not leave before all that it tells of is on disk."""

    place: int  # among the replies
    seen: Seen
    instead: Instead | None  # None: it does not depend on the store


class RequestLoop:
    """The loop that dialects share: answer request after request, as long as one is whole.

    Where the journal has to be awaited (`--fsync always`), the replies to a batch of requests
    wait for it together: those of reads as well, because what they tell could still be taken back.
    """

    def __init__(self, session: Session) -> None:
        self.closing = self.more = False
        self.session = session
        self._buffer = InputBuffer()
        self._unsent: Iterator[bytes] | None = None  # the rest of a large reply
        self._last: Any = None  # the request that was answered last, as long as it may be needed
        self._persistence: Any = session.instance.persistence  # None: nothing is kept on disk

    @property
    def held_bytes(self) -> int:
        """See `Dialect.held_bytes`."""
        return len(self._buffer)

    def receive(self, data: bytes) -> bytes:
        """See `Dialect.receive`."""
        self._buffer.receive(data)
        if self._persistence is None or not self._persistence.waits:
            replies = self._answer_batch(None)
            self._last = None
            return b"".join(replies)
        ticket = self._persistence.arrive()
        try:
            dependent: list[_Dependent] = []
            replies = self._answer_batch(dependent)
            for each in dependent:
                is_last = each.place == len(replies) - 1  # only that one can be large
                reply = self._durable_reply(replies[each.place], each, is_last)
                replies[each.place] = reply
        finally:
            self._persistence.leave(ticket)
            self._last = None
        self.more = self.more or self._unsent is not None
        return b"".join(replies)

    def _durable_reply(self, reply: bytes, dependent: _Dependent, is_last: bool) -> bytes:
        """Wait until all that a reply depends on is on disk; return what may be sent."""
        persistence, store = self._persistence, self.session.store
        assert persistence is not None
        _, seen, instead = dependent
        for _ in range(ATTEMPTS):
            if persistence.wait_until_durable(seen) or instead is None or not reply:
                return reply
            if is_last:
                self._unsent = None  # the rest of what is not sent after all
            if instead.again is None or (seen.wrote and not instead.only_reads):
                break
            undos = persistence.undos
            unsent, self._unsent = self._unsent, None
            reply = instead.again()
            if not is_last:
                reply += b"".join(self._unsent or ())
                self._unsent = unsent
            seen = Seen(persistence.take_step(), undos, store.step)
        assert instead is not None
        return instead.refuse(persistence.last_error or "the disk refused it for a moment")

    def _answer_batch(self, dependent: list[_Dependent] | None) -> list[bytes]:
        """Answer what is whole, up to about BATCH_BYTES; note in `dependent` what has to wait."""
        replies: list[bytes] = []
        size = 0
        while size < BATCH_BYTES and (self._unsent is not None or not self.closing):
            if self.session.penalty:  # who guesses passwords gets one answer at a time
                break
            if self._unsent is not None:
                piece = next(self._unsent, None)
                if piece is None:
                    self._unsent = None
                    continue
                reply: bytes | None = piece
            elif self.session.closing:  # somebody has killed it
                self.closing = True
                break
            else:
                undos = 0 if dependent is None else self._persistence.undos
                reply = self._next_reply()
                if reply is None:
                    break
                if dependent is not None:
                    seen = Seen(self._persistence.take_step(), undos, self.session.store.step)
                    dependent.append(_Dependent(len(replies), seen, self._instead()))
                    if self._unsent is not None:  # not a piece of it may leave before that
                        replies.append(reply)
                        break
            assert reply is not None
            replies.append(reply)
            size += len(reply)
        stopped = size >= BATCH_BYTES or self.session.penalty > 0
        self.more = self._unsent is not None or (stopped and not self.closing)
        return replies

    def _next_reply(self) -> bytes | None:
        try:
            return self._answer_next()
        except NotOurProtocol as error:  # a web page, say: it must not drive the store
            log = logging.getLogger(type(self).__module__)
            text = f"client {self.session.address}: {error}; closed"
            self.session.instance.sparse_log.warn(log, f"protocol {error}", text)
            self.closing = True
            return None

    def answer_quickly(self, data: bytes) -> bytes | None:
        """See `Dialect.answer_quickly`."""
        return None

    def end(self) -> None:
        """See `Dialect.end`."""
        self._buffer = InputBuffer()
        self._unsent = self._last = None

    def _must_wait(self) -> bool:
        """Tell whether each reply has to wait until its change is on disk."""
        return self._persistence is not None and self._persistence.waits

    def _answer_next(self) -> bytes | None:
        """Return the reply to the next request, or None until that is whole.

        Raises NotOurProtocol to have the connection closed without a word.
        """
        raise NotImplementedError

    def _in_batches(self, pieces: Iterable[bytes]) -> bytes:
        """Return one reply joined from its pieces or, if it is large, have it sent bit by bit.

        The pieces of a large reply are the stored values themselves, or are made when it is
        their turn: ten thousand times the same value takes no more memory than one.
        """
        rest = iter(pieces)
        first: list[bytes] = []
        size = 0
        for piece in rest:
            first.append(piece)
            size += len(piece)
            if size > BATCH_BYTES:
                self._unsent = chain(first[1:], rest)
                return first[0]
        return b"".join(first)

    def _instead(self) -> Instead | None:
        """Return what becomes of the reply just made if the disk refuses what it depends on.

        None if it does not depend on the store.
        """
        raise NotImplementedError
