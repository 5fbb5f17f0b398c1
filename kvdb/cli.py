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
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import kvdb
import kvdb.commands
from kvdb.allocator import tune_allocator
from kvdb.config import MB, Config
from kvdb.flags import BAD_USAGE, Parser
from kvdb.logs import QueuedLog
from kvdb.persistence import LoadingInterrupted
from kvdb.service import CannotStart, Service
from kvdb.settings import (
    BY_FIELD,
    GROUPS,
    LOG_LEVELS,
    BadSetting,
    Setting,
    configure,
    unknown_variables,
)

log = logging.getLogger(__name__)

FAILED_SAVE = 1


# --- flags --------------------------------------------------------------------------------


def parse_config(arguments: Sequence[str], environment: Mapping[str, str]) -> Config:
    """Return the configuration. A flag counts more than KVDB_<FLAG> in the environment, and that
    more than the file that --config names.

    Raises CannotStart, or exits as argparse does (--help, --version, a bad flag). What has no
    effect is logged.
    """
    parser = Parser(
        prog="python -m kvdb",
        usage="%(prog)s [DATA] [flags]",
        description="A key-value server: telnet, Redis clients and JSON lines on one port, and more on others.",
        epilog=_EPILOG,
        formatter_class=_HelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    for title, settings in GROUPS.items():
        group = parser.add_argument_group(title)
        for setting in settings:
            _add_flag(parser, group, setting)
    group = parser.add_argument_group("help")
    group.add_argument("-h", "--help", action="help", help="show this")
    group.add_argument(
        "--version",
        action="version",
        version=f"kvdb {kvdb.__version__}, Python {sys.version.split()[0]}, {sys.platform}",
        help="show the version, with those of Python and the system",
    )
    given = {
        field: value
        for field, value in vars(parser.parse_args(_with_addresses(arguments))).items()
        if value is not None
    }
    if "data" in given:
        _refuse_misspelt_tool(parser, given["data"], arguments)
    try:
        path = given.get("config_file") or BY_FIELD["config_file"].from_environment(environment)
        from_file = {}
        if path is not None:
            from kvdb.config_file import read_config_file  # TOML: only for who uses it

            from_file = read_config_file(path)
        config, remarks = configure(given, environment, from_file)
    except BadSetting as bad:
        parser.error(str(bad))
    for remark in remarks:
        log.warning("%s", remark)
    for name in unknown_variables(environment):
        log.warning("the variable %s is no setting of kvdb", name)
    if config.password is None and config.acl_file is None:
        _refuse_to_be_open(config)
    return config


def _refuse_misspelt_tool(parser: Parser, data: Path, arguments: Sequence[str]) -> None:
    """Exit if the name of the data file looks like that of a tool, and there is no such file."""
    name = str(data)
    if data.suffix or data.exists() or name not in arguments:  # `./chek` is meant as it is
        return
    from difflib import get_close_matches  # only who names a file without a suffix needs it

    if close := get_close_matches(name.lower(), (*TOOLS, "serve"), 1, cutoff=0.7):
        meant = f"did you mean {close[0]}?" if close[0] in TOOLS else "a server starts without it"
        parser.error(
            f"{name} is neither a tool nor a file: {meant} (for a new data file: ./{name})"
        )


def _with_addresses(arguments: Sequence[str]) -> list[str]:
    """Make one word of `--replica-of HOST PORT`, as Redis's users write it."""
    words = list(arguments)
    for place in range(len(words) - 2):
        if words[place] == "--replica-of" and words[place + 2].isdigit():
            return [
                *words[: place + 1],
                f"{words[place + 1]} {words[place + 2]}",
                *words[place + 3 :],
            ]
    return words


def _refuse_to_be_open(config: Config) -> None:
    """Raise CannotStart if strangers can reach a server that needs no password."""
    if config.protected and not _is_loopback(config.host):
        raise CannotStart(
            f"--host {config.host} can be reached from outside and there is no password: give "
            "--password-file FILE or set KVDB_PASSWORD, or give --no-protection if everybody who "
            "gets there may use it"
        )


TOOLS = ("shell", "ping", "check", "repair", "export", "import")
"""What else the command starts, as the help lists it."""

_EPILOG = f"""\
Each flag may be an environment variable: KVDB_MAX_MB for --max-mb, KVDB_DATA for DATA; or a line of
the file that --config names. The command line counts most, then the variable, then the file.

examples:
  python -m kvdb                                 data in kvdb.json, port 4242
  python -m kvdb --in-memory --max-mb 256        a cache
  python -m kvdb data.sqlite --fsync always      each change on disk before it is answered
  python -m kvdb --http-port 8000                and a page at http://127.0.0.1:8000/
  python -m kvdb --host 0.0.0.0 --password-file secret.txt

Beside the server there are tools, each with a --help: python -m kvdb {", ".join(TOOLS)}."""


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Columns as wide as the flags need; the examples stay as they are."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32)


def _add_flag(parser: Parser, group: argparse._ArgumentGroup, setting: Setting) -> None:
    def convert(text: str) -> Any:
        try:
            return setting.parse(text)
        except BadSetting as bad:
            parser.error(str(bad))

    default = setting.default or getattr(Config(), setting.field, "")
    text = f"{setting.help} (default: {default})" if not setting.is_switch else setting.help
    text = text.replace("%", "%%")
    if setting.is_switch:
        group.add_argument(
            setting.flag, dest=setting.field, action="store_const", const=True, help=text
        )
    elif setting.flag.startswith("-"):
        group.add_argument(
            setting.flag, dest=setting.field, type=convert, metavar=setting.metavar, help=text
        )
    else:
        group.add_argument(
            setting.field, nargs="?", type=convert, metavar=setting.metavar, help=text
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


# --- running ------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a server until it is told to stop; return the exit code."""
    started = time.monotonic()
    try:
        queued = QueuedLog(logging.StreamHandler(sys.stderr))
        logging.basicConfig(handlers=[queued])
        config = parse_config(sys.argv[1:] if arguments is None else arguments, os.environ)
        queued.begin(config.log_format)
        logging.getLogger("kvdb").setLevel(LOG_LEVELS[config.log_level])
        if config.max_bytes:
            tune_allocator()
        service = Service(config, own_process=True, load=False)
        if config.max_bytes and service.governor is None:
            log.warning(
                "--max-mb counts what the entries take; that the process as a whole keeps to it "
                "takes Linux with glibc, and a Python with a global interpreter lock"
            )
        _listen_for_signals(service)
        try:
            if service.instance.users.default.rules.is_open:  # as the file of users may have it
                _refuse_to_be_open(config)
            service.start()
        except BaseException:
            service.stop(save=False)
            raise
    except CannotStart as problem:
        queued.finish()
        print(f"kvdb: {problem}", file=sys.stderr)
        return BAD_USAGE
    except LoadingInterrupted:
        log.info("stopped before the data was loaded; %s is as it was", config.data)
        queued.finish()
        return 0
    _greet(service, time.monotonic() - started)
    save = _wait_for_stop(service)
    if not service.stop(save):
        log.error("stopped, and what could not be saved is lost")
        queued.finish()
        return FAILED_SAVE
    log.info("stopped")
    queued.finish()
    return 0


def _listen_for_signals(service: Service) -> None:
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):  # the last two: the terminal is closed
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), _stop_handler(service))


def _stop_handler(service: Service) -> Callable[[int, object], None]:
    interrupts = 0

    def handle(number: int, frame: object) -> None:
        nonlocal interrupts
        service.stop_requests.put(True)
        if number != signal.SIGINT:
            return
        interrupts += 1
        unsaved = service.persistence.changes_since_save if service.persistence else 0
        if interrupts == 2 and unsaved and service.stopping:
            log.warning(
                "still saving; %s changes would be lost: Ctrl-C once more to stop without them",
                f"{unsaved:,}",
            )
        elif interrupts >= 2 and service.stopping and (interrupts > 2 or not unsaved):
            sys.stderr.write("kvdb: stopped at once; what was not saved is lost\n")
            os._exit(FAILED_SAVE)

    return handle


def _wait_for_stop(service: Service) -> bool:
    """Wait until a signal or SHUTDOWN asks for the end; return whether to save.

    What can be saved is saved before anything is closed. If it cannot, the first request is
    refused: stopping would lose it. Once saving works again, a refusal is forgotten.
    """
    refused = False
    while True:
        try:
            # On Windows a wait without an end does not notice Ctrl-C.
            save = service.stop_requests.get(timeout=1.0)
        except queue.Empty:
            refused = refused and not service.saving_works
            continue
        service.stopping = True
        if save and service.persistence and service.persistence.changes_since_save:
            log.info("saving %s keys ...", f"{service.store.total_keys:,}")
        else:
            log.info("stopping")
        if not save or refused or service.save():
            return save
        refused, service.stopping = True, False
        log.error("not stopping, because saving fails; ask once more to stop all the same")


def _greet(service: Service, seconds: float) -> None:
    """Tell where each port is, and how to try it."""
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
    encrypted = config.tls_cert is not None
    scheme = "https" if encrypted else "http"
    tries = {
        "main": f"redis-cli --tls --cacert FILE -h {near} -p {{port}}"
        if encrypted
        else f"telnet {near} {{port}}  then  SET greeting hello  or  HELP;  redis-cli -h {near} -p {{port}}",
        "memcached": "any memcached client, with TLS"
        if encrypted
        else f"telnet {near} {{port}}  then  get greeting;  any memcached client",
        "haus": f"openssl s_client -quiet -connect {url_host}:{{port}}  then  PUT greeting hello"
        if encrypted
        else f"telnet {near} {{port}}  then  PUT greeting hello",
        "http": f"{scheme}://{url_host}:{{port}}/  in a browser;  curl {scheme}://{url_host}:{{port}}/keys/greeting",
    }
    for name, listener in service.listeners.items():
        text = tries[name].format(port=listener.port)
        log.info("%s port: listening on %s port %d.  Try:  %s", name, host, listener.port, text)
