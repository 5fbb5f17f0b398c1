"""What the tests of libraries and frameworks share, and the table that their runs fill in.

A class of tests is a row of the table. Its features are the names of the tests that passed, and
its setting is the very text that the tests evaluate, so the table cannot promise what did not run.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import importlib.metadata
import sys
import unittest
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from tests.interop.scripts_case import KVDB, LibraryCase
from tests.interop.servers import Address, free_port, running_kvdb

MEMCACHED = "memcached"
PORTS = {KVDB: "4242", MEMCACHED: "11211"}  # the usual ones, which the settings are written with
COLUMNS = ("library", "version", "works with", "which setting", "what is refused")


@dataclass
class Row:
    """One line of the table: what the tests of a class have shown."""

    library: str
    version: str
    protocol: str
    setting: str
    features: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def cells(self) -> tuple[str, ...]:
        works_with = f"{self.protocol}: {', '.join(self.features)}" if self.features else "nothing"
        setting = f"`{self.setting}`" if self.setting else ""
        return (self.library, self.version, works_with, setting, "; ".join(self.refused))


class FrameworkCase(LibraryCase):
    """Tests of one library against kvdb; self.db looks at the same keys through the main port."""

    library: ClassVar[str]
    distribution: ClassVar[str]  # the name that the library is installed by
    protocol: ClassVar[str] = "Redis"
    setting: ClassVar[str] = ""  # an expression; 4242 and 11211 stand for the ports
    server = KVDB
    addresses: ClassVar[dict[str, Address]] = {}
    rows: ClassVar[dict[type[FrameworkCase], Row]] = {}
    failed: ClassVar[list[str]] = []  # the tests that did

    def run(self, result: unittest.TestResult | None = None) -> unittest.TestResult | None:
        result = result or self.defaultTestResult()
        skipped, bad = len(result.skipped), len(result.errors) + len(result.failures)
        super().run(result)
        if len(result.errors) + len(result.failures) > bad:
            self.failed.append(self.id())
        elif len(result.skipped) == skipped:
            self._note_success()
        return result

    def _note_success(self) -> None:
        feature = self._testMethodName.removeprefix("test_").replace("_", " ")
        if not feature.startswith("refused"):
            self.row().features.append(feature)

    @classmethod
    def row(cls) -> Row:
        if cls not in cls.rows:
            cls.rows[cls] = Row(cls.library, cls.version(), cls.protocol, cls.setting)
        return cls.rows[cls]

    @classmethod
    def version(cls) -> str:
        return importlib.metadata.version(cls.distribution)

    def with_ports(self, setting: str) -> str:
        for server, port in PORTS.items():
            setting = setting.replace(port, str(self.addresses[server].port))
        return setting

    def configured(self) -> Any:
        """Return what the setting makes: a client, or the dictionary that configures one."""
        for name in self.packages:
            importlib.import_module(name)
        names = {name.partition(".")[0] for name in self.packages}
        return eval(self.with_ports(self.setting), {name: sys.modules[name] for name in names})

    @contextlib.contextmanager
    def refused(self, command: str, what: str) -> Iterator[None]:
        """Expect that the block fails since kvdb does not know the command, and note that."""
        with self.refused_by_kvdb(command):
            yield
        self.note_refusal(command, what)

    def note_refusal(self, command: str, what: str) -> None:
        self.row().refused.append(f"{what} (`{command}`)")

    def assert_ttl(self, key: str, seconds: int) -> None:
        """Check that a key, by the name that the server knows it by, has about so long to live."""
        self.assertIn(self.db.ttl(key), range(seconds - 60, seconds + 1))


def run_async(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


def start_server() -> None:
    """Run one kvdb with both ports for the tests of a module."""
    port = free_port()
    flags = ("--in-memory", "--memcached-port", str(port))
    main = unittest.enterModuleContext(running_kvdb(*flags))
    FrameworkCase.addresses[KVDB] = main
    FrameworkCase.addresses[MEMCACHED] = Address(main.host, port, main.folder)


def print_versions() -> None:
    versions = {f"{case.distribution} {row.version}" for case, row in FrameworkCase.rows.items()}
    print("\nran with " + ", ".join(sorted(versions, key=str.lower)), file=sys.stderr)


def write_table(path: Path) -> None:
    """Put the table at the end of a page, in the place of an older one."""
    if FrameworkCase.failed:
        print(f"no table: {', '.join(FrameworkCase.failed)} failed", file=sys.stderr)
        return
    rows = sorted((row.cells() for row in FrameworkCase.rows.values()), key=_by_name)
    lines = [COLUMNS, ("---",) * len(COLUMNS), *rows]
    table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    before = before.partition(f"| {COLUMNS[0]} | {COLUMNS[1]} ")[0]
    path.write_text(before + table, encoding="utf-8")


def _by_name(cells: tuple[str, ...]) -> str:
    return cells[0].lower()
