"""Where a server is, and who asks."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

DEFAULT_PORT: Final = 4242

_PLAIN: Final = ("kvdb", "redis", "valkey")
_WITH_TLS: Final = ("kvdbs", "rediss", "valkeys")


@dataclass(frozen=True)
class Address:
    """Where and how to connect."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    timeout: float | None = 5.0  # seconds for a call as a whole; None: wait for ever
    password: str | None = field(default=None, repr=False)
    db: int = 0
    user: str | None = None
    name: str | None = None  # as CLIENT LIST shows it
    tls: ssl.SSLContext | None = None

    def greeting(self, version: int = 2) -> list[list[bytes]]:
        """Return what a new connection sends first."""
        requests: list[list[bytes]] = []
        if self.user is not None or self.password is not None:
            password = (
                self.password or ""
            )  # some users need none, but they have to say who they are
            words = [password] if self.user is None else [self.user, password]
            requests.append([b"AUTH", *(word.encode() for word in words)])
        if version == 3:
            requests.append([b"HELLO", b"3"])
        if self.name is not None:
            requests.append([b"CLIENT", b"SETNAME", self.name.encode()])
        if self.db:
            requests.append([b"SELECT", b"%d" % self.db])
        return requests

    def at(self, timeout: float | None) -> Address:
        """Return the same with another timeout."""
        return replace(self, timeout=timeout)


def parse_url(url: str) -> dict[str, Any]:
    """Return what a URL says as arguments of a client.

    `kvdb://user:password@host:port/db?timeout=2&name=worker`; `redis://` is the same; `kvdbs://`
    and `rediss://` mean TLS. Raises ValueError if it is none of these.
    """
    parts = urlsplit(url)
    if parts.scheme not in (*_PLAIN, *_WITH_TLS):
        raise ValueError(f"{url!r} is no address: it begins with kvdb:// or redis://")
    default_port = 6379 if parts.scheme.startswith(("redis", "valkey")) else DEFAULT_PORT
    options: dict[str, Any] = {
        "host": parts.hostname or "127.0.0.1",
        "port": parts.port or default_port,
        "tls": parts.scheme in _WITH_TLS,
    }
    if parts.username:
        options["user"] = unquote(parts.username)
    if parts.password is not None:
        options["password"] = unquote(parts.password)
    path = parts.path.strip("/")
    if path:
        options["db"] = int(path)
    for name, value in parse_qsl(parts.query):
        if name == "timeout":
            options["timeout"] = float(value) if value.lower() != "none" else None
        elif name in ("name", "client_name"):
            options["name"] = value
        elif name == "db":
            options["db"] = int(value)
        elif name == "max_connections":
            options["max_connections"] = int(value)
        else:
            raise ValueError(f"{url!r}: there is no option {name!r}")
    return options
