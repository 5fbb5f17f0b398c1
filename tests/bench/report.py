"""The table, what is told about the machine, and how much is measured."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tests.bench.servers import have_package, have_program

_ROW = "| {:<43} | {:<8} | {:>9} | {:<22} | {:>9} | {:>6} |"


@dataclass(frozen=True)
class Scale:
    """How much is measured. `share` is what quick runs leave of numbers of keys and of bytes."""

    rounds: int
    seconds: float  # per case, server and round
    share: float

    def number(self, full: int) -> int:
        return int(full * self.share)


FULL = Scale(rounds=5, seconds=0.35, share=1.0)
QUICK = Scale(rounds=2, seconds=0.15, share=0.1)


def medians(measures: Mapping[str, Callable[[], float]], rounds: int) -> dict[str, float]:
    """Measure all in turn, again and again; return the median of each."""
    figures: dict[str, list[float]] = {name: [] for name in measures}
    for _ in range(rounds):
        for name, measure in measures.items():
            figures[name].append(measure())
    return {name: statistics.median(values) for name, values in figures.items()}


class Table:
    """Prints a table in Markdown while it is being measured, a ratio per line."""

    def __init__(self) -> None:
        self._line("case", "unit", "kvdb", "peer", "peer's", "ratio")
        print("|-|-|-:|-|-:|-:|")

    def add_group(self, name: str) -> None:
        self._line(f"**{name}**", "", "", "", "", "")

    def add(self, case: str, unit: str, figures: Mapping[str, float]) -> None:
        """Add what was measured of kvdb, and a line for each peer."""
        ours = figures["kvdb"]
        peers = {name: figure for name, figure in figures.items() if name != "kvdb"}
        if not peers:
            self._line(case, unit, _number(ours), "", "", "")
        for name, figure in peers.items():
            ratio = f"{ours / figure:.2f}" if figure else ""
            self._line(case, unit, _number(ours), name, _number(figure), ratio)

    def _line(self, *cells: str) -> None:
        print(_ROW.format(*cells), flush=True)


def _number(figure: float) -> str:
    """Write a figure with three digits, or more before the point."""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:#.3g}".rstrip(".")


# --- the machine --------------------------------------------------------------------------


def describe_machine() -> str:
    """Return processor, cores, system, Python and the versions of the peers."""
    lines = [
        f"{os.cpu_count()} cores of {_processor()}; {platform.system()} {platform.release()}",
        f"{platform.python_implementation()} {platform.python_version()}",
    ]
    lines += [
        _program_version(name) for name in ("redis-server", "memcached") if have_program(name)
    ]
    packages = ("redis", "hiredis", "fakeredis", "pymemcache", "diskcache")
    lines += [f"{name} {metadata.version(name)}" for name in packages if have_package(name)]
    return "; ".join(lines)


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _program_version(name: str) -> str:
    shown = subprocess.run([name, "--version"], capture_output=True, text=True).stdout
    numbers = [word.removeprefix("v=") for word in shown.split() if any(map(str.isdigit, word))]
    return f"{name} {numbers[0] if numbers else '?'}"


def has_proc() -> bool:
    """Tell whether /proc says how much memory a process takes."""
    return Path("/proc/self/status").exists()


def tell_what_is_missing() -> None:
    """Print a line for each peer that is not there."""
    for program, left_out in (
        ("redis-server", "no Redis to compare with"),
        ("memcached", "no memcached to compare with"),
    ):
        if not have_program(program):
            print(f"{program} is not installed: {left_out}")
    for package, left_out in (
        ("fakeredis", "its server is left out"),
        ("redis", "redis-py is left out"),
        ("hiredis", "redis-py does without it"),
        ("pymemcache", "it is left out"),
        ("diskcache", "it is left out"),
    ):
        if not have_package(package):
            print(f"{package} is not installed for {sys.executable}: {left_out}")
    if not has_proc():
        print("there is no /proc: memory is left out")
