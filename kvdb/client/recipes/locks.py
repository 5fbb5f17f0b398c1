"""Locks and semaphores that threads and processes share through the server."""

from __future__ import annotations

import contextlib
import threading
import weakref
from types import TracebackType
from typing import Any, Self

from kvdb.client.commands import Name
from kvdb.client.errors import Error
from kvdb.client.recipes.errors import LockLost
from kvdb.client.recipes.leases import Lease, key_of_lock, keys_of_semaphore
from kvdb.client.recipes.steps import run
from kvdb.client.times import Duration


class _Extender:
    """Extends a lease at every third of its ttl, on a thread of its own, until stop().

    The thread knows the lease by a weak reference only: of one that nobody has any more, the ttl
    passes.
    """

    def __init__(self, held: _Held) -> None:
        self._held = weakref.ref(held)
        self._interval = held._ttl / 3
        self._stopping = threading.Event()
        # Daemon: a lock that is still held does not keep the process from ending.
        self._thread = threading.Thread(
            target=self._loop, name=f"kvdb-extend-{held.name!r}", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """End the thread, and wait until it has ended."""
        self._stopping.set()
        self._thread.join()

    def _loop(self) -> None:
        while not self._stopping.wait(self._interval):
            held = self._held()
            if held is None or not held._extend_again():
                return
            del held


class _Held(Lease):
    """A lease for programs that block."""

    _extender: _Extender | None = None

    def acquire(self) -> None:
        """Take it, waiting as long as `wait` allows.

        Raises TimedOut if it was not free in time, and RuntimeError if this object holds it
        already. After Disconnected nobody may be able to take it until its ttl has passed.
        """
        run(self._client, self._acquiring())
        if self._extends_itself:
            self._extender = _Extender(self)

    def release(self) -> None:
        """Give it back. Raises LockLost if it was no longer ours, RuntimeError if it never was."""
        extender, self._extender = self._extender, None
        if extender is not None:
            extender.stop()
        run(self._client, self._releasing())

    def extend(self, ttl: Duration | None = None) -> None:
        """Keep it for `ttl` seconds from now at least; without `ttl`, for as long as at first.

        Raises LockLost if it is no longer ours.
        """
        run(self._client, self._extending(ttl))

    def owned(self) -> bool:
        """Ask the server whether it is ours now."""
        return run(self._client, self._owning())

    def _extend_again(self) -> bool:
        """Extend it; tell whether there is anything to extend later on."""
        try:
            self.extend()
        except (LockLost, RuntimeError):
            return False
        except Error:
            pass  # the server may be back before the ttl has passed
        return True

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.release()
            return
        with contextlib.suppress(
            Error, RuntimeError
        ):  # what went wrong within the block tells more
            self.release()


class Lock(_Held):
    """A lock that at most one holder has: a thread, a process, a computer.

        with db.lock("invoices", ttl=30, wait=5):
            ...

    The key `name` holds a random token while it is taken, and expires after `ttl` seconds: a holder
    that dies holds it no longer than that, one that takes longer loses it, and is told when it
    releases (LockLost). With `extend` a thread extends it at every third of `ttl`, until it is
    released, or the process or this object has gone.

    Only who acquired it can release it. It is not re-entrant: acquiring it twice by the same object
    raises RuntimeError, by another object of the same thread it waits. Threads share the lock by
    its name; make an object for each use of it.
    """

    def __init__(
        self,
        client: Any,
        name: Name,
        ttl: Duration = 10.0,
        wait: Duration | None = None,
        extend: bool = False,
    ) -> None:
        super().__init__(client, name, key_of_lock(name), ttl, wait, extend)

    def is_locked(self) -> bool:
        """Ask the server whether anybody holds it now."""
        return run(self._client, self._counting()) > 0


class Semaphore(_Held):
    """A semaphore: at most `limit` holders have a place at the same time.

        with db.semaphore("mail-server", limit=3, ttl=60):
            ...

    There is a key for each place, `name:1` and so on, held as a lock is: see `Lock`. An object
    holds one place; make an object for each use. It is meant for limits up to some hundreds: a try
    looks at every place.
    """

    def __init__(
        self,
        client: Any,
        name: Name,
        limit: int,
        ttl: Duration = 10.0,
        wait: Duration | None = None,
        extend: bool = False,
    ) -> None:
        super().__init__(client, name, keys_of_semaphore(name, limit), ttl, wait, extend)

    def taken(self) -> int:
        """Ask the server how many places are taken now."""
        return run(self._client, self._counting())
