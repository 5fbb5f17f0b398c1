"""The dialects: bytes in, bytes out. No socket, no thread and no clock in here."""

from __future__ import annotations

from typing import Protocol


class Dialect(Protocol):
    """What the server needs of a dialect. One lives as long as its connection."""

    closing: bool
    """Send what `receive` returned, then close the connection."""

    more: bool
    """Send what `receive` returned, then call it with b"": more replies are due.

    A dialect stops at about 1 MB of replies, so that a client that asks for much at once
    cannot make us hold it all.
    """

    def receive(self, data: bytes) -> bytes:
        """Take what has arrived (a part of a request, or fifty); return the replies now due."""
