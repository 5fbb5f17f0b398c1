"""Libraries that send Lua scripts, with their own calls: the same results from Redis and kvdb.

What a library needs and kvdb does not have, as lists, has to be refused by the command's name.
A library that is not installed is skipped.
"""

from __future__ import annotations

import inspect
import unittest

from tests.interop import (
    scripts_caches,
    scripts_limiters,
    scripts_locks,
    scripts_npm,
    scripts_redis_py,
)
from tests.interop.scripts_case import KVDB, REDIS, LibraryCase
from tests.interop.servers import running_kvdb, running_redis


def setUpModule() -> None:
    LibraryCase.addresses[REDIS] = unittest.enterModuleContext(running_redis())
    LibraryCase.addresses[KVDB] = unittest.enterModuleContext(running_kvdb())


def _run_on_both_servers() -> None:
    for module in (
        scripts_redis_py,
        scripts_caches,
        scripts_locks,
        scripts_limiters,
        scripts_npm,
    ):
        for name, case in inspect.getmembers(module, inspect.isclass):
            if case.__module__ != module.__name__ or not issubclass(case, LibraryCase):
                continue
            for server in (REDIS, KVDB):
                members = {"server": server, "__module__": __name__}
                globals()[f"{name}On{server}"] = type(f"{name}On{server}", (case,), members)


_run_on_both_servers()


def load_tests(
    loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None
) -> unittest.TestSuite:
    """Leave out the class that all others derive from."""
    suite = unittest.TestSuite()
    for name, value in sorted(globals().items()):
        if name.endswith((REDIS, KVDB)) and isinstance(value, type):
            suite.addTests(loader.loadTestsFromTestCase(value))
    return suite


if __name__ == "__main__":
    unittest.main()
