"""The lines that `kvdb export` writes and `kvdb import` reads: a JSON object for each entry.

    {"db": 0, "key": "greeting", "value": "hello"}
    {"db": 0, "key": "session", "value": "abc", "expires_at": 1767229200.0}
    {"db": 1, "key": "AAE=", "value": "/w==", "encoding": "base64"}

`expires_at` is in Unix seconds; instead, `ttl_ms` may say how many milliseconds are left. Where key
or value is not UTF-8, both are in base64. memcached's number per value is `client_flags`.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from typing import Any, Final

from kvdb.store.entry import DATABASES, Entry, Key, key_in, split_key

LONGEST_LINE: Final = 1 << 30
"""Bytes of a line that are read; Redis keeps no value of more than half of it."""

_FIELDS: Final = frozenset(
    ("db", "key", "value", "ttl_ms", "expires_at", "encoding", "client_flags")
)


def encode_line(key: Key, entry: Entry) -> bytes:
    """Return the line of an entry, with its line end."""
    db, name = split_key(key)
    record: dict[str, Any] = {"db": db}
    try:
        record |= {"key": name.decode(), "value": entry.value.decode()}
    except UnicodeDecodeError:
        record |= {
            "key": base64.b64encode(name).decode(),
            "value": base64.b64encode(entry.value).decode(),
            "encoding": "base64",
        }
    if entry.expires_at is not None:
        record["expires_at"] = entry.expires_at
    if entry.client_flags:
        record["client_flags"] = entry.client_flags
    return json.dumps(record, ensure_ascii=False).encode() + b"\n"


def decode_line(line: bytes, now: float) -> tuple[Key, Entry]:
    """Return the entry of a line. Raises ValueError with what is wrong about it."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("this is not JSON") from None
    if not isinstance(record, dict):
        raise ValueError("this is not a JSON object")
    if unknown := sorted(record.keys() - _FIELDS):
        raise ValueError(f"there is no field {unknown[0]!r}")
    db = record.get("db", 0)
    if type(db) is not int or not 0 <= db < DATABASES:
        raise ValueError(f"db must be a number from 0 to {DATABASES - 1}")
    flags = record.get("client_flags", 0)
    if type(flags) is not int or not 0 <= flags < 1 << 32:
        raise ValueError("client_flags must be a number of 32 bits")
    encoding = record.get("encoding")
    if encoding not in (None, "base64"):
        raise ValueError("encoding must be base64, or be left out")
    name, value = (_decode(record, field, encoding) for field in ("key", "value"))
    return key_in(db, name), Entry(value, _deadline(record, now), flags)


def _decode(record: dict[str, Any], field: str, encoding: str | None) -> bytes:
    text = record.get(field)
    if not isinstance(text, str):
        raise ValueError(f"{field} must be a string")
    try:
        return base64.b64decode(text, validate=True) if encoding else text.encode()
    except (binascii.Error, ValueError):
        raise ValueError(f"{field} is not {'base64' if encoding else 'Unicode'}") from None


def _deadline(record: dict[str, Any], now: float) -> float | None:
    """Return when the entry expires, in Unix seconds."""
    moment, ttl = record.get("expires_at"), record.get("ttl_ms")
    if moment is not None and ttl is not None:
        raise ValueError("expires_at and ttl_ms exclude each other")
    for field, number in (("expires_at", moment), ("ttl_ms", ttl)):
        if number is not None and (
            type(number) not in (int, float) or not -1e15 < number < 1e15 or math.isnan(number)
        ):
            raise ValueError(f"{field} must be a number")
    if ttl is not None:
        return now + float(ttl) / 1000
    return None if moment is None else float(moment)
