"""HTTP on the standard library's request handler: reading, refusing, answering.

A browser must not become a weapon: a request for a host that we are not, or sent by another
site's page, is refused before anything else is looked at.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import logging
import string
import urllib.parse
from email.errors import MissingHeaderBodySeparatorDefect
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Final

import kvdb
from kvdb.commands.session import Instance, Session
from kvdb.errors import CommandError, EntryTooLarge, OutOfMemory, ValueTooLarge
from kvdb.http.api import Api, Request, Response
from kvdb.server import Door, format_address

log = logging.getLogger(__name__)

_OPEN_PATHS: Final = {"/healthz"}
"""Answered without a password, and whatever the Host header says: probes have neither."""


class HttpServer(Door):
    """The HTTP door.

    Not an http.server.HTTPServer: that one asks the name service about itself before it listens.
    """

    def __init__(self, host: str, port: int, instance: Instance) -> None:
        """Raises as Door() does."""
        self.api = Api(instance)
        super().__init__(host, port, instance, _Handler)


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
    wbufsize = -1  # headers and body leave together
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
        if not self.server.instance.admit(self.session):
            self.raw_requestline = b""
            self.requestline = self.command = ""
            self.request_version = self.protocol_version
            self.close_connection = True
            self.send_error(503, "max number of clients reached")
            return
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
        self.session.last_active = self.server.instance.monotonic()
        self.session.commands += 1
        self.session.last_command = self.command.lower()
        try:
            body = self._read_body()
            try:
                url = urllib.parse.urlsplit(self.path)
            except ValueError as error:
                raise _Refused(400, str(error)) from None
            if url.path not in _OPEN_PATHS:
                self._check_sender(url.path)
                self._check_password()
            response = self._respond(Request(self.command, url.path, url.query, body))
        except _Refused as refused:
            self.close_connection = self.close_connection or refused.close
            response = Response(refused.status, f"{refused}\n".encode())
        self._send(response)

    def _respond(self, request: Request) -> Response:
        """Answer a request; one that changed something waits until that is saved, if it must be."""
        persistence = self.server.instance.persistence
        try:
            response = self.server.api.respond(request)
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
        step = persistence.take_step() if persistence else 0
        if persistence and step and not persistence.wait_until_durable(step):
            return Response(507, f"not saved: {persistence.last_error}\n".encode())
        return response

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

    def _read_body(self) -> bytes:
        """Return the request's body. Its length must be stated, once, and be within the limit."""
        lengths = self.headers.get_all("Content-Length", [])
        if "Transfer-Encoding" in self.headers:
            raise _Refused(400 if lengths else 411, "state the length of the body", close=True)
        if not lengths:
            return b""
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            raise _Refused(400, "bad Content-Length", close=True)
        limit = self.server.instance.config.max_value_bytes
        if len(lengths[0]) > 15 or int(lengths[0]) > limit:
            raise _Refused(413, f"a value may have {limit} bytes (--max-value-mb)", close=True)
        expects = self.headers.get("Expect", "").lower()
        if expects == "100-continue" and self.request_version != "HTTP/1.0":
            self.send_response_only(100)
            self.end_headers()
            self.wfile.flush()
        body = self.rfile.read(int(lengths[0]))
        if len(body) < int(lengths[0]):
            raise _Refused(400, "the body was cut short", close=True)
        self.session.received += len(body)
        return body

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
        if hosts and not self._is_ours(host):
            raise _Refused(403, f"this is not {host[:100]} (--http-hosts allows a name)")
        origin = self.headers.get("Origin")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            raise _Refused(403, "sent by another site")
        site = self.headers.get("Sec-Fetch-Site")
        if site is not None and site.lower() not in ("none", "same-origin"):
            raise _Refused(403, "sent by another site")
        is_browser = self.headers.get("User-Agent", "").startswith("Mozilla/")
        if site is None and is_browser and path == "/set":
            raise _Refused(403, "from a browser, /set works by way of localhost or https only")

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
        if kind.lower() != "basic" or not colon or not self.server.instance.password_is(password):
            raise _Refused(401, "password required")

    # --- hooks of http.server ------------------------------------------------------------

    def parse_request(self) -> bool:
        # A program may send other bytes than ASCII as they are; encoded they mean the same.
        line = urllib.parse.quote_from_bytes(self.raw_requestline, safe=string.printable)
        self.raw_requestline = line.encode()
        if not super().parse_request():
            return False
        rest = self.headers.get_payload()  # what was not looked at, below what is no header
        if (isinstance(rest, str) and rest) or any(
            isinstance(defect, MissingHeaderBodySeparatorDefect) for defect in self.headers.defects
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
