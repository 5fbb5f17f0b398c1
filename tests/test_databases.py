"""--memcached-db and --haus-db: clients of these ports see one database, and no other."""

from __future__ import annotations

import json
import unittest
from typing import Any

from kvdb.store.entry import key_in
from tests.ports import HausLines
from tests.support import Wire, running_server
from tests.test_memcached import Port


class MemcachedDatabaseTest(unittest.TestCase):
    def setUp(self) -> None:
        self.port = Port(memcached_db=3)
        self.store = self.port.store
        self.addCleanup(self.store.check)
        self.port.resp("SET", "k", "zero")

    def check(self, *exchanges: tuple[str, str]) -> None:
        for request, expected in exchanges:
            self.assertEqual(self.port(request), expected.replace("|", "\r\n"), request)
        self.assert_untouched()

    def assert_untouched(self) -> None:
        """Database 0 is as it was."""
        self.assertEqual(self.store.get(b"k"), b"zero")
        self.assertEqual(self.store.size(0), 1)

    def test_keys_of_database_0_are_not_there(self) -> None:
        self.check(
            ("get k", "END|"), ("gets k", "END|"), ("gat 10 k", "END|"), ("delete k", "NOT_FOUND|"),
            ("incr k 1", "NOT_FOUND|"), ("touch k 1", "NOT_FOUND|"), ("mg k v", "EN|"),
            ("md k", "NF|"), ("ma k", "NF|"), ("append k 0 0 1|x", "NOT_STORED|"),
            ("replace k 0 0 1|x", "NOT_STORED|"), ("cas k 0 0 1 1|x", "NOT_FOUND|"),
        )  # fmt: skip

    def test_every_way_to_write_goes_to_its_database(self) -> None:
        for request, value in (
            ("set k 0 0 1|1", b"1"), ("add k2 0 0 1|2", b"2"), ("replace k 0 0 1|3", b"3"),
            ("append k 0 0 1|4", b"34"), ("prepend k 0 0 1|2", b"234"), ("incr k 6", b"240"),
            ("decr k 1", b"239"), ("ms k 1|x", b"x"), ("ms k 1 MA|y", b"xy"),
        ):  # fmt: skip
            key = request.split()[1].encode()
            self.port(request)
            self.assertEqual(self.store.get(key_in(3, key)), value, request)
            self.assert_untouched()
        self.port("set k 0 0 1|5")
        self.port("ma k")
        self.assertEqual(self.port.resp("GET", "k"), b"zero")
        self.port.resp("SELECT", 3)
        self.assertEqual(self.port.resp("GET", "k"), b"6")
        self.check(("delete k", "DELETED|"), ("get k", "END|"), ("md k2", "HD|"))

    def test_names_in_answers_are_the_clients_own(self) -> None:
        self.check(
            ("set a 5 0 1|v", "STORED|"),
            ("get a k", "VALUE a 5 1|v|END|"),
            ("gat 0 a", "VALUE a 5 1|v|END|"),
            ("mg a k v", "VA 1 ka|v|"),
            ("lru_crawler mgdump all", "mg a|EN|"),
            ("lru_crawler metadump all", "key=a exp=-1 la=0 cas=0 fetch=no cls=1 size=2|END|"),
            ("stats cachedump 1 0", "ITEM a [1 b; 0 s]|END|"),
        )
        self.port("stats detail on")
        self.port("set p:1 0 0 1|v")
        self.assertEqual(
            self.port("stats detail dump"), "PREFIX p get 0 hit 0 set 1 del 0\r\nEND\r\n"
        )

    def test_cas_sees_the_changes_of_its_own_database(self) -> None:
        self.port("set k 0 0 1|1")
        token = self.port.token()
        self.port.resp("SET", "k", "zero")
        self.check((f"cas k 0 0 1 {token}|2", "STORED|"))
        token = self.port.token()
        self.port.resp("SELECT", 3)
        self.port.resp("SET", "k", "other")
        self.port.resp("SELECT", 0)
        self.check((f"cas k 0 0 1 {token}|3", "EXISTS|"), ("get k", "VALUE k 0 5|other|END|"))
        token = self.port("mg k c").split()[1].removeprefix("c").strip()
        self.check((f"ms k 1 C{token}|4", "HD|"), (f"ms k 1 C{token}|5", "EX|"))

    def test_flush_all_empties_this_database_only(self) -> None:
        self.port("set k 0 0 1|1")
        self.port.resp("SELECT", 5)
        self.port.resp("SET", "k", "five")
        self.check(("flush_all", "OK|"), ("get k", "END|"))
        self.assertEqual(self.store.get(key_in(5, b"k")), b"five")

    def test_a_delayed_flush_all_empties_this_database_only(self) -> None:
        self.port("set k 0 0 1|1")
        self.check(("flush_all 10", "OK|"), ("get k", "VALUE k 0 1|1|END|"))
        self.port.clock.now += 10
        self.port.resp.instance.planned_flush.run_if_due()
        self.check(("get k", "END|"))
        self.assertEqual(self.store.size(3), 0)

    def test_curr_items_counts_this_database(self) -> None:
        self.assertEqual(self.port.stats()["curr_items"], "0")
        for n in range(3):
            self.port(f"set k{n} 0 0 1|v")
        self.assertEqual(self.port.stats()["curr_items"], "3")
        self.assertEqual(self.port.stats("items")["items:1:number"], "3")
        self.assertEqual(Port(memcached_db=0).stats()["curr_items"], "0")

    def test_a_value_too_large_drops_the_old_one_of_this_database(self) -> None:
        self.port.resp.instance.config.max_value_bytes = 10
        self.port("set k 0 0 1|v")
        large = "SERVER_ERROR object too large for cache|"
        self.check(("set k 0 0 11|hello world", large), ("get k", "END|"))

    def test_keys_have_250_bytes_in_any_database(self) -> None:
        key = "k" * 250
        self.check((f"set {key} 0 0 1|v", "STORED|"), (f"get {key}", f"VALUE {key} 0 1|v|END|"))


class HausDatabaseTest(unittest.TestCase):
    def setUp(self) -> None:
        port = Port(haus_db=15)
        self.resp, self.store = port.resp, port.store
        self.addCleanup(self.store.check)
        self.resp("SET", "k", "zero")
        self.haus = HausLines(self.resp.instance)

    def ask(self, line: str) -> dict[str, Any]:
        return self.haus.ask(line.encode())

    def assert_untouched(self) -> None:
        self.assertEqual(self.store.get(b"k"), b"zero")
        self.assertEqual(self.store.size(0), 1)

    def test_its_keys_are_in_its_database(self) -> None:
        self.assertEqual(self.ask("GET k")["status"], "Error")
        self.assertEqual(self.ask("DEL k"), {"status": "Ok", "mesg": "Key not found!"})
        self.assertEqual(self.ask("PUT k fifteen"), {"status": "Ok"})
        self.assertEqual(self.ask("GET k"), {"status": "Ok", "result": "fifteen"})
        self.assertEqual(self.store.get(key_in(15, b"k")), b"fifteen")
        self.assert_untouched()
        self.assertEqual(self.ask("DELETE k"), {"status": "Ok"})
        self.assertEqual(self.store.size(15), 0)
        self.assert_untouched()

    def test_so_are_those_of_its_transactions(self) -> None:
        self.ask("PUT gone 1")
        for line in ("START", "PUT k new", "DEL gone"):
            self.assertEqual(self.ask(line), {"status": "Ok"})
        self.assertEqual(self.ask("GET k")["result"], "new")
        self.assertIsNone(self.store.get(key_in(15, b"k")))
        self.assertEqual(self.ask("COMMIT"), {"status": "Ok"})
        self.assertEqual(self.store.get(key_in(15, b"k")), b"new")
        self.assertEqual(self.store.size(15), 1)
        self.assert_untouched()

    def test_a_change_in_database_0_is_no_conflict_and_one_in_its_own_is(self) -> None:
        self.ask("PUT k 1")
        for db, status in ((0, "Ok"), (15, "Error")):
            self.ask("START")
            self.ask("GET k")
            self.ask("PUT k 2")
            self.resp("SELECT", db)
            self.resp("SET", "k", "zero")
            self.assertEqual(self.ask("COMMIT")["status"], status, db)


class ServerTest(unittest.TestCase):
    def test_both_ports_have_databases_of_their_own_on_a_whole_server(self) -> None:
        settings = {"memcached_port": 0, "haus_port": 0, "memcached_db": 1, "haus_db": 2}
        with (
            running_server(**settings) as service,
            Wire(service.server.port) as main,
            Wire(service.listeners["memcached"].port) as memcached,
            Wire(service.listeners["haus"].port) as haus,
        ):
            self.assertEqual(memcached.ask(b"set k 0 0 1\r\n1\r\n", 8), b"STORED\r\n")
            self.assertEqual(json.loads(haus.ask(b"PUT k 2\n", 17)), {"status": "Ok"})
            self.assertEqual(main.ask(b"SET k 0\r\n", 5), b"+OK\r\n")
            self.assertEqual({db: size[0] for db, size in service.store.sizes().items()},
                             {0: 1, 1: 1, 2: 1})  # fmt: skip
            for db in (0, 1, 2):
                self.assertEqual(main.ask(b"SELECT %d\r\n" % db, 5), b"+OK\r\n")
                self.assertEqual(main.ask(b"GET k\r\n", 7), b"$1\r\n%d\r\n" % db)


if __name__ == "__main__":
    unittest.main()
