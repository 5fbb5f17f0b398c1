"""A cache with the interface of cachelib, which Flask-Session and others take.

SESSION_TYPE = "cachelib"
SESSION_CACHELIB = KvdbCache("kvdb://127.0.0.1:4242/0", key_prefix="my_site:")

For Flask-Caching see `kvdb.integrations.flask_caching`.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable
from typing import Any, Final

try:
    from cachelib.base import BaseCache
except ImportError as error:
    raise ImportError(
        "kvdb.integrations.cachelib needs cachelib, which cannot be imported: pip install cachelib"
    ) from error

from kvdb.client import BYTES, Client, SerializationError
from kvdb.client.serializers import Serializer
from kvdb.integrations.serializer_option import serializer_from

_SECOND: Final = datetime.timedelta(seconds=1)

Timeout = float | datetime.timedelta
"""Seconds, or a timedelta. 0 is for ever, and less than 0 deletes at once."""


class KvdbCache(BaseCache):
    """cachelib's interface, kept by kvdb, Redis or Valkey.

    `server` is a URL: `kvdb://user:password@host:port/db`, or `kvdbs://` for TLS.
    `default_timeout` is in seconds. `key_prefix` stands before each key; it may be a function
    that returns it. `serializer` is "pickle" (any object, but who can write to the server can run
    code here), "json", a kvdb.Serializer, an object with dumps() and loads(), or a dotted path.
    `options` are arguments of kvdb.Client: timeout, patience, max_connections and so on.
    `ignore_delete_many_errors` is there for cachelib: what cannot be deleted always raises.

    A value that the serializer cannot read counts as missing. Raises kvdb.Error when the server
    cannot be reached (Disconnected, TimedOut) or refuses a command (ServerError: inc() of what is
    no whole number, for example), and whatever the serializer raises for a value to be set.
    """

    def __init__(
        self,
        server: str = "kvdb://127.0.0.1:4242/0",
        default_timeout: int | datetime.timedelta = 300,
        key_prefix: str | Callable[[], str] | None = None,
        *,
        serializer: Any = "pickle",
        ignore_delete_many_errors: bool = True,
        **options: Any,
    ) -> None:
        # Older versions of the base class take no timedelta, and no other argument.
        super().__init__(_whole_seconds(default_timeout))
        self.key_prefix = key_prefix or ""
        self.ignore_delete_many_errors = ignore_delete_many_errors
        self.serializer = serializer
        self._client: Client[bytes] = Client.from_url(server, **options, serializer=BYTES)

    @property
    def serializer(self) -> Serializer[Any]:
        """How values become bytes. Flask-Caching sets what CACHE_SERIALIZER says."""
        return self._serializer

    @serializer.setter
    def serializer(self, option: Any) -> None:
        self._serializer = serializer_from(option)

    def close(self) -> None:
        """Close the connections; the cache is not to be used any more."""
        self._client.close()

    def _prefix(self) -> str:
        return self.key_prefix() if callable(self.key_prefix) else self.key_prefix

    def _ttl(self, timeout: Timeout | None) -> float | None:
        """Return how many seconds a key is to live: None for ever, 0 not at all."""
        seconds: Timeout = self.default_timeout if timeout is None else timeout
        if isinstance(seconds, datetime.timedelta):
            seconds = seconds.total_seconds()
        return None if seconds == 0 else max(0.0, seconds)

    def _load(self, data: bytes | None) -> Any:
        try:
            return None if data is None else self._serializer.decode(data)
        except SerializationError:
            return None

    # --- one key -----------------------------------------------------------------------------

    def get(self, key: str) -> Any:
        """Return the value of a key, or None if there is none that can be read."""
        return self._load(self._client.get(self._prefix() + key))

    def set(self, key: str, value: Any, timeout: Timeout | None = None) -> bool:
        """Set the value of a key; return True."""
        return self.set_many({key: value}, timeout) == [key]

    def add(self, key: str, value: Any, timeout: Timeout | None = None) -> bool:
        """Set the value of a key if there is none; tell whether that was so."""
        name = self._prefix() + key
        data = self._serializer.dump(value)
        ttl = self._ttl(timeout)
        if ttl == 0:
            return not self._client.exists(name)
        return self._client.set(name, data, ttl=ttl, if_absent=True)

    def delete(self, key: str) -> bool:
        """Delete a key; tell whether it existed."""
        return bool(self._client.delete(self._prefix() + key))

    def has(self, key: str) -> bool:
        """Tell whether a key exists."""
        return self._client.exists(self._prefix() + key)

    def inc(self, key: str, delta: int = 1) -> int:
        """Add to a whole number, in one step, and return what it is then.

        A missing key counts as 0, and then never expires.
        """
        return self._client.incr(self._prefix() + key, delta)

    def dec(self, key: str, delta: int = 1) -> int:
        """Subtract from a whole number: as inc()."""
        return self._client.decr(self._prefix() + key, delta)

    # --- many keys ---------------------------------------------------------------------------

    def get_many(self, *keys: str) -> list[Any]:
        """Return the values of these keys in their order, None for each that is missing."""
        prefix = self._prefix()
        return [self._load(data) for data in self._client.mget([prefix + key for key in keys])]

    def set_many(self, mapping: dict[str, Any], timeout: Timeout | None = None) -> list[Any]:
        """Set several values; return their keys."""
        prefix = self._prefix()
        values = {prefix + key: self._serializer.dump(value) for key, value in mapping.items()}
        ttl = self._ttl(timeout)
        if ttl == 0:
            self._client.delete(*values)
        else:
            with self._client.pipeline() as pipe:
                for name, data in values.items():
                    pipe.set(name, data, ttl=ttl)
        return list(mapping)

    def delete_many(self, *keys: str) -> list[Any]:
        """Delete several keys; return all of them, those that were missing included."""
        prefix = self._prefix()
        self._client.delete(*[prefix + key for key in keys])
        return list(keys)

    def clear(self) -> bool:
        """Delete the keys with this cache's prefix; without a prefix, all of the database.

        Returns True.
        """
        if prefix := self._prefix():
            self._client.delete_matching(_escape_glob(prefix) + "*")
        else:
            self._client.clear()
        return True


def _whole_seconds(duration: int | datetime.timedelta) -> int:
    return math.ceil(duration / _SECOND) if isinstance(duration, datetime.timedelta) else duration


def _escape_glob(text: str) -> str:
    """Return a glob pattern that matches just this text."""
    return re.sub(r"([*?\[\]\\])", r"\\\1", text)
