"""Steps: one hold of the lock, one moment, one report to the listeners."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final

from kvdb.store.entry import Key
from kvdb.store.feed import ChangeFeed, Fact, Listener

_FREEING_SLICE: Final = 500  # entries freed at a time after a flush: well under a millisecond


class _Step(AbstractContextManager[None]):
    """What atomic() returns: one object for all steps of a kind, because the lock is re-entrant."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def __enter__(self) -> None:
        steps = self._steps
        steps._lock.acquire()
        steps._depth += 1

    def __exit__(self, *error: object) -> None:
        steps = self._steps
        free = False
        try:
            steps._depth -= 1
            if not steps._depth:
                steps._moment = None
                if steps._feed.facts:
                    steps._feed.publish()
                free = bool(steps._garbage)
        finally:
            steps._lock.release()
        if free:
            steps._free_garbage()


class _UntouchingStep(_Step):
    """What atomic(touching=False) returns."""

    def __enter__(self) -> None:
        super().__enter__()
        self._steps._untouched += 1

    def __exit__(self, *error: object) -> None:
        self._steps._untouched -= 1
        super().__exit__(*error)


class Steps:
    """What every operation of the store begins and ends with.

    Public methods take self._lock; a method ending in _locked expects its caller to hold it.
    An operation that is a single write takes the lock alone, reads the clock once at most,
    and publishes at its end; whatever consists of several operations is an atomic() block,
    within which moment and report are one.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._lock = threading.RLock()
        self._clock = clock
        self._feed = ChangeFeed()
        self._step = _Step(self)
        self._untouching_step = _UntouchingStep(self)
        # Of the step under way:
        self._depth = 0  # how many atomic() blocks are open
        self._untouched = 0  # how many of them said that nothing counts as use
        self._moment: float | None = None  # what the clock said within them
        self._garbage: list[OrderedDict[Key, bytes]] = []  # flushed, to be freed after the step

    def atomic(self, *, touching: bool = True) -> AbstractContextManager[None]:
        """Hold the lock over several operations: one step, and one moment, for every reader.

        There is no rollback: check everything before the first write. Without `touching`, the
        reads and writes within leave the order of use as it is (CLIENT NO-TOUCH).
        """
        return self._step if touching else self._untouching_step

    def now(self) -> float:
        """Return the moment of the step under way, in Unix seconds, or of the clock."""
        if not self._depth:  # then this thread, at least, has no step open
            return self._clock()
        with self._lock:
            return self._now_locked()

    def _now_locked(self) -> float:
        if not self._depth:
            return self._clock()
        if self._moment is None:
            self._moment = self._clock()
        return self._moment

    @property
    def clock(self) -> Callable[[], float]:
        """The clock that deadlines are measured with, in Unix seconds."""
        return self._clock

    # --- the change feed -----------------------------------------------------------------

    @property
    def step(self) -> int:
        """Number of the last step that the feed has told."""
        return self._feed.step

    @property
    def step_under_way(self) -> int:
        """Within atomic(): the number that this step will be told with, 0 if nothing has changed."""
        return self._feed.step + 1 if self._feed.facts else 0

    @property
    def facts_under_way(self) -> Sequence[Fact]:
        """Within atomic(): what this step has changed so far, if anybody listens."""
        return self._feed.facts

    def add_listener(self, listener: Listener) -> None:
        """Have every change reported, in commit order, one call per atomic step.

        The listener is called under the lock: it may put the facts in a queue, nothing more.
        """
        with self._lock:
            self._feed.add(listener)

    def remove_listener(self, listener: Listener) -> None:
        """Stop reporting to this listener."""
        with self._lock:
            self._feed.remove(listener)

    def _publish_locked(self) -> None:
        """Hand the facts of a finished step to the listeners."""
        if self._feed.facts and not self._depth:
            self._feed.publish()

    # --- what a flush leaves behind ------------------------------------------------------

    def _free_garbage(self) -> None:
        """Free flushed entries in slices, letting go of the interpreter between them."""
        while True:
            with self._lock:
                if not self._garbage:
                    return
                entries = self._garbage.pop()
            while entries:
                for _ in range(min(_FREEING_SLICE, len(entries))):
                    entries.popitem()
                time.sleep(0)

    def check(self) -> None:
        """Raise AssertionError if a step has left anything behind."""
        with self._lock:
            assert not self._feed.facts, "facts were not published"
            assert self._depth == 0, "a step was left open"
            assert self._untouched == 0, "NO-TOUCH outlived its step"
            assert self._moment is None, "a moment outlived its step"
