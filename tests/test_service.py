"""A whole server: its ports, the one store behind them, its start and its end."""

from __future__ import annotations

import http.client
import socket
import sqlite3
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

from kvdb.config import Config
from kvdb.persistence.journal import Journal
from kvdb.persistence.snapshot import Snapshots
from kvdb.server.listener import Listener
from kvdb.service import CannotStart, Service
from kvdb.store.entry import Entry
from tests.support import Wire, running_server, until

DOORS = ("main", "memcached", "haus", "http")
OPEN = {"memcached_port": 0, "haus_port": 0, "http_port": 0}

# What a client of each port sends to set `key` to `value`, and to read it; with the answers.
CONVERSATIONS = {
    "RESP": ("main",
        ("*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n", "+OK\r\n"),
        ("*2\r\n$3\r\nGET\r\n$3\r\nkey\r\n", "$5\r\nvalue\r\n")),
    "inline": ("main",
        ("SET key value\r\n", "+OK\r\n"),
        ("GET key\r\n", "$5\r\nvalue\r\n")),
    "JSON": ("main",
        ('{"command": "SET", "args": {"key": "key", "value": "value"}}\n', '{"status": "OK"}\n'),
        ('{"command": "GET", "args": {"key": "key"}}\n', '{"status": "OK", "result": "value"}\n')),
    "memcached": ("memcached",
        ("set key 0 0 5\r\nvalue\r\n", "STORED\r\n"),
        ("get key\r\n", "VALUE key 0 5\r\nvalue\r\nEND\r\n")),
    "Haus": ("haus",
        ("PUT key value\n", '{"status": "Ok"}\n'),
        ("GET key\n", '{"status": "Ok", "result": "value"}\n')),
}  # fmt: skip

# How each dialect gives a key 1,000 seconds to live, and asks how many are left.
SETTING_TTL = {
    "RESP": "*5\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n$2\r\nEX\r\n$4\r\n1000\r\n",
    "inline": "SET key value EX 1000\r\n",
    "JSON": '{"command": "SET", "args": {"key": "key", "value": "value", "ttl": 1000}}\n',
    "memcached": "set key 0 1000 5\r\nvalue\r\n",
}
ASKING_TTL = {
    "RESP": ("*2\r\n$3\r\nTTL\r\n$3\r\nkey\r\n", ":{}\r\n"),
    "inline": ("TTL key\r\n", ":{}\r\n"),
    "JSON": (
        '{"command": "TTL", "args": {"key": "key"}}\n', '{{"status": "OK", "result": {}}}\n'
    ),
    "memcached": ("mg key t\r\n", "HD t{}\r\n"),
}  # fmt: skip


class PortsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.service = self.enterContext(running_server(**OPEN))
        self.wires = {
            name: self.enterContext(Wire(self.service.listeners[name].port))
            for name in ("main", "memcached", "haus")
        }
        self.http = http.client.HTTPConnection("127.0.0.1", self.service.listeners["http"].port)
        self.addCleanup(self.http.close)

    def say(self, dialect: str, request: str, expected: str) -> None:
        wire = self.wires[CONVERSATIONS[dialect][0]]
        reply = wire.ask(request.encode(), len(expected))
        self.assertEqual(reply.decode(), expected, dialect)

    def ask_http(self, method: str, path: str, body: str | None = None) -> http.client.HTTPResponse:
        self.http.request(method, path, body)
        response = self.http.getresponse()
        self.body = response.read().decode()
        return response

    def assert_every_port_reads(self, writer: str) -> None:
        for dialect, (_, _, (request, reply)) in CONVERSATIONS.items():
            with self.subTest(writer=writer, reader=dialect):
                self.say(dialect, request, reply)
        for path in ("/get?key=key", "/keys/key"):
            with self.subTest(writer=writer, reader=path):
                self.assertEqual((self.ask_http("GET", path).status, self.body), (200, "value"))

    def test_every_port_has_a_port_of_its_own(self) -> None:
        self.assertEqual(tuple(self.service.listeners), DOORS)
        ports = {port.port for port in self.service.listeners.values()}
        self.assertEqual(len(ports), 4)
        config = self.service.config
        told = {config.port, config.memcached_port, config.haus_port, config.http_port}
        self.assertEqual(told, ports)

    def test_a_key_set_through_each_port_is_read_through_every_other(self) -> None:
        for dialect, (_, (request, reply), _) in CONVERSATIONS.items():
            self.service.store.flush()
            self.say(dialect, request, reply)
            self.assert_every_port_reads(dialect)
        for method, path in (("GET", "/set?key=value"), ("PUT", "/keys/key")):
            self.service.store.flush()
            self.ask_http(method, path, "value" if method == "PUT" else None)
            self.assert_every_port_reads(path)

    def test_a_ttl_set_through_each_port_is_shown_by_every_other(self) -> None:
        now = time.time()
        clock = lambda: now  # noqa: E731  (it must stand still between two dialects)
        self.service.store._clock = clock
        writers = [*SETTING_TTL, "http"]
        for writer in writers:
            self.service.store.flush()
            if writer == "http":
                self.assertEqual(self.ask_http("PUT", "/keys/key?ttl=1000", "value").status, 201)
            else:
                self.say(writer, SETTING_TTL[writer], CONVERSATIONS[writer][1][1])
            for reader, (request, reply) in ASKING_TTL.items():
                with self.subTest(writer=writer, reader=reader):
                    self.say(reader, request, reply.format(1000))
            expires_at = self.ask_http("GET", "/keys/key").headers["X-Expires-At"]
            self.assertAlmostEqual(float(expires_at), now + 1000, delta=0.001)
            self.assert_every_port_reads(writer)

    def test_an_open_transaction_ends_with_its_connection(self) -> None:
        with Wire(self.service.listeners["haus"].port) as wire:
            ok = '{"status": "Ok"}\n'
            self.assertEqual(wire.ask(b"START\nPUT k v\n", 2 * len(ok)).decode(), 2 * ok)
        # Those of setUp() are left; HTTP has not called.
        until(lambda: len(self.service.instance.sessions()) == 3)
        self.assertIsNone(self.service.store.entry(b"k"))

    def test_each_port_refuses_too_many_clients_in_its_own_words(self) -> None:
        self.service.config.max_clients = 0
        for name, expected in (
            ("main", b"-ERR max number of clients reached\r\n"),
            ("memcached", b"ERROR Too many open connections\r\n"),
            ("haus", b'{"status": "Error", "mesg": "Too many clients!"}\n'),
        ):
            with Wire(self.service.listeners[name].port) as wire:
                self.assertEqual(wire.read_to_end(), expected)
        self.assertEqual(self.ask_http("GET", "/keys/key").status, 503)


class OrderTest(unittest.TestCase):
    def test_who_reaches_the_main_port_reaches_the_others_too(self) -> None:
        started: list[int] = []
        start = Listener.start

        def note(listener: Listener) -> None:
            started.append(listener.port)
            start(listener)

        with mock.patch.object(Listener, "start", note), running_server(**OPEN) as service:
            self.assertEqual(len(started), 4)
            self.assertEqual(started[-1], service.server.port)


class DataTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def test_the_suffix_decides_how_data_is_kept(self) -> None:
        for name, kind in (
            ("a.json", Snapshots),
            ("a.sqlite", Journal),
            ("a.sqlite3", Journal),
            ("a.db", Journal),
            ("a", Snapshots),
        ):
            with running_server(data=self.folder / name) as service:
                self.assertIs(type(service.persistence), kind)
                service.store.set(b"k", name.encode())
            with running_server(data=self.folder / name) as service:
                self.assertEqual((service.loaded, service.store.get(b"k")), (1, name.encode()))

    def test_what_went_in_at_any_port_is_there_after_a_restart(self) -> None:
        data = self.folder / "x.sqlite"
        with running_server(data=data, **OPEN) as service:
            for name, request in (
                ("main", b"SET main 1\r\n"),
                ("memcached", b"set memcached 7 0 1\r\n1\r\n"),
                ("haus", b"START\nPUT haus 1\nCOMMIT\n"),
            ):
                with Wire(service.listeners[name].port) as wire:
                    wire.socket.sendall(request)
                    wire.socket.shutdown(socket.SHUT_WR)
                    wire.read_to_end()
        with running_server(data=data) as service:
            self.assertEqual(service.store.entry(b"main"), Entry(b"1"))
            self.assertEqual(service.store.entry(b"memcached"), Entry(b"1", None, 7))
            self.assertEqual(service.store.entry(b"haus"), Entry(b"1"))

    def test_a_stop_writes_the_journal_whatever_it_was_told_of_saving(self) -> None:
        data = self.folder / "x.db"
        service = Service(Config(data=data, port=0))
        service.start()
        service.store.set(b"k", b"v")
        self.assertTrue(service.stop(save=False))
        self.assertEqual([path.name for path in self.folder.iterdir()], ["x.db"])
        database = sqlite3.connect(data)
        self.addCleanup(database.close)
        self.assertEqual(database.execute("SELECT key FROM entries").fetchall(), [("k",)])

    def test_a_second_server_on_the_same_data_is_refused(self) -> None:
        data = self.folder / "x.sqlite"
        with running_server(data=data), self.assertRaisesRegex(CannotStart, "in use by another"):
            Service(Config(data=data, port=0))

    def test_if_one_port_cannot_open_none_stays_open(self) -> None:
        with running_server(**OPEN) as service:
            taken = service.listeners["haus"].port
            with self.assertRaisesRegex(CannotStart, f"port {taken}"):
                Service(Config(data=self.folder / "x.json", port=0, haus_port=taken))
        self.assertEqual(list(self.folder.iterdir()), [])
