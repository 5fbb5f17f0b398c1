"""The house keeps its shape: who may import whom, and nothing from outside."""

from __future__ import annotations

import ast
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "kvdb"

# From the street inwards. An import may only point to a later floor, or stay within a folder.
FLOORS = (
    ("kvdb.__main__", "kvdb.healthcheck"),
    ("kvdb.cli",),
    ("kvdb.service",),
    ("kvdb.http",),
    ("kvdb.server",),
    ("kvdb.fastlane",),
    ("kvdb.protocols",),
    ("kvdb.commands",),
    ("kvdb.memory", "kvdb.persistence", "kvdb.reaper", "kvdb.writes"),
    ("kvdb.periodic",),
    ("kvdb.store",),
    ("kvdb.settings",),
    ("kvdb.config", "kvdb.glob"),
    ("kvdb.client",),
    ("kvdb.resp", "kvdb.pipelines"),
    (
        "kvdb.accounts",
        "kvdb.allocator",
        "kvdb.buffer",
        "kvdb.errors",
        "kvdb.guesses",
        "kvdb.logs",
        "kvdb.prefixes",
        "kvdb.replies",
    ),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def modules() -> Iterator[tuple[str, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        yield name.removesuffix(".__init__"), ast.parse(path.read_text(encoding="utf-8"))


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(module: str) -> str:
    """Return the room that a module belongs to: itself, or its folder."""
    return ".".join(module.split(".")[:2])


class ArchitectureTest(unittest.TestCase):
    def test_every_import_points_inwards(self) -> None:
        for module, tree in modules():
            for name in imports(tree):
                here, there = room(module), room(name)
                if not name.startswith("kvdb.") or here in ("kvdb", there) or there not in FLOOR_OF:
                    continue  # foreign, within a folder, or a name in kvdb/__init__.py
                with self.subTest(f"{module} imports {name}"):
                    self.assertLess(FLOOR_OF[here], FLOOR_OF[there])

    def test_every_module_has_its_floor(self) -> None:
        rooms = {room(module) for module, _ in modules()} - {"kvdb"}
        self.assertEqual(rooms, set(FLOOR_OF))

    def test_what_comes_before_everything_else_imports_next_to_nothing(self) -> None:
        """The process may start anew there: until then nothing may cost time, or be opened."""
        trees = dict(modules())
        for module, allowed in (
            ("kvdb.__main__", {"sys", "kvdb.allocator.use_system_allocator"}),
            ("kvdb.allocator", {"__future__.annotations", "contextlib", "os", "sys"}),
        ):
            at_once = [
                node for node in trees[module].body if isinstance(node, ast.Import | ast.ImportFrom)
            ]
            found = {name for node in at_once for name in imports(node)}
            self.assertEqual(found, allowed, module)

    def test_only_the_standard_library_is_imported(self) -> None:
        for module, tree in modules():
            for name in imports(tree):
                top = name.split(".")[0]
                with self.subTest(f"{module} imports {name}"):
                    self.assertTrue(top == "kvdb" or top in sys.stdlib_module_names)

    def test_dialects_touch_no_socket_no_thread_and_no_clock(self) -> None:
        forbidden = {"socket", "socketserver", "threading", "time", "select"}
        for module, tree in modules():
            if room(module) in ("kvdb.protocols", "kvdb.resp", "kvdb.pipelines", "kvdb.buffer"):
                found = {name.split(".")[0] for name in imports(tree)} & forbidden
                self.assertEqual(found, set(), module)

    def test_the_client_shares_only_the_codec_with_the_server(self) -> None:
        shared = {"kvdb.resp", "kvdb.errors", "kvdb.client"}
        for module, tree in modules():
            if room(module) == "kvdb.client":
                used = {room(name) for name in imports(tree) if name.startswith("kvdb.")}
                self.assertLessEqual(used, shared, module)

    def test_nothing_reads_the_clock_but_through_what_it_was_given(self) -> None:
        for module, tree in modules():
            if room(module) in ("kvdb.store", "kvdb.commands"):
                calls = {
                    ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)
                }
                self.assertFalse(calls & {"time.time", "time.monotonic"}, module)

    def test_every_public_function_and_class_is_documented(self) -> None:
        handlers = "kvdb.commands"  # a handler's summary stands in its declaration
        for module, tree in modules():
            for node in tree.body:
                if isinstance(node, ast.ClassDef) or (
                    isinstance(node, ast.FunctionDef) and not module.startswith(handlers)
                ):
                    with self.subTest(f"{module}.{node.name}"):
                        self.assertTrue(node.name.startswith("_") or ast.get_docstring(node))
