"""The memory promise: the process takes little more than the budget and what it takes when empty.

The store counts what its entries cost. The process takes more: what entries that are gone leave
behind is free, but scattered over pages that others still need. `allocator.py` has the system get
back what it can; where that is not enough, the `Governor` has the store keep fewer entries.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

from kvdb.allocator import give_back
from kvdb.config import MB
from kvdb.periodic import Periodic
from kvdb.store import Store

# What the process may take beside the empty server, as shares of the budget. The promise is
# 1.10. The rest is for what comes in between two looks: at 400 MB/s in 20 ms, 8 MB.
_MOST: Final = 1.02
_COMFORTABLE: Final = 0.99
_UNCERTAIN: Final = 8 * MB  # what an interpreter takes varies by that much, whatever the budget
_BETWEEN_LOOKS: Final = 4 * MB  # bytes that may arrive, all clients together

LEAST_ALLOWED: Final = 0.75
"""The share of the budget that entries may always use, whatever state memory is in."""

_FASTEST_GROWTH: Final = 400 * MB  # bytes per second, all clients together
_SHORTEST_WAIT: Final = 0.005  # seconds between two looks
_QUIET_WAIT: Final = 0.05  # likewise, at least, while nothing is written
_LONGEST_WAIT: Final = 1.0
_LONGEST_HOLD: Final = 0.02  # seconds that clients have to wait at a time while entries go
_STEP: Final = MB // 16  # bytes evicted between two looks at the clock: 2 ms of small entries


CONNECTION_BYTES: Final = 3 * 1024
"""What a connection takes (measured: 2.8 KiB; one of HTTP, with its thread, 21)."""


# --- the system ---------------------------------------------------------------------------


def resident_bytes() -> int | None:
    """Return what the process takes of physical memory, or None where the system does not tell.

    Linux tells. Elsewhere (macOS, Windows) only the count of what the entries cost holds.
    """
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return None


# --- the governor -------------------------------------------------------------------------


class Governor(Periodic):
    """Watches what the entries really take, and says how much of the budget that leaves them.

    What the process takes beside the empty server and beside what has an account of its own
    (clients, scans, the journal's queue, a save) is the entries' memory: what they are counted
    for, and the holes that freed ones have left between them. While that is more than is
    comfortable, free memory is given back. If that is not enough, entries make room for what
    it has grown by since the last look, so that it stops growing; above the most that is
    acceptable, they make room for all that is too much. They do so for holes only: not for more
    than what entries have freed since all was well, and never below LEAST_ALLOWED of the
    budget. As soon as it is comfortable, they may take what they take now and half of what is
    left, up to the budget. In between, while it does not grow, nothing moves: so it settles.

    To store survivors anew, so that the pages around them can go, was tried: of 100 MB of
    entries 182 MB became 155 after large values, and nothing changed after small ones: the copy
    goes into the hole next door.

    `_looking` is held during a look; the store's lock may be taken under it, no other.
    """

    def __init__(
        self,
        store: Store,
        empty: int | None,
        *,
        borrowed: Callable[[], int] = lambda: 0,
        resident: Callable[[], int | None] = resident_bytes,
        give_back: Callable[[], object] = give_back,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`empty` is what `resident` said before anything was loaded; with None, nothing is done.

        `borrowed` tells how many bytes have an account of their own: they are not held against
        the entries.
        """
        super().__init__("governor", self.look, lambda: self.wait)
        self._store = store
        self.empty = empty
        """What the process took before anything was loaded."""
        self._looking = threading.Lock()
        self._arrived = 0  # bytes since the last look
        self._all_resident, self._borrowed = resident, borrowed
        self._give_back, self._monotonic = give_back, monotonic
        self._before = sys.maxsize  # resident bytes at the last look
        self._freed_when_well = 0  # Store.freed_bytes when the entries last took what they should
        self._next_give_back = 0.0
        self._changes = self._changes_given_back = -1  # Store.changes then, and at the last time
        self.allowance = sys.maxsize
        """Bytes that the entries may take now; as much as the budget, or more: no restriction."""
        self.wait = 0.0
        """Seconds until the next look."""
        self.holes = 0
        """Bytes that the entries' memory took beyond what they are counted for, at the last look."""

    def keep_pace(self, arrived: int) -> None:
        """Look now if clients have sent much since the last look. Called by their threads.

        They must not bring in more while this one waits for its turn: 20 MB in 0.1 s were seen.
        """
        self._arrived += arrived  # a sum that is not exact does no harm
        if self._arrived > _BETWEEN_LOOKS:
            self.look()

    def look(self) -> None:
        """One pass: read what the process takes, and act on it."""
        with self._looking:
            self._arrived = 0
            self._look()

    def _resident(self) -> int | None:
        resident = self._all_resident()
        return None if resident is None else resident - self._borrowed()

    def _look(self) -> None:
        self.wait = _LONGEST_WAIT
        budget, resident, changes = self._store.max_bytes, self._resident(), self._store.changes
        if self.empty is None or resident is None:
            return
        if not budget:
            self._allow(sys.maxsize)
            return
        self.holes = max(0, resident - self.empty - self._store.used_bytes)
        room = self._share(_COMFORTABLE, budget) - resident
        if room > 0:
            self._freed_when_well = self._store.freed_bytes
        if room < 0:
            # Clients have to wait meanwhile: if they write between the slices of Store.allow(),
            # 10 MB take a second to go, and 30 MB more come in.
            with self._store.atomic():
                resident = self._come_down(budget, resident)
        elif self.allowance < budget:
            self._allow(max(self.allowance, self._store.used_bytes + room // 2))
        # The next look comes before the fastest growth could have used up what is left.
        least = _QUIET_WAIT if changes == self._changes else _SHORTEST_WAIT
        self.wait = min(max(room / _FASTEST_GROWTH, least), _LONGEST_WAIT)
        self._before, self._changes = resident, changes

    def _come_down(self, budget: int, resident: int) -> int:
        """Give memory back, then evict what is too much; return what was resident in between."""
        comfortable, most = self._share(_COMFORTABLE, budget), self._share(_MOST, budget)
        if self._give_back_now(hurry=resident > most):
            resident = self._resident() or resident
        if resident > comfortable:
            growth = min(resident - self._before, resident - comfortable)
            # Twice what is too much, because evictions free whole pages only later.
            excess = max(growth, 2 * (resident - most), 0)
            excess = min(excess, self._store.freed_bytes - self._freed_when_well)
            if self._store.freed_bytes > self._freed_when_well:  # else there can be no holes
                self._evict(budget, excess)
        return resident

    def _share(self, share: float, budget: int) -> int:
        """Return what the process may take if that is a share of the budget."""
        assert self.empty is not None
        return self.empty + int(share * budget) + max(0, _UNCERTAIN - budget // 10)

    def _give_back_now(self, hurry: bool) -> bool:
        """Give free memory back, unless nothing can have become free; return whether.

        Without a hurry it may take a tenth of the time, no more: every thread waits meanwhile.
        """
        began, changes = self._monotonic(), self._store.changes
        if changes == self._changes_given_back or (began < self._next_give_back and not hurry):
            return False
        self._give_back()
        ended = self._monotonic()
        self._next_give_back = ended + 9 * (ended - began)
        self._changes_given_back = changes
        return True

    def _evict(self, budget: int, excess: int) -> None:
        """Have entries take `excess` bytes less than they do, as far as time and policy allow."""
        began, used = self._monotonic(), self._store.used_bytes
        goal = max(min(used, self.allowance) - excess, int(LEAST_ALLOWED * budget))
        while used > goal and self._monotonic() < began + _LONGEST_HOLD:
            self._allow(max(goal, used - _STEP))
            before, used = used, self._store.used_bytes
            if used == before:  # the policy forbids it
                break
        self._allow(max(goal, used))

    def _allow(self, allowance: int) -> None:
        if allowance != self.allowance:
            self.allowance = allowance
            self._store.allow(allowance)
