"""A whole server in one process: the store, its doors, and what runs beside them."""

from __future__ import annotations

import gc
import queue
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import kvdb.commands  # noqa: F401  (fills the command table)
from kvdb.commands.session import Instance
from kvdb.config import Config, Fsync
from kvdb.errors import TOO_MANY_CLIENTS
from kvdb.memory import CONNECTION_BYTES, Governor, resident_bytes
from kvdb.periodic import Periodic
from kvdb.persistence import PersistenceError
from kvdb.persistence.lockfile import AlreadyLocked, LockFile
from kvdb.persistence.snapshot import Snapshots, load_snapshot
from kvdb.protocols.main_port import MainPort
from kvdb.reaper import Reaper
from kvdb.resp import encode_error
from kvdb.server import Door, Server
from kvdb.store import Store

# What only one door or one kind of data file needs is imported when that is opened: a server
# that has neither starts in two thirds of the time.
if TYPE_CHECKING:
    from kvdb.persistence.journal import Journal

JOURNAL_SUFFIXES = (".sqlite", ".sqlite3", ".db")


class CannotStart(Exception):
    """Why the server does not start, in one sentence for whoever started it."""


class Service:
    """A whole server. Started once, stopped once."""

    def __init__(self, config: Config, *, own_process: bool = False) -> None:
        """Take the lock, open the doors, load the data. Raises CannotStart.

        With `own_process` the budget is kept by the process as a whole; a server within another
        program cannot know what that one needs, and counts its entries only.
        """
        self.config = config
        # put() may be called by a signal handler, whatever this thread is doing: SimpleQueue
        # is the one queue that allows it. What is put tells whether to save at the end.
        self.stop_requests: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.store = Store(config.max_bytes)
        self.governor: Governor | None = None
        self.persistence: Snapshots | Journal | None = None
        self._journal: Journal | None = None  # self.persistence, if it is one
        self.doors: dict[str, Door] = {}
        self._threads: list[Periodic] = []
        self._lock = _take_lock(config.data) if config.data else None
        try:
            if config.data:
                self.persistence = self._open_data(config.data)
            self.instance = Instance(self.store, config, self.persistence, self.stop_requests.put)
            self._open_doors()
            if own_process:
                self.governor = Governor(self.store, resident_bytes(), borrowed=self._borrowed)
                self.instance.governor = self.governor
                self._threads.append(self.governor)
            self.loaded = self._load()
        except BaseException:
            for door in self.doors.values():
                door.server_close()
            if self._journal:
                self._journal.stop()
            self._release_lock()
            raise
        self._threads.append(Reaper(self.store))
        self._threads.append(Periodic.every("housekeeping", 1.0, self.instance.housekeeping))

    @property
    def server(self) -> Door:
        """The main door."""
        return self.doors["main"]

    def start(self) -> None:
        """Serve from now on."""
        # What is loaded stays: no garbage collection has to walk it again.
        gc.collect()
        gc.freeze()
        if self._journal:
            self._journal.start()
        for thread in self._threads:
            thread.start()
        for door in self.doors.values():
            door.start()

    def stop(self, save: bool = True) -> bool:
        """Stop from the outside in; tell whether everything could be saved."""
        for door in self.doors.values():
            door.stop()
        for thread in self._threads:
            thread.stop()
        saved = self.save() if save else True
        if self._journal:
            saved = self._journal.stop()
        self._release_lock()
        return saved

    def save(self) -> bool:
        """Put everything on disk while serving goes on; tell whether that went well."""
        try:
            if self.persistence:
                self.persistence.save_at_end()
        except PersistenceError:
            return False  # logged by the saver
        return True

    def _borrowed(self) -> int:
        """Return how many bytes are not there for entries, and will be free again."""
        saving = self.persistence.copied_bytes if isinstance(self.persistence, Snapshots) else 0
        return saving + CONNECTION_BYTES * len(self.instance.sessions())

    def _ensure_alone(self) -> None:
        assert self._lock is not None
        try:
            self._lock.ensure()
        except AlreadyLocked:
            raise OSError("another kvdb server keeps its data there") from None

    def _release_lock(self) -> None:
        if self._lock:
            self._lock.release()

    def _open_data(self, path: Path) -> Snapshots | Journal:
        if path.suffix in JOURNAL_SUFFIXES:
            self._journal = self._open_journal(path)
            return self._journal
        # Asked again at each look: CONFIG SET save may change it.
        snapshots = Snapshots(self.store, path, lambda: self.config.snapshot_interval)
        saver = Periodic("snapshot", snapshots.save_if_due, snapshots.seconds_to_next)
        snapshots.on_request = saver.wake
        snapshots.ensure_alone = self._ensure_alone
        self._threads.append(saver)
        return snapshots

    def _open_journal(self, path: Path) -> Journal:
        from kvdb.persistence.journal import Journal

        try:
            return Journal(self.store, path, Fsync(self.config.fsync))
        except PersistenceError as error:
            raise CannotStart(str(error)) from None

    def _load(self) -> int:
        try:
            if self._journal:
                return self._journal.load()
            if self.persistence and self.persistence.path.exists():
                return load_snapshot(self.persistence.path, self.store)
        except PersistenceError as error:
            raise CannotStart(str(error)) from None
        return 0

    def _open_doors(self) -> None:
        config = self.config
        openers: dict[str, tuple[int | None, Callable[[int], Door]]] = {
            "main": (config.port, self._open_main),
            "memcached": (config.memcached_port, self._open_memcached),
            "haus": (config.haus_port, self._open_haus),
            "http": (config.http_port, self._open_http),
        }
        for name, (port, open_door) in openers.items():
            if port is None:
                continue
            try:
                door = self.doors[name] = open_door(port)
            except OSError as error:
                raise CannotStart(
                    f"cannot listen on {config.host} port {port}: {error.strerror or error}"
                ) from None
            setattr(config, "port" if name == "main" else f"{name}_port", door.port)

    # What each tells a client if there are too many of them is in its own words.

    def _open_main(self, port: int) -> Door:
        too_many = encode_error(TOO_MANY_CLIENTS)
        return Server(self.config.host, port, self.instance, MainPort, too_many)

    def _open_memcached(self, port: int) -> Door:
        from kvdb.protocols.memcached import Memcached

        too_many = b"ERROR Too many open connections\r\n"
        return Server(self.config.host, port, self.instance, Memcached, too_many)

    def _open_haus(self, port: int) -> Door:
        from kvdb.protocols.haus import Haus

        too_many = b'{"status": "Error", "mesg": "Too many clients!"}\n'
        return Server(self.config.host, port, self.instance, Haus, too_many)

    def _open_http(self, port: int) -> Door:
        from kvdb.http.server import HttpServer

        return HttpServer(self.config.host, port, self.instance)


def _take_lock(data: Path) -> LockFile:
    try:
        return LockFile(data)
    except AlreadyLocked:
        raise CannotStart(f"{data} is in use by another kvdb server") from None
    except OSError as error:
        raise CannotStart(f"cannot keep data in {data}: {error.strerror or error}") from None
