from __future__ import annotations

import contextlib
import gc
import os
import pickle
import socket
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import kvdb
from kvdb.client.command import method
from kvdb.client.commands import Commands
from kvdb.client.near_cache import LEASE, MAX_AGE, NearCache, Reading, is_immutable, named_keys
from kvdb.client.near_reader import NearReader
from kvdb.client.pipeline import Pipeline
from kvdb.client.serializers import JSON
from kvdb.unsafe_pickle import PICKLE
from tests.certificates import client_context, write_certificates
from tests.support import ManualClock, running_server, until

NEAR_THREAD = "kvdb near cache"


def near_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == NEAR_THREAD]


class NearCacheTest(unittest.TestCase):
    """The values by themselves: without a server, and with a clock that stands still."""

    def setUp(self) -> None:
        self.clock = ManualClock()
        self.cache = NearCache(3, self.clock)

    def read(self, *names: bytes, data: bytes | None = b"1", lifetime: int = -1) -> None:
        reading = self.ask(*names)
        self.answer(reading, data, lifetime)

    def ask(self, *names: bytes) -> Reading:
        reading = Reading(names, self.clock(), many=True)
        self.cache.mark(reading)
        return reading

    def answer(self, reading: Reading, data: bytes | None, lifetime: int = -1) -> None:
        reading.replies = [[data] * len(reading.names), *[lifetime] * len(reading.names)]
        self.cache.settle(reading)

    def kept(self, name: bytes) -> bytes | None:
        entry = self.cache.find(name)
        return None if entry is None else entry.data

    def test_what_was_read_is_found(self) -> None:
        self.read(b"a", b"b")
        self.assertEqual([self.kept(name) for name in (b"a", b"b", b"c")], [b"1", b"1", None])
        expected = {"hits": 2, "misses": 1, "invalidations": 0, "size": 2}
        self.assertEqual(self.cache.stats(), expected)

    def test_the_least_recently_used_is_evicted(self) -> None:
        self.read(b"a", b"b", b"c")
        self.kept(b"a")
        self.read(b"d")
        self.assertIsNone(self.kept(b"b"))
        self.assertEqual(self.kept(b"a"), b"1")
        self.assertEqual(self.cache.stats()["size"], 3)

    def test_an_answer_is_not_kept_if_its_key_was_dropped_while_it_was_on_its_way(self) -> None:
        for drop in (
            lambda: self.cache.hear([b"invalidate", [b"a"]]),
            lambda: self.cache.hear([b"invalidate", None]),
            lambda: self.cache.drop_named([[b"INCRBY", b"a", b"1"]]),
            lambda: self.cache.drop_named([[b"WHATEVER"]]),
            self.cache.stop,
        ):
            reading = self.ask(b"a")
            drop()
            self.answer(reading, b"old")
            self.assertIsNone(self.kept(b"a"))

    def test_the_first_of_two_answers_is_kept_until_the_second_is_another(self) -> None:
        first, second, third = self.ask(b"a"), self.ask(b"a"), self.ask(b"a")
        self.answer(first, b"1")
        self.answer(second, b"1")
        self.assertEqual(self.kept(b"a"), b"1")
        self.answer(third, b"2")
        self.assertIsNone(self.kept(b"a"))

    def test_a_value_is_not_found_after_its_time_to_live(self) -> None:
        self.read(b"a", lifetime=500)
        self.clock.now += 0.49
        self.assertEqual(self.kept(b"a"), b"1")
        self.clock.now += 0.01
        self.assertIsNone(self.kept(b"a"))

    def test_what_expired_or_was_made_between_two_requests_is_not_kept(self) -> None:
        self.read(b"a", lifetime=-2)
        self.read(b"b", data=None, lifetime=-1)
        self.assertEqual(self.cache.stats()["size"], 0)
        self.read(b"c", data=None, lifetime=-2)
        self.assertEqual(self.cache.stats()["size"], 1)

    def test_nothing_is_found_long_after_the_last_sign_of_the_server(self) -> None:
        self.read(b"a")
        self.clock.now += LEASE
        self.assertIsNone(self.kept(b"a"))
        self.cache.settle(Reading([], self.clock() - LEASE / 2, many=False))  # a PING's answer
        self.assertEqual(self.kept(b"a"), b"1")
        self.clock.now += LEASE / 2
        self.assertIsNone(self.kept(b"a"))

    def test_nothing_is_kept_for_ever(self) -> None:
        self.read(b"a")
        self.clock.now += MAX_AGE
        self.cache.settle(Reading([], self.clock(), many=False))
        self.assertIsNone(self.kept(b"a"))

    def test_two_values_cannot_be_mistaken_for_news(self) -> None:
        reading = Reading([b"a", b"b"], 0, many=True)
        self.assertEqual(reading.requests()[0], [b"MGET", b"a", b"b", b"b"])
        reading.replies = [[b"invalidate", None, None], -1, -2]
        self.assertEqual(reading.values, [b"invalidate", None])

    def test_only_what_nobody_can_change_is_kept_as_it_is(self) -> None:
        for value in ("a", b"a", 1, 1.5, True, None, (), (1, ("a", None))):
            self.assertTrue(is_immutable(value), value)
        for value in ([], {}, {1}, bytearray(), ([],), (1, ({},))):
            self.assertFalse(is_immutable(value), value)


CALLS: dict[str, Callable[[Any], Any]] = {
    "append": lambda db: db.append("a", b""),
    "bitcount": lambda db: db.bitcount("a"),
    "bitop": lambda db: db.bitop("AND", "a", "b", "c"),
    "compare_and_delete": lambda db: db.compare_and_delete("a", 1),
    "copy": lambda db: db.copy("a", "b"),
    "decr": lambda db: db.decr("a"),
    "delete": lambda db: db.delete("a", "b"),
    "dump": lambda db: db.dump("a"),
    "exists": lambda db: db.exists("a"),
    "expire": lambda db: db.expire("a", 5),
    "get": lambda db: db.get("a"),
    "get_and_delete": lambda db: db.get_and_delete("a"),
    "get_and_expire": lambda db: db.get_and_expire("a", 5),
    "get_and_set": lambda db: db.get_and_set("a", 1),
    "get_int": lambda db: db.get_int("a"),
    "get_many": lambda db: db.get_many(["a", "b"]),
    "getbit": lambda db: db.getbit("a", 1),
    "getrange": lambda db: db.getrange("a", 1, 2),
    "incr": lambda db: db.incr("a"),
    "incr_float": lambda db: db.incr_float("a", 1.5),
    "mget": lambda db: db.mget(["a", "b"]),
    "mset": lambda db: db.mset({"a": 1, "b": 2}),
    "persist": lambda db: db.persist("a"),
    "rename": lambda db: db.rename("a", "b"),
    "restore": lambda db: db.restore("a", b""),
    "set": lambda db: db.set("a", 1, ttl=5),
    "set_if_equal": lambda db: db.set_if_equal("a", 1, 2),
    "setbit": lambda db: db.setbit("a", 1, 1),
    "setrange": lambda db: db.setrange("a", 1, b""),
    "strlen": lambda db: db.strlen("a"),
    "touch": lambda db: db.touch("a", "b"),
    "ttl": lambda db: db.ttl("a"),
}


class NamedKeysTest(unittest.TestCase):
    """Whether the client knows which keys its own commands are about."""

    NO_KEY = ("ping", "publish", "size")
    ANY_KEY = ("clear", "command", "eval")

    def test_each_command_drops_the_keys_that_it_names(self) -> None:
        names = {"bitop": [b"a", b"b", b"c"]}
        two = ("copy", "delete", "get_many", "mget", "mset", "rename", "touch")
        for name, call in CALLS.items():
            pipe = Pipeline(lambda requests, repeatable: [], JSON)
            call(pipe)
            ((command, _),) = pipe._collected.commands
            expected = names.get(name, [b"a", b"b"] if name in two else [b"a"])
            self.assertEqual(named_keys(command.request), expected, name)

    def test_no_command_is_left_out(self) -> None:
        declared = {name for name, each in vars(Commands).items() if isinstance(each, method)}
        self.assertEqual(declared, {*CALLS, *self.NO_KEY, *self.ANY_KEY})

    def test_what_is_unknown_may_be_about_any_key(self) -> None:
        for request in ([b"EVAL", b"x", b"0"], [b"FLUSHDB"], [b"incr", b"a"], [b"SWAPDB"]):
            self.assertIsNone(named_keys(request))
        for request in ([b"PING"], [b"PUBLISH", b"a", b"b"], [b"MULTI"], [b"EXEC"]):
            self.assertEqual(named_keys(request), [])


class NearClientTest(unittest.TestCase):
    def setUp(self) -> None:
        self.port = self.enterContext(running_server()).server.port
        self.plain = self.enterContext(kvdb.Client(port=self.port))
        self.db = self.enterContext(kvdb.Client(port=self.port, near_cache=1000))

    def hits(self, read: Callable[[], object]) -> int:
        before = self.db.stats()["hits"]
        read()
        return self.db.stats()["hits"] - before

    def near(self) -> NearReader:
        assert self.db._near is not None
        return self.db._near

    def test_a_key_is_asked_for_once(self) -> None:
        self.plain.set("k", "v")
        self.assertEqual([self.db.get("k") for _ in range(5)], ["v"] * 5)
        expected = {"hits": 4, "misses": 1, "invalidations": 0, "size": 1}
        self.assertEqual(self.db.stats(), expected)

    def test_a_client_without_one_counts_nothing(self) -> None:
        self.plain.get("k")
        self.assertEqual(set(self.plain.stats().values()), {0})

    def test_a_write_of_another_client_takes_the_key_out(self) -> None:
        for write in (
            lambda: self.plain.set("k", 2),
            lambda: self.plain.incr("k"),
            lambda: self.plain.delete("k"),
            lambda: self.plain.rename("other", "k"),
            lambda: self.plain.clear(),
        ):
            self.plain.mset({"k": 1, "other": 5})
            until(lambda: self.db.get("k") == 1)
            write()
            until(lambda: self.db.get("k") == self.plain.get("k"))
            self.assertNotEqual(self.db.get("k"), 1)
        self.assertGreaterEqual(self.db.stats()["invalidations"], 5)

    def test_a_missing_key_is_remembered_as_missing_until_it_is_made(self) -> None:
        self.assertIsNone(self.db.get("k"))
        self.assertEqual(self.hits(lambda: self.assertEqual(self.db.get("k", 7), 7)), 1)
        self.plain.set("k", 1)
        until(lambda: self.db.get("k") == 1)

    def test_what_this_client_writes_it_reads_at_once(self) -> None:
        number = 0
        self.db.set("k", number)

        def set_it() -> None:
            self.db.set("k", number)

        def set_it_if_equal() -> None:
            self.db.set_if_equal("k", number - 1, number)

        def in_pipeline(atomic: bool) -> None:
            with self.db.pipeline(atomic=atomic) as pipe:
                pipe.incr("k")

        for write in (
            set_it,
            lambda: self.db.incr("k"),
            lambda: in_pipeline(False),
            lambda: in_pipeline(True),
            lambda: self.db.transaction(lambda tx: tx.queued.incr("k"), "k"),
            lambda: self.db.transaction(lambda tx: tx.incr("k")),
            lambda: self.db.update("k", lambda value: value + 1),
            lambda: self.db.eval("return redis.call('incr', 'k')"),
            lambda: self.db.command("incr", "k"),
            set_it_if_equal,
        ):
            for _ in range(20):
                number += 1
                self.assertEqual(self.db.get("k"), number - 1)
                write()
                self.assertEqual(self.db.get("k"), number)
        self.db.clear()
        self.assertIsNone(self.db.get("k"))

    def test_many_values_are_read_near_and_far(self) -> None:
        self.plain.mset({"a": 1, "b": [2], "n": None})
        self.db.get("a")
        names = ["b", "a", "x", "n", "a"]
        for _ in range(2):
            self.assertEqual(self.db.mget(names), [[2], 1, None, None, 1])
            self.assertEqual(self.db.get_many(iter(names)), {"a": 1, "b": [2], "n": None})
        self.assertEqual(self.db.mget([]), [])
        self.assertEqual(self.db.stats()["misses"], 1 + 3)
        self.plain.mset({str(i): i for i in range(600)})
        self.assertEqual(self.db.mget(map(str, range(600))), list(range(600)))

    def test_nobody_can_change_what_others_read(self) -> None:
        self.plain.set("k", {"list": [1]})
        self.db.get("k")["list"].append(2)
        self.db.get("k")["list"].append(3)
        self.assertEqual(self.db.get("k"), {"list": [1]})

    def test_tuples_of_immutable_values_are_not_read_anew(self) -> None:
        with kvdb.Client(port=self.port, near_cache=10, serializer=PICKLE) as db:
            db.set("k", ("a", 1))
            db.get("k")
            self.assertIs(db.get("k"), db.get("k"))

    def test_a_key_that_expires_is_gone_at_its_moment(self) -> None:
        self.plain.set("k", 1, ttl=0.05)
        began = time.monotonic()
        self.assertEqual(self.db.get("k"), 1)
        until(lambda: time.monotonic() > began + 0.06)
        self.assertIsNone(self.db.get("k"))

    def test_an_unreadable_value_is_an_error_each_time(self) -> None:
        self.plain.command("SET", "k", "{")
        for _ in range(3):
            with self.assertRaises(kvdb.SerializationError):
                self.db.get("k")

    def test_namespaces_share_it(self) -> None:
        self.db.namespace("a:").set("k", 1)
        self.assertEqual(self.db.namespace("a:").get("k"), 1)
        self.assertEqual(self.hits(lambda: self.db.get("a:k")), 1)

    def test_a_copy_in_another_process_has_one_of_its_own(self) -> None:
        with pickle.loads(pickle.dumps(self.db)) as copy:
            copy.get("k")
            copy.get("k")
            self.assertEqual(copy.stats()["hits"], 1)
        self.assertEqual(self.db.stats()["hits"], 0)

    def test_closing_leaves_nothing_behind(self) -> None:
        self.db.get("k")
        self.assertEqual(len(near_threads()), 1)
        self.db.close()
        self.assertEqual(near_threads(), [])
        with self.assertRaises(kvdb.Disconnected):
            self.db.get("k")
        self.assertEqual(near_threads(), [])

    def test_a_forgotten_client_ends_its_thread(self) -> None:
        with mock.patch("kvdb.client.near_reader._PING_EVERY", 0.01):
            client = kvdb.Client(port=self.port, near_cache=10)
            client.get("k")
            connection = client._near._connection  # type: ignore[union-attr]
            del client
            gc.collect()
            until(lambda: near_threads() == [])
            connection.close()  # type: ignore[union-attr]

    def test_it_is_kept_true_by_signs_of_the_server_while_it_is_in_use(self) -> None:
        with mock.patch("kvdb.client.near_reader._PING_EVERY", 0.001):
            self.db.get("k")
            before = self.near().cache._trusted_until
            until(lambda: self.db.get("k") is None and self.near().cache._trusted_until > before)

    # --- trouble -----------------------------------------------------------------------------

    def break_connection(self) -> None:
        """Have the server end the connection that the cache depends on, and wait for it."""
        connection = self.near()._connection
        assert connection is not None
        connection.wake()
        until(lambda: self.near()._connection is not connection)

    def test_when_its_connection_breaks_everything_is_read_anew(self) -> None:
        self.plain.set("k", 1)
        self.db.get("k")
        self.break_connection()
        self.assertEqual(self.db.stats()["size"], 0)
        until(lambda: self.near()._connection is not None)
        self.plain.set("k", 2)
        self.assertEqual(self.db.get("k"), 2)
        self.assertEqual(self.hits(lambda: self.db.get("k")), 1)
        self.plain.set("k", 3)
        until(lambda: self.db.get("k") == 3)

    def test_without_its_connection_the_server_is_asked_each_time(self) -> None:
        refusal = kvdb.Disconnected("no")
        with mock.patch("kvdb.client.near_reader.PushConnection", side_effect=refusal):
            for number in range(3):
                self.plain.set("k", number)
                self.assertEqual(self.db.get("k"), number)
                self.assertEqual(self.db.mget(["k"]), [number])
        self.assertEqual(self.db.stats()["size"], 0)

    def test_who_waits_while_it_breaks_gets_an_answer_from_the_pool(self) -> None:
        self.plain.set("k", 1)
        self.db.get("other")
        with mock.patch("kvdb.client.push_connection.PushConnection.send"):  # nothing arrives
            thread = threading.Thread(target=self.db.get, args=("k",))
            thread.start()
            until(lambda: len(self.near()._queue) > 0)
        self.break_connection()
        thread.join(5)
        self.assertFalse(thread.is_alive())

    def test_a_server_that_does_not_track_makes_no_difference(self) -> None:
        self.plain.command("ACL", "SETUSER", "ann", "on", ">pw", "~*", "+@all", "-client|tracking")
        with kvdb.Client(port=self.port, user="ann", password="pw", near_cache=10) as ann:
            ann.set("k", 1)
            self.assertEqual([ann.get("k"), ann.get("k")], [1, 1])
            self.assertEqual(ann.stats()["hits"], 0)

    def test_a_server_that_falls_silent_is_noticed(self) -> None:
        clock = ManualClock()
        with mock.patch("kvdb.client.push_connection.PushConnection.receive", return_value=[]):
            reader = NearReader(self.db._pool.address, 10, JSON, clock)
            reader._connect()
            reader._send([b"k"], many=False)
            reader.run_pass()
            self.assertIsNotNone(reader._connection)
            clock.now += 5.1
            reader.run_pass()
        self.assertIsNone(reader._connection)

    @unittest.skipUnless(hasattr(os, "fork"), "only where processes can fork")
    def test_a_forked_child_has_one_of_its_own(self) -> None:
        self.plain.set("k", 1)
        self.db.get("k")
        ours, theirs = socket.socketpair()
        child = os.fork()
        if child == 0:
            with contextlib.suppress(BaseException):
                stats = [self.db.stats()["size"]]
                values = [self.db.get("k"), self.db.get("k")]
                stats += [self.db.stats()["hits"], len(near_threads())]
                theirs.sendall(repr((stats, values)).encode())
            os._exit(0)
        theirs.close()
        ours.settimeout(10)
        with ours:
            self.assertEqual(ours.recv(100), b"([0, 1, 1], [1, 1])")
        os.waitpid(child, 0)
        self.assertEqual(self.hits(lambda: self.db.get("k")), 1)


class TlsNearCacheTest(unittest.TestCase):
    def test_large_values_and_news_come_through_tls(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        write_certificates(folder)
        service = self.enterContext(running_server(tls_cert=folder / "server.pem"))
        options: Any = {"port": service.server.port, "tls": client_context(folder)}
        plain = self.enterContext(kvdb.Client("localhost", **options))
        db = self.enterContext(kvdb.Client("localhost", near_cache=100, **options))
        values = {str(number): str(number) * 20_000 for number in range(50)}
        plain.mset(values)
        for _ in range(2):
            self.assertEqual(db.get_many(values), values)
        self.assertEqual(db.stats()["hits"], 50)
        plain.set("7", "new")
        until(lambda: db.get("7") == "new")


class NearCacheRaceTest(unittest.TestCase):
    """Threads read through the near cache while another client writes."""

    def test_values_never_go_back_and_are_soon_true(self) -> None:
        port = self.enterContext(running_server()).server.port
        plain = self.enterContext(kvdb.Client(port=port))
        db = self.enterContext(kvdb.Client(port=port, near_cache=100))
        plain.mset({"a": 0, "b": 0})
        written = {"a": 0, "b": 0}  # what the server has confirmed
        since: dict[str, float] = {"a": 0.0, "b": 0.0}
        wrong: list[str] = []
        ends = threading.Event()

        def read(number: int) -> None:
            last = {"a": 0, "b": 0}
            while not ends.is_set():
                for name in ("a", "b"):
                    confirmed, moment, began = written[name], since[name], time.monotonic()
                    way = (number + last["a"]) % 8
                    if way == 0:
                        value = db.mget(["x", name])[1]
                    elif way == 1:
                        value = db.get_int(name)
                    else:
                        value = db.get(name)
                    if value < last[name]:
                        wrong.append(f"{name} went back from {last[name]} to {value}")
                    if value < confirmed and began > moment + LEASE:
                        wrong.append(f"{name} is {value}, {confirmed} is old")
                    last[name] = value

        threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        until_then = time.monotonic() + 0.5
        while time.monotonic() < until_then:
            for name in written:
                moment = time.monotonic()
                number = plain.incr(name)
                since[name], written[name] = moment, number
            if number % 50 == 0:  # and now and then the connection breaks
                connection = db._near._connection  # type: ignore[union-attr]
                if connection is not None:
                    connection.wake()
            ends.wait(0.001 * (number % 3))
        until(lambda: db.get("a") == written["a"] and db.get("b") == written["b"])
        ends.set()
        for thread in threads:
            thread.join(10)
        self.assertEqual(wrong, [])
        self.assertGreater(db.stats()["hits"], 0)
        self.assertGreater(db.stats()["invalidations"], 0)


if __name__ == "__main__":
    unittest.main()
