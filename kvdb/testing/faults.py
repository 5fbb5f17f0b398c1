"""What goes wrong when a test wants it to: errors, late answers, connections that end.

`Overseer.intervene` is where it happens: every request of every port passes there as long as
something is ordered. Otherwise nobody asks us, and requests take their usual way.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from kvdb.commands.overseer import Overseer
from kvdb.commands.session import Session
from kvdb.commands.table import TABLE, Command, Named, Operation, every_command, find
from kvdb.commands.waiting import MustWait, TakesLong, TimedWait
from kvdb.errors import CommandError, OutOfMemory

_MEANT_TOO: Final = {"INCR": "INCRBY", "DECR": "DECRBY", "EXPIRE": "PEXPIRE", "TTL": "PTTL"}
"""What client libraries send in place of a command: whoever names that one means this, too."""

_CODE_WORD: Final = re.compile(r"[A-Z]{2,}( |$)")

Happening = Callable[[Session, Callable[[], Any]], Any]
"""Called in place of carrying out a request, with its session and what would do it."""


@dataclass(eq=False)
class Fault:
    """What is to happen to the next requests of some commands."""

    commands: frozenset[str]  # names in the command table
    happen: Happening
    left: int  # requests
    within_a_step: bool = False  # also to what MULTI has queued, or a script calls


class Faults:
    """What has been ordered to go wrong. `_lock` guards `_waiting`.

    The server asks us about each request as long as something is ordered, and not otherwise.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: list[Fault] = []
        self._overseer: Overseer | None = None

    def attach(self, overseer: Overseer | None) -> None:
        """Have the faults happen to the requests of this server; None: of none."""
        with self._lock:
            self._overseer = overseer
            self._update_locked()

    def add(self, fault: Fault) -> None:
        """Order one more. Of several for the same request, the first in this order happens."""
        with self._lock:
            self._waiting.append(fault)
            self._update_locked()

    def clear(self) -> None:
        """Forget what has not happened yet."""
        with self._lock:
            self._waiting.clear()
            self._update_locked()

    def count(self) -> int:
        """Return how many requests something is still to happen to."""
        with self._lock:
            return sum(fault.left for fault in self._waiting)

    def _update_locked(self) -> None:
        overseer = self._overseer
        if overseer is not None:
            overseer.intervene = self._intervene if self._waiting else None
            overseer.update()

    def _intervene(
        self, session: Session, operation: Operation, request: Any, carry_out: Callable[[], Any]
    ) -> Any:
        """See `Overseer.intervene`."""
        # Without a request it is many of them, which had come in before anything was ordered.
        fault = None if request is None else self._take(_named(operation, request), session.in_exec)
        if fault is None:
            return carry_out()
        try:
            return fault.happen(session, carry_out)
        except MustWait as reason:
            if not isinstance(reason.waiting, _Never):
                self._put_back(fault)
            raise
        except TakesLong:  # it will come once more
            self._put_back(fault)
            raise

    def _take(self, commands: set[str], in_a_step: bool) -> Fault | None:
        with self._lock:
            for fault in self._waiting:
                if not fault.commands.isdisjoint(commands) and (
                    fault.within_a_step or not in_a_step
                ):
                    fault.left -= 1
                    if not fault.left:
                        self._waiting.remove(fault)
                        self._update_locked()
                    return fault
        return None

    def _put_back(self, fault: Fault) -> None:
        with self._lock:
            fault.left += 1
            if fault not in self._waiting:
                self._waiting.insert(0, fault)
                self._update_locked()


def _named(operation: Operation, request: Any) -> set[str]:
    """Return the commands that a request counts as."""
    if isinstance(operation, Named):
        return {find(words)[0].name for words in operation.needs(request)}
    assert isinstance(operation, Command)
    return {operation.name}


def names_of(command: str) -> frozenset[str]:
    """Return the names in the command table of what somebody means. Raises ValueError."""
    name = " ".join(command.upper().split())
    container, _, subcommand = name.partition(" ")
    row = TABLE.get(container.encode())
    if row is not None and subcommand:
        row = row.subcommands.get(subcommand.encode())
    if row is None:
        raise ValueError(f"there is no command {command!r}")
    aliases = {each.name for each in every_command() if each.handler is row.handler}
    subcommands = {each.name for each in row.subcommands.values()}
    meant_too = {_MEANT_TOO[name]} if name in _MEANT_TOO else set()
    return frozenset({name} | aliases | subcommands | meant_too)


# --- what happens ----------------------------------------------------------------------------


def refuse(error: str) -> Happening:
    """Answer with an error, in Redis's form. Raises ValueError if it is not one line."""
    if not _CODE_WORD.match(error):
        error = f"ERR {error}"
    if not error.isprintable():
        raise ValueError("an error is one line of text")

    def happen(session: Session, carry_out: Callable[[], Any]) -> Any:
        if session.last_command in ("exec", "commit") and not session.in_exec:
            _end_transaction(session)
        raise _refusal(error)

    return happen


def _refusal(text: str) -> CommandError:
    if not text.startswith("OOM "):
        return CommandError(text)
    refusal = OutOfMemory()  # HTTP and memcached have words of their own for it
    refusal.args = (text,)
    return refusal


def _end_transaction(session: Session) -> None:
    """Drop what it was to carry out, as any other refusal of EXEC or COMMIT does."""
    session.end_transaction()
    if (writes := session.end_writes()) is not None:
        writes.release()


def delay(seconds: float, stopping: threading.Event) -> Happening:
    """Carry it out, and answer so much later, or when the server is stopping. Raises ValueError."""
    if not seconds >= 0:
        raise ValueError(f"an answer cannot come {seconds} seconds later")

    def hold_back(session: Session) -> None:
        if session.outgoing is None:  # HTTP, with a thread for each connection
            stopping.wait(seconds)
        else:
            session.penalty += seconds

    def happen(session: Session, carry_out: Callable[[], Any]) -> Any:
        try:
            reply = carry_out()
        except TakesLong:
            raise
        except Exception:
            hold_back(session)
            raise
        hold_back(session)
        return reply

    return happen


class _Never(TimedWait):
    """What a request waits for whose connection is being closed."""


def disconnect(after: bool) -> Happening:
    """Close the connection instead of an answer; with `after`, carry it out before."""

    def happen(session: Session, carry_out: Callable[[], Any]) -> Any:
        if after:
            try:
                carry_out()
            except TakesLong:
                raise
            except Exception:  # refused: nobody will hear of it
                pass
        session.close()
        if session.outgoing is None:  # HTTP: closed already, so that nothing can be sent
            raise CommandError("ERR closed on purpose")
        # The event loop closes it when this request is over, so it must not be answered.
        raise MustWait(_Never(None, session.instance.monotonic))

    return happen
