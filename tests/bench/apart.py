"""A function call in a process of its own, so that it does not share our interpreter."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Generic, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_PATIENCE = 180.0  # seconds; no call takes half of that

# A fresh interpreter on every system, and nothing of ours in its memory.
_context = multiprocessing.get_context("spawn")


class Apart(Generic[T]):
    """A call under way in another process. It ends with this process, if not before."""

    def __init__(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> None:
        """Start it. `function` is one of a module; arguments and result can be pickled."""
        self._outcome, theirs = _context.Pipe(duplex=False)
        self._process = _context.Process(
            target=_call, args=(theirs, function, arguments, named), daemon=True
        )
        self._process.start()
        theirs.close()

    def is_done(self) -> bool:
        return self._outcome.poll()

    def result(self) -> T:
        """Wait for the end; return what the function returned, or raise what it raised."""
        if not self._outcome.poll(_PATIENCE):
            raise TimeoutError("a process of the benchmark takes too long")
        outcome = self._outcome.recv()  # EOFError: it was killed
        self._process.join()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[no-any-return]


def apart(function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """Call `function` in a process of its own and wait for what it returns."""
    return Apart(function, *arguments, **named).result()


def _call(
    outcome: Connection, function: Callable[..., Any], arguments: Any, named: dict[str, Any]
) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C: the main process ends us
    try:
        outcome.send(function(*arguments, **named))
    except Exception as error:
        outcome.send(error)
