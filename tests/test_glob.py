from __future__ import annotations

import random
import unittest

from kvdb.errors import CommandError
from kvdb.glob import MAX_PATTERN, compile_glob


def plainly_matches(pattern: bytes, name: bytes) -> bool:
    """Redis's glob in its shortest form: try everything."""
    if not pattern:
        return not name
    if pattern[:1] == b"*":
        return any(plainly_matches(pattern[1:], name[skip:]) for skip in range(len(name) + 1))
    if not name:
        return False
    if pattern[:1] == b"[":
        members, rest = read_class(pattern[1:].removeprefix(b"^"))
        return (name[0] in members) is (pattern[1:2] != b"^") and plainly_matches(rest, name[1:])
    if pattern[:1] == b"\\" and len(pattern) > 1:
        pattern = pattern[1:]
    elif pattern[:1] == b"?":
        pattern = name[:1] + pattern[1:]
    return pattern[0] == name[0] and plainly_matches(pattern[1:], name[1:])


def read_class(pattern: bytes) -> tuple[set[int], bytes]:
    """Return the bytes of a class and what follows it, if anything closes it."""
    members: set[int] = set()
    while pattern and pattern[:1] != b"]":
        if pattern[:1] == b"\\" and len(pattern) > 1:
            members.add(pattern[1])
            pattern = pattern[2:]
        elif len(pattern) > 2 and pattern[1:2] == b"-":
            members |= set(range(min(pattern[0], pattern[2]), max(pattern[0], pattern[2]) + 1))
            pattern = pattern[3:]
        else:
            members.add(pattern[0])
            pattern = pattern[1:]
    return members, pattern[1:]


class GlobTest(unittest.TestCase):
    def assert_matches(self, pattern: bytes, *names: bytes, but_not: tuple[bytes, ...]) -> None:
        matches = compile_glob(pattern)
        for name in (*names, *but_not):
            with self.subTest(pattern=pattern, name=name):
                self.assertEqual(bool(matches(name)), name in names)
                self.assertEqual(plainly_matches(pattern, name), name in names)

    def test_a_plain_pattern_matches_only_itself(self) -> None:
        self.assert_matches(b"abc", b"abc", but_not=(b"", b"ab", b"abcd", b"xabc", b"ABC"))
        self.assert_matches(b"", b"", but_not=(b"a",))
        self.assert_matches(b"a.c+(x|y)$", b"a.c+(x|y)$", but_not=(b"abcc(x", b"abccx"))

    def test_a_star_matches_any_run_of_bytes(self) -> None:
        self.assert_matches(b"*", b"", b"a", b"a\nb", b"\xff\x00", but_not=())
        self.assert_matches(b"a*c", b"ac", b"abc", b"acbc", but_not=(b"a", b"acb", b"xac"))
        self.assert_matches(b"a**b*", b"ab", b"axbx", but_not=(b"ax", b"ba"))
        self.assert_matches(b"*ab*ab", b"abab", b"aabxab", but_not=(b"ab", b"aab", b"ababa"))

    def test_a_question_mark_matches_one_byte(self) -> None:
        self.assert_matches(b"a?c", b"abc", b"a\nc", b"a\xffc", but_not=(b"ac", b"abbc"))
        self.assert_matches(b"?*?", b"ab", b"abc", but_not=(b"", b"a"))

    def test_a_class_matches_one_of_its_bytes(self) -> None:
        self.assert_matches(b"h[ae]llo", b"hallo", b"hello", but_not=(b"hillo", b"hllo", b"haello"))
        self.assert_matches(b"[.*?[]", b".", b"*", b"?", b"[", but_not=(b"a", b""))

    def test_a_caret_negates_a_class_and_an_exclamation_mark_does_not(self) -> None:
        self.assert_matches(b"[^a]", b"b", b"^", b"\n", but_not=(b"a", b"", b"bb"))
        self.assert_matches(b"[!a]", b"!", b"a", but_not=(b"b",))
        self.assert_matches(b"[a^]", b"a", b"^", but_not=(b"b",))

    def test_a_range_may_be_written_backwards(self) -> None:
        for pattern in (b"[b-d]", b"[d-b]"):
            self.assert_matches(pattern, b"b", b"c", b"d", but_not=(b"a", b"e", b"-"))
        self.assert_matches(b"[^x-z0]", b"a", but_not=(b"x", b"y", b"z", b"0"))
        self.assert_matches(b"[\x00-\xff]", b"\n", b"\\", b"]", b"^", but_not=(b"",))

    def test_a_hyphen_before_the_bracket_begins_a_range_as_in_redis(self) -> None:
        self.assert_matches(b"[a-]", b"a", b"]", b"_", but_not=(b"-", b"b"))
        self.assert_matches(b"[-a]", b"-", b"a", but_not=(b"b",))

    def test_an_escaped_byte_stands_for_itself(self) -> None:
        self.assert_matches(rb"a\*b", b"a*b", but_not=(b"axb", rb"a\b"))
        self.assert_matches(rb"\?\[\\\a", rb"?[\a", but_not=(rb"x[\a",))
        self.assert_matches(rb"[\]\-x]", b"]", b"-", b"x", but_not=(b"\\",))

    def test_a_backslash_at_the_end_stands_for_itself(self) -> None:
        self.assert_matches(b"a\\", b"a\\", but_not=(b"a",))
        self.assert_matches(b"[a\\", b"a", b"\\", but_not=(b"b",))

    def test_an_unclosed_class_ends_with_the_pattern(self) -> None:
        self.assert_matches(b"x[abc", b"xa", b"xc", but_not=(b"x", b"x[abc", b"xd"))
        self.assert_matches(b"[^a", b"b", but_not=(b"a", b""))

    def test_an_empty_class_matches_nothing_and_its_negation_anything(self) -> None:
        for pattern in (b"[]", b"[", b"*[]*"):
            self.assert_matches(pattern, but_not=(b"", b"a", b"[]", b"["))
        self.assert_matches(b"[^]", b"a", b"\n", but_not=(b"",))

    def test_a_newline_is_a_byte_like_any_other(self) -> None:
        self.assert_matches(b"a", b"a", but_not=(b"a\n", b"\na"))
        self.assert_matches(b"*a\n", b"a\n", b"\n\na\n", but_not=(b"a", b"a\n\n"))

    def test_many_stars_do_not_multiply_the_work(self) -> None:
        """A matcher that tries all places would not end within a lifetime."""
        matches = compile_glob(b"*a" * 50 + b"b")
        self.assertFalse(matches(b"a" * 20_000))
        self.assertTrue(matches(b"a" * 20_000 + b"b"))
        self.assertFalse(compile_glob(b"*a*?" * 50 + b"b*c")(b"ab" * 5_000))

    def test_a_very_long_pattern_is_refused(self) -> None:
        self.assertTrue(compile_glob(b"a" * MAX_PATTERN)(b"a" * MAX_PATTERN))
        with self.assertRaisesRegex(CommandError, "^ERR pattern is longer"):
            compile_glob(b"a" * (MAX_PATTERN + 1))

    def test_random_patterns_match_what_a_plain_matcher_says(self) -> None:
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        found = 0
        for _ in range(15_000):
            pattern = bytes(chance.choices(b"aabbc*?[]^-\\", k=chance.randrange(9)))
            name = bytes(chance.choices(b"aabbc]-\\", k=chance.randrange(6)))
            expected = plainly_matches(pattern, name)
            found += expected
            self.assertEqual(bool(compile_glob(pattern)(name)), expected, (seed, pattern, name))
        self.assertGreater(found, 500)
