"""Commands of newer servers that look before they write: IFEQ, DELEX, MSETEX, INCREX."""

from __future__ import annotations

from kvdb.errors import OutOfMemory
from kvdb.store.budget import EvictionPolicy
from kvdb.store.entry import DEADLINE_COST
from tests.command_case import NOT_A_FLOAT, NOT_AN_INTEGER, SYNTAX, CommandTest, invalid_expire


class SetIfTest(CommandTest):
    def test_ifeq_sets_only_over_that_value(self) -> None:
        self.assert_replies(
            ("SET k a", b"OK"),
            ("SET k b IFEQ x", None),
            ("GET k", b"a"),
            ("SET k b ifeq a", b"OK"),
            ("GET k", b"b"),
            ("SET missing b IFEQ ''", None),
            ("EXISTS missing", 0),
        )

    def test_ifne_sets_over_all_others_and_over_nothing(self) -> None:
        self.assert_replies(
            ("SET k a IFNE a", b"OK"),
            ("SET k b IFNE a", None),
            ("GET k", b"a"),
            ("SET k b IFNE x", b"OK"),
            ("GET k", b"b"),
        )

    def test_get_answers_the_old_value_whatever_was_done(self) -> None:
        self.assert_replies(
            ("SET k a", b"OK"),
            ("SET k b IFEQ a GET", b"a"),
            ("SET k c GET IFEQ a", b"b"),
            ("SET missing c IFEQ a GET", None),
            ("GET k", b"b"),
        )

    def test_the_deadline_is_as_with_set(self) -> None:
        self.assert_replies(
            ("SET k a EX 10", b"OK"),
            ("SET k b IFEQ x EX 20", None),
            ("TTL k", 10),
            ("SET k b IFEQ a KEEPTTL", b"OK"),
            ("TTL k", 10),
            ("SET k c IFEQ b EX 20", b"OK"),
            ("TTL k", 20),
            ("SET k d IFEQ c", b"OK"),
            ("TTL k", -1),
            ("SET k e IFEQ x EX 0", invalid_expire("set")),
        )

    def test_one_condition_is_enough(self) -> None:
        self.assert_replies(
            ("SET k a IFEQ", SYNTAX),
            ("SET k a IFEQ a NX", SYNTAX),
            ("SET k a XX IFEQ a", SYNTAX),
            ("SET k a IFEQ a IFEQ a", SYNTAX),
            ("SET k a IFEQ a IFNE b", SYNTAX),
            ("GETEX k IFEQ a", SYNTAX),
            ("EXISTS k", 0),
        )

    def test_an_expired_value_equals_nothing(self) -> None:
        self.ask("SET k a EX 10")
        self.talk.clock.now += 10
        self.assert_replies(("SET k b IFEQ a", None), ("SET k b IFNE a", b"OK"))


class DeleteIfTest(CommandTest):
    def test_delifeq(self) -> None:
        self.assert_replies(
            ("SET k a", b"OK"),
            ("DELIFEQ k b", 0),
            ("DELIFEQ k a", 1),
            ("DELIFEQ k a", 0),
            ("EXISTS k", 0),
        )
        self.assert_arity("DELIFEQ k", "DELIFEQ k a b")

    def test_delex(self) -> None:
        self.assert_replies(
            ("SET k a", b"OK"),
            ("DELEX k IFEQ b", 0),
            ("DELEX k ifne a", 0),
            ("DELEX k IFNE b", 1),
            ("DELEX k IFNE b", 0),
            ("SET k a", b"OK"),
            ("DELEX k IFEQ a", 1),
            ("SET k a", b"OK"),
            ("DELEX k", 1),
            ("DELEX k", 0),
        )

    def test_delex_refuses_other_conditions(self) -> None:
        self.ask("SET k a")
        arity = "ERR wrong number of arguments for 'delex' command"
        self.assert_replies(
            ("DELEX k IFEQ", arity),
            ("DELEX k IFEQ a b", arity),
            ("DELEX k FOO a", "ERR Invalid condition. Use IFEQ or IFNE"),
            ("EXISTS k", 1),
        )
        self.assert_arity("DELEX")


class MSetExTest(CommandTest):
    def test_all_are_set_with_one_deadline(self) -> None:
        self.assert_replies(
            ("MSETEX 2 a 1 b 2 EX 10", 1),
            ("MGET a b", [b"1", b"2"]),
            ("TTL a", 10),
            ("TTL b", 10),
            ("MSETEX 1 a 3", 1),
            ("TTL a", -1),
            ("MSETEX 2 a 4 c 5 keepttl", 1),
            ("MSETEX 1 b 6 KEEPTTL", 1),
            ("TTL b", 10),
            ("MSETEX 2 a 7 a 8", 1),
            ("GET a", b"8"),
        )

    def test_nx_and_xx_are_about_all_keys(self) -> None:
        self.assert_replies(
            ("MSETEX 2 a 1 b 2 NX", 1),
            ("MSETEX 2 a 3 c 3 NX", 0),
            ("MSETEX 2 a 3 c 3 XX", 0),
            ("MGET a b c", [b"1", b"2", None]),
            ("MSETEX 2 a 3 b 3 XX PX 5000", 1),
            ("MSETEX 1 a 3 NX NX", 0),
            ("PTTL b", 5000),
        )

    def test_a_moment_that_has_passed_deletes(self) -> None:
        self.assert_replies(("MSETEX 2 a 1 b 2", 1), ("MSETEX 2 a 1 b 2 EXAT 1", 1))
        self.assertEqual(self.ask("EXISTS a b"), 0)

    def test_wrong_requests_change_nothing(self) -> None:
        numkeys = "ERR invalid numkeys value or out of range"
        self.assert_replies(
            ("MSETEX 0 a 1", numkeys),
            ("MSETEX -1 a 1", numkeys),
            ("MSETEX x a 1", numkeys),
            ("MSETEX 2147483648 a 1", numkeys),
            ("MSETEX 2147483647 a 1", SYNTAX),
            ("MSETEX 2 a 1", SYNTAX),
            ("MSETEX 1 a 1 b 2", SYNTAX),
            ("MSETEX 1 a 1 FOO", SYNTAX),
            ("MSETEX 1 a 1 IFEQ 1", SYNTAX),
            ("MSETEX 1 a 1 NX XX", SYNTAX),
            ("MSETEX 1 a 1 EX 1 PX 1", SYNTAX),
            ("MSETEX 1 a 1 EX", SYNTAX),
            ("MSETEX 1 a 1 EX x", NOT_AN_INTEGER),
            ("MSETEX 1 a 1 EX 0", invalid_expire("msetex")),
            ("DBSIZE", 0),
        )
        self.assert_arity("MSETEX", "MSETEX 1", "MSETEX 1 a")

    def test_its_keys_are_counted_not_numbered(self) -> None:
        [row] = self.ask("COMMAND INFO msetex")
        self.assertIn(b"movablekeys", row[2])
        self.assertEqual((row[1], row[3:6]), (-4, [0, 0, 0]))
        [spec] = row[8]
        self.assertEqual(spec[b"begin_search"][b"spec"], {b"index": 1})
        self.assertEqual(
            spec[b"find_keys"],
            {b"type": b"keynum", b"spec": {b"keynumidx": 0, b"firstkey": 1, b"keystep": 2}},
        )
        invalid = "ERR Invalid arguments specified for command"
        self.assert_replies(
            ("COMMAND GETKEYS MSETEX 2 a 1 b 2 EX 10", [b"a", b"b"]),
            ("COMMAND GETKEYS MSETEX 3 a 1 b 2", invalid),
            ("COMMAND GETKEYS MSETEX 0 a 1", invalid),
            ("COMMAND GETKEYS MSETEX x a 1", invalid),
        )

    def test_keys_are_of_the_chosen_database(self) -> None:
        self.assert_replies(
            ("SELECT 2", b"OK"), ("MSETEX 2 a 1 b 2", 1), ("MGET a b", [b"1", b"2"]),
            ("SELECT 0", b"OK"), ("DBSIZE", 0),
        )  # fmt: skip

    def test_without_room_for_all_none_is_set(self) -> None:
        store = self.talk.store
        self.ask("SET a 1")
        cost = store.used_bytes
        self.ask("SET c 1")
        store.policy = EvictionPolicy.NOEVICTION
        store.max_bytes = 3 * cost + 2 * DEADLINE_COST - 1
        oom = OutOfMemory().text
        self.assert_replies(
            ("MSETEX 2 a 2 b 2 EX 10", oom),
            ("MGET a b", [b"1", None]),
            ("MSETEX 2 a 2 b 2", 1),
        )


class IncrExTest(CommandTest):
    def test_it_answers_the_value_and_what_was_added(self) -> None:
        self.assert_replies(
            ("INCREX n", [1, 1]),
            ("INCREX n BYINT 5", [6, 5]),
            ("INCREX n byint -10", [-4, -10]),
            ("GET n", b"-4"),
            ("INCREX f BYFLOAT 1.5", [b"1.5", b"1.5"]),
            ("INCREX f BYFLOAT -0.25", [b"1.25", b"-0.25"]),
            ("INCREX n BYFLOAT 0.5", [b"-3.5", b"0.5"]),
            ("INCREX n", NOT_AN_INTEGER),
        )

    def test_decimals_are_doubles_in_resp3(self) -> None:
        self.talk.session.version = 3
        self.assertEqual(self.ask("INCREX f BYFLOAT 1.5"), [1.5, 1.5])
        self.assertEqual(self.ask("INCREX n"), [1, 1])

    def test_beyond_a_bound_nothing_changes(self) -> None:
        self.ask("SET n 10 EX 100")
        self.assert_replies(
            ("INCREX n BYINT 5 UBOUND 14 EX 5", [10, 0]),
            ("INCREX n BYINT -5 LBOUND 6 PERSIST", [10, 0]),
            ("INCREX n BYINT 5 UBOUND 15", [15, 5]),
            ("TTL n", 100),
            ("INCREX n BYFLOAT 1 UBOUND 15.5", [b"15", b"0"]),
            ("INCREX n BYINT -1 UBOUND 3", [15, 0]),
            ("INCREX n BYINT -12 UBOUND 3", [3, -12]),
            ("INCREX missing BYINT 5 LBOUND 10", [0, 0]),
            ("EXISTS missing", 0),
            ("SET most 9223372036854775807", b"OK"),
            ("INCREX most", [2**63 - 1, 0]),
        )

    def test_saturate_stops_at_the_bound(self) -> None:
        self.ask("SET n 10")
        self.assert_replies(
            ("INCREX n BYINT 100 UBOUND 80 SATURATE EX 9", [80, 70]),
            ("TTL n", 9),
            ("INCREX n BYINT -100 LBOUND 0 SATURATE", [0, -80]),
            ("INCREX n BYINT 5 UBOUND -5 SATURATE", [-5, -5]),
            ("INCREX new LBOUND 5 SATURATE", [5, 5]),
            ("INCREX f BYFLOAT 100 UBOUND 42.5 SATURATE", [b"42.5", b"42.5"]),
            ("SET n 9223372036854775800", b"OK"),
            ("INCREX n BYINT 9223372036854775800 SATURATE", [2**63 - 1, 7]),
            ("INCREX n UBOUND -9223372036854775808 SATURATE",
             "ERR applied increment would overflow"),
            ("GET n", b"9223372036854775807"),
        )  # fmt: skip

    def test_infinity_is_a_bound_and_nothing_else(self) -> None:
        self.ask("SET n 10")
        order = "ERR LBOUND can't be greater than UBOUND"
        self.assert_replies(
            ("INCREX n BYFLOAT 1 UBOUND inf LBOUND -inf", [b"11", b"1"]),
            ("INCREX n BYFLOAT 1 UBOUND -inf", order),
            ("INCREX n BYFLOAT 1 LBOUND -inf UBOUND -inf", [b"11", b"0"]),
            ("INCREX n BYFLOAT 1 LBOUND inf UBOUND inf SATURATE",
             "ERR applied increment would be Infinity"),
            ("INCREX n BYFLOAT +inf", "ERR BYFLOAT increment cannot be Infinity"),
            ("SET n -inf", b"OK"),
            ("INCREX n BYFLOAT 1", "ERR value cannot be Infinity"),
        )  # fmt: skip

    def test_what_becomes_of_the_deadline(self) -> None:
        self.assert_replies(
            ("INCREX n EX 10 ENX", [1, 1]),
            ("INCREX n EX 20 ENX", [2, 1]),
            ("TTL n", 10),
            ("INCREX n", [3, 1]),
            ("TTL n", 10),
            ("INCREX n PX 20000", [4, 1]),
            ("TTL n", 20),
            ("INCREX n EXAT 1 ENX", [5, 1]),
            ("TTL n", 20),
            ("INCREX n PERSIST", [6, 1]),
            ("TTL n", -1),
            ("INCREX n EXAT 1", [7, 1]),
            ("EXISTS n", 0),
        )

    def test_nx_and_xx(self) -> None:
        self.assert_replies(
            ("INCREX n XX", None),
            ("EXISTS n", 0),
            ("INCREX n NX", [1, 1]),
            ("INCREX n NX", None),
            ("INCREX n XX", [2, 1]),
        )

    def test_wrong_requests_change_nothing(self) -> None:
        self.ask("SET n 1")
        for options in (
            "FOO", "BYINT", "BYINT 1 BYFLOAT 1", "BYINT 1 BYINT 1", "EX 1 PX 1", "EX 1 PERSIST",
            "PERSIST ENX", "ENX ENX EX 1", "SATURATE SATURATE", "LBOUND 1 LBOUND 1", "NX XX",
            "UBOUND", "EX", "KEEPTTL",
        ):  # fmt: skip
            self.assert_replies((f"INCREX n {options}", SYNTAX))
        order = "ERR LBOUND can't be greater than UBOUND"
        self.assert_replies(
            ("INCREX n ENX", "ERR ENX flag requires an expiration"),
            ("INCREX n BYINT 1.5", "ERR Increment is not an integer or out of range"),
            ("INCREX n BYFLOAT x", "ERR Increment is not a valid float"),
            ("INCREX n LBOUND x", "ERR LBOUND is not an integer or out of range"),
            ("INCREX n UBOUND inf", "ERR UBOUND is not an integer or out of range"),
            ("INCREX n BYFLOAT 1 UBOUND x", "ERR UBOUND is not a valid float"),
            ("INCREX n LBOUND 10 UBOUND 5", order),
            ("INCREX n EX 0", invalid_expire("increx")),
            ("INCREX n EX x", NOT_AN_INTEGER),
            ("SET s x", b"OK"),
            ("INCREX s", NOT_AN_INTEGER),
            ("INCREX s BYFLOAT 1", NOT_A_FLOAT),
            ("GET n", b"1"),
        )
        self.assert_arity("INCREX")
