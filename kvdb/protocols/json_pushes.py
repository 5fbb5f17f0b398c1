"""What subscribers get as JSON lines, and what confirms their subscriptions.

    {"type": "SUBSCRIBE", "channel": "foo", "count": 1}
    {"type": "MESSAGE", "channel": "foo", "message": "bar"}
    {"type": "PMESSAGE", "pattern": "f*", "channel": "foo", "message": "bar"}

They have a type where replies have a status, so a client that subscribes may go on asking. A
message that is not UTF-8 comes in base64 and says so, as a value does.
"""

from __future__ import annotations

import base64
import json
from typing import Any, Final

from kvdb.replies import Push

_FIELDS: Final = {
    b"message": ("channel", "message"),
    b"smessage": ("channel", "message"),
    b"pmessage": ("pattern", "channel", "message"),
    b"psubscribe": ("pattern", "count"),
    b"punsubscribe": ("pattern", "count"),
}
"""What follows the type; of all others, a channel and a count."""


def encode_push(push: Push, version: int) -> bytes:
    """Return the line for a push; that of a client's version of RESP makes no difference."""
    kind, *values = push
    line: dict[str, Any] = {"type": kind.decode().upper()}
    for name, value in zip(_FIELDS.get(kind, ("channel", "count")), values, strict=False):
        if type(value) is bytes:
            line[name], is_encoded = _text(value)
            if is_encoded and name == "message":
                line["encoding"] = "base64"
            elif is_encoded:
                line[name] = {"value": line[name], "encoding": "base64"}
        else:
            line[name] = value
    return json.dumps(line, ensure_ascii=False).encode() + b"\n"


def _text(data: bytes) -> tuple[str, bool]:
    """Return what JSON can say of some bytes, and whether it is in base64."""
    try:
        return data.decode(), False
    except UnicodeDecodeError:
        return base64.b64encode(data).decode(), True
