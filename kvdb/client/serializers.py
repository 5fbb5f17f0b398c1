"""How Python values become bytes and come back. A client has one; types are never guessed."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from typing import Any, NamedTuple

from kvdb.client.errors import SerializationError


class Serializer(NamedTuple):
    """`dump` turns a value into bytes, `load` turns them back; either may raise what it likes."""

    name: str
    dump: Callable[[Any], bytes]
    load: Callable[[bytes], Any]

    def encode(self, value: Any) -> bytes:
        try:
            return self.dump(value)
        except Exception as error:
            raise SerializationError(
                f"a {type(value).__name__} cannot be stored as {self.name}: {error}"
            ) from error

    def decode(self, data: bytes) -> Any:
        try:
            return self.load(data)
        except Exception as error:
            raise SerializationError(f"{data[:40]!r} is not {self.name}: {error}") from error


def _as_bytes(value: Any) -> bytes:
    if type(value) is bytes:
        return value
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError("only bytes")
    return bytes(value)


# json.dumps() makes an encoder for each call, and json.loads() guesses an encoding and looks for
# white space on both sides: a short string takes five times as long as it does this way.
_encode_json = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
_read_json = json.JSONDecoder().raw_decode


def _dump_json(value: Any) -> bytes:
    """As json.dumps(): UTF-8, and no NaN, which JSON does not have."""
    if type(value) is int:  # not bool; the encoder would take ten times as long
        return b"%d" % value
    return _encode_json(value).encode()


def _load_json(data: bytes) -> Any:
    """As json.loads(), which is left to read, or to refuse, what is not JSON throughout."""
    try:
        text = data.decode()
        value, end = _read_json(text)
        if end == len(text):
            return value
    except ValueError:
        pass
    return json.loads(data)


JSON = Serializer("JSON", _dump_json, _load_json)
"""The default. Counters read back as ints; any program in any language can read the rest."""

TEXT = Serializer("text", lambda value: str(value).encode(), lambda data: data.decode())
"""Strings as they are, as telnet and other programs write them. Everything reads back as str."""

BYTES = Serializer("bytes", _as_bytes, lambda data: data)
"""Bytes as they are."""

PICKLE = Serializer("pickle", pickle.dumps, pickle.loads)
"""Any Python object. Reading runs code of whoever wrote it: only if you trust every writer."""
