"""What talks to the servers: ask as fast as possible, load keys, probe how long an answer takes.

All of it works on raw sockets and knows in advance how long each answer is, so that it costs
little beside the server. Sockets have no timeout, because that would cost a system call each
time; whoever waits for a driver has one (see apart.py).
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import cycle
from typing import NamedTuple

VALUE = b"v" * 32
_BUFFER = bytearray(1024 * 1024)  # what is received is counted, not kept
_BATCH = 500  # keys that are loaded without waiting


class Exchange(NamedTuple):
    """A request and the bytes that answer it."""

    request: bytes
    reply: bytes


class Work(NamedTuple):
    """What clients ask again and again, in turn; every answer has the same length."""

    requests: Sequence[bytes]
    reply: bytes  # of the first request, when it is asked first
    before: Exchange | None = None  # asked once, before


def all_of(work: Work) -> Exchange:
    """Return all its requests as one exchange; their replies must be the same."""
    return Exchange(b"".join(work.requests), work.reply * len(work.requests))


def bulk(data: bytes) -> bytes:
    """Return a value as RESP has it, in requests and replies alike."""
    return b"$%d\r\n%s\r\n" % (len(data), data)


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def receive(connection: socket.socket, length: int) -> None:
    """Receive so many bytes and forget them."""
    while length:
        received = connection.recv_into(_BUFFER, min(length, len(_BUFFER)))
        if not received:
            raise ConnectionError("the server closed the connection")
        length -= received


def ask(port: int, exchange: Exchange) -> None:
    """Ask once and insist on the right answer."""
    reply = b""
    with connect(port) as connection, contextlib.suppress(TimeoutError):
        connection.settimeout(60)
        connection.sendall(exchange.request)
        while len(reply) < len(exchange.reply) and (data := connection.recv(65536)):
            reply += data
    if reply != exchange.reply:
        raise RuntimeError(f"{exchange.request[:40]!r} was answered by {reply[:40]!r}")


# --- asking as fast as possible -----------------------------------------------------------


def requests_per_second(port: int, work: Work, clients: int, depth: int, seconds: float) -> float:
    """Each client sends `depth` requests at a time and waits for the answers."""
    if work.before:
        ask(port, work.before)
    ask(port, Exchange(work.requests[0], work.reply))
    batches = cycle([b"".join(batch) for batch in _batched(work.requests, depth)])
    connections = [connect(port) for _ in range(clients)]
    try:
        if clients == 1:
            trips = _ask_on_one(connections[0], batches, depth * len(work.reply), seconds)
        else:
            trips = _ask_on_all(connections, batches, depth * len(work.reply), seconds)
    finally:
        for connection in connections:
            connection.close()
    return depth * trips


def _batched(requests: Sequence[bytes], depth: int) -> Iterator[Sequence[bytes]]:
    """Yield `depth` requests at a time; what is left at the end is dropped."""
    for start in range(0, len(requests) - depth + 1, depth):
        yield requests[start : start + depth]


def _ask_on_one(
    connection: socket.socket, batches: Iterator[bytes], expected: int, seconds: float
) -> float:
    """Return round trips per second."""
    trips, clock, started = 0, time.perf_counter, time.perf_counter()
    while (now := clock()) < started + seconds:
        connection.sendall(next(batches))
        receive(connection, expected)
        trips += 1
    return trips / (now - started)


def _ask_on_all(
    connections: list[socket.socket], batches: Iterator[bytes], expected: int, seconds: float
) -> float:
    """Return round trips per second of all connections together: one loop over all of them."""
    selector = selectors.DefaultSelector()
    missing = dict.fromkeys(connections, expected)
    for connection in connections:
        selector.register(connection, selectors.EVENT_READ, connection)
        connection.sendall(next(batches))
    trips, clock, started = 0, time.perf_counter, time.perf_counter()
    while (now := clock()) < started + seconds:
        for key, _ in selector.select():
            connection = key.data
            received = connection.recv_into(_BUFFER)
            missing[connection] -= received
            if not missing[connection]:
                trips += 1
                missing[connection] = expected
                connection.sendall(next(batches))
            elif not received:
                raise ConnectionError("the server closed the connection")
    return trips / (now - started)


# --- loading ------------------------------------------------------------------------------


def key_name(number: int) -> bytes:
    """Return one of the keys that `load` sets: 16 bytes."""
    return b"key:%012d" % number


def load(port: int, keys: int) -> None:
    """Set so many keys to values of 32 bytes, many at a time."""
    template = b"*3\r\n" + bulk(b"SET") + b"$16\r\nkey:%012d\r\n" + bulk(VALUE)
    ok, due = len(b"+OK\r\n"), 0
    with connect(port) as connection:
        for first in range(0, keys, _BATCH):
            numbers = range(first, min(first + _BATCH, keys))
            connection.sendall(b"".join([template % number for number in numbers]))
            receive(connection, due)  # of the batch before: the server is never without work
            due = ok * len(numbers)
        receive(connection, due)


# --- probing ------------------------------------------------------------------------------


def probe(port: int, keys: int, is_done: Callable[[], bool]) -> list[float]:
    """GET one key after another of those that `load` sets, until done; return each wait in ms.

    A key need not be there: the answer is short, and comes in one piece.
    """
    numbers = range(0, keys, max(1, keys // 1000))
    requests = cycle([b"*2\r\n" + bulk(b"GET") + bulk(key_name(number)) for number in numbers])
    waits, clock = [], time.perf_counter
    with connect(port) as connection:
        while not is_done():
            asked = clock()
            connection.sendall(next(requests))
            if not connection.recv(4096):
                raise ConnectionError("the server closed the connection")
            waits.append((clock() - asked) * 1000)
    return waits
