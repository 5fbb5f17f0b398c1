"""The house keeps its shape: who may import whom, and nothing from outside."""

from __future__ import annotations

import ast
import functools
import sys
import unittest
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "kvdb"

# From the outside inwards. An import may only point to a later floor, or stay within a folder.
FLOORS = (
    ("kvdb.__main__", "kvdb.healthcheck"),
    ("kvdb.cli", "kvdb.pytest_plugin", "kvdb.tools"),
    ("kvdb.config_file",),
    ("kvdb.testing",),
    ("kvdb.service",),
    ("kvdb.http",),
    ("kvdb.server",),
    ("kvdb.protocols",),
    ("kvdb.commands",),
    ("kvdb.scripting",),
    (
        "kvdb.memory",
        "kvdb.persistence",
        "kvdb.notifications",
        "kvdb.reaper",
        "kvdb.replication",
        "kvdb.tracking",
    ),
    ("kvdb.rdb",),
    ("kvdb.periodic",),
    ("kvdb.store",),
    (
        "kvdb.acl",
        "kvdb.latency",
        "kvdb.monitors",
        "kvdb.pubsub",
        "kvdb.settings",
        "kvdb.slowlog",
    ),
    ("kvdb.config", "kvdb.glob"),
    ("kvdb.integrations",),
    ("kvdb.unsafe_pickle",),
    ("kvdb.client",),
    ("kvdb.resp",),
    (
        "kvdb.accounts",
        "kvdb.allocator",
        "kvdb.errors",
        "kvdb.event_classes",
        "kvdb.flags",
        "kvdb.guesses",
        "kvdb.logs",
        "kvdb.lua",
        "kvdb.output_limits",
        "kvdb.pause",
        "kvdb.prefixes",
        "kvdb.replies",
        "kvdb.spelling",
    ),
)
FLOOR_OF = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

# Within these folders, too: a module imports only those after it.
ORDERS = (
    ("kvdb.resp.requests", "kvdb.resp.buffer", "kvdb.resp.limits"),
    ("kvdb.resp.replies", "kvdb.resp.limits"),
    ("kvdb.server.listener", "kvdb.server.connection", "kvdb.server.transport", "kvdb.server.loop"),
)

FRAMEWORKS = {
    "kvdb.integrations.cachelib": {"cachelib"},
    "kvdb.integrations.django": {"asgiref", "django"},
    "kvdb.pytest_plugin": {"pytest"},
}
"""What a module may import although it is not in the standard library: it is there for that."""

LONGEST_MODULE = 450  # lines
LONGEST_CLASS = 300

EXCEPTIONS = {
    "kvdb.commands.instance imports kvdb.server.tls.Certificates",
}
"""What breaks a rule today. Who mends one removes it here: a test fails until that is done."""


@functools.cache
def modules() -> list[tuple[str, ast.Module]]:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        found.append((name.removesuffix(".__init__"), ast.parse(path.read_text(encoding="utf-8"))))
    return found


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


def module_lengths() -> Iterator[tuple[str, int, int]]:
    """Yield each module and class by name, with its lines and how many are allowed."""
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        yield name, len(text.splitlines()), LONGEST_MODULE
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ClassDef):
                assert node.end_lineno is not None
                yield f"{name}.{node.name}", node.end_lineno - node.lineno + 1, LONGEST_CLASS


def too_long() -> set[str]:
    """Return the modules and classes that exceed their limit."""
    return {name for name, lines, most in module_lengths() if lines > most}


def pointing_outwards() -> set[str]:
    """Return the imports, wherever they stand in a file, that do not point to a later floor."""
    found = set()
    for module, tree in modules():
        for name in imports(tree):
            here, there = room(module), room(name)
            if not name.startswith("kvdb.") or here in ("kvdb", there) or there not in FLOOR_OF:
                continue  # foreign, within a folder, or a name in kvdb/__init__.py
            if FLOOR_OF[here] >= FLOOR_OF[there]:
                found.add(f"{module} imports {name}")
    return found


def without_types(tree: ast.Module) -> ast.Module:
    """Return what a module executes: what only a type checker reads is left out."""
    kept = [node for node in tree.body if not is_for_types(node)]
    return ast.Module(kept, [])


def is_for_types(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def imported_modules(trees: dict[str, ast.Module]) -> dict[str, set[str]]:
    """Return which modules of kvdb each of them imports, be it within a function."""
    found = {}
    for module, tree in trees.items():
        named = {name for name in imports(without_types(tree)) if name.split(".")[0] == "kvdb"}
        # `kvdb.a.b` is a module, or the name b in the module kvdb.a.
        found[module] = {each if each in trees else each.rpartition(".")[0] for each in named}
    return found


def find_circle(edges: dict[str, set[str]]) -> list[str]:
    """Return a circle of modules, its first one also at its end; nothing if there is none."""
    is_safe: set[str] = set()

    def follow(path: list[str]) -> list[str]:
        here = path[-1]
        if here in path[:-1]:
            return path[path.index(here) :]
        if here not in is_safe:
            for there in sorted(edges.get(here, ())):
                if circle := follow([*path, there]):
                    return circle
            is_safe.add(here)
        return []

    for module in sorted(edges):
        if circle := follow([module]):
            return circle
    return []


class ArchitectureTest(unittest.TestCase):
    def test_every_import_points_inwards(self) -> None:
        self.assertEqual(pointing_outwards() - EXCEPTIONS, set())

    def test_no_module_and_no_class_is_too_long(self) -> None:
        self.assertEqual(too_long() - EXCEPTIONS, set())

    def test_no_exception_outlives_its_reason(self) -> None:
        self.assertEqual(EXCEPTIONS - too_long() - pointing_outwards(), set())

    def test_no_modules_import_each_other_in_a_circle(self) -> None:
        self.assertEqual(find_circle(imported_modules(dict(modules()))), [])

    def test_a_circle_would_be_found(self) -> None:
        edges = {"a": {"b", "d"}, "b": {"c"}, "c": {"d"}, "d": set()}
        self.assertEqual(find_circle(edges), [])
        self.assertEqual(find_circle(edges | {"d": {"b"}}), ["b", "c", "d", "b"])

    def test_within_a_folder_imports_follow_its_order(self) -> None:
        edges = imported_modules(dict(modules()))
        for order in ORDERS:
            for place, module in enumerate(order):
                self.assertIn(module, edges)
                self.assertEqual(edges[module] & set(order[:place]), set(), module)

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
                    foreign = top != "kvdb" and top not in sys.stdlib_module_names
                    self.assertFalse(foreign and top not in FRAMEWORKS.get(module, ()))

    def test_dialects_touch_no_socket_no_thread_and_no_clock(self) -> None:
        forbidden = {"socket", "socketserver", "ssl", "threading", "time", "select", "selectors"}
        for module, tree in modules():
            if room(module) in ("kvdb.protocols", "kvdb.resp"):
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
