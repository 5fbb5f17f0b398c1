"""The bundled client: speaks RESP, so it works with kvdb, Redis and Valkey alike."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Self

from kvdb.client.connection import Address, Pool
from kvdb.client.errors import Disconnected, Error, ServerError
from kvdb.client.serializers import JSON, Serializer

Name = str | bytes
"""A key. Text is sent as UTF-8."""


def _encode_name(name: Name) -> bytes:
    return name if isinstance(name, bytes) else name.encode()


def _decode_name(name: bytes) -> Name:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name


def _integer(number: int) -> bytes:
    return b"%d" % operator.index(number)  # and not 1 for 1.5


def _milliseconds(ttl: float) -> bytes:
    return b"%d" % max(1, round(ttl * 1000)) if ttl > 0 else b"%d" % round(ttl * 1000)


def _seconds_left(milliseconds: int) -> float | None:
    return None if milliseconds < 0 else milliseconds / 1000


class _Commands:
    """The commands, once for the client and for its pipelines.

    `_run` takes a request, what makes a result of its reply, and whether the request may be
    sent again when it is not known whether it was carried out.
    """

    _serializer: Serializer

    def _run(
        self, request: list[bytes], result: Callable[[Any], Any], *, repeatable: bool = True
    ) -> Any:
        raise NotImplementedError

    def _result(self, result: Any) -> Any:
        """Return the result of a command that needs no server."""
        raise NotImplementedError

    def _load(self, data: bytes | None) -> Any:
        return None if data is None else self._serializer.decode(data)

    def _load_many(self, values: list[bytes | None]) -> list[Any]:
        return [self._load(value) for value in values]

    def ping(self) -> Any:
        """Return True: the server answers."""
        return self._run([b"PING"], lambda reply: reply == b"PONG")

    def get(self, name: Name, default: Any = None) -> Any:
        """Return the value of a key, or `default` if there is none."""
        return self._run(
            [b"GET", _encode_name(name)],
            lambda data: default if data is None else self._serializer.decode(data),
        )

    def set(self, name: Name, value: Any, *, ttl: float | None = None) -> Any:
        """Set the value of a key; with `ttl`, for so many seconds."""
        request = [b"SET", _encode_name(name), self._serializer.encode(value)]
        if ttl is not None:
            request += [b"PX", _milliseconds(ttl)]
        return self._run(request, lambda reply: None)

    def mget(self, names: Iterable[Name]) -> Any:
        """Return the values of these keys in their order, None for each that is missing."""
        request = [b"MGET", *map(_encode_name, names)]
        return self._run(request, self._load_many) if request[1:] else self._result([])

    def mset(self, values: Mapping[Name, Any]) -> Any:
        """Set several values in one step."""
        request = [b"MSET"]
        for name, value in values.items():
            request += [_encode_name(name), self._serializer.encode(value)]
        return self._run(request, lambda reply: None) if request[1:] else self._result(None)

    def delete(self, *names: Name) -> Any:
        """Delete keys; return how many there were."""
        # Sent twice it leaves the same store, though the second time it counts nothing.
        request = [b"DEL", *map(_encode_name, names)]
        return self._run(request, int) if names else self._result(0)

    def exists(self, name: Name) -> Any:
        """Tell whether a key exists."""
        return self._run([b"EXISTS", _encode_name(name)], bool)

    def incr(self, name: Name, amount: int = 1) -> Any:
        """Add to a counter (a missing one counts as 0) and return what it is then."""
        return self._run([b"INCRBY", _encode_name(name), _integer(amount)], int, repeatable=False)

    def decr(self, name: Name, amount: int = 1) -> Any:
        """Subtract from a counter and return what it is then."""
        return self._run([b"DECRBY", _encode_name(name), _integer(amount)], int, repeatable=False)

    def expire(self, name: Name, ttl: float) -> Any:
        """Have a key expire after `ttl` seconds; tell whether it exists."""
        return self._run([b"PEXPIRE", _encode_name(name), _milliseconds(ttl)], bool)

    def ttl(self, name: Name) -> Any:
        """Return the seconds a key has to live; None if it never expires or does not exist."""
        return self._run([b"PTTL", _encode_name(name)], _seconds_left)


class Client(_Commands):
    """A thread-safe client with a small pool of connections; also a context manager.

        db = kvdb.Client("127.0.0.1", 4242)
        db.set("user:1", {"name": "Ada"}, ttl=60)
        db.get("user:1")

    Raises, all of them `kvdb.Error`:
        ServerError         the server refused the request; the connection goes on
        Disconnected        no connection, or it broke; after one more try where that is safe
        TimedOut            no answer in time, or no connection of the pool became free
        SerializationError  the value cannot be written or read that way; nothing was sent,
                            or the answer was read whole: the connection goes on
    After Disconnected and TimedOut the connection is closed; the next call makes a new one.
    Requests that are safe to repeat are sent once more when the connection turns out to be
    broken; `incr` and `decr` are not: they might count twice.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 4242,
        *,
        db: int = 0,
        password: str | None = None,
        timeout: float | None = 5.0,
        max_connections: int = 10,
        serializer: Serializer = JSON,
    ) -> None:
        """Remember where to connect; the first call does it. `timeout` is in seconds, for each
        answer as a whole; None waits for ever."""
        self._serializer = serializer
        self._pool = Pool(Address(host, port, timeout, password, db), max_connections)

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

    def _run(
        self, request: list[bytes], result: Callable[[Any], Any], *, repeatable: bool = True
    ) -> Any:
        (reply,) = self._ask([request], repeatable)
        if isinstance(reply, ServerError):
            raise reply
        return result(reply)

    def _result(self, result: Any) -> Any:
        return result

    def _ask(self, requests: list[list[bytes]], repeatable: bool) -> list[Any]:
        try:
            return self._ask_once(requests, trusting=repeatable)
        except Disconnected:
            if not repeatable:
                raise
        return self._ask_once(requests, fresh=True)

    def _ask_once(
        self, requests: list[list[bytes]], fresh: bool = False, trusting: bool = True
    ) -> list[Any]:
        try:
            connection = self._pool.take(fresh, trusting)
        except Error as error:
            error.sent = False
            raise
        try:
            return connection.ask(requests)
        except Disconnected:
            self._pool.drop_idle()
            raise
        finally:
            self._pool.give_back(connection)

    def scan(self, pattern: str | bytes = "*", count: int = 1000) -> Iterator[Name]:
        """Yield the keys that match a glob pattern, asking for about `count` at a time.

        Every key that is there from start to end comes exactly once. A key that is not UTF-8
        comes as bytes.
        """
        cursor = b"0"
        while True:
            request = [b"SCAN", cursor, b"MATCH", _encode_name(pattern), b"COUNT", b"%d" % count]
            cursor, names = self._run(request, lambda reply: reply)
            yield from map(_decode_name, names)
            if cursor == b"0":
                return

    def keys(self, pattern: str | bytes = "*") -> list[Name]:
        """Return the keys that match a glob pattern."""
        return list(self.scan(pattern))

    def pipeline(self) -> Pipeline:
        """Return a pipeline: commands that are sent together.

        with db.pipeline() as pipe:
            pipe.incr("hits")
            pipe.get("user:1")
            hits, user = pipe.execute()
        """
        return Pipeline(self)


class Pipeline(_Commands):
    """Collects commands and sends them together; not one step: other clients may come between.

    Its methods return None; `execute()` returns all results. Leaving the `with` block executes
    what has been collected since. For one thread. A pipeline is never sent twice.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._serializer = client._serializer
        # A request without words needs no server: its result is known.
        self._collected: list[tuple[list[bytes], Callable[[Any], Any]]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.execute()

    def __len__(self) -> int:
        return len(self._collected)

    def _run(
        self, request: list[bytes], result: Callable[[Any], Any], *, repeatable: bool = True
    ) -> None:
        self._collected.append((request, result))

    def _result(self, result: Any) -> None:
        self._collected.append(([], lambda reply: result))

    def execute(self, *, return_errors: bool = False) -> list[Any]:
        """Send what has been collected and return the results in its order.

        If some of it went wrong (the server refused it, a value cannot be read), the rest was
        carried out all the same; then the first error is raised, with all that came in its
        `results`, or, with `return_errors`, each stands at its place in the list. What could not
        be sent stays collected.
        """
        if not self._collected:
            return []
        collected, self._collected = self._collected, []
        requests = [request for request, _ in collected if request]
        try:
            answers = iter(self._client._ask(requests, repeatable=False) if requests else ())
        except Error as error:
            if not error.sent:
                self._collected = collected + self._collected
            raise
        results: list[Any] = []
        first: Error | None = None
        for request, result in collected:
            reply = next(answers) if request else None
            try:
                if isinstance(reply, ServerError):
                    raise reply
                results.append(result(reply))
            except Error as error:
                first = first or error
                results.append(error)
        if first is not None and not return_errors:
            first.results = results
            raise first
        return results
