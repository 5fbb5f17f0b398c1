"""Fixtures for pytest: where kvdb is installed, they are there.

In a clone `-p kvdb.pytest_plugin` adds them (only there: pytest refuses to load a plugin twice).

    def test_a_visit_counts(kvdb):
        visit("/", kvdb)
        assert kvdb.get("visits") == 1

    def test_a_full_server_is_no_error(kvdb, kvdb_server):
        kvdb_server.fail_next("INCR", "OOM command not allowed")
        visit("/", kvdb)

Within a test, the fixture hides the module of that name: where both are needed, write
`from kvdb import Error`, or `import kvdb as kvdb_module`. A fixture `kvdb` of your own goes before
this one.
"""

# mypy: disable-error-code="import-not-found, untyped-decorator"
# (Whoever checks types need not have pytest.)

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from kvdb.client import Client
    from kvdb.testing import Server


@pytest.fixture(scope="session")
def kvdb_options() -> dict[str, Any]:
    """The settings of `kvdb_server`, as keyword arguments of kvdb.testing.running().

    To have others, define a fixture of this name in conftest.py.
    """
    return {}


@pytest.fixture(scope="session")
def kvdb_server(kvdb_options: dict[str, Any]) -> Iterator[Server]:
    """A kvdb.testing.Server in this process; with pytest-xdist, each worker has one.

    It is as the last test has left it, unless the test takes the fixture `kvdb`, too.
    """
    # Not at the top: every run of pytest imports this file, whether or not it has to do with kvdb.
    from kvdb.testing import running

    with running(**kvdb_options) as server:
        yield server


@pytest.fixture(name="kvdb")
def kvdb_client(kvdb_server: Server) -> Iterator[Client[Any]]:
    """A kvdb.Client of `kvdb_server`, which is reset before: running, empty, in real time."""
    from kvdb.client import Client

    kvdb_server.reset()
    client: Client[Any]
    with Client.from_url(kvdb_server.url) as client:
        yield client
