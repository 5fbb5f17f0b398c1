"""The same programs to the lua5.1 binary and to kvdb: what becomes of them must be the same.

KVDB_INTEROP_SEED chooses other random programs than those of every run.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import unittest

from tests import lua_error_programs, lua_library_programs, lua_programs, lua_syntax_programs
from tests.lua_case import Interpreter
from tests.lua_generator import RandomProgram

SEED = int(os.environ.get("KVDB_INTEROP_SEED", 1))
RANDOM_PROGRAMS = 600

PEER = r"""
local function quoted(s) return (s:gsub("[^%w%p ]", function(c) return string.format("\\x%02x", c:byte()) end)) end
local function show(v, depth)
  local t = type(v)
  if t == "nil" or t == "boolean" then return tostring(v) end
  if t == "number" then return string.format("%.17g", v) end
  if t == "string" then return '"' .. quoted(v) .. '"' end
  if t == "table" then
    if depth > 4 then return "{...}" end
    local parts = {}
    for k, x in next, v do parts[#parts + 1] = "[" .. show(k, depth + 1) .. "]=" .. show(x, depth + 1) end
    table.sort(parts)
    return "{" .. table.concat(parts, ",") .. "}"
  end
  return t
end
local function outcome(ok, ...)
  local parts = {}
  for i = 1, ok and select("#", ...) or 1 do parts[i] = show((select(i, ...)), 0) end
  return (ok and "ok " or "error ") .. table.concat(parts, " ")
end
local hidden = {io=1, os=1, print=1, dofile=1, loadfile=1, require=1, module=1, package=1, debug=1, newproxy=1, setfenv=1, getfenv=1, coroutine=1}
local function environment()
  local env = {}
  for k, v in pairs(_G) do if not hidden[k] then env[k] = v end end
  env._G = env
  env.arg = nil
  local real = {}
  return setmetatable(env, {
    __index = function(_, k) error("Script attempted to access nonexistent global variable '" .. tostring(k) .. "'", 2) end,
    __newindex = function() error("Attempt to modify a readonly table", 2) end})
end
local real_loadstring, real_load, sethook = loadstring, load, debug.sethook
local setfenv = setfenv
local out = io.stdout
local base = environment()
rawset(base, "loadstring", function(...) local f, e = real_loadstring(...) if f then setfenv(f, base) return f end return f, e end)
rawset(base, "load", function(...) local f, e = real_load(...) if f then setfenv(f, base) return f end return f, e end)
while true do
  local n = io.read("*l")
  if not n then break end
  n = tonumber(n)
  local source = n > 0 and io.read(n) or ""
  io.read("*l")
  local f, e = real_loadstring(source, "=user_script")
  local result
  if not f then result = "syntax " .. quoted(e)
  else
    setfenv(f, base)
    sethook(function() error("TIMEOUT") end, "", 2000000)
    result = (function(...) sethook() return outcome(...) end)(pcall(f))
  end
  out:write(result:find("TIMEOUT") and "timeout" or result, "\n")
  out:flush()
end
"""
"""Runs programs as Redis would: globals are protected, and what Redis has not got is hidden."""


class Peer:
    """lua5.1, which gets a program after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            ["lua5.1", "-e", PEER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def outcome(self, program: str) -> str:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin
        assert stdout
        source = program.encode("latin-1")
        stdin.write(b"%d\n%b\n" % (len(source), source))
        stdin.flush()
        return stdout.readline().decode().rstrip("\n")

    def close(self) -> None:
        self._process.communicate()


@unittest.skipUnless(shutil.which("lua5.1"), "lua5.1 is not installed")
class LuaInteropTest(unittest.TestCase):
    def setUp(self) -> None:
        self.peer, self.lua = Peer(), Interpreter()
        self.addCleanup(self.peer.close)

    def assert_same(self, program: str, **where: int) -> None:
        with self.subTest(program=program, **where):
            ours, theirs = self.lua.outcome(program), self.peer.outcome(program)
            if "timeout" not in (ours, theirs) and ours != "ended timeout":
                self.assertEqual(without_addresses(ours), without_addresses(theirs))

    def test_the_written_programs(self) -> None:
        for module in (
            lua_programs, lua_library_programs, lua_error_programs, lua_syntax_programs
        ):  # fmt: skip
            for name, table in vars(module).items():
                for program, _ in table if name.isupper() else ():
                    self.assert_same(program)

    def test_random_programs(self) -> None:
        for seed in range(SEED, SEED + RANDOM_PROGRAMS):
            self.assert_same(RandomProgram(seed).text(), seed=seed)


def without_addresses(outcome: str) -> str:
    return re.sub("0x[0-9a-f]{6,}", "0x?", outcome)


if __name__ == "__main__":
    unittest.main()
