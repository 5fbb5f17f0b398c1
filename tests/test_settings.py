"""Every setting: its flag, its variable, and the one sentence that refuses a bad one."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sqlite3
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path

from kvdb.cli import parse_config
from kvdb.commands.config import PARAMETERS
from kvdb.config import MB, Config, Fsync
from kvdb.output_limits import Limit, OutputLimits
from kvdb.settings import BY_FIELD, SETTINGS, unknown_variables
from tests.support import Conversation

VARIABLES = {
    "DATA": "KVDB_DATA",
    "--host": "KVDB_HOST",
    "--port": "KVDB_PORT",
    "--memcached-port": "KVDB_MEMCACHED_PORT",
    "--haus-port": "KVDB_HAUS_PORT",
    "--http-port": "KVDB_HTTP_PORT",
    "--memcached-db": "KVDB_MEMCACHED_DB",
    "--haus-db": "KVDB_HAUS_DB",
    "--http-hosts": "KVDB_HTTP_HOSTS",
    "--http-writable": "KVDB_HTTP_WRITABLE",
    "--fsync": "KVDB_FSYNC",
    "--max-mb": "KVDB_MAX_MB",
    "--max-client-mb": "KVDB_MAX_CLIENT_MB",
    "--max-value-mb": "KVDB_MAX_VALUE_MB",
    "--snapshot-interval": "KVDB_SNAPSHOT_INTERVAL",
    "--in-memory": "KVDB_IN_MEMORY",
    "--max-clients": "KVDB_MAX_CLIENTS",
    "--idle-timeout": "KVDB_IDLE_TIMEOUT",
    "--password-file": "KVDB_PASSWORD_FILE",
    "--acl-file": "KVDB_ACL_FILE",
    "--no-protection": "KVDB_NO_PROTECTION",
    "--notify-keyspace-events": "KVDB_NOTIFY_KEYSPACE_EVENTS",
    "--client-output-buffer-limit": "KVDB_CLIENT_OUTPUT_BUFFER_LIMIT",
    "--tls-cert": "KVDB_TLS_CERT",
    "--tls-key": "KVDB_TLS_KEY",
    "--tls-client-ca": "KVDB_TLS_CLIENT_CA",
    "--replica-of": "KVDB_REPLICA_OF",
    "--import": "KVDB_IMPORT",
    "--primary-user": "KVDB_PRIMARY_USER",
    "--primary-password-file": "KVDB_PRIMARY_PASSWORD_FILE",
    "--primary-tls-ca": "KVDB_PRIMARY_TLS_CA",
    "--log-level": "KVDB_LOG_LEVEL",
    "--log-format": "KVDB_LOG_FORMAT",
    "--config": "KVDB_CONFIG",
    "--slowlog-log-slower-than": "KVDB_SLOWLOG_LOG_SLOWER_THAN",
    "--slowlog-max-len": "KVDB_SLOWLOG_MAX_LEN",
    "--latency-monitor-threshold": "KVDB_LATENCY_MONITOR_THRESHOLD",
    "--lua-time-limit": "KVDB_LUA_TIME_LIMIT",
    "--latency-tracking": "KVDB_LATENCY_TRACKING",
    "--enable-debug-command": "KVDB_ENABLE_DEBUG_COMMAND",
}

# What each takes, and the field of Config that it becomes.
GOOD = {
    "DATA": ("my.json", "data", Path("my.json")),
    "--host": ("127.0.0.9", "host", "127.0.0.9"),
    "--port": ("65535", "port", 65535),
    "--memcached-port": ("0", "memcached_port", 0),
    "--haus-port": ("9888", "haus_port", 9888),
    "--http-port": ("08000", "http_port", 8000),
    "--memcached-db": ("15", "memcached_db", 15),
    "--haus-db": ("1", "haus_db", 1),
    "--max-mb": ("0.5", "max_bytes", MB // 2),
    "--max-client-mb": ("0", "max_client_bytes", 0),
    "--max-value-mb": ("2", "max_value_bytes", 2 * MB),
    "--snapshot-interval": ("1.5", "snapshot_interval", 1.5),
    "--max-clients": ("7", "max_clients", 7),
    "--idle-timeout": ("30", "idle_timeout", 30.0),
    "--import": ("dump.rdb", "import_file", Path("dump.rdb")),
    "--replica-of": ("[::1]:6379", "replica_of", ("::1", 6379)),
    "--primary-user": ("bob", "primary_user", "bob"),
    "--log-level": ("NOTICE", "log_level", "notice"),
    "--log-format": ("JSON", "log_format", "json"),
    "--notify-keyspace-events": ("Ag$KE", "notify_keyspace_events", "AKE"),
    "--client-output-buffer-limit": (
        "pubsub 1mb 2k 3",
        "output_limits",
        OutputLimits(pubsub=Limit(2**20, 2000, 3)),
    ),
    "--slowlog-log-slower-than": ("-1", "slow_log_threshold", -1),
    "--slowlog-max-len": ("0", "slow_log_length", 0),
    "--latency-monitor-threshold": ("100", "latency_threshold", 100),
    "--lua-time-limit": ("100", "script_time_limit", 100),
    "--enable-debug-command": ("LOCAL", "enable_debug_command", "local"),
}

OTHERS = {
    "--host": "::1",
    "--replica-of": "h 5",
    "--log-level": "error",
    "--log-format": "text",
    "--enable-debug-command": "no",
    "--notify-keyspace-events": "E",
    "--client-output-buffer-limit": "normal 1 2 3",
}
"""Values that the settings take which would not take a 3."""

BAD = {
    "DATA": ("a\0b",),
    "--host": (" ", "a b", "a..b", "x" * 64),
    "--port": ("70000", "x", "-1", "1.5", "0x10", "٣", "99999999999", "tcp:4242"),
    "--memcached-port": ("65536", "+1"),
    "--haus-port": ("x",),
    "--http-port": ("http",),
    "--memcached-db": ("16", "-1", "x", "00", "1.0"),
    "--haus-db": ("16", "100"),
    "--fsync": ("sometimes", "ALWAYS"),
    "--max-mb": ("-1", "nan", "inf", "1e30", "x"),
    "--max-client-mb": ("-0.1", "x"),
    "--max-value-mb": ("0", "0.0000001", "-1", "x"),
    "--snapshot-interval": ("soon", "-1", "nan"),
    "--max-clients": ("0", "-1", "1.5", "x"),
    "--idle-timeout": ("x", "inf"),
    "--password-file": ("a\0b",),
    "--acl-file": ("a\0b",),
    "--tls-cert": ("a\0b",),
    "--tls-key": ("a\0b",),
    "--tls-client-ca": ("a\0b",),
    "--import": ("a\0b",),
    "--replica-of": ("h", "h:0", "h:x", ":5", "a b:5", "h:70000"),
    "--primary-user": ("", "a b")[1:],
    "--primary-password-file": ("a\0b",),
    "--primary-tls-ca": ("a\0b",),
    "--log-level": ("loud",),
    "--log-format": ("xml", "1"),
    "--config": ("a\0b",),
    "--notify-keyspace-events": ("all", "KEq"),
    "--client-output-buffer-limit": ("pubsub 1 2", "x 1 2 3", "pubsub -1 2 3", "pubsub 1 2 x"),
    "--slowlog-log-slower-than": ("-2", "1.5", "x"),
    "--slowlog-max-len": ("-1", "many"),
    "--latency-monitor-threshold": ("-1", "x"),
    "--lua-time-limit": ("-1", "x"),
    "--enable-debug-command": ("maybe", "1"),
}

# A switch is a bare flag: only its variable has a value.
BAD_SWITCHES = {
    "--in-memory": ("maybe", "2", "y"),
    "--no-protection": ("maybe", " 1"),
    "--latency-tracking": ("perhaps",),
    "--http-writable": ("perhaps",),
}


class SettingsCase(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory()))

    def parse(self, *arguments: str, **environment: str) -> Config:
        """Parse what nothing is to be said about."""
        with self.assertNoLogs("kvdb"):
            return parse_config(arguments, environment)

    def remarks(self, *arguments: str, **environment: str) -> list[str]:
        """Return what is logged about settings that are taken all the same."""
        with self.assertLogs("kvdb", logging.WARNING) as logged:
            parse_config(arguments, environment)
        return [record.getMessage() for record in logged.records]

    def refused(self, *arguments: str, **environment: str) -> str:
        """Return the one sentence that goes to standard error, without what stands around it."""
        with (
            contextlib.redirect_stderr(io.StringIO()) as stderr,
            self.assertRaises(SystemExit) as ended,
        ):
            parse_config(arguments, environment)
        self.assertEqual(ended.exception.code, 2)
        (line,) = stderr.getvalue().splitlines()
        begin, end = "kvdb: ", " (--help lists the flags)"
        self.assertTrue(line.startswith(begin) and line.endswith(end), line)
        return line[len(begin) : -len(end)]

    def file(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path


class ConfigParameterTest(unittest.TestCase):
    """CONFIG reads the same table."""

    def test_every_setting_is_a_parameter_and_may_be_changed_if_the_table_says_so(self) -> None:
        for setting in SETTINGS:
            with self.subTest(setting.flag):
                parameter = PARAMETERS[setting.config_name]
                self.assertEqual(parameter.apply is not None, setting.changeable)

    def test_config_get_tells_what_the_flags_have_said(self) -> None:
        talk = Conversation(max_clients=17, memcached_port=11, haus_db=3, http_hosts=("a", "b"))
        for name, value in (
            ("maxclients", b"17"),
            ("memcached-port", b"11"),
            ("http-port", b""),
            ("haus-db", b"3"),
            ("http-hosts", b"a,b"),
            ("in-memory", b"yes"),
        ):
            self.assertEqual(talk("CONFIG", "GET", name), {name.encode(): value})


class EverySettingTest(SettingsCase):
    def test_each_flag_has_a_variable_of_its_name(self) -> None:
        self.assertEqual({each.flag: each.variable for each in SETTINGS}, VARIABLES)
        self.assertEqual(len(BY_FIELD), len(SETTINGS))

    def test_each_counts_by_flag_and_by_variable(self) -> None:
        for flag, (text, field, value) in GOOD.items():
            arguments = (text,) if flag == "DATA" else (flag, text)
            with self.subTest(flag):
                self.assertEqual(self.parse(*arguments), Config(**{field: value}))
                by_variable = self.parse(**{VARIABLES[flag]: text})
                self.assertEqual(by_variable, Config(**{field: value}))

    def test_the_flag_counts_more_than_the_variable(self) -> None:
        for flag, (text, field, value) in GOOD.items():
            if flag == "DATA":
                continue
            other = OTHERS.get(flag, "3")
            with self.subTest(flag):
                config = self.parse(flag, text, **{VARIABLES[flag]: other})
                self.assertEqual(getattr(config, field), value)
        self.assertEqual(self.parse("a.json", KVDB_DATA="b.json").data, Path("a.json"))

    def test_each_bad_value_is_refused_in_one_sentence_that_names_flag_and_variable(self) -> None:
        for flag, texts in BAD.items():
            name = f"{flag} ({VARIABLES[flag]})"
            for text in texts:
                wanted = f"{name} must be {BY_FIELD[self.field_of(flag)].wanted}, not {text!r}"
                arguments = (text,) if flag == "DATA" else (f"{flag}={text}",)
                with self.subTest(flag, text=text):
                    self.assertEqual(self.refused(*arguments), wanted)
                    self.assertEqual(self.refused(**{VARIABLES[flag]: text}), wanted)
        for flag, texts in BAD_SWITCHES.items():
            for text in texts:
                with self.subTest(flag, text=text):
                    message = self.refused(**{VARIABLES[flag]: text})
                    wanted = f"{flag} ({VARIABLES[flag]}) must be 1 or 0, not {text!r}"
                    self.assertEqual(message, wanted)

    def field_of(self, flag: str) -> str:
        (setting,) = (each for each in SETTINGS if each.flag == flag)
        return setting.field

    def test_every_setting_is_tried_here(self) -> None:
        self.assertEqual({*BAD, *BAD_SWITCHES} | {"--http-hosts"}, set(VARIABLES))

    def test_an_empty_variable_counts_as_not_set(self) -> None:
        empty = dict.fromkeys([*VARIABLES.values(), "KVDB_PASSWORD"], "")
        self.assertEqual(self.parse(**empty), Config())

    def test_switches_take_the_usual_words(self) -> None:
        for text in ("1", "true", "yes", "on", "TRUE", "Yes"):
            self.assertIsNone(self.parse(KVDB_IN_MEMORY=text).data, text)
        for text in ("0", "false", "no", "off", "FALSE", "Off"):
            self.assertEqual(self.parse(KVDB_IN_MEMORY=text), Config(), text)
        self.assertFalse(self.parse(KVDB_NO_PROTECTION="yes").protected)
        self.assertTrue(self.parse(KVDB_NO_PROTECTION="no").protected)
        self.assertFalse(self.parse("--no-protection", KVDB_NO_PROTECTION="0").protected)

    def test_the_hosts_are_names_separated_by_commas(self) -> None:
        names = " Kv.Example , b,,"
        config = self.parse("--http-port", "0", "--http-hosts", names)
        self.assertEqual(config.http_hosts, ("kv.example", "b"))
        config = self.parse(KVDB_HTTP_PORT="0", KVDB_HTTP_HOSTS=names)
        self.assertEqual(config.http_hosts, ("kv.example", "b"))

    def test_the_primary_may_be_two_words_as_in_redis(self) -> None:
        config = self.parse("--replica-of", "db.example", "6379", "my.json")
        self.assertEqual((config.replica_of, config.data), (("db.example", 6379), Path("my.json")))
        self.assertEqual(self.parse(KVDB_REPLICA_OF="h 5").replica_of, ("h", 5))
        path = str(self.file("password", b"secret\n"))
        config = self.parse("--replica-of=h:5", "--primary-password-file", path)
        self.assertEqual(config.primary_password, "secret")

    def test_the_authorities_for_the_primary_are_read_at_the_start(self) -> None:
        for path, wanted in (
            ("/no/such/file", "cannot read /no/such/file, as --primary-tls-ca (KVDB_PRIMARY_TLS_CA)"
                              " says: No such file or directory"),
            (str(self.file("ca.pem", b"no certificate")), "{} has no certificates in PEM form,"
                              " as --primary-tls-ca (KVDB_PRIMARY_TLS_CA) wants it"),
        ):  # fmt: skip
            with self.subTest(path):
                self.assertEqual(self.refused("--primary-tls-ca", path), wanted.format(path))

    def test_a_path_may_begin_at_home(self) -> None:
        expected = Path(os.path.expanduser("~")) / "x.json"
        self.assertEqual(self.parse("~/x.json").data, expected)
        self.assertEqual(self.parse(KVDB_DATA="~/x.json").data, expected)

    def test_the_help_names_every_flag_and_its_default(self) -> None:
        with (
            contextlib.redirect_stdout(io.StringIO()) as stdout,
            self.assertRaises(SystemExit) as ended,
        ):
            parse_config(["--help"], {})
        self.assertEqual(ended.exception.code, 0)
        text = " ".join(stdout.getvalue().split())
        for flag in VARIABLES:
            self.assertIn(flag, text)
        self.assertIn("main port; 0: a free one (default: 4242)", text)

    def test_a_misspelt_tool_is_no_data_file(self) -> None:
        for name in ("chek", "Repair", "exprt"):
            self.assertIn("is neither a tool nor a file: did you mean", self.refused(name))
        self.assertIn("a server starts without it", self.refused("serve"))
        for name in ("./chek", "chek.json", "mydata"):
            self.assertEqual(self.parse(name).data, Path(name))

    def test_bad_usage_is_one_sentence_too(self) -> None:
        for arguments in (("--nonsense",), ("--max", "5"), ("a.json", "b.json"), ("--port",)):
            with self.subTest(arguments):
                self.assertTrue(self.refused(*arguments))


class ConfigFileTest(SettingsCase):
    """--config: the same settings, by the same names, in TOML."""

    def write(self, *lines: str) -> str:
        return str(self.file("kvdb.toml", "\n".join(lines).encode()))

    def test_each_setting_may_stand_in_it_as_text(self) -> None:
        for flag, (text, field, value) in GOOD.items():
            path = self.write(f"{flag.lstrip('-').lower()} = '{text}'")
            with self.subTest(flag):
                config = self.parse("--config", path)
                self.assertEqual(config, Config(**{field: value}, config_file=Path(path)))
                self.assertEqual(self.parse(KVDB_CONFIG=path), config)

    def test_numbers_switches_and_lists_are_written_as_toml_has_them(self) -> None:
        path = self.write(
            "port = 5000", "http-port = 0", "max_mb = 1.5", "in-memory = true",
            "latency-tracking = false", "http-hosts = ['A.example', 'b']", "slowlog-log-slower-than = -1",
        )  # fmt: skip
        config = self.parse("--config", path)
        self.assertEqual((config.port, config.http_port, config.max_bytes), (5000, 0, 3 * MB // 2))
        self.assertEqual((config.data, config.latency_tracking), (None, False))
        self.assertEqual(config.http_hosts, ("a.example", "b"))
        self.assertEqual(config.slow_log_threshold, -1)

    def test_the_variable_counts_more_and_the_flag_most(self) -> None:
        path = self.write("port = 1", "max-clients = 1", "idle-timeout = 1")
        config = self.parse(
            "--config",
            path,
            "--port",
            "3",
            KVDB_PORT="2",
            KVDB_MAX_CLIENTS="2",
            KVDB_CONFIG="/none",
        )
        self.assertEqual((config.port, config.max_clients, config.idle_timeout), (3, 2, 1))

    def test_data_and_in_memory_exclude_each_other_there_and_else_the_stronger_counts(self) -> None:
        path = self.write("data = 'a.json'", "in-memory = true")
        self.assertIn("exclude each other", self.refused("--config", path))
        path = self.write("in-memory = true")
        self.assertEqual(self.parse("--config", path, KVDB_DATA="b.json").data, Path("b.json"))
        path = self.write("data = 'a.json'")
        self.assertIsNone(self.parse("--config", path, KVDB_IN_MEMORY="1").data)
        self.assertEqual(self.parse("--config", path, KVDB_IN_MEMORY="0").data, Path("a.json"))

    def test_what_is_wrong_is_one_sentence_that_names_the_setting_and_the_file(self) -> None:
        for line, words in (
            ("max-md = 5", "there is no setting max-md (in {path}); did you mean max-mb?"),
            ("password = 'x'", "no setting password (in {path}); did you mean password-file?"),
            ("config = 'x'", "there is no setting config (in {path})"),
            ("port = true", "port (in {path}) must be a number from 0 to 65535, not 'true'"),
            ("port = 'x'", "port (in {path}) must be a number from 0 to 65535, not 'x'"),
            (
                "port = [1]",
                "--port (KVDB_PORT) must be a number from 0 to 65535, not a list such as [1]",
            ),
            ("http-hosts = [['a']]", "not a list such as"),
            ("port = 1979-05-27", "port (in {path}) must be"),
            ("max-mb = nan", "max-mb (in {path}) must be a number of megabytes, not 'nan'"),
            ("in-memory = 'maybe'", "in-memory (in {path}) must be 1 or 0, not 'maybe'"),
            ("log-level = 'loud'", "log-level (in {path}) must be debug or"),
            ("[port]", "port (in {path}) must be"),
            ("max-mb = 1\nmax_mb = 2", "{path} sets max_mb twice"),
            ("port", "cannot read the settings in {path}: Expected '='"),
            ("port = 1\nport = 2", "cannot read the settings in {path}: Cannot overwrite"),
        ):
            path = self.write(line)
            with self.subTest(line):
                self.assertIn(words.format(path=path), self.refused("--config", path))
        for path in (str(self.folder), str(self.folder / "none"), str(self.file("x", b"\xff = 1"))):
            self.assertIn(f"cannot read the settings in {path}", self.refused("--config", path))


class UnknownVariablesTest(SettingsCase):
    def test_what_orchestrators_set_for_a_service_called_kvdb_is_overlooked(self) -> None:
        link = "tcp://10.0.0.7:4242"
        ports = ("KVDB_PORT", "KVDB_MEMCACHED_PORT", "KVDB_HTTP_PORT", "KVDB_HAUS_PORT")
        for name in ports:
            self.assertEqual(self.parse(**{name: link}), Config(), name)
            self.assertEqual(self.parse(**{name: "udp://10.0.0.7:1"}), Config(), name)
        others = dict.fromkeys(
            (
                "KVDB_SERVICE_HOST", "KVDB_SERVICE_PORT", "KVDB_SERVICE_PORT_MAIN",
                "KVDB_PORT_4242_TCP", "KVDB_PORT_4242_TCP_ADDR", "KVDB_PORT_4242_TCP_PORT",
                "KVDB_PORT_4242_TCP_PROTO", "KVDB_ENV_PATH", "KVDB_NAME",
                "KVDB_MEMCACHED_SERVICE_HOST", "KVDB_HTTP_PORT_8000_TCP",
            ), link,
        )  # fmt: skip
        self.assertEqual(self.parse(**others), Config())

    def test_a_link_is_no_value_of_any_other_setting(self) -> None:
        self.assertIn("--max-mb (KVDB_MAX_MB)", self.refused(KVDB_MAX_MB="tcp://10.0.0.7:4242"))
        self.assertIn("--port (KVDB_PORT)", self.refused("--port", "tcp://10.0.0.7:4242"))

    def test_any_other_variable_of_ours_that_is_no_setting_is_told(self) -> None:
        self.assertEqual(
            self.remarks(KVDB_MAXMB="5", KVDB_VERBOSE="", OTHER="x"),
            [
                "the variable KVDB_MAXMB is no setting of kvdb",
                "the variable KVDB_VERBOSE is no setting of kvdb",
            ],
        )
        self.assertEqual(unknown_variables(dict.fromkeys(VARIABLES.values(), "1")), [])


class PasswordTest(SettingsCase):
    def test_the_variable_may_hold_the_password_itself(self) -> None:
        config = self.parse("--host", "0.0.0.0", KVDB_PASSWORD=" se cret ")
        self.assertEqual(config.password, " se cret ")

    def test_two_passwords_are_refused(self) -> None:
        path = str(self.file("password", b"secret\n"))
        both = "--password-file (KVDB_PASSWORD_FILE) and KVDB_PASSWORD both give a password"
        self.assertIn(both, self.refused("--password-file", path, KVDB_PASSWORD="x"))
        self.assertIn(both, self.refused(KVDB_PASSWORD_FILE=path, KVDB_PASSWORD="x"))
        config = self.parse(KVDB_PASSWORD_FILE=path, KVDB_PASSWORD="")
        self.assertEqual(config.password, "secret")

    def test_a_file_that_gives_no_password_is_named(self) -> None:
        name = "--password-file (KVDB_PASSWORD_FILE)"
        for path in (
            self.folder / "missing",
            self.file("empty", b""),
            self.file("blank", b"\nsecret\n"),
            self.file("latin", "pässword".encode("latin-1")),
            self.folder,
        ):
            with self.subTest(path):
                message = self.refused("--password-file", str(path))
                self.assertIn(name, message)
                self.assertIn(str(path), message)


class WhatExcludesWhatTest(SettingsCase):
    BOTH = "DATA (KVDB_DATA) and --in-memory (KVDB_IN_MEMORY) exclude each other"

    def test_data_and_in_memory_exclude_each_other_where_both_come_the_same_way(self) -> None:
        self.assertEqual(self.refused("--in-memory", "x.json"), self.BOTH)
        self.assertEqual(self.refused(KVDB_IN_MEMORY="1", KVDB_DATA="x.json"), self.BOTH)

    def test_else_the_flag_counts_more(self) -> None:
        self.assertIsNone(self.parse("--in-memory", KVDB_DATA="x.json").data)
        self.assertEqual(self.parse("x.json", KVDB_IN_MEMORY="1").data, Path("x.json"))
        self.assertEqual(self.parse(KVDB_IN_MEMORY="0", KVDB_DATA="x.json").data, Path("x.json"))
        self.assertEqual(self.parse("x.json", KVDB_DATA="y.json").data, Path("x.json"))

    def test_fsync_is_refused_where_it_would_not_be_kept(self) -> None:
        for arguments, environment in (
            (("--fsync", "always"), {}),
            (("--fsync", "always", "x.json"), {}),
            (("--fsync", "never", "--in-memory"), {}),
            ((), {"KVDB_FSYNC": "always"}),
            (("x.json",), {"KVDB_FSYNC": "everysec"}),
            ((), {"KVDB_FSYNC": "always", "KVDB_IN_MEMORY": "1"}),
        ):
            with self.subTest(arguments, **environment):
                message = self.refused(*arguments, **environment)
                self.assertIn("--fsync (KVDB_FSYNC)", message)
                self.assertIn("journal", message)
        for fsync in Fsync:
            config = self.parse("--fsync", fsync.value, "x.sqlite")
            self.assertEqual(config.fsync, fsync.value)
            self.assertEqual(
                self.parse(KVDB_FSYNC=fsync.value, KVDB_DATA="x.db").fsync, fsync.value
            )

    def test_settings_without_effect_are_told(self) -> None:
        interval = "--snapshot-interval (KVDB_SNAPSHOT_INTERVAL) has no effect: "
        hosts = "--http-hosts (KVDB_HTTP_HOSTS) has no effect without --http-port"
        for arguments, environment, remark in (
            (("--snapshot-interval", "5", "x.db"), {}, interval + "x.db is a journal"),
            (("x.db",), {"KVDB_SNAPSHOT_INTERVAL": "5"}, interval + "x.db is a journal"),
            (("--in-memory", "--snapshot-interval", "5"), {},
             interval + "nothing is kept on disk"),
            (("--http-hosts", "a"), {}, hosts),
        ):  # fmt: skip
            with self.subTest(arguments):
                self.assertEqual(self.remarks(*arguments, **environment), [remark])
        self.parse("--snapshot-interval", "5", "x.json")

    def test_two_ports_must_not_be_equal(self) -> None:
        flags = ("--port", "--memcached-port", "--haus-port", "--http-port")
        for first in range(4):
            for second in range(first + 1, 4):
                one, two = flags[first], flags[second]
                said = f"{one} ({VARIABLES[one]}) and {two} ({VARIABLES[two]}) are both 5000"
                with self.subTest(one, second=two):
                    self.assertEqual(self.refused(one, "5000", two, "5000"), said)
                    self.assertEqual(self.refused(one, "5000", **{VARIABLES[two]: "5000"}), said)
        self.assertIn("are both 4242", self.refused("--http-port", "4242"), "the default counts")
        self.parse("--port", "0", "--memcached-port", "0", "--haus-port", "0", "--http-port", "0")


class IsJournalTest(SettingsCase):
    def sqlite(self, name: str) -> Path:
        path = self.folder / name
        database = sqlite3.connect(path)
        database.execute("CREATE TABLE t (x)")
        database.close()
        return path

    def kinds(self) -> Iterator[tuple[Path, bool]]:
        """Yield files, and whether each is a journal."""
        yield self.sqlite("a.json"), True
        yield self.sqlite("a"), True
        snapshot = b'{"format": "kvdb"}\n'
        yield self.file("b.sqlite", snapshot), False
        yield self.file("b.DB", snapshot), False
        yield self.file("b.json", snapshot), False
        yield self.file("c.db", b""), True  # SQLite makes empty files
        yield self.file("c.json", b""), False
        yield self.file("d.db", b"SQLite format"), True  # cut short: to be refused as a journal
        yield self.file("d.json", b"neither\n"), False

    def test_what_is_in_the_file_decides_first(self) -> None:
        for path, is_journal in self.kinds():
            with self.subTest(path.name):
                self.assertEqual(Config(data=path).is_journal, is_journal)

    def test_else_the_suffix_does_in_any_case(self) -> None:
        for name in ("x.sqlite", "x.SQLITE", "x.sqlite3", "x.Sqlite3", "x.db", "x.DB", "a.json.db"):
            self.assertTrue(Config(data=self.folder / name).is_journal, name)
        for name in ("x.json", "x", "db", ".db", "x.db.json", "x.sqlite4", "x.dbx"):
            self.assertFalse(Config(data=self.folder / name).is_journal, name)
        self.assertFalse(Config(data=None).is_journal)

    def test_fsync_looks_at_the_content_too(self) -> None:
        self.assertEqual(
            self.parse("--fsync", "always", str(self.sqlite("e.json"))).fsync, "always"
        )
        snapshot = self.file("f.db", b'{"format": "kvdb"}\n')
        self.assertIn("is a snapshot", self.refused("--fsync", "always", str(snapshot)))


if __name__ == "__main__":
    unittest.main()
