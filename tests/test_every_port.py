"""One suite of behaviour over every dialect: what a key-value store does, it does behind each port.

A dialect's own words and errors are tested in its own file.
"""

from __future__ import annotations

import unittest
from itertools import product

from kvdb.commands.instance import Instance
from kvdb.config import Config
from kvdb.store import Store
from tests.ports import (
    ALL_PORTS,
    HausLines,
    HttpKeys,
    HttpQuery,
    Inline,
    JsonLines,
    MemcachedText,
    Port,
    Resp,
)
from tests.support import ManualClock

EVERY_BYTE = bytes(range(256))
TEXTS = ("v", "0", "3 * 3 = 9", "grüße, 世界 🌍", '{"a": "b\\n"}', "END", "x" * 10_000)


class EveryPort(unittest.TestCase):
    def setUp(self) -> None:
        self.clock = ManualClock()
        self.store = Store(0, clock=self.clock)
        self.instance = Instance(self.store, Config(max_bytes=0), monotonic=ManualClock())
        self.addCleanup(self.store.check)


class Behaviour:
    """What holds behind each port; a class below it names the port."""

    kind: type[Port]

    def setUp(self) -> None:
        super().setUp()  # type: ignore[misc]
        self.port = self.kind(self.instance)

    def test_a_value_comes_back_as_it_was_set(self) -> None:
        for text in TEXTS:
            self.port.set(b"k", text.encode())
            self.assertEqual(self.port.get(b"k"), text.encode())

    def test_a_key_of_any_language_is_a_key(self) -> None:
        for key in ("k", "user:1", "schlüssel", "鍵", "🔑"):
            self.port.set(key.encode(), key.encode())
        for key in ("k", "user:1", "schlüssel", "鍵", "🔑"):
            self.assertEqual(self.port.get(key.encode()), key.encode())
        self.assertEqual(self.store.size(), 5)

    def test_setting_anew_overwrites(self) -> None:
        self.port.set(b"k", b"old and long")
        self.port.set(b"k", b"new")
        self.assertEqual(self.port.get(b"k"), b"new")

    def test_a_missing_key_is_told_from_an_empty_value(self) -> None:
        self.assertIsNone(self.port.get(b"missing"))
        self.store.set(b"empty", b"")
        self.assertEqual(self.port.get(b"empty"), b"")

    def test_deleted_is_missing_and_deleting_again_does_no_harm(self) -> None:
        self.port.set(b"k", b"v")
        self.port.set(b"other", b"v")
        for _ in range(2):
            self.port.delete(b"k")
            self.assertIsNone(self.port.get(b"k"))
        self.assertEqual(self.port.get(b"other"), b"v")

    def test_reads_are_counted_as_hits_and_misses(self) -> None:
        self.port.set(b"k", b"v")
        self.port.get(b"k")
        self.port.get(b"missing")
        self.assertEqual((self.store.hits, self.store.misses), (1, 1))

    def test_an_expired_key_is_missing_from_its_deadline_on(self) -> None:
        self.store.set(b"k", b"v", expires_at=self.clock.now + 10)
        self.clock.now += 9.999
        self.assertEqual(self.port.get(b"k"), b"v")
        self.clock.now += 0.001
        self.assertIsNone(self.port.get(b"k"))

    def test_setting_anew_takes_the_ttl_away(self) -> None:
        self.store.set(b"k", b"v", expires_at=self.clock.now + 10, client_flags=7)
        self.port.set(b"k", b"w")
        if self.port.has_ttl:
            self.assertIsNone(self.port.ttl(b"k"))
        self.clock.now += 10
        self.assertEqual(self.port.get(b"k"), b"w")
        entry = self.store.entry(b"k")
        assert entry is not None
        self.assertEqual(entry.client_flags, 0)

    def test_every_byte_may_come_out_of_a_value(self) -> None:
        self.store.set(b"k", EVERY_BYTE)
        self.assertEqual(self.port.get(b"k"), EVERY_BYTE)

    def test_a_read_counts_as_use(self) -> None:
        self.port.set(b"a", b"v")
        self.port.set(b"b", b"v")
        self.port.get(b"a")
        self.store.max_bytes = self.store.used_bytes - 1
        self.assertEqual((self.port.get(b"a"), self.port.get(b"b")), (b"v", None))


class WithTtl:
    def test_a_ttl_is_set_shown_and_kept(self) -> None:
        self.port.set(b"k", b"v", ttl=60)
        self.assertEqual(self.port.ttl(b"k"), 60)
        self.clock.now += 59
        self.assertEqual((self.port.ttl(b"k"), self.port.get(b"k")), (1, b"v"))
        self.clock.now += 1
        self.assertIsNone(self.port.get(b"k"))


class WithCounters:
    def test_a_counter_counts_and_is_a_value(self) -> None:
        self.port.set(b"n", b"9")
        self.assertEqual([self.port.increment(b"n") for _ in range(2)], [10, 11])
        self.assertEqual(self.port.get(b"n"), b"11")


class WithAnyValue:
    def test_every_byte_may_stand_in_a_value(self) -> None:
        for value in (EVERY_BYTE, b"", b"\r\n", b"\0", b"\r\nEND\r\n", b"\xff" * 5):
            self.port.set(b"k", value)
            self.assertEqual(self.port.get(b"k"), value)


class WithAnyKey:
    def test_every_byte_may_stand_in_a_key(self) -> None:
        for byte in range(256):
            self.port.set(bytes([byte]), b"%d" % byte)
        for byte in range(256):
            self.assertEqual(self.port.get(bytes([byte])), b"%d" % byte)
        self.port.set(EVERY_BYTE, b"all")
        self.assertEqual(self.port.get(EVERY_BYTE), b"all")


class RespTest(WithTtl, WithCounters, WithAnyValue, WithAnyKey, Behaviour, EveryPort):
    kind = Resp


class InlineTest(WithTtl, WithCounters, WithAnyValue, WithAnyKey, Behaviour, EveryPort):
    kind = Inline


class JsonLinesTest(WithTtl, WithCounters, WithAnyValue, Behaviour, EveryPort):
    kind = JsonLines


class MemcachedTest(WithTtl, WithCounters, WithAnyValue, Behaviour, EveryPort):
    kind = MemcachedText


class HausTest(Behaviour, EveryPort):
    kind = HausLines


class HttpKeysTest(WithTtl, WithAnyValue, WithAnyKey, Behaviour, EveryPort):
    kind = HttpKeys


class HttpQueryTest(WithAnyValue, WithAnyKey, Behaviour, EveryPort):
    kind = HttpQuery


class OneStoreTest(EveryPort):
    """What goes in at one port comes out at every other."""

    def setUp(self) -> None:
        super().setUp()
        self.ports = [kind(self.instance) for kind in ALL_PORTS]

    def test_the_suite_runs_over_every_port(self) -> None:
        cases = {case.kind: case for case in Behaviour.__subclasses__()}
        self.assertEqual(set(cases), set(ALL_PORTS))
        for kind, case in cases.items():
            self.assertEqual(issubclass(case, WithTtl), kind.has_ttl)
            self.assertEqual(issubclass(case, WithCounters), kind.counts)
            self.assertEqual(issubclass(case, WithAnyValue), kind.any_value)
            self.assertEqual(issubclass(case, WithAnyKey), kind.any_key)

    def test_what_one_port_writes_every_port_reads(self) -> None:
        for writer, reader in product(self.ports, self.ports):
            with self.subTest(writer=type(writer).__name__, reader=type(reader).__name__):
                for text in TEXTS:
                    writer.set(b"k", text.encode())
                    self.assertEqual(reader.get(b"k"), text.encode())
                writer.delete(b"k")
                self.assertIsNone(reader.get(b"k"))

    def test_a_ttl_set_at_one_port_is_shown_and_obeyed_at_every_port(self) -> None:
        with_ttl = [port for port in self.ports if port.has_ttl]
        for writer in with_ttl:
            writer.set(b"k", b"v", ttl=60)
            self.clock.now += 20
            for reader in with_ttl:
                with self.subTest(writer=type(writer).__name__, reader=type(reader).__name__):
                    self.assertEqual(reader.ttl(b"k"), 40)
            self.clock.now += 40
            for reader in self.ports:
                with self.subTest(writer=type(writer).__name__, reader=type(reader).__name__):
                    self.assertIsNone(reader.get(b"k"))

    def test_all_ports_count_on_the_same_number(self) -> None:
        self.store.set(b"n", b"0")
        counting = [port for port in self.ports if port.counts]
        numbers = [port.increment(b"n") for port in counting * 3]
        self.assertEqual(numbers, list(range(1, len(numbers) + 1)))

    def test_a_write_through_any_port_breaks_a_watch(self) -> None:
        for writer in self.ports:
            with self.subTest(type(writer).__name__):
                watcher = Resp(self.instance)
                watcher.ask(b"WATCH", b"k")
                watcher.ask(b"MULTI")
                watcher.ask(b"GET", b"k")
                writer.set(b"k", b"changed")
                self.assertEqual(watcher.ask(b"EXEC"), b"*-1\r\n")
                watcher.close()
