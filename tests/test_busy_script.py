"""A whole server while a script keeps everybody waiting: who is answered, and how it ends."""

from __future__ import annotations

import logging
import unittest
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from kvdb.errors import BUSY
from kvdb.resp.replies import encode_request
from kvdb.scripting import machine
from kvdb.service import Service
from tests.support import Wire, running_server, until

REFUSED = b"-" + BUSY.encode() + b"\r\n"
ENDLESS = encode_request([b"EVAL", b"while true do end", b"0"])
WRITES = encode_request([b"EVAL", b"redis.call('set', 'k', 1) while true do end", b"0"])
KILL = b"SCRIPT KILL\r\n"


class BusyTest(unittest.TestCase):
    def setUp(self) -> None:
        logging.disable()
        self.addCleanup(logging.disable, logging.NOTSET)
        # However slow the machine is that tests run on: nothing ends but what is ended.
        self.enterContext(mock.patch.object(machine, "_TIMES_LONGER", 10_000))

    @contextmanager
    def busy_server(
        self, script: bytes = ENDLESS, **config: object
    ) -> Iterator[tuple[Service, Wire]]:
        """Run a server on which a script has been running for too long; give it and its client."""
        with (
            running_server(script_time_limit=30, **config) as service,
            Wire(service.server.port) as client,
        ):
            client.socket.sendall(script)
            until(lambda: service.instance.scripts.is_busy)
            yield service, client

    def assert_killed(self, client: Wire) -> None:
        self.assertIn(b"killed by user with SCRIPT KILL", client.read_until(b"\r\n"))

    def test_others_are_refused_on_every_port_until_it_is_killed(self) -> None:
        with (
            self.busy_server(http_port=0, memcached_port=0, haus_port=0) as (service, client),
            Wire(service.server.port) as other,
            Wire(service.listeners["memcached"].port) as memcached,
            Wire(service.listeners["haus"].port) as haus,
        ):
            self.assertEqual(other.ask(b"PING\r\n", len(REFUSED)), REFUSED)
            other.socket.sendall(b'{"command": "GET", "args": ["k"]}\r\n')
            self.assertIn(b"BUSY", other.read_until(b"\n"))
            refusal = b"SERVER_ERROR busy running a script\r\n"
            self.assertEqual(memcached.ask(b"get k\r\n", len(refusal)), refusal)
            self.assertIn(b"BUSY", haus.ask(b"GET k\r\n", 60))
            port = service.listeners["http"].port
            with self.assertRaises(urllib.error.HTTPError) as raised:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/keys/k")
            self.assertEqual(raised.exception.code, 503)
            raised.exception.close()
            with Wire(service.server.port) as new:  # and whoever comes meanwhile
                self.assertEqual(new.ask(KILL, 5), b"+OK\r\n")
            self.assert_killed(client)
            self.assertEqual(other.ask(b"SET k v\r\n", 5), b"+OK\r\n")
            self.assertEqual(memcached.ask(b"get k\r\n", 19), b"VALUE k 0 1\r\nv\r\nEND")

    def test_what_its_client_has_sent_behind_it_is_answered_after_it(self) -> None:
        with self.busy_server(ENDLESS + b"PING\r\n") as (service, client):
            client.socket.sendall(b"ECHO later\r\n")
            with Wire(service.server.port) as other:
                self.assertEqual(other.ask(b"PING\r\n" * 5, 5 * len(REFUSED)), 5 * REFUSED)
                self.assertEqual(other.ask(KILL, 5), b"+OK\r\n")
            self.assertTrue(client.read_until(b"later\r\n").endswith(b"+PONG\r\n$5\r\nlater\r\n"))

    def test_a_client_that_leaves_is_let_go_after_its_script(self) -> None:
        with self.busy_server() as (service, client):
            client.socket.close()
            with Wire(service.server.port) as other:
                (session, *_) = service.instance.sessions()
                session.close()
                self.assertEqual(other.ask(b"PING\r\n", len(REFUSED)), REFUSED)
                self.assertEqual(other.ask(KILL, 5), b"+OK\r\n")
                self.assertEqual(other.ask(b"PING\r\n", 7), b"+PONG\r\n")
                until(lambda: len(service.instance.sessions()) == 1)

    def test_a_server_that_is_to_stop_does_not_wait_for_it(self) -> None:
        for script in (ENDLESS, WRITES):
            with self.busy_server(script) as (service, client):
                service.stop()
                self.assertFalse(service.loop.thread.is_alive())
                client.socket.close()

    def test_one_that_has_written_goes_on_until_the_server_stops(self) -> None:
        with self.busy_server(WRITES) as (service, _), Wire(service.server.port) as other:
            self.assertEqual(other.ask(KILL, 12), b"-UNKILLABLE ")
            other.read_until(b"\r\n")
            self.assertEqual(other.ask(b"PING\r\n", len(REFUSED)), REFUSED)

    def test_within_exec_and_json_it_can_be_ended_too(self) -> None:
        words = b"a " * 600  # so many that a plain command would have a thread of its own
        for script in (
            b"MULTI\r\nKEYS *\r\nEVAL 'while true do end' 0\r\nEXEC\r\n",
            b"EVAL 'while true do end' 0 " + words + b"\r\n",
            b'{"command": "EVAL", "args": ["while true do end", "0"]}\r\n',
        ):
            with (
                self.subTest(script[:40]),
                self.busy_server(script) as (service, client),
                Wire(service.server.port) as other,
            ):
                self.assertEqual(other.ask(KILL, 5), b"+OK\r\n")
                client.read_until(b"SCRIPT KILL")


if __name__ == "__main__":
    unittest.main()
