"""A near cache: what is kept in this process of what the server holds. See `near_reader`."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from kvdb.client.commands import COMPARE_AND_DELETE, COMPARE_AND_SET
from kvdb.client.errors import ServerError

LEASE: Final = 1.0
"""Seconds after which a value is not answered without a sign of the server in between."""

MAX_AGE: Final = 60.0
"""Seconds that a value is kept at most, for changes that no news are sent of: Redis sends none for
SWAPDB."""

NO_STATS: Final = {"hits": 0, "misses": 0, "invalidations": 0, "size": 0}
"""What a client without a near cache has counted."""

UNDECODED: Final = object()
"""In an entry whose value has not been made from its bytes, or is made anew for each read."""

_IMMUTABLE: Final = frozenset((str, bytes, int, float, bool, type(None)))

_ONE, _ALL, _PAIR, _NONE = slice(1, 2), slice(1, None), slice(1, 3), slice(0, 0)

# Where the keys are in what the client sends. Whatever is not here may be about any key.
_KEYS: Final[dict[bytes, slice]] = {
    **dict.fromkeys(
        b"APPEND BITCOUNT DECRBY DUMP EXISTS GET GETBIT GETDEL GETEX GETRANGE INCRBY INCRBYFLOAT "
        b"PERSIST PEXPIRE PEXPIREAT PTTL RESTORE SET SETBIT SETRANGE STRLEN".split(),
        _ONE,
    ),
    **dict.fromkeys((b"DEL", b"MGET", b"TOUCH", b"WATCH"), _ALL),
    **dict.fromkeys((b"MSET", b"MSETNX"), slice(1, None, 2)),
    **dict.fromkeys((b"COPY", b"RENAME", b"RENAMENX"), _PAIR),
    b"BITOP": slice(2, None),
    **dict.fromkeys(b"DBSIZE EXEC MULTI PING PUBLISH SCAN UNWATCH".split(), _NONE),
}
_OUR_SCRIPTS: Final = (COMPARE_AND_SET, COMPARE_AND_DELETE)


def named_keys(request: Sequence[bytes]) -> Sequence[bytes] | None:
    """Return the keys that a request of the client names; None: it may be about any."""
    if request[0] == b"EVAL" and request[1] in _OUR_SCRIPTS:
        return request[3:4]
    where = _KEYS.get(request[0])
    return None if where is None else request[where]


def is_immutable(value: object) -> bool:
    """Tell whether a value may be handed out again and again, because nobody can change it."""
    if type(value) is tuple:
        return all(map(is_immutable, value))
    return type(value) in _IMMUTABLE


class Entry:
    """A value that was read: its bytes, or None if there is no such key."""

    __slots__ = ("data", "expires_at", "value")

    def __init__(self, data: bytes | None, expires_at: float = 0) -> None:
        self.data, self.expires_at = data, expires_at
        self.value: Any = UNDECODED
        """What the bytes stand for, if that was asked for and cannot be changed."""


class Reading:
    """A read that was sent, and what has come of it."""

    def __init__(self, names: Sequence[bytes], sent_at: float, *, many: bool) -> None:
        self.names, self.sent_at = names, sent_at
        self.replies: list[Any] = []
        self.is_broken = False
        self.done = threading.Lock()  # held until it is: a lock is the quickest thing to wait for
        self.done.acquire()
        self._many = many

    def requests(self) -> list[list[bytes]]:
        """Return what is sent: the values, and how long they are to live. No names: a PING.

        When a key expires, Redis says so when it happens to delete it, which may be much later.
        """
        if not self.names:
            return [[b"PING"]]
        # A reply of two elements could be mistaken for news: see `is_news`.
        more = self.names[1:] if len(self.names) == 2 else []
        values = [b"MGET", *self.names, *more] if self._many else [b"GET", *self.names]
        return [values, *([b"PTTL", name] for name in self.names)]

    @property
    def is_complete(self) -> bool:
        return len(self.replies) == 1 + len(self.names)

    @property
    def values(self) -> list[Any]:
        """The values' bytes, None where there is no such key; a ServerError among them."""
        first = self.replies[0]
        return first[: len(self.names)] if self._many and isinstance(first, list) else [first]


def is_news(reply: object) -> bool:
    """Tell whether this is what a server sends unasked when keys have changed."""
    return isinstance(reply, list) and len(reply) == 2 and reply[0] == b"invalidate"


class NearCache:
    """Values by their keys, the least recently used evicted first. Does no I/O.

    Thread-safe: `_lock` guards everything. It is re-entrant, for signal handlers that read.

    An answer may arrive when it is out of date already, because this client itself has written
    meanwhile over another connection. So a key is marked before it is asked for; whoever drops
    the key removes the mark; and an answer is kept only if its mark is still there.
    """

    def __init__(self, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.size, self._clock = size, clock
        self._lock = threading.RLock()
        self._entries: OrderedDict[bytes, Entry] = OrderedDict()
        self._marks: dict[bytes, Reading] = {}
        self._trusted_until = 0.0
        self.hits = self.misses = self.invalidations = 0

    def find(self, name: bytes) -> Entry | None:
        """Return the entry of a key, if it is known to be true."""
        with self._lock:
            entry = self._entries.get(name)
            if entry is not None:
                now = self._clock()
                if now < self._trusted_until and now < entry.expires_at:
                    self._entries.move_to_end(name)
                    self.hits += 1
                    return entry
            self.misses += 1
            return None

    def mark(self, reading: Reading) -> None:
        """Say that these keys are about to be asked for."""
        with self._lock:
            for name in reading.names:
                self._marks.setdefault(name, reading)

    def settle(self, reading: Reading) -> None:
        """Keep what a read has brought, where that is still true."""
        with self._lock:
            self._trusted_until = max(self._trusted_until, reading.sent_at + LEASE)
            if not reading.names:
                return
            lifetimes = reading.replies[1:]
            for name, data, lifetime in zip(reading.names, reading.values, lifetimes, strict=False):
                if self._marks.get(name) is reading:
                    del self._marks[name]
                    self._keep(name, data, lifetime, reading.sent_at)
                elif (entry := self._entries.get(name)) is not None and entry.data != data:
                    del self._entries[name]  # this answer is newer: nobody may go back behind it

    def _keep(self, name: bytes, data: Any, lifetime: Any, sent_at: float) -> None:
        if isinstance(data, ServerError) or not isinstance(lifetime, int):
            return
        if (data is None) != (lifetime == -2):  # it expired, or was made, between the two
            return
        seconds = MAX_AGE if lifetime < 0 else min(MAX_AGE, lifetime / 1000)
        self._entries[name] = Entry(data, sent_at + seconds)
        self._entries.move_to_end(name)
        while len(self._entries) > self.size:
            self._entries.popitem(last=False)

    def drop(self, names: Iterable[bytes] | None) -> None:
        """Forget these keys, and the answers that are on their way; None: all."""
        with self._lock:
            if names is None:
                self._entries.clear()
                self._marks.clear()
                return
            for name in names:
                self._entries.pop(name, None)
                self._marks.pop(name, None)

    def drop_named(self, requests: Iterable[Sequence[bytes]]) -> None:
        """Forget the keys that the client has asked the server about, past the cache.

        It may have changed them; or it has learnt something newer than what is here.
        """
        for request in requests:
            self.drop(named_keys(request))

    def hear(self, news: list[Any]) -> None:
        """Forget the keys that the server says have changed."""
        names = news[1]
        with self._lock:
            self.invalidations += 1 if names is None else len(names)
            self.drop(names)

    def stop(self) -> None:
        """Forget everything: there is nobody any more to say what has changed."""
        with self._lock:
            self.drop(None)
            self._trusted_until = 0.0

    def stats(self) -> dict[str, int]:
        """Return hits, misses, invalidations, and how many values are kept: the size."""
        with self._lock:
            counts = (self.hits, self.misses, self.invalidations, len(self._entries))
            return dict(zip(NO_STATS, counts, strict=True))
