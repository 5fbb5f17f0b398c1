"""Reads that are answered from this process, as long as the server has not said that they changed.

All reads that fill the near cache go over one connection of their own, which has said CLIENT
TRACKING ON: the server remembers what was read there, and says on the same connection when it has
changed. So an answer and the news that it is out of date come in their order, and when the
connection breaks, everything is dropped. (To track the connections of the pool, and have the news
sent elsewhere by REDIRECT, would not do: once the server has closed the connection that a key was
read on, because it was idle, say, it tells nobody any more that the key has changed.)

How old can an answer be? Usually as old as the news takes, much less than a millisecond. `LEASE` is
the most, whatever happens: an answer on the connection proves that all news from before its request
have come, and without such a proof nothing is answered from the process.
"""

from __future__ import annotations

import functools
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeVar

from kvdb.client.address import Address
from kvdb.client.commands import Name
from kvdb.client.errors import Disconnected, Error, ServerError, TimedOut
from kvdb.client.near_cache import UNDECODED, Entry, NearCache, Reading, is_immutable, is_news
from kvdb.client.pauses import Pauses
from kvdb.client.push_connection import SILENCE, PushConnection
from kvdb.client.serializers import Serializer

_PING_EVERY: Final = 0.3  # seconds, while the cache is in use
_MOST_NAMES: Final = 500  # in one request, so that others need not wait for long behind it

_FIRST_PAUSE: Final = 0.02  # seconds between two tries to connect
_LONGEST_PAUSE: Final = 2.0

_ABSENT: Final = object()


class NearReader:
    """Reads over a connection of its own, and fills a near cache with that.

    A thread receives what the server sends. It starts with the first read, and again with the
    first one in a process that was forked; it ends with close(), or when nobody holds the reader.
    Any thread may read. `_sending` guards the order in which readings are sent and queued.
    """

    def __init__(
        self,
        address: Address,
        size: int,
        serializer: Serializer[Any],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`size`: how many values are kept. Connects when something is read."""
        self._timeout = address.timeout
        self._address = address.at(SILENCE if address.timeout is None else address.timeout)
        self._size, self._decode, self._clock = size, serializer.decode, clock
        self._start_empty()
        _readers.add(self)

    def _start_empty(self) -> None:
        self.cache = NearCache(self._size, self._clock)
        self._sending = threading.RLock()
        self._is_sending = False
        self._connection: PushConnection | None = None
        self._queue: deque[Reading] = deque()  # sent, in this order, and not answered yet
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()
        self._has_tried = threading.Event()  # to connect
        self._pauses = Pauses(_FIRST_PAUSE, _LONGEST_PAUSE)
        self._heard = self._pinged = 0.0
        self._uses = 0  # at the last ping

    def forget_parent(self) -> None:
        """Start anew: this is a forked child, whose parent goes on with the connection."""
        connection, is_closed = self._connection, self._closing.is_set()
        self._start_empty()
        if is_closed:
            self._closing.set()
        if connection is not None:
            connection.close()  # our copy of it

    # --- reading -----------------------------------------------------------------------------

    def read(self, names: Sequence[bytes], *, many: bool) -> list[Any] | None:
        """Return the bytes of these keys, None where there is no such key; ask by GET or MGET.

        None instead of a list: not now, ask over another connection. Raises TimedOut.
        """
        self._ensure_thread()
        values: list[Any] = []
        for start in range(0, len(names), _MOST_NAMES):
            reading = self._send(names[start : start + _MOST_NAMES], many)
            if reading is None:
                return None
            if not reading.done.acquire(timeout=-1 if self._timeout is None else self._timeout):
                raise TimedOut("no answer within the timeout")
            if reading.is_broken or isinstance(reading.replies[0], ServerError):
                return None
            values += reading.values
        return values

    def value_of(self, entry: Entry | None, default: Any) -> Any:
        """Return the value of an entry. Raises SerializationError."""
        assert entry is not None
        value = entry.value
        if value is not UNDECODED:
            return value
        if entry.data is None:
            return default
        value = self._decode(entry.data)
        if type(value) is not dict and is_immutable(value):  # 0.1 µs less for the usual ones
            entry.value = value
        return value

    def _send(self, names: Sequence[bytes], many: bool) -> Reading | None:
        """Send a read; None if that is not possible."""
        with self._sending:
            connection = self._connection
            if connection is None or self._is_sending:  # we are a signal handler: do not mix in
                return None
            reading = Reading(names, self._clock(), many=many)
            self._is_sending = True
            try:
                self.cache.mark(reading)
                self._queue.append(reading)
                connection.send(reading.requests())
            except Disconnected:
                return None
            finally:
                self._is_sending = False
        return reading

    # --- the thread --------------------------------------------------------------------------

    def _ensure_thread(self) -> None:
        """Have a thread receive; wait until it has tried to connect for the first time."""
        thread = self._thread
        if thread is None or not thread.is_alive():
            with self._sending:
                if self._closing.is_set() or self._thread is not thread:
                    return
                self._has_tried.clear()
                self._thread = threading.Thread(
                    target=_repeat, args=(weakref.ref(self),), name="kvdb near cache", daemon=True
                )
                self._thread.start()
        if not self._has_tried.is_set():
            self._has_tried.wait(self._timeout)

    def run_pass(self) -> None:
        """Try to connect, or take what comes in a moment. Its thread repeats this."""
        if self._connection is None:
            try:
                self._connect()
            except Error:
                self._has_tried.set()
                self._closing.wait(self._pauses.next())
            return
        try:
            self._receive(self._connection)
        except Disconnected:
            self.disconnect()

    def _connect(self) -> None:
        connection = PushConnection(self._address)
        for reply in connection.ask([[b"HELLO", b"3"], [b"CLIENT", b"TRACKING", b"ON"]]):
            if isinstance(reply, ServerError):
                connection.close()
                raise reply
        self._heard = self._clock()
        self._pauses.start_over()
        self._connection = connection
        self._has_tried.set()

    def _receive(self, connection: PushConnection) -> None:
        """Take what comes, and ask for a sign of the server if the cache is in use."""
        replies = connection.receive(_PING_EVERY)
        now = self._clock()
        if replies:
            self._heard = now
        for reply in replies:
            if is_news(reply):
                self.cache.hear(reply)
            elif self._queue:
                reading = self._queue[0]
                reading.replies.append(reply)
                if reading.is_complete:
                    self._queue.popleft()
                    self.cache.settle(reading)
                    reading.done.release()
        if self._queue and now - max(self._heard, self._queue[0].sent_at) > SILENCE:
            raise Disconnected("the server does not answer")
        uses = self.cache.hits + self.cache.misses
        is_due = now - self._pinged >= _PING_EVERY and uses != self._uses
        # A thread whose long request fills the buffers waits for us to receive: pass by.
        if is_due and self._sending.acquire(blocking=False):
            try:
                self._pinged, self._uses = now, uses
                self._send([], many=False)
            finally:
                self._sending.release()

    def disconnect(self) -> None:
        """Drop everything, and close the connection: whoever waits for an answer asks elsewhere."""
        with self._sending:
            connection, self._connection = self._connection, None
            self.cache.stop()
            queue, self._queue = self._queue, deque()
        if connection is not None:
            connection.close()
        for reading in queue:
            reading.is_broken = True
            reading.done.release()

    def close(self) -> None:
        """End the thread and close the connection."""
        with self._sending:
            self._closing.set()
            thread, connection = self._thread, self._connection
        if connection is not None:
            connection.wake()
        if thread is not None and thread is not threading.current_thread():
            thread.join()
        self.disconnect()


def _repeat(reference: weakref.ref[NearReader]) -> None:
    """Repeat the reader's pass. Between two of them nothing here keeps it alive."""
    while (reader := reference()) is not None:
        if reader._closing.is_set():
            return
        try:
            reader.run_pass()
        except BaseException:
            reader.disconnect()
            raise
        del reader


_readers: weakref.WeakSet[NearReader] = weakref.WeakSet()


def _forget_parents() -> None:
    for reader in list(_readers):
        reader.forget_parent()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parents)


# --- the client's methods ------------------------------------------------------------------------

C = TypeVar("C", bound=type)


def answered_nearby(cls: C) -> C:
    """Have get(), mget() and get_many() of a client look into its near cache first, if it has one.

    The client's class has `_near`: a `NearReader`, or None.
    """
    plain: Any = cls
    plain_get, plain_mget, plain_get_many = plain.get, plain.mget, plain.get_many

    @functools.wraps(plain_get)
    def get(self: Any, name: Name, default: Any = None) -> Any:
        near: NearReader | None = self._near
        if near is None:
            return plain_get(self, name, default)
        key = self._name(name)
        entry = near.cache.find(key)
        if entry is None:
            found = near.read([key], many=False)
            if found is None:
                return plain_get(self, name, default)
            entry = Entry(found[0])
        value = entry.value
        return near.value_of(entry, default) if value is UNDECODED else value

    @functools.wraps(plain_mget)
    def mget(self: Any, names: Iterable[Name]) -> Any:
        names = list(names)
        found = _look_up(self, names, None)
        return plain_mget(self, names) if found is None else found

    @functools.wraps(plain_get_many)
    def get_many(self: Any, names: Iterable[Name]) -> Any:
        names = list(names)
        found = _look_up(self, names, _ABSENT)
        if found is None:
            return plain_get_many(self, names)
        pairs = zip(names, found, strict=True)
        return {name: value for name, value in pairs if value is not _ABSENT}

    plain.get, plain.mget, plain.get_many = get, mget, get_many
    return cls


def _look_up(client: Any, names: Sequence[Name], default: Any) -> list[Any] | None:
    """Return the values of these keys; None if they have to be asked for without a near cache."""
    near: NearReader | None = client._near
    if near is None:
        return None
    keys = [client._name(name) for name in names]
    entries = {key: near.cache.find(key) for key in keys}
    missing = [key for key, entry in entries.items() if entry is None]
    found = near.read(missing, many=True)
    if found is None:
        return None
    entries.update(zip(missing, map(Entry, found), strict=True))
    return [near.value_of(entries[key], default) for key in keys]
