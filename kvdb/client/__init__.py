"""The bundled client. It shares nothing with the server but the RESP codec."""

from kvdb.client.client import Client, Pipeline
from kvdb.client.errors import Disconnected, Error, SerializationError, ServerError, TimedOut
from kvdb.client.serializers import BYTES, JSON, PICKLE, TEXT, Serializer

__all__ = [
    "BYTES",
    "JSON",
    "PICKLE",
    "TEXT",
    "Client",
    "Disconnected",
    "Error",
    "Pipeline",
    "SerializationError",
    "Serializer",
    "ServerError",
    "TimedOut",
]
