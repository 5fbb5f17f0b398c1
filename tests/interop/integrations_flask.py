"""kvdb.integrations.cachelib, alone, for Flask-Caching and for Flask-Session."""

from __future__ import annotations

import datetime
import pickle
from typing import Any

import kvdb
from tests.interop.integrations_case import DAY, IntegrationCase, in_threads, until


class CachelibCache(IntegrationCase):
    packages = ("cachelib",)

    def setUp(self) -> None:
        super().setUp()
        self.cache = self.make()

    def make(self, *arguments: Any, **options: Any) -> Any:
        from kvdb.integrations.cachelib import KvdbCache

        cache = KvdbCache(self.url, *arguments, **options)
        self.addCleanup(cache.close)
        return cache

    def test_it_is_one_of_cachelibs(self) -> None:
        from cachelib import BaseCache

        self.assertIsInstance(self.cache, BaseCache)
        for name in vars(BaseCache):
            self.assertTrue(hasattr(self.cache, name))

    def test_values_of_any_type(self) -> None:
        cache = self.cache
        for value in ("grüß", "5", b"\x00\xff", 5, -5, True, 2.5, {"a": [1, None]}, ("x",), ""):
            self.assertIs(cache.set("k", value), True)
            self.assertEqual(cache.get("k"), value)
            self.assertIs(type(cache.get("k")), type(value))
        self.assertIsNone(cache.get("missing"))
        with self.assertRaises((pickle.PickleError, AttributeError)):
            cache.set("k", lambda: None)

    def test_add_has_and_delete(self) -> None:
        cache = self.cache
        self.assertEqual([cache.add("k", 1), cache.add("k", 2)], [True, False])
        self.assertEqual((cache.get("k"), cache.has("k"), cache.has("x")), (1, True, False))
        self.assertEqual([cache.delete("k"), cache.delete("k")], [True, False])

    def test_many_at_once(self) -> None:
        cache = self.cache
        self.assertEqual(cache.set_many({"a": 1, "b": "x"}), ["a", "b"])
        self.assertEqual(cache.get_many("a", "missing", "b"), [1, None, "x"])
        self.assertEqual(cache.get_dict("a", "missing"), {"a": 1, "missing": None})
        self.assertEqual(cache.delete_many("a", "b", "missing"), ["a", "b", "missing"])
        self.assertEqual(cache.get_many("a", "b"), [None, None])
        self.assertEqual((cache.set_many({}), cache.get_many(), cache.delete_many()), ([], [], []))

    def test_counters(self) -> None:
        cache = self.cache
        cache.set("n", 5)
        self.assertEqual([cache.inc("n"), cache.inc("n", 10), cache.dec("n", 3)], [6, 16, 13])
        self.assertEqual(cache.get("n"), 13)
        self.assertEqual((cache.inc("new", 2), cache.dec("other")), (2, -1))
        cache.set("text", "five")
        with self.assertRaises(kvdb.ServerError):
            cache.inc("text")
        in_threads(lambda: [cache.inc("n") for _ in range(10)])
        self.assertEqual(cache.get("n"), 173)

    def test_timeouts(self) -> None:
        short = self.make(datetime.timedelta(seconds=59, milliseconds=500))
        self.assertEqual((self.cache.default_timeout, short.default_timeout), (300, 60))
        cases: dict[str, tuple[Any, Any, float]] = {
            "default": (self.cache, None, 300),
            "short": (short, None, 60),
            "long": (short, 60 * DAY, 60 * DAY),
            "fraction": (short, 100.5, 100.5),
            "timedelta": (short, datetime.timedelta(days=1), DAY),
        }
        for key, (cache, timeout, left) in cases.items():
            self.assertIs(cache.set(key, 1, timeout=timeout), True)
            self.assertIs(cache.add(f"add_{key}", 1, timeout), True)
            cache.set_many({f"many_{key}": 1}, timeout)
            for each in (key, f"add_{key}", f"many_{key}"):
                self.assert_ttl(each, left)

    def test_timeouts_of_zero_and_less(self) -> None:
        cache = self.cache
        cache.set("set", 1, 0)
        cache.add("add", 1, 0)
        self.make(0).set("default", 1)
        self.assert_for_ever("set", "add", "default")
        cache.set("set", 2, -1)
        self.assertEqual((cache.add("x", 1, -1), cache.add("add", 2, -1)), (True, False))
        self.assertEqual(cache.get_many("set", "x", "add"), [None, None, 1])

    def test_keys_expire(self) -> None:
        self.cache.set("k", 1, 0.05)
        until(lambda: not self.cache.has("k"))
        self.assertIsNone(self.cache.get("k"))

    def test_clear_leaves_other_prefixes_alone(self) -> None:
        prefixes = ["a", "a*[b]?\\:", "ab"]
        first, odd, other = (self.make(key_prefix=prefix) for prefix in prefixes)
        odd.set_many({str(n): n for n in range(2000)})
        odd.set("k", 1)
        other.set("k", 2)
        self.assertEqual((odd.get("k"), self.cache.get("a*[b]?\\:k")), (1, 1))
        self.assertIs(odd.clear(), True)
        self.assertEqual(self.db.keys(), ["abk"])
        self.assertIs(first.clear(), True)  # all that begins with its prefix
        self.assertIsNone(other.get("k"))
        self.cache.set("k", 1)
        self.assertIs(self.cache.clear(), True)
        self.assertEqual(self.db.size(), 0)

    def test_a_prefix_may_be_found_for_each_call(self) -> None:
        tenant = "one"
        cache = self.make(key_prefix=lambda: f"{tenant}:")
        cache.set("k", 1)
        tenant = "two"
        self.assertIsNone(cache.get("k"))
        cache.set("k", 2)
        cache.clear()
        self.assertEqual(self.db.keys(), ["one:k"])

    def test_serializers(self) -> None:
        for option, stored in (("json", b'"x"'), (pickle, pickle.dumps("x"))):
            cache = self.make(serializer=option)
            cache.set("k", "x")
            self.assertEqual((cache.get("k"), self.db.get("k")), ("x", stored))

    def test_what_cannot_be_read_counts_as_missing(self) -> None:
        self.db.set("k", b"no pickle")
        self.assertEqual((self.cache.get("k"), self.cache.get_many("k")), (None, [None]))
        self.assertIs(self.cache.has("k"), True)


class FlaskCaching(IntegrationCase):
    packages = ("flask_caching", "cachelib")

    def setUp(self) -> None:
        super().setUp()
        self.make()

    def make(self, **settings: Any) -> None:
        import flask
        from flask_caching import Cache

        config = {
            "CACHE_TYPE": "kvdb.integrations.flask_caching.kvdb_cache",
            "CACHE_KVDB_URL": self.url,
            "CACHE_DEFAULT_TIMEOUT": 1000,
            **settings,
        }
        self.app = flask.Flask("test")
        self.cache = Cache(self.app, config=config)
        self.enterContext(self.app.app_context())
        self.addCleanup(self.app.extensions["cache"][self.cache].close)

    def test_cached_views(self) -> None:
        import flask

        calls = []

        @self.app.route("/page")
        @self.cache.cached(timeout=500, query_string=True)
        def page() -> str:
            calls.append(flask.request.args["n"])
            return f"page ü {flask.request.args['n']}"

        browser = self.app.test_client()
        replies = [browser.get(f"/page?n={n}").text for n in (1, 2, 1, 2)]
        self.assertEqual(replies, ["page ü 1", "page ü 2"] * 2)
        self.assertEqual(calls, ["1", "2"])
        keys = list(map(str, self.db.keys()))
        self.assertEqual(len(keys), 2)
        for key in keys:
            self.assertTrue(key.startswith("flask_cache_"), key)
            self.assert_ttl(key, 500)

    def test_memoized_functions(self) -> None:
        calls = []

        @self.cache.memoize()
        def double(number: int) -> int:
            calls.append(number)
            return 2 * number

        self.assertEqual([double(number) for number in (1, 2, 1, 2)], [2, 4, 2, 4])
        self.cache.delete_memoized(double, 1)
        self.assertEqual([double(1), double(2)], [2, 4])
        self.cache.delete_memoized(double)
        self.assertEqual([double(1), double(2)], [2, 4])
        self.assertEqual(calls, [1, 2, 1, 1, 2])

    def test_plain_calls(self) -> None:
        cache = self.cache
        self.assertTrue(cache.set("k", {"a": 1}))
        self.assert_ttl("flask_cache_k", 1000)
        self.assertEqual((cache.get("k"), cache.get("missing")), ({"a": 1}, None))
        self.assertFalse(cache.add("k", 1))
        self.assertEqual((cache.has("k"), cache.has("missing")), (True, False))
        cache.set_many({"a": 1, "b": 2, "c": 3})
        self.assertEqual(cache.get_many("a", "missing", "b"), [1, None, 2])
        self.assertEqual(cache.get_dict("a"), {"a": 1})
        cache.delete_many("a", "b")
        cache.unlink("c")
        cache.delete("k")
        self.assertEqual(cache.get_many("a", "b", "c", "k"), [None] * 4)

    def test_clear_leaves_other_programs_alone(self) -> None:
        self.db.set("other", b"")
        self.cache.set("k", 1)
        self.assertTrue(self.cache.clear())
        self.assertEqual(self.db.keys(), ["other"])

    def test_options(self) -> None:
        self.make(
            CACHE_KEY_PREFIX="mine:", CACHE_OPTIONS={"serializer": "json", "max_connections": 2}
        )
        self.cache.set("k", ["ü"])
        self.assertEqual(self.db.get("mine:k"), '["ü"]'.encode())
        self.make(CACHE_ARGS=[self.url], CACHE_KVDB_URL="kvdb://unused", CACHE_KEY_PREFIX="")
        self.cache.set("k", 1)
        self.assertTrue(self.db.exists("k"))


class FlaskSession(IntegrationCase):
    packages = ("flask_session", "cachelib")

    def setUp(self) -> None:
        import flask
        from flask_session import Session

        from kvdb.integrations.cachelib import KvdbCache

        super().setUp()
        cache = KvdbCache(self.url, key_prefix="site:")
        self.addCleanup(cache.close)
        self.app = flask.Flask("test")
        self.app.config.update(SESSION_TYPE="cachelib", SESSION_CACHELIB=cache)
        Session(self.app)

        @self.app.route("/visit")
        def visit() -> str:
            flask.session["visits"] = [*flask.session.get("visits", []), "ü"]
            return str(len(flask.session["visits"]))

        @self.app.route("/leave")
        def leave() -> str:
            flask.session.clear()
            return "bye"

    def test_sessions(self) -> None:
        browser, other = self.app.test_client(), self.app.test_client()
        self.assertEqual([browser.get("/visit").text for _ in "123"], ["1", "2", "3"])
        self.assertEqual(other.get("/visit").text, "1")
        keys = [str(key) for key in self.db.keys("site:session:*")]
        self.assertEqual(len(keys), 2)
        for key in keys:
            self.assert_ttl(key, 31 * DAY)
        browser.get("/leave")
        self.assertEqual(self.db.size(), 1)
        self.assertEqual((browser.get("/visit").text, other.get("/visit").text), ("1", "2"))
