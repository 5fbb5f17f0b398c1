"""The memcached port, meta commands."""

from __future__ import annotations

import unittest

from kvdb.commands.instance import Instance
from kvdb.commands.session import Session
from kvdb.config import Config
from kvdb.protocols.memcached import Memcached
from kvdb.store import Store
from kvdb.store.entry import NOTE_COST
from tests.support import TickingClock
from tests.test_memcached import Port, PortCase


class MetaGetTest(PortCase):
    def test_flags_come_back_in_the_order_of_the_request(self) -> None:
        self.port("set k 5 100 2|hi")
        self.check(
            ("mg k", "HD|"),
            ("mg k s v f t k O1", "VA 2 s2 f5 t100 kk O1|hi|"),
            ("mg k O1 q t f", "HD O1 t100 f5|"),
            ("mg k T200 t", "HD t200|"),
            ("mg no k O1 v", "EN kno O1|"),
            ("mg no k O1 v q", ""),
        )

    def test_what_is_not_well_formed_is_refused(self) -> None:
        self.port("set k 0 0 1|1")
        for flags, text in (
            ("v v", "duplicate flag"), ("z", "invalid flag"), ("Tx", "bad token in command line format"),
            ("N", "bad token in command line format"), ("C-1", "bad token in command line format"),
            ("M", "incorrect length for M token"), ("O" + "x" * 32, "opaque token too long"),
            ("b", "error decoding key"),
        ):  # fmt: skip
            self.check((f"mg k {flags}", f"CLIENT_ERROR {text}|"))
        flags = "b c f h k l q s t u v I J1 L O P R1"
        self.port("set Zm9v 0 0 1|1")
        self.assertNotIn("ERROR", self.port(f"mg Zm9v {flags}"))
        self.check((f"mg Zm9v {flags} T1", "CLIENT_ERROR options flags are too long|"))
        for name in ("md Zm9v", "ma Zm9v"):
            self.check((f"{name} {flags} T1", "CLIENT_ERROR options flags too long|"))
        self.check((f"ms Zm9v 9 {flags}|flush_all", "CLIENT_ERROR options flags too long|"))
        for name in ("md", "ma"):
            for flags in ("k k", "z", "Tx", "M", "b"):
                self.check((f"{name} k {flags}", "CLIENT_ERROR invalid or duplicate flag|"))
        self.assert_in_step()

    def test_a_miss_may_vivify_and_one_client_wins(self) -> None:
        self.check(
            ("mg k N30 v t", "VA 0 t30 W||"),
            ("mg k N30 v t", "VA 0 t30 Z||"),
            ("ms k 2 T100|hi", "HD|"),
            ("mg k N30 v t", "VA 2 t100|hi|"),
        )

    def test_one_client_is_told_to_recache_before_the_end(self) -> None:
        self.port("set k 0 100 2|hi")
        self.check(("mg k R30", "HD|"))
        self.port.clock.now += 80
        self.check(("mg k R30", "HD W|"), ("mg k R30", "HD Z|"), ("set k 0 100 1|1", "STORED|"))
        self.check(("mg k R30", "HD|"))

    def test_base64_keys_are_the_keys_that_they_decode_to(self) -> None:
        self.check(
            ("ms Zm9v 3 b|bar", "HD|"),
            ("get foo", "VALUE foo 0 3|bar|END|"),
            ("mg Zm9v b k v", "VA 3 kZm9v b|bar|"),
            ("ms AAEg 1 b|x", "HD|"),
            ("mg AAEg b v", "VA 1|x|"),
            ("md AAEg b", "HD|"),
            ("mg Zm9v= b", "CLIENT_ERROR error decoding key|"),
        )
        self.assertEqual(self.port.resp("GET", "foo"), b"bar")


class MetaSetTest(PortCase):
    def test_modes(self) -> None:
        self.check(
            ("ms k 1 ME F3 T100|b", "HD|"),
            ("ms k 1 ME|x", "NS|"),
            ("ms k 1 MA|c", "HD|"),
            ("ms k 1 MP|a", "HD|"),
            ("mg k v f t", "VA 3 f3 t100|abc|"),
            ("ms k 1 MR|r", "HD|"),
            ("ms no 1 MR|r", "NS|"),
            ("ms no 1 MA k O1 q|r", "NS kno O1|"),
            ("ms k 1 MS q|s", ""),
            ("ms k 2 MP s k|pp", "HD s3 kk|"),
            ("ms k 1 ME s|x", "NS|"),
            ("ms k 2 s|xx", "HD s2|"),
            ("ms new 1 MA N100|a", "HD|"),
            ("mg new v t", "VA 1 t100|a|"),
            ("ms k 1 MX|x", "CLIENT_ERROR invalid mode for ms M token|"),
            ("ms k 1 MSS|x", "CLIENT_ERROR incorrect length for M token|"),
            ("ms k 1 F4294967296|x", "CLIENT_ERROR bad command line format|"),
            ("ms k 1|xyz", "CLIENT_ERROR bad data chunk|ERROR|"),
        )

    def test_a_token_is_compared(self) -> None:
        self.port("set k 0 0 1|1")
        token = self.port.token()
        self.check(
            (f"ms k 1 C{token}|2", "HD|"),
            (f"ms k 1 C{token} O1 k q|3", "EX O1 kk|"),
            (f"ms no 1 C{token}|3", "NF|"),
            (f"md k C{token} q", "EX|"),
            (f"ma k C{token}", "EX|"),
        )
        self.check((f"md k C{self.port.token()} q", ""), ("mg k", "EN|"))

    def test_a_length_that_nobody_can_know_closes(self) -> None:
        for words in ("k", "k x", "k -1"):
            port = Port()
            self.assertEqual(port(f"ms {words}"), "CLIENT_ERROR bad command line format\r\n")
            self.assertTrue(port.dialect.closing)

    def test_a_value_too_large_drops_the_old_one(self) -> None:
        self.port = Port(max_value_bytes=10)
        self.port("set k 0 0 1|1")
        too_large = "SERVER_ERROR object too large for cache|"
        self.check(("ms k 11|12345678901", too_large), ("mg k", "EN|"))
        self.assert_in_step()


class MetaDeleteTest(PortCase):
    def test_delete(self) -> None:
        self.port("set k 0 0 1|1")
        self.check(("md k k O1", "HD kk O1|"), ("md k O1", "NF O1|"), ("md", "ERROR|"))

    def test_an_invalidated_value_is_stale_and_one_client_wins(self) -> None:
        self.port("set k 0 0 2|hi")
        self.check(
            ("md k I T30", "HD|"),
            ("mg k v t", "VA 2 t30 X W|hi|"),
            ("mg k v", "VA 2 Z X|hi|"),
        )
        token = self.port.token()
        self.check((f"ms k 3 C{token}|new", "HD|"), ("mg k v", "VA 3|new|"))

    def test_an_older_token_may_store_what_is_known_to_be_stale(self) -> None:
        self.port("set k 0 0 2|hi")
        token = self.port.token()
        self.port("md k I")
        self.check(
            (f"ms k 3 C{token}|old", "EX|"),
            (f"ms k 3 I C{token}|old", "HD|"),
            ("mg k v", "VA 3 X W|old|"),
            (f"ms k 3 I C{int(self.port.token()) + 1}|new", "EX|"),
            (f"ms k 3 I C{2**64 - 1}|new", "EX|"),
            ("mg k v", "VA 3 Z X|old|"),
        )

    def test_a_write_through_resp_ends_staleness(self) -> None:
        self.port("set k 0 0 2|hi")
        self.port("md k I")
        self.port.resp("SET", "k", "new")
        self.check(("mg k v", "VA 3|new|"))

    def test_x_empties_the_value(self) -> None:
        self.port("set k 5 0 2|hi")
        self.check(("md k x", "HD|"), ("mg k v f", "VA 0 f0||"))


class MetaArithmeticTest(PortCase):
    def test_modes_and_flags(self) -> None:
        self.check(
            ("ma n", "NF|"),
            ("ma n N100 J13 v t", "VA 2 t100|13|"),
            ("ma n N100 J13 v", "VA 2|14|"),
            ("ma n D5 v k O1", "VA 2 kn O1|19|"),
            ("ma n M+ v", "VA 2|20|"),
            ("ma n MI", "HD|"),
            ("ma n M- v", "VA 2|20|"),
            ("ma n MD D100 T0 v t", "VA 1 t-1|0|"),
            ("ma n q v", ""),
            ("ma n Mi", "CLIENT_ERROR invalid mode for ma M token|"),
            ("ma n D-1", "CLIENT_ERROR invalid or duplicate flag|"),
            ("set n 0 0 1|x", "STORED|"),
            ("ma n", "CLIENT_ERROR cannot increment or decrement non-numeric value|"),
        )

    def test_a_quiet_request_tells_not_even_of_a_new_number(self) -> None:
        self.check(("ma n N0 J5 q", ""), ("ma n q", ""), ("ma n v", "VA 1|7|"), ("ma no q", "NF|"))

    def test_debug_and_no_op(self) -> None:
        self.port("set k 0 100 2|hi")
        size = self.port.store.cost(b"k")
        self.assertRegex(self.port("me k"), rf"^ME k exp=100 cas=\d+ cls=1 size={size}\r\n$")
        self.check(("me no", "EN|"), ("mn", "MN|"))
        self.port("mg k h")
        self.port.clock.now += 5
        self.assertRegex(self.port("me k"), r"^ME k exp=95 la=5 cas=\d+ fetch=yes cls=1 ")
        self.port("set k 0 0 2|hi")
        self.assertRegex(self.port("me k"), r"^ME k exp=-1 la=0 cas=\d+ fetch=no cls=1 ")


class AccessTest(PortCase):
    """h: read before? l: seconds since the last access. Noted from the first such question on."""

    def test_a_value_is_hit_from_its_first_read_on_and_as_old_as_its_last(self) -> None:
        self.port("set k 0 0 2|hi")
        self.check(("mg k h l", "HD h0 l0|"))
        self.port.clock.now += 7
        self.check(("mg k l h v", "VA 2 l7 h1|hi|"), ("mg k h l", "HD h1 l0|"))

    def test_every_kind_of_read_is_an_access(self) -> None:
        self.port("mg no h")
        for read in ("get k", "gets no k", "gat 0 k", "touch k 0", "mg k", "mg k v"):
            self.port("set k 0 0 2|hi")
            self.port.clock.now += 5
            self.check(("mg k h l u", "HD h0 l5|"))
            self.port(read)
            self.port.clock.now += 3
            self.check(("mg k h l u", "HD h1 l3|"))

    def test_every_kind_of_write_begins_anew(self) -> None:
        self.port("mg no l")
        for write in (
            "set k 0 0 1|1",
            "append k 0 0 1|1",
            "incr k 1",
            "ms k 1|1",
            "ma k",
            "md k x",
        ):
            self.port("set k 0 0 1|1")
            self.port("get k")
            self.port.clock.now += 5
            self.port(write)
            self.port.clock.now += 2
            self.check(("mg k h l u", "HD h0 l2|"))
        self.port("mg k")
        self.port.resp("SET", "k", "new")
        self.check(("mg k h u", "HD h0|"))

    def test_u_reads_without_using(self) -> None:
        for flags, evicted in (("u", b"a"), ("", b"b")):
            self.port = Port(max_bytes=1000)
            self.port(f"set a 0 0 200|{'x' * 200}")
            self.port(f"set b 0 0 200|{'x' * 200}")
            self.port(f"mg a {flags}")
            self.port(f"set c 0 0 200|{'x' * 200}")
            self.assertEqual({b"a", b"b"} - set(self.port.store.keys()), {evicted})
        self.check(("mg a h u", "HD h0|"), ("mg a h u", "HD h0|"), ("mg a h", "HD h0|"))
        self.check(("mg a h u", "HD h1|"))

    def test_marks_and_accesses_stand_beside_each_other(self) -> None:
        self.port("set k 0 100 2|hi")
        self.check(
            ("mg k h R30", "HD h0|"),
            ("md k I T60", "HD|"),
            ("mg k h v", "VA 2 h1 X W|hi|"),
            ("get k", "VALUE k 0 2|hi|END|"),
            ("mg k h R90", "HD h1 Z X|"),
        )

    def test_who_never_asks_pays_nothing(self) -> None:
        for request in ("set k 0 0 2|hi", "get k", "mg k v t s f", "touch k 0", "gat 0 k"):
            self.port(request)
        before = self.port.store.used_bytes
        self.assertIsNone(self.port.store.note(b"k"))
        self.check(("mg k h l", "HD h0 l0|"))
        self.assertEqual(self.port.store.used_bytes, before + NOTE_COST)
        self.port("get k")
        self.assertEqual(self.port.store.used_bytes, before + NOTE_COST)

    def test_what_was_not_accessed_since_noting_began_is_as_old_as_that(self) -> None:
        self.port("set k 0 0 2|hi")
        self.port("get k")
        self.port("mg no l")
        self.port.clock.now += 9
        self.check(("mg k h l", "HD h0 l9|"))


class OwnTokenTest(PortCase):
    """E: the client makes up the cas token of what it writes."""

    def test_every_write_may_bring_its_token(self) -> None:
        for request, key in (
            ("ms k 1 E123|1", "k"), ("ms k 1 MA E123|1", "k"), ("ms new 1 ME E123|1", "new"),
            ("mg viv N0 E123", "viv"), ("ma k E123", "k"), ("ma made N0 E123", "made"),
            ("md k I E123", "k"), ("md k x E123", "k"),
        ):  # fmt: skip
            with self.subTest(request):
                self.port("set k 0 0 1|5")
                self.port(request)
                self.assertEqual(self.port.token(key), "123")
                self.assertEqual(self.port(f"mg {key} c").split()[1], "c123")
                self.check(
                    (f"ms {key} 1 C124|1", "EX|"),
                    (f"cas {key} 0 0 1 123|7", "STORED|"),
                    (f"cas {key} 0 0 1 123|8", "EXISTS|"),
                )

    def test_the_reply_tells_the_token(self) -> None:
        self.check(
            ("ms k 1 c E0|1", "HD c0|"),
            (f"ms k 1 E{2**64 - 1} c C0|2", f"HD c{2**64 - 1}|"),
            ("ma k E7 c v", "VA 1 c7|3|"),
            ("mg new N0 c E9", "HD c9 W|"),
        )

    def test_what_writes_nothing_gives_no_token(self) -> None:
        self.port("set k 0 0 1|1")
        token = self.port.token()
        self.check(
            ("mg k E5 T100 N0", "HD|"), ("ms k 1 ME E5|2", "NS|"), ("ms k 1 C3 E5|2", "EX|"),
            ("md k C3 I E5", "EX|"), ("ma k C3 E5", "EX|"),
        )  # fmt: skip
        self.assertEqual(self.port.token(), token)

    def test_a_later_write_has_another_one(self) -> None:
        self.port("ms k 1 E123|1")
        self.port.resp("SET", "k", "2")
        self.assertNotEqual(self.port.token(), "123")

    def test_a_token_that_is_no_number_is_refused(self) -> None:
        for token in ("", "x", "-1", str(2**64)):
            bad = "CLIENT_ERROR bad token in command line format|"
            self.check((f"mg k N0 E{token}", bad), (f"ms k 9 E{token}|flush_all", bad))
            self.check((f"ma k E{token}", "CLIENT_ERROR invalid or duplicate flag|"))
        self.assert_in_step()


class OneMomentTest(unittest.TestCase):
    """The clock of these tests goes on whenever somebody looks at it."""

    def setUp(self) -> None:
        self.clock = TickingClock()
        self.store = Store(0, clock=self.clock)
        instance = Instance(self.store, Config(max_bytes=0))
        self.dialect = Memcached(Session(instance))
        self.addCleanup(self.store.check)

    def test_a_command_looks_at_the_clock_once(self) -> None:
        for request in (
            "get a b", "gets a b", "gat 100 a b", "gats 100 a b", "touch a 100", "delete a",
            "set a 0 0 1|1", "add c 0 0 1|1", "add a 0 0 1|1", "replace a 0 0 1|1",
            "append a 0 0 1|1", "cas a 0 0 1 5|1", "incr a 5", "decr a 5", "flush_all 100",
            "flush_all", "mg a v t", "mg a v t T100", "mg a R30 v", "mg c N100 v t",
            "ms a 1 T100|1", "ms a 1 MA|1", "ms c 1 ME T100 c|1", "md a", "md a I T100", "md a x",
            "ma a T100 t v", "ma c N100 t v", "me a",
        ):  # fmt: skip
            with self.subTest(request):
                self.assertLessEqual(self.readings(request), 1)

    def test_a_write_with_a_deadline_looks_at_the_clock_once(self) -> None:
        for request in (
            "set a 0 100 1|1", "add c 0 100 1|1", "add a 0 100 1|1", "replace a 0 100 1|1",
            "cas a 0 100 1 5|1",
        ):  # fmt: skip
            self.assertLessEqual(self.readings(request), 1, request)

    def readings(self, request: str) -> int:
        """Carry out a request on keys that will expire; return how often the clock was read."""
        self.store.flush()
        for key in (b"a", b"b"):
            self.store.set(key, b"1", expires_at=self.clock.now + 10_000)
        before = self.clock.readings
        reply = self.dialect.receive(request.replace("|", "\r\n").encode() + b"\r\n")
        self.assertNotIn(b"ERROR", reply)
        return self.clock.readings - before

    def test_what_is_just_stored_has_its_whole_life_to_live(self) -> None:
        self.assertEqual(self.dialect.receive(b"ma c N1 t v\r\n"), b"VA 1 t1\r\n0\r\n")
        self.assertEqual(self.dialect.receive(b"mg d N1 t v\r\n"), b"VA 0 t1 W\r\n\r\n")
