from __future__ import annotations

import random
from itertools import pairwise

from kvdb.replies import Reply
from tests.command_case import (
    NO_SUCH_KEY,
    NOT_AN_INTEGER,
    SAME_OBJECT,
    SYNTAX,
    CommandTest,
    invalid_expire,
    plain,
)
from tests.support import Conversation

INT64_MAX = 2**63 - 1
DB_OUT_OF_RANGE = "ERR DB index is out of range"
INVALID_CURSOR = "ERR invalid cursor"


class KeysTest(CommandTest):
    def test_deleting_counts_the_keys_that_were_there(self) -> None:
        for name in ("DEL", "DELETE", "UNLINK"):
            self.assert_replies(
                ("MSET a 1 b 2 c 3", b"OK"),
                (f"{name} a nokey b a", 2),
                (f"{name} a", 0),
                ("KEYS *", [b"c"]),
            )

    def test_exists_and_touch_count_a_key_as_often_as_it_is_named(self) -> None:
        self.talk("MSET", "a", 1, "b", 2)
        for name in ("EXISTS", "TOUCH"):
            self.assert_replies((f"{name} a a b nokey", 3), (f"{name} nokey", 0))

    def test_touch_saves_a_key_from_eviction_and_exists_does_not(self) -> None:
        for name, survives in (("TOUCH", 1), ("GET", 1), ("EXISTS", 0), ("TTL", 0), ("TYPE", 0)):
            with self.subTest(name):
                talk = Conversation(max_bytes=2_000)
                talk("SET", "first", 1)
                number = 0
                while not talk.store.evicted_keys:
                    talk(name, "first")
                    talk("SET", number, 1)
                    number += 1
                self.assertEqual(talk("EXISTS", "first"), survives)

    def test_the_type_is_string_or_none(self) -> None:
        self.assert_replies(("SET k v", b"OK"), ("TYPE k", b"string"), ("TYPE nokey", b"none"))

    def test_a_wrong_number_of_arguments_is_refused(self) -> None:
        self.assert_arity("DEL", "UNLINK", "EXISTS", "TOUCH", "TYPE", "TYPE a b", "TTL", "PTTL a b")
        self.assert_arity("EXPIRE a", "PEXPIRE a", "EXPIREAT a", "PEXPIREAT a", "EXPIRETIME")
        self.assert_arity("PEXPIRETIME a b", "PERSIST", "KEYS", "KEYS a b", "SCAN", "RANDOMKEY x")
        self.assert_arity("RENAME a", "RENAMENX a b c", "COPY a", "MOVE a", "MOVE a 1 2")
        self.assert_arity("DBSIZE x", "OBJECT", "MEMORY", "SELECT", "SELECT 1 2")

    def test_random_key_is_one_of_the_keys(self) -> None:
        self.assert_replies(("RANDOMKEY", None), ("SET a 1", b"OK"), ("RANDOMKEY", b"a"))
        self.talk("SET", "b", 2)
        self.assertEqual({self.talk("RANDOMKEY") for _ in range(100)}, {b"a", b"b"})

    def test_keys_that_have_expired_are_nowhere(self) -> None:
        self.assert_replies(("SET gone v EX 10", b"OK"), ("SET there v", b"OK"), ("DBSIZE", 2))
        self.talk.clock.now += 10
        self.assert_replies(
            ("DBSIZE", 1),
            ("KEYS *", [b"there"]),
            ("SCAN 0", [b"0", [b"there"]]),
            ("RANDOMKEY", b"there"),
            ("EXISTS gone", 0),
            ("TYPE gone", b"none"),
            ("TTL gone", -2),
            ("RENAME gone k", NO_SUCH_KEY),
            ("COPY gone k", 0),
            ("DEL gone", 0),
        )
        self.assertEqual(self.talk.store.expired_keys, 1)


class ExpiryTest(CommandTest):
    def test_a_deadline_can_be_given_in_four_ways(self) -> None:
        now = int(self.talk.clock.now)
        for request, number in (
            ("EXPIRE", 10),
            ("PEXPIRE", 10_000),
            ("EXPIREAT", now + 10),
            ("PEXPIREAT", (now + 10) * 1000),
        ):
            self.assert_replies(
                ("SET k v", b"OK"),
                (f"{request} k {number}", 1),
                ("TTL k", 10),
                ("PTTL k", 10_000),
                ("EXPIRETIME k", now + 10),
                ("PEXPIRETIME k", (now + 10) * 1000),
                (f"{request} nokey {number}", 0),
            )

    def test_times_to_live_tell_missing_keys_from_lasting_ones(self) -> None:
        self.talk("SET", "k", "v")
        for name in ("TTL", "PTTL", "EXPIRETIME", "PEXPIRETIME"):
            self.assert_replies((f"{name} k", -1), (f"{name} nokey", -2))

    def test_a_key_is_gone_from_its_deadline_on(self) -> None:
        self.assert_replies(("SET k v", b"OK"), ("PEXPIRE k 1500", 1))
        self.talk.clock.now += 1.499
        self.assert_replies(("PTTL k", 1), ("GET k", b"v"))
        self.talk.clock.now += 0.001
        self.assert_replies(("PTTL k", -2), ("GET k", None))

    def test_seconds_are_rounded_half_up(self) -> None:
        self.talk("SET", "k", "v")
        for milliseconds, seconds in ((1499, 1), (1500, 2), (400, 0), (999, 1), (1000, 1)):
            self.assert_replies((f"PEXPIRE k {milliseconds}", 1), ("TTL k", seconds))
        for milliseconds, seconds in ((33177117420499, 33177117420), (33177117420500, 33177117421)):
            self.assert_replies((f"PEXPIREAT k {milliseconds}", 1), ("EXPIRETIME k", seconds))

    def test_nx_xx_gt_and_lt_choose_which_deadline_is_replaced(self) -> None:
        self.assert_replies(
            ("SET k v", b"OK"),
            ("EXPIRE k 100 XX", 0),
            ("EXPIRE k 100 GT", 0),  # no deadline is later than any
            ("TTL k", -1),
            ("EXPIRE k 100 LT", 1),
            ("EXPIRE k 200 NX", 0),
            ("EXPIRE k 200 LT", 0),
            ("EXPIRE k 100 lt", 0),
            ("EXPIRE k 100 gt", 0),
            ("EXPIRE k 50 GT", 0),
            ("TTL k", 100),
            ("EXPIRE k 200 GT", 1),
            ("EXPIRE k 50 LT", 1),
            ("EXPIRE k 60 XX", 1),
            ("EXPIRE k 50 XX GT", 0),
            ("EXPIRE k 70 GT XX", 1),
            ("TTL k", 70),
            ("PERSIST k", 1),
            ("EXPIRE k 80 nx NX", 1),
            ("PEXPIRE k 90000 LT", 0),
            ("PEXPIRE k 90000 XX", 1),
            ("EXPIREAT k 1000100 GT", 1),
            ("PEXPIREAT k 1000100001 LT", 0),
            ("PTTL k", 100_000),
            ("EXPIRE nokey 10 NX", 0),
        )

    def test_options_that_do_not_go_together_are_refused(self) -> None:
        nx = "ERR NX and XX, GT or LT options at the same time are not compatible"
        self.talk("SET", "k", "v")
        for name in ("EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT"):
            self.assert_replies(
                (f"{name} k 100 NX XX", nx),
                (f"{name} k 100 GT NX", nx),
                (f"{name} k 100 NX LT", nx),
                (
                    f"{name} k 100 GT LT",
                    "ERR GT and LT options at the same time are not compatible",
                ),
                (f"{name} k x GT NX", nx),
                (f"{name} k 100 FOO", "ERR Unsupported option FOO"),
                (f"{name} k x FOO", "ERR Unsupported option FOO"),
                (f"{name} k 100 NX XX FOO", "ERR Unsupported option FOO"),
                ("TTL k", -1),
            )

    def test_the_first_unsupported_option_is_named_as_it_was_given(self) -> None:
        self.assert_replies(
            ("EXPIRE k 100 foo", "ERR Unsupported option foo"),
            *[("EXPIRE k 100 XX Zoo Bar Foo Baz", "ERR Unsupported option Zoo")] * 2,
        )

    def test_a_deadline_that_has_passed_deletes_the_key(self) -> None:
        for line in ("EXPIRE k 0", "EXPIRE k -1", "PEXPIRE k -1", "EXPIREAT k 1", "EXPIREAT k -1"):
            self.assert_replies(("SET k v", b"OK"), (line, 1), ("EXISTS k", 0))
        self.assert_replies(
            ("SET k v EX 10", b"OK"),
            ("PEXPIREAT k 1 GT", 0),
            ("EXISTS k", 1),
            ("PEXPIREAT k 1 LT", 1),
            ("EXISTS k", 0),
        )

    def test_a_deadline_that_cannot_be_is_refused(self) -> None:
        self.talk("SET", "k", "v")
        self.assert_replies(
            ("EXPIRE k 1.5", NOT_AN_INTEGER),
            ("EXPIRE nokey x", NOT_AN_INTEGER),
            ("PEXPIREAT k ''", NOT_AN_INTEGER),
            (f"EXPIRE nokey {INT64_MAX}", invalid_expire("expire")),
            (f"EXPIRE k {INT64_MAX // 1000}", invalid_expire("expire")),
            (f"PEXPIRE k {INT64_MAX}", invalid_expire("pexpire")),
            (f"EXPIREAT k {INT64_MAX // 1000 + 1}", invalid_expire("expireat")),
            (f"EXPIREAT k {-INT64_MAX}", invalid_expire("expireat")),
            ("EXPIRE k -9223372036854776", invalid_expire("expire")),  # below 64 bits in ms
            ("TTL k", -1),
        )

    def test_the_latest_deadline_stays_within_64_bits(self) -> None:
        self.assert_replies(("SET k v", b"OK"), (f"PEXPIREAT k {INT64_MAX}", 1))
        for name in ("PEXPIRETIME", "EXPIRETIME", "PTTL", "TTL"):
            with self.subTest(name):
                self.assertTrue(0 < self.talk(name, "k") <= INT64_MAX)

    def test_persist_takes_a_deadline_away_once(self) -> None:
        self.assert_replies(
            ("PERSIST k", 0),
            ("SET k v", b"OK"),
            ("PERSIST k", 0),
            ("EXPIRE k 100", 1),
            ("PERSIST k", 1),
            ("TTL k", -1),
        )


class FindingKeysTest(CommandTest):
    def scan(self, *options: str | int) -> list[bytes]:
        """Scan from the start to the end; return all that came."""
        found: list[bytes] = []
        cursor = b"0"
        while True:
            cursor, names = self.talk("SCAN", cursor, *options)
            found += names
            if cursor == b"0":
                return found

    def test_keys_follows_the_globs_of_redis(self) -> None:
        self.ask("MSET hello 1 hallo 2 hxllo 3 hllo 4 heeello 5 h*llo 6")
        everything = {b"hello", b"hallo", b"hxllo", b"hllo", b"heeello", b"h*llo"}
        for pattern, expected in (
            ("*", everything),
            ("h*llo", everything),
            ("h?llo", {b"hello", b"hallo", b"hxllo", b"h*llo"}),
            ("h[ae]llo", {b"hello", b"hallo"}),
            ("h[^e]llo", {b"hallo", b"hxllo", b"h*llo"}),
            ("h[a-b]llo", {b"hallo"}),
            ("h[b-a]llo", {b"hallo"}),
            ("h\\*llo", {b"h*llo"}),
            ("nothing", set()),
            ("", set()),
        ):
            with self.subTest(pattern):
                self.assertEqual(set(self.talk("KEYS", pattern)), expected)
                self.assertEqual(set(self.scan("MATCH", pattern)), expected)

    def test_a_pattern_of_very_many_bytes_is_refused(self) -> None:
        for request in (("KEYS",), ("SCAN", 0, "MATCH")):
            text = self.talk.error(*request, "*a" * 10_000)
            self.assertEqual(text, "ERR pattern is longer than 1024 bytes")

    def test_a_scan_returns_every_key_once(self) -> None:
        expected = sorted(b"key:%d" % number for number in range(95))
        self.talk("MSET", *[word for name in expected for word in (name, "v")])
        self.assertEqual(sorted(self.scan()), expected)
        self.assertEqual(sorted(self.scan("COUNT", 7)), expected)
        self.assertEqual(sorted(self.scan("COUNT", INT64_MAX)), expected)
        self.assertEqual(len(self.scan("MATCH", "key:1?", "COUNT", 3)), 10)

    def test_count_bounds_what_one_call_returns(self) -> None:
        self.talk("MSET", *[word for number in range(25) for word in (number, "v")])
        cursor, names = self.talk("SCAN", 0)
        self.assertEqual((len(names), cursor == b"0"), (10, False))
        cursor, names = self.talk("SCAN", cursor, "COUNT", 14)
        self.assertEqual((len(names), cursor == b"0"), (14, False))
        self.assertEqual(len(self.talk("SCAN", cursor)[1]), 1)

    def test_writes_during_a_scan_hide_no_key_that_stays(self) -> None:
        self.talk("MSET", *[word for number in range(30) for word in (f"stays:{number}", "v")])
        found: list[bytes] = []
        cursor, number = b"0", 0
        while number == 0 or cursor != b"0":
            cursor, names = self.talk("SCAN", cursor, "COUNT", 3)
            found += names
            self.talk("SET", f"new:{number}", "v")
            self.talk("DEL", f"new:{number - 1}")
            self.talk("GET", "stays:5")
            number += 1
        stays = [name for name in found if name.startswith(b"stays")]
        self.assertEqual((len(stays), len(set(stays))), (30, 30))

    def test_a_scan_leaves_out_what_was_deleted_meanwhile(self) -> None:
        self.talk("MSET", "a", 1, "b", 2)
        cursor, first = self.talk("SCAN", 0, "COUNT", 1)
        self.talk("DEL", "a", "b")
        self.assertEqual((len(first), self.talk("SCAN", cursor)), (1, [b"0", []]))

    def test_a_scan_from_before_a_flush_comes_to_its_end(self) -> None:
        self.talk("MSET", "a", 1, "b", 2)
        cursor, _ = self.talk("SCAN", 0, "COUNT", 1)
        self.talk("FLUSHALL")
        self.assertEqual(self.talk("SCAN", cursor), [b"0", []])

    def test_a_cursor_does_not_lead_into_another_database(self) -> None:
        self.talk("MSET", "a", 1, "b", 2)
        cursor, _ = self.talk("SCAN", 0, "COUNT", 1)
        self.talk("SELECT", 3)
        self.assertEqual(self.talk("SCAN", cursor), [b"0", []])

    def test_every_number_of_64_bits_is_a_cursor(self) -> None:
        """Redis answers likewise: a cursor needs no scan that it belongs to."""
        self.talk("MSET", *[word for number in range(20) for word in (number, "v")])
        everything = set(self.scan())
        for cursor in (5, 2**31, 2**32 - 1):
            _, names = self.talk("SCAN", cursor, "COUNT", 100)
            self.assertLessEqual(set(names), everything)
        for cursor in (2**32, 2**63, 2**64 - 1):
            self.assert_replies((f"SCAN {cursor}", [b"0", []]))

    def test_a_cursor_is_good_on_another_server_with_the_same_keys(self) -> None:
        words = [word for number in range(20) for word in (number, "v")]
        other = Conversation()
        for talk in (self.talk, other):
            talk("MSET", *words)
        cursor, _ = self.talk("SCAN", 0)
        self.assertEqual(other("SCAN", cursor), self.talk("SCAN", cursor))

    def test_type_leaves_only_strings(self) -> None:
        self.talk("SET", "a", 1)
        self.assert_replies(
            ("SCAN 0 TYPE string", [b"0", [b"a"]]),
            ("SCAN 0 type STRING", [b"0", [b"a"]]),
            ("SCAN 0 TYPE list", [b"0", []]),
            ("SCAN 0 match a count 100 type string", [b"0", [b"a"]]),
            ("SCAN 0 MATCH b* MATCH a*", [b"0", [b"a"]]),
        )

    def test_what_is_no_cursor_or_no_option_is_refused(self) -> None:
        for cursor in ("foo", "''", "' 0'", "1.5", "-1", "+1", str(2**64), "9" * 5_000):
            self.assert_replies((f"SCAN {cursor}", INVALID_CURSOR))
        self.assert_replies(
            ("SCAN foo COUNT 0", INVALID_CURSOR),
            ("SCAN 0 COUNT 0", SYNTAX),
            ("SCAN 0 COUNT -1", SYNTAX),
            ("SCAN 0 COUNT foo", NOT_AN_INTEGER),
            ("SCAN 0 COUNT", SYNTAX),
            ("SCAN 0 MATCH", SYNTAX),
            ("SCAN 0 FOO bar", SYNTAX),
            ("SCAN 0 COUNT 1 COUNT", SYNTAX),
        )


class WholeEntriesTest(CommandTest):
    def test_rename_takes_value_and_deadline_along_and_replaces_the_other(self) -> None:
        self.assert_replies(
            ("SET a 1 EX 100", b"OK"),
            ("SET b 2 EX 1000", b"OK"),
            ("RENAME a b", b"OK"),
            ("EXISTS a", 0),
            ("GET b", b"1"),
            ("TTL b", 100),
            ("SET c 3", b"OK"),
            ("RENAME c b", b"OK"),
            ("TTL b", -1),
            ("RENAME b b", b"OK"),
            ("GET b", b"3"),
            ("RENAME nokey b", NO_SUCH_KEY),
            ("RENAME nokey nokey", NO_SUCH_KEY),
            ("GET b", b"3"),
        )

    def test_renamenx_does_not_replace(self) -> None:
        self.assert_replies(
            ("MSET a 1 b 2", b"OK"),
            ("RENAMENX a b", 0),
            ("RENAMENX a a", 0),
            ("MGET a b", [b"1", b"2"]),
            ("RENAMENX a c", 1),
            ("MGET a c", [None, b"1"]),
            ("RENAMENX nokey c", NO_SUCH_KEY),
            ("RENAMENX nokey nokey", NO_SUCH_KEY),
        )

    def test_copy_leaves_the_source_and_replaces_only_if_asked(self) -> None:
        self.assert_replies(
            ("SET a 1 EX 100", b"OK"),
            ("COPY a b", 1),
            ("TTL b", 100),
            ("SET a 2", b"OK"),
            ("GET b", b"1"),
            ("COPY a b", 0),
            ("GET b", b"1"),
            ("COPY a b REPLACE", 1),
            ("GET b", b"2"),
            ("TTL b", -1),
            ("COPY nokey c", 0),
            ("COPY nokey b REPLACE", 0),
            ("MGET a b c", [b"2", b"2", None]),
        )

    def test_copy_into_another_database(self) -> None:
        self.assert_replies(
            ("SET a 1 EX 100", b"OK"),
            ("COPY a a DB 1", 1),
            ("COPY a a DB 1", 0),
            ("COPY a other db 1 replace", 1),
            ("COPY a b DB 1 DB 2", 1),  # the last one counts
            ("KEYS *", [b"a"]),
            ("SELECT 1", b"OK"),
            ("DBSIZE", 2),
            ("MGET a other b", [b"1", b"1", None]),
            ("TTL a", 100),
            ("SET a new", b"OK"),
            ("COPY a a DB 0", 0),
            ("COPY a a DB 0 REPLACE", 1),
            ("COPY a a DB 1", SAME_OBJECT),
            ("COPY a b", 1),
            ("SELECT 0", b"OK"),
            ("MGET a b", [b"new", None]),
            ("SELECT 2", b"OK"),
            ("KEYS *", [b"b"]),
        )

    def test_copy_checks_its_options_before_it_looks_for_the_key(self) -> None:
        self.assert_replies(
            ("COPY a a", SAME_OBJECT),
            ("COPY a a DB 0", SAME_OBJECT),
            ("COPY a b FOO", SYNTAX),
            ("COPY a b DB", SYNTAX),
            ("COPY a a REPLACE DB", SYNTAX),
            ("COPY a b DB 0 FOO", SYNTAX),
            ("COPY a b DB 16", DB_OUT_OF_RANGE),
            ("COPY a b DB -1", DB_OUT_OF_RANGE),
            ("COPY a b DB foo", NOT_AN_INTEGER),
            ("COPY a b DB foo FOO", NOT_AN_INTEGER),
        )

    def test_move_takes_a_key_to_a_database_that_has_none_of_that_name(self) -> None:
        self.assert_replies(
            ("SET k 1 EX 100", b"OK"),
            ("MOVE k 3", 1),
            ("EXISTS k", 0),
            ("SET k 2", b"OK"),
            ("MOVE k 3", 0),
            ("GET k", b"2"),
            ("SELECT 3", b"OK"),
            ("GET k", b"1"),
            ("TTL k", 100),
            ("MOVE k 5", 1),
            ("DBSIZE", 0),
            ("MOVE nokey 5", 0),
            ("MOVE k 3", SAME_OBJECT),
            ("MOVE k 16", DB_OUT_OF_RANGE),
            ("MOVE k -1", DB_OUT_OF_RANGE),
            ("MOVE k foo", NOT_AN_INTEGER),
        )

    def test_flushdb_empties_one_database_and_flushall_every_one(self) -> None:
        for mode in ("", " ASYNC", " sync"):
            self.assert_replies(
                ("SELECT 0", b"OK"),
                ("SET k 0", b"OK"),
                ("SELECT 3", b"OK"),
                ("SET k 3", b"OK"),
                (f"FLUSHDB{mode}", b"OK"),
                ("DBSIZE", 0),
                ("SET k 3", b"OK"),
                ("SELECT 0", b"OK"),
                ("GET k", b"0"),
                (f"FLUSHALL{mode}", b"OK"),
                ("DBSIZE", 0),
                ("SELECT 3", b"OK"),
                ("DBSIZE", 0),
            )

    def test_a_flush_with_another_option_flushes_nothing(self) -> None:
        self.talk("SET", "k", "v")
        for line in ("FLUSHDB foo", "FLUSHDB ASYNC SYNC", "FLUSHALL foo", "FLUSHALL ASYNC x"):
            self.assert_replies((line, SYNTAX), ("DBSIZE", 1))


class ObjectTest(CommandTest):
    def test_encoding_is_what_redis_would_choose(self) -> None:
        for value, encoding in (
            ("123", b"int"),
            (str(INT64_MAX), b"int"),
            (str(INT64_MAX + 1), b"embstr"),
            ("01", b"embstr"),
            ("", b"embstr"),
            ("x" * 44, b"embstr"),
            ("x" * 45, b"raw"),
        ):
            with self.subTest(value=value):
                self.talk("SET", "k", value)
                self.assertEqual(self.talk("OBJECT", "ENCODING", "k"), encoding)

    def test_values_are_not_shared(self) -> None:
        self.assert_replies(("SET k v", b"OK"), ("OBJECT REFCOUNT k", 1))

    def test_of_a_missing_key_nothing_is_known(self) -> None:
        self.assert_replies(
            ("OBJECT ENCODING k", None), ("OBJECT REFCOUNT k", None), ("MEMORY USAGE k", None)
        )

    def test_asking_is_no_use_of_the_key(self) -> None:
        talk = Conversation(max_bytes=2_000)
        talk("SET", "first", 1)
        number = 0
        while not talk.store.evicted_keys:
            talk("OBJECT", "ENCODING", "first")
            talk("MEMORY", "USAGE", "first")
            talk("SET", number, 1)
            number += 1
        self.assertEqual(talk("EXISTS", "first"), 0)

    def test_memory_usage_grows_with_name_and_value(self) -> None:
        usages = []
        for name, value in ((1, 1), (100, 1), (100, 1000), (100, 100_000)):
            self.talk("SET", b"k" * name, b"v" * value)
            usages.append(self.talk("MEMORY", "USAGE", b"k" * name))
        for smaller, larger in pairwise(usages):
            self.assertLess(smaller, larger)
        self.assertGreater(usages[0], 100)
        self.assertTrue(100_000 < usages[-1] < 101_000)

    def test_memory_usage_is_what_the_entry_takes_of_the_budget(self) -> None:
        for db in (0, 3):
            self.talk("SELECT", db)
            before = self.talk.store.used_bytes
            self.talk("SET", "k", "v" * 99)
            usage = self.talk.store.used_bytes - before
            self.assert_replies(("MEMORY USAGE k", usage), ("MEMORY USAGE k samples 5", usage))

    def test_memory_usage_refuses_other_options(self) -> None:
        self.assert_replies(
            ("MEMORY USAGE k SAMPLES -1", SYNTAX),
            ("MEMORY USAGE k SAMPLES", SYNTAX),
            ("MEMORY USAGE k FOO 1", SYNTAX),
            ("MEMORY USAGE k SAMPLES x", NOT_AN_INTEGER),
            ("MEMORY USAGE", "ERR wrong number of arguments for 'memory|usage' command"),
            ("MEMORY FOO", "ERR unknown subcommand 'FOO'. Try MEMORY HELP."),
            ("OBJECT FOO k", "ERR unknown subcommand 'FOO'. Try OBJECT HELP."),
            ("OBJECT ENCODING", "ERR wrong number of arguments for 'object|encoding' command"),
            ("OBJECT REFCOUNT a b", "ERR wrong number of arguments for 'object|refcount' command"),
        )


class DatabasesTest(CommandTest):
    def test_keys_of_different_databases_are_apart(self) -> None:
        for db in range(16):
            self.assert_replies((f"SELECT {db}", b"OK"), ("GET k", None), (f"SET k {db}", b"OK"))
        for db in range(16):
            self.assert_replies((f"SELECT {db}", b"OK"), ("GET k", b"%d" % db), ("DBSIZE", 1))

    def test_random_commands_answer_the_same_in_every_database(self) -> None:
        seed = random.randrange(1 << 32)
        choose = random.Random(seed)
        clients = {db: Conversation() for db in (0, 3)}
        clients[3]("SELECT", 3)
        history: list[tuple[str, ...]] = []
        for _ in range(4000):
            request = random_request(choose)
            history.append(request)
            step = choose.choice((0, 0, 0, 0.5, 7))
            for client in clients.values():
                client.clock.now += step
            here, there = [comparable(client(*request)) for client in clients.values()]
            self.assertEqual(here, there, f"seed {seed}, after {history[-10:]}")
        self.assertGreater(len({request[0] for request in history}), 45)
        for client in clients.values():
            client.store.check()


def comparable(reply: Reply) -> Reply:
    """Return the reply with refusals as their text, and with every list in one order."""
    reply = plain(reply)
    if isinstance(reply, list):
        return sorted((comparable(each) for each in reply), key=repr)
    return reply


def random_request(choose: random.Random) -> tuple[str, ...]:
    """Return a request that any of our string, key or transaction commands might get."""

    def key() -> str:
        return choose.choice(("a", "b", "c", "d"))

    def value() -> str:
        return choose.choice(("1", "0", "-1", "10", "abc", "", "3.5", str(INT64_MAX), " 1"))

    def seconds() -> str:
        return choose.choice(("1", "10", "100", "0", "-1", "x"))

    def some(*words: str) -> list[str]:
        return choose.sample(words, min(len(words), choose.choice((0, 0, 1, 1, 2))))

    def timing() -> list[str]:
        return choose.choice(([], ["EX", seconds()], ["PX", "1500"], ["KEEPTTL"], ["PERSIST"]))

    def keys() -> list[str]:
        return [key() for _ in range(choose.randint(1, 3))]

    def pairs() -> list[str]:
        return [word for name in keys() for word in (name, value())]

    no_arguments = [
        "DBSIZE",
        "MULTI",
        "EXEC",
        "EXEC",
        "EXEC",
        "DISCARD",
        "UNWATCH",
        "FLUSHDB",
        "PING",
        "NOSUCH",
    ]
    one_key = [
        "GET",
        "GETDEL",
        "STRLEN",
        "INCR",
        "DECR",
        "TYPE",
        "TTL",
        "PTTL",
        "EXPIRETIME",
        "PEXPIRETIME",
        "PERSIST",
        "TOUCH",
        "GET",
    ]
    key_and_value = ["SETNX", "GETSET", "APPEND", "INCRBY", "DECRBY", "INCRBYFLOAT"]
    return choose.choice(
        (
            lambda: (choose.choice(no_arguments),),
            lambda: (choose.choice(one_key), key()),
            lambda: (choose.choice(one_key), key()),
            lambda: (choose.choice(key_and_value), key(), value()),
            lambda: ("SET", key(), value(), *timing(), *some("NX", "XX", "GET")),
            lambda: ("SET", key(), value()),
            lambda: ("GETEX", key(), *timing()),
            lambda: (choose.choice(("SETEX", "PSETEX")), key(), seconds(), value()),
            lambda: (choose.choice(("EXPIRE", "PEXPIRE")), key(), seconds(), *some("NX", "XX")),
            lambda: ("EXPIREAT", key(), "1000100", *some("GT", "LT", "XX")),
            lambda: ("PEXPIREAT", key(), "1000100500", *some("GT", "LT", "NX")),
            lambda: (choose.choice(("MSET", "MSETNX")), *pairs()),
            lambda: (choose.choice(("MGET", "DEL", "UNLINK", "EXISTS", "WATCH")), *keys()),
            lambda: (choose.choice(("GETRANGE", "SUBSTR")), key(), value(), value()),
            lambda: ("SETRANGE", key(), choose.choice(("0", "3", "-1")), value()),
            lambda: (choose.choice(("RENAME", "RENAMENX")), key(), key()),
            lambda: ("COPY", key(), key(), *some("REPLACE"), *choose.choice(([], ["DB", "5"]))),
            lambda: ("MOVE", key(), "5"),
            lambda: ("KEYS", choose.choice(("*", "[ab]", "?", "[^a]", "x*"))),
            lambda: ("SCAN", "0", "MATCH", choose.choice(("*", "[^b]"))),
            lambda: ("OBJECT", "ENCODING", key()),
        )
    )()
