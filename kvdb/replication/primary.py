"""A server that others replicate: snapshot, stream, acknowledgements.

A replica is a client that has asked for it (PSYNC). It gets a snapshot of one moment as an RDB, by
a thread of its own; what happens meanwhile is kept for it, and follows. After that it gets the
stream as it is made: one piece of bytes, however many replicas there are.

The store's change feed only puts facts aside; pump() makes the stream of them, on the event loop. So
writers pay for a replica what the encoding takes, and whoever writes too fast for it has to wait.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple, Protocol

from kvdb.output_limits import Limit
from kvdb.rdb.files import END, encode_entry, encode_select, header
from kvdb.replication.stream import GETACK, PING, Backlog, Encoder
from kvdb.store import Store
from kvdb.store.copies import Dump
from kvdb.store.entry import split_key
from kvdb.store.feed import Change, Fact

log = logging.getLogger(__name__)

BACKLOG_BYTES: Final = 1024 * 1024
"""What is kept of the stream for replicas that come back, as in Redis."""

PING_EVERY: Final = 5.0
"""Seconds of silence after which the stream has a PING: some replicas are told to be impatient."""

SILENCE: Final = 60.0
"""Seconds without a word after which a replica is given up (Redis's repl-timeout)."""

_KEPT: Final = 3600.0
"""Seconds that the stream goes on with nobody listening (Redis's repl-backlog-ttl)."""

_CHUNK: Final = 256 * 1024  # bytes of the snapshot that are made at a time
_UNDER_WAY: Final = 1024 * 1024  # bytes that may wait for a replica while more are made
_LOOK_AGAIN: Final = 0.005  # seconds
_PAUSE: Final = 0.004  # seconds that others get after each of them; it took 2 to 3 ms to make

_CHECKSUM: Final = bytes(8)
"""None: a replica takes that, and the real one would take seconds."""


class Client(Protocol):
    """What has to be known of a replica's connection. A `Session` is one."""

    address: str
    push: Callable[[bytes], None]
    close: Callable[[], None]

    @property
    def unsent_bytes(self) -> int:
        """What waits to be sent to it."""


class Replica:
    """What is known of one replica. `Replication._lock` guards what changes after the handshake."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.port = 0  # that it listens on, by its own words
        self.ip = ""  # by its own words; else the address of its connection counts
        self.takes_eof = (
            False  # the snapshot may end with a mark, instead of beginning with its length
        )
        self.rdb_only = False
        self.acknowledges = True  # not who came by SYNC, as redis-cli --replica does
        self.wants_data = True  # not with `rdb-filter-only ''`
        self.acknowledged = 0  # offset
        self.on_disk = 0  # offset; 0 as long as it says nothing of that
        self.heard_at = 0.0  # of the monotonic clock
        self.state = "handshake"  # then wait_bgsave, send_bulk, sent, online
        self.pending: list[bytes] = []  # the stream since its snapshot, until that is sent
        self.pending_bytes = 0
        self.gone = False

    def give_up(self) -> None:
        """Keep nothing more for it: it has left, or has to."""
        self.gone = True
        self.pending.clear()
        self.pending_bytes = 0

    @property
    def address(self) -> tuple[str, int]:
        """Where it can be reached."""
        host = self.client.address.rpartition(":")[0].strip("[]")
        return self.ip or host, self.port


class Lag(NamedTuple):
    """How far a replica has come."""

    replica: Replica
    offset: int
    seconds: float
    """Since it was heard."""


class Replication:
    """Who replicates this server, and the stream that they get.

    `_lock` guards everything but `_facts`, which the store's lock guards. It is taken under that
    one (a snapshot and its place in the stream are one moment), never the other way round.
    """

    def __init__(
        self,
        store: Store,
        replica_limit: Callable[[], Limit],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`replica_limit()`: how much may wait for one replica, before it is dropped."""
        self._store, self._limit, self._monotonic = store, replica_limit, monotonic
        self.call_soon: Callable[[Callable[[], None]], None] = lambda function: function()
        """Has the event loop call something."""
        self._facts: deque[Sequence[Fact]] = deque()
        self._queued_bytes = 0  # of their values; a sum that is a moment old does no harm
        self._is_called = False  # pump() will be called
        self._is_listening = False
        self._lock = threading.Lock()
        self.id = _new_id()
        """Names this history: offsets of another one mean nothing."""
        self._backlog = Backlog(BACKLOG_BYTES)
        self._encoder = Encoder()
        self._replicas: list[Replica] = []
        self._said_at = self._left_at = monotonic()
        self.full_syncs = self.partial_syncs = self.partial_refusals = 0

    # --- what is asked about it --------------------------------------------------------------

    @property
    def offset(self) -> int:
        """How many bytes the stream has had so far."""
        return self._backlog.end

    @property
    def backlog(self) -> tuple[int, int] | None:
        """The first offset that is kept, and how many bytes; None: there is no stream."""
        with self._lock:
            return (self._backlog.start, self._backlog.size) if self._is_listening else None

    @property
    def held_bytes(self) -> int:
        """What waits for replicas, or is kept for them."""
        with self._lock:
            pending = sum(replica.pending_bytes for replica in self._replicas)
            return self._backlog.size + pending + self._queued_bytes

    def lags(self) -> list[Lag]:
        """Return how far each replica has come."""
        now = self._monotonic()
        with self._lock:
            return [Lag(each, each.acknowledged, now - each.heard_at) for each in self._replicas]

    def reached(self, offset: int, on_disk: bool = False) -> int:
        """Return how many replicas have acknowledged that much of the stream, perhaps on disk."""
        with self._lock:
            return sum(
                each.state == "online"
                and (each.on_disk if on_disk else each.acknowledged) >= offset
                for each in self._replicas
            )

    # --- a replica comes, and goes --------------------------------------------------------------

    def resume(self, replica: Replica, history: str, offset: int) -> bool:
        """Go on where the replica has left off, if all that it has missed is still there.

        `offset` is the first byte that it lacks, counted from 1 as PSYNC does.
        """
        with self._store.atomic(), self._lock:
            self._encode_locked()
            missed = self._backlog.since(offset - 1) if self._is_listening else None
            if history != self.id or missed is None:
                self.partial_refusals += offset >= 0
                return False
            self.partial_syncs += 1
            self._add_locked(replica)
            replica.state, replica.acknowledged = "online", offset - 1
            replica.client.push(missed)
        log.info("replica %s: goes on at %d", replica.client.address, offset)
        return True

    def begin(self, replica: Replica) -> int:
        """Give a replica everything, from a thread of its own; return the offset of the snapshot.

        What is pushed to it must not overtake the answer to its request.
        """
        with self._store.atomic():
            with self._lock:
                self._start_listening_locked()
                self._encode_locked()
                self._encoder.forget_selection()
                offset = self._backlog.end
                self.full_syncs += 1
                self._add_locked(replica)
                replica.state, replica.acknowledged = "wait_bgsave", offset
            dump = self._store.dump()
        log.info(
            "replica %s: gets everything, %d keys, and what follows from %d on",
            replica.client.address, len(dump.keys), offset,
        )  # fmt: skip
        threading.Thread(
            target=self._send_snapshot, args=(replica, dump), name="replica", daemon=True
        ).start()
        return offset

    def _add_locked(self, replica: Replica) -> None:
        self._replicas.append(replica)
        replica.heard_at = self._monotonic()

    def leave(self, replica: Replica) -> None:
        """A replica's connection has ended."""
        with self._lock:
            replica.give_up()
            if replica in self._replicas:
                self._replicas.remove(replica)
                self._left_at = self._monotonic()
                if not replica.rdb_only:
                    log.info("replica %s: connection lost", replica.client.address)

    def acknowledge(self, replica: Replica, offset: int, on_disk: int = 0) -> None:
        """A replica says how far it has come, and how much of that is on its disk."""
        with self._lock:
            replica.on_disk = max(replica.on_disk, on_disk)
            replica.acknowledged = max(replica.acknowledged, offset)
            replica.heard_at = self._monotonic()
            self._go_online_locked(replica)

    def request_acknowledgements(self) -> int:
        """Ask all replicas how far they have come; return the offset of all that was before."""
        with self._store.atomic(), self._lock:
            self._encode_locked()
            offset = self._backlog.end
            if self._replicas:
                self._send_locked(GETACK)
            return offset

    def housekeeping(self) -> None:
        """One pass of what is to be done about every second."""
        now = self._monotonic()
        with self._lock:
            if not self._is_listening:
                return
            silent = [
                each for each in self._replicas
                if each.acknowledges
                and each.state in ("sent", "online")
                and now - each.heard_at > SILENCE
            ]  # fmt: skip
            forgotten = not self._replicas and now - self._left_at > _KEPT
            if self._replicas and now - self._said_at >= PING_EVERY:
                self._send_locked(PING)
        for replica in silent:
            log.warning("replica %s: silent for %g s, dropped", replica.client.address, SILENCE)
            replica.client.close()
        if forgotten:
            self._stop_listening()

    def dismiss(self) -> None:
        """Have all replicas begin anew: what they follow will be replaced."""
        self.change_id()
        for lag in self.lags():
            lag.replica.client.close()

    def change_id(self) -> None:
        """Name this history anew: all replicas have to begin anew when they come back."""
        with self._lock:
            self.id = _new_id()

    # --- the stream ------------------------------------------------------------------------------

    def _start_listening_locked(self) -> None:
        if not self._is_listening:
            self._is_listening = True
            self._store.add_listener(self._listen)

    def _stop_listening(self) -> None:
        """End this history: whoever asks for more of it later has to begin anew."""
        with self._store.atomic(), self._lock:
            self._store.remove_listener(self._listen)
            self._is_listening = False
            self._facts.clear()
            self._queued_bytes = 0
            self._backlog = Backlog(BACKLOG_BYTES)
            self.id = _new_id()

    def _listen(self, step: int, facts: Sequence[Fact]) -> None:
        """Put facts aside; called under the store's lock."""
        self._facts.append(facts)
        for fact in facts:
            if isinstance(fact, Change) and fact.value is not None:
                self._queued_bytes += len(fact.value)
        if not self._is_called:
            self._is_called = True
            self.call_soon(self.pump)

    def pump(self) -> None:
        """Send what has happened since the last call. The event loop calls it."""
        with self._lock:
            self._encode_locked()

    def _encode_locked(self) -> None:
        """Make the stream of all facts that were put aside, and send it."""
        self._is_called = False
        pieces: list[bytes] = []
        while self._facts:
            pieces += self._encoder.encode(self._facts.popleft())
        self._queued_bytes = 0
        if pieces:
            self._send_locked(b"".join(pieces))

    def _send_locked(self, data: bytes) -> None:
        self._said_at = self._monotonic()
        self._backlog.add(data)
        for replica in self._replicas:
            if replica.state == "online":
                replica.client.push(data)
            elif not (replica.rdb_only or replica.gone):
                replica.pending.append(data)
                replica.pending_bytes += len(data)
                hard = self._limit().hard
                if hard and replica.pending_bytes > hard:
                    self._drop_locked(replica)

    def _drop_locked(self, replica: Replica) -> None:
        """End a replica for which too much waits; it comes back by itself."""
        log.warning(
            "replica %s: dropped, because %d bytes of the stream wait for it "
            "(client-output-buffer-limit)", replica.client.address, replica.pending_bytes,
        )  # fmt: skip
        replica.give_up()
        replica.client.close()

    # --- the snapshot ----------------------------------------------------------------------------

    def _send_snapshot(self, replica: Replica, dump: Dump) -> None:
        """Send the snapshot, then what was kept meanwhile. On any doubt the connection is closed.

        A snapshot that is cut short does no harm; one that is wrong ends the other server.
        """
        client = replica.client
        try:
            if not replica.wants_data:
                dump = Dump([], [], {}, {}, 0)
            with self._lock:
                replica.state = "send_bulk"
            if replica.takes_eof:
                mark = secrets.token_hex(20).encode()
                before, behind = b"$EOF:%b\r\n" % mark, mark
            else:
                before, behind = b"$%d\r\n" % _size_of(dump), b""
            client.push(before)
            for chunk in snapshot_chunks(dump):
                self._wait_for_room(replica)
                client.push(chunk)
                time.sleep(_PAUSE)  # others want the interpreter, too
            self._wait_for_room(replica)
            with self._lock:
                client.push(END + _CHECKSUM + behind)
                replica.heard_at = self._monotonic()
                # A mark is found only where nothing follows: then the replica's first word is
                # waited for.
                replica.state = "sent"
                if not replica.takes_eof:
                    self._go_online_locked(replica)
        except _Gone:
            pass
        except Exception:
            log.exception("replica %s: the snapshot failed; closed", client.address)
            client.close()

    def _go_online_locked(self, replica: Replica) -> None:
        """Send what was kept for a replica that has its snapshot, and from now on all at once."""
        if replica.state != "sent" or replica.rdb_only or replica.gone:
            return
        replica.state = "online"
        if replica.pending:
            replica.client.push(b"".join(replica.pending))
            replica.pending.clear()
            replica.pending_bytes = 0

    def _wait_for_room(self, replica: Replica) -> None:
        while not replica.gone and replica.client.unsent_bytes > _UNDER_WAY:
            time.sleep(_LOOK_AGAIN)
        if replica.gone:
            raise _Gone


class _Gone(Exception):
    """The replica has left."""


def snapshot_chunks(dump: Dump) -> Iterator[bytes]:
    """Yield a snapshot as an RDB, all but its end; empties the dump as it goes."""
    pieces: list[bytes] = [header()]
    size, selected = 0, None
    expires_at = dump.expires_at
    dump.keys.reverse()
    dump.values.reverse()
    while dump.keys:
        key, value = dump.keys.pop(), dump.values.pop()
        db, name = split_key(key)
        if db != selected:
            pieces.append(encode_select(db))
            selected = db
        pieces.append(encode_entry(name, value, expires_at.get(key)))
        size += len(value) + len(name) + _ENTRY
        if size >= _CHUNK:
            yield b"".join(pieces)
            pieces.clear()
            size = 0
    yield b"".join(pieces)


_ENTRY: Final = 200  # bytes that stand for the time that an entry takes


def _size_of(dump: Dump) -> int:
    """Return how many bytes the whole RDB of a dump has."""
    size, selected = len(header()) + len(END) + len(_CHECKSUM), None
    for key, value in zip(dump.keys, dump.values, strict=True):
        db, name = split_key(key)
        if db != selected:
            size += len(encode_select(db))
            selected = db
        size += 1 + _size_with_length(len(name)) + _size_with_length(len(value))
        size += 9 if key in dump.expires_at else 0
    return size


def _size_with_length(length: int) -> int:
    return length + (
        1 if length < 1 << 6 else 2 if length < 1 << 14 else 5 if length < 1 << 32 else 9
    )


def _new_id() -> str:
    return secrets.token_hex(20)
