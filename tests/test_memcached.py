"""The memcached port, classic commands: bytes in, bytes out."""

from __future__ import annotations

import logging
import random
import tracemalloc
import unittest
from unittest import mock

from kvdb.commands.session import Session
from kvdb.protocols import BATCH_BYTES
from kvdb.protocols.memcached import Memcached
from kvdb.resp.limits import STRANGERS_LINE
from tests.support import Conversation, batches
from tests.test_main_port import FakeDisk

BAD_FORMAT = "CLIENT_ERROR bad command line format\r\n"
TOO_LARGE = "SERVER_ERROR object too large for cache\r\n"
NOT_A_NUMBER = "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n"
BAD_DELTA = "CLIENT_ERROR invalid numeric delta argument\r\n"


class Port:
    """A memcached client of a server without a socket, and a RESP client of the same server."""

    def __init__(self, **config: object) -> None:
        self.resp = Conversation(**config)
        self.clock, self.store = self.resp.clock, self.resp.store
        self.reconnect()

    def reconnect(self) -> None:
        session = Session(self.resp.instance, "127.0.0.1:50001", "127.0.0.1:11211")
        self.resp.instance.admit(session)
        self.dialect = Memcached(session)

    def bytes(self, data: bytes) -> bytes:
        return b"".join(batches(self.dialect, data))

    def __call__(self, request: str) -> str:
        """Send a request, `|` for its inner line ends; return the reply."""
        data = request.replace("|", "\r\n").encode("latin-1") + b"\r\n"
        return self.bytes(data).decode("latin-1")

    def token(self, key: str = "k") -> str:
        return self(f"gets {key}").split()[4]

    def stats(self, what: str = "") -> dict[str, str]:
        lines = self(f"stats {what}").splitlines()[:-1]
        return {line.split(" ", 2)[1]: line.split(" ", 2)[2] for line in lines}


class PortCase(unittest.TestCase):
    def setUp(self) -> None:
        self.port = Port()

    def check(self, *exchanges: tuple[str, str]) -> None:
        """Carry out requests; compare the replies, `|` for a line end in both."""
        for request, reply in exchanges:
            with self.subTest(request):
                self.assertEqual(self.port(request), reply.replace("|", "\r\n"))

    def assert_in_step(self) -> None:
        self.assertFalse(self.port.dialect.closing)
        self.assertEqual(self.port("mn"), "MN\r\n")


class StreamTest(PortCase):
    TALK = (
        b"set k 5 0 3\r\na\r\n\r\nadd k 0 0 1\r\nx\r\nget k no\r\nfoo\r\nset x 0 0 1\r\nabc\r\n"
        b"ms m 2 T100\r\nhi\r\nmg m v t\r\nset q 0 0 1 noreply\r\n1\r\nincr q 1\r\n"
    )
    REPLIES = (
        b"STORED\r\nNOT_STORED\r\nVALUE k 5 3\r\na\r\n\r\nEND\r\nERROR\r\n"
        b"CLIENT_ERROR bad data chunk\r\nERROR\r\nHD\r\nVA 2 t100\r\nhi\r\n2\r\n"
    )

    def test_replies_are_the_same_however_the_bytes_arrive(self) -> None:
        whole = Port().bytes(self.TALK)
        port = Port()
        bytewise = b"".join(port.bytes(bytes([byte])) for byte in self.TALK)
        with_next = Port().bytes(self.TALK + b"get")
        self.assertEqual({whole, bytewise, with_next}, {self.REPLIES})

    def test_a_line_may_end_in_a_bare_newline(self) -> None:
        self.assertEqual(self.port.bytes(b"set k 0 0 1\n1\r\nget k\n")[:8], b"STORED\r\n")

    def test_a_get_may_name_thousands_of_keys(self) -> None:
        self.port("set k 0 0 1|1")
        line = "get " + " ".join(f"key:{number:036}" for number in range(5000)) + " k"
        self.check((line, "VALUE k 0 1|1|END|"))

    def test_others_have_their_turn_while_thousands_of_keys_are_read(self) -> None:
        self.port("set first 0 0 1|1")
        self.port("set last 7 0 1|2")
        line = "get first " + " ".join(map(str, range(998))) + " last first"
        with mock.patch.object(self.port.store, "atomic", wraps=self.port.store.atomic) as atomic:
            self.check((line, "VALUE first 0 1|1|VALUE last 7 1|2|VALUE first 0 1|1|END|"))
        self.assertEqual(atomic.call_count, 3)  # of 500, 500 and 1
        counts = self.port.dialect.session.counts
        self.assertEqual((counts["get_hits"], counts["get_misses"]), (3, 998))

    def test_an_endless_line_closes(self) -> None:
        self.assertEqual(self.port.bytes(b"set " + b"x" * 70_000), b"")
        self.assertTrue(self.port.dialect.closing)

    def test_http_and_the_binary_protocol_close_without_a_word(self) -> None:
        for data in (b"GET / HTTP/1.0\r\n", b"PUT /k HTTP/1.1\r\n", b"\x80\x00\x00\x00", b"\x80"):
            port = Port()
            logging.disable()  # each is told in the log
            self.addCleanup(logging.disable, logging.NOTSET)
            self.assertEqual(port.bytes(data), b"", data)
            self.assertTrue(port.dialect.closing, data)

    def test_garbage_never_raises(self) -> None:
        source = random.Random(20)
        words = [b"set", b"get", b"mg", b"ms", b"ma", b"md", b"k", b"0", b"1", b"-1", b"\r\n", b"v"]
        words += [b"noreply", b"cas", b"T1", b"b", b"q", b"N0", b"incr", b"stats", b"touch", b"gat"]
        for _ in range(300):
            port = Port()
            with self.assertNoLogs("kvdb", logging.ERROR):
                for _ in range(40):
                    pieces = [source.choice(words), b" ", source.randbytes(source.randrange(3))]
                    port.bytes(b"".join(source.choices(pieces + words, k=12)) + b"\r\n")
            port.store.check()


class StorageTest(PortCase):
    def test_set_add_replace_append_and_prepend(self) -> None:
        self.check(
            ("set k 4294967295 0 1|1", "STORED|"),
            ("add k 0 0 1|2", "NOT_STORED|"),
            ("replace k 7 0 1|3", "STORED|"),
            ("append k 9 0 1|4", "STORED|"),
            ("prepend k 9 0 1|2", "STORED|"),
            ("get k", "VALUE k 7 3|234|END|"),
            ("replace no 0 0 1|1", "NOT_STORED|"),
            ("append no 0 0 0|", "NOT_STORED|"),
            ("prepend no 0 0 1|1", "NOT_STORED|"),
            ("get no", "END|"),
        )

    def test_cas_stores_only_over_the_version_that_was_read(self) -> None:
        self.port("set k 0 0 1|1")
        token = self.port.token()
        self.check(
            (f"cas k 0 0 1 {token}|2", "STORED|"),
            (f"cas k 0 0 1 {token}|3", "EXISTS|"),
            (f"cas no 0 0 1 {token}|3", "NOT_FOUND|"),
            ("get k", "VALUE k 0 1|2|END|"),
        )

    def test_a_write_through_resp_breaks_cas(self) -> None:
        for write in (["SET", "k", "1"], ["APPEND", "k", "1"], ["INCR", "k"], ["EXPIRE", "k", 9]):
            self.port("set k 0 0 1|1")
            token = self.port.token()
            self.port.resp(*write)
            self.check((f"cas k 0 0 1 {token}|2", "EXISTS|"))
        token = self.port.token()
        self.check(("touch k 100", "TOUCHED|"), ("gat 50 k", "VALUE k 0 1|1|END|"))
        self.assertEqual(self.port.token(), token, "as in memcached, touching is no write")
        self.port.resp("DEL", "k")
        self.check((f"cas k 0 0 1 {token}|2", "NOT_FOUND|"))

    def test_keys_have_up_to_250_bytes_and_no_spaces(self) -> None:
        key = "k" * 250
        self.check((f"set {key} 0 0 1|1", "STORED|"), (f"get {key}", f"VALUE {key} 0 1|1|END|"))
        key += "k"
        refused = f"set {key} 0 0 1|1", f"get {key}", f"delete {key}", f"incr {key} 1"
        self.check(*((line, BAD_FORMAT) for line in (*refused, f"touch {key} 1")))
        self.check(("set a\tb 0 0 1|1", "STORED|"), ("get a\tb", "VALUE a\tb 0 1|1|END|"))

    def test_a_refused_line_takes_its_data_with_it(self) -> None:
        for line in (
            "set k 4294967296 0 9", "set k -1 0 9", "set k x 0 9", "set k 0 x 9",
            "cas k 0 0 9 x", "cas k 0 0 9",
        ):  # fmt: skip
            self.check((f"{line}|flush_all", BAD_FORMAT))
            self.assert_in_step()

    def test_a_length_that_nobody_can_know_closes(self) -> None:
        for length in ("-1", "x", "99999999999"):
            self.port.reconnect()
            self.check((f"set k 0 0 {length}|flush_all", BAD_FORMAT))
            self.assertTrue(self.port.dialect.closing)

    def test_a_value_too_large_is_swallowed_exactly_and_the_old_one_dropped(self) -> None:
        self.port = Port(max_value_bytes=10)
        self.port("set k 0 0 1|1")
        self.check(("add k 0 0 11|12345678901", TOO_LARGE), ("get k", "VALUE k 0 1|1|END|"))
        self.check(("append k 0 0 10|1234567890", TOO_LARGE), ("get k", "VALUE k 0 1|1|END|"))
        self.check(("set k 0 0 11|12345678901", TOO_LARGE), ("get k", "END|"))
        self.check(("set k 0 0 11 noreply|12345678901", ""))
        self.assert_in_step()


class NoreplyTest(PortCase):
    def test_noreply_silences_every_command_and_its_errors(self) -> None:
        self.port("set k 0 0 1|1")
        for request in (
            "set k 0 0 1 noreply|1", "add k 0 0 1 noreply|1", "replace k 0 0 1 noreply|1",
            "append no 0 0 1 noreply|1", "prepend k 0 0 0 noreply|", "cas k 0 0 1 1 noreply|1",
            "incr k 1 noreply", "decr no 1 noreply", "incr k x noreply", "touch k 0 noreply",
            "touch k x noreply", "delete no noreply", "delete no 0 noreply", "verbosity 1 noreply",
            "delete k 1 noreply", "flush_all x noreply", "flush_all noreply",
            "flush_all 0 noreply", "set k x 0 1 noreply|1",
        ):  # fmt: skip
            self.check((request, ""))
        self.assert_in_step()


class TimeTest(PortCase):
    def test_exptime_is_a_duration_up_to_30_days_and_a_moment_beyond(self) -> None:
        self.port.clock.now = 1_700_000_000.0
        for exptime, left in ((100, 100), (2592000, 2592000), (1_700_000_500, 500), (0, -1)):
            self.port(f"set k 0 {exptime} 1|1")
            self.check(("mg k t", f"HD t{left}|"))
        for exptime in (-1, 2592001):
            self.check((f"set k 0 {exptime} 1|1", "STORED|"), ("get k", "END|"))

    def test_touch_and_gat_move_the_deadline(self) -> None:
        self.port("set k 0 10 1|1")
        self.check(("touch k 100", "TOUCHED|"), ("touch no 1", "NOT_FOUND|"))
        self.check(("gat 200 k no", "VALUE k 0 1|1|END|"), ("mg k t", "HD t200|"))
        self.port.clock.now += 200
        self.check(("get k", "END|"), ("gat x k", "CLIENT_ERROR invalid exptime argument|"))

    def test_append_and_incr_keep_the_deadline(self) -> None:
        self.port("set k 0 100 1|1")
        self.check(("append k 0 0 1|2", "STORED|"), ("incr k 1", "13|"), ("mg k t", "HD t100|"))

    def test_flush_all_may_wait(self) -> None:
        self.port("set k 0 0 1|1")
        self.check(("flush_all 10", "OK|"))
        self.port.clock.now += 9
        self.port.resp.instance.planned_flush.run_if_due()
        self.check(("get k", "VALUE k 0 1|1|END|"))
        self.port.clock.now += 1
        self.port.resp.instance.planned_flush.run_if_due()
        self.check(("get k", "END|"), ("set k 0 0 1|1", "STORED|"), ("flush_all", "OK|"))
        self.check(("get k", "END|"))


class ChangeTest(PortCase):
    def test_counting_wraps_upwards_stops_at_zero_and_pads(self) -> None:
        top = str(2**64 - 1)
        for value, request, reply, left in (
            ("10", "incr k 5", "15", "15"), ("10", "decr k 1", "9", "9 "),
            ("5", "decr k 9", "0", "0"), (top, "incr k 1", "0", "0".ljust(20)),
            ("99", "incr k 1", "100", "100"), (" 5", "incr k 1", "6", "6 "),
            ("+5", "incr k 1", "6", "6 "), ("1", f"incr k {top}", "0", "0"),
        ):  # fmt: skip
            self.port(f"set k 3 0 {len(value)}|{value}")
            self.check((request, reply + "|"), ("get k", f"VALUE k 3 {len(left)}|{left}|END|"))
        self.check(("incr no 1", "NOT_FOUND|"), ("incr k -1", BAD_DELTA))
        self.check((f"incr k {2**64}", BAD_DELTA))
        for value in ("x", "", "-1", "1.5", "5 6", str(2**64)):
            self.port(f"set k 0 0 {len(value)}|{value}")
            self.check(("incr k 1", NOT_A_NUMBER), ("decr k 1", NOT_A_NUMBER))

    def test_delete_takes_a_hold_time_of_zero_only(self) -> None:
        usage = "CLIENT_ERROR bad command line format.  Usage: delete <key> [noreply]|"
        self.port("set k 0 0 1|1")
        self.check(("delete k 1", usage), ("delete k x", usage), ("delete k 0", "DELETED|"))
        self.check(("delete k", "NOT_FOUND|"))


class ServerTest(PortCase):
    def test_what_is_no_request_is_an_error_and_no_more(self) -> None:
        for line in ("", "GET k", "SET k 0 0 1", "get", "gets", "gat", "gat 0 k".upper(), "set k",
                     "incr k", "touch k", "delete", "verbosity", "stats nosuch", "md", "ma",
                     "flush_all 1 2"):  # fmt: skip
            self.check((line, "ERROR|"))
            self.assert_in_step()

    def test_version_verbosity_and_quit(self) -> None:
        self.assertTrue(self.port("version").startswith("VERSION 1.6."))
        self.check(("verbosity 1", "OK|"), ("quit", ""))
        self.assertTrue(self.port.dialect.closing)

    def test_stats_tell_the_truth(self) -> None:
        for request in ("set k 0 0 1|1", "get k no", "incr k 1", "decr no 1", "delete no",
                        "touch k 0", "touch no 0", "cas k 0 0 1 77777|1", "cas no 0 0 1 1|1",
                        "flush_all 99", "set n 0 0 1|1", "delete n"):  # fmt: skip
            self.port(request)
        self.port("cas k 0 0 1 " + self.port.token() + "|5")
        stats = self.port.stats()
        expected = {
            "cmd_set": 5, "cmd_get": 3, "get_hits": 2, "get_misses": 1, "incr_hits": 1,
            "incr_misses": 0, "decr_misses": 1, "delete_hits": 1, "delete_misses": 1,
            "cmd_touch": 2, "touch_hits": 1, "touch_misses": 1, "cas_hits": 1, "cas_misses": 1,
            "cas_badval": 1, "cmd_flush": 1, "curr_items": 1, "curr_connections": 2,
        }  # fmt: skip
        self.assertEqual({name: int(stats[name]) for name in expected}, expected)
        self.check(("stats reset", "RESET|"), ("stats detail on", "OK|"))
        self.assertEqual(self.port.stats()["get_hits"], "0")

    def test_a_password_is_the_data_of_a_set(self) -> None:
        self.port = Port(password="secret")
        refused = "CLIENT_ERROR unauthenticated|"
        self.check(
            ("get k", refused),
            ("mn", refused),
            ("set auth 0 0 10|user wrong", "CLIENT_ERROR authentication failure|"),
            ("get k", refused),
            ("set auth 0 0 11|user secret", "STORED|"),
            ("get auth", "END|"),
        )

    def test_strangers_are_held_to_short_lines(self) -> None:
        for data in (b"get " + b"x" * STRANGERS_LINE, b"x" * (STRANGERS_LINE + 1) + b"\r\n"):
            port = Port(password="secret")
            self.assertEqual(port.bytes(data), b"")
            self.assertTrue(port.dialect.closing)
        self.assertEqual(Port(password="secret").bytes(b"x" * STRANGERS_LINE), b"")
        self.assertLessEqual(STRANGERS_LINE, 4096)
        self.port = Port(password="secret")
        self.check(("set auth 0 0 11|user secret", "STORED|"))
        line = "get " + " ".join(f"key:{number:036}" for number in range(5000))
        self.check((line, "END|"))

    def test_a_password_has_4_kb_at_most(self) -> None:
        refused = b"CLIENT_ERROR unauthenticated\r\n"
        port = Port(password="x" * (STRANGERS_LINE - 5))
        data = b"user " + b"x" * (STRANGERS_LINE - 5)
        self.assertEqual(
            port.bytes(b"set auth 0 0 %d\r\n%b\r\n" % (len(data), data)), b"STORED\r\n"
        )
        for length in (STRANGERS_LINE + 1, 1_000_000, 16 * 1024 * 1024, 2**31 - 1, 10**19):
            port = Port(password="secret")
            self.assertEqual(port.bytes(b"set auth 0 0 %d\r\nxxx" % length), refused)
            self.assertEqual(port.bytes(b"x" * STRANGERS_LINE), b"")
            self.assertTrue(port.dialect.closing)

    def test_nothing_is_left_when_the_connection_ends(self) -> None:
        self.port.bytes(b"set k 0 0 1000000\r\n" + b"x" * 500_000)
        self.assertEqual(self.port.dialect.held_bytes, 500_000)
        self.port.dialect.end()
        self.assertEqual(self.port.dialect.held_bytes, 0)

    def test_many_times_the_same_large_value_takes_little_memory(self) -> None:
        size, count = 100_000, 600
        self.port.store.set(b"k", b"x" * size)
        dialect, received = self.port.dialect, 0
        tracemalloc.start()
        try:
            batch = dialect.receive(b"get" + b" k" * count + b"\r\n")
            while dialect.more:
                self.assertLess(len(batch), BATCH_BYTES + 2 * size)
                received += len(batch)
                batch = dialect.receive(b"")
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        self.assertTrue(batch.endswith(b"END\r\n"))
        whole = count * (len(b"VALUE k 0 100000\r\n") + size + 2) + len(b"END\r\n")
        self.assertEqual(received + len(batch), whole)
        self.assertLess(peak, 8_000_000)  # of 60


class DurableReplies(PortCase):
    """Under --fsync always no reply leaves before all that it tells of is on disk."""

    def open(self, disk: FakeDisk) -> None:
        self.port = Port()
        self.port.resp.instance.persistence = disk  # type: ignore[assignment]
        self.port.reconnect()

    def test_a_write_that_was_undone_is_a_server_error(self) -> None:
        for request in ("set k 0 0 1|1", "delete k", "incr k 1", "touch k 10", "ms k 1|1", "md k"):
            self.open(FakeDisk(False))
            self.port.store.add_listener(lambda step, facts: None)  # so that steps are counted
            self.port.store.set(b"k", b"1")
            self.check((request, "SERVER_ERROR not saved: disk full|"), ("mn", "MN|"))

    def test_a_read_is_answered_anew_once_what_it_saw_was_undone(self) -> None:
        for request, reply in (("get k", "VALUE k 0 3|old|END|"), ("mg k v", "VA 3|old|")):
            disk = FakeDisk(False, True)
            self.open(disk)
            self.port.store.set(b"k", b"new")
            disk.on_undo = lambda store=self.port.store: store.set(b"k", b"old")
            self.check((request, reply))

    def test_what_has_nothing_to_do_with_keys_is_not_refused(self) -> None:
        for request, reply in (("mn", "MN|"), ("verbosity 1", "OK|"), ("nosuch", "ERROR|")):
            self.open(FakeDisk(False))
            self.check((request, reply))
