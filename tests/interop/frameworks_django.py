"""Django's own cache backends, asked what Django's tests of caches ask; django-redis has its tests
in scripts_caches.
"""

from __future__ import annotations

import time
from typing import Any

from tests.interop.frameworks_case import FrameworkCase, run_async
from tests.interop.scripts_case import DEADLINE

DAY = 86_400


def _plus_one(value: int) -> int:
    return value + 1


class Unpicklable:
    def __getstate__(self) -> object:
        raise TypeError("not to be pickled")


class _DjangoCache(FrameworkCase):
    distribution = "Django"
    packages = ("django",)

    def setUp(self) -> None:
        from django.conf import settings

        super().setUp()
        if not settings.configured:
            settings.configure()
        from django.core.cache import caches
        from django.test.utils import override_settings

        self.enterContext(override_settings(CACHES=self._caches()))
        self.cache: Any = caches["default"]
        self.prefixed: Any = caches["prefixed"]
        self.version_2: Any = caches["version 2"]
        for cache in (self.cache, self.prefixed, self.version_2):
            self.addCleanup(cache.close)

    def _caches(self) -> dict[str, Any]:
        default = self.configured()
        prefixed = {**default, "KEY_PREFIX": "cacheprefix", "TIMEOUT": None}
        return {"default": default, "prefixed": prefixed, "version 2": {**default, "VERSION": 2}}

    def test_get_set_add_and_delete(self) -> None:
        cache = self.cache
        cache.set("key", "value")
        self.assertEqual((cache.get("key"), cache.get("none", "default")), ("value", "default"))
        self.assertIsNone(cache.get("none"))
        self.assertEqual([cache.add("added", number) for number in (1, 2)], [True, False])
        self.assertEqual(cache.get("added"), 1)
        self.assertIsNone(self.prefixed.get("key"))
        self.assertEqual([cache.delete("key") for _ in "12"], [True, False])
        cache.set("nothing", None)
        self.assertIsNone(cache.get("nothing", "default"))
        self.assertEqual((cache.has_key("nothing"), cache.has_key("key")), (True, False))
        self.assertIn("added", cache)
        self.assertNotIn("key", cache)

    def test_values_of_any_type(self) -> None:
        cache = self.cache
        values = {
            "string": "this is a string",
            "unicode_ascii": "Iñtërnâtiônàlizætiøn1",
            "Iñtërnâtiônàlizætiøn": "Iñtërnâtiônàlizætiøn2",
            "ascii": {"x": 1},
            "int": 42,
            "bool": True,
            "list": [1, 2, 3, 4],
            "tuple": (1, 2, 3, 4),
            "empty": "",
            "binary": bytes(range(256)),
            "function": _plus_one,
            "class": Unpicklable,
        }
        for key, value in values.items():
            cache.set(key, value)
            self.assertEqual(cache.get(key), value)
            self.assertIs(cache.delete(key), True)
            self.assertIs(cache.add(key, value), True)
            self.assertIs(cache.get(key) == value, True)
        cache.set_many({f"many {key}".replace(" ", "_"): value for key, value in values.items()})
        self.assertEqual(cache.get("many_Iñtërnâtiônàlizætiøn"), "Iñtërnâtiônàlizætiøn2")
        for method in (cache.set, cache.add):
            with self.assertRaisesRegex(TypeError, "not to be pickled"):
                method("key", Unpicklable())

    def test_counters(self) -> None:
        cache = self.cache
        cache.set("n", 41)
        self.assertEqual([cache.incr("n"), cache.incr("n", 10), cache.incr("n", -10)], [42, 52, 42])
        self.assertEqual([cache.decr("n"), cache.decr("n", 10), cache.decr("n", -10)], [41, 31, 41])
        self.assertEqual(cache.get("n"), 41)
        for method in (cache.incr, cache.decr):
            with self.assertRaises(ValueError):
                method("missing")

    def test_many_at_once(self) -> None:
        cache = self.cache
        self.assertEqual(cache.set_many({"a": 1, "b": [2], "c": "ü"}), [])
        self.assertEqual(cache.get_many(["a", "c", "x"]), {"a": 1, "c": "ü"})
        self.assertEqual(cache.get_many(iter(["b"])), {"b": [2]})
        self.assertEqual((cache.set_many({}), cache.get_many([])), ([], {}))
        cache.delete_many(["a", "c", "x"])
        cache.delete_many([])
        self.assertEqual(cache.get_many("abc"), {"b": [2]})
        cache.set_many({"a": 1}, timeout=DAY)
        self.assert_ttl(":1:a", DAY)
        cache.set_many({"a": 1, "b": 2}, timeout=0)
        self.assertEqual(cache.get_many("ab"), {})
        cache.set_many({f"key{n}": n for n in range(500)})
        self.assertEqual(cache.get_many([f"key{n}" for n in range(0, 500, 100)])["key400"], 400)
        self.assertEqual(self.db.dbsize(), 500)

    def test_timeouts(self) -> None:
        cache = self.cache
        for name, timeout in {"default": {}, "short": {"timeout": 60}}.items():
            cache.set(name, 1, **timeout)
            cache.add(f"add_{name}", 1, **timeout)
            for key in (name, f"add_{name}"):
                self.assert_ttl(f":1:{key}", 300 if name == "default" else 60)
        cache.set("long", 1, timeout=60 * DAY)  # memcached takes more than 30 days for a moment
        self.assert_ttl(":1:long", 60 * DAY)
        cache.set("forever", 1, timeout=None)
        self.assertTrue(cache.add("also", 1, timeout=None))
        self.prefixed.set("so_configured", 1)
        for key in (":1:forever", ":1:also", "cacheprefix:1:so_configured"):
            self.assertEqual(self.db.ttl(key), -1)
        cache.set("gone", 1)
        cache.set("gone", 2, timeout=0)
        cache.set("negative", 2, timeout=-1)
        self.assertTrue(cache.add("never", 1, timeout=0))
        self.assertEqual(cache.get_many(["gone", "negative", "never"]), {})
        cache.set("float", 1, timeout=100.5)
        self.assert_ttl(":1:float", 100)

    def test_expiry(self) -> None:
        self.cache.set("key", 1, 1)
        deadline = time.monotonic() + DEADLINE
        while self.cache.has_key("key"):
            self.assertLess(time.monotonic(), deadline, "the key never expired")
            time.sleep(0.01)
        self.assertTrue(self.cache.add("key", 2))
        self.assertEqual(self.cache.get("key"), 2)

    def test_touch(self) -> None:
        cache = self.cache
        cache.set("key", 1, timeout=60)
        self.assertIs(cache.touch("key", timeout=DAY), True)
        self.assert_ttl(":1:key", DAY)
        self.assertIs(cache.touch("key"), True)
        self.assert_ttl(":1:key", 300)
        self.assertIs(cache.touch("key", timeout=None), True)
        self.assertEqual(self.db.ttl(":1:key"), -1)
        self.assertIs(cache.touch("key", timeout=0), True)
        self.assertEqual((cache.get("key"), cache.touch("missing")), (None, False))

    def test_get_or_set(self) -> None:
        cache = self.cache
        self.assertEqual(cache.get_or_set("a", "default"), "default")
        self.assertEqual(cache.get_or_set("a", lambda: "other"), "default")
        self.assertEqual(cache.get_or_set("b", lambda: "called", DAY), "called")
        self.assert_ttl(":1:b", DAY)
        self.assertIsNone(cache.get_or_set("c", None))
        self.assertIsNone(cache.get_or_set("c", "default"))  # what is there is None
        self.assertEqual(cache.get_or_set("a", "two", version=2), "two")

    def test_versions(self) -> None:
        cache, other = self.cache, self.version_2
        cache.set("key", 1)
        self.assertEqual((cache.get("key", version=1), cache.get("key", version=2)), (1, None))
        self.assertIsNone(other.get("key"))
        other.set("key", 2)
        self.assertEqual((cache.get("key"), cache.get("key", version=2)), (1, 2))
        self.assertEqual(cache.incr("key", version=2), 3)
        self.assertEqual(cache.get_many(["key"], version=2), {"key": 3})
        self.assertTrue(cache.delete("key", version=2))
        self.assertEqual(cache.incr_version("key"), 2)
        self.assertEqual((cache.get("key"), other.get("key")), (None, 1))
        self.assertEqual(cache.decr_version("key", version=2), 1)
        self.assertEqual((cache.get("key"), other.get("key")), (1, None))
        with self.assertRaises(ValueError):
            cache.incr_version("missing")

    def test_clear(self) -> None:
        for cache in (self.cache, self.prefixed):
            cache.set_many({"a": 1, "b": 2})
        self.cache.clear()
        self.assertEqual((self.cache.get_many("ab"), self.prefixed.get_many("ab")), ({}, {}))

    def test_no_culling(self) -> None:
        self.cache.set_many({f"key{n}": n for n in range(1000)})  # MAX_ENTRIES is 300
        self.assertEqual(len(self.cache.get_many([f"key{n}" for n in range(1000)])), 1000)

    def test_asyncio(self) -> None:
        cache = self.cache

        async def talk() -> None:
            await cache.aset("n", 1)
            self.assertEqual((await cache.aincr("n"), await cache.aget("n")), (2, 2))
            self.assertEqual(await cache.aget_or_set("new", 5), 5)
            self.assertEqual(await cache.aget_many(["n", "new"]), {"n": 2, "new": 5})
            self.assertTrue(await cache.adelete("n"))

        run_async(talk())

    def test_sessions(self) -> None:
        from django.contrib.sessions.backends.cache import SessionStore

        session = SessionStore()
        session["user"] = {"name": "Ada"}
        session.set_expiry(DAY)
        session.save()
        [key] = self.db.keys("*cache*")
        self.assert_ttl(key, DAY)
        self.assertEqual(SessionStore(session.session_key)["user"], {"name": "Ada"})
        session.flush()
        self.assertEqual(self.db.dbsize(), 0)


class DjangoRedisCache(_DjangoCache):
    library = "Django, RedisCache"
    packages = ("django", "redis")
    setting = (
        "{'BACKEND': 'django.core.cache.backends.redis.RedisCache',"
        " 'LOCATION': 'redis://127.0.0.1:4242'}"
    )

    def test_key_warnings(self) -> None:
        from django.core.cache import CacheKeyWarning

        for key in ("key with spaces and 清", "a" * 251):
            with self.assertWarns(CacheKeyWarning):
                self.cache.set(key, "value")
            self.assertEqual(self.cache.get(key), "value")


class _DjangoMemcached(_DjangoCache):
    protocol = "memcached"

    def test_key_warnings(self) -> None:
        from django.core.cache.backends.base import InvalidCacheKey

        for key in ("key with spaces and 清", "a" * 251):
            with self.assertRaises(InvalidCacheKey):
                self.cache.set(key, "value")
            with self.assertRaises(InvalidCacheKey):
                self.cache.set_many({"key": 1, key: "value"})
        self.cache.set("a" * (250 - len(":1:")), "value")
        self.assertEqual(self.cache.get("a" * (250 - len(":1:"))), "value")

    def test_too_long_values(self) -> None:
        self.cache.set("small", "a")
        with self.assertRaises(Exception) as caught:
            self.cache.set("small", "a" * 17 * 2**20)  # without a flag, kvdb takes 16 MB
        self.assertRegex(repr(caught.exception), "TooBig|object too large for cache")
        self.assertIsNone(self.cache.get("small"))  # the old value would be out of date


class DjangoPyMemcacheCache(_DjangoMemcached):
    library = "Django, PyMemcacheCache"
    packages = ("django", "pymemcache")
    setting = (
        "{'BACKEND': 'django.core.cache.backends.memcached.PyMemcacheCache',"
        " 'LOCATION': '127.0.0.1:11211'}"
    )


class DjangoPyLibMCCache(_DjangoMemcached):
    library = "Django, PyLibMCCache"
    packages = ("django", "pylibmc")
    setting = (
        "{'BACKEND': 'django.core.cache.backends.memcached.PyLibMCCache',"
        " 'LOCATION': '127.0.0.1:11211'}"
    )
