"""One connection to a server."""

from __future__ import annotations

import os
import socket
import ssl
import time
from collections.abc import Iterator, Sequence
from typing import Any

from kvdb.client.address import Address
from kvdb.client.errors import Disconnected, Error, ServerError, TimedOut
from kvdb.errors import CommandError, ProtocolError
from kvdb.resp.replies import NEED_DATA, ReplyParser, encode_request

_RECEIVE_BYTES = 64 * 1024

_CHUNK_BYTES = 64 * 1024
"""Requests sent before their replies are read. More could fill the buffers on both sides, and
then each side would wait for the other to read."""

_NOTICED = 0.1  # of the timeout: an answer that takes longer is held to it as a whole

_TRUSTED_IDLE = 1.0
"""Seconds after which a connection from the pool is looked at before it is used: a server that
has been restarted meanwhile has closed it."""

_SOCKETS_ARE_FILES = os.name == "posix"
"""Whether os.write() writes to sockets. One with a timeout is non-blocking, but its own send() asks
the system first whether there is room. There nearly always is: not to ask makes 3 % more calls per
second. (recv() asks as well. To leave the time to the system, as SO_RCVTIMEO, would save that too,
but each signal that arrives meanwhile starts it anew.)"""

Request = Sequence[bytes]


class Place:
    """The right to have one connection of a pool open. It ends with whoever holds it."""

    __slots__ = ("__weakref__",)


class Connection:
    """A socket and what has been read from it. For one thread at a time.

    Whatever goes wrong while a request is under way closes it: an answer that comes too late
    must never be taken for the answer to another request.
    """

    def __init__(
        self, address: Address, place: Place | None = None, deadline: float | None = None
    ) -> None:
        """Connect, log in, choose the database, by `deadline` (of time.monotonic()).

        Raises Disconnected, TimedOut or ServerError.
        """
        self._parser = ReplyParser()
        self.closed = False
        self.place = place  # in a pool: it lasts as long as somebody has the connection
        self._timeout = address.timeout
        self.last_used = time.monotonic()
        self._is_file = _SOCKETS_ARE_FILES and address.tls is None
        timeout = address.timeout
        if deadline is not None and timeout is not None:
            timeout = max(0.001, min(timeout, deadline - time.monotonic()))
        try:
            self._socket = socket.create_connection((address.host, address.port), timeout)
        except TimeoutError:
            raise unsent(TimedOut(f"{address.host}:{address.port} does not answer")) from None
        except (OSError, UnicodeError) as error:  # the latter: it can be no host's name
            text = f"cannot connect to {address.host}:{address.port}: {error}"
            raise unsent(Disconnected(text)) from error
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._begin(address, deadline)
        except BaseException:
            self.close()
            raise

    def _begin(self, address: Address, deadline: float | None) -> None:
        """Agree on TLS if need be, and say who we are."""
        try:
            if address.tls is not None:
                self._socket = address.tls.wrap_socket(self._socket, server_hostname=address.host)
            self._socket.settimeout(address.timeout)
            for reply in self.ask(address.greeting(), deadline):
                if isinstance(reply, ServerError):
                    raise unsent(reply)
        except TimeoutError as error:
            raise unsent(TimedOut(f"{address.host}:{address.port} does not answer")) from error
        except (ssl.SSLError, ConnectionError) as error:
            raise unsent(
                Disconnected(f"cannot connect to {address.host}:{address.port}: {error}")
            ) from error

    def ask(self, requests: Sequence[Request], deadline: float | None = None) -> list[Any]:
        """Send the requests and return their replies; a refusal is returned as a ServerError.

        All of it has to be there by the deadline (of time.monotonic()); None: at any time.
        """
        replies: list[Any] = []
        try:
            if len(requests) == 1:  # the usual case; _chunks() would take it 0.5 µs
                self._send(encode_request(requests[0]))
                replies = self._read_replies(1, deadline)
            else:
                for chunk, count in _chunks(requests):
                    self._send(chunk)
                    replies += self._read_replies(count, deadline)
        except TimeoutError:
            self.close()
            raise TimedOut("no answer within the timeout") from None
        except (OSError, ProtocolError) as error:
            self.close()
            raise Disconnected(f"the connection broke: {error}") from error
        except BaseException:  # KeyboardInterrupt in the middle of a reply, for example
            self.close()
            raise
        self.last_used = time.monotonic()
        return replies

    def _send(self, data: bytes) -> None:
        """Do what socket.sendall() does, timeout included; faster if there is room for the data."""
        try:
            sent = os.write(self._socket.fileno(), data) if self._is_file else 0
        except BlockingIOError:  # no room at all
            sent = 0
        if sent < len(data):
            self._socket.sendall(memoryview(data)[sent:])

    def _read_replies(self, count: int, deadline: float | None) -> list[Any]:
        """Return the replies to what has just been sent; none of them can be here already."""
        replies: list[Any] = []
        while len(replies) < count:
            # The socket's own timeout is for each receive: a byte a second would keep us for ever.
            late = deadline is not None and self._keep_to(deadline)
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            finally:
                if late:
                    self._socket.settimeout(self._timeout)
            if not data:
                raise OSError("the server closed it")
            self._parser.receive(data)
            while len(replies) < count and (reply := self._parser.next_reply()) is not NEED_DATA:
                replies.append(
                    ServerError(reply.text) if isinstance(reply, CommandError) else reply
                )
        return replies

    def _keep_to(self, deadline: float) -> bool:
        """Have the socket wait no longer than that, if it is noticeably less than its timeout.

        Tells whether that was so. Raises TimeoutError if it has passed.
        """
        left = deadline - time.monotonic()
        if self._timeout is None or left > (1 - _NOTICED) * self._timeout:
            return False
        if left <= 0:
            raise TimeoutError
        self._socket.settimeout(left)
        return True

    def is_stale(self, trusting: bool) -> bool:
        """Tell whether the server has closed the connection while nobody used it.

        `trusting`: one that was used a moment ago is not looked at.
        """
        if trusting and time.monotonic() - self.last_used < _TRUSTED_IDLE:
            return False
        timeout = self._socket.gettimeout()
        self._socket.setblocking(False)
        try:
            if isinstance(self._socket, ssl.SSLSocket):  # it cannot peek; nothing is due
                self._socket.recv(1)
            else:
                self._socket.recv(1, socket.MSG_PEEK)
            return True  # nothing is due: it can only be the end, or bytes out of step
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except OSError:
            return True
        finally:
            self._socket.settimeout(timeout)

    def close(self) -> None:
        self.closed = True
        self._socket.close()


def unsent(error: Error) -> Error:
    """Say of an error that no request was sent."""
    error.sent = False
    return error


def _chunks(requests: Sequence[Request]) -> Iterator[tuple[bytes, int]]:
    """Yield the requests' bytes in pieces of about _CHUNK_BYTES, and how many are in each."""
    parts: list[bytes] = []
    size = 0
    for request in requests:
        encoded = encode_request(request)
        if parts and size + len(encoded) > _CHUNK_BYTES:
            yield b"".join(parts), len(parts)
            parts, size = [], 0
        parts.append(encoded)
        size += len(encoded)
    if parts:
        yield b"".join(parts), len(parts)
