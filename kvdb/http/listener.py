"""The HTTP port: a thread for each connection, on the standard library's request handler."""

from __future__ import annotations

import _thread
import contextlib
import logging
import socket
import ssl
import threading
import time
from typing import Any

from kvdb.commands.instance import Instance
from kvdb.errors import TOO_MANY_CLIENTS
from kvdb.http.api import Api
from kvdb.http.handler import Handler
from kvdb.http.history import History
from kvdb.server.listener import Listener, format_address, keep_alive

log = logging.getLogger(__name__)


class OpenConnection:
    """A connection that its own thread serves."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        """With TLS, it is replaced by one that encrypts."""
        self._lock = threading.Lock()
        """Guards `_closed`: closed, its number could belong to another connection."""
        self._closed = False

    def finish(self) -> None:
        """See `kvdb.server.listener.Open`."""
        self._shut(socket.SHUT_RD)

    def end(self) -> None:
        """See `kvdb.server.listener.Open`."""
        self._shut(socket.SHUT_RDWR)

    def _shut(self, how: int) -> None:
        with self._lock:
            if not self._closed:
                with contextlib.suppress(OSError):  # the client may be gone already
                    # Not SSLSocket's own: that drops the encryption, and the rest of an answer
                    # would leave as plain text.
                    socket.socket.shutdown(self.socket, how)

    def close(self) -> None:
        """Its thread will not use it any more, but to close the socket."""
        with self._lock:
            self._closed = True
        if isinstance(self.socket, ssl.SSLSocket):
            with contextlib.suppress(OSError, ValueError):
                self.socket.setblocking(False)
                self.socket.unwrap()  # says good-bye; does not wait for the client's


class HttpServer(Listener):
    """The HTTP port: a thread for each connection, on the standard library's handler.

    Not an http.server.HTTPServer: that one asks the name service about itself before it listens.
    """

    def __init__(
        self, host: str, port: int, instance: Instance, history: History | None = None
    ) -> None:
        """`history` is what the page's charts show. Raises as Listener() does."""
        self.api = Api(instance, history)
        super().__init__(host, port, instance, Handler)

    def serve(self, request: socket.socket, client_address: Any) -> None:
        """See `Listener.serve`."""
        connection = OpenConnection(request)
        self.remember(connection)
        try:
            # Not Thread.start(): it waits for a sign of life, for ever if memory is refused to
            # the new thread before it can give one.
            _thread.start_new_thread(self._serve, (request, client_address, connection))
        except BaseException:
            with self._changed:
                self._connections.discard(connection)
            raise

    def _serve(
        self, request: socket.socket, client_address: Any, connection: OpenConnection
    ) -> None:
        address = format_address(client_address)
        log.debug("client %s: connected to port %d", address, self.port)
        try:
            with contextlib.suppress(OSError):  # it may be gone already
                keep_alive(request)
                if self.instance.certificates:
                    self._encrypt(connection, self.instance.certificates.context())
                Handler(connection.socket, client_address, self, connection)
        except Exception:
            self.handle_error(request, client_address)
        finally:
            log.debug("client %s: connection ended", address)
            connection.close()
            self.shutdown_request(connection.socket)
            self.forget(connection)

    def _encrypt(self, connection: OpenConnection, context: ssl.SSLContext) -> None:
        """Have the connection speak TLS. Raises OSError."""
        plain = connection.socket
        plain.settimeout(Handler.timeout)
        address = format_address(plain.getpeername())
        encrypted = context.wrap_socket(plain, server_side=True, do_handshake_on_connect=False)
        connection.socket = encrypted
        if self.stopping:
            connection.end()  # the stop may have found the socket that was replaced
        try:
            encrypted.do_handshake()
        except OSError as error:
            text = f"TLS: {getattr(error, 'reason', None) or error}"
            line = f"client {address}: {text}; closed"
            self.instance.sparse_log.warn(log, f"port {self.port} {text}", line)
            raise

    def hold_back(self, seconds: float) -> None:
        """Have this thread wait, because its client guesses passwords; not beyond a stop."""
        end = self.instance.monotonic() + seconds
        while not self.stopping and (left := end - self.instance.monotonic()) > 0:
            time.sleep(min(left, 0.05))

    def refuse(self, request: socket.socket) -> None:
        """See `Listener.refuse`."""
        if self.instance.certificates:
            return  # it would not understand a word
        text = f"{TOO_MANY_CLIENTS.removeprefix('ERR ')}\n"
        with contextlib.suppress(OSError):
            request.setblocking(False)
            request.send(
                f"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n"
                f"Content-Type: text/plain\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()
            )
