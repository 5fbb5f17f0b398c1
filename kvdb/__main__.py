"""`python -m kvdb` starts a server, or a tool such as the shell. This file has to be readable for any Python 3."""

import sys

if sys.version_info < (3, 11):
    sys.stderr.write("kvdb needs Python 3.11 or newer; this is %d.%d\n" % sys.version_info[:2])
    sys.exit(2)

from kvdb.allocator import use_system_allocator

TOOLS = ("check", "export", "import", "ping", "repair", "shell")
"""Words that start something else than a server, unless there is a file of that name."""


def run() -> int:
    """Run a tool, or a server in a process whose memory goes back to the system.

    Returns the exit code.
    """
    if is_tool(sys.argv[1:]):
        from kvdb.tools import main as run_tool

        return run_tool(sys.argv[1:])
    use_system_allocator()  # before anything else is imported: the process may start anew
    from kvdb.cli import main

    return main()


def is_tool(arguments: list[str]) -> bool:
    """Tell whether the first argument is the name of a tool, and not of a data file."""
    import os

    return bool(arguments) and arguments[0] in TOOLS and not os.path.isfile(arguments[0])


if __name__ == "__main__":
    sys.exit(run())
