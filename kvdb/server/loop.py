"""The event loop: one thread that waits for all connections at once, and serves them in turn.

With a thread for each connection, most of the time of small requests goes into waking threads
and handing the interpreter's lock around: 8.0 microseconds of CPU per request with 50 clients,
5.6 in a loop; and a silent connection takes 23 kB, 3 in a loop.
"""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, Protocol

log = logging.getLogger(__name__)

READ: Final = selectors.EVENT_READ
WRITE: Final = selectors.EVENT_WRITE

_TICK: Final = 0.02  # seconds between two looks at what waits for something that tells nobody


class Served(Protocol):
    """What the loop serves. Its methods are called by the loop's thread only."""

    def is_ready(self, events: int) -> None:
        """Receive or send: the socket is ready for it. OSError ends the connection."""

    def look(self) -> None:
        """See whether what is waited for has come; if not, watch() again."""

    def drop(self) -> None:
        """End at once."""


class EventLoop:
    """Serves connections on one thread. That thread alone uses the selector and what is waiting.

    `_lock` guards `_calls` and `_is_awake`: what other threads want done, and whether the loop
    has been told of it.
    """

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        congested: Callable[[], bool] = lambda: False,
    ) -> None:
        self.now = 0.0
        """By `monotonic`, when the round under way began."""
        self._monotonic = monotonic
        self._selector = selectors.DefaultSelector()
        self._is_congested = congested
        self.is_congested = False
        """Whether whoever writes has to wait for the disk, in this round."""
        self.longest_round: float | None = None
        """Seconds that a round may take before on_long_round() is called; None: any time."""
        self.on_long_round: Callable[[], None] = lambda: None
        self._serving: Served | None = None
        self.set_aside: Served | None = None
        """What is in the middle of something that takes long, while others are served."""
        self._waiting: set[Served] = set()
        self._in_a_hurry = False  # one of them need not wait for anything
        self._lock = threading.Lock()
        self._calls: deque[Callable[[], None]] = deque()
        self._is_awake = False
        self._stopping = False
        self._woken, self._waker = socket.socketpair()
        self._woken.setblocking(False)
        self._waker.setblocking(False)
        self._selector.register(self._woken, READ)
        self.thread = threading.Thread(target=self._run, name="event-loop", daemon=True)

    def start(self) -> None:
        """Serve from now on."""
        self.thread.start()

    def stop(self) -> None:
        """End; whatever is still registered is not served any more."""
        self._stopping = True
        self.wake()
        if self.thread.ident is not None:
            self.thread.join()
        self._selector.close()
        self._woken.close()
        self._waker.close()

    # --- called by any thread ------------------------------------------------------------

    def call(self, function: Callable[[], None]) -> None:
        """Have the loop's thread call this soon, in the order of these calls."""
        with self._lock:
            self._calls.append(function)
            if self._is_awake:
                return
            self._is_awake = True
        self._ring()

    def wake(self) -> None:
        """Have the loop look now at what is waiting."""
        with self._lock:
            if self._is_awake:
                return
            self._is_awake = True
        self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(OSError):  # full: then it is awake; or it has ended
            self._waker.send(b"\0")

    # --- called by the loop's own thread -------------------------------------------------

    def register(self, connection: socket.socket, events: int, served: Served) -> None:
        self._selector.register(connection, events, served)

    def modify(self, connection: socket.socket, events: int, served: Served) -> None:
        self._selector.modify(connection, events, served)

    def unregister(self, connection: socket.socket) -> None:
        self._selector.unregister(connection)

    def watch(self, served: Served, at_once: bool = False) -> None:
        """Have look() called once: soon, and when the loop is woken; or as soon as others had
        their turn."""
        self._waiting.add(served)
        self._in_a_hurry = self._in_a_hurry or at_once

    def _run(self) -> None:
        while not self._stopping:
            try:
                self._serve()
            except Exception:  # of the loop itself, or a lack of memory: it has to go on
                time.sleep(_TICK)
                _complain("event loop: internal error; going on")

    def _serve(self) -> None:
        """Serve everybody once."""
        self._serve_within(0.0 if self._in_a_hurry else _TICK if self._waiting else None)

    def serve_others(self) -> bool:
        """Serve all others once, from within a request that takes long.

        Returns False on any other thread: nothing was done.
        """
        if threading.current_thread() is not self.thread:
            return False
        self.set_aside, serving = self._serving, self._serving
        try:
            self._serve_within(0.0)
        finally:
            self.set_aside, self._serving = None, serving
        return True

    def _serve_within(self, timeout: float | None) -> None:
        events = self._selector.select(timeout)
        self.now, self.is_congested = self._monotonic(), self._is_congested()
        for key, ready in events:
            served = key.data
            if served is None:
                self._hear_calls()
                continue
            if served is self.set_aside:
                continue
            self._serving = served
            try:
                served.is_ready(ready)
            except OSError:  # the client is gone
                served.drop()
            except Exception:
                _complain("internal error, connection ended")
                served.drop()
        if self._waiting:
            self._look()
        self._serving = None
        # Deliver what this round caused before the next round begins: a client that has seen a
        # change also has its messages then. From a request to what another client is sent because
        # of it are two calls; more are not waited for.
        for _ in range(2):
            if self._calls:
                self._hear_calls()
        # Once a round, not once a request: with many clients that is next to nothing.
        longest = self.longest_round
        if longest is not None and self._monotonic() - self.now > longest:
            self.on_long_round()

    def _hear_calls(self) -> None:
        with contextlib.suppress(OSError):
            self._woken.recv(4096)
        with self._lock:
            self._is_awake = False
            calls, self._calls = self._calls, deque()
        for call in calls:
            try:
                call()
            except Exception:
                _complain("internal error in the event loop")

    def _look(self) -> None:
        waiting, self._waiting, self._in_a_hurry = self._waiting, set(), False
        for served in waiting:
            self._serving = served
            try:
                served.look()
            except OSError:
                served.drop()
            except Exception:
                _complain("internal error, connection ended")
                served.drop()


def _complain(text: str) -> None:
    """Log an exception; where there is not even memory for that, the others come first."""
    with contextlib.suppress(Exception):
        log.exception(text)
