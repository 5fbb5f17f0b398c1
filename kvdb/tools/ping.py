"""`kvdb ping`: does the server answer?"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from kvdb.client.address import Address
from kvdb.client.connection import Connection
from kvdb.client.errors import Error, ServerError
from kvdb.flags import Parser
from kvdb.tools import complain
from kvdb.tools.addresses import add_flags, address_of, is_url, seconds


def main(arguments: Sequence[str]) -> int:
    """Print PONG and return 0 if the server answers; else say why not, and return 1."""
    parser = Parser(
        prog="kvdb ping",
        description="Ask a server for a sign of life: prints PONG, and ends with code 0.",
        allow_abbrev=False,
    )
    parser.add_argument("url", nargs="?", metavar="URL", help="kvdb://HOST:PORT or redis://HOST")
    add_flags(parser)
    parser.add_argument("--timeout", type=seconds, metavar="S", help="seconds to wait (default: 5)")
    options = parser.parse_args(arguments)
    if options.url is not None and not is_url(options.url):
        parser.error(f"{options.url!r} is no URL, such as kvdb://127.0.0.1:4242")
    address = address_of(parser, options.url, options)
    if options.timeout is not None:
        address = replace(address, timeout=options.timeout)
    try:
        ask(address)
    except ServerError as refusal:
        return complain("ping", f"{address.host}:{address.port} answers, but refuses: {refusal}")
    except Error as error:
        return complain("ping", str(error))
    print("PONG")
    return 0


def ask(address: Address) -> None:
    """Have the server answer PING within the address's timeout.

    Raises ServerError if it refuses, and another kvdb.client error if it does not answer.
    """
    deadline = None if address.timeout is None else time.monotonic() + address.timeout
    connection = Connection(address, deadline=deadline)
    try:
        (reply,) = connection.ask([[b"PING"]], deadline)
    finally:
        connection.close()
    if isinstance(reply, Error):
        raise reply
