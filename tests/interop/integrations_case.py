"""What the tests of kvdb.integrations share: each case runs against kvdb and against Redis."""

from __future__ import annotations

import importlib
import threading
import time
import unittest
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ClassVar, TypeVar

import kvdb
from tests.interop.servers import Address

DEADLINE = 20.0  # seconds that we wait for something which must happen
DAY = 86_400

Result = TypeVar("Result")


class IntegrationCase(unittest.TestCase):
    """Tests of one integration; self.db looks at the same keys, with values as bytes."""

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
        if cls.server not in cls.addresses:
            raise unittest.SkipTest(f"there is no program to run a {cls.server} with")

    def setUp(self) -> None:
        self.enterContext(warnings.catch_warnings())
        warnings.simplefilter("ignore")  # what frameworks say about each other
        address = self.addresses[self.server]
        self.url = f"kvdb://{address.host}:{address.port}/0"
        self.db: kvdb.Client[bytes] = kvdb.Client.from_url(self.url, serializer=kvdb.BYTES)
        self.addCleanup(self.db.close)
        self.db.command("FLUSHALL")

    def assert_ttl(self, key: str, seconds: float) -> None:
        """Check that a key, by the name that the server knows it by, has about so long to live."""
        left = self.db.ttl(key)
        assert left is not None, f"{key} never expires, or does not exist"
        self.assertTrue(seconds - 30 < left <= seconds, f"{left} s are left, not {seconds}")

    def assert_for_ever(self, *keys: str) -> None:
        for key in keys:
            self.assertEqual(self.db.command("TTL", key), -1, key)


def until(condition: Callable[[], object]) -> None:
    """Wait until time has brought something about."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)


def in_threads(work: Callable[[], Result], count: int = 16) -> list[Result]:
    """Call it in so many threads at once, and return what each returned; raise what it raised."""
    start = threading.Barrier(count)

    def begin_together() -> Result:
        start.wait(DEADLINE)
        return work()

    with ThreadPoolExecutor(count) as pool:
        return [each.result(60) for each in [pool.submit(begin_together) for _ in range(count)]]
