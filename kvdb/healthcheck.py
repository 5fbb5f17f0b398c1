"""`python -m kvdb.healthcheck` tells, by its exit code, whether a server on this machine answers.

It reads the settings as the server does: for the image, where they come as variables. The port is
asked of the environment, or of the arguments of the process that the container began with.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
from pathlib import Path

from kvdb.cli import parse_config


def main() -> int:
    """Ask the server for a sign of life; return 0 if there was one."""
    config = parse_config(_arguments_of_server(), os.environ)
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    try:
        with socket.create_connection((host, config.port), timeout=3) as connection:
            if config.tls_cert:
                return _shakes_hands(connection)
            connection.sendall(b"PING\r\n")
            return 0 if connection.recv(1) in (b"+", b"-") else 1
    except OSError:
        return 1


def _shakes_hands(connection: socket.socket) -> int:
    """Return 0 if the server answers as TLS does. Whose certificate it is does not matter here."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with context.wrap_socket(connection):
        return 0


def _arguments_of_server() -> list[str]:
    """Return the arguments of the container's first process, if that is a server of ours."""
    try:
        words = Path("/proc/1/cmdline").read_bytes().decode().split("\0")[:-1]
    except (OSError, UnicodeDecodeError):
        return []
    return words[words.index("kvdb") + 1 :] if "kvdb" in words else []


if __name__ == "__main__":
    sys.exit(main())
