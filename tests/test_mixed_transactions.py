"""START of the JSON lines and MULTI of Redis on one connection: each keeps to its own."""

from __future__ import annotations

import json
import unittest
from typing import Any

from tests.support import Conversation

REFUSED = (
    b"-ERR a transaction that was begun with START is open on this connection: "
    b"COMMIT or ROLLBACK first\r\n"
)


class MixedTransactionsTest(unittest.TestCase):
    def setUp(self) -> None:
        self.talk = Conversation()
        self.addCleanup(self.talk.store.check)

    def ask(self, command: str, **arguments: str) -> Any:
        """Send a JSON line; return what it answers."""
        line = json.dumps({"command": command, "args": arguments})
        return json.loads(self.talk.bytes(line + "\n"))

    def start(self) -> None:
        self.assertEqual(self.ask("START"), {"status": "OK"})
        self.assertEqual(self.ask("SET", key="k", value="written"), {"status": "OK"})

    def test_multi_between_start_and_commit_is_refused_and_the_writes_stay(self) -> None:
        self.start()
        self.assertEqual(self.talk.bytes("MULTI\r\n"), REFUSED)
        self.assertEqual(self.talk.bytes("*1\r\n$5\r\nMULTI\r\n"), REFUSED)
        self.assertEqual(self.ask("GET", key="k")["result"], "written")
        self.assertIsNone(self.talk.store.get(b"k"))
        self.assertEqual(self.ask("COMMIT"), {"status": "OK"})
        self.assertEqual(self.talk.store.get(b"k"), b"written")

    def test_exec_and_discard_do_not_touch_the_writes(self) -> None:
        self.start()
        self.assertEqual(self.talk.bytes("EXEC\r\n"), b"-ERR EXEC without MULTI\r\n")
        self.assertEqual(self.talk.bytes("DISCARD\r\n"), b"-ERR DISCARD without MULTI\r\n")
        self.talk.bytes("WATCH k\r\nUNWATCH\r\n")
        self.assertEqual(self.ask("GET", key="k")["result"], "written")
        self.assertIsNone(self.talk.store.get(b"k"))
        self.assertEqual(self.ask("COMMIT"), {"status": "OK"})
        self.assertEqual(self.talk.store.get(b"k"), b"written")

    def test_after_commit_and_rollback_multi_is_possible_again(self) -> None:
        for end in ("COMMIT", "ROLLBACK"):
            self.start()
            self.ask(end)
            replies = self.talk.bytes("MULTI\r\nSET k multi\r\nEXEC\r\n")
            self.assertEqual(replies, b"+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n")
            self.assertEqual(self.talk.store.get(b"k"), b"multi")

    def test_start_between_multi_and_exec_is_refused_and_what_is_queued_stays(self) -> None:
        self.assertEqual(self.talk.bytes("MULTI\r\n"), b"+OK\r\n")
        self.assertEqual(
            self.ask("START")["message"], "START is not possible between MULTI and EXEC"
        )
        self.assertIsNone(self.talk.session.writes)
        self.talk.bytes("DISCARD\r\n")
        self.start()

    def test_the_writes_of_a_connection_that_ends_are_gone(self) -> None:
        self.start()
        self.talk.bytes("MULTI\r\n")
        self.talk.instance.dismiss(self.talk.session)
        self.assertIsNone(self.talk.store.get(b"k"))


if __name__ == "__main__":
    unittest.main()
