"""The allocator: where the process takes memory from, so that what is freed goes back.

Imports next to nothing: `use_system_allocator()` has to come before everything else.
"""

from __future__ import annotations

import contextlib
import os
import sys


def has_glibc() -> bool:
    """Tell whether memory comes from the GNU C library, whose allocator can be tuned."""
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, ValueError, OSError):
        return False


def can_be_kept() -> bool:
    """Tell whether the process as a whole can be kept to the budget.

    That takes an allocator that gives memory back. Elsewhere, and without a global interpreter
    lock (whose allocator keeps what it has), only the count of what the entries cost holds.
    """
    return has_glibc() and getattr(sys, "_is_gil_enabled", lambda: True)()


def give_back() -> None:
    """Have glibc give the system all pages that are entirely free: up to tens of milliseconds."""
    if not has_glibc():
        return
    import ctypes

    ctypes.CDLL(None).malloc_trim(0)


def tune_allocator() -> None:
    """Have memory that becomes free go back to the system as far as possible.

    It concerns the whole process and has to come before its other threads: only the command
    line calls it. Does nothing where memory does not come from glibc.
    """
    if not has_glibc():
        return
    import ctypes  # 3 ms, which only a server with a budget has to spend

    most_arenas, least_mapped = -8, -3  # M_ARENA_MAX and M_MMAP_THRESHOLD in malloc.h
    libc = ctypes.CDLL(None)
    # One arena for all threads: what one thread frees, the others can use.
    libc.mallopt(most_arenas, 1)
    # Large blocks are mapped and go back at once. 128 kB is the default, which glibc would
    # raise up to 32 MB as soon as such a block is freed, unless it is set.
    libc.mallopt(least_mapped, 128 * 1024)


def use_system_allocator() -> None:
    """Start this process anew with PYTHONMALLOC=malloc, if that is of use; else do nothing.

    Python's own allocator gives back a mebibyte when nothing in it is used any more, glibc a
    page. Measured after shifts of sizes, on 3.11 to 3.15: the entries can use 30 to 43 % of the
    budget with the one, 67 to 92 % with the other. It costs 3 to 11 % of the time of pipelined
    requests, and 25 ms at the start. The interpreter reads the variable before any of our code
    runs, and to replace its functions later is not supported (python/cpython#96997): in that
    way, which we had, the share was 52 to 87 %.

    To be called before anything is opened, and before other modules cost time to import.
    """
    asked = set(sys.argv[1:]) & {"-h", "--help", "--version"}
    variable = "PYTHONMALLOC"
    usual = (
        sys.implementation.name == "cpython"
        and not sys.flags.ignore_environment
        and not sys.flags.dev_mode
    )
    if asked or not usual or not sys.executable or variable in os.environ or not can_be_kept():
        return
    os.environ[variable] = "malloc"
    with contextlib.suppress(OSError):
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], os.environ)
