from __future__ import annotations

import subprocess
import sys
import unittest

import kvdb
import kvdb.client

ONLY_WHEN_NEEDED = {
    "http.server", "kvdb.http", "kvdb.protocols.memcached", "kvdb.protocols.haus",  # ports
    "kvdb.persistence.journal", "sqlite3",
    "kvdb.client", "ssl",
}  # fmt: skip


class StartupTest(unittest.TestCase):
    """What a server with the main port alone does without, so that it starts soon."""

    def test_what_other_ports_and_data_files_need_is_not_imported(self) -> None:
        program = "import sys, kvdb.cli; print(*sys.modules)"
        result = subprocess.run(
            [sys.executable, "-S", "-c", program], capture_output=True, text=True, check=True
        )
        self.assertEqual(set(result.stdout.split()) & ONLY_WHEN_NEEDED, set())

    def test_the_client_is_there_all_the_same(self) -> None:
        self.assertIs(kvdb.Client, kvdb.client.Client)
        self.assertLessEqual(set(kvdb.client.__all__), set(dir(kvdb)))
        self.assertEqual(kvdb.__all__, [*kvdb.client.__all__, "running"])
        for name in kvdb.__all__:
            self.assertIsNotNone(getattr(kvdb, name), name)

    def test_a_name_that_is_not_there_is_an_attribute_error(self) -> None:
        with self.assertRaisesRegex(AttributeError, "module 'kvdb' has no attribute 'Clinet'"):
            kvdb.Clinet  # noqa: B018
