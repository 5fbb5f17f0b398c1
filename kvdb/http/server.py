"""HTTP on the standard library's request handler: reading, refusing, answering.

A browser must not become a weapon: a request for a host that we are not, or sent by another
site's page, is refused before anything else is looked at.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import io
import ipaddress
import logging
import re
import socket
import string
import urllib.parse
from email.errors import MissingHeaderBodySeparatorDefect
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Final

import kvdb
from kvdb.commands.session import Instance, Session
from kvdb.errors import TOO_MANY_CLIENTS, CommandError, EntryTooLarge, OutOfMemory, ValueTooLarge
from kvdb.http.api import Api, Request, Response
from kvdb.persistence import Seen
from kvdb.protocols import ATTEMPTS
from kvdb.server import Door, format_address

log = logging.getLogger(__name__)

_LONGEST_CHUNK_HEADER: Final = 1024  # bytes: a number and extensions that nobody uses
_CHUNK_HEADER: Final = re.compile(rb"([0-9a-fA-F]{1,12})[ \t]*(?:;[^\r\n]*)?\r\n")
_MAX_HEADERS: Final = 16 * 1024  # bytes of all headers of a request together
_PIECE: Final = 64 * 1024  # bytes of a body that are received at a time

_OPEN_PATHS: Final = {"/healthz"}
"""Answered without a password: probes have none."""

_ANY_HOST: Final = {"/healthz", "/metrics"}
"""Answered whatever the Host header says: probes and Prometheus use the name of a service. They
tell nothing of keys and values."""


class HttpServer(Door):
    """The HTTP door.

    Not an http.server.HTTPServer: that one asks the name service about itself before it listens.
    """

    def __init__(self, host: str, port: int, instance: Instance) -> None:
        """Raises as Door() does."""
        self.api = Api(instance)
        super().__init__(host, port, instance, _Handler)

    def refuse(self, request: socket.socket) -> None:
        """See `Door.refuse`."""
        text = f"{TOO_MANY_CLIENTS.removeprefix('ERR ')}\n"
        with contextlib.suppress(OSError):
            request.setblocking(False)
            request.send(
                f"HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\n"
                f"Content-Type: text/plain\r\nContent-Length: {len(text)}\r\n\r\n{text}".encode()
            )


class _HeaderReader:
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


class _Refused(Exception):
    """A request that is answered with an error; the connection may have to end."""

    def __init__(self, status: int, text: str, close: bool = False) -> None:
        super().__init__(text)
        self.status, self.close = status, close


class _Handler(BaseHTTPRequestHandler):
    """One client's connection, and every request on it."""

    server: HttpServer
    raw_requestline: bytes
    protocol_version = "HTTP/1.1"
    server_version = f"kvdb/{kvdb.__version__}"
    sys_version = ""
    timeout = 60  # seconds that a connection may be silent, and a request may take to arrive
    default_request_version = "HTTP/1.0"  # what cannot be read is answered with a status line
    # Headers and a short body leave together. (From Python 3.14 on, the default is 128 KB: too much
    # for what strangers leave unfinished.)
    rbufsize = wbufsize = 8 * 1024
    disable_nagle_algorithm = True

    def handle(self) -> None:
        try:
            address, local = self.request.getpeername(), self.request.getsockname()
        except OSError:
            return  # gone already
        self.session = Session(
            self.server.instance,
            format_address(address),
            format_address(local),
            close=lambda: self.server.end(self.request),
        )
        self.server.instance.admit(self.session)
        try:
            super().handle()
        except OSError:
            pass  # the client is gone, or somebody ended the connection
        finally:
            self.server.instance.dismiss(self.session)

    # --- methods -------------------------------------------------------------------------

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_PUT = do_DELETE = do_OPTIONS = do_POST = do_PATCH = do_GET

    def _answer(self) -> None:
        self._body_was_read = False
        self.session.last_active = self.server.instance.monotonic()
        self.session.commands += 1
        self.session.last_command = self.command.lower()
        try:
            try:
                url = urllib.parse.urlsplit(self.path)
            except ValueError as error:
                raise _Refused(400, str(error), close=True) from None
            self._check_sender(url.path)
            if url.path not in _OPEN_PATHS:
                self._check_password()
            if self.server.instance.loading:
                raise _Refused(503, "loading the data; try again", close=True)
            body = self._read_body()
            response = self._respond(Request(self.command, url.path, url.query, body))
        except _Refused as refused:
            # A body that was not read would be taken for the next request.
            unread = not self._body_was_read and self._has_body()
            self.close_connection = self.close_connection or refused.close or unread
            response = Response(refused.status, f"{refused}\n".encode())
        self._send(response)

    def _respond(self, request: Request) -> Response:
        """Answer a request; what the answer tells of is on disk then, if it must be."""
        instance = self.server.instance
        persistence = instance.persistence
        if persistence is None or not persistence.waits:
            return self._respond_now(request)
        ticket = persistence.arrive()
        try:
            for _ in range(ATTEMPTS):
                undos = persistence.undos
                response = self._respond_now(request)
                seen = Seen(persistence.take_step(), undos, instance.store.step)
                if persistence.wait_until_durable(seen):
                    return response
                if request.method not in ("GET", "HEAD") or request.path == "/set":
                    break
            return Response(507, f"not saved: {persistence.last_error}\n".encode())
        finally:
            persistence.leave(ticket)

    def _respond_now(self, request: Request) -> Response:
        try:
            return self.server.api.respond(request)
        except OutOfMemory as error:
            raise _Refused(507, error.text) from None
        except (EntryTooLarge, ValueTooLarge) as error:
            raise _Refused(413, error.text) from None
        except CommandError as error:
            raise _Refused(400, error.text) from None
        except ValueError as error:
            raise _Refused(400, str(error)) from None
        except Exception:
            log.exception("internal error on the HTTP port")
            return Response(500, b"internal error\n")

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        headers = {
            "Content-Type": response.content_type,
            "Content-Length": str(len(response.body)),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": "default-src 'none'; style-src 'self'; form-action 'self'; "
            "base-uri 'none'; frame-ancestors 'none'",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            **response.headers,
        }
        if response.status == 204:
            del headers["Content-Length"], headers["Content-Type"]
        if response.status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="kvdb", charset="UTF-8"'
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD" and response.status != 204:
            self.wfile.write(response.body)
            self.session.sent += len(response.body)

    # --- what is refused -----------------------------------------------------------------

    def _has_body(self) -> bool:
        return "Transfer-Encoding" in self.headers or (
            self.headers.get("Content-Length") != "0" and ("Content-Length" in self.headers)
        )

    def _read_body(self) -> bytes:
        """Return the request's body. Its length must be stated, once, and be within the limit."""
        lengths = self.headers.get_all("Content-Length", [])
        codings = self.headers.get_all("Transfer-Encoding", [])
        if codings:
            # RFC 9112, 6.1 and 6.3: with both, somebody between us may see other requests than we.
            if lengths or self.request_version == "HTTP/1.0":
                raise _Refused(400, "Transfer-Encoding beside Content-Length", close=True)
            if [coding.strip().lower() for coding in codings] != ["chunked"]:
                raise _Refused(501, "the only transfer coding known here is chunked", close=True)
            self._answer_expectation()
            return self._read_chunked()
        if not lengths:
            return b""
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            raise _Refused(400, "bad Content-Length", close=True)
        limit = self.server.instance.config.max_value_bytes
        if len(lengths[0]) > 15 or int(lengths[0]) > limit:
            raise _Refused(413, f"a value may have {limit} bytes (--max-value-mb)", close=True)
        self._answer_expectation()
        body = bytearray()  # of however small pieces it comes
        self._read_pieces(int(lengths[0]), body)
        return self._whole_body(body)

    def _answer_expectation(self) -> None:
        """Ask for the body, if the client waits until it knows that we want it."""
        expects = self.headers.get("Expect", "").lower()
        if expects == "100-continue" and self.request_version != "HTTP/1.0":
            self.send_response_only(100)
            self.end_headers()
            self.wfile.flush()

    def _whole_body(self, body: bytearray) -> bytes:
        self._body_was_read = True
        self.session.received += len(body)
        self.server.instance.accounts.report(self.session, 0)
        return bytes(body)

    def _read_pieces(self, length: int, body: bytearray) -> None:
        """Read so many bytes more; what has arrived is on this client's account meanwhile."""
        accounts = self.server.instance.accounts
        held = 0
        while held < length:
            piece = self.rfile.read1(min(length - held, _PIECE))
            if not piece:
                raise _Refused(400, "the body was cut short", close=True)
            body += piece
            held += len(piece)
            if held < length:
                accounts.report(self.session, len(body))
                accounts.wait_for_room(self.session)

    def _read_chunked(self) -> bytes:
        """Read a body that comes in chunks (RFC 9112, 7.1): a client need not know its length."""
        limit = self.server.instance.config.max_value_bytes
        body = bytearray()
        while True:
            line = self.rfile.readline(_LONGEST_CHUNK_HEADER)
            head = _CHUNK_HEADER.fullmatch(line)
            if head is None:
                raise _Refused(400, "bad chunk", close=True)
            length = int(head[1], 16)
            if not length:
                break
            if len(body) + length > limit:
                raise _Refused(413, f"a value may have {limit} bytes (--max-value-mb)", close=True)
            self._read_pieces(length, body)
            if self.rfile.read(2) != b"\r\n":
                raise _Refused(400, "bad chunk", close=True)
        trailers = _HeaderReader(self.rfile)
        try:
            while (line := trailers.readline(_LONGEST_CHUNK_HEADER)) != b"\r\n":
                if not line.endswith(b"\r\n"):
                    raise _Refused(400, "bad trailer", close=True)
        except http.client.LineTooLong:
            raise _Refused(431, "the trailers are too long", close=True) from None
        return self._whole_body(body)

    def _check_sender(self, path: str) -> None:
        """Refuse what another site's page has sent, and a Host that is not ours.

        With a name of its own that points here, a foreign site would pass for us otherwise
        (DNS rebinding); addresses cannot be made to point elsewhere.

        Over http, browsers send Sec-Fetch-Site to loopback only. To any other address, an image
        of a foreign page is asked for with neither that nor an Origin: so from a browser (all
        call themselves Mozilla) the one path that writes by GET wants to be told.
        """
        hosts = self.headers.get_all("Host", [])
        if len(hosts) > 1 or (not hosts and self.request_version != "HTTP/1.0"):
            raise _Refused(400, "bad Host", close=True)
        host = hosts[0].lower() if hosts else ""
        if hosts and path not in _ANY_HOST and not self._is_ours(host):
            raise _Refused(403, f"this is not {host[:100]} (--http-hosts allows a name)")
        origin = self._only_header("Origin")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            raise _Refused(403, "sent by another site")
        site = self._only_header("Sec-Fetch-Site")
        ours = site is None or site.lower() in ("none", "same-origin")
        if not ours and not self._follows_a_link(path):
            raise _Refused(403, "sent by another site")
        is_browser = self.headers.get("User-Agent", "").startswith("Mozilla/")
        if site is None and is_browser and path == "/set":
            raise _Refused(403, "from a browser, /set works by way of localhost or https only")

    def _only_header(self, name: str) -> str | None:
        """Return a header's value, or None. Twice the same header is refused: which one counts?"""
        values = self.headers.get_all(name, [])
        if len(values) > 1:
            raise _Refused(400, f"two {name} headers", close=True)
        return values[0] if values else None

    def _follows_a_link(self, path: str) -> bool:
        """Tell whether somebody has clicked on a link, and only reads by that.

        The other site learns nothing of the page that opens.
        """
        return (
            self.command == "GET"
            and path != "/set"
            and self.headers.get("Sec-Fetch-Mode", "").lower() == "navigate"
            and self.headers.get("Sec-Fetch-Dest", "").lower() == "document"
        )

    def _is_ours(self, host: str) -> bool:
        name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
        name = name.strip("[]")
        config = self.server.instance.config
        if name in ("localhost", config.host.lower(), *config.http_hosts):
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True

    def _check_password(self) -> None:
        if self.server.instance.config.password is None:
            return
        kind, _, credentials = self.headers.get("Authorization", "").partition(" ")
        try:
            _, colon, password = base64.b64decode(credentials, validate=True).partition(b":")
        except ValueError:
            colon, password = b"", b""
        if kind.lower() != "basic" or not colon:
            raise _Refused(401, "password required")
        if not self.server.instance.log_in(self.session, password):
            self.server.hold_back(self.session.penalty)
            raise _Refused(401, "password required")

    # --- hooks of http.server ------------------------------------------------------------

    def parse_request(self) -> bool:
        # A program may send other bytes than ASCII as they are; encoded they mean the same.
        line = urllib.parse.quote_from_bytes(self.raw_requestline, safe=string.printable)
        self.raw_requestline = line.encode()
        stream = self.rfile
        headers = _HeaderReader(stream)
        self.rfile = headers  # type: ignore[assignment]
        try:
            if not super().parse_request():
                return False
        finally:
            self.rfile = stream
        rest = self.headers.get_payload()  # what was not looked at, below what is no header
        if (
            headers.has_bare_cr
            or (isinstance(rest, str) and rest)
            or any(
                isinstance(defect, MissingHeaderBodySeparatorDefect)
                for defect in self.headers.defects
            )
        ):
            self.send_error(400, "bad header")
            return False
        return True

    def handle_expect_100(self) -> bool:
        return True  # _read_body() answers, once it knows that it wants the body

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        self.close_connection = True
        self._send(Response(code, f"{message or HTTPStatus(code).phrase}\n".encode()))

    def finish(self) -> None:
        for stream in (self.wfile, self.rfile):
            with contextlib.suppress(OSError):  # what was left to be sent, to a client that is gone
                stream.close()

    def log_message(self, format: str, *arguments: object) -> None:
        log.debug("client %s: " + format, self.client_address, *arguments)
