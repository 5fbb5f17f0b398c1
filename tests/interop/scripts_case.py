"""What the suites of Lua scripts share: test cases of a library that run on two servers."""

from __future__ import annotations

import contextlib
import importlib
import logging
import threading
import unittest
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, TypeVar

import redis

from tests.interop.servers import Address

DEADLINE = 20.0  # seconds that we wait for something which must happen
HOUR = 3600  # a limit's period that does not end while a test runs
REDIS = "Redis"
KVDB = "Kvdb"

Result = TypeVar("Result")


class LibraryCase(unittest.TestCase):
    """Tests of one library, with its own calls; interop_scripts runs them on Redis and on kvdb."""

    packages: ClassVar[tuple[str, ...]] = ()  # modules without which the tests are skipped
    server: ClassVar[str]
    addresses: ClassVar[dict[str, Address]] = {}  # of the servers, by name

    @classmethod
    def setUpClass(cls) -> None:
        for name in cls.packages:
            try:
                importlib.import_module(name)
            except ImportError as error:
                raise unittest.SkipTest(f"{name} cannot be imported: {error}") from None

    def setUp(self) -> None:
        self.enterContext(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # the libraries', about each other
        logging.disable(logging.WARNING)
        self.addCleanup(logging.disable, logging.NOTSET)
        self.address = self.addresses[self.server]
        self.url = f"redis://{self.address.host}:{self.address.port}"
        self.db = self.client(decode_responses=True)
        self.db.flushall()
        self.db.script_flush()

    def client(self, **options: Any) -> redis.Redis:
        client = redis.Redis(self.address.host, self.address.port, **options)
        self.addCleanup(client.close)
        return client

    @contextlib.contextmanager
    def refused_by_kvdb(self, command: str) -> Iterator[None]:
        """Expect that Redis runs the block, and that kvdb says it does not know the command."""
        if self.server == REDIS:
            yield
            return
        with self.assertRaises(Exception) as caught:
            yield
        expected = rf"(?i)unknown (redis )?command (called from script: )?'{command}'"
        self.assertRegex(_with_causes(caught.exception), expected)

    def count_under(
        self, lock: Callable[[], contextlib.AbstractContextManager[Any]], threads: int = 8
    ) -> None:
        """Have threads add to a counter in two steps, from which only the lock keeps others."""
        rounds = 10

        def work() -> None:
            db = self.client()
            for _ in range(rounds):
                with lock():
                    self.assertEqual(db.incr("holders"), 1)
                    number = int(db.get("counter") or 0)
                    db.set("counter", number + 1)
                    self.assertEqual(db.decr("holders"), 0)

        in_threads(work, threads)
        self.assertEqual(self.db.get("counter"), str(threads * rounds))

    def assert_allowed(self, limit: int, hit: Callable[[], object]) -> None:
        """Check that of more hits by 16 threads just as many are allowed as the limit says."""
        replies = in_threads(lambda: [bool(hit()) for _ in range(10)])
        self.assertLess(limit, 16 * 10)
        self.assertEqual(sum(map(sum, replies)), limit)


def in_threads(work: Callable[[], Result], count: int = 16) -> list[Result]:
    """Call it in so many threads at once, and return what each returned; raise what it raised."""
    start = threading.Barrier(count)

    def begin_together() -> Result:
        start.wait(DEADLINE)
        return work()

    with ThreadPoolExecutor(count) as pool:
        return [each.result(60) for each in [pool.submit(begin_together) for _ in range(count)]]


def _with_causes(error: BaseException | None) -> str:
    """Return the text of an error and of those behind it, which libraries wrap in their own."""
    texts = []
    while error is not None:
        texts.append(f"{type(error).__name__}: {error}")
        error = error.__cause__ or error.__context__
    return " <- ".join(texts)
