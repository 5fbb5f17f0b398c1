"""The connection to a primary: the handshake, its snapshot, and its stream of commands."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

_CONNECT_TIMEOUT: Final = 10.0  # seconds
_TICK: Final = 1.0
"""Seconds without a byte after which the primary is told how far we have come: once a second."""
_SILENCE: Final = 60.0  # seconds without a word, after which the link is given up
_RECEIVE_BYTES: Final = 64 * 1024
_LONGEST_LINE: Final = 64 * 1024
_MARK_BYTES: Final = 40


class LinkLost(Exception):
    """The link broke, or what came over it was not what it should be; the text says why."""


class Certificates(NamedTuple):
    """The files for TLS with a primary. They are read for each link, so they may be replaced."""

    authorities: Path
    """Whose certificates it may show."""
    own: Path | None = None
    """What we show, if it asks."""
    key: Path | None = None
    """None: it is in the certificate's file."""

    def wrap(self, connection: socket.socket, host: str) -> socket.socket:
        """Encrypt a connection. Raises OSError."""
        import ssl  # 10 ms, for the few who need it

        context = ssl.create_default_context(cafile=self.authorities)
        if self.own is not None:
            context.load_cert_chain(self.own, self.key, password=lambda: b"")  # not asked for
        return context.wrap_socket(connection, server_hostname=host)


class Primary(NamedTuple):
    """Where the primary is, and who we are there."""

    host: str
    port: int
    user: str | None = None
    password: str | None = None
    tls: Certificates | None = None


class Link:
    """A connection to a primary. One thread uses it; stop() may be called by any."""

    def __init__(self, primary: Primary, monotonic: Callable[[], float] = time.monotonic) -> None:
        """Connect. Raises LinkLost."""
        self._monotonic = monotonic
        try:
            self._socket = socket.create_connection(primary[:2], _CONNECT_TIMEOUT)
        except (OSError, UnicodeError) as error:  # the latter: it can be no host's name
            raise LinkLost(f"cannot connect: {error}") from None
        if primary.tls is not None:
            try:
                self._socket = primary.tls.wrap(self._socket, primary.host)
            except (OSError, ValueError) as error:  # the latter: it can be no certificate's name
                self._socket.close()
                raise LinkLost(f"TLS: {error}") from None
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket.settimeout(_TICK)
        self._received = bytearray()
        self._used = 0
        self.heard_at = monotonic()
        self.on_tick: Callable[[], None] = lambda: None
        """Called while nothing comes, about once a second."""

    def stop(self) -> None:
        """Have whoever reads raise LinkLost."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._socket.close()

    def send(self, *words: str) -> None:
        """Send a request. Raises LinkLost."""
        encoded = [word.encode("utf-8", "surrogateescape") for word in words]
        parts = [b"*%d\r\n" % len(words)]
        parts += (b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded)
        try:
            self._socket.sendall(b"".join(parts))
        except OSError as error:
            raise LinkLost(f"the connection broke: {error}") from None

    # --- receiving ---------------------------------------------------------------------------

    def _receive(self) -> None:
        while True:
            try:
                data = self._socket.recv(_RECEIVE_BYTES)
            except TimeoutError:
                if self._monotonic() - self.heard_at > _SILENCE:
                    raise LinkLost(f"silent for {_SILENCE:g} seconds") from None
                self.on_tick()
                continue
            except OSError as error:
                raise LinkLost(f"the connection broke: {error}") from None
            if not data:
                raise LinkLost("the primary closed the connection")
            self.heard_at = self._monotonic()
            if self._used:
                del self._received[: self._used]
                self._used = 0
            self._received += data
            return

    def take(self, size: int) -> bytes:
        """Return so many bytes. Raises LinkLost."""
        while len(self._received) - self._used < size:
            self._receive()
        taken = bytes(self._received[self._used : self._used + size])
        self._used += size
        return taken

    def line(self) -> bytes:
        """Return a line, without its end. Raises LinkLost."""
        while (end := self._received.find(b"\n", self._used)) < 0:
            if len(self._received) - self._used > _LONGEST_LINE:
                raise LinkLost("a line without an end")
            self._receive()
        line = bytes(self._received[self._used : end + 1])
        self._used = end + 1
        return line

    def reply(self) -> str:
        """Return a reply of one line; empty lines keep a link alive. Raises LinkLost."""
        while not (line := self.line().strip()):
            pass
        return line.decode("utf-8", "replace")

    def command(self) -> tuple[list[bytes], int]:
        """Return a command of the stream, and how many bytes it has. Raises LinkLost."""
        head = self.line()
        size = len(head)
        if head in (b"\n", b"\r\n"):
            return [], size
        words: list[bytes] = []
        try:
            if head[:1] != b"*":
                raise ValueError
            for _ in range(int(head[1:])):
                length = self.line()
                if length[:1] != b"$":
                    raise ValueError
                words.append(self.take(int(length[1:])))
                self.take(2)
                size += len(length) + len(words[-1]) + 2
        except ValueError:
            raise LinkLost(f"this is no command: {head[:50]!r}") from None
        return words, size

    def snapshot(self) -> BinaryIO:
        """Receive the snapshot; return it as a file that ends with whoever holds it.

        On disk, as in Redis: what we have is given up only when all of it is there.
        """
        with contextlib.ExitStack() as unfinished:
            try:
                file = unfinished.enter_context(tempfile.TemporaryFile(prefix="kvdb-replica-"))
                self._receive_snapshot(file)
                file.seek(0)
            except (OSError, ValueError) as error:
                raise LinkLost(f"the snapshot cannot be kept: {error}") from None
            unfinished.pop_all()
        return file

    def _receive_snapshot(self, file: BinaryIO) -> None:
        head = self.reply()
        if head.startswith("$EOF:") and len(head) == 5 + _MARK_BYTES:
            self._receive_up_to(head[5:].encode(), file)
        elif head.startswith("$"):
            left = int(head[1:])
            if left < 0:
                raise LinkLost(f"no snapshot: {head[:100]}")
            while left:
                piece = self.take(min(left, _RECEIVE_BYTES))
                file.write(piece)
                left -= len(piece)
        else:
            raise LinkLost(f"no snapshot: {head[:100]}")

    def _receive_up_to(self, mark: bytes, file: BinaryIO) -> None:
        """Receive a snapshot that ends with a mark: nothing follows it before we have answered."""
        end = b""
        while True:
            if self._used == len(self._received):
                self._receive()
            end += self.take(len(self._received) - self._used)
            if end.endswith(mark):
                file.write(end[: -len(mark)])
                return
            file.write(end[:-_MARK_BYTES])
            end = end[-_MARK_BYTES:]


def shake_hands(link: Link, primary: Primary, port: int) -> None:
    """Say who we are. Raises LinkLost."""
    link.send("PING")
    answer = link.reply()
    if answer.startswith("-") and not answer.startswith(("-NOAUTH", "-NOPERM")):
        raise LinkLost(f"the primary says {answer[1:]}")
    if primary.password is not None:
        words = [primary.user, primary.password] if primary.user else [primary.password]
        link.send("AUTH", *words)
        if (answer := link.reply()) != "+OK":
            raise LinkLost(f"the primary refuses the password: {answer[1:]}")
    for words in (["listening-port", str(port)], ["capa", "eof", "capa", "psync2"]):
        link.send("REPLCONF", *words)
        link.reply()  # a refusal is not critical
