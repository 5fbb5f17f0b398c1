"""The parser of expressions."""

from __future__ import annotations

from typing import Final

from kvdb.lua import syntax
from kvdb.lua.lexer import NAME, NUMBER, STRING
from kvdb.lua.names import Names, Scope
from kvdb.lua.syntax import Block, Expression, FunctionBody
from kvdb.lua.values import is_true

_PRIORITIES: Final = {
    "or": (1, 1), "and": (2, 2),
    "<": (3, 3), ">": (3, 3), "<=": (3, 3), ">=": (3, 3), "~=": (3, 3), "==": (3, 3),
    "..": (5, 4), "+": (6, 6), "-": (6, 6), "*": (7, 7), "/": (7, 7), "%": (7, 7), "^": (10, 9),
}  # fmt: skip
"""How strongly an operator binds what is on its left and on its right."""

_UNARY_PRIORITY: Final = 8
_CONSTANTS: Final = {"nil": None, "true": True, "false": False}


class ExpressionParser(Names):
    """Parses expressions. What a function does, `_block()` has to know."""

    def _block(self) -> Block:
        """Parse the statements of a block, up to its end."""
        raise NotImplementedError

    def _expressions(self) -> list[Expression]:
        values = [self._expression()]
        while self._take(","):
            values.append(self._expression())
        return values

    def _expression(self, limit: int = 0) -> Expression:
        """Parse an expression up to an operator that binds no stronger than `limit`."""
        with self._level():
            if self._token.kind in ("not", "-", "#"):
                operator = self._advance().kind
                operand = self._expression(_UNARY_PRIORITY)
                left = _negated(self._last_line, operator, operand)
            else:
                left = self._simple()
            while (priority := _PRIORITIES.get(self._token.kind)) and priority[0] > limit:
                operator = self._advance().kind
                right = self._expression(priority[1])
                left = _combined(self._last_line, operator, left, right)
        return left

    def _simple(self) -> Expression:
        token = self._token
        match token.kind:
            case _ if token.kind in (NUMBER, STRING):
                self._advance()
                return syntax.Constant(token.line, token.value)
            case "nil" | "true" | "false":
                self._advance()
                return syntax.Constant(token.line, _CONSTANTS[token.kind])
            case "...":
                if not self._scope.function.is_vararg:
                    raise self._error("cannot use '...' outside a vararg function")
                self._advance()
                self._scope.function.uses_rest = True
                return syntax.Vararg(token.line)
            case "{":
                return self._table()
            case "function":
                self._advance()
                return self._function(token.line)
            case _:
                return self._primary()

    def _primary(self) -> Expression:
        """Parse a name, or what is in parentheses, and all that follows it: fields and calls."""
        token = self._token
        if token.kind == NAME:
            expression = self._resolve(self._name(), token.line)
        elif self._take("("):
            inner = self._expression()
            self._expect_end(")", "(", token.line)
            expression = syntax.Parenthesized(token.line, inner)
        else:
            raise self._error("unexpected symbol")
        while True:
            line = self._token.line
            match self._token.kind:
                case ".":
                    self._advance()
                    key: Expression = syntax.Constant(line, self._name())
                    expression = syntax.Index(line, expression, key)
                case "[":
                    self._advance()
                    key = self._expression()
                    self._expect("]")
                    expression = syntax.Index(line, expression, key)
                case ":":
                    self._advance()
                    name = self._name()
                    arguments = self._arguments()
                    expression = syntax.MethodCall(line, expression, name, arguments)
                case _ if self._token.kind in ("(", "{", STRING):
                    expression = syntax.Call(line, expression, self._arguments())
                case _:
                    return expression

    def _arguments(self) -> list[Expression]:
        self._scope.function.calls = True
        token = self._token
        if token.kind == STRING:
            self._advance()
            return [syntax.Constant(token.line, token.value)]
        if token.kind == "{":
            return [self._table()]
        if token.kind != "(":
            raise self._error("function arguments expected")
        if token.line != self._last_line:
            raise self._error("ambiguous syntax (function call x new statement)")
        self._advance()
        if self._take(")"):
            return []
        arguments = self._expressions()
        self._expect_end(")", "(", token.line)
        return arguments

    def _table(self) -> Expression:
        line = self._expect("{").line
        items: list[tuple[Expression | None, Expression]] = []
        while self._token.kind != "}":
            key: Expression | None = None
            if self._token.kind == NAME and self._look_ahead().kind == "=":
                key = syntax.Constant(self._token.line, self._name())
                self._expect("=")
            elif self._take("["):
                key = self._expression()
                self._expect("]")
                self._expect("=")
            items.append((key, self._expression()))
            if not (self._take(",") or self._take(";")):
                break
        self._expect_end("}", "{", line)
        return syntax.TableConstructor(line, items)

    def _function(self, line: int, is_method: bool = False) -> syntax.Function:
        """Parse a function from its parameters on."""
        body = FunctionBody(self._scope.function, line)
        self._scope = Scope(body, self._scope)
        if is_method:
            body.parameters.append(self._new_local(b"self"))
        self._expect("(")
        if self._token.kind != ")":
            self._parameters(body)
        self._declare(*body.parameters, *([body.rest] if body.rest else []))
        self._expect(")")
        body.body = self._block()
        self._expect_end("end", "function", line)
        assert self._scope.outer
        self._scope = self._scope.outer
        return syntax.Function(line, body)

    def _parameters(self, body: FunctionBody) -> None:
        while True:
            if self._take("..."):
                body.is_vararg = True
                body.rest = self._new_local(b"arg")
                return
            if self._token.kind != NAME:
                raise self._error("<name> or '...' expected")
            body.parameters.append(self._new_local(self._name()))
            if not self._take(","):
                return


def _negated(line: int, operator: str, operand: Expression) -> Expression:
    if operator == "-" and isinstance(operand, syntax.Constant) and type(operand.value) is float:
        return syntax.Constant(line, -operand.value)
    return syntax.Unary(line, operator, operand)


def _combined(line: int, operator: str, left: Expression, right: Expression) -> Expression:
    if operator in ("and", "or"):
        if isinstance(left, syntax.Constant) and (operator == "and") == is_true(left.value):
            return syntax.Parenthesized(line, right)  # as in Lua, errors call it by its name
        return syntax.Logical(line, operator, left, right)
    if operator == "..":
        parts = right.parts if isinstance(right, syntax.Concatenation) else [right]
        return syntax.Concatenation(line, [left, *parts])
    return syntax.Binary(line, operator, left, right)
