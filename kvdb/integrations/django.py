"""A cache backend for Django 4.2 and later, which needs nothing but Django and kvdb.

CACHES = {
    "default": {
        "BACKEND": "kvdb.integrations.django.KvdbCache",
        "LOCATION": "kvdb://127.0.0.1:4242/0",
    }
}
"""

from __future__ import annotations

import operator
import threading
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

try:
    from asgiref.sync import sync_to_async
    from django.core.cache.backends.base import DEFAULT_TIMEOUT, BaseCache
    from django.core.exceptions import ImproperlyConfigured
except ImportError as error:
    raise ImportError(
        "kvdb.integrations.django needs Django, which cannot be imported: pip install Django"
    ) from error

from kvdb.client import BYTES, Client, ServerError
from kvdb.integrations.serializer_option import serializer_from

_DEFAULT_LOCATION: Final = "kvdb://127.0.0.1:4242/0"

_INCREMENT: Final = b"""
if redis.call('exists', KEYS[1]) == 0 then return false end
redis.call('incrby', KEYS[1], ARGV[1])
return redis.call('get', KEYS[1])
"""
"""Returns text, since a number would pass through a float and lose digits beyond 2**53."""

_ABOUT_THE_VALUE: Final = ("ERR", "OOM")
"""Code words of refusals that concern one value: it is too large, or there is no room for it."""

# Django makes a KvdbCache for each thread, and forgets it with the thread. Connections outlast
# that: caches with the same settings share a client. `_lock` guards `_clients`.
_clients: Final[dict[object, Client[bytes]]] = {}
_lock: Final = threading.Lock()


class KvdbCache(BaseCache):
    """Django's cache interface, kept by kvdb, Redis or Valkey.

    LOCATION is one URL: `kvdb://user:password@host:port/db`, or `kvdbs://` for TLS.

    OPTIONS:
        serializer          "pickle" (the default: any object, but who can write to the server can
                            run code here), "json", or a dotted path to a kvdb.Serializer or to a
                            class with dumps() and loads()
        any other           an argument of kvdb.Client: timeout and patience (in seconds),
                            max_connections, user, password, name, tls
    MAX_ENTRIES and CULL_FREQUENCY mean nothing here: the server's `maxmemory` limits what it keeps.

    Timeouts are in seconds, exact to a millisecond. None is for ever, 0 and less delete at once.

    clear() empties the whole database of the server, as Django's RedisCache does, whatever
    KEY_PREFIX says. Give a cache that must be cleared alone a database of its own.

    Raises kvdb.Error when the server cannot be reached (Disconnected, TimedOut) or refuses a
    command (ServerError), and whatever the serializer raises. Raises ImproperlyConfigured when
    it is made, if the settings are wrong.
    """

    client: Client[bytes]
    """For what Django's interface lacks. Its values are bytes; other caches use it, too, so it
    must not be closed."""

    def __init__(self, server: str | Sequence[str], params: Mapping[str, Any]) -> None:
        super().__init__(params)
        options = dict(params.get("OPTIONS") or {})
        for name in ("MAX_ENTRIES", "CULL_FREQUENCY"):
            options.pop(name, None)
        try:
            self._serializer = serializer_from(options.pop("serializer", "pickle"))
            self.client = _shared_client(_only_location(server), options)
        except (ImportError, TypeError, ValueError) as error:
            raise ImproperlyConfigured(f"a cache in CACHES is set up wrongly: {error}") from error

    def get_backend_timeout(self, timeout: Any = DEFAULT_TIMEOUT) -> float | None:
        """Return how many seconds a key is to live: None for ever, 0 not at all."""
        if timeout == DEFAULT_TIMEOUT:
            timeout = self.default_timeout
        return None if timeout is None else max(0.0, float(timeout))

    # --- one key -----------------------------------------------------------------------------

    def get(self, key: Any, default: Any = None, version: int | None = None) -> Any:
        """Return the value of a key, or `default` if there is none."""
        data = self.client.get(self.make_and_validate_key(key, version))
        return default if data is None else self._serializer.load(data)

    def set(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> None:
        """Set the value of a key."""
        name = self.make_and_validate_key(key, version)
        data = self._serializer.dump(value)
        ttl = self.get_backend_timeout(timeout)
        if ttl == 0:
            self.client.delete(name)
        else:
            self.client.set(name, data, ttl=ttl)

    def add(
        self, key: Any, value: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None
    ) -> bool:
        """Set the value of a key if there is none; tell whether that was so."""
        name = self.make_and_validate_key(key, version)
        data = self._serializer.dump(value)
        ttl = self.get_backend_timeout(timeout)
        if ttl == 0:
            return not self.client.exists(name)
        return self.client.set(name, data, ttl=ttl, if_absent=True)

    def touch(self, key: Any, timeout: Any = DEFAULT_TIMEOUT, version: int | None = None) -> bool:
        """Give a key a new timeout; tell whether it exists."""
        name = self.make_and_validate_key(key, version)
        ttl = self.get_backend_timeout(timeout)
        if ttl is not None:
            return self.client.expire(name, ttl)
        with self.client.pipeline() as pipe:
            pipe.persist(name)  # answers False for a key that never expires
            exists = pipe.exists(name)
        return exists.value

    def delete(self, key: Any, version: int | None = None) -> bool:
        """Delete a key; tell whether it existed."""
        return bool(self.client.delete(self.make_and_validate_key(key, version)))

    def has_key(self, key: Any, version: int | None = None) -> bool:
        """Tell whether a key exists."""
        return self.client.exists(self.make_and_validate_key(key, version))

    def incr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Add to a whole number, in one step, and return what it is then; its timeout stays.

        Raises ValueError if there is no such key, or if it holds no whole number of 64 bits. The
        server must allow scripts.
        """
        name = self.make_and_validate_key(key, version)
        try:
            reply = self.client.eval(_INCREMENT, [name], [operator.index(delta)])
        except ServerError as error:
            if "not an integer" in str(error):
                raise ValueError(f"Key {key!r} does not hold a whole number") from error
            raise
        if reply is None:
            raise ValueError(f"Key {key!r} not found")
        return int(reply)

    def incr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """Move a value to another version, in one step, and return that; its timeout stays.

        Raises ValueError if there is no such key.
        """
        old = self.version if version is None else version
        new = old + delta
        names = [self.make_and_validate_key(key, each) for each in (old, new)]
        try:
            self.client.rename(*names)
        except ServerError as error:
            if "no such key" in str(error):
                raise ValueError(f"Key {key!r} not found") from None
            raise
        return int(new)

    # --- many keys ---------------------------------------------------------------------------

    def get_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """Return the values of these keys, without those that are missing."""
        names = {self.make_and_validate_key(key, version): key for key in keys}
        found = self.client.get_many(names)
        return {names[name]: self._serializer.load(data) for name, data in found.items()}

    def set_many(
        self,
        data: Mapping[Any, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[Any]:
        """Set several values; return the keys whose values the server has refused.

        These are too large, or the server has no room; such a key keeps its old value.
        """
        names = {key: self.make_and_validate_key(key, version) for key in data}
        values = {key: self._serializer.dump(value) for key, value in data.items()}
        ttl = self.get_backend_timeout(timeout)
        if ttl == 0:
            self.client.delete(*names.values())
            return []
        pipe = self.client.pipeline()
        for key, name in names.items():
            pipe.set(name, values[key], ttl=ttl)
        failed = []
        for key, result in zip(names, pipe.execute(return_errors=True), strict=True):
            if isinstance(result, ServerError) and result.code in _ABOUT_THE_VALUE:
                failed.append(key)
            elif isinstance(result, Exception):
                raise result
        return failed

    def delete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        """Delete several keys."""
        self.client.delete(*[self.make_and_validate_key(key, version) for key in keys])

    def clear(self) -> bool:
        """Delete all keys of the server's database, other caches' and programs' included."""
        self.client.clear()
        return True

    def close(self, **kwargs: Any) -> None:
        """Do nothing: Django calls this after each request, and the next one needs connections."""

    # --- for async code ----------------------------------------------------------------------
    # Django would make these of several calls, each in a thread: slower, and not in one step.

    async def ahas_key(self, key: Any, version: int | None = None) -> bool:
        """See has_key()."""
        return bool(await sync_to_async(self.has_key)(key, version))

    async def aincr(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """See incr()."""
        return int(await sync_to_async(self.incr)(key, delta, version))

    async def aincr_version(self, key: Any, delta: int = 1, version: int | None = None) -> int:
        """See incr_version()."""
        return int(await sync_to_async(self.incr_version)(key, delta, version))

    async def aget_many(self, keys: Iterable[Any], version: int | None = None) -> dict[Any, Any]:
        """See get_many()."""
        found: dict[Any, Any] = await sync_to_async(self.get_many)(keys, version)
        return found

    async def aset_many(
        self,
        data: Mapping[Any, Any],
        timeout: Any = DEFAULT_TIMEOUT,
        version: int | None = None,
    ) -> list[Any]:
        """See set_many()."""
        failed: list[Any] = await sync_to_async(self.set_many)(data, timeout, version)
        return failed

    async def adelete_many(self, keys: Iterable[Any], version: int | None = None) -> None:
        """See delete_many()."""
        await sync_to_async(self.delete_many)(keys, version)


def _only_location(server: str | Sequence[str]) -> str:
    """Return the URL in LOCATION. Raises ValueError if there are several."""
    locations = [server] if isinstance(server, str) else list(server)
    if len(locations) > 1:
        raise ValueError("LOCATION must be a single URL")
    return locations[0] if locations and locations[0] else _DEFAULT_LOCATION


def _shared_client(url: str, options: Mapping[str, Any]) -> Client[bytes]:
    """Return the client of this process for a URL and options; it has not connected yet.

    Raises ValueError or TypeError if the URL or the options are wrong.
    """
    settings = (url, tuple(sorted(options.items(), key=operator.itemgetter(0))))
    with _lock:
        if settings not in _clients:
            _clients[settings] = Client.from_url(url, **options, serializer=BYTES)
        return _clients[settings]
