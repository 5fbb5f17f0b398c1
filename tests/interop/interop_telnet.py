"""telnet and nc, as a person uses them."""

from __future__ import annotations

import socket
import subprocess
import unittest

from tests.interop.servers import Address, running_kvdb
from tests.interop.terminal import Terminal


class _WithServer(unittest.TestCase):
    address: Address

    @classmethod
    def setUpClass(cls) -> None:
        cls.address = cls.enterClassContext(running_kvdb())

    def nc(self, text: str) -> str:
        """Pipe text into nc, which ends when the server has closed; return what it shows."""
        done = subprocess.run(
            ["nc", "-N", self.address.host, str(self.address.port)],
            input=text.encode(),
            capture_output=True,
            timeout=30,
        )
        self.assertEqual(done.stderr, b"")
        return done.stdout.decode()


class Telnet(_WithServer):
    def setUp(self) -> None:
        command = ["telnet", self.address.host, str(self.address.port)]
        self.terminal = self.enterContext(Terminal(command))
        self.terminal.expect("Escape character is")

    def test_values_with_spaces_are_set_and_read(self) -> None:
        self.terminal.type('SET greeting "hello world"\n')
        self.terminal.expect("+OK\n")
        self.terminal.type("GET greeting\n")
        self.terminal.expect("$11\nhello world\n")

    def test_help_lists_the_commands_and_explains_one(self) -> None:
        self.terminal.type("HELP\n")
        overview = self.terminal.expect("QUIT ends the conversation.")
        self.assertIn("INCRBY", overview)
        self.terminal.type("HELP SET\n")
        self.terminal.expect("SET key value [NX | XX")
        self.terminal.expect("Set the value of a key")

    def test_typing_mistakes_are_answered_and_the_conversation_goes_on(self) -> None:
        self.terminal.type("\n")
        self.terminal.type("STE a 1\n")
        self.terminal.expect("-ERR unknown command 'STE', with args beginning with: 'a' '1'")
        self.terminal.type("GET\n")
        self.terminal.expect("-ERR wrong number of arguments for 'get' command")
        self.terminal.type("incr visits\n")
        self.terminal.expect(":1\n")

    def test_json_lines_and_commands_mix(self) -> None:
        self.terminal.type('{"command": "SET", "args": {"key": "foo", "value": "bar"}}\n')
        self.terminal.expect('{"status": "OK"}')
        self.terminal.type("GET foo\n")
        self.terminal.expect("$3\nbar\n")

    def test_a_transaction_is_typed_line_by_line(self) -> None:
        for line, answer in (
            ("MULTI", "+OK"),
            ("SET a 1", "+QUEUED"),
            ("INCR a", "+QUEUED"),
            ("EXEC", "*2\n+OK\n:2\n"),
        ):
            self.terminal.type(line + "\n")
            self.terminal.expect(answer)

    def test_quit_ends_the_conversation(self) -> None:
        self.terminal.type("QUIT\n")
        self.terminal.expect("+OK")
        self.terminal.expect("Connection closed by foreign host.")
        self.terminal.wait()


class Netcat(_WithServer):
    def test_lines_that_end_in_a_bare_newline_are_answered(self) -> None:
        shown = self.nc('SET greeting "hello world"\nGET greeting\n')
        self.assertEqual(shown, "+OK\r\n$11\r\nhello world\r\n")

    def test_lines_that_end_in_crlf_are_answered(self) -> None:
        self.assertEqual(self.nc("SET a 1\r\nGET a\r\n"), "+OK\r\n$1\r\n1\r\n")

    def test_help_is_readable(self) -> None:
        self.assertIn("Strings and counters:", self.nc("HELP\n"))
        shown = self.nc("HELP SET\n")
        self.assertIn("SET key value [NX | XX", shown)
        self.assertIn("EX seconds", shown)

    def test_a_last_line_without_its_end_is_not_carried_out(self) -> None:
        self.assertEqual(self.nc("SET whole 1\nSET cut 1"), "+OK\r\n")
        self.assertEqual(self.nc("EXISTS whole cut\n"), ":1\r\n")

    def test_open_quotes_end_the_conversation_with_a_reason(self) -> None:
        shown = self.nc('SET a "b\nGET a\n')
        self.assertEqual(shown, "-ERR Protocol error: unbalanced quotes in request\r\n")

    def test_a_web_page_gets_no_answer(self) -> None:
        self.assertEqual(self.nc("POST / HTTP/1.1\r\nHost: x\r\n\r\nSET evil 1\r\n"), "")
        self.assertEqual(self.nc("EXISTS evil\n"), ":0\r\n")

    def test_a_thousand_piped_commands_are_all_answered(self) -> None:
        self.assertEqual(self.nc("INCR counted\n" * 1000).count("\n"), 1000)
        self.assertEqual(self.nc("GET counted\n"), "$4\r\n1000\r\n")

    def test_a_second_person_is_not_disturbed(self) -> None:
        with socket.create_connection((self.address.host, self.address.port), 10) as idle:
            idle.sendall(b"SET half")
            self.assertEqual(self.nc("PING\n"), "+PONG\r\n")
            idle.sendall(b" way\r\n")
            self.assertEqual(idle.recv(100), b"+OK\r\n")


if __name__ == "__main__":
    unittest.main()
