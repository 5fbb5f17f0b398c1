"""Whoever guesses passwords waits longer and longer; whoever knows it never does."""

from __future__ import annotations

import base64
import logging
import threading
import unittest
from unittest import mock

from kvdb.commands.instance import Instance
from kvdb.commands.session import Session
from kvdb.config import Config
from kvdb.errors import CommandError
from kvdb.guesses import FREE, LONGEST, Guesses
from kvdb.http.listener import HttpServer
from kvdb.service import Service
from kvdb.store import Store
from tests.support import Conversation, ManualClock, Wire, running_server, until

DELAYS = [0.0] * FREE + [0.05 * 1.5**n for n in range(1, 12)] + [5.0, 5.0]
"""Seconds, for the first wrong password from an address, the second, ..."""

MANY = len(DELAYS)

PASSWORD = "correct horse"


class GuessesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = ManualClock()
        self.guesses = Guesses(self.clock)

    def delays(self, count: int, host: str = "192.0.2.1") -> list[float]:
        return [self.guesses.wrong(host) for _ in range(count)]

    def test_some_are_free_and_then_each_waits_longer_up_to_five_seconds(self) -> None:
        self.assertEqual(LONGEST, 5.0)
        for delay, expected in zip(self.delays(MANY), DELAYS, strict=True):
            self.assertAlmostEqual(delay, expected)
        self.assertEqual(sorted(DELAYS), DELAYS)
        self.assertEqual(self.delays(2000)[-1], 5.0)

    def test_each_address_counts_for_itself(self) -> None:
        self.delays(MANY)
        self.assertEqual(self.delays(FREE, "192.0.2.2"), [0.0] * FREE)
        self.assertEqual(self.delays(1), [5.0])

    def test_they_are_forgotten_after_a_minute_without_another(self) -> None:
        self.delays(FREE + 2)
        self.clock.now += 60
        self.assertAlmostEqual(self.delays(1)[0], DELAYS[FREE + 2])
        self.clock.now += 60.1
        self.assertEqual(self.delays(FREE), [0.0] * FREE)

    def test_as_long_as_somebody_goes_on_nothing_is_forgotten(self) -> None:
        for _ in range(MANY):
            self.clock.now += 59
            last = self.guesses.wrong("192.0.2.1")
        self.assertEqual(last, 5.0)

    def test_many_addresses_do_not_fill_the_memory(self) -> None:
        with mock.patch("kvdb.guesses._MOST_ADDRESSES", 10):
            for number in range(1000):
                self.guesses.wrong(f"192.0.2.{number}")
                self.assertLessEqual(len(self.guesses._wrong), 10)
            self.delays(MANY)
            self.assertEqual(self.delays(1), [5.0], "an address that is counted stays so")


class LogInTest(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = ManualClock()
        config = Config(password=PASSWORD)
        self.instance = Instance(Store(0), config, monotonic=self.clock)

    def log_in(self, password: str, address: str = "192.0.2.1:5000") -> Session:
        session = Session(self.instance, address)
        right = self.instance.log_in(session, password.encode())
        self.assertEqual((right, session.authenticated), (password == PASSWORD,) * 2)
        return session

    def test_who_guesses_waits(self) -> None:
        with self.assertLogs("kvdb", logging.WARNING):
            sessions = [self.log_in("wrong") for _ in DELAYS]
        for session, delay in zip(sessions, DELAYS, strict=True):
            self.assertAlmostEqual(session.take_penalty(), delay)
            self.assertEqual(session.take_penalty(), 0.0, "once")
            self.assertFalse(session.closing)

    def test_the_right_password_is_never_delayed_even_from_the_same_address(self) -> None:
        with self.assertLogs("kvdb", logging.WARNING):
            for _ in range(MANY):
                self.log_in("wrong")
                session = self.log_in(PASSWORD)
                self.assertEqual((session.penalty, session.closing), (0.0, False))

    def test_ports_of_one_address_count_together_and_other_addresses_apart(self) -> None:
        with self.assertLogs("kvdb", logging.WARNING):
            for port in range(MANY):
                self.log_in("wrong", f"[2001:db8::1]:{port}")
            self.assertEqual(self.log_in("wrong", "[2001:db8::1]:99").penalty, 5.0)
            self.assertEqual(self.log_in("wrong", "[2001:db8::2]:99").penalty, 0.0)

    def test_there_is_one_line_an_address_and_minute(self) -> None:
        with self.assertLogs("kvdb", logging.WARNING) as logged:
            for port in range(5000, 5010):
                self.log_in("wrong", f"192.0.2.1:{port}")
            self.log_in("wrong", "192.0.2.2:6000")
            self.clock.now += 60
            self.log_in("wrong", "192.0.2.1:7000")
        self.assertEqual(
            [record.getMessage() for record in logged.records],
            [
                "client 192.0.2.1:5000: wrong password",
                "client 192.0.2.2:6000: wrong password",
                "client 192.0.2.1:7000: wrong password (9 more like this since the last line)",
            ],
        )

    def test_within_exec_there_is_one_guess_for_one_answer(self) -> None:
        talk = Conversation()
        talk("ACL", "SETUSER", "admin", "on", ">right")
        guesses = talk.instance._guesses
        for _ in range(FREE):
            talk("AUTH", "admin", "wrong")
        talk.session.penalty = 0.0
        talk("MULTI")
        for password in ("wrong", "worse", "right"):
            talk("AUTH", "admin", password)
        with mock.patch.object(guesses, "wrong", wraps=guesses.wrong) as wrong:
            replies = talk("EXEC")
        self.assertEqual(len([each for each in replies if isinstance(each, CommandError)]), 3)
        self.assertEqual((wrong.call_count, talk("ACL", "WHOAMI")), (1, b"default"))

    def test_without_a_password_any_will_do(self) -> None:
        self.instance.users.set_password(None)
        session = Session(self.instance, "192.0.2.1:1")
        self.assertTrue(self.instance.log_in(session, b"anything"))
        self.assertEqual(session.penalty, 0.0)


def basic(password: str) -> bytes:
    credentials = base64.b64encode(f"user:{password}".encode())
    return (
        b"GET /keys/k HTTP/1.1\r\nHost: localhost\r\nAuthorization: Basic %b\r\n\r\n" % credentials
    )


# How each port is given a password; what the answer to a wrong and to the right one begins with.
WAYS = {
    "AUTH": ("main", lambda password: f'AUTH "{password}"\r\n'.encode(), b"-WRONGPASS", b"+OK"),
    "AUTH user": ("main", lambda password: f'AUTH default "{password}"\r\n'.encode(),
                  b"-WRONGPASS", b"+OK"),
    "HELLO": ("main", lambda password: f'HELLO 3 AUTH default "{password}"\r\n'.encode(),
              b"-WRONGPASS", b"%"),
    "JSON": ("main", lambda password: b'{"command": "AUTH", "args": ["%b"]}\n' % password.encode(),
             b'{"status": "ERROR", "message": "WRONGPASS', b'{"status": "OK"'),
    "memcached": ("memcached",
                  lambda password: b"set auth 0 0 %d\r\nuser %b\r\n"
                  % (len(password) + 5, password.encode()),
                  b"CLIENT_ERROR authentication failure", b"STORED"),
    "Haus": ("haus", lambda password: f"AUTH {password}\n".encode(),
             b'{"status": "Error", "mesg": "Wrong password!"', b'{"status": "Ok"'),
    "HTTP": ("http", basic, b"HTTP/1.1 401", b"HTTP/1.1 404"),
}  # fmt: skip


class PortCase(unittest.TestCase):
    """A server that wants a password, with all its ports."""

    def setUp(self) -> None:
        self.enterContext(self.assertLogs("kvdb", logging.WARNING))
        self.service = self.serve()

    def serve(self) -> Service:
        return self.enterContext(
            running_server(password=PASSWORD, memcached_port=0, haus_port=0, http_port=0)
        )

    def connect(self, way: str) -> Wire:
        return self.enterContext(Wire(self.service.listeners[WAYS[way][0]].port))

    def guess(self, wire: Wire, way: str, password: str = "wrong") -> None:
        """Send a password and read the beginning of the answer; that ends with its line."""
        _, request, refused, accepted = WAYS[way]
        expected = accepted if password == PASSWORD else refused
        self.assertEqual(wire.ask(request(password), len(expected)), expected, way)

    def exhaust(self) -> None:
        """Have all the free ones be used up."""
        self.service.instance._guesses = guesses = Guesses()
        for _ in range(FREE):
            guesses.wrong("127.0.0.1")

    def log_in(self) -> Wire:
        """Return a connection that has given the right password."""
        wire = self.connect("AUTH")
        self.guess(wire, "AUTH", PASSWORD)
        return wire


class EveryPortTest(PortCase):
    """Each port counts wrong passwords, and holds the answer back, one at a time."""

    def setUp(self) -> None:
        self.held: list[float] = []
        real = Session.take_penalty

        def take_penalty(session: Session) -> float:
            self.hold_back(real(session))
            return 0.0

        self.enterContext(mock.patch.object(Session, "take_penalty", take_penalty))
        self.enterContext(
            mock.patch.object(HttpServer, "hold_back", lambda server, wait: self.hold_back(wait))
        )
        super().setUp()

    def hold_back(self, seconds: float) -> None:
        if seconds:
            self.held.append(round(seconds, 3))

    def read_answers(self, wire: Wire, count: int, refused: bytes, last: bytes) -> None:
        """Read so many refusals, and the beginning of another answer."""
        received = b""
        while not (received.count(refused) == count and last in received):
            byte = wire.read(1)
            self.assertTrue(byte, received)
            received += byte
        self.assertTrue(received.endswith(last))

    def test_a_wrong_password_at_any_port_is_delayed_once_none_is_free(self) -> None:
        for way in WAYS:
            with self.subTest(way):
                self.service.instance._guesses = Guesses()
                for _ in range(FREE):
                    self.guess(self.connect(way), way)
                self.assertEqual(self.held, [])
                self.guess(self.connect(way), way)
                self.assertEqual(self.held, [0.075])
                self.guess(self.connect(way), way, PASSWORD)
                self.assertEqual(self.held.pop(), 0.075, "and the right one was not delayed")

    def test_all_ports_count_together(self) -> None:
        self.exhaust()
        for way in WAYS:
            self.guess(self.connect(way), way)
        self.assertEqual(self.held, [round(delay, 3) for delay in DELAYS[FREE : FREE + len(WAYS)]])

    def test_the_connection_goes_on_and_takes_the_right_password_at_once(self) -> None:
        for way in WAYS:
            with self.subTest(way):
                self.exhaust()
                wire = self.connect(way)
                _, request, refused, accepted = WAYS[way]
                wire.socket.sendall(request("wrong"))
                wire.socket.sendall(request(PASSWORD))
                self.read_answers(wire, 1, refused, accepted)
                self.assertEqual(self.held.pop(), 0.075)
                self.assertEqual(self.held, [])

    def test_guesses_that_are_sent_together_are_delayed_one_by_one(self) -> None:
        for way in WAYS:
            with self.subTest(way):
                self.exhaust()
                wire = self.connect(way)
                _, request, refused, accepted = WAYS[way]
                wire.socket.sendall(request("wrong") * 30 + request(PASSWORD))
                self.read_answers(wire, 30, refused, accepted)
                self.assertEqual(len(self.held), 30)
                self.assertEqual(self.held[-1], 5.0)
                self.held.clear()

    def test_a_request_without_a_password_is_no_guess(self) -> None:
        for _ in range(FREE):
            with Wire(self.service.listeners["http"].port) as wire:
                wire.ask(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", 12)
            with Wire(self.service.listeners["main"].port) as wire:
                self.assertEqual(wire.ask(b"GET k\r\n", 7), b"-NOAUTH")
        self.guess(self.connect("AUTH"), "AUTH")
        self.assertEqual(self.held, [])


class HoldBackTest(PortCase):
    """A clock that the test moves tells when an answer is due."""

    def setUp(self) -> None:
        super().setUp()
        self.clock = ManualClock()
        self.enterContext(mock.patch.object(self.service.loop, "_monotonic", self.clock))
        self.enterContext(mock.patch.object(self.service.instance, "monotonic", self.clock))

    def hold_back(self, way: str) -> Wire:
        """Return a connection whose answer is held back for 0.075 seconds."""
        self.exhaust()
        guessed = threading.Event()
        guesses = self.service.instance._guesses
        real = guesses.wrong

        def wrong(host: str) -> float:
            guessed.set()
            return real(host)

        wire = self.connect(way)
        with mock.patch.object(guesses, "wrong", wrong):
            wire.socket.sendall(WAYS[way][1]("wrong"))
            self.assertTrue(guessed.wait(10))
        return wire

    def assert_silent(self, wire: Wire) -> None:
        """Nothing has come, though others were answered since."""
        self.log_in()
        wire.socket.setblocking(False)
        self.assertRaises(BlockingIOError, wire.socket.recv, 1)
        wire.socket.settimeout(10)

    def test_nothing_is_answered_before_the_time_is_over(self) -> None:
        for way in WAYS:
            with self.subTest(way):
                wire = self.hold_back(way)
                self.assert_silent(wire)
                self.clock.now += 0.07
                self.assert_silent(wire)
                self.clock.now += 0.01
                refused = WAYS[way][2]
                self.assertEqual(wire.read(len(refused)), refused)

    def test_what_was_sent_after_a_wrong_password_waits_too(self) -> None:
        wire = self.hold_back("AUTH")
        wire.socket.sendall(f'AUTH "{PASSWORD}"\r\nPING\r\n'.encode())
        self.assert_silent(wire)
        self.clock.now += 0.08
        received = b""
        while not received.endswith(b"+PONG\r\n"):
            received += wire.read(1)
        self.assertTrue(received.startswith(b"-WRONGPASS"))
        self.assertIn(b"\r\n+OK\r\n+PONG\r\n", received)

    def test_a_client_that_does_not_wait_for_the_answer_is_forgotten(self) -> None:
        self.hold_back("AUTH").socket.close()
        self.clock.now += 0.08
        until(lambda: not self.service.instance.sessions())

    def test_a_stop_waits_for_nobody(self) -> None:
        for way in ("AUTH", "JSON", "memcached", "Haus", "HTTP"):
            wire = self.hold_back(way)
            listener = self.service.listeners[WAYS[way][0]]
            with self.subTest(way), mock.patch("kvdb.http.listener.time.sleep", pause):
                listener.stop(grace=60)  # would be waited for if anybody held it up
                self.assertTrue(listener.wait_until_empty(0))
                self.assertTrue(wire.read_to_end().startswith(WAYS[way][2]))
            self.service.stop()
            self.service = self.serve()
            self.service.loop._monotonic = self.service.instance.monotonic = self.clock


def pause(seconds: float) -> None:
    """Let others go on; the clock stands still."""
    threading.Event().wait(0.001)


if __name__ == "__main__":
    unittest.main()
