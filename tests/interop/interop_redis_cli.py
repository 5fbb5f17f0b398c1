"""redis-cli and redis-benchmark against kvdb."""

from __future__ import annotations

import os
import re
import subprocess
import unittest

from tests.interop.servers import Address, program_of_redis, running_kvdb
from tests.interop.terminal import Terminal

FULL = os.environ.get("KVDB_INTEROP_FULL") == "1"
BIG = """(?:'"big"'|"big")"""
"""A key in the summary of --bigkeys: redis-cli 8 leaves the outer quotes away."""


class _WithServer(unittest.TestCase):
    address: Address

    @classmethod
    def setUpClass(cls) -> None:
        flags = ("--in-memory", "--max-mb", "1000")
        cls.address = cls.enterClassContext(running_kvdb(*flags))

    def setUp(self) -> None:
        self.cli("FLUSHALL")

    def command(self, *arguments: str, program: str = "redis-cli") -> list[str]:
        return [
            program_of_redis(program),
            "-h",
            self.address.host,
            "-p",
            str(self.address.port),
            *arguments,
        ]

    def cli(self, *arguments: str, given: bytes = b"", seconds: float = 60) -> str:
        """Run redis-cli to its end, which must be a good one; return what it shows."""
        done = subprocess.run(
            self.command(*arguments), input=given, capture_output=True, timeout=seconds
        )
        self.assertEqual((done.returncode, done.stderr.decode()), (0, ""), done.stdout)
        return done.stdout.decode()


class Commands(_WithServer):
    def test_simple_commands_show_their_replies(self) -> None:
        for version in ("-2", "-3"):
            with self.subTest(version):
                self.cli("FLUSHALL")
                self.assertEqual(self.cli(version, "PING"), "PONG\n")
                self.assertEqual(self.cli(version, "SET", "k", "two words", "EX", "100"), "OK\n")
                self.assertEqual(self.cli(version, "GET", "k"), "two words\n")
                self.assertEqual(self.cli(version, "GET", "missing"), "\n")
                self.assertEqual(self.cli(version, "INCRBY", "n", "5"), "5\n")
                self.assertEqual(self.cli(version, "MGET", "n", "k"), "5\ntwo words\n")

    def test_replies_are_formatted_for_a_terminal(self) -> None:
        self.cli("SET", "k", "v")
        self.assertEqual(self.cli("--no-raw", "GET", "k"), '"v"\n')
        self.assertEqual(self.cli("--no-raw", "GET", "missing"), "(nil)\n")
        self.assertEqual(self.cli("--no-raw", "STRLEN", "k"), "(integer) 1\n")
        self.assertEqual(self.cli("--no-raw", "MGET", "k", "x"), '1) "v"\n2) (nil)\n')
        self.assertEqual(
            self.cli("--no-raw", "-3", "CONFIG", "GET", "databases"), '1# "databases" => "16"\n'
        )

    def test_an_error_shows_and_makes_a_bad_exit_code(self) -> None:
        done = subprocess.run(
            self.command("-e", "INCR"), capture_output=True, text=True, timeout=30
        )
        self.assertEqual(done.returncode, 1)
        self.assertIn("ERR wrong number of arguments for 'incr' command", done.stderr)

    def test_a_database_is_chosen_by_number(self) -> None:
        self.cli("-n", "3", "SET", "k", "in three")
        self.assertEqual(self.cli("-n", "3", "GET", "k"), "in three\n")
        self.assertEqual(self.cli("DBSIZE"), "0\n")

    def test_a_url_names_the_server_and_the_database(self) -> None:
        url = f"redis://{self.address.host}:{self.address.port}/2"
        done = subprocess.run(
            [program_of_redis("redis-cli"), "-u", url, "SET", "k", "v"],
            capture_output=True,
            text=True,
            timeout=30,
        )
        self.assertEqual(done.stdout, "OK\n")
        self.assertEqual(self.cli("-n", "2", "GET", "k"), "v\n")

    def test_the_last_argument_is_read_from_the_input(self) -> None:
        everything = bytes(range(256)) * 100
        self.assertEqual(self.cli("-x", "SET", "binary", given=everything), "OK\n")
        done = subprocess.run(self.command("GET", "binary"), capture_output=True, timeout=30)
        self.assertEqual(done.stdout, everything + b"\n")

    def test_a_script_of_commands_is_carried_out(self) -> None:
        script = b"MULTI\nSET a 1\nINCR a\nEXEC\n"
        self.assertEqual(self.cli(given=script), "OK\nQUEUED\nQUEUED\nOK\n2\n")

    def test_a_password_is_given_as_flag(self) -> None:
        with running_kvdb("--in-memory", password="open sesame") as address:
            command = [program_of_redis("redis-cli"), "-p", str(address.port)]
            command.append("--no-auth-warning")
            for extra, expected in (
                ([], "NOAUTH Authentication required.\n"),
                (["-a", "open sesame"], "PONG\n"),
                (["-3", "-a", "open sesame"], "PONG\n"),
                (["--user", "default", "--pass", "open sesame"], "PONG\n"),
            ):
                done = subprocess.run(
                    [*command, *extra, "PING"], capture_output=True, text=True, timeout=30
                )
                self.assertEqual(done.stdout.lstrip("\n"), expected + "\n" * (not extra))

    def test_info_and_client_list_are_readable(self) -> None:
        self.assertRegex(self.cli("INFO", "server"), r"(?m)^redis_version:\d+\.\d+\.\d+\r?$")
        self.assertIn("cmd=client|list", self.cli("CLIENT", "LIST"))


class Modes(_WithServer):
    def test_stat_prints_a_line_per_interval(self) -> None:
        self.cli("MSET", "a", "1", "b", "2")
        # On a terminal, for into a pipe it prints in blocks of 4 KiB.
        with Terminal(self.command("--stat", "-i", "0.2")) as terminal:
            terminal.expect("- data -")
            terminal.expect("connections")
            terminal.expect("\n")
            for _ in range(3):
                line = terminal.expect("\n")
                self.assertRegex(line, r"^2 +\d+(\.\d+)?[BKMG] +\d+ +0 +\d+ \(\+\d+\) +\d+ *\n$")

    def find_biggest(self, mode: str) -> str:
        """Let redis-cli look for the bigger one of two keys; return what it shows."""
        self.cli("SET", "small", "x")
        self.cli("SET", "big", "x" * 1000)
        done = subprocess.run(self.command(mode), capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done.stdout)
        self.assertIn("Sampled 2 keys in the keyspace!", done.stdout)
        return done.stdout

    def test_bigkeys_finds_the_biggest(self) -> None:
        found = self.find_biggest("--bigkeys")
        self.assertRegex(found, rf"Biggest string found {BIG} has 1000 bytes")

    def test_memkeys_finds_the_biggest(self) -> None:
        found = self.find_biggest("--memkeys")
        self.assertRegex(found, rf"Biggest string found {BIG} has \d{{4}} bytes")

    def test_scan_lists_the_keys_that_match(self) -> None:
        pairs = [word for n in range(500) for word in (f"user:{n}", "x", f"page:{n}", "y")]
        self.cli("MSET", *pairs)
        found = self.cli("--scan", "--pattern", "user:*").split()
        self.assertEqual(sorted(found), sorted(f"user:{n}" for n in range(500)))
        self.assertEqual(len(self.cli("--scan").split()), 1000)

    def test_latency_is_measured(self) -> None:
        with subprocess.Popen(
            self.command("--latency", "-i", "0.1", "--raw"), stdout=subprocess.PIPE, text=True
        ) as latency:
            assert latency.stdout
            try:
                line = latency.stdout.readline()
            finally:
                latency.kill()
        self.assertRegex(line, r"^\d+ \d+ [\d.]+ \d+\n$")

    def test_pipe_takes_many_commands(self) -> None:
        count = 1_000_000 if FULL else 100_000
        stream = b"".join(
            b"*3\r\n$3\r\nSET\r\n$10\r\nkey:%06d\r\n$10\r\nval:%06d\r\n" % (n, n)
            for n in range(count)
        )
        shown = self.cli("--pipe", given=stream, seconds=300)
        self.assertIn(f"errors: 0, replies: {count}", shown)
        self.assertEqual(self.cli("DBSIZE"), f"{count}\n")
        self.assertEqual(self.cli("GET", f"key:{count - 1:06}"), f"val:{count - 1:06}\n")

    def test_pipe_takes_inline_commands_and_counts_errors(self) -> None:
        done = subprocess.run(
            self.command("--pipe"),
            input=b"SET a 1\r\nINCR a\r\nINCR\r\nNOSUCH\r\n",
            capture_output=True,
            timeout=60,
        )
        self.assertIn(b"errors: 2, replies: 4", done.stdout)


class Interactive(_WithServer):
    """Each line waits for the prompt: what is typed before it, redis-cli throws away."""

    def setUp(self) -> None:
        super().setUp()
        self.terminal = self.enterContext(Terminal(self.command()))
        self.prompt = f"{self.address.host}:{self.address.port}> "
        self.terminal.expect(self.prompt)

    def test_hints_show_while_a_command_is_typed(self) -> None:
        for typed, hint in (
            ("set ", "key value [NX|XX|IFEQ value|IFNE value] [GET] [EX seconds|PX milliseconds|"),
            ("mset ", "key value [key value ...]"),
            ("del ", "key [key ...]"),
            ("expire ", "key seconds"),
            ("client setname ", "connection-name"),
        ):
            with self.subTest(typed):
                self.terminal.type(typed)
                self.terminal.expect(hint)
                self.terminal.type("\x15")  # Ctrl-U: forget the line
                self.terminal.expect(self.prompt)
                self.terminal.screen = b""

    def test_help_of_redis_cli_explains_our_commands(self) -> None:
        self.terminal.type("help set\r")
        self.terminal.expect("SET key value")
        self.terminal.expect("summary: Set the value of a key, and how long it lives.")
        self.terminal.expect(self.prompt)

    def test_commands_are_answered(self) -> None:
        self.terminal.type("set k v\r")
        self.terminal.expect("OK\n")
        self.terminal.expect(self.prompt)
        self.terminal.type("get k\r")
        self.terminal.expect('"v"\n')

    def test_the_prompt_shows_transactions_and_databases(self) -> None:
        self.terminal.type("multi\r")
        self.terminal.expect("(TX)> ")
        self.terminal.type("incr n\r")
        self.terminal.expect("QUEUED\n")
        self.terminal.expect("(TX)> ")
        self.terminal.type("exec\r")
        self.terminal.expect("1) (integer) 1\n")
        self.terminal.expect(self.prompt)
        self.terminal.type("select 5\r")
        self.terminal.expect("[5]> ")
        self.terminal.type("hello 3\r")
        self.terminal.expect('"proto" => (integer) 3')


class Benchmark(_WithServer):
    def run_benchmark(self, *arguments: str) -> str:
        done = subprocess.run(
            self.command(*arguments, program="redis-benchmark"),
            capture_output=True,
            text=True,
            timeout=120,
        )
        shown = done.stdout + done.stderr
        self.assertEqual(done.returncode, 0, shown)
        self.assertNotRegex(shown, r"(?i)error|warning|could not")
        return shown

    def test_pipelined_tests_run_without_an_error(self) -> None:
        tests = "ping,set,get,incr,mset"
        shown = self.run_benchmark("-t", tests, "-P", "16", "-n", "20000", "-q", "-r", "1000")
        finished = re.findall(r"(\w+)(?: \([^)]*\))*: [\d.]+ requests per second", shown)
        self.assertEqual(finished, ["PING_INLINE", "PING_MBULK", "SET", "GET", "INCR", "MSET"])

    def test_fifty_clients_without_a_pipeline_run_without_an_error(self) -> None:
        shown = self.run_benchmark("-t", "set,get", "-n", "10000", "-q", "-c", "50")
        self.assertEqual(shown.count("requests per second"), 2)

    def test_the_replies_of_incr_are_counted_exactly(self) -> None:
        self.run_benchmark("-n", "10000", "-P", "16", "-q", "INCR", "counted")
        # It sends whole pipelines from all its clients, so that the last may go beyond -n.
        self.assertIn(int(self.cli("GET", "counted")), range(10000, 10000 + 50 * 16))


if __name__ == "__main__":
    unittest.main()
