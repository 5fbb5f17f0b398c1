"""Listeners: each holds an address, accepts connections there, and hands them on."""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Protocol

from kvdb.commands.instance import Instance
from kvdb.commands.session import Session
from kvdb.protocols import Dialect
from kvdb.server.connection import Connection
from kvdb.server.loop import EventLoop
from kvdb.server.transport import PlainTransport, Transport

log = logging.getLogger(__name__)

_KEEPALIVE = 300  # seconds of silence before a peer is asked; Redis's tcp-keepalive
_BACKLOG = 4096  # connections that may wait to be accepted, if the system allows as many
RESERVED_DESCRIPTORS = 64
"""For the data file, the journal, the ports and whatever else the server itself has to open."""

_STOP_POLL = 0.05  # seconds within which the accepting thread notices that it has to stop
_OUT_OF_DESCRIPTORS = {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM}


class Open(Protocol):
    """An open connection, as its listener sees it. Any thread may call these at any time."""

    def finish(self) -> None:
        """End it once what has come in is answered."""

    def end(self) -> None:
        """End it at once."""


class Listener(socketserver.ThreadingTCPServer):
    """Holds an address from its construction on, accepts connections from start() to stop().

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
        self._connections: set[Open] = set()
        self._accepting: threading.Thread | None = None
        self.stopping = False
        self._short_of_descriptors = self._short_of_memory = False
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
        """Accept connections, whatever goes wrong: memory may be refused for a moment.

        Once at least: stop() waits for serve_forever(), even if it was called before that began.
        """
        while True:
            try:
                self.serve_forever(_STOP_POLL)
            except Exception:
                with contextlib.suppress(Exception):
                    log.exception("port %d: accepting failed; trying again", self.port)
                time.sleep(_STOP_POLL)
            if self.stopping:
                break

    def stop(self, grace: float = 2.0) -> None:
        """Stop accepting, let requests under way be answered, end every connection.

        An idle client is ended at once; one that does not take its replies, after `grace` seconds.
        """
        self.stopping = True
        if self._accepting is not None:
            self.shutdown()
            self._accepting.join()
        self.server_close()
        for connection in self._open_connections():
            connection.finish()
        if not self.wait_until_empty(grace):
            for connection in self._open_connections():
                connection.end()
            self.wait_until_empty(grace)

    def wait_until_empty(self, timeout: float) -> bool:
        """Wait until every connection has ended; tell whether they have."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._connections, timeout)

    def remember(self, connection: Open) -> None:
        """Count a connection among the open ones."""
        with self._changed:
            self._connections.add(connection)

    def forget(self, connection: Open) -> None:
        """A connection has ended."""
        with self._changed:
            self._connections.discard(connection)
            self._changed.notify_all()
        self.instance.leave()

    def _open_connections(self) -> list[Open]:
        with self._changed:
            return list(self._connections)

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
            self.shutdown_request(request)
            return
        try:
            self.serve(request, client_address)
        except (RuntimeError, MemoryError) as error:
            self.shutdown_request(request)
            self.instance.leave()
            if not self._short_of_memory:
                log.error("cannot serve a connection: %s", str(error) or "not enough memory")
            self._short_of_memory = True
        else:
            self._short_of_memory = False

    def serve(self, request: socket.socket, client_address: Any) -> None:
        """Have a connection served that has entered; returns at once.

        Raises RuntimeError or MemoryError if that is not possible now.
        """
        raise NotImplementedError

    def refuse(self, request: socket.socket) -> None:
        """Tell a client that there are too many, if it can be told without waiting."""

    def handle_error(self, request: object, client_address: object) -> None:
        log.exception("client %s: internal error, connection ended", client_address)


class Port(Listener):
    """A listener behind which a dialect is spoken; the event loop serves its connections."""

    def __init__(
        self,
        host: str,
        port: int,
        instance: Instance,
        loop: EventLoop,
        new_dialect: Callable[[Session], Dialect],
        full: bytes,
    ) -> None:
        """`full` is what a client is told if there are too many. Raises as Listener() does."""
        self._loop, self._new_dialect, self._full = loop, new_dialect, full
        self._pushing = threading.Lock()  # of all its connections
        super().__init__(host, port, instance, socketserver.BaseRequestHandler)

    def serve(self, request: socket.socket, client_address: Any) -> None:
        """See `Listener.serve`."""
        try:
            address, local = request.getpeername(), request.getsockname()
            keep_alive(request)
            request.setblocking(False)
        except OSError:  # gone already
            self.close_request(request)
            self.instance.leave()
            return
        session = Session(self.instance, format_address(address), format_address(local))
        connection = Connection(
            request,
            self._transport(request, session),
            self._loop,
            session,
            self._new_dialect(session),
            self._pushing,
            self.forget,
        )
        session.close, session.push = connection.end, connection.push
        session.recall = connection.recall
        self.remember(connection)
        log.debug("client %s: connected to port %d", session.address, self.port)
        try:
            self.instance.admit(session)
            self._loop.call(connection.enter)
        except BaseException:  # a lack of memory
            with self._changed:
                self._connections.discard(connection)
            self.instance.dismiss(session)
            raise

    def _transport(self, connection: socket.socket, session: Session) -> Transport:
        if self.instance.certificates is None:
            return PlainTransport(connection)
        from kvdb.server.tls import TlsTransport

        instance, address = self.instance, session.address

        def complain(text: str) -> None:
            line = f"client {address}: {text}; closed"
            instance.sparse_log.warn(log, f"port {self.port} {text}", line)

        return TlsTransport(connection, self.instance.certificates.context(), complain)

    def refuse(self, request: socket.socket) -> None:
        """See `Listener.refuse`."""
        if self.instance.certificates:
            return  # it would not understand a word
        with contextlib.suppress(OSError):
            request.setblocking(False)
            request.send(self._full)


def keep_alive(connection: socket.socket) -> None:
    """Send small answers at once, and ask a peer that is silent whether it is still there.

    One that has vanished without a word must not be kept for ever. Raises OSError.
    """
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if hasattr(socket, "TCP_KEEPIDLE"):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE)


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


_WATCHED_ON_WINDOWS = 512
"""Sockets that select() takes there, as Python is built; the event loop waits for them all."""


def raise_descriptor_limit() -> int | None:
    """Have the system give us all descriptors that it may; return how many, None: no limit."""
    if sys.platform == "win32":
        return _WATCHED_ON_WINDOWS
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    return None if soft == resource.RLIM_INFINITY else soft
