"""The memcached port, `stats`: each counter counts what its name says, and nothing else."""

from __future__ import annotations

import unittest
from typing import Final
from unittest import mock

from kvdb.store.budget import EvictionPolicy
from tests.test_memcached import Port, PortCase

COUNTERS: Final = (
    "cmd_get", "cmd_set", "cmd_flush", "cmd_touch", "cmd_meta", "get_hits", "get_misses",
    "get_expired", "delete_misses", "delete_hits", "incr_misses", "incr_hits", "decr_misses",
    "decr_hits", "cas_misses", "cas_hits", "cas_badval", "touch_hits", "touch_misses",
    "store_too_large", "store_no_memory", "total_items", "curr_items",
)  # fmt: skip

PREPARED: Final = ("flush_all", "set k 0 0 2|10", "set t 0 0 1|x", "delete no")
"""Carried out before each of the following requests; {cas} is then the token of k.

The last is for memcached, where what was flushed counts as an item until somebody looks.
"""

COUNTED: Final = {
    "get k": "cmd_get get_hits",
    "get no": "cmd_get get_misses",
    "get k no": "cmd_get=2 get_hits get_misses",
    "gets k": "cmd_get get_hits",
    "gat 100 k": "cmd_touch touch_hits",
    "gat 100 no": "cmd_touch touch_misses",
    "gats 100 k no": "cmd_touch=2 touch_hits touch_misses",
    "touch k 100": "cmd_touch touch_hits",
    "touch no 100": "cmd_touch touch_misses",
    "set k 0 0 1|1": "cmd_set total_items",
    "add k 0 0 1|1": "cmd_set",
    "add no 0 0 1|1": "cmd_set total_items curr_items",
    "replace k 0 0 1|1": "cmd_set total_items",
    "replace no 0 0 1|1": "cmd_set",
    "append k 0 0 1|1": "cmd_set total_items",
    "append no 0 0 1|1": "cmd_set",
    "prepend k 0 0 1|1": "cmd_set total_items",
    "cas k 0 0 1 {cas}|1": "cmd_set cas_hits total_items",
    "cas k 0 0 1 77777777|1": "cmd_set cas_badval",
    "cas no 0 0 1 7|1": "cmd_set cas_misses",
    "set k x 0 1|1": "",
    "set k 0 0 1|123": "cmd_set",
    "delete k": "delete_hits curr_items=-1",
    "delete no": "delete_misses",
    "incr k 1": "incr_hits total_items",
    "incr k 99": "incr_hits total_items",
    "incr no 1": "incr_misses",
    "incr t 1": "",
    "incr k x": "",
    "decr k 1": "decr_hits total_items",
    "decr no 1": "decr_misses",
    "flush_all 100": "cmd_flush",
    "verbosity 0": "",
    "version": "",
    "nosuch": "",
    "mg k": "cmd_get get_hits",
    "mg k v": "cmd_get get_hits",
    "mg k u": "cmd_get get_hits",
    "mg no": "cmd_get get_misses",
    "mg no v q": "cmd_get get_misses",
    "mg k T100": "cmd_touch touch_hits",
    "mg no T100": "cmd_get get_misses",
    "mg no N100": "cmd_get get_hits total_items curr_items",
    "mg k N100": "cmd_get get_hits",
    "mg k z": "",
    "ms k 1|1": "cmd_set total_items",
    "ms k 1 ME|1": "cmd_set",
    "ms no 1 ME|1": "cmd_set total_items curr_items",
    "ms no 1 MR|1": "cmd_set",
    "ms k 1 MA|1": "cmd_set total_items",
    "ms k 1 C{cas}|1": "cmd_set cas_hits total_items",
    "ms k 1 C77777777|1": "cmd_set cas_badval",
    "ms no 1 C77777777|1": "cmd_set cas_misses",
    "ms k 1 C1 I|1": "cmd_set cas_hits total_items",
    "ms no 1 MA C7|1": "cmd_set",
    "ms k 1 MA C77777777|1": "cmd_set",
    "ms k 1 MA C{cas}|1": "cmd_set total_items",
    "ms k 1 ME C77777777|1": "cmd_set",
    "ms k 1 z|1": "",
    "md k": "delete_hits curr_items=-1",
    "md no": "delete_misses",
    "md k C{cas}": "delete_hits curr_items=-1",
    "md k C77777777": "delete_misses",
    "md k I": "total_items",
    "md k I C77777777": "delete_misses",
    "ma k": "incr_hits total_items",
    "ma k MD": "decr_hits total_items",
    "ma no": "incr_misses",
    "ma no MD": "decr_misses",
    "ma no N100": "total_items curr_items",
    "ma k C{cas}": "incr_hits total_items",
    "ma k C77777777": "",
    "ma t": "",
    "ma k z": "",
    "me k": "",
    "me no": "",
    "mn": "",
}  # fmt: skip
"""Requests and the counters that go up by one (or so many), cmd_meta for each m? left out.

interop_memcached compares the same table with memcached itself.
"""

RESET: Final = (
    "total_connections", "rejected_connections", "cmd_get", "cmd_set", "cmd_flush", "cmd_touch",
    "cmd_meta", "get_hits", "get_misses", "delete_misses", "delete_hits", "incr_misses",
    "incr_hits", "cas_misses", "touch_misses", "total_items",
)  # fmt: skip
NOT_RESET: Final = ("curr_items", "curr_connections", "limit_maxbytes", "max_connections", "pid")
BUSY: Final = (
    "set k 0 0 2|10", "get k no", "flush_all 999", "touch no 1", "incr k 1", "incr no 1",
    "delete no", "set d 0 0 1|1", "delete d", "cas no 0 0 1 7|1", "me k",
)  # fmt: skip
"""Requests after which none of RESET is 0, but for rejected_connections."""


def changes(text: str) -> dict[str, int]:
    """Return what a line of COUNTED means."""
    pairs = (word.partition("=") for word in text.split())
    return {name: int(number or 1) for name, _, number in pairs}


class CountersTest(PortCase):
    def figures(self) -> dict[str, int]:
        stats = self.port.stats()
        return {name: int(stats[name]) for name in COUNTERS}

    def counted(self, request: str) -> dict[str, int]:
        before = self.figures()
        self.port(request)
        after = self.figures()
        return {
            name: after[name] - before[name] for name in COUNTERS if after[name] != before[name]
        }

    def test_each_command_counts_what_it_does(self) -> None:
        for request, text in COUNTED.items():
            with self.subTest(request):
                for line in PREPARED:
                    self.port(line)
                request = request.replace("{cas}", self.port.token())
                is_meta = request[:2] in ("mg", "ms", "md", "ma", "me", "mn")
                expected = changes(text) | ({"cmd_meta": 1} if is_meta else {})
                self.assertEqual(self.counted(request), expected)

    def test_newer_flags_count_as_what_they_do(self) -> None:
        self.port("set k 0 0 1|1")
        meta = {"cmd_meta": 1}
        self.assertEqual(self.counted("md k x"), meta | {"delete_hits": 1, "total_items": 1})
        added = {"cmd_set": 1, "total_items": 1, "curr_items": 1}
        self.assertEqual(self.counted("ms n 1 MA N0|1"), meta | added)

    def test_a_get_that_finds_an_expired_key_says_so(self) -> None:
        for request, kind in (("get k no", "get"), ("gat 9 k", "touch"), ("mg k v", "get")):
            self.port("set k 0 10 1|1")
            self.port.clock.now += 10
            missed = 2 if " no" in request else 1
            expected = {"get_expired": 1, f"cmd_{kind}": missed, f"{kind}_misses": missed}
            if request[0] == "m":
                expected["cmd_meta"] = 1
            self.assertEqual(self.counted(request), expected)
        self.port("set k 0 10 1|1")
        self.port.clock.now += 10
        self.port.resp("GET", "k")
        self.assertEqual(self.counted("get k"), {"cmd_get": 1, "get_misses": 1})

    def test_what_goes_by_itself_or_for_the_memory_is_counted_apart(self) -> None:
        self.port = Port(max_bytes=4000)
        for number in range(5):
            self.port(f"set k{number} 0 {10 + number} 1|1")
        self.port.clock.now += 10
        self.port("get k0")
        self.port.clock.now += 1
        self.port.store.expire_due()
        self.port.clock.now += 3
        self.port(f"set big 0 0 3000|{'x' * 3000}")
        stats = self.port.stats()
        names = ("get_expired", "crawler_reclaimed", "reclaimed", "evictions", "curr_items")
        self.assertEqual([stats[name] for name in names], ["1", "1", "3", "0", "1"])

    def test_refused_values_are_counted(self) -> None:
        self.port = Port(max_value_bytes=10)
        too_large = {"store_too_large": 1}
        for request in ("add n 0 0 11|12345678901", "add n 0 0 11 noreply|12345678901"):
            self.assertEqual(self.counted(request), too_large | {"cmd_set": 1})
        self.port("set k 0 0 1|1")
        self.assertEqual(self.counted("append k 0 0 10|1234567890"), too_large | {"cmd_set": 1})
        self.port = Port(max_bytes=3000)
        self.port.store.policy = EvictionPolicy.NOEVICTION
        self.port(f"set k 0 0 2000|{'x' * 2000}")
        for noreply in ("", " noreply"):
            expected = {"store_no_memory": 1, "cmd_set": 1}
            self.assertEqual(self.counted(f"add n 0 0 1000{noreply}|{'x' * 1000}"), expected)

    def test_commands_of_other_ports_are_not_counted_but_their_items_are(self) -> None:
        before = self.figures()
        for words in (["SET", "k", "1"], ["GET", "k"], ["GET", "no"], ["INCR", "k"], ["DEL", "no"]):
            self.port.resp(*words)
        expected = before | {"total_items": 2, "curr_items": 1}
        self.assertEqual(self.figures(), expected)

    def test_attempts_to_log_in(self) -> None:
        self.port = Port(password="secret")
        for data in ("user wrong", "user secret"):
            self.port("get k")
            self.port(f"set auth 0 0 {len(data)}|{data}")
        stats = self.port.stats()
        self.assertEqual((stats["auth_cmds"], stats["auth_errors"]), ("2", "1"))

    def test_reset_sets_back_what_memcached_sets_back(self) -> None:
        self.port.resp.instance.connections_received = 3
        for request in BUSY:
            self.port(request)
        stats = self.port.stats()
        zero = [name for name in RESET if stats[name] == "0"]
        self.assertEqual(zero, ["rejected_connections"])
        self.assertEqual(self.port("stats reset"), "RESET\r\n")
        after = self.port.stats()
        self.assertEqual({after[name] for name in RESET}, {"0"})
        self.assertEqual([after[name] for name in NOT_RESET], [stats[name] for name in NOT_RESET])


class FieldsTest(PortCase):
    def test_connections_and_threads_are_those_there_are(self) -> None:
        stats = self.port.stats()
        self.assertEqual(stats["curr_connections"], "2")
        self.assertEqual(stats["connection_structures"], "2")
        # Threads of other tests may be ending just now.
        with mock.patch("threading.active_count", return_value=17):
            self.assertEqual(self.port.stats()["threads"], "17")

    def test_what_nobody_can_know_is_left_out(self) -> None:
        names = self.port.stats().keys()
        self.assertEqual(names & {"get_flushed", "hash_bytes", "response_obj_oom", "rss"}, set())

    def test_settings_tell_the_truth(self) -> None:
        self.port = Port(max_value_bytes=1234, max_clients=56, password=None)
        settings = self.port.stats("settings")
        expected = {
            "item_size_max": "1234", "maxconns": "56", "tcpport": "11211", "evictions": "on",
            "detail_enabled": "no", "auth_enabled_ascii": "no", "binding_protocol": "ascii",
        }  # fmt: skip
        self.assertEqual({name: settings[name] for name in expected}, expected)
        self.port("stats detail on")
        self.assertEqual(self.port.stats("settings")["detail_enabled"], "yes")
        self.port("stats detail off")
        self.assertEqual(self.port.stats("settings")["detail_enabled"], "no")

    def test_one_class_holds_everything(self) -> None:
        self.assertEqual(self.port.stats("items"), {})
        self.assertEqual(self.port.stats("slabs"), {"active_slabs": "0", "total_malloced": "0"})
        for request in ("set k 0 0 1|1", "get k", "incr k 1", "set n 0 10 1|1"):
            self.port(request)
        used = str(self.port.store.used_bytes)
        items, slabs = self.port.stats("items"), self.port.stats("slabs")
        self.assertEqual((items["items:1:number"], items["items:1:mem_requested"]), ("2", used))
        self.assertEqual((slabs["active_slabs"], slabs["total_malloced"]), ("1", used))
        names = ("1:used_chunks", "1:get_hits", "1:cmd_set", "1:incr_hits", "1:touch_hits")
        self.assertEqual([slabs[name] for name in names], ["2", "1", "2", "1", "0"])
        self.port.clock.now += 10
        self.port.store.expire_due()
        self.assertEqual(self.port.stats("items")["items:1:crawler_reclaimed"], "1")
        self.assertEqual(self.port.stats("sizes"), {"sizes_status": "disabled"})

    def test_connections_are_listed(self) -> None:
        number = self.port.dialect.session.id
        self.port.dialect.session.last_active -= 5
        connections = self.port.stats("conns")
        self.assertEqual(connections[f"{number}:addr"], "tcp:127.0.0.1:50001")
        self.assertEqual(connections[f"{number}:listen_addr"], "tcp:127.0.0.1:11211")
        self.assertEqual(connections[f"{number}:secs_since_last_cmd"], "5")


if __name__ == "__main__":
    unittest.main()
