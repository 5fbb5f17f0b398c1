"""What a request carries: header lines within a limit, and a body whose length is stated."""

from __future__ import annotations

import http.client
import io
import re
from collections.abc import Callable
from email.message import Message
from typing import Final

_LONGEST_CHUNK_HEADER: Final = 1024  # bytes: a number and extensions that nobody uses
_CHUNK_HEADER: Final = re.compile(rb"([0-9a-fA-F]{1,12})[ \t]*(?:;[^\r\n]*)?\r\n")
_MAX_HEADERS: Final = 16 * 1024  # bytes of all headers of a request together
_PIECE: Final = 64 * 1024  # bytes of a body that are received at a time


class Refused(Exception):
    """A request that is answered with an error; the connection may have to end."""

    def __init__(self, status: int, text: str, close: bool = False) -> None:
        super().__init__(text)
        self.status, self.close = status, close


class HeaderReader:
    """Reads header lines, up to a limit for all of them: anybody may send them."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self._stream, self._left = stream, _MAX_HEADERS
        self.has_bare_cr = False
        """Whether there was a CR that ends no line: what others read there may be a header."""

    def readline(self, most: int) -> bytes:
        line = self._stream.readline(min(most, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            raise http.client.LineTooLong("headers")
        self.has_bare_cr = self.has_bare_cr or b"\r" in line.removesuffix(b"\r\n")
        return line


class Body:
    """A request's body, on its way."""

    def __init__(
        self,
        stream: io.BufferedIOBase,
        headers: Message,
        version: str,
        limit: int,
        ask: Callable[[], None],
        hold: Callable[[int], None],
    ) -> None:
        """`limit` is how many bytes it may have. `ask` tells a client that waits for that to send
        it; `hold` is told how much of it is here, and may wait until there is room for more.
        """
        self._stream, self._headers, self._version = stream, headers, version
        self._limit, self._ask, self._hold = limit, ask, hold
        self.was_read = False

    @property
    def is_announced(self) -> bool:
        """Whether there is one."""
        return "Transfer-Encoding" in self._headers or (
            self._headers.get("Content-Length") != "0" and ("Content-Length" in self._headers)
        )

    def read(self) -> bytes:
        """Return the request's body. Its length must be stated, once, and be within the limit."""
        lengths = self._headers.get_all("Content-Length", [])
        codings = self._headers.get_all("Transfer-Encoding", [])
        if codings:
            # RFC 9112, 6.1 and 6.3: with both, somebody between us may see other requests than we.
            if lengths or self._version == "HTTP/1.0":
                raise Refused(400, "Transfer-Encoding beside Content-Length", close=True)
            if [coding.strip().lower() for coding in codings] != ["chunked"]:
                raise Refused(501, "the only transfer coding known here is chunked", close=True)
            self._answer_expectation()
            return self._read_chunked()
        if not lengths:
            return b""
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            raise Refused(400, "bad Content-Length", close=True)
        limit = self._limit
        if len(lengths[0]) > 15 or int(lengths[0]) > limit:
            raise Refused(413, f"a value may have {limit} bytes (--max-value-mb)", close=True)
        self._answer_expectation()
        body = bytearray()  # of however small pieces it comes
        self._read_pieces(int(lengths[0]), body)
        return self._whole_body(body)

    def _answer_expectation(self) -> None:
        """Ask for the body, if the client waits until it knows that we want it."""
        expects = self._headers.get("Expect", "").lower()
        if expects == "100-continue" and self._version != "HTTP/1.0":
            self._ask()

    def _whole_body(self, body: bytearray) -> bytes:
        self.was_read = True
        self._hold(0)
        return bytes(body)

    def _read_pieces(self, length: int, body: bytearray) -> None:
        """Read so many bytes more; what has arrived is on this client's account meanwhile."""
        held = 0
        while held < length:
            piece = self._stream.read1(min(length - held, _PIECE))
            if not piece:
                raise Refused(400, "the body was cut short", close=True)
            body += piece
            held += len(piece)
            if held < length:
                self._hold(len(body))

    def _read_chunked(self) -> bytes:
        """Read a body that comes in chunks (RFC 9112, 7.1): a client need not know its length."""
        limit = self._limit
        body = bytearray()
        while True:
            line = self._stream.readline(_LONGEST_CHUNK_HEADER)
            head = _CHUNK_HEADER.fullmatch(line)
            if head is None:
                raise Refused(400, "bad chunk", close=True)
            length = int(head[1], 16)
            if not length:
                break
            if len(body) + length > limit:
                raise Refused(413, f"a value may have {limit} bytes (--max-value-mb)", close=True)
            self._read_pieces(length, body)
            if self._stream.read(2) != b"\r\n":
                raise Refused(400, "bad chunk", close=True)
        trailers = HeaderReader(self._stream)
        try:
            while (line := trailers.readline(_LONGEST_CHUNK_HEADER)) != b"\r\n":
                if not line.endswith(b"\r\n"):
                    raise Refused(400, "bad trailer", close=True)
        except http.client.LineTooLong:
            raise Refused(431, "the trailers are too long", close=True) from None
        return self._whole_body(body)
