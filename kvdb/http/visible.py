"""Bytes as text that shows everything: what nobody would see becomes its code."""

from __future__ import annotations


def visible(data: bytes, kept: str = "") -> str:
    """Return bytes as text: as `\\x..` what is not UTF-8, and what one would not see.

    `kept` lists the control characters that stay as they are.
    """
    text = data.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() or c in kept else _code(c) for c in text)


def _code(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
