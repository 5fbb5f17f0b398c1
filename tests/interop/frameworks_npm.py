"""Packages of npm; what they are asked stands in frameworks_npm.cjs, under the same names."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import unittest
from pathlib import Path
from typing import ClassVar

from tests.interop.frameworks_case import MEMCACHED, FrameworkCase

SCRIPT = Path(__file__).with_suffix(".cjs")


class _Npm(FrameworkCase):
    """The distribution is the package that the row is about; others are needed beside it."""

    beside: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        if not shutil.which("node"):
            raise unittest.SkipTest("there is no node on this machine")
        for name in (cls.distribution, *cls.beside):
            cls._description(name)

    @classmethod
    def _description(cls, name: str) -> dict[str, str]:
        for folder in os.environ.get("NODE_PATH", "").split(os.pathsep):
            path = Path(folder, name, "package.json")
            if path.exists():
                description: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
                return description
        raise unittest.SkipTest(f"the package {name} of npm is not in NODE_PATH")

    @classmethod
    def version(cls) -> str:
        return cls._description(cls.distribution)["version"]

    def run_node(self, test: str) -> None:
        port = self.addresses[MEMCACHED].port if self.protocol == "memcached" else self.address.port
        command = ["node", str(SCRIPT), test, str(port), self.with_ports(self.setting)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        self.assertEqual((done.returncode, done.stdout), (0, "all is well\n"), done.stderr)


class _NpmRedis(_Npm):
    name: ClassVar[str]

    def test_strings(self) -> None:
        self.run_node(f"{self.name}.strings")

    def test_expiry(self) -> None:
        self.run_node(f"{self.name}.expiry")

    def test_counters(self) -> None:
        self.run_node(f"{self.name}.counters")

    def test_transactions(self) -> None:
        self.run_node(f"{self.name}.transactions")

    def test_publish_and_subscribe(self) -> None:
        self.run_node(f"{self.name}.pubsub")


class NodeRedis(_NpmRedis):
    library = "redis (npm)"
    distribution = "redis"
    name = "nodeRedis"
    setting = "require('redis').createClient({ url: 'redis://127.0.0.1:4242' })"


class NodeRedisOverRESP2(_NpmRedis):
    library = "redis (npm), RESP2"
    distribution = "redis"
    name = "nodeRedis"
    setting = "require('redis').createClient({ url: 'redis://127.0.0.1:4242', RESP: 2 })"


class Ioredis(_NpmRedis):
    library = "ioredis (npm)"
    distribution = "ioredis"
    name = "ioredis"
    setting = "new (require('ioredis'))(4242)"


class ConnectRedis(_Npm):
    library = "connect-redis (npm)"
    distribution = "connect-redis"
    beside = ("redis", "express", "express-session")
    setting = "require('redis').createClient({ url: 'redis://127.0.0.1:4242' })"

    def test_sessions(self) -> None:
        self.run_node("connectRedis")


class Keyv(_Npm):
    library = "@keyv/redis (npm)"
    distribution = "@keyv/redis"
    beside = ("keyv",)
    setting = "new (require('@keyv/redis').default)('redis://127.0.0.1:4242')"

    def test_strings_expiry_and_namespaces(self) -> None:
        self.run_node("keyv")


class CacheManager(_Npm):
    library = "cache-manager (npm)"
    distribution = "cache-manager"
    beside = ("keyv", "@keyv/redis")
    setting = "require('@keyv/redis').createKeyv('redis://127.0.0.1:4242')"

    def test_strings_expiry_and_wrapped_functions(self) -> None:
        self.run_node("cacheManager")


class MemcachedOfNpm(_Npm):
    library = "memcached (npm)"
    distribution = "memcached"
    protocol = "memcached"
    setting = "new (require('memcached'))('127.0.0.1:11211')"

    def test_strings(self) -> None:
        self.run_node("memcached.strings")

    def test_expiry_and_counters(self) -> None:
        self.run_node("memcached.expiryAndCounters")

    def test_compare_and_set(self) -> None:
        self.run_node("memcached.compareAndSet")
