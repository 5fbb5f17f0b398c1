"""A connection's outgoing side: whatever is to be sent to one client, in its order."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kvdb.commands.session import Session
    from kvdb.server.transport import Transport

# Redis's defaults for clients that messages are pushed to (client-output-buffer-limit pubsub).
PUSHED_AT_MOST: Final = 32 * 1024 * 1024
"""Bytes that may wait for a client to read them; beyond, it is ended."""
PUSHED_FOR_LONG: Final = 8 * 1024 * 1024
"""The same, if it lasts for SECONDS."""
SECONDS: Final = 60.0


class Outgoing:
    """What the dialect has answered, and what others push in between.

    Only the event loop's thread sends, so what it sends needs no lock. `_lock`, which the
    connections of a port share, guards `_pushed`: what other threads have brought.
    """

    __slots__ = ("_full_since", "_later", "_lock", "_pushed", "_queue", "_send", "_session",
                 "_transport", "size")  # fmt: skip

    def __init__(self, transport: Transport, session: Session, lock: threading.Lock) -> None:
        self._transport, self._send = transport, transport.send
        self._session, self._lock = session, lock
        self.size = 0
        """Bytes that wait to be sent."""
        self._queue: deque[memoryview | bytes] | None = None
        self._pushed: list[bytes] | None = None
        self._later: list[bytes] | None = None  # pushed, while a reply is half sent
        self._full_since: float | None = None  # when it became a lot

    def push(self, data: bytes) -> bool:
        """Bring something to be sent; any thread may. True: take_pushed() is to be called."""
        with self._lock:
            if self._pushed is not None:
                self._pushed.append(data)
                return False
            self._pushed = [data]
            return True

    @property
    def has_unsent(self) -> bool:
        """Whether flush() is to be called when the socket can be written to."""
        return self._queue is not None or self._transport.has_unsent

    def transmit(self, data: bytes) -> None:
        """Send this after all that waits; what cannot be sent now waits, too. Raises OSError."""
        if self._queue is not None:
            self._queue.append(data)
            self.size += len(data)
            return
        try:
            sent = self._send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        self._session.sent += sent
        if sent < len(data):
            rest = memoryview(data)[sent:]
            self._queue = deque((rest,))
            self.size += len(rest)

    def flush(self) -> None:
        """Send of what waits as much as can be sent now. Raises OSError."""
        try:
            if self._transport.has_unsent:
                self._send(b"")
            while self._queue:
                sent = self._send(self._queue[0])
                self._session.sent += sent
                self.size -= sent
                if sent < len(self._queue[0]):
                    self._queue[0] = memoryview(self._queue[0])[sent:]
                    return
                self._queue.popleft()
        except (BlockingIOError, InterruptedError):
            return
        self._queue = self._full_since = None

    def take_pushed(self, wait: bool) -> None:
        """Send what other threads have brought; with `wait`, at the next send_later()."""
        with self._lock:
            pushed, self._pushed = self._pushed, None
        data = b"".join(pushed or ())
        if wait:
            self._later = self._later or []
            self._later.append(data)
            self.size += len(data)
        elif data:
            self.transmit(data)

    def send_later(self) -> None:
        """Send what had to wait for the end of a reply."""
        if self._later is not None:
            later, self._later = b"".join(self._later), None
            self.size -= len(later)
            self.transmit(later)

    def is_too_much(self, now: float) -> bool:
        """Tell whether so much waits for the client, or for so long, that it is to be ended."""
        if self.size <= PUSHED_FOR_LONG:
            self._full_since = None
            return False
        if self._full_since is None:
            self._full_since = now
        return self.size > PUSHED_AT_MOST or now - self._full_since > SECONDS

    def clear(self) -> None:
        """Forget everything: the connection has ended."""
        self._queue = self._pushed = self._later = None
