"""Lua's words: a source text, cut into tokens."""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from kvdb.lua.values import parse_number

KEYWORDS: Final = frozenset((
    "and", "break", "do", "else", "elseif", "end", "false", "for", "function", "if", "in", "local",
    "nil", "not", "or", "repeat", "return", "then", "true", "until", "while",
))  # fmt: skip

NAME: Final = "<name>"
NUMBER: Final = "<number>"
STRING: Final = "<string>"
END: Final = "<eof>"

_BLANK: Final = re.compile(rb"(?:[ \t\v\f]|(\r\n|\n\r|\n|\r))")
_WORD: Final = re.compile(rb"[A-Za-z_][A-Za-z0-9_]*")
_NUMERAL: Final = re.compile(rb"[0-9.]+(?:[Ee][+-]?)?[A-Za-z0-9_]*")
_SYMBOL: Final = re.compile(rb"\.\.\.|\.\.|==|~=|<=|>=|[\x00-\xff]", re.DOTALL)
_LONG_BRACKET: Final = re.compile(rb"\[(=*)\[(?:\r\n|\n\r|\n|\r)?")
_LINE_END: Final = re.compile(rb"\r\n|\n\r|\n|\r")
_PLAIN: Final = re.compile(rb"[^\\\"'\r\n]+")
_ESCAPES: Final = {
    b"a": b"\a", b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v",
}  # fmt: skip


class LuaSyntaxError(Exception):
    """The text is not Lua. Its message is Lua's, with the place."""


class Token(NamedTuple):
    """A word of the program."""

    kind: str  # NAME, NUMBER, STRING, END, or what it is itself: a keyword, a symbol
    value: bytes | float  # of a name, a number or a string
    text: str  # as errors show it
    line: int


class Lexer:
    """Cuts a text into tokens, one after the other."""

    def __init__(self, source: bytes, chunk: str) -> None:
        """`chunk` is what errors call the text."""
        self._source, self._chunk = source, chunk
        self._at = 0
        self.line = 1

    def error(self, message: str, near: str = "") -> LuaSyntaxError:
        """Return the error of this place; `near` is the token there, if it matters."""
        where = f" near '{near}'" if near else ""
        return LuaSyntaxError(f"{self._chunk}:{self.line}: {message}{where}")

    def next(self) -> Token:
        """Return the next token. Raises LuaSyntaxError."""
        self._skip_blanks()
        source, at = self._source, self._at
        if at >= len(source):
            return Token(END, b"", END, self.line)
        if found := _WORD.match(source, at):
            self._at = found.end()
            word = found[0].decode()
            return Token(word if word in KEYWORDS else NAME, found[0], word, self.line)
        byte = source[at : at + 1]
        if byte.isdigit() or (byte == b"." and source[at + 1 : at + 2].isdigit()):
            return self._numeral()
        if byte in b"\"'":
            return self._string()
        if byte == b"[" and (found := re.compile(rb"\[=*").match(source, at)):
            after = source[found.end() : found.end() + 1]
            if after == b"[":
                line = self.line
                value = self._long_string("string")
                return Token(STRING, value, _shown(source[at : self._at]), line)
            if len(found[0]) > 1:
                raise self.error("invalid long string delimiter", _shown(found[0]))
        symbol = _SYMBOL.match(source, at)
        assert symbol
        self._at = symbol.end()
        text = _shown(symbol[0])
        shown = f"char({symbol[0][0]})" if symbol[0] < b" " or symbol[0] == b"\x7f" else text
        return Token(text, b"", shown, self.line)

    def _skip_blanks(self) -> None:
        source = self._source
        while self._at < len(source):
            if found := _BLANK.match(source, self._at):
                self.line += found[1] is not None
                self._at = found.end()
            elif source.startswith(b"--", self._at):
                self._at += 2
                if _LONG_BRACKET.match(source, self._at):
                    self._long_string("comment")
                else:
                    end = _LINE_END.search(source, self._at)
                    self._at = end.start() if end else len(source)
            else:
                break

    def _numeral(self) -> Token:
        found = _NUMERAL.match(self._source, self._at)
        assert found
        self._at = found.end()
        text, value = _shown(found[0]), parse_number(found[0])
        if value is None:
            raise self.error("malformed number", text)
        return Token(NUMBER, value, text, self.line)

    def _long_string(self, what: str) -> bytes:
        """Read a string in long brackets; line ends in it become newlines."""
        source = self._source
        begin = _LONG_BRACKET.match(source, self._at)
        assert begin
        end = source.find(b"]%b]" % begin[1], begin.end())
        if end < 0:
            self.line += len(_LINE_END.findall(source, self._at))
            raise self.error(f"unfinished long {what}", END)
        text = source[begin.end() : end]
        self.line += len(_LINE_END.findall(source, self._at, end))
        self._at = end + len(begin[1]) + 2
        return _LINE_END.sub(b"\n", text)

    def _string(self) -> Token:
        source, start = self._source, self._at
        quote = source[start : start + 1]
        self._at += 1
        parts: list[bytes] = []
        while True:
            if found := _PLAIN.match(source, self._at):
                parts.append(found[0])
                self._at = found.end()
            byte = source[self._at : self._at + 1]
            if not byte:
                raise self.error("unfinished string", END)
            if byte in b"\r\n":
                raise self.error("unfinished string", _shown(quote + b"".join(parts)))
            self._at += 1
            if byte == quote:
                break
            parts.append(self._escape(quote, parts) if byte == b"\\" else byte)
        value = b"".join(parts)
        return Token(STRING, value, _shown(quote + value + quote), self.line)

    def _escape(self, quote: bytes, before: list[bytes]) -> bytes:
        """Read what follows a backslash; errors show what came before it."""
        source = self._source
        if found := _LINE_END.match(source, self._at):
            self._at = found.end()
            self.line += 1
            return b"\n"
        if found := re.compile(rb"[0-9]{1,3}").match(source, self._at):
            self._at = found.end()
            if int(found[0]) > 255:
                raise self.error("escape sequence too large", _shown(quote + b"".join(before)))
            return bytes([int(found[0])])
        byte = source[self._at : self._at + 1]
        self._at += len(byte)
        return _ESCAPES.get(byte, byte)


def _shown(text: bytes) -> str:
    """Return a part of the source for an error message."""
    return text[:80].decode("utf-8", "surrogateescape")
