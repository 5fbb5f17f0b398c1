"""kvdb.integrations without the frameworks; tests/interop/interop_integrations.py has these."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import unittest
from pathlib import Path

import kvdb
from kvdb.integrations.serializer_option import serializer_from
from kvdb.unsafe_pickle import PICKLE

ROOT = Path(__file__).resolve().parent.parent
FRAMEWORKS = ("asgiref", "cachelib", "django", "flask", "flask_caching")
HIDE = f"import sys; sys.modules.update(dict.fromkeys({FRAMEWORKS!r}))"  # None: not importable

DJANGO_IS_MISSING = (
    "kvdb.integrations.django needs Django, which cannot be imported: pip install Django"
)
CACHELIB_IS_MISSING = (
    "kvdb.integrations.cachelib needs cachelib, which cannot be imported: pip install cachelib"
)

SERIALIZER_OF_A_PROGRAM = kvdb.TEXT


class Upper:
    """What may stand in the settings as a class; it returns what it is told to."""

    def dumps(self, value: object) -> object:
        return value

    def loads(self, data: bytes) -> str:
        return data.decode().upper()


def run(program: str) -> str:
    """Run a program in a Python of its own; return what it prints."""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    return done.stdout + done.stderr


class ImportTest(unittest.TestCase):
    def test_a_module_says_which_framework_is_missing(self) -> None:
        for module, said in (
            ("django", DJANGO_IS_MISSING),
            ("cachelib", CACHELIB_IS_MISSING),
            ("flask_caching", CACHELIB_IS_MISSING),
        ):
            with self.subTest(module):
                last_line = run(f"{HIDE}; import kvdb.integrations.{module}").splitlines()[-1]
                self.assertEqual(last_line, f"ImportError: {said}")

    def test_kvdb_imports_neither_frameworks_nor_what_is_for_them(self) -> None:
        found = run(
            "import sys, kvdb, kvdb.__main__, kvdb.service, kvdb.client; kvdb.Client;"
            f" print([name for name in sys.modules if name.split('.')[0] in {FRAMEWORKS!r}"
            " or 'integrations' in name])"
        )
        self.assertEqual(found.strip(), "[]")

    def test_the_package_needs_no_framework(self) -> None:
        found = run(f"{HIDE}; import kvdb.integrations.serializer_option; print('fine')")
        self.assertEqual(found.strip(), "fine")


class SerializerOptionTest(unittest.TestCase):
    def test_names_and_paths(self) -> None:
        for option, serializer in (
            ("json", kvdb.JSON),
            ("pickle", PICKLE),
            (kvdb.BYTES, kvdb.BYTES),
            ("kvdb.TEXT", kvdb.TEXT),
            (f"{__name__}.SERIALIZER_OF_A_PROGRAM", kvdb.TEXT),
        ):
            self.assertIs(serializer_from(option), serializer)

    def test_what_has_dumps_and_loads(self) -> None:
        for option in (Upper, Upper(), f"{__name__}.Upper"):
            serializer = serializer_from(option)
            self.assertEqual(
                [serializer.dump(value) for value in (b"a", "b", 5)], [b"a", b"b", b"5"]
            )
            self.assertEqual(serializer.load(b"a"), "A")
            with self.assertRaisesRegex(TypeError, "returned None for a NoneType, not bytes"):
                serializer.dump(None)
        self.assertEqual(serializer_from(json).dump(["a"]), b'["a"]')
        self.assertEqual(serializer_from(pickle).load(pickle.dumps((1,))), (1,))

    def test_what_is_none(self) -> None:
        for option, kind in (
            ("yaml", ValueError),
            (5, ValueError),
            (object, ValueError),
            ("no_such_module.a", ImportError),
            ("json.no_such_name", ImportError),
        ):
            with self.subTest(option=option), self.assertRaises(kind):
                serializer_from(option)


if __name__ == "__main__":
    unittest.main()
