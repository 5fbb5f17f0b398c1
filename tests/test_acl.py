"""Users: the rules, who may do what, and the commands about them (all on the main port)."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import threading
import unittest
from pathlib import Path
from unittest import mock

from kvdb.acl import BadRule, BadUsersFile, Denial, DenialLog, Reason, Rules, Users
from kvdb.commands.table import TABLE, every_command
from kvdb.replies import Reply
from kvdb.resp.requests import Run
from tests.command_case import CommandTest, plain, wrong_arity
from tests.support import Conversation, ManualClock

HASH = hashlib.sha256(b"p").hexdigest()
NO_KEY = "NOPERM No permissions to access a key"
NO_CHANNEL = "NOPERM No permissions to access a channel"
WRONG = "WRONGPASS invalid username-password pair or user is disabled."


def no_command(user: str, name: str) -> str:
    return f"NOPERM User {user} has no permissions to run the '{name}' command"


def rules_of(words: str) -> Rules:
    rules = Rules()
    for word in words.split():
        rules = rules.changed(word.encode(), TABLE)
    return rules


class NormalFormTest(unittest.TestCase):
    """What is left of rules, in the order in which Redis 7.2 keeps them."""

    def test_rules_are_told_in_their_normal_form(self) -> None:
        nothing = "off resetchannels -@all"
        for given, expected in (
            ("", nothing),
            ("on", "on resetchannels -@all"),
            ("ON Off", nothing),
            ("on nopass", "on nopass resetchannels -@all"),
            ("nopass >p", f"off #{HASH} resetchannels -@all"),
            (">p nopass", "off nopass resetchannels -@all"),
            (">p >p", f"off #{HASH} resetchannels -@all"),
            (f"#{HASH} >q <q", f"off #{HASH} resetchannels -@all"),
            (f">p !{HASH}", nothing),
            (">p resetpass", nothing),
            ("nopass resetpass", nothing),
            ("allkeys", "off ~* resetchannels -@all"),
            ("~*", "off ~* resetchannels -@all"),
            ("allkeys resetkeys ~a", "off ~a resetchannels -@all"),
            ("~a ~* ", "off ~* resetchannels -@all"),
            ("~a %R~b %w~c %wR~d ~a", "off ~a %R~b %W~c ~d resetchannels -@all"),
            ("%R~a %W~a", "off ~a resetchannels -@all"),
            ("&a &b &a", "off resetchannels &a &b -@all"),
            ("allchannels", "off &* -@all"),
            ("&* resetchannels &a", "off resetchannels &a -@all"),
            ("allcommands", "off resetchannels +@all"),
            ("+get +@all", "off resetchannels +@all"),
            ("+@all -get nocommands", nothing),
            ("+GET +Set", "off resetchannels -@all +get +set"),
            ("+get +set +get", "off resetchannels -@all +set +get"),
            ("+get -get", "off resetchannels -@all -get"),
            ("+@all -SET +@read", "off resetchannels +@all -set +@read"),
            ("-@read +@READ", "off resetchannels -@all +@read"),
            ("+config|get +config", "off resetchannels -@all +config"),
            ("+config -config|get", "off resetchannels -@all +config -config|get"),
            ("+select|0 +SELECT|1", "off resetchannels -@all +select|0 +select|1"),
            ("+select|0 -select", "off resetchannels -@all -select"),
            ("on >p ~a &a +@all reset", nothing),
            ("sanitize-payload skip-sanitize-payload clearselectors", nothing),
        ):
            with self.subTest(given):
                rules = rules_of(given)
                self.assertEqual(rules.describe().decode(), expected)
                self.assertEqual(rules_of(expected).describe().decode(), expected)

    def test_what_cannot_be_a_rule_is_refused(self) -> None:
        unknown, syntax = "Unknown command or category name in ACL", "Syntax error"
        for given, reason in (
            ("foo", syntax),
            ("~a b", syntax),
            ("&a\tb", syntax),
            ("%X~a", syntax),
            ("%~a", syntax),
            ("%RR~a", syntax),
            ("(~a +get)", syntax),
            ("+config|", syntax),
            ("+select|", syntax),
            ("+foo", unknown),
            ("-foo", unknown),
            ("+foo|bar", unknown),
            ("+@foo", unknown),
            ("-@", unknown),
            ("+config|foo", unknown),
            ("-select|0", unknown),
            ("+config|get|x", "Allowing first-arg of a subcommand is not supported"),
            ("<p", "The password you are trying to remove from the user does not exist"),
            ("!" + HASH, "The password you are trying to remove from the user does not exist"),
        ):
            with self.subTest(given), self.assertRaises(BadRule) as caught:
                Rules().changed(given.encode(), TABLE)
            self.assertEqual(str(caught.exception), reason, given)
        for given in ("#abc", "!abc", "#" + HASH.upper(), "#" + HASH + "0"):
            with self.subTest(given), self.assertRaisesRegex(BadRule, "exactly 64 characters"):
                Rules().changed(given.encode(), TABLE)

    def test_no_pattern_may_come_after_all(self) -> None:
        for given, advice in (
            ("~* ~a", "'allkeys' .* Try 'resetkeys' .* patterns"),
            ("allkeys %R~a", "'allkeys'"),
            ("&* &a", "'allchannels' .* Try 'resetchannels' .* channels"),
        ):
            with self.subTest(given), self.assertRaisesRegex(BadRule, advice):
                rules_of(given)

    def test_a_pattern_that_never_ends_is_refused(self) -> None:
        with self.assertRaisesRegex(BadRule, "longer than 1024"):
            Rules().changed(b"~" + b"a" * 1025, TABLE)


class RestrictedCase(CommandTest):
    """`self.alice` is logged in as alice, whose rules a test sets."""

    def setUp(self) -> None:
        super().setUp()
        self.ask("ACL SETUSER alice on nopass")
        self.alice = self.talk.another()
        self.alice("AUTH", "alice", "x")

    def give(self, rules: str) -> None:
        self.ask(f"ACL SETUSER alice reset on nopass {rules}")

    def assert_may(self, *table: tuple[str, bool]) -> None:
        for line, expected in table:
            with self.subTest(line):
                reply = self.ask(line, self.alice)
                refused = isinstance(reply, str) and reply.startswith("NOPERM")
                self.assertEqual(not refused, expected, reply)


class DecisionTest(RestrictedCase):
    """Who may do what, and in which words it is refused."""

    def test_a_new_user_may_do_nothing(self) -> None:
        self.assert_replies(
            ("GET k", no_command("alice", "get")),
            ("PING", no_command("alice", "ping")),
            ("CONFIG GET port", no_command("alice", "config|get")),
            ("NOSUCH", "ERR unknown command 'NOSUCH', with args beginning with: "),
            ("GET", wrong_arity("get")),
            talk=self.alice,
        )

    def test_everybody_may_log_in_and_leave(self) -> None:
        self.assert_may(("HELLO 2", True), ("AUTH alice x", True), ("QUIT", True))
        other = self.talk.another()
        other("AUTH", "alice", "x")
        self.assertEqual(self.ask("RESET", other), b"RESET")
        self.assertEqual(self.ask("ACL WHOAMI", other), b"default")

    def test_commands_and_subcommands(self) -> None:
        self.give("~* +get +config|get +acl +select|0 +select|7 -acl|list")
        self.assert_may(
            ("GET k", True), ("SET k v", False),
            ("CONFIG GET port", True), ("CONFIG SET timeout 0", False), ("CONFIG HELP", False),
            ("ACL WHOAMI", True), ("ACL LIST", False),
            ("SELECT 0", True), ("SELECT 7", True), ("SELECT 1", False),
        )  # fmt: skip

    def test_all_but_some(self) -> None:
        self.give("~* &* +@all -@dangerous -config +config|get -select +select|0")
        self.assert_may(
            ("SET k v", True), ("KEYS *", False), ("FLUSHALL", False), ("INFO", False),
            ("CONFIG GET port", True), ("CONFIG RESETSTAT", False),
            ("SELECT 0", True), ("SELECT 1", False), ("CLIENT ID", True), ("CLIENT LIST", False),
        )  # fmt: skip

    def test_categories(self) -> None:
        self.give("~* +@read +@transaction -@dangerous")
        self.assert_may(
            ("GET k", True), ("SET k v", False), ("TTL k", True), ("EXPIRE k 1", False),
            ("MULTI", True), ("EXEC", True), ("KEYS *", False), ("SCAN 0", True), ("PING", False),
        )  # fmt: skip

    def test_a_container_in_a_category_brings_its_subcommands_as_in_redis(self) -> None:
        self.give("~* +@slow")
        self.assert_may(("CLIENT LIST", True), ("GET k", False))

    def test_keys_that_are_read_and_keys_that_are_written(self) -> None:
        self.give("+@all ~both:* %R~r:* %W~w:*")
        self.assert_may(
            ("GET both:1", True), ("GET r:1", True), ("GET w:1", False), ("GET other", False),
            ("SET both:1 5", True), ("SET w:1 5", True), ("SET r:1 5", False),
            ("SET w:1 5 GET", False), ("SET both:1 5 EX 9 get", True), ("SET w:1 GET", True),
            ("APPEND w:1 5", True), ("APPEND r:1 5", False),
            ("INCR both:1", True), ("INCR w:1", False), ("INCR r:1", False),
            ("GETDEL w:1", False), ("GETDEL both:1", True), ("DEL w:1", True), ("DEL r:1", False),
            ("STRLEN w:1", True), ("EXISTS w:1 r:1", True), ("EXISTS w:1 x", False),
            ("MGET r:1 both:1", True), ("MGET r:1 w:1", False),
            ("MSET w:1 a w:2 b", True), ("MSET w:1 a r:1 b", False), ("MSET w:1 other", True),
            ("COPY r:1 w:1", True), ("COPY w:1 r:1", False), ("COPY both:1 r:1", False),
            ("SET both:2 x", True), ("RENAME both:2 w:1", True),
            ("EXPIRE w:1 9", True), ("TTL w:1", False), ("WATCH w:1", True), ("WATCH x", False),
            ("OBJECT ENCODING w:1", True), ("OBJECT ENCODING x", False),
            ("FLUSHALL", True), ("KEYS *", True), ("PING", True),
        )  # fmt: skip

    def test_keys_behind_a_count_and_those_with_two_roles(self) -> None:
        self.give("+@all %R~r* %W~w* ~b*")
        self.assert_may(
            ("BITOP AND w r r2", True), ("BITOP AND r w", False), ("BITOP NOT w w", False),
            ("BITFIELD r GET u8 0", True), ("BITFIELD r SET u8 0 1", False),
            ("BITFIELD b SET u8 0 1", True), ("MSETEX 2 w 1 w2 2", True), ("MSETEX 1 r 1", False),
        )  # fmt: skip

    def test_patterns_are_redis_globs(self) -> None:
        self.give(r"+get ~a[1-3]? ~x\\*y ~")
        self.assert_may(
            ("GET a1x", True), ("GET a4x", False), ("GET a1", False), ("GET 'x*y'", True),
            ("GET xzy", False), ("GET ''", True), ("GET z", False),
        )  # fmt: skip

    def test_keys_count_without_their_database(self) -> None:
        self.give("+@all ~a")
        self.assert_may(("SELECT 3", True), ("SET a 1", True), ("SET b 1", False))

    def test_channels(self) -> None:
        self.give("+@all ~* &news.* &exact")
        self.assert_replies(
            ("PUBLISH other x", NO_CHANNEL),
            ("SUBSCRIBE news.1 other", NO_CHANNEL),
            ("PSUBSCRIBE news.1", NO_CHANNEL),  # a pattern only as it stands in the rules
            ("SSUBSCRIBE other", NO_CHANNEL),
            talk=self.alice,
        )
        self.assert_may(("PUBLISH news.1 x", True), ("PUBSUB CHANNELS", True))
        self.assert_may(("PSUBSCRIBE news.*", True), ("UNSUBSCRIBE other", True))

    def test_json_lines_are_held_to_the_same_rules(self) -> None:
        self.give("+get +set ~a*")
        send = self.alice.bytes
        ask = '{"command": "%s", "args": {"key": "%s"%s}}\n'
        self.assertIn(b'"OK"', send(ask % ("SET", "a1", ', "value": "v"')))
        self.assertIn(b'"v"', send(ask % ("GET", "a1", "")))
        self.assertIn(b"NOPERM No permissions to access a key", send(ask % ("GET", "b", "")))
        self.assertIn(b"'del' command", send(ask % ("DELETE", "a1", "")))
        self.assertIn(b"'multi' command", send('{"command": "START"}\n'))

    def test_inline_requests_and_runs_are_held_to_them(self) -> None:
        self.give("+get ~a")
        self.assertEqual(self.alice.bytes(b"GET b\r\n"), f"-{NO_KEY}\r\n".encode())
        request = b"*2\r\n$3\r\nGET\r\n$1\r\n%b\r\n"
        replies = self.alice.bytes(b"".join(request % key for key in (b"a", b"b", b"a", b"b")))
        self.assertEqual(replies, (b"$-1\r\n" + f"-{NO_KEY}\r\n".encode()) * 2)

    def test_a_change_counts_from_the_next_request_on(self) -> None:
        self.give("+@all ~* &*")
        self.assert_may(("GET k", True), ("SET k v", True))
        self.assertTrue(self.alice.session.ordinary)
        self.ask("ACL SETUSER alice -get")
        self.assert_may(("GET k", False), ("SET k v", True))
        self.ask("ACL SETUSER alice +get")
        self.assert_may(("GET k", True))
        self.ask("ACL SETUSER alice +@all")
        self.assert_may(("GET k", True))
        self.assertTrue(self.alice.session.ordinary)

    def test_a_run_under_way_when_the_rules_change_is_held_to_the_new_ones(self) -> None:
        self.give("+@all ~* &*")
        run = Run(b"GET", [[b"a", b"b"]])
        self.ask("ACL SETUSER alice resetkeys ~a")
        self.assertEqual(plain(self.alice.session.execute_run(run)), [None, NO_KEY])

    def test_the_default_user_may_be_restricted_too(self) -> None:
        self.ask("SET k v")
        self.ask("ACL SETUSER default -set")
        self.assert_replies(("SET k v", no_command("default", "set")), ("GET k", b"v"))
        self.assertEqual(self.ask("SET k v", self.talk.another()), no_command("default", "set"))

    def test_many_threads_see_each_change(self) -> None:
        """Whatever happens at the same time, once a change is made it holds."""
        session, stop = self.alice.session, threading.Event()

        def work() -> None:
            while not stop.is_set():
                session.execute([b"CLIENT", b"ID"])
                session.execute([b"GET", b"k"])

        worker = threading.Thread(target=work)
        worker.start()
        try:
            for _ in range(300):
                self.give("+@all ~* &*")
                self.ask("ACL SETUSER alice -get")
                self.assertTrue(session.restricted)
                self.assertFalse(session.plain)
        finally:
            stop.set()
            worker.join()
        self.assertEqual(self.ask("GET k", self.alice), no_command("alice", "get"))


class TransactionTest(RestrictedCase):
    """What is queued is checked twice."""

    def test_a_refusal_while_queueing_aborts_the_transaction(self) -> None:
        self.give("+@transaction +get ~a")
        self.assert_replies(
            ("MULTI", b"OK"), ("GET a", b"QUEUED"), ("GET b", NO_KEY),
            ("EXEC", "EXECABORT Transaction discarded because of previous errors."),
            talk=self.alice,
        )  # fmt: skip
        (entry,) = self.talk("ACL", "LOG", "1")
        self.assertEqual((entry[b"context"], entry[b"object"]), ("multi", b"b"))

    def test_what_was_queued_is_checked_again(self) -> None:
        self.give("+@transaction +get +set ~*")
        for line in ("MULTI", "SET a 1", "GET a", "GET b"):
            self.ask(line, self.alice)
        self.give("+@transaction +get ~b")
        changed = (
            "NOPERM ACLs rules changed between the moment the transaction was accumulated and the "
            "EXEC call. This command is no longer allowed for the following reason: "
        )
        command, key = (
            "no permission to execute the command or subcommand",
            "no permission to touch the specified keys",
        )
        self.assert_replies(("EXEC", [changed + command, changed + key, None]), talk=self.alice)
        self.assertEqual(self.ask("EXISTS a"), 0)

    def test_exec_itself_may_be_forbidden(self) -> None:
        self.give("+multi +get ~*")
        self.ask("MULTI", self.alice)
        aborted = "EXECABORT Transaction discarded because of: "
        refused = no_command("alice", "exec").removeprefix("ERR ")
        self.assertEqual(self.ask("EXEC", self.alice), aborted + refused)

    def test_an_interactive_transaction_is_checked_again_at_its_commit(self) -> None:
        self.give("+@transaction +set ~*")
        send = self.alice.bytes
        send('{"command": "START"}\n')
        send('{"command": "SET", "args": {"key": "a", "value": "1"}}\n')
        self.assertIn(b"'get' command", send('{"command": "GET", "args": {"key": "a"}}\n'))
        self.give("+@transaction +set ~b")
        self.assertIn(b"access a key", send('{"command": "COMMIT"}\n'))
        self.assertEqual(self.ask("EXISTS a"), 0)
        self.assertIn(b'"OK"', send('{"command": "ROLLBACK"}\n'))


class UsersTest(CommandTest):
    """ACL SETUSER and its like."""

    def test_users_come_and_go(self) -> None:
        self.assert_replies(
            ("ACL LIST", [b"user default on nopass ~* &* +@all"]),
            ("ACL SETUSER bob", b"OK"),
            ("ACL SETUSER alice on >p ~a* +get", b"OK"),
            ("ACL USERS", [b"alice", b"bob", b"default"]),
            ("ACL LIST", [
                f"user alice on #{HASH} ~a* resetchannels -@all +get".encode(),
                b"user bob off resetchannels -@all",
                b"user default on nopass ~* &* +@all",
            ]),
            ("ACL GETUSER nobody", None),
            ("ACL DELUSER bob nobody bob", 1),
            ("ACL DELUSER default", "ERR The 'default' user cannot be removed"),
            ("ACL DELUSER alice default", "ERR The 'default' user cannot be removed"),
            ("ACL USERS", [b"alice", b"default"]),
        )  # fmt: skip

    def test_getuser_tells_all_of_a_user(self) -> None:
        self.ask("ACL SETUSER alice on >p ~a %R~b &c +get +config|get")
        expected = {
            b"flags": frozenset([b"on"]),
            b"passwords": [HASH.encode()],
            b"commands": b"-@all +get +config|get",
            b"keys": b"~a %R~b",
            b"channels": b"&c",
            b"selectors": [],
        }
        self.assertEqual(self.talk("ACL", "GETUSER", "alice"), expected)
        default = self.talk("ACL", "GETUSER", "default")
        self.assertEqual(
            (default[b"flags"], default[b"keys"], default[b"channels"]),
            (frozenset([b"on", b"nopass"]), b"~*", b"&*"),
        )

    def test_setuser_applies_all_or_nothing(self) -> None:
        refused = "ERR Error in ACL SETUSER modifier '%s': %s"
        unknown = "Unknown command or category name in ACL"
        self.assert_replies(
            ("ACL SETUSER alice on +get +nosuch", refused % ("+nosuch", unknown)),
            ("ACL USERS", [b"default"]),
            ("ACL SETUSER alice on +get", b"OK"),
            ("ACL SETUSER alice off foo", refused % ("foo", "Syntax error")),
            ("ACL SETUSER alice off '(~x' '+get)'", refused % ("(~x +get)", "Syntax error")),
            ("ACL SETUSER alice off '(~x'",
             "ERR Unmatched parenthesis in acl selector starting at '(~x'."),
            ("ACL SETUSER alice ''", b"OK"),
            ("ACL LIST", [b"user alice on resetchannels -@all +get",
                          b"user default on nopass ~* &* +@all"]),
            ("ACL SETUSER 'a b' on", "ERR Usernames can't contain spaces or null characters"),
        )  # fmt: skip
        self.assertIn("spaces or null", self.talk.error("ACL", "SETUSER", b"a\0b"))

    def test_arity(self) -> None:
        for words in ("SETUSER", "DELUSER", "GETUSER", "LIST x", "USERS x", "WHOAMI x", "SAVE x",
                      "LOAD x", "DRYRUN a"):  # fmt: skip
            name = words.split()[0].lower()
            self.assert_replies((f"ACL {words}", wrong_arity(f"acl|{name}")))
        for words in ("CAT a b", "LOG 1 2", "GENPASS 1 2"):
            name = words.split()[0]
            self.assert_replies((
                f"ACL {words}",
                f"ERR unknown subcommand or wrong number of arguments for '{name}'. Try ACL HELP.",
            ))  # fmt: skip

    def test_genpass_makes_up_so_many_bits(self) -> None:
        for words, digits in (("", 64), (" 5", 2), (" 1", 1), (" 4096", 1024)):
            made = self.ask(f"ACL GENPASS{words}")
            self.assertRegex(made, rb"\A[0-9a-f]{%d}\Z" % digits)
        self.assertNotEqual(self.ask("ACL GENPASS"), self.ask("ACL GENPASS"))
        bad = (
            "ERR ACL GENPASS argument must be the number of bits for the output password, a "
            "positive number up to 4096"
        )
        self.assert_replies(
            ("ACL GENPASS 0", bad), ("ACL GENPASS 4097", bad),
            ("ACL GENPASS x", "ERR value is not an integer or out of range"),
        )  # fmt: skip

    def test_cat_and_command_agree(self) -> None:
        categories = self.ask("ACL CAT")
        self.assertEqual(len(categories), 21)
        known = {each.decode() for each in categories}
        for row in every_command():
            self.assertLessEqual(row.categories, known, row.name)
            self.assertEqual(len(row.categories & {"fast", "slow"}), 1, row.name)
        for category in sorted(known):
            by_filter = self.ask(f"COMMAND LIST FILTERBY ACLCAT {category}")
            self.assertEqual(self.ask(f"ACL CAT {category.upper()}"), by_filter)
        self.assertIn(b"config|get", self.ask("ACL CAT dangerous"))
        self.assert_replies(("ACL CAT foo", "ERR Unknown category 'foo'"))

    def test_dryrun_tells_without_doing(self) -> None:
        self.ask("ACL SETUSER alice ~a &c +get +set +publish")
        self.assert_replies(
            ("ACL DRYRUN alice GET a", b"OK"),
            ("ACL DRYRUN alice SET a 1", b"OK"),
            ("ACL DRYRUN alice get", wrong_arity("get")),
            ("ACL DRYRUN nobody GET a", "ERR User 'nobody' not found"),
            ("ACL DRYRUN alice nosuch a", "ERR Command 'nosuch' not found"),
            ("ACL DRYRUN alice config nosuch", "ERR Command 'config' not found"),
            ("ACL LOG", []), ("EXISTS a", 0),
        )  # fmt: skip
        for line, text in (
            ("GET b", "User alice has no permissions to access the 'b' key"),
            ("INCR a", "User alice has no permissions to run the 'incr' command"),
            ("PUBLISH d x", "User alice has no permissions to access the 'd' channel"),
        ):
            self.assertEqual(self.talk("ACL", "DRYRUN", "alice", *line.split()), text)

    def test_help_lists_the_subcommands(self) -> None:
        text = b"\n".join(self.talk("ACL", "HELP"))
        for name in (b"CAT", b"DELUSER", b"DRYRUN", b"GENPASS", b"GETUSER", b"LIST", b"LOAD",
                     b"LOG", b"SAVE", b"SETUSER", b"USERS", b"WHOAMI"):  # fmt: skip
            self.assertIn(name, text)


class LogInTest(CommandTest):
    def setUp(self) -> None:
        super().setUp()
        self.ask("ACL SETUSER alice on >p >second +@all ~*")

    def as_alice(self) -> Conversation:
        alice = self.talk.another()
        self.assertEqual(self.ask("AUTH alice p", alice), b"OK")
        return alice

    def test_any_of_a_users_passwords_will_do(self) -> None:
        self.assert_replies(
            ("AUTH alice wrong", WRONG), ("ACL WHOAMI", b"default"),
            ("AUTH alice second", b"OK"), ("ACL WHOAMI", b"alice"),
            ("AUTH nobody p", WRONG), ("AUTH alice ''", WRONG), ("ACL WHOAMI", b"alice"),
            ("AUTH default whatever", b"OK"), ("ACL WHOAMI", b"default"),
        )  # fmt: skip
        self.ask("ACL SETUSER alice <p")
        self.assertEqual(self.ask("AUTH alice p"), WRONG)

    def test_hello_takes_a_user(self) -> None:
        self.assertEqual(self.ask("HELLO 3 AUTH alice wrong"), WRONG)
        self.assertEqual(self.talk("HELLO", 3, "AUTH", "alice", "p")[b"proto"], 3)
        self.assertEqual(self.ask("ACL WHOAMI"), b"alice")
        entry = self.talk("ACL", "LOG")[0]
        self.assertEqual((entry[b"object"], entry[b"username"]), (b"HELLO", b"alice"))

    def test_who_is_off_cannot_log_in_but_goes_on_if_it_was(self) -> None:
        alice = self.as_alice()
        self.ask("ACL SETUSER alice off")
        self.assertEqual(self.ask("AUTH alice p"), WRONG)
        self.assertEqual(self.ask("ACL WHOAMI", alice), b"alice")
        self.ask("ACL SETUSER alice nopass")
        self.assertEqual(self.ask("AUTH alice p"), WRONG)

    def test_who_is_deleted_is_cut_off(self) -> None:
        alice, closed = self.as_alice(), []
        alice.session.close = lambda: closed.append("alice")
        own = self.talk.session
        own.close = lambda: closed.append("default")
        self.ask("ACL DELUSER alice")
        self.assertEqual((closed, alice.session.closing, own.closing), (["alice"], True, False))
        self.assertEqual(self.ask("GET k", alice), no_command("alice", "get"))

    def test_who_deletes_itself_gets_the_answer_first(self) -> None:
        alice, closed = self.as_alice(), []
        alice.session.close = lambda: closed.append("alice")
        self.assertEqual(alice.bytes(b"ACL DELUSER alice\r\nPING\r\n"), b":1\r\n")
        self.assertEqual((closed, alice.dialect.closing), ([], True))

    def test_who_may_not_hear_it_any_more_is_cut_off(self) -> None:
        self.ask("ACL SETUSER alice &a* &b")
        listeners = [self.as_alice() for _ in range(3)]
        for talk, line in zip(
            listeners, ("SUBSCRIBE abc", "SUBSCRIBE b", "PSUBSCRIBE a*"), strict=True
        ):
            talk.bytes(line + "\r\n")
        self.ask("ACL SETUSER alice resetchannels &a*")
        self.assertEqual([each.session.closing for each in listeners], [False, True, False])
        self.ask("ACL SETUSER alice resetchannels &abc")
        self.assertEqual([each.session.closing for each in listeners], [False, True, True])

    def test_client_list_and_client_kill_know_users(self) -> None:
        alice = self.as_alice()
        lines = str(self.talk("CLIENT", "LIST")).splitlines()
        self.assertEqual([" user=default " in lines[0], " user=alice " in lines[1]], [True] * 2)
        self.assert_replies(
            ("CLIENT KILL USER nobody", "ERR No such user 'nobody'"),
            ("CLIENT KILL USER alice", 1),
            ("CLIENT KILL USER default", 0),
        )
        self.assertTrue(alice.session.closing)

    def test_requirepass_is_the_default_users_password(self) -> None:
        self.assert_replies(
            ("CONFIG GET requirepass", {b"requirepass": b""}),
            ("CONFIG SET requirepass secret", b"OK"),
            ("CONFIG GET requirepass", {b"requirepass": b"(set)"}),
            ("PING", b"PONG"),  # who is in stays in
        )
        stranger = self.talk.another()
        noauth = "NOAUTH Authentication required."
        self.assert_replies(
            ("PING", noauth), ("AUTH wrong", WRONG), ("AUTH secret", b"OK"), ("PING", b"PONG"),
            talk=stranger,
        )  # fmt: skip
        stranger = self.talk.another()
        self.assertEqual(self.ask("PING", stranger), noauth)
        self.ask("CONFIG SET requirepass ''")
        self.assertEqual(self.ask("PING", stranger), b"PONG")
        self.assertIn("without any password configured", str(self.ask("AUTH x")))

    def test_with_the_default_user_off_everybody_has_to_log_in(self) -> None:
        self.ask("ACL SETUSER default off")
        stranger = self.talk.another()
        self.assertEqual(self.ask("PING", stranger), "NOAUTH Authentication required.")
        self.assertEqual(self.ask("AUTH alice p", stranger), b"OK")
        self.assertEqual(self.ask("PING", stranger), b"PONG")
        self.ask("RESET", stranger)
        self.assertEqual(self.ask("PING", stranger), "NOAUTH Authentication required.")

    def test_passwords_are_kept_as_their_sha_256_only(self) -> None:
        self.ask("ACL SETUSER alice >topsecret")
        rules = self.talk.instance.users.get(b"alice").rules
        self.assertNotIn("topsecret", repr(rules))

    def test_each_password_is_compared_in_constant_time_even_a_strangers(self) -> None:
        for name, compared in ((b"alice", 2), (b"nobody", 1)):
            with mock.patch("kvdb.acl.rules.hmac.compare_digest", return_value=False) as compare:
                self.talk.instance.users.authenticate(name, b"p")
            self.assertEqual(compare.call_count, compared)


class LogTest(CommandTest):
    def setUp(self) -> None:
        super().setUp()
        self.ask("ACL SETUSER alice on >p +get ~a")
        self.alice = self.talk.another()
        self.ask("AUTH alice p", self.alice)

    def seen(self) -> list[Reply]:
        fields = (b"count", b"reason", b"context", b"object", b"username")
        return [tuple(entry[field] for field in fields) for entry in self.talk("ACL", "LOG")]

    def test_refusals_are_listed_newest_first(self) -> None:
        for line in ("GET b", "SET a 1", "AUTH alice wrong", "GET b"):
            self.ask(line, self.alice)
        self.assertEqual(
            self.seen(),
            [
                (2, "key", "toplevel", b"b", b"alice"),
                (1, "auth", "toplevel", b"AUTH", b"alice"),
                (1, "command", "toplevel", b"set", b"alice"),
            ],
        )
        self.assertEqual(len(self.talk("ACL", "LOG", 1)), 1)
        self.assertEqual(self.talk("ACL", "LOG", -1), [])
        self.assertIn("not an integer", self.talk.error("ACL", "LOG", "x"))
        self.assertEqual(self.ask("ACL LOG RESET"), b"OK")
        self.assertEqual(self.seen(), [])

    def test_an_entry_tells_when_and_who(self) -> None:
        self.ask("GET b", self.alice)
        self.talk.clock.now += 1.5
        (entry,) = self.talk("ACL", "LOG")
        self.assertEqual(entry[b"age-seconds"], 1.5)
        self.assertEqual(entry[b"timestamp-created"], 1_000_000_000)
        self.assertIn(" user=alice ", entry[b"client-info"])
        self.assertEqual(entry[b"entry-id"], 0)

    def test_after_a_minute_the_same_refusal_is_a_new_entry(self) -> None:
        self.ask("GET b", self.alice)
        self.talk.clock.now += 60
        self.ask("GET b", self.alice)
        self.assertEqual([entry[0] for entry in self.seen()], [2])
        self.talk.clock.now += 60.1
        self.ask("GET b", self.alice)
        self.assertEqual([entry[0] for entry in self.seen()], [1, 2])

    def test_acllog_max_len_is_how_many_are_kept(self) -> None:
        self.assertEqual(self.ask("CONFIG GET acllog-max-len"), {b"acllog-max-len": b"128"})
        self.ask("CONFIG SET acllog-max-len 3")
        for number in range(5):
            self.ask(f"GET b{number}", self.alice)
        self.assertEqual([entry[3] for entry in self.seen()], [b"b4", b"b3", b"b2"])
        self.ask("CONFIG SET acllog-max-len 1")
        self.assertEqual(len(self.seen()), 1)
        self.ask("CONFIG SET acllog-max-len 0")
        self.ask("GET b9", self.alice)
        self.assertEqual(self.seen(), [])

    def test_no_more_are_in_memory_even_if_nobody_looks(self) -> None:
        log = DenialLog(ManualClock(), lambda: 5)
        for number in range(50):
            log.add(Denial(Reason.KEY, b"%d" % number), "toplevel", b"u", "client")
        self.assertEqual(len(log._entries), 5)

    def test_a_huge_key_is_not_kept_whole(self) -> None:
        self.alice("GET", b"x" * 100_000)
        self.assertEqual(len(self.seen()[0][3]), 1024)

    def test_info_counts_what_was_refused(self) -> None:
        self.ask("ACL SETUSER alice +publish")
        for line in ("GET b", "GET b", "SET a 1", "PUBLISH c x", "AUTH alice wrong"):
            self.ask(line, self.alice)

        def counted() -> list[str]:
            lines = str(self.talk("INFO", "stats")).splitlines()
            return [line for line in lines if line.startswith("acl_access_denied")]

        before = "acl_access_denied_"
        self.assertEqual(
            sorted(counted()),
            [f"{before}auth:1", f"{before}channel:1", f"{before}cmd:1", f"{before}key:2"],
        )
        self.ask("CONFIG RESETSTAT")
        self.assertEqual({line[-2:] for line in counted()}, {":0"})

    def test_what_is_refused_is_no_command_processed(self) -> None:
        before = self.alice.session.commands
        self.ask("GET b", self.alice)
        self.assertEqual(self.alice.session.commands, before)

    def test_several_threads_may_add(self) -> None:
        log = DenialLog(ManualClock(), lambda: 10)

        def add() -> None:
            for _ in range(200):
                log.add(Denial(Reason.KEY, b"k"), "toplevel", b"u", "client")

        threads = [threading.Thread(target=add) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        ((entry, _),) = log.entries(10)
        self.assertEqual((entry.count, log.count(Reason.KEY)), (800, 800))


class FileTest(CommandTest):
    def setUp(self) -> None:
        super().setUp()
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.path = Path(folder.name) / "users.acl"
        self.talk.instance.config.acl_file = self.path

    def write(self, text: str) -> None:
        self.path.write_text(text, encoding="utf-8")

    def test_without_a_file_nothing_can_be_saved(self) -> None:
        self.talk.instance.config.acl_file = None
        for line in ("ACL SAVE", "ACL LOAD"):
            self.assertIn("not configured to use an ACL file", str(self.ask(line)))

    def test_what_is_saved_is_loaded(self) -> None:
        self.ask("ACL SETUSER alice on >p ~a %R~b &c +@read -get +select|0")
        listed = self.ask("ACL LIST")
        self.assertEqual(self.ask("ACL SAVE"), b"OK")
        self.assertEqual(self.path.read_bytes().splitlines(), listed)
        self.ask("ACL DELUSER alice")
        self.ask("ACL SETUSER bob")
        self.assertEqual(self.ask("ACL LOAD"), b"OK")
        self.assertEqual(self.ask("ACL LIST"), listed)
        self.assertEqual(list(self.path.parent.iterdir()), [self.path])

    @unittest.skipIf(os.name == "nt", "Windows has no such modes")
    def test_nobody_else_may_read_the_file(self) -> None:
        self.ask("ACL SAVE")
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    def test_a_save_that_fails_is_told_and_leaves_nothing(self) -> None:
        self.talk.instance.config.acl_file = self.path / "no" / "folder"
        with self.assertLogs("kvdb", "ERROR"):
            self.assertIn("error trying to save the ACLs", str(self.ask("ACL SAVE")))

    def test_a_bad_file_changes_nothing_and_names_each_line(self) -> None:
        self.ask("ACL SETUSER alice on")
        before = self.ask("ACL LIST")
        self.write(
            "user default on nopass ~* &* +@all\nuser b +nope\n\nuser c foo\nbla\nuser\n"
            "user b on\nuser d #topsecret\nuser b on\n"
        )
        at = self.path
        start = "should start with user keyword followed by the username."
        self.assertEqual(
            self.ask("ACL LOAD"),
            f"ERR {at}:2: Error in applying operation '+nope': Unknown command or category name "
            f"in ACL. {at}:4: Syntax error. {at}:5 {start} {at}:6 {start} "
            f"{at}:8: The password hash must be exactly 64 characters and contain only lowercase "
            f"hexadecimal characters. WARNING: Duplicate user 'b' found on line 9. WARNING: ACL "
            "errors detected, no change to the previously active ACL rules was performed",
        )
        self.assertEqual(self.ask("ACL LIST"), before)

    def test_a_file_that_is_not_there_is_an_error(self) -> None:
        with self.assertRaisesRegex(BadUsersFile, "No such file"):
            Users(TABLE).load(self.path)

    def test_the_connections_of_changed_users_end_those_of_others_go_on(self) -> None:
        for name in ("alice", "bob", "carol"):
            self.ask(f"ACL SETUSER {name} on nopass +@all ~*")
        self.ask("ACL SAVE")
        self.write(self.path.read_text().replace("user bob on", "user bob off"))
        self.write("".join(line for line in self.path.open() if "carol" not in line))
        talks = []
        for name in ("alice", "bob", "carol", "default"):
            talks.append(self.talk.another())
            self.ask(f"AUTH {name} x", talks[-1])
        self.assertEqual(self.ask("ACL LOAD"), b"OK")
        self.assertEqual([each.session.closing for each in talks], [False, True, True, False])
        self.assertEqual(self.ask("ACL WHOAMI", talks[0]), b"alice")

    def test_a_default_user_that_the_file_does_not_name_is_as_at_the_start(self) -> None:
        self.write("user alice on nopass +@all\n")
        for password, expected in ((None, "on nopass ~*"), ("p", f"on #{HASH} ~*")):
            users = Users(TABLE)
            users.set_password(password)
            users.change(b"default", [b"-@all"])
            users.load(self.path)
            self.assertEqual(users.default.rules.describe().decode(), f"{expected} &* +@all")


if __name__ == "__main__":
    unittest.main()
