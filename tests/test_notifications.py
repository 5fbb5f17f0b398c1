"""Keyspace notifications: which event is told of which command, and that silence costs nothing."""

from __future__ import annotations

import math
import threading
import urllib.request
from unittest import mock

from kvdb.event_classes import parse_event_classes, show_event_classes
from kvdb.notifications import Notifications
from kvdb.store.budget import EvictionPolicy
from tests.command_case import CommandTest
from tests.support import Wire, running_server
from tests.test_pubsub import Listening, resp

LETTER = "ERR CONFIG SET failed (possibly related to argument 'notify-keyspace-events') - "


class NotificationTest(CommandTest):
    talk: Listening

    def setUp(self) -> None:
        super().setUp()
        self.talk = Listening()
        self.listener = self.talk.another()
        self.listener.bytes("PSUBSCRIBE __key*__:*\r\n")
        self.addCleanup(lambda: self.talk.instance.hub.check())

    def tell(self, letters: str) -> None:
        self.assertEqual(self.talk("CONFIG", "SET", "notify-keyspace-events", letters), b"OK")

    def events(self) -> list[str]:
        """Return what was told since the last call: `db event key`, or `keyspace db key event`."""
        found = []
        for data in self.listener.pushed:
            words = data.decode().split("\r\n")
            channel, message = words[6], words[8]
            kind, _, rest = channel.removeprefix("__").partition("@")
            db, _, name = rest.partition("__:")
            prefix = "" if kind == "keyevent" else "keyspace "
            found.append(f"{prefix}{db} {name} {message}")
        self.listener.pushed.clear()
        return found

    def assert_told(self, *table: tuple[str, str]) -> None:
        """Carry out requests; each is followed by the events, of database 0, that it causes."""
        for number, (line, expected) in enumerate(table, 1):
            with self.subTest(number=number, request=line):
                self.ask(line)
                events = [each.removeprefix("0 ") for each in self.events()]
                self.assertEqual(events, [each.strip() for each in expected.split(",") if each])


class EventsTest(NotificationTest):
    def setUp(self) -> None:
        super().setUp()
        self.tell("EA")

    def test_every_write_of_a_value_has_its_own_name(self) -> None:
        self.assert_told(
            ("SET k v", "set k"),
            ("SET k v EX 100", "set k, expire k"),
            ("SET k w KEEPTTL", "set k"),
            ("SET k v XX GET", "set k"),
            ("SET k v NX", ""),
            ("SETNX k x", ""),
            ("SETNX k2 x", "set k2"),
            ("SETEX k 100 v", "set k, expire k"),
            ("PSETEX k 100000 v", "set k, expire k"),
            ("GETSET k z", "set k"),
            ("GET k", ""),
            ("MSET a 1 b 2", "set a, set b"),
            ("MSETNX c 1 d 2", "set c, set d"),
            ("MSETNX c 1 e 2", ""),
            ("APPEND a x", "append a"),
            ("SETRANGE a 1 zz", "setrange a"),
            ("SETRANGE a 1 ''", ""),
            ("INCR n", "incrby n"),
            ("INCRBY n 5", "incrby n"),
            ("DECR n", "incrby n"),
            ("DECRBY n 2", "incrby n"),
            ("INCRBYFLOAT n 1.5", "incrbyfloat n"),
            ("SETBIT bits 3 1", "setbit bits"),
        )

    def test_a_write_that_keeps_the_deadline_does_not_tell_of_it(self) -> None:
        self.ask("SET n 1 EX 100")
        self.events()
        self.assert_told(("INCR n", "incrby n"), ("APPEND n 0", "append n"))

    def test_runs_of_commands_are_told_one_by_one(self) -> None:
        self.talk.bytes(b"".join(b"*2\r\n$4\r\nINCR\r\n$1\r\nn\r\n" for _ in range(3)))
        self.assertEqual(self.events(), ["0 incrby n"] * 3)
        self.talk.bytes(b"".join(b"*3\r\n$3\r\nSET\r\n$1\r\nn\r\n$1\r\nn\r\n" for _ in range(3)))
        self.assertEqual(self.events(), ["0 set n"] * 3)

    def test_what_happens_to_deadlines_and_keys(self) -> None:
        self.assert_told(
            ("MSET n 1 m 1", "set n, set m"),
            ("EXPIRE n 100", "expire n"),
            ("EXPIRE n 100 NX", ""),
            ("EXPIRE missing 100", ""),
            ("PERSIST n", "persist n"),
            ("PERSIST n", ""),
            ("GETEX n PX 50000", "expire n"),
            ("GETEX n PERSIST", "persist n"),
            ("GETEX n", ""),
            ("EXPIRE n -1", "del n"),
            ("GETDEL m", "del m"),
            ("GETDEL m", ""),
            ("MSET a 1 b 2 c 3", "set a, set b, set c"),
            ("DEL a missing b", "del a, del b"),
            ("UNLINK c", "del c"),
            ("SET s v EX 100", "set s, expire s"),
            ("COPY s t", "copy_to t"),
            ("COPY missing t", ""),
            ("RENAME s u", "rename_from s, rename_to u"),
            ("RENAME u u", ""),
            ("RENAME u t", "rename_from u, rename_to t"),
            ("RENAMENX t v", "rename_from t, rename_to v"),
            ("MOVE v 3", "move_from v, 3 move_to v"),
            ("FLUSHALL", ""),
        )

    def test_what_a_transaction_does_is_told_in_its_order(self) -> None:
        for line in ("MULTI", "SET a 1", "INCR a", "DEL a", "APPEND a x"):
            self.ask(line)
        self.assert_told(("EXEC", "set a, incrby a, del a, append a"))

    def test_an_expiry_is_told_whoever_notices_it(self) -> None:
        for line in ("SET a 1 EX 10", "SET b 1 EX 10"):
            self.ask(line)
        self.events()
        self.talk.clock.now += 10
        self.assert_told(("GET a", "expired a"))
        self.talk.store.expire_due()
        self.assertEqual(self.events(), ["0 expired b"])

    def test_an_eviction_is_told_before_the_write_that_needed_the_room(self) -> None:
        self.ask("SET a 1")
        self.talk.store.policy = EvictionPolicy.ALLKEYS_LRU
        self.talk.store.max_bytes = self.talk.store.used_bytes
        self.events()
        self.assert_told(("SET b 1", "evicted a, set b"))

    def test_other_dialects_tell_the_same(self) -> None:
        self.talk.bytes('{"command": "INCR", "args": {"key": "n"}}\n')
        self.talk.bytes('{"command": "SET", "args": {"key": "n", "value": "x", "ttl": 9}}\n')
        self.assertEqual(self.events(), ["0 incrby n", "0 set n", "0 expire n"])

    def test_a_write_that_the_disk_refused_is_told_to_be_undone(self) -> None:
        store = self.talk.store
        self.ask("MSET a 1 b 2")
        self.events()
        entry = store.entry(b"a")
        store.put_back([(b"a", entry), (b"b", None)])
        self.assertEqual(self.events(), ["0 set a", "0 del b"])


class ClassesTest(NotificationTest):
    def test_only_what_is_asked_for_is_told(self) -> None:
        for letters, expected in {
            "": [],
            "A": [],
            "K": [],
            "E$": ["0 set k", "0 incrby n"],
            "Eg": ["0 expire k", "0 del n"],
            "Ex": [],
            "Kg$": [
                "keyspace 0 k set", "keyspace 0 k expire", "keyspace 0 n incrby",
                "keyspace 0 n del",
            ],
            "KEg": [
                "keyspace 0 k expire", "0 expire k", "keyspace 0 n del", "0 del n",
            ],
        }.items():  # fmt: skip
            with self.subTest(letters):
                self.tell(letters)
                for line in ("SET k v EX 10", "INCR n", "GET missing", "DEL n"):
                    self.ask(line)
                self.assertEqual(self.events(), expected)

    def test_new_keys(self) -> None:
        self.tell("EAn")
        self.assert_told(
            ("SET k v", "new k, set k"),
            ("SET k w", "set k"),
            ("SET k longer", "set k"),
            ("MSET k 1 a 1 b 1", "set k, new a, set a, new b, set b"),
            ("INCR n", "new n, incrby n"),
            ("INCR n", "incrby n"),
            ("APPEND p x", "new p, append p"),
            ("RENAME p k", "new k, rename_from p, rename_to k"),
            ("COPY k n REPLACE", "new n, copy_to n"),
            ("MOVE k 1", "1 new k, move_from k, 1 move_to k"),
            ("DEL n", "del n"),
            ("SET n 1", "new n, set n"),
        )
        self.tell("En")
        self.assert_told(("SET n 2", ""), ("SET q 1", "new q"))

    def test_keys_that_are_not_found(self) -> None:
        self.tell("Eg$mx")
        self.assert_told(
            ("GET x", "keymiss x"),
            ("SET x 1", "set x"),
            ("GET x", ""),
            ("MGET x y z", "keymiss y, keymiss z"),
            ("EXISTS x y", "keymiss y"),
            ("TTL y", "keymiss y"),
            ("PTTL y", "keymiss y"),
            ("EXPIRETIME y", "keymiss y"),
            ("TYPE y", "keymiss y"),
            ("STRLEN y", "keymiss y"),
            ("GETRANGE y 0 1", "keymiss y"),
            ("TOUCH x y", "keymiss y"),
            ("GETSET y 1", "keymiss y, set y"),
            ("SET z 1 GET", "keymiss z, set z"),
            ("SET q 1 NX", "set q"),
            ("SETRANGE w 0 ''", ""),
            ("COPY w v", "keymiss w"),
            ("GETEX w EX 10", "keymiss w"),
            ("OBJECT ENCODING w", ""),
            ("EXPIRE w 10", ""),
            ("RENAME w v", ""),
        )
        for line in ("MULTI", "SET a 1", "GET w", "DEL a", "GET w"):
            self.ask(line)
        self.assert_told(("EXEC", "set a, keymiss w, del a, keymiss w"))
        self.ask("SET a 1 EX 10")
        self.events()
        self.talk.clock.now += 10
        self.assert_told(("GET a", "expired a, keymiss a"))
        self.tell("EA")
        self.assert_told(("GET w", ""))

    def test_a_setting_is_shown_in_its_normal_form(self) -> None:
        for given, shown in {
            "": "", "KEA": "AKE", "g$lshztxedKE": "AKE", "EKx": "xKE", "KEm": "KEm", "n": "n",
            "Kg$lshztxe": "g$lshzxetK", "KEAmn": "AnKEm", "A": "A", "KEt": "tKE", "KKEE": "KE",
        }.items():  # fmt: skip
            with self.subTest(given):
                self.tell(given)
                reply = self.talk("CONFIG", "GET", "notify-keyspace-events")
                self.assertEqual(reply, {b"notify-keyspace-events": shown.encode()})
                letters = parse_event_classes(given)
                self.assertEqual(parse_event_classes(show_event_classes(letters)), letters)

    def test_an_unknown_letter_is_refused(self) -> None:
        self.tell("KEA")
        self.assertEqual(
            self.ask("CONFIG SET notify-keyspace-events KEq"),
            LETTER + "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.",
        )
        self.assertEqual(str(self.talk.instance.notifications), "AKE")

    def test_while_nothing_is_asked_for_nobody_listens(self) -> None:
        store = self.talk.store
        nobody = ((), None, None)

        def listening() -> tuple[object, ...]:
            return store._feed.listeners, store._feed.on_miss, store._space.on_new

        for letters in ("", "K", "E", "A", "mn"):
            self.tell(letters)
            self.assertEqual(listening(), nobody)
        self.tell("KEAmn")
        self.tell("AKE")
        self.assertEqual(len(store._feed.listeners), 1, "two settings, one listener")
        self.assertEqual(listening()[1:], (None, None))
        self.tell("KEAmn")
        self.assertNotIn(None, listening())
        self.tell("")
        self.assertEqual(listening(), nobody)

    def test_without_a_subscriber_nothing_is_put_aside(self) -> None:
        self.tell("KEAmn")
        self.listener("RESET")
        calls: list[object] = []
        self.talk.instance.notifications.call_soon = calls.append
        for line in ("SET a 1", "GET b", "MSET c 1 d 2"):
            self.ask(line)
        self.assertEqual(calls, [])


class LaterTest(NotificationTest):
    def test_events_are_published_some_at_a_time_in_their_order(self) -> None:
        self.tell("EA")
        calls: list[object] = []
        notifications = self.talk.instance.notifications
        notifications.call_soon = calls.append
        names = [f"k{number}" for number in range(1200)]
        self.talk("MSET", *(word for name in names for word in (name, "1")))
        self.talk("DEL", *names)
        self.assertEqual(len(calls), 1, "asked once for all of it")
        told: list[str] = []
        while calls:
            calls.pop()()  # type: ignore[operator]
            self.assertLess(len(self.listener.pushed), 600)
            told += self.events()
        expected = [f"0 set {name}" for name in names] + [f"0 del {name}" for name in names]
        self.assertEqual(told, expected)
        self.ask("SET a 1")
        self.assertEqual(len(calls), 1, "asked again")

    def test_the_more_patterns_there_are_the_fewer_at_a_time(self) -> None:
        self.tell("EA")
        self.talk.another()("PSUBSCRIBE", *(f"other{number}" for number in range(1_899)))
        calls: list[object] = []
        self.talk.instance.notifications.call_soon = calls.append
        self.talk("MSET", *(word for number in range(100) for word in (f"k{number}", "1")))
        rounds = 0
        while calls:
            calls.pop()()  # type: ignore[operator]
            rounds += 1
        self.assertEqual(len(self.events()), 100)
        self.assertEqual(rounds, 5)  # 50,000 patterns in each

    def test_what_waits_to_be_published_is_counted_and_bounded(self) -> None:
        self.tell("EAm")
        instance = self.talk.instance
        notifications, before = instance.notifications, instance.not_entries_bytes()
        calls: list[object] = []
        notifications.call_soon = calls.append
        for line in ("SET a 1", "GET no", "FLUSHDB", "MSET a 1 b 2", "DEL a"):
            held = notifications.held_bytes
            self.ask(line)
            self.assertGreater(notifications.held_bytes, held, line)
        self.talk("SET", "large", b"v" * 8_000_000)
        self.assertGreater(instance.not_entries_bytes(), before + 8_000_000)
        self.assertFalse(instance.congested)
        self.talk("SET", "other", b"v" * 400_000)
        self.assertTrue(instance.congested)
        self.assertEqual(instance.longest_wait(), math.inf)
        self.assertEqual(self.info("persistence")["writers_wait_for_disk"], "0")
        waiting = threading.Thread(target=instance.wait_for_room, daemon=True)
        waiting.start()
        while calls:
            calls.pop()()  # type: ignore[operator]
        waiting.join(10)
        self.assertFalse(waiting.is_alive())
        self.assertFalse(instance.congested)
        self.assertEqual(notifications.held_bytes, 0)


class WholeServerTest(CommandTest):
    def test_whoever_writes_faster_than_is_published_waits(self) -> None:
        congested = True
        with (
            running_server(http_port=0, notify_keyspace_events="EA") as service,
            mock.patch.object(
                Notifications, "congested", mock.PropertyMock(side_effect=lambda: congested)
            ),
            mock.patch.object(Notifications, "wait_for_room") as wait_for_room,
            Wire(service.server.port) as writer,
            Wire(service.server.port) as reader,
        ):
            self.assertEqual(writer.ask(b"SET k 1\r\n", 5), b"+OK\r\n")
            writer.socket.sendall(b"SET k 2\r\n")
            for _ in range(5):
                self.assertEqual(reader.ask(b"GET k\r\n", 7), b"$1\r\n1\r\n")
            address = f"http://127.0.0.1:{service.listeners['http'].port}/keys/k"
            with urllib.request.urlopen(address) as response:
                self.assertEqual(response.read(), b"1")
            wait_for_room.assert_not_called()
            request = urllib.request.Request(address, b"3", method="PUT")
            with urllib.request.urlopen(request) as response:
                self.assertEqual(response.status, 204)
            wait_for_room.assert_called_once_with()
            congested = False
            self.assertEqual(writer.read(5), b"+OK\r\n")
            self.assertEqual(reader.ask(b"GET k\r\n", 7), b"$1\r\n2\r\n")

    def test_an_expiry_is_told_when_its_time_has_come(self) -> None:
        with (
            running_server(notify_keyspace_events="Ex") as service,
            Wire(service.server.port) as listener,
            Wire(service.server.port) as writer,
        ):
            confirmation = resp(b"subscribe", b"__keyevent@0__:expired", 1)
            request = b"SUBSCRIBE __keyevent@0__:expired\r\n"
            self.assertEqual(listener.ask(request, len(confirmation)), confirmation)
            self.assertEqual(writer.ask(b"SET k v PX 30\r\n", 5), b"+OK\r\n")
            message = resp(b"message", b"__keyevent@0__:expired", b"k")
            self.assertEqual(listener.read(len(message)), message)
            self.assertEqual(service.store.expired_keys, 1)

    def test_messages_are_sent_by_the_event_loop_alone(self) -> None:
        with running_server(notify_keyspace_events="E$") as service:
            confirmation = resp(b"psubscribe", b"*", 1)
            with Wire(service.server.port) as listener:
                listener.ask(b"PSUBSCRIBE *\r\n", len(confirmation))
                threads: list[str] = []
                hub = service.instance.hub
                publish = hub.publish

                def watched(channel: bytes, message: bytes) -> int:
                    threads.append(threading.current_thread().name)
                    return publish(channel, message)

                hub.publish = watched  # type: ignore[method-assign]
                with service.store.atomic():
                    service.store.set(b"k", b"v")
                    self.assertEqual(threads, [])
                message = resp(b"pmessage", b"*", b"__keyevent@0__:set", b"k")
                self.assertEqual(listener.read(len(message)), message)
            self.assertEqual(threads, ["event-loop"])
