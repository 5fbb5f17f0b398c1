"""What a program consists of: expressions and statements, with every name resolved."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from kvdb.lua.values import Value


@dataclass(eq=False, slots=True)
class Local:
    """A local variable of a function: one declaration, wherever it is used."""

    name: bytes
    number: int
    """Of its own in the whole program."""
    owner: FunctionBody
    is_captured: bool = False
    """An inner function uses it."""
    is_reassigned: bool = False
    """Something is assigned to it after its declaration."""
    is_used: bool = False
    """Something in the program names it."""
    is_counter: bool = False
    """It counts in a numeric `for`: it is a number."""

    @property
    def is_boxed(self) -> bool:
        """Whether it needs a place of its own: several functions see it change."""
        return self.is_captured and self.is_reassigned


@dataclass(eq=False, slots=True)
class FunctionBody:
    """A function: its parameters, what it does, and the outer variables that it uses."""

    outer: FunctionBody | None
    line: int
    parameters: list[Local] = field(default_factory=list)
    is_vararg: bool = False
    rest: Local | None = None
    """`arg`, the table of the other arguments that Lua 5.0 had in place of `...`."""
    uses_rest: bool = False
    """It has `...` somewhere: then `arg` is nil."""
    body: list[Statement] = field(default_factory=list)
    upvalues: list[Local] = field(default_factory=list)
    calls: bool = False
    """It calls something, so that it may call itself."""


@dataclass(slots=True)
class Expression:
    """What has a value."""

    line: int


@dataclass(slots=True)
class Constant(Expression):
    """nil, true, false, a number or a string."""

    value: Value


@dataclass(slots=True)
class Vararg(Expression):
    """`...`"""


@dataclass(slots=True)
class Function(Expression):
    """A function that is made where it stands."""

    body: FunctionBody


@dataclass(slots=True)
class LocalName(Expression):
    """A local variable, of this function or of one around it."""

    local: Local
    is_upvalue: bool


@dataclass(slots=True)
class GlobalName(Expression):
    """A global variable."""

    name: bytes


@dataclass(slots=True)
class Index(Expression):
    """`table[key]` and `table.key`."""

    table: Expression
    key: Expression


@dataclass(slots=True)
class Call(Expression):
    """`function(arguments)`"""

    function: Expression
    arguments: list[Expression]


@dataclass(slots=True)
class MethodCall(Expression):
    """`object:name(arguments)`"""

    object: Expression
    name: bytes
    arguments: list[Expression]


@dataclass(slots=True)
class Binary(Expression):
    """Arithmetic and comparisons."""

    operator: str
    left: Expression
    right: Expression


@dataclass(slots=True)
class Concatenation(Expression):
    """a .. b .. c: from the right, as Lua does it."""

    parts: list[Expression]


@dataclass(slots=True)
class Logical(Expression):
    """`and` and `or`."""

    operator: str
    left: Expression
    right: Expression


@dataclass(slots=True)
class Unary(Expression):
    """`not`, `-` and `#`."""

    operator: str
    operand: Expression


@dataclass(slots=True)
class Parenthesized(Expression):
    """What is cut to one value."""

    inner: Expression


@dataclass(slots=True)
class TableConstructor(Expression):
    """`{...}`"""

    items: list[tuple[Expression | None, Expression]]
    """Without a key, a value has its number among those that have none."""


MULTIPLE: Final = (Call, MethodCall, Vararg)
"""Expressions that may have any number of values where they are the last of a list."""


@dataclass(slots=True)
class Statement:
    """What is carried out."""

    line: int


Block = list[Statement]


@dataclass(slots=True)
class LocalDeclaration(Statement):
    """`local names = values`"""

    locals: list[Local]
    values: list[Expression]


@dataclass(slots=True)
class Assignment(Statement):
    """`targets = values`"""

    targets: list[Expression]
    values: list[Expression]


@dataclass(slots=True)
class CallStatement(Statement):
    """A call whose results nobody wants."""

    call: Expression


@dataclass(slots=True)
class Do(Statement):
    """A block with variables of its own."""

    body: Block


@dataclass(slots=True)
class While(Statement):
    """`while condition do`"""

    condition: Expression
    body: Block


@dataclass(slots=True)
class Repeat(Statement):
    """`repeat ... until condition`"""

    body: Block
    condition: Expression


@dataclass(slots=True)
class If(Statement):
    """`if`, `elseif` and `else`."""

    branches: list[tuple[Expression, Block]]
    otherwise: Block


@dataclass(slots=True)
class NumericFor(Statement):
    """`for variable = start, stop, step do`"""

    variable: Local
    start: Expression
    stop: Expression
    step: Expression | None
    body: Block


@dataclass(slots=True)
class GenericFor(Statement):
    """`for variables in values do`"""

    variables: list[Local]
    values: list[Expression]
    body: Block


@dataclass(slots=True)
class LocalFunction(Statement):
    """`local function`, which the function itself can call."""

    local: Local
    function: Function


@dataclass(slots=True)
class Return(Statement):
    """`return values`"""

    values: list[Expression]


@dataclass(slots=True)
class Break(Statement):
    """`break`"""
