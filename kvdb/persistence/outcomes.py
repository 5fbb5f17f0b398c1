"""What has become of each step of the change feed: on disk, undone, or not decided yet."""

from __future__ import annotations

import threading

from kvdb.persistence import Seen


class Outcomes:
    """Steps that were told, and those that the disk has decided about.

    The journal's condition guards all of it: a method ending in _locked expects its caller to
    hold it, the others take it, and whoever moves `durable` notifies it. Each of the numbers may
    be looked at without it, and is a moment old then.
    """

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self.told = 0
        """Number of the last step that the feed has told."""
        self.durable = 0
        """Number of the last step that is on disk, or has been undone."""
        self._undone: list[range] = []  # steps that were undone because the disk refused
        self._undos_forgotten = 0  # how many have left that list
        self._tickets: dict[int, int] = {}  # number -> how many undos there were when it was taken
        self._next_ticket = 0

    @property
    def undos(self) -> int:
        """How often the disk has refused something that was undone then."""
        return self._undos_forgotten + len(self._undone)

    def arrive(self) -> int:
        """Say that somebody will ask for the outcome of steps from now on; return a ticket."""
        with self._changed:
            self._next_ticket += 1
            self._tickets[self._next_ticket] = self.undos
            return self._next_ticket

    def leave(self, ticket: int) -> None:
        """Give a ticket back; outcomes that nobody can ask for any more are forgotten."""
        with self._changed:
            del self._tickets[ticket]
            needed = min(self._tickets.values(), default=self.undos)
            del self._undone[: needed - self._undos_forgotten]
            self._undos_forgotten = needed

    def outcome(self, seen: Seen) -> bool:
        """Tell whether all of that is on disk; False if the disk refused some and it was undone.

        A change was undone if its step was. Whatever else a reply tells may have been taken from
        any step that was not on disk yet: so it is in doubt if anything was undone since.
        """
        wrote, undos, last = seen
        with self._changed:
            since = self._undone[undos - self._undos_forgotten :]
            if wrote:
                return not any(wrote in steps for steps in since)
            return all(steps.start > last for steps in since)

    def wait_until_durable(self, seen: Seen) -> bool:
        """As outcome(), once that is known."""
        with self._changed:
            self._changed.wait_for(lambda: self.durable >= (seen.wrote or seen.last))
        return self.outcome(seen)

    def undo_locked(self) -> None:
        """Every step that was not decided yet has been undone."""
        self._undone.append(range(self.durable + 1, self.told + 1))
        self.durable = self.told
        self._changed.notify_all()
