"""CLIENT PAUSE, UNPAUSE, UNBLOCK and WAIT: requests that wait, and nobody else with them."""

from __future__ import annotations

import threading
import time
import unittest
import urllib.request

from kvdb.commands.waiting import MustWait
from kvdb.pause import Held, Pause
from kvdb.replies import OK
from kvdb.server.connection import Connection
from kvdb.service import Service
from tests.command_case import CommandTest, wrong_arity
from tests.support import Conversation, ManualClock, Wire, running_server, until

LONG = 60_000  # milliseconds: no test waits so long


class ThePauseTest(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = ManualClock()
        self.pause = Pause(self.clock)

    def test_it_ends_by_itself(self) -> None:
        self.pause.begin(Held.ALL, 5)
        wait = self.pause.wait()
        self.clock.now += 4.9
        self.assertEqual((self.pause.held, wait.is_over), (Held.ALL, False))
        self.clock.now += 0.1
        self.assertEqual((self.pause.held, wait.is_over), (Held.NOTHING, True))

    def test_of_two_the_stricter_and_the_longer_counts(self) -> None:
        for first, second in ((Held.WRITES, Held.ALL), (Held.ALL, Held.WRITES)):
            self.pause.begin(first, 5)
            self.pause.begin(second, 1)
            self.clock.now += 4.9
            self.assertIs(self.pause.held, Held.ALL)
            self.clock.now += 0.1
            self.assertIs(self.pause.held, Held.NOTHING)

    def test_what_is_over_makes_no_new_one_stricter(self) -> None:
        self.pause.begin(Held.ALL, 1)
        self.clock.now += 2
        self.pause.begin(Held.WRITES, 1)
        self.assertIs(self.pause.held, Held.WRITES)

    def test_who_waits_looks_again_when_it_changes(self) -> None:
        self.pause.begin(Held.ALL, 5)
        wait = self.pause.wait()
        self.pause.end()
        self.pause.begin(Held.WRITES, 5)
        self.assertTrue(wait.is_over)


class WhoIsHeldTest(CommandTest):
    """Who is held raises MustWait, which its dialect understands."""

    def setUp(self) -> None:
        super().setUp()
        self.other = self.talk.another()

    def pause(self, mode: str) -> None:
        self.assertEqual(self.other("CLIENT", "PAUSE", LONG, mode), OK)

    def assert_held(self, *lines: str) -> None:
        for line in lines:
            with self.subTest(line), self.assertRaises(MustWait):
                self.ask(line)

    def test_a_pause_of_writes_holds_what_writes(self) -> None:
        self.pause("WRITE")
        self.assert_held("SET k v", "INCR k", "FLUSHALL", "GETEX k", "PUBLISH a b", "DEL k")
        for line in ("GET k", "PING", "WATCH k", "CONFIG GET x", "KEYS *", "TOUCH k", "MULTI"):
            self.ask(line)

    def test_a_pause_of_all_holds_everything_even_its_end(self) -> None:
        self.pause("ALL")
        self.assert_held("GET k", "PING", "CLIENT UNPAUSE", "QUIT", "RESET", "AUTH x")

    def test_what_is_no_request_is_refused_at_once(self) -> None:
        self.pause("ALL")
        self.assertIn("unknown command", self.ask("NOSUCH"))
        self.assertEqual(self.ask("GET"), wrong_arity("get"))

    def test_a_write_is_held_before_it_is_queued_and_exec_with_one_in_the_queue(self) -> None:
        self.ask("MULTI")
        self.ask("SET k v")
        self.pause("WRITE")
        self.assert_held("SET k w", "EXEC")
        self.assertEqual(self.ask("GET k"), b"QUEUED")
        self.other("CLIENT", "UNPAUSE")
        self.assertEqual(self.ask("EXEC"), [OK, b"v"])

    def test_a_transaction_that_reads_goes_on(self) -> None:
        for line in ("MULTI", "GET k"):
            self.ask(line)
        self.pause("WRITE")
        self.assertEqual(self.ask("EXEC"), [None])

    def test_who_was_held_is_not_counted_until_it_is_carried_out(self) -> None:
        before = self.talk.session.commands
        self.pause("WRITE")
        self.assert_held("SET k v")
        self.assertEqual(self.talk.session.commands, before)

    def test_its_end_leaves_nothing_behind(self) -> None:
        self.pause("WRITE")
        self.other("CLIENT", "UNPAUSE")
        self.assertEqual(self.ask("SET k v"), OK)
        self.assertTrue(self.talk.session.plain)
        self.assertTrue(self.talk.session.ordinary)

    def test_meanwhile_nothing_expires_by_itself(self) -> None:
        self.assertTrue(self.talk.instance.may_expire)
        self.pause("WRITE")
        self.assertFalse(self.talk.instance.may_expire)
        self.other("CLIENT", "UNPAUSE")
        self.assertTrue(self.talk.instance.may_expire)

    def test_commands_answer_as_redis_does(self) -> None:
        self.assert_replies(
            ("CLIENT PAUSE", wrong_arity("client|pause")),
            ("CLIENT PAUSE x", "ERR timeout is not an integer or out of range"),
            ("CLIENT PAUSE -1", "ERR timeout is negative"),
            ("CLIENT PAUSE 9223372036854775807", "ERR timeout is out of range"),
            ("CLIENT PAUSE 10 FOO", "ERR CLIENT PAUSE mode must be WRITE or ALL"),
            ("CLIENT PAUSE 10 ALL x",
             "ERR unknown subcommand or wrong number of arguments for 'PAUSE'. Try CLIENT HELP."),
            ("CLIENT PAUSE 0", OK),
            ("CLIENT UNPAUSE", OK),
            ("CLIENT UNPAUSE x", wrong_arity("client|unpause")),
            ("CLIENT UNBLOCK 99999", 0),
            ("CLIENT UNBLOCK x", "ERR value is not an integer or out of range"),
            ("CLIENT UNBLOCK 1 FOO", "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR"),
            ("WAIT 0 0", 0),
            ("WAIT -1 0", 0),
            ("WAIT x 0", "ERR value is not an integer or out of range"),
            ("WAIT 1 x", "ERR timeout is not an integer or out of range"),
            ("WAIT 1 -1", "ERR timeout is negative"),
            ("WAITAOF 0 0 0", [0, 0]),
            ("WAITAOF 2 0 0", "ERR value is out of range, value must between 0 and 1"),
            ("WAITAOF 0 -1 0", "ERR value is out of range, must be positive"),
            ("WAITAOF 1 0 0",
             "ERR WAITAOF cannot be used when numlocal is set but appendonly is disabled."),
            ("MULTI", OK),
            ("WAIT 1 0", b"QUEUED"),
            ("WAITAOF 0 1 0", b"QUEUED"),
            ("EXEC", [0, [0, 0]]),
        )  # fmt: skip


class PausedTest(unittest.TestCase):
    """Over the wire: whoever waits costs no thread, and comes to its turn."""

    def setUp(self) -> None:
        ports = {"memcached_port": 0, "haus_port": 0, "http_port": 0}
        self.service: Service = self.enterContext(running_server(**ports))
        self.wire = self.connect()
        self.control = self.connect()

    def connect(self, port: str = "main") -> Wire:
        return self.enterContext(Wire(self.service.listeners[port].port))

    def wait_until_waiting(self, count: int = 1) -> None:
        sessions = self.service.instance.sessions
        until(lambda: sum(each.waiting is not None for each in sessions()) >= count)

    def pause(self, mode: bytes = b"WRITE") -> None:
        self.control.ask(b"CLIENT PAUSE %d %b\r\n" % (LONG, mode), 5)

    def unpause(self) -> None:
        self.control.ask(b"CLIENT UNPAUSE\r\n", 5)

    def test_a_pipeline_goes_on_where_it_was_held(self) -> None:
        self.pause()
        data = b"GET k\r\nINCR n\r\nINCR n\r\nGET n\r\n"
        self.assertEqual(self.wire.ask(data, 5), b"$-1\r\n")
        self.wait_until_waiting()
        self.unpause()
        self.assertEqual(self.wire.read(15), b":1\r\n:2\r\n$1\r\n2\r\n")

    def test_a_pipeline_of_one_command_is_held_as_a_whole_and_carried_out_once(self) -> None:
        self.pause()
        self.wire.socket.sendall(b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n" * 3)
        self.wait_until_waiting()
        self.unpause()
        self.assertEqual(self.wire.read(12), b":1\r\n:2\r\n:3\r\n")

    def test_all_dialects_are_held_and_go_on(self) -> None:
        memcached, haus, json = self.connect("memcached"), self.connect("haus"), self.connect()
        self.pause()
        memcached.socket.sendall(b"set m 0 0 3\r\nabc\r\nget m\r\n")
        haus.socket.sendall(b"PUT h 1\n")
        json.socket.sendall(b'{"command": "SET", "args": {"key": "j", "value": "v"}}\n')
        statuses: list[int] = []

        def put() -> None:
            url = f"http://127.0.0.1:{self.service.listeners['http'].port}/keys/w"
            request = urllib.request.Request(url, data=b"v", method="PUT")
            with urllib.request.urlopen(request, timeout=20) as response:
                statuses.append(response.status)

        browser = threading.Thread(target=put)
        browser.start()
        self.wait_until_waiting(3)
        time.sleep(0.05)
        self.assertEqual((self.service.store.size(0), statuses), (0, []))
        self.unpause()
        self.assertEqual(memcached.read(27), b"STORED\r\nVALUE m 0 3\r\nabc\r\nE"[:27])
        self.assertEqual(haus.read(17), b'{"status": "Ok"}\n')
        self.assertEqual(json.read(17), b'{"status": "OK"}\n')
        browser.join(20)
        self.assertEqual(statuses, [201])

    def test_metrics_answer_meanwhile(self) -> None:
        self.pause(b"ALL")
        url = f"http://127.0.0.1:{self.service.listeners['http'].port}/metrics"
        with urllib.request.urlopen(url, timeout=10) as response:
            self.assertEqual(response.status, 200)

    def test_a_pause_of_all_ends_by_itself(self) -> None:
        begin = time.monotonic()
        self.control.ask(b"CLIENT PAUSE 100 ALL\r\n", 5)
        self.assertEqual(self.wire.ask(b"PING\r\n", 7), b"+PONG\r\n")
        self.assertGreaterEqual(time.monotonic() - begin, 0.1)

    def test_what_takes_long_waits_without_a_thread(self) -> None:
        self.pause()
        self.wire.socket.sendall(b"FLUSHALL\r\n")
        self.wait_until_waiting()
        started = []
        work = Connection._work
        Connection._work = lambda connection: (started.append(1), work(connection))[1]  # type: ignore[method-assign]
        try:
            time.sleep(0.1)  # five looks
            self.assertEqual(started, [])
        finally:
            Connection._work = work  # type: ignore[method-assign]
        self.unpause()
        self.assertEqual(self.wire.read(5), b"+OK\r\n")

    def test_the_loop_does_not_spin_meanwhile(self) -> None:
        self.pause()
        self.wire.socket.sendall(b"SET k v\r\n")
        self.wait_until_waiting()
        looks: list[int] = []
        look = Connection.look
        Connection.look = lambda connection: (looks.append(1), look(connection))[1]  # type: ignore[method-assign]
        try:
            time.sleep(0.2)
        finally:
            Connection.look = look  # type: ignore[method-assign]
        self.assertLess(len(looks), 30)  # one each 20 ms

    def test_who_waits_is_shown_and_counted(self) -> None:
        self.pause()
        self.wire.socket.sendall(b"SET k v\r\n")
        self.wait_until_waiting()
        listed = self.control.ask(b"CLIENT LIST\r\n", 400)
        self.assertIn(b" flags=b ", listed)

    def test_a_client_that_leaves_while_it_waits_is_noticed(self) -> None:
        self.wire.socket.sendall(b"WAIT 1 0\r\n")
        self.wait_until_waiting()
        self.wire.socket.close()
        until(lambda: len(self.service.instance.sessions()) == 1)

    def test_messages_arrive_while_a_request_waits(self) -> None:
        self.wire.ask(b"HELLO 3\r\nSUBSCRIBE a\r\n", 30)
        self.pause(b"ALL")
        self.wire.socket.sendall(b"PING\r\n")
        self.wait_until_waiting()
        self.service.instance.sessions()[0].push(b"+pushed\r\n")
        received = b""
        while b"+pushed\r\n" not in received:
            received += self.wire.read(1)
        self.assertNotIn(b"PONG", received)


class WaitTest(unittest.TestCase):
    def setUp(self) -> None:
        self.service: Service = self.enterContext(running_server())
        self.wire = self.enterContext(Wire(self.service.server.port))
        self.control = self.enterContext(Wire(self.service.server.port))

    def session_that_waits(self) -> int:
        sessions = self.service.instance.sessions
        until(lambda: any(each.waiting for each in sessions()))
        return next(each.id for each in sessions() if each.waiting)

    def test_it_waits_for_its_time_and_others_go_on(self) -> None:
        begin = time.monotonic()
        self.wire.socket.sendall(b"WAIT 1 200\r\nPING\r\n")
        self.session_that_waits()
        self.assertEqual(self.control.ask(b"SET k v\r\n", 5), b"+OK\r\n")
        self.assertLess(time.monotonic() - begin, 0.15)
        self.assertEqual(self.wire.read(11), b":0\r\n+PONG\r\n")
        self.assertGreaterEqual(time.monotonic() - begin, 0.2)

    def test_unblock_ends_it_as_if_its_time_had_come(self) -> None:
        self.wire.socket.sendall(b"WAIT 1 0\r\nPING\r\n")
        number = self.session_that_waits()
        self.assertEqual(self.control.ask(b"CLIENT UNBLOCK %d\r\n" % number, 4), b":1\r\n")
        self.assertEqual(self.wire.read(11), b":0\r\n+PONG\r\n")

    def test_unblock_may_end_it_with_an_error(self) -> None:
        self.wire.socket.sendall(b"WAIT 1 0\r\nPING\r\n")
        number = self.session_that_waits()
        self.control.ask(b"CLIENT UNBLOCK %d ERROR\r\n" % number, 4)
        error = b"-UNBLOCKED client unblocked via CLIENT UNBLOCK\r\n"
        self.assertEqual(self.wire.read(len(error) + 7), error + b"+PONG\r\n")

    def test_who_is_paused_cannot_be_unblocked(self) -> None:
        self.control.ask(b"CLIENT PAUSE %d WRITE\r\n" % LONG, 5)
        self.wire.socket.sendall(b"SET k v\r\n")
        number = self.session_that_waits()
        self.assertEqual(self.control.ask(b"CLIENT UNBLOCK %d\r\n" % number, 4), b":0\r\n")

    def test_a_waiting_client_is_not_idle(self) -> None:
        talk = Conversation()
        talk.instance.config.idle_timeout = 1.0
        ended: list[bool] = []
        talk.session.close = lambda: ended.append(True)
        talk.session.last_active -= 10
        with self.assertRaises(MustWait) as raised:
            talk("WAIT", 1, 0)
        talk.session.waiting = raised.exception.waiting
        talk.instance.end_idle_sessions()
        self.assertEqual(ended, [])


if __name__ == "__main__":
    unittest.main()
