"""The recipes, in use."""

from __future__ import annotations

import asyncio
import unittest
from typing import Any

import kvdb
from tests.interop.integrations_case import IntegrationCase
from tests.interop.integrations_recipes import ServerSessions, cached


class StarletteSessions(IntegrationCase):
    packages = ("starlette", "httpx")

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        if not hasattr(kvdb, "AsyncClient"):
            raise unittest.SkipTest("this kvdb has no AsyncClient")

    def visit_as_a_browser(self, app: Any) -> Any:
        import httpx

        transport = httpx.ASGITransport(app)
        return httpx.AsyncClient(transport=transport, base_url="https://test")

    def make(self, db: Any) -> Any:
        from starlette.applications import Starlette
        from starlette.middleware import Middleware
        from starlette.responses import PlainTextResponse
        from starlette.routing import Route

        async def visit(request: Any) -> Any:
            request.session["visits"] = request.session.get("visits", 0) + 1
            return PlainTextResponse(str(request.session["visits"]))

        async def look(request: Any) -> Any:
            return PlainTextResponse(str(request.session))

        async def login(request: Any) -> Any:
            request.scope["session"] = {"user": "Ädä"}
            return PlainTextResponse("hello")

        async def logout(request: Any) -> Any:
            request.session.clear()
            return PlainTextResponse("bye")

        routes = [Route(f"/{view.__name__}", view) for view in (visit, look, login, logout)]
        return Starlette(routes=routes, middleware=[Middleware(ServerSessions, db=db, ttl=1000)])

    def test_sessions(self) -> None:
        async def talk() -> None:
            async with kvdb.AsyncClient.from_url(self.url) as db:
                app = self.make(db)
                async with self.visit_as_a_browser(app) as ada, self.visit_as_a_browser(app) as bob:
                    await self.check(ada, bob)

        asyncio.run(asyncio.wait_for(talk(), 60))

    async def check(self, ada: Any, bob: Any) -> None:
        async def get(browser: Any, path: str) -> str:
            return str((await browser.get(path)).text)

        self.assertEqual(await get(ada, "/look"), "{}")
        self.assertEqual((dict(ada.cookies), self.db.size()), ({}, 0))  # nothing to keep
        self.assertEqual([await get(ada, "/visit") for _ in "123"], ["1", "2", "3"])
        self.assertEqual([await get(bob, "/visit"), await get(ada, "/visit")], ["1", "4"])
        self.assertEqual(self.db.size(), 2)
        key = ada.cookies["session"]
        self.assert_ttl(f"session:{key}", 1000)
        reply = await ada.get("/look")
        for attribute in ("HttpOnly", "Secure", "SameSite=Lax", "Max-Age=1000"):
            self.assertIn(attribute, reply.headers["set-cookie"])
        await get(ada, "/login")
        self.assertNotEqual(ada.cookies["session"], key)
        self.assertFalse(self.db.exists(f"session:{key}"))
        self.assertEqual(await get(ada, "/look"), "{'user': 'Ädä'}")
        await get(ada, "/logout")
        self.assertEqual((dict(ada.cookies), self.db.size()), ({}, 1))
        ada.cookies["session"] = "chosen by somebody else"
        self.assertEqual(await get(ada, "/visit"), "1")
        self.assertFalse(self.db.exists("session:chosen by somebody else"))


class CachedFunctions(IntegrationCase):
    def setUp(self) -> None:
        super().setUp()
        self.client = kvdb.Client.from_url(self.url)
        self.addCleanup(self.client.close)

    def test_results_are_kept(self) -> None:
        calls: list[Any] = []

        @cached(self.client, ttl=500)
        def halve(number: int, *, exact: bool = True) -> float | None:
            calls.append((number, exact))
            return number / 2 if exact else None

        for _ in range(2):
            self.assertEqual([halve(1), halve(2), halve(1, exact=False)], [0.5, 1.0, None])
        self.assertEqual(calls, [(1, True), (2, True), (1, False)])
        self.assertEqual(self.db.size(), 3)
        for name in map(str, self.db.keys()):
            self.assert_ttl(name, 500)
        halve.forget(1)
        self.assertEqual([halve(1), halve(2)], [0.5, 1.0])
        self.assertEqual(calls[3:], [(1, True)])
        self.assertEqual(halve.__name__, "halve")
        with self.assertRaises(TypeError):
            halve(object())
