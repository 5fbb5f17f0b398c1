"""A server that follows another one: what it has, what it refuses, and when it is let go."""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
import unittest
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any
from unittest import mock

import kvdb
from kvdb.config import Config
from kvdb.rdb.files import END, encode_entry, encode_select, header
from kvdb.replication.link import Link, LinkLost, Primary
from kvdb.service import Service
from kvdb.store.entry import Entry, key_in
from tests.certificates import write_certificates
from tests.follower import what_it_holds
from tests.support import Wire, ask_http, running_server, until
from tests.test_replication import entries_of

FILE = header() + b"\xfa\x03ver\x017" + encode_select(0) + encode_entry(b"old", b"1", None)


class StandbyCase(unittest.TestCase):
    def serve(self, **config: Any) -> tuple[Service, kvdb.Client[bytes]]:
        service = self.enterContext(running_server(**config))
        options = {"password": config["password"]} if "password" in config else {}
        client = kvdb.Client(port=service.server.port, serializer=kvdb.BYTES, timeout=10, **options)
        return service, self.enterContext(client)

    def link_is_up(self, service: Service) -> bool:
        standby = service.instance.standby
        return standby is not None and standby.state == "connected"

    def assert_follows(self, primary: Service, standby: Service) -> None:
        def is_same() -> bool:
            there = standby.instance.standby
            primary.instance.replication.pump()
            return there is not None and there.offset >= primary.instance.replication.offset

        until(lambda: self.link_is_up(standby) and is_same())
        self.assertEqual(entries_of(standby.store), entries_of(primary.store))
        standby.store.check()


class FollowTest(StandbyCase):
    def setUp(self) -> None:
        self.primary, self.db = self.serve()
        self.standby, self.copy = self.serve(
            replica_of=("127.0.0.1", self.primary.server.port),
            memcached_port=0,
            haus_port=0,
            http_port=0,
        )
        until(lambda: self.link_is_up(self.standby))

    def test_it_has_what_the_primary_has(self) -> None:
        self.db.mset({f"k{number}": b"v" for number in range(100)})
        self.db.expire("k1", 1000)
        self.db.incr("n")
        self.db.execute("SELECT", 0)
        with self.db.pipeline(atomic=True) as pipe:
            pipe.set("a", b"1")
            pipe.delete("k2")
        self.db.execute("SWAPDB", 0, 5)
        self.db.set("big", b"x" * 500_000)
        self.assert_follows(self.primary, self.standby)

    def test_a_transaction_is_one_step_here_too(self) -> None:
        steps: list[int] = []
        self.standby.store.add_listener(lambda step, facts: steps.append(len(facts)))
        with self.db.pipeline(atomic=True) as pipe:
            for number in range(5):
                pipe.set(f"k{number}", b"v")
        self.assert_follows(self.primary, self.standby)
        self.assertEqual(steps, [5])

    def test_nobody_else_may_write_on_any_port(self) -> None:
        self.db.set("k", b"v")
        self.assert_follows(self.primary, self.standby)
        for request in (
            ("SET", "k", "w"), ("DEL", "k"), ("INCR", "n"), ("FLUSHALL",), ("EXPIRE", "k", 5),
            ("EVAL", "return redis.call('set', 'k', 'w')", 0), ("RESTORE", "x", 0, "y"),
        ):  # fmt: skip
            with (
                self.subTest(request),
                self.assertRaisesRegex(kvdb.ServerError, "READONLY You can't"),
            ):
                self.copy.execute(*request)
        with (
            self.assertRaisesRegex(kvdb.ServerError, "READONLY"),
            self.copy.pipeline(atomic=True) as pipe,
        ):
            pipe.set("k", b"w")
        ports = {name: listener.port for name, listener in self.standby.listeners.items()}
        for name, request in (
            ("memcached", b"set k 0 0 1\r\nw\r\n"), ("memcached", b"incr k 1\r\n"),
            ("memcached", b"ms k 1\r\nw\r\n"), ("haus", b"PUT k w\n"),
            ("main", b'{"command": "SET", "args": ["k", "w"]}\n'),
        ):  # fmt: skip
            with self.subTest(request), Wire(ports[name]) as wire:
                wire.socket.sendall(request)
                self.assertIn(b"replica", wire.read_until(b"\n"))
        for path, method in (("/set?k=w", "GET"), ("/keys/k", "PUT"), ("/keys/k", "DELETE")):
            self.assertEqual(ask_http(ports["http"], path, method).status, 400)
        self.assertEqual(self.copy.get("k"), b"v")
        with Wire(ports["main"]) as wire:  # a pipeline that would be carried out together
            wire.socket.sendall(b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nw\r\n" * 50)
            for _ in range(50):
                self.assertIn(b"-READONLY", wire.read_until(b"\r\n"))

    def test_it_tells_whom_it_follows(self) -> None:
        self.db.set("k", b"v")
        self.assert_follows(self.primary, self.standby)
        port = self.primary.server.port
        self.assertEqual(
            self.copy.execute("ROLE")[:4], [b"slave", b"127.0.0.1", port, b"connected"]
        )
        info = self.copy.execute("INFO", "replication").decode()
        self.assertEqual(what_it_holds(info, "role"), "slave")
        self.assertEqual(what_it_holds(info, "master_link_status"), "up")
        self.assertEqual(self.copy.execute("CONFIG", "GET", "replicaof")[1], b"127.0.0.1 %d" % port)
        self.assertIn(b"Already connected", self.copy.execute("REPLICAOF", "127.0.0.1", port))
        self.assertEqual(self.db.execute("WAIT", 1, 5000), 1)

    def test_after_a_break_it_goes_on(self) -> None:
        self.db.execute("CLIENT", "KILL", "TYPE", "replica")
        self.db.set("k", b"v")
        self.assert_follows(self.primary, self.standby)
        self.assertEqual(self.primary.instance.replication.partial_syncs, 1)

    def test_a_server_that_is_let_go_may_be_written_and_has_everything(self) -> None:
        self.db.set("k", b"v")
        self.db.set("due", b"v", ttl=1000)
        self.assert_follows(self.primary, self.standby)
        self.copy.execute("REPLICAOF", "NO", "ONE")
        self.copy.set("mine", b"1")
        self.db.set("theirs", b"1")
        self.assertEqual(self.copy.mget(["k", "mine", "theirs"]), [b"v", b"1", None])
        self.assertEqual(self.copy.execute("ROLE")[0], b"master")
        self.assertTrue(self.standby.store.expires)

    def test_what_is_due_is_hidden_until_the_primary_says_that_it_is_gone(self) -> None:
        self.primary.instance.expires_actively = False
        self.db.set("k", b"v", ttl=0.05)
        self.assert_follows(self.primary, self.standby)
        until(lambda: self.copy.get("k") is None)
        self.assertEqual((self.copy.exists("k"), self.copy.mget(["k"])), (False, [None]))
        self.assertEqual(self.standby.store.total_keys, 1)
        self.assertIsNone(self.db.get("k"))
        until(lambda: self.standby.store.total_keys == 0)

    def test_a_replica_has_replicas_of_its_own(self) -> None:
        third, _ = self.serve(replica_of=("127.0.0.1", self.standby.server.port))
        self.db.set("k", b"v")
        self.assert_follows(self.primary, self.standby)
        until(lambda: third.store.entry(b"k") == Entry(b"v"))


class StopTest(StandbyCase):
    def test_nobody_waits_for_a_connection_that_is_being_made(self) -> None:
        primary, _ = self.serve()
        asked, answer = threading.Event(), threading.Event()
        connect = socket.create_connection

        def slow(address: Any, timeout: Any = None) -> socket.socket:
            asked.set()
            answer.wait(20)
            return connect(address, timeout)

        service, db = self.serve()
        db.set("mine", b"1")
        with mock.patch("kvdb.replication.link.socket.create_connection", slow):
            db.execute("REPLICAOF", "127.0.0.1", primary.server.port)
            self.assertTrue(asked.wait(5))
            standby = service.instance.standby
            assert standby is not None
            self.assertEqual(db.execute("REPLICAOF", "NO", "ONE"), b"OK")
            self.assertTrue(standby.thread.is_alive(), "it waited for nothing")
            answer.set()
            standby.thread.join(5)
        self.assertFalse(standby.thread.is_alive())
        self.assertEqual(db.get("mine"), b"1")
        self.assertEqual(primary.instance.replication.full_syncs, 0)


class BreakTest(StandbyCase):
    """What a link that breaks anywhere may do to what is here: nothing."""

    def setUp(self) -> None:
        self.enterContext(mock.patch("kvdb.replication.standby._RETRY", 0.01))

    def command(self, *words: str) -> bytes:
        return b"*%d\r\n" % len(words) + b"".join(
            b"$%d\r\n%b\r\n" % (len(word), word.encode()) for word in words
        )

    def follow_in_pieces(self, stream: bytes, cut: int) -> tuple[Service, list[int]]:
        """Have a standby get a stream whose first link ends after so many bytes."""
        snapshot = header() + END + bytes(8)
        asked: list[int] = []
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            standby, copy = self.serve()
            copy.execute("REPLICAOF", "127.0.0.1", listener.getsockname()[1])
            for number in range(2):
                peer, _ = listener.accept()
                with closing(peer), Peer(peer) as lines:
                    history, offset = lines.until_psync()
                    if number == 0:
                        peer.sendall(b"+FULLRESYNC %b 0\r\n" % (b"a" * 40))
                        peer.sendall(b"$%d\r\n%b" % (len(snapshot), snapshot))
                        peer.sendall(stream[:cut])
                        until(lambda: standby.instance.standby.heard_at)  # type: ignore[union-attr]
                        until(lambda: self.link_is_up(standby))
                        continue
                    self.assertEqual(history, "a" * 40)
                    asked.append(offset)
                    peer.sendall(b"+CONTINUE\r\n" + stream[offset - 1 :])
                    until(lambda: standby.instance.standby.offset == len(stream))  # type: ignore[union-attr]
            copy.execute("REPLICAOF", "NO", "ONE")
        return standby, asked

    def test_database_and_transaction_outlive_it(self) -> None:
        before = self.command("SELECT", "5") + self.command("SET", "a", "1")
        transaction = self.command("MULTI") + b"".join(
            self.command("INCR", f"tx{number % 2}") for number in range(4)
        )
        stream = before + transaction + self.command("EXEC") + self.command("SET", "b", "2")
        for cut in range(len(before), len(stream), 23):
            with self.subTest(cut=cut), self.assertLogs("kvdb", "WARNING"):
                standby, asked = self.follow_in_pieces(stream, cut)
                if cut < len(before) + len(transaction):
                    self.assertEqual(asked, [len(before) + 1], "it begins with MULTI again")
                values = {b"a": b"1", b"b": b"2", b"tx0": b"2", b"tx1": b"2"}
                expected = {key_in(5, name): Entry(value) for name, value in values.items()}
                self.assertEqual(entries_of(standby.store), expected)

    def test_nothing_is_written_into_another_database_than_the_one_selected(self) -> None:
        stream = b"".join(
            self.command(*words.split())
            for words in (
                "SET user mine", "SELECT 20", "SET user x", "FLUSHDB", "MULTI", "SET y 1", "EXEC",
                "SELECT 1", "SET z 1",
            )
        )  # fmt: skip
        with self.assertLogs("kvdb", "WARNING"):
            standby, _ = self.follow_in_pieces(stream, len(stream) - 5)
        self.assertEqual(
            entries_of(standby.store), {b"user": Entry(b"mine"), key_in(1, b"z"): Entry(b"1")}
        )
        stream = self.command("SET", "k", "v") + self.command("SELECT", "20")
        stream += self.command("FLUSHALL")
        with self.assertLogs("kvdb", "WARNING"):
            standby, _ = self.follow_in_pieces(stream, 5)
        self.assertEqual(entries_of(standby.store), {})

    def test_what_would_have_to_wait_is_refused_and_the_stream_goes_on(self) -> None:
        stream = self.command("WAIT", "1", "0") + self.command("SET", "k", "v")
        with self.assertLogs("kvdb", "WARNING"):
            standby, _ = self.follow_in_pieces(stream, len(stream) - 3)
        self.assertEqual(entries_of(standby.store), {b"k": Entry(b"v")})


class Peer:
    """Reads what a standby says in its handshake, and answers with OK."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._file = connection, connection.makefile("rb")

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def until_psync(self) -> tuple[str, int]:
        """Answer up to PSYNC; return what it asks for."""
        while True:
            words = []
            for _ in range(int(self._file.readline()[1:])):
                self._file.readline()
                words.append(self._file.readline().strip().decode())
            if words[0] == "PSYNC":
                return words[1], int(words[2])
            self._connection.sendall(b"+OK\r\n")


class CircleTest(StandbyCase):
    def setUp(self) -> None:
        self.enterContext(mock.patch("kvdb.replication.standby._RETRY", 0.01))

    def test_who_follows_itself_or_whom_it_is_followed_by_loses_nothing(self) -> None:
        first, db = self.serve()
        second, copy = self.serve()
        db.set("k", b"v")
        copy.set("k", b"v")
        with self.assertLogs("kvdb", "WARNING") as logs:
            db.execute("REPLICAOF", "127.0.0.1", first.server.port)
            until(lambda: any("NOMASTERLINK" in line for line in logs.output))
        db.execute("REPLICAOF", "NO", "ONE")
        copy.execute("REPLICAOF", "127.0.0.1", first.server.port)
        until(lambda: self.link_is_up(second))
        with self.assertLogs("kvdb", "WARNING") as logs:
            db.execute("REPLICAOF", "127.0.0.1", second.server.port)
            until(lambda: sum("NOMASTERLINK" in line for line in logs.output) == 2)
        self.assertEqual((db.get("k"), copy.get("k")), (b"v", b"v"))
        for client in (db, copy):
            client.execute("REPLICAOF", "NO", "ONE")

    def test_an_empty_server_without_its_primary_is_not_taken_for_a_cleared_one(self) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            _, db = self.serve(replica_of=("127.0.0.1", listener.getsockname()[1]))
            with self.assertRaisesRegex(kvdb.ServerError, "NOMASTERLINK"):
                db.execute("PSYNC", "?", "-1")
            for request in (("WAIT", 0, 0), ("WAITAOF", 0, 0, 0)):
                with self.assertRaisesRegex(kvdb.ServerError, "with replica instances"):
                    db.execute(*request)
            with self.assertRaisesRegex(kvdb.ServerError, "not valid when server is a replica"):
                db.execute("FAILOVER")
            db.execute("REPLICAOF", "NO", "ONE")

    def test_it_is_no_part_of_a_transaction(self) -> None:
        _, db = self.serve()
        with (
            self.assertRaisesRegex(kvdb.ServerError, "inside a transaction|not allowed"),
            db.pipeline(atomic=True) as pipe,
        ):
            pipe.command("REPLICAOF", "NO", "ONE")


class PauseTest(StandbyCase):
    def test_a_pause_does_not_hold_the_stream_and_ends_when_a_primary_is_named(self) -> None:
        primary, db = self.serve()
        standby, copy = self.serve()
        copy.execute("CLIENT", "PAUSE", 60_000, "WRITE")
        with Wire(standby.server.port) as wire:
            wire.socket.sendall(b"SET k w\r\n")
            copy.execute("REPLICAOF", "127.0.0.1", primary.server.port)
            self.assertIn(b"-READONLY", wire.read_until(b"\r\n"))
        until(lambda: self.link_is_up(standby))
        copy.execute("CLIENT", "PAUSE", 60_000, "WRITE")
        db.set("k", b"v")
        self.assert_follows(primary, standby)
        copy.execute("REPLICAOF", "NO", "ONE")


class TlsTest(StandbyCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        write_certificates(self.folder)

    def primary(self, **config: Any) -> Service:
        return self.enterContext(running_server(tls_cert=self.folder / "server.pem", **config))

    def standby(self, primary: Service, authorities: str = "ca", **config: Any) -> Service:
        return self.enterContext(
            running_server(
                replica_of=("localhost", primary.server.port),
                primary_tls_ca=self.folder / f"{authorities}.pem",
                **config,
            )
        )

    def test_a_primary_that_speaks_tls_is_followed(self) -> None:
        primary = self.primary()
        primary.store.set(b"big", b"x" * 500_000)
        standby = self.standby(primary)
        until(lambda: self.link_is_up(standby))
        for number in range(100):
            primary.store.set(b"k%d" % number, b"v" * number)
        self.assert_follows(primary, standby)

    def test_its_own_certificate_is_shown_to_a_primary_that_asks(self) -> None:
        primary = self.primary(tls_client_ca=self.folder / "ca.pem")
        standby = self.standby(primary, tls_cert=self.folder / "client.pem")
        until(lambda: self.link_is_up(standby))

    def test_a_primary_that_nobody_vouches_for_is_not_followed(self) -> None:
        primary = self.primary()
        with self.assertLogs("kvdb", "WARNING") as logs:
            standby = self.standby(primary, "other")
            until(lambda: any("certificate verify failed" in line for line in logs.output))
        self.assertFalse(self.link_is_up(standby))

    def test_files_are_read_for_each_link(self) -> None:
        primary = self.primary()
        with self.assertLogs("kvdb", "WARNING") as logs:
            standby = self.standby(primary, "later")
            until(lambda: any("TLS: " in line for line in logs.output))
            (self.folder / "ca.pem").rename(self.folder / "later.pem")
            until(lambda: self.link_is_up(standby))


class RefusedTest(StandbyCase):
    def test_a_password_is_given(self) -> None:
        primary, db = self.serve(password="secret")
        db.set("k", b"v")
        standby, copy = self.serve()
        with self.assertLogs("kvdb", "WARNING"):
            copy.execute("REPLICAOF", "127.0.0.1", primary.server.port)
            until(lambda: standby.instance.standby.state == "connect")  # type: ignore[union-attr]
        copy.execute("CONFIG", "SET", "masterauth", "secret")
        until(lambda: standby.store.entry(b"k") == Entry(b"v"))

    def test_what_is_here_stays_until_a_whole_snapshot_has_come(self) -> None:
        for sent in (
            b"$100\r\nREDIS0009",
            b"$12\r\nnonsense 123",
            b"-ERR no",
            b"",
            b"$x\r\n",
            b"$-5\r\n",
        ):
            with self.subTest(sent):
                self.refuse_snapshot(sent)

    def refuse_snapshot(self, sent: bytes) -> None:
        standby, copy = self.serve()
        copy.set("mine", b"1")
        with primary_that_sends(sent) as (port, asked), self.assertLogs("kvdb", "WARNING"):
            copy.execute("REPLICAOF", "127.0.0.1", port)
            self.assertTrue(asked.wait(10))
            until(lambda: standby.instance.standby.state == "connect")  # type: ignore[union-attr]
        self.assertEqual(copy.get("mine"), b"1")
        self.assertFalse(standby.instance.loading)
        copy.execute("REPLICAOF", "NO", "ONE")

    def test_other_types_and_unknown_commands_are_told_and_the_rest_is_carried_out(self) -> None:
        a_list = b"\x01\x04list\x02\x01a\x01b"
        data = FILE + a_list + END + bytes(8)
        stream = b"*3\r\n$5\r\nRPUSH\r\n$1\r\nx\r\n$1\r\ny\r\n*1\r\n$4\r\nPING\r\n\r\n"
        stream += b"*1\r\n$5\r\nMULTI\r\n*3\r\n$5\r\nRPUSH\r\n$1\r\nx\r\n$1\r\ny\r\n"
        stream += b"*5\r\n$3\r\nset\r\n$3\r\nnew\r\n$1\r\n2\r\n$4\r\nPXAT\r\n$13\r\n9999999999999\r\n*1\r\n$4\r\nEXEC\r\n"
        standby, copy = self.serve()
        copy.set("mine", b"1")
        with primary_that_sends(b"\n\n$%d\r\n%b" % (len(data), data), stream) as (port, _):
            with self.assertLogs("kvdb", "ERROR") as logged:
                copy.execute("REPLICAOF", "127.0.0.1", port)
                until(lambda: standby.store.total_keys == 2)
            until(
                lambda: (
                    self.link_is_up(standby) and standby.instance.standby.offset == 7 + len(stream)
                )
            )  # type: ignore[union-attr]
            expected = {b"old": Entry(b"1"), b"new": Entry(b"2", 9999999999.999)}
            self.assertEqual(entries_of(standby.store), expected)
            text = "\n".join(logged.output)
            self.assertIn("1 keys of type list are left out", text)
            self.assertEqual(text.count("RPUSH cannot be carried out"), 1)
            info = copy.execute("INFO", "replication").decode()
            self.assertEqual(what_it_holds(info, "replica_refused_commands"), "2")
            copy.execute("REPLICAOF", "NO", "ONE")

    def test_bad_addresses_are_refused(self) -> None:
        _, copy = self.serve()
        for port in ("0", "x", "-1", "65536"):
            with self.assertRaisesRegex(kvdb.ServerError, "Invalid master port"):
                copy.execute("REPLICAOF", "h", port)
        with self.assertRaisesRegex(kvdb.ServerError, "Invalid master host"):
            copy.execute("REPLICAOF", "", "5")
        self.assertIsNone(Config().replica_of)

    def test_a_value_may_be_longer_than_clients_may_send(self) -> None:
        primary, db = self.serve()
        db.set("large", b"x" * 2_000_000)
        standby, _ = self.serve(
            max_value_bytes=1_000_000, replica_of=("127.0.0.1", primary.server.port)
        )
        self.assert_follows(primary, standby)

    def test_after_a_snapshot_that_cannot_be_read_the_primary_has_some_peace(self) -> None:
        standby, copy = self.serve()
        with primary_that_sends(b"$12\r\nnonsense 123") as (port, _):
            with self.assertLogs("kvdb", "WARNING"):
                copy.execute("REPLICAOF", "127.0.0.1", port)
                until(
                    lambda: (
                        standby.instance.standby.state == "connect"  # type: ignore[union-attr]
                        and standby.instance.standby._pause > 10
                    )
                )  # type: ignore[union-attr]
            copy.execute("REPLICAOF", "NO", "ONE")

    def test_a_snapshot_with_a_mark_that_comes_in_pieces(self) -> None:
        mark = b"m" * 40
        data = b"x" * 100_000 + b"m" * 39 + b"y" * 50
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            link = Link(Primary("127.0.0.1", listener.getsockname()[1]))
            peer, _ = listener.accept()
            with closing(peer), closing(link):
                threading.Thread(
                    target=lambda: [
                        peer.sendall(piece)
                        for piece in (
                            b"$EOF:" + mark + b"\r\n" + data[:7],
                            data[7:],
                            mark[:13],
                            mark[13:],
                        )
                    ]
                ).start()
                with link.snapshot() as file:
                    self.assertEqual(file.read(), data)
                peer.close()
                with self.assertRaises(LinkLost):
                    link.line()


@contextlib.contextmanager
def primary_that_sends(*pieces: bytes) -> Iterator[tuple[int, threading.Event]]:
    """A primary that takes one replica, and sends these: after PSYNC, and after the first ACK."""
    asked, done = threading.Event(), threading.Event()
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                peer, _ = listener.accept()
                listener.close()
                with closing(peer), peer.makefile("rb") as lines:
                    while b"PSYNC" not in (line := lines.readline()):
                        if line.strip() in (b"PING", b"AUTH", b"REPLCONF"):
                            peer.sendall(b"+OK\r\n")
                    peer.sendall(b"+FULLRESYNC " + b"a" * 40 + b" 7\r\n" + pieces[0])
                    asked.set()
                    for piece in pieces[1:]:
                        while b"ACK" not in lines.readline():
                            pass
                        peer.sendall(piece)
                        done.wait(10)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1], asked
        finally:
            done.set()
    thread.join(10)


if __name__ == "__main__":
    unittest.main()
