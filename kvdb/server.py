"""The server: accepts connections and moves bytes, one thread per connection.

It knows no protocol: a dialect object takes what arrives and returns what is to be sent.
"""

from __future__ import annotations

import _thread
import contextlib
import errno
import logging
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from kvdb.accounts import SMALL
from kvdb.commands.session import Instance, Session
from kvdb.fastlane import CROWD, LONGEST, FastLane, is_of_use
from kvdb.protocols import Dialect

log = logging.getLogger(__name__)

_RECEIVE_BYTES = 64 * 1024
_MUCH = 16 * 1024  # bytes received at once that the memory has to be looked after for
_KEEPALIVE = 300  # seconds of silence before a peer is asked; Redis's tcp-keepalive
_BACKLOG = 4096  # connections that may wait to be accepted, if the system allows as many
RESERVED_DESCRIPTORS = 64
"""For the data file, the journal, the ports and whatever else the server itself has to open."""

_STOP_POLL = 0.05  # seconds within which the accepting thread notices that it has to stop
_OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Door(socketserver.ThreadingTCPServer):
    """One door: holds an address from its construction on, serves from start() to stop().

    `_changed` guards the set of open connections.
    """

    daemon_threads = True  # stop() ends them; a crash elsewhere must not wait for clients
    block_on_close = False
    request_queue_size = _BACKLOG
    # On Windows that option would let a second server take over the port.
    allow_reuse_address = not hasattr(socket, "SO_EXCLUSIVEADDRUSE")

    def __init__(
        self,
        host: str,
        port: int,
        instance: Instance,
        handler: type[socketserver.BaseRequestHandler],
    ) -> None:
        """Raises OSError if the address cannot be listened on. Port 0 takes a free one.

        Of a name that has several addresses the first is taken: see addresses_of().
        """
        family, _, _, _, address = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        self.address_family = family
        self.instance = instance
        self._changed = threading.Condition()
        self._connections: set[socket.socket] = set()
        self.connection_count = 0  # a reader without the lock may see it a moment old
        self._accepting: threading.Thread | None = None
        self.stopping = False
        self._short_of_descriptors = self._short_of_threads = False
        super().__init__(address, handler, bind_and_activate=False)  # type: ignore[arg-type]
        try:
            self.server_bind()
        except BaseException:
            self.server_close()
            raise

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6 and self.server_address[0] == "::":
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        if hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
        super().server_bind()

    @property
    def host(self) -> str:
        return str(self.server_address[0])

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def started(self) -> bool:
        """Whether start() has been called."""
        return self._accepting is not None

    def start(self) -> None:
        """Listen and accept connections, on a thread of its own, from now on."""
        self.server_activate()
        self._accepting = threading.Thread(
            target=self._accept_until_stopped, name=f"accept-{self.port}", daemon=True
        )
        self._accepting.start()
        self.instance.background.append(self._accepting)

    def _accept_until_stopped(self) -> None:
        """Accept connections, whatever goes wrong: memory may be refused for a moment."""
        while not self.stopping:
            try:
                self.serve_forever(_STOP_POLL)
            except Exception:
                with contextlib.suppress(Exception):
                    log.exception("port %d: accepting failed; trying again", self.port)
                time.sleep(_STOP_POLL)

    def stop(self, grace: float = 2.0) -> None:
        """Stop accepting, let requests under way be answered, end every connection.

        An idle client is ended at once; one that does not take its replies, after `grace` seconds.
        """
        self.stopping = True
        if self._accepting is not None:
            self.shutdown()
            self._accepting.join()
        self.server_close()
        self._end_all(socket.SHUT_RD)
        if not self.wait_until_empty(grace):
            self._end_all(socket.SHUT_RDWR)
            self.wait_until_empty(grace)

    def wait_until_empty(self, timeout: float) -> bool:
        """Wait until every connection has ended; tell whether they have."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._connections, timeout)

    def hold_back(self, seconds: float) -> None:
        """Have this thread wait, because its client guesses passwords; not beyond a stop."""
        end = self.instance.monotonic() + seconds
        while not self.stopping and (left := end - self.instance.monotonic()) > 0:
            time.sleep(min(left, _STOP_POLL))

    def end(self, connection: socket.socket, how: int = socket.SHUT_RDWR) -> None:
        """End a connection, or (SHUT_RD) have it end once what has come in is answered.

        Any thread may call it at any time. The socket is closed by its own thread only: closed
        here, its number could belong to another connection by the time that thread uses it.
        """
        with self._changed:
            if connection in self._connections:
                with contextlib.suppress(OSError):  # the client may be gone already
                    connection.shutdown(how)

    def _end_all(self, how: int) -> None:
        with self._changed:
            connections = list(self._connections)
        for connection in connections:
            self.end(connection, how)

    # --- hooks of socketserver -----------------------------------------------------------

    def get_request(self) -> tuple[socket.socket, object]:
        try:
            accepted = super().get_request()
            self._short_of_descriptors = False
            return accepted
        except OSError as error:
            if error.errno in _OUT_OF_DESCRIPTORS:
                if not self._short_of_descriptors:
                    log.error("cannot accept a connection: %s; trying again", error.strerror)
                self._short_of_descriptors = True
                time.sleep(0.1)  # the connection goes on waiting: do not spin meanwhile
            raise  # socketserver goes on accepting

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self.instance.enter():
            most = self.instance.config.max_clients
            text = f"client turned away: there are {most} already (--max-clients)"
            self.instance.sparse_log.warn(log, "turned away", text)
            self.refuse(request)
            super().shutdown_request(request)
            return
        with self._changed:
            self._connections.add(request)
            self.connection_count = len(self._connections)
        # Not Thread.start(): it waits for a sign of life, for ever if memory is refused to the
        # new thread before it can give one.
        try:
            _thread.start_new_thread(self.process_request_thread, (request, client_address))
        except (RuntimeError, MemoryError) as error:
            self.shutdown_request(request)
            if not self._short_of_threads:
                log.error("cannot serve a connection: %s", str(error) or "not enough memory")
            self._short_of_threads = True
        else:
            self._short_of_threads = False

    def refuse(self, request: socket.socket) -> None:
        """Tell a client that there are too many, if it can be told without waiting."""

    def shutdown_request(self, request: Any) -> None:
        with self._changed:
            entered = request in self._connections
            self._connections.discard(request)
            self.connection_count = len(self._connections)
            self._changed.notify_all()
        super().shutdown_request(request)
        if entered:
            self.instance.leave()

    def handle_error(self, request: object, client_address: object) -> None:
        log.exception("client %s: internal error, connection ended", client_address)


class Server(Door):
    """A door behind which a dialect is spoken."""

    def __init__(
        self,
        host: str,
        port: int,
        instance: Instance,
        new_dialect: Callable[[Session], Dialect],
        full: bytes,
    ) -> None:
        """`full` is what a client is told if there are too many. Raises as Door() does."""
        self.new_dialect = new_dialect
        self.full = full
        self.lane: FastLane | None = None
        super().__init__(host, port, instance, Connection)

    def start(self) -> None:
        """As Door.start()."""
        if is_of_use():
            self.lane = FastLane(self.instance.monotonic, lambda: self.crowded, self._congested)
            self.lane.start()
            self.instance.background.append(self.lane.thread)
        super().start()

    def stop(self, grace: float = 2.0) -> None:
        """As Door.stop()."""
        super().stop(grace)
        if self.lane:
            self.lane.stop()

    def refuse(self, request: socket.socket) -> None:
        """See `Door.refuse`."""
        with contextlib.suppress(OSError):
            request.setblocking(False)
            request.send(self.full)

    def _congested(self) -> bool:
        persistence = self.instance.persistence
        return persistence is not None and persistence.congested

    @property
    def crowded(self) -> bool:
        """Whether there are so many connections that quick requests go to the fast lane."""
        return self.lane is not None and self.connection_count > CROWD


class Connection(socketserver.BaseRequestHandler):
    """One client's connection, on a thread of its own."""

    server: Server
    request: socket.socket

    def setup(self) -> None:
        with contextlib.suppress(OSError):  # it may be gone already
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A peer that has vanished without a word must not keep a thread for ever.
            self.request.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_KEEPIDLE"):
                self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE)

    def handle(self) -> None:
        try:
            address, local = self.request.getpeername(), self.request.getsockname()
        except OSError:
            return  # gone already
        session = Session(
            self.server.instance,
            format_address(address),
            format_address(local),
            close=lambda: self.server.end(self.request),
        )
        self.server.instance.admit(session)
        dialect: Dialect | None = None
        try:
            dialect = self.server.new_dialect(session)
            self._converse(session, dialect)
        except OSError:
            pass  # the client is gone, or somebody ended the connection: nothing to be answered
        finally:
            if dialect is not None:
                dialect.end()
            self.server.instance.dismiss(session)

    def _converse(self, session: Session, dialect: Dialect) -> None:
        """The main loop: receive bytes, hand them to the dialect, send what it returned."""
        server, instance = self.server, self.server.instance
        receive, send = self.request.recv, self.request.sendall
        now, governor, persistence = instance.monotonic, instance.governor, instance.persistence
        data = receive(_RECEIVE_BYTES)
        while data and not server.stopping:
            session.last_active = now()
            session.received += len(data)
            quick = dialect.answer_quickly(data) if len(data) <= LONGEST else None
            if quick is None:
                if len(data) > _MUCH and governor:
                    governor.keep_pace(len(data))
                replies = dialect.receive(data)
                held = dialect.held_bytes + session.queued_bytes
            else:
                replies, held = quick, 0
            if held > SMALL or len(replies) > SMALL or session.held:
                instance.accounts.report(session, held + len(replies))
            if session.penalty:
                server.hold_back(session.take_penalty())
            if replies:
                send(replies)
                session.sent += len(replies)
            was_quick = quick is not None
            data = replies = quick = b""  # nothing of it is kept while the client is idle
            if dialect.more:
                self._send_more(session, dialect)
            if dialect.closing:
                return
            if persistence is not None and persistence.congested:
                persistence.wait_for_room()
            if session.held:
                instance.accounts.report(session, dialect.held_bytes + session.queued_bytes)
                instance.accounts.wait_for_room(session)
            if was_quick and server.connection_count > CROWD and server.crowded:
                data = self._wait_in_lane(session, dialect)
            else:
                data = receive(_RECEIVE_BYTES)

    def _send_more(self, session: Session, dialect: Dialect) -> None:
        accounts = self.server.instance.accounts
        replies = b""
        while dialect.more:
            replies = dialect.receive(b"")
            if session.penalty:
                self.server.hold_back(session.take_penalty())
            if replies:
                accounts.report(session, dialect.held_bytes + session.queued_bytes + len(replies))
                self.request.sendall(replies)
                session.sent += len(replies)
        accounts.report(session, dialect.held_bytes + session.queued_bytes)

    def _wait_in_lane(self, session: Session, dialect: Dialect) -> bytes:
        """Have the fast lane answer as long as it can; return what has arrived then."""
        assert self.server.lane is not None
        unsent, data = self.server.lane.wait(self.request, session, dialect)
        if unsent:
            self.request.sendall(unsent)
            session.sent += len(unsent)
        self._send_more(session, dialect)
        if dialect.closing:
            return b""
        return self.request.recv(_RECEIVE_BYTES) if data is None else data


def addresses_of(host: str) -> list[str]:
    """Return the addresses that a name has, in their order. Raises OSError if it has none.

    localhost may be ::1 and 127.0.0.1, and a client may try either.
    """
    found = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def format_address(address: tuple[object, ...]) -> str:
    """Return address and port as CLIENT LIST has them."""
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def raise_descriptor_limit() -> int | None:
    """Have the system give us all descriptors that it may; return how many, None: unknown."""
    if sys.platform == "win32":
        return None
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return None if soft == resource.RLIM_INFINITY else soft
