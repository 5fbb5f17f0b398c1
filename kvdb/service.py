"""A whole server in one process: the store, its ports, and what runs beside them."""

from __future__ import annotations

import errno
import gc
import logging
import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import kvdb.commands  # noqa: F401  (fills the command table)
from kvdb.acl import BadUsersFile
from kvdb.allocator import can_be_kept
from kvdb.commands.following import follow, unfollow
from kvdb.commands.instance import Instance
from kvdb.config import MB, Config, Fsync
from kvdb.errors import TOO_MANY_CLIENTS
from kvdb.memory import Governor, resident_bytes
from kvdb.periodic import Periodic
from kvdb.persistence import PersistenceError, Progress
from kvdb.persistence.lockfile import AlreadyLocked, LockFile
from kvdb.persistence.snapshot import Snapshots
from kvdb.persistence.snapshot_loading import load_snapshot
from kvdb.protocols.main_port import MainPort
from kvdb.reaper import Reaper
from kvdb.resp.encoding import encode_error
from kvdb.server.listener import (
    RESERVED_DESCRIPTORS,
    Listener,
    Port,
    addresses_of,
    raise_descriptor_limit,
)
from kvdb.server.loop import EventLoop
from kvdb.store import Store

# What only one port or one kind of data file needs is imported when that is opened: a server
# that has neither starts in two thirds of the time.
if TYPE_CHECKING:
    from kvdb.http.history import History
    from kvdb.persistence.journal import Journal
    from kvdb.server.tls import Certificates

log = logging.getLogger(__name__)

_LARGE_FILE = 16 * MB  # above, a line is logged before it is loaded: that may take a while

_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)

LARGEST_IN_JOURNAL = 900 * MB
"""SQLite's limit for a row, key and value together, is 10**9 bytes."""


class CannotStart(Exception):
    """Why the server does not start, in one sentence for whoever started it."""


class Service:
    """A whole server. Started once, stopped once."""

    def __init__(
        self,
        config: Config,
        *,
        own_process: bool = False,
        load: bool = True,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Take the lock, open the ports, load the data. Raises CannotStart.

        Without `load`, start() loads the data, and clients are told so meanwhile.
        With `own_process` the budget is kept by the process as a whole; a server within another
        program cannot know what that one needs, and counts its entries only.
        `clock` returns Unix seconds; keys expire by it.
        """
        self.config = config
        self._own_process = own_process
        self._loop: EventLoop | None = None  # self.loop, as soon as there is one
        # put() may be called by a signal handler, whatever this thread is doing: SimpleQueue
        # is the one queue that allows it. What is put tells whether to save at the end.
        self.stop_requests: queue.SimpleQueue[bool] = queue.SimpleQueue()
        self.stopping = False  # somebody has asked for the end, and it was not refused
        self.store = Store(config.max_bytes, clock=clock)
        self.governor: Governor | None = None
        self.persistence: Snapshots | Journal | None = None
        self._journal: Journal | None = None  # self.persistence, if it is one
        self.listeners: dict[str, Listener] = {}
        self._more_listeners: list[Listener] = []  # same ports, the host's other addresses
        self._threads: list[Periodic] = []
        self._history: History | None = None  # of the HTTP port, if it is open
        if config.data:
            # The same file must have one path: where links lead to is what gets replaced.
            config.data = config.data.resolve()
        self._lock = _take_lock(config.data) if config.data else None
        try:
            if config.data:
                self.persistence = self._open_data(config.data)
            self.instance = Instance(self.store, config, self.persistence, self.stop_requests.put)
            self.instance.certificates = self._open_certificates()
            self._read_users()
            self.loop = self._loop = EventLoop(congested=lambda: self.instance.congested)
            _have_called(self.instance, self.loop)
            self.instance.overseer.on_round_limit = self._limit_rounds
            self.instance.overseer.update()
            if self._journal:
                self._journal.on_progress = self.loop.wake
            self._open_ports()
            if own_process:
                self._keep_within_limits()
            self.loaded: int | None = self._load() if load else None
        except BaseException:
            for listener in self._all_listeners():
                listener.server_close()
            if self._journal:
                self._journal.stop()
            if self._loop is not None:
                self._loop.stop()
            self._release_lock(refused=True)
            raise
        reaper = Reaper(self.store, self.instance.planned_flush)
        reaper.may_expire = lambda: self.instance.may_expire
        self._threads.append(reaper)
        self._threads.append(Periodic.every("housekeeping", 1.0, self.instance.housekeeping))

    @property
    def server(self) -> Listener:
        """The main listener."""
        return self.listeners["main"]

    def start(self) -> None:
        """Serve from now on. Raises CannotStart or LoadingInterrupted if the data was to be loaded."""
        self.loop.start()
        self.instance.background.append(self.loop.thread)
        if self.loaded is None:
            if self._takes_long_to_load():
                self.instance.loading = True
                for listener in self._all_listeners():
                    listener.start()
            self.loaded = self._load()
        if self._own_process:  # what is loaded stays: no garbage collection has to walk it again
            gc.collect()
            gc.freeze()
        if self._journal:
            self._journal.start()
            self.instance.background.append(self._journal.thread)
        for each in self._threads:
            each.start()
            self.instance.background.append(each.thread)
        self.instance.notifications.use(self.config.notify_keyspace_events)
        # Only now may anybody write: what the journal did not hear of would never be written down.
        if self.config.import_file is not None:
            _import(self, self.config.import_file)
        self.instance.loading = False
        if self.config.replica_of:
            follow(self.instance, *self.config.replica_of)
        for listener in self._all_listeners():
            if not listener.started:
                listener.start()

    def stop(self, save: bool = True) -> bool:
        """Stop from the outside in; tell whether everything could be saved."""
        self.instance.background.clear()
        self.instance.scripts.stopping = True
        unfollow(self.instance)
        for listener in self._all_listeners():
            listener.stop()
        self.loop.stop()
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

    def _limit_rounds(self, seconds: float | None) -> None:
        self.loop.longest_round = seconds

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

    def _open_certificates(self) -> Certificates | None:
        config = self.config
        if config.tls_cert is None:
            return None
        from kvdb.server.tls import Certificates, describe

        try:
            return Certificates(config.tls_cert, config.tls_key, config.tls_client_ca)
        except OSError as error:
            files = filter(None, (config.tls_cert, config.tls_key, config.tls_client_ca))
            names = ", ".join(map(str, files))
            raise CannotStart(f"cannot use {names} for TLS: {describe(error)}") from None

    def _read_users(self) -> None:
        """Read --acl-file, if there is one."""
        path = self.config.acl_file
        if path is None:
            return
        # Resolved now: ACL SAVE must not write somewhere else.
        self.config.acl_file = path = path.resolve()
        try:
            self.instance.users.load(path)
        except BadUsersFile as bad:
            raise CannotStart(f"the users cannot be read: {bad.reasons[0]}") from None
        password = self.config.password
        if password is not None and not self.instance.users.default.rules.takes(password.encode()):
            raise CannotStart(
                f"{path} gives the default user another password than --password-file"
            )

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

    def _open_ports(self) -> None:
        config = self.config
        try:
            addresses = addresses_of(config.host)
        except OSError as error:
            reason = f"{config.host}: {error.strerror or error}"
            raise CannotStart(f"cannot listen on the address of --host {reason}") from None
        openers: dict[str, tuple[int | None, Callable[[str, int], Listener]]] = {
            "main": (config.port, self._open_main),
            "memcached": (config.memcached_port, self._open_memcached),
            "haus": (config.haus_port, self._open_haus),
            "http": (config.http_port, self._open_http),
        }
        for name, (port, open_port) in openers.items():
            if port is None:
                continue
            listener = self._open_everywhere(name, open_port, addresses, port)
            setattr(config, "port" if name == "main" else f"{name}_port", listener.port)

    def _open_everywhere(
        self, name: str, open_port: Callable[[str, int], Listener], addresses: list[str], port: int
    ) -> Listener:
        """Listen on all of these addresses that this machine has; return the first."""
        for address in addresses:
            first = self.listeners.get(name)
            try:
                listener = open_port(address, first.port if first else port)
            except OSError as error:
                if error.errno in _NO_SUCH_ADDRESS and len(addresses) > 1:
                    continue
                where = f"{self.config.host} port {port}"
                raise CannotStart(f"cannot listen on {where}: {error.strerror or error}") from None
            if first is None:
                self.listeners[name] = listener
            else:
                self._more_listeners.append(listener)
        if name not in self.listeners:
            raise CannotStart(f"this machine has no address of --host {self.config.host}")
        return self.listeners[name]

    def _all_listeners(self) -> list[Listener]:
        return [*self._more_listeners, *reversed(self.listeners.values())]  # main: started last

    # What each tells a client if there are too many of them is in its own words.

    def _open_main(self, host: str, port: int) -> Listener:
        too_many = encode_error(TOO_MANY_CLIENTS)
        return Port(host, port, self.instance, self.loop, MainPort, too_many)

    def _open_memcached(self, host: str, port: int) -> Listener:
        from kvdb.protocols.memcached import Memcached

        too_many = b"ERROR Too many open connections\r\n"
        return Port(host, port, self.instance, self.loop, Memcached, too_many)

    def _open_haus(self, host: str, port: int) -> Listener:
        from kvdb.protocols.haus import Haus

        too_many = b'{"status": "Error", "mesg": "Too many clients!"}\n'
        return Port(host, port, self.instance, self.loop, Haus, too_many)

    def _open_http(self, host: str, port: int) -> Listener:
        from kvdb.http.listener import HttpServer

        self._history = self._history or _sampled_history(self.instance, self._threads)
        return HttpServer(host, port, self.instance, self._history)


def _import(service: Service, path: Path) -> None:
    """Put in what a file of Redis's holds. Raises CannotStart, before anything is there."""
    if service.store.total_keys:
        log.info("%s was not imported: there are keys already", path)
        return
    from kvdb.rdb.files import NotRdb
    from kvdb.rdb.importing import import_rdb

    try:
        done = import_rdb(path, service.store, service.config.max_value_bytes)
    except (NotRdb, OSError) as error:
        raise CannotStart(f"cannot import {path}: {error}") from None
    log.info("%s: %d keys imported, %d had expired", path, done.stored, done.expired)
    for name, number in sorted(done.others.items()):
        log.warning("%s: %d keys of type %s were left out", path, number, name)
    if done.refused or service.store.evicted_keys:
        lost = done.refused + service.store.evicted_keys
        log.warning("%s: %d keys do not fit into the budget (--max-mb)", path, lost)
    service.save()


def _have_called(instance: Instance, loop: EventLoop) -> None:
    """Have the loop call those who have something to do there."""
    loop.on_long_round = instance.overseer.long_round
    instance.notifications.call_soon = instance.replication.call_soon = loop.call
    instance.scripts.serve_others = loop.serve_others
    instance.tracking.on_messages = lambda: loop.call(instance.tracking.send)


def _sampled_history(instance: Instance, threads: list[Periodic]) -> History:
    """Return a history, with a thread that will sample it added to `threads`."""
    from kvdb.http.history import History

    history = History(instance)
    threads.append(Periodic.every("history", 1.0, history.sample))
    return history


def _take_lock(data: Path) -> LockFile:
    try:
        return LockFile(data)
    except AlreadyLocked:
        raise CannotStart(f"{data} is in use by another kvdb server") from None
    except OSError as error:
        raise CannotStart(f"cannot keep data in {data}: {error.strerror or error}") from None
