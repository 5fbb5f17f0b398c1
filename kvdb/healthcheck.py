"""`python -m kvdb.healthcheck` tells, by its exit code, whether a server on this machine answers.

It reads the settings as the server does: for the image, where they come as variables. The port is
asked of the environment, or of the arguments of the process that the container began with. Who
knows the address asks with `python -m kvdb ping`; both ask in the same way.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
from pathlib import Path

from kvdb.cli import parse_config
from kvdb.client.address import Address
from kvdb.client.errors import Error, ServerError
from kvdb.tools.ping import ask

_TIMEOUT = 3.0  # seconds


def main() -> int:
    """Ask the server for a sign of life; return 0 if there was one. A refusal is one, too."""
    config = parse_config(_arguments_of_server(), os.environ)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    try:
        if config.tls_cert:
            _shake_hands(host, config.port)
        else:
            ask(Address(host, config.port, _TIMEOUT))
    except ServerError:
        return 0
    except (Error, OSError):
        return 1
    return 0


def _shake_hands(host: str, port: int) -> None:
    """Raise OSError unless the server answers as TLS does.

    Whose certificate it is does not matter here; nor have we any that the server would trust.
    """
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with (
        socket.create_connection((host, port), _TIMEOUT) as connection,
        context.wrap_socket(connection),
    ):
        pass


def _arguments_of_server() -> list[str]:
    """Return the arguments of the container's first process, if that is a server of ours."""
    try:
        words = Path("/proc/1/cmdline").read_bytes().decode().split("\0")[:-1]
    except (OSError, UnicodeDecodeError):
        return []
    return words[words.index("kvdb") + 1 :] if "kvdb" in words else []


if __name__ == "__main__":
    sys.exit(main())
