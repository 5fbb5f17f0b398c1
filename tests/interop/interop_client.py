"""The bundled client with a real Redis (or Valkey): the tests of its methods, once more."""

from __future__ import annotations

import unittest

from tests import test_client_commands
from tests.interop.servers import running_redis


class OnRedis:
    """In place of our own server, there is a Redis."""

    def serve(self: unittest.TestCase) -> int:  # type: ignore[misc]
        return self.enterContext(running_redis()).port


class CommandOnRedis(OnRedis, test_client_commands.CommandTest):
    pass


class ConditionOnRedis(OnRedis, test_client_commands.ConditionTest):
    pass


class TimeOnRedis(OnRedis, test_client_commands.TimeTest):
    pass


class SerializerOnRedis(OnRedis, test_client_commands.SerializerTest):
    pass


class TransactionOnRedis(OnRedis, test_client_commands.TransactionTest):
    pass


class NamespaceOnRedis(OnRedis, test_client_commands.NamespaceTest):
    pass


if __name__ == "__main__":
    unittest.main()
