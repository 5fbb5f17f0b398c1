"""The dialects: bytes in, bytes out. No socket, no thread and no clock in here."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

from kvdb.buffer import InputBuffer
from kvdb.commands.session import Session
from kvdb.errors import NotOurProtocol

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

    def receive(self, data: bytes) -> bytes:
        """Take what has arrived (a part of a request, or fifty); return the replies now due."""

    def answer_quickly(self, data: bytes) -> bytes | None:
        """As receive(), if that takes some microseconds and waits for nobody.

        Else nothing is done, and None returned.
        """


class RequestLoop:
    """The loop that dialects share: answer request after request, as long as one is whole.

    Where the journal has to be awaited (`--fsync always`), the replies to a batch of requests
    wait for it together.
    """

    def __init__(self, session: Session) -> None:
        self.closing = self.more = False
        self.session = session
        self._buffer = InputBuffer()
        self._unsent: deque[bytes] = deque()  # the rest of a large reply
        self._persistence = session.instance.persistence

    def receive(self, data: bytes) -> bytes:
        """See `Dialect.receive`."""
        self._buffer.receive(data)
        replies: list[bytes] = []
        waiting: list[tuple[int, int, Callable[[str], bytes]]] = []
        size = 0
        while size < BATCH_BYTES and (self._unsent or not self.closing):
            if self._unsent:
                piece = self._unsent.popleft()
                replies.append(piece)
                size += len(piece)
                continue
            if self.session.closing:  # somebody has killed it
                self.closing = True
                break
            try:
                reply = self._answer_next()
            except NotOurProtocol as error:  # a web page, say: it must not drive the store
                log = logging.getLogger(type(self).__module__)
                log.warning("client %s: %s; closed", self.session.address, error)
                self.closing = True
                break
            if reply is None:
                break
            if self._persistence and (step := self._persistence.take_step()):
                waiting.append((len(replies), step, self._unsaved()))
                reply += b"".join(self._unsent)  # it may have to be taken back as a whole
                self._unsent.clear()
            replies.append(reply)
            size += len(reply)
        for place, step, refuse in waiting:
            assert self._persistence is not None
            if not self._persistence.wait_until_durable(step) and replies[place]:
                replies[place] = refuse(self._persistence.last_error or "")
        self.more = bool(self._unsent) or (size >= BATCH_BYTES and not self.closing)
        return b"".join(replies)

    def answer_quickly(self, data: bytes) -> bytes | None:
        """See `Dialect.answer_quickly`."""
        return None

    def _must_wait(self) -> bool:
        """Tell whether each reply has to wait until its change is on disk."""
        return self._persistence is not None and self._persistence.waits

    def _answer_next(self) -> bytes | None:
        """Return the reply to the next request, or None until that is whole.

        Raises NotOurProtocol to have the connection closed without a word.
        """
        raise NotImplementedError

    def _in_batches(self, pieces: list[bytes]) -> bytes:
        """Return one reply joined from its pieces or, if it is large, have it sent bit by bit.

        The pieces of a large reply are the stored values themselves: ten thousand times the
        same one takes no more memory than one.
        """
        if sum(map(len, pieces)) <= BATCH_BYTES:
            return b"".join(pieces)
        self._unsent.extend(pieces)
        return b""

    def _unsaved(self) -> Callable[[str], bytes]:
        """Return what makes an error, in the words of the request just answered, of a reason.

        It replaces the reply to a change that was undone because it could not be saved.
        """
        raise NotImplementedError
