"""Commands of an asyncio client that are sent together, and transactions."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from kvdb.client.async_connection import AsyncConnection
from kvdb.client.command import Awaited, Collecting, Command, Later, implement
from kvdb.client.commands import Commands, Name
from kvdb.client.errors import Conflict, Disconnected, Error
from kvdb.client.pauses import Pauses
from kvdb.client.pipeline import Collected, NotCarriedOut, raise_first
from kvdb.client.serializers import Serializer, V
from kvdb.client.transactions import FIRST_PAUSE, LONGEST_PAUSE
from kvdb.resp.replies import encode_request

if TYPE_CHECKING:
    from kvdb.client.async_client import AsyncClient

R = TypeVar("R")

AsyncAsk = Callable[[list[list[bytes]], bool], Awaitable[list[Any]]]


@implement
class AsyncPipeline(Commands[V], Collecting):
    """Collects commands and sends them together.

    Each method returns a `Later`, whose `value` is there once the pipeline was executed. Leaving
    the `async with` block executes what has been collected since. For one task. What was sent is
    never sent a second time; if nothing could be sent, it stays collected.
    """

    def __init__(
        self, ask: AsyncAsk, serializer: Serializer[V], prefix: bytes = b"", atomic: bool = False
    ) -> None:
        self._ask, self._serializer, self._prefix = ask, serializer, prefix
        self._collected = Collected(atomic)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self.execute()

    def __len__(self) -> int:
        return len(self._collected.commands)

    def _run(self, command: Command[R]) -> Later[R]:
        later: Later[R] = Later()
        self._collected.commands.append((command, later))
        return later

    async def execute(self, *, return_errors: bool = False) -> list[Any]:
        """Send what has been collected and return the results in its order.

        If some of it went wrong (the server refused it, a value cannot be read), the rest was
        carried out all the same; then the first error is raised, with all that came in its
        `results`, or, with `return_errors`, each stands at its place in the list. What could not
        be sent stays collected.
        """
        collected, self._collected = self._collected, Collected(self._collected.atomic)
        requests = collected.requests()
        try:
            replies = await self._ask(requests, False) if requests else []
        except Error as error:
            if not error.sent:
                collected.commands += self._collected.commands
                self._collected = collected
            raise
        results = collected.settle(replies)
        if not return_errors:
            raise_first(results)
        return results


@implement
class AsyncTransaction(Commands[V], Awaited):
    """What the function of `AsyncClient.transaction` works with: one connection."""

    def __init__(
        self,
        connection: AsyncConnection,
        timeout: float | None,
        serializer: Serializer[V],
        prefix: bytes,
    ) -> None:
        self._connection, self._serializer, self._prefix = connection, serializer, prefix
        self._timeout = inf if timeout is None else timeout
        self.queued = AsyncPipeline(self._ask, serializer, prefix, atomic=True)
        """Collects what is to be carried out in one step, after the function."""

    async def _ask(self, requests: list[list[bytes]], repeatable: bool) -> list[Any]:
        deadline = asyncio.get_running_loop().time() + self._timeout
        data = b"".join(map(encode_request, requests))
        replies: list[Any] = await self._connection.ask(data, deadline, len(requests))
        return replies

    async def _run(self, command: Command[R]) -> R:
        if not command.request:
            return command.result(None)
        (reply,) = await self._ask([command.request], False)
        if isinstance(reply, Error):
            raise reply
        return command.result(reply)


async def is_carried_out(pipeline: AsyncPipeline[Any]) -> bool:
    """Execute a pipeline that depends on watched keys; tell whether they were as before."""
    try:
        await pipeline.execute()
    except NotCarriedOut:
        return False
    return True


async def carry_out(
    client: AsyncClient[V],
    function: Callable[[AsyncTransaction[V]], Awaitable[R]],
    watch: tuple[Name, ...],
    tries: int,
) -> R:
    """See `AsyncClient.transaction`."""
    connections, loop = await client._pool.open(), asyncio.get_running_loop()
    timeout = None if client._timeout == inf else client._timeout
    conflicts, pauses = 0, Pauses(FIRST_PAUSE, LONGEST_PAUSE)
    until = loop.time() + client._patience
    while conflicts < tries:
        try:
            async with connections.lent(loop.time() + client._timeout) as connection:
                transaction = AsyncTransaction(
                    connection, timeout, client._serializer, client._prefix
                )
                if watch:
                    await transaction.command("WATCH", *map(client._name, watch))
                result = await function(transaction)
                if not transaction.queued:
                    await transaction.command("UNWATCH")
                    return result
                if await is_carried_out(transaction.queued):
                    return result
            conflicts += 1
        except Disconnected as error:
            if error.sent or connections.closed or loop.time() >= until:
                raise
        await asyncio.sleep(pauses.next())  # not all at the same moment
    raise Conflict(f"others have changed the keys {tries} times")
