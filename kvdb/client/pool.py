"""The pool of connections that threads share."""

from __future__ import annotations

import os
import threading
import time
import weakref

from kvdb.client.address import Address
from kvdb.client.connection import Connection, Place, unsent
from kvdb.client.errors import Disconnected, TimedOut

_LOOK_AGAIN = 0.1  # seconds


class Pool:
    """Connections that threads borrow, at most `size` at a time; a thread waits for a free one.

    `_lock` guards `_idle`, `_places` and `closed`. Connecting and closing happen outside it.

    An exception may come at any moment (a signal handler raises it, say). So nobody has to give
    a place back: it is gone with its last reference, whatever happens.
    """

    def __init__(self, address: Address, size: int) -> None:
        self.address = address
        self._size = size
        self.closed = False
        self._start_empty()

    def _start_empty(self) -> None:
        self._process = os.getpid()
        self._lock = threading.RLock()  # taken itself: `with self._changed` takes twice as long
        self._changed = threading.Condition(self._lock)
        self._idle: list[Connection] = []  # the most recently used last
        self._places: weakref.WeakSet[Place] = weakref.WeakSet()  # of borrowed and idle ones

    def take(
        self, deadline: float | None = None, fresh: bool = False, trusting: bool = True
    ) -> Connection:
        """Lend a connection until give_back(); `fresh`: a new one. Raises as Connection() does.

        Without `trusting` an idle one is looked at, however short a time it was idle.

        Raises TimedOut if none becomes free by the deadline (of time.monotonic()).
        """
        if self._process != os.getpid():
            # We are a forked child. The parent goes on with these sockets: were both to use
            # them, each would get answers that were meant for the other.
            for idle in self._idle:
                idle.close()  # our copies of them
            self._start_empty()
        found = self._reserve(fresh, deadline)
        if isinstance(found, Connection):
            if not found.is_stale(trusting):
                return found
            place = found.place
            found.close()
            self.drop_idle()  # the server has ended all of them
            return Connection(self.address, place, deadline)
        return Connection(self.address, found, deadline)

    def _reserve(self, fresh: bool, deadline: float | None) -> Connection | Place:
        """Return an idle connection, or a place for a new one."""
        with self._lock:
            if not self._idle:
                self._wait_locked(deadline)
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

    def _wait_locked(self, deadline: float | None) -> None:
        """Wait until a connection is idle or may be opened."""
        while not (self.closed or self._idle or len(self._places) < self._size):
            left = _LOOK_AGAIN if deadline is None else deadline - time.monotonic()
            if left <= 0:
                raise unsent(TimedOut(f"all {self._size} connections are in use"))
            # A place may go without a word, with the last reference to it.
            self._changed.wait(min(left, _LOOK_AGAIN))
        if self.closed:
            raise unsent(Disconnected("the client has been closed"))

    def drop_idle(self) -> None:
        """Close the connections that nobody uses: the server has closed one, so it will be all."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def give_back(self, connection: Connection) -> None:
        """End a loan. What has been closed meanwhile makes room for a new connection."""
        with self._lock:
            if not connection.closed and not self.closed:
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
            self.closed = True
            idle, self._idle = self._idle, []
            self._changed.notify_all()
        for connection in idle:
            connection.close()
