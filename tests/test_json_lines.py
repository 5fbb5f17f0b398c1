"""The challenge's dialect on the main port: JSON lines."""

from __future__ import annotations

import base64
import json
import random
import tracemalloc
import unittest
from typing import Any
from unittest import mock

from kvdb.commands.session import Session
from kvdb.errors import CommandError
from kvdb.protocols import BATCH_BYTES
from kvdb.protocols.json_lines import answer
from kvdb.replies import NIL_ARRAY, OK
from kvdb.resp.limits import MAX_LINE, STRANGERS_LINE
from tests.support import Conversation, batches

MB = 1024 * 1024


def line_for(command: str, args: str) -> str:
    """Return a line whose arguments are JSON, or are meant to look like it."""
    return f'{{"command": "{command}", "args": {args}}}'


class JsonLines(unittest.TestCase):
    def setUp(self) -> None:
        self.client = Conversation()

    def answer(self, line: str | bytes, client: Conversation | None = None) -> Any:
        """Send one line; return what the one line that answers it says."""
        data = line.encode() if isinstance(line, str) else line
        reply = (client or self.client).bytes(data + b"\n")
        self.assertEqual((reply.count(b"\n"), reply[-1:]), (1, b"\n"))
        return json.loads(reply)

    def ask(self, command: str, args: object = None) -> Any:
        request = {"command": command} if args is None else {"command": command, "args": args}
        return self.answer(json.dumps(request))

    def result(self, command: str, args: object = None) -> Any:
        """Carry out a command that succeeds; return its result."""
        response = self.ask(command, args)
        self.assertEqual(response["status"], "OK", response)
        return response["result"]

    def assert_refused(self, line: str | bytes, message: str | None = None) -> None:
        """One JSON error, and the connection goes on."""
        response = self.answer(line)
        self.assertEqual(response.keys(), {"status", "message"})
        self.assertEqual(response["status"], "ERROR")
        if message is not None:
            self.assertEqual(response["message"], message)
        self.assertFalse(self.client.dialect.closing)
        self.assertEqual(self.result("PING"), "PONG")


class TheChallenge(JsonLines):
    def test_every_line_of_the_challenge_is_answered_word_for_word(self) -> None:
        for line, expected in [
            ('{"command": "SET", "args": {"key": "foo", "value": "bar"}}', {"status": "OK"}),
            ('{"command": "SET", "args": {"key": "foo", "value": "bar", "ttl": 60}}',
             {"status": "OK"}),
            ('{"command": "GET", "args": {"key": "foo"}}', {"status": "OK", "result": "bar"}),
            ('{"command": "GET", "args": {"key": "missing"}}', {"status": "OK", "result": None}),
            ('{"command": "DELETE", "args": {"key": "foo"}}', {"status": "OK"}),
            ('{"command": "DELETE", "args": {"key": "foo"}}', {"status": "OK"}),
            ('{"command": "GET", "args": {"key": "foo"}}', {"status": "OK", "result": None}),
            ('{"command": "INCR", "args": {"key": "x"}}', {"status": "OK", "result": "1"}),
            ('{"command": "INCR", "args": {"key": "x"}}', {"status": "OK", "result": "2"}),
            ('{"command": "DECR", "args": {"key": "x"}}', {"status": "OK", "result": "1"}),
            ('{"command": "SET", "args": {"key": "foo", "value": "bar"}}', {"status": "OK"}),
            ('{"command": "INCR", "args": {"key": "foo"}}',
             {"status": "ERROR", "message": "Value is not an integer"}),
            ('{"command": "TTL", "args": {"key": "foo"}}', {"status": "OK", "result": None}),
            ('{"command": "TTL", "args": {"key": "missing"}}', {"status": "OK", "result": None}),
            ('{"command": "EXPIRE", "args": {"key": "foo", "ttl": 60}}', {"status": "OK"}),
            ('{"command": "TTL", "args": {"key": "foo"}}', {"status": "OK", "result": 60}),
            ('{"command": "EXPIRE", "args": {"key": "missing", "ttl": 60}}', {"status": "OK"}),
            ('{"command": "PING"}', {"status": "OK", "result": "PONG"}),
        ]:  # fmt: skip
            with self.subTest(line=line):
                reply = self.client.bytes(line + "\n")
                self.assertEqual(reply.decode(), json.dumps(expected) + "\n")

    def test_the_ttl_counts_down_in_whole_seconds_and_the_key_goes(self) -> None:
        self.ask("SET", {"key": "foo", "value": "bar", "ttl": 60})
        self.client.clock.now += 1
        self.assertEqual(self.result("TTL", {"key": "foo"}), 59)
        self.client.clock.now += 59
        self.assertIsNone(self.result("GET", {"key": "foo"}))

    def test_a_ttl_may_be_a_fraction_of_a_second(self) -> None:
        self.ask("SET", {"key": "foo", "value": "bar", "ttl": 0.5})
        self.assertEqual(self.result("PTTL", ["foo"]), 500)

    def test_a_ttl_of_null_is_none(self) -> None:
        self.assertEqual(self.ask("SET", {"key": "k", "value": "v", "ttl": None}), {"status": "OK"})
        self.assertIsNone(self.result("TTL", {"key": "k"}))

    def test_setting_anew_takes_the_ttl_away(self) -> None:
        self.ask("SET", {"key": "foo", "value": "bar", "ttl": 60})
        self.ask("SET", {"key": "foo", "value": "baz"})
        self.assertIsNone(self.result("TTL", {"key": "foo"}))

    def test_a_ttl_that_is_not_positive_is_refused_and_nothing_set(self) -> None:
        message = "invalid expire time in 'set' command"
        for ttl in (0, -1, 0.0001):
            response = self.ask("SET", {"key": "foo", "value": "bar", "ttl": ttl})
            self.assertEqual(response, {"status": "ERROR", "message": message})
        self.assertIsNone(self.result("GET", {"key": "foo"}))

    def test_expire_in_the_past_deletes(self) -> None:
        self.ask("SET", {"key": "foo", "value": "bar"})
        self.assertEqual(self.ask("EXPIRE", {"key": "foo", "ttl": -1}), {"status": "OK"})
        self.assertIsNone(self.result("GET", {"key": "foo"}))

    def test_commands_are_known_in_any_case(self) -> None:
        for command in ("SET", "set", "sEt"):
            response = self.ask(command, {"key": "k", "value": command})
            self.assertEqual(response, {"status": "OK"})
            self.assertEqual(self.result("gEt", {"key": "k"}), command)
        self.assertEqual(self.result("ping"), "PONG")
        self.assertEqual(self.result("mGet", ["k"]), ["sEt"])
        self.assertEqual(self.ask("delete", {"key": "k"}), {"status": "OK"})

    def test_text_of_any_language_and_control_characters_are_kept(self) -> None:
        for value in (
            "",
            " ",
            "zwölf",
            "日本",
            "😀",
            "a\nb\r\n",
            "\x00\x7f",
            '"\\',
            "\u2028",
            "{}",
        ):
            for key in (value, "k"):
                self.ask("SET", {"key": key, "value": value})
                self.assertEqual(self.result("GET", {"key": key}), value)
                self.assertEqual(self.client("GET", key), value.encode())

    def test_an_integer_is_taken_for_its_digits(self) -> None:
        self.ask("SET", {"key": 5, "value": -7})
        self.assertEqual(self.result("GET", {"key": "5"}), "-7")

    def test_white_space_within_and_behind_the_object_does_no_harm(self) -> None:
        line = '{ "args":{ } ,\t"command" : "PING" } \r'
        self.assertEqual(self.answer(line), {"status": "OK", "result": "PONG"})

    def test_other_members_of_the_object_are_ignored(self) -> None:
        self.assertEqual(self.answer('{"command": "PING", "id": 7}')["result"], "PONG")


class OtherCommands(JsonLines):
    def test_every_command_takes_a_list(self) -> None:
        self.assertEqual(self.ask("SET", ["a", "1"]), {"status": "OK"})
        self.assertEqual(self.ask("MSET", ["b", "2", "c", 3]), {"status": "OK"})
        self.assertEqual(self.result("MGET", ["a", "b", "c", "d"]), ["1", "2", "3", None])
        self.assertEqual(self.result("DELETE", ["a", "b"]), 2)
        self.assertEqual(self.result("STRLEN", ["c"]), 1)
        self.assertEqual(self.result("PING", ["hello"]), "hello")
        self.assertEqual(self.result("EXISTS", ["a"]), 0)

    def test_a_list_gives_redis_own_results(self) -> None:
        self.assertEqual(self.result("INCR", ["n"]), 1)
        self.assertEqual(self.result("TTL", ["n"]), -1)
        self.assertEqual(self.result("TTL", ["missing"]), -2)

    def test_no_arguments_may_be_left_out_or_empty(self) -> None:
        for line in (
            '{"command": "DBSIZE"}',
            '{"command": "DBSIZE", "args": []}',
            '{"command": "DBSIZE", "args": {}}',
            '{"command": "DBSIZE", "args": null}',
        ):
            self.assertEqual(self.answer(line), {"status": "OK", "result": 0})

    def test_a_map_becomes_an_object(self) -> None:
        self.assertEqual(self.result("CONFIG", ["GET", "maxmemory-policy"]).keys(),
                         {"maxmemory-policy"})  # fmt: skip

    def test_redis_errors_come_without_their_code_word_err(self) -> None:
        for command, args, message in [
            ("GET", [], "wrong number of arguments for 'get' command"),
            ("NOSUCH", ["a"], "unknown command 'NOSUCH', with args beginning with: 'a' "),
            ("SET", ["k", "v", "XY"], "syntax error"),
            ("EXEC", [], "EXEC without MULTI"),
            ("HELLO", ["4"], "NOPROTO unsupported protocol version"),
        ]:
            response = self.ask(command, args)
            self.assertEqual(response, {"status": "ERROR", "message": message})

    def test_a_transaction_is_queued_and_carried_out(self) -> None:
        self.assertEqual(self.ask("MULTI"), {"status": "OK"})
        self.assertEqual(self.result("SET", {"key": "a", "value": "1"}), "QUEUED")
        self.assertEqual(self.result("INCR", {"key": "a"}), "QUEUED")
        self.assertEqual(self.result("TTL", {"key": "a"}), "QUEUED")
        self.assertEqual(self.result("MGET", ["a", "b"]), "QUEUED")
        self.assertIsNone(self.client.another()("GET", "a"))
        self.assertEqual(self.result("EXEC"), ["OK", 2, -1, ["2", None]])

    def test_an_error_in_a_transaction_takes_its_place_in_the_result(self) -> None:
        self.ask("SET", {"key": "a", "value": "x"})
        self.ask("MULTI")
        self.ask("INCR", {"key": "a"})
        self.ask("GET", {"key": "a"})
        error = {"status": "ERROR", "message": "Value is not an integer"}
        self.assertEqual(self.result("EXEC"), [error, "x"])

    def test_a_transaction_is_given_up_when_a_watched_key_has_changed(self) -> None:
        self.ask("WATCH", ["a"])
        self.client.another()("SET", "a", "theirs")
        self.ask("MULTI")
        self.ask("SET", {"key": "a", "value": "ours"})
        self.assertEqual(self.ask("EXEC"), {"status": "OK", "result": None})
        self.assertEqual(self.result("GET", {"key": "a"}), "theirs")

    def test_a_request_refused_while_queueing_aborts_the_transaction(self) -> None:
        for bad in (
            '{"command": "NOSUCH"}',
            '{"command": "SET", "args": {"key": "a"}}',
            '{"command": "SET", "args": ["a", null]}',
        ):
            with self.subTest(bad=bad):
                self.ask("MULTI")
                self.ask("SET", {"key": "b", "value": "1"})
                self.answer(bad)
                message = "EXECABORT Transaction discarded because of previous errors."
                self.assertEqual(self.ask("EXEC"), {"status": "ERROR", "message": message})
                self.ask("DISCARD")
                self.assertIsNone(self.result("GET", {"key": "b"}))

    def test_quit_answers_and_closes(self) -> None:
        reply = self.client.bytes('{"command": "QUIT"}\n{"command": "PING"}\n')
        self.assertEqual(reply, b'{"status": "OK"}\n')
        self.assertTrue(self.client.dialect.closing)

    def test_a_reply_that_is_not_wanted_is_not_sent(self) -> None:
        self.assertEqual(
            self.client.bytes('{"command": "CLIENT", "args": ["REPLY", "OFF"]}\n'), b""
        )
        self.assertEqual(self.client.bytes('{"command": "GET", "args": {"key": "a"}}\n'), b"")
        self.assertEqual(self.ask("CLIENT", ["REPLY", "ON"]), {"status": "OK"})


class BinaryValues(JsonLines):
    def test_every_byte_value_comes_back_exactly(self) -> None:
        for value in [bytes([byte]) for byte in range(256)] + [bytes(range(256))]:
            self.client("SET", "k", value)
            response = self.ask("GET", {"key": "k"})
            if "encoding" in response:
                self.assertEqual(response["encoding"], "base64")
                self.assertEqual(base64.b64decode(response["result"], validate=True), value)
                self.assertGreater(max(value), 127)
            else:
                self.assertEqual(response["result"].encode(), value)
                self.assertLess(max(value), 128)

    def test_every_byte_value_can_be_set(self) -> None:
        for value in [bytes([byte]) for byte in range(256)] + [bytes(range(256)), b""]:
            text = base64.b64encode(value).decode()
            response = self.ask("SET", {"key": "k", "value": text, "encoding": "base64"})
            self.assertEqual(response, {"status": "OK"})
            self.assertEqual(self.client("GET", "k"), value)

    def test_what_is_sent_back_as_it_came_is_the_same_value(self) -> None:
        self.client("SET", "a", b"\xff\x00caf\xe9")
        got = self.ask("GET", {"key": "a"})
        self.ask("SET", {"key": "b", "value": got["result"], "encoding": got["encoding"]})
        self.assertEqual(self.client("GET", "b"), b"\xff\x00caf\xe9")

    def test_in_a_list_each_binary_value_says_so_itself(self) -> None:
        self.client("MSET", "a", b"\xff", "b", b"text")
        self.assertEqual(
            self.ask("MGET", ["a", "b"]),
            {"status": "OK", "result": [{"value": "/w==", "encoding": "base64"}, "text"]},
        )

    def test_bad_base64_is_refused_and_the_old_value_kept(self) -> None:
        self.ask("SET", {"key": "k", "value": "old"})
        for value in ("%%%", "YQ", "YQ==\\n", "Y Q==", "ö"):
            args = f'{{"key": "k", "value": "{value}", "encoding": "base64"}}'
            self.assert_refused(line_for("SET", args), '"value" is not base64')
        args = '{"key": "k", "value": "YQ==", "encoding": "hex"}'
        self.assert_refused(line_for("SET", args), '"encoding" can only be "base64"')
        self.assertEqual(self.result("GET", {"key": "k"}), "old")


class BadInput(JsonLines):
    def test_what_is_no_json_object_is_refused(self) -> None:
        for line in (b"{", b"{}}", b"{1}", b'{"command": "PING"', b'{"command": "PING"} x',
                     b'{"command": "PING"}{"command": "PING"}', b"{'command': 'PING'}",
                     b'{"command": "PI\x00NG"}', b'{"command": "\xff"}', b'{"a": \xed\xa0\x80}',
                     b'{\x00"\x00a\x00"\x00:\x001\x00}\x00', b"{\x00\x00\x00}\x00\x00\x00",
                     b"{\xff\xfe", b'{"command": "PING",}', b"{ // no\r"):  # fmt: skip
            with self.subTest(line=line):
                self.assert_refused(line, "not a JSON object on one line")

    def test_an_object_that_is_no_request_is_refused(self) -> None:
        for line in ("{}", '{"command": null}', '{"command": 5}', '{"command": ""}',
                     '{"command": ["PING"]}', '{"command": "PÏNG"}', '{"command": "\\ud800"}',
                     '{"args": {}}', '{"command": "PING", "args": 5}',
                     '{"command": "PING", "args": "x"}', '{"command": "PING", "args": false}',
                     '{"command": "MGET", "args": {"key": "a"}}',
                     '{"command": "PING", "args": {"key": "a"}}'):  # fmt: skip
            with self.subTest(line=line):
                self.assert_refused(line)

    def test_deep_nesting_is_refused(self) -> None:
        for part in ("[", '{"a":'):
            for depth in (1_000, 100_000):
                self.assert_refused('{"command": "PING", "args": ' + part * depth)
        closed = '{"command": "ECHO", "args": [' + "[" * 100_000 + "]" * 100_000 + "]}"
        self.assert_refused(closed)

    def test_numbers_that_json_does_not_know_are_refused(self) -> None:
        for number in ("NaN", "Infinity", "-Infinity"):
            for command in ("SET", "EXPIRE"):
                args = f'{{"key": "k", "ttl": {number}}}'
                self.assert_refused(line_for(command, args), "not a JSON object on one line")

    def test_a_ttl_beyond_all_numbers_is_refused(self) -> None:
        for ttl in ("1e999", "-1e999", "1e306", "1e300", "1" * 5000, "1" * 4300, "9" * 4298):
            with self.subTest(ttl=ttl[:10]):
                args = f'{{"key": "k", "value": "v", "ttl": {ttl}}}'
                self.assert_refused(line_for("SET", args))
                self.assertIsNone(self.result("GET", {"key": "k"}))

    def test_an_integer_of_5000_digits_is_refused(self) -> None:
        self.assert_refused(line_for("ECHO", f"[{'1' * 5000}]"))

    def test_a_name_that_comes_twice_is_refused(self) -> None:
        for line in (
            '{"command": "PING", "command": "FLUSHALL"}',
            '{"command": "GET", "args": {"key": "a", "key": "b"}}',
        ):
            with self.subTest(line=line):
                self.assert_refused(line)

    def test_a_lone_surrogate_is_refused_wherever_it_stands(self) -> None:
        for line in (
            r'{"command": "GET", "args": {"key": "\ud800"}}',
            r'{"command": "ECHO", "args": ["\udfff"]}',
            r'{"command": "SET", "args": {"key": "k", "value": "\ud800"}}',
            r'{"command": "SET", "args": {"key": "k", "value": "v", "encoding": "\ud800"}}',
            r'{"command": "GET", "args": {"key": "k", "\ud800": "x"}}',
            b'{"command": "GET", "args": {"key": "\xed\xa0\x80"}}',
        ):
            with self.subTest(line=line):
                self.assert_refused(line)

    def test_arguments_of_other_types_are_refused(self) -> None:
        for value in ("1.5", "1.0", "1e3", "true", "false", "null", "[]", "{}"):
            message = "arguments must be strings or integers"
            self.assert_refused(line_for("ECHO", f"[{value}]"), message)
            self.assert_refused(line_for("GET", f'{{"key": {value}}}'), message)

    def test_what_is_missing_is_named(self) -> None:
        for line, message in [
            ('{"command": "GET"}', 'GET needs "key"'),
            ('{"command": "get", "args": {}}', 'GET needs "key"'),
            ('{"command": "SET", "args": {"key": "k"}}', 'SET needs "value"'),
            ('{"command": "EXPIRE", "args": {"key": "k"}}',
             'EXPIRE needs "ttl", a number of seconds'),
            ('{"command": "EXPIRE", "args": {"key": "k", "ttl": "60"}}',
             'EXPIRE needs "ttl", a number of seconds'),
            ('{"command": "SET", "args": {"key": "k", "value": "v", "ttl": true}}',
             'SET needs "ttl", a number of seconds'),
        ]:  # fmt: skip
            self.assert_refused(line, message)

    def test_what_is_too_much_is_named(self) -> None:
        for line, message in [
            ('{"command": "GET", "args": {"key": "k", "value": "v"}}', 'GET does not take "value"'),
            ('{"command": "GET", "args": {"key": "k", "ttl": 5}}', 'GET does not take "ttl"'),
            ('{"command": "GET", "args": {"key": "k", "ttl": null, "x": 1}}',
             'GET does not take "x"'),
            ('{"command": "SET", "args": {"key": "k", "value": "v", "nx": "1"}}',
             'SET does not take "nx"'),
        ]:  # fmt: skip
            self.assert_refused(line, message)

    def test_an_error_does_not_repeat_all_that_was_sent(self) -> None:
        long = "x" * 100_000
        for request in (
            {"command": long},
            {"command": long, "args": {"a": "b"}},
            {"command": "NOSUCH", "args": [long, long]},
            {"command": "CLIENT", "args": [long]},
            {"command": "GET", "args": {"key": "k", long: 1}},
        ):
            response = self.answer(json.dumps(request))
            self.assertEqual(response["status"], "ERROR")
            self.assertLess(len(response["message"]), 1000)


class Limits(JsonLines):
    def test_too_long_a_line_gets_one_error_and_the_connection_closes(self) -> None:
        client = Conversation(max_value_bytes=1000)
        limit = 2 * 1000 + MAX_LINE
        line = b'{"command": "PING"}'.ljust(limit)
        self.assertEqual(self.answer(line, client)["result"], "PONG")
        for too_long in (line + b" \n", line + b" "):
            client = Conversation(max_value_bytes=1000)
            reply = client.bytes(b"PING\r\n" + too_long + b'\n{"command": "INCR", "args": ["n"]}\n')
            self.assertEqual(
                reply, b'+PONG\r\n{"status": "ERROR", "message": "the line is too long"}\n'
            )
            self.assertTrue(client.dialect.closing)
            self.assertIsNone(client("GET", "n"))

    def test_a_line_that_never_ends_is_given_up_at_the_limit(self) -> None:
        client = Conversation(max_value_bytes=1000)
        received = client.bytes(b'{"command": "')
        for _ in range(10):
            received += client.bytes(b"x" * 10_000)
        self.assertEqual(json.loads(received)["message"], "the line is too long")
        self.assertTrue(client.dialect.closing)

    def test_a_value_of_the_limit_fits_in_base64(self) -> None:
        value = bytes(range(256)) * (4 * MB // 256)
        self.client = Conversation(max_value_bytes=len(value))
        text = base64.b64encode(value).decode()
        response = self.ask("SET", {"key": "k", "value": text, "encoding": "base64"})
        self.assertEqual(response, {"status": "OK"})
        self.assertEqual(base64.b64decode(self.result("GET", {"key": "k"})), value)

    def test_a_value_over_the_limit_is_refused_and_the_old_one_kept(self) -> None:
        self.client = Conversation(max_value_bytes=1000)
        self.ask("SET", {"key": "k", "value": "x" * 1000})
        too_long = "y" * 1001
        binary = base64.b64encode(too_long.encode()).decode()
        for args in (
            {"key": "k", "value": too_long},
            {"key": "k", "value": binary, "encoding": "base64"},
            ["k", too_long],
        ):
            response = self.ask("SET", args)
            self.assertEqual(response["status"], "ERROR")
            self.assertIn("1000 bytes", response["message"])
        self.assertEqual(self.result("GET", {"key": "k"}), "x" * 1000)

    def test_before_the_password_only_logging_in_is_allowed(self) -> None:
        self.client = Conversation(password="secret")
        no_auth = {"status": "ERROR", "message": "NOAUTH Authentication required."}
        self.assertEqual(self.ask("GET", {"key": "k"}), no_auth)
        self.assertEqual(self.ask("PING"), no_auth)
        self.assertEqual(self.ask("AUTH", ["wrong"])["status"], "ERROR")
        self.assertEqual(self.ask("AUTH", ["secret"]), {"status": "OK"})
        self.assertEqual(self.result("PING"), "PONG")

    def test_before_the_password_a_line_is_held_to_narrow_limits(self) -> None:
        client = Conversation(password="secret")
        self.assertEqual(client.bytes(b'{"command": "'.ljust(STRANGERS_LINE, b"x")), b"")
        for rest in (b"xx", b"x" * (2 * 16384 + MAX_LINE)):
            client = Conversation(password="secret")
            reply = client.bytes(b'{"command": "'.ljust(STRANGERS_LINE - 1, b"x") + rest)
            self.assertEqual(json.loads(reply)["message"], "the line is too long")
            self.assertTrue(client.dialect.closing)
        self.assertLessEqual(STRANGERS_LINE, 4096)

    def test_longer_lines_are_allowed_as_soon_as_the_password_was_given(self) -> None:
        self.client = Conversation(password="secret")
        self.assertEqual(self.ask("AUTH", ["secret"]), {"status": "OK"})
        value = "x" * 3 * STRANGERS_LINE
        self.assertEqual(self.ask("SET", {"key": "k", "value": value}), {"status": "OK"})


class LargeReplies(JsonLines):
    """A list is encoded when it is its turn to be sent, element by element."""

    def test_many_times_the_same_large_value_takes_little_memory(self) -> None:
        size, count = 100_000, 600
        text = "ä" * (size // 2)
        self.client.store.set(b"big", text.encode())
        line = json.dumps({"command": "MGET", "args": ["big"] * count}).encode() + b"\n"
        dialect, received, largest, checked = self.client.dialect, 0, 0, 0
        tracemalloc.start()
        try:
            batch = dialect.receive(line)
            while True:
                received, largest = received + len(batch), max(largest, len(batch))
                checked += batch.count(b"\xc3\xa4")
                if not dialect.more:
                    break
                batch = dialect.receive(b"")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertEqual(checked, count * size // 2)
        self.assertGreater(received, count * size)
        self.assertLess(largest, BATCH_BYTES + 2 * size)
        self.assertLess(peak, 8 * MB)  # of 60

    def test_the_pieces_together_are_the_plain_answer(self) -> None:
        self.client.store.set(b"big", b'\x00\n"' + b"x" * 300_000)
        self.client.store.set(b"binary", b"\xff" * 300_000)
        keys = ["big", "binary", "missing"] * 7
        values = [
            '\x00\n"' + "x" * 300_000,
            {"value": base64.b64encode(b"\xff" * 300_000).decode(), "encoding": "base64"},
            None,
        ] * 7
        line = json.dumps({"command": "MGET", "args": keys}).encode() + b"\n"
        pieces = list(batches(self.client.dialect, line + b'{"command": "PING"}\n'))
        expected = json.dumps({"status": "OK", "result": values}, ensure_ascii=False).encode()
        self.assertEqual(b"".join(pieces), expected + b'\n{"status": "OK", "result": "PONG"}\n')
        self.assertGreater(len(pieces), 3)

    def test_a_list_of_any_shape_is_encoded_as_json_would(self) -> None:
        dice = random.Random(5)
        leaves: list[tuple[Any, Any]] = [
            (b"text", "text"), ("grün".encode(), "grün"), (b'"\n\x00', '"\n\x00'), (b"", ""),
            (b"\xff", {"value": "/w==", "encoding": "base64"}), (None, None), (7, 7), (-1, -1),
            (True, True), (1.5, 1.5), ("word", "word"), (NIL_ARRAY, None), (OK, "OK"),
            ({b"a": 1, b"b": [b"x"]}, {"a": 1, "b": ["x"]}), ((1, b"a"), [1, "a"]),
            (frozenset([b"b", b"a"]), ["a", "b"]), ([], []), ([[]], [[]]), ({}, {}),
            (CommandError("ERR no"), {"status": "ERROR", "message": "no"}),
        ]  # fmt: skip

        def some(depth: int) -> tuple[Any, Any]:
            if depth and dice.random() < 0.4:
                parts = [some(depth - 1) for _ in range(dice.randrange(4))]
                return [reply for reply, _ in parts], [plain for _, plain in parts]
            return dice.choice(leaves)

        for _ in range(500):
            pairs = [some(3) for _ in range(dice.randrange(6))]
            reply, plain = [reply for reply, _ in pairs], [plain for _, plain in pairs]
            with mock.patch.object(Session, "execute", return_value=reply):
                pieces = list(answer(self.client.session, b'{"command": "X", "args": []}'))
            whole = json.dumps({"status": "OK", "result": plain}, ensure_ascii=False) + "\n"
            self.assertEqual(b"".join(pieces), whole.encode())

    def test_the_values_are_those_of_the_moment_of_the_request(self) -> None:
        self.client.store.set(b"k", b"x" * MB)
        line = json.dumps({"command": "MGET", "args": ["k"] * 10}).encode() + b"\n"
        first = self.client.dialect.receive(line)
        self.client.store.set(b"k", b"changed")
        rest = self.client.bytes(b"")
        self.assertEqual((first + rest).count(b"x"), 10 * MB)

    def test_nothing_of_it_is_left_when_the_connection_ends(self) -> None:
        self.client.store.set(b"k", b"x" * MB)
        line = json.dumps({"command": "MGET", "args": ["k"] * 10}).encode() + b"\n"
        self.client.dialect.receive(line)
        self.client.dialect.end()
        self.assertEqual(self.client.dialect.receive(b""), b"")


class InteractiveTransactions(JsonLines):
    """START, COMMIT and ROLLBACK; MULTI and EXEC are Redis's own."""

    def setUp(self) -> None:
        super().setUp()
        self.other = self.client.another()

    def set(self, key: str, value: str) -> None:
        self.assertEqual(self.ask("SET", {"key": key, "value": value}), {"status": "OK"})

    def get(self, key: str) -> object:
        return self.result("GET", {"key": key})

    def done(self, command: str) -> None:
        self.assertEqual(self.ask(command), {"status": "OK"})

    def refusal(self, command: str, args: object = None) -> str:
        response = self.ask(command, args)
        self.assertEqual(response["status"], "ERROR", response)
        return response["message"]

    def test_own_writes_are_seen_at_once_and_by_others_at_the_commit(self) -> None:
        self.set("old", "1")
        self.done("START")
        self.set("new", "2")
        self.ask("DELETE", {"key": "old"})
        self.assertEqual((self.get("new"), self.get("old")), ("2", None))
        self.assertEqual(self.other("MGET", "new", "old"), [None, b"1"])
        self.done("COMMIT")
        self.assertEqual(self.other("MGET", "new", "old"), [b"2", None])

    def test_a_rollback_leaves_nothing(self) -> None:
        self.set("k", "before")
        self.done("START")
        self.set("k", "within")
        self.done("ROLLBACK")
        self.assertEqual(self.get("k"), "before")

    def test_a_connection_that_ends_rolls_back(self) -> None:
        self.done("START")
        self.set("k", "v")
        self.client.instance.dismiss(self.client.session)
        self.assertEqual(self.other("DBSIZE"), 0)

    def test_they_are_known_in_any_case_with_or_without_empty_arguments(self) -> None:
        for arguments in (None, {}):
            for command in ("start", "Commit", "START", "rollback"):
                self.assertEqual(self.ask(command, arguments), {"status": "OK"})

    def test_what_does_not_fit_together_is_refused(self) -> None:
        self.assertEqual(self.refusal("COMMIT"), "no transaction is open")
        self.assertEqual(self.refusal("ROLLBACK"), "no transaction is open")
        self.done("START")
        self.assertEqual(self.refusal("START"), "a transaction is open already")
        self.assertEqual(self.refusal("COMMIT", {"key": "k"}), 'COMMIT does not take "key"')
        self.assertEqual(
            self.refusal("INCR", {"key": "k"}), "INCR is not possible between START and COMMIT"
        )
        ttl = {"key": "k", "value": "v", "ttl": 5}
        self.assertEqual(self.refusal("SET", ttl), 'SET does not take "ttl"')
        named = "between START and COMMIT the arguments must be named"
        self.assertEqual(self.refusal("GET", ["k"]), named)
        self.set("k", "v")
        self.done("COMMIT")  # what was refused has not ended it
        self.assertEqual(self.get("k"), "v")

    def test_start_is_not_possible_between_multi_and_exec(self) -> None:
        self.done("MULTI")
        self.assertEqual(self.refusal("START"), "START is not possible between MULTI and EXEC")
        self.assertIn("EXECABORT", self.refusal("EXEC"))

    def test_of_two_that_read_and_write_the_same_key_the_second_is_refused(self) -> None:
        self.set("n", "1")
        talks = self.client, self.other
        for talk in talks:
            self.client = talk
            self.done("START")
            self.assertEqual(self.get("n"), "1")
            self.set("n", "2")
            self.set("also", "v")
        self.client = talks[0]
        self.done("COMMIT")
        self.ask("DELETE", {"key": "also"})
        self.client = talks[1]
        message = "a key that the transaction has read was changed meanwhile; nothing was written"
        self.assertEqual(self.refusal("COMMIT"), message)
        self.assertEqual((self.get("n"), self.get("also")), ("2", None))
        self.assertEqual(self.refusal("COMMIT"), "no transaction is open")
        self.done("START")
        self.set("n", str(int(str(self.get("n"))) + 1))
        self.done("COMMIT")
        self.assertEqual(self.get("n"), "3")

    def test_an_expiry_of_what_was_read_is_a_conflict(self) -> None:
        self.ask("SET", {"key": "k", "value": "v", "ttl": 10})
        self.done("START")
        self.get("k")
        self.client.clock.now += 10
        self.assertIn("was changed meanwhile", self.refusal("COMMIT"))

    def test_blind_writes_never_conflict(self) -> None:
        self.done("START")
        self.set("k", "mine")
        self.get("k")
        self.ask("DELETE", {"key": "gone"})
        self.other("MSET", "k", "theirs", "gone", "v")
        self.done("COMMIT")
        self.assertEqual((self.get("k"), self.get("gone")), ("mine", None))

    def test_the_key_of_the_selected_database_is_watched(self) -> None:
        self.ask("SELECT", ["3"])
        self.done("START")
        self.get("k")
        self.other("SET", "k", "in database 0")
        self.done("COMMIT")
        self.done("START")
        self.get("k")
        self.other("SELECT", "3")
        self.other("SET", "k", "in database 3")
        self.assertIn("was changed meanwhile", self.refusal("COMMIT"))

    def test_no_end_of_a_transaction_leaves_a_watcher_behind(self) -> None:
        watchers = self.client.store._versions._watchers

        def conflict() -> None:
            self.other("SET", "a", "theirs")
            self.ask("COMMIT")

        for end in (
            lambda: self.ask("COMMIT"),
            lambda: self.ask("ROLLBACK"),
            conflict,
            lambda: self.client.session.execute([b"RESET"]),
            lambda: self.client.instance.dismiss(self.client.session),
        ):
            self.done("START")
            for key in "aab":
                self.get(key)
            self.assertEqual(dict(watchers), {b"a": 1, b"b": 1})
            end()
            self.assertEqual(dict(watchers), {})

    def test_binary_values_are_kept(self) -> None:
        self.done("START")
        value = base64.b64encode(bytes(range(256))).decode()
        self.ask("SET", {"key": "k", "value": value, "encoding": "base64"})
        expected = {"status": "OK", "result": value, "encoding": "base64"}
        self.assertEqual(self.ask("GET", {"key": "k"}), expected)
        self.done("COMMIT")
        self.assertEqual(self.ask("GET", {"key": "k"}), expected)

    def test_the_selected_database_is_meant(self) -> None:
        self.set("k", "zero")
        self.assertEqual(self.ask("SELECT", ["3"]), {"status": "OK"})
        self.done("START")
        self.assertIsNone(self.get("k"))
        self.set("k", "three")
        self.ask("DELETE", {"key": "gone"})
        self.done("COMMIT")
        self.assertEqual((self.get("k"), self.other("GET", "k")), ("three", b"zero"))

    def test_a_commit_that_does_not_fit_fails_whole(self) -> None:
        self.client.store.max_bytes = 1000
        self.done("START")
        for number in range(4):
            self.set(str(number), "x" * 300)
        self.assertIn("larger than the whole budget", self.refusal("COMMIT"))
        self.assertEqual(self.other("DBSIZE"), 0)
        self.assertEqual(self.refusal("COMMIT"), "no transaction is open")

    def test_a_value_over_the_limit_is_refused(self) -> None:
        client = Conversation(max_value_bytes=10)
        self.client, self.other = client, client.another()
        self.done("START")
        message = self.refusal("SET", {"key": "k", "value": "x" * 11})
        self.assertIn("string exceeds maximum allowed size", message)

    def test_after_the_end_by_the_server_nothing_is_carried_out_until_the_clients_own(self) -> None:
        client = Conversation(max_value_bytes=300_000)
        self.client, self.other = client, client.another()
        limit, value = client.instance.config.max_request_bytes, "x" * 300_000
        for ending in ("COMMIT", "ROLLBACK"):
            self.done("START")
            for number in range(3):
                self.set(str(number), value)
            for more in (value, "small"):
                message = self.refusal("SET", {"key": "k", "value": more})
                self.assertIn(f"rolled back: it is larger than {limit} bytes", message)
            self.assertIn("rolled back", self.refusal("GET", {"key": "k"}))
            self.assertEqual(self.ask(ending)["status"], "ERROR" if ending == "COMMIT" else "OK")
            self.assertEqual(self.other("DBSIZE"), 0)
        self.set("k", "small")

    def test_strangers_cannot_begin_one(self) -> None:
        self.client = Conversation(password="pw")
        for command in ("START", "COMMIT"):
            self.assertEqual(self.refusal(command), "NOAUTH Authentication required.")

    def test_every_request_is_counted(self) -> None:
        before = self.client.instance.counts()["commands"]
        self.done("START")
        self.set("k", "v")
        self.done("COMMIT")
        self.assertEqual(self.client.instance.counts()["commands"] - before, 3)
