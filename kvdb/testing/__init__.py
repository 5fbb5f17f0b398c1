"""A server for the tests of a program that uses kvdb: in this process, up in milliseconds.

    def test_a_session_ends_after_an_hour():
        with kvdb.testing.running() as server:
            log_in(server.client())
            server.advance(3600)
            assert not is_logged_in(server.client())

It can be told to fail: `fail_next()`, `delay_next()`, `disconnect_next()`, `stop()`. For pytest there
are fixtures: see kvdb.pytest_plugin.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from kvdb.config import Config
from kvdb.service import CannotStart
from kvdb.testing.clock import Clock
from kvdb.testing.server import Server

__all__ = ["CannotStart", "Clock", "Server", "running"]


@contextmanager
def running(**config: Any) -> Iterator[Server]:
    """Run a server in this process for as long as the `with` block lasts.

    It listens on a free port and keeps its data in memory. Other settings are fields of
    kvdb.config.Config: `data=tmp_path / "kvdb.sqlite"`, `http_port=0`, `password="secret"`. Afterwards
    no thread, no socket and no file is left, but for a data file. Raises CannotStart; TypeError
    if there is no such setting.
    """
    server = Server(Config(**{"data": None, "port": 0, **config}))
    try:
        server.start()
        yield server
    finally:
        server.close()
