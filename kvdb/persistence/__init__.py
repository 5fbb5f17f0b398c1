"""What the snapshot and the journal have in common, seen from the sessions."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class PersistenceError(Exception):
    """The data cannot be written or read; the text says why, and what can be done."""


class SaveInProgress(Exception):
    """Another thread is saving already."""


class Persistence(Protocol):
    """Keeps a store's entries on disk."""

    path: Path
    last_save: float
    """Unix seconds."""
    last_duration: float | None
    """Seconds that the last save took."""
    last_error: str | None
    """Of the last save; None if it went well."""
    saves: int

    @property
    def changes_since_save(self) -> int:
        """How many changes are not on disk yet."""

    @property
    def in_progress(self) -> bool:
        """Whether somebody is saving now."""

    def save(self) -> None:
        """Put everything on disk now. Raises SaveInProgress or PersistenceError."""

    def save_at_end(self) -> None:
        """As save(), but wait for a save under way instead of refusing."""

    def save_soon(self) -> bool:
        """Ask for that in the background; False if it has been asked for already."""

    def interval_changed(self) -> None:
        """Look at the configured interval again."""

    @property
    def waits(self) -> bool:
        """Whether a reply to a change has to wait until the change is on disk."""

    def take_step(self) -> int:
        """Return the number of this thread's last change if a reply has to wait for it, or 0."""

    def wait_until_durable(self, step: int) -> bool:
        """Wait until that change is on disk; False if the disk refused it and it was undone."""
