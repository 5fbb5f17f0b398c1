from __future__ import annotations

import unittest
from unittest import mock

from kvdb.commands import table
from kvdb.commands.table import (
    ALL_KEYS,
    FIRST_KEY,
    KEY_VALUE_PAIRS,
    NO_KEYS,
    NONE,
    READ,
    TABLE,
    TWO_KEYS,
    WRITE,
    Command,
    command,
    container,
    every_command,
    find,
)
from kvdb.commands.usage import parse_usage
from kvdb.errors import INTERNAL, CommandError
from tests.command_case import CommandTest, wrong_arity

GROUPS = {
    "string",
    "bitmap",
    "generic",
    "pubsub",
    "transactions",
    "connection",
    "server",
    "scripting",
}


def row(usage: str, name: str = "NAME", keys: tuple[int, int, int] = NO_KEYS) -> Command:
    return Command(name, usage, NONE, "Summary.", "server", "0.1.0", keys, lambda session: None)


class UsageTest(unittest.TestCase):
    def test_a_usage_line_tells_the_number_of_arguments(self) -> None:
        for usage, least, most in (
            ("", 0, 0),
            ("key", 1, 1),
            ("key value", 2, 2),
            ("[message]", 0, 1),
            ("[username] password", 1, 2),
            ("key [key ...]", 1, None),
            ("key value [key value ...]", 2, None),
            ("[command ...]", 0, None),
            ("ON | OFF", 1, 1),
            ("ON | OFF | SKIP", 1, 1),
            ("LIB-NAME libname | LIB-VER libver", 2, 2),
            ("ip:port | option value [option value ...]", 1, None),
            ("[ASYNC | SYNC]", 0, None),  # one too many is a syntax error, not a wrong arity
            ("cursor [MATCH pattern] [COUNT count]", 1, None),
            ("key seconds [NX | XX | GT | LT] ...", 2, None),
            ("[protover [AUTH username password] [SETNAME clientname]]", 0, None),
            ("key [SAMPLES count]", 1, None),
        ):
            with self.subTest(usage):
                self.assertEqual(parse_usage(usage)[1:], (least, most))

    def test_options_keep_their_words_together(self) -> None:
        key, options = parse_usage("key [EX seconds | PX milliseconds | KEEPTTL]")[0]
        self.assertEqual((key.name, key.token, key.optional), ("key", "", False))
        self.assertEqual((options.optional, options.choices), (True, True))
        words = [(part.token, part.name) for part in options.parts]
        self.assertEqual(words, [("EX", "seconds"), ("PX", "milliseconds"), ("KEEPTTL", "")])

    def test_a_repeated_block_holds_its_words(self) -> None:
        *_, block = parse_usage("key value [key value ...]")[0]
        self.assertEqual((block.optional, block.repeated, block.choices), (True, True, False))
        self.assertEqual([part.name for part in block.parts], ["key", "value"])

    def test_brackets_nest(self) -> None:
        ((outer, *rest),) = [parse_usage("[protover [AUTH username password]]")[0]]
        self.assertEqual((rest, outer.optional), ([], True))
        protover, auth = outer.parts
        self.assertEqual(
            (protover.name, protover.optional, auth.optional), ("protover", False, True)
        )
        self.assertEqual((auth.least, auth.most), (0, None))


class RowTest(unittest.TestCase):
    def test_arity_counts_the_words_of_the_name(self) -> None:
        for name, usage, arity in (
            ("GET", "key", 2),
            ("SET", "key value [NX | XX]", -3),
            ("PING", "[message]", -1),
            ("TIME", "", 1),
            ("CLIENT ID", "", 2),
            ("CONFIG GET", "parameter [parameter ...]", -3),
        ):
            with self.subTest(name):
                self.assertEqual(row(usage, name).arity, arity)

    def test_a_row_accepts_the_numbers_between_its_bounds(self) -> None:
        for usage, accepted in (
            ("", [0]),
            ("key", [1]),
            ("[username] password", [1, 2]),
            ("key [key ...]", [1, 2, 3, 4]),
            ("a b [c]", [2, 3]),
        ):
            with self.subTest(usage):
                one = row(usage)
                self.assertEqual([count for count in range(5) if one.accepts(count)], accepted)

    def test_key_positions_follow_first_last_and_step(self) -> None:
        for keys, count, positions in (
            (NO_KEYS, 3, []),
            (FIRST_KEY, 3, [0]),
            (FIRST_KEY, 0, []),
            (ALL_KEYS, 3, [0, 1, 2]),
            (TWO_KEYS, 4, [0, 1]),
            (TWO_KEYS, 1, [0]),
            (KEY_VALUE_PAIRS, 4, [0, 2]),
            (KEY_VALUE_PAIRS, 3, [0, 2]),
        ):
            with self.subTest(keys=keys, count=count):
                self.assertEqual(list(row("", keys=keys).key_positions(count)), positions)

    def test_the_wire_has_lower_case_and_bars(self) -> None:
        self.assertEqual(row("", "CLIENT SETNAME").wire_name, "client|setname")


class DeclarationTest(unittest.TestCase):
    def setUp(self) -> None:
        self.enterContext(mock.patch.dict(table.TABLE, clear=True))

    def test_a_declared_command_is_found_in_any_case(self) -> None:
        @command("NAME", "key [word]", READ, "Summary.", group="generic", aliases=("ALIAS",))
        def handler() -> None: ...

        for name in (b"NAME", b"name", b"nAmE", b"alias"):
            with self.subTest(name):
                found, arguments = find([name, b"k", b"Word"])
                self.assertIs(found.handler, handler)
                self.assertEqual(arguments, [b"k", b"Word"])
                self.assertEqual(found.wire_name, "alias" if name == b"alias" else "name")

    def test_declaring_a_name_twice_raises(self) -> None:
        def declare(name: str, *aliases: str) -> None:
            command(name, "", NONE, "Summary.", group="server", aliases=aliases)(lambda: None)

        container("BOX", "Summary.", group="server")
        declare("NAME")
        declare("BOX NAME")
        for names in (("NAME",), ("OTHER", "NAME"), ("BOX NAME",), ("BOX HELP",), ("BOX",)):
            with self.subTest(names), self.assertRaisesRegex(ValueError, "is declared twice"):
                declare(*names)

    def test_declaring_a_container_twice_raises(self) -> None:
        container("BOX", "Summary.", group="server")
        with self.assertRaisesRegex(ValueError, "is declared twice"):
            container("BOX", "Summary.", group="server")

    def test_a_subcommand_is_found_behind_its_container(self) -> None:
        container("BOX", "Summary.", group="server")
        command("BOX OPEN", "key", NONE, "Summary.", group="server")(lambda: None)
        found, arguments = find([b"box", b"Open", b"k"])
        self.assertEqual((found.name, arguments), ("BOX OPEN", [b"k"]))
        self.assertEqual([each.name for each in every_command()], ["BOX", "BOX HELP", "BOX OPEN"])


class TheTableTest(CommandTest):
    def test_every_row_says_what_it_does_and_where_it_belongs(self) -> None:
        for each in every_command():
            with self.subTest(each.name):
                self.assertRegex(each.summary, r"^[A-Z].*[.]$")
                self.assertIn(each.group, GROUPS)
                self.assertRegex(each.since, r"^\d+\.\d+\.\d+$")
                self.assertEqual(each.name, each.name.upper())
                self.assertEqual(each.group, TABLE[each.name.split()[0].encode()].group)

    def test_no_row_both_reads_only_and_writes(self) -> None:
        for each in every_command():
            with self.subTest(each.name):
                self.assertFalse(READ in each.flags and WRITE in each.flags)
                if each.keys != NO_KEYS and each.name != "WATCH":
                    self.assertTrue(READ in each.flags or WRITE in each.flags)

    def test_what_a_usage_line_calls_a_key_is_one(self) -> None:
        for each in every_command():
            names = [argument.name for argument in each.arguments]
            with self.subTest(each.name):
                has_keys = each.keys != NO_KEYS or each.counted_keys is not None
                self.assertEqual(bool({"key", "key1", "source"} & set(names)), has_keys)

    def test_every_command_of_redis_that_clients_need_is_there(self) -> None:
        names = """
            GET SET SETNX SETEX PSETEX GETSET GETDEL GETEX MGET MSET MSETNX APPEND STRLEN GETRANGE
            SETRANGE SUBSTR INCR DECR INCRBY DECRBY INCRBYFLOAT DEL DELETE UNLINK EXISTS TOUCH TYPE
            EXPIRE PEXPIRE EXPIREAT PEXPIREAT TTL PTTL EXPIRETIME PEXPIRETIME PERSIST KEYS SCAN
            RANDOMKEY RENAME RENAMENX COPY MOVE DBSIZE FLUSHDB FLUSHALL OBJECT MEMORY MULTI EXEC
            DISCARD WATCH UNWATCH PING ECHO HELLO AUTH SELECT QUIT RESET CLIENT INFO CONFIG COMMAND
            SAVE BGSAVE LASTSAVE SHUTDOWN TIME HELP
        """
        self.assertEqual({name for name in names.split() if name.encode() not in TABLE}, set())

    def test_one_argument_less_or_more_than_the_bounds_is_refused(self) -> None:
        for each in every_command():
            if each.subcommands:
                continue
            words = each.name.encode().split()
            counts = [each.least - 1] * (each.least > 0)
            counts += [] if each.most is None else [each.most + 1]
            for count in counts:
                with self.subTest(each.name, count=count):
                    with mock.patch(
                        "kvdb.commands.replication.follow"
                    ):  # no server: host 1, port 1
                        reply = self.talk(*words, *[b"1"] * count)
                    text = f"wrong number of arguments for '{each.wire_name}' command"
                    self.assertIn(text, str(getattr(reply, "text", reply)))
        self.assertFalse(self.talk.session.closing)

    def test_no_number_of_odd_arguments_is_an_internal_error(self) -> None:
        for each in every_command():
            words = each.name.encode().split()
            if each.name in (
                "CLIENT REPLY",
                "CLIENT PAUSE",
                "WAIT",
                "WAITAOF",
                "REPLICAOF",
                "SLAVEOF",
            ):
                continue  # what follows would get no answer, or it gets none itself for a while
            for count in range(6):
                for word in (b"", b"1", b"-1", b"\xff", b"k", b"NX", b"EX", b"AUTH", b"9" * 30):
                    with self.subTest(each.name, count=count, word=word):
                        reply = self.talk(*words, *[word] * count)
                        self.assertNotEqual(getattr(reply, "text", None), INTERNAL)
            self.talk("RESET")


class UnknownCommandTest(CommandTest):
    def test_an_unknown_command_is_named_with_its_arguments(self) -> None:
        text = "ERR unknown command '{}', with args beginning with: {}"
        for request, shown in (
            (("nosuch",), text.format("nosuch", "")),
            (("NoSuch", "a", "b c"), text.format("NoSuch", "'a' 'b c' ")),
            (("nosuch", "", ""), text.format("nosuch", "'' '' ")),
            (("",), text.format("", "")),
            (("FOO", 'baz"quux'), text.format("FOO", "'baz\"quux' ")),
            (("x" * 200, "b"), text.format("x" * 128, "'b' ")),
            (("nosuch", "x" * 200, "b"), text.format("nosuch", f"'{'x' * 128}' ")),
            (
                ("nosuch", "x" * 118, "abcdefghij", "c"),
                text.format("nosuch", f"'{'x' * 118}' 'abcdefg' "),
            ),
        ):
            with self.subTest(request):
                self.assertEqual(self.talk.error(*request), shown)

    def test_a_request_cannot_forge_a_reply(self) -> None:
        for request in (("a\r\n+OK\r\n",), ("nosuch", "a\r\n$-1\nb"), ("CONFIG", "a\r\nb")):
            with self.subTest(request):
                text = self.talk.error(*request)
                self.assertNotRegex(text, r"[\r\n]")
                self.assertIn("unknown", text)

    def test_a_request_that_is_not_text_is_quoted_as_it_came(self) -> None:
        self.assertEqual(
            self.talk.bytes(b"\xff\xfe\r\n"),
            b"-ERR unknown command '\xff\xfe', with args beginning with: (HELP lists the commands)\r\n",
        )

    def test_an_unknown_subcommand_is_named_as_it_was_given(self) -> None:
        for name in ("CLIENT", "CONFIG", "COMMAND", "OBJECT", "MEMORY"):
            self.assert_replies(
                (f"{name} Foo bar", f"ERR unknown subcommand 'Foo'. Try {name} HELP."),
                (f"{name.lower()} ''", f"ERR unknown subcommand ''. Try {name} HELP."),
            )
        long = self.talk.error("CONFIG", "x" * 200)
        self.assertEqual(long, f"ERR unknown subcommand '{'x' * 128}'. Try CONFIG HELP.")

    def test_a_command_without_subcommands_has_none(self) -> None:
        self.assert_replies(("GET|x", "ERR unknown command 'GET|x', with args beginning with: "))
        self.assert_replies(
            ("client|id", "ERR unknown command 'client|id', with args beginning with: ")
        )
        self.assert_replies(("MEMORY", wrong_arity("memory")))

    def test_a_bug_in_a_handler_is_logged_and_the_client_goes_on(self) -> None:
        secret = "s3cret"
        with (
            mock.patch.object(TABLE[b"ECHO"], "handler", side_effect=ZeroDivisionError),
            self.assertLogs("kvdb", "ERROR") as logs,
        ):
            self.assert_replies((f"ECHO {secret}", INTERNAL), ("PING", b"PONG"))
            self.assert_replies(("MULTI", b"OK"), (f"ECHO {secret}", b"QUEUED"))
            self.assert_replies(("PING", b"QUEUED"), ("EXEC", [INTERNAL, b"PONG"]))
        self.assertEqual(
            [line.splitlines()[0].split(":")[-1] for line in logs.output],
            ["internal error in ECHO"] * 2,
        )
        self.assertNotIn(secret, "".join(logs.output))

    def test_find_raises_what_a_client_may_read(self) -> None:
        with self.assertRaises(CommandError) as caught:
            find([b"GET"])
        self.assertEqual(caught.exception.text, wrong_arity("get"))
