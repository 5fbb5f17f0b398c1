"""Libraries that are there for rate limits: of many hits at once, just as many are allowed."""

from __future__ import annotations

import asyncio
from typing import Any

import redis

from tests.interop.scripts_case import HOUR, LibraryCase

WEEK = 7 * 24 * HOUR


class Limits(LibraryCase):
    packages = ("limits",)

    def setUp(self) -> None:
        from limits import parse
        from limits.storage import storage_from_string

        super().setUp()
        self.storage: Any = storage_from_string(self.url)
        self.addCleanup(self.storage.storage.close)
        self.ten = parse("10/hour")

    def test_a_fixed_window(self) -> None:
        from limits.strategies import FixedWindowRateLimiter

        limiter = FixedWindowRateLimiter(self.storage)
        self.assertEqual([limiter.hit(self.ten, "a", cost=4) for _ in "123"], [True, True, False])
        self.assertEqual(limiter.get_window_stats(self.ten, "a").remaining, 0)
        self.assertTrue(limiter.test(self.ten, "b"))
        self.assertIn(self.db.ttl(self.db.keys()[0]), range(HOUR - 60, HOUR + 1))
        limiter.clear(self.ten, "a")
        self.assertTrue(limiter.test(self.ten, "a"))
        self.assert_allowed(10, lambda: limiter.hit(self.ten, "c"))

    def test_a_sliding_window_counter(self) -> None:
        from limits.strategies import SlidingWindowCounterRateLimiter

        limiter = SlidingWindowCounterRateLimiter(self.storage)
        self.assert_allowed(10, lambda: limiter.hit(self.ten, "a"))
        self.assertEqual(limiter.get_window_stats(self.ten, "a").remaining, 0)
        # As if the window were nearly half over: 4.97 of the 10 hits still count, as 4.
        (key,) = self.db.keys()
        self.db.pexpire(key, 1_790_000)
        self.assert_allowed(6, lambda: limiter.hit(self.ten, "a"))
        self.assertEqual(sorted(self.db.keys()), [key, f"{key}/-1"])
        self.assertEqual(self.db.mget(key, f"{key}/-1"), ["6", "10"])
        self.assertEqual(limiter.get_window_stats(self.ten, "a").remaining, 0)
        self.assertEqual(limiter.get_window_stats(self.ten, "b").remaining, 10)
        limiter.clear(self.ten, "a")
        self.assertEqual(self.db.dbsize(), 0)

    def test_a_moving_window_needs_lists(self) -> None:
        from limits.strategies import MovingWindowRateLimiter

        limiter = MovingWindowRateLimiter(self.storage)
        with self.refused_by_kvdb("lindex"):
            self.assert_allowed(10, lambda: limiter.hit(self.ten, "a"))
        with self.refused_by_kvdb("lindex"):
            self.assertEqual(limiter.get_window_stats(self.ten, "a").remaining, 0)

    def test_a_reset_deletes_its_keys_only(self) -> None:
        self.db.mset({f"LIMITS:LIMITER/{number}": 1 for number in range(6_000)} | {"other": 1})
        self.assertEqual(self.storage.reset(), 6_000)
        self.assertEqual(self.db.keys(), ["other"])

    def test_the_async_storage(self) -> None:
        from limits.aio.strategies import FixedWindowRateLimiter, SlidingWindowCounterRateLimiter
        from limits.storage import storage_from_string

        async def converse() -> None:
            storage: Any = storage_from_string(f"async+{self.url}", implementation="redispy")
            for kind in (FixedWindowRateLimiter, SlidingWindowCounterRateLimiter):
                limiter = kind(storage)
                hits = (limiter.hit(self.ten, kind.__name__) for _ in range(40))
                self.assertEqual(sum(await asyncio.gather(*hits)), 10)
            self.assertEqual(await storage.reset(), 2)

        asyncio.run(asyncio.wait_for(converse(), 60))


class FlaskLimiter(LibraryCase):
    packages = ("flask_limiter",)

    def app(self, strategy: str) -> Any:
        from flask import Flask
        from flask_limiter import Limiter

        app = Flask("app")
        app.testing = True  # an error goes through to the test
        limiter = Limiter(
            lambda: "everybody",
            app=app,
            storage_uri=self.url,
            strategy=strategy,
            headers_enabled=True,
        )

        @app.route("/")
        @limiter.limit("20/hour")
        def index() -> str:
            return "hello"

        return app

    def test_of_many_requests_just_as_many_are_served(self) -> None:
        for strategy in ("fixed-window", "sliding-window-counter"):
            app = self.app(strategy)
            first = app.test_client().get("/")
            self.assertEqual(
                (first.status_code, first.headers["X-RateLimit-Remaining"]), (200, "19")
            )
            self.assert_allowed(19, lambda app=app: app.test_client().get("/").status_code == 200)
            last = app.test_client().get("/")
            self.assertEqual((last.status_code, last.headers["X-RateLimit-Remaining"]), (429, "0"))
            self.db.flushall()
            self.assertEqual(app.test_client().get("/").status_code, 200)

    def test_a_moving_window_needs_lists(self) -> None:
        app = self.app("moving-window")
        with self.refused_by_kvdb("lindex"):
            self.assert_allowed(20, lambda: app.test_client().get("/").status_code == 200)


class Throttled(LibraryCase):
    packages = ("throttled",)

    def limiter(self, algorithm: str, limit: int = 10) -> Any:
        from throttled import Throttled, rate_limiter, store

        # Its windows begin by the clock: a week's seldom ends while this runs.
        quota = rate_limiter.per_week(limit, burst=limit)
        return Throttled(using=algorithm, quota=quota, store=store.RedisStore(server=self.url))

    def test_limits_on_strings(self) -> None:
        for algorithm in ("fixed_window", "sliding_window", "gcra"):
            with self.subTest(algorithm):
                limiter = self.limiter(algorithm)
                first = limiter.limit("a", cost=4)
                self.assertEqual((first.limited, first.state.remaining), (False, 6))
                self.assert_allowed(6, lambda limiter=limiter: not limiter.limit("a").limited)
                self.assertEqual(limiter.peek("a").remaining, 0)
                self.assertEqual(limiter.peek("b").remaining, 10)
                self.assertTrue(limiter.limit("a").limited)

    def test_gcra_keeps_fractions_of_seconds(self) -> None:
        limiter = self.limiter("gcra", limit=7)
        states = [limiter.limit("a").state for _ in range(9)]
        self.assertEqual([state.remaining for state in states], [6, 5, 4, 3, 2, 1, 0, 0, 0])
        self.assertTrue(0 < states[-1].retry_after <= WEEK / 7)
        for number, state in enumerate(states[:7], 1):
            self.assertTrue(WEEK / 7 * number - 60 < state.reset_after < WEEK / 7 * number + 1)
        (key,) = self.db.keys()
        self.assertRegex(self.db.get(key) or "", r"^\d+\.\d+$")

    def test_buckets_need_hashes(self) -> None:
        for algorithm in ("token_bucket", "leaking_bucket"):
            limiter = self.limiter(algorithm)
            with self.subTest(algorithm), self.refused_by_kvdb("HMGET"):
                self.assert_allowed(10, lambda limiter=limiter: not limiter.limit("a").limited)


class PythonRedisRateLimit(LibraryCase):
    packages = ("redis_rate_limit",)

    def test_of_many_calls_just_as_many_are_allowed(self) -> None:
        from redis_rate_limit import RateLimit, TooManyRequests

        pool = redis.ConnectionPool(host=self.address.host, port=self.address.port)
        self.addCleanup(pool.disconnect)
        limit = RateLimit("page", "client", 20, expire=HOUR, redis_pool=pool)
        self.assertEqual([limit.increment_usage(), limit.increment_usage(4)], [1, 5])

        def hit() -> bool:
            try:
                with limit:
                    return True
            except TooManyRequests:
                return False

        self.assert_allowed(15, hit)
        self.assertTrue(limit.has_been_reached())
        self.assertTrue(HOUR - 60 < limit.get_wait_time() <= HOUR)


class PyrateLimiter(LibraryCase):
    packages = ("pyrate_limiter",)

    def test_its_buckets_need_sorted_sets(self) -> None:
        from pyrate_limiter import Duration, Rate, RateItem, RedisBucket

        bucket = RedisBucket.init([Rate(3, Duration.HOUR)], self.client(), "bucket")
        with self.refused_by_kvdb("ZCOUNT"):
            replies = [bucket.put(RateItem("a", bucket.now())) for _ in range(5)]
            self.assertEqual(replies, [True] * 3 + [False] * 2)
        with self.refused_by_kvdb("ZREMRANGEBYSCORE"):
            self.assertEqual(bucket.leak(0), 0)
