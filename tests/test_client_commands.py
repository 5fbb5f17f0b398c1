"""What the client's methods do on a server, one after the other."""

from __future__ import annotations

import datetime
import pickle
import ssl
import tempfile
import time
import unittest
from pathlib import Path
from unittest import mock

import kvdb
from kvdb.client.address import parse_url
from kvdb.client.command import method
from kvdb.client.commands import Commands
from kvdb.unsafe_pickle import PICKLE
from tests.certificates import client_context, write_certificates
from tests.support import running_server, until


class ServedTest(unittest.TestCase):
    """`self.db` is a client of an empty server; the interoperability suites have another one."""

    def setUp(self) -> None:
        self.port = self.serve()
        self.db = self.enterContext(kvdb.Client(port=self.port))

    def serve(self) -> int:
        """Run a server; return its port."""
        self.service = self.enterContext(running_server())
        return self.service.server.port

    def client(self, **options: object) -> kvdb.Client:
        return self.enterContext(kvdb.Client(port=self.port, **options))  # type: ignore[call-overload, no-any-return]


class CommandTest(ServedTest):
    def test_each_command_does_what_its_name_says(self) -> None:
        db = self.db
        data = b"\x01\x00"
        for number, (result, expected) in enumerate((
            (db.ping(), True), (db.set("a", {"x": 1}), True), (db.get("a"), {"x": 1}),
            (db.get("no"), None), (db.get("no", 7), 7), (db.exists("a"), True),
            (db.get_and_set("a", 5), {"x": 1}), (db.incr("a", 2), 7), (db.decr("a"), 6),
            (db.get("a"), 6), (db.incr_float("f", 0.5), 0.5), (db.get_int("a"), 6),
            (db.get_int("no"), None), (db.get_and_delete("a"), 6), (db.get("a"), None),
            (db.mset({"a": 1, "b": [2]}), True), (db.mset({"b": 1, "c": 1}, if_absent=True), False),
            (db.mget(["a", "no", "b"]), [1, None, [2]]), (db.get_many(["a", "no"]), {"a": 1}),
            (db.get_many([]), {}), (db.append("s", b"abc"), 3), (db.strlen("s"), 3),
            (db.getrange("s", 1, 2), b"bc"), (db.setrange("s", 1, b"X"), 3),
            (db.setbit("bits", 7, 1), 0), (db.getbit("bits", 7), 1), (db.bitcount("bits"), 1),
            (db.command("SET", "raw", data), b"OK"), (db.bitop("NOT", "not", "bits"), 1),
            (db.rename("raw", "moved"), True), (db.rename("moved", "a", if_absent=True), False),
            (db.copy("a", "copied"), True), (db.copy("a", "b"), False),
            (db.copy("a", "b", replace=True), True), (db.touch("a", "no"), 1), (db.touch(), 0),
            (db.execute("STRLEN", "moved"), 2), (db.publish("news", 1), 0),
            (db.eval("return {KEYS[1], ARGV[1]}", ["k"], [5]), [b"k", b"5"]),
            (db.size(), 8), (db.delete("a", "b", "no"), 2), (db.delete(), 0),
            (db.delete_matching("c*"), 1), (sorted(db.keys()), ["bits", "f", "moved", "not", "s"]),
            (db.clear(), None), (db.size(), 0),
        )):  # fmt: skip
            with self.subTest(number=number):
                self.assertEqual(result, expected)

    def test_a_dump_can_be_restored(self) -> None:
        self.db.set("a", "value")
        dumped = self.db.dump("a")
        assert dumped
        with self.assertRaisesRegex(kvdb.ServerError, "BUSYKEY"):
            self.db.restore("a", dumped)
        self.db.restore("a", dumped, replace=True, ttl=100)
        self.db.restore("b", dumped)
        self.assertEqual(self.db.mget("ab"), ["value", "value"])
        self.assertAlmostEqual(self.db.ttl("a") or 0, 100, delta=5)

    def test_many_keys_are_deleted_some_at_a_time(self) -> None:
        self.db.mset({f"user:{number}": number for number in range(2500)} | {"other": 1})
        self.assertEqual(self.db.delete_matching("user:*", count=100), 2500)
        self.assertEqual(self.db.keys(), ["other"])

    def test_every_declared_command_is_a_documented_method(self) -> None:
        for name, declared in vars(Commands).items():
            if isinstance(declared, method):
                with self.subTest(name):
                    self.assertTrue(declared.__doc__)
                    for cls in (kvdb.Client, kvdb.Pipeline, kvdb.Transaction):
                        function = getattr(cls, name)
                        self.assertEqual(
                            (function.__name__, function.__doc__), (name, declared.__doc__)
                        )


class ConditionTest(ServedTest):
    def test_a_set_may_depend_on_what_is_there(self) -> None:
        db = self.db
        for result, expected in (
            (db.set("k", 1, if_present=True), False), (db.set("k", 1, if_absent=True), True),
            (db.set("k", 2, if_absent=True), False), (db.set("k", 2, if_present=True), True),
            (db.set_if_equal("k", 1, 3), False), (db.set_if_equal("k", 2, {"a": 3}, ttl=50), True),
            (db.get("k"), {"a": 3}), (db.compare_and_delete("k", 3), False),
            (db.compare_and_delete("k", {"a": 3}), True), (db.get("k"), None),
            (db.set_if_equal("k", None, 3), False),
        ):  # fmt: skip
            self.assertEqual(result, expected)

    def test_a_stored_none_is_not_a_missing_key(self) -> None:
        missing = object()
        self.db.set("k", None)
        self.assertIsNone(self.db.get("k", missing))
        self.assertIs(self.db.get("no", missing), missing)
        self.assertEqual(self.db.get_many(["k", "no"]), {"k": None})


class TimeTest(ServedTest):
    def left(self, name: str) -> float:
        return self.db.ttl(name) or -1

    def test_a_time_is_a_number_a_timedelta_or_a_moment(self) -> None:
        in_a_minute = datetime.datetime.now(datetime.UTC) + datetime.timedelta(minutes=1)
        for ttl in (60, 60.0, datetime.timedelta(minutes=1), in_a_minute, in_a_minute.astimezone()):
            with self.subTest(ttl=ttl):
                for act in (
                    lambda ttl=ttl: self.db.set("k", 1, ttl=ttl),
                    lambda ttl=ttl: self.db.expire("k", ttl),
                    lambda ttl=ttl: self.db.get_and_expire("k", ttl),
                    lambda ttl=ttl: self.db.get_and_set("k", 1, ttl=ttl),
                    lambda ttl=ttl: self.db.set_if_equal("k", 1, 1, ttl=ttl),
                ):
                    self.assertTrue(act())
                    self.assertAlmostEqual(self.left("k"), 60, delta=5)
                    self.db.persist("k")

    def test_a_deadline_may_stay_or_go(self) -> None:
        self.db.set("k", 1, ttl=60)
        self.db.set("k", 2, keep_ttl=True)
        self.assertGreater(self.left("k"), 50)
        self.db.get_and_set("k", 3, keep_ttl=True)
        self.assertGreater(self.left("k"), 50)
        self.assertEqual(self.db.get_and_expire("k", None), 3)
        self.assertEqual(self.left("k"), -1)
        self.assertFalse(self.db.persist("k"))


class SerializerTest(ServedTest):
    def test_counters_and_values_meet_under_every_serializer(self) -> None:
        for serializer, read in (
            (kvdb.JSON, 7), (PICKLE, 7), (kvdb.TEXT, "7"), (kvdb.BYTES, b"7"),
            (kvdb.JSON.compressed(), 7), (PICKLE.compressed(), 7),
        ):  # fmt: skip
            with self.subTest(serializer.name):
                db = self.client(serializer=serializer)
                db.set("n", 5)
                self.assertEqual(db.incr("n", 2), 7)
                self.assertEqual((db.get("n"), db.get_int("n")), (read, 7))
                db.delete("n")

    def test_numbers_of_any_size_come_back(self) -> None:
        for serializer in (kvdb.JSON, PICKLE):
            db = self.client(serializer=serializer)
            for number in (2**63 - 1, -(2**63), 2**63, 10**30, -(10**30), 0, True, 1.5):
                db.set("n", number)
                self.assertEqual((db.get("n"), type(db.get("n"))), (number, type(number)))

    def test_a_client_travels_with_each_serializer(self) -> None:
        for serializer in (kvdb.JSON, kvdb.TEXT, kvdb.BYTES, PICKLE, kvdb.TEXT.compressed(50)):
            with pickle.loads(pickle.dumps(self.client(serializer=serializer))) as copy:
                value = b"x" * 100 if serializer is kvdb.BYTES else "x" * 100
                copy.set("k", value)
                self.assertEqual(copy.get("k"), value, serializer.name)

    def test_long_values_are_compressed_if_that_helps(self) -> None:
        db, plain = (
            self.client(serializer=kvdb.TEXT.compressed(above=100)),
            self.client(serializer=kvdb.TEXT),
        )
        for text in ("short", "x" * 10_000, "\0kvdb-zlib\0" + "looks like it", "", "ä" * 500):
            db.set("k", text)
            self.assertEqual(db.get("k"), text)
        db.set("k", "x" * 10_000)
        self.assertLess(db.strlen("k"), 200)
        plain.set("old", "y" * 5000)
        self.assertEqual(db.get("old"), "y" * 5000)

    def test_what_cannot_be_stored_is_refused_before_anything_is_sent(self) -> None:
        for serializer, value, reason in (
            (kvdb.JSON, object(), "object cannot be stored as JSON"),
            (kvdb.JSON, float("nan"), "float cannot be stored as JSON"),
            (kvdb.TEXT, {"a": 1}, "dict cannot be stored as text: only text and numbers"),
            (kvdb.BYTES, "text", "str cannot be stored as bytes: only bytes"),
            (PICKLE, lambda: 1, "function cannot be stored as pickle"),
        ):
            db = self.client(serializer=serializer)
            with self.assertRaisesRegex(kvdb.SerializationError, reason):
                db.set("k", value)
            self.assertTrue(db.ping())


class TransactionTest(ServedTest):
    def test_what_is_queued_is_one_step(self) -> None:
        self.db.set("account", 10)

        def pay(tx: kvdb.Transaction) -> int:
            left = tx.get("account") - 3
            tx.queued.set("account", left)
            tx.queued.incr("payments")
            return left

        self.assertEqual(self.db.transaction(pay, "account"), 7)
        self.assertEqual(self.db.mget(["account", "payments"]), [7, 1])

    def test_if_somebody_comes_between_it_is_tried_again(self) -> None:
        calls: list[int] = []

        def count(tx: kvdb.Transaction) -> None:
            calls.append(tx.get("n", 0))
            if len(calls) < 3:
                self.db.incr("n")  # somebody else
            tx.queued.set("n", calls[-1] + 10)

        self.db.transaction(count, "n")
        self.assertEqual((calls, self.db.get("n")), ([0, 1, 2], 12))

    def test_after_so_many_tries_there_is_a_conflict(self) -> None:
        def never(tx: kvdb.Transaction) -> None:
            self.db.incr("n")
            tx.queued.set("n", 0)

        with self.assertRaisesRegex(kvdb.Conflict, "3 times"):
            self.db.transaction(never, "n", tries=3)
        self.assertEqual(self.db.get("n"), 3)

    def test_an_error_in_the_function_changes_nothing_and_watches_nothing(self) -> None:
        def fail(tx: kvdb.Transaction) -> None:
            tx.queued.set("k", 1)
            raise KeyError("mine")

        with self.assertRaises(KeyError):
            self.db.transaction(fail, "k")
        self.assertIsNone(self.db.get("k"))
        self.assertIsNone(self.db.transaction(lambda tx: tx.get("k"), "k"))

    def test_nothing_is_watched_after_a_transaction(self) -> None:
        with running_server() as service, kvdb.Client(port=service.server.port) as db:
            db.transaction(lambda tx: tx.get("k"), "k")
            db.transaction(lambda tx: tx.queued.set("k", 1), "k")
            self.assertEqual(service.store._versions._watchers, {})

    def test_an_atomic_pipeline_is_one_step_or_nothing(self) -> None:
        with self.db.pipeline(atomic=True) as pipe:
            first, second = pipe.incr("a"), pipe.incr("a")
        self.assertEqual((first.value, second.value), (1, 2))
        pipe = self.db.pipeline(atomic=True)
        pipe.set("b", 1)
        pipe.command("NOSUCH")
        with self.assertRaisesRegex(kvdb.ServerError, "unknown command 'NOSUCH'"):
            pipe.execute()
        self.assertIsNone(self.db.get("b"))

    def test_a_later_has_no_value_before_the_pipeline_was_executed(self) -> None:
        pipe = self.db.pipeline()
        later, wrong = pipe.get("k"), pipe.command("NOSUCH")
        with self.assertRaisesRegex(RuntimeError, "has not been executed yet"):
            print(later.value)
        pipe.execute(return_errors=True)
        self.assertIsNone(later.value)
        with self.assertRaises(kvdb.ServerError):
            print(wrong.value)

    def test_update_replaces_a_value_by_what_a_function_makes_of_it(self) -> None:
        self.assertEqual(self.db.update("list", lambda old: [*(old or []), 1]), [1])
        self.db.expire("list", 60)
        self.assertEqual(self.db.update("list", lambda old: [*old, 2]), [1, 2])
        self.assertGreater(self.db.ttl("list") or 0, 50)
        self.db.update("list", lambda old: old, ttl=5)
        self.assertLess(self.db.ttl("list") or 9, 6)


class NamespaceTest(ServedTest):
    def test_keys_have_the_prefix_on_the_server_only(self) -> None:
        users = self.db.namespace("user:")
        users.set("1", "Ada")
        self.assertEqual((self.db.get("user:1"), users.get("1")), ("Ada", "Ada"))
        users.namespace(b"old:").set("2", "Bob")
        self.db.set("other", 1)
        self.assertEqual(sorted(users.keys()), ["1", "old:2"])
        self.assertEqual(users.get_many(["1", "2"]), {"1": "Ada"})
        with users.pipeline() as pipe:
            name = pipe.get("1")
        self.assertEqual(name.value, "Ada")
        self.assertEqual(users.transaction(lambda tx: tx.get("1"), "1"), "Ada")
        self.assertTrue(users.compare_and_delete("1", "Ada"))
        self.assertEqual(users.delete_matching("*"), 1)
        self.assertEqual(self.db.keys(), ["other"])

    def test_a_prefix_is_no_pattern(self) -> None:
        for prefix in ("a[b]:", "a*?:", "a\\:", "^-a-z:"):
            names = self.db.namespace(prefix)
            names.set("k", 1)
            self.assertEqual(names.keys(), ["k"], prefix)


class AddressTest(ServedTest):
    def test_a_url_says_where_and_how(self) -> None:
        for url, expected in (
            ("kvdb://h:1/2?timeout=3&name=w", {"host": "h", "port": 1, "tls": False, "db": 2,
                                              "timeout": 3.0, "name": "w"}),
            ("redis://h", {"host": "h", "port": 6379, "tls": False}),
            ("kvdb://", {"host": "127.0.0.1", "port": 4242, "tls": False}),
            ("rediss://ann:p%40ss@[::1]:7", {"host": "::1", "port": 7, "tls": True, "user": "ann",
                                            "password": "p@ss"}),
            ("redis://:secret@h?db=3&timeout=none", {"host": "h", "port": 6379, "tls": False,
                                                    "password": "secret", "db": 3, "timeout": None}),
        ):  # fmt: skip
            self.assertEqual(parse_url(url), expected, url)
        for wrong in ("http://h", "h:4242", "kvdb://h?nosuch=1", "kvdb://h:x", "kvdb://h/x"):
            with self.assertRaises(ValueError, msg=wrong):
                parse_url(wrong)

    def test_from_url_connects_there(self) -> None:
        url = f"kvdb://127.0.0.1:{self.service.server.port}/3?name=worker"
        with kvdb.Client.from_url(url, serializer=kvdb.TEXT) as db:
            db.set("k", "v")
            self.assertIn(b"name=worker", db.execute("CLIENT", "INFO"))
        with self.client(db=3) as other:
            self.assertEqual(other.keys(), ["k"])

    def test_a_user_logs_in_by_name(self) -> None:
        self.db.execute("ACL", "SETUSER", "ann", "on", ">secret", "~*", "+get")
        ann = self.client(user="ann", password="secret")
        self.assertIsNone(ann.get("k"))
        with self.assertRaisesRegex(kvdb.ServerError, "NOPERM"):
            ann.set("k", 1)
        with self.assertRaisesRegex(kvdb.ServerError, "WRONGPASS"):
            self.client(user="ann", password="wrong").get("k")

    def test_a_client_can_be_pickled_and_makes_connections_of_its_own(self) -> None:
        self.db.set("user:1", "Ada")
        copy = pickle.loads(pickle.dumps(self.db.namespace("user:")))
        with copy:
            self.assertEqual(copy.get("1"), "Ada")
            self.assertIsNot(copy._pool, self.db._pool)


class TLSTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        write_certificates(self.folder)
        self.service = self.enterContext(running_server(tls_cert=self.folder / "server.pem"))
        self.context = client_context(self.folder)

    def client(self, tls: bool | ssl.SSLContext) -> kvdb.Client:
        port = self.service.server.port
        return self.enterContext(kvdb.Client("localhost", port, tls=tls, patience=0))

    def test_calls_go_through_tls(self) -> None:
        with self.client(self.context) as db:
            db.set("k", "x" * 300_000)
            self.assertEqual(db.get("k"), "x" * 300_000)
            (idle,) = db._pool._idle
            self.assertFalse(idle.is_stale(trusting=False))
            self.service.instance.sessions()[0].close()
            until(lambda: not self.service.instance.sessions())
            self.assertTrue(idle.is_stale(trusting=False))
            self.assertEqual(db.incr("n"), 1, "on another connection")

    def test_a_server_that_nobody_vouches_for_is_refused(self) -> None:
        with (
            self.assertLogs("kvdb", "WARNING"),
            self.assertRaisesRegex(kvdb.Disconnected, "certificate verify failed"),
        ):
            self.client(True).get("k")


class PatienceTest(ServedTest):
    def test_while_the_server_starts_again_calls_wait(self) -> None:
        sleeps: list[float] = []
        port = self.service.server.port
        self.db.set("k", 1)
        self.service.stop()

        def sleep(seconds: float) -> None:
            sleeps.append(seconds)
            if len(sleeps) == 3:
                self.enterContext(running_server(port=port))

        with mock.patch("kvdb.client.client.time.sleep", sleep):
            self.assertEqual(self.db.incr("n"), 1, "it was not sent before: it cannot count twice")
        self.assertEqual(len(sleeps), 3)
        self.assertTrue(all(0 < each <= 0.25 for each in sleeps))

    def test_patience_ends(self) -> None:
        self.service.stop()
        began = time.monotonic()
        with self.assertRaises(ConnectionError), self.client(patience=0.1) as db:
            db.get("k")
        self.assertLess(time.monotonic() - began, 5)

    def test_while_it_loads_its_data_calls_wait(self) -> None:
        instance = self.service.instance
        instance.loading = True

        def sleep(seconds: float) -> None:
            instance.loading = False

        with mock.patch("kvdb.client.client.time.sleep", sleep):
            self.assertEqual(self.db.incr("n"), 1)
        instance.loading = True
        with self.assertRaisesRegex(kvdb.ServerError, "LOADING"), self.client(patience=0.05) as db:
            db.get("k")
        instance.loading = False


if __name__ == "__main__":
    unittest.main()
