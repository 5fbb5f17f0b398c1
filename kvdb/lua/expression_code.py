"""Makes Python expressions of a program's: see `codegen`."""

from __future__ import annotations

import ast
from collections.abc import Sequence
from typing import Final, Protocol

from kvdb.lua import syntax
from kvdb.lua.errors import Place
from kvdb.lua.syntax import Expression, FunctionBody
from kvdb.lua.trees import (
    all_of,
    box,
    call_of,
    is_simple,
    is_type,
    load,
    placed,
    store,
    truth,
    variable,
)
from kvdb.lua.values import Value

ARITHMETIC: Final[dict[str, tuple[str, type[ast.operator] | None]]] = {
    "+": ("add", ast.Add), "-": ("subtract", ast.Sub), "*": ("multiply", ast.Mult),
    "/": ("divide", ast.Div), "%": ("modulo", None), "^": ("power", None),
}  # fmt: skip
ORDER: Final[dict[str, tuple[str, type[ast.cmpop]]]] = {
    "<": ("less", ast.Lt), "<=": ("less_or_equal", ast.LtE),
    ">": ("less", ast.Gt), ">=": ("less_or_equal", ast.GtE),
}  # fmt: skip


class Program(Protocol):
    """The whole that a function's code is a part of."""

    def place(self, place: Place) -> int:
        """Return the number of a place: what errors have to know of it."""

    def maker(self, body: FunctionBody) -> str:
        """Return the name of what makes a function of its outer variables."""


class ExpressionCode:
    """Makes the code of the expressions of one function."""

    def __init__(self, program: Program) -> None:
        self._program = program
        self._temporaries = 0

    def _temporary(self) -> str:
        self._temporaries += 1
        return f"t{self._temporaries}"

    def _named_value(self, expression: Expression) -> tuple[ast.expr, ast.expr]:
        """Return an expression that has a value, and another one that has it once more."""
        value = self._value(expression)
        if is_simple(value):
            return value, value
        name = self._temporary()
        return ast.NamedExpr(store(name), value), load(name)

    def _not_constant(self, value: ast.expr) -> ast.expr:
        """Return an expression that Python does not warn of where no constant is of use."""
        if isinstance(value, ast.Name | ast.Call | ast.IfExp | ast.Subscript):
            return value
        return ast.NamedExpr(store(self._temporary()), value)

    def _helper(
        self, name: str, arguments: Sequence[ast.expr], line: int, *operands: str
    ) -> ast.expr:
        """Return a call of a function of the runtime that may fail."""
        return placed(call_of(name, *arguments), line, self._program.place(Place(operands)))

    def _value(self, expression: Expression) -> ast.expr:
        """Return the code of an expression, cut to one value."""
        return placed(self._value_anywhere(expression), expression.line)

    def _value_anywhere(self, expression: Expression) -> ast.expr:
        match expression:
            case syntax.Constant(_, value):
                return ast.Constant(value)
            case syntax.LocalName(_, local):
                return box(local, ast.Load()) if local.is_boxed else load(variable(local))
            case syntax.GlobalName(line, name):
                place = self._program.place(Place())
                return placed(ast.Subscript(load("G"), ast.Constant(name), ast.Load()), line, place)
            case syntax.Parenthesized(_, inner):
                return self._value(inner)
            case syntax.Index():
                return self._index(expression)
            case syntax.Call() | syntax.MethodCall():
                result = self._temporary()
                call = ast.NamedExpr(store(result), self._many(expression))
                only = call_of("first", load(result))
                return ast.IfExp(is_type(call, "Results"), only, load(result))
            case syntax.Vararg():
                first = ast.Subscript(load("rest"), ast.Constant(0), ast.Load())
                return ast.IfExp(load("rest"), first, ast.Constant(None))
            case syntax.Function(_, body):
                return call_of(self._program.maker(body), *map(load, map(variable, body.upvalues)))
            case syntax.Logical():
                return self._logical(expression)
            case syntax.Concatenation(line, parts):
                values = [self._value(each) for each in parts]
                return self._helper("concatenate", values, line, *map(name_of, parts))
            case syntax.Unary(line, operator, operand):
                return self._unary(line, operator, operand)
            case syntax.TableConstructor():
                return self._table(expression)
            case syntax.Binary(_, operator):
                if operator in ARITHMETIC:
                    return self._arithmetic(expression)
                return self._order(expression) if operator in ORDER else self._equality(expression)
        raise AssertionError(expression)

    def _many(self, expression: Expression, is_tail: bool = False) -> ast.expr:
        """Return the code of a call, with all the values that it returns."""
        match expression:
            case syntax.Call(line, function, arguments):
                place = self._program.place(Place((), name_of(function), is_tail))
                called = self._not_constant(self._value(function))
                call = ast.Call(called, self._arguments(arguments), [])
                return placed(call, line, place)
            case syntax.MethodCall(line, object_, name, arguments):
                value, again = self._named_value(object_)
                method = self._get(value, again, ast.Constant(name), line, name_of(object_), True)
                place = self._program.place(Place((), f"method '{name.decode()}'", is_tail))
                return placed(
                    ast.Call(method, [again, *self._arguments(arguments)], []), line, place
                )
        raise AssertionError(expression)

    def _arguments(self, expressions: list[Expression]) -> list[ast.expr]:
        """Return the code of a list of values, of which the last may be several."""
        values = [self._value(each) for each in expressions]
        if expressions:
            match expressions[-1]:
                case syntax.Vararg():
                    values[-1] = ast.Starred(load("rest"), ast.Load())
                case syntax.Call() | syntax.MethodCall():
                    result = self._many(expressions[-1])
                    values[-1] = ast.Starred(call_of("expand", result), ast.Load())
        return values

    def _index(self, expression: syntax.Index) -> ast.expr:
        table, key = expression.table, expression.key
        value, again = self._named_value(table)
        at = self._value(key)
        return self._get(value, again, at, expression.line, name_of(table), is_sound_key(key, at))

    def _get(
        self, value: ast.expr, again: ast.expr, key: ast.expr, line: int, name: str, is_sound: bool
    ) -> ast.expr:
        """Return the code that indexes something; a key that is_sound is surely no boolean."""
        if not is_sound and not is_simple(key):
            return self._helper("index", [value, key], line, name)
        slowly = self._helper("index", [again, key], line, name)
        quickly = ast.Call(ast.Attribute(again, "get", ast.Load()), [key], [])
        conditions = [is_type(value, "Table")]
        if not is_sound:
            for boolean in (True, False):
                conditions.append(ast.Compare(key, [ast.IsNot()], [ast.Constant(boolean)]))
        return ast.IfExp(all_of(conditions), quickly, slowly)

    def _operands(
        self, left: Expression, right: Expression
    ) -> tuple[ast.expr | None, ast.expr, ast.expr]:
        """Return what tells whether both are numbers (None: surely), and the two themselves."""
        sides = [(each, *self._named_value(each)) for each in (left, right)]
        tests = [is_type(value, "float") for each, value, _ in sides if not is_number(each)]
        (_, left_value, left_again), (_, right_value, right_again) = sides
        if not tests:
            return None, left_value, right_value
        known = [value for each, value, _ in sides if is_number(each) and not is_simple(value)]
        if known:  # it has to be computed all the same
            tests.append(ast.Compare(known[0], [ast.IsNot()], [ast.Constant(None)]))
            if known[0] is left_value:
                tests.reverse()
        test = tests[0]
        if len(tests) == 2:
            # Not `and`: the second has to be computed, whatever the first is.
            test = (
                all_of(tests)
                if is_simple(right_value)
                else ast.BinOp(tests[0], ast.BitAnd(), tests[1])
            )
        return test, left_again, right_again

    def _arithmetic(self, expression: syntax.Binary) -> ast.expr:
        name, operator = ARITHMETIC[expression.operator]
        left, right, line = expression.left, expression.right, expression.line
        if operator is None:
            values = [self._value(left), self._value(right)]
            return self._helper(name, values, line, name_of(left), name_of(right))
        test, left_value, right_value = self._operands(left, right)
        if isinstance(operator(), ast.Div) and not (
            isinstance(right_value, ast.Constant) and right_value.value
        ):
            if test is None:
                return self._helper(name, [left_value, right_value], line)
            test = ast.BoolOp(ast.And(), [test, right_value])
        quickly = ast.BinOp(left_value, operator(), right_value)
        if test is None:
            return quickly
        slowly = self._helper(name, [left_value, right_value], line, name_of(left), name_of(right))
        return ast.IfExp(test, quickly, slowly)

    def _order(self, expression: syntax.Binary) -> ast.expr:
        name, operator = ORDER[expression.operator]
        test, left, right = self._operands(expression.left, expression.right)
        quickly = ast.Compare(left, [operator()], [right])
        if test is None:
            return quickly
        # a > b is b < a.
        values = [right, left] if ">" in expression.operator else [left, right]
        return ast.IfExp(test, quickly, self._helper(name, values, expression.line))

    def _equality(self, expression: syntax.Binary) -> ast.expr:
        is_equal = expression.operator == "=="
        for one, other in (
            (expression.left, expression.right), (expression.right, expression.left)
        ):  # fmt: skip
            if isinstance(one, syntax.Constant):
                return self._equality_with(one.value, self._value(other), is_equal)
        left, left_again = self._named_value(expression.left)
        right, right_again = self._named_value(expression.right)
        # The same type as well: to Python, true is the number 1.
        same = ast.Compare(call_of("type", left_again), [ast.Is()], [call_of("type", right_again)])
        both = all_of([ast.Compare(left, [ast.Eq()], [right]), same])
        return both if is_equal else ast.UnaryOp(ast.Not(), both)

    def _equality_with(self, constant: Value, value: ast.expr, is_equal: bool) -> ast.expr:
        if isinstance(value, ast.Constant):
            same = type(value.value) is type(constant) and value.value == constant
            return ast.Constant(same is is_equal)
        if constant is None or type(constant) is bool:
            operator = ast.Is() if is_equal else ast.IsNot()
            return ast.Compare(self._not_constant(value), [operator], [ast.Constant(constant)])
        if type(constant) is float and constant in (0.0, 1.0):  # to Python, also False and True
            is_same = call_of("is_number", value, ast.Constant(constant))
            return is_same if is_equal else ast.UnaryOp(ast.Not(), is_same)
        return ast.Compare(value, [ast.Eq() if is_equal else ast.NotEq()], [ast.Constant(constant)])

    def _logical(self, expression: syntax.Logical) -> ast.expr:
        left, right = expression.left, self._value(expression.right)
        if is_boolean(left):
            test, is_or = self._test(left), expression.operator == "or"
            known = ast.Constant(is_or)
            return ast.IfExp(test, known, right) if is_or else ast.IfExp(test, right, known)
        value, again = self._named_value(left)
        test = truth(value, again)
        if expression.operator == "or":
            return ast.IfExp(test, again, right)
        return ast.IfExp(test, right, again)

    def _unary(self, line: int, operator: str, operand: Expression) -> ast.expr:
        if operator == "not":
            return ast.UnaryOp(ast.Not(), self._test(operand))
        if operator == "#":
            return self._helper("length", [self._value(operand)], line, name_of(operand))
        value, again = self._named_value(operand)
        negative = ast.UnaryOp(ast.USub(), again)
        if is_number(operand):
            return ast.UnaryOp(ast.USub(), value)
        slowly = self._helper("negate", [again], line, name_of(operand))
        return ast.IfExp(is_type(value, "float"), negative, slowly)

    def _test(self, expression: Expression) -> ast.expr:
        """Return code whose value is, to Python, whether a condition holds."""
        match expression:
            case syntax.Parenthesized(_, inner) if not isinstance(inner, syntax.MULTIPLE):
                return self._test(inner)
            case syntax.Constant(_, value):
                return ast.Constant(value is not None and value is not False)
            case syntax.Unary(_, "not", operand):
                return placed(ast.UnaryOp(ast.Not(), self._test(operand)), expression.line)
            case syntax.Logical(_, operator, left, right):
                kind = ast.And() if operator == "and" else ast.Or()
                return placed(
                    ast.BoolOp(kind, [self._test(left), self._test(right)]), expression.line
                )
            case _ if is_boolean(expression):
                return self._value(expression)
        return placed(truth(*self._named_value(expression)), expression.line)

    def _table(self, expression: syntax.TableConstructor) -> ast.expr:
        items = expression.items
        if not items:
            return call_of("Table")
        if all(key is None for key, _ in items):
            return call_of("table_of", *self._arguments([value for _, value in items]))
        pairs: list[ast.expr] = []
        for place, (key, value) in enumerate(items):
            at = ast.Constant(None) if key is None else self._value(key)
            if key is None and place == len(items) - 1:
                values = self._arguments([value])
                pairs += [ast.Constant(None), ast.Tuple(values, ast.Load())]
            else:
                pairs += [
                    ast.Constant(key is not None),
                    ast.Tuple([at, self._value(value)], ast.Load()),
                ]
        return self._helper("construct", pairs, expression.line)


# --- what is known of expressions -------------------------------------------------------------


def is_number(expression: Expression) -> bool:
    """Tell whether the value is surely a number."""
    match expression:
        case syntax.Constant(_, value):
            return type(value) is float
        case syntax.LocalName(_, local):
            return local.is_counter and not local.is_reassigned
        case syntax.Parenthesized(_, inner):
            return is_number(inner)
        case syntax.Unary(_, "-", operand):
            return is_number(operand)
        case syntax.Unary(_, "#", _):
            return False
        case syntax.Binary(_, "+" | "-" | "*", left, right):
            return is_number(left) and is_number(right)
    return False


def is_sound_key(expression: Expression, code: ast.expr) -> bool:
    """Tell whether a key is surely neither nil nor NaN nor a boolean."""
    return is_number(expression) or (isinstance(code, ast.Constant) and type(code.value) is bytes)


def is_boolean(expression: Expression) -> bool:
    """Tell whether the value is surely true or false."""
    match expression:
        case syntax.Constant(_, value):
            return type(value) is bool
        case syntax.Unary(_, "not", _):
            return True
        case syntax.Binary(_, operator):
            return operator not in ARITHMETIC
        case syntax.Parenthesized(_, inner):
            return is_boolean(inner)
    return False


def name_of(expression: Expression) -> str:
    """Return what errors call an expression; empty if it has no name."""
    match expression:
        case syntax.LocalName(_, local, is_upvalue):
            return f"{'upvalue' if is_upvalue else 'local'} '{local.name.decode()}'"
        case syntax.GlobalName(_, name):
            return f"global '{name.decode()}'"
        case syntax.Index(_, _, syntax.Constant(_, bytes() as name)):
            return f"field '{name.decode('utf-8', 'surrogateescape')}'"
        case syntax.Index():
            return "field '?'"
        case syntax.Parenthesized(_, inner):
            return name_of(inner)
    return ""
