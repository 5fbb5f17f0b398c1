"""MIGRATE: keys of one server onto another, deleted here only once they are there."""

from __future__ import annotations

import socket
import unittest
from contextlib import closing
from typing import Any
from unittest import mock

import kvdb
from kvdb.client.connection import Connection
from kvdb.commands.access import keys_of
from kvdb.commands.session import Session
from kvdb.commands.table import TABLE
from kvdb.replies import OK
from kvdb.store.entry import Entry
from tests.support import running_server


class MigrateTest(unittest.TestCase):
    def setUp(self) -> None:
        self.here, self.db = self.server()
        self.there, self.other = self.server()
        self.target = ("127.0.0.1", self.there.server.port)

    def server(self, **config: Any) -> tuple[Any, kvdb.Client[str]]:
        service = self.enterContext(running_server(**config))
        client = kvdb.Client(port=service.server.port, serializer=kvdb.TEXT)
        return service, self.enterContext(client)

    def migrate(self, key: str, *options: str | int, db: int = 0) -> Any:
        return self.db.execute("MIGRATE", *self.target, key, db, 5000, *options)

    def test_a_key_moves_with_its_ttl(self) -> None:
        self.db.set("k", "v", ttl=100)
        self.assertEqual(self.migrate("k"), b"OK")
        self.assertIsNone(self.db.get("k"))
        self.assertEqual(self.other.get("k"), "v")
        self.assertAlmostEqual(self.other.ttl("k") or 0, 100, delta=2)

    def test_into_another_database_and_with_bytes_of_every_kind(self) -> None:
        name = bytes(range(256))
        self.db.execute("SET", name, name)
        self.assertEqual(self.db.execute("MIGRATE", *self.target, name, 7, 1000), b"OK")
        self.assertEqual(self.there.store.entry((7, name)), Entry(name))

    def test_copy_leaves_it_here_and_replace_overwrites_it_there(self) -> None:
        self.db.set("k", "new")
        self.other.set("k", "old")
        with self.assertRaisesRegex(
            kvdb.ServerError, "Target instance replied with error: BUSYKEY"
        ):
            self.migrate("k")
        self.assertEqual((self.db.get("k"), self.other.get("k")), ("new", "old"))
        self.migrate("k", "COPY", "REPLACE")
        self.assertEqual((self.db.get("k"), self.other.get("k")), ("new", "new"))

    def test_several_keys_and_some_that_are_not_there(self) -> None:
        self.assertEqual(self.migrate("none"), b"NOKEY")
        self.assertEqual(self.migrate("", "KEYS", "none", "neither"), b"NOKEY")
        names = [f"k{number}" for number in range(250)]
        self.db.mset(dict.fromkeys(names, "v"))
        self.assertEqual(self.migrate("", "KEYS", *names, "none"), b"OK")
        self.assertEqual((self.here.store.total_keys, self.there.store.total_keys), (0, 250))

    def test_those_that_were_taken_go_even_if_another_was_refused(self) -> None:
        self.db.mset({"a": "1", "b": "1", "c": "1"})
        self.other.set("b", "theirs")
        with self.assertRaisesRegex(kvdb.ServerError, "BUSYKEY"):
            self.migrate("", "KEYS", "a", "b", "c")
        self.assertEqual(self.db.mget(["a", "b", "c"]), [None, "1", None])

    def test_a_key_that_changes_meanwhile_is_sent_again(self) -> None:
        self.db.set("k", "old")
        asked = Connection.ask

        def ask_and_change(connection: Any, requests: Any, *more: Any) -> Any:
            replies = asked(connection, requests, *more)
            if requests and requests[-1][0] == b"RESTORE" and self.here.store.get(b"k") == b"old":
                self.here.store.set(b"k", b"new")
            return replies

        with mock.patch.object(Connection, "ask", ask_and_change):
            session = Session(self.here.instance)
            port = str(self.target[1]).encode()
            reply = session.execute([b"MIGRATE", b"127.0.0.1", port, b"k", b"0", b"1000"])
        self.assertIs(reply, OK)
        self.assertEqual((self.db.get("k"), self.other.get("k")), (None, "new"))

    def test_a_password_is_given(self) -> None:
        strict, _ = self.server(password="secret")
        self.target = ("127.0.0.1", strict.server.port)
        self.db.set("k", "v")
        with self.assertRaisesRegex(kvdb.ServerError, "NOAUTH"):
            self.migrate("k")
        with self.assertRaisesRegex(kvdb.ServerError, "WRONGPASS"):
            self.migrate("k", "AUTH", "wrong")
        self.assertEqual(self.migrate("k", "AUTH", "secret", "COPY"), b"OK")
        self.assertEqual(self.migrate("k", "REPLACE", "AUTH2", "default", "secret"), b"OK")

    def test_what_is_wrong_is_told_in_rediss_words(self) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as listener:
            free = listener.getsockname()[1]
            self.db.set("k", "v")
            for words, text in (
                (("127.0.0.1", free, "k", 0, 50), "IOERR error or timeout reading"),
                ((*self.target, "k", 0, "x"), "ERR value is not an integer"),
                ((*self.target, "k", "x", 1), "ERR value is not an integer"),
                ((*self.target, "k", 99, 1), "Target instance replied with error: ERR DB index"),
                ((*self.target, "k", 0, 1, "FOO"), "ERR syntax error"),
                ((*self.target, "k", 0, 1, "AUTH"), "ERR syntax error"),
                ((*self.target, "k", 0, 1, "KEYS", "a"), "must be set to the empty string"),
                ((*self.target, "k", 0), "ERR wrong number of arguments"),
            ):
                with self.subTest(words), self.assertRaisesRegex(kvdb.ServerError, text):
                    self.db.execute("MIGRATE", *words)
        with self.assertRaisesRegex(kvdb.ServerError, "IOERR error or timeout connecting"):
            self.db.execute("MIGRATE", "127.0.0.1", free, "k", 0, 100)
        with (
            self.assertRaisesRegex(kvdb.ServerError, "inside a transaction"),
            self.db.pipeline(atomic=True) as pipe,
        ):
            pipe.command("MIGRATE", *self.target, "k", 0, 100)
        self.assertEqual(self.db.get("k"), "v")

    def test_rules_about_keys_see_all_of_them(self) -> None:
        words = [b"h", b"1", b"", b"0", b"1", b"COPY", b"keys", b"a", b"b"]
        self.assertEqual([key for key, _ in keys_of(TABLE[b"MIGRATE"], words)], [b"a", b"b"])
        words = [
            b"h",
            b"1",
            b"",
            b"0",
            b"1",
            b"AUTH2",
            b"keys",
            b"keys",
            b"auth",
            b"keys",
            b"keys",
            b"a",
        ]
        self.assertEqual([key for key, _ in keys_of(TABLE[b"MIGRATE"], words)], [b"a"])
        words = [b"h", b"1", b"k", b"0", b"1", b"AUTH", b"keys"]
        self.assertEqual([key for key, _ in keys_of(TABLE[b"MIGRATE"], words)], [b"k"])
        words = [b"h", b"1", b"k", b"0", b"1"]
        self.assertEqual([key for key, _ in keys_of(TABLE[b"MIGRATE"], words)], [b"k"])


if __name__ == "__main__":
    unittest.main()
