"""memcached's `stats detail`: what is done to keys, counted by their prefix (up to the first `:`)."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Final

_MOST: Final = 10_000  # prefixes that are counted apart; the rest counts under none


@dataclass
class _Counts:
    get: int = 0
    hit: int = 0
    set: int = 0
    delete: int = 0


class Prefixes:
    """Counts while it is switched on. `_lock` guards the counts."""

    def __init__(self) -> None:
        self.enabled = False
        self._lock = threading.Lock()
        self._counts: dict[bytes, _Counts] = {}

    def count(self, key: bytes, get: int = 0, hit: int = 0, set: int = 0, delete: int = 0) -> None:
        """Add to the counts of a key's prefix. A key without a colon has none."""
        prefix, colon, _ = key.partition(b":")
        if not colon:
            return
        with self._lock:
            counts = self._counts.get(prefix)
            if counts is None:
                if len(self._counts) >= _MOST:
                    return
                counts = self._counts[prefix] = _Counts()
            counts.get += get
            counts.hit += hit
            counts.set += set
            counts.delete += delete

    def reset(self) -> None:
        """Forget all counts (stats reset)."""
        with self._lock:
            self._counts.clear()

    def dump(self) -> bytes:
        """Return the answer to `stats detail dump`."""
        with self._lock:
            lines = [
                b"PREFIX %b get %d hit %d set %d del %d\r\n"
                % (prefix, counts.get, counts.hit, counts.set, counts.delete)
                for prefix, counts in self._counts.items()
            ]
        return b"".join([*lines, b"END\r\n"])
