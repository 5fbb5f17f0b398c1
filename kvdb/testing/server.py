"""A server for tests, and what a test can do to it."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final
from urllib.parse import quote

from kvdb.client import Client
from kvdb.config import Config
from kvdb.service import Service
from kvdb.store import Dump
from kvdb.store.entry import Entry, Key
from kvdb.testing.clock import Clock
from kvdb.testing.faults import Fault, Faults, Happening, delay, disconnect, names_of, refuse

_ANY_ADDRESS: Final = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""What a server may listen on, and where a client on the same machine finds it."""


class Server:
    """A server in this process, from running(). For one thread at a time; any may talk to it."""

    def __init__(self, config: Config) -> None:
        """It does not run before start()."""
        self.clock = Clock()
        """What time it is for the server."""
        self.clock.on_change = self._expire
        self._config = config
        self._service: Service | None = None
        self._kept: Dump | None = None  # the data of a server in memory, while it is stopped
        self._faults = Faults()
        self._stopping = threading.Event()
        self._clients: list[Client[Any]] = []

    def __str__(self) -> str:
        return self.url

    # --- where it is ---------------------------------------------------------------------

    @property
    def host(self) -> str:
        """Where clients find it: `127.0.0.1`, unless told otherwise."""
        host = self._config.host
        return _ANY_ADDRESS.get(host, host)

    @property
    def port(self) -> int:
        """Its main port; restart() does not change it."""
        return self._config.port

    @property
    def ports(self) -> dict[str, int]:
        """All ports that are open: `main`, `memcached`, `haus` and `http`."""
        config = self._config
        ports = {
            "main": config.port,
            "memcached": config.memcached_port,
            "haus": config.haus_port,
            "http": config.http_port,
        }
        return {name: port for name, port in ports.items() if port is not None}

    @property
    def address(self) -> str:
        """Host and port: `127.0.0.1:4242`."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """For clients that take one: `kvdb://127.0.0.1:4242`; with the password, if there is one."""
        config = self._config
        scheme = "kvdbs" if config.tls_cert else "kvdb"
        password = "" if config.password is None else f":{quote(config.password, safe='')}@"
        return f"{scheme}://{password}{self.address}"

    def client(self, **options: Any) -> Client[Any]:
        """Return a new client of this server; close() closes it. Options are those of kvdb.Client."""
        if self._config.password is not None:
            options.setdefault("password", self._config.password)
        client = Client(self.host, self.port, **options)
        self._clients.append(client)
        return client

    # --- time and data -------------------------------------------------------------------

    def advance(self, seconds: float) -> None:
        """Have so much time pass at once; what has expired is gone on return.

        Only keys see it: the timeouts of connections go by real time. Raises ValueError if it is
        negative.
        """
        self.clock.advance(seconds)

    def flush(self) -> None:
        """Empty the server: the keys of all databases, scripts, statistics, logs."""
        self._kept = None
        if self._service is None:
            return
        instance = self._service.instance
        instance.planned_flush.plan(None)
        with instance.store.atomic():
            instance.store.flush()
            if instance.scripts.count:
                instance.scripts.machine.scripts.clear()
        instance.reset_statistics()
        instance.overseer.slow_log.reset()
        instance.overseer.latency.reset(())

    def reset(self) -> None:
        """Have it as it was at first, for the next test: running, empty, with the real time, and
        with nothing that is to go wrong.

        What CONFIG SET and ACL have changed stays, and so do connections; restart(lose=True)
        undoes that, too.
        """
        self._faults.clear()
        self.flush()
        self.clock.reset()
        if self._service is None:
            self.start()
        else:
            self._service.instance.overseer.end_pause()

    # --- what goes wrong -----------------------------------------------------------------
    #
    # A command is named as on the wire; `INCR` means INCRBY, too, which clients send for it.
    # Requests of every port count, as what the README says they count as. A request meets one
    # fault at most: of several for it, the one that was ordered first.

    def fail_next(self, command: str, error: str = "ERR failed on purpose", times: int = 1) -> None:
        """Refuse the next requests of a command with this error, and do not carry them out.

        Text without a code word (`OOM`, `READONLY`) in front gets `ERR`. What MULTI has queued or a
        script calls is refused, too. Raises ValueError if there is no such command, or the text
        is more than a line.
        """
        self._order(command, refuse(error), times, within_a_step=True)

    def delay_next(self, command: str, seconds: float, times: int = 1) -> None:
        """Carry out the next requests of a command at once, but send the answer so much later.

        Nobody but its client waits. Of MULTI and of scripts, `EXEC` and `EVAL` can be delayed.
        Raises ValueError if there is no such command, or no such time.
        """
        self._order(command, delay(seconds, self._stopping), times)

    def disconnect_next(self, command: str, times: int = 1, *, after: bool = False) -> None:
        """Close the connection in place of answering the next requests of a command.

        They are not carried out; with `after`, they are. Of MULTI and of scripts, `EXEC` and `EVAL`
        can be treated so. Raises ValueError if there is no such command.
        """
        self._order(command, disconnect(after), times)

    def forget_faults(self) -> None:
        """Have nothing go wrong that was ordered and has not happened yet."""
        self._faults.clear()

    @property
    def faults_left(self) -> int:
        """How many requests something is still to happen to: 0, if a test has met them all."""
        return self._faults.count()

    def _order(
        self, command: str, happen: Happening, times: int, within_a_step: bool = False
    ) -> None:
        if times < 1:
            raise ValueError(f"something can go wrong once or more often, not {times} times")
        self._faults.add(Fault(names_of(command), happen, times, within_a_step))

    # --- start and stop ------------------------------------------------------------------

    @property
    def is_running(self) -> bool:
        """Whether it can be connected to."""
        return self._service is not None

    def start(self) -> None:
        """Run, with the data that there was at stop(); nothing if it runs already.

        Raises CannotStart, if somebody else has taken the port, for example.
        """
        if self._service is not None:
            return
        config = replace(self._config)  # CONFIG SET changes it
        service = self._service = Service(config, clock=self.clock)
        self._config = replace(
            self._config,
            port=config.port,
            memcached_port=config.memcached_port,
            haus_port=config.haus_port,
            http_port=config.http_port,
        )
        if self._kept is not None:
            service.store.restore(_entries(self._kept))
            self._kept = None
        self._stopping.clear()
        self._faults.attach(service.instance.overseer)
        service.start()

    def stop(self, *, lose: bool = False) -> None:
        """End all connections and refuse new ones; nothing if it is stopped already.

        With `lose` the data is lost, as after a crash: all of it or, where there is a data file,
        what is not in that yet.
        """
        service = self._service
        if service is None:
            return
        self._service = None
        self._stopping.set()
        self._faults.attach(None)
        _stop_accepting(service)
        service.stop(save=not lose)
        if service.persistence is None and not lose:
            self._kept = service.store.dump()

    def restart(self, *, lose: bool = False) -> None:
        """Stop and start at once: at the same port, with the same data; see stop() for `lose`.

        Connections, scripts and what CONFIG SET has changed are gone.
        """
        self.stop(lose=lose)
        self.start()

    def close(self) -> None:
        """End, and close its clients; running() does that."""
        for client in self._clients:
            client.close()
        self._clients.clear()
        self.stop()

    def _expire(self) -> None:
        """Do what the reaper does, without waiting for it."""
        if self._service is None:
            return
        instance = self._service.instance
        if instance.may_expire:
            instance.planned_flush.run_if_due()
            while instance.store.expire_due():
                pass
        instance.store.on_earlier_deadline()  # as the reaper has to look anew when to wake up


def _entries(dump: Dump) -> Iterable[tuple[Key, Entry]]:
    for key, value in zip(dump.keys, dump.values, strict=True):
        yield key, Entry(value, dump.expires_at.get(key), dump.client_flags.get(key, 0))


def _stop_accepting(service: Service) -> None:
    """Have the ports close at once. service.stop() would do it, but wait up to 50 ms for each."""
    for listener in service.listeners.values():
        if listener.started:
            with contextlib.suppress(OSError):  # on Linux this wakes the thread that accepts
                listener.socket.shutdown(socket.SHUT_RDWR)
            listener.stopping = True
            listener.shutdown()
