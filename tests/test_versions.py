"""Version tokens and notes: who has seen which version of a key."""

from __future__ import annotations

import unittest
from unittest import mock

from kvdb.store import Store
from kvdb.store.entry import Key
from kvdb.store.versions import MAX_TOKENS, Versions
from tests.store_case import StoreCase

NOW = 1_000_000.0


class TokensTest(unittest.TestCase):
    def setUp(self) -> None:
        self.existing: set[Key] = {b"a", (1, b"a"), b"b"}
        self.versions = Versions(NOW)

    def tearDown(self) -> None:
        self.versions.check(self.existing)

    def token(self, key: Key) -> int:
        return self.versions.token(key, key in self.existing)

    def is_current(self, key: Key, token: int) -> bool:
        return self.versions.is_current(key, token, key in self.existing)

    def test_a_key_has_one_token_until_it_is_written(self) -> None:
        token = self.token(b"a")
        self.assertEqual(self.token(b"a"), token)
        self.assertNotEqual(self.token((1, b"a")), token)
        self.assertTrue(self.is_current(b"a", token))
        self.versions.detach(b"a")
        self.assertFalse(self.is_current(b"a", token))
        self.assertGreater(self.token(b"a"), token)

    def test_tokens_grow_from_one_to_the_next(self) -> None:
        tokens = []
        for _ in range(10):
            tokens.append(self.token(b"a"))
            self.versions.detach(b"a")
        self.assertEqual(tokens, sorted(set(tokens)))

    def test_a_later_start_has_larger_tokens_than_an_earlier_one_can_have_given(self) -> None:
        for later in (1.0, 5.0, 86_400.0):
            for _ in range(20):
                earlier = Versions(NOW).token(b"a", True)
                self.assertGreater(Versions(NOW + later).token(b"a", True), earlier)

    def test_two_starts_in_one_second_hardly_ever_share_a_token(self) -> None:
        self.assertGreater(len({Versions(NOW).token(b"a", True) for _ in range(50)}), 40)

    def test_a_token_fits_into_the_64_bits_that_clients_have_for_it(self) -> None:
        self.assertLess(Versions(32_503_680_000.0).token(b"a", True), 2**63)  # in the year 3000
        self.assertGreater(Versions(-5.0).token(b"a", True), 0)  # a clock before 1970

    def test_of_a_missing_key_there_is_a_token_only_while_somebody_watches_it(self) -> None:
        self.assertEqual(self.token(b"missing"), 0)
        self.versions.add_watcher(b"missing")
        token = self.token(b"missing")
        self.assertNotEqual(token, 0)
        self.versions.add_watcher(b"missing")
        self.versions.remove_watcher(b"missing")
        self.assertTrue(self.is_current(b"missing", token))
        self.versions.remove_watcher(b"missing")
        self.assertFalse(self.is_current(b"missing", token))
        self.assertEqual(self.token(b"missing"), 0)

    def test_nothing_is_current_that_was_not_given(self) -> None:
        for key in (b"a", b"missing"):
            self.assertFalse(self.is_current(key, 0))
            self.assertFalse(self.is_current(key, 1))

    def test_the_oldest_tokens_are_forgotten_and_count_as_changed(self) -> None:
        with mock.patch("kvdb.store.versions.MAX_TOKENS", 3):
            self.existing = {b"%d" % number for number in range(5)}
            keys = sorted(self.existing)  # type: ignore[type-var]
            tokens = {key: self.token(key) for key in keys}
            current = [self.is_current(key, tokens[key]) for key in keys]
            self.assertEqual(current, [False, False, True, True, True])
            self.assertGreater(self.token(keys[0]), tokens[keys[-1]])
            self.assertFalse(self.is_current(keys[0], tokens[keys[0]]))

    def test_no_more_tokens_are_remembered_than_the_limit(self) -> None:
        self.existing = {b"%d" % number for number in range(MAX_TOKENS + 10)}
        for key in self.existing:
            self.token(key)
        self.assertEqual(len(self.versions._tokens), MAX_TOKENS)

    def test_a_write_has_nothing_to_do_while_nobody_asks(self) -> None:
        self.assertTrue(self.versions.idle)
        self.token(b"missing")
        self.assertTrue(self.versions.idle)
        for ask in (
            lambda: self.token(b"a"),
            lambda: self.versions.set_note(b"a", "note"),
        ):
            ask()
            self.assertFalse(self.versions.idle)
            self.versions.detach(b"b")
            self.assertFalse(self.versions.idle)
            self.versions.detach(b"a")
            self.assertTrue(self.versions.idle)

    def test_a_flush_takes_tokens_and_notes_of_all_that_existed(self) -> None:
        self.versions.add_watcher(b"missing")
        absent, token = self.token(b"missing"), self.token(b"a")
        self.versions.set_note(b"a", "note")
        self.versions.detach_existing()
        self.assertFalse(self.is_current(b"a", token))
        self.assertEqual(self.versions.notes, {})
        self.assertTrue(self.is_current(b"missing", absent))

    def test_check_notices_what_belongs_to_nobody(self) -> None:
        def version_of_a_missing_key(versions: Versions) -> None:
            versions.token(b"missing", True)

        def note_on_a_missing_key(versions: Versions) -> None:
            versions.set_note(b"missing", "note")

        def version_nobody_holds(versions: Versions) -> None:
            versions.idle = False
            versions._absent[b"missing"] = 1

        def absent_key_that_is_there(versions: Versions) -> None:
            versions.add_watcher(b"a")
            versions.token(b"a", False)

        def kept_though_idle(versions: Versions) -> None:
            versions.token(b"a", True)
            versions.idle = True

        def no_watchers(versions: Versions) -> None:
            versions._watchers[b"a"] = 0

        for damage in (
            version_of_a_missing_key, note_on_a_missing_key, version_nobody_holds,
            absent_key_that_is_there, kept_though_idle, no_watchers,
        ):  # fmt: skip
            with self.subTest(damage.__name__):
                versions = Versions(NOW)
                versions.check(self.existing)
                damage(versions)
                with self.assertRaises(AssertionError):
                    versions.check(self.existing)


class ForgottenTest(StoreCase):
    """What the store makes of a token that was forgotten."""

    def test_whoever_holds_a_forgotten_token_is_told_that_the_key_has_changed(self) -> None:
        with mock.patch("kvdb.store.versions.MAX_TOKENS", 2):
            self.fill(b"a", b"b", b"c")
            watched = self.store.watch(b"a")
            seen = self.store.version(b"b")
            self.assertTrue(self.store.unchanged(b"a", watched))
            self.store.version(b"c")
            self.assertFalse(self.store.unchanged(b"a", watched))
            self.assertTrue(self.store.unchanged(b"b", seen))
            self.store.unwatch(b"a")

    def test_tokens_grow_over_restarts(self) -> None:
        tokens = []
        for _ in range(3):
            self.store = Store(0, clock=self.clock)
            self.fill(b"k")
            tokens.append(self.store.version(b"k"))
            self.clock.now += 1
        self.assertEqual(tokens, sorted(set(tokens)))

    def test_a_token_of_another_run_is_not_current(self) -> None:
        self.fill(b"k")
        token = self.store.version(b"k")
        self.clock.now += 1
        restarted = Store(0, clock=self.clock)
        restarted.restore([(b"k", entry)] if (entry := self.store.entry(b"k")) else [])
        self.assertFalse(restarted.unchanged(b"k", token))
        restarted.version(b"k")
        self.assertFalse(restarted.unchanged(b"k", token))
