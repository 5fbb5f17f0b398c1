"""The dialects: bytes in, bytes out. No socket, no thread and no clock in here."""

from __future__ import annotations

from typing import Final, Protocol

from kvdb.buffer import InputBuffer

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


class RequestLoop:
    """The loop that dialects share: answer request after request, as long as one is whole."""

    def __init__(self) -> None:
        self.closing = self.more = False
        self._buffer = InputBuffer()

    def receive(self, data: bytes) -> bytes:
        """See `Dialect.receive`."""
        self._buffer.receive(data)
        replies: list[bytes] = []
        size = 0
        while size < BATCH_BYTES and not self.closing:
            reply = self._answer_next()
            if reply is None:
                break
            replies.append(reply)
            size += len(reply)
        self.more = size >= BATCH_BYTES and not self.closing
        return b"".join(replies)

    def _answer_next(self) -> bytes | None:
        """Return the reply to the next request, or None until that is whole."""
        raise NotImplementedError
