"""Client-side caching: who is told of which change, when, and in which order."""

from __future__ import annotations

import random
import threading
import time
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

import kvdb.commands  # noqa: F401  (fills the command table)
from kvdb.commands.instance import Instance
from kvdb.commands.tracking import MAX_PREFIXES
from kvdb.config import Config, Fsync
from kvdb.resp.replies import NEED_DATA, ReplyParser, encode_request
from kvdb.store import Store
from kvdb.tracking import Tracking
from tests.journal_case import JournalCase
from tests.support import Conversation, ManualClock, Wire, running_server
from tests.test_races import SCHEDULES, TurnLock, Turns

EVERYTHING = None
"""What a client is told when all keys have gone."""


class Reader(Conversation):
    """A client that speaks RESP3, and remembers what it is told."""

    def __init__(self, instance: Instance | None = None, version: int = 3) -> None:
        super().__init__(instance)
        self("HELLO", version)
        self.raw: list[bytes] = []
        self.session.push = self.raw.append

    def told(self) -> list[Any]:
        """Return what it was told since it was last asked: lists of keys, or EVERYTHING."""
        return [message[-1] for message in self.messages()]

    def messages(self) -> list[Any]:
        """As told(), but return whole messages."""
        self.instance.tracking.send()
        self.instance.tracking.check()
        parser = ReplyParser()
        parser.receive(b"".join(self.raw))
        self.raw.clear()
        messages = []
        while (message := parser.next_reply()) is not NEED_DATA:
            messages.append(message)
        return messages

    def track(self, *options: str | int) -> None:
        assert self("CLIENT", "TRACKING", "ON", *options) == b"OK"

    def figures(self) -> tuple[int, ...]:
        return tuple(self.instance.tracking.figures().values())


class TrackingCase(unittest.TestCase):
    def setUp(self) -> None:
        self.reader = Reader()
        self.other = self.reader.another()
        self.store = self.reader.store

    def another_reader(self, version: int = 3) -> Reader:
        return Reader(self.reader.instance, version)

    def assert_told(self, *expected: Any) -> None:
        self.assertEqual(self.reader.told(), list(expected))


class DefaultModeTest(TrackingCase):
    def setUp(self) -> None:
        super().setUp()
        self.reader.track()

    def test_who_has_read_a_key_is_told_once_that_it_has_changed(self) -> None:
        self.reader("GET", "k")  # that there is none is something to remember, too
        self.other("SET", "k", "1")
        self.assert_told([b"k"])
        self.other("SET", "k", "2")
        self.assert_told()  # it has nothing to forget any more
        self.reader("GET", "k")
        self.other("SET", "k", "3")
        self.assert_told([b"k"])

    def test_the_message_is_a_push(self) -> None:
        self.reader("GET", "k")
        self.other("SET", "k", "1")
        self.reader.instance.tracking.send()
        self.assertEqual(self.reader.raw, [b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n"])

    def test_every_kind_of_change_is_told(self) -> None:
        for change in (
            "SET k 1", "APPEND k 1", "INCR k", "SETRANGE k 2 x", "DEL k", "UNLINK k", "GETDEL k",
            "GETSET k 1", "GETEX k EX 10", "EXPIRE k 10", "PERSIST k", "RENAME k l", "RENAME l k",
            "COPY l k REPLACE", "MOVE k 1", "MSET a 1 k 2", "EXPIRE k -1", "SET k 1 EX 10",
        ):  # fmt: skip
            with self.subTest(change):
                self.other("MSET", "k", "1", "l", "1")
                self.other("EXPIRE", "k", "100")
                self.reader("GET", "k")
                self.other(*change.split())
                self.assert_told([b"k"])

    def test_what_changes_nothing_is_not_told(self) -> None:
        self.other("SET", "k", "1")
        self.reader("GET", "k")
        for request in ("SETNX k 2", "SET k 2 NX", "GET k", "TOUCH k", "INCR k x", "PERSIST k"):
            self.other(*request.split())
        self.assert_told()

    def test_all_commands_that_read_keys_count(self) -> None:
        for request, keys in (
            ("GET a", "a"), ("MGET a b c", "abc"), ("EXISTS a b", "ab"), ("TTL a", "a"),
            ("STRLEN a", "a"), ("GETRANGE a 0 1", "a"), ("GETRANGE a x y", "a"), ("TYPE a", "a"),
            ("OBJECT ENCODING a", "a"), ("MEMORY USAGE a", "a"), ("TOUCH a", "a"),
            ("GETEX a", ""), ("SET a 1", ""), ("KEYS *", ""), ("SCAN 0", ""), ("WATCH a", ""),
        ):  # fmt: skip
            with self.subTest(request):
                self.reader(*request.split())
                self.other("MSET", "a", "1", "b", "1", "c", "1")
                self.assert_told(*([key.encode()] for key in keys))

    def test_what_it_changes_itself_is_told_unless_it_asks_for_no_loop(self) -> None:
        self.reader("GET", "k")
        self.reader("SET", "k", "1")
        self.assert_told([b"k"])
        self.reader.track("NOLOOP")
        self.reader("GET", "k")
        self.reader("SET", "k", "1")
        self.reader("MULTI")
        self.reader("GET", "k")
        self.reader("SET", "k", "2")
        self.reader("EXEC")
        self.assert_told()
        self.reader("GET", "k")
        self.other("SET", "k", "1")
        self.assert_told([b"k"])

    def test_a_flush_is_told_as_such_and_forgets_all_keys(self) -> None:
        for flush in ("FLUSHALL", "FLUSHDB"):
            self.reader("GET", "k")
            self.other(flush)
            self.other("SET", "k", "1")
            self.assert_told(EVERYTHING)

    def test_expiry_is_told_when_it_happens(self) -> None:
        self.other("SET", "k", "1", "PX", "1000")
        self.other("SET", "l", "1", "PX", "1000")
        self.reader("MGET", "k", "l")
        self.reader.clock.now += 0.999
        self.store.expire_due()
        self.assert_told()
        self.reader.clock.now += 0.001
        self.other("GET", "l")  # somebody finds it
        self.assert_told([b"l"])
        self.store.expire_due()  # the reaper does
        self.assert_told([b"k"])

    def test_to_find_that_a_key_has_expired_is_no_change_of_what_was_read(self) -> None:
        self.other("SET", "k", "1", "PX", "1000")
        self.reader.clock.now += 1
        self.assertIsNone(self.reader("GET", "k"))
        self.assert_told()
        self.other("SET", "k", "1")
        self.assert_told([b"k"])

    def test_eviction_is_told(self) -> None:
        self.other("SET", "k", "1")
        self.reader("GET", "k")
        self.store.max_bytes = 1
        self.assert_told([b"k"])

    def test_a_name_counts_whatever_its_database(self) -> None:
        self.reader("GET", "k")
        self.other("SELECT", "1")
        self.other("SET", "k", "1")
        self.assert_told([b"k"])
        self.reader("SELECT", "2")
        self.reader("GET", "k")
        self.other("DEL", "k")
        self.assert_told([b"k"])

    def test_a_transaction_is_seen_in_its_order(self) -> None:
        self.reader("MULTI")
        self.reader("SET", "a", "1")
        self.reader("GET", "a")  # reads what it has written: nothing to be told
        self.reader("GET", "b")
        self.reader("SET", "b", "1")
        self.reader("EXEC")
        self.assert_told([b"b"])
        self.other("MSET", "a", "2", "b", "2")
        self.assert_told([b"a"])

    def test_one_that_begins_in_the_middle_of_a_transaction_hears_what_follows(self) -> None:
        reader = self.another_reader()
        reader("MULTI")
        reader("SET", "a", "1")
        reader("CLIENT", "TRACKING", "ON")
        reader("MGET", "a", "b")
        reader("SET", "b", "1")
        reader("EXEC")
        self.assertEqual(reader.told(), [[b"b"]])

    def test_one_that_begins_hears_nothing_of_what_the_transaction_has_done_before(self) -> None:
        for others in (True, False):  # whether anybody listens before it
            for mode in ("", "BCAST"):
                if not others:
                    self.reader("RESET")
                    self.store.add_listener(lambda step, facts: None)
                reader = self.another_reader()
                reader("MULTI")
                reader("SET", "a", "1")
                reader("FLUSHALL")
                reader("SET", "a", "2")
                reader("CLIENT", "TRACKING", "ON", *mode.split())
                reader("GET", "a")
                reader("EXEC")
                with self.subTest(mode, others=others):
                    self.assertEqual(reader.told(), [])
                reader("RESET")

    def test_one_that_ends_in_the_middle_of_a_transaction_can_begin_again(self) -> None:
        for request in ("MULTI", "SET a 1", "GET a", "CLIENT TRACKING OFF", "EXEC"):
            self.reader(*request.split())
        self.reader.track()
        self.reader("GET", "a")
        self.other("SET", "a", "2")
        self.assert_told([b"a"])

    def test_runs_of_gets_that_arrive_together_are_tracked_each(self) -> None:
        names = [b"%d" % number for number in range(100)]
        self.reader.bytes(b"".join(encode_request([b"GET", name]) for name in names))
        for name in names:
            self.other("SET", name, "1")
        self.assert_told(*([name] for name in names))

    def test_it_ends_with_off_with_reset_and_with_the_connection(self) -> None:
        for end in (
            lambda reader: reader("CLIENT", "TRACKING", "OFF"),
            lambda reader: reader("RESET"),
            lambda reader: reader.instance.dismiss(reader.session),
        ):
            reader = self.another_reader()
            reader.track("BCAST", "PREFIX", "p")
            one_by_one = self.another_reader()
            one_by_one.track()
            for each in (reader, one_by_one):
                each("GET", "k")
                end(each)
            self.other("MSET", "k", "1", "p", "1")
            self.assertEqual(reader.told() + one_by_one.told(), [])
            self.assertEqual(self.reader.figures()[3], 0)
        self.assertEqual(self.reader.figures()[0], 1)
        self.reader("RESET")
        self.assertEqual(self.reader.figures(), (0, 0, 0, 0))
        self.assertEqual(self.store._feed.listeners, ())

    def test_many_short_lived_readers_of_one_key_leave_nothing_behind(self) -> None:
        for _ in range(100):
            reader = self.another_reader()
            reader.track()
            reader("GET", "k")
            reader("RESET")
        self.reader("GET", "k")
        self.assertLess(self.reader.figures()[2], 10)
        self.reader.instance.tracking.check()


class OptTest(TrackingCase):
    def test_with_optin_only_what_follows_caching_yes_is_tracked(self) -> None:
        self.reader.track("OPTIN")
        self.reader("GET", "a")
        self.reader("CLIENT", "CACHING", "YES")
        self.reader("CLIENT", "ID")  # says nothing about the store
        self.reader("GET", "b")
        self.reader("GET", "c")
        self.other("MSET", "a", "1", "b", "1", "c", "1")
        self.assert_told([b"b"])

    def test_with_optout_what_follows_caching_no_is_not_tracked(self) -> None:
        self.reader.track("OPTOUT")
        self.reader("GET", "a")
        self.reader("CLIENT", "CACHING", "NO")
        self.reader("GET", "b")
        self.reader("GET", "c")
        self.other("MSET", "a", "1", "b", "1", "c", "1")
        self.assert_told([b"a"], [b"c"])

    def test_it_is_about_a_whole_transaction(self) -> None:
        self.reader.track("OPTIN")
        self.reader("CLIENT", "CACHING", "YES")
        self.reader("MULTI")
        self.reader("GET", "a")
        self.reader("GET", "b")
        self.reader("EXEC")
        self.reader("GET", "c")
        self.other("MSET", "a", "1", "b", "1", "c", "1")
        self.assert_told([b"a"], [b"b"])

    def test_another_request_takes_it_back(self) -> None:
        self.reader.track("OPTIN")
        self.reader("CLIENT", "CACHING", "YES")
        self.reader("PING")
        self.reader("GET", "a")
        self.other("SET", "a", "1")
        self.assert_told()


class BroadcastTest(TrackingCase):
    def test_keys_with_a_prefix_are_told_whoever_reads_them(self) -> None:
        self.reader.track("BCAST", "PREFIX", "a:", "PREFIX", "b:")
        self.other("MSET", "b:2", "1", "b:1", "1", "a:1", "1", "c:1", "1")
        self.assert_told([b"a:1"], [b"b:1", b"b:2"])
        self.other("DEL", "a:1", "a:2")
        self.assert_told([b"a:1"])

    def test_without_a_prefix_every_key_is_told(self) -> None:
        self.reader.track("BCAST")
        self.other("MSET", "x", "1", "", "1")
        self.assert_told([b"", b"x"])

    def test_what_changes_several_times_before_it_is_told_is_told_once(self) -> None:
        self.reader.track("BCAST")
        for _ in range(3):
            self.other("SET", "x", "1")
        self.assert_told([b"x"])

    def test_with_no_loop_its_own_changes_are_left_out(self) -> None:
        self.reader.track("BCAST", "NOLOOP")
        self.reader("SET", "mine", "1")
        self.assert_told()
        self.reader("SET", "mine", "1")
        self.other("SET", "theirs", "1")
        self.assert_told([b"theirs"])
        self.reader("SET", "mine", "1")
        self.other("SET", "mine", "1")  # it may know of that too late
        self.assert_told([b"mine"])

    def test_prefixes_can_be_added(self) -> None:
        self.reader.track("BCAST", "PREFIX", "a")
        self.other("SET", "b", "1")
        self.reader.track("BCAST", "PREFIX", "b")
        self.other("MSET", "a", "1", "b", "1")
        self.assert_told([b"a"], [b"b"])

    def test_who_only_listens_is_served_as_quickly_as_anybody(self) -> None:
        self.reader.track("BCAST")
        self.assertTrue(self.reader.session.ordinary)
        self.reader("CLIENT", "TRACKING", "OFF")
        self.reader.track("BCAST", "NOLOOP")
        self.assertFalse(self.reader.session.ordinary)


class RedirectTest(TrackingCase):
    def setUp(self) -> None:
        super().setUp()
        self.target = self.another_reader(version=2)

    def test_a_subscriber_gets_a_message_of_the_channel_in_place_of_the_reader(self) -> None:
        self.target.session.subscriptions = object()  # type: ignore[assignment]
        self.reader("HELLO", 2)
        self.reader.track("REDIRECT", self.target.session.id)
        self.reader("GET", "k")
        self.other("SET", "k", "1")
        self.other("FLUSHALL")
        channel = b"__redis__:invalidate"
        expected = [[b"message", channel, [b"k"]], [b"message", channel, EVERYTHING]]
        self.assertEqual(self.target.messages(), expected)
        self.assert_told()

    def test_who_is_no_subscriber_cannot_tell_a_message_from_a_reply(self) -> None:
        self.reader.track("REDIRECT", self.target.session.id)
        self.reader("GET", "k")
        self.other("SET", "k", "1")
        self.assertEqual(self.target.messages(), [])

    def test_with_resp3_nobody_has_to_subscribe(self) -> None:
        self.target("HELLO", 3)
        self.reader.track("REDIRECT", self.target.session.id)
        self.reader("GET", "k")
        self.other("SET", "k", "1")
        self.assertEqual(self.target.messages(), [[b"invalidate", [b"k"]]])

    def test_without_it_nobody_is_told_in_resp2(self) -> None:
        self.reader("HELLO", 2)
        self.reader.track()
        self.reader("GET", "k")
        self.other("SET", "k", "1")
        self.assertEqual(self.reader.messages(), [])

    def test_when_the_other_one_is_gone_the_reader_is_told_so(self) -> None:
        number = self.target.session.id
        self.reader.track("REDIRECT", number)
        self.reader("GET", "k")
        self.reader.instance.dismiss(self.target.session)
        self.other("SET", "k", "1")
        self.assertEqual(self.reader.messages(), [[b"tracking-redir-broken", number]])
        self.assertIn(b"broken_redirect", self.reader("CLIENT", "TRACKINGINFO")[b"flags"])
        self.assertRegex(self.reader("CLIENT", "LIST"), "flags=tR .* redir=" + str(number))
        self.reader.track()
        self.assertNotIn(b"broken_redirect", self.reader("CLIENT", "TRACKINGINFO")[b"flags"])


class CommandTest(TrackingCase):
    """Texts and replies are compared with the real server in tests/interop/interop_tracking.py."""

    def test_what_is_refused_changes_nothing(self) -> None:
        for options in (
            "FOO", "ON FOO", "ON REDIRECT", "ON REDIRECT 99", "ON PREFIX a", "ON OPTIN OPTOUT",
            "ON BCAST OPTIN", "ON BCAST PREFIX a PREFIX ab", "ON BCAST PREFIX x PREFIX a PREFIX a",
        ):  # fmt: skip
            with self.subTest(options):
                error = self.reader.error("CLIENT", "TRACKING", *options.split())
                self.assertTrue(error.startswith("ERR "), error)
                self.assertIsNone(self.reader.session.tracker)
        self.assertEqual(self.reader.figures(), (0, 0, 0, 0))

    def test_prefixes_are_so_few_that_a_write_is_soon_compared_with_all(self) -> None:
        names = [word for n in range(MAX_PREFIXES) for word in ("PREFIX", f"{n:03}:")]
        self.reader.track("BCAST", *names)
        error = self.reader.error("CLIENT", "TRACKING", "ON", "BCAST", "PREFIX", "one more")
        self.assertEqual(error, "ERR a client may name 100 prefixes")
        self.assertEqual(len(self.reader("CLIENT", "TRACKINGINFO")[b"prefixes"]), MAX_PREFIXES)

    def test_modes_cannot_be_changed_on_the_way(self) -> None:
        self.reader.track("OPTIN")
        for options in ("OPTOUT", "BCAST"):
            error = self.reader.error("CLIENT", "TRACKING", "ON", options)
            self.assertIn("You can't switch", error)
        self.reader.track()  # but to none
        self.reader.track("OPTOUT")

    def test_the_state_can_be_asked_for(self) -> None:
        self.assertEqual(self.reader("CLIENT", "GETREDIR"), -1)
        nothing = {b"flags": frozenset([b"off"]), b"redirect": -1, b"prefixes": []}
        self.assertEqual(self.reader("CLIENT", "TRACKINGINFO"), nothing)
        number = self.other.session.id
        self.reader.track("BCAST", "PREFIX", "b", "PREFIX", "a", "NOLOOP", "REDIRECT", number)
        self.assertEqual(self.reader("CLIENT", "GETREDIR"), number)
        info = self.reader("CLIENT", "TRACKINGINFO")
        self.assertEqual(info[b"flags"], frozenset([b"on", b"bcast", b"noloop"]))
        self.assertEqual((info[b"redirect"], info[b"prefixes"]), (number, [b"a", b"b"]))
        self.assertRegex(self.reader("CLIENT", "INFO"), f"flags=tB .* redir={number} ")

    def test_info_tells_how_much_there_is(self) -> None:
        self.reader.track()
        second, third = self.another_reader(), self.another_reader()
        second.track()
        third.track("BCAST", "PREFIX", "a", "PREFIX", "b")
        self.reader("MGET", "a", "b")
        second("GET", "a")
        text = self.other("INFO", "clients") + self.other("INFO", "stats")
        for line in (
            "tracking_clients:3", "tracking_total_keys:2", "tracking_total_items:3",
            "tracking_total_prefixes:2",
        ):  # fmt: skip
            self.assertIn(line, text)

    def test_what_is_tracked_takes_memory_and_gives_it_back(self) -> None:
        tracking = self.reader.instance.tracking
        self.reader.track()
        self.reader("GET", "k" * 1000)
        self.assertGreater(tracking.held_bytes, 1000)
        self.assertLess(tracking.held_bytes, 1300)
        self.other("FLUSHALL")
        self.assertEqual(tracking.held_bytes, 0)


class LimitTest(TrackingCase):
    def setUp(self) -> None:
        super().setUp()
        self.reader.track()

    def limit(self, number: int) -> None:
        reply = self.other("CONFIG", "SET", "tracking-table-max-keys", number)
        self.assertEqual(reply, b"OK")

    def test_keys_beyond_it_are_forgotten_and_their_reader_is_told(self) -> None:
        self.limit(3)
        names = [b"%d" % number for number in range(10)]
        self.reader("MGET", *names)
        told = [name for (name,) in self.reader.told()]
        self.assertEqual(len(set(told)), 7)
        self.assertEqual(self.reader.figures()[1:3], (3, 3))
        self.other("MSET", *(word for name in names for word in (name, b"1")))
        left = [name for (name,) in self.reader.told()]
        self.assertEqual(sorted(told + left), names)

    def test_chance_decides_which(self) -> None:
        self.limit(50)
        self.reader("MGET", *range(100))
        told = {int(name) for (name,) in self.reader.told()}
        self.assertEqual(len(told), 50)
        self.assertTrue(10 < len([number for number in told if number < 50]) < 40, told)

    def test_no_loop_does_not_hide_that_a_key_is_forgotten(self) -> None:
        self.reader.track("NOLOOP")
        self.limit(1)
        self.reader("MGET", "a", "b")
        self.assertEqual(len(self.reader.told()), 1)

    def test_lowered_it_holds_at_once(self) -> None:
        self.reader("MGET", *range(5000))
        self.limit(10)
        self.assertEqual(len(self.reader.told()), 4990)
        self.assertEqual(self.reader.figures()[1], 10)

    def test_zero_means_none(self) -> None:
        self.limit(0)
        self.reader("MGET", *range(100))
        self.assert_told()

    def test_it_is_shown_and_checked(self) -> None:
        name = "tracking-table-max-keys"
        self.assertEqual(self.other("CONFIG", "GET", name), {name.encode(): b"1000000"})
        for bad in ("x", "-1"):
            self.assertIn("CONFIG SET failed", self.other.error("CONFIG", "SET", name, bad))


class RefusedWriteTest(JournalCase):
    """What the disk refuses is undone: that is a change of what was read meanwhile."""

    def test_an_undone_write_is_told_to_who_has_read_it(self) -> None:
        self.open(Fsync.ALWAYS)
        reader = Reader(self.talk().instance)
        reader.track()
        reader("GET", "k")
        self.store.set(b"k", b"new")
        self.assertEqual(reader.told(), [[b"k"]])
        reader("GET", "k")
        self.disk.full = True
        self.write_down(refused=True)
        self.assertIsNone(self.store.get(b"k"))
        self.assertEqual(reader.told(), [[b"k"]])


class OrderTest(unittest.TestCase):
    """Two at once, in every order of their steps: what was read and has changed is told."""

    def course(self, requests: tuple[str, ...], write: str, schedule: str) -> tuple[Any, list[Any]]:
        store = Store(0, clock=ManualClock())
        lock = TurnLock(store._lock)
        store._lock = lock  # type: ignore[assignment]
        reader = Reader(Instance(store, Config(max_bytes=0), monotonic=ManualClock()))
        writer = reader.another()
        writer("SET", "k", "old")
        reader.track()
        replies: list[Any] = []
        turns = lock.turns = Turns(schedule)

        def run(name: str, work: Callable[[], None]) -> None:
            lock.racing[threading.get_ident()] = name
            try:
                work()
            finally:
                turns.leave(name)

        def read() -> None:
            for request in requests:
                replies.append(reader(*request.split()))

        works = (("a", read), ("b", lambda: writer(*write.split())))
        threads = [threading.Thread(target=run, args=work, daemon=True) for work in works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
        lock.racing.clear()
        return replies[-1], reader.told()

    def test_the_old_value_is_told_to_be_old_in_whatever_order_they_come(self) -> None:
        for requests in (
            ("GET k",), ("MGET j k",), ("STRLEN k",), ("MULTI", "GET k", "EXEC"), ("BITCOUNT k",),
        ):  # fmt: skip
            seen = set()
            for schedule in (*SCHEDULES, "aab", "aaab"):
                for write in ("SET k newer", "DEL k", "FLUSHALL"):
                    with self.subTest(requests, schedule=schedule, write=write):
                        before = Reader()
                        before("SET", "k", "old")
                        old = [before(*request.split()) for request in requests][-1]
                        reply, told = self.course(requests, write, schedule)
                        if reply == old:
                            self.assertTrue(told, "it keeps what is not true any more")
                        seen.add(reply == old)
            self.assertEqual(seen, {True, False}, requests)

    def test_that_would_be_noticed_if_reading_and_registering_were_two_steps(self) -> None:
        def carry_out(tracker: Any, command: Any, read: Any, *ignored: object) -> Any:
            reply = command()
            with tracker._tracking.store.atomic():
                tracker._tracking.end_call(tracker, read)
            return reply

        with mock.patch("kvdb.tracking.Tracker.carry_out", carry_out):
            outcomes = [self.course(("GET k",), "SET k newer", each) for each in SCHEDULES]
        self.assertIn((b"old", []), outcomes)


class Cache:
    """A client that keeps what it reads, as a library would: pushes are read with the replies."""

    def __init__(self, port: int, *options: bytes) -> None:
        self._wire = Wire(port)
        self._parser = ReplyParser()
        self.kept: dict[bytes, Any] = {}
        self.ask(b"HELLO", b"3")
        self.ask(b"CLIENT", b"TRACKING", b"ON", *options)

    def close(self) -> None:
        self._wire.socket.close()

    def ask(self, *request: bytes) -> Any:
        self._wire.socket.sendall(encode_request(request))
        while True:
            reply = self._next()
            if not self._is_push(reply):
                return reply

    def _next(self) -> Any:
        while (reply := self._parser.next_reply()) is NEED_DATA:
            data = self._wire.socket.recv(65536)
            assert data, "the connection has ended"
            self._parser.receive(data)
        return reply

    def _is_push(self, reply: Any) -> bool:
        if not (isinstance(reply, list) and reply and reply[0] == b"invalidate"):
            return False
        for name in self.kept.copy() if reply[1] is None else reply[1]:
            self.kept.pop(name, None)
        return True

    def get(self, name: bytes) -> None:
        """Read a key, and keep its value."""
        # The value counts from the moment at which the reply comes: what was told before it is
        # about what was kept before it.
        self.kept[name] = self.ask(b"GET", name)

    def get_many(self, names: list[bytes]) -> None:
        self._wire.socket.sendall(b"".join(encode_request([b"GET", name]) for name in names))
        for name in names:
            while self._is_push(reply := self._next()):
                pass
            self.kept[name] = reply


class StalenessTest(unittest.TestCase):
    """Whatever is done, in whatever order: what a client keeps is true once it has been told all."""

    NAMES = tuple(b"%d" % number for number in range(20))
    ROUNDS = 30

    def test_what_is_kept_is_never_stale_once_all_is_told(self) -> None:
        seed = random.randrange(10**9)
        with running_server(max_bytes=2500) as service, self.subTest(seed=seed):
            port = service.config.port
            assert port is not None
            caches = [Cache(port), Cache(port), Cache(port, b"BCAST"), Cache(port, b"NOLOOP")]
            service.instance.tracking.max_keys = 15
            stop = threading.Event()
            pauses = [threading.Barrier(3, timeout=20), threading.Barrier(3, timeout=20)]
            errors: list[BaseException] = []

            def write(number: int) -> None:
                chance = random.Random(seed + number)
                wire = Wire(port)
                try:
                    for _ in range(self.ROUNDS):
                        for _ in range(50):
                            self.write_something(wire, chance)
                        for barrier in pauses:
                            barrier.wait()
                except BaseException as error:
                    errors.append(error)
                    for barrier in pauses:
                        barrier.abort()
                finally:
                    wire.socket.close()

            writers = [threading.Thread(target=write, args=(number,)) for number in (1, 2)]
            for writer in writers:
                writer.start()
            chance = random.Random(seed)
            try:
                for _ in range(self.ROUNDS):
                    for _ in range(40):
                        cache = chance.choice(caches)
                        if chance.random() < 0.7:
                            cache.get(chance.choice(self.NAMES))
                        else:
                            cache.get_many(chance.choices(self.NAMES, k=8))
                    pauses[0].wait()  # nobody writes now
                    self.assert_nothing_is_stale(service, caches)
                    pauses[1].wait()
            except BaseException:
                for barrier in pauses:
                    barrier.abort()
                raise
            finally:
                stop.set()
                for writer in writers:
                    writer.join(20)
                for cache in caches:
                    cache.close()
            self.assertEqual(errors, [])
            service.instance.tracking.check()

    def write_something(self, wire: Wire, chance: random.Random) -> None:
        name = chance.choice(self.NAMES)
        request = chance.choice((
            [b"SET", name, b"%d" % chance.randrange(10**9)],
            [b"SET", name, b"%d" % chance.randrange(10**9), b"PX", b"3"],
            [b"APPEND", name, b"x" * chance.randrange(100)],
            [b"DEL", name],
            [b"RENAME", name, chance.choice(self.NAMES)],
            [b"PEXPIRE", name, b"2"],
            [b"MSET", name, b"1", chance.choice(self.NAMES), b"2"],
            [b"FLUSHALL"] if chance.random() < 0.1 else [b"INCR", name],
        ))  # fmt: skip
        wire.socket.sendall(encode_request(request))
        self.assertTrue(wire.socket.recv(4096))

    def assert_nothing_is_stale(self, service: Any, caches: list[Cache]) -> None:
        """Once nothing more expires: what is kept is what is stored."""
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            # Each PING is answered behind what has been told before; a change may be on its way.
            for cache in caches:
                cache.ask(b"PING")
            stored = {name: service.store.get(name) for name in self.NAMES}
            stale = [
                (number, name, value, stored[name])
                for number, cache in enumerate(caches)
                for name, value in cache.kept.items()
                if value != stored[name]
            ]
            if not stale:
                return
        self.fail(f"stale: {stale}")


class SilenceTest(unittest.TestCase):
    def test_nobody_listens_to_the_store_while_nobody_tracks(self) -> None:
        client = Conversation()
        self.assertEqual(client.store._feed.listeners, ())
        client("CLIENT", "TRACKING", "ON")
        client("CLIENT", "TRACKING", "ON", "NOLOOP")
        self.assertEqual(len(client.store._feed.listeners), 1)
        client("CLIENT", "TRACKING", "OFF")
        self.assertEqual(client.store._feed.listeners, ())

    def test_what_is_put_aside_is_announced_once_until_it_is_sent(self) -> None:
        store = Store(0)
        tracking = Tracking(store, lambda number: None)
        tracking.on_messages = mock.Mock()
        reader = Reader(Instance(store, Config()))
        tracking.start(reader.session, mock.Mock(broadcast=True, redirect=0, no_loop=False), [b""])
        for _ in range(3):
            store.set(b"k", b"v")
        self.assertEqual(tracking.on_messages.call_count, 1)
        tracking.send()
        store.set(b"k", b"v")
        self.assertEqual(tracking.on_messages.call_count, 2)
