"""The language: the expectations are what lua5.1 makes of the same programs."""

from __future__ import annotations

import warnings

from tests import lua_programs
from tests.lua_case import Interpreter, LuaTest


class LanguageTest(LuaTest):
    def test_numbers_are_read_computed_and_shown_as_in_c(self) -> None:
        self.assert_outcomes(*lua_programs.NUMBERS)

    def test_expressions_have_the_values_of_lua(self) -> None:
        self.assert_outcomes(*lua_programs.EXPRESSIONS)

    def test_a_function_takes_and_returns_any_number_of_values(self) -> None:
        self.assert_outcomes(*lua_programs.FUNCTIONS)

    def test_tables_hold_any_value_under_any_key(self) -> None:
        self.assert_outcomes(*lua_programs.TABLES)

    def test_loops_turn_as_often_and_with_variables_of_their_own(self) -> None:
        self.assert_outcomes(*lua_programs.LOOPS)

    def test_a_metatable_decides_what_operations_do(self) -> None:
        self.assert_outcomes(*lua_programs.METATABLES)

    def test_the_length_of_a_table_without_a_first_element_is_zero(self) -> None:
        self.assert_outcomes(
            ("return #{x = 1, [2] = 2}, #{1, x = 2, y = 3, [4] = 4}", "ok 0 1"),
        )

    def test_the_targets_of_an_assignment_get_their_values_from_the_last_to_the_first(self) -> None:
        self.assert_outcomes(
            ("local a; a, a = 1, 2 return a", "ok 1"),
            ("local t = {} t[1], t[1], t[1] = 1, 2 return t[1]", "ok 1"),
        )

    def test_the_table_arg_has_the_other_arguments_unless_the_dots_are_used(self) -> None:
        self.assert_outcomes(
            ("local function f(a, ...) return arg.n, arg[1] end return f(1, 2, 3)", "ok 2 2"),
            ("local function f(...) local x = ... return arg end return f(1)", "ok nil"),
        )

    def test_python_has_nothing_to_warn_of(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            self.assert_outcomes(
                ("return (1 + 2) == nil, (1 + 2) == true, not 1 == 2", "ok false false false"),
                ("local t = {a = 1} return t[('a')], t[(1)], (nil) == nil", "ok 1 nil true"),
                ("(1 + 2)()", 'error "user_script:1: attempt to call a number value"'),
                ("(not nil)()", 'error "user_script:1: attempt to call a boolean value"'),
            )


class EndlessTest(LuaTest):
    """Programs that do not end by themselves."""

    def setUp(self) -> None:
        self.lua = Interpreter(longest=0.0)

    def assert_is_ended(self, *programs: str) -> None:
        for program in programs:
            with self.subTest(program=program):
                self.assertEqual(self.lua.outcome(program), "ended timeout")

    def test_a_loop_is_ended(self) -> None:
        self.assert_is_ended(
            "while true do end",
            "repeat until false",
            "for i = 1, math.huge do end",
            "for i = 1, 1, 0 do end",
            "while true do pcall(error) end",
            "for x in function() return 1 end do end",
        )

    def test_functions_that_call_each_other_are_ended(self) -> None:
        self.assert_is_ended(
            "local function f() pcall(f) pcall(f) end f()",
            "local f = loadstring('local g, n = ... if n > 0 then g(g, n - 1) g(g, n - 1) end') "
            "f(f, 100)",
        )

    def test_handlers_of_metatables_that_call_each_other_are_ended(self) -> None:
        self.assert_is_ended(
            "local t = setmetatable({}, {__index = function(t, k) "
            "if k > 100 then return nil end return t[k + 1] or t[k + 1] end}) return t[1]",
            "local mt = {} mt.__add = function(a, b) if b > 100 then return 0 end "
            "return (a + (b + 1)) and (a + (b + 1)) end return setmetatable({}, mt) + 1",
        )

    def test_a_program_that_was_ended_can_run_again(self) -> None:
        program = "local function f() pcall(f) pcall(f) end f()"
        self.assert_is_ended(program, program)
        self.lua = Interpreter()
        self.assert_outcomes(("return 1", "ok 1"))

    def test_the_library_lets_somebody_look_now_and_then(self) -> None:
        many = "local t = {} for i = 1, 3000 do t[i] = i end "
        long = "local s = string.rep('a', 3000) "
        self.assert_is_ended(
            "table.insert({}, -1e15, 1)",
            many + "while true do table.insert(t, 1, 0) end",
            many + "while true do table.remove(t, 1) end",
            many + "while true do next(t, 3000) end",
            long + "return s:find(string.rep('a-', 30) .. 'b')",
            long + "while true do s:upper() end",
            "while true do string.rep('x', 1e6) end",
        )

    def test_a_string_has_an_end(self) -> None:
        self.lua = Interpreter()
        s = "local s = string.rep('x', 4e7) "
        for program in (
            "return string.rep('x', 1e9)",
            s + "return s .. s",
            s + "return table.concat({s, s})",
            s + "return string.format('%s%s', s, s)",
            s + "return s:gsub('.*', '%0%0')",
            s + "return cmsgpack.pack(s, s)",
            s + "return cjson.encode({s, s})",
        ):
            with self.subTest(program=program):
                self.assertEqual(self.lua.outcome(program), "ended not enough memory")


class NestingTest(LuaTest):
    """Syntax that nests too deep, and recursion."""

    def test_what_nests_too_deep_is_refused_as_a_syntax_error(self) -> None:
        for begin, middle, end in (
            ("(", "1", ")"), ("{", "", "}"), ("- ", "1", ""), ("not ", "1", ""), ("1..", "1", ""),
            ("1+", "1", ""), ("1^", "1", ""), ("f(", "", ")"), ("x and ", "1", ""),
            ("function() return ", "1", " end"),
        ):  # fmt: skip
            program = "return " + begin * 20_000 + middle + end * 20_000
            with self.subTest(begin=begin):
                self.assertRegex(self.lua.outcome(program), "^syntax user_script:1: ")

    def test_blocks_may_nest_as_deep_as_in_lua(self) -> None:
        self.assert_outcomes(
            ("do " * 150 + "end " * 150 + "return 1", "ok 1"),
            ("if true then " * 90 + "return 1 " + "end " * 90, "ok 1"),
        )

    def test_endless_recursion_overflows_the_stack(self) -> None:
        self.assertRegex(self.lua.outcome("local function f() return f() + 1 end f()"), "overflow")
