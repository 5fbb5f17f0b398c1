"""Errors: the expectations are what lua5.1 says of the same programs."""

from __future__ import annotations

from tests import lua_error_programs, lua_syntax_programs
from tests.lua_case import LuaTest


class ErrorTest(LuaTest):
    def test_an_error_names_the_variable_and_the_type_of_its_value(self) -> None:
        self.assert_outcomes(*lua_error_programs.MESSAGES)

    def test_an_error_tells_the_line_where_it_happened(self) -> None:
        self.assert_outcomes(*lua_error_programs.PLACES)

    def test_a_text_that_is_no_program_is_refused_in_the_words_of_lua(self) -> None:
        self.assert_outcomes(*lua_syntax_programs.SYNTAX)

    def test_no_attribute_and_no_builtin_of_python_can_be_reached(self) -> None:
        for name in ("__builtins__", "__class__", "G", "Table", "type_", "v1", "rest"):
            message = (
                f"user_script:1: Script attempted to access nonexistent global variable '{name}'"
            )
            self.assert_outcomes((f"return {name}", f'error "{message}"'))
        self.assert_outcomes(
            ("return ('').__class__, ({}).get, ({}).__dict__", "ok nil nil nil"),
            ("return rawget(string, '__class__')", "ok nil"),
            (
                "return string.rep.__globals__",
                "error \"user_script:1: attempt to index field 'rep' (a function value)\"",
            ),
            (
                "return cjson.null.shown",
                "error \"user_script:1: attempt to index field 'null' (a userdata value)\"",
            ),
        )

    def test_nothing_of_the_library_can_be_changed(self) -> None:
        refused = 'error "user_script:1: Attempt to modify a readonly table"'
        self.assert_outcomes(
            ("x = 1", refused),
            ("string.x = 1", refused),
            ("table.insert(string, 1)", refused),
            ("getmetatable('').__index = nil", refused),
            ("return pcall(rawset, _G, 'x', 1)", 'ok false "Attempt to modify a readonly table"'),
            ("return pcall(setmetatable, _G, {})", 'ok false "Attempt to modify a readonly table"'),
        )
