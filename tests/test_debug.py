"""DEBUG for other people's test suites, and the answers of a server without replicas."""

from __future__ import annotations

import tempfile
import time
import unittest
from pathlib import Path

from kvdb.config import MB
from kvdb.replies import OK, Verbatim
from tests.command_case import CommandTest, wrong_arity
from tests.support import Conversation, Wire, running_server

NOT_ALLOWED = "ERR DEBUG command not allowed. "
WRONG = "ERR unknown subcommand or wrong number of arguments for '{}'. Try DEBUG HELP."


class WhoMayTest(unittest.TestCase):
    def answer(self, address: str, **config: object) -> str:
        talk = Conversation(**config)
        talk.session.address = address
        reply = talk("DEBUG", "JMAP")
        return "" if reply is OK else reply.text

    def test_nobody_unless_it_is_switched_on(self) -> None:
        self.assertTrue(self.answer("127.0.0.1:5").startswith(NOT_ALLOWED))

    def test_everybody_once_it_is(self) -> None:
        self.assertEqual(self.answer("10.0.0.1:5", enable_debug_command="yes"), "")

    def test_local_means_this_machine(self) -> None:
        for address, allowed in (
            ("127.0.0.1:5", True), ("127.9.9.9:5", True), ("[::1]:5", True),
            ("[::ffff:127.0.0.1]:5", True), ("10.0.0.1:5", False), ("[2001:db8::1]:5", False),
        ):  # fmt: skip
            with self.subTest(address):
                text = self.answer(address, enable_debug_command="local")
                self.assertEqual(text == "", allowed)

    def test_config_set_cannot_switch_it_on(self) -> None:
        talk = Conversation()
        self.assertIn("immutable", talk.error("CONFIG", "SET", "enable-debug-command", "yes"))


class DebugTest(CommandTest):
    def setUp(self) -> None:
        super().setUp()
        self.talk.instance.config.enable_debug_command = "yes"

    def test_wrong_requests_are_refused_in_redis_words(self) -> None:
        for line, name in (
            ("DEBUG FOO", "FOO"),
            ("DEBUG SLEEP", "SLEEP"),
            ("DEBUG sleep 1 2", "sleep"),
            ("DEBUG OBJECT", "OBJECT"),
            ("DEBUG STRINGMATCH-LEN 1", "STRINGMATCH-LEN"),
        ):
            self.assert_replies((line, WRONG.format(name)))
        self.assert_replies(("DEBUG", wrong_arity("debug")), ("DEBUG OBJECT no", "ERR no such key"))

    def test_digests_are_redis_own(self) -> None:
        # What Redis 8.0.6 answers to the same keys.
        empty = b"0" * 40
        self.assert_replies(
            ("DEBUG DIGEST", empty),
            ("SET a 1", OK),
            ("SET b xyz EX 1000", OK),
            ("SELECT 3", OK),
            ("SET b 123", OK),
            ("SELECT 0", OK),
            ("DEBUG DIGEST", b"81929824c3f860cc1dbaf0d5855aa86a7e1adbab"),
            ("DEBUG DIGEST-VALUE a b c",
             [b"b4fc66738120fba0b5aa500ab5c2bf89cea1c5da",
              b"56c84b94eec67961205b4c8ad864248193bb824c", empty]),
        )  # fmt: skip

    def test_populate_makes_keys_that_are_not_there(self) -> None:
        self.assert_replies(
            ("SET pre:1 mine", OK),
            ("DEBUG POPULATE 2 pre 10", OK),
            ("DEBUG POPULATE 1", OK),
            ("GET pre:0", b"value:0\0\0\0"),
            ("GET pre:1", b"mine"),
            ("GET key:0", b"value:0"),
            ("DBSIZE", 3),
            ("DEBUG POPULATE -1", "ERR value is out of range, must be positive"),
        )

    def test_keys_are_those_of_the_database(self) -> None:
        for line in ("SELECT 3", "DEBUG POPULATE 1", "DEBUG OBJECT key:0"):
            self.assertNotIn("ERR", str(self.ask(line)))
        self.assertEqual(self.talk.store.size(3), 1)

    def test_an_object_is_described(self) -> None:
        for value, encoding in (("12", b"int"), ("abc", b"embstr"), ("x" * 45, b"raw")):
            self.ask(f"SET k {value}")
            self.assertIn(b"encoding:%b serializedlength:" % encoding, self.ask("DEBUG OBJECT k"))

    def test_an_error_of_ones_own(self) -> None:
        self.assertEqual(self.ask("DEBUG ERROR 'WRONGTYPE a\r\nb'"), "WRONGTYPE a  b")

    def test_active_expiry_can_be_switched_off(self) -> None:
        self.ask("DEBUG SET-ACTIVE-EXPIRE 0")
        self.assertFalse(self.talk.instance.may_expire)
        self.ask("DEBUG SET-ACTIVE-EXPIRE 1")
        self.assertTrue(self.talk.instance.may_expire)

    def test_the_replication_id_changes(self) -> None:
        before = self.ask("INFO replication")
        self.ask("DEBUG CHANGE-REPL-ID")
        self.assertNotEqual(self.ask("INFO replication"), before)

    def test_what_is_about_redis_inside_is_accepted(self) -> None:
        for line in ("JMAP", "QUICKLIST-PACKED-THRESHOLD 100B", "PAUSE-CRON 0", "RELOAD NOSAVE",
                     "LOADAOF", "LOG hello", "SLEEP 0", "SLEEP x", "SLEEP -1"):  # fmt: skip
            with self.subTest(line):
                self.assertEqual(self.ask(f"DEBUG {line}"), OK)
        self.assertEqual(
            self.ask("DEBUG STRINGMATCH-LEN"), b"Apparently Redis did not crash: test passed"
        )

    def test_replies_of_every_kind(self) -> None:
        self.assert_replies(
            ("DEBUG PROTOCOL integer", 12345),
            ("DEBUG PROTOCOL true", True),
            ("DEBUG PROTOCOL null", None),
            ("DEBUG PROTOCOL array", [0, 1, 2]),
            ("DEBUG PROTOCOL map", {0: False, 1: True, 2: False}),
        )
        self.assertIn("Wrong protocol type name", self.ask("DEBUG PROTOCOL foo"))


class DebugOfAServerTest(unittest.TestCase):
    def test_whoever_sleeps_keeps_nobody_else_waiting(self) -> None:
        with (
            running_server(enable_debug_command="yes") as service,
            Wire(service.server.port) as sleeper,
            Wire(service.server.port) as other,
        ):
            begin = time.monotonic()
            sleeper.socket.sendall(b"DEBUG SLEEP 0.3\r\n")
            self.assertEqual(other.ask(b"SET k v\r\n", 5), b"+OK\r\n")
            self.assertLess(time.monotonic() - begin, 0.25)
            self.assertEqual(sleeper.read(5), b"+OK\r\n")
            self.assertGreaterEqual(time.monotonic() - begin, 0.3)

    def test_without_active_expiry_a_key_stays_until_it_is_asked_for(self) -> None:
        with (
            running_server(enable_debug_command="yes") as service,
            Wire(service.server.port) as wire,
        ):
            wire.ask(b"DEBUG SET-ACTIVE-EXPIRE 0\r\nSET k v PX 20\r\n", 10)
            time.sleep(0.15)
            self.assertEqual(service.store.total_keys, 1)
            self.assertEqual(wire.ask(b"GET k\r\n", 5), b"$-1\r\n")
            self.assertEqual(service.store.total_keys, 0)

    def test_reload_saves(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        settings = {"data": folder / "d.json", "enable_debug_command": "yes"}
        with running_server(**settings) as service, Wire(service.server.port) as wire:
            wire.ask(b"SET k v\r\nDEBUG RELOAD\r\n", 10)
            self.assertIn(b'"k"', (folder / "d.json").read_bytes())


class WithoutReplicasTest(CommandTest):
    def test_it_is_a_master_and_remains_one(self) -> None:
        self.assert_replies(
            ("ROLE", [b"master", 0, []]),
            ("REPLICAOF NO ONE", OK),
            ("SLAVEOF no one", OK),
            ("REPLICAOF localhost x", "ERR Invalid master port"),
            ("REPLICAOF a", wrong_arity("replicaof")),
            ("FAILOVER", "ERR FAILOVER requires connected replicas."),
            ("FAILOVER ABORT", "ERR No failover in progress."),
            ("CLUSTER INFO", "ERR This instance has cluster support disabled"),
        )  # fmt: skip

    def test_what_is_not_here_is_empty(self) -> None:
        self.assert_replies(
            ("MODULE LIST", []),
            ("FUNCTION LIST", []),
            ("FUNCTION LIST LIBRARYNAME x WITHCODE", []),
            ("FUNCTION LIST LIBRARYNAME", "ERR library name argument was not given"),
            ("FUNCTION LIST FOO", "ERR Unknown argument FOO"),
            ("FUNCTION STATS", {b"running_script": None, b"engines": {}}),
            ("FUNCTION FLUSH", OK),
            ("FUNCTION FLUSH FOO", "ERR FUNCTION FLUSH only supports SYNC|ASYNC option"),
        )

    def test_waitaof_waits_for_the_journal(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        data = folder / "d.sqlite"
        with running_server(data=data) as service, Wire(service.server.port) as wire:
            reply = wire.ask(b"SET k v\r\nWAITAOF 1 0 10000\r\n", 5 + 12)
            self.assertEqual(reply, b"+OK\r\n*2\r\n:1\r\n:0\r\n")
            persistence = service.persistence
            assert persistence is not None
            self.assertGreaterEqual(persistence.durable_step, service.store.step)

    def test_lolwut_names_the_version(self) -> None:
        reply = self.ask("LOLWUT VERSION 5")
        self.assertIs(type(reply), Verbatim)
        self.assertIn("Redis ver. ", reply)


class MemoryTest(CommandTest):
    def test_stats_add_up(self) -> None:
        self.ask("SET k v EX 100")
        stats = self.ask("MEMORY STATS")
        self.assertEqual(stats[b"keys.count"], 1)
        self.assertEqual(stats[b"total.allocated"], self.talk.store.used_bytes)
        self.assertEqual(
            stats[b"overhead.total"] + stats[b"dataset.bytes"], stats[b"total.allocated"]
        )
        self.assertIn(b"db.0", stats)

    def test_the_peak_is_remembered(self) -> None:
        self.ask("SET k " + "x" * 10_000)
        peak = self.ask("MEMORY STATS")[b"peak.allocated"]
        self.ask("DEL k")
        self.assertEqual(self.ask("MEMORY STATS")[b"peak.allocated"], peak)
        self.assertIn(f"used_memory_peak:{peak}\r\n", self.ask("INFO memory"))

    def test_the_doctor_looks_at_what_there_is(self) -> None:
        self.assertIn("is empty or is using very little", self.ask("MEMORY DOCTOR"))
        for key in range(4):
            self.talk("SET", key, b"x" * (2 * MB))
        self.assertIn("I can't find any memory issue", self.ask("MEMORY DOCTOR"))
        self.ask("DEL 0 1")
        self.talk.store.max_bytes = 0
        self.talk("SET", "y", b"x" * (3 * MB))
        self.talk.instance.peak_bytes = 40 * MB
        self.assertIn("Peak memory: ", self.ask("MEMORY DOCTOR"))

    def test_the_rest(self) -> None:
        self.assertEqual(self.ask("MEMORY PURGE"), OK)
        self.assertIn("not supported", self.ask("MEMORY MALLOC-STATS"))


class ClientKillTest(CommandTest):
    def test_several_numbers_may_be_given(self) -> None:
        others = [self.talk.another() for _ in range(3)]
        one, two, three = (each.session.id for each in others)
        self.assertEqual(self.ask(f"CLIENT KILL ID {one} {three} SKIPME yes"), 2)
        self.assertEqual([each.session.closing for each in others], [True, False, True])
        self.assert_replies(
            (f"CLIENT KILL ID {two} x", "ERR syntax error"),
            (f"CLIENT KILL ID {two} 0", "ERR client-id should be greater than 0"),
            ("CLIENT KILL ID 0", "ERR client-id should be greater than 0"),
        )


if __name__ == "__main__":
    unittest.main()
