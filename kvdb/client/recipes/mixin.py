"""The recipes as methods of clients. Each module is imported when one of its recipes is used."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from kvdb.client.commands import Name
from kvdb.client.times import Duration

if TYPE_CHECKING:
    from kvdb.client.recipes.async_locks import AsyncLock, AsyncSemaphore
    from kvdb.client.recipes.caching import AsyncCached, Cached
    from kvdb.client.recipes.limits import AsyncLimiter, Limiter
    from kvdb.client.recipes.locks import Lock, Semaphore

P = ParamSpec("P")
T = TypeVar("T")
AsyncFunction = Callable[P, Coroutine[Any, Any, T]]


class Recipes:
    """The recipes of `Client`."""

    def lock(
        self,
        name: Name,
        ttl: Duration = 10.0,
        wait: Duration | None = None,
        extend: bool = False,
    ) -> Lock:
        """Return a lock: `with db.lock("invoices", ttl=30, wait=5): ...`; see `Lock`.

        `ttl`: seconds after which it is free again, whatever became of its holder. `wait`: seconds
        to wait for it, then TimedOut is raised; None: for ever, 0: not at all. `extend`: a thread
        extends it while it is held.
        """
        from kvdb.client.recipes.locks import Lock

        return Lock(self, name, ttl, wait, extend)

    def semaphore(
        self,
        name: Name,
        limit: int,
        ttl: Duration = 10.0,
        wait: Duration | None = None,
        extend: bool = False,
    ) -> Semaphore:
        """Return a semaphore that at most `limit` hold at once; otherwise as a lock."""
        from kvdb.client.recipes.locks import Semaphore

        return Semaphore(self, name, limit, ttl, wait, extend)

    def limiter(self, name: Name, limit: int, per: Duration) -> Limiter:
        """Return a limiter: at most `limit` hits in any `per` seconds; see `Limiter`."""
        from kvdb.client.recipes.limits import Limiter

        return Limiter(self, name, limit, per)

    def throttle(
        self,
        name: Name | None = None,
        *,
        limit: int,
        per: Duration,
        wait: bool | Duration = False,
    ) -> Callable[[Callable[P, T]], Callable[P, T]]:
        """Return a decorator: the function is called at most `limit` times in any `per` seconds.

        More calls raise Throttled, which has `retry_after`; or they wait: for ever (True), or for
        so many seconds at most. All functions with one name share its limit; by default the name
        is "throttle:", the module and the qualified name. A call that raises counts, too.
        """

        def decorate(function: Callable[P, T]) -> Callable[P, T]:
            from kvdb.client.recipes.limits import throttled

            return throttled(self, function, name, limit, per, wait)

        return decorate

    def cached(
        self,
        *,
        ttl: Duration,
        key: str | Callable[..., str] | None = None,
        stale: Duration | None = None,
        tags: str | Iterable[str] = (),
        guard: Duration = 30.0,
    ) -> Callable[[Callable[P, T]], Cached[P, T]]:
        """Return a decorator: results of the function are kept on the server for `ttl` seconds.

            @db.cached(ttl=60, key="user:{id}", tags=("users", "user:{id}"))
            def load_user(id): ...

            load_user(7)
            load_user.refresh(7), load_user.evict(7), load_user.key_of(7)
            db.evict("users")

        `key`: a format string of the parameters, or a function of the arguments that returns text.
        Without it the key is made of the function's module, its qualified name and its arguments.
        These may be None, bool, int, float, str, bytes, Decimal, Fraction, UUID, dates, times,
        members of an Enum, and lists, tuples, sets and dicts of them. Everything else is refused by
        TypeError, objects and `self` of methods included.

        Of those who miss at once, in whatever process, one computes; the others wait for the
        result. If it does not come within `guard` seconds, the next one computes; who has waited
        twice as long computes for itself. `guard` should exceed what the function takes.

        `stale`: seconds for which a result is still served after `ttl`, while one caller, who waits
        for it, computes a new one.

        `tags`: format strings; db.evict() of a tag makes all results with it misses. What is being
        computed during an eviction, or a refresh, is returned but not stored.

        None is a result as any other. An exception is not stored. A result comes back as the
        serializer reads it: by JSON a tuple as a list. refresh() and its like of a method take
        `self` as their first argument.
        """
        from kvdb.client.recipes.caching import Options, cached

        options = Options(ttl, key, stale, tags, guard)
        return lambda function: cached(self, function, options)

    def evict(self, *tags: str) -> None:
        """Make all cached results with any of these tags misses, in one step for all of them."""
        self.delete(*_keys_of_tags(tags))  # type: ignore[attr-defined]


class AsyncRecipes:
    """The recipes of `AsyncClient`: as those of `Client`, for coroutines."""

    def lock(
        self,
        name: Name,
        ttl: Duration = 10.0,
        wait: Duration | None = None,
        extend: bool = False,
    ) -> AsyncLock:
        """Return a lock: `async with db.lock("invoices"): ...`; see `Recipes.lock`.

        `extend`: a task extends it while it is held.
        """
        from kvdb.client.recipes.async_locks import AsyncLock

        return AsyncLock(self, name, ttl, wait, extend)

    def semaphore(
        self,
        name: Name,
        limit: int,
        ttl: Duration = 10.0,
        wait: Duration | None = None,
        extend: bool = False,
    ) -> AsyncSemaphore:
        """Return a semaphore that at most `limit` hold at once; otherwise as a lock."""
        from kvdb.client.recipes.async_locks import AsyncSemaphore

        return AsyncSemaphore(self, name, limit, ttl, wait, extend)

    def limiter(self, name: Name, limit: int, per: Duration) -> AsyncLimiter:
        """Return a limiter: at most `limit` hits in any `per` seconds; see `Limiter`."""
        from kvdb.client.recipes.limits import AsyncLimiter

        return AsyncLimiter(self, name, limit, per)

    def throttle(
        self,
        name: Name | None = None,
        *,
        limit: int,
        per: Duration,
        wait: bool | Duration = False,
    ) -> Callable[[AsyncFunction[P, T]], AsyncFunction[P, T]]:
        """Return a decorator for coroutine functions; see `Recipes.throttle`."""

        def decorate(function: AsyncFunction[P, T]) -> AsyncFunction[P, T]:
            from kvdb.client.recipes.limits import throttled_async

            return throttled_async(self, function, name, limit, per, wait)

        return decorate

    def cached(
        self,
        *,
        ttl: Duration,
        key: str | Callable[..., str] | None = None,
        stale: Duration | None = None,
        tags: str | Iterable[str] = (),
        guard: Duration = 30.0,
    ) -> Callable[[AsyncFunction[P, T]], AsyncCached[P, T]]:
        """Return a decorator for coroutine functions; see `Recipes.cached`."""
        from kvdb.client.recipes.caching import Options, cached_async

        options = Options(ttl, key, stale, tags, guard)
        return lambda function: cached_async(self, function, options)

    async def evict(self, *tags: str) -> None:
        """Make all cached results with any of these tags misses, in one step for all of them."""
        await self.delete(*_keys_of_tags(tags))  # type: ignore[attr-defined]


def _keys_of_tags(tags: Iterable[str]) -> list[str]:
    from kvdb.client.recipes.caching import key_of_tag

    return [key_of_tag(tag) for tag in tags]
