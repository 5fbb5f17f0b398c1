"""A whole server in one process: the store, its doors, and what runs beside them."""

from __future__ import annotations

import errno
import gc
import logging
import queue
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import kvdb.commands  # noqa: F401  (fills the command table)
from kvdb.allocator import can_be_kept
from kvdb.commands.session import Instance
from kvdb.config import MB, Config, Fsync
from kvdb.errors import TOO_MANY_CLIENTS
from kvdb.memory import Governor, resident_bytes
from kvdb.periodic import Periodic
from kvdb.persistence import PersistenceError, Progress
from kvdb.persistence.lockfile import AlreadyLocked, LockFile
from kvdb.persistence.snapshot import Snapshots, load_snapshot
from kvdb.protocols.main_port import MainPort
from kvdb.reaper import Reaper
from kvdb.resp import encode_error
from kvdb.server import RESERVED_DESCRIPTORS, Door, Server, addresses_of, raise_descriptor_limit
from kvdb.store import Store

# What only one door or one kind of data file needs is imported when that is opened: a server
# that has neither starts in two thirds of the time.
if TYPE_CHECKING:
    from kvdb.persistence.journal import Journal

log = logging.getLogger(__name__)

_LARGE_FILE = 16 * MB  # above, a line is logged before it is loaded: that may take a while

_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

LARGEST_IN_JOURNAL = 900 * MB
"""SQLite's limit for a row, key and value together, is 10**9 bytes."""


class CannotStart(Exception):
    """Why the server does not start, in one sentence for whoever started it."""


class Service:
    """A whole server. Started once, stopped once."""

    def __init__(self, config: Config, *, own_process: bool = False, load: bool = True) -> None:
        """Take the lock, open the doors, load the data. Raises CannotStart.

        Without `load`, start() loads the data, and clients are told so meanwhile.
        With `own_process` the budget is kept by the process as a whole; a server within another
        program cannot know what that one needs, and counts its entries only.
        """
        self.config = config
        # put() may be called by a signal handler, whatever this thread is doing: SimpleQueue
        # is the one queue that allows it. What is put tells whether to save at the end.
        self.stop_requests: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.stopping = False  # somebody has asked for the end, and it was not refused
        self.store = Store(config.max_bytes)
        self.governor: Governor | None = None
        self.persistence: Snapshots | Journal | None = None
        self._journal: Journal | None = None  # self.persistence, if it is one
        self.doors: dict[str, Door] = {}
        self._more_doors: list[Door] = []  # the same ports on the other addresses of the host
        self._threads: list[Periodic] = []
        if config.data:
            # The same file must have one path: where links lead to is what gets replaced.
            config.data = config.data.resolve()
        self._lock = _take_lock(config.data) if config.data else None
        try:
            if config.data:
                self.persistence = self._open_data(config.data)
            self.instance = Instance(self.store, config, self.persistence, self.stop_requests.put)
            self._open_doors()
            if own_process:
                self._keep_within_limits()
            self.loaded: int | None = self._load() if load else None
        except BaseException:
            for door in self._all_doors():
                door.server_close()
            if self._journal:
                self._journal.stop()
            self._release_lock(refused=True)
            raise
        self._threads.append(Reaper(self.store))
        self._threads.append(Periodic.every("housekeeping", 1.0, self.instance.housekeeping))

    @property
    def server(self) -> Door:
        """The main door."""
        return self.doors["main"]

    def start(self) -> None:
        """Serve from now on. Raises CannotStart or LoadingInterrupted if the data was to be loaded."""
        if self.loaded is None:
            if self._takes_long_to_load():
                self.instance.loading = True
                for door in self._all_doors():
                    door.start()
            self.loaded = self._load()
        # What is loaded stays: no garbage collection has to walk it again.
        gc.collect()
        gc.freeze()
        if self._journal:
            self._journal.start()
            self.instance.background.append(self._journal.thread)
        for each in self._threads:
            each.start()
            self.instance.background.append(each.thread)
        # Only now may anybody write: what the journal did not hear of would never be written down.
        self.instance.loading = False
        for door in self._all_doors():
            if not door.started:
                door.start()

    def stop(self, save: bool = True) -> bool:
        """Stop from the outside in; tell whether everything could be saved."""
        self.instance.background.clear()
        for door in self._all_doors():
            door.stop()
        for thread in self._threads:
            thread.stop()
        saved = self.save() if save else True
        if self._journal:
            saved = self._journal.stop()
        self._release_lock(refused=self.loaded is None)
        return saved

    def save(self) -> bool:
        """Put everything on disk while serving goes on; tell whether that went well."""
        try:
            if self.persistence:
                self.persistence.save_at_end()
        except PersistenceError:
            return False  # logged by the saver
        return True

    @property
    def saving_works(self) -> bool:
        """Whether the last attempt to put data on disk went well."""
        return self.persistence is None or self.persistence.last_error is None

    def _keep_within_limits(self) -> None:
        """Have the process keep to the budget, and to the descriptors that the system has for it."""
        if self.store.max_bytes and can_be_kept():
            self.governor = Governor(
                self.store, resident_bytes(), borrowed=self.instance.not_entries_bytes
            )
            self.instance.governor = self.governor
            self._threads.append(self.governor)
        descriptors = raise_descriptor_limit()
        if descriptors is not None:
            self.instance.most_clients = most = max(1, descriptors - RESERVED_DESCRIPTORS)
            if self.config.max_clients > most:
                log.warning(
                    "at most %d clients instead of %d, because the system allows %d open files "
                    "(ulimit -n)", most, self.config.max_clients, descriptors,
                )  # fmt: skip
                self.config.max_clients = most

    def _release_lock(self, refused: bool = False) -> None:
        """Let go of the data; after a start that was `refused`, what the lock file says stays."""
        if self._lock:
            self._lock.release(keep_note=refused)

    def _open_data(self, path: Path) -> Snapshots | Journal:
        if self.config.is_journal:
            if self.config.max_value_bytes > LARGEST_IN_JOURNAL:
                raise CannotStart(
                    f"--max-value-mb may be {LARGEST_IN_JOURNAL // MB} at most with {path.name}: "
                    "SQLite keeps no larger ones"
                )
            self._journal = self._open_journal(path)
            return self._journal
        # Asked again at each look: CONFIG SET save may change it.
        try:
            snapshots = Snapshots(self.store, path, lambda: self.config.snapshot_interval)
        except PersistenceError as error:
            raise CannotStart(str(error)) from None
        saver = Periodic("snapshot", snapshots.save_if_due, snapshots.seconds_to_next)
        snapshots.on_request = saver.wake
        snapshots.lock = self._lock
        self._threads.append(saver)
        return snapshots

    def _open_journal(self, path: Path) -> Journal:
        from kvdb.persistence.journal import Journal

        try:
            return Journal(self.store, path, Fsync(self.config.fsync), self._lock)
        except PersistenceError as error:
            raise CannotStart(str(error)) from None

    def _takes_long_to_load(self) -> bool:
        path = self.persistence.path if self.persistence else None
        return path is not None and path.exists() and path.stat().st_size > _LARGE_FILE

    def _load(self) -> int:
        if self.persistence is None or not self.persistence.path.exists():
            return 0
        path = self.persistence.path
        if self._takes_long_to_load():
            log.info("loading %s (%d MB)", path, path.stat().st_size // MB)
        progress = Progress(path, lambda: not self.stop_requests.empty())
        try:
            if self._journal:
                return self._journal.load(progress)
            return load_snapshot(path, self.store, progress)
        except PersistenceError as error:
            raise CannotStart(str(error)) from None

    def _open_doors(self) -> None:
        config = self.config
        try:
            addresses = addresses_of(config.host)
        except OSError as error:
            reason = f"{config.host}: {error.strerror or error}"
            raise CannotStart(f"cannot listen on the address of --host {reason}") from None
        openers: dict[str, tuple[int | None, Callable[[str, int], Door]]] = {
            "main": (config.port, self._open_main),
            "memcached": (config.memcached_port, self._open_memcached),
            "haus": (config.haus_port, self._open_haus),
            "http": (config.http_port, self._open_http),
        }
        for name, (port, open_door) in openers.items():
            if port is None:
                continue
            door = self._open_everywhere(name, open_door, addresses, port)
            setattr(config, "port" if name == "main" else f"{name}_port", door.port)

    def _open_everywhere(
        self, name: str, open_door: Callable[[str, int], Door], addresses: list[str], port: int
    ) -> Door:
        """Listen on all of these addresses that this machine has; return the first."""
        for address in addresses:
            first = self.doors.get(name)
            try:
                door = open_door(address, first.port if first else port)
            except OSError as error:
                if error.errno in _NO_SUCH_ADDRESS and len(addresses) > 1:
                    continue
                where = f"{self.config.host} port {port}"
                raise CannotStart(f"cannot listen on {where}: {error.strerror or error}") from None
            if first is None:
                self.doors[name] = door
            else:
                self._more_doors.append(door)
        if name not in self.doors:
            raise CannotStart(f"this machine has no address of --host {self.config.host}")
        return self.doors[name]

    def _all_doors(self) -> list[Door]:
        return [*self.doors.values(), *self._more_doors]

    # What each tells a client if there are too many of them is in its own words.

    def _open_main(self, host: str, port: int) -> Door:
        too_many = encode_error(TOO_MANY_CLIENTS)
        return Server(host, port, self.instance, MainPort, too_many)

    def _open_memcached(self, host: str, port: int) -> Door:
        from kvdb.protocols.memcached import Memcached

        too_many = b"ERROR Too many open connections\r\n"
        return Server(host, port, self.instance, Memcached, too_many)

    def _open_haus(self, host: str, port: int) -> Door:
        from kvdb.protocols.haus import Haus

        too_many = b'{"status": "Error", "mesg": "Too many clients!"}\n'
        return Server(host, port, self.instance, Haus, too_many)

    def _open_http(self, host: str, port: int) -> Door:
        from kvdb.http.server import HttpServer

        return HttpServer(host, port, self.instance)


def _take_lock(data: Path) -> LockFile:
    try:
        return LockFile(data)
    except AlreadyLocked:
        raise CannotStart(f"{data} is in use by another kvdb server") from None
    except OSError as error:
        raise CannotStart(f"cannot keep data in {data}: {error.strerror or error}") from None
