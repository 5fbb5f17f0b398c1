"""Publish/subscribe and keyspace notifications: the same as Redis, and through real clients.

What is compared with the other server is all that each client gets after each request, and the
names of the events that each command causes.
"""

from __future__ import annotations

import shlex
import subprocess
import threading
import time
import unittest
from typing import Any

import redis

from kvdb.resp.replies import encode_request
from tests.interop.interop_differential import Client, parse_scenario
from tests.interop.servers import (
    Address,
    RedisAddress,
    program_of_redis,
    running_kvdb,
    running_redis,
)

DEADLINE = 10.0  # seconds that we wait for something which must happen


class _TwoServers(unittest.TestCase):
    redis: RedisAddress
    kvdb: Address

    @classmethod
    def setUpClass(cls) -> None:
        cls.redis = cls.enterClassContext(running_redis())
        cls.kvdb = cls.enterClassContext(running_kvdb())

    def connect(self, address: Address, version: int = 2) -> Client:
        client = Client(address)
        self.addCleanup(client.close)
        if version == 3:
            client(b"HELLO", b"3")
        return client


def all_replies(client: Client, marker: bytes, number: bool = False) -> list[bytes]:
    """Return all that has come to a client; with `number`, one is among it."""
    found: list[bytes] = []
    while number and not any(reply.startswith((b":", b"-")) for reply in found):
        found.append(client.reply())
    client.send(encode_request([b"PING", marker]))
    while marker not in (reply := client.reply()):
        found.append(reply)
    return found


SCENARIOS = {
    "channels": r"""
        SUBSCRIBE a
        SUBSCRIBE b a '' "\xff\r\n"
        @2 PUBLISH a hello
        @2 PUBLISH b ''
        @2 PUBLISH '' "\x00\xff\r\n"
        @2 PUBLISH "\xff\r\n" binary
        @2 PUBLISH nobody x
        UNSUBSCRIBE b
        UNSUBSCRIBE nosuch a
        @2 PUBLISH a x
        @2 PUBLISH b x
        UNSUBSCRIBE '' "\xff\r\n"
        UNSUBSCRIBE
        PING
        GET k
    """,
    "patterns": r"""
        PSUBSCRIBE a* [bc]? x
        SUBSCRIBE abc
        @2 PUBLISH abc 1
        @2 PUBLISH b1 2
        @2 PUBLISH b 3
        @2 PUBLISH x 4
        @2 PUBLISH xx 5
        @2 PSUBSCRIBE a* x
        PUNSUBSCRIBE x nosuch
        @2 PUNSUBSCRIBE x
        @2 PUNSUBSCRIBE
        @2 PUNSUBSCRIBE a*
        @2 PUBSUB NUMPAT
        @2 PUBLISH abc 6
        PUNSUBSCRIBE [bc]?
        PUNSUBSCRIBE
        UNSUBSCRIBE
        PUNSUBSCRIBE
    """,
    "shards": r"""
        SSUBSCRIBE s
        SUBSCRIBE s
        SSUBSCRIBE s t
        @2 SPUBLISH s shard
        @2 PUBLISH s plain
        @2 SPUBLISH nobody x
        @2 PUBSUB SHARDNUMSUB s t u
        @2 PUBSUB NUMSUB s t
        @2 PUBSUB SHARDCHANNELS t*
        SUNSUBSCRIBE t
        SUNSUBSCRIBE nosuch
        SUNSUBSCRIBE
        SUNSUBSCRIBE
        UNSUBSCRIBE
    """,
    "allowed_while_subscribed": r"""
        SUBSCRIBE a
        GET k
        SET k v
        get
        NOSUCH x
        SUBSCRIBE
        PING
        PING hi
        PING a b
        CLIENT GETNAME
        CLIENT NOSUCH
        PUBSUB CHANNELS
        MULTI
        EXEC
        DISCARD
        WATCH k
        ECHO x
        AUTH x
        SELECT 1
        SSUBSCRIBE s
        UNSUBSCRIBE a
        GET k
        SUNSUBSCRIBE s
        GET k
        SUBSCRIBE a
        RESET
        GET k
        @2 PUBLISH a x
        SUBSCRIBE a
        QUIT
    """,
    "transactions": r"""
        MULTI
        SUBSCRIBE a b
        SSUBSCRIBE s
        PSUBSCRIBE p
        UNSUBSCRIBE b
        PUNSUBSCRIBE p
        GET k
        EXEC
        @2 PUBLISH a x
        @2 PUBLISH b x
        RESET
        @2 MULTI
        @2 PUBLISH a y
        @2 SPUBLISH a y
        @2 PUBSUB NUMPAT
        @2 EXEC
        MULTI
        UNSUBSCRIBE
        DISCARD
        SUBSCRIBE a
        @2 MULTI
        @2 SET k 1
        @2 PUBLISH a y
        @2 EXEC
        RESET
    """,
    "to_oneself": r"""
        HELLO 3
        SUBSCRIBE a
        PSUBSCRIBE a*
        SSUBSCRIBE a
        PUBLISH a x
        SPUBLISH a y
        SET k v
        HELLO 2
        GET k
        RESET
        GET k
    """,
    "introspection": r"""
        PUBSUB CHANNELS
        PUBSUB NUMPAT
        PUBSUB NUMSUB
        PUBSUB SHARDNUMSUB
        @2 SUBSCRIBE a1
        PUBSUB CHANNELS
        PUBSUB CHANNELS a?
        PUBSUB CHANNELS b*
        PUBSUB CHANNELS a b
        PUBSUB SHARDCHANNELS a b
        PUBSUB NUMSUB a1 b a1
        PUBSUB NUMPAT x
        PUBSUB NOSUCH
        PUBSUB
        PUBLISH a
        SPUBLISH
        @2 PSUBSCRIBE a b
        PUBSUB NUMPAT
        CLIENT LIST TYPE nosuch
        @2 QUIT
        PUBSUB NUMPAT
    """,
    "settings": r"""
        CONFIG GET notify-keyspace-events
        CONFIG SET notify-keyspace-events KEA
        CONFIG GET notify-keyspace-events
        CONFIG SET notify-keyspace-events q
        CONFIG SET notify-keyspace-events g$lshzxetdEKm
        CONFIG GET notify-keyspace-events
        CONFIG SET notify-keyspace-events Kg$xe
        CONFIG GET notify-keyspace-events
        CONFIG SET notify-keyspace-events nmE
        CONFIG GET notify-keyspace-events
        CONFIG SET notify-keyspace-events ''
        CONFIG GET notify-keyspace-events
        CONFIG GET client-output-buffer-limit
        CONFIG SET client-output-buffer-limit 'pubsub 1mb 512k 10'
        CONFIG GET client-output-buffer-limit
        CONFIG SET client-output-buffer-limit 'normal 1 2'
        CONFIG SET client-output-buffer-limit 'foo 1 2 3'
        CONFIG SET client-output-buffer-limit 'master 1 2 3'
        CONFIG SET client-output-buffer-limit 'replica 1gb 2 3 PUBSUB 3 4 5'
        CONFIG GET client-output-buffer-limit
        CONFIG SET client-output-buffer-limit 'normal x 2 3'
        CONFIG SET client-output-buffer-limit 'normal -1 2 3'
        CONFIG SET client-output-buffer-limit 'normal 1 2 -3'
        CONFIG SET client-output-buffer-limit 'normal 1 2 3x'
        CONFIG SET client-output-buffer-limit ''
        CONFIG SET client-output-buffer-limit '  normal   5 2  3 '
        CONFIG SET client-output-buffer-limit 'normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60'
    """,
}


class SameMessages(_TwoServers):
    def run_scenario(self, name: str, version: int) -> None:
        pairs = {
            number: (self.connect(self.redis, version), self.connect(self.kvdb, version))
            for number in (1, 2)
        }
        for pair in pairs.values():
            for client in pair:
                client(b"FLUSHALL")
        queues: set[int] = set()  # who is within MULTI
        for number, (sender, request) in enumerate(parse_scenario(SCENARIOS[name]), 1):
            for client in pairs[sender]:
                client.send(encode_request(request))
            if request[0] in (b"EXEC", b"DISCARD", b"RESET"):
                queues.discard(sender)
            if request == [b"QUIT"]:
                replies = [client.reply() for client in pairs.pop(sender)]
                self.assertEqual(*replies)
                time.sleep(0.05)  # the end of a connection tells nobody
                continue
            if request == [b"MULTI"]:
                replies = [client.reply() for client in pairs[sender]]
                self.assertEqual(*replies)
                if replies[0] == b"+OK\r\n":
                    queues.add(sender)
                continue
            # The sender first: its reply tells that messages to the others are on their way.
            is_count = request[0].endswith(b"PUBLISH")
            for place in sorted(pairs, key=lambda place: place != sender):
                if place in queues:  # a PING would be queued
                    if place == sender:
                        self.assertEqual(*(client.reply() for client in pairs[place]))
                    continue
                expected, actual = (
                    all_replies(client, b"marker %d" % number, is_count and place == sender)
                    for client in pairs[place]
                )
                if request[0].endswith((b"PUBLISH", b"HELLO")):
                    # Redis 7.0 sends a message to oneself before the reply, later ones behind it.
                    expected, actual = (
                        sorted(each for each in replies if b"version" not in each)
                        for replies in (expected, actual)
                    )
                with self.subTest(name, version=version, number=number, client=place):
                    self.assertEqual(actual, expected, request)


def _add_scenarios() -> None:
    for name in SCENARIOS:
        for version in (2, 3):

            def test(self: SameMessages, name: str = name, version: int = version) -> None:
                self.run_scenario(name, version)

            setattr(SameMessages, f"test_{name}_in_resp{version}", test)


_add_scenarios()


EVENTS = """
    SET k v|SET k v EX 100|SET k w KEEPTTL|SET k v XX GET|SET nn v NX GET|SETNX k x|SETNX k2 x
    SETEX k 100 v|PSETEX k 100000 v|GETSET k z|GETSET m1 z|GETDEL k|GETDEL none|SET k v
    GETEX k EX 100|GETEX k PERSIST|GETEX k PERSIST|GETEX none EX 100|MSET a 1 b 2|MSETNX c 1 d 2
    MSETNX c 1 e 2|APPEND a x|APPEND new1 x|SETRANGE a 1 zz|SETRANGE nnn 1 zz|SETRANGE a 0 ''
    SETRANGE none 0 ''|INCR n|INCRBY n 5|DECR n|INCRBYFLOAT n 1.5|DEL a b zzz|UNLINK c d
    EXPIRE n 100|EXPIRE none 100|EXPIRE n 100 NX|PERSIST n|PERSIST n|SET s v EX 100|RENAME s t
    RENAME t t|SET u 1|RENAME t u|RENAMENX u v2|RENAMENX v2 u9|COPY u9 w|COPY u9 w REPLACE
    COPY none w|MOVE w 1|MOVE none 1|COPY u9 x DB 1|SELECT 1|SET other 1|SELECT 0|FLUSHDB|GET none
    MGET none u9 none2|EXISTS none|TTL none|PTTL none|TYPE none|STRLEN none|GETRANGE none 0 1
    TOUCH none|EXPIRETIME none|PEXPIRETIME none|OBJECT ENCODING none|OBJECT REFCOUNT none
    MEMORY USAGE none|SCAN 0|RENAME none x|SETBIT bb 1 1|SETBIT bb 2 1|BITOP AND dd bb bb
    BITFIELD bb SET u8 0 1|GETBIT none 1|BITCOUNT none|SET k v|MULTI|SET k v|GET none|INCR q|DEL k
    EXEC|SET lock v NX EX 10|SET lock v NX EX 10|DEL lock|DUMP none|LCS none none2|FLUSHALL
"""


class SameEvents(_TwoServers):
    def events(self, listener: Client, number: int) -> list[bytes]:
        return [
            reply.partition(b"__key")[2] for reply in all_replies(listener, b"marker %d" % number)
        ]

    def test_each_command_causes_the_same_events(self) -> None:
        found: list[list[tuple[str, list[bytes]]]] = []
        for address in (self.redis, self.kvdb):
            client, listener = self.connect(address), self.connect(address)
            client(b"FLUSHALL")
            client(b"CONFIG", b"SET", b"notify-keyspace-events", b"AKEmn")
            listener(b"PSUBSCRIBE", b"__key*")
            table = []
            for number, line in enumerate(EVENTS.replace("\n", "|").split("|")):
                if line.strip():
                    client(*(word.encode() for word in shlex.split(line)))
                    client(b"PING")
                    table.append((line, self.events(listener, number)))
            found.append(table)
        for expected, actual in zip(*found, strict=True):
            with self.subTest(expected[0]):
                self.assertEqual(actual, expected)

    def test_an_expiry_is_told_without_anybody_asking(self) -> None:
        for address in (self.redis, self.kvdb):
            client, listener = self.connect(address), self.connect(address)
            client(b"CONFIG", b"SET", b"notify-keyspace-events", b"Ex")
            listener(b"SUBSCRIBE", b"__keyevent@0__:expired")
            client(b"SET", b"k", b"v", b"PX", b"50")
            begin = time.monotonic()
            self.assertEqual(listener.reply().split(b"\r\n")[6], b"k")
            self.assertLess(time.monotonic() - begin, DEADLINE)


# --- redis-py -----------------------------------------------------------------------------


class _RedisPy(unittest.TestCase):
    address: Address
    protocol: int

    @classmethod
    def setUpClass(cls) -> None:
        cls.address = cls.enterClassContext(running_kvdb())

    def client(self, **options: Any) -> redis.Redis:
        options = {"protocol": self.protocol, "decode_responses": True, **options}
        client = redis.Redis(self.address.host, self.address.port, **options)
        self.addCleanup(client.close)
        return client

    def get(self, pubsub: Any) -> dict[str, Any]:
        message = None
        deadline = time.monotonic() + DEADLINE
        while message is None and time.monotonic() < deadline:
            message = pubsub.get_message(timeout=1.0)
        assert message is not None, "nothing came"
        return message  # type: ignore[no-any-return]

    def test_messages_and_patterns(self) -> None:
        db, pubsub = self.client(), self.client().pubsub()
        pubsub.subscribe("a")
        pubsub.psubscribe("b*")
        self.assertEqual([self.get(pubsub)["type"] for _ in "12"], ["subscribe", "psubscribe"])
        self.assertEqual(db.publish("a", "x"), 1)
        self.assertEqual(db.publish("b1", "y"), 1)
        message, pmessage = self.get(pubsub), self.get(pubsub)
        self.assertEqual((message["channel"], message["data"]), ("a", "x"))
        self.assertEqual(
            (pmessage["pattern"], pmessage["channel"], pmessage["data"]), ("b*", "b1", "y")
        )
        self.assertEqual(db.pubsub_channels(), ["a"])
        self.assertEqual(db.pubsub_numsub("a", "x"), [("a", 1), ("x", 0)])
        self.assertEqual(db.pubsub_numpat(), 1)
        pubsub.unsubscribe()
        pubsub.punsubscribe()
        self.assertEqual([self.get(pubsub)["type"] for _ in "12"], ["unsubscribe", "punsubscribe"])
        self.assertFalse(pubsub.subscribed)
        pubsub.close()

    def test_listen_and_shards(self) -> None:
        db, pubsub = self.client(), self.client().pubsub(ignore_subscribe_messages=True)
        pubsub.ssubscribe("s")
        pubsub.subscribe("end")
        while db.pubsub_numsub("end") != [("end", 1)]:
            time.sleep(0.01)
        self.assertEqual(db.spublish("s", "one"), 1)
        db.publish("end", "two")
        found = []
        for message in pubsub.listen():
            if message:
                found.append(message["data"])
            if len(found) == 2:
                break
        self.assertEqual(found, ["one", "two"])
        pubsub.close()

    def test_health_checks(self) -> None:
        db = self.client()
        pubsub = self.client(health_check_interval=1).pubsub(ignore_subscribe_messages=True)
        pubsub.subscribe("a")
        pubsub.get_message(timeout=1)
        for number in range(3):
            time.sleep(1.1)
            pubsub.check_health()
            db.publish("a", str(number))
            self.assertEqual(self.get(pubsub)["data"], str(number))
        pubsub.close()

    def test_a_thread_of_its_own(self) -> None:
        db, pubsub = self.client(), self.client().pubsub()
        found: list[str] = []
        done = threading.Event()

        def take(message: dict[str, Any]) -> None:
            found.append(message["data"])
            if len(found) == 100:
                done.set()

        pubsub.subscribe(a=take)
        thread = pubsub.run_in_thread(sleep_time=0.01, daemon=True)
        while db.pubsub_numsub("a") != [("a", 1)]:
            time.sleep(0.01)
        with db.pipeline() as pipe:
            for number in range(100):
                pipe.publish("a", str(number))
            self.assertEqual(pipe.execute(), [1] * 100)
        self.assertTrue(done.wait(DEADLINE))
        thread.stop()
        thread.join(DEADLINE)
        self.assertEqual(found, [str(number) for number in range(100)])

    def test_keyspace_notifications(self) -> None:
        db, pubsub = self.client(), self.client().pubsub(ignore_subscribe_messages=True)
        db.config_set("notify-keyspace-events", "KEA")
        pubsub.psubscribe("__keyspace@0__:*")
        pubsub.get_message(timeout=1)
        db.set("k", "v", ex=100)
        db.delete("k")
        self.assertEqual([self.get(pubsub)["data"] for _ in "123"], ["set", "expire", "del"])
        db.config_set("notify-keyspace-events", "")
        pubsub.close()


class RedisPyInResp2(_RedisPy):
    protocol = 2


class RedisPyInResp3(_RedisPy):
    protocol = 3


class RedisCli(unittest.TestCase):
    def test_psubscribe_shows_what_is_published(self) -> None:
        with running_kvdb() as address:
            command = [program_of_redis("redis-cli"), "-p", str(address.port)]
            with subprocess.Popen(
                [*command, "psubscribe", "n*"], stdout=subprocess.PIPE, text=True
            ) as listener:
                try:
                    assert listener.stdout is not None
                    for expected in ("psubscribe", "n*", "1"):
                        self.assertIn(expected, listener.stdout.readline())
                    subprocess.run([*command, "publish", "news", "hello"], check=True, timeout=10)
                    shown = [listener.stdout.readline().strip() for _ in range(4)]
                finally:
                    listener.terminate()
            self.assertEqual(shown, ["pmessage", "n*", "news", "hello"])


def load_tests(
    loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None
) -> unittest.TestSuite:
    """Leave out the classes that only others derive from."""
    suites = SameMessages, SameEvents, RedisPyInResp2, RedisPyInResp3, RedisCli
    return unittest.TestSuite(map(loader.loadTestsFromTestCase, suites))


if __name__ == "__main__":
    unittest.main()
