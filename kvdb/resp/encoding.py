"""Replies, on the server's side: what a command answers, in bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from kvdb.errors import CommandError
from kvdb.replies import (
    NIL_ARRAY,
    NO_REPLY,
    OK,
    BigNumber,
    Push,
    Pushes,
    Reply,
    SimpleString,
    Verbatim,
)


def encode_reply(reply: Reply, version: int = 2) -> bytes:
    """Put a command's answer into bytes, for a client that speaks RESP `version` (2 or 3)."""
    kind = type(reply)
    if kind is bytes:
        if len(reply) < _LONG:
            return b"%b%b\r\n" % (_BULK_HEADERS[len(reply)], reply)
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    if reply is OK:
        return b"+OK\r\n"
    if kind is int:
        return b":%d\r\n" % reply
    return b"".join(encode_pieces(reply, version))


def encode_pieces(reply: Reply, version: int = 2) -> Iterable[bytes]:
    """As encode_reply(), but not joined: long strings in it are not copied.

    The pieces of a long list are made some at a time.
    """
    if type(reply) is list and len(reply) > _MADE_TOGETHER:
        return _encode_in_slices(reply, version)
    pieces: list[bytes] = []
    if type(reply) is list:
        pieces.append(b"*%d\r\n" % len(reply))
        pieces += encode_each(reply, version)
    else:
        _encode(reply, version, pieces.append)
    return pieces


def _encode_in_slices(reply: list[Reply], version: int) -> Iterator[bytes]:
    yield b"*%d\r\n" % len(reply)
    for start in range(0, len(reply), _MADE_TOGETHER):
        yield from encode_each(reply[start : start + _MADE_TOGETHER], version)


def encode_each(replies: Iterable[Reply], version: int = 2) -> list[bytes]:
    """Return the pieces of many replies that follow each other; no string in them is copied."""
    pieces: list[bytes] = []
    for reply in replies:
        if type(reply) is bytes and len(reply) < len(_BULK_HEADERS):
            pieces += (_BULK_HEADERS[len(reply)], reply, b"\r\n")
        elif reply is OK:
            pieces.append(b"+OK\r\n")
        elif type(reply) is int:
            pieces.append(b":%d\r\n" % reply)
        else:
            _encode(reply, version, pieces.append)
    return pieces


def encode_error(text: str) -> bytes:
    """Put an error into bytes. Line ends would let its text pass for another reply: no more."""
    return b"-%b\r\n" % text.translate(_ONE_LINE).encode("utf-8", "surrogateescape")


_MADE_TOGETHER: Final = 1_000  # elements of a list

_LONG: Final = 2 * 1024
"""Strings of this length and above are pieces of their own."""

_BULK_HEADERS: Final = tuple(b"$%d\r\n" % length for length in range(_LONG))

_ONE_LINE = {ord("\r"): " ", ord("\n"): " "}


def _encode(reply: Reply, version: int, write: Callable[[bytes], object]) -> None:
    match reply:
        case SimpleString():
            write(b"+%b\r\n" % reply)
        case BigNumber() if version == 3:
            write(b"(%b\r\n" % reply)
        case bytes() if len(reply) >= _LONG:
            write(b"$%d\r\n" % len(reply))
            write(reply)
            write(b"\r\n")
        case bytes():
            write(b"$%d\r\n%b\r\n" % (len(reply), reply))
        case None:
            write(b"_\r\n" if version == 3 else b"$-1\r\n")
        case bool():
            write((b"#t\r\n" if reply else b"#f\r\n") if version == 3 else b":%d\r\n" % reply)
        case int():
            write(b":%d\r\n" % reply)
        case float():
            text = format_double(reply)
            write(b",%b\r\n" % text if version == 3 else b"$%d\r\n%b\r\n" % (len(text), text))
        case str():
            text = reply.encode("utf-8", "surrogateescape")
            if version == 3 and isinstance(reply, Verbatim):
                write(b"=%d\r\ntxt:%b\r\n" % (len(text) + 4, text))
            else:
                write(b"$%d\r\n%b\r\n" % (len(text), text))
        case Pushes():
            for each in reply:
                if type(each) is bytes:
                    write(each)
                else:
                    _encode(each, version, write)
        case list() | tuple():
            is_push = version == 3 and isinstance(reply, Push)
            write(b"%b%d\r\n" % (b">" if is_push else b"*", len(reply)))
            for each in reply:
                _encode(each, version, write)
        case dict():
            write(b"%%%d\r\n" % len(reply) if version == 3 else b"*%d\r\n" % (2 * len(reply)))
            for key, value in reply.items():
                _encode(key, version, write)
                _encode(value, version, write)
        case frozenset():
            write(b"%b%d\r\n" % (b"~" if version == 3 else b"*", len(reply)))
            for each in sorted(reply):
                _encode(each, version, write)
        case CommandError():
            write(encode_error(reply.text))
        case _ if reply is NIL_ARRAY:
            write(b"_\r\n" if version == 3 else b"*-1\r\n")
        case _ if reply is NO_REPLY:
            pass
        case _:
            raise TypeError(f"no RESP for a {type(reply).__name__}")


def format_double(number: float) -> bytes:
    """Return a number as RESP3 spells it; in RESP2 it is a string."""
    if math.isinf(number):
        return b"inf" if number > 0 else b"-inf"
    return b"%d" % number if number.is_integer() and abs(number) < 1e17 else repr(number).encode()
