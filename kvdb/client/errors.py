"""What the client raises. Everything is a `kvdb.Error`."""

from __future__ import annotations

from typing import Any


class Error(Exception):
    """The base of everything that the client raises about a server or an answer."""

    sent = True
    """False if it is certain that nothing was sent."""

    results: list[Any] | None = None
    """Of a pipeline that was carried out: all results, with an error at its place."""


class ServerError(Error):
    """The server understood the request and refused it; the connection goes on."""

    @property
    def code(self) -> str:
        """The code word that the text begins with: ERR, NOAUTH, OOM, ..."""
        return str(self).partition(" ")[0]


class Disconnected(Error, ConnectionError):
    """No connection could be made, or it broke. Whether the request was carried out is unknown."""


class TimedOut(Error, TimeoutError):
    """No answer within the timeout. Whether the request was carried out is unknown."""


class SerializationError(Error):
    """A value cannot be serialized, or what the server holds is not what the serializer reads."""


class Conflict(Error):
    """Others have changed the keys of a transaction each time that it was tried."""
