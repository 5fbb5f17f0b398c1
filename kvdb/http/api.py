"""What the HTTP port answers to which path. No socket in here: a Request in, a Response out."""

from __future__ import annotations

import base64
import json
import math
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from kvdb.commands.instance import Instance
from kvdb.errors import ValueTooLarge
from kvdb.http.browsing import matcher, render_rows, render_value
from kvdb.http.figures import render_figures
from kvdb.http.history import History
from kvdb.http.metrics import render_metrics
from kvdb.http.page import render_page
from kvdb.http.panels import render_clients, render_slow_requests
from kvdb.http.static_files import SERVED, content_type, static_file
from kvdb.store.entry import DATABASES, Key, key_in

TEXT: Final = "text/plain; charset=utf-8"
BYTES: Final = "application/octet-stream"
JSON: Final = "application/json"
HTML: Final = "text/html; charset=utf-8"

_ASKED_BY_BROWSERS: Final = {
    "/favicon.ico",
    "/robots.txt",
    "/apple-touch-icon.png",
    "/apple-touch-icon-precomposed.png",
    "/.well-known/appspecific/com.chrome.devtools.json",
}
"""Not there, and no mistake of whoever looks at the page: 404. For anything else that is not in the
API the earlier system answers 500, and its users rely on that."""

_METHODS: Final = "GET, HEAD, PUT, PATCH, DELETE, OPTIONS"

MAX_COUNT: Final = 1000
"""Keys in one answer of /keys, and on one page."""


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    method: str
    path: str
    query: str = ""
    body: bytes = b""
    may: Callable[..., bool] = lambda *words: True
    """Tells whether the user may make a request of the command table."""
    if_match: str | None = None
    """ETags of which a value must have one to be replaced or deleted; `*`: it must be there."""
    if_none_match: str | None = None
    """`*`: it must not be there."""

    @property
    def parameters(self) -> dict[bytes, bytes]:
        """The query's values by name; of a name that comes twice, the last."""
        return dict(_parse_query(self.query))

    @property
    def words(self) -> list[bytes]:
        """It, as MONITOR shows it."""
        target = f"{self.path}?{self.query}" if self.query else self.path
        return [self.method.encode(), target.encode("utf-8", "replace")]

    @property
    def names_key(self) -> bool:
        """Whether it is about one key: by its path, or for the page, since browsers shorten paths
        that end in `.` or `..`, by its query."""
        changes = self.method in ("PUT", "PATCH", "DELETE")
        return self.path.startswith("/keys/") or (self.path == "/api/value" and changes)

    @property
    def key(self) -> bytes:
        """The key that it is about."""
        if self.path == "/api/value":
            return self.parameters.get(b"key", b"")
        return urllib.parse.unquote_to_bytes(self.path.removeprefix("/keys/"))

    @property
    def db(self) -> int:
        """The database that the query names, or 0. Raises ValueError."""
        text = self.parameters.get(b"db", b"0")
        if not text.isdigit() or len(text) > 2 or int(text) >= DATABASES:
            raise ValueError(f"db must be a number from 0 to {DATABASES - 1}")
        return int(text)


@dataclass(frozen=True)
class Response:
    """What is answered."""

    status: int
    body: bytes = b""
    content_type: str = TEXT
    headers: dict[str, str] = field(default_factory=dict)
    events: Callable[[], bytes] | None = None
    """Makes the next event of a stream; each second it is asked for one more."""


_ABSENT: Final = Response(404, b"no such key\n")


def needs_of(request: Request) -> list[list[bytes]]:
    """Return what a request comes down to for rules about users, as commands of the table.

    Raises ValueError for a bad number of a database.
    """
    if request.method == "OPTIONS":
        return []
    if request.names_key or request.path in ("/", "/keys", "/api/keys"):
        return _select(request) + _needs_on_keys(request)
    if request.path in ("/set", "/get"):
        parameters = _parse_query(request.query)
        if len(parameters) != 1:
            return []  # 500
        ((name, value),) = parameters
        return [[b"SET", name, b""]] if request.path == "/set" else [[b"GET", value]]
    if request.path == "/api/value":
        return [*_select(request), [b"GET", request.parameters.get(b"key", b"")]]
    return _NEEDS.get(request.path, [])


_NEEDS: Final = {
    "/metrics": [[b"INFO"]],
    "/api/stats": [[b"INFO"]],
    "/api/events": [[b"INFO"]],
    "/api/clients": [[b"CLIENT", b"LIST"]],
    "/api/slowlog": [[b"SLOWLOG", b"GET"]],
}


def _select(request: Request) -> list[list[bytes]]:
    return [[b"SELECT", b"%d" % request.db]] if request.db else []


def _needs_on_keys(request: Request) -> list[list[bytes]]:
    if request.names_key:
        key = request.key
        return {
            "PUT": [[b"SET", key, b""]],
            "DELETE": [[b"DEL", key]],
            "PATCH": [[b"PEXPIRE", key, b"1"], [b"PERSIST", key]],
        }.get(request.method, [[b"GET", key]])
    return [[b"SCAN", b"0"]]  # on the page, values only of what may be read


class Api:
    """The paths of the HTTP port.

    /set and /get are an earlier system's, with its status codes: 500 for what is not in the API.
    """

    def __init__(self, instance: Instance, history: History | None = None) -> None:
        """`history` is sampled by whoever made it."""
        self._instance = instance
        self._store = instance.store
        self._history = history or History(instance)
        self._routes: dict[str, Callable[[Request], Response]] = {
            "/": self._page,
            "/api/stats": self._figures,
            "/api/events": self._events,
            "/api/clients": lambda request: Response(200, render_clients(instance), JSON),
            "/api/slowlog": lambda request: Response(200, render_slow_requests(instance), JSON),
            "/api/keys": self._rows,
            "/api/value": self._value,
            "/set": self._set,
            "/get": self._get,
            "/keys": self._list,
            "/metrics": self._metrics,
            "/healthz": self._health,
        }
        for name in SERVED:
            self._routes[f"/static/{name}"] = lambda request, name=name: _static(name)  # type: ignore[misc]

    def respond(self, request: Request) -> Response:
        """Answer a request. Raises ValueError for a bad parameter, CommandError as the store does."""
        if request.names_key:
            return self._key(request)
        route = self._routes.get(request.path)
        if route is None:
            return Response(404 if request.path in _ASKED_BY_BROWSERS else 500, b"")
        if request.method == "OPTIONS":
            return Response(204, headers={"Allow": "GET, HEAD, OPTIONS"})
        if request.method not in ("GET", "HEAD"):
            return Response(405, headers={"Allow": "GET, HEAD, OPTIONS"})
        return route(request)

    # --- the earlier system --------------------------------------------------------------

    def _set(self, request: Request) -> Response:
        parameters = _parse_query(request.query)
        if len(parameters) != 1 or request.method != "GET":
            return Response(500)
        ((name, value),) = parameters
        self._check_length(value)
        self._store.set(name, value)
        return Response(200)

    def _get(self, request: Request) -> Response:
        parameters = _parse_query(request.query)
        if len(parameters) != 1 or parameters[0][0] != b"key":
            return Response(500)
        value = self._store.get(parameters[0][1])
        return Response(404) if value is None else Response(200, value)

    # --- the REST form -------------------------------------------------------------------

    def _key(self, request: Request) -> Response:
        key = key_in(request.db, request.key)
        match request.method:
            case "GET" | "HEAD":
                return self._read(key, request.parameters.get(b"etag") == b"1")
            case "PUT" | "PATCH" | "DELETE":
                with self._store.atomic():
                    if not self._is_as_wanted(request, key):
                        return Response(412, b"it has changed since it was read\n")
                    return self._write(request, key)
            case "OPTIONS":
                return Response(204, headers={"Allow": _METHODS})
            case _:
                return Response(405, headers={"Allow": _METHODS})

    def _is_as_wanted(self, request: Request, key: Key) -> bool:
        """Tell whether a key is what If-Match and If-None-Match ask for (RFC 9110, section 13)."""
        exists, wanted = self._store.exists(key), request.if_match
        if request.if_none_match is not None and request.if_none_match.strip() == "*" and exists:
            return False
        if wanted is None:
            return True
        tags = {tag.strip() for tag in wanted.split(",")}
        return exists and ("*" in tags or etag(self._store.version(key)) in tags)

    def _read(self, key: Key, with_etag: bool) -> Response:
        """An ETag costs memory, and every write of the key a moment: only who asks gets one."""
        headers = {}
        with self._store.atomic():
            entry = self._store.get_entry(key)
            if with_etag:
                headers["ETag"] = etag(self._store.version(key))
        if entry is None:
            return _ABSENT
        if entry.expires_at is not None:
            headers["X-Expires-At"] = f"{entry.expires_at:.3f}"
        return Response(200, entry.value, BYTES, headers)

    def _write(self, request: Request, key: Key) -> Response:
        store, parameters = self._store, request.parameters
        if request.method == "DELETE":
            return Response(204) if store.delete(key) else _ABSENT
        if request.method == "PATCH" and parameters.get(b"ttl") == b"none":
            return Response(204) if store.set_deadline(key, None) else _ABSENT
        ttl = _number(parameters, "ttl")
        expires_at = None if ttl is None else store.now() + ttl
        if request.method == "PATCH":  # the deadline alone
            if ttl is None:
                raise ValueError("ttl is missing: a number of seconds, or none")
            return Response(204) if store.set_deadline(key, expires_at) else _ABSENT
        self._check_length(request.body)
        before = store.entry(key)
        if before is not None and ttl is None and parameters.get(b"keepttl") == b"1":
            expires_at = before.expires_at
        store.set(key, request.body, expires_at=expires_at)
        return Response(201 if before is None else 204)

    def _check_length(self, value: bytes) -> None:
        limit = self._instance.config.max_value_bytes
        if len(value) > limit:
            raise ValueTooLarge(limit)

    def _list(self, request: Request) -> Response:
        cursor, names = self.scan(request.parameters, request.db)
        listed = {"keys": [_json_name(name) for name in names], "cursor": str(cursor)}
        return Response(200, json.dumps(listed).encode() + b"\n", JSON)

    def scan(self, parameters: dict[bytes, bytes], db: int) -> tuple[int, list[bytes]]:
        """Return the next cursor (0: the end) and the names that a query asks for."""
        count = int(_number(parameters, "count") or 100)
        if not 1 <= count <= MAX_COUNT:
            raise ValueError(f"count must be between 1 and {MAX_COUNT}")
        cursor = parameters.get(b"cursor", b"0")
        if not cursor.isdigit() or len(cursor) > 20:
            raise ValueError("bad cursor")
        wanted = matcher(parameters)
        names: list[bytes] = []
        position = int(cursor)
        while True:  # at most once through all keys, for a prefix that few of them have
            position, found = self._store.scan(position, count - len(names), db)
            names += [name for name in found if wanted(name)]
            if not position or len(names) >= count:
                return position, names

    # --- for people and monitors ---------------------------------------------------------

    def _page(self, request: Request) -> Response:
        parameters = request.parameters
        cursor, names = self.scan(parameters, request.db)
        hidden = {name for name in names if not request.may(b"GET", name)}
        history = self._history if request.may(b"INFO") else None
        page = render_page(self._instance, history, names, cursor, parameters, request.db, hidden)
        return Response(200, page.encode(), HTML)

    def _figures(self, request: Request) -> Response:
        since = _number(request.parameters, "since") or 0.0
        self._instance.overseer.command_times()  # requests are timed while somebody looks
        figures = render_figures(self._instance, self._history, since)
        return Response(200, figures.encode(), JSON)

    def _events(self, request: Request) -> Response:
        """The same as server-sent events: each has what is new in the history."""
        since = _number(request.parameters, "since") or 0.0

        def next_event() -> bytes:
            nonlocal since
            self._instance.overseer.command_times()
            figures = render_figures(self._instance, self._history, since)
            since = self._history.last_moment() or since
            return f"data: {figures}\n".encode()

        return Response(200, content_type="text/event-stream", events=next_event)

    def _rows(self, request: Request) -> Response:
        cursor, names = self.scan(request.parameters, request.db)
        rows = render_rows(self._instance, request.db, cursor, names, request.may)
        return Response(200, rows, JSON)

    def _value(self, request: Request) -> Response:
        parameters = request.parameters
        if b"key" not in parameters:
            raise ValueError("key is missing")
        whole = parameters.get(b"whole") == b"1"
        value = render_value(self._instance, request.db, parameters[b"key"], whole, request.may)
        return Response(404, b"no such key\n") if value is None else Response(200, value, JSON)

    def _metrics(self, request: Request) -> Response:
        body = render_metrics(self._instance).encode()
        return Response(200, body, "text/plain; version=0.0.4; charset=utf-8")

    def _health(self, request: Request) -> Response:
        """Alive is 200 even where saving fails: a restart would lose what is not saved."""
        persistence = self._instance.persistence
        error = persistence.last_error if persistence else None
        dead = self._instance.dead_threads()
        state: dict[str, Any] = {"status": "degraded" if error or dead else "ok", "loaded": True}
        if dead:
            state["dead_threads"] = dead
        if persistence:
            state |= {
                "saving": persistence.in_progress,
                "last_save": round(persistence.last_save, 3),
                "changes_since_save": persistence.changes_since_save,
                "unsaved_age_seconds": round(persistence.age, 3),
                # What went wrong names a path, and this is told without a password.
                "error": "saving fails" if error else None,
            }
        return Response(200, json.dumps(state).encode() + b"\n", JSON)


def etag(version: int) -> str:
    """Return how a version of a key is called in headers."""
    return f'"{version}"'


def _static(name: str) -> Response:
    return Response(200, static_file(name), content_type(name))


def _parse_query(query: str) -> list[tuple[bytes, bytes]]:
    """Return names and values of a query, as bytes; an empty query has none."""
    pairs = []
    for part in query.split("&") if query else []:
        name, _, value = part.replace("+", " ").partition("=")
        pairs.append((urllib.parse.unquote_to_bytes(name), urllib.parse.unquote_to_bytes(value)))
    return pairs


def _number(parameters: dict[bytes, bytes], name: str) -> float | None:
    text = parameters.get(name.encode())
    if text is None:
        return None
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < 1e12:
        raise ValueError(f"{name} must be a number above 0")
    return number


def _json_name(name: bytes) -> str | dict[str, str]:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(name).decode()}
