"""What `python -m kvdb` does beside serving: ping, shell, check, repair, export and import.

Each tool is a module with a main() that takes the words after its name, and returns an exit code:
0 if all went well, 1 if not. The command line itself is wrong: code 2. A server imports none of this.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Final

FAILED: Final = 1

_MODULES: Final = {
    "check": "kvdb.tools.check",
    "export": "kvdb.tools.exporting",
    "import": "kvdb.tools.importing",
    "ping": "kvdb.tools.ping",
    "repair": "kvdb.tools.repair",
    "shell": "kvdb.tools.shell",
}


def main(arguments: Sequence[str]) -> int:
    """Run the tool that the first word names; return the exit code."""
    name, *others = arguments
    try:
        code: int = importlib.import_module(_MODULES[name]).main(others)
        sys.stdout.flush()
        return code
    except OutputFailed as failed:
        return complain_of_output(name, failed.reason)
    except OSError as error:  # of the output: a tool tells by itself what is wrong with its files
        return complain_of_output(name, error)
    except KeyboardInterrupt:
        print(f"kvdb {name}: interrupted", file=sys.stderr)
        return FAILED


def complain_of_output(tool: str, error: OSError) -> int:
    """Say that what a tool has to say cannot be written; nothing more is written then."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):  # whoever read it has seen enough, `| head` for example
        return FAILED
    print(f"kvdb {tool}: cannot write the output: {error.strerror or error}", file=sys.stderr)
    return FAILED


class OutputFailed(Exception):
    """The output could not be written; not an OSError, which would be taken for one of a file read."""

    def __init__(self, reason: OSError) -> None:
        super().__init__(str(reason))
        self.reason = reason


def complain(tool: str, text: str) -> int:
    """Write one sentence to standard error; return the exit code that belongs to it."""
    sys.stdout.flush()
    print(f"kvdb {tool}: {text}", file=sys.stderr)
    return FAILED


def counted(number: int, one: str, many: str) -> str:
    """Return a number and the word for so many: `1 entry`, `2,000 entries`."""
    return f"{number:,} {one if number == 1 else many}"
