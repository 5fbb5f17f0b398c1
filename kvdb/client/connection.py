"""One connection to a server, and the pool that threads share."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kvdb.client.errors import Disconnected, ServerError, TimedOut
from kvdb.errors import CommandError, ProtocolError
from kvdb.resp import NEED_DATA, ReplyParser, encode_request

_RECEIVE_BYTES = 64 * 1024

_CHUNK_BYTES = 64 * 1024
"""Requests sent before their replies are read. More could fill the buffers on both sides, and
then each side would wait for the other to read."""

_TRUSTED_IDLE = 1.0
"""Seconds after which a connection from the pool is looked at before it is used: a server that
has been restarted meanwhile has closed it."""

_SOCKETS_ARE_FILES = os.name == "posix"
"""Whether os.write() writes to sockets. One with a timeout is non-blocking, but its own send() asks
the system first whether there is room. There nearly always is: not to ask makes 3 % more calls per
second. (recv() asks as well. To leave the time to the system, as SO_RCVTIMEO, would save that too,
but each signal that arrives meanwhile starts it anew.)"""

Request = Sequence[bytes]


@dataclass(frozen=True)
class Address:
    """Where and how to connect."""

    host: str
    port: int
    timeout: float | None  # seconds for each answer, and for connecting; None: wait for ever
    password: str | None = None
    db: int = 0


class Connection:
    """A socket and what has been read from it. For one thread at a time.

    Whatever goes wrong while a request is under way closes it: an answer that comes too late
    must never be taken for the answer to another request.
    """

    def __init__(self, address: Address) -> None:
        """Connect, log in, choose the database. Raises Disconnected, TimedOut or ServerError."""
        self._parser = ReplyParser()
        self.closed = False
        self.last_used = time.monotonic()
        try:
            self._socket = socket.create_connection((address.host, address.port), address.timeout)
        except TimeoutError:
            raise TimedOut(f"{address.host}:{address.port} does not answer") from None
        except OSError as error:
            raise Disconnected(
                f"cannot connect to {address.host}:{address.port}: {error}"
            ) from error
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._introduce(address)
        except BaseException:
            self.close()
            raise

    def _introduce(self, address: Address) -> None:
        greeting = []
        if address.password is not None:
            greeting.append([b"AUTH", address.password.encode()])
        if address.db:
            greeting.append([b"SELECT", b"%d" % address.db])
        for reply in self.ask(greeting):
            if isinstance(reply, ServerError):
                raise reply

    def ask(self, requests: Sequence[Request]) -> list[Any]:
        """Send the requests and return their replies; a refusal is returned as a ServerError."""
        replies: list[Any] = []
        try:
            if len(requests) == 1:  # the usual case; _chunks() would take it 0.5 µs
                self._send(encode_request(requests[0]))
                replies = self._read_replies(1)
            else:
                for chunk, count in _chunks(requests):
                    self._send(chunk)
                    replies += self._read_replies(count)
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
            sent = os.write(self._socket.fileno(), data) if _SOCKETS_ARE_FILES else 0
        except BlockingIOError:  # no room at all
            sent = 0
        if sent < len(data):
            self._socket.sendall(memoryview(data)[sent:])

    def _read_replies(self, count: int) -> list[Any]:
        """Return the replies to what has just been sent; none of them can be here already."""
        replies: list[Any] = []
        while len(replies) < count:
            data = self._socket.recv(_RECEIVE_BYTES)
            if not data:
                raise OSError("the server closed it")
            self._parser.receive(data)
            while len(replies) < count and (reply := self._parser.next_reply()) is not NEED_DATA:
                replies.append(
                    ServerError(reply.text) if isinstance(reply, CommandError) else reply
                )
        return replies

    def is_stale(self) -> bool:
        """Tell whether the server has closed the connection while nobody used it."""
        if time.monotonic() - self.last_used < _TRUSTED_IDLE:
            return False
        timeout = self._socket.gettimeout()
        self._socket.setblocking(False)
        try:
            self._socket.recv(1, socket.MSG_PEEK)
            return True  # nothing is due: it can only be the end, or bytes out of step
        except BlockingIOError:
            return False
        except OSError:
            return True
        finally:
            self._socket.settimeout(timeout)

    def close(self) -> None:
        self.closed = True
        self._socket.close()


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


class Pool:
    """Connections that threads borrow, at most `size` at a time; a thread waits for a free one.

    `_lock` guards `_idle`, `_open` and `_closed`. Connecting and closing happen outside it.
    """

    def __init__(self, address: Address, size: int) -> None:
        self.address = address
        self._size = size
        self._closed = False
        self._start_empty()

    def _start_empty(self) -> None:
        self._process = os.getpid()
        self._lock = threading.RLock()  # taken itself: `with self._changed` takes twice as long
        self._changed = threading.Condition(self._lock)
        self._idle: list[Connection] = []  # the most recently used last
        self._open = 0  # borrowed and idle ones

    def take(self, fresh: bool = False) -> Connection:
        """Lend a connection until give_back(); `fresh`: a new one. Raises as Connection() does.

        Raises TimedOut if none becomes free within the timeout.
        """
        if self._process != os.getpid():
            # We are a forked child. The parent goes on with these sockets: were both to use
            # them, each would get answers that were meant for the other.
            for idle in self._idle:
                idle.close()  # our copies of them
            self._start_empty()
        connection = self._reserve(fresh)
        if connection is not None:
            if not connection.is_stale():
                return connection
            connection.close()
        try:
            return Connection(self.address)
        except BaseException:
            self._release()
            raise

    def _reserve(self, fresh: bool) -> Connection | None:
        """Return an idle connection, or None with the right to open a new one."""
        discarded = None
        with self._lock:
            if not self._idle:
                self._wait_locked()
            if self._idle and not fresh:
                return self._idle.pop()
            if self._open < self._size:
                self._open += 1
            else:
                discarded = self._idle.pop(0)  # its place goes to the new one
        if discarded is not None:
            discarded.close()
        return None

    def _wait_locked(self) -> None:
        """Wait until a connection is idle or may be opened."""
        free = self._changed.wait_for(
            lambda: self._closed or self._idle or self._open < self._size, self.address.timeout
        )
        if self._closed:
            raise Disconnected("the client has been closed")
        if not free:
            raise TimedOut(f"all {self._size} connections are in use")

    def _release(self) -> None:
        with self._lock:
            self._open -= 1
            self._changed.notify()

    def give_back(self, connection: Connection) -> None:
        """End a loan. What has been closed meanwhile makes room for a new connection."""
        with self._lock:
            if not connection.closed and not self._closed:
                self._idle.append(connection)
                self._changed.notify()
                return
        connection.close()
        self._release()

    def close(self) -> None:
        """Close what is idle now, and what is borrowed when it comes back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            self._open -= len(idle)
            self._changed.notify_all()
        for connection in idle:
            connection.close()
