"""A background thread that repeats one pass of a task."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

log = logging.getLogger(__name__)

LONGEST_WAIT = 60.0
"""Seconds after which a thread with nothing to do looks again, in case the clock was set."""


class Periodic:
    """Run `run_pass` again and again, on a named thread of its own.

    Before each pass it waits for `seconds_to_next()` seconds (None: until it is woken).
    Tests call the pass itself. A pass that raises is logged, and tried again.
    """

    def __init__(
        self, name: str, run_pass: Callable[[], object], seconds_to_next: Callable[[], float | None]
    ) -> None:
        self._run_pass, self._seconds_to_next = run_pass, seconds_to_next
        self._wake = threading.Event()
        self._stopping = threading.Event()
        # Daemon only so that a crash elsewhere cannot hang the exit; stop() always joins.
        self.thread = threading.Thread(target=self._loop, name=name, daemon=True)

    @classmethod
    def every(cls, name: str, seconds: float, run_pass: Callable[[], object]) -> Periodic:
        """Return a thread that starts a pass `seconds` after the last one has ended."""
        return cls(name, run_pass, lambda: seconds)

    @property
    def stopping(self) -> bool:
        """Whether stop() has been called: a long pass asks this between its slices."""
        return self._stopping.is_set()

    def start(self) -> None:
        self.thread.start()

    def wake(self) -> None:
        """End the wait now: run a pass, or compute the wait again. Safe to call under a lock."""
        self._wake.set()

    def stop(self) -> None:
        """Wake the thread and wait until its current pass has ended."""
        self._stopping.set()
        self._wake.set()
        if self.thread.ident is not None:
            self.thread.join()

    def _loop(self) -> None:
        while not self.stopping:
            try:
                wait = self._seconds_to_next()
                self._wake.wait(LONGEST_WAIT if wait is None else min(wait, LONGEST_WAIT))
                self._wake.clear()
                if not self.stopping:
                    self._run_pass()
            except Exception:
                with contextlib.suppress(Exception):  # a lack of memory may last
                    log.exception("%s: this pass failed; trying again next time", self.thread.name)
                self._stopping.wait(1.0)  # a pass that always fails must not keep a core busy
