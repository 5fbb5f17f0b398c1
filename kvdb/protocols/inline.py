"""Inline commands: a line of words, as a person types it in telnet.

Words are separated by white space; quotes work as in Redis: inside "..." a backslash escapes
(`\\n`, `\\r`, `\\t`, `\\b`, `\\a`, `\\xHH`, anything else stands for itself), inside '...' only
`\\'` does. A closing quote must end its word.
"""

from __future__ import annotations

import re

from kvdb.errors import NotOurProtocol, ProtocolError
from kvdb.resp.buffer import InputBuffer, LineTooLong
from kvdb.resp.limits import MAX_LINE

_SPACES = re.compile(rb"[ \t\n\v\f\r\0]+")
_PLAIN = re.compile(rb"[^ \t\n\r\0\"']+")  # as in Redis, \v and \f do not end a word
_WORD_END = b" \t\n\r\0"
_DOUBLE_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"(?=[ \t\n\v\f\r\0]|\Z)', re.DOTALL)
_SINGLE_QUOTED = re.compile(rb"'((?:[^'\\]|\\'|\\(?!'))*)'(?=[ \t\n\v\f\r\0]|\Z)", re.DOTALL)
_ESCAPE = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
_HTTP_REQUEST = re.compile(rb"(?:GET|HEAD|PUT|DELETE|OPTIONS|PATCH|CONNECT) \S+ HTTP/1\.[01]\s*\Z")
_ESCAPED = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


def split_words(line: bytes) -> list[bytes]:
    """Split a line into words. Raises ProtocolError where a quote is not closed as it must be."""
    words: list[bytes] = []
    position = 0
    while True:
        if spaces := _SPACES.match(line, position):
            position = spaces.end()
        if position == len(line):
            return words
        word = b""
        while position < len(line) and line[position] not in _WORD_END:
            if match := _PLAIN.match(line, position):
                word += match[0]
            elif match := _DOUBLE_QUOTED.match(line, position):
                word += _ESCAPE.sub(_unescape, match[1])
            elif match := _SINGLE_QUOTED.match(line, position):
                word += match[1].replace(b"\\'", b"'")
            else:
                raise ProtocolError("unbalanced quotes in request")
            position = match.end()
        words.append(word)


def _unescape(match: re.Match[bytes]) -> bytes:
    escaped = match[1]
    if len(escaped) == 3:
        return bytes([int(escaped[1:], 16)])
    return _ESCAPED.get(escaped, escaped)


def next_inline_request(buffer: InputBuffer, longest: int = MAX_LINE) -> list[bytes] | None:
    """Return the words of the next line, or None until it is whole.

    Raises NotOurProtocol if a browser or another HTTP client is talking: at `POST` and `Host:`,
    as Redis does, and at any HTTP request line.
    """
    try:
        line = buffer.take_line(longest)
    except LineTooLong:
        raise ProtocolError("too big inline request") from None
    if line is None:
        return None
    if _HTTP_REQUEST.match(line):
        raise NotOurProtocol("an HTTP request on the main port")
    words = split_words(line.rstrip(b"\r\n"))
    if words and words[0].lower() in (b"post", b"host:"):
        raise NotOurProtocol("an HTTP request on the main port")
    return words
