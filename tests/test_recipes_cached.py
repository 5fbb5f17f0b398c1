from __future__ import annotations

import os
import signal
import threading
import time
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

import kvdb
from kvdb.client.recipes import steps
from kvdb.client.recipes.scripts import CLAIM
from kvdb.unsafe_pickle import PICKLE
from tests.test_recipes import A_LONG_TIME, RecipeCase, needs_fork


class CachedCase(RecipeCase):
    """Counts how often a cached function computes."""

    def setUp(self) -> None:
        super().setUp()
        self.calls: list[Any] = []
        self.on_call: Callable[[], object] = lambda: None

    def cached(self, db: kvdb.Client[Any] | None = None, **options: Any) -> Any:
        """Return a cached function that returns its argument and how often it was called."""

        @(db or self.db).cached(**({"ttl": 60} | options))
        def load(id: int, more: object = None) -> object:
            """Load it."""
            self.calls.append(id)
            called = len(self.calls)
            self.on_call()
            return [id, called]

        return load


class CachedTest(CachedCase):
    def test_it_computes_once_for_each_arguments_until_the_ttl_has_passed(self) -> None:
        load = self.cached()
        self.assertEqual([load(1), load(1), load(2), load(1)], [[1, 1], [1, 1], [2, 2], [1, 1]])
        self.clock.now += 60
        self.assertEqual(load(1), [1, 3])

    def test_what_cannot_be_stored_is_returned_all_the_same_and_others_need_not_wait(self) -> None:
        with kvdb.running(max_value_bytes=20_000) as server, server.client() as db:

            @db.cached(ttl=60, guard=30, key="big")
            def load() -> str:
                self.calls.append(1)
                return "x" * 50_000

            began = time.monotonic()
            self.assertEqual([len(load()) for _ in range(3)], [50_000] * 3)
            self.assertEqual((len(self.calls), db.exists("cached-guard:big")), (3, False))
            self.assertLess(time.monotonic() - began, 10)

    def test_what_another_serializer_has_written_is_computed_anew(self) -> None:
        pickled = self.cached(self.client(serializer=PICKLE), key="k")
        pickled(1)
        plain = self.cached(key="k")
        self.assertEqual([plain(2), plain(2)], [[2, 2], [2, 2]])

    def test_it_is_shared_by_all_clients_of_a_server(self) -> None:
        self.assertEqual(self.cached()(1), self.cached(self.client())(1))
        self.assertEqual(self.calls, [1])

    def test_the_same_call_has_the_same_key_however_it_is_written(self) -> None:
        load = self.cached()
        load(1)
        load(id=1)
        load(1, None)
        load(more=None, id=1)
        self.assertEqual(self.calls, [1])

    def test_none_is_a_result_as_any_other(self) -> None:
        @self.db.cached(ttl=60)
        def find() -> None:
            self.calls.append(1)

        self.assertIsNone(find())
        self.assertIsNone(find())
        self.assertEqual(self.calls, [1])

    def test_a_hit_is_one_request_and_no_script(self) -> None:
        load = self.cached(tags=("a", "b"), stale=5)
        load(1)
        requests: list[bytes] = []
        run = kvdb.Client._run

        def noting(client: Any, command: Any) -> Any:
            requests.append(command.request[0])
            return run(client, command)

        with mock.patch.object(kvdb.Client, "_run", noting):
            load(1)
        self.assertEqual(requests, [b"MGET"])

    def test_an_exception_is_not_stored_and_nobody_waits_after_it(self) -> None:
        def fail() -> None:
            raise ZeroDivisionError

        load = self.cached()
        for error in (ZeroDivisionError, KeyboardInterrupt):
            self.on_call = mock.Mock(side_effect=error)
            with self.assertRaises(error):
                load(1)
        self.on_call = lambda: None
        self.assertEqual(load(1), [1, 3])
        self.assertEqual(self.slept, [])

    def test_what_cannot_be_stored_is_an_error_and_nobody_waits_after_it(self) -> None:
        load = self.db.cached(ttl=60, key="k")(lambda: object())
        for _ in range(2):
            with self.assertRaises(kvdb.SerializationError):
                load()
        self.assertEqual(self.slept, [])

    def test_evicting_and_refreshing_concern_one_call(self) -> None:
        load = self.cached()
        load(1), load(2)
        self.assertTrue(load.evict(1))
        self.assertFalse(load.evict(1))
        self.assertFalse(load.evict(7))
        self.assertEqual([load(1), load(2)], [[1, 3], [2, 2]])
        self.assertEqual([load.refresh(2), load(2), load(1)], [[2, 4], [2, 4], [1, 3]])

    def test_what_is_being_computed_during_an_eviction_is_not_stored(self) -> None:
        load = self.cached(tags="t")
        for evict in (lambda: load.evict(1), lambda: self.db.evict("t")):
            self.calls.clear()
            self.on_call = lambda evict=evict: len(self.calls) == 1 and evict()  # type: ignore[misc]
            self.assertEqual(load(1), [1, 1])
            self.assertEqual(load(1), [1, 2])
            self.assertEqual(load(1), [1, 2])
            load.evict(1)

    def test_what_was_computed_before_an_eviction_replaces_nothing_newer(self) -> None:
        load = self.cached(tags="t")
        for evict in (lambda: load.evict(1), lambda: self.db.evict("t")):
            self.calls.clear()
            self.on_call = lambda evict=evict: len(self.calls) == 1 and (evict(), load(1))  # type: ignore[misc]
            self.assertEqual(load(1), [1, 1])
            self.assertEqual(load(1), [1, 2])
            load.evict(1)

    def test_after_an_eviction_nobody_waits_for_what_was_being_computed(self) -> None:
        load = self.cached()
        self.on_call = lambda: len(self.calls) == 1 and (load.evict(1), load(1))
        load(1)
        self.assertEqual((self.slept, len(self.calls)), ([], 2))

    def test_an_eviction_counts_however_long_a_computation_takes_within_its_guard(self) -> None:
        load = self.cached(ttl=1, guard=10)
        self.on_call = lambda: len(self.calls) == 1 and (load.evict(1), self.sleep(8))
        self.assertEqual([load(1), load(1)], [[1, 1], [1, 2]])

    def test_who_misses_during_a_refresh_waits_for_it(self) -> None:
        load = self.cached()
        guard = load.key_of(1).replace("cached:", "cached-guard:")
        holders: list[bytes] = []

        def note() -> None:
            holders.append(self.db.command("GET", guard))
            if len(self.calls) == 1:
                load.refresh(1)

        self.on_call = note
        load(1)
        self.assertEqual(len(set(holders) - {None}), 2)

    def test_what_is_being_computed_during_a_refresh_is_not_stored(self) -> None:
        load = self.cached()
        self.on_call = lambda: len(self.calls) == 1 and load.refresh(1)
        self.assertEqual(load(1), [1, 1])
        self.assertEqual(load(1), [1, 2])

    def test_a_function_that_takes_longer_than_its_guard_is_cached_all_the_same(self) -> None:
        load = self.cached(guard=5)
        self.on_call = lambda: self.sleep(7)
        load(1)
        self.assertEqual(load(1), [1, 1])

    def test_everything_that_is_stored_has_a_deadline(self) -> None:
        load = self.cached(tags=("t", "user:{id}"), stale=30, guard=10)
        load(1)
        load.refresh(1)
        load.evict(2)
        names = self.db.keys()
        self.assertGreaterEqual(len(names), 6)
        self.assertTrue(all(self.db.ttl(name) for name in names))
        self.clock.now += 100
        self.assertEqual([self.db.exists(name) for name in names], [False] * len(names))

    def test_namespaces_and_serializers_do_not_matter(self) -> None:
        for serializer in (kvdb.JSON, kvdb.TEXT, kvdb.BYTES, PICKLE, kvdb.JSON.compressed(0)):
            for prefix in ("", "a:", "b:"):
                db = self.client(serializer=serializer).namespace(f"{prefix}{serializer.name}")
                compute = mock.Mock(return_value=b"1\n2" if serializer is kvdb.BYTES else "1\n2")
                load = db.cached(ttl=60, key="k", tags=("t",))(lambda compute=compute: compute())
                self.assertEqual(load(), load())
                self.assertEqual(compute.call_count, 1)
                db.evict("t")
                load()
                self.assertEqual(compute.call_count, 2)

    def test_the_function_keeps_its_name_and_can_be_called_without_the_cache(self) -> None:
        load = self.cached()
        self.assertEqual((load.__name__, load.__doc__), ("load", "Load it."))
        self.assertEqual(load.__wrapped__(1), [1, 1])
        self.assertEqual(self.db.size(), 0)

    def test_options_that_make_no_sense_are_refused(self) -> None:
        async def load() -> None: ...

        with self.assertRaisesRegex(TypeError, "use an AsyncClient"):
            self.db.cached(ttl=1)(load)
        for options in ({"ttl": 0}, {"stale": 0}, {"guard": 0}):
            with self.assertRaisesRegex(ValueError, "must be more than 0 seconds"):
                self.cached(**options)
        for options in ({"key": "user:{uid}"}, {"tags": ("{0}",)}, {"tags": "{id.x}{}"}):
            with self.assertRaisesRegex(ValueError, "load has no parameter"):
                self.cached(**options)


class GuardTest(CachedCase):
    """What happens when several miss at once."""

    def test_of_many_threads_one_computes(self) -> None:
        client = self.client(max_connections=16)
        load = self.cached(client, ttl=A_LONG_TIME, guard=A_LONG_TIME)
        results: list[object] = []
        release = threading.Event()
        arrived = iter(range(1000))
        self.on_sleep = lambda: next(arrived) == 20 and release.set()  # the others are waiting
        self.on_call = lambda: release.wait(10)
        self.in_threads(16, lambda: results.append(load(1)))
        self.assertEqual(results, [[1, 1]] * 16)
        self.assertEqual(self.calls, [1])

    @needs_fork
    def test_a_killed_process_holds_nobody_up_for_longer_than_its_guard(self) -> None:
        load = self.cached(guard=20)

        def die_computing(ready: int) -> None:
            self.on_call = lambda: (os.write(ready, b"!"), threading.Event().wait(10))
            load(1)

        with self.in_child(die_computing) as (child, ready):
            self.assertEqual(os.read(ready, 1), b"!")
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        self.assertEqual(load(1), [1, 1])
        self.assertAlmostEqual(sum(self.slept), 20, delta=0.2)

    def test_who_has_waited_for_long_computes_for_itself(self) -> None:
        load = self.cached(guard=5)
        guard = load.key_of(1).replace("cached:", "cached-guard:")
        self.on_sleep = lambda: self.db.set(guard, "another", ttl=5)  # one after the other dies
        self.on_sleep()
        self.assertEqual(load(1), [1, 1])
        self.assertAlmostEqual(sum(self.slept), 10, delta=0.2)
        self.assertEqual(load(1), [1, 1])

    def test_the_guard_of_another_is_left_alone(self) -> None:
        load = self.cached(guard=5)
        guard = load.key_of(1).replace("cached:", "cached-guard:")
        self.on_call = lambda: self.db.set(guard, "another", ttl=5)
        load(1)
        self.assertTrue(self.db.exists(guard))

    def test_a_claim_that_is_sent_twice_is_granted_twice(self) -> None:
        names = ["entry", "fresh", "guard", "evicted"]
        for token, answer in (("a", b"compute"), ("a", b"compute"), ("b", b"wait")):
            reply = self.db.eval(CLAIM, names, [token, 1000, "plain", 1000])
            self.assertEqual(reply, [answer, b"", b""])


class StaleTest(CachedCase):
    def test_while_one_computes_the_others_get_the_old_value(self) -> None:
        load = self.cached(ttl=60, stale=30)
        load(1)
        self.clock.now += 60
        meanwhile: list[object] = []
        self.on_call = lambda: len(self.calls) == 2 and meanwhile.append(load(1))
        self.assertEqual(load(1), [1, 2])
        self.assertEqual(meanwhile, [[1, 1]])
        self.assertEqual(load(1), [1, 2])
        self.assertEqual(len(self.calls), 2)

    def test_before_the_ttl_has_passed_nobody_refreshes(self) -> None:
        load = self.cached(ttl=60, stale=30)
        load(1)
        self.clock.now += 59.9
        self.assertEqual(load(1), [1, 1])

    def test_when_it_is_too_old_it_is_not_served(self) -> None:
        load = self.cached(ttl=60, stale=30)
        load(1)
        self.clock.now += 90
        self.on_call = lambda: self.assertFalse(self.db.exists(load.key_of(1)))
        self.assertEqual(load(1), [1, 2])

    def test_a_refresh_that_fails_leaves_the_old_value_for_the_others(self) -> None:
        load = self.cached(ttl=60, stale=30)
        load(1)
        self.clock.now += 70
        meanwhile: list[object] = []

        def fail() -> None:
            if len(self.calls) == 2:
                meanwhile.append(load(1))
                raise ZeroDivisionError

        self.on_call = fail
        with self.assertRaises(ZeroDivisionError):
            load(1)
        self.assertEqual(meanwhile, [[1, 1]])
        self.assertEqual(load(1), [1, 3])

    def test_an_evicted_value_is_not_served_stale(self) -> None:
        load = self.cached(ttl=60, stale=30, tags=("t",))
        for evict in (lambda: load.evict(1), lambda: self.db.evict("t")):
            self.calls.clear()
            load.refresh(1)
            self.clock.now += 70
            evict()
            self.assertEqual(load(1), [1, 2])


class TagTest(CachedCase):
    def test_evicting_a_tag_makes_all_its_values_misses(self) -> None:
        load = self.cached(tags=("users", "user:{id}"))
        load(1), load(2)
        self.db.evict("user:1")
        self.assertEqual([load(2), load(1)], [[2, 2], [1, 3]])
        self.db.evict("users")
        self.assertEqual([load(1), load(2)], [[1, 4], [2, 5]])

    def test_functions_share_tags(self) -> None:
        first, second = (self.cached(key=f"{i}:{{id}}", tags="user:{id}") for i in range(2))
        first(1), second(1)
        self.db.evict("user:1", "nothing")
        first(1), second(1)
        self.assertEqual(len(self.calls), 4)

    def test_a_tag_lives_as_long_as_any_value_with_it(self) -> None:
        short = self.cached(ttl=5, guard=1, key="short", tags="t")
        long = self.cached(ttl=1000, key="long", tags="t")
        long(1), short(1)
        self.clock.now += 999
        self.assertEqual(long(1), [1, 1])

    def test_a_tag_does_not_expire_while_a_value_with_it_is_computed(self) -> None:
        self.cached(ttl=2, guard=1, key="short", tags="t")(1)
        long = self.cached(key="long", tags="t")
        self.on_call = lambda: self.sleep(5)
        self.assertEqual([long(1), long(1)], [[1, 2], [1, 2]])

    def test_a_value_that_took_long_to_compute_is_kept_for_its_whole_ttl(self) -> None:
        load = self.cached(ttl=60, guard=1, tags="t")
        self.on_call = lambda: self.sleep(7)
        load(1)
        self.clock.now += 59
        self.assertEqual(load(1), [1, 1])

    def test_a_tag_that_the_server_has_lost_brings_no_old_value_back(self) -> None:
        load = self.cached(tags="t")
        load(1)
        version = self.db.command("GET", "cached-tag:t")
        self.db.delete("cached-tag:t")
        load(2)
        self.assertNotEqual(self.db.command("GET", "cached-tag:t"), version)
        self.assertEqual(load(1), [1, 3])

    def test_evicting_takes_one_request_however_many_values_there_are(self) -> None:
        with mock.patch.object(self.db, "delete") as delete:
            self.db.evict("a", "b")
        delete.assert_called_once_with("cached-tag:a", "cached-tag:b")


class RealTimeTest(unittest.TestCase):
    def test_pauses_are_real_where_no_test_has_replaced_them(self) -> None:
        self.assertIs(steps._sleep, time.sleep)
        self.assertIs(steps._monotonic, time.monotonic)


if __name__ == "__main__":
    unittest.main()
