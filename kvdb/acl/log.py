"""What was refused to whom, lately: ACL LOG, and the counters of INFO."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from kvdb.acl.rules import Denial, Reason

SAME_FOR: Final = 60.0
"""Seconds during which the same refusal is counted instead of being listed once more."""

_MOST_SHOWN: Final = 1024  # bytes of a key: it may be as long as a value


@dataclass
class Entry:
    """Refusals of one kind."""

    id: int
    count: int
    denial: Denial
    context: str  # toplevel or multi
    user: bytes
    client: str  # its line of CLIENT LIST
    created: float  # Unix seconds
    updated: float


class DenialLog:
    """The latest refusals, newest first. `_lock` guards everything."""

    def __init__(self, clock: Callable[[], float], most: Callable[[], int]) -> None:
        """`clock` returns Unix seconds, `most` how many entries are kept."""
        self._clock, self._most = clock, most
        self._lock = threading.Lock()
        self._entries: list[Entry] = []
        self._next_id = 0
        self._counts: Counter[Reason] = Counter()

    def add(self, denial: Denial, context: str, user: bytes, client: str) -> None:
        """Note a refusal down."""
        denial = denial._replace(object=denial.object[:_MOST_SHOWN])
        user = user[:_MOST_SHOWN]
        now = self._clock()
        with self._lock:
            self._counts[denial.reason] += 1
            for place, entry in enumerate(self._entries):
                same = (entry.denial, entry.context, entry.user) == (denial, context, user)
                if same and now - entry.updated <= SAME_FOR:
                    entry.count += 1
                    entry.client, entry.updated = client, now
                    self._entries.insert(0, self._entries.pop(place))
                    return
            self._entries.insert(
                0, Entry(self._next_id, 1, denial, context, user, client, now, now)
            )
            self._next_id += 1
            del self._entries[self._most() :]

    def entries(self, count: int) -> list[tuple[Entry, float]]:
        """Return the newest entries, each with its age in seconds."""
        now = self._clock()
        with self._lock:
            del self._entries[self._most() :]
            return [(Entry(**vars(each)), now - each.updated) for each in self._entries[:count]]

    def reset(self) -> None:
        """Forget the entries."""
        with self._lock:
            self._entries.clear()

    def count(self, reason: Reason) -> int:
        """Return how often something was refused for this reason."""
        return self._counts[reason]

    def reset_counts(self) -> None:
        """Count anew (CONFIG RESETSTAT)."""
        with self._lock:
            self._counts.clear()
