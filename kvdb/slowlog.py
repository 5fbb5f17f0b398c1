"""The slow log: the last requests that took longer than they should (SLOWLOG)."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Sequence
from typing import Final, NamedTuple

from kvdb.spelling import without_secrets

# As Redis cuts what it keeps: the log may live for weeks.
_MOST_WORDS: Final = 32
_LONGEST_WORD: Final = 128


class SlowRequest(NamedTuple):
    """A request that was slow."""

    number: int
    at: float  # Unix seconds
    microseconds: int
    words: list[bytes]  # cut, without passwords
    address: str  # of its client
    name: bytes  # of its client


def shortened(words: Sequence[bytes]) -> list[bytes]:
    """Return a request cut to what is worth keeping, and how much was left out."""
    shown = list(words)
    if len(shown) > _MOST_WORDS:
        left_out = len(shown) - _MOST_WORDS + 1
        shown[_MOST_WORDS - 1 :] = [b"... (%d more arguments)" % left_out]
    return [
        word
        if len(word) <= _LONGEST_WORD
        else b"%b... (%d more bytes)" % (word[:_LONGEST_WORD], len(word) - _LONGEST_WORD)
        for word in shown
    ]


class SlowLog:
    """The last slow requests. `_lock` guards them; any thread may add one."""

    def __init__(self, most: int) -> None:
        """`most` entries are kept."""
        self._lock = threading.Lock()
        self._entries: deque[SlowRequest] = deque(maxlen=most)
        self._numbers = itertools.count()

    def add(
        self, at: float, microseconds: int, words: Sequence[bytes], address: str, name: bytes
    ) -> None:
        """Note a request that was slow."""
        words = shortened(without_secrets(words))
        with self._lock:
            number = next(self._numbers)
            self._entries.append(SlowRequest(number, at, microseconds, words, address, name))

    def latest(self, most: int | None) -> list[SlowRequest]:
        """Return up to so many entries, or all; the youngest first."""
        with self._lock:
            return list(itertools.islice(reversed(self._entries), most))

    def __len__(self) -> int:
        return len(self._entries)

    def reset(self) -> None:
        """Forget all entries; numbers go on."""
        with self._lock:
            self._entries.clear()

    def resize(self, most: int) -> None:
        """Keep so many entries from now on; the youngest stay."""
        with self._lock:
            self._entries = deque(self._entries, maxlen=most)
