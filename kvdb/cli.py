"""The command line: flags and environment into a `Config`; start, signals, stop."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import queue
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import kvdb
import kvdb.commands
from kvdb.commands.config import LOG_LEVELS
from kvdb.config import MB, Config, Fsync
from kvdb.memory import bypass_pymalloc, tune_allocator
from kvdb.service import CannotStart, Service

log = logging.getLogger(__name__)

FSYNCS = [fsync.value for fsync in Fsync]
BAD_USAGE = 2
FAILED_SAVE = 1


# --- flags --------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        print(f"kvdb: {message} (--help lists the flags)", file=sys.stderr)
        sys.exit(BAD_USAGE)


def _megabytes(text: str) -> int:
    return round(_non_negative(text) * MB)


def _non_negative(text: str) -> float:
    number = float(text)
    if not 0 <= number < 2**40:
        raise ValueError
    return number


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise ValueError
    return number


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in text.split(",") if name.strip())


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def parse_config(arguments: Sequence[str], environment: dict[str, str]) -> Config:
    """Return the configuration. A flag counts more than KVDB_<FLAG> in the environment.

    Raises CannotStart, or exits as argparse does (--help, --version, a bad flag).
    """
    default = Config()
    parser = _Parser(
        prog="python -m kvdb",
        description="A key-value server: telnet, Redis clients and JSON lines on one port.",
        epilog="Each flag may be an environment variable: KVDB_MAX_MB for --max-mb, KVDB_DATA for DATA.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"kvdb {kvdb.__version__}")

    def add(flag: str, kind: Callable[[str], Any], value: Any, text: str, metavar: str) -> None:
        def convert(given: str) -> Any:
            try:
                return kind(given)
            except (ValueError, OverflowError):
                raise argparse.ArgumentTypeError(f"{given!r} will not do as {metavar}") from None

        given = environment.get("KVDB_" + flag.lstrip("-").upper().replace("-", "_"))
        options: dict[str, Any] = {"nargs": "?"} if not flag.startswith("-") else {}
        # argparse converts a default that is a string, which a variable is.
        parser.add_argument(
            flag,
            type=convert,
            default=value if given is None else given,
            help=text,
            metavar=metavar,
            **options,
        )

    def add_switch(flag: str, text: str) -> None:
        given = environment.get("KVDB_" + flag.lstrip("-").upper().replace("-", "_"), "")
        on = given.lower() in ("1", "true", "yes", "on")
        parser.add_argument(flag, action="store_true", default=on, help=text)

    add("DATA", Path, default.data, "the file that keeps the data (default: %(default)s)", "DATA")
    add("--host", str, default.host, "address to listen on (default: %(default)s)", "ADDRESS")
    add("--port", _port, default.port, "main port; 0: a free one (default: %(default)s)", "PORT")
    add("--memcached-port", _port, None, "open a door for memcached clients (usual: 11211)", "PORT")
    add("--haus-port", _port, None, "open a door for the Haus protocol (usual: 9888)", "PORT")
    add("--http-port", _port, None, "open a door for HTTP (usual: 8000)", "PORT")
    add(
        "--http-hosts",
        _names,
        (),
        "names, beside localhost and addresses, by which browsers may reach the HTTP door",
        "NAME,NAME",
    )
    add(
        "--fsync",
        str,
        default.fsync,
        f"when the journal is on disk: {', '.join(FSYNCS)} (default: %(default)s)",
        "WHEN",
    )
    add(
        "--max-mb",
        _megabytes,
        default.max_bytes,
        "byte budget in MB; the least recently used keys go first; 0: no limit (default: 64)",
        "MB",
    )
    add(
        "--max-value-mb",
        _megabytes,
        default.max_value_bytes,
        "longest value in MB (default: 16)",
        "MB",
    )
    add(
        "--snapshot-interval",
        _non_negative,
        default.snapshot_interval,
        "seconds between snapshots; 0: only at the end and on SAVE (default: 60)",
        "SECONDS",
    )
    add_switch("--in-memory", "keep nothing on disk")
    add(
        "--max-clients",
        _positive,
        default.max_clients,
        "connections at a time (default: %(default)s)",
        "N",
    )
    add(
        "--idle-timeout",
        _non_negative,
        default.idle_timeout,
        "end connections that are silent for so long; 0: never (default: 0)",
        "SECONDS",
    )
    add(
        "--password-file",
        Path,
        None,
        "file whose first line is the password that clients must give",
        "FILE",
    )
    add_switch("--no-protection", "allow an address other than loopback without a password")
    add(
        "--log-level",
        str,
        default.log_level,
        f"one of {', '.join(LOG_LEVELS)} (default: %(default)s)",
        "LEVEL",
    )
    given = parser.parse_args(arguments)

    if given.log_level.lower() not in LOG_LEVELS:
        parser.error(f"--log-level is one of {', '.join(LOG_LEVELS)}")
    if given.fsync not in FSYNCS:
        parser.error(f"--fsync is one of {', '.join(FSYNCS)}")
    config = Config(
        data=None if given.in_memory else given.DATA,
        host=given.host,
        port=given.port,
        memcached_port=given.memcached_port,
        haus_port=given.haus_port,
        http_port=given.http_port,
        http_hosts=given.http_hosts,
        fsync=given.fsync,
        max_bytes=given.max_mb,
        snapshot_interval=given.snapshot_interval,
        max_clients=given.max_clients,
        max_value_bytes=max(1, given.max_value_mb),
        idle_timeout=given.idle_timeout,
        password=_read_password(given.password_file),
        protected=not given.no_protection,
        log_level=given.log_level.lower(),
    )
    if config.protected and config.password is None and not _is_loopback(config.host):
        raise CannotStart(
            f"--host {config.host} can be reached from outside and there is no password: give "
            "--password-file FILE, or --no-protection if everybody who gets there may use it"
        )
    return config


def _read_password(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise CannotStart(f"cannot read the password from {path}: {error}") from None
    if not lines or not lines[0]:
        raise CannotStart(f"the first line of {path} is empty: it must be the password")
    return lines[0]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# --- running ------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a server until it is told to stop; return the exit code."""
    started = time.monotonic()
    try:
        config = parse_config(sys.argv[1:] if arguments is None else arguments, dict(os.environ))
        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
        logging.getLogger("kvdb").setLevel(LOG_LEVELS[config.log_level])
        if config.max_bytes:
            tune_allocator()
            if config.data and config.data.exists():
                bypass_pymalloc()  # before it is loaded: later, what is loaded stays where it is
        service = Service(config, own_process=True)
        if service.governor:
            service.governor.when_filling = bypass_pymalloc
    except CannotStart as problem:
        print(f"kvdb: {problem}", file=sys.stderr)
        return BAD_USAGE
    for name in ("SIGINT", "SIGTERM", "SIGBREAK"):  # the last is Ctrl-Break on Windows
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _stop_handler(service))
    service.start()
    _greet(service, time.monotonic() - started)
    save = _wait_for_stop(service)
    log.info("stopping%s", " and saving" if save and service.persistence else "")
    if not service.stop(save):
        log.error("stopped, and what could not be saved is lost")
        return FAILED_SAVE
    log.info("stopped")
    return 0


def _stop_handler(service: Service) -> Callable[[int, object], None]:
    def handle(number: int, frame: object) -> None:
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)  # a second Ctrl-C ends the process at once
        service.stop_requests.put(True)

    return handle


def _wait_for_stop(service: Service) -> bool:
    """Wait until a signal or SHUTDOWN asks for the end; return whether to save.

    What can be saved is saved before anything is closed. If it cannot, the first request is
    refused: stopping would lose it.
    """
    refused = False
    while True:
        try:
            # On Windows a wait without an end does not notice Ctrl-C.
            save = service.stop_requests.get(timeout=1.0)
        except queue.Empty:
            continue
        if not save or refused or service.save():
            return save
        refused = True
        log.error("not stopping, because saving fails; ask once more to stop all the same")


def _greet(service: Service, seconds: float) -> None:
    """Tell where each door is, and how to try it."""
    config = service.config
    budget = f"{config.max_bytes / MB:g} MB" if config.max_bytes else "no limit of memory"
    if config.data is None:
        kept = "nothing is kept on disk"
    elif service.loaded:
        kept = f"{service.loaded} keys loaded from {config.data}"
    else:
        kept = f"data in {config.data}"
    log.info("kvdb %s: %s, %s; ready after %.2f s", kvdb.__version__, budget, kept, seconds)
    host = service.server.host
    near = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    url_host = f"[{near}]" if ":" in near else near
    tries = {
        "main": f"telnet {near} {{port}}  then  SET greeting hello  or  HELP;  redis-cli -h {near} -p {{port}}",
        "memcached": f"telnet {near} {{port}}  then  get greeting;  any memcached client",
        "haus": f"telnet {near} {{port}}  then  PUT greeting hello",
        "http": f"http://{url_host}:{{port}}/  in a browser;  curl http://{url_host}:{{port}}/keys/greeting",
    }
    for name, door in service.doors.items():
        text = tries[name].format(port=door.port)
        log.info("%s door: listening on %s port %d.  Try:  %s", name, host, door.port, text)
