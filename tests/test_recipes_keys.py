from __future__ import annotations

import datetime
import decimal
import enum
import os
import subprocess
import sys
import unittest
import uuid
import zoneinfo

from kvdb.client.recipes.keys import text_of
from tests.test_recipes_cached import CachedCase


class Colour(enum.Enum):
    RED = 1


class KeyTest(CachedCase):
    def test_a_key_tells_the_function_and_its_arguments(self) -> None:
        load = self.cached()
        name = "cached:tests.test_recipes_cached.CachedCase.cached.<locals>.load"
        self.assertEqual(
            load.key_of(1, more=[{"b": 1, "a": None}]), f"{name}(1, [{{:'a': None, 'b': 1}}])"
        )
        self.assertEqual(len(load.key_of(1, "x" * 1000)), len(name) + 2 + 64)
        load(1)
        self.assertEqual(self.db.keys(), [load.key_of(1)])

    def test_a_key_may_be_a_format_string_or_a_function(self) -> None:
        self.assertEqual(self.cached(key="user:{id}:{more[0]}").key_of(1, "x"), "cached:user:1:x")
        self.assertEqual(self.cached(key=lambda id, more: f"{id}{more}").key_of(1, 2), "cached:12")
        with self.assertRaisesRegex(TypeError, "has to return a str, not a int"):
            self.cached(key=lambda id: id)(1)

    def test_methods_have_keys_by_what_their_object_says(self) -> None:
        calls = self.calls

        class User:
            id = 7

            @self.db.cached(ttl=60, key="user:{self.id}")
            def load(self) -> list[int]:
                calls.append(self.id)
                return [self.id]

            @self.db.cached(ttl=60)
            def refused(self) -> None: ...

        user = User()
        self.assertEqual([user.load(), user.load()], [[7], [7]])
        self.assertEqual(calls, [7])
        self.assertTrue(User.load.evict(user))
        with self.assertRaisesRegex(TypeError, r"User as an argument .* give it a key="):
            user.refused()

    def test_different_arguments_have_different_texts(self) -> None:
        utc = zoneinfo.ZoneInfo("UTC")
        noon = datetime.datetime(2024, 1, 1, 12)
        values = (
            None, True, False, 0, 1, 1.0, "1", b"1", decimal.Decimal(1), [1], (1,), {1}, {1: 1}, [],
            (), {}, [[1], 2], [[1, 2]], "a', 'b", ["a", "b"], Colour.RED, noon, noon.date(),
            noon.replace(tzinfo=utc), noon.replace(tzinfo=datetime.UTC), noon.time(),
            datetime.timedelta(1), uuid.UUID(int=1), "Colour.RED",
        )  # fmt: skip
        self.assertEqual(len({text_of(value) for value in values}), len(values))

    def test_equal_sets_and_dicts_have_equal_texts(self) -> None:
        self.assertEqual(text_of({"b": 1, "a": 2}), text_of({"a": 2, "b": 1}))
        self.assertEqual(text_of({"x", "y", "z"}), text_of(frozenset("zyx")))

    def test_texts_are_the_same_in_every_process(self) -> None:
        program = "from kvdb.client.recipes.keys import text_of; print(text_of([{'a', 'b', 'c', 1}, 2.5]))"
        texts = {
            subprocess.run(
                [sys.executable, "-c", program], env=os.environ | {"PYTHONHASHSEED": seed},
                capture_output=True, check=True, timeout=10,
            ).stdout
            for seed in "12"
        }  # fmt: skip
        self.assertEqual(len(texts), 1)

    def test_arguments_of_which_nobody_knows_what_makes_them_equal_are_refused(self) -> None:
        class Number(int): ...

        class Zone(datetime.tzinfo): ...

        moment = datetime.datetime(2024, 1, 1, tzinfo=Zone())
        for value in (object(), Number(1), moment, [object()], {"a": object()}, print, Colour):
            with self.assertRaisesRegex(TypeError, "as an argument of a cached function"):
                text_of(value)


if __name__ == "__main__":
    unittest.main()
