"""Users and rules against those of a real Redis: the same rules to both, the same decisions.

Redis 7.0 words refusals differently and tells rules about commands in another order, that of its
hash table; what newer ones and Valkey say is what kvdb says. Selectors are not compared: kvdb
refuses them. KVDB_INTEROP_SEED repeats the random part with the seed that a failure names.
"""

from __future__ import annotations

import os
import random
import re
import shlex
import unittest
from typing import Any

import redis

from kvdb.resp.replies import encode_request
from tests.interop.interop_differential import SEED
from tests.interop.servers import Address, RedisAddress, running_kvdb, running_redis

ROUNDS = 400 if os.environ.get("KVDB_INTEROP_FULL") == "1" else 80

HASH = "148de9c5a7a44d19e56cd9ae1a554bf67847afb0c58f6e12fa29ac7ddfca9940"  # of "p"

RULES = [
    "on", "off", "nopass", "resetpass", "reset", ">p", ">q", "<p", "<q", f"#{HASH}", f"!{HASH}",
    "#abc", "allkeys", "~*", "resetkeys", "~a*", "~b", "%R~r*", "%W~w*", "%RW~a*", "%r~w*", "%X~a",
    "%~a", "allchannels", "&*", "resetchannels", "&ch*", "&b", "allcommands", "+@all",
    "nocommands", "-@all", "+get", "-get", "+SET", "-set", "+mget", "+del", "-del", "+config",
    "-config", "+config|get", "-config|get", "+CONFIG|set", "+client", "+client|id",
    "-client|list", "+select|0", "+select|1", "+select", "-select", "-select|0", "+@read",
    "-@read", "+@write", "-@write", "+@fast", "+@slow", "-@slow", "+@keyspace", "+@string",
    "-@string", "+@bitmap", "+@pubsub", "+@admin", "-@admin", "+@dangerous", "-@dangerous",
    "+@connection", "-@connection", "+@transaction", "+@scripting", "+@list", "+@nosuch",
    "+nosuch", "+config|nosuch", "+config|", "+config|get|x", "foo", "''", "clearselectors",
]  # fmt: skip

REQUESTS = [
    "GET a1", "GET b", "GET r1", "GET w1", "GET x", "SET a1 v", "SET r1 v", "SET w1 v",
    "SET w1 v GET", "SET a1 v EX 5", "MGET a1 r1", "MGET a1 w1", "DEL w1", "DEL r1", "UNLINK w1",
    "EXISTS w1 r1", "EXISTS x", "INCR a1", "INCR w1", "INCR r1", "APPEND w1 x", "APPEND r1 x",
    "GETDEL a1", "GETDEL w1", "GETEX r1", "GETRANGE r1 0 1", "SETRANGE w1 0 x", "SETNX w1 x",
    "MSET w1 1 w2 2", "MSET w1 1 r1 2", "MSETNX w1 1", "RENAME a1 w1", "RENAME w1 a1",
    "RENAMENX a1 w1", "COPY r1 w1", "COPY w1 r1", "EXPIRE w1 1", "EXPIRE r1 1", "PERSIST w1",
    "TTL w1", "TTL r1", "TYPE w1", "TYPE x", "STRLEN w1", "TOUCH w1", "WATCH w1", "WATCH x",
    "OBJECT ENCODING w1", "OBJECT ENCODING x", "MEMORY USAGE w1", "SETBIT w1 0 1", "SETBIT a1 0 1",
    "GETBIT r1 0", "BITCOUNT r1", "BITOP AND w1 r1", "BITOP AND r1 w1", "BITFIELD r1 GET u8 0",
    "BITFIELD r1 SET u8 0 1", "BITFIELD a1 SET u8 0 1", "LCS r1 r2", "DUMP r1", "DUMP w1",
    "KEYS *", "SCAN 0", "DBSIZE", "FLUSHALL", "RANDOMKEY", "PING", "ECHO x", "SELECT 0",
    "SELECT 1", "SELECT 2", "CONFIG GET port", "CONFIG SET a b", "CONFIG RESETSTAT", "CLIENT ID",
    "CLIENT LIST", "CLIENT KILL ID 5", "INFO", "COMMAND", "COMMAND COUNT", "MULTI", "EXEC",
    "DISCARD", "SAVE", "LASTSAVE", "TIME", "SHUTDOWN", "ACL WHOAMI", "ACL LIST", "ACL CAT",
    "AUTH x", "HELLO", "QUIT", "RESET", "PUBLISH ch1 x", "PUBLISH b x", "PUBLISH x x",
    "SUBSCRIBE ch1", "SUBSCRIBE ch1 x", "PSUBSCRIBE ch*", "PSUBSCRIBE ch1", "UNSUBSCRIBE x",
    "PUBSUB CHANNELS", "SLOWLOG GET", "NOSUCH a", "CONFIG NOSUCH", "GET",
]  # fmt: skip


def words_of_7_2(text: str, user: str) -> str:
    """Return how a refusal of Redis 7.0 is worded since."""
    text = re.sub(
        r"\b[Tt]his user has no permissions to (run|access the)",
        rf"User {user} has no permissions to \1",
        text,
    )
    return re.sub(
        r"this user has no permissions to access one of the (key|channel)s used as arguments",
        r"No permissions to access a \1",
        text,
    )  # fmt: skip


class Server:
    """A client of one server; what Redis only words differently is made the same."""

    def __init__(self, address: Address) -> None:
        self.user = "default"
        self._socket = address.connect()
        self._replies = self._socket.makefile("rb")

    def close(self) -> None:
        self._replies.close()
        self._socket.close()

    def ask(self, line: str) -> Any:
        """Return the reply to a request; "(closed)" if the connection has ended."""
        words = [word.encode() for word in shlex.split(line)]
        try:
            self._socket.sendall(encode_request(words))
            return self._read()
        except OSError:
            return "(closed)"

    def _read(self) -> Any:
        line = self._replies.readline().decode()
        kind, rest = line[:1], line[1:-2]
        if kind in ("$", "*") and rest == "-1":
            return None
        if kind == "$":
            return self._in_our_words(self._replies.read(int(rest) + 2)[:-2].decode())
        if kind == "*":
            return [self._read() for _ in range(int(rest))]
        return self._in_our_words(line.rstrip()) if line else "(closed)"

    def _in_our_words(self, text: str) -> str:
        return words_of_7_2(text, self.user)

    def user_as_dict(self, name: str) -> dict[str, Any] | None:
        flat = self.ask(f"ACL GETUSER {name}")
        if flat is None:
            return None
        found = dict(zip(flat[::2], flat[1::2], strict=True))
        found["flags"] = sorted(set(found["flags"]) - {"sanitize-payload"})
        found.pop("databases", None)  # of Valkey 9
        return found

    def log(self) -> list[tuple[Any, ...]]:
        entries = [
            dict(zip(flat[::2], flat[1::2], strict=True)) for flat in self.ask("ACL LOG 100")
        ]
        fields = ("count", "reason", "context", "object", "username")
        return [tuple(entry[field] for field in fields) for entry in entries]


class Differential(unittest.TestCase):
    theirs_at: RedisAddress
    ours_at: Address

    @classmethod
    def setUpClass(cls) -> None:
        cls.theirs_at = cls.enterClassContext(running_redis())
        cls.ours_at = cls.enterClassContext(running_kvdb())

    def setUp(self) -> None:
        self.both = [self.connect(self.theirs_at), self.connect(self.ours_at)]
        self.is_7_0 = self.theirs_at.name == "redis" and self.theirs_at.version < (7, 2)
        for server in self.both:
            server.ask("FLUSHALL")
            server.ask("ACL LOG RESET")
            server.ask("ACL DELUSER u v w")

    def connect(self, address: Address) -> Server:
        server = Server(address)
        self.addCleanup(server.close)
        return server

    def same(self, *lines: str) -> list[Any]:
        """Make requests to both; each must be answered alike. Return the replies."""
        replies = []
        for line in lines:
            theirs, ours = (server.ask(line) for server in self.both)
            self.assertEqual(ours, theirs, line)
            replies.append(ours)
        return replies

    def same_users(self, note: str) -> None:
        theirs, ours = (server.user_as_dict("u") for server in self.both)
        if self.is_7_0 and theirs and ours:
            for each in (theirs, ours):
                each["commands"] = each["commands"].split()[0]
        self.assertEqual(ours, theirs, note)

    def same_decisions(self, note: str) -> None:
        for request in REQUESTS:
            for server in self.both:
                server.user = "u"
            theirs, ours = (server.ask(f"ACL DRYRUN u {request}") for server in self.both)
            self.assertEqual(ours, theirs, f"{request} after {note}")

    def test_random_rules_lead_to_the_same_users_and_decisions(self) -> None:
        generator = random.Random(SEED)
        for number in range(ROUNDS):
            note = f"seed {SEED}, round {number}"
            with self.subTest(note):
                self.same("ACL SETUSER u reset")
                given = []
                for _ in range(generator.randint(1, 8)):
                    rules = generator.choices(RULES, k=generator.choice((1, 1, 1, 2, 3)))
                    given.append(" ".join(rules))
                    self.same(f"ACL SETUSER u {given[-1]}")
                    self.same_users(f"{note}: {given}")
                self.same_decisions(f"{note}: {given}")

    def test_each_rule_alone_and_after_everything(self) -> None:
        for rule in RULES:
            for before in (
                "reset",
                "reset on ~* &* +@all",
                "reset on ~a* &ch* -@all +get +config|get",
            ):
                with self.subTest(f"{before} {rule}"):
                    self.same(f"ACL SETUSER u {before}", f"ACL SETUSER u {rule}")
                    self.same_users(rule)
                    self.same_decisions(f"{before} {rule}")

    def test_their_list_is_ours_and_each_takes_the_others_lines(self) -> None:
        theirs, ours = self.both
        for rules in (
            "on >p ~a* %R~r* &ch* +@read -get +config|get +select|0", "off nopass +@all -@admin",
            "on #" + HASH + " ~* &* -@all +@string +client|id", "on",
        ):  # fmt: skip
            self.same("ACL DELUSER u v", f"ACL SETUSER u {rules}")
            listed = []
            for server in self.both:
                (line,) = (each for each in server.ask("ACL LIST") if each.startswith("user u "))
                listed.append(line.replace(" sanitize-payload", ""))
            if not self.is_7_0:
                self.assertEqual(listed[1], listed[0])
            for server, line in ((theirs, listed[1]), (ours, listed[0])):
                words = " ".join(shlex.quote(word) for word in line.split()[2:])
                self.assertEqual(server.ask(f"ACL SETUSER u reset {words}"), "+OK")
            self.same_users(rules)
            self.same_decisions(rules)

    def test_replies_and_errors(self) -> None:
        self.same(
            "ACL WHOAMI", "ACL USERS", "ACL CAT", "ACL CAT nosuch", "ACL GETUSER nosuch",
            "ACL DELUSER default", "ACL DELUSER nosuch", "ACL DELUSER", "ACL SETUSER", "ACL NOSUCH",
            "ACL", "ACL LIST x", "ACL USERS x", "ACL WHOAMI x", "ACL GETUSER", "ACL LOG x",
            "ACL LOG -1", "ACL LOG 1 2", "ACL CAT a b", "ACL GENPASS 0", "ACL GENPASS 4097",
            "ACL GENPASS x", "ACL GENPASS 1 2", "ACL DRYRUN nosuch get x", "ACL DRYRUN default",
            "ACL DRYRUN default nosuch", "ACL DRYRUN default get", "ACL DRYRUN default config x",
            "ACL SETUSER 'a b' on", "ACL SETUSER u '(~x' on", "ACL SETUSER u '~a b'",
            "CLIENT KILL USER nosuch", "AUTH", "AUTH a b c", "AUTH nosuch x", "AUTH x",
            "CONFIG SET acllog-max-len -1", "CONFIG SET aclfile x", "CONFIG GET acllog-max-len",
        )  # fmt: skip
        if self.theirs_at.name == "redis":  # Valkey leaves its old name out
            self.same("ACL SAVE", "ACL LOAD")

    def test_categories_and_key_specifications(self) -> None:
        theirs, ours = (
            {row[0]: row for row in self.rows(server.ask("COMMAND"))} for server in self.both
        )
        common = theirs.keys() & ours.keys()
        if self.is_7_0:
            common -= {"wait"}  # not called blocking yet
        self.assertGreater(len(common), 100)
        for name in sorted(common):
            with self.subTest(name):
                self.assertEqual(sorted(ours[name][6]), sorted(theirs[name][6]))
                if name not in ("spublish", "ssubscribe", "sunsubscribe"):  # channels, there
                    self.assertEqual(*(str(self.plain(rows[name][8])) for rows in (ours, theirs)))
        for category in self.same("ACL CAT")[0]:
            listed = [set(server.ask(f"ACL CAT {category}")) & common for server in self.both]
            self.assertEqual(listed[1], listed[0], category)

    def rows(self, replies: list[Any]) -> list[Any]:
        return [each for row in replies for each in (row, *self.rows(row[9]))]

    def plain(self, spec: Any) -> Any:
        """Leave out notes and the order of flags."""
        if isinstance(spec, list):
            if spec[:1] == ["notes"]:
                spec = spec[2:]
            if spec[:1] == ["flags"]:
                return ["flags", sorted(spec[1]), *map(self.plain, spec[2:])]
            return [self.plain(each) for each in spec]
        return spec

    def test_refusals_the_log_and_who_is_cut_off(self) -> None:
        self.same(
            "ACL SETUSER u on >p ~a* %R~r* &ch* +get +set +multi +exec +config|get +acl|whoami "
            "+publish +subscribe +select|0",
            "SET r1 v",
        )
        asked = (
            "AUTH u wrong", "AUTH u p", "ACL WHOAMI", "GET a1", "GET r1", "GET x", "SET r1 x",
            "SET a1 x", "INCR a1", "CONFIG GET nosuch", "CONFIG SET x y", "ACL LIST", "PUBLISH x y",
            "PUBLISH ch1 y", "NOSUCH", "GET", "SELECT 0", "SELECT 1", "GET x", "GET x", "HELLO 2 AUTH u no",
            "MULTI", "SET a2 1", "GET a2", "GET x", "EXEC", "MULTI", "SET a2 1", "GET a2",
        )  # fmt: skip
        clients = [self.connect(self.theirs_at), self.connect(self.ours_at)]
        for line in asked:
            for client in clients:
                client.user = "u"
            self.assertEqual(clients[1].ask(line), clients[0].ask(line), line)
        self.same("ACL SETUSER u -set ~b")
        self.assertEqual(clients[1].ask("EXEC"), clients[0].ask("EXEC"))
        theirs, ours = (server.log() for server in self.both)
        self.assertEqual(ours, theirs)
        self.same("ACL SETUSER u off")
        self.assertEqual(*(client.ask("ACL WHOAMI") for client in clients))  # goes on
        self.same("ACL DELUSER u")
        self.assertEqual([client.ask("PING") for client in clients], ["(closed)"] * 2)

    def test_requirepass(self) -> None:
        try:
            for line in (
                "ACL SETUSER default off",
                "ACL SETUSER default on",
                "CONFIG SET requirepass p",
            ):
                self.same(line)
                strangers = [self.connect(self.theirs_at), self.connect(self.ours_at)]
                for asked in (
                    "PING",
                    "AUTH x",
                    "AUTH p",
                    "PING",
                    "AUTH default p",
                    "RESET",
                    "PING",
                ):
                    self.assertEqual(
                        *(each.ask(asked) for each in reversed(strangers)), (line, asked)
                    )
        finally:
            self.same("CONFIG SET requirepass ''", "ACL SETUSER default on nopass")


class RedisPy(unittest.TestCase):
    """redis-py's acl_* methods, in RESP2 and RESP3."""

    def test_all_of_them(self) -> None:
        for protocol in (2, 3):
            with self.subTest(protocol=protocol), running_kvdb() as address:
                options = {"protocol": protocol, "decode_responses": True}
                db = redis.Redis(address.host, address.port, **options)
                self.addCleanup(db.close)
                self.use(
                    db,
                    redis.Redis(
                        address.host, address.port, username="alice", password="p", **options
                    ),
                )

    def use(self, db: redis.Redis, alice: redis.Redis) -> None:
        self.addCleanup(alice.close)
        self.assertTrue(
            db.acl_setuser(
                "alice", enabled=True, passwords=["+p"], keys=["a*"], channels=["ch*"],
                categories=["+@read", "-@dangerous"], commands=["+set", "+acl|whoami", "+client|setinfo"],
            )
        )  # fmt: skip
        self.assertIn("read", db.acl_cat())
        self.assertIn("get", db.acl_cat("read"))
        self.assertEqual(db.acl_users(), ["alice", "default"])
        self.assertEqual(len(db.acl_list()), 2)
        self.assertEqual(db.acl_whoami(), "default")
        self.assertEqual(len(db.acl_genpass()), 64)
        self.assertEqual(len(db.acl_genpass(40)), 10)
        user = db.acl_getuser("alice")
        self.assertEqual((set(user["flags"]), user["passwords"]), ({"on"}, [HASH]))
        self.assertIsNone(db.acl_getuser("nobody"))
        self.assertEqual(db.acl_dryrun("alice", "get", "a1"), "OK")
        self.assertIn("'b' key", db.acl_dryrun("alice", "get", "b"))
        self.assertEqual(alice.acl_whoami(), "alice")
        self.assertTrue(alice.set("a1", "v"))
        with self.assertRaises(redis.exceptions.NoPermissionError):
            alice.get("b")
        with self.assertRaises(redis.exceptions.NoPermissionError):
            alice.flushall()
        newest, before = db.acl_log()
        self.assertEqual((newest["reason"], newest["object"]), ("command", "flushall"))
        self.assertEqual((before["reason"], before["username"]), ("key", "alice"))
        self.assertIn("alice", str(before["client-info"]))
        self.assertEqual(len(db.acl_log(1)), 1)
        self.assertTrue(db.acl_log_reset())
        for save in (db.acl_save, db.acl_load):
            with self.assertRaisesRegex(redis.ResponseError, "not configured to use an ACL file"):
                save()
        self.assertTrue(db.acl_help())
        self.assertEqual(db.acl_deluser("alice"), 1)


if __name__ == "__main__":
    unittest.main()
