from __future__ import annotations

import socket
import tempfile
import threading
import time
import unittest
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import kvdb
from kvdb.client.address import Address
from kvdb.client.messages import Message
from kvdb.client.serializers import JSON
from kvdb.client.subscription import Subscription
from tests.certificates import client_context, write_certificates
from tests.support import ManualClock, running_server, until


def break_connections(db: kvdb.Client[Any]) -> None:
    """Have the server end the connections of all subscribers."""
    db.command("CLIENT", "KILL", "TYPE", "pubsub")


class SubscriptionTest(unittest.TestCase):
    def setUp(self) -> None:
        self.port = self.enterContext(running_server()).server.port
        self.db = self.enterContext(kvdb.Client(port=self.port))

    def subscribe(self, *channels: str, **options: Any) -> Subscription[Any]:
        return self.enterContext(self.db.subscribe(*channels, **options))

    def test_what_is_published_after_subscribing_comes_in_its_order(self) -> None:
        subscription = self.subscribe("a", "b")
        self.assertEqual(self.db.publish("a", {"n": 1}), 1)
        self.assertEqual(self.db.publish("b", "two"), 1)
        self.assertEqual(subscription.get(5), Message("a", {"n": 1}))
        self.assertEqual(next(subscription), Message("b", "two"))

    def test_a_message_by_a_pattern_names_it(self) -> None:
        subscription = self.subscribe(patterns=["user:*"])
        self.db.publish("user:1", 1)
        self.assertEqual(subscription.get(5), Message("user:1", 1, pattern="user:*"))

    def test_get_returns_none_when_nothing_comes_in_time(self) -> None:
        subscription = self.subscribe("a")
        self.assertIsNone(subscription.get(0))
        self.assertIsNone(subscription.get(0.01))

    def test_a_namespace_adds_its_prefix_and_takes_it_off(self) -> None:
        space = self.db.namespace("sp[a]ce*:")
        subscription = self.enterContext(space.subscribe("news", patterns=["user:?"]))
        space.publish("news", 1)
        space.publish("user:7", 2)
        self.db.publish("news", 3)
        self.db.publish("space:user:8", 4)  # would match, did the prefix count as a pattern
        self.db.publish("sp[a]ce*:news", 5)
        self.assertEqual(subscription.get(5), Message("news", 1))
        self.assertEqual(subscription.get(5), Message("user:7", 2, pattern="user:?"))
        self.assertEqual(subscription.get(5), Message("news", 5))

    def test_an_unreadable_message_raises_and_the_next_one_comes(self) -> None:
        subscription = self.subscribe("a")
        self.db.command("PUBLISH", "a", "{")
        self.db.publish("a", 1)
        with self.assertRaises(kvdb.SerializationError):
            next(subscription)
        self.assertEqual(next(subscription), Message("a", 1))

    def test_channels_are_added_and_taken_away(self) -> None:
        subscription = self.subscribe("a")
        subscription.subscribe("b", patterns=["c*"])
        subscription.unsubscribe("a")
        self.assertEqual([self.db.publish(name, 0) for name in ("a", "b", "cc")], [0, 1, 1])
        subscription.unsubscribe()
        self.assertEqual([self.db.publish(name, 0) for name in ("a", "b", "cc")], [0, 0, 0])
        self.assertEqual(
            [subscription.get(5), subscription.get(5)],
            [("b", 0, None, False), ("cc", 0, "c*", False)],
        )

    def test_channels_are_added_while_another_thread_waits(self) -> None:
        subscription = self.subscribe()
        received: list[Any] = []
        thread = threading.Thread(target=lambda: received.extend(subscription))
        thread.start()
        subscription.subscribe("a")
        self.assertEqual(self.db.publish("a", 1), 1)
        until(lambda: received == [Message("a", 1)])
        subscription.close()
        thread.join(5)
        self.assertFalse(thread.is_alive())

    def test_closing_ends_all_waiting_iterators_and_what_was_received(self) -> None:
        subscription = self.subscribe("a")
        threads = [threading.Thread(target=list, args=(subscription,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        until(lambda: subscription._is_receiving)
        subscription.close()
        for thread in threads:
            thread.join(5)
            self.assertFalse(thread.is_alive())
        self.assertEqual(list(subscription), [])
        until(lambda: self.db.publish("a", 1) == 0)

    def test_after_a_broken_connection_it_subscribes_again_and_says_that_there_is_a_gap(
        self,
    ) -> None:
        subscription = self.subscribe("a", patterns=["b*"])
        self.db.publish("a", 1)
        self.assertEqual(subscription.get(5), Message("a", 1))
        break_connections(self.db)
        with mock.patch("kvdb.client.subscription.FIRST_PAUSE", 0.001):
            while subscription.reconnects == 0:
                self.assertIsNone(subscription.get(0.005))
        self.assertEqual(subscription.reconnects, 1)
        until(lambda: subscription.get(0) is None and self.db.publish("bb", 2) == 1)
        self.db.publish("a", 3)
        self.assertEqual(subscription.get(5), Message("bb", 2, "b*", after_gap=True))
        self.assertEqual(subscription.get(5), Message("a", 3))

    def test_messages_from_before_the_gap_are_not_marked(self) -> None:
        subscription = self.subscribe("a")
        self.db.publish("a", 1)
        subscription._receive(5)  # it has come, and nobody has asked for it yet
        break_connections(self.db)
        until(lambda: bool(subscription._receive(0.01) or subscription.reconnects))
        until(lambda: self.db.publish("a", 2) == 1)
        self.assertEqual(subscription.get(5), Message("a", 1))
        self.assertEqual(subscription.get(5), Message("a", 2, after_gap=True))

    def test_an_unreadable_message_hands_its_gap_on(self) -> None:
        subscription = self.subscribe("a")
        break_connections(self.db)
        until(lambda: bool(subscription._receive(0.01) or subscription.reconnects))
        until(lambda: self.db.command("PUBLISH", "a", "{") == 1)
        self.db.publish("a", 1)
        with self.assertRaises(kvdb.SerializationError):
            subscription.get(5)
        self.assertEqual(subscription.get(5), Message("a", 1, after_gap=True))

    def test_patience_ends_and_the_next_call_tries_again(self) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            port = listener.getsockname()[1]
        began = time.monotonic()
        with self.assertRaises(kvdb.Disconnected):
            kvdb.Client(port=port).subscribe("a", patience=0.05)
        self.assertLess(time.monotonic() - began, 2)
        clock = ManualClock()
        subscription = Subscription(
            Address(port=self.port), JSON, b"", ["a"], patience=5, clock=clock
        )
        self.enterContext(subscription)
        with mock.patch.object(subscription, "_address", Address(port=port)):
            break_connections(self.db)
            until(lambda: bool(subscription.get(0)) or subscription._connection is None)
            self.assertIsNone(subscription.get(0))
            clock.now += 6
            with self.assertRaises(kvdb.Disconnected):
                subscription.get(0)
            self.assertIsNone(subscription.get(0))
        clock.now += 3
        self.assertIsNone(subscription.get(0))
        self.assertEqual(subscription.reconnects, 1)

    def test_a_refused_subscription_raises_and_the_others_go_on(self) -> None:
        self.db.command("ACL", "SETUSER", "ann", "on", ">pw", "resetchannels", "&open", "+@all")
        ann = self.enterContext(kvdb.Client(port=self.port, user="ann", password="pw"))
        with self.assertRaises(kvdb.ServerError):
            ann.subscribe("secret")
        with ann.subscribe("open") as subscription:
            with self.assertRaises(kvdb.ServerError):
                subscription.subscribe("secret")
            self.db.publish("open", 1)
            self.assertEqual(subscription.get(5), Message("open", 1))

    def test_a_refusal_is_for_the_thread_that_has_asked(self) -> None:
        self.db.command("ACL", "SETUSER", "ann", "on", ">pw", "resetchannels", "&ok*", "+@all")
        ann = self.enterContext(kvdb.Client(port=self.port, user="ann", password="pw"))
        subscription = self.enterContext(ann.subscribe("ok"))
        outcomes: dict[str, object] = {}

        def ask(name: str) -> None:
            try:
                outcomes[name] = subscription.subscribe(name)
            except kvdb.Error as error:
                outcomes[name] = type(error)

        names = ["ok1", "secret1", "ok2", "secret2", "ok3"]
        threads = [threading.Thread(target=ask, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
        expected = {name: None if name.startswith("ok") else kvdb.ServerError for name in names}
        self.assertEqual(outcomes, expected)


class TlsSubscriptionTest(unittest.TestCase):
    def test_large_messages_come_through_tls_while_another_thread_subscribes(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        write_certificates(folder)
        port = self.enterContext(running_server(tls_cert=folder / "server.pem")).server.port
        db = self.enterContext(kvdb.Client("localhost", port, tls=client_context(folder)))
        subscription = self.enterContext(db.subscribe("a"))
        received: list[Any] = []
        thread = threading.Thread(target=lambda: received.extend(subscription))
        thread.start()
        for number in range(20):
            db.publish("a", "x" * 20_000)
            subscription.subscribe(str(number))
        until(lambda: len(received) == 20)
        subscription.close()
        thread.join(5)
        self.assertFalse(thread.is_alive())


class SilentServerTest(unittest.TestCase):
    """A peer that is there and says nothing, as after the loss of a network cable."""

    def setUp(self) -> None:
        self.listener = self.enterContext(socket.create_server(("127.0.0.1", 0)))
        self.listener.settimeout(10)
        self.clock = ManualClock()
        address = Address(port=self.listener.getsockname()[1], timeout=5)
        self.subscription = self.enterContext(
            Subscription(address, JSON, ping_interval=30, clock=self.clock)
        )
        self.peer = self.accept()

    def accept(self) -> socket.socket:
        peer = self.enterContext(self.listener.accept()[0])
        peer.settimeout(10)
        return peer

    def test_a_silent_server_is_asked_for_a_sign_and_then_given_up(self) -> None:
        self.clock.now += 29
        self.assertIsNone(self.subscription.get(0))
        self.clock.now += 1
        self.assertIsNone(self.subscription.get(0))
        self.assertEqual(self.peer.recv(100), b"*1\r\n$4\r\nPING\r\n")
        self.clock.now += 4
        self.assertIsNone(self.subscription.get(0))
        self.clock.now += 1
        self.assertIsNone(self.subscription.get(0))
        self.assertEqual(self.peer.recv(100), b"")
        self.assertIsNone(self.subscription.get(0))
        self.assertEqual(self.subscription.reconnects, 1)
        self.accept()

    def test_an_answer_to_the_ping_keeps_the_connection(self) -> None:
        self.clock.now += 30
        self.assertIsNone(self.subscription.get(0))
        self.peer.sendall(b"*2\r\n$4\r\npong\r\n$0\r\n\r\n")
        until(lambda: self.subscription.get(0) is not None or self.subscription._pinged is None)
        self.clock.now += 29
        self.assertIsNone(self.subscription.get(0))
        self.assertEqual(self.subscription.reconnects, 0)


if __name__ == "__main__":
    unittest.main()
