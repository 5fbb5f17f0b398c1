"""The library: the expectations are what lua5.1, or Redis, makes of the same programs."""

from __future__ import annotations

from tests import lua_library_programs
from tests.lua_case import LuaTest


class LibraryTest(LuaTest):
    def test_strings_are_turned_into_numbers_and_back(self) -> None:
        self.assert_outcomes(*lua_library_programs.NUMBERS)

    def test_functions_return_what_they_do_in_lua(self) -> None:
        self.assert_outcomes(*lua_library_programs.FUNCTIONS)

    def test_wrong_arguments_are_refused_in_the_same_words(self) -> None:
        self.assert_outcomes(*lua_library_programs.REFUSALS)

    def test_string_format_writes_as_printf_does(self) -> None:
        self.assert_outcomes(*lua_library_programs.FORMATS)

    def test_patterns_match_as_in_lua(self) -> None:
        self.assert_outcomes(*lua_library_programs.PATTERNS)

    def test_next_also_finds_what_was_put_in_on_the_way(self) -> None:
        self.assert_outcomes(
            ("local t = {a = 1} local k = next(t) t.b = 2 return k, next(t, k)", 'ok "a" "b" 2'),
            ("local t = {1, 2} t[next(t)] = nil return next(t, 1)", "ok 2 2"),
            ("local t = {1, 2} local k = next(t) t[k] = nil return next(t, k)", "ok 2 2"),
        )
