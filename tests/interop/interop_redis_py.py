"""redis-py against kvdb, in RESP2 and RESP3, the async client too.

Its Lock is in scripts_redis_py.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
import unittest
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.cache import CacheConfig
from redis.retry import Retry

from tests.interop.servers import Address, running_kvdb

DEADLINE = 10.0  # seconds that we wait for something which must happen


class _WithServer(unittest.TestCase):
    address: Address
    protocol: int

    @classmethod
    def setUpClass(cls) -> None:
        cls.address = cls.enterClassContext(running_kvdb("data.json"))

    def setUp(self) -> None:
        self.db = self.client()
        self.db.flushall()

    def client(self, **options: Any) -> redis.Redis:
        options = {"protocol": self.protocol, "decode_responses": True, **options}
        client = redis.Redis(self.address.host, self.address.port, **options)
        self.addCleanup(client.close)
        return client


class _Commands(_WithServer):
    def test_strings_are_set_and_read(self) -> None:
        db = self.db
        self.assertTrue(db.set("k", "v"))
        self.assertEqual(db.get("k"), "v")
        self.assertIsNone(db.get("missing"))
        self.assertIsNone(db.set("k", "w", nx=True))
        self.assertEqual(db.set("k", "w", get=True), "v")
        self.assertEqual(db.getset("k", "x"), "w")
        self.assertEqual(db.append("k", "yz"), 3)
        self.assertEqual(db.strlen("k"), 3)
        self.assertEqual(db.getrange("k", 1, -1), "yz")
        self.assertEqual(db.setrange("k", 1, "YZ!"), 4)
        self.assertEqual(db.getdel("k"), "xYZ!")
        self.assertTrue(db.mset({"a": 1, "b": 2}))
        self.assertEqual(db.mget("a", "missing", "b"), ["1", None, "2"])
        self.assertFalse(db.msetnx({"b": 3, "c": 3}))
        self.assertTrue(db.setnx("c", 3))
        self.assertEqual(db.exists("a", "b", "c", "d"), 3)
        self.assertEqual(db.delete("a", "d"), 1)
        self.assertEqual(db.unlink("b"), 1)

    def test_the_client_can_be_used_like_a_dict(self) -> None:
        self.db["k"] = "v"
        self.assertEqual(self.db["k"], "v")
        self.assertIn("k", self.db)
        del self.db["k"]
        with self.assertRaises(KeyError):
            self.db["k"]

    def test_counters_count(self) -> None:
        db = self.db
        self.assertEqual([db.incr("n"), db.incr("n", 10), db.decr("n", 3)], [1, 11, 8])
        self.assertEqual(db.incrbyfloat("f", 1.5), 1.5)
        db.set("word", "x")
        with self.assertRaisesRegex(redis.ResponseError, "value is not an integer or out of range"):
            db.incr("word")

    def test_bytes_survive_without_decoding(self) -> None:
        db = self.client(decode_responses=False)
        everything = bytes(range(256))
        db.set(everything, everything)
        self.assertEqual(db.get(everything), everything)
        self.assertEqual(db.keys(), [everything])

    def test_values_of_a_megabyte_survive(self) -> None:
        db = self.client(decode_responses=False)
        value = os.urandom(1_000_000)
        db.set("big", value)
        self.assertEqual(db.get("big"), value)

    def test_keys_expire(self) -> None:
        db = self.db
        db.set("k", "v", ex=100)
        self.assertIn(db.ttl("k"), (99, 100))
        self.assertIn(db.pttl("k"), range(90_000, 100_001))
        self.assertTrue(db.persist("k"))
        self.assertEqual((db.ttl("k"), db.ttl("missing")), (-1, -2))
        self.assertTrue(db.expire("k", 50, nx=True))
        self.assertFalse(db.expire("k", 10, gt=True))
        moment = int(time.time()) + 1000
        self.assertTrue(db.expireat("k", moment))
        self.assertEqual(db.expiretime("k"), moment)
        self.assertEqual(db.pexpiretime("k"), moment * 1000)
        self.assertEqual(db.getex("k", persist=True), "v")
        self.assertEqual(db.ttl("k"), -1)
        db.psetex("p", 30, "soon gone")
        deadline = time.monotonic() + DEADLINE
        while db.exists("p"):
            self.assertLess(time.monotonic(), deadline, "the key never expired")
        self.assertEqual(db.keys(), ["k"])

    def test_scan_iter_finds_each_key_once(self) -> None:
        names = {f"user:{n}" for n in range(1000)}
        self.db.mset(dict.fromkeys(names, "x") | {"other": "y"})
        for count in (1, 10, 5000):
            found = list(self.db.scan_iter("user:*", count=count))
            self.assertEqual(len(found), 1000)
            self.assertEqual(set(found), names)
        self.assertEqual(len(list(self.db.scan_iter(_type="string"))), 1001)
        self.assertEqual(list(self.db.scan_iter(_type="hash")), [])

    def test_keys_are_renamed_copied_and_moved(self) -> None:
        db = self.db
        db.set("a", "1")
        self.assertTrue(db.rename("a", "b"))
        self.assertTrue(db.copy("b", "c"))
        self.assertFalse(db.copy("b", "c"))
        self.assertTrue(db.copy("b", "c", replace=True))
        self.assertFalse(db.renamenx("b", "c"))
        self.assertTrue(db.move("b", 5))
        self.assertEqual(self.client(db=5).get("b"), "1")
        self.assertEqual((db.type("c"), db.type("b")), ("string", "none"))
        self.assertEqual((db.dbsize(), db.randomkey(), db.touch("c", "x")), (1, "c", 1))
        with self.assertRaisesRegex(redis.ResponseError, "no such key"):
            db.rename("missing", "x")

    def test_objects_and_memory_are_described(self) -> None:
        self.db.set("k", "12")
        self.assertEqual(self.db.object("encoding", "k"), "int")
        self.assertEqual(self.db.object("refcount", "k"), 1)
        self.assertGreater(self.db.memory_usage("k"), 2)
        self.assertIsNone(self.db.memory_usage("missing"))

    def test_unknown_commands_raise(self) -> None:
        with self.assertRaisesRegex(redis.ResponseError, "unknown command 'NOSUCH'"):
            self.db.execute_command("NOSUCH", "a")
        self.assertTrue(self.db.ping())
        self.assertEqual(self.db.echo("x"), "x")


class _Transactions(_WithServer):
    def test_a_pipeline_answers_in_order(self) -> None:
        with self.db.pipeline(transaction=False) as pipe:
            for n in range(1000):
                pipe.set(f"k{n}", n).get(f"k{n}")
            replies = pipe.execute()
        self.assertEqual(replies, [each for n in range(1000) for each in (True, str(n))])

    def test_an_error_keeps_its_place_in_a_pipeline(self) -> None:
        for transaction in (False, True):
            with self.db.pipeline(transaction=transaction) as pipe:
                replies = pipe.set("k", "x").incr("k").get("k").execute(raise_on_error=False)
            self.assertEqual((replies[0], replies[2]), (True, "x"))
            self.assertIsInstance(replies[1], redis.ResponseError)

    def test_a_transaction_that_cannot_be_queued_is_discarded(self) -> None:
        pipe = self.db.pipeline()
        pipe.set("k", "v").execute_command("GET")
        with self.assertRaises(redis.ResponseError):
            pipe.execute()
        self.assertEqual(self.db.exists("k"), 0)

    def test_watch_notices_a_change(self) -> None:
        self.db.set("k", 1)
        with self.db.pipeline() as pipe:
            pipe.watch("k")
            self.client().incr("k")
            pipe.multi()
            pipe.set("k", "lost")
            with self.assertRaises(redis.WatchError):
                pipe.execute()
        self.assertEqual(self.db.get("k"), "2")

    def test_transactions_with_watch_add_up(self) -> None:
        self.db.set("n", 0)

        def add(pipe: Any) -> None:
            number = int(pipe.get("n"))
            pipe.multi()
            pipe.set("n", number + 1)

        def work() -> None:
            for _ in range(25):
                self.db.transaction(add, "n")

        with ThreadPoolExecutor(4) as pool:
            for future in [pool.submit(work) for _ in range(4)]:
                future.result(60)
        self.assertEqual(self.db.get("n"), "100")


class _Connections(_WithServer):
    def test_a_url_chooses_the_database(self) -> None:
        url = f"redis://{self.address.host}:{self.address.port}"
        one = redis.Redis.from_url(f"{url}/1", protocol=self.protocol, decode_responses=True)
        self.addCleanup(one.close)
        one.set("k", "in one")
        self.assertIsNone(self.db.get("k"))
        self.assertEqual(self.client(db=1).get("k"), "in one")
        one.flushdb()
        self.assertEqual(one.dbsize(), 0)
        with self.assertRaisesRegex(redis.ResponseError, "DB index is out of range"):
            self.client(db=16).ping()

    def test_twenty_threads_over_one_pool_add_up(self) -> None:
        start = threading.Barrier(20)

        def work() -> None:
            start.wait(DEADLINE)
            for _ in range(200):
                self.db.incr("n")

        with ThreadPoolExecutor(20) as pool:
            for future in [pool.submit(work) for _ in range(20)]:
                future.result(60)
        self.assertEqual(self.db.get("n"), "4000")

    def test_a_blocking_pool_of_three_serves_twenty_threads(self) -> None:
        pool = redis.BlockingConnectionPool(
            host=self.address.host,
            port=self.address.port,
            protocol=self.protocol,
            max_connections=3,
            timeout=DEADLINE,
        )
        self.addCleanup(pool.close)
        db = redis.Redis(connection_pool=pool)
        with ThreadPoolExecutor(20) as threads:
            replies = list(threads.map(lambda _: db.incr("n"), range(1000)))
        self.assertEqual(sorted(replies), list(range(1, 1001)))

    def test_health_checks_pass(self) -> None:
        db = self.client(health_check_interval=0.001)
        for n in range(20):
            self.assertTrue(db.set("k", n))
            time.sleep(0.002)  # longer than the interval, so that each command is checked before

    def test_clients_are_named_listed_and_described(self) -> None:
        db = self.client(client_name="worker-1", single_connection_client=True)
        self.assertEqual(db.client_getname(), "worker-1")
        self.assertTrue(db.client_setname("worker-2"))
        me = db.client_id()
        self.assertEqual(db.client_info()["name"], "worker-2")
        self.assertEqual(db.client_info()["lib-name"][:8], "redis-py")
        self.assertEqual(db.client_info()["resp"], str(self.protocol))
        listed = {int(each["id"]): each for each in self.db.client_list()}
        self.assertEqual(listed[me]["name"], "worker-2")
        self.assertEqual(len(self.db.client_list(client_id=[str(me)])), 1)
        self.assertEqual(self.db.client_list(_type="pubsub"), [])
        self.assertTrue(db.client_no_evict("ON"))
        self.assertTrue(db.client_no_touch("ON"))

    def test_a_killed_client_connects_again(self) -> None:
        other = self.client(single_connection_client=True)
        other.set("k", "v")
        number = other.client_id()
        self.assertEqual(self.db.client_kill_filter(_id=str(number)), 1)
        self.assertEqual(other.get("k"), "v")
        self.assertNotEqual(other.client_id(), number)

    def test_replies_can_be_turned_off(self) -> None:
        pipe = self.db.connection_pool.get_connection()
        self.addCleanup(self.db.connection_pool.release, pipe)
        pipe.send_command("CLIENT", "REPLY", "OFF")
        pipe.send_command("SET", "k", "silent")
        pipe.send_command("CLIENT", "REPLY", "ON")
        self.assertEqual(pipe.read_response(), "OK")
        self.assertEqual(self.db.get("k"), "silent")

    def test_reset_forgets_the_name(self) -> None:
        db = self.client(single_connection_client=True)
        db.client_setname("someone")
        db.reset()
        self.assertIsNone(db.client_getname())


class _Server(_WithServer):
    def test_info_has_what_tools_read(self) -> None:
        self.db.set("k", "v", ex=100)
        self.db.get("k")
        info = self.db.info()
        for field in ("redis_version", "process_id", "used_memory", "connected_clients"):
            self.assertIn(field, info)
        self.assertEqual(info["loading"], 0)
        self.assertEqual(info["role"], "master")
        self.assertEqual((info["db0"]["keys"], info["db0"]["expires"]), (1, 1))
        self.assertGreaterEqual(info["keyspace_hits"], 1)
        self.assertEqual(set(self.db.info("keyspace")), {"db0"})

    def test_configuration_is_read_and_changed(self) -> None:
        db = self.db
        self.assertEqual(db.config_get("maxmemory-policy"), {"maxmemory-policy": "allkeys-lru"})
        self.assertEqual(set(db.config_get("max*")) & {"maxmemory", "port"}, {"maxmemory"})
        self.addCleanup(db.config_set, "maxmemory-policy", "allkeys-lru")
        self.assertTrue(db.config_set("maxmemory-policy", "volatile-lru"))
        self.assertEqual(db.config_get("maxmemory-policy")["maxmemory-policy"], "volatile-lru")
        with self.assertRaises(redis.ResponseError):
            db.config_set("no-such-parameter", "1")
        self.assertTrue(db.config_resetstat())
        self.assertEqual(db.info("stats")["keyspace_misses"], 0)

    def test_commands_are_described(self) -> None:
        described = self.db.command()
        self.assertEqual(described["get"]["arity"], 2)
        self.assertEqual(described["mset"]["step_count"], 2)
        self.assertIn("readonly", described["get"]["flags"])
        self.assertEqual(self.db.command_count(), len(described))
        self.assertIn("client|setname", self.db.command_list())
        self.assertEqual(self.db.command_list(pattern="getd*"), ["getdel"])
        self.assertEqual(self.db.command_getkeys("MSET", "a", 1, "b", 2), ["a", "b"])
        with self.assertRaises(NotImplementedError):
            self.db.command_docs("get")  # redis-py has no parser for it: we ask without one
        docs = self.db.execute_command("COMMAND DOCS", "get", "set")
        self.assertIn("get", docs)
        if self.protocol == 3:
            self.assertEqual(list(docs), ["get", "set"])
            self.assertEqual(docs["get"]["arguments"][0]["name"], "key")

    def test_time_and_saving_are_told(self) -> None:
        seconds, microseconds = self.db.time()
        self.assertLess(abs(seconds + microseconds / 1e6 - time.time()), 5)
        self.db.set("k", "v")
        self.assertTrue(self.db.save())
        self.assertLess(abs(self.db.lastsave().timestamp() - time.time()), 5)
        self.assertIn('"k"', (self.address.folder / "data.json").read_text(encoding="utf-8"))
        self.assertTrue(self.db.bgsave())


class _Passwords(_WithServer):
    PASSWORD = "ö pen:sesame@1"

    @classmethod
    def setUpClass(cls) -> None:
        server = running_kvdb("--in-memory", password=cls.PASSWORD)
        cls.address = cls.enterClassContext(server)

    def setUp(self) -> None:
        pass

    def client(self, **options: Any) -> redis.Redis:
        # Else it tries again, ten times and more and more slowly, what will not succeed.
        return super().client(retry=Retry(NoBackoff(), 0), **options)

    def test_the_right_password_opens(self) -> None:
        self.assertTrue(self.client(password=self.PASSWORD).ping())
        self.assertTrue(self.client(username="default", password=self.PASSWORD).ping())
        url = f"redis://:%C3%B6%20pen%3Asesame%401@{self.address.host}:{self.address.port}/3"
        db = redis.Redis.from_url(url, protocol=self.protocol)
        self.addCleanup(db.close)
        self.assertTrue(db.set("k", "v"))

    def test_the_wrong_password_and_none_raise(self) -> None:
        with self.assertRaises(redis.AuthenticationError):
            self.client(password="wrong").ping()
        with self.assertRaises(redis.AuthenticationError):
            self.client(username="nobody", password=self.PASSWORD).ping()
        with self.assertRaises(redis.AuthenticationError):
            self.client().ping()

    def test_auth_logs_an_open_connection_in(self) -> None:
        db = self.client(protocol=2, single_connection_client=True, driver_info=None)
        with self.assertRaises(redis.AuthenticationError):
            db.get("k")
        self.assertTrue(db.auth(self.PASSWORD))
        self.assertIsNone(db.get("missing"))


class _Async(_WithServer):
    def test_the_async_client_does_all_that(self) -> None:
        asyncio.run(asyncio.wait_for(self._converse(), 60))

    async def _converse(self) -> None:
        async with redis.asyncio.Redis(
            host=self.address.host,
            port=self.address.port,
            protocol=self.protocol,
            decode_responses=True,
        ) as db:
            self.assertTrue(await db.set("k", "v", ex=100))
            self.assertEqual(await db.get("k"), "v")
            replies = await asyncio.gather(*(db.incr("n") for _ in range(80)))
            self.assertEqual(sorted(replies), list(range(1, 81)))
            async with db.pipeline(transaction=True) as pipe:
                self.assertEqual(await pipe.set("a", 1).incr("a").execute(), [True, 2])
            async with db.pipeline() as pipe:
                await pipe.watch("a")
                await db.incr("a")
                pipe.multi()
                pipe.set("a", "lost")
                with self.assertRaises(redis.WatchError):
                    await pipe.execute()
            self.assertEqual({key async for key in db.scan_iter()}, {"k", "n", "a"})
            self.assertEqual((await db.info("server"))["redis_mode"], "standalone")


class ClientSideCache(_WithServer):
    """What redis-py keeps of what it has read. It does so in RESP3 only."""

    protocol = 3

    def setUp(self) -> None:
        super().setUp()
        self.cached = self.client(cache_config=CacheConfig())

    def assert_becomes(self, key: str, value: str | None) -> None:
        """Wait for what is under way: a client that is told of a change has it a moment later."""
        deadline = time.monotonic() + DEADLINE
        while self.cached.get(key) != value and time.monotonic() < deadline:
            pass
        self.assertEqual(self.cached.get(key), value)

    def test_it_is_told_of_every_change(self) -> None:
        self.db.set("k", "1")
        self.assert_becomes("k", "1")
        self.assertEqual(self.cached.mget("k", "l"), ["1", None])
        self.db.mset({"k": "2", "l": "3"})
        self.assert_becomes("k", "2")
        self.assert_becomes("l", "3")
        self.cached.set("k", "own")
        self.assert_becomes("k", "own")
        self.db.pexpire("k", 20)
        self.assert_becomes("k", None)
        self.db.flushall()
        self.assert_becomes("l", None)

    def test_what_is_kept_is_not_asked_for(self) -> None:
        self.db.set("k", "1")
        self.cached.get("k")
        reads = self.db.info("stats")["keyspace_hits"]
        self.assertEqual(self.cached.get("k"), "1")
        self.assertEqual(self.db.info("stats")["keyspace_hits"], reads)

    def test_it_is_right_in_the_end_whoever_writes_meanwhile(self) -> None:
        names = [f"k{number}" for number in range(5)]

        def write() -> None:
            db = self.client()
            for number in range(1_000):
                db.set(names[number % len(names)], number)

        with ThreadPoolExecutor() as pool:
            writing = pool.submit(write)
            while not writing.done():
                for name in names:
                    self.cached.get(name)
            writing.result()
        for name in names:
            self.assert_becomes(name, self.db.get(name))


class Restart(unittest.TestCase):
    def test_a_pool_outlives_the_server_it_is_connected_to(self) -> None:
        with running_kvdb("--in-memory") as address:
            retry = Retry(NoBackoff(), 1)
            db = redis.Redis(address.host, address.port, retry=retry, socket_timeout=5)
            self.addCleanup(db.close)
            self.assertTrue(db.ping())
        with self.assertRaises(redis.ConnectionError):
            db.ping()


for _base in (_Commands, _Transactions, _Connections, _Server, _Passwords, _Async):
    for _protocol in (2, 3):
        _name = f"{_base.__name__.lstrip('_')}InResp{_protocol}"
        globals()[_name] = type(_name, (_base,), {"protocol": _protocol, "__module__": __name__})


def load_tests(
    loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None
) -> unittest.TestSuite:
    """Leave out the classes that only others derive from."""
    suite = unittest.TestSuite()
    for name, value in sorted(globals().items()):
        if isinstance(value, type) and issubclass(value, unittest.TestCase) and name[0] != "_":
            suite.addTests(loader.loadTestsFromTestCase(value))
    return suite


if __name__ == "__main__":
    unittest.main()
