"""The bundled client for asyncio: what `client` is for threads."""

from __future__ import annotations

import asyncio
import inspect
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from math import inf
from types import TracebackType
from typing import Any, Self, TypeVar, overload

from kvdb.client.address import DEFAULT_PORT, Address, parse_url
from kvdb.client.async_pipeline import AsyncPipeline, AsyncTransaction, carry_out
from kvdb.client.async_pool import FIRST_PAUSE, LONGEST_PAUSE, AsyncPool, LoopConnections
from kvdb.client.async_subscription import AsyncSubscription
from kvdb.client.command import Awaited, Command, implement
from kvdb.client.commands import Commands, Name, Word, decode_name, glob_of
from kvdb.client.errors import Disconnected, ServerError
from kvdb.client.pauses import Pauses
from kvdb.client.recipes.mixin import AsyncRecipes
from kvdb.client.serializers import JSON, Serializer, V
from kvdb.client.times import Expiry
from kvdb.resp.replies import encode_request

R = TypeVar("R")
W = TypeVar("W")


@implement
class AsyncClient(AsyncRecipes, Commands[V], Awaited):
    """A client for asyncio; also an async context manager.

        async with kvdb.AsyncClient("127.0.0.1", 4242) as db:
            await db.set("user:1", {"name": "Ada"}, ttl=60)
            await db.get("user:1")

    All tasks of an event loop share one connection: what they ask at the same time is sent
    together, and nobody waits for the answer to another. So a command that changes the connection
    or that waits (SUBSCRIBE, MULTI, SELECT, BLPOP ...) must not be sent by execute(). Transactions
    have connections of their own. A call that is cancelled may have been carried out.

    Raises, all of them `kvdb.Error`:
        ServerError         the server refused the request; the connection goes on
        Disconnected        no connection, or it broke (also a ConnectionError)
        TimedOut            no answer in time, or no connection for a transaction became free (also
                            a TimeoutError)
        SerializationError  the value cannot be written or read that way; nothing was sent,
                            or the answer was read whole: the connection goes on
    After Disconnected the next call makes a new connection; after TimedOut only if nothing at
    all has come from the server for so long.

    While the server cannot be reached, a call tries again for `patience` seconds, with growing
    pauses. So does one whose connection broke, if it is safe to send it twice: `incr` and its
    like are not, they might count twice.

    It may be made outside of an event loop, and used in several. Each has its own connections,
    which are closed with the loop if close() was not called.
    """

    @overload
    def __init__(
        self: AsyncClient[Any], host: str = ..., port: int = ..., *, db: int = ...,
        user: str | None = ..., password: str | None = ..., name: str | None = ...,
        timeout: float | None = ..., patience: float = ..., max_connections: int = ...,
        tls: bool | ssl.SSLContext = ...,
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(
        self, host: str = ..., port: int = ..., *, db: int = ..., user: str | None = ...,
        password: str | None = ..., name: str | None = ..., timeout: float | None = ...,
        patience: float = ..., max_connections: int = ..., tls: bool | ssl.SSLContext = ...,
        serializer: Serializer[V],
    ) -> None: ...  # fmt: skip
    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        *,
        db: int = 0,
        user: str | None = None,
        password: str | None = None,
        name: str | None = None,
        timeout: float | None = 5.0,
        patience: float = 1.0,
        max_connections: int = 10,
        tls: bool | ssl.SSLContext = False,
        serializer: Serializer[Any] = JSON,
    ) -> None:
        """Remember where to connect; the first call does it.

        `timeout`: seconds for a call as a whole, connecting and waiting for a connection included;
        None waits for ever. `name` is what CLIENT LIST shows. `tls`: True, or a context.
        `max_connections` limits how many transactions go on at a time, in each event loop.
        """
        self._options: dict[str, Any] = {
            "host": host, "port": port, "db": db, "user": user, "password": password, "name": name,
            "timeout": timeout, "patience": patience, "max_connections": max_connections,
            "tls": tls, "serializer": serializer,
        }  # fmt: skip
        context = ssl.create_default_context() if tls is True else tls or None
        self._patience = patience
        self._timeout = inf if timeout is None else timeout
        self._serializer = serializer
        self._address = Address(host, port, timeout, password, db, user, name, context)
        self._pool = AsyncPool(self._address, max_connections)
        self._loops = self._pool.loops

    @overload
    @classmethod
    def from_url(cls, url: str, *, serializer: Serializer[W], **options: Any) -> AsyncClient[W]: ...
    @overload
    @classmethod
    def from_url(cls, url: str, **options: Any) -> AsyncClient[Any]: ...
    @classmethod
    def from_url(cls, url: str, **options: Any) -> AsyncClient[Any]:
        """Return a client for `kvdb://user:password@host:port/db?timeout=2`, or `redis://...`.

        `options` are those of the client; they count more. Raises ValueError for what is no URL.
        """
        return cls(**parse_url(url) | options)

    def __reduce__(self) -> tuple[Any, ...]:
        # Address and options travel; the other process makes connections of its own.
        return _restored, (type(self), self._options, self._prefix)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections of this event loop; calls that wait fail with Disconnected.

        In this loop the client is not to be used any more.
        """
        await (await self._pool.open()).close()

    def namespace(self, prefix: str | bytes) -> Self:
        """Return a client whose keys all begin with this. It shares the connections."""
        other = type(self).__new__(type(self))
        other.__dict__ |= self.__dict__
        other._prefix = self._name(prefix)
        return other

    # --- asking --------------------------------------------------------------------------------

    async def _run(self, command: Command[R]) -> R:
        request, result, repeatable = command
        if not request:
            return result(None)
        reply = await self._ask(encode_request(request), 0, repeatable)
        if type(reply) is ServerError:
            raise reply
        return result(reply)

    async def _ask_all(self, requests: list[list[bytes]], repeatable: bool) -> list[Any]:
        """Return the replies to several requests; a refusal is one of them."""
        data = b"".join(map(encode_request, requests))
        replies: list[Any] = await self._ask(data, len(requests), repeatable)
        return replies

    async def _ask(self, data: bytes, count: int, repeatable: bool) -> Any:
        """Return the reply, or a list of `count` replies; a refusal is a reply."""
        loop = asyncio.get_running_loop()
        connections = self._loops.get(loop) or await self._pool.open()
        began = loop.time()
        deadline = began + self._timeout
        try:
            reply = await connections.shared(repeatable).ask(data, deadline, count)
            if not _is_loading(reply):
                return reply
        except Disconnected as error:
            if error.sent and not repeatable:
                raise
        until = began + self._patience
        return await self._ask_again(connections, data, count, repeatable, deadline, until)

    async def _ask_again(
        self,
        connections: LoopConnections,
        data: bytes,
        count: int,
        repeatable: bool,
        deadline: float,
        until: float,
    ) -> Any:
        """Try again until that moment: the server may be about to start."""
        loop = asyncio.get_running_loop()
        pauses = Pauses(FIRST_PAUSE, LONGEST_PAUSE)
        while True:
            try:
                reply = await connections.shared(repeatable).ask(data, deadline, count)
                if not _is_loading(reply) or loop.time() >= until:
                    return reply
            except Disconnected as error:
                may_not = error.sent and not repeatable
                if may_not or connections.closed or loop.time() >= until:
                    raise
            await asyncio.sleep(pauses.next())

    async def execute(self, *words: Word) -> Any:
        """Carry out any command, by its words; return its reply as it is: as `command`."""
        return await self.command(*words)

    def subscribe(
        self, *channels: Name, patterns: Iterable[Name] = (), patience: float | None = None,
        ping_interval: float = 30.0,
    ) -> AsyncSubscription[V]:  # fmt: skip
        """Return a subscription to channels, and to those that match glob patterns.

        `async with` connects it. Its own connection is made anew when it breaks: for ever, or until
        there was none for `patience` seconds. After `ping_interval` seconds of silence the server
        is asked for a sign.
        """
        return AsyncSubscription(
            self._address, self._serializer, self._prefix, channels, patterns,
            first_patience=self._patience, patience=patience, ping_interval=ping_interval,
        )  # fmt: skip

    # --- several commands ------------------------------------------------------------------------

    def pipeline(self, *, atomic: bool = False) -> AsyncPipeline[V]:
        """Return a pipeline: commands that are sent together.

        async with db.pipeline() as pipe:
            hits = pipe.incr("hits")
            user = pipe.get("user:1")
        hits.value, user.value

        `atomic`: they are one step (MULTI, EXEC), and no other client comes between.
        """
        return AsyncPipeline(self._ask_all, self._serializer, self._prefix, atomic)

    async def transaction(
        self,
        function: Callable[[AsyncTransaction[V]], Awaitable[R]],
        *watch: Name,
        tries: int = 10,
    ) -> R:
        """Carry out what a function decides, in one step, if no other client comes between.

        async def pay(tx):
            left = await tx.get("account") - 5
            if left >= 0:
                tx.queued.set("account", left)
            return left

        left = await db.transaction(pay, "account")

        `function` reads by the methods of its argument, and collects writes in `queued`. They are
        carried out if the watched keys are still what they were; if not, the function is called
        again. Raises Conflict after so many tries.
        """
        return await carry_out(self, function, watch, tries)

    async def update(
        self, name: Name, function: Callable[[V | None], Any], *, ttl: Expiry | None = None,
        tries: int = 100,
    ) -> Any:  # fmt: skip
        """Replace the value of a key by what a function makes of it; return that.

        The function, which may be a coroutine function, gets None if there is no such key. It may
        be called several times. Without `ttl` the key's deadline stays. Raises Conflict if others
        come between so many times.
        """

        async def change(transaction: AsyncTransaction[V]) -> Any:
            value = function(await transaction.get(name))
            if inspect.isawaitable(value):
                value = await value
            transaction.queued.set(name, value, ttl=ttl, keep_ttl=ttl is None)
            return value

        return await self.transaction(change, name, tries=tries)

    # --- many keys -------------------------------------------------------------------------------

    async def scan(self, pattern: str | bytes = "*", count: int = 1000) -> AsyncIterator[Name]:
        """Yield the keys that match a glob pattern, asking for about `count` at a time.

        Every key that is there from start to end comes exactly once. A key that is not UTF-8
        comes as bytes.
        """
        cursor = b"0"
        pattern = glob_of(self._prefix, pattern)
        while True:
            cursor, names = await self._run(
                Command([b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % count], list)
            )
            for name in names:
                yield decode_name(name[len(self._prefix) :])
            if cursor == b"0":
                return

    async def keys(self, pattern: str | bytes = "*") -> list[Name]:
        """Return the keys that match a glob pattern."""
        return [name async for name in self.scan(pattern)]

    async def delete_matching(self, pattern: str | bytes, count: int = 1000) -> int:
        """Delete the keys that match a glob pattern, about `count` at a time; return how many."""
        deleted = 0
        some: list[Name] = []
        async for name in self.scan(pattern, count):
            some.append(name)
            if len(some) >= count:
                deleted += await self.delete(*some)
                some.clear()
        return deleted + await self.delete(*some)


def _is_loading(reply: Any) -> bool:
    """Tell whether the server has refused everything, because it still reads its data."""
    if type(reply) is ServerError:
        return reply.code == "LOADING"
    return type(reply) is list and bool(reply) and all(map(_is_loading, reply))


def _restored(
    cls: type[AsyncClient[Any]], options: dict[str, Any], prefix: bytes
) -> AsyncClient[Any]:
    client = cls(**options)
    client._prefix = prefix
    return client
