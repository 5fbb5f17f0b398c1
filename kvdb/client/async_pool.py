"""The connections of an asyncio client: each event loop has its own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from math import inf
from typing import Final

from kvdb.client.address import Address
from kvdb.client.async_connection import AsyncConnection
from kvdb.client.connection import unsent
from kvdb.client.errors import Disconnected, TimedOut
from kvdb.client.pauses import Pauses

FIRST_PAUSE: Final = 0.01  # seconds between two tries
LONGEST_PAUSE: Final = 0.25


class AsyncPool:
    """Which connections there are in which event loop. Namespaces of a client share it."""

    def __init__(self, address: Address, size: int) -> None:
        self._address = address
        self._size = size
        self.loops: dict[asyncio.AbstractEventLoop, LoopConnections] = {}

    async def open(self) -> LoopConnections:
        """Return the connections of the running event loop; the first call prepares them."""
        loop = asyncio.get_running_loop()
        if loop not in self.loops:
            for other in list(self.loops):
                if other.is_closed():
                    self.loops.pop(other, None)
            self.loops[loop] = connections = LoopConnections(self._address, self._size)
            await connections.prepare()  # without a pause: no other task comes between
        return self.loops[loop]


class LoopConnections:
    """The connections of one event loop: a shared one, and some that are lent for transactions."""

    def __init__(self, address: Address, size: int) -> None:
        self.closed = False
        self._address = address
        self._shared: AsyncConnection | None = None
        self._pauses = Pauses(FIRST_PAUSE, LONGEST_PAUSE)
        self._idle: list[AsyncConnection] = []  # to be lent; the most recently used last
        self._size = max(1, size - 1)  # the shared one counts
        self._places = asyncio.Semaphore(self._size)
        self._all: list[AsyncConnection] = []  # whose sockets may be open
        self._lifetime = self._live()

    async def prepare(self) -> None:
        """Have the connections closed with the event loop, at the latest."""
        await anext(self._lifetime)

    async def _live(self) -> AsyncGenerator[None]:
        # asyncio.run() closes all generators before it closes the loop. So it does with one that
        # is dropped: with the last reference to the client the connections are closed, too.
        try:
            yield
        finally:
            await self._close()

    async def close(self) -> None:
        """Close all connections; calls that wait fail with Disconnected, and so do later ones."""
        if self.closed:
            await self._close()  # somebody else closes them: wait, too
        else:
            self.closed = True
            await self._lifetime.aclose()

    async def _close(self) -> None:
        self.closed = True
        for connection in self._all:
            connection.close("the client has been closed")
        if self._all:
            await asyncio.wait([connection.gone for connection in self._all])

    def shared(self, trusting: bool = True) -> AsyncConnection:
        """Return the connection for all; without `trusting`, look whether it still stands.

        Raises Disconnected if the client has been closed.
        """
        connection = self._shared
        if connection is None:
            self._shared = connection = self._connect()
        elif connection.closed or (not trusting and connection.is_stale()):
            connection.close()
            self._shared = connection = self._connect(self._back_off(connection))
        return connection

    def _back_off(self, last: AsyncConnection) -> float:
        """Return for how many seconds not to connect, after this connection has ended.

        All calls that try again share the new one, so that they do not besiege the server.
        """
        if last.heard_at > -inf:
            self._pauses.start_over()
            return 0.0
        return last.ended_at + self._pauses.next() - asyncio.get_running_loop().time()

    @asynccontextmanager
    async def lent(self, deadline: float) -> AsyncIterator[AsyncConnection]:
        """Lend a connection; one that is left by an exception is closed.

        Raises TimedOut if none becomes free by the deadline (of loop.time(); math.inf: never).
        """
        try:
            async with asyncio.timeout_at(None if deadline == inf else deadline):
                await self._places.acquire()
        except TimeoutError:
            raise unsent(TimedOut(f"all {self._size} connections are in use")) from None
        try:
            connection = self._take()
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            self._idle.append(connection)
        finally:
            self._places.release()

    def _take(self) -> AsyncConnection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.is_stale():
                return connection
            connection.close()
        return self._connect()

    def _connect(self, delay: float = 0.0) -> AsyncConnection:
        if self.closed:
            raise unsent(Disconnected("the client has been closed"))
        connection = AsyncConnection(self._address, delay)
        # They do not know of us: with a reference back, the event loop would keep us for ever.
        self._all = [each for each in self._all if not each.gone.done()] + [connection]
        return connection
