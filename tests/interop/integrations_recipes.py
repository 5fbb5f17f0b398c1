"""Two recipes, to be copied and changed: sessions for Starlette or FastAPI, and a cache decorator."""

from __future__ import annotations

import functools
import hashlib
import json
import secrets
from collections.abc import Callable
from http.cookies import SimpleCookie
from typing import Any

import kvdb


class ServerSessions:
    """Keeps `request.session` on the server; the cookie holds nothing but a random key.

    app = Starlette(routes=..., middleware=[Middleware(ServerSessions, db=kvdb.AsyncClient())])

    A session lives for `ttl` seconds after its last request. What it holds must be JSON. A view that
    logs somebody in starts a session with a new key: `request.scope["session"] = {"user": 5}`. One
    that is emptied, `request.session.clear()`, is deleted. `secure`: only by HTTPS.
    """

    def __init__(self, app: Any, db: Any, ttl: int = 14 * 86_400, secure: bool = True) -> None:
        self.app, self.db, self.ttl = app, db.namespace("session:"), ttl
        self.attributes = "Path=/; HttpOnly; SameSite=Lax" + "; Secure" * secure

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        cookies = SimpleCookie(dict(scope["headers"]).get(b"cookie", b"").decode("latin-1"))
        key = cookies["session"].value if "session" in cookies else ""
        session = await self.db.get_and_expire(key, self.ttl) if key else None
        is_known = session is not None
        session = scope["session"] = session or {}
        before = json.dumps(session)

        async def send_with_cookie(message: Any) -> None:
            now = scope["session"]
            if message["type"] == "http.response.start" and (now or is_known):
                # A key that we have not given out is never taken over.
                same = is_known and now is session and bool(now)
                name = key if same else secrets.token_urlsafe(32)
                if now and not (same and json.dumps(now) == before):
                    await self.db.set(name, now, ttl=self.ttl)
                if is_known and not same:
                    await self.db.delete(key)
                cookie = f"session={name}; Max-Age={self.ttl if now else 0}; {self.attributes}"
                message["headers"] = [*message["headers"], (b"set-cookie", cookie.encode())]
            await send(message)

        await self.app(scope, receive, send_with_cookie)


def cached(db: kvdb.Client[Any], ttl: float) -> Callable[[Callable[..., Any]], Any]:
    """Decorate a function so that its results are kept for `ttl` seconds, for all processes.

    As functools.cache, but arguments and results must be JSON. `function.forget(...)` deletes the
    result for these arguments.
    """

    def decorate(function: Callable[..., Any]) -> Any:
        prefix = f"cached:{function.__module__}.{function.__qualname__}:"
        missing = object()  # None is a result, too

        def key(arguments: Any, options: Any) -> str:
            text = json.dumps([arguments, options], sort_keys=True)
            return prefix + hashlib.sha256(text.encode()).hexdigest()

        @functools.wraps(function)
        def call(*arguments: Any, **options: Any) -> Any:
            name = key(arguments, options)
            result = db.get(name, missing)
            if result is missing:
                result = function(*arguments, **options)
                db.set(name, result, ttl=ttl)
            return result

        def forget(*arguments: Any, **options: Any) -> None:
            db.delete(key(arguments, options))

        call.forget = forget  # type: ignore[attr-defined]
        return call

    return decorate
