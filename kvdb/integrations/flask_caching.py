"""A backend for Flask-Caching.

CACHE_TYPE = "kvdb.integrations.flask_caching.kvdb_cache"
CACHE_KVDB_URL = "kvdb://127.0.0.1:4242/0"

Its path must not contain "cachelib": Flask-Caching does not hand its settings to such a backend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kvdb.integrations.cachelib import KvdbCache


def kvdb_cache(
    app: object, config: Mapping[str, Any], args: Sequence[Any], kwargs: Mapping[str, Any]
) -> KvdbCache:
    """Return a cache for the settings of a Flask application; Flask-Caching calls this.

    It reads CACHE_KVDB_URL (kvdb://127.0.0.1:4242/0 if not set), CACHE_KEY_PREFIX,
    CACHE_DEFAULT_TIMEOUT (in seconds), and CACHE_OPTIONS, which are arguments of KvdbCache:
    {"serializer": "json", "max_connections": 20}, for example.
    """
    options = {"key_prefix": config.get("CACHE_KEY_PREFIX"), **kwargs}
    if not args and config.get("CACHE_KVDB_URL"):
        options.setdefault("server", config["CACHE_KVDB_URL"])
    return KvdbCache(*args, **options)
