from __future__ import annotations

from unittest import mock

from kvdb.commands.instance import Instance
from kvdb.commands.waiting import TakesLong
from kvdb.config import Config
from kvdb.errors import CommandError
from kvdb.replies import NIL_ARRAY
from kvdb.store import Store
from kvdb.store.budget import EvictionPolicy
from tests.command_case import NOT_AN_INTEGER, SYNTAX, CommandTest, invalid_expire, wrong_arity
from tests.support import Conversation, TickingClock

EXECABORT = "EXECABORT Transaction discarded because of previous errors."
EXEC_WITHOUT_MULTI = "ERR EXEC without MULTI"
DISCARD_WITHOUT_MULTI = "ERR DISCARD without MULTI"
NESTED = "ERR MULTI calls can not be nested"
NOT_ALLOWED = "ERR Command not allowed inside a transaction"


class TransactionTest(CommandTest):
    def test_commands_are_queued_and_carried_out_in_their_order(self) -> None:
        self.assert_replies(
            ("MULTI", b"OK"),
            ("SET n 1", b"QUEUED"),
            ("INCR n", b"QUEUED"),
            ("GET n", b"QUEUED"),
            ("PING", b"QUEUED"),
        )
        self.assertIsNone(self.talk.another()("GET", "n"))
        self.assert_replies(("EXEC", [b"OK", 2, b"2", b"PONG"]), ("GET n", b"2"))

    def test_an_empty_transaction_is_an_empty_list(self) -> None:
        self.assert_replies(("MULTI", b"OK"), ("EXEC", []))

    def test_exec_and_discard_need_multi(self) -> None:
        self.assert_replies(("EXEC", EXEC_WITHOUT_MULTI), ("DISCARD", DISCARD_WITHOUT_MULTI))
        for end in ("EXEC", "DISCARD"):
            self.ask("MULTI")
            self.ask(end)
            self.assert_replies(("EXEC", EXEC_WITHOUT_MULTI), ("DISCARD", DISCARD_WITHOUT_MULTI))

    def test_discard_forgets_what_was_queued(self) -> None:
        self.assert_replies(
            ("MULTI", b"OK"),
            ("SET k v", b"QUEUED"),
            ("DISCARD", b"OK"),
            ("EXISTS k", 0),
            ("MULTI", b"OK"),
            ("EXEC", []),
        )

    def test_a_nested_multi_is_refused_and_the_outer_one_goes_on(self) -> None:
        self.assert_replies(
            ("MULTI", b"OK"),
            ("SET k 1", b"QUEUED"),
            ("MULTI", NESTED),
            ("INCR k", b"QUEUED"),
            ("EXEC", [b"OK", 2]),
        )

    def test_watch_inside_multi_is_refused_and_the_transaction_goes_on(self) -> None:
        self.assert_replies(
            ("MULTI", b"OK"),
            ("WATCH k", "ERR WATCH inside MULTI is not allowed"),
            ("SET k 1", b"QUEUED"),
            ("EXEC", [b"OK"]),
        )

    def test_an_error_while_queueing_discards_everything(self) -> None:
        for line, text in (
            ("SET k", wrong_arity("set")),
            ("NOSUCH a", "ERR unknown command 'NOSUCH', with args beginning with: 'a' "),
            ("CONFIG FOO", "ERR unknown subcommand 'FOO'. Try CONFIG HELP."),
            ("CLIENT GETNAME x", wrong_arity("client|getname")),
            ("OBJECT", wrong_arity("object")),
            ("MULTI x", wrong_arity("multi")),
            ("DISCARD x", wrong_arity("discard")),
            ("WATCH", wrong_arity("watch")),
            ("SAVE", NOT_ALLOWED),
            ("SHUTDOWN FOO", NOT_ALLOWED),
            ("CLIENT REPLY OFF", NOT_ALLOWED),
        ):
            self.assert_replies(
                ("FLUSHALL", b"OK"),
                ("MULTI", b"OK"),
                ("SET before 1", b"QUEUED"),
                (line, text),
                ("SET after 1", b"QUEUED"),
                ("EXEC", EXECABORT),
                ("EXISTS before after", 0),
                ("EXEC", EXEC_WITHOUT_MULTI),
            )

    def test_discard_ends_a_transaction_that_had_an_error(self) -> None:
        self.assert_replies(
            ("MULTI", b"OK"), ("NOSUCH", "ERR unknown command 'NOSUCH', with args beginning with: ")
        )
        self.assert_replies(("DISCARD", b"OK"), ("MULTI", b"OK"), ("PING", b"QUEUED"))
        self.assert_replies(("EXEC", [b"PONG"]))

    def test_exec_with_an_argument_ends_the_transaction(self) -> None:
        text = "EXECABORT Transaction discarded because of: " + wrong_arity("exec")[4:]
        self.assert_replies(
            ("MULTI", b"OK"),
            ("SET k v", b"QUEUED"),
            ("EXEC x", text),
            ("EXEC", EXEC_WITHOUT_MULTI),
            ("EXISTS k", 0),
        )

    def test_an_error_while_running_takes_its_place_and_the_rest_is_done(self) -> None:
        self.assert_replies(
            ("MULTI", b"OK"),
            ("SET k abc", b"QUEUED"),
            ("INCR k", b"QUEUED"),
            ("SET k 1 EX 0", b"QUEUED"),
            ("SET k 1 FOO", b"QUEUED"),
            ("MSET a 1 b", b"QUEUED"),
            ("RENAME nokey k", b"QUEUED"),
            ("SELECT 99", b"QUEUED"),
            ("SET after 1", b"QUEUED"),
            (
                "EXEC",
                [
                    b"OK",
                    NOT_AN_INTEGER,
                    invalid_expire("set"),
                    SYNTAX,
                    wrong_arity("mset"),
                    "ERR no such key",
                    "ERR DB index is out of range",
                    b"OK",
                ],
            ),
            ("MGET k after a", [b"abc", b"1", None]),
        )

    def test_a_select_that_was_queued_counts_from_its_place_on(self) -> None:
        self.assert_replies(
            ("MULTI", b"OK"),
            ("SET k 0", b"QUEUED"),
            ("SELECT 3", b"QUEUED"),
            ("SET k 3", b"QUEUED"),
            ("EXEC", [b"OK", b"OK", b"OK"]),
            ("GET k", b"3"),
            ("SELECT 0", b"OK"),
            ("GET k", b"0"),
        )

    def test_a_flush_inside_a_transaction_leaves_what_comes_after_it(self) -> None:
        self.assert_replies(
            ("SET a 1", b"OK"),
            ("MULTI", b"OK"),
            ("SET b 2", b"QUEUED"),
            ("FLUSHALL", b"QUEUED"),
            ("SET c 3", b"QUEUED"),
            ("DBSIZE", b"QUEUED"),
            ("EXEC", [b"OK", b"OK", b"OK", 1]),
            ("KEYS *", [b"c"]),
        )

    def test_no_other_client_sees_a_part_of_a_transaction(self) -> None:
        facts: list[int] = []
        self.talk.store.add_listener(lambda step, batch: facts.append(len(batch)))
        self.assert_replies(
            ("MULTI", b"OK"), ("SET a 1", b"QUEUED"), ("SET b 2", b"QUEUED"), ("DEL a", b"QUEUED")
        )
        self.ask("EXEC")
        self.assertEqual(facts, [3])

    def test_reset_and_quit_are_carried_out_at_once(self) -> None:
        self.assert_replies(("MULTI", b"OK"), ("SET k v", b"QUEUED"), ("RESET", b"RESET"))
        self.assert_replies(("EXEC", EXEC_WITHOUT_MULTI), ("EXISTS k", 0))
        self.assert_replies(("MULTI", b"OK"), ("QUIT", b"OK"))
        self.assertTrue(self.talk.session.closing)


class OneMomentTest(CommandTest):
    """The clock goes on whenever somebody looks at it, and stands still within a transaction."""

    def setUp(self) -> None:
        self.clock = TickingClock(tick=0.01)
        self.talk = Conversation(Instance(Store(0, clock=self.clock), Config(max_bytes=0)))
        self.addCleanup(self.talk.store.check)

    def test_a_transaction_sees_what_it_stored_however_short_its_life(self) -> None:
        self.assert_replies(
            ("MULTI", b"OK"),
            ("SET k v PX 1", b"QUEUED"),
            ("GET k", b"QUEUED"),
            ("PTTL k", b"QUEUED"),
            ("DBSIZE", b"QUEUED"),
            ("EXISTS k", b"QUEUED"),
            ("EXEC", [b"OK", b"v", 1, 1, 1]),
            ("GET k", None),
        )

    def test_a_key_that_is_there_when_a_transaction_begins_stays_until_its_end(self) -> None:
        for ticks, sees in ((1.5, b"v"), (0.5, None)):
            with self.talk.store.atomic():
                expires_at = self.talk.store.now() + ticks * self.clock.tick
                self.talk.store.set(b"k", b"v", expires_at=expires_at)
            self.assert_replies(
                ("MULTI", b"OK"),
                *[("GET k", b"QUEUED")] * 20,
                ("EXEC", [sees] * 20),
                ("GET k", None),
            )

    def test_keys_with_one_deadline_are_there_or_gone_together(self) -> None:
        keys = [b"%d" % number for number in range(30)]
        names = " ".join(key.decode() for key in keys)
        for ticks in (0.5, 1.5):
            there = ticks > 1
            for line, expected in (
                (f"MGET {names}", [b"v" if there else None] * 30),
                (f"EXISTS {names}", 30 * there),
                (f"TOUCH {names}", 30 * there),
                (f"DEL {names}", 30 * there),
                ("DBSIZE", 30 * there),
                (f"MSETNX {names}", int(not there)),
            ):
                with self.talk.store.atomic():
                    expires_at = self.talk.store.now() + ticks * self.clock.tick
                    for key in keys:
                        self.talk.store.set(key, b"v", expires_at=expires_at)
                self.assert_replies((line, expected))
                self.ask("FLUSHALL")

    def test_a_command_looks_at_the_clock_once(self) -> None:
        far = int(self.clock.now) + 1_000_000
        for line in (
            "GET a", "MGET a b c", "STRLEN a", "GETRANGE a 0 1", "EXISTS a b c", "TOUCH a b c",
            "TYPE a", "TTL a", "PTTL a", "EXPIRETIME a", "DBSIZE", "KEYS *", "SCAN 0", "RANDOMKEY",
            "SET a 1", "SET a 1 NX", "SET a 1 XX EX 100", "SET a 1 GET PX 100000", "SET a 1 KEEPTTL",
            f"SET a 1 EXAT {far}", "SETNX a 1", "GETSET a 1", "GETDEL a", "GETEX a EX 100",
            "GETEX a PERSIST", "MSET a 1 b 2", "MSETNX a 1 x 2", "DEL a b c", "EXPIRE a 100 NX",
            "EXPIRE a 100 GT", f"EXPIREAT a {far}", "PERSIST a", "RENAME a b", "RENAMENX a x",
            "COPY a b REPLACE", "MOVE a 3", "OBJECT ENCODING a", "MEMORY USAGE a", "WATCH a",
        ):  # fmt: skip
            with self.subTest(line):
                self.assertLessEqual(self.readings(line), 1)

    def test_a_write_looks_at_the_clock_once(self) -> None:
        for line in (
            "SET a 1 EX 100", "SET a 1 PX 100", "SETEX a 100 1", "PSETEX a 100 1", "INCR a",
            "INCRBY a 5", "DECR a", "INCRBYFLOAT a 1.5", "APPEND a 1", "SETRANGE a 0 1",
        ):  # fmt: skip
            self.assertLessEqual(self.readings(line), 1, line)

    def readings(self, line: str) -> int:
        """Carry out a request on keys that will expire; return how often the clock was read."""
        self.ask("FLUSHALL")
        for key in (b"a", b"b", b"c"):
            self.talk.store.set(key, b"1", expires_at=self.clock.now + 10_000)
        before = self.clock.readings
        reply = self.ask(line)
        self.assertNotIsInstance(reply, str)  # a refusal
        self.ask("UNWATCH")
        return self.clock.readings - before


class WatchTest(CommandTest):
    def setUp(self) -> None:
        super().setUp()
        self.other = self.talk.another()

    def exec_runs(self) -> bool:
        """Carry out a transaction; tell whether it was, or was refused for a watched key."""
        self.assert_replies(("MULTI", b"OK"), ("PING", b"QUEUED"))
        reply = self.ask("EXEC")
        self.assertIn(reply, ([b"PONG"], NIL_ARRAY))
        return reply is not NIL_ARRAY

    def test_every_write_to_a_watched_key_makes_exec_refuse(self) -> None:
        for line in (
            "SET k v",
            "SET k new XX GET",
            "SETEX k 10 v",
            "GETSET k v",
            "GETDEL k",
            "GETEX k EX 10",
            "MSET a 1 k 2",
            "APPEND k ''",
            "SETRANGE k 0 x",
            "INCR k",
            "INCRBY k 0",
            "INCRBYFLOAT k 0",
            "DEL k",
            "UNLINK a k",
            "EXPIRE k 100",
            "EXPIRE k -1",
            "PEXPIREAT k 9999999999999",
            "RENAME k a",
            "RENAME other k",
            "COPY other k REPLACE",
            "MOVE k 5",
            "FLUSHDB",
            "FLUSHALL",
        ):
            with self.subTest(line):
                self.assert_replies(("FLUSHALL", b"OK"), ("MSET k 1 other 2", b"OK"))
                self.talk("WATCH", "k")
                self.ask(line, self.other)
                self.assertFalse(self.exec_runs())
                self.assertTrue(self.exec_runs(), "nothing is watched after EXEC")

    def test_what_changes_nothing_does_not_make_exec_refuse(self) -> None:
        for line in (
            "GET k",
            "MGET k",
            "TOUCH k",
            "GETEX k",
            "GETEX k PERSIST",
            "STRLEN k",
            "SET k v NX",
            "SETNX k v",
            "MSETNX k v a 1",
            "SETRANGE k 0 ''",
            "EXPIRE k 100 XX",
            "PERSIST k",
            "COPY k a",
            "RENAME k k",
            "RENAMENX other k",
            "MOVE k 0",
            "SET k v EX 0",
            "INCRBY k x",
            "DEL a",
            "SET a 1",
            "OBJECT ENCODING k",
            "WATCH k",
        ):
            with self.subTest(line):
                self.assert_replies(("FLUSHALL", b"OK"), ("MSET k 1 other 2", b"OK"))
                self.talk("WATCH", "k")
                self.ask(line, self.other)
                self.assertTrue(self.exec_runs())

    def test_a_key_that_was_missing_and_is_missing_again_has_changed(self) -> None:
        self.talk("WATCH", "k")
        self.ask("SET k v", self.other)
        self.ask("DEL k", self.other)
        self.assertFalse(self.exec_runs())

    def test_a_missing_key_that_stays_missing_has_not_changed(self) -> None:
        for line in ("DEL k", "FLUSHALL", "EXPIRE k 10", "RENAME k a", "GET k"):
            with self.subTest(line):
                self.talk("WATCH", "k")
                self.ask(line, self.other)
                self.assertTrue(self.exec_runs())

    def test_a_missing_key_that_comes_into_being_has_changed(self) -> None:
        for line in ("SETNX k v", "MSETNX k v", "RENAMENX other k", "COPY other k", "INCR k"):
            with self.subTest(line):
                self.assert_replies(("FLUSHALL", b"OK"), ("SET other 1", b"OK"), ("WATCH k", b"OK"))
                self.ask(line, self.other)
                self.assertFalse(self.exec_runs())

    def test_expiry_is_a_change_whoever_notices_it(self) -> None:
        for line in ("PING", "GET k", "DBSIZE"):
            with self.subTest(line):
                self.assert_replies(("SET k v EX 10", b"OK"), ("WATCH k", b"OK"))
                self.talk.clock.now += 10
                self.ask(line, self.other)
                self.assertFalse(self.exec_runs())

    def test_a_key_that_had_expired_before_it_was_watched_has_not_changed(self) -> None:
        self.ask("SET k v EX 10")
        self.talk.clock.now += 10
        self.ask("WATCH k")
        self.ask("DBSIZE", self.other)
        self.assertTrue(self.exec_runs())

    def test_eviction_is_a_change(self) -> None:
        self.talk = Conversation(max_bytes=3_000)
        self.assert_replies(("SET k v", b"OK"), ("WATCH k", b"OK"))
        number = 0
        while self.talk.store.evicted_keys == 0:
            self.talk("SET", f"other:{number}", "v")
            number += 1
        self.assertFalse(self.exec_runs())

    def test_ones_own_write_before_multi_is_a_change(self) -> None:
        self.assert_replies(("WATCH k", b"OK"), ("SET k v", b"OK"))
        self.assertFalse(self.exec_runs())

    def test_the_transactions_own_writes_are_none(self) -> None:
        self.assert_replies(
            ("WATCH k", b"OK"),
            ("MULTI", b"OK"),
            ("SET k 1", b"QUEUED"),
            ("INCR k", b"QUEUED"),
            ("EXEC", [b"OK", 2]),
        )

    def test_a_change_between_multi_and_exec_counts(self) -> None:
        self.assert_replies(("WATCH a k", b"OK"), ("MULTI", b"OK"), ("SET a 1", b"QUEUED"))
        self.ask("SET k v", self.other)
        self.assert_replies(("EXEC", NIL_ARRAY), ("EXISTS a", 0))

    def test_watching_again_does_not_forget_a_change(self) -> None:
        self.ask("WATCH k")
        self.ask("SET k v", self.other)
        self.ask("WATCH k")
        self.assertFalse(self.exec_runs())

    def test_a_key_is_watched_in_the_database_it_was_watched_in(self) -> None:
        for watched_in, written_in, runs in ((0, 3, True), (3, 0, True), (3, 3, False)):
            with self.subTest(watched_in=watched_in, written_in=written_in):
                self.assert_replies((f"SELECT {watched_in}", b"OK"), ("WATCH k", b"OK"))
                self.assert_replies(("SELECT 7", b"OK"))
                self.assert_replies(
                    (f"SELECT {written_in}", b"OK"), ("SET k v", b"OK"), talk=self.other
                )
                self.assertEqual(self.exec_runs(), runs)

    def test_flushes_count_only_for_the_databases_they_empty(self) -> None:
        for watched_in, line, runs in (
            (0, "FLUSHDB", True),
            (3, "FLUSHDB", False),
            (0, "FLUSHALL", False),
            (7, "FLUSHALL", False),
        ):
            with self.subTest(watched_in=watched_in, line=line):
                self.assert_replies((f"SELECT {watched_in}", b"OK"), ("SET k v", b"OK"))
                self.ask("WATCH k")
                self.assert_replies(("SELECT 3", b"OK"), (line, b"OK"), talk=self.other)
                self.assertEqual(self.exec_runs(), runs)

    def test_a_move_changes_the_key_in_both_databases(self) -> None:
        self.ask("SELECT 5", self.other)
        for watched_in in (0, 5):
            with self.subTest(watched_in=watched_in):
                self.assert_replies(("FLUSHALL", b"OK"), (f"SELECT {watched_in}", b"OK"))
                self.ask("WATCH k")
                self.assert_replies(("SET k v", b"OK"), ("MOVE k 0", 1), talk=self.other)
                self.assertFalse(self.exec_runs())

    def test_unwatch_discard_exec_and_reset_forget_what_was_watched(self) -> None:
        for lines in (("UNWATCH",), ("MULTI", "DISCARD"), ("MULTI", "EXEC"), ("RESET",)):
            with self.subTest(lines):
                self.ask("WATCH k")
                for line in lines:
                    self.ask(line)
                self.ask("SET k v", self.other)
                self.assertTrue(self.exec_runs())

    def test_an_aborted_exec_forgets_what_was_watched_too(self) -> None:
        self.assert_replies(("WATCH k", b"OK"), ("MULTI", b"OK"), ("SET", wrong_arity("set")))
        self.ask("SET k v", self.other)
        self.assert_replies(("EXEC", EXECABORT))
        self.assertTrue(self.exec_runs())

    def test_unwatch_inside_multi_is_queued(self) -> None:
        self.assert_replies(("MULTI", b"OK"), ("UNWATCH", b"QUEUED"), ("EXEC", [b"OK"]))
        self.assert_replies(("UNWATCH x", wrong_arity("unwatch")))

    def test_two_clients_that_watch_one_key_do_not_disturb_each_other(self) -> None:
        self.ask("WATCH k")
        self.ask("WATCH k", self.other)
        self.ask("UNWATCH", self.other)
        self.ask("SET k v", self.other)
        self.assertFalse(self.exec_runs())

    def test_a_client_that_leaves_takes_its_watches_along(self) -> None:
        self.ask("WATCH k missing", self.other)
        watched = "watching_clients:1\r\ntotal_watched_keys:2"
        self.assertIn(watched, self.talk("INFO", "clients"))
        self.other.instance.dismiss(self.other.session)
        self.assertIn("total_watched_keys:0", self.talk("INFO", "clients"))
        self.talk.store.check()  # finds a version that nobody holds


class LimitsTest(CommandTest):
    def test_a_transaction_that_grows_too_large_is_aborted(self) -> None:
        self.talk = Conversation(max_value_bytes=1_000_000)
        self.talk("MULTI")
        for _ in range(3):
            self.assertEqual(self.talk("SET", "k", "v" * 999_000), b"QUEUED")
        self.talk("SET", "k", "v" * 999_000)
        self.assertIn("larger than 4000000 bytes", self.talk.error("SET", "k", "v" * 999_000))
        self.assertEqual(self.talk.error("EXEC"), EXECABORT)
        self.assertEqual(self.talk("SET", "k", "v"), b"OK")

    def test_a_connection_may_watch_many_keys_but_not_any_number(self) -> None:
        self.assertEqual(self.talk("WATCH", *(f"k{n}" for n in range(10_000))), b"OK")
        self.assertIn("10000 keys", self.talk.error("WATCH", "one more"))


class NoRoomTest(CommandTest):
    """As in Redis, a store without room refuses what may need some before it is queued."""

    OOM = "OOM command not allowed when used memory > 'maxmemory'."

    def setUp(self) -> None:
        super().setUp()
        self.ask("SET a 1")
        self.talk.store.policy = EvictionPolicy.NOEVICTION
        self.limit = self.talk.store.used_bytes
        self.talk.store.max_bytes = self.limit

    def test_what_is_refused_while_queueing_aborts_the_transaction(self) -> None:
        self.assert_replies(
            ("MULTI", b"OK"),
            ("GET a", b"QUEUED"),
            ("SET b 1", self.OOM),
            ("DEL a", b"QUEUED"),
            ("EXEC", EXECABORT),
            ("EXISTS a", 1),
        )

    def test_what_needs_no_room_is_carried_out(self) -> None:
        self.assert_replies(
            ("MULTI", b"OK"), ("GET a", b"QUEUED"), ("DEL a", b"QUEUED"), ("EXEC", [b"1", 1])
        )

    def test_discard_and_reset_never_fail(self) -> None:
        self.assert_replies(
            ("MULTI", b"OK"), ("SET b 1", self.OOM), ("DISCARD", b"OK"),
            ("MULTI", b"OK"), ("SET b 1", self.OOM), ("RESET", b"RESET"), ("GET a", b"1"),
        )  # fmt: skip

    def test_a_store_that_has_filled_up_since_refuses_exec(self) -> None:
        self.talk.store.max_bytes = 0
        self.assert_replies(("MULTI", b"OK"), ("SET b 1", b"QUEUED"))
        self.talk.store.max_bytes = self.limit
        abort = f"EXECABORT Transaction discarded because of: {self.OOM}"
        self.assert_replies(("EXEC", abort), ("EXISTS b", 0), ("EXEC", EXEC_WITHOUT_MULTI))

    def test_a_policy_that_may_evict_refuses_nothing(self) -> None:
        self.talk.store.policy = EvictionPolicy.ALLKEYS_LRU
        self.assert_replies(("MULTI", b"OK"), ("SET b 1", b"QUEUED"), ("EXEC", [b"OK"]))


class LongCommandsTest(CommandTest):
    """What takes long is put off to a thread of its own, but not in the middle of EXEC."""

    QUEUED = (
        ("DUMP", "k"), ("BITCOUNT", "k"), ("SCAN", 0, "COUNT", 5000), ("INFO",),
        ("COMMAND", "LIST"), ("MEMORY", "STATS"), ("LCS", "none", "k", "LEN"),
    )  # fmt: skip

    def setUp(self) -> None:
        super().setUp()
        self.talk("SET", "k", b"v" * 100_000)
        self.talk.session.at_leisure = False  # as on the thread of the event loop

    def test_exec_is_put_off_as_a_whole_and_then_carries_them_out(self) -> None:
        for request in self.QUEUED:
            self.talk("MULTI")
            self.talk("SET", "before", 1)
            self.assertEqual(self.talk(*request), b"QUEUED")
            with self.subTest(request), self.assertNoLogs("kvdb"):
                self.assertRaises(TakesLong, self.talk, "EXEC")
                self.talk.session.at_leisure = True
                replies = self.talk("EXEC")
                self.assertEqual(replies[0], b"OK")
                self.assertNotIsInstance(replies[1], CommandError)
            self.talk.session.at_leisure = False

    def test_what_turns_out_to_take_long_is_carried_out_at_its_place(self) -> None:
        self.talk("MULTI")
        self.talk("SET", "before", 1)
        self.talk("PUBLISH", "c", "m")
        with (
            mock.patch.object(self.talk.instance.hub, "count", return_value=10_000),
            self.assertNoLogs("kvdb"),
        ):
            self.assertEqual(self.talk("EXEC"), [b"OK", 0])
        self.assertFalse(self.talk.session.in_exec)
