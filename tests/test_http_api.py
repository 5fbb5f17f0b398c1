from __future__ import annotations

import base64
import json
import re
import threading
import unittest
import urllib.parse
from html.parser import HTMLParser
from unittest import mock

import kvdb
from kvdb.commands.instance import Instance
from kvdb.commands.session import Session
from kvdb.config import Config
from kvdb.errors import EntryTooLarge, OutOfMemory, ValueTooLarge
from kvdb.http.api import MAX_COUNT, Api, Request, Response, needs_of
from kvdb.http.browsing import CUT
from kvdb.memory import CONNECTION_BYTES
from kvdb.store import Store
from kvdb.store.budget import EvictionPolicy
from kvdb.store.entry import Entry
from kvdb.store.scans import HASHES, hash_of
from tests.support import ManualClock

EVERY_BYTE = bytes(range(256))


def quoted(data: bytes) -> str:
    """Return bytes with every one of them percent-encoded."""
    return "".join(f"%{byte:02X}" for byte in data)


class ApiTest(unittest.TestCase):
    def setUp(self) -> None:
        self.use(Config())

    def use(self, config: Config, persistence: mock.Mock | None = None) -> None:
        self.clock = ManualClock()
        self.store = Store(config.max_bytes, clock=self.clock)
        self.instance = Instance(self.store, config, persistence, monotonic=ManualClock(0))
        self.api = Api(self.instance)

    def ask(
        self, target: str, method: str = "GET", body: bytes = b"", if_match: str | None = None
    ) -> Response:
        path, _, query = target.partition("?")
        return self.api.respond(Request(method, path, query, body, if_match=if_match))

    def assert_answers(
        self, target: str, status: int, body: bytes = b"", method: str = "GET"
    ) -> None:
        with self.subTest(target, method=method):
            response = self.ask(target, method)
            self.assertEqual((response.status, response.body), (status, body))

    def listed(self, query: str = "") -> tuple[list[object], str]:
        response = self.ask(f"/keys{query}")
        self.assertEqual((response.status, response.content_type), (200, "application/json"))
        answer = json.loads(response.body)
        self.assertEqual(set(answer), {"keys", "cursor"})
        return answer["keys"], answer["cursor"]


class EarlierSystemTest(ApiTest):
    def test_what_is_set_is_got(self) -> None:
        self.assert_answers("/set?somekey=somevalue", 200)
        self.assert_answers("/get?key=somekey", 200, b"somevalue")
        self.assertEqual(self.ask("/get?key=somekey").content_type, "text/plain; charset=utf-8")

    def test_a_missing_key_is_404_with_nothing_said(self) -> None:
        self.assert_answers("/get?key=missing", 404)

    def test_what_is_not_in_the_api_is_500(self) -> None:
        for target in (
            "/malformed",
            "/get",
            "/get?",
            "/get?other=x",
            "/get?key=a&key=b",
            "/get?key=a&",
            "/set",
            "/set?",
            "/set?a=1&b=2",
            "/set/?a=1",
            "/GET?key=a",
            "",
            "/../../etc/passwd",
            "/..%2f..%2fetc%2fpasswd",
        ):
            self.assert_answers(target, 500)
        self.assertEqual(self.store.size(), 0)

    def test_what_browsers_ask_for_on_their_own_is_404(self) -> None:
        for target in ("/favicon.ico", "/robots.txt", "/apple-touch-icon.png"):
            self.assert_answers(target, 404)

    def test_the_value_goes_up_to_the_end_whatever_equals_signs_it_holds(self) -> None:
        self.assert_answers("/set?formula=a=b=c", 200)
        self.assert_answers("/get?key=formula", 200, b"a=b=c")

    def test_key_and_value_may_be_empty(self) -> None:
        self.assert_answers("/set?empty=", 200)
        self.assert_answers("/get?key=empty", 200)
        self.assert_answers("/set?=v", 200)
        self.assert_answers("/get?key=", 200, b"v")

    def test_percent_encoding_and_plus_are_decoded_once(self) -> None:
        for sent, key, value in (
            ("a+b=c+d", b"a b", b"c d"),
            ("a%2Bb=c%2bd", b"a+b", b"c+d"),
            ("a%20b=c%20d", b"a b", b"c d"),
            ("a%26b=c%3Dd%26", b"a&b", b"c=d&"),
            ("a%2541=%2500", b"a%41", b"%00"),
            ("broken%=%zz", b"broken%", b"%zz"),
            ("%C3%A9=%e2%82%ac", "é".encode(), "€".encode()),
            (f"{quoted(EVERY_BYTE)}={quoted(EVERY_BYTE)}", EVERY_BYTE, EVERY_BYTE),
        ):
            with self.subTest(sent):
                self.assertEqual(self.ask(f"/set?{sent}").status, 200)
                self.assertEqual(self.store.get(key), value)
                self.assertEqual(self.ask(f"/get?key={quoted(key)}").body, value)

    def test_a_set_ends_an_old_deadline(self) -> None:
        self.store.set(b"k", b"old", expires_at=self.clock.now + 1)
        self.ask("/set?k=new")
        self.clock.now += 2
        self.assert_answers("/get?key=k", 200, b"new")

    def test_other_methods_neither_write_nor_read(self) -> None:
        self.store.set(b"k", b"old")
        for method in ("POST", "PUT", "DELETE", "PATCH"):
            for target in ("/set?k=new", "/get?key=k", "/", "/keys", "/metrics", "/healthz"):
                self.assert_answers(target, 405, method=method)
        self.assert_answers("/set?k=new", 500, method="HEAD")
        self.assertEqual(self.store.get(b"k"), b"old")

    def test_a_value_longer_than_allowed_is_refused(self) -> None:
        self.use(Config(max_value_bytes=5))
        self.assert_answers("/set?k=12345", 200)
        with self.assertRaises(ValueTooLarge):
            self.ask("/set?k=123456")
        self.assertEqual(self.store.get(b"k"), b"12345")


class RestTest(ApiTest):
    def test_put_tells_new_from_replaced(self) -> None:
        self.assertEqual(self.ask("/keys/k", "PUT", b"1").status, 201)
        self.assertEqual(self.ask("/keys/k", "PUT", b"2").status, 204)
        self.assert_answers("/keys/k", 200, b"2")

    def test_a_key_that_has_expired_is_created_anew(self) -> None:
        self.store.set(b"k", b"old", expires_at=self.clock.now + 1)
        self.clock.now += 1
        self.assert_answers("/keys/k", 404, b"no such key\n")
        self.assertEqual(self.ask("/keys/k", "PUT", b"2").status, 201)

    def test_keys_and_values_are_any_bytes(self) -> None:
        for key in (EVERY_BYTE, b"a/b/c", b"a+b", b"a b", b"..", b"?#&=%", b"", "ключ".encode()):
            with self.subTest(key):
                path = f"/keys/{urllib.parse.quote_from_bytes(key, safe='/+')}"
                self.ask(path, "PUT", EVERY_BYTE + key)
                self.assertEqual(self.store.get(key), EVERY_BYTE + key)
                response = self.ask(path)
                self.assertEqual(response.body, EVERY_BYTE + key)
                self.assertEqual(response.content_type, "application/octet-stream")
                self.assertEqual(self.ask(path, "DELETE").status, 204)
                self.assertFalse(self.store.exists(key))

    def test_delete_tells_whether_the_key_was_there(self) -> None:
        self.store.set(b"k", b"v")
        self.assert_answers("/keys/k", 204, method="DELETE")
        self.assert_answers("/keys/k", 404, b"no such key\n", method="DELETE")

    def test_a_ttl_is_kept_shown_and_ended_by_the_next_put(self) -> None:
        self.ask("/keys/k?ttl=1.5", "PUT", b"v")
        self.assertEqual(self.ask("/keys/k").headers["X-Expires-At"], "1000001.500")
        self.ask("/keys/k", "PUT", b"v")
        self.assertEqual(self.ask("/keys/k").headers, {})
        self.ask("/keys/k?ttl=2", "PUT", b"v")
        self.clock.now += 2
        self.assertEqual(self.ask("/keys/k").status, 404)

    def test_patch_changes_the_ttl_alone(self) -> None:
        self.assertEqual(self.ask("/keys/k?ttl=5", "PATCH").status, 404)
        self.store.set(b"k", b"v")
        self.assertEqual(self.ask("/keys/k?ttl=5", "PATCH").status, 204)
        entry = self.store.entry(b"k")
        self.assertEqual((entry and entry.value, entry and entry.expires_at), (b"v", 1_000_005.0))
        self.assertEqual(self.ask("/keys/k?ttl=none", "PATCH").status, 204)
        self.assertEqual(self.ask("/keys/k").headers, {})
        for ttl in ("", "?ttl=0", "?ttl=x"):
            with self.assertRaisesRegex(ValueError, "ttl"):
                self.ask(f"/keys/k{ttl}", "PATCH")

    def test_keepttl_keeps_the_ttl_of_what_is_replaced(self) -> None:
        self.store.set(b"k", b"v", expires_at=self.clock.now + 5)
        self.ask("/keys/k?keepttl=1", "PUT", b"w")
        self.assertEqual(self.store.entry(b"k"), Entry(b"w", self.clock.now + 5))
        self.assertEqual(self.ask("/keys/new?keepttl=1", "PUT", b"w").status, 201)

    def test_a_change_can_depend_on_what_was_read(self) -> None:
        self.store.set(b"k", b"v")
        self.assertNotIn("ETag", self.ask("/keys/k").headers)
        tag = self.ask("/keys/k?etag=1").headers["ETag"]
        self.assertEqual(self.ask("/keys/k", "PUT", b"w", if_match=tag).status, 204)
        for method in ("PUT", "PATCH", "DELETE"):
            self.assertEqual(self.ask("/keys/k?ttl=5", method, b"x", if_match=tag).status, 412)
        self.assertEqual(self.store.entry(b"k"), Entry(b"w"))
        self.assertEqual(self.ask("/keys/absent", "PUT", b"w", if_match=tag).status, 412)
        tag = self.ask("/keys/k?etag=1").headers["ETag"]
        self.assertEqual(self.ask("/keys/k", "DELETE", if_match=tag).status, 204)

    def test_conditions_are_those_of_rfc_9110(self) -> None:
        self.store.set(b"k", b"v")
        tag = self.ask("/keys/k?etag=1").headers["ETag"]
        for path, fields, status in (
            ("/keys/k", {"if_match": f'"x", {tag}'}, 204),
            ("/keys/k", {"if_match": tag}, 412),
            ("/keys/k", {"if_match": "*"}, 204),
            ("/keys/new", {"if_match": "*"}, 412),
            ("/keys/k", {"if_none_match": "*"}, 412),
            ("/keys/new", {"if_none_match": "*"}, 201),
        ):
            with self.subTest(path, **fields):
                path_only, _, query = path.partition("?")
                request = Request("PUT", path_only, query, b"w", **fields)
                self.assertEqual(self.api.respond(request).status, status)

    def test_the_page_names_keys_by_its_query(self) -> None:
        self.store.set(b".", b"v")
        self.store.set(b"", b"v")
        self.assertEqual(self.ask("/api/value?key=.", "DELETE").status, 204)
        self.assertEqual(self.ask("/api/value?key=x", "PUT", b"v").status, 201)
        self.assertEqual(self.ask("/api/value?key=x&ttl=5", "PATCH").status, 204)
        self.assertEqual(needs_of(Request("DELETE", "/api/value", "key=x")), [[b"DEL", b"x"]])
        self.assertEqual(set(self.store.dump().keys), {b"", b"x"})

    def test_a_ttl_that_is_no_positive_number_is_refused(self) -> None:
        for ttl in ("0", "-1", "x", "", "nan", "inf", "1e400", "0x10", "%ff", "1e12"):
            with self.subTest(ttl), self.assertRaisesRegex(ValueError, "ttl must be"):
                self.ask(f"/keys/k?ttl={ttl}", "PUT", b"v")
        self.assertFalse(self.store.exists(b"k"))

    def test_head_is_get_for_the_server_to_cut(self) -> None:
        self.store.set(b"k", b"v")
        self.assertEqual(self.ask("/keys/k", "HEAD"), self.ask("/keys/k"))
        self.assertEqual(self.ask("/keys/none", "HEAD").status, 404)

    def test_options_and_refusals_list_the_methods(self) -> None:
        for target, allowed in (
            ("/keys/k", "GET, HEAD, PUT, PATCH, DELETE, OPTIONS"),
            ("/keys", "GET, HEAD, OPTIONS"),
            ("/", "GET, HEAD, OPTIONS"),
        ):
            for method, status in (("OPTIONS", 204), ("POST", 405), ("TRACE", 405)):
                with self.subTest(target, method=method):
                    response = self.ask(target, method)
                    self.assertEqual(response.status, status)
                    self.assertEqual(response.headers, {"Allow": allowed})

    def test_what_does_not_fit_is_refused_and_the_old_value_stays(self) -> None:
        self.use(Config(max_bytes=2000, max_value_bytes=3000))
        self.store.set(b"k", b"old")
        for size, refusal in ((2500, EntryTooLarge), (3001, ValueTooLarge)):
            with self.assertRaises(refusal):
                self.ask("/keys/k", "PUT", b"x" * size)
        self.store.policy = EvictionPolicy.NOEVICTION
        self.store.set(b"other", b"x" * 1200)
        with self.assertRaises(OutOfMemory):
            self.ask("/keys/k", "PUT", b"x" * 1000)
        self.assertEqual(self.store.get(b"k"), b"old")
        self.store.check()


class ListTest(ApiTest):
    def test_an_empty_store_lists_nothing(self) -> None:
        self.assertEqual(self.listed(), ([], "0"))

    def test_names_are_text_or_else_base64(self) -> None:
        names = [b"plain", "grün".encode(), b"\xff\x00", b'"quoted"\n']
        for name in names:
            self.store.set(name, b"v")
        keys, _ = self.listed()
        encoded = base64.b64encode(b"\xff\x00").decode()
        self.assertCountEqual(keys, ["plain", "grün", {"base64": encoded}, '"quoted"\n'])

    def test_every_key_is_listed_once_page_by_page(self) -> None:
        names = {f"key:{number}" for number in range(25)}
        for name in names:
            self.store.set(name.encode(), b"v")
        found: list[object] = []
        pages, cursor = 0, "0"
        while pages == 0 or cursor != "0":
            keys, cursor = self.listed(f"?count=10&cursor={cursor}")
            self.assertLessEqual(len(keys), 10)
            found += keys
            pages += 1
        self.assertEqual((len(found), set(found), pages), (25, names, 3))

    def test_a_page_is_full_however_rare_the_prefix(self) -> None:
        for number in range(1000):
            self.store.set(b"common:%d" % number, b"v")
            if number % 100 == 0:
                self.store.set(b"rare+:%d" % number, b"v")
        keys, cursor = self.listed("?prefix=rare%2b:&count=7")
        more, end = self.listed(f"?prefix=rare%2b:&count=7&cursor={cursor}")
        self.assertEqual((len(keys), len(more), end), (7, 3, "0"))
        self.assertEqual({*keys, *more}, {f"rare+:{number}" for number in range(0, 1000, 100)})
        self.assertEqual(self.listed("?prefix=none"), ([], "0"))

    def test_a_prefix_is_bytes_and_need_not_end_with_a_character(self) -> None:
        self.store.set("é".encode(), b"v")
        self.assertEqual(self.listed("?prefix=%C3"), (["é"], "0"))

    def test_a_page_has_a_hundred_keys_unless_told_otherwise_and_a_thousand_at_most(self) -> None:
        for number in range(MAX_COUNT + 1):
            self.store.set(b"%d" % number, b"v")
        self.assertEqual(len(self.listed()[0]), 100)
        self.assertEqual(len(self.listed(f"?count={MAX_COUNT}")[0]), MAX_COUNT)

    def test_a_bad_count_or_cursor_is_refused(self) -> None:
        for query in ("count=0", "count=1001", "count=-1", "count=x", "count=", "count=nan"):
            with self.subTest(query), self.assertRaisesRegex(ValueError, "count must be"):
                self.ask(f"/keys?{query}")
        for query in ("cursor=x", "cursor=-1", "cursor=", "cursor=%d9%a1", "cursor=" + "9" * 30):
            with self.subTest(query), self.assertRaisesRegex(ValueError, "bad cursor"):
                self.ask(f"/keys?{query}")

    def test_any_number_is_a_good_cursor_and_one_beyond_all_places_the_end(self) -> None:
        names = [b"%d" % number for number in range(200)]
        for name in names:
            self.store.set(name, b"v")
        in_order = sorted(names, key=hash_of)
        for cursor in (0, 1, 12345, 2**30, hash_of(in_order[100]), HASHES - 1):
            rest = {name.decode() for name in names if hash_of(name) >= cursor}
            keys, end = self.listed(f"?cursor={cursor}&count=1000")
            self.assertEqual((len(keys), set(map(str, keys)), end), (len(rest), rest, "0"))
        for cursor in (HASHES, 2**64 - 1, 10**19):
            self.assertEqual(self.listed(f"?cursor={cursor}"), ([], "0"))

    def test_a_cursor_is_below_2_to_the_32_and_good_in_another_server(self) -> None:
        for number in range(300):
            self.store.set(b"%d" % number, b"v")
        first, cursor = self.listed("?count=100")
        self.assertTrue(0 < int(cursor) < HASHES)
        other = Api(Instance(Store(0), Config()))
        for number in range(300):
            other._store.set(b"%d" % number, b"v")
        rest = json.loads(other.respond(Request("GET", "/keys", f"cursor={cursor}&count=500")).body)
        self.assertEqual(len(first) + len(rest["keys"]), 300)
        self.assertEqual(rest["cursor"], "0")

    def test_keys_of_other_databases_are_not_listed(self) -> None:
        session = Session(self.instance)
        for request in ([b"SELECT", b"3"], [b"SET", b"elsewhere", b"v"]):
            session.execute(request)
        self.assertEqual(self.listed(), ([], "0"))
        self.assertEqual(self.ask("/keys/elsewhere").status, 404)


def failing_persistence(error: str | None) -> mock.Mock:
    return mock.Mock(
        last_error=error,
        failing_since=None,
        last_duration=None,
        saves=0,
        path="kvdb.json",
        in_progress=False,
        last_save=999_000.25,
        changes_since_save=7,
        age=12.3456,
        held_bytes=5000,
        congested=False,
    )


class HealthTest(ApiTest):
    def health(self) -> dict[str, object]:
        response = self.ask("/healthz")
        self.assertEqual((response.status, response.content_type), (200, "application/json"))
        answer = json.loads(response.body)
        assert isinstance(answer, dict)
        return answer

    def test_a_server_without_a_file_is_well(self) -> None:
        self.assertEqual(self.health(), {"status": "ok", "loaded": True})

    def test_it_tells_of_saving(self) -> None:
        self.use(Config(), failing_persistence(None))
        answer = self.health()
        self.assertEqual((answer["status"], answer["error"]), ("ok", None))
        self.assertEqual((answer["last_save"], answer["changes_since_save"]), (999_000.25, 7))
        self.assertEqual((answer["saving"], answer["unsaved_age_seconds"]), (False, 12.346))

    def test_alive_but_unable_to_save_is_degraded_and_still_200(self) -> None:
        self.use(Config(), failing_persistence("/srv/secret.json: disk full"))
        answer = self.health()
        # It is told to everybody: no path.
        self.assertEqual((answer["status"], answer["error"]), ("degraded", "saving fails"))

    def test_a_background_thread_that_died_is_named_and_still_200(self) -> None:
        thread = threading.Thread(target=lambda: None, name="reaper")
        thread.start()
        thread.join()
        self.instance.background += [threading.current_thread(), thread]
        answer = self.health()
        self.assertEqual((answer["status"], answer["dead_threads"]), ("degraded", ["reaper"]))


Metrics = dict[str, dict[tuple[tuple[str, str], ...], float]]

_COMMENT = re.compile(r"# (HELP|TYPE) ([a-zA-Z_:][a-zA-Z0-9_:]*) (\S.*)")
_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{([^{}]*)\})? (\S+)")
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\["\\n])*)"')


def parse_metrics(text: str) -> Metrics:
    """Return the samples by name and labels. Raises ValueError wherever the format is broken."""
    if not text.endswith("\n") or "\r" in text:
        raise ValueError("every line ends with a newline")
    metrics: Metrics = {}
    helped: set[str] = set()
    kinds: dict[str, str] = {}
    current = ""
    for line in text[:-1].split("\n"):
        if match := _COMMENT.fullmatch(line):
            what, name, rest = match.groups()
            seen = helped if what == "HELP" else set(kinds)
            if name in seen or name in metrics:
                raise ValueError(f"a second {what} of {name}, or one behind its samples")
            if what == "HELP":
                helped.add(name)
            elif rest in ("counter", "gauge", "histogram", "summary", "untyped"):
                kinds[name], metrics[name] = rest, {}
            else:
                raise ValueError(f"unknown type: {line}")
            current = name
        elif match := _SAMPLE.fullmatch(line):
            name, labels, number = match.groups()
            if name != current or name not in kinds or name not in helped:
                raise ValueError(f"not below its own HELP and TYPE: {line}")
            if (kinds[name] == "counter") != name.endswith("_total"):
                raise ValueError(f"{name} is a {kinds[name]}")
            pairs = tuple(_LABEL.findall(labels or ""))
            if ",".join(f'{label}="{value}"' for label, value in pairs) != (labels or ""):
                raise ValueError(f"broken labels: {line}")
            if pairs in metrics[name]:
                raise ValueError(f"the same twice: {line}")
            metrics[name][pairs] = float(number)
        else:
            raise ValueError(f"unreadable: {line!r}")
    return metrics


class MetricsTest(ApiTest):
    def metrics(self) -> Metrics:
        response = self.ask("/metrics")
        self.assertEqual(response.status, 200)
        self.assertEqual(response.content_type, "text/plain; version=0.0.4; charset=utf-8")
        return parse_metrics(response.body.decode())

    def assert_metrics(self, **expected: float | None) -> None:
        metrics = self.metrics()
        found = {name: metrics.get(f"redis_{name}", {}).get(()) for name in expected}
        self.assertEqual(found, expected)

    def test_the_parser_of_this_test_is_strict(self) -> None:
        head = "# HELP a_b text\n# TYPE a_b gauge\n"
        self.assertEqual(parse_metrics(head + "a_b 1\n"), {"a_b": {(): 1}})
        for broken in (
            head + "a_b 1",
            head + "a_b\n",
            head + "a_b 1\na_b 2\n",
            head + "a_b one\n",
            head + 'a_b{x="1" 1\n',
            head + 'a_b{x="1"y="2"} 1\n',
            head + "a_b{x=1} 1\n",
            head + "other 1\n",
            head + head + "a_b 1\n",
            "a_b 1\n",
            "# TYPE a_b thing\n",
            "\n",
        ):
            with self.subTest(broken), self.assertRaises(ValueError):
                parse_metrics(broken)

    def test_a_fresh_server_has_zeros(self) -> None:
        self.assert_metrics(
            up=1,
            uptime_in_seconds=0,
            connected_clients=0,
            commands_processed_total=0,
            keyspace_hits_total=0,
            memory_used_bytes=0,
            memory_max_bytes=64 * 1024 * 1024,
            mem_clients_normal=0,
            mem_not_counted_for_eviction_bytes=0,
            dead_threads=0,
            unsaved_age_seconds=None,
            rdb_last_bgsave_status=None,
        )
        self.assertEqual(self.metrics()["redis_db_keys"], {})

    def test_its_figures_are_true(self) -> None:
        session = Session(self.instance)
        self.assertTrue(self.instance.enter())
        self.instance.admit(session)
        for line in (b"SET a 1", b"SET b 2 EX 10", b"GET a", b"GET x", b"GET y"):
            session.execute(line.split())
        for line in (b"SELECT 3", b"SET c 3 PX 1", b"SET d 4"):
            session.execute(line.split())
        session.counts["received"] += 1_000_000
        self.clock.now += 1
        self.store.expire_due()
        self.instance.accounts.report(session, 70_000)
        self.assert_metrics(
            connected_clients=1,
            connections_received_total=1,
            rejected_connections_total=0,
            commands_processed_total=8,
            net_input_bytes_total=1_000_000,
            keyspace_hits_total=1,
            keyspace_misses_total=2,
            expired_keys_total=1,
            evicted_keys_total=0,
            config_maxclients=10_000,
            memory_used_bytes=self.store.used_bytes,
            mem_clients_normal=70_000,
            mem_not_counted_for_eviction_bytes=70_000 + CONNECTION_BYTES,
        )
        metrics = self.metrics()
        db0, db3 = (("db", "db0"),), (("db", "db3"),)
        self.assertEqual(metrics["redis_db_keys"], {db0: 2, db3: 1})
        self.assertEqual(metrics["redis_db_keys_expiring"], {db0: 1, db3: 0})
        ((labels, value),) = metrics["redis_instance_info"].items()
        self.assertEqual((dict(labels)["kvdb_version"], value), (kvdb.__version__, 1))

    def test_large_figures_keep_every_digit(self) -> None:
        self.use(Config(max_bytes=2**50 + 1))
        self.assert_metrics(memory_max_bytes=2**50 + 1)

    def test_evictions_are_counted(self) -> None:
        self.use(Config(max_bytes=1500))
        for number in range(20):
            self.store.set(b"%d" % number, b"x" * 100)
        evicted = self.store.evicted_keys
        self.assertGreater(evicted, 0)
        self.assert_metrics(evicted_keys_total=evicted)

    def test_threads_that_died_are_counted(self) -> None:
        self.instance.background += [threading.current_thread(), threading.Thread()]
        self.assert_metrics(dead_threads=1)

    def test_a_failed_save_shows(self) -> None:
        for error, ok in ((None, 1), ("disk full", 0)):
            self.use(Config(), failing_persistence(error))
            self.assert_metrics(
                rdb_last_bgsave_status=ok,
                rdb_bgsave_in_progress=0,
                rdb_changes_since_last_save=7,
                rdb_last_save_timestamp_seconds=999_000.25,
                unsaved_age_seconds=12.3456,
                mem_not_counted_for_eviction_bytes=5000,
            )


class _Page(HTMLParser):
    """What a browser makes of the page: its tags, and the text inside some of them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.keys: list[str] = []
        self.values: list[str] = []
        self.outside = ""  # all text that is not within <details>
        self.feed(text)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "input"):
            self.open.append(tag)
        if tag == "details":
            self.keys.append("")
            self.values.append("")

    def handle_endtag(self, tag: str) -> None:
        opened = self.open.pop()
        assert opened == tag, f"</{tag}> ends <{opened}>"

    def handle_data(self, data: str) -> None:
        if "details" not in self.open:
            self.outside += data
        elif self.open[-2:] == ["summary", "code"]:
            self.keys[-1] += data
        elif self.open[-1] == "pre":
            self.values[-1] += data

    @property
    def shown(self) -> dict[str, str]:
        """Values by key, without the newline that browsers drop after <pre>."""
        return dict(
            zip(self.keys, (value.removeprefix("\n") for value in self.values), strict=True)
        )

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


class PageTest(ApiTest):
    def page(self, query: str = "") -> _Page:
        response = self.ask(f"/{query}")
        self.assertEqual(
            (response.status, response.content_type), (200, "text/html; charset=utf-8")
        )
        return _Page(response.body.decode())

    def test_an_empty_store_says_so(self) -> None:
        page = self.page()
        self.assertEqual(page.keys, [])
        self.assertIn("No keys.", page.outside)
        self.assertIn("0 keys", page.outside)

    def test_values_are_inside_details_which_start_closed(self) -> None:
        self.store.set(b"user:1", b"Ada")
        self.store.set(b"user:2", b"Grace")
        page = self.page()
        self.assertEqual(page.shown, {"user:1": "Ada", "user:2": "Grace"})
        self.assertEqual(page.attributes("details"), [{}, {}])  # no `open`
        self.assertNotIn("Ada", page.outside)

    def test_looking_at_the_page_counts_as_no_use(self) -> None:
        self.store.set(b"old", b"1")
        self.store.set(b"young", b"2")
        self.page()
        self.assertEqual((self.store.hits, self.store.misses), (0, 0))

    def test_whatever_is_stored_stays_text(self) -> None:
        for hostile in (
            b"<script>alert(1)</script>",
            b"</pre></details><script>alert(1)</script>",
            b"\"><img src=x onerror='alert(1)'>",
            b"' onmouseover='alert(1)",
            b"&lt;b&gt; &amp;",
            b"<!-- ",
            b"]]>",
            b"{{7*7}} ${x}",
        ):
            with self.subTest(hostile):
                self.store.flush()
                self.store.set(b"harmless", b"v")
                plain = [tag for tag, _ in self.page().tags]
                self.store.flush()
                self.store.set(hostile, hostile)
                page = self.page("?prefix=" + quoted(hostile))
                self.assertEqual([tag for tag, _ in page.tags], plain)
                self.assertEqual(page.shown, {hostile.decode(): hostile.decode()})
                self.assertEqual(page.attributes("input")[0]["value"], hostile.decode())

    def test_the_page_has_no_inline_script_no_inline_style_and_no_handler(self) -> None:
        for number in range(200):
            self.store.set(b"<b onclick=x style=y>%d" % number, b"<script>")
        page = self.page("?count=20")
        for tag, attributes in page.tags:
            self.assertNotIn(tag, ("style", "iframe", "object", "img", "base"))
            for name, value in attributes.items():
                self.assertFalse(name.startswith("on") or name == "style", (tag, name))
                if name in ("href", "src", "action"):
                    self.assertRegex(value or "", r"^(/(?!/)|#)")  # nothing from elsewhere
        scripts = page.attributes("script")
        self.assertEqual(scripts, [{"type": "module", "src": "/static/main.js"}])
        self.assertEqual(self.ask("/").body.lower().count(b"<script"), 1)
        self.assertIn(b'src="/static/main.js"></script>', self.ask("/").body)

    def test_what_cannot_be_seen_is_shown_by_its_code(self) -> None:
        self.store.set(b"\xff\x00\x1b[31m\n\x7f", b"a\tb\nc\r\x00\x80")
        self.store.set("\u202egnp.exe\ufeff".encode(), "\u2028".encode())
        self.assertEqual(
            self.page().shown,
            {
                r"\xff\x00\x1b[31m\x0a\x7f": "a\tb\nc" + r"\x0d\x00\x80",
                r"\u202egnp.exe\ufeff": r"\u2028",
            },
        )

    def test_a_value_keeps_its_first_newline(self) -> None:
        self.store.set(b"k", b"\n\nx")
        self.assertIn(b"<pre>\n\n\nx</pre>", self.ask("/").body)

    def test_a_long_value_is_cut_and_says_so(self) -> None:
        self.store.set(b"long", b"x" * (CUT + 1))
        self.store.set(b"short", b"x" * CUT)
        page = self.page()
        self.assertEqual({len(value) for value in page.shown.values()}, {CUT})
        self.assertEqual(self.ask("/").body.count(b"the first 10,000 are shown"), 1)

    def test_deadlines_are_shown(self) -> None:
        self.store.set(b"k", b"v", expires_at=self.clock.now + 90)
        self.assertIn(b"1 byte, expires in 90 s", self.ask("/").body)

    def test_many_keys_come_page_by_page(self) -> None:
        for number in range(250):
            self.store.set(b"a&b:%d" % number, b"v")
            self.store.set(b"other:%d" % number, b"v")
        found: list[str] = []
        query, pages = "?prefix=a%26b", 0
        while query:
            page = self.page(query)
            found += page.keys
            pages += 1
            links = [link["href"] or "" for link in page.attributes("a")]
            query = next((link[1:] for link in links if "cursor=" in link), "")
        self.assertEqual((len(found), len(set(found)), pages), (250, 250, 3))

    def test_a_key_that_goes_between_listing_and_showing_is_left_out(self) -> None:
        self.store.set(b"k", b"v")
        with mock.patch.object(self.store, "entry", return_value=None):
            self.assertEqual(self.page().keys, [])

    def test_trouble_with_saving_is_said_first(self) -> None:
        self.use(Config(), failing_persistence("cannot write <kvdb.json>"))
        page = self.page()
        self.assertIn("cannot write <kvdb.json>", page.outside)
        self.assertIn({"role": "alert"}, page.attributes("p"))

    def test_it_can_be_used_without_a_mouse_and_in_the_dark(self) -> None:
        page = self.page()
        self.assertEqual(page.attributes("html"), [{"lang": "en"}])
        labelled = {label["for"] for label in page.attributes("label")}
        fields = [field for field in page.attributes("input") if field.get("type") != "hidden"]
        self.assertEqual({field["id"] for field in fields}, labelled)
        response = self.ask("/static/style.css")
        self.assertEqual((response.status, response.content_type), (200, "text/css; charset=utf-8"))
        self.assertIn(b"color-scheme: light dark", response.body)
        self.assertNotRegex(response.body, rb"url\(|@import")


if __name__ == "__main__":
    unittest.main()
