"""The bundled client. It shares nothing with the server but the RESP codec."""

from kvdb.client.client import Client, Transaction
from kvdb.client.command import Later
from kvdb.client.errors import (
    Conflict,
    Disconnected,
    Error,
    SerializationError,
    ServerError,
    TimedOut,
)
from kvdb.client.pipeline import Pipeline
from kvdb.client.serializers import BYTES, JSON, TEXT, Serializer

__all__ = [
    "BYTES",
    "JSON",
    "TEXT",
    "Client",
    "Conflict",
    "Disconnected",
    "Error",
    "Later",
    "Pipeline",
    "SerializationError",
    "Serializer",
    "ServerError",
    "TimedOut",
    "Transaction",
]
