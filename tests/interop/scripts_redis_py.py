"""redis-py's lock, in one process and in several, and its calls for scripts."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import threading
import time
from typing import Any

import redis
import redis.asyncio
from redis.exceptions import LockError, LockNotOwnedError

from tests.interop.scripts_case import DEADLINE, LibraryCase
from tests.interop.scripts_contender import ROUNDS
from tests.interop.servers import ROOT


class RedisPyLock(LibraryCase):
    def test_it_is_acquired_and_released(self) -> None:
        for options in ({"protocol": 2}, {"protocol": 3}, {"decode_responses": True}):
            lock, other = (self.client(**options).lock("name", timeout=60) for _ in "12")
            self.assertTrue(lock.acquire(blocking=False))
            self.assertFalse(other.acquire(blocking=False))
            self.assertEqual((lock.owned(), other.owned(), other.locked()), (True, False, True))
            self.assertIn(self.db.ttl("name"), (59, 60))
            lock.release()
            self.assertEqual((lock.owned(), other.locked()), (False, False))
            self.assertTrue(other.acquire(blocking=False))
            other.release()
            self.assertEqual(self.db.dbsize(), 0)

    def test_who_does_not_hold_it_cannot_release_it(self) -> None:
        lock = self.client().lock("name", timeout=60)
        with self.assertRaisesRegex(LockError, "Cannot release"):
            lock.release()
        lock.acquire()
        for value in ("somebody else's", None):
            if value:
                self.db.set("name", value)
            else:
                self.db.delete("name")
            lock.local.token = b"mine"
            for call in (lock.release, lock.reacquire, lambda: lock.extend(10)):
                with self.assertRaises(LockNotOwnedError):
                    call()
                lock.local.token = b"mine"  # release() forgets it
            self.assertEqual(self.db.get("name"), value)

    def test_it_is_extended_and_reacquired(self) -> None:
        lock = self.client().lock("name", timeout=100)
        lock.acquire()
        lock.extend(200)
        self.assertIn(self.db.pttl("name"), range(280_000, 300_001))
        lock.extend(50.5, replace_ttl=True)
        self.assertIn(self.db.pttl("name"), range(30_000, 50_501))
        lock.extend(0.25)
        self.assertIn(self.db.pttl("name"), range(30_000, 50_751))
        lock.reacquire()
        self.assertIn(self.db.pttl("name"), range(80_000, 100_001))
        self.db.persist("name")
        with self.assertRaises(LockNotOwnedError):  # what never expires cannot be extended
            lock.extend(10)
        lock.release()

    def test_an_expired_lock_is_free(self) -> None:
        lock, other = (self.client().lock("name", timeout=60, sleep=0.01) for _ in "12")
        lock.acquire()
        self.db.pexpire("name", 20)
        self.assertTrue(other.acquire(blocking_timeout=DEADLINE))
        with self.assertRaises(LockNotOwnedError):
            lock.release()
        self.assertTrue(other.owned())

    def test_waiting_ends_with_the_release_or_the_timeout(self) -> None:
        db = self.client()
        lock = db.lock("name", timeout=60)
        other = db.lock("name", sleep=0.01, thread_local=False)
        lock.acquire()
        begin = time.monotonic()
        self.assertFalse(other.acquire(blocking_timeout=0.05))
        self.assertLess(time.monotonic() - begin, DEADLINE)
        thread = threading.Thread(target=other.acquire)
        thread.start()
        lock.release()
        thread.join(DEADLINE)
        self.assertTrue(other.owned())
        self.assertEqual(self.db.ttl("name"), -1)
        other.release()

    def test_as_a_context_manager(self) -> None:
        with self.client().lock("name", timeout=60) as lock:
            self.assertTrue(lock.owned())
        self.assertFalse(lock.locked())
        with self.assertRaises(LockNotOwnedError), self.client().lock("name"):
            self.db.delete("name")
        with self.assertRaises(LockError):
            self.db.set("name", "taken")
            with self.client().lock("name", blocking_timeout=0.01):
                self.fail("two hold it")

    def test_eight_processes_are_never_within_it_together(self) -> None:
        command = [sys.executable, "-m", "tests.interop.scripts_contender", str(self.address.port)]
        pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        with contextlib.ExitStack() as stack:
            processes = [
                stack.enter_context(subprocess.Popen(command, cwd=ROOT, text=True, **pipes))
                for _ in range(8)
            ]
            for process in processes:
                stack.callback(process.kill)
            for process in processes:
                self.assertEqual(process.stdout.readline(), "ready\n")
            for process in processes:
                process.stdin.write("go\n")
                process.stdin.flush()
            for process in processes:
                _, complaints = process.communicate(timeout=60)
                self.assertEqual((process.returncode, complaints), (0, ""))
        self.assertEqual(self.db.get("counter"), str(8 * ROUNDS))
        self.assertEqual((self.db.exists("lock"), self.db.get("holders")), (0, "0"))

    def test_the_async_lock(self) -> None:
        asyncio.run(asyncio.wait_for(self._contend(), 60))
        self.assertEqual(self.db.get("counter"), "80")
        self.assertEqual(self.db.exists("lock"), 0)

    async def _contend(self) -> None:
        async with redis.asyncio.Redis.from_url(self.url) as db:
            lock = db.lock("lock", timeout=100)
            self.assertTrue(await lock.acquire())
            self.assertTrue(await lock.extend(100))
            self.assertIn(await db.ttl("lock"), range(150, 201))
            self.assertTrue(await lock.reacquire())
            self.assertIn(await db.ttl("lock"), range(50, 101))
            await lock.release()
            with self.assertRaises(LockError):
                await lock.release()

            async def work() -> None:
                for _ in range(10):
                    async with db.lock("lock", timeout=60, sleep=0.002, thread_local=False):
                        number = int(await db.get("counter") or 0)
                        await db.set("counter", number + 1)

            await asyncio.gather(*(work() for _ in range(8)))


class RedisPyScript(LibraryCase):
    def test_a_registered_script_is_loaded_when_it_is_missing(self) -> None:
        db = self.client()
        script = db.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
        self.assertEqual(script(keys=["n"], args=[5]), 5)
        self.assertEqual(db.script_exists(script.sha, "0" * 40), [True, False])
        db.script_flush()
        self.assertEqual(db.script_exists(script.sha), [False])
        self.assertEqual(script(keys=["n"], args=[5]), 10)
        self.assertEqual(db.script_load(script.script), script.sha)
        self.assertEqual(db.evalsha(script.sha, 1, "n", -1), 9)
        with self.assertRaises(redis.exceptions.NoScriptError):
            db.evalsha("0" * 40, 0)

    def test_scripts_in_a_pipeline(self) -> None:
        db = self.client()
        script = db.register_script("return {KEYS[1], ARGV[1], redis.call('get', KEYS[1])}")
        for transaction in (True, False):
            self.db.script_flush()
            with db.pipeline(transaction=transaction) as pipe:
                pipe.set("k", "v")
                script(keys=["k"], args=["x"], client=pipe)
                pipe.eval("return redis.call('append', KEYS[1], 'w')", 1, "k")
                script(keys=["none"], args=[""], client=pipe)
                replies = pipe.execute()
            expected = [True, [b"k", b"x", b"v"], 2, [b"none", b"", None]]
            self.assertEqual(replies, expected)

    def test_a_read_only_script(self) -> None:
        db = self.client()
        db.set("k", "v")
        self.assertEqual(db.eval_ro("return redis.call('get', KEYS[1])", 1, "k"), b"v")
        with self.assertRaisesRegex(redis.ResponseError, "Write commands are not allowed"):
            db.eval_ro("return redis.call('set', KEYS[1], 'w')", 1, "k")
        self.assertEqual(db.get("k"), b"v")
