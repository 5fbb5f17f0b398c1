"""What people look at a server with: MONITOR and SLOWLOG beside Redis's, and their tools.

prometheus-redis-exporter is asked if it is installed.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.request
from pathlib import Path

import redis

from kvdb.resp.replies import encode_request
from tests.interop.interop_differential import Client
from tests.interop.servers import Address, free_port, running_kvdb, running_redis
from tests.interop.terminal import Terminal

REQUESTS = [
    [b"SET", b"k", b"v"],
    [b"set", b"k", b'a "b" \\ \n\r\t\a\b\x00\x7f\xff'],
    [b"GET", b"k"],
    [b"NOSUCH", b"x"],
    [b"GET"],
    [b"AUTH", b"default", b"secret"],
    [b"AUTH", b"secret"],
    [b"HELLO", b"2", b"AUTH", b"default", b"secret", b"SETNAME", b"me"],
    [b"CONFIG", b"GET", b"x"],
    [b"CONFIG", b"SET", b"requirepass", b""],
    [b"CLIENT", b"SETNAME", b"me"],
    [b"CLIENT", b"LIST", b"ID", b"99999999"],
    [b"MULTI"],
    [b"SET", b"n", b"x"],
    [b"INCR", b"n"],
    [b"EXEC"],
    [b"SELECT", b"3"],
    [b"MGET", *[b"key:%d" % number for number in range(40)]],
    [b"SET", b"long", b"x" * 300],
    [b"ECHO", b""],
    [b"SELECT", b"0"],
    [b"PING"],
]


class BesideRedis(unittest.TestCase):
    """The same requests to both; what is shown of them must be the same."""

    def setUp(self) -> None:
        self.servers: list[Address] = [
            self.enterContext(running_redis()),
            self.enterContext(running_kvdb()),
        ]

    def both(self, look: object) -> tuple[object, object]:
        redis_server, kvdb = (look(server) for server in self.servers)  # type: ignore[operator]
        return redis_server, kvdb

    def test_monitor_shows_the_same(self) -> None:
        def shown(server: Address) -> list[bytes]:
            monitor, client = Client(server), Client(server)
            self.addCleanup(monitor.close)
            self.addCleanup(client.close)
            self.assertEqual(monitor(b"MONITOR"), b"+OK\r\n")
            for request in REQUESTS:
                client(*request)
            lines = []
            while not lines or b'"PING"' not in lines[-1]:
                lines.append(monitor.reply())
            self.assertEqual(monitor(b"RESET"), b"+RESET\r\n")
            blank = re.compile(rb"^\+\d{10}\.\d{6} \[(\d+) 127\.0\.0\.1:\d+\]")
            for line in lines:
                self.assertRegex(line, blank)
            return [blank.sub(rb"\1", line) for line in lines]

        self.assertEqual(*self.both(shown))

    def test_the_slow_log_keeps_the_same(self) -> None:
        def kept(server: Address) -> list[object]:
            client = redis.Redis(port=server.port, protocol=2)
            self.addCleanup(client.close)
            client.config_set("slowlog-log-slower-than", 0)
            client.slowlog_reset()
            wire = Client(server)
            self.addCleanup(wire.close)
            for request in REQUESTS:
                wire.send(encode_request(request))
                wire.reply()
            # The reset is an entry of its own.
            entries = client.execute_command("SLOWLOG GET", -1)[::-1]
            numbers = [each["id"] for each in entries]
            self.assertEqual(numbers, list(range(numbers[0], numbers[0] + len(numbers))))
            return [(each["command"], each["client_name"]) for each in entries]

        self.assertEqual(*self.both(kept))


class Tools(unittest.TestCase):
    def setUp(self) -> None:
        self.server = self.enterContext(
            running_kvdb("--in-memory", "--enable-debug-command", "yes")
        )
        self.client = redis.Redis(port=self.server.port, decode_responses=True)
        self.addCleanup(self.client.close)

    def test_redis_py_monitors(self) -> None:
        seen: list[str] = []
        ready = threading.Event()

        def listen() -> None:
            with redis.Redis(port=self.server.port).monitor() as monitor:
                ready.set()
                for command in monitor.listen():
                    seen.append(command["command"])
                    if command["command"] == "PING":
                        return

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        self.assertTrue(ready.wait(10))
        self.client.set("k", "a b")
        self.client.ping()
        thread.join(10)
        self.assertEqual([each for each in seen if each.startswith("SET")], ["SET k a b"])

    def test_redis_py_looks_at_everything(self) -> None:
        client = self.client
        client.config_set("latency-monitor-threshold", 10)
        client.execute_command("DEBUG", "SLEEP", 0.05)
        (slow,) = client.slowlog_get()
        self.assertEqual(slow["command"], b"DEBUG SLEEP 0.05")
        self.assertGreaterEqual(slow["duration"], 50_000)
        self.assertEqual((client.slowlog_len(), client.slowlog_reset()), (1, True))
        self.assertEqual(client.latency_latest()[0][0], "command")
        self.assertEqual(len(client.latency_history("command")), 1)
        self.assertEqual(client.latency_reset("command"), 1)
        self.assertEqual(client.client_list(_type="normal")[0]["omem"], "0")
        self.assertEqual(client.client_list(client_id=[client.client_id()])[0]["flags"], "N")
        self.assertTrue(client.client_pause(10, all=False))
        self.assertTrue(client.client_unpause())
        self.assertEqual(client.client_unblock(99999), 0)
        self.assertEqual(client.client_kill_filter(_id="99999", skipme=True), 0)
        self.assertIn("keys.count", client.memory_stats())
        self.assertTrue(client.memory_purge())
        self.assertEqual(client.role()[0], "master")
        self.assertEqual(client.wait(1, 20), 0)
        self.assertEqual(client.waitaof(0, 0, 0), [0, 0])
        self.assertEqual(client.command_getkeysandflags("GET", "k")[0][0], "k")
        self.assertEqual(client.module_list(), [])
        self.assertEqual(client.script_exists("0" * 40), [False])
        self.assertEqual(client.function_list(), [])
        client.config_set("latency-tracking", "yes")
        client.get("k")
        self.assertEqual(client.info("commandstats")["cmdstat_get"]["calls"], 1)
        self.assertIn("p99", client.info("latencystats")["latency_percentiles_usec_get"])

    def test_redis_cli_watches(self) -> None:
        program = shutil.which("redis-cli") or shutil.which("valkey-cli")
        assert program
        for flags, wanted in (
            (["--stat"], "------- data"),
            (["--latency"], "samples"),
            (["--latency-history", "-i", "1"], "seconds range"),
        ):
            with (
                self.subTest(flags),
                Terminal([program, "-p", str(self.server.port), *flags]) as cli,
            ):
                cli.expect(wanted)
        with Terminal([program, "-p", str(self.server.port), "monitor"]) as cli:
            cli.expect("OK")
            self.client.ping()
            self.assertRegex(cli.expect('"PING"'), r"\d{10}\.\d{6} \[0 127\.0\.0\.1:\d+\] ")

    @unittest.skipUnless(shutil.which("prometheus-redis-exporter"), "it is not installed")
    def test_the_exporter_has_nothing_to_complain_of(self) -> None:
        self.client.config_set("latency-tracking", "yes")
        self.client.config_set("latency-monitor-threshold", 10)
        self.client.execute_command("DEBUG", "SLEEP", 0.02)
        address = f"127.0.0.1:{free_port()}"
        log = Path(self.enterContext(tempfile.TemporaryDirectory())) / "log"
        with log.open("wb") as file:
            exporter = subprocess.Popen(
                [
                    "prometheus-redis-exporter",
                    "--redis.addr",
                    f"redis://127.0.0.1:{self.server.port}",
                    "--web.listen-address",
                    address,
                ],
                stdout=file,
                stderr=file,
            )
        try:
            metrics = ""
            deadline = time.monotonic() + 20
            while "redis_up 1" not in metrics:
                self.assertLess(time.monotonic(), deadline)
                try:
                    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as response:
                        metrics = response.read().decode()
                except OSError:
                    time.sleep(0.05)
        finally:
            exporter.terminate()
            exporter.wait(10)
        self.assertNotRegex(log.read_text(), "level=(error|warning)")
        for name in (
            'redis_commands_total{cmd="debug"} 1', "redis_slowlog_length 1",
            'redis_latency_spike_duration_seconds{event_name="command"} 0.02', "redis_memory_used_peak_bytes",
            'redis_exporter_last_scrape_error{err=""} 0', "redis_cpu_user_seconds_total",
        ):  # fmt: skip
            self.assertIn(name, metrics)


if __name__ == "__main__":
    unittest.main()
