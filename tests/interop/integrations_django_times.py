"""kvdb.integrations.django, asked the same: timeouts, versions, and its methods for async code."""

from __future__ import annotations

import asyncio
import decimal

from tests.interop.integrations_case import DAY, in_threads, until
from tests.interop.integrations_django_case import DjangoCase


class DjangoTimeouts(DjangoCase):
    def test_they_are_kept(self) -> None:
        cases = {
            "default": ({}, 300),
            "short": ({"timeout": 60}, 60),
            "fraction": ({"timeout": 100.25}, 100.25),
            "more_than_30_days": ({"timeout": 60 * DAY + 1}, 60 * DAY + 1),
            "decimal": ({"timeout": decimal.Decimal(50)}, 50),
        }
        for key, (timeout, left) in cases.items():
            with self.subTest(key):
                self.cache.set(key, 1, **timeout)
                self.assertIs(self.cache.add(f"add_{key}", 1, **timeout), True)
                self.assertEqual(self.cache.get_or_set(f"or_{key}", 1, **timeout), 1)
                for each in (key, f"add_{key}", f"or_{key}"):
                    self.assert_ttl(f":1:{each}", left)

    def test_for_ever(self) -> None:
        self.cache.set("set", 1, timeout=None)
        self.cache.add("add", 1, timeout=None)
        self.caches["prefixed"].set("default", 1)
        self.caches["prefixed"].set_many({"many": 1})
        self.assert_for_ever(":1:set", ":1:add", "cacheprefix:1:default", "cacheprefix:1:many")
        self.cache.set("set", 2)
        self.assert_ttl(":1:set", 300)

    def test_zero_and_less_keep_nothing(self) -> None:
        for timeout in (0, 0.0, -1, -0.5):
            self.cache.set("key", 1)
            self.cache.set("key", 2, timeout)
            self.assertIs(self.cache.has_key("key"), False)
            self.assertIs(self.cache.add("key", 1, timeout), True)
            self.cache.set("there", 1)
            self.assertIs(self.cache.add("there", 2, timeout), False)
            self.assertEqual(self.cache.get_many(["key", "there"]), {"there": 1})
            self.assertIs(self.cache.touch("there", timeout), True)
            self.assertIs(self.cache.has_key("there"), False)
        self.caches["none kept"].set("key", 1)
        self.assertIs(self.cache.has_key("key"), False)
        self.assertEqual(self.caches["none kept"].get_or_set("key", 5), 5)

    def test_keys_expire(self) -> None:
        self.cache.set_many({"a": 1, "b": 1}, 0.05)
        self.cache.add("c", 1, 0.05)
        until(lambda: not self.cache.get_many("abc"))
        self.assertIs(self.cache.has_key("a"), False)
        self.assertIs(self.cache.add("a", 2), True)
        self.assertEqual(self.cache.get("a"), 2)

    def test_touch(self) -> None:
        cache = self.caches["short"]
        cache.set("key", 1, timeout=DAY)
        self.assertIs(cache.touch("key"), True)
        self.assert_ttl(":1:key", 60)
        for timeout in (5 * DAY, 90.5):
            self.assertIs(cache.touch("key", timeout), True)
            self.assert_ttl(":1:key", timeout)
        self.assertIs(cache.touch("key", None), True)
        self.assertIs(cache.touch("key", None), True)  # it never expires already
        self.assert_for_ever(":1:key")
        for timeout in (None, 0, 10):
            self.assertIs(cache.touch("missing", timeout), False)


class DjangoGetOrSet(DjangoCase):
    def test_get_or_set(self) -> None:
        cache = self.cache
        self.assertIsNone(cache.get_or_set("none", None))
        self.assertEqual(cache.get_or_set("mykey", "default"), "default")
        self.assertEqual(cache.get_or_set("mykey", "other"), "default")
        self.assertEqual(cache.get_or_set("called", lambda: "value"), "value")
        self.assertEqual(cache.get_or_set("called", self.fail), "value")
        self.assertEqual(cache.get_or_set("mykey", 1979, version=2), 1979)
        with self.assertRaises(TypeError):
            cache.get_or_set("mykey")

    def test_who_comes_first_wins(self) -> None:
        def late() -> str:
            self.cache.add("key", "first")
            return "second"

        self.assertEqual(self.cache.get_or_set("key", late), "first")
        found = in_threads(lambda: self.caches["default"].get_or_set("k", object().__repr__))
        self.assertEqual(len(set(found)), 1)


class DjangoVersions(DjangoCase):
    def test_each_method_takes_a_version(self) -> None:
        one, two = self.cache, self.caches["version 2"]
        one.set("key", 1)
        self.assertEqual((one.get("key", version=2), two.get("key")), (None, None))
        self.assertEqual(two.get("key", version=1), 1)
        self.assertIs(one.add("key", 20, version=2), True)
        self.assertIs(two.add("key", 21), False)
        self.assertEqual((one.get("key"), two.get("key")), (1, 20))
        self.assertEqual((one.incr("key", version=2), two.decr("key", version=1)), (21, 0))
        self.assertEqual(one.get_many(["key"], version=2), {"key": 21})
        self.assertEqual((one.has_key("key", version=3), two.has_key("key")), (False, True))
        self.assertIs(one.touch("key", DAY, version=2), True)
        self.assert_ttl(":2:key", DAY)
        self.assertIs(two.delete("key", version=1), True)
        self.assertEqual((one.get("key"), two.get("key")), (None, 21))
        one.set_many({"a": 1, "b": 2}, version=2)
        self.assertEqual((one.get_many("ab"), two.get_many("ab")), ({}, {"a": 1, "b": 2}))
        one.delete_many(["a"], version=2)
        self.assertEqual(two.get_many("ab"), {"b": 2})
        one.set("zero", "nil", version=0)
        self.assertEqual((one.get("zero", version=0), one.get("zero")), ("nil", None))

    def test_incr_version_moves_a_value(self) -> None:
        one, two = self.cache, self.caches["version 2"]
        one.set("answer", 42, DAY, version=2)
        self.assertEqual(one.incr_version("answer", version=2), 3)
        self.assertEqual([one.get("answer", version=n) for n in (1, 2, 3)], [None, None, 42])
        self.assert_ttl(":3:answer", DAY)
        self.assertEqual(one.decr_version("answer", 2, version=3), 1)
        self.assertEqual(one.get("answer"), 42)
        two.set("answer2", 1)
        self.assertEqual((two.incr_version("answer2"), two.get("answer2", version=3)), (3, 1))
        self.assertEqual(two.decr_version("answer2", version=3), 2)
        one.set("none", None)
        self.assertEqual(one.incr_version("none"), 2)
        self.assertIsNone(one.get("none", "default", version=2))
        for method in (one.incr_version, one.decr_version):
            with self.assertRaisesRegex(ValueError, "'missing' not found"):
                method("missing")

    def test_key_functions(self) -> None:
        custom, by_path = self.caches["custom"], self.caches["custom by path"]
        custom.set("key", "value")
        self.assertEqual(self.db.keys(), ["CUSTOM-p-1-key"])
        self.assertEqual((by_path.get("key"), self.cache.get("key")), ("value", None))
        self.assertEqual(by_path.get_many(["key"]), {"key": "value"})
        self.assertEqual(by_path.incr_version("key"), 2)
        self.assertEqual(custom.get("key", version=2), "value")


class DjangoAsync(DjangoCase):
    def test_each_method_has_its_async_one(self) -> None:
        cache = self.cache

        async def talk() -> None:
            await cache.aset("n", 1)
            self.assertEqual((await cache.aget("n"), await cache.aget("x", 5)), (1, 5))
            self.assertEqual([await cache.aadd(key, 2) for key in "na"], [False, True])
            self.assertEqual((await cache.aincr("n", 5), await cache.adecr("n")), (6, 5))
            for method in (cache.aincr, cache.adecr, cache.aincr_version):
                with self.assertRaises(ValueError):
                    await method("missing")
            self.assertEqual([await cache.ahas_key(key) for key in "nx"], [True, False])
            self.assertEqual(await cache.aget_or_set("new", lambda: 5), 5)
            self.assertEqual(await cache.aget_many(["n", "x", "new"]), {"n": 5, "new": 5})
            self.assertEqual(await cache.aset_many({"c": 1, "d": 2}, DAY), [])
            self.assertEqual([await cache.atouch(key) for key in "cx"], [True, False])
            await cache.adelete_many(["c", "n"])
            self.assertEqual(await cache.aget_many("acdn"), {"a": 2, "d": 2})
            self.assertEqual((await cache.aincr_version("a"), await cache.aget("a")), (2, None))
            self.assertEqual(await cache.adecr_version("a", version=2), 1)
            self.assertEqual([await cache.adelete(key) for key in "ax"], [True, False])
            await cache.aclear()
            self.assertIsNone(await cache.aget("d"))
            await cache.aclose()

        asyncio.run(asyncio.wait_for(talk(), 60))

    def test_tasks_lose_no_count(self) -> None:
        self.cache.set("n", 0)

        async def count() -> None:
            await asyncio.gather(*[self.cache.aincr("n") for _ in range(50)])

        asyncio.run(asyncio.wait_for(count(), 60))
        self.assertEqual(self.cache.get("n"), 50)
