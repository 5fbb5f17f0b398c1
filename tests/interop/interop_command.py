"""What COMMAND says of every command that Redis has, too: the same, but for what is listed here.

Arity, flags, positions and kinds of keys, categories, groups, and the words that are typed as they
stand. Names of arguments and summaries are our own. The table was made with Redis 7.0.
"""

from __future__ import annotations

import re
import unittest
from collections.abc import Iterator
from typing import Any

from kvdb.resp.replies import NEED_DATA, ReplyParser, encode_request
from tests.interop.servers import Address, running_kvdb, running_redis

Facts = dict[str, Any]
"""What is known of one command, by the name of the fact."""

NOT_TOLD = frozenset((b"no_async_loading", b"skip_slowlog", b"blocking", b"no_multi"))
"""Flags about replication and blocking, and what we refuse inside MULTI."""

KNOWN_DIFFERENCES = (
    # command, fact, reason: both are patterns
    (r"asking|cluster|readonly|readwrite", "group", "there is no cluster, and no group for it"),
    (r"command\|getkeys.*", "arity", "a command without arguments may be asked about since 7.2"),
    (r"s(publish|subscribe|unsubscribe)", "positions|keys", "channels are not kept as keys"),
    (r"wait", "categories", "@blocking since Redis 7.2"),
    (r"function\|flush", "flags", "there are no functions that could be flushed"),
    (r"lolwut", "flags", "it reads nothing"),
    (r"asking|cluster|memory\|.*|module\|.*|script\|.*|function\|.*|wait|failover|replicaof|slaveof",
     "flags", "we answer while data is being loaded"),
    (r"client\|kill|client\|list|failover|replicaof|slaveof", "words", "the usage line is shorter"),
    (r"set", "words", "IFEQ and IFNE are newer"),
)  # fmt: skip

LATER = "since|flags|words|categories"
"""Facts that newer servers tell differently of commands that have options, or flags, since then."""


def ask(address: Address, *requests: list[bytes]) -> Iterator[Any]:
    parser = ReplyParser()
    with address.connect() as connection:
        for request in requests:
            connection.sendall(encode_request(request))
            while (reply := parser.next_reply()) is NEED_DATA:
                parser.receive(connection.recv(1 << 20))
            yield reply


def words_in(arguments: list[Any]) -> set[bytes]:
    """Return all words of a tree of arguments that are typed as they stand."""
    found = set()
    for argument in arguments:
        if token := argument.get(b"token"):
            found.add(token.upper())
        found |= words_in(argument.get(b"arguments", []))
    return found


def facts_of(address: Address) -> dict[str, Facts]:
    """Return what a server says of its commands, by their names."""
    _, rows, documents = ask(address, [b"HELLO", b"3"], [b"COMMAND"], [b"COMMAND", b"DOCS"])
    found: dict[str, Facts] = {}

    def take_rows(rows: list[Any]) -> None:
        for row in rows:
            for spec in row[8]:
                spec.pop(b"notes", None)
                spec[b"flags"] = set(spec[b"flags"])
            found[row[0].decode()] = {
                "arity": row[1],
                "flags": set(row[2]) - NOT_TOLD,
                "positions": row[3:6],
                "categories": set(row[6]),
                "keys": row[8],
            }
            take_rows(row[9])

    def take_documents(documents: dict[bytes, Any]) -> None:
        for name, document in documents.items():
            facts = found[name.decode()]
            facts["group"] = document[b"group"]
            facts["words"] = words_in(document.get(b"arguments", []))
            take_documents(document.get(b"subcommands", {}))

    take_rows(rows)
    take_documents(documents)
    return found


class CommandInterop(unittest.TestCase):
    def test_what_is_said_of_the_commands(self) -> None:
        with running_redis() as redis, running_kvdb() as kvdb:
            theirs, ours = facts_of(redis), facts_of(kvdb)
        is_newer = (redis.name, redis.version) >= ("redis", (7, 2))
        both = theirs.keys() & ours.keys()
        self.assertGreater(len(both), 150)
        unused = set(KNOWN_DIFFERENCES)
        for name in sorted(both):
            for fact in ours[name]:
                if theirs[name].get(fact) == ours[name][fact]:
                    continue
                known = [
                    line for line in KNOWN_DIFFERENCES
                    if re.fullmatch(line[0], name) and re.fullmatch(line[1], fact)
                ]  # fmt: skip
                unused -= set(known)
                if not known and not (is_newer and re.fullmatch(LATER, fact)):
                    with self.subTest(name, fact=fact):
                        self.assertEqual(theirs[name].get(fact), ours[name][fact])
        if not is_newer:
            self.assertEqual(unused, set(), "these are no differences any more")


if __name__ == "__main__":
    unittest.main()
