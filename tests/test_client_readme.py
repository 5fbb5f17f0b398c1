"""The client's page tells the truth: its code runs, and gives what stands beside it."""

from __future__ import annotations

import ast
import re
import unittest
from pathlib import Path
from typing import Any

import kvdb.client
from tests.support import running_server

PAGE = Path(kvdb.client.__file__).parent / "README.md"


class ClientReadmeTest(unittest.TestCase):
    def test_each_line_gives_what_stands_beside_it(self) -> None:
        text = PAGE.read_text(encoding="utf-8")
        names: dict[str, Any] = {}
        with running_server() as service:
            for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
                self.carry_out(block.replace("4242", str(service.server.port)), names)
            names["db"].close()

    def carry_out(self, block: str, names: dict[str, Any]) -> None:
        lines = block.splitlines()

        def run(statement: ast.stmt) -> None:
            if isinstance(statement, ast.With):  # its lines one by one
                item = statement.items[0]
                manager = eval(compile(ast.Expression(item.context_expr), "page", "eval"), names)
                with manager as value:
                    if isinstance(item.optional_vars, ast.Name):
                        names[item.optional_vars.id] = value
                    for each in statement.body:
                        run(each)
            elif isinstance(statement, ast.Expr):
                result = eval(compile(ast.Expression(statement.value), "page", "eval"), names)
                beside = lines[statement.lineno - 1].partition("  #")[2].strip()
                if found := expected(beside):
                    with self.subTest(lines[statement.lineno - 1]):
                        self.assertIn(repr(result), found)
            else:
                exec(compile(ast.Module([statement], []), "page", "exec"), names)

        for statement in ast.parse(block).body:
            run(statement)


def expected(beside: str) -> str | None:
    """Return what a remark says of the result, if it does: a value, at its begin or its end."""
    is_value = re.match(r"[\[({'\d]|b'|True|None", beside) or re.search(r": b'[a-z]+'$", beside)
    return beside if is_value else None


if __name__ == "__main__":
    unittest.main()
