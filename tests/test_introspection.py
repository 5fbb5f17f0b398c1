from __future__ import annotations

from typing import Any

from kvdb.commands.table import TABLE, every_command
from kvdb.replies import Verbatim
from tests.command_case import SYNTAX, CommandTest, wrong_arity


class CommandInfoTest(CommandTest):
    def describe(self, name: str) -> list[Any]:
        row: list[Any]
        (row,) = self.talk("COMMAND", "INFO", name)
        return row

    def test_command_describes_all_that_count_counts(self) -> None:
        names = [row[0] for row in self.talk("COMMAND")]
        self.assertEqual(len(names), self.talk("COMMAND", "COUNT"))
        self.assertEqual(len(set(names)), len(TABLE))
        self.assertEqual(self.talk("COMMAND", "INFO"), self.talk("COMMAND"))

    def test_each_row_has_the_ten_elements_of_redis(self) -> None:
        for row in self.talk("COMMAND"):
            with self.subTest(row[0]):
                kinds = [bytes, int, frozenset, int, int, int, frozenset, list, list, list]
                self.assertEqual([type(element) for element in row], kinds)
                for subcommand in row[9]:
                    self.assertTrue(subcommand[0].startswith(row[0] + b"|"))

    def test_arity_and_keys_are_those_of_redis(self) -> None:
        for name, *expected in (
            ("get", 2, 1, 1, 1),
            ("set", -3, 1, 1, 1),
            ("getex", -2, 1, 1, 1),
            ("setex", 4, 1, 1, 1),
            ("del", -2, 1, -1, 1),
            ("mget", -2, 1, -1, 1),
            ("mset", -3, 1, -1, 2),
            ("rename", 3, 1, 2, 1),
            ("copy", -3, 1, 2, 1),
            ("expire", -3, 1, 1, 1),
            ("incrbyfloat", 3, 1, 1, 1),
            ("scan", -2, 0, 0, 0),
            ("keys", 2, 0, 0, 0),
            ("watch", -2, 1, -1, 1),
            ("exec", 1, 0, 0, 0),
            ("ping", -1, 0, 0, 0),
            ("hello", -1, 0, 0, 0),
            ("object|encoding", 3, 2, 2, 1),
            ("memory|usage", -3, 2, 2, 1),
            ("client|setname", 3, 0, 0, 0),
            ("client|list", -2, 0, 0, 0),
            ("config|get", -3, 0, 0, 0),
            ("client|kill", -3, 0, 0, 0),
        ):
            with self.subTest(name):
                row = self.describe(name)
                self.assertEqual([row[0], row[1], *row[3:6]], [name.encode(), *expected])

    def test_containers_need_a_subcommand_as_in_redis(self) -> None:
        for name in ("client", "config", "object", "memory"):
            with self.subTest(name):
                self.assertEqual(self.describe(name)[1], -2)
        self.assertEqual(self.describe("command")[1], -1)

    def test_flags_tell_reads_from_writes(self) -> None:
        for name, flags in (
            ("get", {b"readonly", b"fast"}),
            ("set", {b"write", b"denyoom"}),  # fast and slow are what Redis says
            ("del", {b"write"}),
            ("keys", {b"readonly"}),
            ("auth", {b"no_auth", b"fast", b"loading", b"stale", b"noscript", b"allow_busy"}),
            ("publish", {b"pubsub", b"fast", b"loading", b"stale"}),
            ("pubsub", set()),  # a container by itself is nothing
            ("save", {b"admin", b"no_multi", b"noscript"}),
            (
                "eval_ro",
                {
                    b"readonly",
                    b"noscript",
                    b"stale",
                    b"movablekeys",
                    b"skip_monitor",
                    b"no_mandatory_keys",
                },
            ),
        ):
            with self.subTest(name):
                self.assertEqual(self.describe(name)[2], flags)
        self.assertLessEqual({b"@string", b"@read", b"@fast"}, self.describe("GET")[6])
        self.assertLessEqual(
            {b"@keyspace", b"@write", b"@slow"}, self.describe("flushall")[6] | {b"@keyspace"}
        )

    def test_what_does_not_exist_is_nil(self) -> None:
        for name in ("nosuch", "nosuch|x", "config|nosuch", "get|x"):
            self.assert_replies((f"COMMAND INFO {name}", [None]))
        names = [row and row[0] for row in self.talk("COMMAND", "INFO", "GET", "nosuch", "Set")]
        self.assertEqual(names, [b"get", None, b"set"])

    def test_wrong_requests_are_refused(self) -> None:
        self.assert_replies(
            ("COMMAND FOO", "ERR unknown subcommand 'FOO'. Try COMMAND HELP."),
            ("COMMAND COUNT x", wrong_arity("command|count")),
            ("COMMAND GETKEYS", wrong_arity("command|getkeys")),
        )


class CommandListTest(CommandTest):
    def test_list_names_every_command_and_subcommand(self) -> None:
        expected = [row.wire_name.encode() for row in every_command()]
        self.assertEqual(self.talk("COMMAND", "LIST"), expected)
        self.assertLessEqual({b"get", b"client", b"client|setname"}, set(expected))

    def test_a_pattern_chooses_among_them(self) -> None:
        self.assert_replies(
            ("COMMAND LIST FILTERBY PATTERN gete*", [b"getex"]),
            ("command list filterby pattern GETE*", [b"getex"]),
            ("COMMAND LIST FILTERBY PATTERN client|set*", [b"client|setinfo", b"client|setname"]),
            ("COMMAND LIST FILTERBY PATTERN nosuch*", []),
            ("COMMAND LIST FILTERBY MODULE foo", []),
            ("COMMAND LIST FILTERBY ACLCAT nosuch", []),
        )

    def test_a_category_chooses_among_them(self) -> None:
        names = self.talk("COMMAND", "LIST", "FILTERBY", "ACLCAT", "TRANSACTION")
        self.assertEqual(names, [b"discard", b"exec", b"multi", b"unwatch", b"watch"])
        written = set(self.talk("COMMAND", "LIST", "FILTERBY", "ACLCAT", "write"))
        self.assertEqual(written & {b"get", b"set", b"del", b"ttl"}, {b"set", b"del"})

    def test_other_filters_are_a_syntax_error(self) -> None:
        for words in (
            "FOO",
            "FILTERBY",
            "FILTERBY PATTERN",
            "FILTERBY FOO x",
            "FILTERBY PATTERN a b",
        ):
            self.assert_replies((f"COMMAND LIST {words}", SYNTAX))


class CommandGetkeysTest(CommandTest):
    def test_the_keys_of_a_request_are_found(self) -> None:
        for request, keys in (
            ("GET a", "a"),
            ("set a b EX 10 GET", "a"),
            ("MSET a b c d", "a c"),
            ("MGET a b c", "a b c"),
            ("DEL a b c", "a b c"),
            ("RENAME a b", "a b"),
            ("COPY a b DB 3", "a b"),
            ("SETEX a 1 v", "a"),
            ("WATCH a b c", "a b c"),
            ("OBJECT ENCODING k", "k"),
            ("MEMORY USAGE k SAMPLES 5", "k"),
        ):
            self.assert_replies((f"COMMAND GETKEYS {request}", keys.encode().split()))

    def test_keys_are_the_clients_own_in_every_database(self) -> None:
        self.assert_replies(("SELECT 3", b"OK"), ("COMMAND GETKEYS MGET a b", [b"a", b"b"]))

    def test_a_request_without_keys_is_refused(self) -> None:
        no_keys = "ERR The command has no key arguments"
        invalid = "ERR Invalid command specified"
        self.assert_replies(
            ("COMMAND GETKEYS PING", no_keys),
            ("COMMAND GETKEYS FLUSHALL", no_keys),
            ("COMMAND GETKEYS CLIENT LIST", no_keys),
            ("COMMAND GETKEYS NOSUCH", invalid),
            ("COMMAND GETKEYS OBJECT FOO k", invalid),
            ("COMMAND GETKEYS GET a b", "ERR Invalid number of arguments specified for command"),
            ("COMMAND GETKEYS GET", "ERR Invalid number of arguments specified for command"),
        )

    def test_what_is_done_to_each_key_is_named_as_redis_names_it(self) -> None:
        for request, expected in (
            ("GET a", [[b"a", {b"RO", b"access"}]]),
            ("SET a b", [[b"a", {b"OW", b"update"}]]),
            ("SET a b GET", [[b"a", {b"RW", b"access", b"update"}]]),
            ("DEL a b", [[b"a", {b"RM", b"delete"}], [b"b", {b"RM", b"delete"}]]),
            ("COPY a b", [[b"a", {b"RO", b"access"}], [b"b", {b"OW", b"update"}]]),
            ("EXISTS a", [[b"a", {b"RO"}]]),
            ("PING", "ERR The command has no key arguments"),
        ):
            self.assert_replies((f"COMMAND GETKEYSANDFLAGS {request}", expected))


class CommandDocsTest(CommandTest):
    def document(self, name: str) -> dict[bytes, Any]:
        document: dict[bytes, Any]
        (document,) = self.talk("COMMAND", "DOCS", name).values()
        return document

    def test_all_commands_are_documented_or_those_asked_for(self) -> None:
        everything = self.talk("COMMAND", "DOCS")
        self.assertEqual(list(everything), [row.wire_name.encode() for row in TABLE.values()])
        self.assertEqual(
            list(self.talk("COMMAND", "DOCS", "SET", "nosuch", "client|list")),
            [b"set", b"client|list"],
        )
        self.assert_replies(("COMMAND DOCS nosuch", {}), ("COMMAND DOCS get|x", {}))

    def test_arguments_form_the_tree_that_clients_draw_hints_from(self) -> None:
        document = self.document("set")
        self.assertEqual(document[b"group"], b"string")
        self.assertEqual(document[b"summary"], TABLE[b"SET"].summary.encode())
        key, value, condition, get, expiry = document[b"arguments"]
        self.assertEqual(key, {b"name": b"key", b"type": b"key", b"key_spec_index": 0})
        self.assertEqual(value, {b"name": b"value", b"type": b"string"})
        self.assertEqual(get[b"token"], b"GET")
        self.assertEqual((get[b"type"], get[b"flags"]), (b"pure-token", [b"optional"]))
        self.assertEqual((condition[b"type"], condition[b"flags"]), (b"oneof", [b"optional"]))
        self.assertEqual(
            [part[b"token"] for part in condition[b"arguments"]], [b"NX", b"XX", b"IFEQ", b"IFNE"]
        )
        tokens = [part[b"token"] for part in expiry[b"arguments"]]
        self.assertEqual(tokens, [b"EX", b"PX", b"EXAT", b"PXAT", b"KEEPTTL"])
        self.assertEqual(expiry[b"arguments"][0][b"name"], b"seconds")

    def test_what_may_be_repeated_is_marked(self) -> None:
        (block,) = self.document("mset")[b"arguments"]
        self.assertEqual(block[b"flags"], [b"multiple"])
        self.assertEqual([part[b"name"] for part in block[b"arguments"]], [b"key", b"value"])

    def test_one_and_more_of_it_are_one_argument(self) -> None:
        (key,) = self.document("mget")[b"arguments"]
        self.assertEqual((key[b"name"], key[b"flags"]), (b"key", [b"multiple"]))
        *_, key = self.document("bitop")[b"arguments"]
        self.assertEqual((key[b"name"], key[b"flags"]), (b"key", [b"multiple"]))
        self.assertEqual(len(self.document("expire")[b"arguments"]), 3)

    def test_a_container_documents_its_subcommands(self) -> None:
        document = self.document("object")
        self.assertNotIn(b"arguments", document)
        names = {"encoding", "freq", "help", "idletime", "refcount"}
        expected = {f"object|{name}".encode() for name in names}
        self.assertEqual(set(document[b"subcommands"]), expected)


class HelpTest(CommandTest):
    def test_help_names_every_command_under_its_group(self) -> None:
        reply = self.talk("HELP")
        self.assertIs(type(reply), Verbatim)
        words = reply.replace("\r\n", " ").split()
        for name in TABLE:
            with self.subTest(name):
                self.assertEqual(
                    words.count(name.decode()), 2 if name in (b"SET", b"HELP", b"QUIT") else 1
                )
        for line in reply.split("\r\n"):
            self.assertLessEqual(len(line), 79)

    def test_help_explains_every_command(self) -> None:
        for row in every_command():
            with self.subTest(row.name):
                usage, summary = self.talk("HELP", *row.name.lower().split()).split("\r\n")[:2]
                self.assertEqual(usage, f"{row.name} {row.usage}".rstrip())
                self.assertEqual(summary, f"  {row.summary}")

    def test_help_of_a_container_explains_its_subcommands(self) -> None:
        lines = self.talk("HELP", "client").split("\r\n")
        self.assertIn("CLIENT SETNAME connection-name", lines)
        self.assertIn("  Name this connection.", lines)

    def test_help_of_nothing_known_says_so(self) -> None:
        self.assert_replies(
            ("HELP nosuch", "ERR no such command: nosuch. HELP lists all"),
            ("HELP client nosuch", "ERR no such command: client nosuch. HELP lists all"),
            ("HELP get foo", "ERR no such command: get foo. HELP lists all"),
        )

    def test_help_is_given_in_the_middle_of_a_transaction(self) -> None:
        self.assert_replies(("MULTI", b"OK"))
        self.assertIn("HELP SET explains SET", self.talk("HELP"))
        self.assert_replies(("EXEC", []))

    def test_every_container_has_a_help_of_its_own(self) -> None:
        for row in TABLE.values():
            if row.subcommands:
                with self.subTest(row.name):
                    lines = self.talk(row.name, "HELP")
                    self.assertEqual(
                        lines[0],
                        b"%b <subcommand> [<arg> [value] [opt] ...]. Subcommands are:"
                        % row.name.encode(),
                    )
                    self.assertEqual(len(lines), 1 + 2 * len(row.subcommands))
                    self.assertIn(b"    List the subcommands of %b." % row.name.encode(), lines)
                    self.assertEqual(
                        self.ask(f"{row.name} HELP x"), wrong_arity(f"{row.name.lower()}|help")
                    )
