from __future__ import annotations

from tests.command_case import (
    NOT_A_FLOAT,
    NOT_AN_INTEGER,
    SYNTAX,
    CommandTest,
    invalid_expire,
    wrong_arity,
)
from tests.support import Conversation

OVERFLOW = "ERR increment or decrement would overflow"
NOT_FINITE = "ERR increment would produce NaN or Infinity"
INT64_MAX = 2**63 - 1
EVERY_BYTE = bytes(range(256))


class GetAndSetTest(CommandTest):
    def test_a_value_is_kept_as_it_was_given(self) -> None:
        for name, value in ((b"k", b"v"), (b"", b""), (EVERY_BYTE, EVERY_BYTE)):
            with self.subTest(key=name):
                self.assertEqual(self.talk("SET", name, value), b"OK")
                self.assertEqual(self.talk("GET", name), value)

    def test_names_are_free_of_case_and_keys_are_not(self) -> None:
        self.assert_replies(("sEt k lower", b"OK"), ("set K upper ex 10 nx", b"OK"))
        self.assert_replies(("get k", b"lower"), ("gEt K", b"upper"), ("ttl K", 10))

    def test_a_missing_key_is_nil(self) -> None:
        self.assert_replies(("GET k", None), ("GETSET k v", None), ("GETDEL nokey", None))

    def test_get_counts_hits_and_misses(self) -> None:
        self.assert_replies(("SET k v", b"OK"), ("GET k", b"v"), ("GET nokey", None))
        self.assertEqual((self.talk.store.hits, self.talk.store.misses), (1, 1))

    def test_a_wrong_number_of_arguments_is_refused(self) -> None:
        self.assert_arity(
            "GET", "GET a b", "SET a", "SETNX a", "SETNX a b c", "SETEX a 10", "PSETEX a 10"
        )
        self.assert_arity("GETSET a", "GETDEL", "GETDEL a b", "GETEX", "MGET", "MSET", "MSET a")
        self.assert_arity("MSET a 1 b", "MSETNX a", "MSETNX a 1 b", "APPEND a", "STRLEN", "INCR")
        self.assert_arity("GETRANGE a 1", "SUBSTR a 0", "SETRANGE a 1", "INCR a b", "DECR")
        self.assert_arity("INCRBY a", "DECRBY a", "INCRBYFLOAT a", "INCRBYFLOAT a 1 2")

    def test_the_limit_of_a_value_is_named(self) -> None:
        talk = Conversation(max_value_bytes=10)
        text = (
            "ERR string exceeds maximum allowed size (proto-max-bulk-len, 10 bytes; "
            "--max-value-mb sets it)"
        )
        self.assert_replies(
            ("SETRANGE k 10 ''", 0),
            ("SETRANGE k 10 x", text),
            ("SETRANGE k 536870912 x", text),
            ("SETRANGE k 9223372036854775807 x", text),
            ("EXISTS k", 0),
            ("SETRANGE k 9 x", 10),
            ("APPEND k ''", 10),
            ("APPEND k x", text),
            ("STRLEN k", 10),
            talk=talk,
        )

    def test_an_entry_larger_than_the_budget_is_refused_and_evicts_nothing(self) -> None:
        talk = Conversation(max_bytes=10_000)
        talk("SET", "old", "v")
        for request in (("SET", "k"), ("GETSET", "k"), ("APPEND", "old"), ("MSET", "a", 1, "k")):
            with self.subTest(request=request):
                self.assertRegex(
                    talk.error(*request, b"x" * 10_000), "^ERR entry of .* larger than the whole"
                )
        self.assertEqual(talk("MGET", "old", "k", "a"), [b"v", None, None])

    def test_when_nothing_may_be_evicted_writes_are_refused_and_reads_go_on(self) -> None:
        talk = Conversation(max_bytes=1_800)
        talk("CONFIG", "SET", "maxmemory-policy", "noeviction")
        written = 0
        while talk("SET", written, b"x" * 100) == b"OK":
            written += 1
        self.assertGreater(written, 2)
        self.assertEqual(
            talk.error("INCR", "n"), "OOM command not allowed when used memory > 'maxmemory'."
        )
        self.assertEqual((talk("STRLEN", 0), talk("DEL", 0), talk("DBSIZE")), (100, 1, written - 1))


class SetOptionsTest(CommandTest):
    def test_nx_sets_only_a_new_key_and_xx_only_an_old_one(self) -> None:
        self.assert_replies(
            ("SET a 1 XX", None),
            ("EXISTS a", 0),
            ("SET a 1 NX", b"OK"),
            ("SET a 2 NX", None),
            ("GET a", b"1"),
            ("SET a 3 xx", b"OK"),
            ("GET a", b"3"),
            ("SET a 4 NX XX", SYNTAX),
            ("SET a 4 NX NX", None),
        )

    def test_get_returns_the_value_before_whether_or_not_it_was_replaced(self) -> None:
        self.assert_replies(
            ("SET a 1 GET", None),
            ("SET a 2 GET EX 10", b"1"),
            ("TTL a", 10),
            ("SET a 3 NX GET", b"2"),
            ("GET a", b"2"),
            ("SET new 1 NX GET", None),
            ("GET new", b"1"),
            ("SET nokey 1 XX GET", None),
            ("EXISTS nokey", 0),
            ("SET a 9 GET EX 0", invalid_expire("set")),
            ("GET a", b"2"),
        )

    def test_a_deadline_can_be_given_in_four_ways(self) -> None:
        now = int(self.talk.clock.now)
        for option, number in (
            ("EX", 10),
            ("PX", 10_000),
            ("EXAT", now + 10),
            ("PXAT", (now + 10) * 1000),
        ):
            for command in ("SET k v", "GETEX k"):
                with self.subTest(command=command, option=option):
                    self.talk("SET", "k", "v")
                    self.assertIn(self.ask(f"{command} {option} {number}"), (b"OK", b"v"))
                    self.assertEqual(self.talk("PTTL", "k"), 10_000)
                    self.talk.clock.now += 9.999
                    self.assertEqual(self.talk("GET", "k"), b"v")
                    self.talk.clock.now += 0.001
                    self.assertIsNone(self.talk("GET", "k"))
                    self.talk.clock.now -= 10

    def test_set_clears_an_old_deadline_unless_told_to_keep_it(self) -> None:
        self.assert_replies(
            ("SET k 1 EX 100", b"OK"),
            ("SET k 2 KEEPTTL", b"OK"),
            ("TTL k", 100),
            ("SET k 3 XX KEEPTTL GET", b"2"),
            ("TTL k", 100),
            ("SET k 4", b"OK"),
            ("TTL k", -1),
            ("SET new 1 KEEPTTL", b"OK"),
            ("TTL new", -1),
        )

    def test_a_moment_that_has_passed_leaves_no_key(self) -> None:
        for line in ("SET k v EXAT 1", "SET k v PXAT 1", "GETEX k EXAT 1", "GETEX k PXAT 1"):
            with self.subTest(line):
                self.talk("SET", "k", "v")
                self.ask(line)
                self.assertEqual((self.talk("EXISTS", "k"), self.talk("DBSIZE")), (0, 0))

    def test_a_deadline_that_cannot_be_is_refused_and_the_key_is_unchanged(self) -> None:
        self.talk("SET", "k", "v", "EX", 100)
        invalid = ["EX 0", "EX -1", f"EX {INT64_MAX}", "EX 9223372036854775", f"PX {INT64_MAX}"]
        invalid += ["EXAT 0", "EXAT -1", "EXAT 9223372036854776", "PXAT 0", "PX -9"]
        table = [(option, "ERR invalid expire time in '{}' command") for option in invalid]
        table += [
            (f"EX {word}", NOT_AN_INTEGER)
            for word in ("x", "1.5", "+5", "''", "' 5'", INT64_MAX + 1)
        ]
        for option, text in table:
            self.assert_replies(
                (f"SET k new {option}", text.format("set")),
                (f"GETEX k {option}", text.format("getex")),
            )
        self.assert_replies(("GET k", b"v"), ("TTL k", 100))

    def test_setex_and_psetex_set_value_and_deadline(self) -> None:
        self.assert_replies(
            ("SETEX k 10 v", b"OK"),
            ("PTTL k", 10_000),
            ("PSETEX k 1500 w", b"OK"),
            ("PTTL k", 1500),
            ("TTL k", 2),
        )
        for name in ("setex", "psetex"):
            self.assert_replies(
                (f"{name} k 0 x", invalid_expire(name)),
                (f"{name} k -5 x", invalid_expire(name)),
                (f"{name} k {INT64_MAX} x", invalid_expire(name)),
                (f"{name} k x x", NOT_AN_INTEGER),
                ("GET k", b"w"),
            )

    def test_options_that_do_not_go_together_are_a_syntax_error(self) -> None:
        self.talk("SET", "k", "v")
        for options in ("FOO", "EX", "PX", "EX 10 PX 10", "EX 10 KEEPTTL", "KEEPTTL EX 10"):
            self.assert_replies((f"SET k w {options}", SYNTAX), (f"GETEX k {options}", SYNTAX))
        self.assert_replies(
            ("SET k w PERSIST", SYNTAX),
            ("GETEX k KEEPTTL", SYNTAX),
            ("GETEX k NX", SYNTAX),
            ("GETEX k GET", SYNTAX),
            ("GETEX k PERSIST EX 10", SYNTAX),
            ("GETEX k EX 10 PERSIST", SYNTAX),
        )
        # Redis 7 takes the last of two EX; a request that contradicts itself is refused here.
        self.assert_replies(("SET k w EX 10 EX 20", SYNTAX), ("GETEX k EX 10 EX 20", SYNTAX))
        self.assert_replies(("GET k", b"v"), ("TTL k", -1))


class OneKeyTest(CommandTest):
    def test_setnx_sets_only_a_new_key(self) -> None:
        self.assert_replies(("SETNX k 1", 1), ("SETNX k 2", 0), ("GET k", b"1"))

    def test_setnx_sets_a_key_that_has_expired(self) -> None:
        self.talk("SET", "k", "old", "EX", 10)
        self.talk.clock.now += 10
        self.assert_replies(("SETNX k new", 1), ("GET k", b"new"), ("TTL k", -1))

    def test_getset_returns_the_value_before_and_clears_the_deadline(self) -> None:
        self.assert_replies(
            ("SET k 1 EX 100", b"OK"), ("GETSET k 2", b"1"), ("GET k", b"2"), ("TTL k", -1)
        )

    def test_getdel_returns_the_value_once(self) -> None:
        self.assert_replies(("SET k v", b"OK"), ("GETDEL k", b"v"), ("GETDEL k", None))
        self.assert_replies(("DBSIZE", 0))

    def test_getex_without_options_leaves_the_deadline(self) -> None:
        self.assert_replies(("SET k v EX 100", b"OK"), ("GETEX k", b"v"), ("TTL k", 100))

    def test_getex_persist_takes_the_deadline_away(self) -> None:
        self.assert_replies(
            ("SET k v EX 100", b"OK"),
            ("GETEX k persist", b"v"),
            ("TTL k", -1),
            ("GETEX k PERSIST", b"v"),
        )

    def test_getex_of_a_missing_key_makes_none(self) -> None:
        self.assert_replies(("GETEX k EX 10", None), ("GETEX k PERSIST", None), ("EXISTS k", 0))

    def test_getex_persist_without_a_deadline_is_not_a_write(self) -> None:
        self.talk("SET", "k", "v")
        before = self.talk.store.changes
        self.assert_replies(("GETEX k PERSIST", b"v"), ("GETEX k", b"v"))
        self.assertEqual(self.talk.store.changes, before)

    def test_append_makes_or_lengthens_a_value_and_keeps_its_deadline(self) -> None:
        self.assert_replies(
            ("APPEND k hello", 5),
            ("EXPIRE k 100", 1),
            ("APPEND k ' world'", 11),
            ("APPEND k ''", 11),
            ("GET k", b"hello world"),
            ("TTL k", 100),
            ("APPEND empty ''", 0),
            ("EXISTS empty", 1),
        )

    def test_strlen_counts_bytes(self) -> None:
        self.assert_replies(("SET k grün", b"OK"), ("STRLEN k", 5), ("STRLEN nokey", 0))

    def test_getrange_counts_both_ends_and_from_the_end(self) -> None:
        text = "This is a string"
        self.talk("SET", "k", text)
        for command in ("GETRANGE", "SUBSTR"):
            for first, last, expected in (
                (0, 3, b"This"),
                (-3, -1, b"ing"),
                (0, -1, text.encode()),
                (10, 100, b"string"),
                (5, 3, b""),
                (-1, -3, b""),
                (-100, 3, b"This"),
                (-100, -50, b"T"),  # both ends are moved to the first byte
                (0, -100, b"T"),
                (-1, -100, b""),
                (-50, -100, b""),
                (0, 0, b"T"),
                (-3, 5, b""),
                (-16, -16, b"T"),
                (16, 16, b""),
                (100, 200, b""),
                (0, INT64_MAX, text.encode()),
                (-(2**63), -1, text.encode()),
                (INT64_MAX, INT64_MAX, b""),
            ):
                with self.subTest(command=command, first=first, last=last):
                    self.assertEqual(self.talk(command, "k", first, last), expected)

    def test_getrange_of_nothing_is_empty_and_its_ends_must_be_integers(self) -> None:
        self.assert_replies(
            ("GETRANGE nokey 0 -1", b""),
            ("SET k ''", b"OK"),
            ("GETRANGE k 0 -1", b""),
            ("GETRANGE k -1 -1", b""),
            ("GETRANGE k a 1", NOT_AN_INTEGER),
            ("GETRANGE k 0 1.5", NOT_AN_INTEGER),
            (f"SUBSTR k 0 {INT64_MAX + 1}", NOT_AN_INTEGER),
        )

    def test_setrange_overwrites_and_pads_with_zero_bytes(self) -> None:
        self.assert_replies(
            ("SETRANGE k 3 x", 4),
            ("GET k", b"\0\0\0x"),
            ("EXPIRE k 100", 1),
            ("SETRANGE k 0 ab", 4),
            ("GET k", b"ab\0x"),
            ("SETRANGE k 1 BCDEF", 6),
            ("GET k", b"aBCDEF"),
            ("SETRANGE k 7 z", 8),
            ("GET k", b"aBCDEF\0z"),
            ("TTL k", 100),
        )

    def test_setrange_of_nothing_changes_nothing(self) -> None:
        self.assert_replies(
            ("SETRANGE nokey 10 ''", 0),
            ("EXISTS nokey", 0),
            ("SET k abc", b"OK"),
            ("SETRANGE k 536870912 ''", 3),
            ("GET k", b"abc"),
        )

    def test_setrange_refuses_an_offset_that_is_none(self) -> None:
        out_of_range = "ERR offset is out of range"
        self.assert_replies(
            ("SETRANGE k -1 x", out_of_range),
            ("SETRANGE k -1 ''", out_of_range),
            ("SETRANGE k x x", NOT_AN_INTEGER),
            ("EXISTS k", 0),
        )


class ManyKeysTest(CommandTest):
    def test_mget_answers_in_the_order_of_the_keys(self) -> None:
        self.assert_replies(("MSET a 1 b 2", b"OK"), ("MGET b nokey a b", [b"2", None, b"1", b"2"]))

    def test_mset_replaces_values_and_deadlines_and_the_last_of_a_key_counts(self) -> None:
        self.assert_replies(
            ("SET a 0 EX 100", b"OK"),
            ("MSET a 1 b 2 a 3", b"OK"),
            ("MGET a b", [b"3", b"2"]),
            ("TTL a", -1),
        )

    def test_mset_with_a_value_missing_sets_nothing(self) -> None:
        for name in ("mset", "msetnx"):
            self.assert_replies((f"{name} a 1 b", wrong_arity(name)), ("DBSIZE", 0))

    def test_msetnx_sets_all_or_nothing(self) -> None:
        self.assert_replies(
            ("MSETNX a 1 b 2", 1),
            ("MSETNX c 3 a 4", 0),
            ("MGET a b c", [b"1", b"2", None]),
            ("MSETNX x 1 y 2 x 3", 1),
            ("GET x", b"3"),
        )


class CounterTest(CommandTest):
    def test_counters_begin_at_zero_and_go_both_ways(self) -> None:
        self.assert_replies(
            ("INCR n", 1),
            ("INCRBY n 10", 11),
            ("DECR n", 10),
            ("DECRBY n 30", -20),
            ("INCRBY n -5", -25),
            ("DECRBY n -5", -20),
            ("GET n", b"-20"),
            ("DECR other", -1),
        )

    def test_counting_keeps_the_deadline(self) -> None:
        self.assert_replies(("SET n 5 EX 100", b"OK"), ("INCR n", 6), ("INCRBYFLOAT n 0.5", b"6.5"))
        self.assert_replies(("TTL n", 100))

    def test_only_an_integer_to_the_letter_can_be_counted(self) -> None:
        for value in [
            "+5",
            " 5",
            "5 ",
            "1_0",
            "1.5",
            "",
            "05",
            "-0",
            "00",
            "-",
            "abc",
            "1e3",
            "9223372036854775808",
            "٣",
        ]:
            with self.subTest(value=value):
                self.talk("SET", "n", value)
                for request in ("INCR", "DECR"):
                    self.assertEqual(self.talk.error(request, "n"), NOT_AN_INTEGER)
                for request in ("INCRBY", "DECRBY"):
                    self.assertEqual(self.talk.error(request, "n", 1), NOT_AN_INTEGER)
                    self.assertEqual(self.talk.error(request, "nokey", value), NOT_AN_INTEGER)
                self.assertEqual(self.talk("GET", "n"), value.encode())

    def test_an_integer_of_thousands_of_digits_is_none(self) -> None:
        self.talk("SET", "n", "1" * 5000)
        self.assertEqual(self.talk.error("INCR", "n"), NOT_AN_INTEGER)
        self.assertEqual(self.talk.error("INCRBY", "k", "1" * 5000), NOT_AN_INTEGER)

    def test_counters_do_not_pass_the_bounds_of_64_bits(self) -> None:
        self.assert_replies(
            (f"SET n {INT64_MAX}", b"OK"),
            ("INCR n", OVERFLOW),
            ("INCRBY n 0", INT64_MAX),
            ("DECRBY n -1", OVERFLOW),
            (f"INCRBY n {-(2**63)}", -1),
            (f"DECRBY n {INT64_MAX}", -(2**63)),
            ("DECR n", OVERFLOW),
            ("DECRBY n 1", OVERFLOW),
            ("INCR n", -INT64_MAX),
            (f"DECRBY n {-(2**63)}", "ERR decrement would overflow"),
        )

    def test_incrbyfloat_writes_no_exponent_and_no_trailing_zeros(self) -> None:
        for value, increment, expected in (
            (None, "1.5", b"1.5"),
            ("10.50", "0.1", b"10.6"),
            ("0.1", "0.2", b"0.3"),
            ("3", "1.1", b"4.1"),
            ("5.0e3", "200", b"5200"),
            ("5", "5.", b"10"),
            ("-1.5", "1.5", b"0"),
            ("-0", "0", b"0"),
            ("1", ".5", b"1.5"),
            ("1", "+1", b"2"),
            ("1", "-1E1", b"-9"),
            ("1", "1e-5", b"1.00001"),
            ("0.00000000000000001", "0.00000000000000001", b"0.00000000000000002"),
            ("1", "0.000000000000000001", b"1"),  # beyond the 17 decimals
            ("100", "0", b"100"),
        ):
            with self.subTest(value=value, increment=increment):
                self.talk("DEL", "f") if value is None else self.talk("SET", "f", value)
                self.assertEqual(self.talk("INCRBYFLOAT", "f", increment), expected)
                self.assertEqual(self.talk("GET", "f"), expected)

    def test_what_is_no_number_is_not_added(self) -> None:
        for word in ("abc", "", " 1", "1 ", "1_0", "nan", "1e5000", "1e", ".", "-", "1.2.3", "٣"):
            with self.subTest(word=word):
                self.talk("SET", "f", "1")
                self.assertEqual(self.talk.error("INCRBYFLOAT", "f", word), NOT_A_FLOAT)
                self.assertEqual(self.talk("GET", "f"), b"1")
                self.talk("SET", "f", word)
                self.assertEqual(self.talk.error("INCRBYFLOAT", "f", 1), NOT_A_FLOAT)

    def test_a_sum_that_is_not_finite_is_refused(self) -> None:
        for word in ("inf", "-inf", "Infinity"):
            with self.subTest(word=word):
                self.assertEqual(self.talk.error("INCRBYFLOAT", "f", word), NOT_FINITE)
        with self.subTest("past the largest long double"):
            self.talk("SET", "f", "1e4932")
            self.assertEqual(self.talk.error("INCRBYFLOAT", "f", "1e4932"), NOT_FINITE)
