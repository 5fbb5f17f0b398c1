"""Keys and values for the page's scripts, as JSON. Looking counts as no use of a key."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Callable
from typing import Any, Final

from kvdb.commands.instance import Instance
from kvdb.glob import compile_glob
from kvdb.http.visible import visible
from kvdb.store.entry import key_in

CUT: Final = 10_000
"""Bytes of a value that are sent at first."""

MOST: Final = 1_000_000
"""Bytes of a value that the page shows at most; a longer one can be downloaded."""


LONGEST_NAME: Final = 4000
"""Bytes of a key's name that the page works with: a request line has no room for many more."""


def matcher(parameters: dict[bytes, bytes]) -> Callable[[bytes], object]:
    """Return what tells whether a name is among those that a query asks for.

    `prefix` is taken as it is; of `search`, a text with `*` is a glob, any other a prefix.
    Raises CommandError for a pattern that is too long.
    """
    prefix = parameters.get(b"prefix", b"")
    search = parameters.get(b"search", b"")
    if b"*" in search:
        matches = compile_glob(search)
        return lambda name: name.startswith(prefix) and matches(name)
    return lambda name: name.startswith(prefix) and name.startswith(search)


def render_rows(
    instance: Instance, db: int, cursor: int, names: list[bytes], may: Callable[..., bool]
) -> bytes:
    """Return JSON of keys: how each is shown and named in a query, its size and seconds to live.

    Of a key that the user may not read there is the name only; of one that has gone, nothing.
    """
    rows: list[dict[str, Any]] = []
    now = instance.store.now()
    for name in names:
        row: dict[str, Any] = {"key": visible(name[:LONGEST_NAME])}
        if len(name) > LONGEST_NAME:
            row["key"] += "…"
        else:
            row["quoted"] = urllib.parse.quote_from_bytes(name, "")
        if "quoted" in row and may(b"GET", name):
            entry = instance.store.entry(key_in(db, name))
            if entry is None:
                continue
            row["size"] = len(entry.value)
            if instance.config.http_writable:
                row["deletable"] = may(b"DEL", name)
                row["version"] = f'"{instance.store.version(key_in(db, name))}"'
            if entry.expires_at is not None:
                row["ttl"] = round(max(0.0, entry.expires_at - now), 3)
        rows.append(row)
    listed = {"keys": rows, "cursor": str(cursor), "total": instance.store.size(db)}
    return json.dumps(listed).encode() + b"\n"


def render_value(
    instance: Instance, db: int, name: bytes, whole: bool, may: Callable[..., bool]
) -> bytes | None:
    """Return JSON of a value, as `text` if it is UTF-8 and else as `base64`; None: no such key.

    `is_cut` tells that it is longer than what is shown, which with `whole` is more. Where the page
    may change keys, `may` tells what its user may do with this one, and `version` is its ETag.
    """
    with instance.store.atomic():
        entry = instance.store.entry(key_in(db, name))
        version = instance.store.version(key_in(db, name)) if instance.config.http_writable else 0
    if entry is None:
        return None
    limit = MOST if whole else CUT
    part, is_cut = entry.value[:limit], len(entry.value) > limit
    shown: dict[str, Any] = {"size": len(entry.value), "is_cut": is_cut}
    if entry.expires_at is not None:
        shown["ttl"] = round(max(0.0, entry.expires_at - instance.store.now()), 3)
    if instance.config.http_writable:
        shown["version"] = f'"{version}"'
        shown["may"] = {
            "set": may(b"SET", name, b""),
            "expire": may(b"PEXPIRE", name, b"1") and may(b"PERSIST", name),
            "delete": may(b"DEL", name),
        }
    text = _text(part, is_cut)
    if text is None:
        shown["base64"] = base64.b64encode(part).decode()
    else:
        shown["text"] = text
    return json.dumps(shown).encode() + b"\n"


def _text(part: bytes, is_cut: bool) -> str | None:
    """Return bytes as text, or None; where they were cut, a character may be incomplete."""
    for left_out in range(4 if is_cut else 1):
        try:
            return part[: len(part) - left_out].decode()
        except UnicodeDecodeError:
            continue
    return None
