"""SLOWLOG: what took long is kept, without passwords; and who measures it, at what price."""

from __future__ import annotations

import unittest

from kvdb.commands.instance import Instance
from kvdb.commands.overseer import NEVER_QUICK
from kvdb.config import Config
from kvdb.protocols.haus import Haus
from kvdb.protocols.memcached import Memcached
from kvdb.replies import OK
from kvdb.slowlog import SlowLog, shortened
from kvdb.spelling import HIDDEN, quoted, without_secrets
from kvdb.store import Store
from tests.command_case import CommandTest, plain, wrong_arity
from tests.support import Conversation, ManualClock, TickingClock, Wire, running_server


class ShorteningTest(unittest.TestCase):
    """As Redis cuts requests: 32 arguments, 128 bytes of each."""

    def test_short_requests_stay_as_they_are(self) -> None:
        words = [b"MSET", *[b"x" * 128] * 31]
        self.assertEqual(shortened(words), words)

    def test_a_long_word_ends_with_how_much_is_missing(self) -> None:
        self.assertEqual(shortened([b"x" * 200]), [b"x" * 128 + b"... (72 more bytes)"])

    def test_the_32nd_of_many_words_says_how_many_there_are(self) -> None:
        words = [b"%d" % number for number in range(61)]
        self.assertEqual(shortened(words), [*words[:31], b"... (30 more arguments)"])

    def test_33_words_are_one_too_many(self) -> None:
        self.assertEqual(shortened([b"a"] * 33), [*[b"a"] * 31, b"... (2 more arguments)"])


class SecretsTest(unittest.TestCase):
    def test_passwords_are_hidden_wherever_they_stand(self) -> None:
        for request, shown in (
            ("AUTH pw", "AUTH *"),
            ("auth user pw", "auth * *"),
            ("HELLO 3 AUTH user pw SETNAME me", "HELLO 3 AUTH * * SETNAME me"),
            ("hello 3 setname me auth user pw", "hello 3 setname me auth * *"),
            ("HELLO 3 AUTH user", "HELLO 3 AUTH *"),
            ("HELLO 3 SETNAME auth AUTH user pw", "HELLO 3 SETNAME auth * * *"),
            ("CONFIG SET requirepass pw maxmemory 1", "CONFIG SET requirepass * maxmemory 1"),
            ("config set maxmemory 1 RequirePass pw", "config set maxmemory 1 RequirePass *"),
            ("CONFIG GET requirepass", "CONFIG GET requirepass"),
            ("ACL SETUSER bob >pw on", "ACL SETUSER * * *"),
            ("SET AUTH pw", "SET AUTH pw"),
            ("", ""),
        ):
            with self.subTest(request):
                words = [word.encode() for word in request.split()]
                expected = [HIDDEN if word == "*" else word.encode() for word in shown.split()]
                self.assertEqual(list(without_secrets(words)), expected)

    def test_words_are_quoted_as_redis_does(self) -> None:
        self.assertEqual(
            quoted(b'a"\x01\n\r\t\\\a\b\xc3\xa4\x7f~ '),
            rb'"a\"\x01\n\r\t\\\a\b\xc3\xa4\x7f~ "',
        )


class TheLogTest(unittest.TestCase):
    def log(self, most: int, *numbers: int) -> SlowLog:
        log = SlowLog(most)
        for number in numbers:
            log.add(1000.5, number, [b"GET", b"k"], "127.0.0.1:5000", b"me")
        return log

    def test_the_youngest_come_first(self) -> None:
        log = self.log(128, 7, 8, 9)
        self.assertEqual([each.microseconds for each in log.latest(2)], [9, 8])
        self.assertEqual([each.number for each in log.latest(None)], [2, 1, 0])

    def test_the_oldest_goes_when_it_is_full(self) -> None:
        self.assertEqual([each.number for each in self.log(2, 7, 8, 9).latest(None)], [2, 1])

    def test_numbers_go_on_after_a_reset(self) -> None:
        log = self.log(128, 7, 8)
        log.reset()
        self.assertEqual(len(log), 0)
        log.add(1000.5, 9, [b"GET"], "", b"")
        self.assertEqual(log.latest(None)[0].number, 2)

    def test_a_smaller_log_keeps_the_youngest(self) -> None:
        log = self.log(128, 7, 8, 9)
        log.resize(1)
        self.assertEqual([each.microseconds for each in log.latest(None)], [9])


class SlowlogTest(CommandTest):
    """The clock advances by what a test says, each time that it is read."""

    def setUp(self) -> None:
        super().setUp()
        self.monotonic = TickingClock(tick=0)
        self.config = Config(data=None, slow_log_threshold=0)
        self.instance = Instance(
            Store(self.config.max_bytes, clock=ManualClock(5000.0)),
            self.config,
            monotonic=self.monotonic,
        )
        self.talk = Conversation(self.instance)

    def entries(self) -> list[list[bytes]]:
        return [each.words for each in self.instance.overseer.slow_log.latest(None)][::-1]

    def test_each_request_is_kept_with_what_it_took(self) -> None:
        self.ask("CLIENT SETNAME me")
        self.ask("SLOWLOG RESET")
        self.monotonic.tick = 0.0125
        self.ask("set k v")
        self.monotonic.tick = 0.0
        entry = plain(self.ask("SLOWLOG GET 1"))[0]
        self.assertEqual(entry[2:], [12500, [b"set", b"k", b"v"], b"127.0.0.1:50000", b"me"])
        self.assertEqual(entry[1], 5000)

    def test_passwords_are_hidden_in_what_multi_has_queued_too(self) -> None:
        for request in ("ACL SETUSER bob on >pw", "CONFIG SET requirepass pw", "CLIENT SETNAME me"):
            self.ask("MULTI")
            self.ask(request)
            self.ask("EXEC")
        shown = [words for words in self.entries() if words[0] in (b"ACL", b"CONFIG", b"CLIENT")]
        self.assertEqual(
            shown,
            [
                [b"ACL", b"SETUSER", HIDDEN, HIDDEN, HIDDEN],
                [b"CONFIG", b"SET", b"requirepass", HIDDEN],
                [b"CLIENT", b"SETNAME", b"me"],
            ],
        )

    def test_only_what_reaches_the_threshold_is_kept(self) -> None:
        self.ask("CONFIG SET slowlog-log-slower-than 1000")
        self.ask("SLOWLOG RESET")
        for self.monotonic.tick in (0.00099, 0.00101):
            self.ask(f"SET k {self.monotonic.tick}")
        self.assertEqual(self.entries(), [[b"SET", b"k", b"0.00101"]])

    def test_below_zero_nothing_is_kept(self) -> None:
        self.ask("CONFIG SET slowlog-log-slower-than -1")
        self.ask("SLOWLOG RESET")
        self.monotonic.tick = 100
        self.ask("SET k v")
        self.ask("KEYS *")
        self.assertEqual(self.entries(), [])

    def test_what_is_refused_before_it_is_carried_out_is_not_kept(self) -> None:
        for line in ("NOSUCH", "GET", "MULTI", "SET k v"):
            self.ask(line)
        self.assertEqual(self.entries(), [[b"MULTI"]])

    def test_errors_are_kept(self) -> None:
        self.ask("SET k v")
        self.ask("INCR k")
        self.assertEqual(self.entries(), [[b"SET", b"k", b"v"], [b"INCR", b"k"]])

    def test_of_a_transaction_each_request_is_kept_and_not_exec(self) -> None:
        for line in ("MULTI", "SET k v", "GET k", "EXEC"):
            self.ask(line)
        self.assertEqual(self.entries(), [[b"MULTI"], [b"SET", b"k", b"v"], [b"GET", b"k"]])

    def test_requests_that_come_together_are_kept_one_by_one(self) -> None:
        self.assertEqual(
            self.talk.bytes("SET a 1\r\n" * 3 + "GET a\r\n"), b"+OK\r\n" * 3 + b"$1\r\n1\r\n"
        )
        self.talk.bytes(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n" * 3)
        self.assertEqual(self.entries(), [[b"SET", b"a", b"1"]] * 3 + [[b"GET", b"a"]] * 4)

    def test_passwords_are_not_kept(self) -> None:
        for line in ("AUTH secret", "AUTH default secret", "HELLO 3 AUTH default secret"):
            self.ask(line)
        self.ask("CONFIG SET requirepass secret")
        self.assertNotIn(b"secret", b" ".join(word for each in self.entries() for word in each))

    def test_the_other_dialects_are_kept_too(self) -> None:
        for dialect, data, expected in (
            (
                Memcached,
                b"set k 0 0 1\r\nv\r\nget k\r\n",
                [[b"set", b"k", b"0", b"0", b"1", b"v"], [b"get", b"k"]],
            ),
            (Haus, b"PUT k a b\nAUTH pw\n", [[b"PUT", b"k", b"a b"], [b"AUTH", HIDDEN]]),
        ):
            with self.subTest(dialect):
                self.instance.overseer.slow_log.reset()
                dialect(Conversation(self.instance).session).receive(data)
                self.assertEqual(self.entries(), expected)
        self.instance.overseer.slow_log.reset()
        self.talk.bytes(
            '{"command": "SET", "args": {"key": "k", "value": "v"}}\n{"command": "START"}\n'
        )
        self.talk.bytes('{"command": "SET", "args": {"key": "k", "value": "v"}}\n')
        self.assertEqual(self.entries(), [[b"SET", b"k", b"v"], [b"START"], [b"SET", b"k", b"v"]])

    def test_commands_answer_as_redis_does(self) -> None:
        count = "ERR count should be greater than or equal to -1"
        wrong = "ERR unknown subcommand or wrong number of arguments for 'GET'. Try SLOWLOG HELP."
        self.assert_replies(
            ("SLOWLOG GET -2", count),
            ("SLOWLOG GET x", count),
            ("SLOWLOG GET 1 2", wrong),
            ("SLOWLOG LEN x", wrong_arity("slowlog|len")),
            ("SLOWLOG", wrong_arity("slowlog")),
            ("SLOWLOG FOO", "ERR unknown subcommand 'FOO'. Try SLOWLOG HELP."),
            ("SLOWLOG RESET", OK),
            ("SLOWLOG GET 0", []),
            ("SLOWLOG LEN", 2),
            ("CONFIG SET slowlog-max-len 1", OK),
            ("SLOWLOG LEN", 1),
        )
        for _ in range(20):
            self.ask("GET k")
        self.assertEqual(len(self.ask("SLOWLOG GET")), 1)
        self.ask("CONFIG SET slowlog-max-len 128")
        for _ in range(20):
            self.ask("GET k")
        self.assertEqual(len(self.ask("SLOWLOG GET")), 10)
        self.assertEqual(len(self.ask("SLOWLOG GET -1")), 23)


class WhoIsTimedTest(unittest.TestCase):
    """By default, whoever is quick is not asked."""

    def setUp(self) -> None:
        self.monotonic = ManualClock()
        self.config = Config(data=None)
        store = Store(self.config.max_bytes, clock=ManualClock())
        self.instance = Instance(store, self.config, monotonic=self.monotonic)
        self.talk = Conversation(self.instance)

    def test_by_default_no_request_is_measured(self) -> None:
        self.assertTrue(self.talk.session.plain)
        self.assertFalse(self.instance.overseen)

    def test_with_a_threshold_that_quick_requests_may_reach_every_one_is(self) -> None:
        self.talk("CONFIG", "SET", "slowlog-log-slower-than", NEVER_QUICK - 1)
        self.assertFalse(self.talk.session.plain)
        self.assertFalse(self.talk.another().session.plain)
        self.talk("CONFIG", "SET", "slowlog-log-slower-than", NEVER_QUICK)
        self.assertTrue(self.talk.session.plain)

    def test_after_a_long_round_every_request_is_measured_for_a_while(self) -> None:
        overseer = self.instance.overseer
        overseer.long_round()
        self.assertFalse(self.talk.session.plain)
        self.monotonic.now += 9
        self.instance.housekeeping()
        self.assertFalse(self.talk.session.plain)
        self.monotonic.now += 2
        self.instance.housekeeping()
        self.assertTrue(self.talk.session.plain)
        overseer.long_round()
        self.assertTrue(self.talk.session.plain, "a busy server has long rounds all the time")
        self.monotonic.now += 50
        overseer.long_round()
        self.assertFalse(self.talk.session.plain)

    def test_how_long_a_round_may_take_follows_the_threshold(self) -> None:
        limits: list[float | None] = []
        self.instance.overseer.on_round_limit = limits.append
        for threshold in (20_000, -1):
            self.talk("CONFIG", "SET", "slowlog-log-slower-than", threshold)
        self.assertEqual(limits, [0.02, None])

    def test_a_request_that_has_a_thread_of_its_own_is_measured(self) -> None:
        with (
            running_server(enable_debug_command="yes") as service,
            Wire(service.server.port) as wire,
        ):
            self.assertEqual(wire.ask(b"debug sleep 0.02\r\nSET k v\r\n", 10), b"+OK\r\n+OK\r\n")
            log = service.instance.overseer.slow_log
            (entry,) = log.latest(None)
            self.assertEqual(entry.words, [b"debug", b"sleep", b"0.02"])
            self.assertGreaterEqual(entry.microseconds, 20_000)

    def test_a_long_round_of_the_loop_is_noticed(self) -> None:
        with running_server() as service, Wire(service.server.port) as wire:
            loop = service.loop
            wire.ask(b"PING\r\n", 7)
            loop.longest_round = -1.0  # every round is too long
            wire.ask(b"PING\r\n", 7)
            wire.ask(b"PING\r\n", 7)
            self.assertTrue(service.instance.overseen)


if __name__ == "__main__":
    unittest.main()
