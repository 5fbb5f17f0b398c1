"""Makes Python code objects of a program, by way of Python's own syntax trees.

    x = x + 1       x = x + 1.0 if type(x) is float else add(x, 1.0)
    t.n             t.get(b"n") if type(t) is Table else index(t, b"n")

What is nearly always so (numbers are added, tables indexed) stands in the code itself; all else
is a call of a method of `Runtime`. No text of the program becomes Python text: names are
numbered, strings are constants.

Each function stands for itself, at the top: its outer variables are the parameters of a function
that makes it. One that is never assigned to again is handed in as a value, any other in a box
(a list of one element), which all functions that use it share.

Every node's line is the line in the program, and the column of those that can fail is the number
of a place: what errors call the operands there. So a traceback tells all that Lua's errors say.
"""

from __future__ import annotations

import ast
import types
from collections.abc import Callable

from kvdb.lua import syntax
from kvdb.lua.errors import Place
from kvdb.lua.expression_code import ExpressionCode, is_sound_key, name_of
from kvdb.lua.lexer import LuaSyntaxError
from kvdb.lua.syntax import Block, Expression, FunctionBody, Local
from kvdb.lua.trees import (
    all_of,
    box,
    call_of,
    define,
    is_simple,
    is_type,
    load,
    placed,
    set_to,
    store,
    variable,
)


class CodeGenerator:
    """Makes the code of one program."""

    def __init__(self, chunk: str) -> None:
        self._chunk = chunk
        self.places = [Place()]
        self._functions: list[ast.stmt] = []

    def generate(self, program: FunctionBody) -> types.CodeType:
        """Return code that defines `main` (and all functions of the program).

        Raises LuaSyntaxError if the program is too deep for Python's compiler.
        """
        try:
            self._functions.append(_Function(self, program).define("main"))
            module = ast.Module(self._functions, [])
            return compile(ast.fix_missing_locations(module), f"<lua {self._chunk}>", "exec")
        except (RecursionError, MemoryError, SyntaxError):  # SyntaxError: more than 20 loops
            text = f"{self._chunk}:{program.line}: function or expression too complex"
            raise LuaSyntaxError(text) from None

    def place(self, place: Place) -> int:
        """Return the number of a place."""
        self.places.append(place)
        return len(self.places) - 1

    def maker(self, body: FunctionBody) -> str:
        """Add what makes a function of its outer variables; return its name."""
        name = f"make_{self.place(Place())}"
        inner = _Function(self, body).define("function")
        parameters = [ast.arg(variable(local)) for local in body.upvalues]
        result: list[ast.stmt] = [inner, ast.Return(load("function"))]
        self._functions.append(
            define(name, ast.arguments([], parameters, None, [], [], None, []), result)
        )
        return name


class _Function(ExpressionCode):
    """Makes the code of one function."""

    def __init__(self, program: CodeGenerator, body: FunctionBody) -> None:
        super().__init__(program)
        self._body = body

    def define(self, name: str) -> ast.stmt:
        body = self._body
        parameters = [ast.arg(variable(local)) for local in body.parameters]
        defaults: list[ast.expr] = [ast.Constant(None) for _ in parameters]
        rest = ast.arg("rest")
        code: list[ast.stmt] = []
        if body.calls:  # it may call itself without end: somebody has to look
            code.append(ast.Expr(call_of("next", load("ticks"))))
        for local in body.parameters:
            if local.is_boxed:
                code.append(
                    set_to(store(variable(local)), ast.List([load(variable(local))], ast.Load()))
                )
        if body.rest and body.rest.is_used:
            table = ast.Constant(None) if body.uses_rest else call_of("rest_table", load("rest"))
            code += self._declaration(body.rest)(table)
        code += self._block(body.body)
        code.append(ast.Return(load("NOTHING")))
        arguments = ast.arguments(parameters, [], rest, [], [], None, defaults)
        function = define(name, arguments, code)
        function.lineno = function.end_lineno = body.line
        function.col_offset = function.end_col_offset = 0
        return function

    # --- statements --------------------------------------------------------------------------

    def _block(self, block: Block) -> list[ast.stmt]:
        code: list[ast.stmt] = []
        for statement in block:
            for each in self._statement(statement):
                code.append(placed(each, statement.line))
        return code or [ast.Pass()]

    def _statement(self, statement: syntax.Statement) -> list[ast.stmt]:
        match statement:
            case syntax.LocalDeclaration(_, locals, values):
                return self._assign_all([self._declaration(local) for local in locals], values)
            case syntax.Assignment(_, targets, values):
                return self._assignment(targets, values)
            case syntax.CallStatement(_, call):
                return [ast.Expr(self._many(call))]
            case syntax.Do(_, body):
                return self._block(body)
            case syntax.While(_, condition, body):
                end = ast.If(ast.UnaryOp(ast.Not(), self._test(condition)), [ast.Break()], [])
                return [self._endless([placed(end, statement.line), *self._block(body)])]
            case syntax.Repeat(_, body, condition):
                return self._repeat(body, condition)
            case syntax.If(_, branches, otherwise):
                return self._if(branches, otherwise)
            case syntax.NumericFor():
                return self._numeric_for(statement)
            case syntax.GenericFor(_, variables, values, body):
                return self._generic_for(variables, values, body)
            case syntax.LocalFunction(_, local, function):
                value = self._value(function)
                if not local.is_boxed:
                    return [set_to(store(variable(local)), value)]
                empty = set_to(store(variable(local)), ast.List([ast.Constant(None)], ast.Load()))
                return [empty, set_to(box(local, ast.Store()), value)]
            case syntax.Return(_, values):
                return [ast.Return(self._results(values))]
            case syntax.Break():
                return [ast.Break()]
        raise AssertionError(statement)

    def _declaration(self, local: Local) -> Callable[[ast.expr], list[ast.stmt]]:
        """Return what gives a new variable its first value."""

        def assign(value: ast.expr) -> list[ast.stmt]:
            value = ast.List([value], ast.Load()) if local.is_boxed else value
            return [set_to(store(variable(local)), value)]

        return assign

    def _assign_all(
        self, targets: list[Callable[[ast.expr], list[ast.stmt]]], values: list[Expression]
    ) -> list[ast.stmt]:
        """Assign to several targets at once: no value sees what was assigned to another target."""
        if len(targets) == 1 and len(values) == 1:
            return targets[0](self._value(values[0]))
        if not values:
            return [each for target in targets for each in target(ast.Constant(None))]  # locals
        code: list[ast.stmt] = []
        is_open = isinstance(values[-1], syntax.MULTIPLE) and len(targets) >= len(values)
        names = [self._temporary() for _ in targets]
        for place, value in enumerate(values[: len(values) - is_open]):
            if place < len(names):
                code.append(set_to(store(names[place]), self._value(value)))
            else:
                code.append(ast.Expr(self._value(value)))
        missing = names[len(values) - is_open :]
        if is_open:
            rest = call_of("adjust", ast.Constant(len(missing)), *self._arguments([values[-1]]))
            code.append(set_to(ast.Tuple([store(name) for name in missing], ast.Store()), rest))
        else:
            code += [set_to(store(name), ast.Constant(None)) for name in missing]
        for target, name in reversed(list(zip(targets, names, strict=True))):
            code += target(load(name))  # the last one first, as Lua does it
        return code

    def _assignment(self, targets: list[Expression], values: list[Expression]) -> list[ast.stmt]:
        code: list[ast.stmt] = []
        assigners = [self._assigner(target, code) for target in targets]
        return code + self._assign_all(assigners, values)

    def _assigner(
        self, target: Expression, before: list[ast.stmt]
    ) -> Callable[[ast.expr], list[ast.stmt]]:
        """Return what assigns to an expression; `before` is what has to be done before that."""
        match target:
            case syntax.LocalName(_, local):
                place = box(local, ast.Store()) if local.is_boxed else store(variable(local))
                return lambda value: [set_to(place, value)]
            case syntax.GlobalName(line, name):
                return lambda value: [
                    ast.Expr(self._helper("set_global", [ast.Constant(name), value], line))
                ]
            case syntax.Index(line, table, key):
                return self._table_assigner(line, table, key, before)
        raise AssertionError(target)

    def _table_assigner(
        self, line: int, table: Expression, key: Expression, before: list[ast.stmt]
    ) -> Callable[[ast.expr], list[ast.stmt]]:
        where, at = self._kept(table, before), self._kept(key, before)
        is_sound = is_sound_key(key, at)

        def assign(value: ast.expr) -> list[ast.stmt]:
            code: list[ast.stmt] = []
            if not is_simple(value):
                name = self._temporary()
                code.append(set_to(store(name), value))
                value = load(name)
            set_ = ast.Expr(self._helper("set_index", [where, at, value], line, name_of(table)))
            if not is_sound:
                return [*code, set_]
            is_plain: list[ast.expr] = [is_type(where, "Table")]
            if not isinstance(value, ast.Constant):
                is_plain.append(ast.Compare(value, [ast.IsNot()], [ast.Constant(None)]))
            elif value.value is None:
                return [*code, set_]
            put = set_to(ast.Subscript(where, at, ast.Store()), value)
            return [*code, ast.If(all_of(is_plain), [put], [set_])]

        return assign

    def _kept(self, expression: Expression, before: list[ast.stmt]) -> ast.expr:
        """Return an expression whose value is known already, and does not change."""
        value = self._value(expression)
        if isinstance(value, ast.Constant):
            return value
        if isinstance(expression, syntax.LocalName) and not expression.local.is_reassigned:
            return value
        name = self._temporary()
        before.append(placed(set_to(store(name), value), expression.line))
        return load(name)

    @staticmethod
    def _endless(body: list[ast.stmt]) -> ast.stmt:
        """A loop without end, but for somebody who looks now and then how long it takes."""
        return ast.For(store("_"), call_of("forever"), body, [])

    def _repeat(self, body: Block, condition: Expression) -> list[ast.stmt]:
        code = self._block(body)
        if not isinstance(body[-1] if body else None, syntax.Return | syntax.Break):
            end = ast.If(self._test(condition), [ast.Break()], [])
            code.append(placed(end, condition.line))
        return [self._endless(code)]

    def _if(self, branches: list[tuple[Expression, Block]], otherwise: Block) -> list[ast.stmt]:
        code = self._block(otherwise) if otherwise else []
        for condition, body in reversed(branches):
            branch = ast.If(self._test(condition), self._block(body), code)
            code = [placed(branch, condition.line)]
        return code

    def _numeric_for(self, loop: syntax.NumericFor) -> list[ast.stmt]:
        step = loop.step or syntax.Constant(loop.line, 1.0)
        values = [self._value(each) for each in (loop.start, loop.stop, step)]
        return [self._for([loop.variable], self._helper("counting", values, loop.line), loop.body)]

    def _generic_for(
        self, variables: list[Local], values: list[Expression], body: Block
    ) -> list[ast.stmt]:
        arguments = self._arguments(values)
        names = ast.Constant(len(variables))
        line, place = values[0].line, self._program.place(Place((), "iterator '(for generator)'"))
        turns = placed(call_of("iterate", names, *arguments), line, place)
        # Which of the two an error in a turn belongs to depends on the version of Python.
        return [placed(self._for(variables, turns, body), line, place)]

    def _for(self, variables: list[Local], values: ast.expr, body: Block) -> ast.stmt:
        boxes: list[ast.stmt] = []
        for local in variables:
            if local.is_boxed:
                boxes.append(
                    set_to(store(variable(local)), ast.List([load(variable(local))], ast.Load()))
                )
        names: list[ast.expr] = [store(variable(local)) for local in variables]
        target = names[0] if len(names) == 1 else ast.Tuple(names, ast.Store())
        return ast.For(target, values, [*boxes, *self._block(body)], [])

    def _results(self, values: list[Expression]) -> ast.expr:
        """Return what a function returns for these values."""
        if not values:
            return load("NOTHING")
        if len(values) == 1:
            only = values[0]
            if isinstance(only, syntax.Vararg):
                return call_of("results", load("rest"))
            if isinstance(only, syntax.MULTIPLE):
                return self._many(only, is_tail=True)
            return self._value(only)
        if isinstance(values[-1], syntax.MULTIPLE):
            return call_of("results", ast.Tuple(self._arguments(values), ast.Load()))
        return call_of("Results", ast.Tuple(self._arguments(values), ast.Load()))
