"""kvdb.integrations with the frameworks themselves: the same results from kvdb and from Redis.

A framework that is not installed is skipped, and so is Redis.
"""

from __future__ import annotations

import inspect
import shutil
import unittest

from tests.interop import (
    integrations_django,
    integrations_django_site,
    integrations_django_times,
    integrations_flask,
    integrations_starlette,
)
from tests.interop.integrations_case import IntegrationCase
from tests.interop.servers import program_of_redis, running_kvdb, running_redis

MODULES = (
    integrations_django,
    integrations_django_site,
    integrations_django_times,
    integrations_flask,
    integrations_starlette,
)
KVDB = "Kvdb"
REDIS = "Redis"


def setUpModule() -> None:
    IntegrationCase.addresses[KVDB] = unittest.enterModuleContext(running_kvdb())
    if shutil.which(program_of_redis("redis-server")):
        IntegrationCase.addresses[REDIS] = unittest.enterModuleContext(running_redis())


def load_tests(
    loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None
) -> unittest.TestSuite:
    """Run the cases of all files, each on both servers."""
    suite = unittest.TestSuite()
    for module in MODULES:
        for name, case in inspect.getmembers(module, inspect.isclass):
            if case.__module__ == module.__name__ and issubclass(case, IntegrationCase):
                for server in (KVDB, REDIS):
                    members = {"server": server, "__module__": __name__}
                    on_server = type(f"{name}On{server}", (case,), members)
                    suite.addTests(loader.loadTestsFromTestCase(on_server))
    return suite


if __name__ == "__main__":
    unittest.main()
