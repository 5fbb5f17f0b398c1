"""What a connection waits for before it goes on."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from kvdb.accounts import SMALL
from kvdb.protocols import Dialect
from kvdb.server.loop import EventLoop

if TYPE_CHECKING:
    from kvdb.commands.instance import Instance
    from kvdb.commands.session import Session
    from kvdb.server.outgoing import Outgoing


class Waits:
    """The part of a connection that knows what has to happen before more is received or sent."""

    __slots__ = (
        "_busy", "_dialect", "_held_back", "_instance", "_loop", "_out", "_socket",
        "_waits_until", "session",
    )  # fmt: skip

    _out: Outgoing

    def __init__(
        self, connection: socket.socket, loop: EventLoop, session: Session, dialect: Dialect
    ) -> None:
        self.session = session
        self._instance: Instance = session.instance
        self._socket, self._loop, self._dialect = connection, loop, dialect
        self._busy = False  # a thread is at work for it
        self._held_back: tuple[float, bytes] | None = None  # replies, and when they are due
        self._waits_until = 0.0  # it has written more than others keep up with: see _must_wait()

    def _must_send(self) -> bool:
        """Tell whether something has to be sent before anything more is answered."""
        return self._out.has_unsent or self._held_back is not None

    def _must_wait(self) -> bool:
        """Tell whether nothing more is to be received now: too much waits already elsewhere."""
        session = self.session
        if self._waits_until:
            if self._loop.is_congested and self._loop.now < self._waits_until:
                return True
            self._waits_until = 0.0
        if session.held:
            held = self._dialect.held_bytes + session.queued_bytes + self._out.size
            self._instance.accounts.report(session, held)
            return self._instance.accounts.must_wait(session)
        return False

    def _is_gone(self) -> bool:
        """Tell whether the client has left while it waits, so that nothing is read of it.

        (Over TLS its farewell looks like data: then it is found out when the waiting is over.)
        """
        try:
            return not self._socket.recv(1, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            return False

    def _is_in_the_middle(self) -> bool:
        """Tell whether a reply is half made, half sent, or has to wait.

        Nothing that is pushed may overtake it: what confirms a subscription comes before its
        first message, and what was read before the message that it has changed: see tracking.
        """
        dialect = self._dialect
        more = dialect.more and self.session.waiting is None
        return bool(self._busy or more or dialect.undecided or self._held_back)

    def _report(self, answered: int) -> None:
        """Tell the account what is held now that so many bytes were answered."""
        session = self.session
        held = self._dialect.held_bytes + session.queued_bytes
        if held > SMALL or answered > SMALL or session.held:
            self._instance.accounts.report(session, held + self._out.size)
