"""Makes a program of tokens: a recursive descent, as Lua's own. Names are resolved on the way."""

from __future__ import annotations

from typing import Final

from kvdb.lua import syntax
from kvdb.lua.expressions import ExpressionParser
from kvdb.lua.lexer import END
from kvdb.lua.names import MOST_LEVELS, Scope
from kvdb.lua.syntax import Block, Expression, FunctionBody, Local, Statement

_BLOCK_ENDS: Final = frozenset(("else", "elseif", "end", "until", END))


def parse(source: bytes, chunk: str) -> FunctionBody:
    """Return a program as the function that it is. Raises LuaSyntaxError, with Lua's message."""
    return _Parser(source, chunk).program()


class _Parser(ExpressionParser):
    """Parses statements."""

    def program(self) -> FunctionBody:
        function = FunctionBody(None, 1, is_vararg=True)
        self._scope = Scope(function, None)
        function.body = self._block()
        if self._token.kind != END:
            raise self._error(f"'{END}' expected")
        return function

    def _block(self) -> Block:
        """Parse statements up to the end of a block; its variables end with it."""
        visible = len(self._scope.visible)
        body = self._statements()
        del self._scope.visible[visible:]
        return body

    def _statements(self) -> Block:
        body: Block = []
        with self._level():
            while self._token.kind not in _BLOCK_ENDS:
                is_last = self._token.kind in ("return", "break")
                body.append(self._statement())
                self._take(";")
                if is_last:
                    break
        return body

    def _loop_body(self) -> Block:
        self._scope.loops += 1
        body = self._block()
        self._scope.loops -= 1
        return body

    def _statement(self) -> Statement:
        line = self._token.line
        match self._token.kind:
            case "if":
                return self._if(line)
            case "while":
                self._advance()
                condition = self._expression()
                self._expect("do")
                body = self._loop_body()
                self._expect_end("end", "while", line)
                return syntax.While(line, condition, body)
            case "do":
                self._advance()
                body = self._block()
                self._expect_end("end", "do", line)
                return syntax.Do(line, body)
            case "for":
                return self._for(line)
            case "repeat":
                return self._repeat(line)
            case "function":
                return self._function_statement(line)
            case "local":
                self._advance()
                return self._local_function(line) if self._take("function") else self._local(line)
            case "return":
                self._advance()
                is_empty = self._token.kind in (*_BLOCK_ENDS, ";")
                return syntax.Return(line, [] if is_empty else self._expressions())
            case "break":
                self._advance()
                if not self._scope.loops:
                    raise self._error("no loop to break")
                return syntax.Break(line)
            case _:
                return self._expression_statement(line)

    def _if(self, line: int) -> Statement:
        branches: list[tuple[Expression, Block]] = []
        while not branches or self._token.kind == "elseif":
            self._advance()
            condition = self._expression()
            self._expect("then")
            branches.append((condition, self._block()))
        otherwise = self._block() if self._take("else") else []
        self._expect_end("end", "if", line)
        return syntax.If(line, branches, otherwise)

    def _repeat(self, line: int) -> Statement:
        self._advance()
        visible = len(self._scope.visible)
        self._scope.loops += 1
        body = self._statements()
        self._scope.loops -= 1
        self._expect_end("until", "repeat", line)
        condition = self._expression()  # it sees the variables of the body
        del self._scope.visible[visible:]
        return syntax.Repeat(line, body, condition)

    def _for(self, line: int) -> Statement:
        self._advance()
        names = [self._name()]
        if self._take("="):
            start = self._expression()
            self._expect(",")
            stop = self._expression()
            step = self._expression() if self._take(",") else None
            variable = self._new_local(names[0])
            variable.is_counter = True
            prepared = self._token.line
            body = self._for_body([variable], line)
            return syntax.NumericFor(prepared, variable, start, stop, step, body)
        if self._token.kind not in (",", "in"):
            raise self._error("'=' or 'in' expected")
        while self._take(","):
            names.append(self._name())
        self._expect("in")
        values = self._expressions()
        variables = [self._new_local(name) for name in names]
        return syntax.GenericFor(line, variables, values, self._for_body(variables, line))

    def _for_body(self, variables: list[Local], line: int) -> Block:
        self._expect("do")
        visible = len(self._scope.visible)
        self._declare(*variables)
        body = self._loop_body()
        del self._scope.visible[visible:]
        self._expect_end("end", "for", line)
        return body

    def _function_statement(self, line: int) -> Statement:
        self._advance()
        target = self._resolve(self._name(), line)
        is_method = False
        while not is_method and self._token.kind in (".", ":"):
            is_method = self._advance().kind == ":"
            target = syntax.Index(line, target, syntax.Constant(line, self._name()))
        function = self._function(line, is_method)
        self._note_assignment(target)
        return syntax.Assignment(line, [target], [function])

    def _local_function(self, line: int) -> Statement:
        local = self._new_local(self._name())
        self._declare(local)
        function = self._function(line)
        if local in function.body.upvalues:
            local.is_reassigned = True  # it is there before its value is
        return syntax.LocalFunction(line, local, function)

    def _local(self, line: int) -> Statement:
        locals = [self._new_local(self._name())]
        while self._take(","):
            locals.append(self._new_local(self._name()))
        values = self._expressions() if self._take("=") else []
        self._declare(*locals)
        return syntax.LocalDeclaration(line, locals, values)

    def _expression_statement(self, line: int) -> Statement:
        expression = self._primary()
        if isinstance(expression, syntax.Call | syntax.MethodCall):
            return syntax.CallStatement(line, expression)
        targets = [expression]
        while self._take(","):
            targets.append(self._primary())
            if len(targets) > MOST_LEVELS:
                raise self._error("too many variables in assignment")
        for target in targets:
            if not isinstance(target, syntax.LocalName | syntax.GlobalName | syntax.Index):
                raise self._error("syntax error")
        self._expect("=")
        values = self._expressions()
        for target in targets:
            self._note_assignment(target)
            target.line = self._last_line  # where it is carried out
        return syntax.Assignment(line, targets, values)

    @staticmethod
    def _note_assignment(target: Expression) -> None:
        if isinstance(target, syntax.LocalName):
            target.local.is_reassigned = True
