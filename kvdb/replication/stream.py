"""What replicas are sent after the snapshot: facts of the change feed as commands.

Facts are absolute (`SET ... PXAT`, never `INCR` or `EX`), from a handful of commands that every Redis
since 6.2 and every Valkey carries out alike. What was one step here is one there (MULTI, EXEC).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from kvdb.store.entry import split_key
from kvdb.store.feed import Cause, Change, Fact, Flush, Swap

PING: Final = b"*1\r\n$4\r\nPING\r\n"
GETACK: Final = b"*3\r\n$8\r\nREPLCONF\r\n$6\r\nGETACK\r\n$1\r\n*\r\n"

_MULTI: Final = b"*1\r\n$5\r\nMULTI\r\n"
_EXEC: Final = b"*1\r\n$4\r\nEXEC\r\n"


class Encoder:
    """Turns steps into commands. It remembers which database the stream has selected last."""

    def __init__(self) -> None:
        self._selected: int | None = None

    def forget_selection(self) -> None:
        """Have the next command select its database: somebody begins to listen."""
        self._selected = None

    def encode(self, facts: Sequence[Fact]) -> list[bytes]:
        """Return the commands of a step, in pieces; large values are pieces of their own."""
        pieces: list[bytes] = []
        if len(facts) == 1:
            self._add(pieces, facts[0])
            return pieces
        pieces.append(_MULTI)
        for fact in facts:
            self._add(pieces, fact)
        pieces.append(_EXEC)
        return pieces

    def _add(self, pieces: list[bytes], fact: Fact) -> None:
        if isinstance(fact, Change):
            db, name = split_key(fact.key)
            if db != self._selected:
                self._select(pieces, db)
            self._add_change(pieces, fact, name)
        elif isinstance(fact, Flush):
            if fact.db is None:
                pieces.append(_command(b"FLUSHALL"))
            else:
                self._select(pieces, fact.db)
                pieces.append(_command(b"FLUSHDB"))
        else:
            assert isinstance(fact, Swap)
            pieces.append(_command(b"SWAPDB", b"%d" % fact.first, b"%d" % fact.second))

    def _select(self, pieces: list[bytes], db: int) -> None:
        pieces.append(_command(b"SELECT", b"%d" % db))
        self._selected = db

    @staticmethod
    def _add_change(pieces: list[bytes], change: Change, name: bytes) -> None:
        value, expires_at = change.value, change.expires_at
        if value is None:
            pieces.append(_command(b"DEL", name))
        elif change.cause is Cause.DEADLINE and expires_at is None:
            pieces.append(_command(b"PERSIST", name))
        elif change.cause is Cause.DEADLINE:
            pieces.append(_command(b"PEXPIREAT", name, _milliseconds(expires_at)))
        elif expires_at is None:
            head = b"*3\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n" % (len(name), name, len(value))
            pieces += (head, value, b"\r\n")
        else:
            at = _milliseconds(expires_at)
            head = b"*5\r\n$3\r\nSET\r\n$%d\r\n%b\r\n$%d\r\n" % (len(name), name, len(value))
            pieces += (head, value, b"\r\n$4\r\nPXAT\r\n$%d\r\n%b\r\n" % (len(at), at))


def _milliseconds(moment: float | None) -> bytes:
    assert moment is not None
    return b"%d" % min(max(1, round(moment * 1000)), 2**63 - 1)


def _command(*words: bytes) -> bytes:
    parts = [b"*%d\r\n" % len(words)]
    parts += (b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
    return b"".join(parts)


class Backlog:
    """The end of the stream, for a replica that comes back after a short break."""

    def __init__(self, most: int) -> None:
        """`most`: bytes that are kept, and perhaps one command more."""
        self._most = most
        self._pieces: deque[bytes] = deque()
        self.size = 0
        """Bytes that are kept."""
        self.end = 0
        """How many bytes the stream has had so far: the offset."""

    @property
    def start(self) -> int:
        """The offset from which on everything is kept."""
        return self.end - self.size

    def add(self, data: bytes) -> None:
        """Add to the stream."""
        self._pieces.append(data)
        self.size += len(data)
        self.end += len(data)
        while self.size - len(self._pieces[0]) >= self._most:
            self.size -= len(self._pieces.popleft())

    def since(self, offset: int) -> bytes | None:
        """Return what the stream has had from an offset on; None if that is not kept."""
        if not self.start <= offset <= self.end:
            return None
        return b"".join(self._pieces)[offset - self.start :]
