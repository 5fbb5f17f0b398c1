"""TLS: the server's certificate, and a transport that encrypts.

The standard library's SSLObject works on bytes in memory, so the event loop can serve it like
anything else. (An SSLSocket would not do: its `shutdown()` drops the encryption without a word,
and what is sent after it is plain text.)
"""

from __future__ import annotations

import contextlib
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

log = logging.getLogger(__name__)

_RECEIVE_BYTES: Final = 64 * 1024
_LOOK_AGAIN: Final = 1.0  # seconds between two looks at the files
_HANDSHAKE: Final = b"\x16"  # what a TLS client's first byte is (RFC 8446, 5.1)


class Certificates:
    """The files that TLS needs, as a context that follows them when they are replaced.

    `_lock` guards all of it.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path | None = None,
        client_ca: Path | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`key` None: it is in the certificate's file. With `client_ca` clients need a certificate
        that it has signed. Raises OSError (ssl.SSLError is one) if a file cannot be used.
        """
        self._lock = threading.Lock()
        self._monotonic = monotonic
        self.files = (certificate, key, client_ca)
        self._context = _load(*self.files)
        self._seen = self._state()
        self._next_look = monotonic() + _LOOK_AGAIN

    def use(self, certificate: Path, key: Path | None, client_ca: Path | None) -> None:
        """Have new connections use other files (CONFIG SET). Raises OSError as __init__ does."""
        context = _load(certificate, key, client_ca)
        with self._lock:
            self.files = (certificate, key, client_ca)
            self._context, self._seen = context, self._state()

    def context(self) -> ssl.SSLContext:
        """Return what a new connection needs. Files that were replaced are read anew.

        While they cannot be used, the last ones that could stay in use, and the log says so.
        """
        with self._lock:
            if self._monotonic() >= self._next_look:
                self._next_look = self._monotonic() + _LOOK_AGAIN
                state = self._state()
                if state != self._seen:
                    self._seen = state
                    try:
                        self._context = _load(*self.files)
                        log.info("TLS: the certificate was replaced; new connections use it")
                    except OSError as error:
                        log.error("TLS: %s; the certificate before stays in use", describe(error))
            return self._context

    def _state(self) -> list[tuple[int, int] | None]:
        """Return what shows that a file was replaced."""
        state: list[tuple[int, int] | None] = []
        for path in self.files:
            try:
                status = path.stat() if path else None
            except OSError:
                status = None
            state.append((status.st_mtime_ns, status.st_ino) if status else None)
        return state


def _load(certificate: Path, key: Path | None, client_ca: Path | None) -> ssl.SSLContext:
    for path in filter(None, (certificate, key, client_ca)):
        path.open("rb").close()  # to know which of them cannot be read
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # The key's pass phrase would be asked for on the terminal.
    context.load_cert_chain(certificate, key, password=lambda: b"")
    if client_ca:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def describe(error: OSError) -> str:
    """Return what is wrong with the files, for a person."""
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or "they are not in PEM form").replace("_", " ").lower()
        return f"certificate and key must be in PEM form and belong together ({reason})"
    return f"{error.filename}: {error.strerror}"


class TlsTransport:
    """Encrypts what is sent and decrypts what is received. See `transport.Transport`."""

    def __init__(
        self,
        connection: socket.socket,
        context: ssl.SSLContext,
        complain: Callable[[str], None],
    ) -> None:
        """`complain` is told in a few words why a connection is refused."""
        self._socket, self._complain = connection, complain
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._received, self._to_send, server_side=True)
        self._has_begun = self._is_open = False
        self._unsent = memoryview(b"")

    @property
    def has_unsent(self) -> bool:
        """See `Transport.has_unsent`."""
        return bool(self._unsent)

    def recv(self, most: int, /) -> bytes:
        """See `Transport.recv`. What has arrived is returned whole, so that none is forgotten."""
        data = self._socket.recv(_RECEIVE_BYTES)
        if not data:
            return b""
        if not self._has_begun:
            self._has_begun = True
            if data[:1] != _HANDSHAKE:
                self._complain("no TLS on a TLS port")
                return b""
        self._received.write(data)
        try:
            if not self._is_open:
                self._shake_hands()
            return self._decrypt()
        except ssl.SSLError as error:
            self._complain(f"TLS: {error.reason or error}")
            with contextlib.suppress(OSError):
                self._flush()  # the alert that tells the client
            raise

    def _shake_hands(self) -> None:
        try:
            self._tls.do_handshake()
            self._is_open = True
        except ssl.SSLWantReadError:
            pass
        self._flush()

    def _decrypt(self) -> bytes:
        """Return all that can be read now; b"" if the client has said good-bye."""
        if not self._is_open:
            raise BlockingIOError
        pieces = []
        try:
            while piece := self._tls.read(_RECEIVE_BYTES):
                pieces.append(piece)
            if pieces:
                # A good-bye came behind the data. Have the socket report its end, so that the
                # next recv() tells of it: nothing else will arrive.
                self._socket.shutdown(socket.SHUT_RD)
        except ssl.SSLWantReadError:
            if not pieces:
                self._flush()  # the answer to what was no data
                raise BlockingIOError from None
        return b"".join(pieces)

    def send(self, data: bytes | memoryview, /) -> int:
        """See `Transport.send`."""
        self._flush()
        if self._unsent:
            raise BlockingIOError
        if not data:
            return 0
        sent = self._tls.write(data[:_RECEIVE_BYTES])
        self._flush()
        return sent

    def _flush(self) -> None:
        """Send what is encrypted, as far as that is possible now."""
        if self._to_send.pending:
            self._unsent = memoryview(bytes(self._unsent) + self._to_send.read())
        while self._unsent:
            try:
                sent = self._socket.send(self._unsent)
            except (BlockingIOError, InterruptedError):
                return
            self._unsent = self._unsent[sent:]

    def close(self) -> None:
        """See `Transport.close`."""
        with contextlib.suppress(OSError):
            if self._is_open:
                with contextlib.suppress(ssl.SSLError):
                    self._tls.unwrap()  # says good-bye; does not wait for the client's
                self._flush()
            self._socket.shutdown(socket.SHUT_WR)
        self._socket.close()
