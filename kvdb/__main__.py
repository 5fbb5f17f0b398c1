"""`python -m kvdb` starts a server. This file has to be readable for any Python 3."""

import sys

if sys.version_info < (3, 11):
    sys.stderr.write("kvdb needs Python 3.11 or newer; this is %d.%d\n" % sys.version_info[:2])
    sys.exit(2)

from kvdb.allocator import use_system_allocator


def run() -> int:
    """Run a server, in a process whose memory goes back to the system; return the exit code."""
    use_system_allocator()  # before anything else is imported: the process may start anew
    from kvdb.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(run())
