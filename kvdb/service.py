"""A whole server in one process: the store, its door, and what runs beside them."""

from __future__ import annotations

import gc
import queue
from pathlib import Path

import kvdb.commands  # noqa: F401  (fills the command table)
from kvdb.commands.session import Instance
from kvdb.config import Config
from kvdb.lockfile import AlreadyLocked, LockFile
from kvdb.periodic import Periodic
from kvdb.protocols.main_port import MainPort
from kvdb.reaper import Reaper
from kvdb.server import Server
from kvdb.snapshot import SnapshotError, Snapshots, load_snapshot
from kvdb.store import Store


class CannotStart(Exception):
    """Why the server does not start, in one sentence for whoever started it."""


class Service:
    """A whole server: store, doors and what runs beside them. Started once, stopped once."""

    def __init__(self, config: Config) -> None:
        """Take the lock, open the door, load the data. Raises CannotStart."""
        self.config = config
        # put() may be called by a signal handler, whatever this thread is doing: SimpleQueue
        # is the one queue that allows it. What is put tells whether to save at the end.
        self.stop_requests: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.store = Store(config.max_bytes)
        self.snapshots: Snapshots | None = None
        self._lock = self._take_lock(config.data)
        try:
            if config.data:
                # A config of its own is read at each look: CONFIG SET save may change it.
                self.snapshots = Snapshots(
                    self.store, config.data, lambda: config.snapshot_interval
                )
            self.instance = Instance(self.store, config, self.snapshots, self.stop_requests.put)
            self.server = self._open_door(config)
            self.loaded = self._load(config.data)
        except BaseException:
            self._release_lock()
            raise
        config.port = self.server.port
        self._threads: list[Periodic] = [
            Reaper(self.store),
            Periodic.every("housekeeping", 1.0, self.instance.housekeeping),
        ]
        if self.snapshots:
            saver = Periodic("snapshot", self.snapshots.save_if_due, self.snapshots.seconds_to_next)
            self.snapshots.on_request = saver.wake
            self._threads.append(saver)

    def start(self) -> None:
        """Serve from now on."""
        # What is loaded stays: no garbage collection has to walk it again.
        gc.collect()
        gc.freeze()
        for thread in self._threads:
            thread.start()
        self.server.start()

    def stop(self, save: bool = True) -> bool:
        """Stop from the outside in; tell whether everything could be saved."""
        self.server.stop()
        for thread in self._threads:
            thread.stop()
        saved = True
        if self.snapshots and save:
            try:
                self.snapshots.save_at_end()
            except SnapshotError:
                saved = False  # logged by the saver
        self._release_lock()
        return saved

    def _take_lock(self, data: Path | None) -> LockFile | None:
        if data is None:
            return None
        try:
            return LockFile(data)
        except AlreadyLocked:
            raise CannotStart(f"{data} is in use by another kvdb server") from None
        except OSError as error:
            raise CannotStart(f"cannot keep data in {data}: {error.strerror or error}") from None

    def _release_lock(self) -> None:
        if self._lock:
            self._lock.release()

    def _open_door(self, config: Config) -> Server:
        try:
            return Server(config.host, config.port, self.instance, MainPort)
        except OSError as error:
            raise CannotStart(
                f"cannot listen on {config.host} port {config.port}: {error.strerror or error}"
            ) from None

    def _load(self, data: Path | None) -> int:
        if data is None or not data.exists():
            return 0
        try:
            return load_snapshot(data, self.store)
        except SnapshotError as error:
            self.server.server_close()
            raise CannotStart(str(error)) from None
