"""Runs the groups of the benchmark. See tests/bench/__init__.py."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable, Sequence

from tests.bench import clients, cpu, latency, memory, snapshots, throughput
from tests.bench.report import FULL, QUICK, Scale, Table, describe_machine, tell_what_is_missing
from tests.bench.servers import allow_open_files

GROUPS: dict[str, Callable[[Scale, Table], None]] = {
    "cpu per request": cpu.cpu_per_request,
    "one at a time": throughput.one_at_a_time,
    "pipelined": throughput.pipelined,
    "many keys": throughput.many_keys,
    "large values": throughput.large_values,
    "idle connections": throughput.idle_connections,
    "memcached port": throughput.memcached_port,
    "python clients": clients.python_clients,
    "start": snapshots.starts,
    "snapshot": snapshots.snapshot,
    "while saving": latency.while_saving,
    "while growing": latency.while_growing,
    "bytes per key": memory.bytes_per_key,
    "memory promise": memory.memory_promise,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m tests.bench", description=f"The groups: {', '.join(GROUPS)}."
    )
    parser.add_argument(
        "--only", metavar="PATTERN", default="", help="groups with this in the name"
    )
    parser.add_argument("--quick", action="store_true", help="a look, not a measurement")
    given = parser.parse_args()
    chosen = [name for name in GROUPS if given.only.lower() in name]
    if not chosen:
        parser.error(f"no group has {given.only!r} in its name: {', '.join(GROUPS)}")

    # Whoever is told to end ends his servers first.
    for name in ("SIGTERM", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: sys.exit(1))
    allow_open_files(4096)
    try:
        run(chosen, QUICK if given.quick else FULL)
    except KeyboardInterrupt:
        sys.exit("interrupted")


def run(chosen: Sequence[str], scale: Scale) -> None:
    """Print what is measured of these groups."""
    started = time.monotonic()
    print(describe_machine())
    tell_what_is_missing()
    print(
        f"Medians of {scale.rounds} rounds, {scale.seconds} s each where things are counted per "
        "second; ratio: kvdb's figure / the peer's.\n"
    )
    table = Table()
    for name in chosen:
        table.add_group(name)
        GROUPS[name](scale, table)
    print(f"\nTook {time.monotonic() - started:.0f} s.")


if __name__ == "__main__":
    main()
