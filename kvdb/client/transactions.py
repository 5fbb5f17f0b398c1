"""Transactions: a function that reads and decides, and writes that are one step if nobody came between."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from kvdb.client.command import AtOnce, Command, implement
from kvdb.client.commands import Commands, Name
from kvdb.client.connection import Connection
from kvdb.client.errors import Conflict, Disconnected, Error
from kvdb.client.near_reader import NearReader
from kvdb.client.pauses import Pauses
from kvdb.client.pipeline import Pipeline, is_carried_out
from kvdb.client.serializers import Serializer, V

if TYPE_CHECKING:
    from kvdb.client.client import Client

R = TypeVar("R")

FIRST_PAUSE: Final = 0.001  # seconds between two tries
LONGEST_PAUSE: Final = 0.05


def carry_out(
    client: Client[V], function: Callable[[Transaction[V]], R], watch: tuple[Name, ...], tries: int
) -> R:
    """See `Client.transaction`."""
    conflicts, pauses = 0, Pauses(FIRST_PAUSE, LONGEST_PAUSE)
    until = time.monotonic() + client._patience
    while conflicts < tries:
        try:
            with client._lent() as connection:
                transaction = Transaction(
                    connection, client._serializer, client._prefix, client._near
                )
                if watch:
                    transaction.command("WATCH", *map(client._name, watch))
                result = function(transaction)
                if not transaction.queued:
                    transaction.command("UNWATCH")
                    return result
                if is_carried_out(transaction.queued):
                    return result
            conflicts += 1
        except Disconnected as error:
            if error.sent or client._pool.closed or time.monotonic() >= until:
                raise
        time.sleep(pauses.next())  # not all at the same moment
    raise Conflict(f"others have changed the keys {tries} times")


@implement
class Transaction(Commands[V], AtOnce):
    """What the function of `Client.transaction` works with: one connection."""

    def __init__(
        self,
        connection: Connection,
        serializer: Serializer[V],
        prefix: bytes,
        near: NearReader | None = None,
    ) -> None:
        self._serializer, self._prefix = serializer, prefix

        # Not a method: it would refer to us, and only a garbage collection would let the
        # connection go, were an exception to come at a bad moment.
        def ask(requests: list[list[bytes]], repeatable: bool) -> list[Any]:
            try:
                return connection.ask(requests)
            finally:
                if near is not None:
                    near.cache.drop_named(requests)

        self._ask = ask
        self.queued = Pipeline(ask, serializer, prefix, atomic=True)
        """Collects what is to be carried out in one step, after the function."""

    def _run(self, command: Command[R]) -> R:
        if not command.request:
            return command.result(None)
        (reply,) = self._ask([command.request], False)
        if isinstance(reply, Error):
            raise reply
        return command.result(reply)
