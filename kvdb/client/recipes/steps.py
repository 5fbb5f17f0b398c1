"""How a recipe is written once, for clients that block and for clients that are awaited.

A recipe is a generator. It yields steps, a request or a pause, and gets the result of each. `run`
carries the steps out one after another; `run_async` does the same, and awaits each of them.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Final, NamedTuple, TypeVar

from kvdb.client.command import Command
from kvdb.client.commands import Name, Word, encode_word
from kvdb.client.pauses import Pauses
from kvdb.client.times import Duration, seconds_of

T = TypeVar("T")

_FIRST_PAUSE: Final = 0.005  # seconds between two tries
_LONGEST_PAUSE: Final = 0.1

# Tests put others in their place, which do not wait.
_monotonic = time.monotonic
_sleep = time.sleep


class Pause(NamedTuple):
    """A step: wait."""

    seconds: float


Step = Pause | Callable[[Any], Any]
"""A pause, or what is called with the client; `run_async` awaits its result."""

Steps = Generator[Step, Any, T]
"""A recipe whose result is a `T`."""


def ask(client: Any, request: list[bytes], repeatable: bool) -> Any:
    """Have a client carry out a request; return its reply as it is, or what is to be awaited."""
    return client._run(Command(request, lambda reply: reply, repeatable))


def evaluate(
    script: bytes, names: Sequence[Name], *arguments: Word, repeatable: bool = True
) -> Step:
    """Return the step that carries out a script on these keys; its result is the reply.

    `repeatable`: it may be sent again when the connection broke before the reply came.
    """

    def step(client: Any) -> Any:
        request = [b"EVAL", script, b"%d" % len(names), *map(client._name, names)]
        request += map(encode_word, arguments)
        return ask(client, request, repeatable)

    return step


def run(client: Any, steps: Steps[T]) -> T:
    """Carry out a recipe and return its result. Errors of a step are raised within the recipe."""
    resume: Callable[[Any], Step] = steps.send
    result: Any = None
    while True:
        try:
            step = resume(result)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        try:
            result = _sleep(step.seconds) if isinstance(step, Pause) else step(client)
            resume = steps.send
        except BaseException as error:
            result, resume = error, steps.throw


async def run_async(client: Any, steps: Steps[T]) -> T:
    """As `run`, but await each step. A cancellation, too, is raised within the recipe."""
    import asyncio  # who has no coroutines does not wait for it to be imported

    resume: Callable[[Any], Step] = steps.send
    result: Any = None
    while True:
        try:
            step = resume(result)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        try:
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                result = None
            else:
                result = await step(client)
            resume = steps.send
        except GeneratorExit:  # this coroutine is thrown away: nothing can be awaited any more
            steps.close()
            raise
        except BaseException as error:
            result, resume = error, steps.throw


class Deadline(NamedTuple):
    """A moment of the monotonic clock, or none."""

    at: float | None

    def allows(self, seconds: float) -> bool:
        """Tell whether waiting for so long would end in time."""
        return self.at is None or _monotonic() + seconds <= self.at

    def left(self) -> float | None:
        """Return the seconds until then; None if there is no such moment."""
        return None if self.at is None else self.at - _monotonic()


def deadline_after(wait: Duration | None) -> Deadline:
    """Return the moment after such a time; None: never."""
    return Deadline(None if wait is None else _monotonic() + seconds_of(wait))


def pauses(deadline: Deadline) -> Iterator[Pause]:
    """Yield pauses between tries. They grow, vary, and together last until the deadline."""
    growing = Pauses(_FIRST_PAUSE, _LONGEST_PAUSE)
    while True:
        seconds = growing.next()
        left = deadline.left()
        if left is not None and left <= 0:
            return
        yield Pause(seconds if left is None else min(seconds, left))


def new_token() -> bytes:
    """Return bytes that nobody else has: 32 hexadecimal digits."""
    return secrets.token_hex(16).encode()
