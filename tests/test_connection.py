from __future__ import annotations

import threading
from unittest import mock

from kvdb.commands.connection import LONGEST_NAME
from kvdb.commands.instance import Instance
from kvdb.config import Config
from kvdb.errors import CommandError
from kvdb.replies import NO_REPLY
from kvdb.store import Store
from tests.command_case import NOT_AN_INTEGER, SYNTAX, CommandTest, wrong_arity
from tests.support import Conversation, ManualClock

NOAUTH = "NOAUTH Authentication required."
WRONGPASS = "WRONGPASS invalid username-password pair or user is disabled."
NOPROTO = "NOPROTO unsupported protocol version"
NAMES = "ERR Client names cannot contain spaces, newlines or special characters."
NO_PASSWORD_SET = (
    "ERR AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?"
)


class ConnectionTest(CommandTest):
    def test_ping_answers_pong_or_the_message(self) -> None:
        self.assert_replies(
            ("PING", b"PONG"), ("PING hi", b"hi"), ("PING a b", wrong_arity("ping"))
        )

    def test_echo_returns_every_byte(self) -> None:
        message = bytes(range(256))
        self.assertEqual(self.talk("ECHO", message), message)
        self.assert_arity("ECHO", "ECHO a b")

    def test_select_takes_the_numbers_of_the_databases_only(self) -> None:
        out_of_range = "ERR DB index is out of range"
        self.assert_replies(
            ("SELECT 15", b"OK"),
            ("SELECT 16", out_of_range),
            ("SELECT -1", out_of_range),
            ("SELECT foo", NOT_AN_INTEGER),
            ("SELECT 1.5", NOT_AN_INTEGER),
            ("SELECT 9223372036854775808", NOT_AN_INTEGER),
        )
        self.assertEqual(self.talk.session.db, 15)

    def test_each_client_has_a_database_of_its_own(self) -> None:
        other = self.talk.another()
        self.assert_replies(("SELECT 3", b"OK"), ("SET k v", b"OK"))
        self.assert_replies(("GET k", None), ("SELECT 3", b"OK"), ("GET k", b"v"), talk=other)

    def test_quit_answers_and_then_closes(self) -> None:
        for line in ("QUIT", "QUIT now"):
            with self.subTest(line):
                talk = Conversation()
                self.assert_replies((line, b"OK"), talk=talk)
                self.assertTrue(talk.session.closing)

    def test_reset_puts_the_connection_back_into_the_state_of_a_new_one(self) -> None:
        for line in ("HELLO 3", "SELECT 3", "CLIENT SETNAME bob", "CLIENT NO-TOUCH ON", "WATCH k"):
            self.ask(line)
        self.assert_replies(
            ("RESET x", wrong_arity("reset")), ("MULTI", b"OK"), ("RESET", b"RESET")
        )
        session = self.talk.session
        self.assertEqual((session.version, session.db, session.name), (2, 0, b""))
        self.assertEqual(
            (session.no_touch, session.watched, session.transaction), (False, {}, None)
        )

    def test_replies_can_be_switched_off_and_left_out_once(self) -> None:
        on, ok = b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$2\r\nON\r\n", b"+OK\r\n"
        for sent, expected in (
            ("CLIENT REPLY ON|PING 1", b"+OK\r\n$1\r\n1\r\n"),
            ("CLIENT REPLY OFF|PING 1|NOSUCH", b""),
            ("CLIENT REPLY SKIP|PING 1|PING 2", b"$1\r\n2\r\n"),
            ("CLIENT REPLY SKIP|NOSUCH|PING 2", b"$1\r\n2\r\n"),
            ("CLIENT REPLY OFF|CLIENT REPLY SKIP|PING 1|PING 2", b""),
            ("CLIENT REPLY SKIP|CLIENT REPLY OFF|PING 1|PING 2", b""),
            ("CLIENT REPLY OFF|CLIENT REPLY FOO|RESET", b"+RESET\r\n"),
            ("CLIENT REPLY SKIP|MULTI|PING 3|EXEC", b"+QUEUED\r\n*1\r\n$1\r\n3\r\n"),
            ("CLIENT REPLY SKIP|CLIENT REPLY ON|PING 1", b"+OK\r\n$1\r\n1\r\n"),
            ("CLIENT REPLY SKIP|CLIENT REPLY SKIP|PING 1|PING 2", b"$1\r\n2\r\n"),
        ):
            with self.subTest(sent):
                talk = Conversation()
                self.assertEqual(talk.bytes(sent.replace("|", "\r\n") + "\r\n"), expected)
                self.assertEqual(talk.bytes(on), ok)

    def test_client_reply_knows_three_modes(self) -> None:
        self.assert_replies(
            ("CLIENT REPLY FOO", SYNTAX),
            ("CLIENT REPLY", wrong_arity("client|reply")),
            ("CLIENT REPLY off", NO_REPLY),
            ("CLIENT REPLY on", b"OK"),
        )


class HelloTest(CommandTest):
    def test_hello_describes_the_server_and_chooses_the_protocol(self) -> None:
        for line, version in (("HELLO", 2), ("HELLO 3", 3), ("HELLO", 3), ("HELLO 2", 2)):
            with self.subTest(line):
                reply = self.talk(*line.split())
                self.assertEqual(list(reply), b"server version proto id mode role modules".split())
                self.assertEqual((reply[b"server"], reply[b"proto"]), (b"redis", version))
                self.assertEqual((reply[b"mode"], reply[b"role"]), (b"standalone", b"master"))
                self.assertEqual(reply[b"id"], self.talk("CLIENT", "ID"))
                self.assertEqual(self.talk.session.version, version)

    def test_a_request_that_is_refused_logs_nobody_in(self) -> None:
        talk = Conversation(password="secret")
        self.assertIn("FOO", talk.error("HELLO", 3, "AUTH", "default", "secret", "FOO"))
        self.assertEqual(talk.error("GET", "k"), NOAUTH)

    def test_an_unknown_version_is_refused(self) -> None:
        for version, text in (
            ("4", NOPROTO),
            ("1", NOPROTO),
            ("0", NOPROTO),
            ("x", "ERR Protocol version is not an integer or out of range"),
            ("9" * 20, "ERR Protocol version is not an integer or out of range"),
        ):
            self.assert_replies((f"HELLO {version}", text))
        self.assertEqual(self.talk.session.version, 2)

    def test_a_refused_hello_leaves_name_and_version(self) -> None:
        self.talk("CLIENT", "SETNAME", "old")
        for options, text in (
            ("FOO", "ERR Syntax error in HELLO option 'FOO'"),
            ("AUTH", "ERR Syntax error in HELLO option 'AUTH'"),
            ("AUTH default", "ERR Syntax error in HELLO option 'AUTH'"),
            ("SETNAME", "ERR Syntax error in HELLO option 'SETNAME'"),
            ("SETNAME 'a b'", NAMES),
            ("SETNAME new FOO", "ERR Syntax error in HELLO option 'FOO'"),
        ):
            self.assert_replies((f"HELLO 3 {options}", text), ("CLIENT GETNAME", b"old"))
        self.assertEqual(self.talk.session.version, 2)

    def test_hello_can_name_the_connection(self) -> None:
        self.assertEqual(self.talk("HELLO", 3, "setname", "bob")[b"proto"], 3)
        self.assert_replies(("CLIENT GETNAME", b"bob"))

    def test_without_a_password_the_default_user_may_log_in_with_any(self) -> None:
        self.assertIsInstance(self.ask("HELLO 2 AUTH default x SETNAME joe"), dict)
        self.assert_replies(
            ("CLIENT GETNAME", b"joe"), ("HELLO 2 AUTH bob x", WRONGPASS), ("PING", b"PONG")
        )

    def test_hello_changes_the_protocol_in_the_middle_of_a_pipeline(self) -> None:
        replies = self.talk.bytes("GET k\r\nHELLO 3\r\nGET k\r\nHELLO 2\r\nGET k\r\n")
        self.assertTrue(replies.startswith(b"$-1\r\n%7\r\n"), replies)
        self.assertIn(b"\r\n_\r\n*14\r\n", replies)
        self.assertTrue(replies.endswith(b"*0\r\n$-1\r\n"), replies)


class PasswordTest(CommandTest):
    def setUp(self) -> None:
        super().setUp()
        self.talk = Conversation(password="pw")

    def test_before_a_password_nearly_everything_is_refused(self) -> None:
        for line in ("PING", "GET k", "COMMAND", "MULTI", "HELP", "CLIENT ID", "INFO", "SELECT 0"):
            self.assert_replies((line, NOAUTH))
        self.assert_replies(
            ("NOSUCH", "ERR unknown command 'NOSUCH', with args beginning with: "),
            ("GET", wrong_arity("get")),
            ("RESET", b"RESET"),
            ("QUIT", b"OK"),
        )

    def test_hello_without_a_password_says_how_to_give_it(self) -> None:
        for line in ("HELLO", "HELLO 3", "HELLO 3 SETNAME bob"):
            text = self.ask(line)
            self.assertTrue(text.startswith("NOAUTH HELLO must be called with the client"), text)
            self.assertIn("HELLO <proto> AUTH <user> <pass> option", text)
        self.assertEqual((self.talk.session.version, self.talk.session.name), (2, b""))
        self.assert_replies(("HELLO 4", NOPROTO), ("PING", NOAUTH))

    def test_the_right_password_opens_the_port(self) -> None:
        for line in ("AUTH pw", "AUTH default pw", "HELLO 3 AUTH default pw"):
            with self.subTest(line):
                talk = Conversation(password="pw")
                self.assertNotIsInstance(self.ask(line, talk), str)
                self.assert_replies(("PING", b"PONG"), talk=talk)

    def test_a_wrong_password_does_not(self) -> None:
        for line in (
            "AUTH no",
            "AUTH ''",
            "AUTH default no",
            "AUTH bob pw",
            "HELLO 3 AUTH default no",
            "HELLO 3 AUTH bob pw",
            "HELLO 3 SETNAME joe AUTH default no",
        ):
            self.assert_replies((line, WRONGPASS), ("PING", NOAUTH))
        self.assertEqual((self.talk.session.version, self.talk.session.name), (2, b""))

    def test_a_wrong_password_later_does_not_close_the_port(self) -> None:
        self.assert_replies(("AUTH pw", b"OK"), ("AUTH no", WRONGPASS), ("PING", b"PONG"))

    def test_reset_closes_the_port_again(self) -> None:
        self.assert_replies(("AUTH pw", b"OK"), ("RESET", b"RESET"), ("PING", NOAUTH))

    def test_auth_without_a_password_to_ask_for(self) -> None:
        self.talk = Conversation()
        self.assert_replies(
            ("AUTH x", NO_PASSWORD_SET),
            ("AUTH default x", b"OK"),
            ("AUTH bob x", WRONGPASS),
            ("AUTH", wrong_arity("auth")),
            ("AUTH a b c", SYNTAX),
        )


class ClientTest(CommandTest):
    def setUp(self) -> None:
        super().setUp()
        self.monotonic = ManualClock()
        instance = Instance(Store(0, clock=ManualClock()), Config(), monotonic=self.monotonic)
        self.talk = Conversation(instance)
        self.other = self.talk.another()

    def fields(self, talk: Conversation | None = None) -> dict[str, str]:
        """Return what CLIENT INFO says of a client."""
        line = (talk or self.talk)("CLIENT", "INFO")
        return dict(word.split("=", 1) for word in line.rstrip("\n").split(" "))

    def test_every_client_has_a_number_of_its_own(self) -> None:
        numbers = [talk("CLIENT", "ID") for talk in (self.talk, self.other, self.talk.another())]
        self.assertEqual(numbers, [1, 2, 3])

    def test_a_name_can_be_given_and_taken_away(self) -> None:
        self.assert_replies(
            ("CLIENT GETNAME", None),
            ("CLIENT SETNAME bob", b"OK"),
            ("CLIENT GETNAME", b"bob"),
            ("CLIENT SETNAME 'a b'", NAMES),
            ("CLIENT SETNAME 'a\nb'", NAMES),
            ("CLIENT SETNAME grün", NAMES),
            ("CLIENT GETNAME", b"bob"),
            ("CLIENT SETNAME ''", b"OK"),
            ("CLIENT GETNAME", None),
        )

    def test_wrong_requests_are_refused(self) -> None:
        self.assert_replies(
            ("CLIENT", wrong_arity("client")),
            ("CLIENT FOO", "ERR unknown subcommand 'FOO'. Try CLIENT HELP."),
            ("CLIENT SETNAME", wrong_arity("client|setname")),
            ("CLIENT SETNAME a b", wrong_arity("client|setname")),
            ("CLIENT ID x", wrong_arity("client|id")),
            ("CLIENT INFO x", wrong_arity("client|info")),
            ("CLIENT KILL", wrong_arity("client|kill")),
            ("CLIENT NO-EVICT", wrong_arity("client|no-evict")),
            ("CLIENT NO-EVICT maybe", SYNTAX),
            ("CLIENT NO-TOUCH maybe", SYNTAX),
            ("CLIENT SETINFO LIB-NAME", wrong_arity("client|setinfo")),
        )

    def test_a_library_introduces_itself(self) -> None:
        self.assert_replies(
            ("CLIENT SETINFO LIB-NAME redis-py", b"OK"),
            ("CLIENT SETINFO lib-ver 5.0.0", b"OK"),
            (
                "CLIENT SETINFO lib-name 'a b'",
                "ERR lib-name cannot contain spaces, newlines or special characters.",
            ),
            ("CLIENT SETINFO FOO bar", "ERR Unrecognized option 'FOO'"),
        )
        fields = self.fields()
        self.assertEqual((fields["lib-name"], fields["lib-ver"]), ("redis-py", "5.0.0"))

    def test_info_describes_this_connection(self) -> None:
        for line in ("HELLO 3 SETNAME bob", "SELECT 3", "WATCH a b"):
            self.ask(line)
        self.monotonic.now += 7.5
        expected = {
            "id": "1",
            "addr": "127.0.0.1:50000",
            "laddr": "127.0.0.1:4242",
            "name": "bob",
            "age": "7",
            "db": "3",
            "flags": "N",
            "multi": "-1",
            "watch": "2",
            "resp": "3",
            "cmd": "client|info",
            "user": "default",
        }
        fields = self.fields()
        self.assertEqual(fields | expected, fields)

    def test_flags_tell_of_a_transaction_and_of_eviction_and_touching(self) -> None:
        self.assert_replies(("CLIENT NO-EVICT ON", b"OK"), ("CLIENT NO-TOUCH on", b"OK"))
        self.assertEqual(self.fields()["flags"], "eT")
        self.assert_replies(("CLIENT NO-EVICT off", b"OK"), ("CLIENT NO-TOUCH OFF", b"OK"))
        self.assert_replies(("MULTI", b"OK"), ("PING", b"QUEUED"))
        line = self.other("CLIENT", "LIST", "ID", 1)
        self.assertRegex(line, r"^id=1 .* flags=x .* multi=1 .* cmd=ping .*\n$")

    def test_no_touch_leaves_the_order_of_use_alone(self) -> None:
        for mode, survives in (("OFF", 1), ("ON", 0)):
            with self.subTest(mode):
                talk = Conversation(max_bytes=2_000)
                reader = talk.another()
                talk("SET", "first", 1)
                reader("CLIENT", "NO-TOUCH", mode)
                number = 0
                while not talk.store.evicted_keys:
                    reader("GET", "first")
                    talk("SET", number, 1)
                    number += 1
                self.assertEqual(talk("EXISTS", "first"), survives)

    def test_touch_counts_as_use_even_with_no_touch(self) -> None:
        talk = Conversation(max_bytes=2_000)
        talk("CLIENT", "NO-TOUCH", "ON")
        talk("SET", "first", 1)
        number = 0
        while not talk.store.evicted_keys:
            talk("TOUCH", "first")
            talk("SET", number, 1)
            number += 1
        self.assertEqual(talk("EXISTS", "first"), 1)

    def listed(self, *options: str | int) -> list[int]:
        lines = self.talk("CLIENT", "LIST", *options).splitlines()
        return [int(line.split()[0].removeprefix("id=")) for line in lines]

    def test_list_names_all_clients_or_some(self) -> None:
        for options, expected in (
            ((), [1, 2]),
            (("TYPE", "normal"), [1, 2]),
            (("type", "replica"), []),
            (("TYPE", "pubsub"), []),
            (("TYPE", "master"), []),
            (("ID", 2), [2]),
            (("ID", 2, 1, 99), [1, 2]),
            (("ID", 99), []),
        ):
            with self.subTest(options):
                self.assertEqual(self.listed(*options), expected)
        self.talk.instance.dismiss(self.other.session)
        self.assertEqual(self.listed(), [1])

    def test_list_refuses_other_options(self) -> None:
        self.assert_replies(
            ("CLIENT LIST FOO", SYNTAX),
            ("CLIENT LIST TYPE", SYNTAX),
            ("CLIENT LIST TYPE foo", "ERR Unknown client type 'foo'"),
            ("CLIENT LIST TYPE normal foo", SYNTAX),
            ("CLIENT LIST ID", SYNTAX),
            ("CLIENT LIST ID foo", "ERR Invalid client ID"),
        )

    def test_a_number_that_no_client_can_have_lists_nobody(self) -> None:
        self.assertEqual((self.ask("CLIENT LIST ID 0"), self.ask("CLIENT LIST ID -1")), ("", ""))

    def killed(self, *arguments: str | int) -> tuple[object, list[int]]:
        """Kill clients; return the reply and the numbers of those that it ended."""
        ended: list[int] = []
        for talk in (self.talk, self.other):
            session = talk.session
            session.address, session.closing = f"127.0.0.1:{session.id}", False
            session.close = lambda session=session: ended.append(session.id)  # type: ignore[misc]
        reply = self.talk("CLIENT", "KILL", *arguments)
        return reply, sorted(ended + [1] * self.talk.session.closing)

    def test_kill_ends_the_clients_that_are_meant(self) -> None:
        self.monotonic.now += 10
        for arguments, reply, ended in (
            (("127.0.0.1:2",), b"OK", [2]),
            (("127.0.0.1:1",), b"OK", [1]),
            (("ID", 2), 1, [2]),
            (("ID", 1), 0, []),
            (("ID", 1, "SKIPME", "no"), 1, [1]),
            (("ID", 99), 0, []),
            (("ADDR", "127.0.0.1:2"), 1, [2]),
            (("ADDR", "127.0.0.1:3"), 0, []),
            (("laddr", "127.0.0.1:4242"), 1, [2]),
            (("LADDR", "1.2.3.4:5"), 0, []),
            (("TYPE", "normal"), 1, [2]),
            (("TYPE", "pubsub"), 0, []),
            (("USER", "default", "SKIPME", "NO"), 2, [1, 2]),
            (("SKIPME", "yes"), 1, [2]),
            (("MAXAGE", 10), 1, [2]),
            (("MAXAGE", 11), 0, []),
            (("ID", 2, "ADDR", "127.0.0.1:1"), 0, []),
        ):
            with self.subTest(arguments):
                self.assertEqual(self.killed(*arguments), (reply, ended))

    def test_kill_refuses_what_it_does_not_know_and_ends_nobody(self) -> None:
        for line, text in (
            ("1.2.3.4:5", "ERR No such client"),
            ("ID", "ERR No such client"),
            ("ID foo", "ERR client-id should be greater than 0"),
            ("ID 0", "ERR client-id should be greater than 0"),
            ("ID 2 TYPE", SYNTAX),
            ("TYPE foo", "ERR Unknown client type 'foo'"),
            ("USER foo", "ERR No such user 'foo'"),
            ("SKIPME maybe", SYNTAX),
            ("FOO bar", SYNTAX),
            ("ID 2 SKIPME maybe", SYNTAX),
        ):
            with self.subTest(line):
                reply, ended = self.killed(*line.split())
                self.assertEqual((getattr(reply, "text", reply), ended), (text, []))

    def test_no_more_connections_may_enter_than_are_allowed(self) -> None:
        instance = self.talk.instance
        self.talk("CONFIG", "SET", "maxclients", 2)
        self.assertEqual([instance.enter() for _ in range(4)], [True, True, False, False])
        instance.leave()
        self.assertEqual([instance.enter() for _ in range(2)], [True, False])
        stats = self.talk("INFO", "stats").splitlines()
        self.assertIn("rejected_connections:3", stats)
        self.assertIn("total_connections_received:3", stats)
        self.talk("CONFIG", "SET", "maxclients", 3)
        self.assertTrue(instance.enter())

    def test_a_limit_below_what_is_open_ends_nobody(self) -> None:
        instance = self.talk.instance
        for _ in range(3):
            self.assertTrue(instance.enter())
        self.talk("CONFIG", "SET", "maxclients", 1)
        instance.leave()
        instance.leave()
        self.assertFalse(instance.enter())
        instance.leave()
        self.assertTrue(instance.enter())

    def test_who_is_dismissed_is_counted_once_and_leads_nowhere_any_more(self) -> None:
        other = self.talk.another()
        other("PING")
        closed: list[int] = []
        other.session.close = lambda: closed.append(1)
        for _ in range(2):
            self.talk.instance.dismiss(other.session)
        other.session.close()
        self.assertEqual(closed, [])
        self.assertEqual(self.talk.instance.counts()["commands"], 1)
        self.assertNotIn(other.session, self.talk.instance.sessions())

    def test_clients_that_are_silent_for_too_long_are_ended(self) -> None:
        self.killed("ID", 99)  # installs the hooks that note who is ended
        ended: list[int] = []
        self.other.session.close = lambda: ended.append(2)
        self.monotonic.now += 1000
        self.talk.instance.housekeeping()
        self.assertEqual(ended, [])
        self.talk("CONFIG", "SET", "timeout", 1000)
        self.talk.instance.housekeeping()
        self.assertEqual(ended, [])
        self.monotonic.now += 1
        self.talk.instance.housekeeping()
        self.assertEqual(ended, [2])


class NoTouchTest(CommandTest):
    def test_saving_does_not_hold_up_others_for_a_client_that_does_not_touch(self) -> None:
        held: list[bool] = []

        def save() -> None:
            def look() -> None:
                held.append(not self.talk.store._lock.acquire(blocking=False))
                if not held[-1]:
                    self.talk.store._lock.release()

            other = threading.Thread(target=look)
            other.start()
            other.join()

        self.talk.instance.persistence = mock.Mock(save=save)
        self.assert_replies(("CLIENT NO-TOUCH ON", b"OK"), ("SAVE", b"OK"))
        self.assertEqual(held, [False])


class NameLengthTest(CommandTest):
    def test_names_are_bounded_because_several_logs_repeat_them(self) -> None:
        longest = "n" * LONGEST_NAME
        for request in (
            ("CLIENT", "SETNAME"), ("CLIENT", "SETINFO", "LIB-NAME"),
            ("CLIENT", "SETINFO", "LIB-VER"), ("HELLO", 3, "SETNAME"),
        ):  # fmt: skip
            with self.subTest(request):
                self.assertNotIsInstance(self.talk(*request, longest), CommandError)
                self.assertIn("may have 1024 bytes", self.talk.error(*request, longest + "n"))


class RefusalLogTest(CommandTest):
    def test_who_cannot_do_what_is_logged_once_a_minute(self) -> None:
        self.talk("CLIENT", "SETNAME", "worker")
        self.talk("CLIENT", "SETINFO", "LIB-NAME", "redis-py")
        with self.assertLogs("kvdb", "WARNING") as logged:
            for _ in range(3):
                self.talk("HSET", "h", "f", "v")
                self.talk("CONFIG", "NOPE")
        self.assertEqual(
            [line.rpartition("client ")[2] for line in logged.output],
            [
                "127.0.0.1:50000 (worker, redis-py): unknown command 'HSET'",
                "127.0.0.1:50000 (worker, redis-py): unknown subcommand 'NOPE'",
            ],
        )

    def test_what_a_client_made_up_is_not_repeated(self) -> None:
        with self.assertLogs("kvdb", "WARNING") as logged:
            for name in ("\x1b[2J", "x" * 40, "a'b"):
                self.talk(name)
        self.assertEqual(len(logged.output), 1)
        self.assertTrue(logged.output[0].endswith("50000: unknown command"), logged.output)

    def test_a_write_without_room_is_logged(self) -> None:
        self.talk("CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "300")
        self.talk("SET", "first", "v")
        with self.assertLogs("kvdb", "WARNING") as logged:
            self.talk("SET", "k", "v")
            self.talk.bytes("SET k v\r\n")
        self.assertEqual(len(logged.output), 1)

    def test_strangers_are_not_told_of(self) -> None:
        talk = Conversation(password="secret")
        with self.assertNoLogs("kvdb", "WARNING"):
            talk("NOPE")


class KillTest(CommandTest):
    def test_a_maximal_age_is_a_positive_number(self) -> None:
        for age, text in (
            ("0", "ERR maxage should be greater than 0"),
            ("-1", "ERR maxage should be greater than 0"),
            ("abc", "ERR maxage is not an integer or out of range"),
        ):
            self.assertEqual(self.talk.error("CLIENT", "KILL", "MAXAGE", age), text)

    def test_a_killed_client_carries_out_nothing_more_and_is_not_listed(self) -> None:
        other = self.talk.another()
        self.assertEqual(self.talk("CLIENT", "KILL", "ID", other.session.id), 1)
        self.assertEqual(other.bytes("INCR n\r\n" * 10), b"")
        self.assertTrue(other.dialect.closing)
        self.assertIsNone(self.talk("GET", "n"))
        self.assertEqual(self.talk("CLIENT", "KILL", "ID", other.session.id), 0)
        self.assertEqual(self.talk("CLIENT", "LIST").count("id="), 1)
