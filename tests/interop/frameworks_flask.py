"""Flask's extensions for caches and sessions, and cachelib, on which they are built."""

from __future__ import annotations

from typing import Any

from tests.interop.frameworks_case import FrameworkCase


class _Cachelib(FrameworkCase):
    distribution = "cachelib"
    packages: tuple[str, ...] = ("cachelib", "redis")

    def setUp(self) -> None:
        super().setUp()
        self.cache: Any = self.configured()

    def test_values_of_any_type(self) -> None:
        cache = self.cache
        for value in ("grüß", b"\x00\xff", 5, 2.5, {"a": [1, None]}, ("x",)):
            self.assertTrue(cache.set("k", value))
            self.assertEqual(cache.get("k"), value)
        self.assertIsNone(cache.get("missing"))
        self.assertFalse(cache.add("k", 1))
        self.assertTrue(cache.add("new", 1))
        self.assertEqual((bool(cache.has("k")), bool(cache.has("missing"))), (True, False))
        self.assertTrue(cache.delete("k"))
        self.assertFalse(cache.has("k"))

    def test_many_at_once(self) -> None:
        cache = self.cache
        self.assertEqual(sorted(cache.set_many({"a": 1, "b": "x"})), ["a", "b"])
        self.assertEqual(cache.get_many("a", "missing", "b"), [1, None, "x"])
        self.assertEqual(cache.get_dict("a", "missing"), {"a": 1, "missing": None})
        cache.delete_many("a", "b")
        self.assertEqual(cache.get_many("a", "b"), [None, None])

    def test_counters(self) -> None:
        cache = self.cache
        cache.set("n", 5)
        self.assertEqual([cache.inc("n"), cache.inc("n", 10), cache.dec("n", 3)], [6, 16, 13])
        self.assertEqual(cache.get("n"), 13)

    def test_expiry(self) -> None:
        cache = self.cache
        cache.set("default", 1)
        cache.set("long", 1, timeout=60 * 86_400)
        cache.set("forever", 1, timeout=0)
        self.assert_ttl("default", 300)
        self.assert_ttl("long", 60 * 86_400)
        self.assertEqual(self.db.ttl("forever"), -1)

    def test_clear(self) -> None:
        self.cache.set("k", 1)
        self.assertTrue(self.cache.clear())
        self.assertIsNone(self.cache.get("k"))


class CachelibRedis(_Cachelib):
    library = "cachelib, RedisCache"
    setting = "cachelib.RedisCache(port=4242)"


class CachelibMemcached(_Cachelib):
    library = "cachelib, MemcachedCache"
    protocol = "memcached"
    packages = ("cachelib", "pylibmc")
    setting = "cachelib.MemcachedCache(['127.0.0.1:11211'])"


class _FlaskCaching(FrameworkCase):
    distribution = "Flask-Caching"

    def setUp(self) -> None:
        import flask
        from flask_caching import Cache

        super().setUp()
        self.app = flask.Flask("test")
        self.cache = Cache(self.app, config=self.configured())
        self.enterContext(self.app.app_context())

    def test_cached_views(self) -> None:
        import flask

        calls = []

        @self.app.route("/page")
        @self.cache.cached(timeout=1000, query_string=True)
        def page() -> str:
            calls.append(flask.request.args["n"])
            return f"page {flask.request.args['n']}"

        browser = self.app.test_client()
        replies = [browser.get(f"/page?n={n}").text for n in (1, 2, 1, 2)]
        self.assertEqual(replies, ["page 1", "page 2"] * 2)
        self.assertEqual(calls, ["1", "2"])
        for key in self.db.scan_iter():
            self.assert_ttl(key, 1000)

    def test_memoized_functions(self) -> None:
        calls = []

        @self.cache.memoize(1000)
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
        self.assertTrue(cache.set("k", {"a": 1}, timeout=1000))
        self.assertEqual((cache.get("k"), cache.get("missing")), ({"a": 1}, None))
        self.assertFalse(cache.add("k", 1))
        self.assertTrue(cache.has("k"))
        self.assertFalse(cache.has("missing"))
        cache.set_many({"a": 1, "b": 2})
        self.assertEqual(cache.get_many("a", "missing", "b"), [1, None, 2])
        self.assertEqual(cache.get_dict("a"), {"a": 1})
        cache.delete_many("a", "b")
        cache.delete("k")
        self.assertEqual(cache.get_many("a", "b", "k"), [None] * 3)

    def test_clear(self) -> None:
        self.cache.set("k", 1)
        self.assertTrue(self.cache.clear())
        self.assertIsNone(self.cache.get("k"))


class FlaskCachingRedis(_FlaskCaching):
    library = "Flask-Caching, RedisCache"
    packages = ("flask_caching", "redis")
    setting = "{'CACHE_TYPE': 'RedisCache', 'CACHE_REDIS_URL': 'redis://127.0.0.1:4242'}"


class FlaskCachingMemcached(_FlaskCaching):
    library = "Flask-Caching, MemcachedCache"
    protocol = "memcached"
    packages = ("flask_caching", "pylibmc")
    setting = "{'CACHE_TYPE': 'MemcachedCache', 'CACHE_MEMCACHED_SERVERS': ['127.0.0.1:11211']}"


class _FlaskSession(FrameworkCase):
    distribution = "Flask-Session"

    def setUp(self) -> None:
        import flask
        from flask_session import Session

        super().setUp()
        self.app = flask.Flask("test")
        self.app.config.update(self.configured())
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
        keys = self.db.keys("session:*")
        self.assertEqual(len(keys), 2)
        for key in keys:
            self.assert_ttl(key, 31 * 86_400)
        browser.get("/leave")
        self.assertEqual(browser.get("/visit").text, "1")
        self.assertEqual(other.get("/visit").text, "2")


class FlaskSessionRedis(_FlaskSession):
    library = "Flask-Session, Redis"
    packages = ("flask_session", "redis")
    setting = "{'SESSION_TYPE': 'redis', 'SESSION_REDIS': redis.Redis(port=4242)}"


class FlaskSessionMemcached(_FlaskSession):
    library = "Flask-Session, memcached"
    protocol = "memcached"
    packages = ("flask_session", "pymemcache")
    setting = (
        "{'SESSION_TYPE': 'memcached', 'SESSION_MEMCACHED':"
        " pymemcache.Client('127.0.0.1:11211', default_noreply=False)}"
    )
