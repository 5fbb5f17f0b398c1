"""Random Lua programs. They end: no loop is long, and no function calls itself."""

from __future__ import annotations

import random
from typing import Final

_NAMES: Final = "abcdxyz"
_FIELDS: Final = "xynv"
_CONSTANTS: Final = (
    "0", "1", "2", "3", "-1", "0.5", "10", "1e3", "'5'", "'0x10'", "255", ".25", "1e15", "2^53",
    "'a'", "'b'", "''", "'abc'", "'10'", "[[x]]", "'a b'", "'%d'", "'%a+'", "nil", "true", "false",
)  # fmt: skip
_BINARY: Final = (
    "+", "-", "*", "/", "%", "^", "..", "==", "~=", "<", ">", "<=", ">=", "and", "or",
)  # fmt: skip
_CALLS: Final = (
    "F({}, {})", "(G({}))", "H({}, {})", "tostring({})", "tonumber({})", "type({})", "S:get()",
    "S:add({})", "S:nope({})", "select('#', {}, {})", "(pcall(F, {}))", "math.floor({})",
    "math.max({}, {})", "string.sub({}, {}, 2)", "string.rep({}, 2)", "string.find({}, {})",
    "string.format('%d %s', {}, {})", "string.gsub({}, 'a', {})", "string.byte({})",
    "table.concat({{{}, {}}}, {})", "unpack({{{}, {}}})", "rawget({{{}, a = {}}}, {})",
    "rawequal({}, {})", "next({{{}}})", "setmetatable({{{}}}, M)", "pcall(error, {}, 1)",
    "(function(a, b) return b, a end)({})", "{}.n", "a[{}]", "x.y[{}]", "c.x", "y.y.n", "#({})",
    "not {}", "-({})", "({})", "{{{}, x = {}, [{}] = {}}}",
)  # fmt: skip
_STATEMENTS: Final = (
    "local {name} = {value}", "local {name}, {other} = {value}, {value}",
    "local {name}, {other} = {value}", "{name} = {value}", "{name}.{field} = {value}",
    "{name}[{value}] = {value}", "{name}, {other}.{field} = {value}, {value}", "R({value})",
    "if {value} then {block} elseif {value} then {block} else {block} end",
    "for {name} = 1, 3 do {block} end", "for {name} = 3, 1, -0.5 do {block} break end",
    "for {name}, {other} in ipairs({{{value}, {value}}}) do {block} end", "do {block} end",
    "do local n = 0 repeat n = n + 1 {block} until n > 2 or {value} end",
    "do local n = 0 while n < 3 and {value} do n = n + 1 {block} end end",
    "do local function f(a, ...) {block} return ... end R(pcall(f, {value})) end",
)  # fmt: skip
_BEGIN: Final = """local log = {} local function R(...)
  if #log < 60 then log[#log + 1] = tostring((...)):gsub('0x%x+', '?') end
end
local M = {__index = function(t, k) return k end, __add = function() return 'add' end,
  __concat = function() return 'cat', 1 end, __eq = function() return true end,
  __lt = function() return nil end, __call = function(self, v) return v, 2 end}
local S = {v = 1} function S:get() return self.v end
function S:add(k) self.v = self.v + k return self.v, k end
local function F(a, b) return b, a end local function G() end local function H(...) return ... end
local a, b, c, d, x = 1, 'two', {1, 2, x = 3}, nil, {y = {n = 1}}
local y, z = 2.5, setmetatable({}, M)
local ok, e = pcall(function(...)
"""
_END: Final = "\nend, 5, 'v') R(e) R(a) R(b) R(y) return ok, e, table.concat(log, ' ')"


class RandomProgram:
    """The program of one seed."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def text(self) -> str:
        return _BEGIN + self._block(depth=3) + _END

    def _block(self, depth: int) -> str:
        return " ".join(self._statement(depth - 1) + ";" for _ in range(self._chance.randint(1, 4)))

    def _statement(self, depth: int) -> str:
        forms = _STATEMENTS if depth > 0 else _STATEMENTS[:8]
        return self._filled(self._chance.choice(forms), depth)

    def _filled(self, form: str, depth: int) -> str:
        for word in ("{block}", "{value}"):
            while word in form:
                made = self._block(depth) if word == "{block}" else self._value(3)
                form = form.replace(word, made.replace("{", "\0").replace("}", "\1"), 1)
        name, other = self._chance.sample(_NAMES, 2)
        form = form.format(name=name, other=other, field=self._chance.choice(_FIELDS))
        return form.replace("\0", "{").replace("\1", "}")

    def _value(self, depth: int) -> str:
        kind = self._chance.random()
        if depth <= 0 or kind < 0.4:
            return self._chance.choice(_CONSTANTS if kind < 0.2 else (*_NAMES, "(...)"))
        if kind < 0.7:
            operator = self._chance.choice(_BINARY)
            return f"{self._value(depth - 1)} {operator} {self._value(depth - 1)}"
        form = self._chance.choice(_CALLS)
        values = (self._value(depth - 1) for _ in range(4))
        return form.replace("{}.n", "({}).n").format(*values)
