"""The fixtures for pytest, in runs of pytest of their own. Without pytest there is nothing to test."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

TESTS = """
import kvdb as kvdb_module

def test_one(kvdb):
    assert kvdb.get("a") is None
    kvdb.set("a", 1)

def test_another(kvdb, kvdb_server):
    assert kvdb.get("a") is None
    kvdb.set("a", 1, ttl=60)
    kvdb_server.advance(60)
    assert kvdb.get("a") is None
    kvdb_server.fail_next("GET")
    kvdb_server.stop()

def test_what_the_last_one_did_is_undone(kvdb, kvdb_server):
    assert kvdb.get("a") is None

def test_the_server_alone_stays_as_it_was(kvdb_server):
    kvdb_server.client().set("b", 1)

def test_as_was_said(kvdb_server):
    assert kvdb_server.client().get("b") == 1
    assert kvdb_module.Client.from_url(str(kvdb_server)).get("b") == 1
"""

CONFTEST = """
import pytest

@pytest.fixture(scope="session")
def kvdb_options():
    return {"password": "secret", "http_port": 0}
"""

TESTS_OF_OPTIONS = """
def test_it_has_them(kvdb, kvdb_server):
    assert kvdb.ping()
    assert "secret" in kvdb_server.url and "http" in kvdb_server.ports
"""


@unittest.skipUnless(importlib.util.find_spec("pytest"), "pytest is not installed")
class PluginTest(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def run_pytest(self, *arguments: str) -> str:
        """Run the tests in the folder as in a clone; return what pytest says."""
        # Without what happens to be installed: kvdb, too, would bring the plugin a second time.
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        plugins = ("-p", "kvdb.pytest_plugin", "-p", "no:cacheprovider")
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *plugins, *arguments],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout + done.stderr

    def test_each_test_finds_an_empty_server(self) -> None:
        (self.folder / "test_it.py").write_text(TESTS)
        self.assertIn("5 passed", self.run_pytest())

    def test_the_server_takes_options(self) -> None:
        (self.folder / "conftest.py").write_text(CONFTEST)
        (self.folder / "test_it.py").write_text(TESTS_OF_OPTIONS)
        self.assertIn("1 passed", self.run_pytest())

    @unittest.skipUnless(importlib.util.find_spec("xdist"), "pytest-xdist is not installed")
    def test_workers_do_not_disturb_each_other(self) -> None:
        for number in range(4):
            (self.folder / f"test_{number}.py").write_text(TESTS)
        self.assertIn("20 passed", self.run_pytest("-p", "xdist", "-n", "2", "--dist", "loadfile"))

    def test_who_does_not_use_it_does_not_import_the_server(self) -> None:
        (self.folder / "test_it.py").write_text(
            "import sys\ndef test_it(): assert 'kvdb.service' not in sys.modules\n"
        )
        self.assertIn("1 passed", self.run_pytest())
