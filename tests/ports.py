"""Every dialect behind the same few methods, so that one suite of tests runs over all of them.

No sockets: bytes go straight into the dialect, and an HTTP request into its API.
"""

from __future__ import annotations

import base64
import json
import urllib.parse
from typing import Any

from kvdb.commands.instance import Instance
from kvdb.commands.session import Session
from kvdb.http.api import Api, Request
from kvdb.protocols import RequestLoop
from kvdb.protocols.haus import Haus
from kvdb.protocols.main_port import MainPort
from kvdb.protocols.memcached import Memcached
from kvdb.resp.replies import encode_request


class Port:
    """A client's conversation in one dialect. The flags tell what the dialect can express."""

    dialect: type[RequestLoop]
    any_key = False  # every byte may stand in a key
    any_value = True  # every byte may stand in a value
    has_ttl = True
    counts = True

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        self.open()

    def open(self) -> None:
        self.session = Session(self.instance)
        self.instance.admit(self.session)
        self.conversation = self.dialect(self.session)

    def close(self) -> None:
        """End the connection."""
        self.instance.dismiss(self.session)

    def send(self, request: bytes) -> bytes:
        return self.conversation.receive(request)

    def set(self, key: bytes, value: bytes, ttl: int | None = None) -> None:
        raise NotImplementedError

    def get(self, key: bytes) -> bytes | None:
        raise NotImplementedError

    def delete(self, key: bytes) -> None:
        """Delete a key, whether or not it is there."""
        raise NotImplementedError

    def ttl(self, key: bytes) -> int | None:
        """Return whole seconds, or None for a key without a deadline."""
        raise NotImplementedError

    def increment(self, key: bytes) -> int:
        """Add 1 to a number that is there; return the sum."""
        raise NotImplementedError


class Refused(Exception):
    """The dialect answered with an error."""


def expect(reply: bytes, expected: bytes) -> None:
    if reply != expected:
        raise Refused(reply.decode())


class Resp(Port):
    dialect = MainPort
    any_key = True

    def ask(self, *words: bytes) -> bytes:
        return self.send(encode_request(words))

    def set(self, key: bytes, value: bytes, ttl: int | None = None) -> None:
        options = [] if ttl is None else [b"EX", b"%d" % ttl]
        expect(self.ask(b"SET", key, value, *options), b"+OK\r\n")

    def get(self, key: bytes) -> bytes | None:
        reply = self.ask(b"GET", key)
        if reply == b"$-1\r\n":
            return None
        length, _, value = reply.removeprefix(b"$").partition(b"\r\n")
        assert len(value) == int(length) + 2, reply
        return value[:-2]

    def delete(self, key: bytes) -> None:
        self.ask(b"DEL", key)

    def ttl(self, key: bytes) -> int | None:
        seconds = int(self.ask(b"TTL", key)[1:])
        assert seconds != -2, "no such key"
        return None if seconds == -1 else seconds

    def increment(self, key: bytes) -> int:
        return int(self.ask(b"INCR", key)[1:])


class Inline(Resp):
    """RESP's replies to what a person types."""

    def ask(self, *words: bytes) -> bytes:
        quoted = ['"' + "".join(f"\\x{byte:02x}" for byte in word) + '"' for word in words]
        return self.send(" ".join(quoted).encode() + b"\r\n")


class JsonLines(Port):
    dialect = MainPort

    def ask(self, command: str, **arguments: object) -> Any:
        request = {"command": command, "args": arguments}
        response = json.loads(self.send(json.dumps(request).encode() + b"\n"))
        if response["status"] != "OK":
            raise Refused(response["message"])
        if response.get("encoding") == "base64":
            return base64.b64decode(response["result"])
        return response.get("result")

    def set(self, key: bytes, value: bytes, ttl: int | None = None) -> None:
        encoded = base64.b64encode(value).decode()
        self.ask("SET", key=key.decode(), value=encoded, encoding="base64", ttl=ttl)

    def get(self, key: bytes) -> bytes | None:
        result = self.ask("GET", key=key.decode())
        return result.encode() if isinstance(result, str) else result

    def delete(self, key: bytes) -> None:
        self.ask("DELETE", key=key.decode())

    def ttl(self, key: bytes) -> int | None:
        return self.ask("TTL", key=key.decode())

    def increment(self, key: bytes) -> int:
        return int(self.ask("INCR", key=key.decode()))


class MemcachedText(Port):
    dialect = Memcached

    def set(self, key: bytes, value: bytes, ttl: int | None = None) -> None:
        request = b"set %b 0 %d %d\r\n%b\r\n" % (key, ttl or 0, len(value), value)
        expect(self.send(request), b"STORED\r\n")

    def get(self, key: bytes) -> bytes | None:
        reply = self.send(b"get %b\r\n" % key)
        if reply == b"END\r\n":
            return None
        _, _, value = reply.partition(b"\r\n")
        return value.removesuffix(b"\r\nEND\r\n")

    def delete(self, key: bytes) -> None:
        self.send(b"delete %b\r\n" % key)

    def ttl(self, key: bytes) -> int | None:
        seconds = int(self.send(b"mg %b t\r\n" % key).split()[1][1:])
        return None if seconds == -1 else seconds

    def increment(self, key: bytes) -> int:
        return int(self.send(b"incr %b 1\r\n" % key))


class HausLines(Port):
    dialect = Haus
    any_value = has_ttl = counts = False

    def ask(self, line: bytes) -> dict[str, str]:
        reply = self.send(line + b"\n")
        assert reply.count(b"\n") == 1, reply
        return json.loads(reply)

    def set(self, key: bytes, value: bytes, ttl: int | None = None) -> None:
        assert ttl is None
        response = self.ask(b"PUT %b %b" % (key, value))
        if response["status"] != "Ok":
            raise Refused(response["mesg"])

    def get(self, key: bytes) -> bytes | None:
        response = self.ask(b"GET %b" % key)
        if response["status"] == "Error":
            assert response["mesg"] == "Key not found!", response
            return None
        if response.get("encoding") == "base64":
            return base64.b64decode(response["result"])
        return response["result"].encode()

    def delete(self, key: bytes) -> None:
        assert self.ask(b"DEL %b" % key)["status"] == "Ok"


class HttpKeys(Port):
    """/keys/{key}, without the server around it."""

    any_key = True
    counts = False

    def open(self) -> None:
        self.api = Api(self.instance)

    def close(self) -> None:
        pass

    def path(self, key: bytes) -> str:
        return "/keys/" + urllib.parse.quote_from_bytes(key, safe="")

    def set(self, key: bytes, value: bytes, ttl: int | None = None) -> None:
        query = "" if ttl is None else f"ttl={ttl}"
        response = self.api.respond(Request("PUT", self.path(key), query, value))
        assert response.status in (201, 204), response

    def get(self, key: bytes) -> bytes | None:
        response = self.api.respond(Request("GET", self.path(key)))
        return None if response.status == 404 else response.body

    def delete(self, key: bytes) -> None:
        self.api.respond(Request("DELETE", self.path(key)))

    def ttl(self, key: bytes) -> int | None:
        headers = self.api.respond(Request("GET", self.path(key))).headers
        if "X-Expires-At" not in headers:
            return None
        return round(float(headers["X-Expires-At"]) - self.instance.store.clock())


class HttpQuery(HttpKeys):
    """/set?somekey=somevalue and /get?key=somekey, as an earlier system had them."""

    has_ttl = False

    def set(self, key: bytes, value: bytes, ttl: int | None = None) -> None:
        assert ttl is None
        query = urllib.parse.urlencode([(key, value)])
        assert self.api.respond(Request("GET", "/set", query)).status == 200

    def get(self, key: bytes) -> bytes | None:
        query = urllib.parse.urlencode({"key": key})
        response = self.api.respond(Request("GET", "/get", query))
        return None if response.status == 404 else response.body


ALL_PORTS: tuple[type[Port], ...] = (
    Resp, Inline, JsonLines, MemcachedText, HausLines, HttpKeys, HttpQuery,
)  # fmt: skip
