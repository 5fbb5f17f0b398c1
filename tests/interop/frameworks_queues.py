"""Queues of tasks that need lists, sets or sorted sets: the error has to name the command."""

from __future__ import annotations

from tests.interop.frameworks_case import FrameworkCase, run_async


class RQ(FrameworkCase):
    library = "RQ"
    distribution = "rq"
    packages = ("rq", "redis")
    setting = "rq.Queue(connection=redis.Redis(port=4242))"

    def test_refused(self) -> None:
        queue = self.configured()
        with self.refused("SADD", "queues"):
            queue.enqueue("builtins.print", "x")


class Huey(FrameworkCase):
    library = "huey"
    distribution = "huey"
    packages = ("huey", "redis")
    setting = "huey.RedisHuey(port=4242)"

    def test_refused(self) -> None:
        queue = self.configured()
        with self.refused("LPUSH", "queues"):
            queue.task()(print)("x")


class Dramatiq(FrameworkCase):
    library = "dramatiq"
    distribution = "dramatiq"
    packages = ("dramatiq.brokers.redis",)
    setting = "dramatiq.brokers.redis.RedisBroker(port=4242)"

    def test_refused(self) -> None:
        import dramatiq

        broker = self.configured()
        self.addCleanup(broker.close)
        actor = dramatiq.actor(print, broker=broker)
        with self.refused("ZADD", "queues"):
            actor.send("x")


class Arq(FrameworkCase):
    library = "arq"
    distribution = "arq"
    packages = ("arq.connections",)
    setting = "arq.connections.RedisSettings(port=4242)"

    def test_refused(self) -> None:
        from arq import create_pool

        async def talk() -> None:
            pool = await create_pool(self.configured())
            try:
                await pool.enqueue_job("print", "x")
            finally:
                await pool.aclose()

        with self.refused("ZADD", "queues"):
            run_async(talk())
