"""One HTTP connection, on the standard library's request handler.

A browser must not become a weapon: a request for a host that we are not, or sent by another
site's page, is refused before anything else is looked at.
"""

from __future__ import annotations

import base64
import contextlib
import logging
import socket
import string
import urllib.parse
from collections.abc import Callable
from email.errors import MissingHeaderBodySeparatorDefect
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Final

import kvdb
from kvdb.commands import permissions
from kvdb.commands.session import ERROR_COUNT, Session
from kvdb.commands.table import Named
from kvdb.commands.waiting import MustWait
from kvdb.errors import BUSY, CommandError, EntryTooLarge, OutOfMemory, ValueTooLarge
from kvdb.http.api import Api, Request, Response, needs_of
from kvdb.http.body import Body, HeaderReader, Refused
from kvdb.http.sender import check_sender
from kvdb.persistence import ATTEMPTS, Seen
from kvdb.server.listener import format_address

if TYPE_CHECKING:
    from kvdb.http.listener import HttpServer, OpenConnection

log = logging.getLogger(__name__)

_OPEN_PATHS: Final = {"/healthz"}
"""Answered without a password: probes have none."""

_STREAM_SECONDS: Final = 60.0
"""How long a stream of events goes on: after that, whoever may not see it any more sees no more."""

_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'"
)
"""What a browser may load for the page, and do in it: nothing from elsewhere, nothing inline, and
no text becomes HTML."""


class Handler(BaseHTTPRequestHandler):
    """One client's connection, and every request on it."""

    server: HttpServer
    raw_requestline: bytes
    protocol_version = "HTTP/1.1"
    server_version = f"kvdb/{kvdb.__version__}"
    sys_version = ""
    timeout = 60  # Seconds without a single byte after which a connection ends.
    default_request_version = "HTTP/1.0"  # what cannot be read is answered with a status line
    # Headers and a short body leave together. (From Python 3.14 on, the default is 128 KB: too much
    # for what strangers leave unfinished.)
    rbufsize = wbufsize = 8 * 1024

    def __init__(
        self,
        request: socket.socket,
        client_address: Any,
        server: HttpServer,
        connection: OpenConnection,
    ) -> None:
        """Serve the connection until it ends."""
        self._open = connection
        super().__init__(request, client_address, server)

    def handle(self) -> None:
        try:
            address, local = self.request.getpeername(), self.request.getsockname()
        except OSError:
            return  # gone already
        self.session = Session(
            self.server.instance,
            format_address(address),
            format_address(local),
            close=self._open.end,
        )
        self.session.protocol = "http"
        self.server.instance.admit(self.session)
        self.session.be_timed(True)
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
        instance = self.server.instance
        config = instance.config
        self.session.last_active = instance.monotonic()
        body = Body(
            self.rfile,
            self.headers,
            self.request_version,
            config.max_value_bytes,
            self._ask_for_body,
            self._hold,
        )
        try:
            try:
                url = urllib.parse.urlsplit(self.path)
            except ValueError as error:
                raise Refused(400, str(error), close=True) from None
            names = (config.host.lower(), *config.http_hosts)
            check_sender(self.command, url.path, self.request_version, self.headers, names)
            if url.path not in _OPEN_PATHS:
                self._check_password()
            if instance.loading:
                raise Refused(503, "loading the data; try again", close=True)
            may = partial(permissions.may, self.session)
            request = Request(
                self.command, url.path, url.query, body.read(), may,
                self.headers.get("If-Match"), self.headers.get("If-None-Match"),
            )  # fmt: skip
            self.session.received += len(request.body)
            response = self._respond(request)
        except Refused as refused:
            # A body that was not read would be taken for the next request.
            unread = body.is_announced and not body.was_read
            self.close_connection = self.close_connection or refused.close or unread
            self.session.counts[f"{ERROR_COUNT}HTTP{refused.status}"] += 1
            response = Response(refused.status, f"{refused}\n".encode())
        if response.events is None:
            self._send(response)
        else:
            self._stream(response.events)

    def _stream(self, next_event: Callable[[], bytes]) -> None:
        """Send an event each second, for a while; browsers connect anew, and say who they are."""
        self.close_connection = True
        self._send_head(Response(200, content_type="text/event-stream"), None)
        end = self.server.instance.monotonic() + _STREAM_SECONDS
        if self.command == "HEAD":
            return
        while not self.server.stopping and self.server.instance.monotonic() < end:
            if not permissions.may(self.session, b"INFO"):  # the right was taken away meanwhile
                return
            event = next_event()
            self.wfile.write(event)
            self.wfile.flush()
            self.session.sent += len(event)
            self.session.last_active = self.server.instance.monotonic()
            self.server.hold_back(1.0)

    def _ask_for_body(self) -> None:
        self.send_response_only(100)
        self.end_headers()
        self.wfile.flush()

    def _hold(self, size: int) -> None:
        """What has arrived of a body is on this client's account; there may have to be room first."""
        accounts = self.server.instance.accounts
        accounts.report(self.session, size)
        if size:
            accounts.wait_for_room(self.session)

    def _respond(self, request: Request) -> Response:
        """Answer a request; what the answer tells of is on disk then, if it must be."""
        instance = self.server.instance
        persistence = instance.persistence
        if persistence is None or not persistence.waits:
            response = self._respond_now(request)
            if instance.congested and self._may_write(request):
                instance.wait_for_room()
            return response
        self.session.note_steps()
        ticket = persistence.arrive()
        try:
            for _ in range(ATTEMPTS):
                undos = persistence.undos
                response = self._respond_now(request)
                seen = Seen(self.session.wrote, undos, self.session.saw)
                if persistence.wait_until_durable(seen):
                    return response
                if self._may_write(request):
                    break
            return Response(507, f"not saved: {persistence.last_error}\n".encode())
        finally:
            persistence.leave(ticket)

    @staticmethod
    def _may_write(request: Request) -> bool:
        return request.method not in ("GET", "HEAD") or request.path == "/set"

    def _respond_now(self, request: Request) -> Response:
        on_keys = request.path in ("/set", "/get") or request.names_key
        operation = Named(request.method.lower(), needs_of, is_step=on_keys)
        try:
            while True:
                try:
                    answer: Response = self.session.perform(
                        operation, Api.respond, self.server.api, (request,), request
                    )
                    return answer
                except MustWait:  # clients are paused; this thread has nothing else to do
                    self.server.hold_back(0.02)
                    if self.server.stopping:
                        raise Refused(503, "the server stops", close=True) from None
        except OutOfMemory as error:
            raise Refused(507, error.text) from None
        except (EntryTooLarge, ValueTooLarge) as error:
            raise Refused(413, error.text) from None
        except CommandError as error:
            if error.text == BUSY:
                raise Refused(503, error.text) from None
            if not error.text.startswith("NOPERM "):
                raise Refused(400, error.text) from None
            if "Authorization" not in self.headers:  # a browser asks its user then
                raise Refused(401, "password required") from None
            raise Refused(403, error.text.removeprefix("NOPERM ")) from None
        except ValueError as error:
            raise Refused(400, str(error)) from None
        except Exception:
            log.exception("internal error on the HTTP port")
            return Response(500, b"internal error\n")

    def _send_head(self, response: Response, length: int | None) -> None:
        """Send status and headers; without a length, the end of the connection is the body's."""
        self.send_response(response.status)
        headers = {
            "Content-Type": response.content_type,
            "Content-Length": str(length),
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": _POLICY,
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            **response.headers,
        }
        if length is None:
            del headers["Content-Length"]
        if response.status == 204:
            del headers["Content-Length"], headers["Content-Type"]
        if response.status == 401:
            headers["WWW-Authenticate"] = 'Basic realm="kvdb", charset="UTF-8"'
        if self.close_connection:
            headers["Connection"] = "close"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _send(self, response: Response) -> None:
        self._send_head(response, len(response.body))
        if self.command != "HEAD" and response.status != 204:
            accounts = self.server.instance.accounts
            accounts.report(self.session, len(response.body))
            try:
                self.wfile.write(response.body)
            finally:
                accounts.report(self.session, 0)
            self.session.sent += len(response.body)

    # --- what is refused -----------------------------------------------------------------

    def _check_password(self) -> None:
        session, users = self.session, self.server.instance.users
        session.become(users.default, users.default.rules.is_open)  # each request says who it is
        if session.authenticated and "Authorization" not in self.headers:
            return
        kind, _, credentials = self.headers.get("Authorization", "").partition(" ")
        try:
            name, colon, password = base64.b64decode(credentials, validate=True).partition(b":")
        except ValueError:
            name, colon, password = b"", b"", b""
        if kind.lower() != "basic" or not colon:
            raise Refused(401, "password required")
        if not self.server.instance.log_in(session, password, users.meant_by(name)):
            self.server.hold_back(self.session.penalty)
            raise Refused(401, "password required")

    # --- hooks of http.server ------------------------------------------------------------

    def parse_request(self) -> bool:
        # A program may send other bytes than ASCII as they are; encoded they mean the same.
        line = urllib.parse.quote_from_bytes(self.raw_requestline, safe=string.printable)
        self.raw_requestline = line.encode()
        stream = self.rfile
        headers = HeaderReader(stream)
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
        return True  # Body.read() answers, once it knows that it wants the body

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        self.close_connection = True
        self._send(Response(code, f"{message or HTTPStatus(code).phrase}\n".encode()))

    def finish(self) -> None:
        for stream in (self.wfile, self.rfile):
            with contextlib.suppress(OSError):  # what was left to be sent, to a client that is gone
                stream.close()

    def log_message(self, format: str, *arguments: object) -> None:
        log.debug("client %s: " + format, self.session.address, *arguments)
