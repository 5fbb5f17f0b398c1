"""What locks and semaphores have in common: a key that is ours for a time."""

from __future__ import annotations

import contextlib
import random
import threading
from typing import Any

from kvdb.client.commands import Name, encode_name
from kvdb.client.errors import Error, TimedOut
from kvdb.client.recipes.errors import LockLost
from kvdb.client.recipes.scripts import COUNT, EXTEND, GIVE_BACK, HOLDS, TAKE
from kvdb.client.recipes.steps import Steps, deadline_after, evaluate, new_token, pauses
from kvdb.client.times import Duration, milliseconds, seconds_of


def positive_seconds(name: str, duration: Duration) -> float:
    """Return a duration in seconds. Raises ValueError if there is nothing of it."""
    seconds = seconds_of(duration)
    if not seconds > 0:
        raise ValueError(f"{name} must be more than 0 seconds, not {seconds}")
    return seconds


class Lease:
    """One of some keys, held for a time by whoever knows the token that it holds.

    The methods are recipes: see `steps`. `_guard` guards `_token`.
    """

    def __init__(
        self,
        client: Any,
        name: Name,
        keys: list[bytes],
        ttl: Duration,
        wait: Duration | None,
        extend: bool,
    ) -> None:
        self.name = name
        self._client = client
        self._keys = keys
        self._ttl = positive_seconds("ttl", ttl)
        self._wait = None if wait is None else seconds_of(wait)
        self._extends_itself = extend
        self._guard = threading.Lock()
        self._token: bytes | None = None  # of what we hold or are waiting for
        self._key = keys[0]  # the one that we hold

    def _acquiring(self) -> Steps[None]:
        token = new_token()
        with self._guard:
            if self._token is not None:
                raise RuntimeError(f"{self._what()} is held by this object: it is not re-entrant")
            self._token = token
        try:
            first = random.randrange(len(self._keys))
            take = evaluate(TAKE, self._keys, token, milliseconds(self._ttl), first)
            remaining = pauses(deadline_after(self._wait))
            while not (place := (yield take)):
                pause = next(remaining, None)
                if pause is None:
                    raise TimedOut(f"{self._what()} was not free within {self._wait:g} seconds")
                yield pause
            self._key = self._keys[place - 1]
        except (Error, GeneratorExit):
            self._token = None
            raise
        except BaseException:
            # A cancelled request may have been carried out all the same.
            with contextlib.suppress(Error):
                yield evaluate(GIVE_BACK, self._keys, token)
            self._token = None
            raise

    def _releasing(self) -> Steps[None]:
        with self._guard:
            token, self._token = self._token, None
        if token is None:
            raise RuntimeError(f"{self._what()} was not acquired")
        if not (yield evaluate(GIVE_BACK, [self._key], token, repeatable=False)):
            raise self._lost()

    def _extending(self, ttl: Duration | None) -> Steps[None]:
        seconds = self._ttl if ttl is None else positive_seconds("ttl", ttl)
        token = self._token
        if token is None:
            raise RuntimeError(f"{self._what()} was not acquired")
        if not (yield evaluate(EXTEND, [self._key], token, milliseconds(seconds))):
            raise self._lost()

    def _owning(self) -> Steps[bool]:
        token = self._token
        return token is not None and bool((yield evaluate(HOLDS, [self._key], token)))

    def _counting(self) -> Steps[int]:
        count: int = yield evaluate(COUNT, self._keys)
        return count

    def _what(self) -> str:
        return f"{type(self).__name__.removeprefix('Async').lower()} {self.name!r}"

    def _lost(self) -> LockLost:
        return LockLost(f"{self._what()} was lost: its ttl had passed, or it was deleted")


def key_of_lock(name: Name) -> list[bytes]:
    """Return the key of a lock, in a list."""
    return [encode_name(name)]


def keys_of_semaphore(name: Name, limit: int) -> list[bytes]:
    """Return a key for each place of a semaphore: name:1, name:2, ... Raises ValueError for 0."""
    if limit < 1:
        raise ValueError(f"limit must be 1 or more, not {limit}")
    return [b"%s:%d" % (encode_name(name), number) for number in range(1, limit + 1)]
