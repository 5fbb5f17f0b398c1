"""What every part of the parser needs: the token at hand, and which names mean what."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from kvdb.lua import syntax
from kvdb.lua.lexer import NAME, Lexer, LuaSyntaxError, Token
from kvdb.lua.syntax import Expression, FunctionBody, Local

MOST_LEVELS: Final = 200
"""How deep syntax may nest (LUAI_MAXCCALLS of Lua 5.1)."""

MOST_LOCALS: Final = 200
"""Local variables of a function at a time (LUAI_MAXVARS)."""

MOST_UPVALUES: Final = 60
"""Outer variables that a function may use (LUAI_MAXUPVALUES)."""


class Scope:
    """What the parser has to know of the function that it is in."""

    def __init__(self, function: FunctionBody, outer: Scope | None) -> None:
        self.function, self.outer = function, outer
        self.visible: list[Local] = []
        self.loops = 0

    def find(self, name: bytes) -> Local | None:
        for local in reversed(self.visible):
            if local.name == name:
                return local
        return None


class Names:
    """The tokens of a program, and the variables that can be seen at the token at hand."""

    def __init__(self, source: bytes, chunk: str) -> None:
        self._lexer = Lexer(source, chunk)
        self._ahead: Token | None = None
        self._levels = 0
        self._count = 0  # of locals
        self._scope: Scope
        self._last_line = 1  # of the token before this one
        self._token = self._lexer.next()

    # --- tokens ----------------------------------------------------------------------------

    def _advance(self) -> Token:
        token, self._last_line = self._token, self._token.line
        self._token, self._ahead = self._ahead or self._lexer.next(), None
        return token

    def _look_ahead(self) -> Token:
        self._ahead = self._ahead or self._lexer.next()
        return self._ahead

    def _error(self, message: str) -> LuaSyntaxError:
        return self._lexer.error(message, self._token.text)

    def _take(self, kind: str) -> bool:
        """Advance if the token is of this kind; tell whether it was."""
        if self._token.kind != kind:
            return False
        self._advance()
        return True

    def _expect(self, kind: str) -> Token:
        if self._token.kind != kind:
            raise self._error(f"'{kind}' expected")
        return self._advance()

    def _expect_end(self, kind: str, of: str, line: int) -> None:
        """Expect what closes something that began on that line."""
        if self._token.kind == kind:
            self._advance()
        elif line == self._token.line:
            raise self._error(f"'{kind}' expected")
        else:
            raise self._error(f"'{kind}' expected (to close '{of}' at line {line})")

    def _name(self) -> bytes:
        value = self._expect(NAME).value
        assert isinstance(value, bytes)
        return value

    @contextmanager
    def _level(self) -> Iterator[None]:
        self._levels += 1
        if self._levels > MOST_LEVELS:
            raise self._lexer.error("chunk has too many syntax levels")
        yield
        self._levels -= 1

    # --- names -----------------------------------------------------------------------------

    def _new_local(self, name: bytes) -> Local:
        """Return a variable that is not visible yet."""
        self._count += 1
        return Local(name, self._count, self._scope.function)

    def _declare(self, *locals: Local) -> None:
        """Let variables be seen from here on."""
        self._scope.visible += locals
        if len(self._scope.visible) > MOST_LOCALS:
            raise self._limit(self._scope.function, MOST_LOCALS, "local variables")

    def _limit(self, function: FunctionBody, most: int, what: str) -> LuaSyntaxError:
        where = f"function at line {function.line}" if function.outer else "main function"
        return self._lexer.error(f"{where} has more than {most} {what}")

    def _resolve(self, name: bytes, line: int) -> Expression:
        scope: Scope | None = self._scope
        between: list[FunctionBody] = []
        while scope is not None:
            local = scope.find(name)
            if local is not None:
                for function in between:
                    if local not in function.upvalues:
                        function.upvalues.append(local)
                        if len(function.upvalues) > MOST_UPVALUES:
                            raise self._limit(function, MOST_UPVALUES, "upvalues")
                local.is_captured = local.is_captured or bool(between)
                local.is_used = True
                return syntax.LocalName(line, local, bool(between))
            between.append(scope.function)
            scope = scope.outer
        return syntax.GlobalName(line, name)
