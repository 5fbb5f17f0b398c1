from __future__ import annotations

import json
import logging
import os
import tempfile
import unittest
from pathlib import Path
from unittest import mock

from kvdb import snapshot
from kvdb.entry import Entry
from kvdb.persistence import PersistenceError, SaveInProgress
from kvdb.snapshot import Snapshots, load_snapshot
from kvdb.store import Store
from tests.support import ManualClock

EVERY_BYTE = bytes(range(256))


class SnapshotTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.path = Path(folder) / "kvdb.json"
        self.clock = ManualClock()
        self.store = Store(0, clock=self.clock)
        self.snapshots = Snapshots(self.store, self.path)

    def reloaded(self, max_bytes: int = 0) -> Store:
        store = Store(max_bytes, clock=self.clock)
        load_snapshot(self.path, store)
        store.check()
        return store

    def test_everything_comes_back_exactly(self) -> None:
        entries = {
            b"text": Entry('grüße\n\u2028 "quoted" \\ \x00'.encode()),
            b"": Entry(b""),
            EVERY_BYTE: Entry(EVERY_BYTE),
            b"\xed\xa0\x80": Entry(b"\xed\xa0\x80"),  # a surrogate: not UTF-8
            b"expiring": Entry(b"v", self.clock.now + 12.345),
            b"flagged": Entry(b"v", None, 42),
            (7, b"other"): Entry(b"database", self.clock.now + 1, 1),
        }
        for key, entry in entries.items():
            self.store.set(
                key, entry.value, expires_at=entry.expires_at, client_flags=entry.client_flags
            )
        self.snapshots.save()
        store = self.reloaded()
        self.assertEqual({key: store.entry(key) for key in entries}, entries)
        self.assertEqual(store.size() + store.size(7), len(entries))

    def test_a_key_that_expired_meanwhile_stays_away(self) -> None:
        self.store.set(b"k", b"v", expires_at=self.clock.now + 10)
        self.snapshots.save()
        self.clock.now += 10
        self.assertEqual(self.reloaded().size(), 0)

    def test_the_file_is_json_lines_that_a_person_can_read(self) -> None:
        self.store.set(b"greeting", "grüße".encode())
        self.store.set(b"\xff", b"\x00\x01\xff", expires_at=1234567890123.5)
        self.snapshots.save()
        header, *entries, footer = self.path.read_text(encoding="utf-8").splitlines()
        self.assertEqual(json.loads(header)["format"], "kvdb-snapshot")
        self.assertEqual(entries[0], '{"key": "greeting", "value": "grüße"}')
        self.assertEqual(
            json.loads(entries[1]),
            {"key_base64": "/w==", "value_base64": "AAH/", "expires_at": 1234567890123.5},
        )
        self.assertEqual(json.loads(footer)["entries"], 2)

    def test_many_entries_survive_the_slices(self) -> None:
        for i in range(105):
            self.store.set(b"key:%d" % i, b"value:%d" % i)
        self.snapshots.save()
        store = self.reloaded()
        self.assertEqual(store.size(), 105)
        self.assertEqual(store.get(b"key:104"), b"value:104")

    def test_over_a_smaller_budget_the_rest_is_evicted_and_that_is_said(self) -> None:
        for i in range(100):
            self.store.set(b"key:%d" % i, b"v" * 1000)
        self.store.set(b"huge", b"v" * 60_000)
        self.snapshots.save()
        with self.assertLogs("kvdb.snapshot", logging.WARNING) as logged:
            store = self.reloaded(max_bytes=50_000)
        self.assertIsNotNone(store.get(b"key:99"))
        self.assertIsNone(store.get(b"key:0"))
        self.assertIsNone(store.get(b"huge"))
        self.assertIn(f"{101 - store.size()} of 101", logged.output[0])
        self.assertEqual(store.evicted_keys, 0)

    def test_what_did_not_fit_is_not_lost_with_the_next_save(self) -> None:
        for i in range(100):
            self.store.set(b"key:%d" % i, b"v" * 1000)
        self.snapshots.save()
        before = self.path.read_bytes()
        with self.assertLogs("kvdb.snapshot", logging.WARNING):
            store = self.reloaded(max_bytes=50_000)
        Snapshots(store, self.path).save()
        self.assertNotEqual(self.path.read_bytes(), before)
        self.assertEqual(self.path.with_name("kvdb.json.bak").read_bytes(), before)

    @unittest.skipIf(os.name == "nt", "Windows has other permissions and links")
    def test_a_save_keeps_the_permissions_and_follows_a_link(self) -> None:
        link = self.path.with_name("link.json")
        self.saved()
        self.path.chmod(0o600)
        link.symlink_to(self.path)
        self.store.set(b"new", b"v")
        Snapshots(self.store, link).save()
        self.assertTrue(link.is_symlink())
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.reloaded().get(b"new"), b"v")

    def test_what_a_killed_server_left_behind_is_removed(self) -> None:
        unfinished = self.path.with_name("kvdb.json.tmp")
        unfinished.write_text("half")
        Snapshots(self.store, self.path)
        self.assertFalse(unfinished.exists())

    def test_nothing_is_written_over_another_servers_data(self) -> None:
        before = self.saved()
        self.snapshots.ensure_alone = mock.Mock(side_effect=OSError("another server"))
        self.store.set(b"c", b"3")
        with self.assertLogs("kvdb.snapshot"), self.assertRaisesRegex(PersistenceError, "another"):
            self.snapshots.save()
        self.assertEqual(self.path.read_bytes(), before)

    # --- files that are not what they should be ------------------------------------------

    def assert_refused(self, content: bytes, line: int, reason: str) -> None:
        self.path.write_bytes(content)
        with self.assertRaises(PersistenceError) as caught:
            self.reloaded()
        text = str(caught.exception)
        self.assertIn(str(self.path), text)
        self.assertIn(f"line {line}:", text)
        self.assertIn(reason, text)
        self.assertEqual(self.path.read_bytes(), content)

    def saved(self) -> bytes:
        self.store.set(b"a", b"1")
        self.store.set(b"b", b"2")
        self.snapshots.save()
        return self.path.read_bytes()

    def test_a_file_cut_anywhere_is_refused(self) -> None:
        content = self.saved()
        for length in range(len(content) - 1):
            self.path.write_bytes(content[:length])
            with self.subTest(length=length), self.assertRaises(PersistenceError):
                self.reloaded()

    def test_any_changed_byte_is_refused(self) -> None:
        content = self.saved()
        for position in range(len(content)):
            damaged = bytearray(content)
            damaged[position] ^= 1
            self.path.write_bytes(damaged)
            with self.subTest(position=position), self.assertRaises(PersistenceError):
                self.reloaded()

    def test_the_refusal_names_the_line_and_the_reason(self) -> None:
        header, first, second, footer = self.saved().splitlines(keepends=True)
        self.assert_refused(b"", 0, "cut short")
        self.assert_refused(header + first, 2, "cut short")
        self.assert_refused(b"hello\n", 1, "not a JSON object")
        self.assert_refused(b'{"a": 1}\n', 1, "not a kvdb snapshot")
        self.assert_refused(header + b"[" * 100_000 + b"\n", 2, "not a JSON object")
        self.assert_refused(header + b'{"key": 1, "value": "x"}\n', 2, "not an entry")
        self.assert_refused(header + b'{"key_base64": "?", "value": "x"}\n', 2, "not an entry")
        self.assert_refused(header + first + footer, 3, "1 entries instead of 2")
        self.assert_refused(header + second + first + footer, 4, "checksum")
        self.assert_refused(header + first + second + footer + first, 5, "after its last line")

    def test_a_newer_format_is_refused_with_the_way_out(self) -> None:
        self.path.write_text('{"format": "kvdb-snapshot", "version": 2}\n')
        with self.assertRaisesRegex(PersistenceError, "version 2.*newer"):
            self.reloaded()

    # --- writing that fails --------------------------------------------------------------

    def test_a_save_that_fails_at_any_call_keeps_the_old_file_and_leaves_nothing(self) -> None:
        before = self.saved()
        self.store.set(b"c", b"3")
        full = OSError(28, "No space left on device")
        with self.assertLogs("kvdb.snapshot", logging.ERROR) as logged:
            for name in ("fsync", "replace"):
                with (
                    self.subTest(name),
                    mock.patch.object(os, name, side_effect=full),
                    self.assertRaisesRegex(PersistenceError, "No space left"),
                ):
                    self.snapshots.save()
                self.assertEqual(self.path.read_bytes(), before)
                self.assertEqual(os.listdir(self.path.parent), ["kvdb.json"])
        self.assertEqual(len(logged.output), 1, "once per change of state")
        self.assertIn("No space left", self.snapshots.last_error or "")
        self.assertEqual(self.snapshots.changes_since_save, 1)
        with self.assertLogs("kvdb.snapshot", logging.INFO) as logged:
            self.snapshots.save()
        self.assertIn("works again", logged.output[0])
        self.assertIsNone(self.snapshots.last_error)
        self.assertEqual(self.reloaded().size(), 3)

    def test_a_folder_that_is_gone_is_reported_once(self) -> None:
        self.path.parent.rmdir()
        self.addCleanup(self.path.parent.mkdir)
        with self.assertLogs("kvdb.snapshot", logging.ERROR) as logged:
            for _ in range(3):
                with self.assertRaises(PersistenceError):
                    self.snapshots.save()
        self.assertEqual(len(logged.output), 1)

    def test_the_folder_is_synced_after_the_rename(self) -> None:
        if os.name == "nt":
            self.skipTest("Windows cannot sync folders")
        calls = []
        real_replace, real_fsync = os.replace, os.fsync
        with (
            mock.patch.object(
                os, "replace", lambda a, b: (calls.append("replace"), real_replace(a, b))
            ),
            mock.patch.object(os, "fsync", lambda fd: (calls.append("fsync"), real_fsync(fd))),
        ):
            self.saved()
        self.assertEqual(calls, ["fsync", "replace", "fsync"])


class SchedulingTest(unittest.TestCase):
    """When saves happen, by the passes of the background thread."""

    def setUp(self) -> None:
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.path = Path(folder) / "kvdb.json"
        self.store = Store(0)
        self.interval = 60.0
        self.monotonic = ManualClock(0)
        self.enterContext(mock.patch.object(snapshot.time, "monotonic", self.monotonic))
        self.snapshots = Snapshots(self.store, self.path, lambda: self.interval)

    def test_a_changed_store_is_saved_when_the_interval_has_passed(self) -> None:
        self.store.set(b"k", b"v")
        self.monotonic.now = 59
        self.snapshots.save_if_due()
        self.assertFalse(self.path.exists())
        self.assertEqual(self.snapshots.seconds_to_next(), 1)
        self.monotonic.now = 60
        self.snapshots.save_if_due()
        self.assertTrue(self.path.exists())
        self.assertEqual(self.snapshots.changes_since_save, 0)
        self.assertEqual(self.snapshots.seconds_to_next(), 60)

    def test_an_unchanged_store_is_not_saved_again(self) -> None:
        self.monotonic.now = 60
        self.snapshots.save_if_due()
        self.assertEqual(self.snapshots.saves, 0)

    def test_an_interval_of_zero_saves_on_request_only(self) -> None:
        self.interval = 0
        self.store.set(b"k", b"v")
        self.assertIsNone(self.snapshots.seconds_to_next())
        self.assertTrue(self.snapshots.save_soon())
        self.assertEqual(self.snapshots.seconds_to_next(), 0)
        self.snapshots.save_if_due()
        self.assertEqual(self.snapshots.saves, 1)

    def test_a_request_wakes_the_thread_and_a_second_one_is_refused(self) -> None:
        woken = []
        self.snapshots.on_request = lambda: woken.append(1)
        self.assertTrue(self.snapshots.save_soon())
        self.assertFalse(self.snapshots.save_soon())
        self.assertEqual(woken, [1])
        self.snapshots.save_if_due()
        self.assertTrue(self.snapshots.save_soon())

    def test_two_saves_at_once_are_refused(self) -> None:
        def during(*_: object) -> None:
            self.assertTrue(self.snapshots.in_progress)
            self.assertFalse(self.snapshots.save_soon())
            with self.assertRaises(SaveInProgress):
                self.snapshots.save()

        with mock.patch.object(snapshot, "write_snapshot", side_effect=during) as write:
            self.snapshots.save()
        write.assert_called_once()

    def test_a_failed_save_is_tried_again_after_the_next_interval(self) -> None:
        self.store.set(b"k", b"v")
        self.monotonic.now = 60
        with (
            mock.patch.object(os, "replace", side_effect=OSError("broken")),
            self.assertLogs("kvdb.snapshot"),
        ):
            self.snapshots.save_if_due()
        self.monotonic.now = 120
        with self.assertLogs("kvdb.snapshot"):
            self.snapshots.save_if_due()
        self.assertTrue(self.path.exists())

    def test_the_last_save_writes_what_is_missing_and_no_more(self) -> None:
        self.snapshots.save_at_end()
        self.assertTrue(self.path.exists(), "an empty store leaves an empty snapshot")
        self.snapshots.save_at_end()
        self.assertEqual(self.snapshots.saves, 1)
        self.store.set(b"k", b"v")
        self.snapshots.save_at_end()
        self.assertEqual(self.snapshots.saves, 2)
