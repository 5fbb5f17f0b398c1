"""What clients hold together: who waits, who goes on, who is ended."""

from __future__ import annotations

import contextlib
import logging
import threading
import unittest
from unittest import mock

from kvdb.accounts import PATIENCE, SMALL, Accounts
from kvdb.resp.replies import encode_request
from tests.support import ManualClock, Wire, running_server, until

KB = 1024
LIMIT = 1000 * KB


class Someone:
    """A client as the account sees it."""

    def __init__(self, address: str) -> None:
        self.held = 0
        self.address = address
        self.closing = self.no_evict = False
        self.authenticated = True
        self.is_replica = False
        self.closed = threading.Event()

    def close(self) -> None:
        self.closed.set()


class AccountsCase(unittest.TestCase):
    def setUp(self) -> None:
        self.limit = LIMIT
        self.clock = ManualClock()
        self.accounts = Accounts(lambda: self.limit, self.clock)
        self.a, self.b, self.c = (Someone(name) for name in "abc")
        # Whoever waits looks again each tenth of a second; here only when something changes.
        self.waiting = threading.Semaphore(0)
        self.condition = self.accounts._changed
        real = self.condition.wait

        def wait(timeout: float | None = None) -> bool:
            self.waiting.release()
            return real(10)

        self.enterContext(mock.patch.object(self.condition, "wait", wait))

    def start_waiting(self, client: Someone) -> threading.Thread:
        """Have a client's thread wait for room; return once it does."""
        thread = threading.Thread(target=self.accounts.wait_for_room, args=(client,), daemon=True)
        thread.start()
        self.assertTrue(self.waiting.acquire(timeout=10), "it does not wait")
        return thread

    def look_again(self) -> None:
        """Have everybody who waits look again: a tenth of a second has passed."""
        with self.condition:
            self.condition.notify_all()

    def assert_goes_on(self, client: Someone) -> None:
        """It does not wait, or the test would for ten seconds."""
        self.assertFalse(self.accounts.must_wait(client))
        self.accounts.wait_for_room(client)
        self.assertFalse(self.waiting.acquire(blocking=False), "it has waited")

    def assert_ends(self, thread: threading.Thread) -> None:
        thread.join(10)
        self.assertFalse(thread.is_alive(), "it goes on waiting")


class SumTest(AccountsCase):
    def test_what_all_hold_is_added_up(self) -> None:
        for client, held, together in (
            (self.a, 100 * KB, 100 * KB),
            (self.b, 50 * KB, 150 * KB),
            (self.a, 20 * KB, 70 * KB),
            (self.a, 20 * KB, 70 * KB),
            (self.b, 0, 20 * KB),
            (self.a, 0, 0),
            (self.a, 0, 0),
        ):
            self.accounts.report(client, held)
            self.assertEqual((self.accounts.held, client.held), (together, held))
        self.assertEqual(self.accounts._holders, {})

    def test_small_holdings_do_not_count(self) -> None:
        for client in (self.a, self.b):
            self.accounts.report(client, SMALL)
        self.assertEqual((self.accounts.held, self.a.held, self.accounts._holders), (0, 0, {}))
        self.accounts.report(self.a, SMALL + 1)
        self.assertEqual(self.accounts.held, SMALL + 1)
        self.accounts.report(self.a, SMALL)
        self.assertEqual((self.accounts.held, self.accounts._holders), (0, {}))

    def test_the_limit_is_no_more_than_may_be_held(self) -> None:
        self.accounts.report(self.a, LIMIT)
        self.assertFalse(self.accounts.is_over)
        self.assert_goes_on(self.a)
        self.accounts.report(self.a, LIMIT + 1)
        self.assertTrue(self.accounts.is_over)

    def test_a_limit_of_0_is_none(self) -> None:
        self.limit = 0
        self.accounts.report(self.a, 10**12)
        self.accounts.report(self.b, 10**12)
        self.assertFalse(self.accounts.is_over)
        self.clock.now += 2 * PATIENCE
        for client in (self.a, self.b):
            self.assert_goes_on(client)
        self.accounts.relieve()
        self.assertEqual(self.accounts.ended, 0)

    def test_a_limit_that_changes_counts_from_then_on(self) -> None:
        self.accounts.report(self.a, 600 * KB)
        self.accounts.report(self.b, 300 * KB)
        self.limit = 500 * KB
        self.assertTrue(self.accounts.is_over)
        self.accounts.report(self.b, 290 * KB)
        with self.assertLogs("kvdb.accounts"):
            self.accounts.relieve()  # far above it
        self.assertTrue(self.a.closed.is_set())

    def test_threads_that_report_at_once_are_all_counted(self) -> None:
        def report(client: Someone) -> None:
            for size in range(1000):
                self.accounts.report(client, SMALL + size)
            self.accounts.report(client, 100 * KB)

        clients = [Someone(str(number)) for number in range(8)]
        threads = [threading.Thread(target=report, args=(client,)) for client in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(self.accounts.held, 800 * KB)


class WaitingTest(AccountsCase):
    def test_nobody_waits_below_the_limit(self) -> None:
        self.accounts.report(self.a, 900 * KB)
        for client in (self.a, self.b):
            self.assert_goes_on(client)

    def test_over_it_who_holds_something_waits_and_the_one_that_holds_the_most_goes_on(
        self,
    ) -> None:
        self.accounts.report(self.a, 600 * KB)
        self.accounts.report(self.b, 500 * KB)
        self.assert_goes_on(self.a)
        self.assert_goes_on(self.c)  # it holds nothing
        thread = self.start_waiting(self.b)
        self.assert_goes_on(self.a)
        self.accounts.report(self.a, 500 * KB)
        self.assert_ends(thread)
        self.assertEqual(self.accounts.ended, 0)

    def test_who_cannot_wait_may_ask_whether_it_must(self) -> None:
        self.accounts.report(self.a, 600 * KB)
        self.assertFalse(self.accounts.must_wait(self.a))
        self.accounts.report(self.b, 500 * KB)
        asked = [self.accounts.must_wait(client) for client in (self.a, self.b, self.c)]
        self.assertEqual(asked, [False, True, False])
        self.b.closing = True
        self.assertFalse(self.accounts.must_wait(self.b))

    def test_who_asks_ends_the_one_that_holds_the_most_once_it_is_time(self) -> None:
        self.accounts.report(self.a, 600 * KB)
        self.accounts.report(self.b, 500 * KB)
        self.clock.now += PATIENCE + 0.1
        with self.assertLogs("kvdb.accounts"):
            self.assertTrue(self.accounts.must_wait(self.b))
        self.assertEqual([self.a.closed.is_set(), self.b.closed.is_set()], [True, False])

    def test_all_who_wait_are_woken_when_there_is_room(self) -> None:
        self.accounts.report(self.a, 600 * KB)
        self.accounts.report(self.b, 300 * KB)
        self.accounts.report(self.c, 200 * KB)
        threads = [self.start_waiting(client) for client in (self.b, self.c)]
        self.accounts.report(self.a, 550 * KB)  # not enough
        self.look_again()
        for _ in threads:
            self.assertTrue(self.waiting.acquire(timeout=10))
        self.accounts.report(self.a, 0)
        for thread in threads:
            self.assert_ends(thread)

    def test_who_has_become_the_one_that_holds_the_most_goes_on(self) -> None:
        self.accounts.report(self.a, 600 * KB)
        self.accounts.report(self.b, 500 * KB)
        thread = self.start_waiting(self.b)
        self.accounts.report(self.c, 90 * KB)
        self.accounts.report(self.a, 450 * KB)  # still over
        self.look_again()
        self.assert_ends(thread)

    def test_who_is_closed_meanwhile_waits_no_longer(self) -> None:
        self.accounts.report(self.a, 600 * KB)
        self.accounts.report(self.b, 500 * KB)
        thread = self.start_waiting(self.b)
        self.b.closing = True
        self.look_again()
        self.assert_ends(thread)


class EndTest(AccountsCase):
    def test_after_some_patience_the_one_that_holds_the_most_is_ended_and_named(self) -> None:
        self.accounts.report(self.a, 600 * KB)
        self.accounts.report(self.b, 500 * KB)
        self.clock.now += PATIENCE
        with self.assertNoLogs("kvdb.accounts"):
            self.accounts.relieve()
        self.assertFalse(self.a.closed.is_set())
        self.clock.now += 0.1
        with self.assertLogs("kvdb.accounts", logging.WARNING) as logged:
            self.accounts.relieve()
        self.assertEqual([self.a.closed.is_set(), self.b.closed.is_set()], [True, False])
        self.assertEqual((self.a.closing, self.accounts.ended), (True, 1))
        self.assertIn("client a: ended", logged.output[0])
        self.assertIn(str(600 * KB), logged.output[0])
        self.assertIn(str(LIMIT), logged.output[0])
        self.assertIn("--max-client-mb", logged.output[0])

    def test_for_what_waits_for_a_replica_nobody_pays(self) -> None:
        self.a.is_replica = True
        self.accounts.report(self.a, 10 * LIMIT)
        self.accounts.report(self.b, 20 * KB)
        self.assertEqual(self.accounts.held, 20 * KB)
        self.assertFalse(self.accounts.must_wait(self.b))

    def test_whoever_has_said_no_evict_is_spared_and_does_not_wait(self) -> None:
        self.a.no_evict = True
        self.accounts.report(self.a, 600 * KB)
        self.accounts.report(self.b, 500 * KB)
        self.assertFalse(self.accounts.must_wait(self.a))
        self.clock.now += PATIENCE + 0.1
        with self.assertLogs("kvdb.accounts", logging.WARNING):
            self.accounts.relieve()
        self.assertEqual([self.a.closed.is_set(), self.b.closed.is_set()], [False, True])

    def test_strangers_go_first_and_without_patience(self) -> None:
        self.b.authenticated = False
        self.accounts.report(self.a, 900 * KB)
        self.accounts.report(self.b, 110 * KB)
        with self.assertLogs("kvdb.accounts", logging.WARNING):
            self.assertTrue(self.accounts.must_wait(self.a))
        self.assertEqual([self.a.closed.is_set(), self.b.closed.is_set()], [False, True])

    def test_if_all_have_said_so_nobody_is_ended(self) -> None:
        self.a.no_evict = True
        self.accounts.report(self.a, 2 * LIMIT)
        self.clock.now += PATIENCE + 0.1
        with self.assertNoLogs("kvdb.accounts"):
            self.accounts.relieve()
        self.assertEqual((self.a.closed.is_set(), self.accounts.ended), (False, 0))

    def test_who_waits_ends_it_too(self) -> None:
        self.accounts.report(self.a, 600 * KB)
        self.accounts.report(self.b, 500 * KB)
        thread = self.start_waiting(self.b)
        self.clock.now += PATIENCE + 0.1
        with self.assertLogs("kvdb.accounts"):
            self.look_again()
            self.assertTrue(self.a.closed.wait(10))
        self.accounts.report(self.a, 0)  # its own thread says so at its end
        self.assert_ends(thread)

    def test_far_above_the_limit_there_is_no_patience(self) -> None:
        self.accounts.report(self.a, 650 * KB)
        self.accounts.report(self.b, 600 * KB)
        self.accounts.relieve()
        self.assertEqual(self.accounts.ended, 0)
        self.accounts.report(self.b, 600 * KB + 1)
        with self.assertLogs("kvdb.accounts"):
            self.accounts.relieve()
        self.assertTrue(self.a.closed.is_set())

    def test_who_is_alone_far_above_it_ends_itself(self) -> None:
        self.accounts.report(self.a, 2 * LIMIT)
        with self.assertLogs("kvdb.accounts"):
            self.accounts.wait_for_room(self.a)
        self.assertTrue(self.a.closed.is_set())
        self.assert_goes_on(self.a)  # to its end

    def test_only_one_is_ended_at_a_time(self) -> None:
        self.accounts.report(self.a, 600 * KB)
        self.accounts.report(self.b, 500 * KB)
        self.accounts.report(self.c, 490 * KB)
        with self.assertLogs("kvdb.accounts"):
            for _ in range(3):
                self.accounts.relieve()  # its end takes a moment
        self.assertEqual(self.accounts.ended, 1)
        self.accounts.report(self.a, 0)
        self.assertFalse(self.b.closed.is_set())

    def test_the_next_one_follows_after_as_much_patience(self) -> None:
        self.accounts.report(self.a, 600 * KB)
        self.accounts.report(self.b, 550 * KB)
        self.accounts.report(self.c, 540 * KB)
        with self.assertLogs("kvdb.accounts"):
            self.accounts.relieve()
            self.accounts.report(self.a, 0)  # 1090 KB are left
            self.clock.now += PATIENCE
            self.accounts.relieve()
            self.assertFalse(self.b.closed.is_set())
            self.clock.now += 0.1
            self.accounts.relieve()
        self.assertTrue(self.b.closed.is_set())

    def test_patience_begins_anew_once_there_was_room(self) -> None:
        self.accounts.report(self.a, 600 * KB)
        self.accounts.report(self.b, 500 * KB)
        self.clock.now += PATIENCE
        self.accounts.report(self.b, 0)
        self.accounts.report(self.b, 500 * KB)
        self.clock.now += PATIENCE
        self.accounts.relieve()
        self.assertEqual(self.accounts.ended, 0)


class ServerTest(unittest.TestCase):
    """The same over sockets: one connection's half requests are another one's limit."""

    def half(self, size: int) -> bytes:
        return encode_request([b"SET", b"k", bytes(2 * size)])[:size]

    def test_what_a_client_holds_is_told_and_forgotten_at_its_end(self) -> None:
        with running_server(memcached_port=0, haus_port=0) as service:
            accounts = service.instance.accounts
            for port, data in (
                ("main", self.half(300_000)),
                ("main", b'{"command": "SET", "args": {"key": "' + bytes(300_000)),
                ("main", b'{"command": "START"}\n{"command": "SET", "args": {"key": "k", '
                 b'"value": "' + b"x" * 300_000 + b'"}}\n'),
                ("main", b"MULTI\r\n" + encode_request([b"SET", b"k", bytes(300_000)])),
                ("memcached", b"set k 0 0 500000\r\n" + bytes(300_000)),
                ("haus", b"PUT k " + bytes(300_000)),
            ):  # fmt: skip
                with self.subTest(data[:40]), Wire(service.listeners[port].port) as wire:
                    wire.socket.sendall(data)
                    until(lambda: 299_000 < accounts.held < 310_000)
                    wire.socket.close()
                    until(lambda: accounts.held == 0)

    def test_a_reply_that_is_not_read_is_held(self) -> None:
        with running_server(memcached_port=0) as service:
            accounts = service.instance.accounts
            service.store.set(b"k", bytes(16_000_000))
            get = encode_request([b"GET", b"k"])
            for port, request in (
                ("main", encode_request([b"MGET", *[b"k"] * 5])),
                ("main", get * 5),
                ("main", b"GET k\r\n"),
                ("main", get),
                ("memcached", b"get k\r\n"),
            ):
                with self.subTest(request[:40]), Wire(service.listeners[port].port) as wire:
                    wire.socket.sendall(request)
                    until(lambda: accounts.held > 8_000_000)  # the system holds some, too
                    wire.socket.close()
                    until(lambda: accounts.held == 0)

    def test_whoever_has_read_everything_holds_nothing(self) -> None:
        with running_server(memcached_port=0) as service, contextlib.ExitStack() as stack:
            accounts = service.instance.accounts
            service.store.set(b"k", bytes(300_000))
            expected = b"*10\r\n" + (b"$300000\r\n" + bytes(300_000) + b"\r\n") * 10
            mget = encode_request([b"MGET", *[b"k"] * 10])
            small = encode_request([b"GET", b"missing"])
            wires: list[Wire] = []
            for count in range(1, 9):
                wires.append(stack.enter_context(Wire(service.server.port)))
                for request, length in ((mget, len(expected)), (small, 5), (mget, len(expected))):
                    for wire in wires:
                        self.assertEqual(len(wire.ask(request, length)), length)
                with self.subTest(count):
                    until(lambda: accounts.held == 0)

    def test_over_the_limit_the_greediest_is_ended_and_the_others_are_served(self) -> None:
        with (
            running_server(max_client_bytes=1_000_000) as service,
            self.assertLogs("kvdb.accounts", logging.WARNING) as logged,
            contextlib.ExitStack() as stack,
        ):
            wires = [stack.enter_context(Wire(service.server.port)) for _ in range(3)]
            accounts = service.instance.accounts
            wires[0].socket.sendall(self.half(500_000))
            until(lambda: accounts.held > 499_000)
            wires[1].socket.sendall(self.half(900_000))
            self.assertEqual(wires[1].read_to_end(), b"")
            self.assertEqual(wires[2].ask(b"PING\r\n", 7), b"+PONG\r\n")
            wires[0].socket.sendall(encode_request([b"SET", b"k", bytes(1_000_000)])[500_000:])
            self.assertEqual(wires[0].read(5), b"+OK\r\n")
            until(lambda: accounts.held == 0)
            self.assertEqual(accounts.ended, 1)
        self.assertEqual(len(logged.output), 1)


if __name__ == "__main__":
    unittest.main()
