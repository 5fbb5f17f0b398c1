from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import random
import re
import sys
import tempfile
import threading
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from kvdb.errors import EntryTooLarge
from kvdb.persistence import (
    LoadingInterrupted,
    PersistenceError,
    Progress,
    SaveInProgress,
    Seen,
    snapshot,
    snapshot_loading,
    snapshot_writing,
    turns,
)
from kvdb.persistence.lockfile import AlreadyLocked, LockFile
from kvdb.persistence.snapshot import Snapshots
from kvdb.persistence.snapshot_loading import load_snapshot
from kvdb.persistence.snapshot_writing import write_snapshot
from kvdb.store import Dump, Store
from kvdb.store.entry import Entry, Key
from tests.support import ManualClock

if os.name != "nt":
    import fcntl

EVERY_BYTE = bytes(range(256))


class SnapshotTest(unittest.TestCase):
    def setUp(self) -> None:
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.path = Path(folder) / "kvdb.json"
        self.clock = ManualClock()
        self.store = Store(0, clock=self.clock)
        self.monotonic = ManualClock(0)
        self.snapshots = Snapshots(self.store, self.path, monotonic=self.monotonic)

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

    def test_many_entries_are_loaded_piece_by_piece(self) -> None:
        for i in range(105):
            self.store.set(b"key:%d" % i, b"value:%d" % i)
        self.snapshots.save()
        for size in (1, 100, 1000):
            with self.subTest(size), mock.patch.object(snapshot_loading, "_PIECE", size):
                store = self.reloaded()
                self.assertEqual(store.size(), 105)
                self.assertEqual(store.get(b"key:104"), b"value:104")

    def test_a_key_that_stands_there_twice_has_the_later_value(self) -> None:
        keys: list[Key] = [b"a", b"b", b"a", (1, b"a"), (1, b"a")]
        values = [b"1", b"2", b"longer", b"4", b"5"]
        write_snapshot(self.path, Dump(keys, values, {}, {}, 0), self.clock.now)
        store = self.reloaded()
        self.assertEqual((store.get(b"a"), store.get((1, b"a"))), (b"longer", b"5"))
        self.assertEqual((store.size(), store.size(1)), (2, 1))

    def test_long_values_come_in_smaller_slices(self) -> None:
        values = [b"%d" % i * length for i, length in enumerate((9, 40_000, 40_000, 9, 99_999, 9))]
        dump = Dump([b"%d" % i for i in range(len(values))], values[:], {}, {}, 0)
        slices = list(snapshot_writing._take_slices(dump))
        self.assertEqual([value for _, slice_ in slices for value in slice_], values)
        for _, slice_ in slices:
            self.assertTrue(len(slice_) == 1 or sum(map(len, slice_)) <= 64 * 1024)
        self.assertEqual((dump.keys, dump.values), ([], []))

    def test_over_a_smaller_budget_the_rest_is_evicted_and_that_is_said(self) -> None:
        for i in range(100):
            self.store.set(b"key:%d" % i, b"v" * 1000)
        self.store.set(b"huge", b"v" * 60_000)
        self.snapshots.save()
        with self.assertLogs("kvdb.persistence", logging.WARNING) as logged:
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
        with self.assertLogs("kvdb.persistence", logging.WARNING):
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

    @unittest.skipIf(os.name == "nt", "Windows has other permissions")
    def test_a_new_file_is_nobody_elses_to_read(self) -> None:
        modes: list[int] = []
        real = os.replace

        def replace(source: Path, target: Path) -> None:
            modes.append(source.stat().st_mode & 0o777)
            real(source, target)

        before = os.umask(0)
        self.addCleanup(os.umask, before)
        with mock.patch.object(os, "replace", replace):
            self.saved()
            self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
            self.path.chmod(0o640)  # somebody lets a group read it
            self.saved()
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o640)
        self.assertEqual(modes, [0o600, 0o640])

    def test_what_is_due_is_left_out_of_the_file(self) -> None:
        for number in range(200):
            self.store.set(b"%d" % number, b"v", expires_at=self.clock.now + 1 + number % 10)
        self.store.set(b"for ever", b"v")
        self.clock.now += 5
        self.snapshots.save()
        _, *entries, footer = map(json.loads, self.path.read_text().splitlines())
        deadlines = [entry.get("expires_at") for entry in entries]
        self.assertEqual((len(entries), json.loads(json.dumps(footer))["entries"]), (101, 101))
        self.assertEqual(deadlines.count(None), 1)
        self.assertTrue(all(at is None or at > self.clock.now for at in deadlines))
        self.clock.now -= 5  # even if the clock is set back
        self.assertEqual(self.reloaded().size(), 101)

    def test_of_one_moment_what_is_due_decides_the_beginning_of_the_save(self) -> None:
        self.store.set(b"k", b"v", expires_at=self.clock.now + 10)
        real = snapshot_writing._take_slices

        def later(dump: Dump) -> Iterator[tuple[list[Key], list[bytes]]]:
            self.clock.now += 20
            return real(dump)

        with mock.patch.object(snapshot_writing, "_take_slices", later):
            self.snapshots.save()
        self.assertIn(b'"key": "k"', self.path.read_bytes())
        self.assertEqual(self.reloaded().size(), 0)

    def test_the_file_is_written_in_large_pieces(self) -> None:
        for number in range(5_000):
            self.store.set(b"%d" % number, b"x" * 1_000)
        sizes: list[int] = []
        real = snapshot_writing._write

        def write(file: Any, checksum: Any, lines: list[bytes]) -> None:
            sizes.append(sum(map(len, lines)))
            real(file, checksum, lines)

        with mock.patch.object(snapshot_writing, "_write", write):
            self.snapshots.save()
        *early, last = sizes
        self.assertGreater(len(early), 3)
        for size in early:
            self.assertTrue(
                snapshot_writing._WRITTEN_AT_A_TIME
                <= size
                < 1.2 * snapshot_writing._WRITTEN_AT_A_TIME
            )
        self.assertLess(last, snapshot_writing._WRITTEN_AT_A_TIME)
        self.assertEqual(self.reloaded().size(), 5_000)

    # --- other servers -------------------------------------------------------------------

    def test_nothing_is_written_over_another_servers_data(self) -> None:
        before = self.saved()
        self.snapshots.lock = mock.Mock(ensure=mock.Mock(side_effect=AlreadyLocked))
        self.store.set(b"c", b"3")
        with (
            self.assertLogs("kvdb.persistence"),
            self.assertRaisesRegex(PersistenceError, "another kvdb server keeps its data there"),
        ):
            self.snapshots.save()
        self.assertEqual(self.path.read_bytes(), before)
        self.assertEqual(os.listdir(self.path.parent), ["kvdb.json"])
        self.assertEqual(self.snapshots.changes_since_save, 1)

    @unittest.skipIf(os.name == "nt", "Windows locks the name only")
    def test_the_lock_goes_over_to_each_new_file_before_it_is_there(self) -> None:
        lock = self.snapshots.lock = LockFile(self.path)
        self.addCleanup(lock.release)
        real, refused = os.replace, []

        def replace(source: Path, target: Path) -> None:
            with open(source, "rb") as file, self.assertRaises(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            refused.append(source)
            real(source, target)

        with mock.patch.object(os, "replace", replace):
            for _ in range(2):
                self.saved()
                self.path.with_name("kvdb.json.lock").unlink()
                with self.assertRaises(AlreadyLocked):  # it finds another name for the file
                    LockFile(self.path)
        self.assertEqual(len(refused), 2)

    # --- a start that cannot be ----------------------------------------------------------

    def test_a_folder_in_the_way_is_a_sentence(self) -> None:
        unfinished = self.path.with_name("kvdb.json.tmp")
        unfinished.mkdir()
        with self.assertRaises(PersistenceError) as caught:
            Snapshots(self.store, self.path)
        self.assertIn(f"cannot remove {unfinished}: ", str(caught.exception))
        self.assertTrue(unfinished.is_dir())

    def test_what_does_not_fit_is_not_loaded_if_the_copy_cannot_be_written(self) -> None:
        for number in range(100):
            self.store.set(b"key:%d" % number, b"v" * 1000)
        self.snapshots.save()
        before = self.path.read_bytes()
        backup = self.path.with_name("kvdb.json.bak")
        full = OSError(28, "No space left on device")
        with (
            mock.patch.object(snapshot_loading.shutil, "copy2", side_effect=full),
            self.assertRaises(PersistenceError) as caught,
        ):
            self.reloaded(max_bytes=50_000)
        self.assertEqual(str(caught.exception), f"cannot write {backup}: No space left on device")
        self.assertEqual(self.path.read_bytes(), before)

    def test_a_path_that_is_a_folder_is_a_sentence(self) -> None:
        self.path.mkdir()
        with self.assertRaisesRegex(PersistenceError, f"cannot read {re.escape(str(self.path))}: "):
            load_snapshot(self.path, self.store)

    def test_loading_ends_when_it_is_no_longer_wanted(self) -> None:
        for number in range(2_000):
            self.store.set(b"%d" % number, b"x" * 100)
        self.snapshots.save()
        calls = iter([False, True])
        progress = Progress(self.path, lambda: next(calls))
        with (
            mock.patch.object(snapshot_loading, "_PIECE", 10_000),
            self.assertRaises(LoadingInterrupted),
        ):
            load_snapshot(self.path, Store(0), progress)

    def test_how_far_it_has_come_is_told_every_five_seconds(self) -> None:
        monotonic = ManualClock(0)
        progress = Progress(self.path, monotonic=monotonic)
        with self.assertLogs("kvdb.persistence", logging.INFO) as logged:
            for second in range(13):
                monotonic.now = second
                progress.report(1_000 * second)
        self.assertEqual(len(logged.output), 2)
        self.assertIn(f"{self.path}: 5,000 entries", logged.output[0])
        self.assertIn("10,000 entries", logged.output[1])

    # --- what is told of it --------------------------------------------------------------

    def test_age_is_how_long_a_change_may_have_waited(self) -> None:
        self.monotonic.now += 100
        self.assertEqual(self.snapshots.age, 0)
        self.store.set(b"k", b"v")
        self.monotonic.now += 5
        self.assertEqual(self.snapshots.age, 105)
        self.snapshots.save()
        self.assertEqual(self.snapshots.age, 0)
        self.monotonic.now += 7
        self.store.delete(b"k")
        self.assertEqual(self.snapshots.age, 7)

    def test_age_does_not_follow_a_clock_that_is_set(self) -> None:
        self.store.set(b"k", b"v")
        self.monotonic.now += 5
        for jump in (-3600, 7200):
            self.clock.now += jump
            self.assertEqual(self.snapshots.age, 5)

    def test_no_reply_waits_for_a_snapshot(self) -> None:
        self.assertFalse(self.snapshots.waits)
        self.snapshots.leave(self.snapshots.arrive())
        self.assertEqual((self.snapshots.durable_step, self.snapshots.undos), (sys.maxsize, 0))
        self.assertTrue(self.snapshots.outcome(Seen(1, 0, 1)))
        self.assertTrue(self.snapshots.wait_until_durable(Seen(1, 0, 1)))

    def test_a_save_holds_what_the_store_gives_up_meanwhile(self) -> None:
        for number in range(200):
            self.store.set(b"%d" % number, bytes(10_000))
        held: list[int] = []

        class Watching(turns.Turns):
            def pause_if_over(turns) -> None:  # noqa: N805
                held.append(self.snapshots.held_bytes)
                if len(held) == 2:
                    for number in range(200):
                        self.store.set(b"%d" % number, b"small")

        with mock.patch.object(snapshot, "Turns", Watching):
            self.snapshots.save()
        self.assertLess(held[0], 20_000)
        self.assertGreater(held[2], 1_900_000)
        self.assertEqual(self.snapshots.held_bytes, 0)
        self.assertFalse(self.snapshots.congested)

    def test_if_that_is_too_much_it_hurries_and_who_writes_waits_a_little(self) -> None:
        for number in range(200):
            self.store.set(b"%d" % number, bytes(10_000))
        seen: list[tuple[bool, bool]] = []

        class Watching(turns.Turns):
            def pause_if_over(turns) -> None:  # noqa: N805
                if len(seen) == 1:
                    self.store.flush()
                self.snapshots.wait_for_room()
                seen.append((self.snapshots.congested, self.snapshots._hurried.is_set()))

        with (
            mock.patch.object(snapshot, "_MOST_HELD", 1_000_000),
            mock.patch.object(snapshot, "Turns", Watching),
            mock.patch.object(snapshot.time, "sleep") as sleep,
        ):
            self.snapshots.save()
            self.assertEqual(seen[:2], [(False, False), (True, True)])
            sleep.assert_called_with(turns.PAUSE)
            sleep.reset_mock()
            self.snapshots.wait_for_room()  # it is over
            sleep.assert_not_called()

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
        for deadline in (b"NaN", b"-Infinity", b"1e999", b"9" * 400, b'"soon"', b"[]"):
            line = b'{"key": "k", "value": "v", "expires_at": %b}\n' % deadline
            self.assert_refused(header + line, 2, "not an entry")
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
        with self.assertLogs("kvdb.persistence", logging.ERROR) as logged:
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
        with self.assertLogs("kvdb.persistence", logging.INFO) as logged:
            self.snapshots.save()
        self.assertIn("works again", logged.output[0])
        self.assertIsNone(self.snapshots.last_error)
        self.assertEqual(self.reloaded().size(), 3)

    def test_a_folder_that_is_gone_is_reported_once(self) -> None:
        self.path.parent.rmdir()
        self.addCleanup(self.path.parent.mkdir)
        with self.assertLogs("kvdb.persistence", logging.ERROR) as logged:
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


class FastWaysTest(unittest.TestCase):
    """Reading, restoring and writing in bulk give what they give line by line."""

    LINES = (
        b'{"key": "a", "value": "b"}\n',
        b'{"key": "", "value": ""}\n',
        '{"key": "grüße", "value": "日本\u2028\x7f"}\n'.encode(),
        b'{"key": "k", "value": "v", "expires_at": 1767229200.125}\n',
        b'{"key": "k", "value": "v", "expires_at": 7}\n',
        b'{"key": "k", "value": "v", "db": 3, "client_flags": 4}\n',
        b'{"key_base64": "/w==", "value": "\\n"}\n',
        b'{"value":"v","key":"k"}\n',
        b'{"key": "long", "value": "%b"}\n' % (b"x" * 500),
    )
    DAMAGE = (
        b'"', b"\\", b"{", b"}", b", ", b": ", b" ", b"\n", b"\r", b"\r\n", b"\0", b"\x1f", b"\x7f",
        b"\x80", b"\xc3\xa9", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\\u0041", b"\\ud800", b"x" * 500,
        b', "expires_at": ', b"0", b"01", b"1.", b"-1", b"1e5", b"1E400", b"NaN", b"null", b"9" * 15,
        b"9" * 16, b'"key": "x"', b', "value": "y"', b', "db": 16', b'"sha256": 1', b'"entries"',
    )  # fmt: skip
    ANY_LINE = re.compile(rb"()()()(.+\n?|\n)")  # in place of _LINE: no line is a plain one

    def setUp(self) -> None:
        self.random = random.Random(1)

    def damaged(self, line: bytes) -> bytes:
        start = self.random.randrange(len(line))
        end = start + self.random.choice((0, 0, 1, 5))
        return line[:start] + self.random.choice((*self.DAMAGE, b"")) + line[end:]

    def file(self, lines: list[bytes]) -> bytes:
        content = b'{"format": "kvdb-snapshot", "version": 1}\n' + b"".join(lines)
        footer = {"entries": len(lines), "sha256": hashlib.sha256(content).hexdigest()}
        return content + json.dumps(footer).encode()

    def some_file(self) -> bytes:
        lines = self.random.choices(self.LINES, k=self.random.randrange(1, 6))
        for _ in range(self.random.choice((0, 1, 1, 2))):
            number = self.random.randrange(len(lines))
            lines[number] = self.damaged(lines[number])
        return self.file(lines) + self.random.choice((b"\n", b"", lines[0]))

    def outcome(self, content: bytes) -> tuple[str, str]:
        entries = []
        try:
            path = Path("file")
            reader = snapshot_loading._Reader(path, io.BytesIO(content), Progress(path))
            for entry in reader.entries():
                entries.append(entry)
        except PersistenceError as error:
            return repr(entries), str(error)
        return repr(entries), "good"

    def assert_read_as_json_reads_it(self, content: bytes) -> bool:
        """Tell whether the file is a good one, too."""
        fast = self.outcome(content)
        with mock.patch.object(snapshot_loading, "_LINE", self.ANY_LINE):
            plain = self.outcome(content)
        self.assertEqual(fast, plain, content)
        return plain[1] == "good"

    def test_any_line_is_read_as_json_reads_it(self) -> None:
        good = 0
        for _ in range(3000):
            with mock.patch.object(
                snapshot_loading, "_PIECE", self.random.choice((1, 100, 10_000))
            ):
                good += self.assert_read_as_json_reads_it(self.some_file())
        self.assertGreater(good, 300)

    def test_what_is_nearly_plain_is_read_as_json_reads_it(self) -> None:
        plain = self.LINES[0]
        for line in (b"\n", b" " + plain, plain[:-1] + b" \n", plain[:-1] + b"\r\n", plain * 2):
            self.assert_read_as_json_reads_it(self.file([plain, line, plain]))
        for number in b"0 07 -7 7. .7 7.0 7.5e3 1e999 +7 0x7 true 123456789012345678".split():
            line = plain[:-2] + b', "expires_at": %b}\n' % number
            self.assert_read_as_json_reads_it(self.file([line]))

    def some_entries(self) -> list[tuple[Key, Entry]]:
        texts = (
            b"",
            b"text",
            b"x" * 40,
            "grüße".encode(),
            b'"',
            b"\\",
            b"\n",
            b"\xff",
            b"\xc3",
            b"\xa9",
        )
        weights = (5, 50, 20, 20, 1, 1, 1, 1, 1, 1)

        def entry() -> tuple[Key, Entry]:
            name, value = self.random.choices(texts, weights, k=2)
            name += b"%d" % self.random.randrange(60)
            deadline = 1000 + self.random.choice((-1, 0.1, 1e9)) if self.maybe(0.1) else None
            flags = 7 if self.maybe(0.05) else 0
            return (3, name) if self.maybe(0.05) else name, Entry(value, deadline, flags)

        return [entry() for _ in range(self.random.randrange(40))]

    def maybe(self, probability: float) -> bool:
        return self.random.random() < probability

    def test_lines_are_written_in_bulk_as_one_by_one(self) -> None:
        for _ in range(1000):
            entries = self.some_entries()
            keys, values = [key for key, _ in entries], [entry.value for _, entry in entries]
            deadlines = {k: entry.expires_at for k, entry in entries if entry.expires_at}
            flags = {key: entry.client_flags for key, entry in entries if entry.client_flags}
            dump = Dump(keys, values, deadlines, flags, 0)
            one_by_one = "".join(
                map(snapshot_writing._encode_entry, keys, values, [dump] * len(keys))
            )
            self.assertEqual(
                snapshot_writing._encode_entries(keys, values, dump), one_by_one.encode()
            )

    def test_what_is_text_only_together_is_written_in_base64(self) -> None:
        dump = Dump([b"a", b"b"], [b"\xc3", b"\xa9"], {}, {}, 0)
        lines = snapshot_writing._encode_entries(dump.keys, dump.values, dump).splitlines()
        self.assertEqual(json.loads(lines[0]), {"key": "a", "value_base64": "ww=="})

    def test_entries_are_restored_in_bulk_as_one_by_one(self) -> None:
        for _ in range(500):
            # As in every file of ours, each key is there once.
            entries = list(dict(self.some_entries()).items())
            max_bytes = self.random.choice((0, 200, 3000, 7000))
            store, expected = (Store(max_bytes, clock=ManualClock(1000)) for _ in range(2))
            too_large = 0
            for key, (value, deadline, flags) in entries:
                if deadline is None or deadline > 1000:
                    try:
                        expected.set(key, value, expires_at=deadline, client_flags=flags)
                    except EntryTooLarge:
                        too_large += 1
            self.assertEqual(store.restore(iter(entries)), expected.evicted_keys + too_large)
            store.check()
            self.assertEqual(self.contents(store), self.contents(expected))
            self.assertEqual((store.changes, store.evicted_keys), (0, 0))

    def test_of_a_key_that_comes_twice_the_later_counts_in_every_batch(self) -> None:
        for _ in range(200):
            entries = self.some_entries() * self.random.choice((1, 2))
            for together in (1, 3, 250):
                store = Store(0, clock=ManualClock(1000))
                with mock.patch("kvdb.store.copies._RESTORED_TOGETHER", together):
                    store.restore(iter(entries))
                store.check()
                for key, entry in dict(entries).items():
                    if entry.expires_at is None or entry.expires_at > 1000:
                        self.assertEqual(store.entry(key), entry)

    def contents(self, store: Store) -> object:
        keys = [*store.keys(), *((3, name) for name in store.keys(3))]
        return {key: store.entry(key) for key in keys}, store.sizes(), store.used_bytes


class PauseTest(unittest.TestCase):
    """What others get of the interpreter while a snapshot is written."""

    def setUp(self) -> None:
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.store = Store(0)
        self.snapshots = Snapshots(self.store, Path(folder) / "kvdb.json")
        for i in range(500):
            self.store.set(b"key:%d" % i, b"v")
        self.enterContext(mock.patch.object(turns, "_TURN", 0))  # over after each slice
        self.sleep = self.enterContext(mock.patch.object(snapshot.time, "sleep"))

    def pauses(self) -> list[float]:
        return [seconds for ((seconds,), _) in self.sleep.call_args_list]

    def test_nobody_is_waited_for_who_is_not_there(self) -> None:
        self.snapshots.save()
        self.assertEqual(self.pauses(), [0] * 10)

    def keep_time(self, work: float, waiting: float = 0.0) -> None:
        """Have each slice be so much work; each pause lasts as asked, and `waiting` longer."""
        self.worked = self.now = 0.0

        def look() -> float:
            return self.now

        def work_done() -> float:
            return self.worked

        def pause(seconds: float) -> None:
            self.now += seconds + waiting
            self.store.get(b"key:1")

        def encode(*arguments: Any) -> bytes:
            self.worked += work
            self.now += work
            return real(*arguments)

        real = snapshot_writing._encode_entries
        self.sleep.side_effect = pause
        self.enterContext(mock.patch.object(snapshot_writing, "_encode_entries", encode))
        self.enterContext(mock.patch.object(snapshot.time, "perf_counter", look))
        self.enterContext(mock.patch.object(snapshot.time, "thread_time", work_done))

    def test_pauses_are_longer_while_somebody_uses_the_store(self) -> None:
        calls = iter(range(10))
        self.keep_time(work=0.002)
        pause = self.sleep.side_effect
        self.sleep.side_effect = lambda s: (
            pause(s) if next(calls) < 3 else setattr(self, "now", self.now + s)
        )
        self.snapshots.save()
        self.assertEqual(self.pauses(), [0, *[turns.PAUSE] * 3, *[0] * 6])

    def test_a_save_takes_twenty_times_its_work_at_most(self) -> None:
        self.keep_time(work=0.0002)
        self.snapshots.save()
        self.assertAlmostEqual(self.now, self.worked * turns._SLOWEST, delta=turns.PAUSE)
        self.assertLessEqual(self.now, self.worked * turns._SLOWEST)

    def test_where_each_turn_has_to_be_waited_for_there_are_no_pauses_as_well(self) -> None:
        self.keep_time(work=0.0002, waiting=0.005)  # as beside threads that are never idle
        self.snapshots.save()
        self.assertLess(len(self.pauses()), 10)
        self.assertLess(self.now, self.worked * turns._SLOWEST + 0.006)

    def test_the_last_save_waits_for_nobody(self) -> None:
        self.sleep.side_effect = lambda _: self.store.get(b"key:1")
        self.snapshots.save_at_end()
        self.assertEqual(self.pauses(), [0] * 10)

    def test_the_last_save_hurries_one_that_is_under_way(self) -> None:
        self.keep_time(work=0.002)
        pause, calls = self.sleep.side_effect, iter(range(1000))
        ended = threading.Event()

        def save_at_end() -> None:
            self.snapshots.save_at_end()
            ended.set()

        last = threading.Thread(target=save_at_end)
        self.addCleanup(last.join)

        def begin_to_end(seconds: float) -> None:
            if next(calls) == 3:
                self.store.set(b"new", b"v")
                last.start()
                self.assertTrue(self.snapshots._hurried.wait(10))
            pause(seconds)

        self.sleep.side_effect = begin_to_end
        self.snapshots.save()
        self.assertEqual(self.pauses()[:4], [0, *[turns.PAUSE] * 3])
        self.assertTrue(ended.wait(10))
        self.assertNotIn(turns.PAUSE, self.pauses()[4:])
        self.assertEqual((self.snapshots.saves, self.snapshots.changes_since_save), (2, 0))

    def test_the_next_save_is_in_no_hurry_any_more(self) -> None:
        self.snapshots.save_at_end()
        self.sleep.reset_mock()
        self.keep_time(work=0.002)
        self.snapshots.save()
        self.assertEqual(self.pauses()[1:], [turns.PAUSE] * 9)


class SchedulingTest(unittest.TestCase):
    """When saves happen, by the passes of the background thread."""

    def setUp(self) -> None:
        folder = self.enterContext(tempfile.TemporaryDirectory())
        self.path = Path(folder) / "kvdb.json"
        self.store = Store(0)
        self.interval = 60.0
        self.monotonic = ManualClock(0)
        self.snapshots = Snapshots(self.store, self.path, lambda: self.interval, self.monotonic)

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
            self.assertLogs("kvdb.persistence"),
        ):
            self.snapshots.save_if_due()
        self.monotonic.now = 120
        with self.assertLogs("kvdb.persistence"):
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
