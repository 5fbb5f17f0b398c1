"""Commands that are sent together."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TypeVar

from kvdb.client.command import Collecting, Command, Later, implement
from kvdb.client.commands import Commands
from kvdb.client.errors import Error, ServerError
from kvdb.client.serializers import Serializer, V
from kvdb.errors import CommandError

R = TypeVar("R")

Ask = Callable[[list[list[bytes]], bool], list[Any]]


class Collected:
    """What a pipeline has collected: requests, and what becomes of their replies."""

    def __init__(self, atomic: bool) -> None:
        self.atomic = atomic
        self.commands: list[tuple[Command[Any], Later[Any]]] = []

    def requests(self) -> list[list[bytes]]:
        """Return what is to be sent."""
        requests = [command.request for command, _ in self.commands if command.request]
        return [[b"MULTI"], *requests, [b"EXEC"]] if self.atomic and requests else requests

    def settle(self, replies: list[Any]) -> list[Any]:
        """Hand the replies out; return the results in their order, errors among them.

        Raises ServerError if nothing was carried out, because the server has refused all of it.
        """
        if self.atomic and replies:
            replies = _replies_of_exec(replies)
        remaining = iter(replies)
        results: list[Any] = []
        for command, later in self.commands:
            reply = next(remaining) if command.request else None
            try:
                if isinstance(reply, ServerError):
                    raise reply
                result = command.result(reply)
            except Error as error:
                result = error
            later.settle(result)
            results.append(result)
        return results


class NotCarriedOut(Exception):
    """A watched key has changed: EXEC has done nothing."""


def _replies_of_exec(replies: list[Any]) -> list[Any]:
    executed = replies[-1]
    if executed is None:
        raise NotCarriedOut
    if isinstance(executed, ServerError):
        refused = [each for each in replies[1:-1] if isinstance(each, ServerError)]
        raise refused[0] if refused else executed
    return [ServerError(each.text) if isinstance(each, CommandError) else each for each in executed]


def raise_first(results: list[Any]) -> None:
    """Raise the first error among results, with all of them in its `results`."""
    for result in results:
        if isinstance(result, Error):
            result.results = results
            raise result


@implement
class Pipeline(Commands[V], Collecting):
    """Collects commands and sends them together.

    Each method returns a `Later`, whose `value` is there once the pipeline was executed. Leaving
    the `with` block executes what has been collected since. For one thread. What was sent is never
    sent a second time; if nothing could be sent, it stays collected.
    """

    def __init__(
        self, ask: Ask, serializer: Serializer[V], prefix: bytes = b"", atomic: bool = False
    ) -> None:
        self._ask, self._serializer, self._prefix = ask, serializer, prefix
        self._collected = Collected(atomic)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self.execute()

    def __len__(self) -> int:
        return len(self._collected.commands)

    def _run(self, command: Command[R]) -> Later[R]:
        later: Later[R] = Later()
        self._collected.commands.append((command, later))
        return later

    def execute(self, *, return_errors: bool = False) -> list[Any]:
        """Send what has been collected and return the results in its order.

        If some of it went wrong (the server refused it, a value cannot be read), the rest was
        carried out all the same; then the first error is raised, with all that came in its
        `results`, or, with `return_errors`, each stands at its place in the list. What could not
        be sent stays collected.
        """
        collected, self._collected = self._collected, Collected(self._collected.atomic)
        requests = collected.requests()
        try:
            replies = self._ask(requests, False) if requests else []
        except Error as error:
            if not error.sent:
                collected.commands += self._collected.commands
                self._collected = collected
            raise
        results = collected.settle(replies)
        if not return_errors:
            raise_first(results)
        return results


def is_carried_out(pipeline: Pipeline[Any]) -> bool:
    """Execute a pipeline that depends on watched keys; tell whether they were as before."""
    try:
        pipeline.execute()
    except NotCarriedOut:
        return False
    return True
