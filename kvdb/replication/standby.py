"""A server that replicates another one: a kvdb, a Redis or a Valkey, as far as strings go.

Nothing expires here by itself: the primary tells when a key is gone, and until then it may give it
more time. Readers do not see a key whose time has come.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from itertools import islice
from typing import BinaryIO, Final, Protocol

from kvdb.errors import CommandError
from kvdb.rdb.files import NotRdb, RdbReader
from kvdb.replication.link import Link, LinkLost, Primary, shake_hands
from kvdb.store import Store
from kvdb.store.entry import Entry, Key

log = logging.getLogger(__name__)

_AGAIN: Final = 0.1
"""Seconds before the first attempt after a link that worked. It is short, because a primary keeps only
the last megabyte of its stream for those who come back."""
_RETRY: Final = 1.0  # seconds between two attempts to reach the primary
_AFTER_A_BAD_SNAPSHOT: Final = 30.0  # seconds: each attempt costs the primary another snapshot
_LONGEST: Final = 512 * 1024 * 1024
"""The longest value that a primary may have, in bytes: Redis's own limit. Ours is for clients."""
_TOGETHER: Final = 500  # entries that are loaded in one step
_ACK_EVERY: Final = 1.0  # seconds


class Executor(Protocol):
    """Carries out the commands of one history; it knows the database that was selected last."""

    def __call__(self, words: list[bytes]) -> str | None:
        """Carry out a command; tell what was refused, in words, or None."""

    @property
    def in_transaction(self) -> bool:
        """Whether commands are put aside for the EXEC that will follow."""

    def forget_transaction(self) -> None:
        """The link broke: what was put aside will come again."""


class Standby:
    """Follows a primary on a thread of its own, until stop(). `state` is Redis's word for it.

    `loading(True)` is called before what is here is replaced by a snapshot, and with False after.
    """

    def __init__(
        self,
        primary: Callable[[], Primary],
        store: Store,
        execute: Callable[[], Executor],
        port: Callable[[], int],
        loading: Callable[[bool], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`primary()` is asked before each attempt: a password may have been set meanwhile.
        `execute()` makes what carries out the commands that follow a snapshot.
        """
        self._primary, self._monotonic = primary, monotonic
        self._store, self._new_executor, self._port = store, execute, port
        self._loading = loading
        self.state = "connect"  # then connecting, sync, connected
        self.offset = 0
        self.history = "?"
        self.down_since = self._monotonic()
        self.refused: Counter[str] = Counter()
        """Commands of the stream that could not be carried out here, by name."""
        self._link: Link | None = None
        self._execute = execute()
        self._pause = _RETRY
        self._acknowledged_at = 0.0
        self._stopping = threading.Event()
        self.thread = threading.Thread(target=self._run, name="standby", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self.thread.start()

    def stop(self) -> None:
        """Follow no more; what was received is here."""
        self._stopping.set()
        link = self._link
        # Without a link the thread is about to see that it should stop, or waits for a connection,
        # which may take long: it changes nothing here any more.
        if link is not None:
            link.stop()
            if self.thread is not threading.current_thread():
                self.thread.join()

    @property
    def primary(self) -> Primary:
        """Whom we follow."""
        return self._primary()

    @property
    def heard_at(self) -> float | None:
        """When the primary last said something, of the monotonic clock; None: there is no link."""
        link = self._link
        return link.heard_at if link is not None else None

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        where = "{}:{}".format(*self.primary[:2])
        last = ""
        while not self._stopping.is_set():
            self._pause = _RETRY
            try:
                self._follow(where)
            except LinkLost as lost:
                text = str(lost)
            except NotRdb as bad:
                text = f"the snapshot cannot be read: {bad}"
                self._pause = _AFTER_A_BAD_SNAPSHOT
            except Exception:
                log.exception("replica of %s: internal error", where)
                text = "internal error"
            if self._stopping.is_set():
                return
            if self.state == "connected" or text != last:  # not once per attempt
                log.warning("replica of %s: %s; trying again", where, text)
            last = text
            if self.state == "connected":
                self.down_since = self._monotonic()
                self._pause = _AGAIN
            self.state = "connect"
            self._stopping.wait(self._pause)

    def _follow(self, where: str) -> None:
        """Have a link, for as long as it lasts. Raises LinkLost or NotRdb."""
        self.state = "connecting"
        primary = self.primary
        link = self._link = Link(primary, self._monotonic)
        try:
            if self._stopping.is_set():  # stop() may have missed the link, so it did not wait
                return
            shake_hands(link, primary, self._port())
            link.send("PSYNC", self.history, str(self.offset + 1 if self.history != "?" else -1))
            words = link.reply().split()
            if words[0] == "+CONTINUE":
                self.history = words[1] if len(words) > 1 else self.history
                log.info("replica of %s: goes on at %d", where, self.offset + 1)
            elif words[0] == "+FULLRESYNC" and len(words) == 3:
                self.state = "sync"
                with link.snapshot() as file:
                    self._load(file, where)
                self.history, self.offset = words[1], int(words[2])
                self._execute = self._new_executor()
            else:
                raise LinkLost(f"the primary says {' '.join(words)[1:]}")
            self.state = "connected"
            link.on_tick = lambda: self._acknowledge(link)
            self._acknowledge(link)
            self._carry_out(link, where)
        finally:
            self._execute.forget_transaction()
            self._link = None
            link.close()

    def _acknowledge(self, link: Link) -> None:
        self._acknowledged_at = self._monotonic()
        link.send("REPLCONF", "ACK", str(self.offset))

    def _carry_out(self, link: Link, where: str) -> None:
        """Carry out the stream. What is acknowledged is done: a transaction counts as a whole."""
        taken = 0  # bytes that do not count yet
        while not self._stopping.is_set():
            words, size = link.command()
            name = words[0].upper() if words else b"PING"
            if name == b"REPLCONF":
                if len(words) > 1 and words[1].upper() == b"GETACK":
                    self._acknowledge(link)
            elif name != b"PING":
                refusal = self._execute(words)
                if refusal is not None:
                    self._note(name, refusal, where)
            taken += size
            if not self._execute.in_transaction:
                self.offset, taken = self.offset + taken, 0
            if self._monotonic() - self._acknowledged_at > _ACK_EVERY:
                self._acknowledge(link)

    def _note(self, name: bytes, refusal: str, where: str) -> None:
        """Note a command that we could not carry out: what it has changed there is missing here."""
        shown = name[:30].decode("ascii", "replace")
        self.refused[shown] += 1
        if self.refused[shown] == 1:
            log.error("replica of %s: %s cannot be carried out here: %s", where, shown, refusal)

    def _load(self, file: BinaryIO, where: str) -> None:
        """Replace everything by a snapshot. Raises NotRdb, before anything is given up."""
        for _ in RdbReader(file, _LONGEST).entries():
            if self._stopping.is_set():  # somebody waits for us in stop()
                raise LinkLost("given up")
        file.seek(0)
        reader = RdbReader(file, _LONGEST)
        entries = reader.entries()
        self._loading(True)
        try:
            self._store.flush()
            count = 0
            while batch := list(islice(entries, _TOGETHER)):
                count += self._set(batch, where)
        finally:
            self._loading(False)
        log.info("replica of %s: has everything, %d keys", where, count)
        for name, number in sorted(reader.others.items()):
            log.error("replica of %s: %d keys of type %s are left out", where, number, name)

    def _set(self, batch: list[tuple[Key, Entry]], where: str) -> int:
        """Store some entries; return how many fit into the budget."""
        stored = 0
        with self._store.atomic():
            for key, entry in batch:
                try:
                    self._store.set(key, entry.value, expires_at=entry.expires_at)
                    stored += 1
                except CommandError as error:
                    self._note(b"SET", error.text, where)
        return stored
