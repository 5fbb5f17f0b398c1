from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import kvdb
import kvdb.cli
import kvdb.testing
import kvdb.tools
from kvdb.__main__ import TOOLS, is_tool
from kvdb.config import Config, Fsync
from kvdb.persistence.database import JournalFile
from kvdb.persistence.lockfile import LockFile
from kvdb.persistence.snapshot_writing import write_snapshot
from kvdb.service import CannotStart
from kvdb.store import Store
from kvdb.store.entry import Entry, Key
from kvdb.tools.files import read_data
from kvdb.tools.lines import decode_line, encode_line
from tests.support import running_server

ENTRIES: dict[Key, Entry] = {
    b"plain": Entry(b"caf\xc3\xa9"),
    b"\x00\xff": Entry(b"v", 4e9),
    (3, b"other"): Entry(b"\xfe", None, 7),
}


DUMP_OF_VALKEY = base64.b64decode(
    "VkFMS0VZMDgw+gp2YWxrZXktdmVyBTkuMS4y+gpyZWRpcy1iaXRzwED6BWN0aW1lwtV1CGv6CHVzZWQtbWVtwqDN"
    "EQD6CGFvZi1iYXNlwAD+APsEAAABc8AMFgFoAQFmAXafWrHtigIAABIBbAECCQkAAAABAAEB/xUBeAEQAAABohkM"
    "Sp8AAAAAAAAAABwcAAAACgABAQABAQGBYQIAAQIBAAEAAQEBBAH/AYEAAAGiGQxKnwCBAAABohkMSp8AAAABAQFn"
    "gQAAAaIZDEqfAAEBAAABohkMSp8AAAAAAAAAAJ9KDBmiAQAAAQEBY59KDBmiAQAAn0oMGaIBAAABAAABohkMSp8A"
    "AAAAAAAAAP+dxgPymAV+zw=="
)
"""What Valkey 9.1 saves: a string, a hash whose field expires, a list, a stream with a group."""


class Done(NamedTuple):
    """What a tool has done."""

    code: int
    out: bytes
    err: str


def run_tool(
    *arguments: str, stdin: bytes = b"", environment: dict[str, str] | None = None
) -> Done:
    """Run a tool in this process, as `python -m kvdb` does."""
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True), io.StringIO()
    with (
        mock.patch.object(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin))),
        mock.patch.dict(os.environ, environment or {"KVDB_PASSWORD": ""}),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            code = kvdb.tools.main(arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
        out.flush()
    assert isinstance(out.buffer, io.BytesIO)
    return Done(code, out.buffer.getvalue(), err.getvalue())


class ToolCase(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def snapshot(self, entries: dict[Key, Entry] = ENTRIES) -> Path:
        path, store = self.folder / "data.json", Store(max_bytes=0)
        store.restore(entries.items())
        write_snapshot(path, store.dump(), store.now())
        return path

    def journal(self, entries: dict[Key, Entry] = ENTRIES) -> Path:
        path = self.folder / "data.sqlite"
        file = JournalFile(path, Fsync.NEVER)
        file.begin_writing()
        file.write(dict(entries), set(), 1, len(entries))
        file.close()
        return path

    def file(self, *lines: bytes) -> str:
        path = self.folder / "lines.jsonl"
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return str(path)


class DispatchTest(ToolCase):
    def test_a_name_of_a_tool_is_one_unless_there_is_such_a_file(self) -> None:
        self.enterContext(contextlib.chdir(self.folder))
        self.assertEqual(set(TOOLS), set(kvdb.cli.TOOLS))
        for name in TOOLS:
            self.assertTrue(is_tool([name, "--help"]))
        Path("shell").touch()
        for arguments in (["shell"], ["./ping"], ["data.json"], ["--port", "ping"], []):
            self.assertFalse(is_tool(arguments), arguments)

    def test_each_tool_has_help_and_proposes_a_flag_for_a_misspelt_one(self) -> None:
        for name in TOOLS:
            with self.subTest(name):
                done = run_tool(name, "--help")
                self.assertEqual((done.code, done.err), (0, ""))
                self.assertIn(f"kvdb {name}", done.out.decode())
                done = run_tool(name, "--halp", "x", "y")
                self.assertEqual((done.code, done.out), (2, b""))
                self.assertIn("did you mean --help?", done.err)
                self.assertEqual(done.err.count("\n"), 1)

    def test_python_m_kvdb_runs_it_and_imports_no_server(self) -> None:
        program = "import sys, runpy; sys.argv[1:] = ['ping', 'x']; import kvdb.__main__ as m\n"
        program += "try: m.run()\nfinally: print('kvdb.service' in sys.modules)"
        done = subprocess.run([sys.executable, "-S", "-c", program], capture_output=True, text=True)
        self.assertEqual((done.returncode, done.stdout), (2, "False\n"))
        self.assertIn("'x' is no URL", done.stderr)


class PingTest(unittest.TestCase):
    def test_a_server_that_answers(self) -> None:
        with kvdb.testing.running() as server:
            self.assertEqual(run_tool("ping", server.url), Done(0, b"PONG\n", ""))
            self.assertEqual(run_tool("ping", "--port", str(server.port)), Done(0, b"PONG\n", ""))

    def test_a_server_that_wants_a_password(self) -> None:
        with kvdb.testing.running(password="secret") as server:
            port = str(server.port)
            done = run_tool("ping", "--port", port)
            self.assertEqual((done.code, done.out), (1, b""))
            self.assertIn("answers, but refuses: NOAUTH", done.err)
            given = {"KVDB_PASSWORD": "secret"}
            self.assertEqual(run_tool("ping", "--port", port, environment=given).code, 0)
            self.assertEqual(
                run_tool("ping", f"kvdb://127.0.0.1:{port}", environment=given).code, 1
            )
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "password")
                path.write_text("secret\n")
                done = run_tool("ping", "--port", port, "--password-file", str(path))
            self.assertEqual(done.code, 0)

    def test_nobody_there_and_somebody_who_is_silent(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            port = str(silent.getsockname()[1])
            done = run_tool("ping", "--port", port, "--timeout", "0.05")
            self.assertEqual((done.code, done.out), (1, b""))
            self.assertEqual(done.err.count("\n"), 1)
        done = run_tool("ping", "--port", port)
        self.assertIn("cannot connect", done.err)
        self.assertEqual(done.code, 1)

    def test_what_cannot_be_used_is_told_without_the_password(self) -> None:
        for arguments in (
            ["--port", "0"],
            ["--port", "x"],
            ["--db", "-1"],
            ["--timeout", "0"],
            ["--timeout", "1e300"],
            ["--user", "bob"],
            ["--password-file", "/does/not/exist"],
            ["kvdb://h", "--port", "1"],
            ["kvdb://:secret@h:port"],
            ["http://:secret@h"],
            ["kvdb://:secret@h/x"],
        ):
            with self.subTest(arguments):
                done = run_tool("ping", *arguments)
                self.assertEqual((done.code, done.err.count("\n")), (2, 1), done.err)
                self.assertNotIn("secret", done.err)


class LinesTest(unittest.TestCase):
    def test_what_is_encoded_is_decoded(self) -> None:
        for key, entry in ENTRIES.items():
            self.assertEqual(decode_line(encode_line(key, entry), 0), (key, entry))

    def test_the_form(self) -> None:
        self.assertEqual(
            encode_line(b"k", Entry(b"v", 5.5)),
            b'{"db": 0, "key": "k", "value": "v", "expires_at": 5.5}\n',
        )
        line = json.loads(encode_line((1, b"k"), Entry(b"\xff")))
        self.assertEqual(line, {"db": 1, "key": "aw==", "value": "/w==", "encoding": "base64"})
        key, entry = decode_line(b'{"key": "k", "value": "v", "ttl_ms": 1500}', 100)
        self.assertEqual((key, entry), (b"k", Entry(b"v", 101.5)))

    def test_what_is_wrong_is_told(self) -> None:
        for change, words in (
            ({"key": None}, "key must be"),
            ({"value": 5}, "value must be"),
            ({"value": "\ud800"}, "not Unicode"),
            ({"db": 16}, "db must"),
            ({"db": True}, "db must"),
            ({"ttl_ms": "1"}, "ttl_ms must"),
            ({"expires_at": float("nan")}, "expires_at must"),
            ({"expires_at": 10**16}, "expires_at must"),
            ({"expires_at": 1, "ttl_ms": 1}, "exclude"),
            ({"encoding": "hex"}, "encoding must"),
            ({"encoding": "base64"}, "key is not base64"),
            ({"client_flags": -1}, "client_flags must"),
            ({"ttl": 1}, "no field 'ttl'"),
        ):
            with self.subTest(change), self.assertRaisesRegex(ValueError, words):
                decode_line(json.dumps({"key": "k", "value": "v"} | change).encode(), 0)
        for line in (b"{", b"[]", b"[" * 100_000, b"\xff"):
            with self.assertRaisesRegex(ValueError, "this is not"):
                decode_line(line, 0)


class CheckTest(ToolCase):
    def check(self, path: Path) -> tuple[int, str]:
        """Check a file; return code and text. Nothing in its folder may change."""
        before = {each: each.read_bytes() for each in self.folder.iterdir()}
        done = run_tool("check", str(path))
        self.assertEqual({each: each.read_bytes() for each in self.folder.iterdir()}, before)
        return done.code, done.out.decode() + done.err

    def test_what_is_sound(self) -> None:
        for path, kind in ((self.snapshot(), "snapshot"), (self.journal(), "journal")):
            code, text = self.check(path)
            self.assertEqual(code, 0)
            self.assertIn(f"is a {kind} with 3 entries, 0 of them expired.", text)
            self.assertIn("2 in database 0, 1 in database 3", text)
            self.assertIn("It is sound.", text)

    def test_a_snapshot_that_was_cut_or_changed(self) -> None:
        path = self.snapshot()
        lines = path.read_bytes().splitlines(keepends=True)
        for damaged, words in (
            (lines[:-1], "3 entries can be read.*\n.*\n.*cut short"),
            (lines[:2], "1 entry can be read"),
            ([*lines[:2], *lines[3:]], "holds 2 entries instead of 3"),
            ([lines[0], b"x\n"], "line 2: this is not a JSON object"),
            ([b"".join(lines).replace(b"plain", b"plane")], "checksum does not fit"),
        ):
            path.write_bytes(b"".join(damaged))
            code, text = self.check(path)
            self.assertEqual(code, 1)
            self.assertRegex(text, words)
            self.assertIn("NOT sound", text)

    def test_a_save_that_was_not_finished_is_remarked_upon(self) -> None:
        path = self.snapshot()
        (self.folder / "data.json.tmp").touch()
        code, text = self.check(path)
        self.assertEqual(code, 0)
        self.assertIn("not finished", text)

    def change(self, path: Path, *statements: str) -> None:
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            for statement in statements:
                database.execute(statement)

    def test_a_journal_whose_rows_were_damaged_or_lost(self) -> None:
        path = self.journal()
        self.change(
            path, "DROP TRIGGER updated_by_hand", "DROP TRIGGER deleted_by_hand",
            "UPDATE entries SET value = 'x' WHERE key = 'plain'", "DELETE FROM entries WHERE db = 3",
        )  # fmt: skip
        code, text = self.check(path)
        self.assertEqual(code, 1)
        self.assertIn("1 entry can be read", text)
        self.assertIn("The entry 'plain' is damaged: the checksum", text)
        self.assertIn("It holds 2 entries instead of 3.", text)

    def test_a_journal_that_was_changed_by_hand_is_sound(self) -> None:
        path = self.journal()
        self.change(path, "DELETE FROM entries WHERE db = 3", "UPDATE entries SET value = 'x'")
        code, text = self.check(path)
        self.assertEqual(code, 0)
        self.assertIn("by hand, without checksums: 2.", text)

    def test_what_a_crash_has_left_in_the_log_counts_and_stays_there(self) -> None:
        path = self.journal()
        writer = JournalFile(path, Fsync.NEVER)
        self.addCleanup(writer.close)
        writer.begin_writing()
        writer.write({b"late": Entry(b"v")}, set(), 2, 4)
        self.assertIn("4 entries", self.check(path)[1])
        note = {"file": writer.name, "step": 3, "boot": ""}
        (self.folder / "data.sqlite.lock").write_text(json.dumps(note))
        code, text = self.check(path)
        self.assertEqual(code, 1)
        self.assertIn("did not end cleanly", text)
        self.assertIn("It ends at change 2, and change 3 had been written.", text)

    @unittest.skipIf(os.name == "nt", "on Windows the lock file says it")
    def test_a_journal_that_a_server_uses_is_refused(self) -> None:
        path = self.journal()
        lock = LockFile(path)
        self.addCleanup(lock.release)
        done = run_tool("check", str(path))
        self.assertEqual((done.code, done.out), (1, b""))
        self.assertIn("in use by a kvdb server", done.err)

    def test_what_is_no_data_file(self) -> None:
        path = self.folder / "other.db"
        self.assertIn("No such file", self.check(path)[1])
        path.write_text("hello")
        self.assertIn("file is not a database", self.check(path)[1])
        path.unlink()
        self.change(path, "CREATE TABLE other (x)")
        self.assertIn("another program", self.check(path)[1])


class RepairTest(ToolCase):
    """`kvdb repair` saves what is sound aside; the damaged file stays as it is."""

    def setUp(self) -> None:
        super().setUp()
        self.many: dict[Key, Entry] = {
            b"key:%04d" % n: Entry(b"value %d" % n * 20) for n in range(3000)
        }

    def repair(self, path: Path, *more: str) -> tuple[Done, dict[Key, Entry]]:
        before = path.read_bytes()
        done = run_tool("repair", str(path), *more)
        self.assertEqual(path.read_bytes(), before)
        new = Path(more[0]) if more else path.with_name(f"data.repaired{path.suffix}")
        found: dict[Key, Entry] = {}
        if new.exists():
            self.assertEqual(read_data(new, found.__setitem__).problems, [])
        return done, found

    def test_what_is_sound_is_left_alone(self) -> None:
        for path in (self.snapshot(), self.journal()):
            done, found = self.repair(path)
            self.assertEqual((done.code, found), (0, {}))
            self.assertIn("nothing to repair", done.out.decode())

    def test_lines_before_and_behind_the_damage_are_saved(self) -> None:
        path = self.snapshot(self.many)
        lines = path.read_bytes().splitlines(keepends=True)
        lines[7] = lines[7][:9] + b"\xff\xfe" + lines[7][12:]
        lines[100] = b"\0" * len(lines[100])
        path.write_bytes(b"".join(lines[:-2]))
        done, found = self.repair(path)
        self.assertEqual(done.code, 0, done.err)
        self.assertLess(set(found.items()), set(self.many.items()))
        self.assertGreaterEqual(len(found), 2996)
        text = done.out.decode()
        self.assertIn("Line 8: this is not", text)
        self.assertIn("cut short", text)
        self.assertIn(f"{len(found):,} entries were saved to", text)

    def test_other_databases_deadlines_and_flags_are_kept_and_the_expired_left_out(self) -> None:
        path = self.snapshot(ENTRIES | {b"due": Entry(b"v", 5.0)})
        path.write_bytes(path.read_bytes()[:-10])
        self.assertEqual(self.repair(path)[1], ENTRIES)

    def test_a_journal_is_read_from_both_ends_of_the_damage(self) -> None:
        path = self.journal(self.many)
        data = bytearray(path.read_bytes())
        for place in range(len(data) // 2, len(data) // 2 + 3 * 4096):
            data[place] ^= 0xA5
        path.write_bytes(data)
        self.assertEqual(run_tool("check", str(path)).code, 1)
        done, found = self.repair(path)
        self.assertEqual(done.code, 0, done.err)
        self.assertLess(set(found.items()), set(self.many.items()))
        self.assertGreater(len(found), 2500)
        self.assertLessEqual({b"key:0000", b"key:2999"}, set(found))

    def test_texts_that_are_damaged_and_a_cut_and_a_header_cost_only_what_they_hit(self) -> None:
        path = self.journal(self.many)
        whole = path.read_bytes()
        data = bytearray(whole)
        for number in (30, 2950):
            data[data.index(self.many[b"key:%04d" % number].value)] ^= 0x80
        path.write_bytes(data)
        self.assertEqual(len(self.repair(path, str(self.folder / "a.sqlite"))[1]), 2998)
        path.write_bytes(b"garbage..." + whole[10:])
        self.assertEqual(len(self.repair(path, str(self.folder / "b.sqlite"))[1]), 3000)
        path.write_bytes(whole[: len(whole) // 2 // 4096 * 4096])
        self.assertGreater(len(self.repair(path, str(self.folder / "c.sqlite"))[1]), 1000)

    def test_damaged_rows_of_a_journal_are_left_out(self) -> None:
        path = self.journal()
        with contextlib.closing(sqlite3.connect(path)) as database, database:
            database.execute("DROP TRIGGER updated_by_hand")
            database.execute("UPDATE entries SET value = 'x' WHERE key = 'plain'")
        done, found = self.repair(path, str(self.folder / "new.sqlite"))
        self.assertEqual(found, {key: entry for key, entry in ENTRIES.items() if key != b"plain"})
        self.assertIn("The entry 'plain' is damaged", done.out.decode())

    def test_nothing_is_written_where_nothing_can_be_read_or_something_is_there(self) -> None:
        path = self.snapshot()
        (self.folder / "data.repaired.json").touch()
        done, found = run_tool("repair", str(path)), None
        self.assertIn("exists already", done.err)
        self.assertEqual((done.code, found), (1, None))
        for name, content in (
            ("a.json", b"nonsense"),
            ("a.sqlite", b"SQLite format 3\0" + b"x" * 5000),
        ):
            (self.folder / name).write_bytes(content)
            done = run_tool("repair", str(self.folder / name))
            self.assertEqual(done.code, 1)
            self.assertIn("no entry of", done.err)
        self.assertEqual(run_tool("repair", str(self.folder / "none.json")).code, 1)
        names = sorted(each.name for each in self.folder.iterdir())
        self.assertEqual(names, ["a.json", "a.sqlite", "data.json", "data.repaired.json"])


class RdbTest(ToolCase):
    """Redis's own format: to and from files and servers."""

    def exported(self, source: str) -> Path:
        done = run_tool("export", source, "--rdb")
        self.assertEqual(done.code, 0, done.err)
        path = self.folder / "dump.rdb"
        path.write_bytes(done.out)
        return path

    def read(self, path: Path) -> dict[Key, Entry]:
        found: dict[Key, Entry] = {}
        self.assertEqual(read_data(path, found.__setitem__).problems, [])
        return found

    def test_what_is_exported_can_be_imported_but_for_memcacheds_flags(self) -> None:
        entries = {key: entry._replace(client_flags=0) for key, entry in ENTRIES.items()}
        dump = self.exported(str(self.snapshot()))
        for name in ("new.json", "new.sqlite"):
            done = run_tool("import", str(dump), str(self.folder / name))
            self.assertEqual((done.code, done.err), (0, "kvdb import: 3 entries imported\n"))
            self.assertEqual(self.read(self.folder / name), entries)
        with kvdb.testing.running() as server:
            self.assertEqual(run_tool("import", str(dump), server.url).code, 0)
            again = self.exported(server.url)
        self.assertEqual(run_tool("import", str(again), str(self.folder / "b.json")).code, 0)
        self.assertEqual(self.read(self.folder / "b.json"), entries)

    def test_keys_of_other_types_are_counted_by_what_they_are(self) -> None:
        path = self.folder / "theirs.rdb"
        path.write_bytes(DUMP_OF_VALKEY)
        done = run_tool("import", str(path), str(self.folder / "new.json"))
        self.assertEqual(done.code, 1)
        self.assertIn(
            "1 entry imported, 1 key of type hash left out, 1 key of type list left out, "
            "1 key of type stream left out",
            done.err,
        )
        self.assertEqual(self.read(self.folder / "new.json"), {b"s": Entry(b"12")})

    def test_a_server_imports_one_at_its_start_if_it_has_no_key_yet(self) -> None:
        path = self.folder / "theirs.rdb"
        path.write_bytes(DUMP_OF_VALKEY)
        for name in ("new.json", "new.sqlite"):
            data = self.folder / name
            with (
                self.assertLogs("kvdb", "INFO") as logged,
                running_server(data=data, import_file=path) as service,
            ):
                self.assertEqual(service.store.get(b"s"), b"12")
                self.assertEqual(service.persistence.changes_since_save, 0)
                service.store.set(b"s", b"ours")
            self.assertIn("1 keys of type stream were left out", "\n".join(logged.output))
            with running_server(data=data, import_file=path) as service:
                self.assertEqual(service.store.get(b"s"), b"ours")
        path.write_bytes(DUMP_OF_VALKEY[:-3])
        with (
            self.assertRaisesRegex(CannotStart, "cannot import .*: its checksum"),
            running_server(import_file=path),
        ):
            pass

    def test_a_damaged_file_is_refused_as_a_whole(self) -> None:
        entries: dict[Key, Entry] = {b"k%d" % n: Entry(b"v" * 50) for n in range(40)}
        whole = self.exported(str(self.snapshot(entries))).read_bytes()
        path, target = self.folder / "damaged.rdb", self.folder / "new.json"
        for damaged in (
            *(whole[:length] for length in range(6, len(whole), 97)),
            *(
                whole[:n] + bytes((whole[n] ^ 4,)) + whole[n + 1 :]
                for n in range(6, len(whole), 97)
            ),
        ):
            path.write_bytes(damaged)
            done = run_tool("import", str(path), str(target))
            self.assertEqual(done.code, 1)
            self.assertIn("nothing was imported", done.err)
            self.assertFalse(target.exists())


class ExportImportTest(ToolCase):
    def read(self, path: Path) -> dict[Key, Entry]:
        found: dict[Key, Entry] = {}
        findings = read_data(path, found.__setitem__)
        self.assertEqual(findings.problems, [])
        return found

    def test_a_file_becomes_lines_and_lines_become_a_file(self) -> None:
        for path in (self.snapshot(), self.journal()):
            exported = run_tool("export", str(path))
            self.assertEqual(exported.code, 0)
            self.assertIn("3 entries written", exported.err)
            for name in ("new.json", "new.sqlite"):
                target = self.folder / name
                for _ in range(2):  # into nothing, and over what is there
                    done = run_tool("import", "-", str(target), stdin=exported.out)
                    self.assertEqual((done.code, done.out), (0, b""))
                    self.assertIn("3 entries imported", done.err)
                    self.assertEqual(self.read(target), ENTRIES)
                self.assertFalse(target.with_name(name + ".lock").exists())

    def test_an_import_adds_to_what_is_there(self) -> None:
        line = self.file(
            b'{"key": "plain", "value": "new", "ttl_ms": 1e12}', b'{"key": "x", "value": ""}'
        )
        for path in (self.snapshot(), self.journal()):
            self.assertEqual(run_tool("import", line, str(path)).code, 0)
            found = self.read(path)
            self.assertEqual(len(found), 4)
            self.assertEqual(found[b"plain"].value, b"new")
            self.assertEqual(run_tool("check", str(path)).code, 0)

    def test_through_a_server(self) -> None:
        lines = b"".join(encode_line(key, entry) for key, entry in ENTRIES.items())
        with kvdb.testing.running() as server:
            done = run_tool("import", "-", server.url, stdin=lines)
            self.assertEqual(done.code, 0)
            self.assertIn("3 entries imported, 1 of them without their client_flags", done.err)
            done = run_tool("export", server.url)
            self.assertEqual(done.code, 0)
            self.assertIn("3 entries written", done.err)
            found = dict(decode_line(line, 0) for line in done.out.splitlines())
            without_flags = {key: entry._replace(client_flags=0) for key, entry in ENTRIES.items()}
            self.assertEqual(found, without_flags)
            done = run_tool("export", "--port", str(server.port), "--db", "3")
            self.assertIn("1 entry written", done.err)
            self.assertEqual(run_tool("import", "-", server.url + "/5", stdin=lines).code, 0)
            self.assertIn("3 entries", run_tool("export", server.url + "/5").err)

    def test_more_than_one_page_of_values(self) -> None:
        big = base64.b64encode(bytes(1_500_000))
        with kvdb.testing.running() as server, server.client(serializer=kvdb.BYTES) as db:
            for number in range(4):
                db.set(f"big:{number}", big)
            with db.pipeline() as pipeline:
                for number in range(1_200):
                    pipeline.set(f"k:{number}", b"v")
            done = run_tool("export", server.url)
        self.assertEqual(len({json.loads(line)["key"] for line in done.out.splitlines()}), 1_204)

    def test_wrong_lines_are_told_and_counted_and_the_others_imported(self) -> None:
        path = self.file(
            b'{"key": "a", "value": "1"}', b"", b"nonsense",
            b'{"key": "b", "value": "1", "ttl_ms": -1}', b'{"key": "c", "value": "1"}',
        )  # fmt: skip
        with kvdb.testing.running() as server:
            for target in (server.url, str(self.folder / "new.json")):
                done = run_tool("import", path, target)
                self.assertEqual(done.code, 1)
                self.assertIn("line 3: this is not JSON", done.err)
                self.assertIn("2 entries imported, 1 expired left out, 1 problem", done.err)

    def test_what_a_server_refuses_is_told(self) -> None:
        path = self.file(b'{"key": "a", "value": "1"}', b'{"key": "b", "value": "1"}')
        with kvdb.testing.running() as server:
            server.fail_next("SET", "OOM no room")
            done = run_tool("import", path, server.url)
            self.assertEqual(done.code, 1)
            self.assertIn("key 'a': OOM no room", done.err)
            self.assertIn("1 entry imported, 1 problem", done.err)
            server.disconnect_next("SET")
            done = run_tool("import", path, server.url)
            self.assertEqual(done.code, 1)
            self.assertIn("some of the next 2 entries may have arrived", done.err)
            self.assertIn("0 entries imported", done.err)

    @unittest.skipUnless(os.path.exists("/dev/full"), "the system has no such device")
    def test_an_output_that_fails_is_told_and_no_file_is_blamed(self) -> None:
        path = str(self.snapshot())
        for words in (["export", path], ["export", "--rdb", path], ["check", path]):
            with self.subTest(words), open("/dev/full", "wb") as full:
                done = subprocess.run(
                    [sys.executable, "-m", "kvdb", *words], stdout=full, stderr=subprocess.PIPE,
                    text=True, cwd=Path(kvdb.__file__).parent.parent,
                )  # fmt: skip
            self.assertEqual(done.returncode, 1)
            expected = f"kvdb {words[0]}: cannot write the output: No space left on device\n"
            self.assertEqual(done.stderr, expected)

    def test_a_damaged_file_is_exported_as_far_as_it_can_be_read(self) -> None:
        path = self.snapshot()
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
        done = run_tool("export", str(path))
        self.assertEqual((done.code, done.out.count(b"\n")), (1, 3))
        self.assertIn("cut short", done.err)

    def test_nothing_is_imported_into_what_is_damaged_or_in_use(self) -> None:
        line = self.file(b'{"key": "a", "value": "1"}')
        path = self.snapshot()
        path.write_bytes(path.read_bytes()[:-5])
        before = path.read_bytes()
        done = run_tool("import", line, str(path))
        self.assertEqual((done.code, path.read_bytes()), (1, before))
        other = self.folder / "other.json"
        lock = LockFile(other)
        self.addCleanup(lock.release)
        done = run_tool("import", line, str(other))
        self.assertIn("in use by a kvdb server", done.err)
        self.assertIn("0 entries imported", done.err)
        self.assertFalse(other.exists())

    def test_files_that_are_not_there(self) -> None:
        done = run_tool("import", str(self.folder / "no"), str(self.folder / "x.json"))
        self.assertIn("No such file", done.err)
        self.assertEqual(done.code, 1)
        done = run_tool("import", self.file(), str(self.folder / "no" / "x.json"))
        self.assertIn("cannot write", done.err)
        self.assertEqual(run_tool("export", str(self.folder / "no")).code, 1)

    def test_a_journal_is_told_by_what_is_in_it(self) -> None:
        path = self.journal().rename(self.folder / "renamed.json")
        self.assertTrue(Config(data=path).is_journal)
        self.assertEqual(self.read(path), ENTRIES)
