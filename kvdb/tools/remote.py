"""The shell's side of a conversation: it survives broken connections, and knows its own state."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, Final

from kvdb.client.address import Address
from kvdb.client.errors import Disconnected, Error, ServerError
from kvdb.client.push_connection import PushConnection
from kvdb.replies import SimpleString

LISTENING: Final = frozenset((b"SUBSCRIBE", b"PSUBSCRIBE", b"SSUBSCRIBE", b"MONITOR"))
"""Commands after which a server goes on sending."""


class Remote:
    """A server that can be asked at any time: the connection is made, and made anew, when needed.

    It remembers who is logged in and which database was chosen, and goes back to that. A
    transaction cannot be brought back: the request that would have been part of it is refused.
    """

    def __init__(self, address: Address, resp3: bool = False) -> None:
        """Nothing is connected yet. `resp3`: ask for maps and the like, if the server knows them."""
        self.db = address.db
        self._address = replace(address, db=0)  # so that who has to log in first can do so
        self._resp3 = resp3
        self._connection: PushConnection | None = None
        self.in_transaction = False
        self._is_watching = False
        self._is_tracking = False
        self._next_db: int | None = None  # chosen within a transaction
        self.news: list[Any] = []
        """What the server has sent unasked (CLIENT TRACKING), until somebody takes it."""

    @property
    def place(self) -> str:
        """Where the server is: host, port, and the database unless it is 0."""
        host = f"[{self._address.host}]" if ":" in self._address.host else self._address.host
        return f"{host}:{self._address.port}" + (f"[{self.db}]" if self.db else "")

    def ask(self, words: Sequence[bytes]) -> Any:
        """Return the reply to a request; a refusal is a ServerError. It may take any time.

        Raises Disconnected or TimedOut, or ServerError if the server does not let us in.
        """
        connection = self._connected()
        try:
            reply = self._exchange(connection, words)
        except Error as error:
            lost = self.in_transaction or self._is_watching
            self.close()
            if lost:
                raise Disconnected(f"{error}, and the transaction is lost") from None
            if words[0].upper() == b"SHUTDOWN" and isinstance(error, Disconnected):
                return SimpleString(b"OK")  # that is its answer
            raise
        except BaseException:  # Ctrl-C: an answer that comes later must not be taken for another's
            self.close()
            raise
        if not isinstance(reply, ServerError):
            self._note(words, reply)
        elif words[0].upper() == b"EXEC":
            self.in_transaction = self._is_watching = False
        return reply

    def listen(self, words: Sequence[bytes]) -> Iterator[Any]:
        """Send SUBSCRIBE, MONITOR or the like; yield what comes, for ever.

        It has a connection of its own, so that the other one stays usable. Raises what ask()
        raises; Disconnected when the server ends it.
        """
        connection = self._connect(resp3=False)
        try:
            connection.send([words])
            while True:
                yield from connection.receive(None)
        finally:
            connection.close()

    def close(self) -> None:
        """Close the connection; the next request makes another one."""
        if self._connection is not None:
            self._connection.close()
        self._connection = None
        self.in_transaction = self._is_watching = self._is_tracking = False
        self._next_db = None

    # --- connecting --------------------------------------------------------------------------

    def _connected(self) -> PushConnection:
        connection = self._connection
        if connection is not None and (self._is_tracking or not connection.is_stale(False)):
            return connection
        lost = self.in_transaction or self._is_watching
        self.close()
        if lost:
            raise Disconnected("the connection was lost, and with it the transaction: begin again")
        self._connection = self._connect(self._resp3)
        return self._connection

    def _connect(self, resp3: bool) -> PushConnection:
        timeout = self._address.timeout
        deadline = None if timeout is None else time.monotonic() + timeout
        connection = PushConnection(self._address, deadline)
        try:
            self._settle(connection, resp3)
        except BaseException:
            connection.close()
            raise
        return connection

    def _settle(self, connection: PushConnection, resp3: bool) -> None:
        """Agree on the protocol, and choose the database, as far as we are let in."""
        if resp3:
            self._exchange(connection, [b"HELLO", b"3"])  # an old server refuses: RESP2 then
        if self.db:
            reply = self._exchange(connection, [b"SELECT", b"%d" % self.db])
            if isinstance(reply, ServerError) and reply.code != "NOAUTH":
                raise reply

    def _exchange(self, connection: PushConnection, words: Sequence[bytes]) -> Any:
        """Send a request and return its reply; what the server sends unasked becomes news."""
        connection.send([words])
        replies: list[Any] = []
        while not replies:
            for each in connection.receive(None):
                (self.news if self._is_tracking and _is_push(each) else replies).append(each)
        if len(replies) > 1:
            raise Disconnected("the server sent more than one reply")
        return replies[0]

    # --- what a request has changed ----------------------------------------------------------

    def _note(self, words: Sequence[bytes], reply: Any) -> None:
        """Remember what the next connection has to know, now that this was answered."""
        name = words[0].upper()
        if self.in_transaction and name not in (b"EXEC", b"DISCARD", b"RESET"):
            if name == b"SELECT":
                self._next_db = _number(words[1])
            return
        match name:
            case b"SELECT":
                self.db = _number(words[1])
            case b"MULTI":
                self.in_transaction = True
            case b"EXEC" | b"DISCARD":
                if name == b"EXEC" and reply is not None and self._next_db is not None:
                    self.db = self._next_db
                self.in_transaction = self._is_watching = False
                self._next_db = None
            case b"WATCH":
                self._is_watching = True
            case b"UNWATCH":
                self._is_watching = False
            case b"AUTH":
                self._log_in(words[1:])
            case b"HELLO":
                upper = [word.upper() for word in words]
                self._resp3 = words[1] == b"3" if len(words) > 1 else self._resp3
                if b"AUTH" in upper:
                    place = upper.index(b"AUTH")
                    self._log_in(words[place + 1 : place + 3])
            case b"RESET":
                self.close()
                self.db = 0
                self._address = replace(self._address, user=None, password=None)
            case b"CLIENT" if len(words) > 2 and words[1].upper() == b"TRACKING":
                self._is_tracking = words[2].upper() == b"ON"

    def _log_in(self, words: Sequence[bytes]) -> None:
        try:
            *user, password = (word.decode() for word in words)
        except UnicodeDecodeError:
            return  # it has to be typed again, should the connection break
        self._address = replace(self._address, user=user[0] if user else None, password=password)
        if self._connection is not None:  # what was refused at first is allowed now
            self._settle(self._connection, self._resp3)


def _is_push(reply: Any) -> bool:
    return isinstance(reply, list) and reply[:1] == [b"invalidate"]


def _number(word: bytes) -> int:
    try:
        return int(word)
    except ValueError:
        return 0


def describe(error: Error) -> str:
    """Return one line about what went wrong with the server."""
    return " ".join(str(error).split())
