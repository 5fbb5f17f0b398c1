"""A script that is being run, and what the machine that runs it has to know of its surroundings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from kvdb.config import Config
from kvdb.replies import Reply
from kvdb.store import Store

if TYPE_CHECKING:
    from kvdb.scripting.scripts import Script


@dataclass
class Running:
    """A script that is being run, and for whom."""

    script: Script
    session: Any
    read_only: bool
    began: float
    wrote: bool = False
    resp: int = 2
    ended_by: str | None = None
    """Why it has to end."""
    memory: int | None = None
    """What the process took beside entries when it was looked at first."""


Carrier = Callable[[Any, list[bytes], Running], Reply]


class Host(Protocol):
    """For whom a machine runs scripts: see `Engine`."""

    store: Store
    config: Config
    monotonic: Callable[[], float]
    version: str
    running: Running | None
    stopping: bool
    is_busy: bool
    serve_others: Callable[[], bool]
    resp: int

    def call(self, words: list[bytes]) -> Reply:
        """Carry out a command for the running script. Raises CommandError."""

    def may(self, words: list[bytes]) -> bool:
        """Tell whether the running script's user may do that. Raises CommandError."""

    def change_busy(self, is_busy: bool) -> None:
        """Have all others refused from now on, or not any more."""
