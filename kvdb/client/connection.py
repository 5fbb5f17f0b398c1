"""One connection to a server, and the pool that threads share."""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from kvdb.client.errors import Disconnected, ServerError, TimedOut
from kvdb.errors import CommandError, ProtocolError
from kvdb.resp.replies import NEED_DATA, ReplyParser, encode_request

_RECEIVE_BYTES = 64 * 1024

_LOOK_AGAIN = 0.1  # seconds

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

    def __init__(self, address: Address, place: Place | None = None) -> None:
        """Connect, log in, choose the database. Raises Disconnected, TimedOut or ServerError."""
        self._parser = ReplyParser()
        self.closed = False
        self.place = place  # in a pool: it lasts as long as somebody has the connection
        self._timeout = address.timeout
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
        began = time.monotonic()
        while len(replies) < count:
            data = self._socket.recv(_RECEIVE_BYTES)
            if not data:
                raise OSError("the server closed it")
            if self._timeout is not None and time.monotonic() - began > _NOTICED * self._timeout:
                return self._read_in_time(count, replies, data, began + self._timeout)
            self._parser.receive(data)
            while len(replies) < count and (reply := self._parser.next_reply()) is not NEED_DATA:
                replies.append(
                    ServerError(reply.text) if isinstance(reply, CommandError) else reply
                )
        return replies

    def _read_in_time(
        self, count: int, replies: list[Any], data: bytes, deadline: float
    ) -> list[Any]:
        """As _read_replies(), for an answer that comes slowly: it has to be there by the deadline.

        The socket's own timeout is for each receive: a byte a second would keep us for ever.
        """
        try:
            while True:
                self._parser.receive(data)
                while len(replies) < count:
                    reply = self._parser.next_reply()
                    if reply is NEED_DATA:
                        break
                    refused = isinstance(reply, CommandError)
                    replies.append(ServerError(reply.text) if refused else reply)
                if len(replies) == count:
                    return replies
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                self._socket.settimeout(left)
                data = self._socket.recv(_RECEIVE_BYTES)
                if not data:
                    raise OSError("the server closed it")
        finally:
            self._socket.settimeout(self._timeout)

    def is_stale(self, trusting: bool) -> bool:
        """Tell whether the server has closed the connection while nobody used it.

        `trusting`: one that was used a moment ago is not looked at.
        """
        if trusting and time.monotonic() - self.last_used < _TRUSTED_IDLE:
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


class Place:
    """The right to have one connection of a pool open. It ends with whoever holds it."""

    __slots__ = ("__weakref__",)


class Pool:
    """Connections that threads borrow, at most `size` at a time; a thread waits for a free one.

    `_lock` guards `_idle`, `_places` and `_closed`. Connecting and closing happen outside it.

    An exception may come at any moment (a signal handler raises it, say). So nobody has to give
    a place back: it is gone with its last reference, whatever happens.
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
        self._places: weakref.WeakSet[Place] = weakref.WeakSet()  # of borrowed and idle ones

    def take(self, fresh: bool = False, trusting: bool = True) -> Connection:
        """Lend a connection until give_back(); `fresh`: a new one. Raises as Connection() does.

        Without `trusting` an idle one is looked at, however short a time it was idle.

        Raises TimedOut if none becomes free within the timeout.
        """
        if self._process != os.getpid():
            # We are a forked child. The parent goes on with these sockets: were both to use
            # them, each would get answers that were meant for the other.
            for idle in self._idle:
                idle.close()  # our copies of them
            self._start_empty()
        found = self._reserve(fresh)
        if isinstance(found, Connection):
            if not found.is_stale(trusting):
                return found
            place = found.place
            found.close()
            self.drop_idle()  # the server has ended all of them
            return Connection(self.address, place)
        return Connection(self.address, found)

    def _reserve(self, fresh: bool) -> Connection | Place:
        """Return an idle connection, or a place for a new one."""
        with self._lock:
            if not self._idle:
                self._wait_locked()
            if self._idle and not fresh:
                return self._idle.pop()
            if len(self._places) < self._size:
                place = Place()
                self._places.add(place)
                return place
            discarded = self._idle.pop(0)  # its place goes to the new one
        discarded.close()
        assert discarded.place is not None
        return discarded.place

    def _wait_locked(self) -> None:
        """Wait until a connection is idle or may be opened."""
        timeout = self.address.timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (self._closed or self._idle or len(self._places) < self._size):
            left = _LOOK_AGAIN if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise TimedOut(f"all {self._size} connections are in use")
            # A place may go without a word, with the last reference to it.
            self._changed.wait(min(left, _LOOK_AGAIN))
        if self._closed:
            raise Disconnected("the client has been closed")

    def drop_idle(self) -> None:
        """Close the connections that nobody uses: the server has closed one, so it will be all."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def give_back(self, connection: Connection) -> None:
        """End a loan. What has been closed meanwhile makes room for a new connection."""
        with self._lock:
            if not connection.closed and not self._closed:
                self._idle.append(connection)
                self._changed.notify()
                return
        connection.close()
        connection.place = None
        with self._lock:
            self._changed.notify()

    def close(self) -> None:
        """Close what is idle now, and what is borrowed when it comes back."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for connection in idle:
            connection.close()
