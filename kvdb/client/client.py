"""The bundled client: speaks RESP, so it works with kvdb, Redis and Valkey alike."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final, Self, TypeVar, overload

from kvdb.client.address import DEFAULT_PORT, Address, parse_url
from kvdb.client.command import AtOnce, Command, implement
from kvdb.client.commands import Commands, Name, Word, decode_name, glob_of
from kvdb.client.connection import Connection
from kvdb.client.errors import Disconnected, ServerError
from kvdb.client.near_cache import NO_STATS
from kvdb.client.near_reader import NearReader, answered_nearby
from kvdb.client.pauses import Pauses
from kvdb.client.pipeline import Pipeline
from kvdb.client.pool import Pool
from kvdb.client.recipes.mixin import Recipes
from kvdb.client.serializers import JSON, Serializer, V
from kvdb.client.subscription import Subscription
from kvdb.client.times import Expiry
from kvdb.client.transactions import Transaction, carry_out

R = TypeVar("R")
W = TypeVar("W")

_FIRST_PAUSE: Final = 0.01  # seconds between two tries
_LONGEST_PAUSE: Final = 0.25


@answered_nearby
@implement
class Client(Recipes, Commands[V], AtOnce):
    """A thread-safe client with a small pool of connections; also a context manager.

        db = kvdb.Client("127.0.0.1", 4242)
        db.set("user:1", {"name": "Ada"}, ttl=60)
        db.get("user:1")

    Raises, all of them `kvdb.Error`:
        ServerError         the server refused the request; the connection goes on
        Disconnected        no connection, or it broke (also a ConnectionError)
        TimedOut            no answer in time, or no connection of the pool became free (also a
                            TimeoutError)
        SerializationError  the value cannot be written or read that way; nothing was sent,
                            or the answer was read whole: the connection goes on
    After Disconnected and TimedOut the connection is closed; the next call makes a new one.

    While the server cannot be reached, a call tries again for `patience` seconds, with growing
    pauses. So does one whose connection broke, if it is safe to send it twice: `incr` and its
    like are not, they might count twice.
    """

    @overload
    def __init__(
        self: Client[Any], host: str = ..., port: int = ..., *, db: int = ...,
        user: str | None = ..., password: str | None = ..., name: str | None = ...,
        timeout: float | None = ..., patience: float = ..., max_connections: int = ...,
        tls: bool | ssl.SSLContext = ..., near_cache: int = ...,
    ) -> None: ...  # fmt: skip
    @overload
    def __init__(
        self, host: str = ..., port: int = ..., *, db: int = ..., user: str | None = ...,
        password: str | None = ..., name: str | None = ..., timeout: float | None = ...,
        patience: float = ..., max_connections: int = ..., tls: bool | ssl.SSLContext = ...,
        near_cache: int = ..., serializer: Serializer[V],
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
        near_cache: int = 0,
        serializer: Serializer[Any] = JSON,
    ) -> None:
        """Remember where to connect; the first call does it.

        `timeout`: seconds for a call as a whole, connecting and waiting for a connection included;
        None waits for ever. `name` is what CLIENT LIST shows. `tls`: True, or a context.
        `near_cache`: how many values that get(), mget() and get_many() have read stay here, for
        further reads, until they change. (Those of one mget() may then be of different moments.)
        """
        self._options: dict[str, Any] = {
            "host": host, "port": port, "db": db, "user": user, "password": password, "name": name,
            "timeout": timeout, "patience": patience, "max_connections": max_connections,
            "tls": tls, "near_cache": near_cache, "serializer": serializer,
        }  # fmt: skip
        context = ssl.create_default_context() if tls is True else tls or None
        self._patience = patience
        self._timeout = timeout
        self._serializer = serializer
        address = Address(host, port, timeout, password, db, user, name, context)
        self._pool = Pool(address, max_connections)
        self._near = NearReader(address, near_cache, serializer) if near_cache else None

    @overload
    @classmethod
    def from_url(cls, url: str, *, serializer: Serializer[W], **options: Any) -> Client[W]: ...
    @overload
    @classmethod
    def from_url(cls, url: str, **options: Any) -> Client[Any]: ...
    @classmethod
    def from_url(cls, url: str, **options: Any) -> Client[Any]:
        """Return a client for `kvdb://user:password@host:port/db?timeout=2`, or `redis://...`.

        `options` are those of the client; they count more. Raises ValueError for what is no URL.
        """
        return cls(**parse_url(url) | options)

    def __reduce__(self) -> tuple[Any, ...]:
        # Address and options travel; the other process makes connections of its own.
        return _restored, (type(self), self._options, self._prefix)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections; the client is not to be used any more."""
        self._pool.close()
        if self._near is not None:
            self._near.close()

    def namespace(self, prefix: str | bytes) -> Self:
        """Return a client whose keys all begin with this. It shares the connections."""
        other = type(self).__new__(type(self))
        other.__dict__ |= self.__dict__
        other._prefix = self._name(prefix)
        return other

    # --- asking --------------------------------------------------------------------------------

    def _run(self, command: Command[R]) -> R:
        request, result, repeatable = command
        if not request:
            return result(None)
        (reply,) = self._ask([request], repeatable)
        if type(reply) is ServerError:
            raise reply
        return result(reply)

    def _ask(self, requests: list[list[bytes]], repeatable: bool) -> list[Any]:
        """Return the replies; a refusal is one of them."""
        try:
            return self._ask_server(requests, repeatable)
        finally:
            if self._near is not None:
                self._near.cache.drop_named(requests)

    def _ask_server(self, requests: list[list[bytes]], repeatable: bool) -> list[Any]:
        began = time.monotonic()
        deadline = None if self._timeout is None else began + self._timeout
        try:
            replies = self._ask_once(requests, deadline, trusting=repeatable)
            if not _are_loading(replies):
                return replies
        except Disconnected as error:
            if error.sent and not repeatable:
                raise
        return self._ask_again(requests, repeatable, deadline, began + self._patience)

    def _ask_again(
        self, requests: list[list[bytes]], repeatable: bool, deadline: float | None, until: float
    ) -> list[Any]:
        """Try again until that moment: the server may be about to start."""
        pauses = Pauses(_FIRST_PAUSE, _LONGEST_PAUSE)
        while True:
            try:
                replies = self._ask_once(requests, deadline, fresh=True)
                if not _are_loading(replies) or time.monotonic() >= until:
                    return replies
            except Disconnected as error:
                may_not = error.sent and not repeatable
                if may_not or self._pool.closed or time.monotonic() >= until:
                    raise
            time.sleep(pauses.next())

    def _ask_once(
        self,
        requests: list[list[bytes]],
        deadline: float | None,
        fresh: bool = False,
        trusting: bool = True,
    ) -> list[Any]:
        connection = self._pool.take(deadline, fresh, trusting)
        try:
            return connection.ask(requests, deadline)
        except Disconnected:
            self._pool.drop_idle()
            raise
        finally:
            self._pool.give_back(connection)

    @contextmanager
    def _lent(self) -> Iterator[Connection]:
        """Lend one connection for several calls."""
        deadline = None if self._timeout is None else time.monotonic() + self._timeout
        connection = self._pool.take(deadline, trusting=False)
        try:
            yield connection
        except BaseException:
            connection.close()
            raise
        finally:
            self._pool.give_back(connection)

    def execute(self, *words: Word) -> Any:
        """Carry out any command, by its words; return its reply as it is: as `command`."""
        return self.command(*words)

    def subscribe(
        self, *channels: Name, patterns: Iterable[Name] = (), patience: float | None = None,
        ping_interval: float = 30.0,
    ) -> Subscription[V]:  # fmt: skip
        """Return a subscription to channels, and to those that match glob patterns.

        Its own connection is made anew when it breaks: for ever, or until there was none for
        `patience` seconds. After `ping_interval` seconds of silence the server is asked for a sign.
        """
        return Subscription(
            self._pool.address, self._serializer, self._prefix, channels, patterns,
            first_patience=self._patience, patience=patience, ping_interval=ping_interval,
        )  # fmt: skip

    def stats(self) -> dict[str, int]:
        """Return what the near cache has counted: hits, misses, invalidations, and its size."""
        return NO_STATS.copy() if self._near is None else self._near.cache.stats()

    # --- several commands ------------------------------------------------------------------------

    def pipeline(self, *, atomic: bool = False) -> Pipeline[V]:
        """Return a pipeline: commands that are sent together.

        with db.pipeline() as pipe:
            hits = pipe.incr("hits")
            user = pipe.get("user:1")
        hits.value, user.value

        `atomic`: they are one step (MULTI, EXEC), and no other client comes between.
        """
        return Pipeline(self._ask, self._serializer, self._prefix, atomic)

    def transaction(
        self, function: Callable[[Transaction[V]], R], *watch: Name, tries: int = 10
    ) -> R:
        """Carry out what a function decides, in one step, if no other client comes between.

        def pay(tx):
            left = tx.get("account") - 5
            if left >= 0:
                tx.queued.set("account", left)
            return left

        left = db.transaction(pay, "account")

        `function` reads by the methods of its argument, and collects writes in `queued`. They are
        carried out if the watched keys are still what they were; if not, the function is called
        again. Raises Conflict after so many tries.
        """
        return carry_out(self, function, watch, tries)

    def update(
        self, name: Name, function: Callable[[V | None], Any], *, ttl: Expiry | None = None,
        tries: int = 100,
    ) -> Any:  # fmt: skip
        """Replace the value of a key by what a function makes of it; return that.

        The function gets None if there is no such key. It may be called several times. Without
        `ttl` the key's deadline stays. Raises Conflict if others come between so many times.
        """

        def change(transaction: Transaction[V]) -> Any:
            value = function(transaction.get(name))
            transaction.queued.set(name, value, ttl=ttl, keep_ttl=ttl is None)
            return value

        return self.transaction(change, name, tries=tries)

    # --- many keys -------------------------------------------------------------------------------

    def scan(self, pattern: str | bytes = "*", count: int = 1000) -> Iterator[Name]:
        """Yield the keys that match a glob pattern, asking for about `count` at a time.

        Every key that is there from start to end comes exactly once. A key that is not UTF-8
        comes as bytes.
        """
        cursor = b"0"
        pattern = glob_of(self._prefix, pattern)
        while True:
            reply = self._run(
                Command([b"SCAN", cursor, b"MATCH", pattern, b"COUNT", b"%d" % count], list)
            )
            cursor, names = reply
            yield from (decode_name(name[len(self._prefix) :]) for name in names)
            if cursor == b"0":
                return

    def keys(self, pattern: str | bytes = "*") -> list[Name]:
        """Return the keys that match a glob pattern."""
        return list(self.scan(pattern))

    def delete_matching(self, pattern: str | bytes, count: int = 1000) -> int:
        """Delete the keys that match a glob pattern, about `count` at a time; return how many."""
        deleted = 0
        some: list[Name] = []
        for name in self.scan(pattern, count):
            some.append(name)
            if len(some) >= count:
                deleted += self.delete(*some)
                some.clear()
        return deleted + self.delete(*some)


def _are_loading(replies: list[Any]) -> bool:
    """Tell whether nothing was carried out, because the server is reading its data."""
    return all(type(reply) is ServerError and reply.code == "LOADING" for reply in replies)


def _restored(cls: type[Client[Any]], options: dict[str, Any], prefix: bytes) -> Client[Any]:
    client = cls(**options)
    client._prefix = prefix
    return client
