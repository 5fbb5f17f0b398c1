"""Replies as text: for people, and as they are for scripts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from kvdb.client.errors import ServerError

_LONGEST_JSON: Final = 1024 * 1024  # bytes that are taken apart to be indented
_DUMPED: Final = 1024  # bytes of a binary string that are shown
_ROW: Final = 16  # bytes in a line of them


def readable(reply: Any) -> str:
    """Return a reply for people: nothing in it can control their terminal."""
    match reply:
        case None:
            return "(nil)"
        case bool():
            return f"({str(reply).lower()})"
        case int():
            return f"(integer) {reply}"
        case float():
            return f"(double) {reply!r}"
        case bytes():
            return _readable_string(reply)
        case ServerError():
            return f"(error) {_printable(str(reply)) or ascii(str(reply))}"
        case list():
            return _numbered(reply) if reply else "(empty list)"
        case dict():
            return _mapped(reply) if reply else "(empty map)"
    return repr(reply)


def raw(reply: Any) -> bytes:
    """Return a reply for scripts: a string is its bytes, nil is nothing, a list has one per line."""
    match reply:
        case None:
            return b""
        case bytes():
            return reply
        case bool():
            return b"%d" % reply
        case list():
            return b"\n".join(map(raw, reply))
        case dict():
            return b"\n".join(raw(key) + b"\n" + raw(value) for key, value in reply.items())
    return str(reply).encode()


def _readable_string(data: bytes) -> str:
    try:
        text = data.decode().replace("\r\n", "\n")
    except UnicodeDecodeError:
        return _hex_dump(data)
    if text[:1] in ("{", "[") and len(data) <= _LONGEST_JSON and (indented := _indented(text)):
        return indented
    if _printable(text) is None:
        return _hex_dump(data)
    if not text or text != text.strip(" \t") or text.startswith("("):
        return json.dumps(text, ensure_ascii=False)  # else nobody would see what it is
    return text.removesuffix("\n")


def _printable(text: str) -> str | None:
    """Return the text if all of it can be shown as it is."""
    lines = text.replace("\t", " ").split("\n")
    return text if all(line.isprintable() for line in lines) else None


def _indented(text: str) -> str | None:
    """Return JSON with a line for each member, or None if it is none."""
    try:
        value = json.loads(text)
        shown = json.dumps(value, indent=2, ensure_ascii=False)
        return _printable(shown) or json.dumps(value, indent=2)
    except (ValueError, RecursionError):
        return None


def _hex_dump(data: bytes) -> str:
    lines = [f"(binary, {len(data):,} bytes)"]
    for start in range(0, min(len(data), _DUMPED), _ROW):
        row = data[start : start + _ROW]
        letters = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        lines.append(f"{start:06x}  {row.hex(' '):<{3 * _ROW - 1}}  {letters}")
    if len(data) > _DUMPED:
        lines.append(f"... and {len(data) - _DUMPED:,} bytes more")
    return "\n".join(lines)


def _numbered(items: list[Any]) -> str:
    width = len(str(len(items)))
    return "\n".join(
        _headed(f"{number:>{width}}) ", readable(item)) for number, item in enumerate(items, 1)
    )


def _mapped(pairs: dict[Any, Any]) -> str:
    return "\n".join(_lines_of_map(pairs))


def _lines_of_map(pairs: dict[Any, Any]) -> Iterator[str]:
    for key, value in pairs.items():
        name, shown = readable(key), readable(value)
        if isinstance(value, list | dict) and value:
            yield f"{name}:\n" + _headed("  ", shown)
        else:
            yield _headed(f"{name}: ", shown)


def _headed(head: str, text: str) -> str:
    """Return the text behind `head`, its other lines below its first."""
    return head + text.replace("\n", "\n" + " " * len(head.rpartition("\n")[2]))
