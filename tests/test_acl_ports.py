"""Users at every port: the same rules, each dialect's own words, connections that stay in step."""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path

from kvdb.commands.session import Session
from kvdb.commands.table import Named, find
from kvdb.config import Config
from kvdb.errors import CommandError
from kvdb.http.api import Request, needs_of
from kvdb.protocols import RequestLoop
from kvdb.protocols.haus import _NEEDS as HAUS_NEEDS
from kvdb.protocols.haus import Haus
from kvdb.protocols.memcached import Memcached
from kvdb.protocols.memcached_meta import MetaCommands
from kvdb.protocols.memcached_needs import NEEDS
from kvdb.service import CannotStart, Service
from tests.command_case import CommandTest
from tests.support import Wire, ask_http, batches, running_server

ROOT = Path(__file__).resolve().parent.parent


class DialectCase(CommandTest):
    """`self.client` speaks a dialect as the user alice, whose rules `give()` sets."""

    dialect: type[RequestLoop]

    def setUp(self) -> None:
        super().setUp()
        self.give("")
        self.client = self.connect()
        self.client.session.become(self.talk.instance.users.get(b"alice"))

    def connect(self) -> RequestLoop:
        session = Session(self.talk.instance, "192.0.2.1:5")
        self.talk.instance.admit(session)
        return self.dialect(session)

    def give(self, rules: str) -> None:
        self.ask(f"ACL SETUSER alice reset on >p {rules}")

    def send(self, text: str) -> str:
        return b"".join(batches(self.client, text.encode())).decode()


class MemcachedTest(DialectCase):
    dialect = Memcached

    COMMAND = (
        "CLIENT_ERROR not permitted: User alice has no permissions to run the '{}' command\r\n"
    )
    KEY = "CLIENT_ERROR not permitted: No permissions to access a key\r\n"

    def assert_refused(self, request: str, command: str) -> None:
        with self.subTest(request):
            self.assertEqual(self.send(request), self.COMMAND.format(command))
            self.assertEqual(self.send("mn\r\n"), "MN\r\n")  # in step

    def test_each_request_belongs_to_a_command(self) -> None:
        for request, command in (
            ("get k", "get"), ("gets k", "get"), ("gat 0 k", "getex"), ("gats 0 k", "getex"),
            ("set k 0 0 1\r\nx", "set"), ("replace k 0 0 1\r\nx", "set"),
            ("cas k 0 0 1 5\r\nx", "set"), ("add k 0 0 1\r\nx", "setnx"),
            ("append k 0 0 1\r\nx", "append"), ("prepend k 0 0 1\r\nx", "append"),
            ("incr k 1", "incr"), ("decr k 1", "decr"), ("delete k", "del"),
            ("touch k 0", "expire"), ("flush_all", "flushall"), ("flush_all 10", "flushall"),
            ("stats", "info"), ("stats settings", "info"), ("stats conns", "info"),
            ("stats reset", "config|resetstat"), ("stats detail on", "config|set"),
            ("stats cachedump 1 0", "scan"), ("lru_crawler metadump all", "scan"),
            ("shutdown", "shutdown"),
            ("mg k v", "get"), ("mg aw== b", "get"), ("ms k 1\r\nx", "set"), ("ms k 1 MA\r\nx", "append"),
            ("ms k 1 MP\r\nx", "append"), ("ms k 1 ME\r\nx", "setnx"), ("ms k 1 MR\r\nx", "set"),
            ("md k", "del"), ("md k x", "del"), ("ma k", "incr"), ("ma k MD", "decr"),
            ("me k", "memory|usage"),
        ):  # fmt: skip
            self.assert_refused(request + "\r\n", command)
        self.assertEqual(self.ask("DBSIZE"), 0)

    def test_flags_that_write_need_more_than_reading(self) -> None:
        self.give("~* +get +incr +set")
        self.assert_refused("mg k T30\r\n", "getex")
        self.assert_refused("mg k N30 v\r\n", "setnx")
        self.assert_refused("ma k T30\r\n", "expire")
        self.assertEqual(
            self.send("ms k 1\r\n1\r\nma k\r\nmg k v\r\n"), "HD\r\nHD\r\nVA 1\r\n2\r\n"
        )

    def test_a_read_only_user_reads(self) -> None:
        self.ask("SET a 1")
        self.give("~* +@read")
        self.assertEqual(self.send("get a b\r\n"), "VALUE a 0 1\r\n1\r\nEND\r\n")
        self.assertEqual(self.send("mg a v\r\nme nosuch\r\n"), "VA 1\r\n1\r\nEN\r\n")
        self.assert_refused("set a 0 0 1\r\n2\r\n", "set")
        self.assert_refused("flush_all\r\n", "flushall")
        self.assertEqual(self.ask("GET a"), b"1")

    def test_keys_count(self) -> None:
        self.ask("MSET a1 1 b1 1")
        self.give("~a* %R~b* +@all")
        for request in (
            "get a1 c1", "get c1", "gat 0 b1", "set b1 0 0 1\r\n2", "incr b1 1", "delete b1",
            "touch b1 1", "mg c1 v", "ms b1 1\r\n2", "md b1", "ma b1", "add c1 0 0 1\r\nx",
            "me c1", "mg YzE= b v",
        ):  # fmt: skip
            with self.subTest(request):
                self.assertEqual(self.send(request + "\r\n"), self.KEY)
        self.assertEqual(self.send("get a1 b1\r\n").count("VALUE"), 2)
        self.assertEqual(self.send("incr a1 1\r\nmg YTE= b v\r\n"), "2\r\nVA 1\r\n2\r\n")
        self.assertEqual(self.ask("MGET a1 b1 c1"), [b"2", b"1", None])

    def test_data_may_come_later_than_its_line(self) -> None:
        self.give("~a +set")
        self.assertEqual(self.send("set b 0 0 5\r\n"), "")
        self.assertEqual(self.send("he"), "")
        self.assertEqual(self.send("llo\r\n"), self.KEY)
        self.assertEqual(self.send("set a 0 0 5\r\nhe"), "")
        self.assertEqual(self.send("llo\r\n"), "STORED\r\n")
        self.assertEqual(self.ask("MGET a b"), [b"hello", None])

    def test_a_value_that_is_too_large_deletes_nothing_that_may_not_be_written(self) -> None:
        self.talk.instance.config.max_value_bytes = 10
        self.ask("MSET a 1 b 1")
        self.give("~a +set")
        self.assertEqual(self.send("set b 0 0 11\r\n" + "x" * 11 + "\r\n"), self.KEY)
        self.assertEqual(self.send("set b 0 0 11 noreply\r\n" + "x" * 11 + "\r\n"), "")
        self.assertIn("too large", self.send("set a 0 0 11\r\n" + "x" * 11 + "\r\n"))
        self.assertEqual(self.ask("MGET a b"), [None, b"1"])

    def test_nobody_reads_the_reply_to_a_noreply(self) -> None:
        for request in (
            "set k 0 0 1 noreply\r\nx", "incr k 1 noreply", "delete k noreply",
            "flush_all noreply", "touch k 1 noreply", "add k 0 0 1 noreply\r\nx",
        ):  # fmt: skip
            with self.subTest(request):
                self.assertEqual(self.send(request + "\r\n"), "")
        self.assertEqual(self.ask("DBSIZE"), 0)

    def test_words_that_are_no_request_are_what_they_always_were(self) -> None:
        self.assertEqual(self.send("get\r\nnosuch\r\nincr k\r\n")[:14], "ERROR\r\nERROR\r\n")
        self.assertEqual(self.send("mg k! b\r\n"), "CLIENT_ERROR error decoding key\r\n")
        self.assertIn("VERSION", self.send("version\r\n"))

    def test_a_client_logs_in_with_its_name(self) -> None:
        self.ask("SET a 1")
        self.give("~a +get")
        self.ask("CONFIG SET requirepass secret")
        for credentials, stored, reply in (
            ("alice p", True, "VALUE"), ("alice secret", False, "CLIENT_ERROR"),
            ("default secret", True, "VALUE"), ("anybody secret", True, "VALUE"),
            ("anybody p", False, "CLIENT_ERROR"), ("default p", False, "CLIENT_ERROR"),
        ):  # fmt: skip
            with self.subTest(credentials):
                self.client = self.connect()
                answer = self.send(f"set auth 0 0 {len(credentials)}\r\n{credentials}\r\n")
                self.assertEqual(answer == "STORED\r\n", stored, answer)
                self.assertTrue(self.send("get a\r\n").startswith(reply))

    def test_stats_settings_tell_whether_one_has_to_log_in(self) -> None:
        self.client = self.connect()
        self.assertIn("auth_enabled_ascii no", self.send("stats settings\r\n"))
        self.ask("ACL SETUSER default off")
        self.assertIn("auth_enabled_ascii yes", self.send("stats settings\r\n"))

    def test_the_table_is_whole_and_names_what_there_is(self) -> None:
        self.assertEqual(NEEDS.keys(), Memcached.names | MetaCommands.NAMES)
        for name, needs in NEEDS.items():
            for words in (
                [name],
                [name, b"k"],
                [name, b"k", b"1"],
                [name, b"1", b"k", b"N1", b"T1"],
            ):
                for request in needs(words):
                    find(request)  # raises if there is no such command, or no such arity


class HausTest(DialectCase):
    dialect = Haus

    def refusal(self, line: str) -> str:
        reply = json.loads(self.send(line + "\n"))
        self.assertEqual(reply["status"], "Error", line)
        return str(reply["mesg"])

    def test_each_request_belongs_to_a_command(self) -> None:
        for line, command in (
            ("PUT k v", "set"), ("get k", "get"), ("DEL k", "del"), ("DELETE k", "del"),
            ("START", "multi"), ("COMMIT", "exec"), ("ROLLBACK", "discard"),
        ):  # fmt: skip
            expected = (
                f"Not permitted: User alice has no permissions to run the '{command}' command!"
            )
            self.assertEqual(self.refusal(line), expected)
        for needs in HAUS_NEEDS.values():
            self.client._last = b"PUT k v"
            for request in needs(self.client):  # type: ignore[arg-type]
                find(request)

    def test_keys_count_and_so_do_those_of_a_transaction(self) -> None:
        self.give("~a %R~b +@all")
        no_key = "Not permitted: No permissions to access a key!"
        self.assertEqual(self.refusal("PUT b 1"), no_key)
        self.assertEqual(self.refusal("GET c"), no_key)
        self.assertEqual(self.send("PUT a 1\n"), '{"status": "Ok"}\n')
        self.send("START\nPUT a 2\n")
        self.assertEqual(self.refusal("PUT b 2"), no_key)
        self.give("~other +@all")
        self.assertEqual(self.refusal("COMMIT"), no_key)
        self.assertEqual(self.ask("MGET a b"), [b"1", None])
        self.assertEqual(self.send("ROLLBACK\n"), '{"status": "Ok"}\n')

    def test_auth_takes_a_password_or_a_user_and_a_password(self) -> None:
        self.ask("CONFIG SET requirepass 'two words'")
        for line, user in (
            ("AUTH alice p", b"alice"), ("AUTH two words", b"default"),
            ("AUTH default two words", b"default"), ("AUTH p", None), ("AUTH nobody p", None),
            ("AUTH alice two words", None), ("AUTH alice", None),
        ):  # fmt: skip
            with self.subTest(line):
                self.client = self.connect()
                if user:
                    self.assertEqual(self.send(line + "\n"), '{"status": "Ok"}\n')
                    self.assertEqual(self.client.session.user.name, user)
                else:
                    self.assertEqual(self.refusal(line), "Wrong password!")
                    self.assertFalse(self.client.session.authenticated)


class HttpTest(unittest.TestCase):
    @contextlib.contextmanager
    def serving(self) -> Iterator[Service]:
        with running_server(http_port=0) as service:
            self.service = service
            self.port = service.listeners["http"].port
            yield service

    def rules(self, name: str, *rules: str) -> None:
        user = self.service.instance.users.change(name.encode(), [each.encode() for each in rules])
        self.service.instance.user_changed(user)

    def ask(
        self, target: str, user: str = "", method: str = "GET", body: bytes | None = None
    ) -> int:
        response = ask_http(self.port, target, method, body, self.credentials(user))
        self.content, self.headers = response.content.decode(), response.headers  # type: ignore[attr-defined]
        return response.status

    @staticmethod
    def credentials(user: str) -> dict[str, str]:
        if not user:
            return {}
        return {"Authorization": "Basic " + base64.b64encode(user.encode()).decode()}

    def test_another_database_wants_the_right_to_select_it(self) -> None:
        with self.serving():
            self.rules("alice", "on", ">p", "~*", "+@all", "-select")
            for target in ("/keys/k?db=3", "/keys?db=3", "/?db=3"):
                with self.subTest(target):
                    self.assertEqual(self.ask(target, "alice:p"), 403)
                    self.assertIn("'select'", self.content)
                    self.assertIn(self.ask(target.replace("3", "0"), "alice:p"), (200, 404))
                    self.assertEqual(self.ask(target.replace("3", "99"), "alice:p"), 400)

    def test_each_request_belongs_to_a_command(self) -> None:
        with self.serving():
            self.rules("alice", "on", ">p")
            for method, target, command in (
                ("GET", "/keys/k", "get"), ("HEAD", "/keys/k", ""), ("PUT", "/keys/k", "set"),
                ("DELETE", "/keys/k", "del"), ("GET", "/keys", "scan"), ("GET", "/", "scan"),
                ("GET", "/metrics", "info"), ("GET", "/set?k=v", "set"), ("GET", "/get?key=k", "get"),
            ):  # fmt: skip
                with self.subTest(method + target):
                    body = b"x" if method == "PUT" else None
                    self.assertEqual(self.ask(target, "alice:p", method, body), 403)
                    if command:
                        text = f"User alice has no permissions to run the '{command}' command\n"
                        self.assertEqual(self.content, text)
            self.assertEqual(self.service.store.size(0), 0)
            for target in ("/healthz", "/static/style.css"):
                self.assertEqual(self.ask(target, "alice:p"), 200)
            self.assertEqual(self.ask("/keys/k", "alice:p", "OPTIONS"), 204)

    def test_a_read_only_dashboard_is_one_line(self) -> None:
        with self.serving() as service:
            service.store.set(b"shown", b"its value")
            self.rules("default", "off")
            self.rules("dash", "on", ">p", "~*", "+@read", "+info")
            for target in ("/", "/keys", "/keys/shown", "/metrics"):
                self.assertEqual(self.ask(target, "dash:p"), 200, target)
            self.ask("/", "dash:p")
            self.assertIn("its value", self.content)
            self.assertEqual(self.ask("/keys/shown", "dash:p", "PUT", b"x"), 403)
            self.assertEqual(self.ask("/set?shown=x", "dash:p"), 403)
            self.assertEqual(service.store.get(b"shown"), b"its value")

    def test_the_page_hides_the_values_of_keys_that_may_not_be_read(self) -> None:
        with self.serving() as service:
            service.store.set(b"a<1", b"public")
            service.store.set(b"b<1", b"secret")
            self.rules("dash", "on", ">p", "~a*", "+scan", "+get")
            self.assertEqual(self.ask("/", "dash:p"), 200)
            self.assertIn("public", self.content)
            self.assertNotIn("secret", self.content)
            self.assertIn("<code>b&lt;1</code> <small>no permission", self.content)
            self.assertEqual(self.ask("/"), 200)
            self.assertIn("secret", self.content)

    def test_keys_count_and_a_refused_body_leaves_the_connection_in_step(self) -> None:
        with self.serving() as service, Wire(self.port) as wire:
            self.rules("alice", "on", ">p", "~a*", "+@all")
            head = f"Authorization: {self.credentials('alice:p')['Authorization']}\r\nHost: localhost\r\n"
            wire.socket.sendall(
                (
                    f"PUT /keys/b HTTP/1.1\r\n{head}Content-Length: 5\r\n\r\nhello"
                    f"PUT /keys/a HTTP/1.1\r\n{head}Content-Length: 5\r\nConnection: close\r\n\r\nhello"
                ).encode()
            )
            answers = wire.read_to_end().decode()
            self.assertEqual(answers.count("HTTP/1.1 403 "), 1)
            self.assertEqual(answers.count("HTTP/1.1 201 "), 1)
            self.assertIn("No permissions to access a key\n", answers)
            self.assertEqual((service.store.get(b"a"), service.store.get(b"b")), (b"hello", None))

    def test_who_it_is_counts_for_each_request_anew(self) -> None:
        with self.serving() as service:
            service.store.set(b"k", b"v")
            self.rules("alice", "on", ">p", "~*", "+get")
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            with contextlib.closing(connection):
                seen = []
                for user, method in (("alice:p", "DELETE"), ("", "GET"), ("alice:x", "GET"),
                                     ("alice:p", "GET"), ("", "DELETE")):  # fmt: skip
                    connection.request(method, "/keys/k", headers=self.credentials(user))
                    response = connection.getresponse()
                    response.read()
                    seen.append(response.status)
            self.assertEqual(seen, [403, 200, 401, 200, 204])

    def test_for_the_default_user_any_other_name_will_do(self) -> None:
        with self.serving():
            self.rules("default", "resetpass", ">secret")
            self.rules("alice", "on", ">p", "+get", "~*")
            for user, status in (("", 401), (":secret", 404), ("x:secret", 404), ("x:p", 401),
                                 ("alice:secret", 401), ("alice:p", 404)):  # fmt: skip
                self.assertEqual(self.ask("/keys/none", user), status, user)

    def test_a_restricted_default_user_is_asked_who_it_is(self) -> None:
        with self.serving():
            self.rules("default", "-@all", "+get")
            self.rules("admin", "on", ">p", "~*", "+@all")
            self.assertEqual(self.ask("/keys/none"), 404)
            self.assertEqual(self.ask("/metrics"), 401)
            self.assertIn("Basic", self.headers["WWW-Authenticate"])
            self.assertEqual(self.ask("/metrics", "admin:p"), 200)

    def test_every_need_names_a_command_that_there_is(self) -> None:
        for method in ("GET", "HEAD", "PUT", "DELETE", "POST", "OPTIONS"):
            for path, query in (("/keys/k", ""), ("/keys", ""), ("/", ""), ("/metrics", ""),
                                ("/set", "a=b"), ("/get", "key=a"), ("/get", "")):  # fmt: skip
                for request in needs_of(Request(method, path, query)):
                    find(request)


class OnePlaceTest(CommandTest):
    def test_what_is_refused_never_gets_to_its_handler(self) -> None:
        """Session.perform decides, whatever a dialect has forgotten."""
        self.ask("ACL SETUSER alice on nopass +get ~k")
        self.ask("AUTH alice x")
        called: list[bytes] = []
        operation = Named("any", lambda key: [[b"GET", key]])
        self.talk.session.perform(operation, called.append, b"k", (), b"k")
        with self.assertRaisesRegex(CommandError, "access a key"):
            self.talk.session.perform(operation, called.append, b"x", (), b"x")
        with self.assertRaises(Exception):  # noqa: B017  (a request without its words: any error)
            self.talk.session.perform(operation, called.append, b"x", ())
        self.assertEqual(called, [b"k"])


class StartTest(unittest.TestCase):
    """--acl-file."""

    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.path = self.folder / "users.acl"

    def test_the_users_are_read_before_anybody_is_served(self) -> None:
        self.path.write_text("user default off\nuser alice on nopass ~a* +get +acl|whoami\n")
        with running_server(acl_file=self.path) as service, Wire(service.server.port) as wire:
            self.assertTrue(wire.ask(b"GET a\r\n", 8).startswith(b"-NOAUTH"))
        with running_server(acl_file=self.path) as service, Wire(service.server.port) as wire:
            self.assertEqual(
                wire.ask(b"AUTH alice x\r\nACL WHOAMI\r\n", 16), b"+OK\r\n$5\r\nalice\r\n"
            )

    def test_a_deleted_users_connection_ends(self) -> None:
        self.path.write_text("user alice on nopass +@all ~*\n")
        with running_server(acl_file=self.path) as service:
            port = service.server.port
            with Wire(port) as alice, Wire(port) as admin:
                self.assertEqual(alice.ask(b"AUTH alice x\r\n", 5), b"+OK\r\n")
                self.assertEqual(admin.ask(b"ACL DELUSER alice\r\n", 4), b":1\r\n")
                self.assertEqual(alice.read_to_end(), b"")

    def test_a_bad_line_refuses_the_start(self) -> None:
        self.path.write_text("user alice on\nuser bob +nosuch\n")
        with self.assertRaisesRegex(CannotStart, r"users\.acl:2: .*'\+nosuch': Unknown command"):
            Service(Config(data=None, port=0, acl_file=self.path))
        with self.assertRaisesRegex(CannotStart, "No such file"):
            Service(Config(data=None, port=0, acl_file=self.folder / "none"))

    def test_two_passwords_for_the_default_user_are_one_too_many(self) -> None:
        self.path.write_text("user default on >other ~* &* +@all\n")
        with self.assertRaisesRegex(CannotStart, "another password than --password-file"):
            Service(Config(data=None, port=0, acl_file=self.path, password="p"))
        self.path.write_text("user alice on\n")
        with running_server(acl_file=self.path, password="p") as service:
            self.assertEqual(len(service.instance.users.default.rules.passwords), 1)

    def run_server(self, *flags: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "kvdb", "--in-memory", "--port", "0", *flags],
            cwd=ROOT, capture_output=True, text=True, timeout=20,
        )  # fmt: skip
        return done.returncode, done.stderr.strip()

    def test_a_start_that_is_refused_takes_one_sentence(self) -> None:
        self.path.write_text("user alice on\nnonsense\n")
        code, text = self.run_server("--acl-file", str(self.path))
        self.assertEqual((code, text.count("\n")), (2, 0), text)
        self.assertIn(f"kvdb: the users cannot be read: {self.path.resolve()}:2 should start", text)

    def test_users_without_a_password_for_the_default_one_do_not_protect(self) -> None:
        self.path.write_text("user alice on >p\n")
        code, text = self.run_server("--acl-file", str(self.path), "--host", "0.0.0.0")
        self.assertEqual(code, 2, text)
        self.assertIn("can be reached from outside and there is no password", text)


if __name__ == "__main__":
    unittest.main()
