"""Other servers replicate ours: handshake, snapshot, stream, a short break, and what goes wrong."""

from __future__ import annotations

import contextlib
import random
import time
import unittest
from typing import Any
from unittest import mock

import kvdb
from kvdb.output_limits import Limit
from kvdb.rdb.files import END, encode_select, header
from kvdb.replication.primary import (
    BACKLOG_BYTES,
    PING_EVERY,
    SILENCE,
    Replica,
    Replication,
    _size_of,
    snapshot_chunks,
)
from kvdb.replication.stream import Backlog, Encoder
from kvdb.store import Store
from kvdb.store.entry import Entry, key_in
from kvdb.store.feed import Cause, Change, Flush, Swap
from tests.follower import Entries, Follower, what_it_holds
from tests.support import ManualClock, Wire, running_server, until


def entries_of(store: Store) -> Entries:
    dump = store.dump()
    return {
        key: Entry(value, dump.expires_at.get(key))
        for key, value in zip(dump.keys, dump.values, strict=True)
    }


class EncoderTest(unittest.TestCase):
    def encode(self, *facts: Any) -> bytes:
        return b"".join(self.encoder.encode(facts))

    def setUp(self) -> None:
        self.encoder = Encoder()
        self.encode(Change(b"k", b"v"))  # has selected database 0

    def test_facts_are_absolute(self) -> None:
        for fact, command in (
            (Change(b"k", b"v"), b"*3|$3|SET|$1|k|$1|v|"),
            (Change(b"k", b"", 5.25), b"*5|$3|SET|$1|k|$0||$4|PXAT|$4|5250|"),
            (Change(b"k", b"v", 9.0, 0, Cause.DEADLINE), b"*3|$9|PEXPIREAT|$1|k|$4|9000|"),
            (
                Change(b"k", b"v", 2.0**63 / 1000, 0, Cause.DEADLINE),
                b"*3|$9|PEXPIREAT|$1|k|$19|9223372036854775807|",
            ),
            (Change(b"k", b"v", None, 0, Cause.DEADLINE), b"*2|$7|PERSIST|$1|k|"),
            (Change(b"k", b"2", None, 0, Cause.INCREMENTED), b"*3|$3|SET|$1|k|$1|2|"),
            (Change(b"k", None, cause=Cause.EXPIRED), b"*2|$3|DEL|$1|k|"),
            (Flush(None), b"*1|$8|FLUSHALL|"),
            (Swap(1, 12), b"*3|$6|SWAPDB|$1|1|$2|12|"),
        ):
            with self.subTest(fact):
                self.assertEqual(self.encode(fact), command.replace(b"|", b"\r\n"))

    def test_a_database_is_selected_when_it_is_another_one(self) -> None:
        select = b"*2\r\n$6\r\nSELECT\r\n$1\r\n3\r\n"
        self.assertTrue(self.encode(Change((3, b"k"), b"v")).startswith(select))
        self.assertNotIn(b"SELECT", self.encode(Change((3, b"k"), b"v")))
        self.assertTrue(self.encode(Flush(5)).endswith(b"FLUSHDB\r\n"))
        self.assertIn(b"SELECT", self.encode(Change((3, b"k"), b"v")))
        self.encoder.forget_selection()
        self.assertTrue(self.encode(Change((3, b"k"), b"v")).startswith(select))

    def test_a_step_of_several_facts_is_a_transaction(self) -> None:
        step = self.encode(Change(b"a", b"1"), Change(b"b", None))
        self.assertTrue(step.startswith(b"*1\r\n$5\r\nMULTI\r\n"))
        self.assertTrue(step.endswith(b"*1\r\n$4\r\nEXEC\r\n"))


class BacklogTest(unittest.TestCase):
    def test_it_keeps_the_end_of_the_stream(self) -> None:
        backlog, stream = Backlog(100), b""
        for number in range(200):
            piece = b"%d," % number
            backlog.add(piece)
            stream += piece
            self.assertEqual(backlog.end, len(stream))
            self.assertLess(backlog.size, 100 + len(piece))
            self.assertEqual(backlog.since(backlog.start), stream[backlog.start :])
            self.assertEqual(backlog.since(backlog.end), b"")
            self.assertEqual(backlog.since(backlog.end - 2), stream[-2:])
        self.assertIsNone(backlog.since(backlog.start - 1))
        self.assertIsNone(backlog.since(backlog.end + 1))

    def test_a_piece_that_is_larger_is_kept_until_the_next(self) -> None:
        backlog = Backlog(10)
        backlog.add(b"x" * 50)
        self.assertEqual(backlog.since(0), b"x" * 50)
        backlog.add(b"y" * 10)
        self.assertEqual((backlog.start, backlog.size), (50, 10))


class SnapshotTest(unittest.TestCase):
    def test_its_length_is_known_before_it_is_made(self) -> None:
        store = Store(0)
        for number, length in enumerate((0, 1, 63, 64, 16_383, 16_384, 300_000)):
            store.set(
                key_in(number % 3, b"k" * length),
                b"v" * length,
                expires_at=9e9 if number % 2 else None,
            )
        length = _size_of(store.dump())
        chunks = list(snapshot_chunks(store.dump()))
        self.assertEqual(sum(map(len, chunks)) + len(END) + 8, length)
        self.assertGreater(len(chunks), 1)
        self.assertTrue(chunks[0].startswith(header() + encode_select(0)))


class ReplicationCase(unittest.TestCase):
    def serve(self, **config: Any) -> None:
        self.service = self.enterContext(running_server(**config))
        self.store, self.instance = self.service.store, self.service.instance
        self.replication = self.instance.replication
        self.port = self.service.server.port
        options = {"password": config["password"]} if "password" in config else {}
        self.db = self.enterContext(
            kvdb.Client(port=self.port, serializer=kvdb.BYTES, timeout=10, **options)
        )

    def follow(self, **options: Any) -> Follower:
        return self.enterContext(Follower(self.port, **options))

    def assert_same(self, follower: Follower) -> None:
        with self.store.atomic():
            expected = entries_of(self.store)
            self.replication.pump()
            offset = self.replication.offset
        follower.read_stream(offset)
        self.assertEqual(follower.entries, expected)


class FollowTest(ReplicationCase):
    def setUp(self) -> None:
        self.serve()

    def fill(self) -> None:
        self.db.set("a", b"1")
        self.db.set("b", b"x" * 70_000, ttl=1000)
        self.db.execute("SELECT", 0)
        with kvdb.Client(port=self.port, db=3, serializer=kvdb.BYTES) as third:
            third.set("c", b"\xff\x00")

    def test_a_replica_gets_what_there_is_and_what_follows(self) -> None:
        self.fill()
        for eof in (True, False):
            with self.subTest(eof=eof):
                follower = self.follow(eof=eof)
                self.assertEqual(follower.handshake[0], "+PONG")
                self.assertEqual(set(follower.handshake[1:]), {"+OK"})
                self.assert_same(follower)
                self.db.incr("n")
                self.db.expire("a", 100)
                self.db.delete("b")
                with self.db.pipeline(atomic=True) as pipe:
                    pipe.set("x", b"1")
                    pipe.set("y", b"1")
                self.assert_same(follower)
                self.assertEqual(follower.transactions, 1)
                self.db.execute("FLUSHALL")
                self.fill()

    def test_random_work_arrives_in_order(self) -> None:
        follower, chance = self.follow(), random.Random(seed := random.randrange(2**32))
        with self.subTest(seed=seed):
            for round_ in range(6):
                for _ in range(200):
                    key, value = f"k{chance.randrange(30)}", chance.randbytes(chance.randrange(50))
                    db = chance.choice((0, 0, 0, 1, 2))
                    request = chance.choice((
                        ["SET", key, value], ["SET", key, value, "PX", chance.randrange(1, 5000)],
                        ["APPEND", key, value], ["DEL", key], ["EXPIRE", key, chance.randrange(-1, 50)],
                        ["PERSIST", key], ["SETBIT", key, 5, 1], ["RENAME", key, "k0"],
                        ["MSET", key, value, "k1", value], ["COPY", key, "k2", "REPLACE"],
                        ["GETDEL", key], ["MOVE", key, chance.randrange(3)],
                        chance.choice((["FLUSHDB"], ["SWAPDB", 1, 2], ["FLUSHALL"], ["GET", key])),
                    ))  # fmt: skip
                    with (
                        kvdb.Client(port=self.port, db=db, serializer=kvdb.BYTES) as client,
                        contextlib.suppress(kvdb.ServerError),
                    ):
                        client.execute(*request)
                if round_ == 3:
                    self.store.max_bytes = self.store.used_bytes // 2  # evictions are told, too
                self.assert_same(follower)
                self.store.check()

    def test_what_expires_is_told(self) -> None:
        follower = self.follow()
        self.db.set("k", b"v", ttl=0.02)
        until(lambda: self.store.total_keys == 0)
        self.assert_same(follower)
        self.assertEqual(follower.entries, {})

    def test_what_happens_during_the_snapshot_follows_it(self) -> None:
        for number in range(4000):
            self.store.set(b"k%d" % number, b"v" * 100)
        wire = self.enterContext(Wire(self.port))
        wire.socket.sendall(b"REPLCONF capa eof\r\nPSYNC ? -1\r\n")
        wire.read_until(b"+FULLRESYNC")
        for number in range(0, 4000, 3):
            self.store.delete(b"k%d" % number)
            self.store.set(b"new%d" % number, b"w")
        follower = self.follow()
        self.assert_same(follower)
        wire.read_until(b"$EOF:")
        mark = wire.read_until(b"\r\n").rstrip()
        wire.read_until(mark)
        self.assertEqual([lag.replica.state for lag in self.replication.lags()], ["sent", "online"])
        wire.socket.sendall(b"REPLCONF ACK 0\r\n")
        self.assertTrue(wire.read_until(b"\r\n").startswith(b"*"))

    def test_after_a_short_break_only_what_was_missed_is_sent(self) -> None:
        self.fill()
        follower = self.follow()
        self.assert_same(follower)
        follower.socket.close()
        self.db.set("missed", b"v")
        again = self.follow(
            history=follower.history, offset=follower.offset + 1, entries=follower.entries
        )
        self.assertFalse(again.is_full)
        self.assert_same(again)
        self.assertIn(b"missed", again.entries)

    def test_after_a_long_break_or_in_another_history_everything_is_sent(self) -> None:
        follower = self.follow()
        self.db.set("a", b"v" * (BACKLOG_BYTES // 2))
        self.db.set("b", b"v" * BACKLOG_BYTES)
        self.db.set("c", b"v")
        for history, offset in (
            (follower.history, 1), ("0" * 40, follower.offset + 1), (follower.history, 10**9),
        ):  # fmt: skip
            again = self.follow(history=history, offset=offset)
            self.assertTrue(again.is_full)
            self.assert_same(again)

    def test_many_replicas_at_once(self) -> None:
        followers = [self.follow(eof=number % 2 == 0) for number in range(4)]
        for number in range(100):
            self.db.set(f"k{number}", b"v")
        for follower in followers:
            self.assert_same(follower)

    def test_sync_is_for_those_who_want_a_file(self) -> None:
        self.fill()
        with Wire(self.port) as wire:
            wire.socket.sendall(b"REPLCONF rdb-only 1\r\nSYNC\r\n")
            wire.read_until(b"+OK\r\n$")
            length = int(wire.read_until(b"\r\n"))
            data = wire.read(length)
        self.assertTrue(data.startswith(b"REDIS0009"))
        self.assertEqual(self.db.execute("ROLE")[2], [])
        stats = self.db.execute("INFO", "stats").decode()
        self.assertEqual(what_it_holds(stats, "sync_full"), "1")

    def test_who_comes_by_sync_need_not_acknowledge(self) -> None:
        with Wire(self.port) as wire:
            wire.socket.sendall(b"SYNC\r\n")
            wire.read_until(b"$")
            (lag,) = self.replication.lags()
            self.assertFalse(lag.replica.acknowledges)

    def test_who_comes_is_told_by_role_info_and_client_list(self) -> None:
        self.assertEqual(self.db.execute("ROLE"), [b"master", 0, []])
        follower = self.follow()
        self.db.set("k", b"v")
        self.assert_same(follower)
        follower.acknowledge()
        offset = follower.offset
        until(lambda: self.replication.reached(offset) == 1)
        expected = [b"master", offset, [[b"127.0.0.1", b"7777", b"%d" % offset]]]
        self.assertEqual(self.db.execute("ROLE"), expected)
        info = self.db.execute("INFO", "replication").decode()
        self.assertEqual(what_it_holds(info, "connected_slaves"), "1")
        slave = what_it_holds(info, "slave0")
        self.assertEqual(slave, f"ip=127.0.0.1,port=7777,state=online,offset={offset},lag=0")
        self.assertEqual(what_it_holds(info, "master_replid"), follower.history)
        self.assertIn(b" flags=S ", self.db.execute("CLIENT", "LIST", "TYPE", "replica"))
        self.assertNotIn(b" flags=S ", self.db.execute("CLIENT", "LIST", "TYPE", "normal"))
        self.db.execute("CLIENT", "KILL", "TYPE", "replica")
        until(lambda: self.replication.lags() == [])

    def test_wait_asks_the_replicas_and_tells_how_many_have_it(self) -> None:
        self.assertEqual(self.db.execute("WAIT", 0, 0), 0)
        self.assertEqual(self.db.execute("WAIT", 1, 10), 0)
        follower = self.follow()
        self.db.set("k", b"v")
        self.assertEqual(self.db.execute("WAIT", 1, 10), 0)  # it reads nothing
        with self.db.pipeline() as pipe:
            pipe.set("k", b"w")
        with Wire(self.port) as wire:
            wire.socket.sendall(b"WAIT 1 5000\r\n")
            until(lambda: any(each.waiting for each in self.instance.sessions()))
            follower.read_stream(self.replication.offset)
            follower.acknowledge()
            self.assertEqual(wire.read_until(b"\r\n"), b":1\r\n")
        self.assertEqual(self.db.execute("WAITAOF", 0, 1, 10), [0, 0], "it has not said so")
        follower.acknowledge(on_disk=True)
        until(lambda: self.replication.lags()[0].replica.on_disk)
        self.assertEqual(self.db.execute("WAITAOF", 0, 1, 10), [0, 0], "it was asked once more")
        follower.read_stream(self.replication.offset)
        follower.acknowledge(on_disk=True)
        self.assertEqual(self.db.execute("WAITAOF", 0, 1, 5000), [0, 1])
        self.db.set("k", b"x")
        self.assertEqual(self.db.execute("WAITAOF", 0, 1, 10), [0, 0])

    def test_what_is_wrong_is_refused_and_the_connection_goes_on(self) -> None:
        with Wire(self.port) as wire:
            for request, answer in (
                (b"REPLCONF nonsense 1", b"-ERR Unrecognized REPLCONF option: nonsense"),
                (b"REPLCONF listening-port 1 capa", b"-ERR syntax error"),
                (b"REPLCONF listening-port x", b"-ERR value is not an integer or out of range"),
                (b"REPLCONF rdb-filter-only functions", b"-ERR Unsupported RDB filter: functions"),
                (b"REPLCONF ip-address a,b=1", b"-ERR REPLCONF ip-address is no address"),
                (b"PSYNC ? x", b"-ERR value is not an integer or out of range"),
                (b"MULTI", b"+OK"),
                (b"PSYNC ? -1", b"+QUEUED"),
                (b"EXEC", b"*1\r\n-ERR Command not allowed inside a transaction"),
                (b"REPLCONF ACK 5\r\nPING", b"+PONG"),
            ):
                wire.socket.sendall(request + b"\r\n")
                self.assertEqual(wire.read(len(answer) + 2), answer + b"\r\n", request)
            wire.socket.sendall(b"HELLO 3\r\nPSYNC ? -1\r\n")
            wire.read_until(b"-ERR replication is for RESP2 only\r\n")
        follower = self.follow()
        follower.send("PSYNC", "?", "-1")
        self.assertEqual(follower.line(), "-ERR Replica is syncing already")


class RulesTest(ReplicationCase):
    def test_a_password_is_asked_for(self) -> None:
        self.serve(password="secret")
        self.db.set("k", b"v")
        follower = self.follow(password="secret")
        self.assert_same(follower)
        with Wire(self.port) as wire:
            wire.socket.sendall(b"PING\r\nPSYNC ? -1\r\n")
            self.assertIn(b"-NOAUTH", wire.read_until(b"required.\r\n"))

    def test_a_replica_may_be_silent_for_longer_than_clients(self) -> None:
        self.serve(idle_timeout=5)
        follower = self.follow()
        later = time.monotonic() + 50
        with mock.patch.object(self.instance, "monotonic", return_value=later):
            self.instance.end_idle_sessions()
        self.db.set("k", b"v")
        self.assert_same(follower)

    def test_who_only_says_that_it_could_be_a_replica_is_a_client_like_others(self) -> None:
        self.serve()
        with Wire(self.port) as wire:
            wire.socket.sendall(b"REPLCONF capa eof\r\n")
            wire.read_until(b"+OK\r\n")
            (session,) = (each for each in self.instance.sessions() if each.replica)
            self.assertFalse(session.is_replica)
        self.follow()
        self.assertEqual(sum(each.is_replica for each in self.instance.sessions()), 1)

    def test_while_data_are_loaded_nobody_may_begin(self) -> None:
        self.serve()
        self.instance.loading = True
        with Wire(self.port) as wire:
            wire.socket.sendall(b"PSYNC ? -1\r\n")
            self.assertTrue(wire.read_until(b"\r\n").startswith(b"-LOADING"))


class _Client:
    """A connection that notes what it is sent."""

    address = "10.0.0.1:5"
    unsent_bytes = 0

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed = False
        self.push = self.sent.append

    def close(self) -> None:
        self.closed = True


class ClockworkTest(unittest.TestCase):
    """What depends on time and on amounts, without a server."""

    def setUp(self) -> None:
        self.monotonic = ManualClock(0)
        self.store = Store(0)
        self.limit = Limit(0, 0, 0)
        self.replication = Replication(self.store, lambda: self.limit, self.monotonic)
        self.client = _Client()
        self.replica = Replica(self.client)

    def begin(self) -> None:
        self.replication.begin(self.replica)
        until(lambda: self.replica.state == "online")

    def test_nobody_pays_for_it_before_the_first_replica(self) -> None:
        self.store.set(b"k", b"v")
        self.assertEqual((self.replication.offset, self.replication.held_bytes), (0, 0))
        self.assertIsNone(self.replication.backlog)

    def test_a_quiet_stream_has_a_ping_now_and_then(self) -> None:
        self.begin()
        self.monotonic.now += PING_EVERY
        self.replication.housekeeping()
        self.replication.housekeeping()
        self.assertEqual(self.client.sent[-1], b"*1\r\n$4\r\nPING\r\n")
        self.assertEqual(self.client.sent.count(b"*1\r\n$4\r\nPING\r\n"), 1)

    def test_a_silent_replica_is_given_up(self) -> None:
        self.begin()
        self.monotonic.now += SILENCE
        self.replication.housekeeping()
        self.assertFalse(self.client.closed)
        self.monotonic.now += 1
        with self.assertLogs("kvdb", "WARNING"):
            self.replication.housekeeping()
        self.assertTrue(self.client.closed)

    def test_who_never_acknowledges_anything_is_not_given_up_for_it(self) -> None:
        self.replica.acknowledges = False
        self.begin()
        self.monotonic.now += SILENCE + 1
        self.replication.housekeeping()
        self.assertFalse(self.client.closed)

    def test_a_stream_without_replicas_ends_after_an_hour_and_its_history_with_it(self) -> None:
        self.begin()
        history = self.replication.id
        self.replication.leave(self.replica)
        self.store.set(b"k", b"v")
        self.assertGreater(self.replication.offset, 0)
        self.monotonic.now += 3601
        self.replication.housekeeping()
        self.assertNotEqual(self.replication.id, history)
        self.assertIsNone(self.replication.backlog)
        self.store.set(b"k", b"w")
        self.assertEqual(self.replication.offset, 0)
        self.assertFalse(self.replication.resume(Replica(_Client()), history, 1))

    def test_a_replica_for_which_too_much_waits_is_dropped(self) -> None:
        self.limit = Limit(1000, 0, 0)
        self.client.unsent_bytes = 10**9  # it reads nothing: its snapshot does not end
        self.store.set(b"k", b"v")
        self.replication.begin(self.replica)
        with self.assertLogs("kvdb", "WARNING"):
            for _ in range(5):
                self.store.set(b"k", b"v" * 300)
        self.assertTrue(self.client.closed)
        self.assertLess(self.replication.held_bytes, 3000)

    def test_a_snapshot_that_fails_is_cut_short_and_the_connection_closed(self) -> None:
        self.store.set(b"k", b"v")
        with (
            mock.patch("kvdb.replication.primary.encode_entry", side_effect=MemoryError),
            self.assertLogs("kvdb", "ERROR"),
        ):
            self.replication.begin(self.replica)
            until(lambda: self.client.closed)
        self.assertNotIn(END + bytes(8), b"".join(self.client.sent))


if __name__ == "__main__":
    unittest.main()
