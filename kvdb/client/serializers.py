"""How Python values become bytes and come back. A client has one; types are never guessed."""

from __future__ import annotations

import functools
import json
import zlib
from collections.abc import Callable
from typing import Any, Final, Generic, NamedTuple, TypeVar

from kvdb.client.errors import SerializationError

V = TypeVar("V")

_COMPRESSED: Final = b"\x00kvdb-zlib\x00"
"""Before a value that was compressed."""


class Serializer(NamedTuple, Generic[V]):
    """`dump` turns a value into bytes, `load` turns them back; either may raise what it likes."""

    name: str
    dump: Callable[[Any], bytes]
    load: Callable[[bytes], V]

    def encode(self, value: object) -> bytes:
        """Return a value as bytes. Raises SerializationError."""
        try:
            return self.dump(value)
        except Exception as error:
            raise SerializationError(
                f"a {type(value).__name__} cannot be stored as {self.name}: {error}"
            ) from error

    def decode(self, data: bytes) -> V:
        """Return what bytes stand for. Raises SerializationError."""
        try:
            return self.load(data)
        except Exception as error:
            raise SerializationError(f"{data[:40]!r} is not {self.name}: {error}") from error

    def compressed(self, above: int = 1000) -> Serializer[V]:
        """Return a serializer that compresses what takes more than `above` bytes, if that helps.

        It reads what was stored without compression, too; not the other way round.
        """

        # Not functions of our own: a client travels to another process with its serializer.
        return Serializer(
            f"{self.name}, compressed",
            functools.partial(_dump_compressed, self.dump, above),
            functools.partial(_load_compressed, self.load),
        )


def _dump_compressed(dump: Callable[[Any], bytes], above: int, value: Any) -> bytes:
    data = dump(value)
    must = data.startswith(_COMPRESSED)
    if len(data) > above or must:
        smaller = _COMPRESSED + zlib.compress(data)
        return smaller if must or len(smaller) < len(data) else data
    return data


def _load_compressed(load: Callable[[bytes], V], data: bytes) -> V:
    if data.startswith(_COMPRESSED):
        data = zlib.decompress(data[len(_COMPRESSED) :])
    return load(data)


def _as_bytes(value: Any) -> bytes:
    if type(value) is bytes:
        return value
    if type(value) is int:  # so that it counts with incr()
        return b"%d" % value
    if not isinstance(value, bytes | bytearray | memoryview):
        raise TypeError("only bytes, and whole numbers")
    return bytes(value)


def _as_text(value: Any) -> bytes:
    if not isinstance(value, str | int | float):
        raise TypeError("only text and numbers")
    return str(value).encode()


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


JSON: Final[Serializer[Any]] = Serializer("JSON", _dump_json, _load_json)
"""The default. Counters read back as ints; any program in any language can read the rest."""

TEXT: Final[Serializer[str]] = Serializer("text", _as_text, bytes.decode)
"""Strings as they are, as telnet and other programs write them. Everything reads back as str."""

BYTES: Final[Serializer[bytes]] = Serializer("bytes", _as_bytes, bytes)
"""Bytes as they are."""
