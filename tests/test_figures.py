"""Every counter of INFO and /metrics against what it says it counts, after each kind of request.

`SCENES` is asked of Redis, too: see interop/interop_figures.py.
"""

from __future__ import annotations

import shlex
import tempfile
import time
import unittest
from pathlib import Path
from typing import Final, NamedTuple

from kvdb.commands.instance import Instance
from kvdb.commands.table import TABLE
from kvdb.config import Config, Fsync
from kvdb.errors import CommandError
from kvdb.http.metrics import render_metrics
from kvdb.memory import CONNECTION_BYTES
from kvdb.persistence.journal import Journal
from kvdb.persistence.snapshot import Snapshots
from kvdb.protocols.json_lines import answer
from kvdb.resp.replies import encode_request
from kvdb.store import Store
from tests.command_case import CommandTest
from tests.support import Conversation, ManualClock, Wire, running_server

PREPARE: Final = ("FLUSHALL", "SET k value", "SET n 5")
"""What each scene begins with."""


class Scene(NamedTuple):
    """Requests that one client sends, and by how much they change the counters."""

    requests: tuple[str, ...]
    commands: int  # total_commands_processed
    hits: int = 0
    misses: int = 0
    errors: str = ""  # the code words of all errors, in their order
    redis: tuple[int, int] | None = None  # hits and misses there, where it counts otherwise


def scene(requests: str, *figures: int, errors: str = "", **others: tuple[int, int]) -> Scene:
    """Return a scene whose requests are separated by semicolons."""
    parts = tuple(request.strip() for request in requests.split(";"))
    return Scene(parts, *figures, errors=errors, **others)  # type: ignore[misc, arg-type]


SCENES: Final = (
    # Reads of values are hits or misses.
    scene("GET k", 1, 1, 0),
    scene("GET no", 1, 0, 1),
    scene("get k", 1, 1, 0),
    scene("MGET k no k", 1, 2, 1),
    scene("GETEX k EX 100", 1, 1, 0),
    scene("GETEX no", 1, 0, 1),
    scene("GETDEL k; GETDEL k", 2, 1, 1),
    scene("GETSET k x; GETSET no x", 2, 1, 1),
    scene("SET k v GET; SET no v GET", 2, 1, 1),
    scene("STRLEN k; STRLEN no", 2, 1, 1),
    scene("GETRANGE k 0 1; SUBSTR no 0 1", 2, 1, 1),
    scene("MULTI; GET k; GET no; EXEC", 4, 1, 1),
    scene("SELECT 3; GET k; SET k v; GET k; DEL k; SELECT 0", 6, 1, 1),
    scene("CLIENT NO-EVICT ON; GET k; CLIENT NO-EVICT OFF", 3, 1, 0),
    # Writes are not.
    scene("SET k v; SET k v NX; SET k v XX; SET no v XX; SETNX k v; SETNX x v", 6),
    scene("MSET a 1 b 2; MSETNX a 1 c 2; INCR n; INCRBYFLOAT n 1; APPEND k v", 5),
    scene("SETRANGE k 0 x; DEL n no; UNLINK n; RENAMENX k a; EXPIRE a 100; PERSIST a", 6),
    scene("MOVE k 1; PEXPIRE n 1000; RENAME n m; FLUSHDB", 4),
    # Nor is a look at a key that does not read its value. (Redis sees that differently.)
    scene("EXISTS k no", 1, redis=(1, 1)),
    scene("TOUCH k no", 1, redis=(1, 1)),
    scene("TYPE k; TYPE no", 2, redis=(1, 1)),
    scene("TTL k; PTTL no; EXPIRETIME k; PEXPIRETIME no", 4, redis=(2, 2)),
    scene("OBJECT ENCODING k; OBJECT REFCOUNT no", 2, redis=(1, 1)),
    scene("COPY k c; COPY no c", 2, redis=(1, 1)),
    scene("SETRANGE k 0 ''; SETRANGE no 0 ''", 2),
    scene("MEMORY USAGE k; MEMORY USAGE no; WATCH k; UNWATCH", 4),
    scene("KEYS *; SCAN 0; RANDOMKEY; DBSIZE", 4),
    # Nothing to do with keys.
    scene("PING; ECHO a; TIME; LASTSAVE; COMMAND COUNT; CLIENT ID; CONFIG GET port", 7),
    scene("MULTI; SET a 1; DISCARD", 2),
    scene("MULTI; EXEC", 2),
    # What is refused before anything is done is no command that was processed.
    scene("NOSUCH", 0, errors="ERR"),
    scene("GET", 0, errors="ERR"),
    scene("CLIENT NOSUCH; CONFIG GET", 0, errors="ERR ERR"),
    scene("MULTI; NOSUCH; SET a 1; EXEC", 2, errors="ERR EXECABORT"),
    scene("MULTI; GET; EXEC", 2, errors="ERR EXECABORT"),
    # What a command itself refuses is.
    scene("INCR k", 1, errors="ERR"),
    scene("SELECT 99; EXEC; DISCARD; RENAME no x", 4, errors="ERR ERR ERR ERR"),
    scene("SET k v EX 0; EXPIRE k x; GETRANGE k a b", 3, errors="ERR ERR ERR"),
    scene("HELLO 9", 1, errors="NOPROTO"),
    scene("MULTI; MULTI; EXEC", 3, errors="ERR"),
    scene("MULTI; INCR k; INCR n; EXEC", 4, errors="ERR"),
)  # fmt: skip

METRICS: Final = {
    "total_connections_received": "connections_received_total",
    "rejected_connections": "rejected_connections_total",
    "total_commands_processed": "commands_processed_total",
    "total_net_input_bytes": "net_input_bytes_total",
    "total_net_output_bytes": "net_output_bytes_total",
    "keyspace_hits": "keyspace_hits_total",
    "keyspace_misses": "keyspace_misses_total",
    "expired_keys": "expired_keys_total",
    "evicted_keys": "evicted_keys_total",
    "evicted_clients": "evicted_clients_total",
    "connected_clients": "connected_clients",
    "maxclients": "config_maxclients",
    "uptime_in_seconds": "uptime_in_seconds",
    "used_memory": "memory_used_bytes",
    "maxmemory": "memory_max_bytes",
    "mem_clients_normal": "mem_clients_normal",
    "mem_not_counted_for_evict": "mem_not_counted_for_eviction_bytes",
    "rdb_changes_since_last_save": "rdb_changes_since_last_save",
    "rdb_bgsave_in_progress": "rdb_bgsave_in_progress",
    "rdb_last_save_time": "rdb_last_save_timestamp_seconds",
}
"""What a field of INFO is called in /metrics."""


class FiguresTest(CommandTest):
    """`self.talk` is a client of a server that keeps a snapshot, with clocks that stand still."""

    def setUp(self) -> None:
        self.monotonic = ManualClock()
        self.config = Config(max_bytes=0)
        self.path = Path(self.enterContext(tempfile.TemporaryDirectory())) / "kvdb.json"
        store = Store(0, clock=ManualClock())
        snapshots = Snapshots(
            store, self.path, lambda: self.config.snapshot_interval, self.monotonic
        )
        instance = Instance(store, self.config, snapshots, monotonic=self.monotonic)
        self.talk = Conversation(instance)
        self.addCleanup(lambda: self.talk.store.check())

    def figure(self, name: str) -> int:
        return int(self.info("everything")[name])

    def errors(self) -> dict[str, int]:
        info = self.info("everything")
        counts = {
            name.removeprefix("errorstat_"): int(text.removeprefix("count="))
            for name, text in info.items()
            if name.startswith("errorstat_")
        }
        self.assertEqual(int(info["total_error_replies"]), sum(counts.values()))
        return counts

    def assert_metrics_agree(self) -> None:
        """Every figure that both have is the same in INFO and in /metrics."""
        info = self.info("everything")
        metrics = {}
        for line in render_metrics(self.talk.instance).splitlines():
            if not line.startswith("#"):
                name, value = line.rsplit(" ", 1)
                metrics[name.removeprefix("redis_")] = float(value)
        for field, name in METRICS.items():
            if name in metrics or self.talk.instance.persistence:
                self.assertEqual(int(metrics[name]), int(info[field]), field)
        for code, count in self.errors().items():
            self.assertEqual(metrics[f'errors_total{{err="{code}"}}'], count)
        for db in range(16):
            given = dict(part.split("=") for part in info.get(f"db{db}", "keys=0").split(","))
            self.assertEqual(metrics.get(f'db_keys{{db="db{db}"}}', 0), int(given["keys"]))
            expiring = int(given.get("expires", 0))
            self.assertEqual(metrics.get(f'db_keys_expiring{{db="db{db}"}}', 0), expiring)
            seconds = metrics.get(f'db_avg_ttl_seconds{{db="db{db}"}}', 0)
            self.assertEqual(round(1000 * seconds), int(given.get("avg_ttl", 0)))


class SceneTest(FiguresTest):
    def test_each_scene_changes_the_counters_as_it_should(self) -> None:
        for each in SCENES:
            for request in PREPARE:
                self.ask(request)
            with self.subTest(each.requests):
                self.assert_replies(("CONFIG RESETSTAT", b"OK"))
                for request in each.requests:
                    self.ask(request)
                counts, store = self.talk.instance.counts(), self.talk.store
                found = counts["commands"], store.hits, store.misses
                self.assertEqual(found, (each.commands, each.hits, each.misses))
                codes = each.errors.split()
                self.assertEqual(self.errors(), {code: codes.count(code) for code in codes})
                self.assert_metrics_agree()

    def test_requests_that_come_together_count_as_if_they_came_apart(self) -> None:
        self.ask("SET text a")
        self.talk.store.max_bytes = 10_000
        for requests, errors in (
            ([b"GET text", b"GET no"] * 20, {}),
            ([b"GET no"] * 30, {}),
            ([b"SET k v"] * 30, {}),
            ([b"INCR n"] * 30, {}),
            ([b"INCR text"] * 30, {"ERR": 30}),
            ([b"INCR n"] * 20 + [b"INCR text"] + [b"INCR n"] * 20, {"ERR": 1}),
            ([b"SET k v"] * 20 + [b"SET k " + b"x" * 2000], {}),
            ([b"NOSUCH"] * 30, {"ERR": 30}),
        ):
            with self.subTest(requests[0]):
                self.ask("CONFIG RESETSTAT")
                data = b"".join(encode_request(request.split()) for request in requests)
                self.talk.bytes(data)
                commands = 0 if requests[0] == b"NOSUCH" else len(requests)
                self.assertEqual(self.talk.instance.counts()["commands"], commands)
                self.assertEqual(self.errors(), errors)
        self.ask("CONFIG RESETSTAT")
        self.ask("CONFIG SET maxmemory-policy noeviction maxmemory 1500")
        for number in range(20):
            self.ask(f"SET full{number} v")
        before = self.errors()["OOM"]
        self.talk.bytes(b"*3\r\n$3\r\nSET\r\n$1\r\nz\r\n$1\r\nv\r\n" * 30)
        self.assertEqual(self.errors(), {"OOM": before + 30})

    def test_what_a_dialect_refuses_is_an_error_too(self) -> None:
        self.talk.bytes('{"command": 5}\nnot json\n{"command": "GET", "args": {}}\n{"\n')
        for line in ('{"command": "COMMIT"}', '{"command": "START"}', '{"command": "INCR"}'):
            b"".join(answer(self.talk.session, line.encode()))
        self.assertEqual(self.errors(), {"ERR": 6})
        self.ask("CONFIG RESETSTAT")
        self.talk.bytes(b"*1\r\n$-5\r\n")
        self.assertEqual(self.errors(), {"ERR": 1})

    def test_without_a_password_nothing_is_processed(self) -> None:
        self.talk.instance.users.set_password("pw")
        stranger = self.talk.another()
        for line in ("GET k", "INFO", "AUTH wrong", "HELLO 3"):
            self.ask(line, stranger)
        self.assertEqual(stranger.session.commands, 2)  # AUTH and HELLO may be called
        self.assertEqual(self.errors(), {"NOAUTH": 3, "WRONGPASS": 1})
        self.assertNotIn("errorstat_NOSUCH", self.info("everything"))

    def test_while_the_data_is_read_commands_on_keys_are_not_processed(self) -> None:
        self.talk.instance.loading = True
        self.talk.session.ordinary = False
        self.ask("GET k")
        self.assertEqual(self.errors(), {"LOADING": 1})
        self.assertEqual(self.figure("total_commands_processed"), 2)  # INFO itself

    def test_errors_that_nobody_hears_count(self) -> None:
        self.ask("CLIENT REPLY OFF")
        self.ask("NOSUCH")
        self.ask("CLIENT REPLY ON")
        self.assertEqual(self.errors(), {"ERR": 1})

    def test_a_bug_counts_as_an_error(self) -> None:
        handler = TABLE[b"PING"].handler

        def broken(session: object, *arguments: bytes) -> None:
            raise ZeroDivisionError

        self.addCleanup(setattr, TABLE[b"PING"], "handler", handler)
        TABLE[b"PING"].handler = broken
        with self.assertLogs("kvdb"):
            for line in ("PING", "MULTI", "PING", "EXEC"):
                self.ask(line)
        self.assertEqual(self.errors(), {"ERR": 2})


class CounterTest(FiguresTest):
    def test_an_empty_server_has_zeros_everywhere(self) -> None:
        info = self.info("everything")
        for field in METRICS:
            if field not in ("connected_clients", "maxclients", "total_commands_processed",
                             "rdb_last_save_time", "mem_not_counted_for_evict"):  # fmt: skip
                self.assertEqual(info[field], "0", field)
        self.assertEqual(info["total_commands_processed"], "1")  # this INFO
        self.assertEqual(info["mem_not_counted_for_evict"], str(CONNECTION_BYTES))
        self.assertFalse([name for name in info if name.startswith(("db", "errorstat"))])
        self.assert_metrics_agree()

    def test_resetstat_sets_back_what_counts_and_nothing_else(self) -> None:
        self.talk.instance.enter()
        for line in ("SET k v PX 5", "GET k", "GET no", "NOSUCH", "SET a 1 EX 100", "SAVE"):
            self.ask(line)
        self.monotonic.now += 1
        self.talk.instance.housekeeping()
        self.talk.clock.now += 1
        self.ask("GET k")
        self.talk.instance.accounts.ended = 3
        before = self.info("everything")
        for field, value in (
            ("keyspace_hits", 1), ("keyspace_misses", 2), ("expired_keys", 1),
            ("evicted_clients", 3), ("rdb_saves", 1), ("total_error_replies", 1),
            ("total_connections_received", 1), ("rdb_changes_since_last_save", 1),
        ):  # fmt: skip
            self.assertEqual(before[field], str(value), field)
        self.assertNotEqual(before["instantaneous_ops_per_sec"], "0")
        self.assert_metrics_agree()
        self.ask("CONFIG RESETSTAT")
        after = self.info("everything")
        changed = {name for name in before if before[name] != after.get(name)}
        self.assertLessEqual(
            changed - {"used_memory_rss", "used_memory_rss_human", "used_cpu_user", "used_cpu_sys"},
            {
                "used_memory_peak", "used_memory_peak_human", "used_memory_peak_perc",
                "keyspace_hits", "keyspace_misses", "expired_keys", "evicted_clients", "rdb_saves",
                "total_error_replies", "errorstat_ERR", "total_connections_received",
                "total_commands_processed", "instantaneous_ops_per_sec",
            },
        )  # fmt: skip
        self.assertEqual(after["total_commands_processed"], "1")
        self.assert_metrics_agree()

    def test_what_clients_counted_stays_when_they_leave(self) -> None:
        others = [self.talk.another() for _ in range(3)]
        for other in others:
            self.ask("NOSUCH", other)
            self.ask("PING", other)
            other.session.received += 10
            other.session.sent += 5
        before = self.info("everything")
        self.assertEqual(before["connected_clients"], "4")
        for other in others:
            self.talk.instance.dismiss(other.session)
        after = self.info("everything")
        self.assertEqual(after["connected_clients"], "1")
        for field, value in (("total_net_input_bytes", "30"), ("total_net_output_bytes", "15")):
            self.assertEqual((before[field], after[field]), (value, value))
        self.assertEqual(self.errors(), {"ERR": 3})
        self.assert_metrics_agree()

    def test_a_key_expires_once_whoever_notices_it(self) -> None:
        for line in (
            "GET k", "MGET k k", "EXISTS k", "TTL k", "TYPE k", "DEL k", "INCR k", "APPEND k 1",
            "SETNX k v", "RENAME k x", "GETDEL k", "GETEX k", "PERSIST k", "SET k v XX", "COPY k c",
            "MSET k 1 k 2", "MSETNX k v", "WATCH k", "GETSET k v", "TOUCH k",
            "MEMORY USAGE k", "OBJECT ENCODING k", "SET k v KEEPTTL", "SET k v GET", "STRLEN k",
        ):  # fmt: skip
            with self.subTest(line):
                for request in ("FLUSHALL", "CONFIG RESETSTAT", "SET n 1", "SET k 5 PX 1"):
                    self.ask(request)
                self.talk.clock.now += 0.002
                self.assertEqual((self.figure("expired_keys"), self.ask("DBSIZE")), (0, 1))
                self.ask(line)
                self.talk.store.expire_due()
                self.assertEqual(self.figure("expired_keys"), 1)
                self.assert_metrics_agree()

    def test_a_deadline_that_has_passed_is_no_expiry(self) -> None:
        for line in ("SET k v", "EXPIRE k -1", "SET k v", "SET k v EXAT 1", "SET no v PXAT 1"):
            self.ask(line)
        self.assertEqual((self.figure("expired_keys"), self.ask("DBSIZE")), (0, 0))

    def test_every_database_is_told_of(self) -> None:
        for db in range(16):
            self.ask(f"SELECT {db}")
            self.ask("SET k v")
            self.ask(f"SET e v EX {db + 1}")
            self.assertEqual(self.ask("DBSIZE"), 2)
        info = self.info("everything")
        for db in range(16):
            expected = f"keys=2,expires=1,avg_ttl={1000 * (db + 1)}"
            self.assertEqual(info[f"db{db}"], expected)
        self.assert_metrics_agree()
        self.talk.clock.now += 8
        self.assert_metrics_agree()
        self.ask("FLUSHALL")
        self.assertFalse([name for name in self.info("everything") if name.startswith("db")])

    def test_what_is_due_and_not_yet_gone_is_in_use_with_its_overhead(self) -> None:
        self.ask("SET k v PX 1")
        before = self.info("everything")
        self.talk.clock.now += 1
        after = self.info("everything")
        for field in ("used_memory", "used_memory_overhead", "used_memory_dataset"):
            self.assertEqual(before[field], after[field])

    def test_who_was_turned_away_was_not_received(self) -> None:
        self.config.max_clients = 1
        for _ in range(3):
            self.talk.instance.enter()
        info = self.info("everything")
        found = info["total_connections_received"], info["rejected_connections"]
        self.assertEqual(found, ("1", "2"))
        self.assert_metrics_agree()

    def test_usage_adds_up_to_what_is_used(self) -> None:
        self.assertEqual(self.figure("used_memory"), 0)
        for line in ("SET a 1", "SET b 2 EX 100", "SELECT 2", "SET a 'a longer value'"):
            self.ask(line)
        total = self.ask("MEMORY USAGE a")
        self.ask("SELECT 0")
        total += self.ask("MEMORY USAGE a") + self.ask("MEMORY USAGE b")
        self.assertEqual(self.figure("used_memory"), total)

    def test_bytes_of_the_wire_are_counted_on_both_sides(self) -> None:
        with running_server() as service, Wire(service.server.port) as wire:
            wire.ask(b"PING\r\n", 7)
            wire.ask(b"*1\r\n$4\r\nPING\r\n" * 50, 7 * 50)
            wire.socket.sendall(b"CLIENT INFO\r\nQUIT\r\n")
            line = wire.read_to_end().decode()
            received, sent = 6 + 14 * 50 + 13 + 6, 7 + 7 * 50
            self.assertIn(f" tot-net-in={received} tot-net-out={sent} tot-cmds=52\n", line)
            until = time.monotonic() + 10
            while service.instance.sessions() and time.monotonic() < until:
                time.sleep(0.001)
            counts = service.instance.counts()
            self.assertEqual((counts["received"], counts["sent"]), (received, sent + len(line)))
            self.assertEqual(counts["commands"], 53)


class ClientLineTest(FiguresTest):
    def fields(self) -> dict[str, str]:
        line = self.talk("CLIENT", "INFO")
        return dict(word.split("=", 1) for word in line.rstrip("\n").split(" "))

    def test_memory_of_a_client_is_told(self) -> None:
        self.assertEqual(self.fields()["tot-mem"], str(CONNECTION_BYTES))
        self.talk.instance.accounts.report(self.talk.session, 50_000)
        self.assertEqual(self.fields()["tot-mem"], str(CONNECTION_BYTES + 50_000))
        other = self.talk.another()
        self.ask("MULTI", other)
        self.ask("SET k v", other)
        line = self.talk("CLIENT", "LIST").splitlines()[1]
        assert other.session.transaction is not None
        self.assertIn(f" multi-mem={other.session.transaction.bytes} ", line)
        self.assertIn(" multi=1 ", line)

    def test_counts_of_a_client_are_told(self) -> None:
        self.ask("PING")
        self.ask("NOSUCH")
        self.talk.session.received, self.talk.session.sent = 70, 30
        fields = self.fields()
        found = fields["tot-net-in"], fields["tot-net-out"], fields["tot-cmds"]
        self.assertEqual(found, ("70", "30", "2"))

    def test_a_command_cannot_forge_a_line(self) -> None:
        for line in ('{"command": "START"}', '{"command": "X Y\\nid=9 addr=1", "args": {}}'):
            b"".join(answer(self.talk.session, line.encode()))
        other = self.talk.another()
        lines = other("CLIENT", "LIST").splitlines()
        self.assertEqual(len(lines), 2)
        self.assertIn(" cmd=start ", lines[0])


class ConfigAgreesTest(FiguresTest):
    def get(self, name: str) -> str:
        reply = self.talk("CONFIG", "GET", name)
        return str(reply[name.encode()].decode())

    def test_seconds_have_no_exponent(self) -> None:
        for given, shown in (("1000000", "1000000"), ("2147483647", "2147483647"), ("0", "0")):
            self.ask(f"CONFIG SET timeout {given}")
            self.assertEqual(self.get("timeout"), shown)
        self.ask("CONFIG SET save '100000000 1'")
        self.assertEqual(self.get("save"), "100000000 1")
        self.config.snapshot_interval, self.config.idle_timeout = 0.25, 1.5
        self.assertEqual((self.get("save"), self.get("timeout")), ("0.25 1", "1.5"))

    def test_it_agrees_with_info(self) -> None:
        for line in (
            "CONFIG GET port", "CONFIG SET maxmemory 5mb", "CONFIG SET maxclients 7",
            "CONFIG SET maxmemory-policy noeviction", "CONFIG SET maxmemory-clients 1mb",
        ):  # fmt: skip
            self.ask(line)
            info = self.info("everything")
            for name, field in (
                ("maxmemory", "maxmemory"), ("maxmemory-policy", "maxmemory_policy"),
                ("maxclients", "maxclients"), ("port", "tcp_port"),
                ("maxmemory-clients", "maxmemory_clients"),
            ):  # fmt: skip
                self.assertEqual(self.get(name), info[field])
            self.assertEqual(self.get("appendonly"), "no")
            self.assertEqual(info["aof_enabled"], "0")

    def test_a_journal_has_no_save_points(self) -> None:
        path = self.path.with_suffix(".db")
        store = Store(0, clock=ManualClock())
        config = Config(data=path)
        journal = Journal(store, path, Fsync.EVERYSEC)
        self.addCleanup(journal.stop)
        self.talk = Conversation(Instance(store, config, journal))
        self.assertEqual((self.get("save"), self.get("appendonly")), ("", "yes"))
        self.assertEqual(self.info("everything")["aof_enabled"], "1")

    def test_the_number_of_commands_is_that_of_their_list(self) -> None:
        self.assertEqual(self.ask("COMMAND COUNT"), len(self.talk("COMMAND")))


class ErrorCodeTest(unittest.TestCase):
    def test_the_first_word_of_every_error_is_its_code(self) -> None:
        talk = Conversation()
        for line in ("NOSUCH", "INCR a b", "EXEC", "HELLO 9", "AUTH a b"):
            reply = talk(*shlex.split(line))
            self.assertIsInstance(reply, CommandError)
            self.assertRegex(reply.text.partition(" ")[0], "^[A-Z]+$")


if __name__ == "__main__":
    unittest.main()
