"""Python's syntax trees: the few kinds of them that generated code consists of."""

from __future__ import annotations

import ast
from typing import TypeVar

from kvdb.lua.syntax import Local

Node = TypeVar("Node", ast.expr, ast.stmt)


def placed(node: Node, line: int, place: int = 0) -> Node:
    """Say where in the program a node comes from, unless that is known."""
    if not hasattr(node, "lineno"):
        node.lineno = node.end_lineno = line
        node.col_offset = node.end_col_offset = place
    return node


def variable(local: Local) -> str:
    """Return the name of a variable of the program."""
    return f"v{local.number}"


def load(name: str) -> ast.expr:
    """Return the value of a name."""
    return ast.Name(name, ast.Load())


def store(name: str) -> ast.Name:
    """Return a name that gets a value."""
    return ast.Name(name, ast.Store())


def box(local: Local, context: ast.expr_context) -> ast.expr:
    """Return what is in the box of a variable."""
    return ast.Subscript(load(variable(local)), ast.Constant(0), context)


def call_of(name: str, *arguments: ast.expr) -> ast.expr:
    """Return a call of a function by its name."""
    return ast.Call(load(name), list(arguments), [])


def set_to(target: ast.expr, value: ast.expr) -> ast.stmt:
    """Return an assignment."""
    return ast.Assign([target], value)


def is_simple(value: ast.expr) -> bool:
    """Tell whether an expression may be used twice: it costs nothing, and stays as it is."""
    return isinstance(value, ast.Name | ast.Constant)


def is_type(value: ast.expr, name: str) -> ast.expr:
    """Return whether a value is exactly of this type."""
    return ast.Compare(call_of("type", value), [ast.Is()], [load(name)])


def all_of(conditions: list[ast.expr]) -> ast.expr:
    """Return whether all of these hold."""
    return conditions[0] if len(conditions) == 1 else ast.BoolOp(ast.And(), conditions)


def truth(value: ast.expr, again: ast.expr) -> ast.expr:
    """Return whether a value counts as true; `again` is what has it once more."""
    if isinstance(value, ast.Constant):
        return ast.Constant(value.value is not None and value.value is not False)
    return all_of([
        ast.Compare(value, [ast.IsNot()], [ast.Constant(None)]),
        ast.Compare(again, [ast.IsNot()], [ast.Constant(False)]),
    ])  # fmt: skip


def define(name: str, arguments: ast.arguments, body: list[ast.stmt]) -> ast.FunctionDef:
    """Return the definition of a function."""
    function = ast.FunctionDef(name, arguments, body, [])
    function.type_params = []  # type: ignore[attr-defined]  # wanted from Python 3.12 on
    return function
