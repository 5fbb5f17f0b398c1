"""What the snapshot and the journal have in common, seen from the sessions."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple, Protocol

log = logging.getLogger(__name__)


class PersistenceError(Exception):
    """The data cannot be written or read; the text says why, and what can be done."""


class SaveInProgress(Exception):
    """Another thread is saving already."""


class LoadingInterrupted(Exception):
    """Somebody wants the server to stop before it has loaded its data."""


class Progress:
    """Says in the log how far loading has come, and ends it when it is no longer wanted."""

    EVERY: Final = 5.0
    """Seconds between two lines."""

    def __init__(
        self,
        path: Path,
        interrupted: Callable[[], bool] = lambda: False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path, self._interrupted, self._monotonic = path, interrupted, monotonic
        self._next_line = monotonic() + self.EVERY

    def report(self, entries: int) -> None:
        """Called now and then with the number of entries loaded so far."""
        if self._interrupted():
            raise LoadingInterrupted
        if self._monotonic() >= self._next_line:
            log.info("%s: %s entries loaded so far", self._path, f"{entries:,}")
            self._next_line += self.EVERY


ATTEMPTS: Final = 5
"""How often a request is answered anew because others have changed what it saw, and the disk has
refused that."""


class Seen(NamedTuple):
    """What a reply depends on: steps of the change feed."""

    wrote: int
    """The last step of its own; 0: it has changed nothing."""
    undos: int
    """How often the disk had refused something before it was made."""
    last: int
    """The last step of anybody when it had been made."""


class Persistence(Protocol):
    """Keeps a store's entries on disk."""

    path: Path
    last_save: float
    """Unix seconds."""
    last_duration: float | None
    """Seconds that the last save took."""
    last_error: str | None
    """Of the last save; None if it went well."""
    failing_since: float | None
    """When the first save failed of those that have failed since one went well, in Unix seconds."""
    saves: int

    @property
    def changes_since_save(self) -> int:
        """How many changes are not on disk yet."""

    @property
    def age(self) -> float:
        """Seconds since the oldest change that is not on disk; 0.0 if all is."""

    @property
    def held_bytes(self) -> int:
        """What a save under way, or a queue of changes, takes beside the store."""

    @property
    def in_progress(self) -> bool:
        """Whether somebody is saving now."""

    def save(self) -> None:
        """Put everything on disk now. Raises SaveInProgress or PersistenceError."""

    def save_at_end(self) -> None:
        """As save(), but wait for a save under way instead of refusing."""

    def save_soon(self, schedule: bool = False) -> bool:
        """Ask for that in the background; False if one is under way or asked for already.

        With `schedule` another one follows the one under way.
        """

    def interval_changed(self) -> None:
        """Look at the configured interval again."""

    # --- replies that wait for the disk --------------------------------------------------

    @property
    def waits(self) -> bool:
        """Whether a reply has to wait until all that it depends on is on disk."""

    def arrive(self) -> int:
        """Say that somebody will ask for the outcome of steps from now on; return a ticket."""

    def leave(self, ticket: int) -> None:
        """Give a ticket back: its holder has heard all that it wanted to know."""

    @property
    def undos(self) -> int:
        """How often the disk has refused something that was undone then."""

    @property
    def durable_step(self) -> int:
        """Number of the last step that is on disk, or has been undone."""

    def outcome(self, seen: Seen) -> bool:
        """Tell whether all of that is on disk; False if the disk refused some and it was undone.

        That is known once `durable_step` has come so far.
        """

    def wait_until_durable(self, seen: Seen) -> bool:
        """As outcome(), once that is known."""

    on_progress: Callable[[], None]
    """Called when `durable_step` has moved on, by the thread that writes."""

    # --- writers that wait for the disk --------------------------------------------------

    @property
    def congested(self) -> bool:
        """Whether so much waits for the disk that whoever writes has to wait, too."""

    longest_wait: float
    """Seconds that one of them has to wait at most, before it may write once more."""

    def hurry(self) -> None:
        """Say that somebody waits because of that."""

    def wait_for_room(self) -> None:
        """Wait as long as whoever writes has to."""
