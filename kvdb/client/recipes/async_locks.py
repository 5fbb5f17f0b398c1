"""Locks and semaphores for coroutines: as those in `locks`, but awaited."""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from types import TracebackType
from typing import Any, Self

from kvdb.client.commands import Name
from kvdb.client.errors import Error
from kvdb.client.recipes.errors import LockLost
from kvdb.client.recipes.leases import Lease, key_of_lock, keys_of_semaphore
from kvdb.client.recipes.steps import run_async
from kvdb.client.times import Duration


async def _extend_regularly(reference: weakref.ref[_AsyncHeld], interval: float) -> None:
    """Extend a lease every `interval` seconds, until it is lost or nobody has it any more."""
    while True:
        await asyncio.sleep(interval)
        held = reference()
        if held is None or not await held._extend_again():
            return
        del held


class _AsyncHeld(Lease):
    """A lease for coroutines."""

    _extender: asyncio.Task[None] | None = None

    async def acquire(self) -> None:
        """Take it, waiting as long as `wait` allows.

        Raises TimedOut if it was not free in time, and RuntimeError if this object holds it
        already. Cancelled, it gives back what it may have taken.
        """
        await run_async(self._client, self._acquiring())
        if self._extends_itself:
            extending = _extend_regularly(weakref.ref(self), self._ttl / 3)
            self._extender = asyncio.create_task(extending, name=f"kvdb-extend-{self.name!r}")

    async def release(self) -> None:
        """Give it back. Raises LockLost if it was no longer ours, RuntimeError if it never was."""
        extender, self._extender = self._extender, None
        if extender is not None:
            extender.cancel()
            await asyncio.wait([extender])  # its cancellation is not ours
        await run_async(self._client, self._releasing())

    async def extend(self, ttl: Duration | None = None) -> None:
        """Keep it for `ttl` seconds from now at least; without `ttl`, for as long as at first.

        Raises LockLost if it is no longer ours.
        """
        await run_async(self._client, self._extending(ttl))

    async def owned(self) -> bool:
        """Ask the server whether it is ours now."""
        return await run_async(self._client, self._owning())

    async def _extend_again(self) -> bool:
        """Extend it; tell whether there is anything to extend later on."""
        try:
            await self.extend()
        except (LockLost, RuntimeError):
            return False
        except Error:
            pass  # the server may be back before the ttl has passed
        return True

    async def __aenter__(self) -> Self:
        await self.acquire()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            await self.release()
            return
        with contextlib.suppress(
            Error, RuntimeError
        ):  # what went wrong within the block tells more
            await self.release()


class AsyncLock(_AsyncHeld):
    """A lock as `Lock`, for coroutines: `async with db.lock("invoices"): ...`.

    With `extend` a task extends it: a coroutine that keeps the event loop busy for longer than
    `ttl` loses the lock.
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

    async def is_locked(self) -> bool:
        """Ask the server whether anybody holds it now."""
        return await run_async(self._client, self._counting()) > 0


class AsyncSemaphore(_AsyncHeld):
    """A semaphore as `Semaphore`, for coroutines."""

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

    async def taken(self) -> int:
        """Ask the server how many places are taken now."""
        return await run_async(self._client, self._counting())
