"""Client libraries and frameworks, each with its own calls, against `python -m kvdb`.

A library that is not installed is skipped. Set KVDB_WRITE_TABLE to a path, and what the run has
shown is written there as a table: KVDB_WRITE_TABLE=tests/interop/README.md brings that page up to
date.
"""

from __future__ import annotations

import inspect
import os
import unittest
from pathlib import Path

from tests.interop import (
    frameworks_caches,
    frameworks_celery,
    frameworks_django,
    frameworks_flask,
    frameworks_memcached,
    frameworks_npm,
    frameworks_queues,
    frameworks_redis,
)
from tests.interop.frameworks_case import (
    FrameworkCase,
    print_versions,
    start_server,
    write_table,
)

MODULES = (
    frameworks_redis,
    frameworks_memcached,
    frameworks_django,
    frameworks_flask,
    frameworks_caches,
    frameworks_celery,
    frameworks_queues,
    frameworks_npm,
)


def setUpModule() -> None:
    start_server()


def tearDownModule() -> None:
    print_versions()
    if path := os.environ.get("KVDB_WRITE_TABLE"):
        write_table(Path(path))


def _take_in_the_cases() -> None:
    """Make the cases of the other files this module's, so that its server serves them all."""
    for module in MODULES:
        for name, case in inspect.getmembers(module, inspect.isclass):
            if issubclass(case, FrameworkCase) and hasattr(case, "library"):
                globals()[name] = type(name, (case,), {"__module__": __name__})


_take_in_the_cases()


def load_tests(
    loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None
) -> unittest.TestSuite:
    """Leave out the class that all others derive from."""
    suite = unittest.TestSuite()
    for value in globals().values():
        if isinstance(value, type) and hasattr(value, "library"):
            suite.addTests(loader.loadTestsFromTestCase(value))
    return suite


if __name__ == "__main__":
    unittest.main()
