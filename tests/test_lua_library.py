"""The library: the expectations are what lua5.1, or Redis, makes of the same programs."""

from __future__ import annotations

from unittest import mock

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

    def test_what_is_made_of_many_pieces_is_looked_at_seldom(self) -> None:
        begin = "local t = {} for i = 1, 3e4 do t[i] = i end "
        with mock.patch.object(self.lua.meter, "_on_look") as look:
            for end in (
                "#cjson.encode(t)", "#table.concat(t)", "#cmsgpack.pack(t)",
                "#(('x'):rep(2e5):gsub('x', 'yy'))",
            ):  # fmt: skip
                look.reset_mock()
                self.assertTrue(self.lua.outcome(begin + "return " + end).startswith("ok "), end)
                self.assertLess(look.call_count, 100, end)
