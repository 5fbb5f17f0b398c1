"""What the page is made of: figures, their history, its files, and keys for its scripts."""

from __future__ import annotations

import base64
import json
import re
import unittest
from pathlib import Path
from typing import Any
from unittest import mock

import kvdb.http
from kvdb.commands.instance import Instance
from kvdb.commands.standing import PROTOCOLS
from kvdb.config import Config
from kvdb.http.api import Api, Request, Response, needs_of
from kvdb.http.browsing import CUT, MOST
from kvdb.http.figures import bytes_text, duration_text, microseconds_text, rough_duration_text
from kvdb.http.history import COLUMNS, KEPT, SPAN, History
from kvdb.http.static_files import SERVED
from kvdb.replication.link import Primary
from kvdb.replication.primary import Replica
from kvdb.store import Store
from kvdb.store.budget import EvictionPolicy
from kvdb.store.entry import key_in
from tests.support import ManualClock, Wire, ask_http, running_server, until

STATIC = Path(kvdb.http.__file__).parent / "static"


METRIC_OF = {
    "time": "", "verdict": "", "tiles": "", "history": "", "durability": "",  # words
    "kvdb_version": "instance_info", "python_version": "instance_info",
    "uptime_seconds": "uptime_in_seconds", "per_second": "commands_by_protocol_total",
    "mean_microseconds": "commands_duration_seconds_total",
    "p50_microseconds": "request_duration_seconds", "p99_microseconds": "request_duration_seconds",
    "hit_rate": "keyspace_hits_total", "hit_rate_lately": "keyspace_misses_total",
    "keys": "db_keys", "keys_expiring": "db_keys_expiring", "databases": "db_keys",
    "used_bytes": "memory_used_bytes", "max_bytes": "memory_max_bytes",
    "resident_bytes": "memory_used_rss_bytes", "clients": "connected_clients",
    "max_clients": "config_maxclients", "rejected_clients": "rejected_connections_total",
    "keyspace_hits": "keyspace_hits_total", "keyspace_misses": "keyspace_misses_total",
    "evicted_keys": "evicted_keys_total", "expired_keys": "expired_keys_total",
    "unsaved_age_seconds": "unsaved_age_seconds",
    "last_save": "rdb_last_save_timestamp_seconds",
    "changes_since_save": "rdb_changes_since_last_save",
    "persistence": "saving_failing_since_seconds",
}  # fmt: skip
"""Which metric of Prometheus tells what the page shows."""


class PageTest(unittest.TestCase):
    def setUp(self) -> None:
        self.use(Config())

    def use(self, config: Config, persistence: mock.Mock | None = None) -> None:
        self.clock, self.monotonic = ManualClock(), ManualClock(0)
        self.store = Store(config.max_bytes, clock=self.clock)
        self.instance = Instance(self.store, config, persistence, monotonic=self.monotonic)
        self.history = History(self.instance, resident=lambda: 5_000_000)
        self.api = Api(self.instance, self.history)

    def ask(self, target: str, **fields: Any) -> Response:
        path, _, query = target.partition("?")
        return self.api.respond(Request("GET", path, query, **fields))

    def answer(self, target: str, **fields: Any) -> Any:
        response = self.ask(target, **fields)
        self.assertEqual((response.status, response.content_type), (200, "application/json"))
        return json.loads(response.body)

    def pass_second(self, seconds: float = 1.0) -> None:
        self.clock.now += seconds
        self.monotonic.now += seconds
        self.history.sample()


class HistoryTest(PageTest):
    def rows(self, kind: str = "seconds", since: float = 0.0) -> list[dict[str, Any]]:
        shown = json.loads(self.history.render(since))
        self.assertEqual(shown["columns"], list(COLUMNS))
        return [dict(zip(COLUMNS, row, strict=True)) for row in shown[kind]]

    def test_a_sample_tells_what_happened_per_second(self) -> None:
        self.store.set(b"k", b"v")
        for _ in range(6):
            self.store.get(b"k")
        self.store.get(b"missing")
        self.pass_second(2.0)
        (row,) = self.rows()
        self.assertEqual((row["at"], row["hits"], row["misses"]), (self.clock.now, 3.0, 0.5))
        self.assertEqual((row["keys"], row["resident_bytes"]), (1, 5_000_000))
        self.assertEqual(row["used_bytes"], self.store.used_bytes)
        self.assertIsNone(row["mean_microseconds"])
        self.pass_second()
        self.assertEqual(self.rows()[-1]["hits"], 0)

    def test_five_minutes_and_one_hour_are_kept(self) -> None:
        for _ in range(SPAN * (KEPT + 1)):
            self.pass_second()
        seconds, spans = self.rows(), self.rows("spans")
        self.assertEqual((len(seconds), len(spans)), (KEPT, KEPT))
        self.assertEqual(seconds[-1]["at"] - seconds[0]["at"], KEPT - 1)
        self.assertEqual(spans[-1]["at"] - spans[0]["at"], SPAN * (KEPT - 1))
        self.assertEqual(spans[-1]["at"], self.clock.now)

    def test_a_span_has_the_mean_of_what_was_counted(self) -> None:
        for second in range(SPAN):
            for _ in range(second):
                self.store.get(b"missing")
            self.pass_second()
        (span,) = self.rows("spans")
        self.assertEqual(span["misses"], sum(range(SPAN)) / SPAN)

    def test_counters_that_were_set_back_give_no_negative_rate(self) -> None:
        for _ in range(9):
            self.store.get(b"missing")
        self.pass_second()
        self.instance.reset_statistics()
        self.store.get(b"missing")
        self.pass_second()
        self.assertEqual([row["misses"] for row in self.rows()], [9, 1])

    def test_requests_that_were_timed_give_their_mean(self) -> None:
        times = mock.Mock(calls=4, nanoseconds=10_000)
        with mock.patch.object(self.instance.overseer.times, "all", return_value={"GET": times}):
            self.pass_second()
        self.assertEqual(self.rows()[0]["mean_microseconds"], 2.5)

    def test_a_sample_has_the_times_of_the_requests_since_the_last(self) -> None:
        times = self.instance.overseer.times
        for milliseconds in range(1, 101):
            times.add("get", milliseconds / 1000, False)
        self.pass_second()
        times.add("set", 0.000_005, False)
        self.pass_second()
        first, second = self.rows()
        self.assertAlmostEqual(first["p50_microseconds"] / 50_000, 1, delta=0.02)
        self.assertAlmostEqual(first["p99_microseconds"] / 99_000, 1, delta=0.02)
        self.assertAlmostEqual(second["p99_microseconds"] / 5, 1, delta=0.02)
        self.instance.reset_statistics()
        times.add("set", 0.000_005, False)
        self.pass_second()
        self.assertAlmostEqual(self.rows()[-1]["p50_microseconds"] / 5, 1, delta=0.02)

    def test_requests_are_told_apart_by_protocol(self) -> None:
        with running_server(memcached_port=0, haus_port=0, http_port=0) as service:
            history = History(service.instance)
            for name, request in (
                ("main", b"PING\r\n" * 4), ("memcached", b"get k\r\n" * 3),
                ("haus", b"GET k\n" * 2), ("http", b"GET /healthz HTTP/1.0\r\n\r\n"),
            ):  # fmt: skip
                with Wire(service.listeners[name].port) as wire:
                    wire.socket.sendall(request)
                    for _ in range(request.count(b"\n") if name != "http" else 1):
                        wire.read_until(b"\n")
            until(lambda: not service.instance.sessions())
            history.sample()
            row = dict(zip(COLUMNS, json.loads(history.render())["seconds"][0], strict=True))
            shares = [row[name] / row["requests"] for name in PROTOCOLS]
        for share, expected in zip(shares, (0.4, 0.3, 0.2, 0.1), strict=True):
            self.assertAlmostEqual(share, expected, delta=0.01)

    def test_how_a_gauge_grows_is_known_after_a_minute(self) -> None:
        for second in range(200):
            self.assertEqual(self.history.growth("used_bytes") is None, second <= 60)
            self.store.set(b"k%d" % second, b"v" * 1000)
            self.pass_second()
        growth = self.history.growth("used_bytes")
        self.assertAlmostEqual(growth or 0, self.store.used_bytes / 200, delta=20)

    def test_only_what_is_younger_is_sent_if_one_asks_so(self) -> None:
        for _ in range(SPAN + 3):
            self.pass_second()
        self.assertEqual(len(self.rows(since=self.clock.now - 2)), 2)
        self.assertEqual(self.rows("spans", since=self.clock.now - 2), [])
        self.assertEqual(len(self.rows("spans", since=self.clock.now - 4)), 1)

    def test_it_is_sampled_while_the_http_port_is_open_only(self) -> None:
        for port, expected in ((None, 0), (0, 1)):
            with running_server(http_port=port) as service:
                names = [thread.name for thread in service.instance.background]
                self.assertEqual(names.count("history"), expected)


class FiguresTest(PageTest):
    def verdict(self) -> tuple[str, list[str]]:
        verdict = self.answer("/api/stats")["verdict"]
        return verdict["level"], verdict["reasons"]

    def test_all_that_the_page_shows_is_there(self) -> None:
        self.store.set(b"k", b"v", expires_at=self.clock.now + 9)
        self.store.set(key_in(3, b"k"), b"v")
        self.store.get(b"k")
        self.pass_second()
        figures = self.answer("/api/stats")
        self.assertEqual((figures["keys"], figures["keys_expiring"]), (2, 1))
        self.assertEqual(figures["databases"]["3"], {"keys": 1, "expiring": 0})
        self.assertEqual((figures["hit_rate"], figures["hit_rate_lately"]), (1, 1))
        self.assertEqual(figures["per_second"]["hits"], 1)
        self.assertEqual(figures["durability"], "in memory only")
        self.assertEqual(len(figures["history"]["seconds"]), 1)
        tiles = {tile["name"]: tile["value"] for tile in figures["tiles"]}
        self.assertEqual((tiles["keys"], tiles["hit-rate"]), ("2", "100.0 %"))
        page = self.ask("/").body.decode()
        for name, value in tiles.items():
            tile = rf'<div id="tile-{name}"><dt>[^<]+</dt><dd><strong>{re.escape(value)}</strong>'
            self.assertRegex(page, tile)

    def test_it_is_fine_unless_there_is_a_reason(self) -> None:
        self.assertEqual(self.verdict(), ("fine", []))
        self.assertIn(b'<p role="status">Everything is fine</p>', self.ask("/").body)

    def test_a_failed_save_and_a_dead_thread_are_trouble(self) -> None:
        failing = mock.Mock(
            last_error="no space left", last_save=1.0, changes_since_save=7, age=12.3,
            held_bytes=0, congested=True, failing_since=self.clock.now - 185, path="x.json",
            in_progress=False, last_duration=None, saves=0,
        )  # fmt: skip
        self.use(Config(), failing)
        with mock.patch.object(self.instance, "dead_threads", return_value=["snapshot"]):
            level, reasons = self.verdict()
        self.assertEqual(level, "trouble")
        self.assertEqual(
            reasons,
            [
                "The last save failed (failing for 3 min 5 s): no space left",
                "Background threads have died: snapshot",
                "Writers wait for the disk",
            ],
        )
        self.assertIn(
            b'<p role="alert">In trouble: The last save failed (failing for 3 min 5 s): no space left',
            self.ask("/").body,
        )

    def test_a_nearly_full_budget_deserves_attention(self) -> None:
        self.use(Config(max_bytes=1_000_000))
        self.store.set(b"k", b"v" * 920_000)
        self.assertEqual(self.verdict(), ("attention", ["92 % of the budget is used"]))
        self.store.set(b"k", b"v" * 995_000)
        self.assertEqual(self.verdict()[0], "attention")
        self.store.policy = EvictionPolicy.NOEVICTION
        self.assertEqual(self.verdict()[0], "trouble")

    def test_a_budget_that_fills_up_tells_when(self) -> None:
        self.use(Config(max_bytes=10_000_000))
        self.store.set(b"k", b"v" * 9_000_000)
        for second in range(100):
            self.store.set(b"k%d" % second, b"v" * 50)
            self.pass_second()
        (reason,) = self.verdict()[1]
        self.assertRegex(
            reason, r"^9\d % of the budget is used and, as it grows now, full in about \d+ minutes$"
        )

    def test_a_replica_that_is_behind_deserves_attention(self) -> None:
        client = mock.Mock(address="10.0.0.9:50000", unsent_bytes=0)
        replica = Replica(client)
        replica.port = 6379
        self.instance.replication.begin(replica)
        until(lambda: replica.state == "online")
        self.assertEqual(self.verdict(), ("fine", []))
        self.monotonic.now += 3
        client.unsent_bytes = 2 << 20
        reason = "The replica 10.0.0.9:6379 is behind: 2 MB wait for it, last heard 3 s ago"
        self.assertEqual(self.verdict(), ("attention", [reason]))
        client.unsent_bytes = 0
        self.assertEqual(self.verdict(), ("fine", []))
        self.monotonic.now += 7
        reason = "The replica 10.0.0.9:6379 is behind: 0 B wait for it, last heard 10 s ago"
        self.assertEqual(self.verdict(), ("attention", [reason]))
        replica.acknowledges = False
        self.assertEqual(self.verdict(), ("fine", []))

    def test_a_replica_without_its_primary_deserves_attention(self) -> None:
        standby = mock.Mock(primary=Primary("db", 4242), state="connect", down_since=0.0)
        self.instance.standby = standby
        self.monotonic.now = 65
        reason = "No link to the primary db:4242 for 1 min 5 s"
        self.assertEqual(self.verdict(), ("attention", [reason]))
        standby.state = "connected"
        self.assertEqual(self.verdict()[0], "fine")

    def test_clients_turned_away_deserve_attention_for_five_minutes(self) -> None:
        self.use(Config(max_clients=1))
        self.assertEqual([self.instance.enter() for _ in range(3)], [True, False, False])
        self.pass_second()
        reason = "2 clients were turned away in the last five minutes"
        self.assertEqual(self.verdict(), ("attention", [reason]))
        for _ in range(KEPT):
            self.pass_second()
        self.assertEqual(self.verdict()[0], "fine")

    def test_numbers_are_told_as_people_do(self) -> None:
        for number, text in ((0, "0 B"), (1023, "1023 B"), (1536, "1.5 kB"), (32 << 20, "32 MB"),
                             (1023 << 20, "1023 MB"), (5 << 40, "5.0 TB")):  # fmt: skip
            self.assertEqual(bytes_text(number), text)
        for number, text in ((0, "0 s"), (59, "59 s"), (60, "1 min"), (3725, "1 h 2 min"),
                             (86400, "1 d"), (90000, "1 d 1 h")):  # fmt: skip
            self.assertEqual(duration_text(number), text)
        for number, text in ((5, "a minute"), (100, "2 minutes"), (5399, "90 minutes"),
                             (5400, "2 hours"), (4 * 3600, "4 hours"), (200_000, "2 days")):  # fmt: skip
            self.assertEqual(rough_duration_text(number), text)
        for number, text in ((0.5, "0.5 µs"), (25.25, "25.2 µs"), (1500, "1.5 ms"), (2e6, "2 s")):
            self.assertEqual(microseconds_text(number), text)

    def test_metrics_has_everything_that_the_page_shows(self) -> None:
        persistence = mock.Mock(
            last_error=None, failing_since=None, last_save=1.0, changes_since_save=7, age=12.3,
            held_bytes=0, congested=False, path="x.json", in_progress=False, last_duration=None, saves=0,
        )  # fmt: skip
        self.use(Config(), persistence)
        self.instance.overseer.times.add("get", 0.1, False)
        text = self.ask("/metrics").body.decode()
        shown = self.answer("/api/stats").keys()
        self.assertEqual(shown, METRIC_OF.keys())
        for name in filter(None, METRIC_OF.values()):
            self.assertIn(f"# TYPE redis_{name} ", text)

    def test_without_info_the_page_has_no_figures(self) -> None:
        may = lambda *words: words[0] != b"INFO"  # noqa: E731
        page = self.ask("/", may=may).body
        self.assertNotIn(b"tile-", page)
        self.assertIn(b"<kv-keys", page)


class KeysForScriptsTest(PageTest):
    def names(self, query: str) -> set[str]:
        return {row["key"] for row in self.answer(f"/api/keys?{query}")["keys"]}

    def test_a_search_is_a_prefix_or_with_a_star_a_glob(self) -> None:
        for name in (b"user:1", b"user:2", b"last:user", b"a*c", b"abc"):
            self.store.set(name, b"v")
        self.assertEqual(self.names("search=user"), {"user:1", "user:2"})
        self.assertEqual(self.names("search=*user"), {"last:user"})
        self.assertEqual(self.names("search=a*c"), {"a*c", "abc"})
        self.assertEqual(self.names("prefix=a*"), {"a*c"})
        self.assertEqual(self.names("search=%5Ba%5D"), set())
        self.assertEqual(json.loads(self.ask("/keys?search=*:1").body)["keys"], ["user:1"])
        self.assertIn(b"<code>abc</code>", self.ask("/?search=*b*").body)

    def test_a_row_has_size_and_ttl_of_a_database(self) -> None:
        self.store.set(key_in(2, b"a\xff/"), b"12345", expires_at=self.clock.now + 9)
        answer = self.answer("/api/keys?db=2")
        row = {"key": r"a\xff/", "quoted": "a%FF%2F", "size": 5, "ttl": 9.0}
        self.assertEqual(answer, {"keys": [row], "cursor": "0", "total": 1})
        self.assertEqual(self.names("db=0"), set())
        hidden = self.answer("/api/keys?db=2", may=lambda *words: False)
        self.assertEqual(hidden["keys"], [{"key": r"a\xff/", "quoted": "a%FF%2F"}])

    def test_a_value_is_text_or_base64_and_cut_between_characters(self) -> None:
        self.store.set(b"t", "é".encode() * CUT)
        self.store.set(b"b", b"\xff\x00")
        self.store.set(b"odd", b"x" + "é".encode() * CUT)
        cut = self.answer("/api/value?key=t")
        self.assertEqual(cut, {"size": 2 * CUT, "is_cut": True, "text": "é" * (CUT // 2)})
        whole = self.answer("/api/value?key=t&whole=1")
        self.assertEqual((whole["is_cut"], whole["text"]), (False, "é" * CUT))
        self.assertEqual(self.answer("/api/value?key=odd")["text"], "x" + "é" * (CUT // 2 - 1))
        binary = self.answer("/api/value?key=b")
        self.assertEqual(base64.b64decode(binary["base64"]), b"\xff\x00")
        self.store.set(b"t", b"x" * (MOST + 1))
        self.assertTrue(self.answer("/api/value?key=t&whole=1")["is_cut"])
        self.assertEqual((self.store.hits, self.store.misses), (0, 0))

    def test_a_key_that_is_not_there_is_404(self) -> None:
        self.assertEqual(self.ask("/api/value?key=k").status, 404)
        with self.assertRaises(ValueError):
            self.ask("/api/value")

    def test_what_each_path_needs(self) -> None:
        for target, needs in (
            ("/api/stats", [[b"INFO"]]),
            ("/api/keys", [[b"SCAN", b"0"]]),
            ("/api/keys?db=2", [[b"SELECT", b"2"], [b"SCAN", b"0"]]),
            ("/api/value?key=a%00", [[b"GET", b"a\0"]]),
            ("/api/value?key=a&db=2", [[b"SELECT", b"2"], [b"GET", b"a"]]),
            ("/static/main.js", []),
        ):
            path, _, query = target.partition("?")
            self.assertEqual(needs_of(Request("GET", path, query)), needs, target)


class FilesTest(PageTest):
    def test_every_file_is_served_and_no_other(self) -> None:
        self.assertEqual({*SERVED, "page.html"}, {path.name for path in STATIC.iterdir()})
        for name in SERVED:
            response = self.ask(f"/static/{name}")
            self.assertEqual((response.status, response.body), (200, (STATIC / name).read_bytes()))
        for name in ("page.html", "", "../page.py", "main.js/", "none.js"):
            self.assertEqual(self.ask(f"/static/{name}").status, 500)

    def test_they_are_small_and_lead_nowhere_else(self) -> None:
        files = {path.name: path.read_text(encoding="utf-8") for path in STATIC.iterdir()}
        self.assertLess(sum(len(text.encode()) for text in files.values()), 100_000)
        for name, text in files.items():
            addresses = set(re.findall(r"https?://[^\"' ]+", text))
            self.assertLessEqual(addresses, {"http://www.w3.org/2000/svg"}, name)
            self.assertNotRegex(
                text, r"innerHTML|outerHTML|insertAdjacent|\beval\(|document\.write"
            )
        self.assertNotRegex(files["page.html"], r"<style|\sstyle=|\son\w+=|javascript:")
        self.assertEqual(re.findall(r"<script.*?>(.*?)</script>", files["page.html"]), [""])

    def test_on_the_wire_nothing_is_cached_and_the_policy_is_strict(self) -> None:
        with running_server(http_port=0, password="secret") as service:
            port = service.listeners["http"].port
            login = {"Authorization": f"Basic {base64.b64encode(b':secret').decode()}"}
            for target in ("/", "/api/stats", "/api/keys", "/static/main.js", "/static/icon.svg"):
                with self.subTest(target):
                    self.assertEqual(ask_http(port, target).status, 401)
                    evil = {**login, "Host": "evil.example"}
                    self.assertEqual(ask_http(port, target, headers=evil).status, 403)
                    other = {**login, "Sec-Fetch-Site": "cross-site"}
                    self.assertEqual(ask_http(port, target, headers=other).status, 403)
                    response = ask_http(port, target, headers=login)
                    self.assertEqual(response.status, 200)
                    self.assertEqual(response.headers["Cache-Control"], "no-store")
                    policy = response.headers["Content-Security-Policy"].split("; ")
                    for part in ("default-src 'none'", "script-src 'self'", "style-src 'self'",
                                 "connect-src 'self'", "img-src 'self' data:"):  # fmt: skip
                        self.assertIn(part, policy)
            bad = ask_http(port, "/api/value?key=k&db=99", headers=login)
            self.assertEqual(bad.status, 400)


if __name__ == "__main__":
    unittest.main()
