"""A connection's outgoing side: whatever is to be sent to one client, in its order."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from kvdb.commands.session import Session
    from kvdb.server.transport import Transport

_SENT_TOGETHER: Final = 64 * 1024  # bytes of small messages that are put together for one send()


class Outgoing:
    """What the dialect has answered, and what others push in between.

    Only the event loop's thread sends, so what it sends needs no lock. `_lock`, which the
    connections of a port share, guards what other threads have brought: `_pushed`, `_brought`
    and `_is_called`.

    A message that goes to many clients is one object in memory, however many of them do not read.
    """

    __slots__ = ("_brought", "_full_since", "_is_called", "_lock", "_pushed", "_pushed_in_queue",
                 "_queue", "_send", "_session", "_transport", "size")  # fmt: skip

    def __init__(self, transport: Transport, session: Session, lock: threading.Lock) -> None:
        self._transport, self._send = transport, transport.send
        self._session, self._lock = session, lock
        self.size = 0
        """Bytes that wait to be sent."""
        self._queue: deque[memoryview | bytes] | None = None
        # Of these, what was pushed. While anything is in the queue nothing more is answered, so
        # the replies in it are always the first.
        self._pushed_in_queue = 0
        self._pushed: list[bytes] | None = None
        self._brought = 0  # bytes of it
        self._is_called = False  # take_pushed() will be called
        self._full_since: float | None = None  # when it became a lot

    # --- called by any thread ------------------------------------------------------------

    def push(self, data: bytes) -> bool:
        """Bring something to be sent. True: take_pushed() is to be called."""
        with self._lock:
            if data:
                if self._pushed is None:
                    self._pushed = [data]
                else:
                    self._pushed.append(data)
                self._brought += len(data)
            if self._is_called:
                return False
            self._is_called = True
            return True

    def recall(self) -> bytes:
        """Take back what was brought and nobody has looked at yet: a reply is to begin with it."""
        with self._lock:
            pushed, _ = self._take_locked()
        return b"".join(pushed)

    @property
    def unsent_bytes(self) -> int:
        """Bytes that wait to be sent, with those that the loop has not looked at yet."""
        return self.size + self._brought

    @property
    def pieces(self) -> int:
        """How many pieces wait to be sent."""
        return len(self._queue or ()) + len(self._pushed or ())

    # --- called by the loop --------------------------------------------------------------

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
                first = self._queue[0]
                if len(first) < _SENT_TOGETHER and len(self._queue) > 1:
                    first = self._put_together()
                sent = self._send(first)
                self._session.sent += sent
                self.size -= sent
                if sent < len(first):
                    self._queue[0] = memoryview(first)[sent:]
                    return
                self._queue.popleft()
        except (BlockingIOError, InterruptedError):
            return
        finally:
            self._pushed_in_queue = min(self._pushed_in_queue, self.size)
        self._queue = self._full_since = None

    def _put_together(self) -> bytes:
        """Make one piece of the first in the queue, which are small."""
        queue = self._queue
        assert queue
        pieces = [queue.popleft()]
        size = len(pieces[0])
        while queue and size + len(queue[0]) <= _SENT_TOGETHER:
            pieces.append(queue.popleft())
            size += len(pieces[-1])
        together = b"".join(pieces)
        queue.appendleft(together)
        return together

    def take_pushed(self, wait: bool) -> None:
        """Send what other threads have brought; with `wait`, not before send_later()."""
        with self._lock:
            self._is_called = False
            pushed, size = ([], 0) if wait else self._take_locked()
        self._send_pushed(pushed, size)

    def send_later(self) -> None:
        """Send what others have brought and had to wait for the end of a reply."""
        if self._pushed is None:
            return
        with self._lock:
            pushed, size = self._take_locked()
        self._send_pushed(pushed, size)

    def _take_locked(self) -> tuple[list[bytes], int]:
        """Take what was brought and not recalled, and its bytes."""
        pushed, self._pushed = self._pushed or [], None
        size, self._brought = self._brought, 0
        return pushed, size

    def _send_pushed(self, pushed: list[bytes], size: int) -> None:
        if not pushed:
            return
        if self._queue is None:
            if len(pushed) == 1:
                self.transmit(pushed[0])
                self._pushed_in_queue = self.size
                return
            self._queue = deque()
        self._queue.extend(pushed)
        had_to_wait = self.size
        self.size += size
        self._pushed_in_queue += size
        if not had_to_wait:
            self.flush()

    def is_too_much(self, now: float) -> bool:
        """Tell whether so much waits for the client, or for so long, that it is to be ended.

        What others push is held to the limit of subscribers, whoever it is for: there is no
        other. For a subscriber, nothing else counts.
        """
        limits = self._session.instance.config.output_limits
        size, limit = self._pushed_in_queue + self._brought, limits.pubsub
        if self._session.is_replica:
            limit = limits.replica
        elif self._session.subscriptions is None and any(limits.normal):
            size, limit = self.size, limits.normal
        if limit.soft and size >= limit.soft:
            if self._full_since is None:
                self._full_since = now
        else:
            self._full_since = None
        too_long = self._full_since is not None and now - self._full_since > limit.seconds
        return too_long or bool(limit.hard and size >= limit.hard)

    def clear(self) -> None:
        """Forget everything: the connection has ended."""
        self._queue = self._pushed = None
        self._is_called = False
