"""What is packed is whole: one file that serves, a distribution that names all there is."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import tempfile
import tomllib
import unittest
import zipfile
from fnmatch import fnmatch
from pathlib import Path

import kvdb
from kvdb.settings import SETTINGS
from tests.support import Wire, ask_http

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "kvdb"


def package_files(pattern: str) -> list[Path]:
    """Return the files below kvdb/ that a pattern finds, relative to the root."""
    found = (path.relative_to(ROOT) for path in PACKAGE.rglob(pattern) if path.is_file())
    return sorted(path for path in found if "__pycache__" not in path.parts)


@unittest.skipUnless((ROOT / "pyproject.toml").exists(), "this is a part of the repository")
class DistributionTest(unittest.TestCase):
    def setUp(self) -> None:
        self.project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

    def test_each_folder_with_modules_is_a_package(self) -> None:
        """setuptools leaves out those that are none."""
        for folder in {path.parent for path in package_files("*.py")}:
            with self.subTest(folder):
                self.assertTrue((ROOT / folder / "__init__.py").exists())

    def test_each_file_that_is_no_module_is_named_as_data(self) -> None:
        patterns = self.project["tool"]["setuptools"]["package-data"]["kvdb"]
        for path in package_files("*"):
            if path.suffix not in (".py", ".pyc", ".md"):
                name = path.relative_to("kvdb").as_posix()
                with self.subTest(name):
                    self.assertTrue(any(fnmatch(name, pattern) for pattern in patterns))

    def test_each_entry_point_exists(self) -> None:
        project = self.project["project"]
        for target in (*project["scripts"].values(), *project["entry-points"]["pytest11"].values()):
            module, _, function = target.partition(":")
            with self.subTest(target):
                spec = importlib.util.find_spec(module)
                assert spec is not None
                assert spec.origin is not None
                source = Path(spec.origin).read_text(encoding="utf-8")
                self.assertIn(f"\ndef {function}", source)

    def test_the_oldest_python_that_is_named_is_the_oldest_that_will_do(self) -> None:
        named = re.findall(r"Python :: 3\.(\d+)", " ".join(self.project["project"]["classifiers"]))
        self.assertEqual(named, sorted(named))
        self.assertEqual(self.project["project"]["requires-python"], f">=3.{named[0]}")

    def test_the_changelog_begins_with_this_version_or_what_comes_after_it(self) -> None:
        text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
        first = re.search(r"^## \[?([\w.]+)", text, re.MULTILINE)
        assert first is not None
        self.assertIn(first[1], ("Unreleased", kvdb.__version__))

    def test_each_variable_that_a_deployment_sets_is_a_setting(self) -> None:
        known = {"KVDB_PASSWORD", *(setting.variable for setting in SETTINGS)}
        for path in (ROOT / "Dockerfile", *(ROOT / "deploy").iterdir()):
            if path.is_file():
                with self.subTest(path):
                    named = set(re.findall(r"KVDB_[A-Z_]+", path.read_text(encoding="utf-8")))
                    self.assertLessEqual(named, known)

    def test_what_the_image_copies_exists(self) -> None:
        copied = re.findall(r"^COPY (\S+)", (ROOT / "Dockerfile").read_text("utf-8"), re.MULTILINE)
        self.assertTrue(copied)
        for name in copied:
            self.assertTrue((ROOT / name).exists())


@unittest.skipUnless((ROOT / "deploy").exists(), "this is a part of the repository")
class OneFileTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        folder = cls.enterClassContext(tempfile.TemporaryDirectory())
        cls.archive = Path(folder, "kvdb.pyz")
        subprocess.run(
            [sys.executable, str(ROOT / "deploy" / "pyz.py"), str(cls.archive)], check=True
        )

    def run_it(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(self.archive), *arguments]
        return subprocess.run(
            command, cwd=self.archive.parent, capture_output=True, text=True, timeout=30
        )

    def test_it_has_every_module(self) -> None:
        with zipfile.ZipFile(self.archive) as archive:
            names = {name for name in archive.namelist() if name.startswith("kvdb/")}
        for path in package_files("*.py"):
            self.assertIn(path.as_posix(), names)
            self.assertIn(path.with_suffix(".pyc").as_posix(), names)
        self.assertFalse([name for name in names if "__pycache__" in name])

    def test_it_tells_its_version_and_its_exit_code(self) -> None:
        done = self.run_it("--version")
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertTrue(done.stdout.startswith(f"kvdb {kvdb.__version__}, Python "))
        self.assertEqual(self.run_it("--port", "no number").returncode, 2)

    def test_it_serves(self) -> None:
        data = self.archive.with_name("kvdb.json")
        command = [sys.executable, str(self.archive), str(data), "--port=0", "--http-port=0"]
        with subprocess.Popen(
            command, cwd=data.parent, stderr=subprocess.PIPE, text=True
        ) as server:
            try:
                assert server.stderr is not None
                ports: dict[str, int] = {}
                while len(ports) < 2 and (line := server.stderr.readline()):
                    if found := re.search(r"(\w+) port: listening on \S+ port (\d+)", line):
                        ports[found[1]] = int(found[2])
                page = ask_http(ports["http"], "/")  # made of files that are in the archive, too
                self.assertEqual(page.status, 200)
                with Wire(ports["main"]) as wire:
                    self.assertEqual(wire.ask(b"PING\r\n", 7), b"+PONG\r\n")
                    wire.socket.sendall(b"SHUTDOWN\r\n")
                    self.assertEqual(wire.read_to_end(), b"")
                server.stderr.read()
                self.assertEqual(server.wait(30), 0)
            finally:
                server.kill()


if __name__ == "__main__":
    unittest.main()
