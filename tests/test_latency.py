"""LATENCY and the times of commands in INFO."""

from __future__ import annotations

import unittest

from kvdb.commands.instance import Instance
from kvdb.config import Config
from kvdb.latency import LatencyMonitor, Sample, Times, draw
from kvdb.replies import OK, Verbatim
from kvdb.store import Store
from tests.command_case import CommandTest, wrong_arity
from tests.support import Conversation, ManualClock, TickingClock


class TimesTest(unittest.TestCase):
    def times(self, *microseconds: float) -> Times:
        times = Times()
        for each in microseconds:
            times.add(round(each * 1000))
        return times

    def test_percentiles_are_right_to_two_percent(self) -> None:
        times = self.times(*range(1, 1001))
        for percent, exact in ((50, 500), (99, 990), (99.9, 999), (100, 1000)):
            with self.subTest(percent):
                self.assertLess(abs(times.percentile(percent) - exact), exact * 0.02)

    def test_a_bucket_is_named_by_its_upper_end_as_in_redis(self) -> None:
        self.assertEqual(self.times(6).percentile(50), 6.015)
        self.assertEqual(self.times(48).percentile(50), 48.127)

    def test_without_calls_there_is_nothing(self) -> None:
        self.assertEqual((Times().percentile(99), Times().cumulative()), (0.0, {}))

    def test_the_histogram_counts_up_in_powers_of_two(self) -> None:
        self.assertEqual(
            self.times(0.5, 7, 12, 40, 40, 1000).cumulative(), {1: 1, 8: 2, 16: 3, 66: 5, 1056: 6}
        )


class SpikesTest(unittest.TestCase):
    def test_of_one_second_the_worst_spike_counts(self) -> None:
        monitor = LatencyMonitor()
        for at, milliseconds in ((100.1, 20), (100.5, 30), (100.9, 25), (101.0, 10)):
            monitor.add("command", at, milliseconds)
        self.assertEqual(monitor.history("command"), [Sample(100, 30), Sample(101, 10)])
        self.assertEqual(monitor.latest(), [("command", Sample(101, 10), 30)])

    def test_the_last_160_spikes_are_kept(self) -> None:
        monitor = LatencyMonitor()
        for second in range(200):
            monitor.add("command", second, 1000 - second)
        self.assertEqual(monitor.history("command")[0].at, 40)
        self.assertEqual((len(monitor.history("command")), monitor.worst("command")), (160, 1000))

    def test_a_graph_reaches_from_the_lowest_to_the_highest(self) -> None:
        samples = [
            Sample(1000 - age, length) for age, length in ((70, 10), (9, 110), (8, 60), (0, 10))
        ]
        self.assertEqual(
            draw("command", samples, 500, 1000.0).splitlines(),
            [
                "command - high 110 ms, low 10 ms (all time high 500 ms)",
                "-" * 80,
                " #  ",
                " |_ ",
                " || ",
                "_||_",
                "    ",
                "1980",
                "msss",
            ],
        )


class LatencyTest(CommandTest):
    def setUp(self) -> None:
        super().setUp()
        self.monotonic = TickingClock(tick=0)
        config = Config(data=None, enable_debug_command="yes")
        store = Store(config.max_bytes, clock=ManualClock(5000.0))
        self.instance = Instance(store, config, monotonic=self.monotonic)
        self.talk = Conversation(self.instance)

    def take(self, seconds: float, *lines: str) -> None:
        self.monotonic.tick = seconds
        for line in lines:
            self.ask(line)
        self.monotonic.tick = 0

    def test_what_reaches_the_threshold_is_a_spike(self) -> None:
        self.ask("CONFIG SET latency-monitor-threshold 20")
        self.take(0.019, "GET k", "KEYS *")
        self.assertEqual(self.ask("LATENCY LATEST"), [])
        self.take(0.030, "GET k", "KEYS *")
        self.assertEqual(
            self.ask("LATENCY LATEST"),
            [[b"fast-command", 5000, 30, 30], [b"command", 5000, 30, 30]],
        )
        self.assertEqual(self.ask("LATENCY HISTORY command"), [[5000, 30]])
        self.assertIn("command - high 30 ms", self.ask("LATENCY GRAPH command"))
        report = self.ask("LATENCY DOCTOR")
        self.assertIs(type(report), Verbatim)
        self.assertIn("1. fast-command: 1 latency spikes (average 30ms", report)
        self.assert_replies(
            ("LATENCY RESET command nosuch", 1), ("LATENCY RESET", 1), ("LATENCY LATEST", [])
        )

    def test_it_is_off_until_a_threshold_is_set(self) -> None:
        self.assertTrue(self.talk.session.plain)
        self.take(5, "KEYS *")
        self.assertEqual(self.ask("LATENCY LATEST"), [])
        self.assertIn("Latency monitoring is disabled", self.ask("LATENCY DOCTOR"))
        self.ask("CONFIG SET latency-monitor-threshold 20")
        self.assertIn("no latency spike was observed", self.ask("LATENCY DOCTOR"))

    def test_commands_answer_as_redis_does(self) -> None:
        self.assert_replies(
            ("LATENCY HISTORY", wrong_arity("latency|history")),
            ("LATENCY HISTORY command", []),
            ("LATENCY GRAPH foo", "ERR No samples available for event 'foo'"),
            ("LATENCY RESET foo", 0),
            ("LATENCY FOO", "ERR unknown subcommand 'FOO'. Try LATENCY HELP."),
            ("LATENCY HISTOGRAM nosuch", {}),
            ("CONFIG SET latency-monitor-threshold -1",
             "ERR CONFIG SET failed (possibly related to argument 'latency-monitor-threshold') - "
             "argument must be between 0 and 9223372036854775807 inclusive"),
            ("CONFIG SET latency-tracking foo",
             "ERR CONFIG SET failed (possibly related to argument 'latency-tracking') - "
             "argument must be 'yes' or 'no'"),
        )  # fmt: skip

    def test_times_of_commands_are_kept_if_that_is_wanted(self) -> None:
        self.take(0.001, "GET k")
        self.assertFalse(self.instance.overseen)
        self.ask("CONFIG SET latency-tracking yes")
        self.ask("CONFIG RESETSTAT")
        self.take(0.001, "SET k v", "SET k w", "INCR k", "CLIENT ID")
        self.ask("GET")
        info = self.ask("INFO commandstats latencystats").splitlines()
        for line in (
            "cmdstat_set:calls=2,usec=2000,usec_per_call=1000.00,rejected_calls=0,failed_calls=0",
            "cmdstat_incr:calls=1,usec=1000,usec_per_call=1000.00,rejected_calls=0,failed_calls=1",
            "cmdstat_client|id:calls=1,usec=1000,usec_per_call=1000.00,rejected_calls=0,failed_calls=0",
            "cmdstat_get:calls=0,usec=0,usec_per_call=0.00,rejected_calls=1,failed_calls=0",
            "latency_percentiles_usec_set:p50=1007.615,p99=1007.615,p99.9=1007.615",
        ):
            self.assertIn(line, info)
        self.assertFalse([line for line in info if line.startswith("latency_percentiles_usec_get")])
        self.assertEqual(
            self.ask("LATENCY HISTOGRAM set client"),
            {
                b"set": {b"calls": 2, b"histogram_usec": {1056: 2}},
                b"client|id": {b"calls": 1, b"histogram_usec": {1056: 1}},
            },
        )
        self.assertEqual(self.ask("CONFIG RESETSTAT"), OK)
        self.assertEqual(set(self.ask("LATENCY HISTOGRAM")), {b"config|resetstat"})

    def test_who_asks_for_the_times_has_them_kept_for_ten_minutes(self) -> None:
        for question in ("INFO commandstats", "INFO latencystats", "INFO all", "LATENCY HISTOGRAM"):
            with self.subTest(question):
                self.setUp()
                self.take(0.001, "GET k")
                self.assertNotIn("cmdstat_get", str(self.ask(question)))
                self.take(0.001, "GET k")
                self.assertEqual(self.ask("LATENCY HISTOGRAM get")[b"get"][b"calls"], 1)
                self.monotonic.now += 599
                self.instance.housekeeping()
                self.assertTrue(self.instance.overseen)
                self.monotonic.now += 2
                self.instance.housekeeping()
                self.assertFalse(self.instance.overseen)
                self.take(0.001, "GET k")
                self.assertEqual(self.ask("LATENCY HISTOGRAM get")[b"get"][b"calls"], 1)

    def test_who_asks_for_something_else_has_nothing_counted(self) -> None:
        for line in ("INFO", "INFO stats", "INFO default", "LATENCY LATEST"):
            self.ask(line)
            self.assertFalse(self.instance.overseen)

    def test_each_request_of_many_that_come_together_is_counted(self) -> None:
        self.ask("CONFIG SET latency-tracking yes")
        self.talk.bytes(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n" * 50)
        self.assertEqual(self.instance.overseer.times.all()["get"].calls, 50)


if __name__ == "__main__":
    unittest.main()
