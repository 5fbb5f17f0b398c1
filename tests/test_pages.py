"""The pages tell the truth: each link leads somewhere, and each example is tried.

A block of code that no test here knows how to try fails `test_every_block_is_tried`.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib
import importlib.util
import os
import re
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import kvdb
from kvdb.cli import parse_config
from kvdb.resp.encoding import encode_reply
from tests import certificates
from tests.support import Conversation, Wire, ask_http, running_server

ROOT = Path(__file__).resolve().parent.parent

WHOLE = (ROOT / "pyproject.toml").exists()
"""Whether this is the whole repository; `make mutants` copies only a part of it."""

SHELL_WORDS = ("python3 ", "py ", "make ", "redis-cli ", "sqlite3 ", "docker ")


@dataclass(frozen=True)
class Block:
    """A block of code on a page."""

    page: Path
    language: str
    text: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}: {self.text.splitlines()[0]}"

    @property
    def is_session(self) -> bool:
        return re.search(r"^> ", self.text, re.MULTILINE) is not None

    @property
    def is_shell(self) -> bool:
        first = self.text.removeprefix("$ ")
        return self.language in ("", "sh") and first.startswith(SHELL_WORDS)


def find_pages(*patterns: str) -> list[Path]:
    """Return the pages that some pattern finds."""
    return sorted({page for pattern in patterns for page in ROOT.glob(pattern)})


@functools.cache
def all_pages() -> list[Path]:
    return find_pages("*.md", "kvdb/**/*.md", "tests/**/*.md", "deploy/*.md")


@functools.cache
def all_blocks() -> list[Block]:
    return [
        Block(page, language, text)
        for page in all_pages()
        for language, text in re.findall(
            r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
        )
    ]


def blocks(condition: Callable[[Block], object]) -> list[Block]:
    found = [block for block in all_blocks() if condition(block)]
    assert found, "no page has such a block"
    return found


def block(words: str) -> Block:
    """Return the one block with these words in it."""
    (found,) = blocks(lambda block: words in block.text)
    return found


def anchors(page: Path) -> set[str]:
    """Return the names that a link may have behind a #: the page's headings, as GitHub spells them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}


@unittest.skipUnless(WHOLE, "this is a part of the repository")
class LinksTest(unittest.TestCase):
    def test_each_link_leads_to_a_file_and_a_heading_that_exist(self) -> None:
        for page in all_pages():
            for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
                with self.subTest(target, page=page):
                    self.assertNotRegex(target, r"^\w+:")  # all that we point to is here
                    path, _, anchor = target.partition("#")
                    there = (page.parent / path).resolve() if path else page
                    self.assertTrue(there.exists())
                    self.assertTrue(there.is_relative_to(ROOT))
                    if anchor:
                        self.assertIn(anchor, anchors(there))

    def test_each_page_can_be_reached_from_the_readme(self) -> None:
        seen, left = set(), [ROOT / "README.md"]
        while left:
            page = left.pop()
            if page.is_dir():
                page /= "README.md"
            if page in seen or page.suffix != ".md" or not page.exists():
                continue
            seen.add(page)
            for target in re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8")):
                left.append((page.parent / target).resolve())
        self.assertEqual(set(all_pages()) - seen, set())


class BlocksTest(unittest.TestCase):
    """Each kind of block has a test that tries all of that kind."""

    def test_every_block_is_tried(self) -> None:
        for each in all_blocks():
            kinds = (
                each.is_session,
                each.is_shell,
                each.language in ("python", "js", "sql"),
                each.text.startswith(("PUT ", "curl ", "user ")),
            )
            with self.subTest(each.name):
                self.assertEqual(sum(kinds), 1)

    def test_sessions(self) -> None:
        for each in blocks(lambda block: block.is_session):
            with self.subTest(each.name), running_server(memcached_port=0) as service:
                name = "memcached" if "telnet 127.0.0.1 11211" in each.text else "main"
                with Wire(service.listeners[name].port) as wire:
                    self.carry_on(wire, each, service.server.port)

    def carry_on(self, wire: Wire, session: Block, main_port: int) -> None:
        for line in session.text.splitlines():
            if line.startswith("> "):
                wire.socket.sendall(line[2:].encode() + b"\r\n")
            elif not line.startswith("$ "):
                if '"type": "MESSAGE"' in line:
                    self.publish(main_port)
                self.assertEqual(wire.read_until(b"\n").decode().rstrip("\r\n"), line)

    def publish(self, port: int) -> None:
        with kvdb.Client(port=port, serializer=kvdb.TEXT) as db:
            db.publish("news", "somebody has said PUBLISH")

    def test_haus(self) -> None:
        for each in blocks(lambda block: block.text.startswith("PUT ")):
            with (
                self.subTest(each.name),
                running_server(haus_port=0) as service,
                Wire(service.listeners["haus"].port) as wire,
            ):
                for line in each.text.splitlines():
                    request, answer = re.split(r" {3,}", line)[:2]
                    wire.socket.sendall(request.encode() + b"\n")
                    self.assertEqual(wire.read_until(b"\n").decode().rstrip(), answer)

    def test_requests_of_curl(self) -> None:
        """tests/interop/interop_http.py has them carried out by curl itself."""
        for each in blocks(lambda block: block.text.startswith("curl ")):
            with self.subTest(each.name), running_server(http_port=0) as service:
                for line in each.text.splitlines():
                    words = shlex.split(line, comments=True)[1:]
                    method = words[words.index("-X") + 1] if "-X" in words else "GET"
                    body = b"\xff\x00" if "--data-binary" in words else None
                    path = words[-1].removeprefix("localhost:8000")
                    reply = ask_http(service.listeners["http"].port, path, method, body)
                    self.assertEqual(reply.status // 100, 2, line)

    def test_files_of_users(self) -> None:
        for each in blocks(lambda block: block.text.startswith("user ")):
            with self.subTest(each.name), tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "users.acl")
                path.write_text(each.text, encoding="utf-8")
                with running_server(acl_file=path) as service:
                    names = {user.name.decode() for user in service.instance.users.all()}
                self.assertEqual(names, {line.split()[1] for line in each.text.splitlines()})

    def test_sql(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "database.sqlite")
            with running_server(data=path) as service, kvdb.Client(port=service.server.port) as db:
                db.set("greeting", "hello")
            for each in blocks(lambda block: block.language == "sql"):
                with contextlib.closing(sqlite3.connect(path)) as journal, journal:
                    journal.execute(each.text)
            words = shlex.split(block("sqlite3 database.sqlite").text)
            with contextlib.closing(sqlite3.connect(path)) as journal:
                rows = journal.execute(words[2]).fetchall()
            self.assertEqual(sorted(rows), [("greeting", '"hello"'), ("k", "v")])
            with running_server(data=path) as service:
                self.assertEqual(service.store.total_keys, 2)


FILES = {
    "secret.txt": "secret\n",
    "server.pem": certificates.SERVER,
    "server.key": certificates.SERVER,
}
"""What the files that the examples name hold."""


class ShellTest(unittest.TestCase):
    """Servers are started. Commands that install something or take long are not run: what they name is there."""

    def test_each_command_names_what_there_is(self) -> None:
        for each in blocks(lambda block: block.is_shell):
            for line in each.text.replace("\\\n", "").splitlines():
                words = shlex.split(line.removeprefix("$ "), comments=True)
                if words and not line.startswith("("):
                    with self.subTest(line, page=each.page):
                        getattr(self, "check_" + words[0].replace("-", "_"))(words[1:], each)

    def check_python3(self, words: list[str], block: Block) -> None:
        if words[0] != "-m":
            self.assertTrue((ROOT / words[0]).exists() or words[0].endswith(".pyz"))
        elif words[1] == "kvdb":
            self.serve(words[2:])
        elif words[1] == "unittest":
            for name in words[2:]:
                if name.startswith("tests."):
                    self.assertTrue((ROOT / (name.replace(".", "/") + ".py")).exists())
        elif words[1] != "pip":  # which a system's own Python may lack
            self.assertIsNotNone(importlib.util.find_spec(words[1]))

    check_py = check_python3

    def serve(self, arguments: list[str]) -> None:
        """Start what the arguments mean, but on free ports of this machine and in another folder."""
        with tempfile.TemporaryDirectory() as folder:
            for name, text in FILES.items():
                Path(folder, name).write_text(text, encoding="utf-8")
            ours = [
                os.path.join(folder, each) if "." in each and not each[0].isdigit() else each
                for each in arguments
            ]
            config = dict(vars(parse_config(ours, {})))
            config["data"] = config["data"] and Path(folder, config["data"])
            ports = {name: 0 for name, value in config.items() if name.endswith("port") and value}
            with running_server(**{**config, **ports, "host": "127.0.0.1"}) as service:
                self.assertEqual(len(service.listeners), len(ports))

    def check_make(self, words: list[str], block: Block) -> None:
        if not WHOLE:
            self.skipTest("this is a part of the repository")
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)
        self.assertLessEqual(set(words), set(targets))

    def check_redis_cli(self, words: list[str], block: Block) -> None:
        if "EVAL" in words:
            reply = Conversation()(*words[words.index("EVAL") :])
            shown = block.text.splitlines()[1]
            self.assertEqual((encode_reply(reply, 2), shown), (b":10\r\n", "(integer) 10"))

    def check_sqlite3(self, words: list[str], block: Block) -> None:
        self.assertEqual(len(words), 2)  # see test_sql

    def check_docker(self, words: list[str], block: Block) -> None:
        if WHOLE and "-f" in words:
            self.assertTrue((ROOT / words[words.index("-f") + 1]).exists())


class FrameworksTest(unittest.TestCase):
    """The settings in the README, in the frameworks that are installed."""

    def setUp(self) -> None:
        self.service = self.enterContext(running_server(memcached_port=0))

    def names(self, text: str, **names: Any) -> dict[str, Any]:
        """Carry out a block; return the names that it defines."""
        text = text.replace("4242", str(self.service.server.port))
        exec(compile(text, "README.md", "exec"), names)
        return names

    def needed(self, name: str) -> Any:
        try:
            return importlib.import_module(name)
        except ImportError:
            self.skipTest(f"{name} is not installed")

    def test_each_backend_that_a_page_names_exists(self) -> None:
        text = "".join(page.read_text(encoding="utf-8") for page in all_pages())
        found = set(re.findall(r"kvdb\.integrations\.(\w+)\.(\w+)", text))
        self.assertGreater(len(found), 2)
        for module, name in found:
            tree = ast.parse((ROOT / "kvdb/integrations" / f"{module}.py").read_text("utf-8"))
            defined = {getattr(node, "name", None) for node in tree.body}
            with self.subTest(module):
                self.assertIn(name, defined)

    def test_each_setting_of_a_url_is_one_that_was_tried(self) -> None:
        table = (ROOT / "tests/interop/README.md").read_text(encoding="utf-8")
        for each in blocks(lambda block: "result_backend" in block.text or block.language == "js"):
            for url in re.findall(r"'redis://[^']*'|\"[\w+]+://[^\"]*\"", each.text):
                with self.subTest(url):
                    self.assertIn(url.replace('"', "'"), table)

    def test_django(self) -> None:
        cache = self.needed("django.core.cache")
        names = self.names(block("CACHES = {").text)
        backend = cache.CacheHandler(names["CACHES"])["default"]
        backend.set("k", {"a": 1}, 60)
        self.assertEqual(backend.get("k"), {"a": 1})
        backend.client.close()
        importlib.import_module(names["SESSION_ENGINE"])

    def test_flask(self) -> None:
        flask, flask_caching = self.needed("flask"), self.needed("flask_caching")
        app = flask.Flask("shop")
        names = self.names(block("CACHE_KVDB_URL").text, app=app, flask_caching=flask_caching)
        with app.app_context():
            names["cache"].set("k", [1])
            self.assertEqual(names["cache"].get("k"), [1])
        names["cache"].cache.close()

    def test_celery(self) -> None:
        celery = self.needed("celery")
        self.needed("redis")
        app = celery.Celery("shop")
        self.names(block("result_backend").text, app=app)
        app.backend.store_result("task", 3, "SUCCESS")
        self.assertEqual(app.backend.get_result("task"), 3)
        app.backend.client.close()

    def test_starlette(self) -> None:
        """FastAPI is Starlette with more; either will do."""
        self.needed("starlette")
        self.needed("httpx")
        try:
            app = importlib.import_module("fastapi").FastAPI()
        except ImportError:
            app = importlib.import_module("starlette.applications").Starlette()
        recipe = importlib.import_module("tests.interop.integrations_recipes")
        with mock.patch.dict(sys.modules, integrations_recipes=recipe):
            self.names(block("ServerSessions").text, app=app, kvdb=kvdb)
        visits = _visits(app)
        self.assertEqual((next(visits), next(visits)), ("1", "2"))
        visits.close()

    def test_node(self) -> None:
        found = [Path(each, "redis") for each in os.environ.get("NODE_PATH", "").split(os.pathsep)]
        if not shutil.which("node") or not any(each.exists() for each in found):
            self.skipTest("there is no node with the package redis in NODE_PATH")
        for each in blocks(lambda block: block.language == "js"):
            text = each.text.replace("4242", str(self.service.server.port))
            text = f"(async () => {{ {text}\nconsole.log(await client.get('greeting')); client.destroy(); }})()"
            done = subprocess.run(["node", "-e", text], capture_output=True, text=True, timeout=60)
            self.assertEqual((done.stdout, done.stderr), ("hello\n", ""))


def _visits(app: Any) -> Iterator[str]:
    """Visit an application as one browser, again and again."""
    import asyncio

    import httpx
    from starlette.responses import PlainTextResponse

    async def visit(request: Any) -> Any:
        request.session["visits"] = request.session.get("visits", 0) + 1
        return PlainTextResponse(str(request.session["visits"]))

    app.add_route("/visit", visit)

    async def visit_twice() -> list[str]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="https://test") as browser:
            return [(await browser.get("/visit")).text for _ in range(2)]

    yield from asyncio.run(visit_twice())


class PythonTest(unittest.TestCase):
    def test_each_block_of_python_has_a_test_that_runs_it(self) -> None:
        """Those of the client's page are run by test_client_readme, the first one by test_readme."""
        found = blocks(lambda block: block.language == "python")
        pages = {each.page.relative_to(ROOT).as_posix() for each in found}
        self.assertEqual(pages, {"README.md", "kvdb/client/README.md"})
        tried = ("import kvdb\n", "CACHES =", "CACHE_KVDB_URL", "result_backend", "ServerSessions")
        for each in found:
            if each.page == ROOT / "README.md":
                with self.subTest(each.name):
                    self.assertEqual(sum(words in each.text for words in tried), 1)


if __name__ == "__main__":
    unittest.main()
