"""How bytes get in and out of a connection: as they are, or through TLS.

Neither ever waits: `recv` and `send` raise BlockingIOError where nothing can be done now.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Protocol


class Transport(Protocol):
    """One connection's way in and out. The event loop's thread alone uses it."""

    def recv(self, most: int, /) -> bytes:
        """Return what has arrived, b"" at the end. Raises BlockingIOError or OSError."""

    def send(self, data: bytes | memoryview, /) -> int:
        """Send the beginning of it; return how many bytes were taken. Raises as recv() does."""

    @property
    def has_unsent(self) -> bool:
        """Whether send(b"") is to be called when the socket can be written to."""

    def close(self) -> None:
        """Say good-bye and close the socket; what was sent is still delivered."""


class PlainTransport:
    """Bytes as they are: the socket's own methods, so that nothing comes in between."""

    has_unsent = False

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self.recv, self.send = connection.recv, connection.send

    def close(self) -> None:
        """See `Transport.close`."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self._socket.close()
