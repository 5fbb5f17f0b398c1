"""Wrong passwords: who guesses has to wait for the answer, longer each time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

FREE: Final = 10
"""Wrong passwords from one address that are answered at once: people mistype."""

LONGEST: Final = 5.0  # seconds
_FIRST: Final = 0.05
_GROWTH: Final = 1.5  # 5 seconds are reached with the 22nd wrong password
_FORGOTTEN_AFTER: Final = 60.0  # seconds without another one
_MOST_ADDRESSES: Final = 10_000


class Guesses:
    """Counts wrong passwords by address. `_lock` guards the counts.

    Only wrong answers are delayed: whoever knows the password does not wait for those who do not,
    even if they share an address.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._wrong: dict[str, tuple[int, float]] = {}  # how many, and when the last one came

    def wrong(self, host: str) -> float:
        """Count a wrong password; return how many seconds its answer is to be held back."""
        now = self._monotonic()
        with self._lock:
            count, last = self._wrong.get(host, (0, now))
            count = 1 if now - last > _FORGOTTEN_AFTER else count + 1
            if host not in self._wrong and len(self._wrong) >= _MOST_ADDRESSES:
                self._wrong.clear()
            self._wrong[host] = (count, now)
        return 0.0 if count <= FREE else min(LONGEST, _FIRST * _GROWTH ** min(count - FREE, 20))
