"""Packages of npm that send Lua scripts; what they are asked stands in scripts_npm.cjs."""

from __future__ import annotations

import shutil
import subprocess
import unittest
from pathlib import Path

from tests.interop.scripts_case import LibraryCase

SCRIPT = Path(__file__).with_suffix(".cjs")


@unittest.skipUnless(shutil.which("node"), "there is no node on this machine")
class PackagesOfNpm(LibraryCase):
    def run_node(self, test: str) -> None:
        command = ["node", str(SCRIPT), test, str(self.address.port)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        if done.stdout.startswith("missing: "):
            self.skipTest(f"{done.stdout.strip()} (from npm, in NODE_PATH)")
        self.assertEqual((done.returncode, done.stdout), (0, "all is well\n"), done.stderr)

    def test_ioredis_and_redis(self) -> None:
        self.run_node("clients")

    def test_redlock_4(self) -> None:
        self.run_node("redlock4")

    def test_redlock_5(self) -> None:
        self.run_node("redlock5")

    def test_rate_limit_redis_with_express_rate_limit(self) -> None:
        self.run_node("rateLimitRedis")

    def test_rate_limiter_flexible(self) -> None:
        self.run_node("rateLimiterFlexible")
