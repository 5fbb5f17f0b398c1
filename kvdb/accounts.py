"""The account of memory that is not entries: what clients hold, and what is done if it is too much.

What has arrived and is not answered, what is answered and not sent, what MULTI and START have
queued: all of it together is kept to a limit beside the budget for entries (`--max-client-mb`),
so that no client can cost an entry. While it is over the limit, whoever holds something has to
wait before more is received of it, but for the one that holds the most: it is the nearest to its
end. If that does not help, the one that holds the most is ended; before anybody else, and without
patience, those that have given no password.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, Protocol

log = logging.getLogger(__name__)

SMALL: Final = 16 * 1024
"""Bytes that a connection may hold without anybody's notice: nearly every request is smaller."""

PATIENCE: Final = 2.0
"""Seconds over the limit after which the client that holds the most is ended."""

_TOO_MUCH: Final = 1.25  # times the limit: then nobody waits for patience to end


class Client(Protocol):
    """What the account has to know of a client."""

    held: int
    """Bytes, as last reported. Only the account changes it."""
    address: str
    closing: bool
    authenticated: bool
    no_evict: bool
    """Not to be ended because of what it holds, and not to wait for it (CLIENT NO-EVICT)."""
    close: Callable[[], None]

    @property
    def is_replica(self) -> bool:
        """Whether it gets our stream: that has a limit of its own, and nobody else is to pay."""


class Accounts:
    """Who holds how much. `_changed` guards all of it; to end a client, its server's lock is taken
    under it for a moment."""

    def __init__(
        self, limit: Callable[[], int], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`limit()` is how many bytes clients may hold together; 0 means no limit."""
        self._limit = limit
        self._monotonic = monotonic
        self._changed = threading.Condition()
        self._holders: dict[int, Client] = {}  # by id(): those that hold more than nothing
        self._over_since: float | None = None
        self.held = 0
        """What all clients hold together, in bytes."""
        self.ended = 0
        """Clients ended because they held too much."""

    def report(self, client: Client, held: int) -> None:
        """Say what a client holds now; its own thread calls this, and at last with 0."""
        if held <= SMALL or client.is_replica:
            held = 0
        if held == client.held:
            return
        with self._changed:
            self.held += held - client.held
            client.held = held
            if held:
                self._holders[id(client)] = client
            else:
                self._holders.pop(id(client), None)
            if not self._is_over_locked():
                self._over_since = None
                self._changed.notify_all()
            elif self._over_since is None:
                self._over_since = self._monotonic()

    @property
    def is_over(self) -> bool:
        """Whether clients hold more than they may."""
        with self._changed:
            return self._is_over_locked()

    def _is_over_locked(self) -> bool:
        limit = self._limit()
        return bool(limit) and self.held > limit

    def must_wait(self, client: Client) -> bool:
        """Tell whether nothing more is to be received of this client now, because of what is held."""
        if not client.held or self._over_since is None:
            return False
        with self._changed:
            return self._must_wait_locked(client)

    def wait_for_room(self, client: Client) -> None:
        """Wait, before more is received of a client, as long as it must."""
        if self.must_wait(client):
            with self._changed:
                while self._must_wait_locked(client):
                    self._changed.wait(0.1)

    def _must_wait_locked(self, client: Client) -> bool:
        if not self._is_over_locked() or client.closing or client.no_evict:
            return False
        worst = self._worst_locked()
        if worst is client and client.authenticated and self.held <= self._limit() * _TOO_MUCH:
            return False
        self._relieve_locked()
        return True

    def relieve(self) -> None:
        """One pass of what is to be called each second: end who holds the most, if it is time."""
        with self._changed:
            self._relieve_locked()

    def _relieve_locked(self) -> None:
        if not self._is_over_locked() or self._over_since is None:
            return
        worst = self._worst_locked()
        if worst is None or worst.closing:
            return
        impatient = self._monotonic() - self._over_since > PATIENCE or not worst.authenticated
        if not (impatient or self.held > self._limit() * _TOO_MUCH):
            return
        self.ended += 1
        worst.closing = True
        log.warning(
            "client %s: ended, because it holds %d bytes of %d that clients may hold "
            "together (--max-client-mb)",
            worst.address,
            worst.held,
            self._limit(),
        )
        worst.close()
        self._over_since = self._monotonic()  # its end takes a moment

    def _worst_locked(self) -> Client | None:
        holders = [client for client in self._holders.values() if not client.no_evict]
        # Strangers go first: they could have somebody else ended.
        return max(
            holders, key=lambda client: (not client.authenticated, client.held), default=None
        )
