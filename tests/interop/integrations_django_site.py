"""What Django keeps in a cache by itself: pages, fragments of templates, sessions."""

from __future__ import annotations

from typing import Any

from tests.interop.integrations_case import DAY
from tests.interop.integrations_django_case import DjangoCase


class DjangoPages(DjangoCase):
    def setUp(self) -> None:
        from django.test import RequestFactory

        super().setUp()
        self.requests = RequestFactory()
        self.calls: list[str] = []

    def view(self, request: Any) -> Any:
        from django.http import HttpResponse

        self.calls.append(request.get_full_path())
        return HttpResponse(f"page {len(self.calls)}", headers={"X-Kind": "ü page"})

    def test_middleware_for_the_whole_site(self) -> None:
        from django.middleware.cache import FetchFromCacheMiddleware, UpdateCacheMiddleware
        from django.test.utils import override_settings

        with override_settings(
            CACHE_MIDDLEWARE_ALIAS="prefixed",
            CACHE_MIDDLEWARE_KEY_PREFIX="site",
            CACHE_MIDDLEWARE_SECONDS=DAY,
        ):
            site = UpdateCacheMiddleware(FetchFromCacheMiddleware(self.view))
            replies = [site(self.requests.get(f"/p?n={n}")) for n in (1, 2, 1, 2)]
            self.assertEqual([reply.content for reply in replies], [b"page 1", b"page 2"] * 2)
            self.assertEqual(replies[2]["X-Kind"], replies[0]["X-Kind"])
            self.assertEqual(self.calls, ["/p?n=1", "/p?n=2"])
            site(self.requests.post("/p?n=1"))
            self.assertEqual(self.calls[2:], ["/p?n=1"])
        keys = list(map(str, self.db.keys()))
        self.assertEqual(len(keys), 4)  # for each a page, and the names of headers it varies on
        for key in keys:
            self.assertRegex(key, r"cacheprefix:1:views\.decorators\.cache\.cache_(page|header)\.")
            self.assert_ttl(key, DAY)

    def test_decorator_of_a_view(self) -> None:
        from django.views.decorators.cache import cache_page
        from django.views.decorators.vary import vary_on_headers

        view = cache_page(100)(vary_on_headers("X-Colour")(self.view))
        bodies = [
            view(self.requests.get("/", headers={"x-colour": each})).content
            for each in ("red", "blue", "red", "blue")
        ]
        self.assertEqual(bodies, [b"page 1", b"page 2"] * 2)

    def test_fragments_of_templates(self) -> None:
        from django.core.cache.utils import make_template_fragment_key
        from django.template import Context, Engine

        engine = Engine(libraries={"cache": "django.templatetags.cache"})
        text = "{% load cache %}{% cache 500 sidebar user %}{{ value }}{% endcache %}"
        template = engine.from_string(text)
        shown = [
            template.render(Context({"user": user, "value": f"ü{number}"}))
            for number, user in enumerate("abab")
        ]
        self.assertEqual(shown, ["ü0", "ü1", "ü0", "ü1"])
        key = make_template_fragment_key("sidebar", ["a"])
        self.assert_ttl(f":1:{key}", 500)
        self.assertIs(self.cache.delete(key), True)
        self.assertEqual(template.render(Context({"user": "a", "value": "new"})), "new")


class DjangoSessions(DjangoCase):
    def settings(self) -> dict[str, Any]:
        found = super().settings()
        return found | {"sessions in JSON": found["json"]}

    def test_a_session_lives_as_long_as_it_says(self) -> None:
        from django.contrib.sessions.backends.cache import SessionStore

        session = SessionStore()
        session["user"] = {"name": "Ada"}
        session.set_expiry(DAY)
        session.save()
        [key] = self.db.keys()
        self.assert_ttl(str(key), DAY)
        again = SessionStore(session.session_key)
        self.assertEqual(again["user"], {"name": "Ada"})
        again.cycle_key()
        self.assertEqual(again["user"], {"name": "Ada"})
        self.assertIs(SessionStore().exists(session.session_key), False)
        self.assertIs(SessionStore().exists(again.session_key), True)
        again.flush()
        self.assertEqual(self.db.size(), 0)

    def test_browsers(self) -> None:
        for alias in ("default", "sessions in JSON"):
            with self.subTest(alias):
                self.browse(alias)

    def browse(self, alias: str) -> None:
        from django.contrib.sessions.middleware import SessionMiddleware
        from django.http import HttpResponse
        from django.test import RequestFactory
        from django.test.utils import override_settings

        def view(request: Any) -> Any:
            request.session["visits"] = request.session.get("visits", 0) + 1
            return HttpResponse(str(request.session["visits"]))

        def visit(browser: RequestFactory) -> str:
            response = site(browser.get("/"))
            browser.cookies.update(response.cookies)
            return str(response.content.decode())

        with override_settings(
            SESSION_ENGINE="django.contrib.sessions.backends.cache", SESSION_CACHE_ALIAS=alias
        ):
            site = SessionMiddleware(view)
            ada, bob = RequestFactory(), RequestFactory()
            self.assertEqual([visit(ada) for _ in "123"], ["1", "2", "3"])
            self.assertEqual([visit(bob), visit(ada)], ["1", "4"])
