"""The flags that say which server a tool talks to."""

from __future__ import annotations

import argparse
import os
import re
import ssl
from pathlib import Path
from typing import Any, Final

from kvdb.client.address import DEFAULT_PORT, Address, parse_url
from kvdb.flags import Parser

PASSWORD_VARIABLE: Final = "KVDB_PASSWORD"
"""Where a password may stand for a server that is named by --host and --port, or not at all."""


def is_url(word: str) -> bool:
    """Tell whether a word names a server; otherwise it is the path of a file."""
    return "://" in word


def add_flags(parser: Parser) -> None:
    """Add --host, --port and what else is needed to reach a server without a URL."""
    parser.add_argument("--host", help="address of the server (default: 127.0.0.1)")
    parser.add_argument("--port", type=_port, help=f"its main port (default: {DEFAULT_PORT})")
    parser.add_argument("--user", help="who to log in as (default: the default user)")
    parser.add_argument(
        "--password-file", type=Path, metavar="FILE",
        help=f"file whose first line is the password; the variable {PASSWORD_VARIABLE} may hold it",
    )  # fmt: skip
    parser.add_argument("--db", type=_database, metavar="N", help="database (default: 0)")
    parser.add_argument("--tls", action="store_true", help="speak TLS, as kvdbs:// does")
    parser.add_argument(
        "--cacert", type=Path, metavar="FILE",
        help="certificates (PEM) to trust instead of the system's; implies --tls",
    )  # fmt: skip


def address_of(parser: Parser, url: str | None, options: argparse.Namespace) -> Address:
    """Return where a URL and the flags lead. What cannot be used ends the process, with code 2."""
    fields: dict[str, Any] = {}
    if url is not None:
        if options.host is not None or options.port is not None:
            parser.error("a URL says where the server is: leave out --host and --port")
        fields = _from_url(parser, url)
    elif os.environ.get(PASSWORD_VARIABLE):
        fields["password"] = os.environ[PASSWORD_VARIABLE]
    for name in ("host", "port", "user", "db"):
        if (value := getattr(options, name)) is not None:
            fields[name] = value
    if options.password_file is not None:
        fields["password"] = _first_line(parser, options.password_file)
    tls = fields.pop("tls", False) or options.tls or options.cacert is not None
    try:
        context = ssl.create_default_context(cafile=options.cacert) if tls else None
    except OSError as error:  # ssl.SSLError is one, too
        parser.error(f"cannot read the certificates in {options.cacert}: {error}")
    if fields.get("user") is not None and fields.get("password") is None:
        parser.error("a user needs a password: give --password-file")
    return Address(**fields, tls=context)


_LONGEST_TIMEOUT = 1e6  # seconds; what is much more, the system does not take


def seconds(text: str) -> float:
    """Return a time in seconds, above 0. For argparse."""
    try:
        number = float(text)
        if 0 < number < _LONGEST_TIMEOUT:
            return number
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"must be a number of seconds above 0, not {text!r}")


def _from_url(parser: Parser, url: str) -> dict[str, Any]:
    try:
        fields = parse_url(url)
    except ValueError:  # its text may hold the password
        parser.error(
            "the URL cannot be used: write kvdb://HOST:PORT/DB, or redis://USER:PASSWORD@HOST"
        )
    fields.pop("max_connections", None)
    return fields


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"must be a number from 1 to 65535, not {text!r}")
    return int(text)


def _database(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text):
        raise argparse.ArgumentTypeError(f"must be the number of a database, not {text!r}")
    return int(text)


def _first_line(parser: Parser, path: Path) -> str:
    try:
        lines = path.expanduser().read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        parser.error(f"cannot read the password from {path}: {error}")
    if not lines or not lines[0]:
        parser.error(f"the first line of {path} is empty, and it should be the password")
    return lines[0]
