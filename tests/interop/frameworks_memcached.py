"""Clients of memcached for Python; more of them, and more of these, are in interop_memcached."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from tests.interop.frameworks_case import FrameworkCase, run_async


class Pymemcache(FrameworkCase):
    library = "pymemcache"
    distribution = "pymemcache"
    protocol = "memcached"
    packages = ("pymemcache",)
    setting = "pymemcache.Client('127.0.0.1:11211', default_noreply=False)"

    def setUp(self) -> None:
        super().setUp()
        self.library_client = self.configured()
        self.addCleanup(self.library_client.close)

    def test_strings(self) -> None:
        client = self.library_client
        self.assertTrue(client.set("k", b"\x00\xff"))
        self.assertEqual((client.get("k"), client.get("missing")), (b"\x00\xff", None))
        self.assertFalse(client.add("k", "w"))
        self.assertFalse(client.replace("missing", "w"))
        self.assertTrue(client.append("k", b"!"))
        self.assertEqual(client.set_many({"a": "1", "b": "2"}), [])
        self.assertEqual(client.get_many(["a", "b", "c"]), {"a": b"1", "b": b"2"})
        self.assertEqual((client.delete("a"), client.delete("a")), (True, False))
        self.assertEqual(sorted(self.db.keys()), ["b", "k"])

    def test_expiry(self) -> None:
        client = self.library_client
        client.set("k", "v", expire=1000)
        self.assert_ttl("k", 1000)
        self.assertTrue(client.touch("k", 2000))
        self.assert_ttl("k", 2000)
        self.assertFalse(client.touch("missing", 10))

    def test_counters(self) -> None:
        client = self.library_client
        client.set("n", "5")
        self.assertEqual([client.incr("n", 10), client.decr("n", 100)], [15, 0])
        self.assertIsNone(client.incr("missing", 1))

    def test_compare_and_set(self) -> None:
        client = self.library_client
        client.set("k", "v")
        value, token = client.gets("k")
        self.assertEqual(value, b"v")
        self.db.set("k", "changed")
        self.assertIs(client.cas("k", "w", token), False)
        self.assertIs(client.cas("k", "w", client.gets("k")[1]), True)

    def test_flush_and_statistics(self) -> None:
        client = self.library_client
        client.set("k", "v")
        self.assertEqual(client.stats()[b"curr_items"], 1)
        self.assertTrue(client.flush_all())
        self.assertIsNone(client.get("k"))


class Pylibmc(FrameworkCase):
    library = "pylibmc"
    distribution = "pylibmc"
    protocol = "memcached"
    packages = ("pylibmc",)
    setting = "pylibmc.Client(['127.0.0.1:11211'])"

    def setUp(self) -> None:
        super().setUp()
        self.library_client = self.configured()
        self.addCleanup(self.library_client.disconnect_all)

    def test_values_of_any_type(self) -> None:
        client = self.library_client
        for value in ("grüß", b"\x00\xff", 5, 2.5, True, {"a": [1, None]}):
            self.assertTrue(client.set("k", value))
            self.assertEqual(client.get("k"), value)
        self.assertIsNone(client.get("missing"))
        self.assertFalse(client.add("k", "w"))
        self.assertEqual(client.set_multi({"a": 1, "b": "x"}), [])
        self.assertEqual(client.get_multi(["a", "b", "c"]), {"a": 1, "b": "x"})
        self.assertEqual((client.delete("a"), client.delete("a")), (True, False))

    def test_compressed_values(self) -> None:
        client = self.library_client
        value = "kvdb " * 20_000
        client.set("k", value, min_compress_len=100)
        self.assertEqual(client.get("k"), value)
        self.assertLess(self.db.strlen("k"), 10_000)

    def test_expiry(self) -> None:
        client = self.library_client
        client.set("k", "v", time=1000)
        self.assert_ttl("k", 1000)
        self.assertTrue(client.touch("k", 2000))
        self.assert_ttl("k", 2000)

    def test_counters(self) -> None:
        client = self.library_client
        client.set("n", 5)
        self.assertEqual([client.incr("n", 10), client.decr("n", 3)], [15, 12])
        self.assertEqual(client.get("n"), 12)

    def test_compare_and_set(self) -> None:
        client = self.library_client
        client.behaviors["cas"] = True
        client.set("k", "v")
        value, token = client.gets("k")
        self.assertEqual(value, "v")
        self.db.append("k", "!")
        self.assertFalse(client.cas("k", "w", token))
        self.assertTrue(client.cas("k", "w", client.gets("k")[1]))

    def test_refused_binary_protocol(self) -> None:
        import pylibmc

        server = self.with_ports("127.0.0.1:11211")
        client = pylibmc.Client([server], binary=True)
        self.addCleanup(client.disconnect_all)
        with self.assertRaises(pylibmc.Error):
            client.set("k", "v")
        self.note_refusal("binary=True", "the binary protocol")


class Aiomcache(FrameworkCase):
    library = "aiomcache"
    distribution = "aiomcache"
    protocol = "memcached"
    packages = ("aiomcache",)
    setting = "aiomcache.Client('127.0.0.1', 11211)"

    def run_with_client(self, talk: Callable[[Any], Awaitable[None]]) -> None:
        async def run() -> None:
            client = self.configured()
            try:
                await talk(client)
            finally:
                await client.close()

        run_async(run())

    def test_strings(self) -> None:
        async def talk(client: Any) -> None:
            self.assertTrue(await client.set(b"k", b"\x00\xff"))
            self.assertEqual(await client.get(b"k"), b"\x00\xff")
            self.assertIsNone(await client.get(b"missing"))
            self.assertFalse(await client.add(b"k", b"w"))
            self.assertTrue(await client.append(b"k", b"!"))
            await asyncio.gather(*(client.set(b"%d" % n, b"%d" % n) for n in range(50)))
            found = await client.multi_get(b"7", b"missing", b"49")
            self.assertEqual(found, (b"7", None, b"49"))
            self.assertEqual([await client.delete(b"7") for _ in "12"], [True, False])

        self.run_with_client(talk)

    def test_expiry(self) -> None:
        async def talk(client: Any) -> None:
            await client.set(b"k", b"v", exptime=1000)
            self.assert_ttl("k", 1000)
            self.assertTrue(await client.touch(b"k", 2000))
            self.assert_ttl("k", 2000)

        self.run_with_client(talk)

    def test_counters(self) -> None:
        async def talk(client: Any) -> None:
            await client.set(b"n", b"5")
            self.assertEqual([await client.incr(b"n", 10), await client.decr(b"n")], [15, 14])

        self.run_with_client(talk)

    def test_compare_and_set(self) -> None:
        async def talk(client: Any) -> None:
            await client.set(b"k", b"v")
            value, token = await client.gets(b"k")
            self.assertEqual(value, b"v")
            await client.set(b"k", b"changed")
            self.assertFalse(await client.cas(b"k", b"w", token))
            _, token = await client.gets(b"k")
            self.assertTrue(await client.cas(b"k", b"w", token))

        self.run_with_client(talk)

    def test_flush_and_statistics(self) -> None:
        async def talk(client: Any) -> None:
            await client.set(b"k", b"v")
            self.assertEqual((await client.stats())[b"curr_items"], b"1")
            await client.flush_all()
            self.assertIsNone(await client.get(b"k"))

        self.run_with_client(talk)
