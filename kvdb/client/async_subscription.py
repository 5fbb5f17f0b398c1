"""Subscriptions for asyncio: what `subscription` is for threads."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from math import inf
from typing import Any, Generic, Self, TypeVar

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
from kvdb.client.push_connection import SILENCE
from kvdb.client.serializers import Serializer, V
from kvdb.errors import CommandError, ProtocolError
from kvdb.resp.replies import NEED_DATA, ReplyParser, encode_request

R = TypeVar("R")

_RECEIVE_BYTES = 64 * 1024
_LEAST_WAIT = 0.001  # seconds


class AsyncSubscription(Generic[V]):
    """Messages of channels: an async iterator. `AsyncClient.subscribe` makes it.

        async with db.subscribe("news") as subscription:
            async for message in subscription:
                print(message.channel, message.value)

    `async with` connects and subscribes. For any number of tasks of one event loop; a message
    goes to one of them. When the connection breaks, it connects and subscribes again, with growing
    pauses. All of this happens in the tasks that wait for a message, or within subscribe() and
    unsubscribe(). To cancel one of them loses no message.

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
    ) -> None:
        """Remember what to subscribe to.

        `first_patience`, `patience`: seconds to try to connect, at first and after a break; None:
        for ever. `ping_interval`: seconds of silence after which the server is asked for a sign.
        """
        self._silence = SILENCE if address.timeout is None else address.timeout
        self._address = address
        self._ping_interval = ping_interval
        self._patience: float | None = first_patience if patience is None else patience
        self._later_patience = patience
        self.reconnects = 0
        """How often a connection broke and was made again."""
        self._inbox = Inbox(serializer, prefix)
        self._inbox.wanted = self._inbox.topics(channels, patterns)
        self._attempt: asyncio.Task[list[Any]] | None = (
            None  # to connect; it outlives who waits for it
        )
        self._attempted: tuple[_PushConnection, set[Topic]] | None = None
        self._is_receiving = False  # some task is: the others wait for what it finds
        self._changed = asyncio.Event()
        self._closed = False
        self._has_connected = False
        self._connection: _PushConnection | None = None
        self._lost_at: float = -inf
        self._next_try: float = -inf
        self._pauses = Pauses(FIRST_PAUSE, LONGEST_PAUSE)

    async def __aenter__(self) -> Self:
        """Connect and subscribe. Raises Disconnected, TimedOut or ServerError."""
        try:
            await self._wait(lambda: self._has_connected or None, None)
            wanted = self._inbox.wanted.copy()
            await self._confirm(wanted, lambda: wanted <= self._inbox.confirmed)
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message[V]:
        message = await self.get()
        if message is None:
            raise StopAsyncIteration
        return message

    async def get(self, timeout: float | None = None) -> Message[V] | None:
        """Return the next message; None if none comes within `timeout` seconds, or once closed.

        None waits for ever.
        """
        received = await self._wait(self._next_received, timeout)
        return None if received is None else self._inbox.message(received)

    async def subscribe(self, *channels: Name, patterns: Iterable[Name] = ()) -> None:
        """Subscribe to more; once this returns, what is published there comes.

        Raises ServerError if the server refuses, TimedOut if it does not answer in time (then it
        is subscribed to when it can be).
        """
        topics = self._inbox.topics(channels, patterns)
        self._inbox.wanted |= topics
        self._ask(topics)
        await self._confirm(topics, lambda: topics <= self._inbox.confirmed)

    async def unsubscribe(self, *channels: Name, patterns: Iterable[Name] = ()) -> None:
        """End the subscription to these; without any, to all. What came before is still returned."""
        topics = self._inbox.topics(channels, patterns) or self._inbox.wanted.copy()
        self._inbox.wanted -= topics
        self._ask(topics, b"UN")
        await self._confirm(topics, lambda: not topics & self._inbox.confirmed)

    async def close(self) -> None:
        """End it: tasks that wait for a message get None, their iterators end."""
        self._closed = True
        self._inbox.messages.clear()
        connection, self._connection = self._connection, None
        attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.cancel()
        self._tell()
        if connection is not None:
            await connection.close()
        if attempt is not None:
            await asyncio.wait([attempt])

    # --- waiting -----------------------------------------------------------------------------

    def _tell(self) -> None:
        """Have the tasks that wait look again."""
        self._changed.set()
        self._changed = asyncio.Event()

    def _ask(self, topics: Iterable[Topic], prefix: bytes = b"") -> None:
        if self._connection is not None:
            self._connection.send(self._inbox.ask(topics, prefix))

    async def _confirm(self, topics: set[Topic], is_done: Callable[[], bool]) -> None:
        """Wait until the server has done what was asked. Raises TimedOut or ServerError."""

        def done() -> bool | ServerError | None:
            return self._inbox.refusal_of(topics) or is_done() or None

        outcome = await self._wait(done, self._silence)
        if isinstance(outcome, ServerError):
            raise outcome
        if not outcome and not self._closed:
            raise TimedOut("the server has not confirmed the subscription within the timeout")

    def _next_received(self) -> Received | None:
        return self._inbox.messages.popleft() if self._inbox.messages else None

    async def _wait(self, find: Callable[[], R | None], timeout: float | None) -> R | None:
        """Return what `find` finds, once it is not None; None after the timeout or once closed.

        Until then this task receives, or waits for what the one that receives already finds.
        """
        loop = asyncio.get_running_loop()
        deadline = inf if timeout is None else loop.time() + timeout
        has_tried = False
        while True:
            found = None if self._closed else find()
            left = deadline - loop.time()
            if found is not None or self._closed or (left <= 0 and has_tried):
                return found
            has_tried = True
            if self._is_receiving:
                await _within(left, self._changed.wait())
                continue
            self._is_receiving = True
            try:
                await self._receive(left)
            finally:
                self._is_receiving = False
                self._tell()

    async def _receive(self, left: float) -> None:
        """Take what comes within so many seconds, or do what is due: connect, ask for a sign."""
        connection = self._connection
        if connection is None:
            await self._connect(left)
            return
        try:
            replies = await connection.receive(
                left, self._ping_interval, self._silence, self._inbox
            )
        except Disconnected:
            if self._connection is connection:
                self._lose()
            await connection.close()
            return
        if not self._closed:
            for reply in replies:
                self._inbox.take(reply)

    # --- connecting --------------------------------------------------------------------------

    def _lose(self) -> None:
        """Have no connection any more."""
        self._connection = None
        self._inbox.lose()
        self._lost_at = self._next_try = asyncio.get_running_loop().time()
        self._pauses.start_over()

    async def _connect(self, left: float) -> None:
        """Try to connect, or wait until it is time to: so many seconds at most."""
        loop = asyncio.get_running_loop()
        if self._lost_at == -inf:
            self._lost_at = loop.time()
        pause = self._next_try - loop.time()
        if pause > 0:
            await _within(min(left, pause), self._changed.wait())
            return
        if self._attempt is None:
            self._begin_attempt()
        assert self._attempt is not None
        assert self._attempted is not None
        await _within(left, asyncio.wait([self._attempt]))  # which does not cancel it
        if self._attempt is None or not self._attempt.done():  # closed, or not yet
            return
        attempt, (connection, asked) = self._attempt, self._attempted
        self._attempt = self._attempted = None
        try:
            replies = attempt.result()
        except Error as error:
            self._try_later(error)
            return
        self._connection = connection
        if self._has_connected:
            self.reconnects += 1
            self._inbox.gap = True
        self._has_connected, self._patience = True, self._later_patience
        for reply in replies:
            self._inbox.take(reply)
        self._ask(self._inbox.wanted - asked)
        self._ask(asked - self._inbox.wanted, b"UN")

    def _begin_attempt(self) -> None:
        """Begin to connect, as a task of its own: who waits for it may be cancelled."""
        connection, asked = _PushConnection(), self._inbox.wanted.copy()

        async def open_and_greet() -> list[Any]:
            greeting = self._address.greeting()
            try:
                replies = await connection.open(
                    self._address, greeting + requests_for(asked), self._silence
                )
                for reply in replies:
                    if isinstance(reply, ServerError):
                        raise reply
            except BaseException:
                await connection.close()
                raise
            return replies[len(greeting) :]

        self._attempted = connection, asked
        self._attempt = asyncio.get_running_loop().create_task(open_and_greet())
        # Nobody may be left who wants to know what became of it.
        self._attempt.add_done_callback(lambda task: task.cancelled() or task.exception())

    def _try_later(self, error: Error) -> None:
        """Say when to try again, or raise the error."""
        now = asyncio.get_running_loop().time()
        if is_final(error) or (
            self._patience is not None and now >= self._lost_at + self._patience
        ):
            self._lost_at = now
            raise error
        self._next_try = now + self._pauses.next()


class _PushConnection:
    """A connection on which the server may send at any time. One task at a time receives."""

    def __init__(self) -> None:
        self._parser = ReplyParser()
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._heard = 0.0  # when something came last, in the time of the event loop
        self._pinged: float | None = None  # when it was asked for a sign that is still missing

    async def open(
        self, address: Address, requests: list[list[bytes]], timeout: float
    ) -> list[Any]:
        """Connect, and return the replies to these requests. Raises Disconnected or TimedOut."""
        where = f"{address.host}:{address.port}"
        replies: list[Any] = []
        try:
            async with asyncio.timeout(timeout):
                self._reader, self._writer = await asyncio.open_connection(
                    address.host,
                    address.port,
                    ssl=address.tls,
                    server_hostname=address.host if address.tls else None,
                )
                self.send(requests)
                while len(replies) < len(requests):
                    replies += await self._read()
        except TimeoutError:
            raise TimedOut(f"{where} does not answer") from None
        except (OSError, UnicodeError, Disconnected) as error:
            raise Disconnected(f"cannot connect to {where}: {error}") from error
        self._heard = asyncio.get_running_loop().time()
        return replies

    def send(self, requests: list[list[bytes]]) -> None:
        """Send requests; receive() returns what answers them, or raises if they were lost."""
        assert self._writer is not None
        if requests:
            self._writer.write(b"".join(map(encode_request, requests)))

    async def receive(
        self, left: float, ping_interval: float, silence: float, inbox: Inbox[Any]
    ) -> list[Any]:
        """Return what has come; wait so many seconds for it, and ask for a sign if one is due.

        Refusals are ServerErrors in the list. Raises Disconnected.
        """
        loop = asyncio.get_running_loop()
        due = self._heard + ping_interval
        if self._pinged is not None:
            due = self._pinged + silence
        replies = await _within(min(left, due - loop.time()), self._read())
        now = loop.time()
        if replies is not None:
            self._heard, self._pinged = now, None
            return replies
        if now >= due:
            if self._pinged is not None:
                raise Disconnected("the server has not answered a PING")
            self._pinged = now
            self.send(inbox.ask_for_a_sign())
        return []

    async def _read(self) -> list[Any]:
        assert self._reader is not None
        try:
            data = await self._reader.read(_RECEIVE_BYTES)
            if not data:
                raise OSError("the server closed it")
            self._parser.receive(data)
            replies: list[Any] = []
            while (reply := self._parser.next_reply()) is not NEED_DATA:
                if isinstance(reply, CommandError):
                    reply = ServerError(reply.text)
                replies.append(reply)
        except (OSError, ProtocolError) as error:
            raise Disconnected(f"the connection broke: {error}") from error
        return replies

    async def close(self) -> None:
        """Close at once, and wait until that is done."""
        if self._writer is None:
            return
        self._writer.transport.abort()
        with suppress(OSError):
            await self._writer.wait_closed()


async def _within(seconds: float, doing: Coroutine[Any, Any, R]) -> R | None:
    """Return what a coroutine returns, None if it takes longer; it is cancelled then.

    The event loop looks at the sockets once at least: it may have been busy with something else.
    """
    try:
        async with asyncio.timeout(None if seconds == inf else max(_LEAST_WAIT, seconds)):
            return await doing
    except TimeoutError:
        return None
