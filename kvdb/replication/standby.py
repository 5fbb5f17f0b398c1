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

_RETRY: Final = 1.0  # seconds between two attempts to reach the primary
_TOGETHER: Final = 500  # entries that are loaded in one step
_ACK_EVERY: Final = 1.0  # seconds


class Executor(Protocol):
    """Carries out commands of the stream; tells what was refused, in words, or None."""

    def __call__(self, words: list[bytes]) -> str | None: ...


class Standby:
    """Follows a primary on a thread of its own, until stop(). `state` is Redis's word for it.

    `loading(True)` is called before what is here is replaced by a snapshot, and with False after.
    """

    def __init__(
        self,
        primary: Primary,
        store: Store,
        execute: Callable[[], Executor],
        port: Callable[[], int],
        loading: Callable[[bool], None],
        longest_value: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`execute()` makes what carries out the commands of one link."""
        self.primary, self._monotonic = primary, monotonic
        self._store, self._new_executor, self._port = store, execute, port
        self._loading, self._longest = loading, longest_value
        self.state = "connect"  # then connecting, sync, connected
        self.offset = 0
        self.history = "?"
        self.down_since = self._monotonic()
        self.refused: Counter[str] = Counter()
        """Commands of the stream that could not be carried out here, by name."""
        self._link: Link | None = None
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
    def heard_at(self) -> float | None:
        """When the primary last said something, of the monotonic clock; None: there is no link."""
        link = self._link
        return link.heard_at if link is not None else None

    # --- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        where = f"{self.primary.host}:{self.primary.port}"
        last = ""
        while not self._stopping.is_set():
            try:
                self._follow(where)
            except LinkLost as lost:
                text = str(lost)
            except NotRdb as bad:
                text = f"the snapshot cannot be read: {bad}"
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
            self.state = "connect"
            self._stopping.wait(_RETRY)

    def _follow(self, where: str) -> None:
        """Have a link, for as long as it lasts. Raises LinkLost or NotRdb."""
        self.state = "connecting"
        link = self._link = Link(self.primary, self._monotonic)
        try:
            if self._stopping.is_set():  # stop() may have missed the link, so it did not wait
                return
            shake_hands(link, self.primary, self._port())
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
            else:
                raise LinkLost(f"the primary says {' '.join(words)[1:]}")
            self.state = "connected"
            link.on_tick = lambda: self._acknowledge(link)
            self._acknowledge(link)
            self._carry_out(link, self._new_executor(), where)
        finally:
            self._link = None
            link.close()

    def _acknowledge(self, link: Link) -> None:
        self._acknowledged_at = self._monotonic()
        link.send("REPLCONF", "ACK", str(self.offset))

    def _carry_out(self, link: Link, execute: Executor, where: str) -> None:
        while not self._stopping.is_set():
            words, size = link.command()
            name = words[0].upper() if words else b"PING"
            if name == b"REPLCONF":
                if len(words) > 1 and words[1].upper() == b"GETACK":
                    self._acknowledge(link)
            elif name != b"PING":
                refusal = execute(words)
                if refusal is not None:
                    self._note(name, refusal, where)
            self.offset += size
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
        for _ in RdbReader(file, self._longest()).entries():
            if self._stopping.is_set():  # somebody waits for us in stop()
                raise LinkLost("given up")
        file.seek(0)
        reader = RdbReader(file, self._longest())
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
