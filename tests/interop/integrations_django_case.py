"""What the tests of kvdb.integrations.django share: settings with several caches."""

from __future__ import annotations

import zlib
from typing import Any

from kvdb.unsafe_pickle import PICKLE
from tests.interop.integrations_case import IntegrationCase

BACKEND = "kvdb.integrations.django.KvdbCache"
COMPRESSED = PICKLE.compressed(above=100)


def key_function(key: str, prefix: str, version: int) -> str:
    return f"CUSTOM-{prefix}-{version}-{key}"


class Slow:
    """Dumps and loads as settings may name them; marks what it has written."""

    def dumps(self, value: Any) -> bytes:
        return b"slow:" + zlib.compress(repr(value).encode())

    def loads(self, data: bytes) -> Any:
        return eval(zlib.decompress(data.removeprefix(b"slow:")))


class DjangoCase(IntegrationCase):
    packages = ("django",)

    def setUp(self) -> None:
        from django.conf import settings

        super().setUp()
        if not settings.configured:
            settings.configure()
        from django.core.cache import caches
        from django.test.utils import override_settings

        from kvdb.integrations import django

        chosen = {"CACHES": self.settings(), "USE_TZ": True, "ALLOWED_HOSTS": ["testserver"]}
        self.enterContext(override_settings(**chosen))
        self.addCleanup(_close_clients, django)
        self.caches = caches
        self.cache: Any = caches["default"]

    def settings(self) -> dict[str, Any]:
        plain = {"BACKEND": BACKEND, "LOCATION": self.url, "OPTIONS": {"MAX_ENTRIES": 30}}
        path = f"{__name__}."
        return {
            "default": plain,
            "prefixed": {**plain, "KEY_PREFIX": "cacheprefix", "TIMEOUT": None},
            "version 2": {**plain, "VERSION": 2},
            "custom": {**plain, "KEY_FUNCTION": key_function, "KEY_PREFIX": "p"},
            "custom by path": {**plain, "KEY_FUNCTION": path + "key_function", "KEY_PREFIX": "p"},
            "short": {**plain, "TIMEOUT": 60},
            "none kept": {**plain, "TIMEOUT": 0},
            "json": {**plain, "OPTIONS": {"serializer": "json", "max_connections": 3}},
            "compressed": {**plain, "OPTIONS": {"serializer": path + "COMPRESSED"}},
            "slow": {**plain, "OPTIONS": {"serializer": path + "Slow"}},
            "other database": {**plain, "LOCATION": [self.url[:-1] + "5"]},
        }


def _close_clients(module: Any) -> None:
    for client in module._clients.values():
        client.close()
    module._clients.clear()
