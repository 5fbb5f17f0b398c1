"""Which serializer the settings of a cache mean."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any, Final

from kvdb.client.serializers import JSON, Serializer
from kvdb.unsafe_pickle import PICKLE

_BY_NAME: Final = {"json": JSON, "pickle": PICKLE}


def serializer_from(option: Any) -> Serializer[Any]:
    """Return the serializer that a setting means.

    `option` is "pickle", "json", the dotted path of an object, or such an object: a
    `kvdb.Serializer`, or one with dumps() and loads(), or a class whose instances have these.

    Raises ValueError if it is none of them, ImportError if there is nothing at a dotted path.
    """
    found = _by_name(option) if isinstance(option, str) else option
    if isinstance(found, type):
        found = found()
    if isinstance(found, Serializer):
        return found
    if hasattr(found, "dumps") and hasattr(found, "loads"):
        return Serializer(type(found).__name__, _bytes_of(found.dumps), found.loads)
    raise ValueError(
        f"the serializer must be 'pickle', 'json', a kvdb.Serializer, or have dumps() and"
        f" loads(); {option!r} is none of these"
    )


def _by_name(name: str) -> Any:
    if name in _BY_NAME:
        return _BY_NAME[name]
    module, _, attribute = name.rpartition(".")
    if not module:
        raise ValueError(f"the serializer must be 'pickle', 'json' or a dotted path, not {name!r}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except AttributeError:
        raise ImportError(f"there is no {attribute!r} in {module!r}") from None


def _bytes_of(dumps: Callable[[Any], Any]) -> Callable[[Any], bytes]:
    """Return a function that gives what `dumps` returns as bytes."""

    def dump(value: Any) -> bytes:
        data = dumps(value)
        if isinstance(data, bytes):
            return data
        if isinstance(data, str | int):  # Django's serializer leaves ints as they are
            return str(data).encode()
        raise TypeError(f"dumps() has returned {data!r} for a {type(value).__name__}, not bytes")

    return dump
