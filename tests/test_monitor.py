"""MONITOR: every request goes by, whoever makes it, in whatever dialect."""

from __future__ import annotations

import re
import unittest
import urllib.request

from kvdb.commands.session import Session
from kvdb.output_limits import Limit, OutputLimits
from kvdb.replies import OK
from tests.command_case import CommandTest
from tests.support import Conversation, Wire, running_server


class MonitorTest(CommandTest):
    """`self.seen` is what the monitor was sent; `self.talk` is another client."""

    def setUp(self) -> None:
        super().setUp()
        self.monitor = self.talk.another()
        self.seen: list[bytes] = []
        self.monitor.session.push = self.seen.append
        self.assertEqual(self.monitor("MONITOR"), OK)

    def requests(self) -> list[bytes]:
        """Return what was shown since the last call, without time and address."""
        seen = [line.split(b"] ")[1].removesuffix(b"\r\n") for line in self.seen]
        self.seen.clear()
        return seen

    def test_a_line_has_the_time_the_database_the_address_and_the_words(self) -> None:
        self.talk.clock.now = 1700000000.123456
        self.ask("SELECT 3")
        self.ask("set k 'a \"b'")
        self.assertEqual(
            self.seen[1:], [b'+1700000000.123456 [3 127.0.0.1:50000] "set" "k" "a \\"b"\r\n']
        )

    def test_what_is_refused_before_it_is_carried_out_is_not_shown(self) -> None:
        for line in ("NOSUCH", "GET", "MULTI", "SET k", "DISCARD"):
            self.ask(line)
        self.assertEqual(self.requests(), [b'"MULTI"', b'"DISCARD"'])

    def test_what_is_queued_is_shown_when_it_is_carried_out_and_before_exec(self) -> None:
        for line in ("MULTI", "SET a 1", "INCR a"):
            self.ask(line)
        self.assertEqual(self.requests(), [b'"MULTI"'])
        self.ask("EXEC")
        self.assertEqual(self.requests(), [b'"SET" "a" "1"', b'"INCR" "a"', b'"EXEC"'])

    def test_commands_for_whoever_runs_the_server_are_not_shown(self) -> None:
        for line in ("CONFIG GET x", "CLIENT LIST", "SLOWLOG LEN", "DEBUG HELP", "ACL WHOAMI"):
            self.ask(line)
        self.assertEqual(self.requests(), [b'"ACL" "WHOAMI"'])

    def test_passwords_are_not_shown(self) -> None:
        self.ask("AUTH default secret")
        self.ask("HELLO 3 AUTH default secret")
        hidden = b'"(redacted)"'
        self.assertEqual(
            self.requests(),
            [b'"AUTH" %b %b' % (hidden, hidden), b'"HELLO" "3" "AUTH" %b %b' % (hidden, hidden)],
        )

    def test_of_requests_that_come_together_each_is_shown(self) -> None:
        get = b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n"
        self.assertEqual(self.talk.bytes(get * 3), b"$-1\r\n" * 3)
        self.assertEqual(self.requests(), [b'"GET" "a"'] * 3)

    def test_it_sees_its_own_requests_too(self) -> None:
        self.monitor("PING")
        self.assertEqual(self.requests(), [b'"PING"'])

    def test_reset_ends_it(self) -> None:
        self.monitor("RESET")
        self.ask("PING")
        self.assertEqual(self.requests(), [])
        self.assertTrue(self.talk.session.plain, "nobody watches: nobody pays")

    def test_the_end_of_the_connection_ends_it(self) -> None:
        self.talk.instance.dismiss(self.monitor.session)
        self.assertFalse(self.talk.instance.overseen)

    def test_a_client_that_comes_later_is_watched_too(self) -> None:
        self.talk.another()("PING")
        self.assertEqual(self.requests(), [b'"PING"'])

    def test_a_client_that_is_just_arriving_is_watched_too(self) -> None:
        self.monitor("RESET")
        arriving = Session(self.talk.instance)
        self.monitor("MONITOR")
        self.talk.instance.admit(arriving)
        arriving.execute([b"GET", b"k"])
        self.assertEqual(self.requests(), [b'"GET" "k"'])

    def test_twice_is_once(self) -> None:
        self.monitor("MONITOR")
        self.ask("PING")
        self.assertEqual(self.requests(), [b'"PING"'])

    def test_within_a_transaction_it_is_refused(self) -> None:
        self.ask("MULTI")
        self.ask("MONITOR")
        refusal = "ERR MONITOR isn't allowed for DENY BLOCKING client"
        self.assertEqual(self.ask("EXEC"), [refusal])

    def test_client_list_tells_who_watches(self) -> None:
        lines = self.talk("CLIENT", "LIST").splitlines()
        self.assertEqual([" flags=O " in line for line in lines], [False, True])


class MonitorInJsonTest(CommandTest):
    def test_its_lines_are_resp_so_it_is_refused_there(self) -> None:
        reply = self.talk.bytes('{"command": "MONITOR"}\n')
        self.assertIn(b"RESP only", reply)
        self.assertFalse(self.talk.instance.overseer.monitors)


class MonitorOverTheWireTest(unittest.TestCase):
    def test_all_ports_are_watched(self) -> None:
        ports = {"memcached_port": 0, "haus_port": 0, "http_port": 0}
        with running_server(**ports) as service, Wire(service.server.port) as monitor:
            port = {name: listener.port for name, listener in service.listeners.items()}
            self.assertEqual(monitor.ask(b"MONITOR\r\n", 5), b"+OK\r\n")
            with Wire(port["memcached"]) as wire:
                wire.ask(b"set k 0 0 1\r\nv\r\n", 8)
            with Wire(port["haus"]) as wire:
                wire.ask(b"PUT k 1\n", 17)
            with Wire(port["main"]) as wire:
                wire.ask(b'{"command": "GET", "args": {"key": "k"}}\n', 31)
            urllib.request.urlopen(f"http://127.0.0.1:{port['http']}/get?key=k", timeout=10).close()
            seen = b""
            while seen.count(b"\n") < 4:
                seen += monitor.read(1)
        shown = re.findall(rb"\+[\d.]+ \[0 127\.0\.0\.1:\d+\] (.*)\r\n", seen)
        self.assertEqual(
            shown,
            [
                b'"set" "k" "0" "0" "1" "v"',
                b'"PUT" "k" "1"',
                b'"GET" "k"',
                b'"GET" "/get?key=k"',
            ],
        )

    def test_what_is_tried_again_on_a_thread_of_its_own_is_shown_once(self) -> None:
        with (
            running_server() as service,
            Wire(service.server.port) as monitor,
            Wire(service.server.port) as wire,
        ):
            monitor.ask(b"MONITOR\r\n", 5)
            wire.ask(b"MEMORY PURGE\r\nPING\r\n", 12)
            seen = b""
            while not seen.endswith(b'"PING"\r\n'):
                seen += monitor.read(1)
        self.assertEqual(seen.count(b'"MEMORY" "PURGE"'), 1)

    def test_the_password_of_a_memcached_client_is_not_shown(self) -> None:
        settings = {"memcached_port": 0, "password": "secret"}
        with running_server(**settings) as service, Wire(service.server.port) as monitor:
            monitor.ask(b"AUTH secret\r\nMONITOR\r\n", 10)
            with Wire(service.listeners["memcached"].port) as wire:
                wire.ask(b"set x 0 0 8\r\nu secret\r\n", 8)
            seen = b""
            while b"\n" not in seen:
                seen += monitor.read(1)
        self.assertTrue(seen.endswith(b'"AUTH" "(redacted)"\r\n'), seen)

    def test_one_that_does_not_read_is_ended_at_the_output_limit(self) -> None:
        limits = OutputLimits(pubsub=Limit(256 * 1024, 0, 0))
        with (
            running_server(output_limits=limits) as service,
            Wire(service.server.port) as monitor,
            Wire(service.server.port) as wire,
        ):
            monitor.ask(b"MONITOR\r\n", 5)
            request = b"*2\r\n$4\r\nECHO\r\n$10000\r\n" + b"x" * 10000 + b"\r\n"
            with self.assertLogs("kvdb", "WARNING") as logged:
                for _ in range(3000):
                    wire.ask(request, 10010)
                    if not service.instance.overseen:
                        break
            self.assertIn("does not read", logged.output[0])
            self.assertFalse(service.instance.overseen, "it is forgotten, too")


class ConversationTest(unittest.TestCase):
    def test_a_monitor_answers_requests_as_ever(self) -> None:
        talk = Conversation()
        self.assertEqual(
            talk.bytes(b"MONITOR\r\nSET k v\r\nGET k\r\n"), b"+OK\r\n+OK\r\n$1\r\nv\r\n"
        )


if __name__ == "__main__":
    unittest.main()
