"""Publish/subscribe: who gets what, in which order, and what a subscriber may ask meanwhile."""

from __future__ import annotations

import json
import logging
import threading
import time
import unittest
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from kvdb.commands.table import TABLE
from kvdb.errors import CommandError
from kvdb.pubsub import Hub, Kind
from kvdb.replies import Push
from kvdb.resp.encoding import encode_reply
from tests.command_case import CommandTest, wrong_arity
from tests.support import Conversation, Wire, running_server, until

NOT_NOW = (
    "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET "
    "are allowed in this context"
)


def resp(*words: bytes | int | None, version: int = 2) -> bytes:
    return encode_reply(Push(words), version)


class Listening(Conversation):
    """A client that keeps what is pushed to it, as its connection would send it."""

    def __init__(self, instance: object = None, **config: object) -> None:
        super().__init__(instance, **config)  # type: ignore[arg-type]
        self.pushed: list[bytes] = []
        self.session.push = self.pushed.append
        self.session.recall = self.take

    def another(self) -> Listening:
        return Listening(self.instance)

    def take(self) -> bytes:
        data = b"".join(self.pushed)
        self.pushed.clear()
        return data


@contextmanager
def publishing(hub: Hub) -> Iterator[None]:
    """Meanwhile a thread publishes on the channel `a`, again and again."""
    stop = threading.Event()

    def publish() -> None:
        while not stop.is_set():
            hub.publish(b"a", b"x")

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


class PubSubTest(CommandTest):
    talk: Listening

    def setUp(self) -> None:
        self.talk = Listening()
        self.addCleanup(lambda: self.talk.instance.hub.check())

    def subscriber(self, line: str = "") -> Listening:
        client = self.talk.another()
        if line:
            client.bytes(line + "\r\n")
        return client


class SubscribingTest(PubSubTest):
    def test_each_channel_is_confirmed_with_the_number_of_channels_and_patterns(self) -> None:
        client = self.talk
        self.assertEqual(
            client.bytes("SUBSCRIBE a b a\r\nPSUBSCRIBE p*\r\nSSUBSCRIBE s\r\nUNSUBSCRIBE x b\r\n"),
            resp(b"subscribe", b"a", 1) + resp(b"subscribe", b"b", 2) + resp(b"subscribe", b"a", 2)
            + resp(b"psubscribe", b"p*", 3) + resp(b"ssubscribe", b"s", 1)
            + resp(b"unsubscribe", b"x", 3) + resp(b"unsubscribe", b"b", 2),
        )  # fmt: skip

    def test_without_a_name_all_of_a_kind_are_taken_back(self) -> None:
        client = self.talk
        client.bytes("SUBSCRIBE a b\r\nPSUBSCRIBE p\r\nSSUBSCRIBE s t\r\n")
        self.assertEqual(
            client.bytes("UNSUBSCRIBE\r\nUNSUBSCRIBE\r\nPUNSUBSCRIBE\r\nSUNSUBSCRIBE\r\n"),
            resp(b"unsubscribe", b"a", 2) + resp(b"unsubscribe", b"b", 1)
            + resp(b"unsubscribe", None, 1) + resp(b"punsubscribe", b"p", 0)
            + resp(b"sunsubscribe", b"s", 1) + resp(b"sunsubscribe", b"t", 0),
        )  # fmt: skip
        self.assertIsNone(client.session.subscriptions)
        self.assertEqual(client.bytes("PING\r\n"), b"+PONG\r\n")
        self.assertEqual(client.bytes("SUNSUBSCRIBE\r\n"), resp(b"sunsubscribe", None, 0))

    def test_resp3_marks_confirmations_and_messages(self) -> None:
        client = self.talk
        client("HELLO", 3)
        self.assertEqual(
            client.bytes("SUBSCRIBE a\r\n"), b">3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n"
        )
        self.assertEqual(client.bytes("PUBLISH a hi\r\n"), b":1\r\n")
        self.assertEqual(client.take(), b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$2\r\nhi\r\n")
        self.assertEqual(
            client.bytes("UNSUBSCRIBE\r\nUNSUBSCRIBE\r\n"),
            b">3\r\n$11\r\nunsubscribe\r\n$1\r\na\r\n:0\r\n>3\r\n$11\r\nunsubscribe\r\n_\r\n:0\r\n",
        )

    def test_a_pattern_that_is_too_long_subscribes_to_nothing(self) -> None:
        reply = self.talk("PSUBSCRIBE", "fine", "x" * 2000)
        self.assertIsInstance(reply, CommandError)
        self.assertIsNone(self.talk.session.subscriptions)

    def test_confirmations_come_even_with_replies_off(self) -> None:
        client = self.talk
        self.assertEqual(
            client.bytes("CLIENT REPLY OFF\r\nHELLO 3\r\nSUBSCRIBE a\r\nPUBLISH a x\r\n"),
            resp(b"subscribe", b"a", 1, version=3),
        )
        self.assertEqual(client.take(), resp(b"message", b"a", b"x", version=3))

    def test_reset_and_the_end_of_the_connection_take_back_everything(self) -> None:
        for end in ("RESET", None):
            client = self.subscriber("SUBSCRIBE a\r\nPSUBSCRIBE *\r\nSSUBSCRIBE a")
            with self.subTest(end):
                self.assertEqual(self.talk("PUBLISH", "a", "x"), 2)
                if end:
                    self.assertEqual(client.bytes("RESET\r\n")[-8:], b"+RESET\r\n")
                    self.assertEqual(client.bytes("GET x\r\n"), b"$-1\r\n")
                else:
                    client.instance.dismiss(client.session)
                self.assertEqual(self.talk("PUBLISH", "a", "x"), 0)
                self.assertEqual(self.talk("SPUBLISH", "a", "x"), 0)
                self.assertEqual(self.talk.instance.hub.clients, 0)

    def test_what_they_take_is_on_the_clients_account(self) -> None:
        session = self.talk.session
        self.assertFalse(session.queues)
        self.talk.bytes(f"SUBSCRIBE {'x' * 1000}\r\n")
        self.assertTrue(session.queues)
        self.assertGreater(session.queued_bytes, 1000)
        self.talk.bytes("UNSUBSCRIBE\r\n")
        self.assertEqual(session.queued_bytes, 0)


class SubscribedTest(PubSubTest):
    def test_in_resp2_only_a_few_commands_are_allowed(self) -> None:
        self.talk.bytes("SUBSCRIBE a\r\n")
        for line in ("GET x", "SET x y", "PUBLISH a b", "MULTI", "HELLO 3", "ECHO x", "CLIENT ID"):
            name = line.lower().replace("client id", "client|id").split()[0]
            with self.subTest(line):
                self.assertEqual(self.ask(line), NOT_NOW.format(name))
        self.assertEqual(self.ask("GET"), wrong_arity("get"))
        self.assertIn("unknown command", self.ask("NOSUCH"))
        self.assertEqual(self.ask("PING"), [b"pong", b""])
        self.assertEqual(self.ask("PING hi"), [b"pong", b"hi"])

    def test_in_resp3_everything_is_allowed(self) -> None:
        self.talk("HELLO", 3)
        self.talk.bytes("SUBSCRIBE a\r\n")
        self.assert_replies(("SET x 1", b"OK"), ("PING", b"PONG"), ("INCR x", 2))
        self.talk("HELLO", 2)
        self.assertEqual(self.ask("INCR x"), NOT_NOW.format("incr"))

    def test_a_shard_subscription_counts_as_well(self) -> None:
        self.talk.bytes("SSUBSCRIBE a\r\n")
        self.assertEqual(self.ask("GET x"), NOT_NOW.format("get"))

    def test_within_multi_it_happens_at_exec(self) -> None:
        client = self.talk
        self.assertEqual(
            client.bytes("MULTI\r\nSUBSCRIBE a b\r\nSSUBSCRIBE s\r\nGET x\r\nEXEC\r\nGET x\r\n"),
            b"+OK\r\n" + b"+QUEUED\r\n" * 3 + b"*3\r\n"
            + resp(b"subscribe", b"a", 1) + resp(b"subscribe", b"b", 2)
            + b"-ERR SSUBSCRIBE isn't allowed for a DENY BLOCKING client\r\n$-1\r\n"
            + b"-%b\r\n" % NOT_NOW.format("get").encode(),
        )  # fmt: skip
        self.assertEqual(
            self.ask("EXEC"),
            "EXECABORT Transaction discarded because of: " + NOT_NOW.format("exec")[4:],
        )

    def test_messages_to_oneself_within_exec_come_behind_its_reply(self) -> None:
        client = self.talk
        replies = client.bytes("MULTI\r\nSUBSCRIBE a\r\nPUBLISH a x\r\nUNSUBSCRIBE a\r\nEXEC\r\n")
        self.assertEqual(
            replies.partition(b"*3\r\n")[2],
            resp(b"subscribe", b"a", 1) + b":1\r\n" + resp(b"unsubscribe", b"a", 0),
        )
        self.assertEqual(client.take(), resp(b"message", b"a", b"x"))

    def test_client_list_and_info_tell_of_it(self) -> None:
        client = self.subscriber("SUBSCRIBE a b\r\nPSUBSCRIBE p\r\nSSUBSCRIBE s t u")
        lines = self.talk("CLIENT", "LIST").splitlines()
        self.assertIn(" flags=P db=0 sub=2 psub=1 ssub=3 ", lines[1])
        self.assertIn(" flags=N db=0 sub=0 psub=0 ssub=0 ", lines[0])
        self.assertEqual(self.talk("CLIENT", "LIST", "TYPE", "pubsub").splitlines(), lines[1:])
        self.assertEqual(len(self.talk("CLIENT", "LIST", "TYPE", "normal").splitlines()), 1)
        info = self.talk("INFO")
        for line in (
            "pubsub_channels:2", "pubsub_patterns:1", "pubsubshard_channels:3", "pubsub_clients:1",
        ):  # fmt: skip
            self.assertIn(f"{line}\r\n", info)
        self.assertEqual(self.talk("CLIENT", "KILL", "TYPE", "pubsub"), 1)
        self.assertTrue(client.session.closing)


class PublishingTest(PubSubTest):
    def test_a_message_goes_to_the_channel_and_to_the_patterns_that_match(self) -> None:
        one, two = self.subscriber("SUBSCRIBE news"), self.subscriber("PSUBSCRIBE n*s x*")
        both = self.subscriber("SUBSCRIBE news\r\nPSUBSCRIBE news\r\nSSUBSCRIBE news")
        self.assertEqual(self.talk("PUBLISH", "news", b"\x00\r\n\xff"), 4)
        message = resp(b"message", b"news", b"\x00\r\n\xff")
        self.assertEqual(one.take(), message)
        self.assertEqual(two.take(), resp(b"pmessage", b"n*s", b"news", b"\x00\r\n\xff"))
        self.assertEqual(
            both.take(), message + resp(b"pmessage", b"news", b"news", b"\x00\r\n\xff")
        )
        self.assertEqual(self.talk("PUBLISH", "other", "x"), 0)

    def test_shards_are_a_world_of_their_own(self) -> None:
        sharded, plain = self.subscriber("SSUBSCRIBE a"), self.subscriber("SUBSCRIBE a")
        self.assertEqual(self.talk("SPUBLISH", "a", "x"), 1)
        self.assertEqual(sharded.take(), resp(b"smessage", b"a", b"x"))
        self.assertEqual(plain.take(), b"")

    def test_every_form_of_a_message_is_made_once(self) -> None:
        line = '{"command": "SUBSCRIBE", "args": {"channel": "a"}}'
        lines = ("SUBSCRIBE a", "HELLO 3\r\nSUBSCRIBE a", line)
        clients = [self.subscriber(each) for each in lines * 3]
        self.talk("PUBLISH", "a", "x" * 1000)
        self.assertEqual(len({id(client.pushed[0]) for client in clients}), 3)

    def test_a_message_comes_before_the_confirmation_that_no_more_will(self) -> None:
        client = self.subscriber("SUBSCRIBE a b")
        self.talk("PUBLISH", "a", "x")
        self.assertEqual(
            client.bytes("UNSUBSCRIBE a\r\nPING\r\n"),
            resp(b"message", b"a", b"x") + resp(b"unsubscribe", b"a", 1)
            + b"*2\r\n$4\r\npong\r\n$0\r\n\r\n",
        )  # fmt: skip

    def test_pubsub_tells_who_listens(self) -> None:
        self.subscriber("SUBSCRIBE a b\r\nPSUBSCRIBE p* q\r\nSSUBSCRIBE s")
        self.subscriber("SUBSCRIBE a\r\nPSUBSCRIBE q")
        self.assert_replies(
            ("PUBSUB CHANNELS", [b"a", b"b"]),
            ("PUBSUB CHANNELS [b-z]", [b"b"]),
            ("PUBSUB CHANNELS a b", "ERR unknown subcommand or wrong number of arguments for "
             "'CHANNELS'. Try PUBSUB HELP."),
            ("PUBSUB NUMSUB a x b", [b"a", 2, b"x", 0, b"b", 1]),
            ("PUBSUB NUMSUB", []),
            ("PUBSUB NUMPAT", 2),
            ("PUBSUB SHARDCHANNELS", [b"s"]),
            ("PUBSUB SHARDCHANNELS x*", []),
            ("PUBSUB SHARDNUMSUB s a", [b"s", 1, b"a", 0]),
            ("PUBSUB NOSUCH", "ERR unknown subcommand 'NOSUCH'. Try PUBSUB HELP."),
        )  # fmt: skip
        self.assertIn(b"NUMPAT", self.ask("PUBSUB HELP"))
        self.assert_arity("PUBSUB", "PUBLISH a", "SUBSCRIBE", "PSUBSCRIBE", "SPUBLISH a b c")

    def test_it_holds_nobody_up_who_works_on_keys(self) -> None:
        self.assertFalse(TABLE[b"PUBLISH"].is_step)


class JsonTest(PubSubTest):
    def lines(self, data: bytes) -> list[object]:
        return [json.loads(line) for line in data.splitlines()]

    def ask_json(self, command: str, args: object = None, talk: Listening | None = None) -> object:
        request = {"command": command} | ({} if args is None else {"args": args})
        answer = self.lines((talk or self.talk).bytes(json.dumps(request) + "\n"))
        return answer[0] if len(answer) == 1 else answer

    def test_subscriptions_and_messages_are_lines_with_a_type(self) -> None:
        client = self.talk
        self.assertEqual(
            self.ask_json("SUBSCRIBE", {"channel": "foo"}),
            {"type": "SUBSCRIBE", "channel": "foo", "count": 1},
        )
        self.assertEqual(
            self.ask_json("PSUBSCRIBE", {"pattern": "f*"}),
            {"type": "PSUBSCRIBE", "pattern": "f*", "count": 2},
        )
        publisher = self.subscriber()
        self.assertEqual(
            self.ask_json("PUBLISH", {"channel": "foo", "message": "hé"}, publisher),
            {"status": "OK", "result": 2},
        )
        self.assertEqual(
            self.lines(client.take()),
            [
                {"type": "MESSAGE", "channel": "foo", "message": "hé"},
                {"type": "PMESSAGE", "pattern": "f*", "channel": "foo", "message": "hé"},
            ],
        )
        self.assertEqual(
            self.ask_json("UNSUBSCRIBE", {"channel": "foo"}),
            {"type": "UNSUBSCRIBE", "channel": "foo", "count": 1},
        )
        self.assertEqual(
            self.ask_json("PUNSUBSCRIBE"), {"type": "PUNSUBSCRIBE", "pattern": "f*", "count": 0}
        )
        self.assertEqual(
            self.ask_json("UNSUBSCRIBE"), {"type": "UNSUBSCRIBE", "channel": None, "count": 0}
        )

    def test_a_list_of_channels_is_confirmed_line_by_line(self) -> None:
        self.assertEqual(
            self.ask_json("SUBSCRIBE", ["a", "b"]),
            [
                {"type": "SUBSCRIBE", "channel": "a", "count": 1},
                {"type": "SUBSCRIBE", "channel": "b", "count": 2},
            ],
        )

    def test_what_is_not_utf8_is_marked(self) -> None:
        self.talk.bytes('{"command": "SUBSCRIBE", "args": {"channel": "foo"}}\n')
        self.talk.bytes('{"command": "PSUBSCRIBE", "args": {"pattern": "*"}}\n')
        self.subscriber()("PUBLISH", "foo", b"\xff")
        self.subscriber()("PUBLISH", b"\xfe", b"ok")
        self.assertEqual(
            self.lines(self.talk.take())[::2],
            [
                {"type": "MESSAGE", "channel": "foo", "message": "/w==", "encoding": "base64"},
                {"type": "PMESSAGE", "pattern": "*",
                 "channel": {"value": "/g==", "encoding": "base64"}, "message": "ok"},
            ],
        )  # fmt: skip
        message = {"channel": "foo", "message": "/w==", "encoding": "base64"}
        resp2 = self.subscriber("SUBSCRIBE foo")
        self.ask_json("PUBLISH", message, self.subscriber())
        self.assertEqual(resp2.take(), resp(b"message", b"foo", b"\xff"))

    def test_a_subscriber_may_go_on_asking_in_json_but_not_in_resp2(self) -> None:
        self.ask_json("SUBSCRIBE", {"channel": "foo"})
        self.assertEqual(self.ask_json("INCR", {"key": "n"}), {"status": "OK", "result": "1"})
        self.assertEqual(self.ask_json("PING"), {"status": "OK", "result": "PONG"})
        self.assertEqual(self.ask("INCR n"), NOT_NOW.format("incr"))

    def test_the_latest_request_decides_on_the_dialect(self) -> None:
        self.ask_json("SUBSCRIBE", {"channel": "foo"})
        self.talk.bytes("SUBSCRIBE foo\r\n")
        self.subscriber()("PUBLISH", "foo", "x")
        self.assertEqual(self.talk.take(), resp(b"message", b"foo", b"x"))

    def test_what_is_missing_is_named(self) -> None:
        for command, args, name in (
            ("SUBSCRIBE", {}, "channel"), ("PUBLISH", {"channel": "a"}, "message"),
            ("PSUBSCRIBE", {"channel": "a"}, "pattern"),
        ):  # fmt: skip
            with self.subTest(command):
                answer = self.ask_json(command, args)
                self.assertEqual(answer["message"], f'{command} needs "{name}"')  # type: ignore[index]


class _Slow:
    """A subscriber that keeps what it gets, and lets others go on meanwhile."""

    version = 2
    subscriptions = None

    def __init__(self) -> None:
        self.got: list[bytes] = []

    def push(self, data: bytes) -> None:
        self.got.append(data)
        time.sleep(0)


class OrderTest(unittest.TestCase):
    def test_all_subscribers_get_the_messages_of_many_publishers_in_one_order(self) -> None:
        hub = Hub()
        clients = [_Slow() for _ in range(5)]
        for client in clients:
            hub.subscribe(client, Kind.CHANNEL, [b"c"], encode_reply)  # type: ignore[arg-type]

        def publish(name: int) -> None:
            for number in range(300):
                hub.publish(b"c", b"%d %d" % (name, number))

        threads = [threading.Thread(target=publish, args=(name,)) for name in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        first = clients[0].got
        self.assertEqual(len(first), 1200)
        for client in clients:
            self.assertEqual(client.got, first)
        for name in b"0123":
            own = [data for data in first if data.split(b"\r\n")[6][0] == name]
            self.assertEqual(own, sorted(own, key=lambda data: int(data.split()[-1])))

    def test_who_comes_and_goes_gets_nothing_outside_of_it(self) -> None:
        hub = Hub()
        with publishing(hub):
            for _ in range(300):
                client = _Slow()
                hub.subscribe(client, Kind.CHANNEL, [b"a"], encode_reply)  # type: ignore[arg-type]
                hub.leave(client)  # type: ignore[arg-type]
                count = len(client.got)
                hub.publish(b"a", b"late")
                self.assertEqual(len(client.got), count)
        hub.check()


class OverSocketsTest(unittest.TestCase):
    @contextmanager
    def subscribed(self, port: int, request: bytes = b"SUBSCRIBE a\r\n") -> Iterator[Wire]:
        with Wire(port) as wire:
            answer = resp(b"subscribe", b"a", 1)
            self.assertEqual(wire.ask(request, len(answer)), answer)
            yield wire

    def test_confirmations_and_messages_keep_their_order(self) -> None:
        with running_server() as service, Wire(service.server.port) as publisher:
            with publishing(service.instance.hub), Wire(service.server.port) as wire:
                wire.socket.sendall(b"SUBSCRIBE a\r\nUNSUBSCRIBE a\r\nECHO end\r\n" * 50)
                data = b""
                while data.count(b"end") < 50:
                    data += wire.socket.recv(65536)
            message = resp(b"message", b"a", b"x")
            rest = data.replace(message, b"")
            self.assertEqual(
                rest,
                (resp(b"subscribe", b"a", 1) + resp(b"unsubscribe", b"a", 0) + b"$3\r\nend\r\n")
                * 50,
            )
            for outside in data.split(b"subscribe\r\n$1\r\na\r\n:0\r\n")[1:]:
                self.assertFalse(outside.startswith(b"$3\r\nend\r\n" + message))
            publisher.ask(b"PING\r\n", 7)

    def test_a_confirmation_that_waits_for_the_disk_still_comes_first(self) -> None:
        with TemporaryDirectory() as folder:
            data = Path(folder) / "data.sqlite"
            with (
                running_server(data=data, fsync="always") as service,
                publishing(service.instance.hub),
            ):
                for _ in range(10):
                    with Wire(service.server.port) as wire:
                        answer = b"+OK\r\n" + resp(b"subscribe", b"a", 1)
                        request = b"SET k v\r\nSUBSCRIBE a\r\n"
                        self.assertEqual(wire.ask(request, len(answer)), answer)

    def test_who_does_not_read_is_ended_and_others_get_everything(self) -> None:
        with running_server() as service:
            port = service.server.port
            with (
                Wire(port) as publisher,
                self.subscribed(port) as asleep,
                self.subscribed(port) as awake,
                self.assertLogs("kvdb.server.connection", logging.WARNING) as logged,
            ):
                limit = b"CONFIG SET client-output-buffer-limit 'pubsub 3mb 0 0'\r\n"
                self.assertEqual(publisher.ask(limit, 5), b"+OK\r\n")
                message = resp(b"message", b"a", b"x" * 100_000)
                request = b"*3\r\n$7\r\nPUBLISH\r\n$1\r\na\r\n$100000\r\n%b\r\n" % (b"x" * 100_000)
                receivers = []
                for _ in range(150):
                    receivers.append(publisher.ask(request, 4))
                    self.assertEqual(awake.read(len(message)), message)
                self.assertEqual((receivers[0], receivers[-1]), (b":2\r\n", b":1\r\n"))
                until(lambda: service.instance.hub.clients == 1)
                self.assertEqual(service.instance.ended_by_output_limit, 1)
                self.assertLess(len(asleep.read_to_end()), 15_000_000)
            self.assertIn("does not read", logged.output[0])

    def test_the_soft_limit_ends_who_gets_nothing_more_as_well(self) -> None:
        with (
            running_server() as service,
            Wire(service.server.port) as publisher,
            self.subscribed(service.server.port),
            self.assertLogs("kvdb.server.connection", logging.WARNING),
        ):
            limit = b"CONFIG SET client-output-buffer-limit 'pubsub 0 3mb 1'\r\n"
            self.assertEqual(publisher.ask(limit, 5), b"+OK\r\n")
            for _ in range(15):
                service.instance.hub.publish(b"a", b"x" * 1_000_000)
            until(lambda: service.instance.hub.clients == 0)

    def test_the_limit_of_normal_clients_ends_who_does_not_read_replies(self) -> None:
        with running_server() as service, Wire(service.server.port) as wire:
            limit = b"CONFIG SET client-output-buffer-limit 'normal 1mb 0 0'\r\n"
            self.assertEqual(wire.ask(limit, 5), b"+OK\r\n")
            service.store.set(b"k", b"x" * 12_000_000)
            with self.assertLogs("kvdb.server.connection", logging.WARNING):
                wire.socket.sendall(b"GET k\r\n" * 3)
                until(lambda: service.instance.ended_by_output_limit == 1)


if __name__ == "__main__":
    unittest.main()
