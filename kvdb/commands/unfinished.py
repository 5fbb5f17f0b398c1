"""What a session has begun and not ended yet: MULTI, WATCH, START, SUBSCRIBE."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kvdb.commands.pending_writes import PendingWrites
from kvdb.commands.transaction import Transaction
from kvdb.pubsub import Subscriptions
from kvdb.store import Store
from kvdb.store.entry import Key

if TYPE_CHECKING:
    from kvdb.commands.instance import Instance


class Unfinished:
    """The part of a session that transactions and subscriptions need."""

    __slots__ = (
        "instance", "store", "subscriptions", "transaction", "watched", "watched_bytes", "writes",
    )  # fmt: skip

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.store: Store = instance.store
        self.watched: dict[Key, int] = {}  # key -> its version when it was watched
        self.watched_bytes = 0  # what these take, about
        self.transaction: Transaction | None = None
        self.writes: PendingWrites | None = None  # of an interactive transaction
        self.subscriptions: Subscriptions | None = None  # only the Hub changes it

    @property
    def queues(self) -> bool:
        """Whether queued_bytes is more than nothing."""
        return bool(self.transaction or self.writes or self.watched or self.subscriptions)

    @property
    def queued_bytes(self) -> int:
        """What all of it takes, about."""
        queued = self.transaction.bytes if self.transaction else 0
        queued += self.subscriptions.bytes if self.subscriptions else 0
        return queued + self.watched_bytes + (self.writes.held_bytes if self.writes else 0)

    def end_transaction(self) -> None:
        """Forget what MULTI has queued and what is watched."""
        self.transaction = None
        self.unwatch()

    def unwatch(self) -> None:
        """Forget what is watched."""
        for key in self.watched:
            self.store.unwatch(key)
        self.watched.clear()
        self.watched_bytes = 0

    def start_writes(self) -> None:
        """Begin an interactive transaction (START)."""
        limit = self.instance.config.max_request_bytes
        self.writes = PendingWrites(self.store, limit, self.instance.monotonic)

    def end_writes(self) -> PendingWrites | None:
        """Take the interactive transaction out; None if none is open. Release what is returned."""
        writes, self.writes = self.writes, None
        return writes
