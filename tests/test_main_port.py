"""The main port: three dialects in one stream, pipelines, protocol errors, garbage."""

from __future__ import annotations

import json
import random
import sys
import tracemalloc
import unittest
from collections.abc import Callable

from kvdb.commands.instance import Instance
from kvdb.config import Config
from kvdb.errors import NOT_SAVED
from kvdb.persistence import Seen
from kvdb.protocols import BATCH_BYTES
from kvdb.resp.limits import MAX_LINE, STRANGERS_LINE
from kvdb.resp.replies import encode_request
from kvdb.store import Store
from tests.support import Conversation, ManualClock, batches

PING = b"*1\r\n$4\r\nPING\r\n"
MB = 1024 * 1024


def resp(*words: bytes | str) -> bytes:
    return encode_request(word if isinstance(word, bytes) else word.encode() for word in words)


class HintsTest(unittest.TestCase):
    """Who types by hand is told what may help; clients get the text that they know."""

    def typed(self, line: str) -> str:
        return Conversation().bytes(f"{line}\r\n").decode().rstrip("\r\n")

    def test_an_unknown_command_that_was_typed_gets_a_hint(self) -> None:
        for line, hint in (
            ("gte a", "(did you mean GET or GETEX?)"),
            ("Lpush a b", "(kvdb has no lists)"),
            ("ZADD a 1 b", "(kvdb has no sorted sets)"),
            ("xyzzy", "(HELP lists the commands)"),
            ("client lits", "(did you mean CLIENT LIST?)"),
            ("set a", "(HELP SET tells how it is written)"),
            ("client", "(HELP CLIENT tells how it is written)"),
            ("\\xff", "(HELP lists the commands)"),
        ):
            with self.subTest(line):
                self.assertTrue(self.typed(line).endswith(hint), self.typed(line))

    def test_other_errors_and_other_dialects_stay_as_they_are(self) -> None:
        talk = Conversation()
        self.assertEqual(
            talk.error("GTE", "a"), "ERR unknown command 'GTE', with args beginning with: 'a' "
        )
        talk.bytes(resp("SET", "a", "x"))
        self.assertEqual(self.typed("set a b ex 0"), "-ERR invalid expire time in 'set' command")
        self.assertEqual(
            talk.bytes("incr a\r\n"), b"-ERR value is not an integer or out of range\r\n"
        )
        self.assertEqual(talk.bytes("mget a b\r\n"), talk.bytes(resp("MGET", "a", "b")))


class MixedDialects(unittest.TestCase):
    STREAM = (
        resp("SET", "a", "1\r\n{")
        + b'{"command": "INCR", "args": {"key": "n"}}\n'
        + b"INCR n\r\n"
        + b"\r\n"
        + resp("MGET", "a", "missing")
        + b'get "a"\n'
        + b"*0\r\n"
        + b'{"command": "GET", "args": {"key": "n"}}\r\n'
        + b"NOSUCH command\r\n"
        + b'{"broken\n'
        + resp("HELLO", "3", "SETNAME", "me")[:-1] + b"\n"
        + resp("MGET", "missing")
        + b"GET missing\r\n"
        + b'{"command": "GET", "args": {"key": "missing"}}\n'
        + resp("MULTI") + b"INCR n\r\n" + b'{"command": "INCR", "args": ["n"]}\n' + b"EXEC\n"
        + resp("SET", "big", "x" * 101)
        + resp("QUIT")
        + resp("INCR", "n")
    )  # fmt: skip
    REPLIES = (
        b"+OK\r\n"
        b'{"status": "OK", "result": "1"}\n'
        b":2\r\n"
        b"*2\r\n$4\r\n1\r\n{\r\n$-1\r\n"
        b"$4\r\n1\r\n{\r\n"
        b'{"status": "OK", "result": "2"}\n'
        b"-ERR unknown command 'NOSUCH', with args beginning with: 'command' (did you mean TOUCH?)\r\n"
        b'{"status": "ERROR", "message": "not a JSON object on one line"}\n'
        b"%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n$5\r\n7.4.0\r\n$5\r\nproto\r\n:3\r\n"
        b"$2\r\nid\r\n:1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n"
        b"$7\r\nmodules\r\n*0\r\n"
        b"*1\r\n_\r\n"
        b"_\r\n"
        b'{"status": "OK", "result": null}\n'
        b"+OK\r\n+QUEUED\r\n"
        b'{"status": "OK", "result": "QUEUED"}\n'
        b"*2\r\n:3\r\n:4\r\n"
        b"-ERR string exceeds maximum allowed size "
        b"(proto-max-bulk-len, 100 bytes; --max-value-mb sets it)\r\n"
        b"+OK\r\n"
    )

    def client(self) -> Conversation:
        return Conversation(max_value_bytes=100)

    def test_each_request_is_answered_in_its_own_dialect_in_one_go(self) -> None:
        client = self.client()
        self.assertEqual(client.dialect.receive(self.STREAM), self.REPLIES)
        self.assertTrue(client.dialect.closing)
        self.assertEqual(client("GET", "n"), b"4")

    def test_split_at_every_boundary_the_answers_are_the_same(self) -> None:
        for boundary in range(1, len(self.STREAM)):
            client = self.client()
            replies = client.bytes(self.STREAM[:boundary]) + client.bytes(self.STREAM[boundary:])
            self.assertEqual(replies, self.REPLIES, f"split at {boundary}")

    def test_byte_by_byte_the_answers_are_the_same(self) -> None:
        client = self.client()
        replies = [client.bytes(bytes([byte])) for byte in self.STREAM]
        self.assertEqual(b"".join(replies), self.REPLIES)

    def test_cut_at_random_the_answers_are_the_same(self) -> None:
        randomness = random.Random(3)
        for _ in range(200):
            client, replies, rest = self.client(), b"", self.STREAM
            while rest:
                size = randomness.randrange(1, 60)
                replies, rest = replies + client.bytes(rest[:size]), rest[size:]
            self.assertEqual(replies, self.REPLIES)


class Pipelines(unittest.TestCase):
    def test_many_requests_are_answered_in_one_return_value(self) -> None:
        client = Conversation()
        replies = client.dialect.receive(b"".join(resp("INCR", "n") for _ in range(1000)))
        self.assertEqual(replies, b"".join(b":%d\r\n" % n for n in range(1, 1001)))
        self.assertFalse(client.dialect.more)

    def test_an_error_in_the_middle_stops_nothing(self) -> None:
        client = Conversation()
        replies = client.bytes(resp("SET", "a", "x") + resp("INCR", "a") + resp("GET", "a"))
        error = b"-ERR value is not an integer or out of range\r\n"
        self.assertEqual(replies, b"+OK\r\n" + error + b"$1\r\nx\r\n")

    def test_hello_3_counts_from_its_own_reply_on(self) -> None:
        client, missing = Conversation(), resp("GET", "missing")
        replies = client.bytes(
            missing + resp("HELLO", "3") + missing + resp("HELLO", "2") + missing
        )
        self.assertTrue(replies.startswith(b"$-1\r\n%7\r\n"), replies)
        self.assertIn(b"*0\r\n_\r\n*14\r\n", replies)
        self.assertTrue(replies.endswith(b"*0\r\n$-1\r\n"), replies)

    def test_reset_goes_back_to_resp_2(self) -> None:
        client = Conversation()
        replies = client.bytes("HELLO 3\nGET missing\nRESET\nGET missing\n")
        self.assertTrue(replies.endswith(b"_\r\n+RESET\r\n$-1\r\n"), replies)

    def test_a_refused_hello_changes_nothing(self) -> None:
        client = Conversation()
        replies = client.bytes("HELLO 4\nHELLO x\nHELLO 3 NONSENSE\nGET missing\n").split(b"\r\n")
        self.assertTrue(replies[0].startswith(b"-NOPROTO "), replies)
        self.assertEqual([reply[:5] for reply in replies[1:3]], [b"-ERR "] * 2)
        self.assertEqual(replies[3:], [b"$-1", b""])

    def test_empty_requests_are_passed_over(self) -> None:
        client = Conversation()
        replies = client.bytes(b"\r\n*0\r\n\n*-1\r\n \t\r\n*-10\r\n\x00\r\n" + PING)
        self.assertEqual(replies, b"+PONG\r\n")

    def test_big_replies_come_in_batches_of_about_1_mb(self) -> None:
        client, size, count = Conversation(), 300_000, 40
        client("SET", "big", b"x" * size)
        one = b"$%d\r\n" % size + b"x" * size + b"\r\n"
        pieces = list(batches(client.dialect, resp("GET", "big") * count))
        self.assertEqual(b"".join(pieces), one * count)
        self.assertGreater(len(pieces), 5)
        for batch in pieces:
            self.assertLess(len(batch), BATCH_BYTES + len(one))

    def test_what_arrives_between_batches_is_answered_in_its_turn(self) -> None:
        client = Conversation()
        client("SET", "big", b"x" * MB)
        first = client.dialect.receive(resp("GET", "big") * 2)
        self.assertTrue(client.dialect.more)
        rest = client.bytes(PING)
        one = b"$%d\r\n%b\r\n" % (MB, b"x" * MB)
        self.assertEqual(first + rest, one * 2 + b"+PONG\r\n")

    def test_no_more_is_due_once_the_conversation_ends(self) -> None:
        client = Conversation()
        client("SET", "big", b"x" * MB)
        replies = client.dialect.receive(b"QUIT\r\n" + resp("GET", "big") * 2)
        self.assertEqual(replies, b"+OK\r\n")
        self.assertTrue(client.dialect.closing)
        self.assertFalse(client.dialect.more)

    def test_quit_in_every_dialect_ends_the_conversation(self) -> None:
        for request, reply in [
            (b"quit\n", b"+OK\r\n"),
            (resp("QUIT"), b"+OK\r\n"),
            (b'{"command": "QUIT"}\n', b'{"status": "OK"}\n'),
        ]:
            client = Conversation()
            self.assertEqual(client.bytes(PING + request + PING), b"+PONG\r\n" + reply)
            self.assertTrue(client.dialect.closing)
            self.assertEqual(client.bytes(PING), b"")

    def test_unwanted_replies_are_left_out(self) -> None:
        client = Conversation()
        replies = client.bytes(
            "CLIENT REPLY SKIP\nINCR n\nINCR n\nCLIENT REPLY OFF\nINCR n\nNOSUCH\n"
        )
        self.assertEqual(replies, b":2\r\n")
        self.assertEqual(client.bytes("CLIENT REPLY ON\nGET n\n"), b"+OK\r\n$1\r\n3\r\n")


class ProtocolErrors(unittest.TestCase):
    AFTER = b"\r\nINCR executed\r\n" + resp("INCR", "executed")

    def assert_ends(self, data: bytes, reply: bytes, client: Conversation | None = None) -> None:
        """Replies already due come first, then `reply`; then nothing more is carried out."""
        client = client or Conversation()
        first = client.bytes(b"HELLO x\r\n")
        for received in (
            client.bytes(b"HELLO x\r\n" + data + self.AFTER),
            client.bytes(self.AFTER),
        ):
            self.assertEqual(received, first + reply)
            self.assertTrue(client.dialect.closing)
            self.assertFalse(client.dialect.more)
            first = reply = b""
        self.assertEqual(client.store.size(), 0)

    def test_lost_in_the_stream_one_error_comes_and_the_end(self) -> None:
        for data, message in [
            (b"*abc\r\n", b"invalid multibulk length"),
            (b"*2147483648\r\n", b"invalid multibulk length"),
            (b"*1048577\r\n", b"invalid multibulk length"),
            (b"*1\r\n$-10\r\n", b"invalid bulk length"),
            (b"*1\r\n$blabla\r\n", b"invalid bulk length"),
            (b"*1\r\n$2000000000\r\n", b"invalid bulk length"),
            (b"*3\r\n$3\r\nSET\r\n$1\r\nx\r\nfooz\r\n", b"expected '$', got 'f'"),
            (b"*1\r\n$4\r\nPINGPING", b"expected CRLF after an argument"),
            (b"*1\n", b"expected CRLF after a length"),
            (b'SET executed "x', b"unbalanced quotes in request"),
            (b"x" * (MAX_LINE + 1), b"too big inline request"),
            (b"*" + b"1" * MAX_LINE, b"too big mbulk count string"),
            (b"*1\r\n$" + b"1" * MAX_LINE, b"too big bulk count string"),
        ]:
            with self.subTest(data=data[:40]):
                self.assert_ends(data, b"-ERR Protocol error: %b\r\n" % message)

    def test_other_protocols_are_closed_without_a_word(self) -> None:
        tls = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
        for data in (tls, tls[:1], b"POST / HTTP/1.1", b"POST /x", b"Host: localhost:4242",
                     b"GET / HTTP/1.1", b"GET /?a=b HTTP/1.0", b"DELETE executed HTTP/1.1",
                     b"OPTIONS * HTTP/1.1"):  # fmt: skip
            with self.subTest(data=data), self.assertLogs("kvdb.protocols.main_port") as logs:
                self.assert_ends(data, b"")
            self.assertEqual(len(logs.records), 1)

    def test_a_web_page_cannot_drive_the_store(self) -> None:
        body = b'{"command": "SET", "args": {"key": "k", "value": "v"}}\nSET k v\r\n'
        for method in (b"POST", b"PUT", b"OPTIONS", b"GET"):
            head = b"%b / HTTP/1.1\r\nHost: localhost:4242\r\nContent-Type: text/plain\r\n\r\n"
            client = Conversation()
            with self.assertLogs("kvdb.protocols.main_port"):
                self.assertEqual(client.bytes(head % method + body), b"")
            self.assertIsNone(client("GET", "k"))

    def test_the_end_is_the_same_when_the_bytes_come_one_by_one(self) -> None:
        client, received = Conversation(), b""
        for byte in PING + b"*1\r\n$x\r\n" + PING:
            received += client.bytes(bytes([byte]))
        self.assertEqual(received, b"+PONG\r\n-ERR Protocol error: invalid bulk length\r\n")

    def test_what_a_client_sends_cannot_forge_a_reply(self) -> None:
        forged = b"x\r\n+OK\r\n:1\n"
        for request in (
            resp(forged),
            resp("NOSUCH", forged),
            resp("CLIENT", forged),
            resp("HELLO", "3", forged),
            resp("CLIENT", "SETINFO", forged, "x"),
            resp("CONFIG", "SET", forged, "x"),
            resp("CLIENT", "KILL", "USER", forged),
        ):
            with self.subTest(request=request):
                reply = Conversation().bytes(request)
                self.assertTrue(reply.startswith(b"-ERR "), reply)
                self.assertEqual((reply.count(b"\n"), reply.count(b"\r")), (1, 1))

    def test_an_error_does_not_repeat_all_that_was_sent(self) -> None:
        long = "x" * 100_000
        for request in (
            resp(long),
            resp("NOSUCH", long, long),
            resp("CLIENT", long),
            resp("CONFIG", "SET", long, "x"),
            resp("HELLO", "3", long),
            resp("CLIENT", "SETINFO", long, "x"),
        ):
            self.assertLess(len(Conversation().bytes(request)), 500)


class OversizeValues(unittest.TestCase):
    ERROR = (
        b"-ERR string exceeds maximum allowed size "
        b"(proto-max-bulk-len, 100 bytes; --max-value-mb sets it)\r\n"
    )

    def setUp(self) -> None:
        self.client = Conversation(max_value_bytes=100)

    def test_a_value_of_the_limit_is_stored(self) -> None:
        self.assertEqual(self.client.bytes(resp("SET", "k", "x" * 100)), b"+OK\r\n")

    def test_a_value_one_past_it_is_refused_and_the_connection_goes_on(self) -> None:
        replies = self.client.bytes(
            resp("SET", "k", "old") + resp("SET", "k", "x" * 101) + resp("GET", "k")
        )
        self.assertEqual(replies, b"+OK\r\n" + self.ERROR + b"$3\r\nold\r\n")
        self.assertFalse(self.client.dialect.closing)

    def test_requests_hidden_in_what_is_refused_are_not_carried_out(self) -> None:
        hidden = resp("SET", "hidden", "1") * 10
        self.assertEqual(
            self.client.bytes(resp("SET", "k", hidden) + PING), self.ERROR + b"+PONG\r\n"
        )
        self.assertIsNone(self.client("GET", "hidden"))

    def test_a_request_of_many_arguments_over_the_limit_is_refused(self) -> None:
        client = Conversation(max_value_bytes=1_000_000)
        words = ["x" * 900_000] * 5
        replies = client.bytes(resp("DEL", *words) + PING)
        self.assertEqual(
            replies, b"-ERR request exceeds maximum allowed size (4000000 bytes)\r\n+PONG\r\n"
        )

    def test_refused_while_queueing_it_aborts_the_transaction(self) -> None:
        replies = self.client.bytes(
            resp("MULTI")
            + resp("SET", "a", "x" * 101)
            + resp("SET", "b", "1")
            + resp("EXEC")
            + resp("GET", "b")
        )
        self.assertEqual(
            replies,
            b"+OK\r\n" + self.ERROR + b"+QUEUED\r\n"
            b"-EXECABORT Transaction discarded because of previous errors.\r\n$-1\r\n",
        )

    def test_where_no_reply_is_wanted_none_is_sent(self) -> None:
        replies = self.client.bytes(b"CLIENT REPLY OFF\r\n" + resp("SET", "a", "x" * 101))
        self.assertEqual(replies, b"")

    def test_a_limit_changed_while_running_holds_from_then_on(self) -> None:
        self.client.instance.config.max_value_bytes = 10
        replies = self.client.bytes(resp("SET", "k", "x" * 11))
        self.assertIn(b"10 bytes", replies)


class BeforeThePassword(unittest.TestCase):
    NO_AUTH = b"-NOAUTH Authentication required.\r\n"

    def setUp(self) -> None:
        self.client = Conversation(password="secret")

    def test_nothing_but_logging_in_is_allowed(self) -> None:
        for words in (["PING"], ["GET", "k"], ["SET", "k", "v"], ["COMMAND"], ["MULTI"],
                      ["FLUSHALL"], ["CONFIG", "GET", "*"], ["CLIENT", "LIST"],
                      ["SHUTDOWN"], ["SELECT", "1"]):  # fmt: skip
            with self.subTest(words=words):
                self.assertEqual(self.client.bytes(resp(*words)), self.NO_AUTH)
                self.assertEqual(self.client.bytes(" ".join(words) + "\n"), self.NO_AUTH)
                reply = json.loads(
                    self.client.bytes(json.dumps({"command": words[0], "args": words[1:]}) + "\n")
                )
                self.assertEqual(reply["message"], "NOAUTH Authentication required.")
        self.assertEqual(self.client.bytes("QUIT\n"), b"+OK\r\n")

    def test_a_password_opens_the_rest_of_the_pipeline(self) -> None:
        replies = self.client.bytes(
            PING + resp("AUTH", "wrong") + PING + resp("AUTH", "secret") + PING
        )
        lines = replies.split(b"\r\n")
        self.assertEqual([line[:10] for line in lines],
                         [b"-NOAUTH Au", b"-WRONGPASS", b"-NOAUTH Au", b"+OK", b"+PONG", b""])  # fmt: skip

    def test_hello_can_log_in_and_choose_the_protocol(self) -> None:
        replies = self.client.bytes(
            resp("HELLO", "3", "AUTH", "default", "wrong")
            + resp("HELLO", "3")
            + resp("HELLO", "3", "AUTH", "default", "secret")
            + resp("GET", "k")
        )
        lines = replies.split(b"\r\n")
        self.assertTrue(lines[0].startswith(b"-WRONGPASS "), replies)
        self.assertTrue(lines[1].startswith(b"-NOAUTH HELLO "), replies)
        self.assertEqual(lines[2], b"%7")
        self.assertTrue(replies.endswith(b"\r\n_\r\n"), replies)

    def test_long_requests_end_the_conversation(self) -> None:
        for data, message in [
            (b"*11\r\n", b"unauthenticated multibulk length"),
            (b"*2\r\n$3\r\nGET\r\n$16385\r\n", b"unauthenticated bulk length"),
            (b"x" * (STRANGERS_LINE + 1), b"too big inline request"),
            (b"PING " + b"x" * STRANGERS_LINE + b"\n", b"too big inline request"),
        ]:
            client = Conversation(password="secret")
            self.assertEqual(client.bytes(data), b"-ERR Protocol error: %b\r\n" % message)
            self.assertTrue(client.dialect.closing)

    def test_requests_at_the_limit_are_only_refused(self) -> None:
        request = resp("MGET", "x" * 16384, *["x" * 511] * 8)
        self.assertEqual(self.client.bytes(request + PING), self.NO_AUTH * 2)
        line = b"GET ".ljust(STRANGERS_LINE, b"x") + b"\n"
        self.assertEqual(self.client.bytes(line + PING), self.NO_AUTH * 2)

    def test_all_arguments_together_have_20_kb(self) -> None:
        header = b"*3\r\n$4\r\nMGET\r\n$16384\r\n" + b"x" * 16384 + b"\r\n"
        self.assertEqual(self.client.bytes(header + b"$4092\r\n"), b"")
        client = Conversation(password="secret")
        error = b"-ERR Protocol error: unauthenticated bulk length\r\n"
        self.assertEqual(client.bytes(header + b"$4093\r\n"), error)
        self.assertTrue(client.dialect.closing)

    def test_many_short_requests_are_no_long_one(self) -> None:
        long = "x" * 16000
        replies = self.client.bytes(resp("GET", long) * 20 + resp("AUTH", "secret") + PING)
        self.assertEqual(replies, self.NO_AUTH * 20 + b"+OK\r\n+PONG\r\n")

    def test_wider_limits_hold_as_soon_as_the_password_was_given(self) -> None:
        request = resp("SET", "k", "x" * 16385)
        self.assertEqual(
            self.client.bytes(resp("AUTH", "secret") + request + resp("DEL", *"abcdefghijlm")),
            b"+OK\r\n+OK\r\n:0\r\n",
        )

    def test_reset_logs_out_and_narrows_the_limits(self) -> None:
        replies = self.client.bytes(
            resp("AUTH", "secret") + resp("RESET") + PING + resp("DEL", *"abcdefghijlm")
        )
        self.assertEqual(
            replies,
            b"+OK\r\n+RESET\r\n" + self.NO_AUTH
            + b"-ERR Protocol error: unauthenticated multibulk length\r\n",
        )  # fmt: skip


class Garbage(unittest.TestCase):
    FRAGMENTS = (
        b"\r\n", b"\n", b"\r", b" ", b"*", b"$", b"*1\r\n", b"*2\r\n", b"$3\r\n", b"$0\r\n", b"-1",
        b"GET", b"SET", b"k", b"PING", b"MULTI\r\n", b"EXEC\n", b"INCR k\n", b"CLIENT", b"KILL",
        b"HELLO 3\r\n", b"AUTH", b"COMMAND DOCS\n", b"INFO\n", b"SCAN 0\n", b"OBJECT", b"CONFIG",
        b"{", b"}", b'{"command": "', b'"args": ', b'"key"', b": ", b", ", b"[", b"]", b'"', b"'",
        b"\\", b"\\x4", b"\\ud800", b"null", b"1e999", b"NaN", b"99999999999999999999", b"-0",
        b'"ttl"', b'"encoding": "base64"', b"\x16", b"\x00", b"\xff", b"\xed\xa0\x80", b"0",
        b"POST ", b" HTTP/1.1\r\n", b"Host:", PING, resp("SET", "k", "v"), resp("GET", "k"),
        b'{"command": "GET", "args": {"key": "k"}}\n', b'{"command": "EXEC"}\n',
        b'{"command": "SET", "args": {"key": "k", "value": "v", "ttl": ',
    )  # fmt: skip
    COMMANDS = ("SET", "GET", "DELETE", "INCR", "EXPIRE", "TTL", "PING", "MGET", "CLIENT", "EXEC",
                "SCAN", "CONFIG", "OBJECT", "MULTI", "HELLO", "", "é")  # fmt: skip
    VALUES: tuple[object, ...] = ("k", "", "0", "-1", "1e5", "\ud800", "\x00", "é", "base64", "ttl", 0, -1, 0.5, 1e400,
              10**25, True, None, [], {}, ["k"], {"key": "k"}, float("nan"), "x" * 2000)  # fmt: skip

    def check(self, pieces: list[bytes], password: str | None = None) -> None:
        """Nothing is raised, and cut elsewhere the same stream gives the same answers."""
        client = Conversation(password=password)
        try:
            replies = client.bytes(b"".join(pieces))
        except Exception as error:
            raise AssertionError(f"{pieces!r} raised {error!r}") from error
        self.assertNotIn(b"internal error", replies, pieces)
        self.assertNotIn(b"Traceback", replies, pieces)
        again = Conversation(password=password)
        for piece in pieces:
            again.bytes(piece)
        self.assertEqual(again.dialect.closing, client.dialect.closing, pieces)
        self.assertEqual(
            again.session.counts["commands"], client.session.counts["commands"], pieces
        )

    def setUp(self) -> None:
        self.enterContext(self.assertNoLogs("kvdb", "ERROR"))  # no traceback either

    def test_random_bytes_never_raise(self) -> None:
        randomness = random.Random(11)
        for _ in range(700):
            length = randomness.randrange(1, 60)
            self.check([randomness.randbytes(length), randomness.randbytes(5), b"\r\n"])

    def test_shreds_of_protocols_never_raise(self) -> None:
        randomness = random.Random(12)
        for number in range(1500):
            pieces = randomness.choices(self.FRAGMENTS, k=randomness.randrange(1, 14))
            self.check(pieces, password="secret" if number % 8 == 0 else None)

    def test_broken_requests_never_raise(self) -> None:
        randomness = random.Random(13)
        whole = MixedDialects.STREAM.replace(resp("QUIT"), b"")
        for _ in range(500):
            data = bytearray(whole)
            for _ in range(randomness.randrange(1, 6)):
                position = randomness.randrange(len(data))
                match randomness.randrange(3):
                    case 0:
                        data[position] = randomness.randrange(256)
                    case 1:
                        del data[position : position + randomness.randrange(1, 4)]
                    case _:
                        data[position:position] = randomness.choice(self.FRAGMENTS)
            self.check([bytes(data[: len(data) // 2]), bytes(data[len(data) // 2 :])])

    def test_json_of_any_shape_never_raises(self) -> None:
        randomness = random.Random(14)
        names = ("key", "value", "ttl", "encoding", "x", "\ud800", "")
        for _ in range(4000):
            args: object = randomness.choice(self.VALUES)
            match randomness.randrange(8):
                case 0 | 1:
                    args = randomness.choices(self.VALUES, k=randomness.randrange(4))
                case 2 | 3 | 4 | 5 | 6:
                    args = {"key": "k"} | {
                        name: randomness.choice(self.VALUES)
                        for name in randomness.sample(names, randomness.randrange(4))
                    }
            request = {"command": randomness.choice(self.COMMANDS), "args": args}
            line = json.dumps(request).replace("Infinity", "1e400")
            self.check([line.encode(), b"\n"])


class FakeDisk:
    """A journal under --fsync always that keeps (True) or undoes (False) one step after another.

    `on_undo` is what undoing does to the store.
    """

    waits, congested, in_progress = True, False, False
    held_bytes = changes_since_save = saves = 0
    age = last_save = 0.0
    last_duration = None

    def __init__(self, *outcomes: bool, last_error: str | None = "disk full") -> None:
        self.outcomes, self.last_error = list(outcomes), last_error
        self.undos = 0
        self.seen: list[Seen] = []
        self.open_tickets = 0
        self.on_undo: Callable[[], object] = lambda: None

    def arrive(self) -> int:
        self.open_tickets += 1
        return 1

    def leave(self, ticket: int) -> None:
        self.open_tickets -= ticket

    durable_step = sys.maxsize

    def outcome(self, seen: Seen) -> bool:
        assert self.open_tickets, "nobody said that he would ask"
        self.seen.append(seen)
        durable = self.outcomes.pop(0) if self.outcomes else True
        if not durable:
            self.undos += 1
            self.on_undo()
        return durable


class DurableReplies(unittest.TestCase):
    """Under --fsync always no reply leaves before all that it tells of is on disk."""

    def client(self, disk: FakeDisk) -> Conversation:
        store = Store(0, clock=ManualClock())
        store.add_listener(lambda step, facts: None)  # so that steps are counted
        self.disk = disk
        self.addCleanup(lambda: self.assertEqual((disk.open_tickets, disk.outcomes), (0, [])))
        return Conversation(Instance(store, Config(), disk))  # type: ignore[arg-type]

    def test_each_reply_says_what_it_depends_on(self) -> None:
        client = self.client(FakeDisk())
        client.store.set(b"k", b"v")
        client.bytes(resp("GET", "k") + resp("PING") + b"GET k\r\n" + resp("INCR", "n"))
        self.assertEqual(self.disk.seen, [(0, 0, 1), (0, 0, 1), (0, 0, 1), (2, 0, 2)])

    def test_a_write_that_was_undone_is_an_error_in_its_own_dialect(self) -> None:
        for request, refusal in (
            (resp("SET", "k", "v"), f"-{NOT_SAVED}disk full\r\n"),
            (b"SET k v\r\n", f"-{NOT_SAVED}disk full\r\n"),
            (
                b'{"command": "SET", "args": {"key": "k", "value": "v"}}\n',
                f'{{"status": "ERROR", "message": "{NOT_SAVED}disk full"}}\n',
            ),
        ):
            with self.subTest(request):
                client = self.client(FakeDisk(False))
                self.assertEqual(client.bytes(request), refusal.encode())
                self.assertEqual(len(self.disk.seen), 1)

    def test_a_run_of_writes_that_was_undone_is_an_error_for_each(self) -> None:
        client = self.client(FakeDisk(False, True))
        replies = client.bytes(resp("SET", "k", "v") * 4 + PING)
        self.assertEqual(replies, b"-%bdisk full\r\n" % NOT_SAVED.encode() * 4 + b"+PONG\r\n")

    def test_writes_that_are_steps_of_their_own_are_refused_on_their_own(self) -> None:
        client = self.client(FakeDisk(True, False, True, True))
        replies = client.bytes(resp("SET", "k", "v", "EX", "9") * 4)
        refusal = b"-%bdisk full\r\n" % NOT_SAVED.encode()
        self.assertEqual(replies, b"+OK\r\n" + refusal + b"+OK\r\n" * 2)
        self.assertEqual([seen.wrote for seen in self.disk.seen], [1, 2, 3, 4])

    def test_a_run_of_reads_is_answered_anew_once_what_it_saw_was_undone(self) -> None:
        client = self.client(FakeDisk(False, True))
        client.store.set(b"k", b"new")
        self.disk.on_undo = lambda: client.store.set(b"k", b"old")
        self.assertEqual(client.bytes(resp("GET", "k") * 4), b"$3\r\nold\r\n" * 4)

    def test_a_read_is_answered_anew_once_what_it_saw_was_undone(self) -> None:
        for get, old in (
            (resp("GET", "k"), b"$3\r\nold\r\n"),
            (b"get k\r\n", b"$3\r\nold\r\n"),
            (resp("MGET", "k"), b"*1\r\n$3\r\nold\r\n"),
            (b'{"command": "GET", "args": ["k"]}\n', b'{"status": "OK", "result": "old"}\n'),
        ):
            with self.subTest(get):
                client = self.client(FakeDisk(False, False, True))
                client.store.set(b"k", b"new")
                self.disk.on_undo = lambda store=client.store: store.set(b"k", b"old")
                self.assertEqual(client.bytes(get), old)
                self.assertEqual(len(self.disk.seen), 3)

    def test_that_a_key_expired_is_no_reason_to_refuse_a_read(self) -> None:
        client = self.client(FakeDisk(False, True))
        client.store.set(b"k", b"v", expires_at=client.clock() + 1)
        client.clock.now += 2
        self.assertEqual(client.bytes(resp("GET", "k")), b"$-1\r\n")
        self.assertEqual([seen.undos for seen in self.disk.seen], [0, 1])

    def test_who_is_unlucky_again_and_again_is_told_so(self) -> None:
        client = self.client(FakeDisk(*[False] * 5))
        self.assertIn(b"disk full", client.bytes(resp("GET", "k")))
        self.assertIn(b"+PONG", client.bytes(PING))

    def test_what_has_nothing_to_do_with_keys_is_not_repeated_and_not_refused(self) -> None:
        for request, reply in (
            (PING, b"+PONG\r\n"),
            (resp("MULTI") + resp("SET", "k", "v"), b"+OK\r\n+QUEUED\r\n"),
        ):
            client = self.client(FakeDisk(False, *[False] * (request != PING)))
            self.assertEqual(client.bytes(request), reply)

    def test_a_transaction_that_was_undone_is_one_error_and_not_repeated(self) -> None:
        client = self.client(FakeDisk(True, True, True, False))
        replies = client.bytes(
            resp("MULTI") + resp("INCR", "n") + resp("GET", "n") + resp("EXEC") + PING
        )
        self.assertTrue(replies.startswith(b"+OK\r\n+QUEUED\r\n+QUEUED\r\n-"), replies)
        self.assertTrue(replies.endswith(b"disk full\r\n+PONG\r\n"), replies)
        self.assertEqual(client.store.get(b"n"), b"1")  # once, not twice

    def test_of_a_large_reply_not_a_piece_leaves_before(self) -> None:
        client = self.client(FakeDisk(False, True))
        client.store.set(b"k", b"n" * MB)
        self.disk.on_undo = lambda: client.store.set(b"k", b"o" * MB)
        one = b"$%d\r\n%b\r\n" % (MB, b"o" * MB)
        self.assertEqual(
            client.bytes(resp("MGET", *["k"] * 5) + PING), b"*5\r\n" + one * 5 + b"+PONG\r\n"
        )

    def test_a_large_reply_that_becomes_a_small_one_leaves_nothing_behind(self) -> None:
        client = self.client(FakeDisk(False, True))
        client.store.set(b"k", b"n" * MB)
        self.disk.on_undo = lambda: client.store.set(b"k", b"o")
        replies = client.bytes(resp("MGET", *["k"] * 3) + PING)
        self.assertEqual(replies, b"*3\r\n" + b"$1\r\no\r\n" * 3 + b"+PONG\r\n")

    def test_an_earlier_reply_that_is_answered_anew_takes_nothing_from_a_large_one(self) -> None:
        client = self.client(FakeDisk(False, True, True))
        client.store.set(b"k", b"v" * MB)
        one = b"$%d\r\n%b\r\n" % (MB, b"v" * MB)
        replies = client.bytes(resp("GET", "missing") + resp("MGET", *["k"] * 3) + PING)
        self.assertEqual(replies, b"$-1\r\n*3\r\n" + one * 3 + b"+PONG\r\n")

    def test_a_small_reply_that_becomes_a_large_one_keeps_its_place(self) -> None:
        client = self.client(FakeDisk(False, True, True))
        client.store.set(b"k", b"n")
        self.disk.on_undo = lambda: client.store.set(b"k", b"o" * MB)
        one = b"$%d\r\n%b\r\n" % (MB, b"o" * MB)
        self.assertEqual(
            client.bytes(resp("MGET", *["k"] * 3) + PING), b"*3\r\n" + one * 3 + b"+PONG\r\n"
        )


class LargeReplies(unittest.TestCase):
    def test_only_those_that_are_encoded_slowly_keep_others_waiting(self) -> None:
        client = Conversation()
        client.store.set(b"big", b"x" * MB)
        client.session.at_leisure = False
        client.bytes(b'{"command": "PING"}\n')
        client.dialect.receive(resp("MGET", *["big"] * 5))
        self.assertEqual((client.dialect.more, client.dialect.takes_long), (True, False))

    def test_a_reply_much_larger_than_its_request_is_sent_bit_by_bit(self) -> None:
        client = Conversation()
        client.store.set(b"big", b"x" * 3_000_000)
        one = b"$3000000\r\n" + b"x" * 3_000_000 + b"\r\n"
        pieces = list(batches(client.dialect, resp("MGET", *["big"] * 20) + resp("QUIT")))
        self.assertLess(max(map(len, pieces)), 2 * len(one))
        self.assertEqual(b"".join(pieces), b"*20\r\n" + one * 20 + b"+OK\r\n")
        self.assertTrue(client.dialect.closing)

    def test_many_times_the_same_large_value_takes_little_memory(self) -> None:
        for request in (resp("MGET", *["big"] * 600), resp("GET", "big") * 600):
            client = Conversation()
            client.store.set(b"big", b"x" * 100_000)
            dialect, received, largest = client.dialect, 0, 0
            tracemalloc.start()
            try:
                batch = dialect.receive(request)
                while dialect.more:
                    received, largest = received + len(batch), max(largest, len(batch))
                    batch = dialect.receive(b"")
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            self.assertGreater(received + len(batch), 600 * 100_000)
            self.assertLess(largest, 2 * BATCH_BYTES + 200_000)
            self.assertLess(peak, 8 * MB)  # of 60

    def test_nothing_of_it_is_left_when_the_connection_ends(self) -> None:
        client = Conversation()
        client.store.set(b"big", b"x" * MB)
        client.dialect.receive(resp("MGET", *["big"] * 20) + b"GET half")
        self.assertTrue(client.dialect.more)
        self.assertGreater(client.dialect.held_bytes, 0)
        client.dialect.end()
        self.assertEqual(client.dialect.held_bytes, 0)
        self.assertEqual(client.dialect.receive(b""), b"")

    def test_what_has_arrived_and_is_not_answered_is_held(self) -> None:
        client = Conversation()
        for data in (resp("SET", "k", "x" * 50_000)[:-10], b"GET half", b'{"command": "GE'):
            client = Conversation()
            client.bytes(data)
            self.assertTrue(0 <= len(data) - client.dialect.held_bytes < 40)
            self.assertEqual(client.session.queued_bytes, 0)
        client.bytes(b'T", "args": ["k"]}\n')
        self.assertEqual(client.dialect.held_bytes, 0)

    def test_what_is_queued_is_held(self) -> None:
        client = Conversation()
        client.bytes(resp("MULTI") + resp("SET", "k", "x" * 50_000))
        self.assertTrue(50_000 < client.session.queued_bytes < 51_000)
        client.bytes(resp("EXEC"))
        self.assertEqual(client.session.queued_bytes, 0)
        client.bytes(b'{"command": "START"}\n')
        client.bytes(b'{"command": "SET", "args": {"key": "k", "value": "%b"}}\n' % (b"x" * 50_000))
        self.assertTrue(50_000 < client.session.queued_bytes < 51_000)
        client.bytes(b'{"command": "ROLLBACK"}\n')
        self.assertEqual(client.session.queued_bytes, 0)
