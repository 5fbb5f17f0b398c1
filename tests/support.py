"""What several test modules need: a clock that stands still, a conversation without a socket."""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from unittest import mock

import kvdb.commands  # noqa: F401  (fills the command table)
from kvdb.commands.instance import Instance
from kvdb.commands.session import Session
from kvdb.config import Config
from kvdb.protocols import RequestLoop
from kvdb.protocols.main_port import MainPort
from kvdb.replies import Reply
from kvdb.service import Service
from kvdb.store import Store


@dataclass
class ManualClock:
    """A clock that stands still until a test moves it."""

    now: float = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class TickingClock:
    """A clock that goes on by `tick` seconds whenever somebody looks at it."""

    now: float = 1_000_000.0
    tick: float = 0.125
    readings: int = 0

    def __call__(self) -> float:
        self.readings += 1
        self.now += self.tick
        return self.now


def until(condition: Callable[[], bool]) -> None:
    """Wait until another thread has brought something about."""
    pause = threading.Event()
    for _ in range(2000):
        if condition():
            return
        pause.wait(0.005)
    raise AssertionError("it did not happen in time")


def batches(dialect: RequestLoop, data: bytes) -> Iterator[bytes]:
    """Send bytes; return what each call of receive() gives back, until no more is due."""
    yield dialect.receive(data)
    while dialect.more:
        yield dialect.receive(b"")


class Conversation:
    """A client of a server without a socket: commands in, replies out.

    All conversations over one `instance` share its store.
    """

    def __init__(self, instance: Instance | None = None, **config: object) -> None:
        self.clock = ManualClock()
        if instance is None:
            settings = Config(**config)  # type: ignore[arg-type]
            instance = Instance(Store(settings.max_bytes, clock=self.clock), settings)
        elif isinstance(instance.store.clock, ManualClock):
            self.clock = instance.store.clock
        self.instance = instance
        self.store = instance.store
        self.session = Session(instance, "127.0.0.1:50000", "127.0.0.1:4242")
        instance.admit(self.session)
        self.dialect = MainPort(self.session)

    def __call__(self, *request: bytes | str | int) -> Reply:
        """Carry out one request; return its reply as a Python value."""
        words = [word if isinstance(word, bytes) else str(word).encode() for word in request]
        return self.session.execute(words)

    def error(self, *request: bytes | str | int) -> str:
        """Carry out a request that is refused; return the error's text."""
        reply = self(*request)
        return reply.text if hasattr(reply, "text") else f"no error but {reply!r}"

    def bytes(self, data: bytes | str) -> bytes:
        """Send bytes on the main port; return all the bytes that come back."""
        return b"".join(batches(self.dialect, data if isinstance(data, bytes) else data.encode()))

    def another(self) -> Conversation:
        """Return a second client of the same server."""
        return Conversation(self.instance)


@contextmanager
def running_server(**config: object) -> Iterator[Service]:
    """Run a server in this process, on a free port, in memory unless told otherwise."""
    service = Service(Config(**{"data": None, "port": 0, **config}))  # type: ignore[arg-type]
    # Hundreds of tests would wait for the end of a look at whether to stop.
    with mock.patch("kvdb.server.listener._STOP_POLL", 0.005):
        service.start()
        try:
            yield service
        finally:
            service.stop()


def ask_http(
    port: int,
    target: str,
    method: str = "GET",
    body: bytes | None = None,
    headers: dict[str, str] | None = None,
) -> http.client.HTTPResponse:
    """Send a request on a connection of its own; return the response, its body in `content`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    with closing(connection):
        connection.request(method, target, body, headers or {})
        response = connection.getresponse()
        response.content = response.read()  # type: ignore[attr-defined]
        return response


class Wire:
    """A client's socket, with a deadline on every wait."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), timeout=10)

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *error: object) -> None:
        self.socket.close()

    def ask(self, data: bytes, expected: int) -> bytes:
        """Send bytes and return the `expected` number of bytes that answer them."""
        self.socket.sendall(data)
        return self.read(expected)

    def read(self, length: int) -> bytes:
        received = b""
        while len(received) < length and (data := self.socket.recv(length - len(received))):
            received += data
        return received

    def read_until(self, end: bytes) -> bytes:
        """Return all that comes up to these bytes, and them."""
        received = b""
        while not received.endswith(end) and (data := self.socket.recv(1)):
            received += data
        return received

    def read_to_end(self) -> bytes:
        """Return all that comes until the server closes the connection."""
        received = b""
        try:
            while data := self.socket.recv(65536):
                received += data
        except ConnectionResetError:
            pass
        return received
