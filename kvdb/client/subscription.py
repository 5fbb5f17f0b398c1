"""Subscriptions: messages of channels, over a connection that is made anew when it breaks."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Generic, Self, TypeVar

from kvdb.client.address import Address
from kvdb.client.commands import Name
from kvdb.client.errors import Disconnected, Error, ServerError, TimedOut
from kvdb.client.messages import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    Inbox,
    Message,
    Received,
    Topic,
    is_final,
    requests_for,
)
from kvdb.client.pauses import Pauses
from kvdb.client.push_connection import SILENCE, PushConnection
from kvdb.client.serializers import Serializer, V

R = TypeVar("R")


class Subscription(Generic[V]):
    """Messages of channels: an iterator, and a context manager. `Client.subscribe` makes it.

        with db.subscribe("news") as subscription:
            for message in subscription:
                print(message.channel, message.value)

    For any number of threads; a message goes to one of them. Not for both sides of a fork. When
    the connection breaks, it connects and subscribes again, with growing pauses. All of this
    happens in the threads that wait for a message, or within subscribe() and unsubscribe().

    Raises:
        SerializationError  a message cannot be read; the next call goes on behind it
        Disconnected        there was no connection for `patience` seconds; the next call tries again
        ServerError         the server refuses the subscription
    """

    def __init__(
        self,
        address: Address,
        serializer: Serializer[V],
        prefix: bytes = b"",
        channels: Iterable[Name] = (),
        patterns: Iterable[Name] = (),
        *,
        first_patience: float = 1.0,
        patience: float | None = None,
        ping_interval: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Connect and subscribe. Raises Disconnected, TimedOut or ServerError.

        `first_patience`, `patience`: seconds to try to connect, at first and after a break; None:
        for ever. `ping_interval`: seconds of silence after which the server is asked for a sign.
        """
        self._silence = SILENCE if address.timeout is None else address.timeout
        self._address = address.at(self._silence)
        self._ping_interval, self._clock = ping_interval, clock
        self._patience = first_patience if patience is None else patience
        self.reconnects = 0
        """How often a connection broke and was made again."""
        # `_changed` guards what follows. Re-entrant: a signal handler may close the subscription.
        self._changed = threading.Condition(threading.RLock())
        self._inbox = Inbox(serializer, prefix)
        self._is_receiving = False  # some thread is: the others wait for what it finds
        self._connection: PushConnection | None = None
        self._closed = threading.Event()
        # These are the receiving thread's.
        self._heard = 0.0  # when something came last
        self._pinged: float | None = None  # when it was asked for a sign that is still missing
        self._lose(None)
        try:
            self._inbox.wanted |= self._inbox.topics(channels, patterns)
            while self._connection is None:
                self._connect(left=None)
            self.reconnects, self._inbox.gap, self._patience = 0, False, patience
            wanted = self._inbox.wanted.copy()
            self._confirm(wanted, lambda: wanted <= self._inbox.confirmed)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Message[V]:
        message = self.get()
        if message is None:
            raise StopIteration
        return message

    def get(self, timeout: float | None = None) -> Message[V] | None:
        """Return the next message; None if none comes within `timeout` seconds, or once closed.

        None waits for ever. An attempt to connect is not cut short by it.
        """
        deadline = None if timeout is None else self._clock() + timeout
        received = self._wait(self._next_received, deadline)
        return None if received is None else self._inbox.message(received)

    def subscribe(self, *channels: Name, patterns: Iterable[Name] = ()) -> None:
        """Subscribe to more; once this returns, what is published there comes.

        Raises ServerError if the server refuses, TimedOut if it does not answer in time (then it
        is subscribed to when it can be).
        """
        topics = self._inbox.topics(channels, patterns)
        with self._changed:
            self._inbox.wanted |= topics
            self._ask(topics)
        self._confirm(topics, lambda: topics <= self._inbox.confirmed)

    def unsubscribe(self, *channels: Name, patterns: Iterable[Name] = ()) -> None:
        """End the subscription to these; without any, to all. What came before is still returned."""
        topics = self._inbox.topics(channels, patterns)
        with self._changed:
            topics = topics or self._inbox.wanted.copy()
            self._inbox.wanted -= topics
            self._ask(topics, b"UN")
        self._confirm(topics, lambda: not topics & self._inbox.confirmed)

    def close(self) -> None:
        """End it: threads that wait for a message get None, their iterators end."""
        with self._changed:
            self._closed.set()
            self._inbox.messages.clear()
            connection = self._connection
            if connection is not None:
                connection.wake()
                if not self._is_receiving:  # otherwise the thread that receives closes it
                    connection.close()
            self._changed.notify_all()

    # --- topics ------------------------------------------------------------------------------

    def _ask(self, topics: Iterable[Topic], prefix: bytes = b"") -> None:
        """Send requests if there is a connection. Under the lock: their order is that of `wanted`."""
        if self._connection is not None and (requests := self._inbox.ask(topics, prefix)):
            with suppress(Disconnected):  # the thread that receives notices it, and subscribes
                self._connection.send(requests)

    def _confirm(self, topics: set[Topic], is_done: Callable[[], bool]) -> None:
        """Wait until the server has done what was asked. Raises TimedOut or ServerError."""

        def done() -> bool | ServerError | None:
            return self._inbox.refusal_of(topics) or is_done() or None

        outcome = self._wait(done, self._clock() + self._silence)
        if isinstance(outcome, ServerError):
            raise outcome
        if not outcome and not self._closed.is_set():
            raise TimedOut("the server has not confirmed the subscription within the timeout")

    # --- receiving ---------------------------------------------------------------------------

    def _wait(self, find: Callable[[], R | None], deadline: float | None) -> R | None:
        """Return what `find` finds, once it is not None; None after the deadline or once closed.

        Until then this thread receives, or waits for what the one that receives already finds.
        """
        has_tried = False
        while True:
            with self._changed:
                found = None if self._closed.is_set() else find()
                if found is not None or self._closed.is_set():
                    return found
                left = None if deadline is None else max(0, deadline - self._clock())
                if left == 0 and has_tried:
                    return None
                has_tried = True
                if self._is_receiving:
                    self._changed.wait(left)
                    continue
                self._is_receiving = True
            try:
                self._receive(left)
            finally:
                with self._changed:
                    self._is_receiving = False
                    if self._closed.is_set() and self._connection is not None:
                        self._connection.close()
                    self._changed.notify_all()

    def _next_received(self) -> Received | None:
        return self._inbox.messages.popleft() if self._inbox.messages else None

    def _receive(self, left: float | None) -> None:
        """Take what comes within so many seconds, or do what is due: connect, ask for a sign."""
        connection = self._connection
        if connection is None:
            self._connect(left)
            return
        due = self._heard + self._ping_interval
        if self._pinged is not None:
            due = self._pinged + self._silence
        seconds = max(0, due - self._clock())
        try:
            replies = connection.receive(seconds if left is None else min(left, seconds))
            now = self._clock()
            if replies:
                self._heard, self._pinged = now, None
                with self._changed:
                    for reply in replies:
                        self._inbox.take(reply)
            elif now >= due:
                if self._pinged is not None:
                    raise Disconnected("the server has not answered a PING")
                self._pinged = now
                with self._changed:
                    connection.send(self._inbox.ask_for_a_sign())
        except Disconnected:
            self._lose(connection)

    # --- connecting --------------------------------------------------------------------------

    def _lose(self, connection: PushConnection | None) -> None:
        """Have no connection any more."""
        with self._changed:
            self._connection = None
            self._inbox.lose()
        if connection is not None:
            connection.close()
        self._lost_at = self._next_try = self._clock()
        self._pauses = Pauses(FIRST_PAUSE, LONGEST_PAUSE)

    def _connect(self, left: float | None) -> None:
        """Try to connect, or wait until it is time to: so many seconds at most."""
        pause = self._next_try - self._clock()
        if pause > 0:
            self._closed.wait(pause if left is None else min(left, pause))
            return
        with self._changed:
            asked = self._inbox.wanted.copy()
        try:
            connection = PushConnection(self._address)
            self._greet(connection, asked)
        except Error as error:
            if not self._closed.is_set():
                self._try_later(error)
            return
        with self._changed:
            self._connection = connection
            self._ask(self._inbox.wanted - asked)
            self._ask(asked - self._inbox.wanted, b"UN")

    def _greet(self, connection: PushConnection, topics: set[Topic]) -> None:
        replies = connection.ask(requests_for(topics)) if topics else []
        if refusals := [reply for reply in replies if isinstance(reply, ServerError)]:
            connection.close()
            raise refusals[0]
        self.reconnects += 1
        self._inbox.gap = True
        self._heard, self._pinged = self._clock(), None
        with self._changed:
            for reply in replies:
                self._inbox.take(reply)

    def _try_later(self, error: Error) -> None:
        """Say when to try again, or raise the error."""
        now = self._clock()
        if is_final(error) or (
            self._patience is not None and now >= self._lost_at + self._patience
        ):
            self._lost_at = now
            raise error
        self._next_try = now + self._pauses.next()
