from __future__ import annotations

import contextlib
import io
import logging
import os
import socket
import ssl
import tempfile
import unittest
import unittest.mock
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kvdb.cli import parse_config
from kvdb.healthcheck import main as check_health
from kvdb.resp.replies import encode_request
from kvdb.server.tls import Certificates
from kvdb.service import CannotStart, Service
from kvdb.settings import BadSetting, configure
from tests.certificates import client_context, write_certificates
from tests.support import ManualClock, Wire, running_server, until

MB = 1024 * 1024
PORTS: dict[str, object] = {"memcached_port": 0, "haus_port": 0, "http_port": 0}


class TlsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        write_certificates(self.folder)

    @contextmanager
    def server(self, **config: object) -> Iterator[Service]:
        with running_server(tls_cert=self.folder / "server.pem", **PORTS, **config) as service:
            yield service

    @contextmanager
    def client(self, port: int, certificate: str | None = None) -> Iterator[ssl.SSLSocket]:
        context = client_context(self.folder, certificate)
        with (
            socket.create_connection(("127.0.0.1", port), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as encrypted,
        ):
            yield encrypted

    def ask(self, client: ssl.SSLSocket, request: bytes, length: int) -> bytes:
        client.sendall(request)
        pieces: list[bytes] = []
        while length > 0 and (data := client.recv(65536)):
            pieces.append(data)
            length -= len(data)
        return b"".join(pieces)


class ByHand(Wire):
    """A client whose encrypted bytes the test sees: `tls` makes and reads them, we carry them."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__(port)
        self._received, self._to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._received, self._to_send, server_hostname="localhost")
        self.sent_by_server = b""
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.carry_out()
                self.carry_in()
        self.carry_out()

    def carry_out(self) -> None:
        self.socket.sendall(self._to_send.read())

    def carry_in(self) -> bytes:
        data = self.socket.recv(65536)
        self.sent_by_server += data
        self._received.write(data)
        return data


class EveryPortTest(TlsTest):
    TALKS = (
        ("main", b"SET k v\r\nGET k\r\n", b"+OK\r\n$1\r\nv\r\n"),
        ("main", b'{"command": "GET", "args": {"key": "k"}}\n', b'{"status": "OK", "result": "v"}\n'),
        ("memcached", b"get k\r\n", b"VALUE k 0 1\r\nv\r\nEND\r\n"),
        ("haus", b"GET k\n", b'{"status": "Ok", "result": "v"}\n'),
    )  # fmt: skip

    def test_every_port_speaks_tls(self) -> None:
        with self.server() as service:
            for name, request, answer in self.TALKS:
                with self.subTest(name), self.client(service.listeners[name].port) as client:
                    self.assertEqual(self.ask(client, request, len(answer)), answer)
            url = f"https://localhost:{service.listeners['http'].port}/keys/k"
            context = client_context(self.folder)
            with urllib.request.urlopen(url, context=context, timeout=10) as response:
                self.assertEqual(response.read(), b"v")

    def test_large_requests_and_replies_arrive_whole(self) -> None:
        value = os.urandom(2 * MB)
        with self.server() as service, self.client(service.server.port) as client:
            request = encode_request([b"SET", b"big", value])
            self.assertEqual(self.ask(client, request, 5), b"+OK\r\n")
            answer = b"$%d\r\n%b\r\n" % (len(value), value)
            self.assertEqual(self.ask(client, b"GET big\r\n", len(answer)), answer)
            answers = self.ask(client, b"MGET big big big\r\n", 4 + 3 * len(answer))
            self.assertEqual(answers, b"*3\r\n" + 3 * answer)

    def test_requests_that_come_byte_by_byte_and_many_at_once(self) -> None:
        with self.server() as service, self.client(service.server.port) as client:
            for byte in b"PING\r\n":
                client.sendall(bytes([byte]))
            self.assertEqual(self.ask(client, b"", 7), b"+PONG\r\n")
            self.assertEqual(self.ask(client, b"PING\r\n" * 5000, 35_000), b"+PONG\r\n" * 5000)

    def test_the_end_of_a_conversation_is_said_in_tls(self) -> None:
        with self.server() as service, self.client(service.server.port) as client:
            self.assertEqual(self.ask(client, b"QUIT\r\n", 5), b"+OK\r\n")
            self.assertEqual(client.recv(10), b"")  # an end without a good-bye would raise

    def test_who_says_that_nothing_more_comes_is_answered_still(self) -> None:
        context = client_context(self.folder)
        with self.server() as service, ByHand(service.server.port, context) as client:
            client.tls.write(b"PING\r\n" * 3)
            with contextlib.suppress(ssl.SSLWantReadError):
                client.tls.unwrap()  # says good-bye, and would wait for the server's
            client.carry_out()
            answer = b""
            while len(answer) < 21:
                try:
                    answer += client.tls.read()
                except ssl.SSLWantReadError:
                    client.carry_in()
            self.assertEqual(answer, b"+PONG\r\n" * 3)
            while client.carry_in():  # the good-bye had come behind data: it is heard all the same
                pass


class StrangersTest(TlsTest):
    def test_who_does_not_speak_tls_is_closed_at_once_and_logged(self) -> None:
        for name in ("main", "memcached", "haus", "http"):
            with (
                self.subTest(name),
                self.server() as service,
                Wire(service.listeners[name].port) as wire,
                self.assertLogs("kvdb", logging.WARNING) as logged,
            ):
                wire.socket.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
                self.assertNotIn(b"200", wire.read_to_end())
                until(lambda: not service.instance.sessions())
            self.assertIn("TLS", logged.output[0])

    def test_one_byte_is_enough_to_tell(self) -> None:
        for name in ("main", "memcached", "haus"):
            with (
                self.subTest(name),
                self.server() as service,
                Wire(service.listeners[name].port) as wire,
                self.assertLogs("kvdb", logging.WARNING),
            ):
                wire.socket.sendall(b"P")
                self.assertEqual(wire.read_to_end(), b"")

    def test_a_tls_client_on_a_plain_port_is_closed_at_once_and_logged(self) -> None:
        for name in ("main", "memcached", "haus"):
            with (
                self.subTest(name),
                running_server(**PORTS) as service,
                self.assertLogs("kvdb", logging.WARNING) as logged,
                self.assertRaises(OSError),
                self.client(service.listeners[name].port),
            ):
                pass
            self.assertIn("a TLS handshake", logged.output[0])

    def test_garbage_in_the_handshake_ends_that_connection_only(self) -> None:
        with self.server() as service, self.client(service.server.port) as other:
            for garbage in (b"\x16" + os.urandom(500), b"\x16\x03\x01\x00\x05" + b"x" * 500):
                with Wire(service.server.port) as wire, self.assertLogs("kvdb", logging.WARNING):
                    wire.socket.sendall(garbage)
                    wire.read_to_end()
                    until(lambda: len(service.instance.sessions()) == 1)
                service.instance.sparse_log._kinds.clear()
            self.assertEqual(self.ask(other, b"PING\r\n", 7), b"+PONG\r\n")

    def test_who_hangs_in_the_handshake_holds_up_nobody(self) -> None:
        with self.server() as service:
            for name in ("main", "http"):
                wire = self.enterContext(Wire(service.listeners[name].port))
                wire.socket.sendall(b"\x16\x03\x01")
            with self.client(service.server.port) as client:
                self.assertEqual(self.ask(client, b"PING\r\n", 7), b"+PONG\r\n")


class ClientCertificateTest(TlsTest):
    REQUESTS = (
        ("main", b"PING\r\n"),
        ("http", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"),
    )

    def test_clients_need_one_that_the_authority_has_signed(self) -> None:
        for name, request in self.REQUESTS:
            for certificate, is_good in (("client", True), (None, False), ("other", False)):
                with (
                    self.subTest(name, certificate=certificate),
                    self.server(tls_client_ca=self.folder / "ca.pem") as service,
                ):
                    port = service.listeners[name].port
                    if is_good:
                        with self.client(port, certificate) as client:
                            self.assertTrue(self.ask(client, request, 5))
                        continue
                    with self.assertLogs("kvdb", logging.WARNING) as logged:
                        self.assertFalse(self.is_let_in(port, certificate, request))
                        until(lambda logged=logged: bool(logged.output))
                    self.assertIn("TLS: ", logged.output[0])

    def is_let_in(self, port: int, certificate: str | None, request: bytes) -> bool:
        """Under TLS 1.3 a client believes itself connected until it reads."""
        try:
            with self.client(port, certificate) as client:
                return bool(self.ask(client, request, 5))
        except OSError:
            return False


class NothingInPlainTest(TlsTest):
    SECRET = b"a secret that must not be seen"

    def test_a_stop_sends_nothing_in_plain_text(self) -> None:
        """The bytes themselves are looked at, on every port, with a reply under way."""
        requests = {
            "main": b"GET k\r\n" * 2000,
            "memcached": b"get k\r\n" * 2000,
            "haus": b"GET k\n" * 2000,
            "http": b"GET /keys/k HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200,
        }
        for name, request in requests.items():
            with self.subTest(name), self.server() as service:
                service.store.set(b"k", self.SECRET * 100)
                port, context = service.listeners[name].port, client_context(self.folder)
                with ByHand(port, context) as client:
                    client.tls.write(request)
                    client.carry_out()
                    client.carry_in()
                    service.listeners[name].stop(grace=0.3)
                    with contextlib.suppress(OSError):
                        while client.carry_in():
                            pass
                self.assertGreater(len(client.sent_by_server), 1000)
                self.assertNotIn(b"secret", client.sent_by_server)


class FilesTest(TlsTest):
    def test_a_certificate_that_is_replaced_is_used_by_new_connections(self) -> None:
        clock = ManualClock()
        path = self.folder / "used.pem"
        path.write_bytes((self.folder / "server.pem").read_bytes())
        certificates = Certificates(path, monotonic=clock)
        before = certificates.context()
        self.assertIs(certificates.context(), before)
        path.write_bytes((self.folder / "client.pem").read_bytes())
        os.utime(path, ns=(1, 1))
        self.assertIs(certificates.context(), before, "it looks once a second")
        clock.now += 2
        with self.assertLogs("kvdb", logging.INFO):
            after = certificates.context()
        self.assertIsNot(after, before)
        self.assertIs(certificates.context(), after)

    def test_one_that_cannot_be_used_leaves_the_last_one_in_use(self) -> None:
        clock = ManualClock()
        path = self.folder / "used.pem"
        path.write_bytes((self.folder / "server.pem").read_bytes())
        certificates = Certificates(path, monotonic=clock)
        before = certificates.context()
        for text in ("nonsense", None):
            path.write_text(text) if text else path.unlink()
            clock.now += 2
            with self.assertLogs("kvdb", logging.ERROR) as logged:
                self.assertIs(certificates.context(), before)
            self.assertIn("stays in use", logged.output[0])
            clock.now += 2
            with self.assertNoLogs("kvdb", logging.ERROR):  # once per change
                self.assertIs(certificates.context(), before)

    def test_config_set_takes_other_files_or_refuses_and_changes_nothing(self) -> None:
        with self.server() as service, self.client(service.server.port) as client:

            def config(*words: str) -> bytes:
                client.sendall(f"CONFIG {' '.join(words)}\r\n".encode())
                return client.recv(1000)

            for good, name in ((True, "client.pem"), (False, "ca.pem"), (False, "nope.pem")):
                path = str(self.folder / name)
                answer = config("SET", "tls-cert-file", path, "timeout", "77")
                self.assertEqual(answer.startswith(b"+OK"), good, answer)
                if not good:
                    self.assertIn(b"tls-cert-file", answer)
            self.assertIn(b"client.pem", config("GET", "tls-cert-file"))
            self.assertEqual(config("SET", "tls-cert-file", '""')[:1], b"-")
            der = ssl.PEM_cert_to_DER_cert(
                (self.folder / "client.pem").read_text().split("-----BEGIN PRIVATE")[0]
            )
            with self.client(service.server.port) as later:
                self.assertEqual(later.getpeercert(binary_form=True), der)
            self.assertEqual(self.ask(client, b"PING\r\n", 7), b"+PONG\r\n")

    def test_config_set_without_tls_is_refused(self) -> None:
        with running_server() as service, Wire(service.server.port) as wire:
            path = self.folder / "server.pem"
            wire.socket.sendall(f"CONFIG SET tls-cert-file {path}\r\nQUIT\r\n".encode())
            self.assertIn(b"TLS is off", wire.read_to_end())

    def test_files_that_cannot_be_used_refuse_the_start_with_a_sentence(self) -> None:
        for cert, key, words in (
            ("nope.pem", None, "nope.pem: No such file"),
            ("ca.pem", None, "belong together"),
            ("server.pem", "other.pem", "belong together"),
        ):
            config = parse_config(["--in-memory", "--port", "0"], {})
            config.tls_cert = self.folder / cert
            config.tls_key = self.folder / key if key else None
            with self.subTest(cert, key=key), self.assertRaisesRegex(CannotStart, words):
                Service(config)

    def test_a_key_without_a_certificate_is_refused(self) -> None:
        for flag in ("--tls-key", "--tls-client-ca"):
            field = flag.lstrip("-").replace("-", "_")
            with self.assertRaisesRegex(BadSetting, f"{flag} .* needs --tls-cert"):
                configure({field: Path("x")}, {}, {})

    def test_the_healthcheck_shakes_hands(self) -> None:
        with self.server() as service:
            environment = {
                "KVDB_PORT": str(service.server.port),
                "KVDB_TLS_CERT": str(self.folder / "server.pem"),
            }
            with (
                unittest.mock.patch.dict(os.environ, environment),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                self.assertEqual(check_health(), 0)
        with unittest.mock.patch.dict(os.environ, environment):
            self.assertEqual(check_health(), 1)
