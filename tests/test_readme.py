"""The README tells the truth: it is short, its examples run, and the tables beside it are generated."""

from __future__ import annotations

import contextlib
import io
import re
import sys
import unittest

import kvdb
import kvdb.commands
from kvdb.cli import parse_config
from kvdb.commands.introspection import GROUPS
from kvdb.commands.table import TABLE, every_command
from kvdb.config import Config
from kvdb.settings import SETTINGS
from tests.support import Conversation, running_server
from tests.test_pages import ROOT, find_pages

README = ROOT / "README.md"
REFERENCE = ROOT / "kvdb" / "README.md"
"""The page with the tables of commands and flags."""

MOST_WORDS = 900
"""How long the README may be, code blocks and tables counted."""


def command_table() -> str:
    """Return the reference's table of commands."""
    lines = []
    for group, title in GROUPS.items():
        rows = [row for row in every_command() if row.group == group and not row.subcommands]
        names = [row.name for row in rows if not row.name.endswith(" HELP")]
        lines.append(f"| {title} | {', '.join(f'`{name}`' for name in names)} |")
    return "\n".join(["| | commands |", "|---|---|", *lines])


def flag_table() -> str:
    """Return the reference's table of flags."""
    defaults = Config()
    lines = ["| flag | default | CONFIG | meaning |", "|---|---|---|---|"]
    for each in SETTINGS[1:]:
        default = each.default or getattr(defaults, each.field, "")
        name = f"**{each.config_name}**" if each.changeable else each.config_name
        lines.append(f"| `{each.flag}` | {default} | {name} | {each.help} |")
    return "\n".join(lines)


class ReadmeTest(unittest.TestCase):
    def setUp(self) -> None:
        self.text = README.read_text(encoding="utf-8")

    def test_it_is_short(self) -> None:
        self.assertLessEqual(len(self.text.split()), MOST_WORDS)

    def test_its_telnet_session_gives_what_it_shows(self) -> None:
        session = re.search(r"\$ telnet.*?```", self.text, re.DOTALL)
        assert session is not None
        talk = Conversation()
        shown = session[0].splitlines()[1:-1]
        typed = [line[2:] for line in shown if line.startswith("> ")]
        self.assertGreater(len(typed), 3)
        got = []
        for line in typed:
            got += ["> " + line, *talk.bytes(line + "\r\n").decode().splitlines()]
        self.assertEqual(got, shown)

    def test_its_client_example_runs(self) -> None:
        example = re.search(r"```python\n(import kvdb\n.*?)```", self.text, re.DOTALL)
        assert example is not None
        with running_server() as service:
            code = example[1].replace("4242", str(service.server.port))
            with contextlib.redirect_stdout(io.StringIO()) as printed:
                exec(compile(code + "db.close()", str(README), "exec"), {})
            self.assertEqual(printed.getvalue(), "{'name': 'Ada'} 1\n")
            self.assertGreater(service.instance.connections_received, 0)


class ReferenceTest(unittest.TestCase):
    def setUp(self) -> None:
        self.text = REFERENCE.read_text(encoding="utf-8")

    def test_its_command_table_is_the_command_table(self) -> None:
        """Run `python -m tests.test_readme` to bring it up to date."""
        self.assertIn(command_table(), self.text)
        self.assertTrue(all(row.group in GROUPS for row in TABLE.values()))

    def test_its_table_of_flags_is_the_table_of_settings(self) -> None:
        """Run `python -m tests.test_readme` to bring it up to date."""
        self.assertIn(flag_table(), self.text)

    def test_its_tour_passes_every_package(self) -> None:
        for package in sorted((ROOT / "kvdb").glob("*/__init__.py")):
            self.assertIn(f"`kvdb/{package.parent.name}/`", self.text)

    def test_every_flag_of_the_server_is_named_here(self) -> None:
        self.assertLessEqual(flags(), set(re.findall(r"`(--[a-z-]+)", self.text)))

    def test_every_flag_in_backticks_exists(self) -> None:
        for page in find_pages("README.md", "kvdb/**/*.md", "SECURITY.md"):
            text = re.sub(r"redis-cli --[^`]*", "", page.read_text(encoding="utf-8"))
            for flag in set(re.findall(r"`(--[a-z-]+)", text)) - {"--help", "--version"}:
                with self.subTest(flag, page=page):
                    self.assertIn(flag, flags())


def flags() -> set[str]:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        parse_config(["--help"], {})
    return set(re.findall(r"(--[a-z-]+)", out.getvalue())) - {"--help", "--version"}


if __name__ == "__main__":
    text = REFERENCE.read_text(encoding="utf-8")
    text = re.sub(r"\| \| commands \|\n(\|.*\n)+", lambda _: command_table() + "\n", text)
    text = re.sub(r"\| flag \| default \|.*\n(\|.*\n)+", lambda _: flag_table() + "\n", text)
    REFERENCE.write_text(text, encoding="utf-8")
    print(f"the tables of kvdb {kvdb.__version__} are in {REFERENCE}", file=sys.stderr)
