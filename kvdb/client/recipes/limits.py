"""Rate limits that threads and processes share through the server."""

from __future__ import annotations

import functools
import inspect
import random
from collections.abc import Callable, Coroutine
from typing import Any, Final, NamedTuple, ParamSpec, TypeVar

from kvdb.client.commands import Name
from kvdb.client.recipes.errors import Throttled
from kvdb.client.recipes.leases import positive_seconds
from kvdb.client.recipes.scripts import LIMIT
from kvdb.client.recipes.steps import Pause, Steps, deadline_after, evaluate, run, run_async
from kvdb.client.times import Duration

P = ParamSpec("P")
T = TypeVar("T")

_MICROSECONDS: Final = 1_000_000  # in a second


class _State(NamedTuple):
    """What the script answers."""

    allowed: bool
    left: int
    retry_after: float
    reset_in: float


class _Limit:
    """The recipes of a limiter: see `steps`."""

    def __init__(self, client: Any, name: Name, limit: int, per: Duration) -> None:
        if limit < 1:
            raise ValueError(f"limit must be 1 or more, not {limit}")
        self.name = name
        self.limit = limit
        self.per = positive_seconds("per", per)
        self._client = client

    def _counting(self, cost: int) -> Steps[_State]:
        """Count a hit; 0: only look."""
        microseconds = max(1, round(self.per * _MICROSECONDS))
        # Sent twice it would count twice.
        allowed, left, retry, reset = yield evaluate(
            LIMIT, [self.name], self.limit, microseconds, cost, repeatable=cost == 0
        )
        left = max(0, left)  # below 0 if the limit was higher before
        return _State(bool(allowed), left, retry / _MICROSECONDS, reset / _MICROSECONDS)

    def _hitting(self, cost: int) -> Steps[bool]:
        if not 1 <= cost <= self.limit:
            raise ValueError(f"cost must be from 1 to the limit, {self.limit}, not {cost}")
        return (yield from self._counting(cost)).allowed

    def _passing(self, wait: bool | Duration) -> Steps[None]:
        """Count a hit, or wait until it is allowed: True, for ever; False or 0, not at all."""
        deadline = deadline_after(None if wait is True else wait)
        while True:
            state = yield from self._counting(1)
            if state.allowed:
                return
            if not deadline.allows(state.retry_after):
                seconds = state.retry_after
                text = f"{self.name!r}: no more than {self.limit} in {self.per:g} seconds"
                raise Throttled(f"{text}; try again in {seconds:.3g} seconds", seconds)
            # Not all who wait at the same moment; the least is what the server's clock tells apart.
            yield Pause(state.retry_after * random.uniform(1.0, 1.05) + 0.001)


class Limiter(_Limit):
    """Allows at most `limit` hits in any window of `per` seconds, whoever makes them.

        uploads = db.limiter(f"uploads:{user}", limit=100, per=60)
        if not uploads.hit():
            ...

    It is a sliding window, kept in one key by one script and the server's clock. It never allows
    more than `limit`, wherever a window begins. A hit is forgotten `per` seconds after it was made,
    or up to a 32nd of that later if others followed closely: those are remembered together, so that
    a key takes about 700 bytes, however high the limit. Refused hits do not count.
    """

    def hit(self, cost: int = 1) -> bool:
        """Count a hit, or one that counts as several, if it is allowed; tell whether it was.

        Raises ValueError if `cost` is below 1 or above the limit.
        """
        return run(self._client, self._hitting(cost))

    def left(self) -> int:
        """Return how many hits are allowed now."""
        return run(self._client, self._counting(0)).left

    def reset_in(self) -> float:
        """Return the seconds until all hits are allowed again, if none is made meanwhile."""
        return run(self._client, self._counting(0)).reset_in


class AsyncLimiter(_Limit):
    """A limiter as `Limiter`, for coroutines."""

    async def hit(self, cost: int = 1) -> bool:
        """Count a hit, or one that counts as several, if it is allowed; tell whether it was.

        Raises ValueError if `cost` is below 1 or above the limit.
        """
        return await run_async(self._client, self._hitting(cost))

    async def left(self) -> int:
        """Return how many hits are allowed now."""
        return (await run_async(self._client, self._counting(0))).left

    async def reset_in(self) -> float:
        """Return the seconds until all hits are allowed again, if none is made meanwhile."""
        return (await run_async(self._client, self._counting(0))).reset_in


def name_of_function(function: Callable[..., Any]) -> str:
    """Return the module and the qualified name of a function."""
    return f"{function.__module__}.{function.__qualname__}"


def throttled(
    client: Any,
    function: Callable[P, T],
    name: Name | None,
    limit: int,
    per: Duration,
    wait: bool | Duration,
) -> Callable[P, T]:
    """Return a function that is called within a limit. Raises TypeError for a coroutine function."""
    if inspect.iscoroutinefunction(function):
        raise TypeError(f"{function.__qualname__} is a coroutine function: use an AsyncClient")
    passage = _passage(client, function, name, limit, per)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        run(client, passage._passing(wait))
        return function(*args, **kwargs)

    return call


def throttled_async(
    client: Any,
    function: Callable[P, Coroutine[Any, Any, T]],
    name: Name | None,
    limit: int,
    per: Duration,
    wait: bool | Duration,
) -> Callable[P, Coroutine[Any, Any, T]]:
    """Return a coroutine function that is called within a limit. Raises TypeError for another."""
    if not inspect.iscoroutinefunction(function):
        raise TypeError(f"{function.__qualname__} is not a coroutine function: use a Client")
    passage = _passage(client, function, name, limit, per)

    @functools.wraps(function)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        await run_async(client, passage._passing(wait))
        return await function(*args, **kwargs)

    return call


def _passage(
    client: Any, function: Callable[..., Any], name: Name | None, limit: int, per: Duration
) -> _Limit:
    if name is None:
        name = "throttle:" + name_of_function(function)
    return _Limit(client, name, limit, per)
