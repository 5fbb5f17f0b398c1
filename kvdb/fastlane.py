"""One thread that answers the quick requests of many connections.

A thread for each connection is simple, and none has to wait for another's slow request. But when
many clients send small requests, most of the time goes into waking threads, and into handing the
interpreter's lock from one to the next: measured with 50 clients, 2.5 switches of threads for
each request. So, while there is a crowd, a connection's thread goes to sleep in `wait()`, and
this one thread answers for it, until something arrives that is not quick.
"""

from __future__ import annotations

import logging
import os
import select
import socket
import sys
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

from kvdb.commands.session import Session
from kvdb.protocols import Dialect

log = logging.getLogger(__name__)

CROWD: Final = 4
"""Connections above which the lane is used; with fewer, a thread of their own answers sooner."""

LONGEST: Final = 512
"""Bytes of a quick request. More are better off in a thread of their own: while one of them is
on its way in or out, another one is worked on."""


def is_of_use() -> bool:
    """Tell whether this system and this interpreter have use for a lane.

    It takes Linux's epoll. An interpreter without a global lock has no lock to hand around.
    """
    has_lock = getattr(sys, "_is_gil_enabled", lambda: True)()
    return hasattr(select, "epoll") and has_lock


class Handed(NamedTuple):
    """What a connection's own thread has to go on with."""

    unsent: bytes
    data: bytes | None  # has arrived and is not answered yet; b"" is the end, None nothing


class _Parked:
    """A connection in the lane. Its own thread sleeps until `awake` is released."""

    def __init__(self, connection: socket.socket, session: Session, dialect: Dialect) -> None:
        self.session, self.dialect = session, dialect
        self.receive, self.send = connection.recv, connection.send
        self.handed = Handed(b"", None)
        self.error: Exception | None = None  # ends the connection
        self.awake = threading.Lock()
        self.awake.acquire()


class FastLane:
    """`_lock` guards `_parked` and `_stopping`. Whatever belongs to a parked connection is the
    lane's thread's alone, from the moment it is entered there to the moment it is taken out."""

    def __init__(
        self,
        monotonic: Callable[[], float],
        crowded: Callable[[], bool],
        congested: Callable[[], bool] = lambda: False,
    ) -> None:
        """`crowded` tells whether there are enough connections for a lane to be of use.

        While whoever writes has to wait for the disk (`congested`), all go back to their threads.
        """
        self._monotonic, self._crowded, self._congested = monotonic, crowded, congested
        self._lock = threading.Lock()
        self._parked: dict[int, _Parked] = {}  # by file descriptor
        self._stopping = False
        self._epoll = select.epoll()
        self._wake, self._woken = os.pipe()[::-1]
        self._epoll.register(self._woken, select.EPOLLIN)
        self.thread = threading.Thread(target=self._run, name="fast-lane", daemon=True)

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        """Hand all connections back to their threads, and end. May be called again."""
        with self._lock:
            if self._stopping:
                return
            self._stopping = True
        os.write(self._wake, b"x")
        if self.thread.ident is not None:
            self.thread.join()
        for parked in self._parked.values():
            parked.awake.release()
        self._parked.clear()
        self._epoll.close()
        os.close(self._wake)
        os.close(self._woken)

    def wait(self, connection: socket.socket, session: Session, dialect: Dialect) -> Handed:
        """Sleep while the lane answers for this connection; return what it leaves to be done.

        Raises what went wrong.
        """
        parked = _Parked(connection, session, dialect)
        with self._lock:
            if self._stopping:
                return parked.handed
            descriptor = connection.fileno()
            self._parked[descriptor] = parked
            self._epoll.register(descriptor, select.EPOLLIN)
        parked.awake.acquire()
        error, parked.error = parked.error, None
        if error:
            try:
                raise error
            finally:
                del error  # its traceback leads here: they would keep each other, and the session
        return parked.handed

    def _run(self) -> None:
        while True:
            events = self._epoll.poll()
            with self._lock:
                if self._stopping:
                    return
            self._serve_all([descriptor for descriptor, _ in events])

    def _serve_all(self, descriptors: list[int]) -> None:
        """Serve those that are ready. (A function of its own: while we wait, nothing is kept.)"""
        with self._lock:
            ready = [(each, self._parked[each]) for each in descriptors if each in self._parked]
        now, crowded = self._monotonic(), self._crowded() and not self._congested()
        for descriptor, parked in ready:
            try:
                handed = self._serve(parked, now, crowded)
            except Exception as error:
                parked.error, handed = error, Handed(b"", None)
            if handed is not None:
                self._hand_back(descriptor, parked, handed)

    def _hand_back(self, descriptor: int, parked: _Parked, handed: Handed) -> None:
        with self._lock:
            del self._parked[descriptor]
            self._epoll.unregister(descriptor)
        parked.handed = handed
        parked.awake.release()

    def _serve(self, parked: _Parked, now: float, crowded: bool) -> Handed | None:
        """Answer what has arrived on a connection, if that is quick; return what else is to do."""
        session, dialect = parked.session, parked.dialect
        try:
            data = parked.receive(2 * LONGEST, socket.MSG_DONTWAIT)
        except BlockingIOError:  # a false alarm
            return None
        replies = dialect.answer_quickly(data) if len(data) <= LONGEST else None
        if replies is None:
            return Handed(b"", data)
        session.last_active = now
        session.received += len(data)
        try:
            sent = parked.send(replies, socket.MSG_DONTWAIT) if replies else 0
        except BlockingIOError:  # the client does not read: that is for its own thread to wait for
            sent = 0
        session.sent += sent
        done = sent == len(replies) and not (dialect.more or dialect.closing)
        return None if done and crowded else Handed(replies[sent:], None)
