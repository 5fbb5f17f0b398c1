"""Connections on which the server sends unasked: messages of channels, and news of changed keys."""

from __future__ import annotations

import selectors
import socket
import ssl
import threading
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Final

from kvdb.client.address import Address
from kvdb.client.connection import Connection, Request
from kvdb.client.errors import Disconnected, ServerError
from kvdb.errors import CommandError, ProtocolError
from kvdb.resp.replies import NEED_DATA, encode_request

SILENCE: Final = 5.0
"""Seconds without an answer after which such a connection counts as broken, where the client's
own timeout is not to be used."""

_RECEIVE_BYTES: Final = 64 * 1024

# Waiting needs no descriptor of its own with poll(); select() is for systems that lack it.
_Selector: Final = getattr(selectors, "PollSelector", selectors.SelectSelector)


class PushConnection(Connection):
    """A connection on which the server may send at any time.

    One thread at a time receives; meanwhile any thread may send. Until the first receive(), ask()
    may be used as well.
    """

    def __init__(self, address: Address, deadline: float | None = None) -> None:
        """Connect as `Connection` does, and raise the same."""
        super().__init__(address, None, deadline)
        self._selector = _Selector()
        self._selector.register(self._socket, selectors.EVENT_READ)
        self._sending = threading.Lock()
        # The system lets one thread send while another receives. OpenSSL does not.
        is_tls = isinstance(self._socket, ssl.SSLSocket)
        self._io: AbstractContextManager[Any] = threading.Lock() if is_tls else nullcontext()

    def send(self, requests: Iterable[Request]) -> None:
        """Send requests; receive() returns what answers them. Raises Disconnected."""
        data = b"".join(map(encode_request, requests))
        try:
            with self._sending, self._io:
                self._send(data)
        except BaseException as error:
            self.wake()  # part of a request may have been sent
            if isinstance(error, OSError):
                raise Disconnected(f"the connection broke: {error}") from error
            raise

    def receive(self, seconds: float | None) -> list[Any]:
        """Return what has come; wait up to so many seconds for it. None waits for ever.

        Refusals are ServerErrors in the list. Raises Disconnected.
        """
        if replies := self._parsed():
            return replies
        try:
            if not self._has_decrypted_data() and not self._selector.select(seconds):
                return []
            with self._io:
                data = self._socket.recv(_RECEIVE_BYTES)
            if not data:
                raise OSError("the server closed it")
            self._parser.receive(data)
            return self._parsed()
        except TimeoutError:  # TLS: the rest of what began to arrive is missing
            return []
        except (OSError, ValueError, ProtocolError) as error:  # ValueError: closed meanwhile
            self.close()
            raise Disconnected(f"the connection broke: {error}") from error

    def _parsed(self) -> list[Any]:
        replies: list[Any] = []
        while (reply := self._parser.next_reply()) is not NEED_DATA:
            replies.append(ServerError(reply.text) if isinstance(reply, CommandError) else reply)
        return replies

    def _has_decrypted_data(self) -> bool:
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def wake(self) -> None:
        """End receive() in another thread: it raises Disconnected there."""
        with suppress(OSError):
            # Not SSLSocket.shutdown(), which changes what the other thread works with.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
