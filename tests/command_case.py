"""What the tests of commands share: requests and the replies they must get, as a table."""

from __future__ import annotations

import shlex
import unittest

from kvdb.errors import CommandError
from kvdb.replies import Reply
from tests.support import Conversation

SYNTAX = "ERR syntax error"
NOT_AN_INTEGER = "ERR value is not an integer or out of range"
NOT_A_FLOAT = "ERR value is not a valid float"
NO_SUCH_KEY = "ERR no such key"
SAME_OBJECT = "ERR source and destination objects are the same"


def wrong_arity(name: str) -> str:
    return f"ERR wrong number of arguments for '{name}' command"


def invalid_expire(name: str) -> str:
    return f"ERR invalid expire time in '{name}' command"


def plain(reply: Reply) -> Reply:
    """Return the reply with every refusal in it replaced by its text."""
    if isinstance(reply, CommandError):
        return reply.text
    return [plain(each) for each in reply] if isinstance(reply, list) else reply


class CommandTest(unittest.TestCase):
    """`self.talk` is a client of an empty server, whose store is checked at the end."""

    def setUp(self) -> None:
        self.talk = Conversation()
        self.addCleanup(lambda: self.talk.store.check())

    def ask(self, line: str, talk: Conversation | None = None) -> Reply:
        """Carry out a request that is written as in a shell; refusals become their text."""
        return plain((talk or self.talk)(*shlex.split(line)))

    def info(self, *sections: str) -> dict[str, str]:
        """Return the fields of INFO."""
        lines = self.talk("INFO", *sections).split("\r\n")  # type: ignore[union-attr]
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def assert_replies(self, *table: tuple[str, Reply], talk: Conversation | None = None) -> None:
        """Carry out requests one after the other; bytes are a reply, str is a refusal's text."""
        for number, (line, expected) in enumerate(table, 1):
            with self.subTest(number=number, request=line):
                reply = self.ask(line, talk)
                self.assertEqual((reply, type(reply) is str), (expected, type(expected) is str))

    def assert_arity(self, *lines: str) -> None:
        """Each of these requests has a wrong number of arguments."""
        for line in lines:
            with self.subTest(request=line):
                self.assertEqual(self.ask(line), wrong_arity(line.split()[0].lower()))
