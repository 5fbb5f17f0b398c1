from __future__ import annotations

import logging
import tempfile
import threading
from pathlib import Path
from unittest import mock

from kvdb.commands.info import human
from kvdb.commands.instance import Instance
from kvdb.config import Config
from kvdb.memory import CONNECTION_BYTES
from kvdb.persistence.snapshot import Snapshots
from kvdb.persistence.snapshot_loading import load_snapshot
from kvdb.replies import NO_REPLY, Verbatim
from kvdb.store import Store
from tests.command_case import SYNTAX, CommandTest, wrong_arity
from tests.support import Conversation, ManualClock

NOT_SAVED = "ERR this server keeps its data in memory only (--in-memory)"
IN_PROGRESS = "ERR Background save already in progress"


def config_set_failed(name: str, reason: str) -> str:
    return f"ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}"


class ServerTest(CommandTest):
    """`self.talk` is a client of a server with clocks that stand still and a snapshot file."""

    def setUp(self) -> None:
        super().setUp()
        self.path = Path(self.enterContext(tempfile.TemporaryDirectory())) / "kvdb.json"
        self.config = Config(max_bytes=0, snapshot_interval=60)
        self.monotonic = ManualClock()
        store = Store(0, clock=ManualClock())
        self.snapshots = Snapshots(
            store, self.path, lambda: self.config.snapshot_interval, self.monotonic
        )
        self.stop_requests: list[bool] = []
        self.talk = Conversation(
            Instance(store, self.config, self.snapshots, self.stop_requests.append, self.monotonic)
        )

    def saved_keys(self) -> int:
        store = Store(0, clock=self.talk.clock)
        load_snapshot(self.path, store)
        return store.size()


class InfoTest(ServerTest):
    def test_sections_can_be_chosen(self) -> None:
        default = (
            "Server Clients Memory Persistence Stats Replication CPU Modules Errorstats Cluster "
            "Keyspace"
        )
        everything = (
            "Server Clients Memory Persistence Stats Replication CPU Modules Commandstats "
            "Errorstats Latencystats Cluster Keyspace"
        )
        self.talk("SET", "k", "v")
        for sections, titles in (
            ((), default),
            (("all",), everything),
            (("DEFAULT",), default),
            (("default", "commandstats"), default.replace("Modules", "Modules Commandstats")),
            (("server", "everything"), everything),
            (("latencystats",), "Latencystats"),
            (("SERVER",), "Server"),
            (("keyspace", "clients"), "Clients Keyspace"),
            (("nosuch",), ""),
            (("nosuch", "cpu"), "CPU"),
        ):
            with self.subTest(sections):
                reply = self.talk("INFO", *sections)
                self.assertIs(type(reply), Verbatim)
                lines = reply.split("\r\n")
                self.assertEqual([line[2:] for line in lines if line[:1] == "#"], titles.split())

    def test_every_line_is_a_title_or_a_field_or_empty(self) -> None:
        self.talk("SET", "k", "v", "EX", 10)
        reply = self.talk("INFO")
        for line in reply.removesuffix("\r\n").split("\r\n"):
            self.assertRegex(line, r"^(# \w+|[a-z0-9_]+:[^\r\n]*|)$")

    def test_fields_that_clients_wait_for_are_there(self) -> None:
        expected = {"redis_mode": "standalone", "role": "master", "loading": "0"}
        expected |= {"cluster_enabled": "0", "connected_clients": "1", "aof_enabled": "0"}
        expected |= {"tcp_port": "4242", "maxclients": "10000", "connected_slaves": "0"}
        info = self.info()
        self.assertEqual(info | expected, info)
        self.assertRegex(info["redis_version"], r"^7\.\d+\.\d+$")
        self.assertRegex(info["run_id"], r"^[0-9a-f]{40}$")

    def test_keyspace_lists_the_databases_that_have_keys(self) -> None:
        self.assertEqual(self.info("keyspace"), {})
        self.assert_replies(
            ("MSET a 1 b 2", b"OK"),
            ("EXPIRE a 100", 1),
            ("SELECT 3", b"OK"),
            ("SET c 3", b"OK"),
            ("SET gone v PX 1", b"OK"),
        )
        self.talk.clock.now += 10
        expected = {"db0": "keys=2,expires=1,avg_ttl=90000", "db3": "keys=1,expires=0,avg_ttl=0"}
        self.assertEqual(self.info("keyspace"), expected)

    def test_memory_follows_what_is_stored(self) -> None:
        before = int(self.info("memory")["used_memory"])
        self.talk("SET", "k", "v" * 10_000)
        memory = self.info("memory")
        self.assertTrue(10_000 < int(memory["used_memory"]) - before < 10_500)
        parts = int(memory["used_memory_overhead"]) + int(memory["used_memory_dataset"])
        self.assertEqual(parts, int(memory["used_memory"]))
        self.assertEqual((memory["maxmemory"], memory["maxmemory_policy"]), ("0", "allkeys-lru"))

    def test_what_is_not_entries_has_an_account_of_its_own(self) -> None:
        self.config.max_client_bytes = 1_000_000
        before = self.info("memory")
        expected = {"maxmemory_clients": "1000000", "mem_clients_normal": "0"}
        expected |= {"mem_scan_indexes": "0", "mem_waiting_for_disk": "0"}
        self.assertEqual(before | expected, before)
        self.talk.instance.accounts.report(self.talk.session, 50_000)
        for number in range(100):
            self.talk("SET", number, "v")
        used = self.info("memory")["used_memory"]
        self.talk("SCAN", 0)
        memory = self.info("memory")
        self.assertEqual(memory["mem_clients_normal"], "50000")
        self.assertGreater(int(memory["mem_scan_indexes"]), 100)
        more = 50_000 + int(memory["mem_scan_indexes"])
        total = int(before["mem_not_counted_for_evict"]) + more
        self.assertEqual(memory["mem_not_counted_for_evict"], str(total))
        self.assertEqual(memory["used_memory"], used)
        self.talk.another()
        another = int(self.info("memory")["mem_not_counted_for_evict"])
        self.assertEqual(another, total + CONNECTION_BYTES)

    def test_sizes_are_written_for_people(self) -> None:
        for number, text in (
            (0, "0B"),
            (1023, "1023B"),
            (1024, "1.00K"),
            (3 * 512 * 1024, "1.50M"),
            (64 * 1024**2, "64.00M"),
            (5 * 1024**3, "5.00G"),
            (2048 * 1024**4, "2048.00T"),
        ):
            with self.subTest(number):
                self.assertEqual(human(number), text)

    def test_counters_count_and_resetstat_sets_them_back(self) -> None:
        self.assert_replies(
            ("SET k v PX 1", b"OK"), ("GET k", b"v"), ("GET nokey", None), ("GET nokey", None)
        )
        self.talk.clock.now += 1
        self.assertEqual(self.talk("DBSIZE"), 0)  # what is due does not count
        self.talk.store.expire_due()
        gone = self.talk.another()
        gone("PING")
        self.talk.instance.dismiss(gone.session)
        for _ in range(2):
            self.talk.instance.enter()
        expected = {
            "keyspace_hits": "1",
            "keyspace_misses": "2",
            "expired_keys": "1",
            "evicted_keys": "0",
            "total_commands_processed": "7",  # this INFO included
            "total_connections_received": "2",
            "rejected_connections": "0",
        }
        stats = self.info("stats")
        self.assertEqual(stats | expected, stats)
        self.assert_replies(("CONFIG RESETSTAT", b"OK"))
        stats = self.info("stats")
        self.assertEqual(
            stats | dict.fromkeys(expected, "0") | {"total_commands_processed": "1"}, stats
        )

    def test_evictions_are_counted(self) -> None:
        self.talk("SET", "k", "v")
        self.talk("CONFIG", "SET", "maxmemory", 1)
        self.assertEqual(self.info("stats")["evicted_keys"], "1")

    def test_operations_per_second_are_measured_between_two_passes(self) -> None:
        self.talk.instance.housekeeping()
        for _ in range(50):
            self.talk("PING")
        self.monotonic.now += 2
        self.talk.instance.housekeeping()
        self.assertEqual(self.info("stats")["instantaneous_ops_per_sec"], "25")

    def test_uptime_is_measured_from_the_start(self) -> None:
        self.monotonic.now += 2 * 86400 + 5.5
        server = self.info("server")
        self.assertEqual((server["uptime_in_seconds"], server["uptime_in_days"]), ("172805", "2"))

    def test_clients_that_watch_are_counted_and_so_are_their_keys(self) -> None:
        other = self.talk.another()
        self.talk("WATCH", "a", "b")
        other("WATCH", "b", "c")
        expected = {"watching_clients": "2", "total_watched_keys": "3", "connected_clients": "2"}
        self.assertEqual(self.info("clients") | expected, self.info("clients"))

    def test_persistence_tells_of_changes_and_saves(self) -> None:
        self.assert_replies(("SET k v", b"OK"), ("DEL k", 1))
        expected = {"rdb_changes_since_last_save": "2", "rdb_saves": "0"}
        expected |= {"rdb_last_save_time": "1000000", "rdb_last_bgsave_status": "ok"}
        expected |= {"rdb_bgsave_in_progress": "0", "rdb_last_bgsave_time_sec": "-1"}
        self.assertEqual(self.info("persistence") | expected, self.info("persistence"))
        self.talk.clock.now += 100
        self.talk("SAVE")
        expected = {"rdb_changes_since_last_save": "0", "rdb_saves": "1"}
        expected |= {"rdb_last_save_time": "1000100", "rdb_last_bgsave_time_sec": "0"}
        self.assertEqual(self.info("persistence") | expected, self.info("persistence"))

    def test_how_long_changes_have_not_been_on_disk_is_told(self) -> None:
        self.monotonic.now += 50
        self.assertEqual(self.info("persistence")["unsaved_age_seconds"], "0.000")
        self.talk("SET", "k", "v")
        self.monotonic.now += 7.5
        persistence = self.info("persistence")
        self.assertEqual(persistence["unsaved_age_seconds"], "57.500")  # since the last save
        self.assertEqual(persistence["writers_wait_for_disk"], "0")
        self.talk("SAVE")
        self.assertEqual(self.info("persistence")["unsaved_age_seconds"], "0.000")

    def test_what_waits_for_the_disk_is_told(self) -> None:
        self.snapshots = mock.Mock(wraps=self.snapshots, held_bytes=5000, congested=True)
        self.snapshots.configure_mock(
            last_save=0, last_duration=None, saves=0, changes_since_save=0, age=1.25,
            in_progress=True, last_error=None,
        )  # fmt: skip
        self.talk.instance.persistence = self.snapshots
        persistence = self.info("persistence")
        expected = {"writers_wait_for_disk": "1", "unsaved_age_seconds": "1.250"}
        self.assertEqual(persistence | expected, persistence)
        self.assertEqual(self.info("memory")["mem_waiting_for_disk"], "5000")

    def test_a_background_thread_that_died_is_named(self) -> None:
        names = "reaper", "journal"
        never, ended = (threading.Thread(target=lambda: None, name=name) for name in names)
        ended.start()
        ended.join()
        self.talk.instance.background += [never, ended]
        self.assertEqual(self.info("persistence")["dead_threads"], "reaper,journal")
        go_on = threading.Event()
        alive = threading.Thread(target=go_on.wait, name="alive")
        alive.start()
        self.addCleanup(alive.join)
        self.addCleanup(go_on.set)
        self.talk.instance.background[:] = [alive]
        self.assertNotIn("dead_threads", self.info("persistence"))
        self.talk.instance.background.append(ended)
        self.assertEqual(self.info("persistence")["dead_threads"], "journal")

    def test_a_failed_save_shows(self) -> None:
        with (
            mock.patch("os.replace", side_effect=OSError(28, "No space left on device")),
            self.assertLogs("kvdb"),
        ):
            self.assertIn("No space left on device", self.ask("SAVE"))
        persistence = self.info("persistence")
        self.assertEqual(persistence["rdb_last_bgsave_status"], "err")
        self.assertIn("No space left on device", persistence["persistence_last_error"])
        with self.assertLogs("kvdb"):
            self.assert_replies(("SAVE", b"OK"))
        self.assertEqual(self.info("persistence")["rdb_last_bgsave_status"], "ok")

    def test_without_a_snapshot_there_is_nothing_to_lose_count_of(self) -> None:
        self.talk = Conversation()
        self.talk("SET", "k", "v")
        self.assertEqual(self.info("persistence")["rdb_changes_since_last_save"], "0")


class ConfigTest(ServerTest):
    def test_get_answers_the_parameters_that_match(self) -> None:
        for patterns, expected in (
            (("maxmemory",), {b"maxmemory": b"0"}),
            (("MaxClients", "timeout"), {b"MaxClients": b"10000", b"timeout": b"0"}),
            (("max*[^y]",), {b"maxclients": b"10000", b"maxmemory-clients": b"67108864"}),
            (("nosuch",), {}),
            (("save", "appendonly"), {b"save": b"60 1", b"appendonly": b"no"}),
            (("databases",), {b"databases": b"16"}),
            (("port", "bind"), {b"port": b"4242", b"bind": b"127.0.0.1"}),
            (("dbfilename",), {b"dbfilename": b"kvdb.json"}),
            (("dir",), {b"dir": str(self.path.resolve().parent).encode()}),
            (("requirepass",), {b"requirepass": b""}),
        ):
            with self.subTest(patterns):
                self.assertEqual(self.talk("CONFIG", "GET", *patterns), expected)
        self.assertGreater(len(self.talk("CONFIG", "GET", "*")), 10)

    def test_without_a_snapshot_nothing_is_said_to_be_saved(self) -> None:
        reply = Conversation()("CONFIG", "GET", "save", "dir", "dbfilename")
        self.assertEqual(reply, {b"save": b"", b"dir": b"", b"dbfilename": b""})

    def test_the_password_is_not_shown(self) -> None:
        talk = Conversation(password="pw")
        talk("AUTH", "pw")
        self.assertNotIn(b"pw", str(talk("CONFIG", "GET", "*")).encode())

    def test_set_changes_what_get_answers(self) -> None:
        level = logging.getLogger("kvdb").level
        self.addCleanup(logging.getLogger("kvdb").setLevel, level)
        for name, given, shown in (
            ("maxmemory", "5000", "5000"),
            ("maxmemory", "1000b", "1000"),
            ("maxmemory", "5k", "5000"),
            ("maxmemory", "5kb", "5120"),
            ("maxmemory", "100mb", str(100 * 1024**2)),
            ("maxmemory", "1g", str(1000**3)),
            ("maxmemory", "1GB", str(1024**3)),
            ("maxmemory", "0", "0"),
            ("maxmemory-policy", "NoEviction", "noeviction"),
            ("maxmemory-policy", "volatile-lru", "volatile-lru"),
            ("maxclients", "5", "5"),
            ("maxmemory-clients", "10mb", str(10 * 1024**2)),
            ("maxmemory-clients", "0", "0"),
            ("timeout", "10", "10"),
            ("save", "900 1 300 10", "300 1"),
            ("save", "", ""),
            ("loglevel", "VERBOSE", "verbose"),
        ):
            with self.subTest(name=name, given=given):
                self.assertEqual(self.talk("CONFIG", "SET", name, given), b"OK")
                reply = self.talk("CONFIG", "GET", name)
                self.assertEqual(reply, {name.lower().encode(): shown.encode()})

    def test_set_takes_effect(self) -> None:
        level = logging.getLogger("kvdb").level
        self.addCleanup(logging.getLogger("kvdb").setLevel, level)
        self.talk("MSET", "a", "x" * 1000, "b", "x" * 1000)
        self.assert_replies(("CONFIG SET maxmemory 2000 timeout 7 loglevel debug", b"OK"))
        self.assert_replies(("KEYS *", [b"b"]))
        self.assertEqual(self.config.idle_timeout, 7)
        self.assertEqual(logging.getLogger("kvdb").level, logging.DEBUG)
        self.assert_replies(("CONFIG SET save ''", b"OK"))
        self.assertIsNone(self.snapshots.seconds_to_next())
        self.assert_replies(("CONFIG SET save '5 1'", b"OK"))
        seconds = self.snapshots.seconds_to_next()
        self.assertTrue(seconds is not None and 0 < seconds <= 5)

    def test_volatile_lru_evicts_only_what_expires(self) -> None:
        self.assert_replies(
            ("CONFIG SET maxmemory-policy volatile-lru", b"OK"),
            ("MSET a 1 b 2", b"OK"),
            ("SET c 3 EX 10", b"OK"),
            ("CONFIG SET maxmemory 1", b"OK"),
            ("MGET a b c", [b"1", b"2", None]),
        )

    def test_a_value_that_cannot_be_is_refused(self) -> None:
        not_memory, no_integer = (
            "argument must be a memory value",
            "argument couldn't be parsed into an integer",
        )
        policies = (
            "argument(s) must be one of the following: allkeys-lru, allkeys-random, "
            "volatile-lru, volatile-random, volatile-ttl, noeviction"
        )
        for name, given, reason in (
            ("maxmemory", "foo", not_memory),
            ("maxmemory", "-1", not_memory),
            ("maxmemory", "1tb", not_memory),
            ("maxmemory-clients", "-1", not_memory),
            ("maxmemory-clients", "5%", not_memory),
            ("maxclients", "foo", no_integer),
            ("maxclients", "''", no_integer),
            ("maxclients", "0", "argument must be between 1 and 2147483647 inclusive"),
            ("timeout", "1.5", no_integer),
            ("timeout", "9999999999999999999999", no_integer),
            ("maxmemory-policy", "foo", policies),
            ("save", "foo", "Invalid save parameters"),
            ("save", "1", "Invalid save parameters"),
            ("save", "'1 1 5'", "Invalid save parameters"),
            ("save", "'-1 1'", "Invalid save parameters"),
            ("save", "'0 1'", "Invalid save parameters"),
            ("port", "5", "can't set immutable config"),
            ("databases", "5", "can't set immutable config"),
            ("aclfile", "users.acl", "can't set immutable config"),
        ):
            self.assert_replies((f"CONFIG SET {name} {given}", config_set_failed(name, reason)))
        self.assertIn(
            "must be one of the following: debug, verbose, notice",
            self.ask("CONFIG SET loglevel foo"),
        )

    def test_parameters_are_changed_all_or_none(self) -> None:
        unknown = "ERR Unknown option or number of arguments for CONFIG SET - "
        before = self.talk("CONFIG", "GET", "*")
        for line, text in (
            ("timeout 5 nosuch 1", f"{unknown}'nosuch'"),
            ("nosuch 1 nosuch2 2", f"{unknown}'nosuch'"),
            (
                "timeout 5 maxmemory foo",
                config_set_failed("maxmemory", "argument must be a memory value"),
            ),
            ("timeout 5 TIMEOUT 6", config_set_failed("timeout", "duplicate parameter")),
            ("timeout 5 port 6", config_set_failed("port", "can't set immutable config")),
            ("timeout", wrong_arity("config|set")),
            ("timeout 5 maxmemory", SYNTAX),
        ):
            self.assert_replies((f"CONFIG SET {line}", text))
        self.assertEqual(self.talk("CONFIG", "GET", "*"), before)

    def test_there_is_no_file_to_rewrite(self) -> None:
        self.assert_replies(
            ("CONFIG REWRITE", "ERR The server is running without a config file"),
            ("CONFIG REWRITE x", wrong_arity("config|rewrite")),
            ("CONFIG RESETSTAT x", wrong_arity("config|resetstat")),
            ("CONFIG GET", wrong_arity("config|get")),
            ("CONFIG", wrong_arity("config")),
            ("CONFIG FOO", "ERR unknown subcommand 'FOO'. Try CONFIG HELP."),
        )


class SavingTest(ServerTest):
    def test_save_writes_the_file_before_it_answers(self) -> None:
        self.assert_replies(("MSET a 1 b 2", b"OK"), ("SAVE", b"OK"))
        self.assertEqual(self.saved_keys(), 2)

    def test_lastsave_is_when_the_file_was_written(self) -> None:
        self.assert_replies(("LASTSAVE", 1_000_000))
        self.talk.clock.now += 5.75
        self.assert_replies(("LASTSAVE", 1_000_000), ("SAVE", b"OK"), ("LASTSAVE", 1_000_005))

    def test_bgsave_leaves_the_work_to_the_background(self) -> None:
        woken: list[bool] = []
        self.snapshots.on_request = lambda: woken.append(True)
        self.assert_replies(("SET k v", b"OK"), ("BGSAVE", b"Background saving started"))
        self.assertEqual((woken, self.path.exists()), ([True], False))
        self.assert_replies(
            ("BGSAVE", IN_PROGRESS), ("BGSAVE schedule", b"Background saving started")
        )
        self.snapshots.save_if_due()
        self.assertEqual(self.saved_keys(), 1)
        self.assert_replies(("BGSAVE", b"Background saving started"))

    def test_two_saves_do_not_go_on_at_once(self) -> None:
        replies = []

        def replace(source: Path, target: Path) -> None:
            replies.extend([self.ask("SAVE"), self.ask("BGSAVE"), self.info("persistence")])

        with mock.patch("kvdb.persistence.snapshot_writing._replace", replace):
            self.snapshots.save()
        self.assertEqual(replies[:2], [IN_PROGRESS, IN_PROGRESS])
        self.assertEqual(replies[2]["rdb_bgsave_in_progress"], "1")

    def test_a_failed_save_is_a_refusal_that_tells_why(self) -> None:
        self.assert_replies(("SET k v", b"OK"), ("SAVE", b"OK"), ("SET k2 v", b"OK"))
        with (
            mock.patch("os.replace", side_effect=OSError(28, "No space left on device")),
            self.assertLogs("kvdb"),
        ):
            text = self.ask("SAVE")
        self.assertEqual(text, f"ERR cannot write {self.path}: No space left on device")
        self.assertEqual(self.saved_keys(), 1)

    def test_save_is_refused_inside_a_transaction_and_bgsave_is_not(self) -> None:
        self.assert_replies(
            ("MULTI", b"OK"),
            ("BGSAVE", b"QUEUED"),
            ("LASTSAVE", b"QUEUED"),
            ("EXEC", [b"Background saving started", 1_000_000]),
            ("MULTI", b"OK"),
            ("SAVE", "ERR Command not allowed inside a transaction"),
        )
        self.assertFalse(self.path.exists())

    def test_a_server_in_memory_has_nothing_to_save(self) -> None:
        self.talk = Conversation()
        for line in ("SAVE", "BGSAVE", "BGSAVE SCHEDULE", "SHUTDOWN SAVE"):
            self.assert_replies((line, NOT_SAVED))
        self.assert_replies(("LASTSAVE", int(self.talk.clock.now)))  # as in Redis: the start
        self.assertFalse(self.talk.session.closing)

    def test_other_arguments_are_refused(self) -> None:
        self.assert_replies(
            ("SAVE x", wrong_arity("save")), ("LASTSAVE x", wrong_arity("lastsave"))
        )
        self.assert_replies(("BGSAVE x", SYNTAX), ("BGSAVE SCHEDULE x", SYNTAX))
        self.assert_replies(("TIME x", wrong_arity("time")))

    def test_time_is_the_clock_of_the_server(self) -> None:
        self.talk.clock.now = 1_767_225_600.25
        self.assert_replies(("TIME", [b"1767225600", b"250000"]))


class ShutdownTest(ServerTest):
    def test_shutdown_asks_for_the_end_and_closes_without_a_reply(self) -> None:
        for line, saves in (
            ("SHUTDOWN", True),
            ("SHUTDOWN NOSAVE", False),
            ("SHUTDOWN now force", True),
            ("SHUTDOWN NOSAVE NOW", False),
            ("SHUTDOWN SAVE", True),
        ):
            with self.subTest(line):
                self.path.unlink(missing_ok=True)
                self.stop_requests.clear()
                self.talk.session.closing = False
                self.assert_replies(("SET k v", b"OK"), (line, NO_REPLY))
                self.assertEqual(self.stop_requests, [saves])
                self.assertTrue(self.talk.session.closing)
                self.assertEqual(self.path.exists(), saves)

    def test_a_shutdown_that_cannot_save_does_not_happen(self) -> None:
        with (
            mock.patch("os.replace", side_effect=OSError(28, "No space left on device")),
            self.assertLogs("kvdb"),
        ):
            for line in ("SHUTDOWN", "SHUTDOWN SAVE"):
                self.assertIn("No space left on device", self.ask(line))
            self.assertEqual((self.stop_requests, self.talk.session.closing), ([], False))
            self.assert_replies(("SHUTDOWN FORCE", NO_REPLY))
        self.assertEqual(self.stop_requests, [False])

    def test_options_that_do_not_go_together_are_refused(self) -> None:
        self.assert_replies(
            ("SHUTDOWN FOO", SYNTAX),
            ("SHUTDOWN SAVE NOSAVE", SYNTAX),
            ("SHUTDOWN SAVE NOW NOSAVE", SYNTAX),
            ("SHUTDOWN ABORT NOW", SYNTAX),
            ("SHUTDOWN NOSAVE ABORT", SYNTAX),
            ("SHUTDOWN ABORT", "ERR No shutdown in progress."),
        )
        self.assertEqual((self.stop_requests, self.talk.session.closing), ([], False))

    def test_shutdown_is_refused_inside_a_transaction(self) -> None:
        self.assert_replies(
            ("MULTI", b"OK"), ("SHUTDOWN", "ERR Command not allowed inside a transaction")
        )
        self.assertEqual(self.stop_requests, [])


class ConfigSetTest(CommandTest):
    def test_a_number_of_clients_that_the_system_refuses_changes_nothing_else(self) -> None:
        self.talk.instance.most_clients = 100
        error = self.talk.error("CONFIG", "SET", "timeout", 5, "maxclients", 1000)
        self.assertIn("argument 'maxclients') - The operating system is not able", error)
        self.assertEqual(self.talk("CONFIG", "GET", "timeout"), {b"timeout": b"0"})


class ClusterTest(CommandTest):
    def test_that_there_is_none_is_said_in_redis_s_words(self) -> None:
        for request in ("CLUSTER INFO", "CLUSTER SLOTS", "READONLY", "READWRITE", "ASKING"):
            self.assertEqual(
                self.talk.error(*request.split()), "ERR This instance has cluster support disabled"
            )
