"""The settings: one table that the flags, the environment variables and the help are made of."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kvdb.config import MB, Config, Fsync
from kvdb.event_classes import parse_event_classes, show_event_classes
from kvdb.output_limits import OutputLimits

LOG_LEVELS: Final = {
    "debug": logging.DEBUG,
    "verbose": logging.DEBUG,
    "notice": logging.INFO,
    "info": logging.INFO,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
"""Ours (info and error) and Redis's (verbose and notice)."""

LOG_FORMATS: Final = ("text", "json")

_LINK: Final = re.compile(r"[a-z]+://")
"""What Kubernetes and Docker set KVDB_PORT to for a service that is called kvdb: tcp://10.0.0.7:4242."""

_SERVICE: Final = re.compile(r"KVDB_(\w+_)?(SERVICE_(HOST|PORT)\w*|PORT_\d+_\w+|ENV_\w+|NAME)")
"""What else they set."""


class BadSetting(Exception):
    """A setting cannot be used; the text is one sentence that names its flag and its variable."""


@dataclass(frozen=True)
class Setting:
    """One setting: what it is called, how its text is read, and what is said of it.

    `read` returns the value, or raises ValueError; `wanted` says what it takes.
    """

    field: str  # of Config
    flag: str  # the positional argument has none: it is called DATA
    metavar: str  # empty: a switch
    wanted: str
    read: Callable[[str], Any]
    help: str
    default: str = ""  # as the help has it; where empty, Config's
    parameter: str = ""  # of CONFIG, where Redis has another name for it than the flag's
    changeable: bool = False  # by CONFIG SET, while the server runs

    @property
    def variable(self) -> str:
        """The environment variable that stands for the flag."""
        return "KVDB_" + self.flag.lstrip("-").upper().replace("-", "_")

    @property
    def config_name(self) -> str:
        """What CONFIG calls it: as Redis does, where Redis has it."""
        return self.parameter or self.flag.lstrip("-")

    @property
    def name(self) -> str:
        """How messages call it."""
        return f"{self.flag} ({self.variable})"

    @property
    def is_switch(self) -> bool:
        """Whether the flag stands alone, without a value."""
        return not self.metavar

    def parse(self, text: str, name: str = "") -> Any:
        """Return the value that a text means. Raises BadSetting, which calls the setting `name`."""
        try:
            return self.read(text)
        except (ValueError, KeyError, OverflowError):
            name = name or self.name
            raise BadSetting(f"{name} must be {self.wanted}, not {text!r}") from None

    def from_environment(self, environment: Mapping[str, str]) -> Any:
        """Return the value that the variable gives, or None. An empty one counts as not set."""
        text = environment.get(self.variable, "")
        if not text or (self.read is _port and _LINK.match(text)):
            return None
        return self.parse(text)


def _number(text: str) -> float:
    number = float(text)
    if not 0 <= number < 2**40:
        raise ValueError
    return number


def _megabytes(text: str) -> int:
    return round(_number(text) * MB)


def _some_megabytes(text: str) -> int:
    size = _megabytes(text)
    if not size:
        raise ValueError
    return size


def _port(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", text) or int(text) > 65535:
        raise ValueError
    return int(text)


def _database(text: str) -> int:
    if not re.fullmatch(r"[0-9]|1[0-5]", text):
        raise ValueError
    return int(text)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def _whole(text: str) -> int:
    number = int(text)
    if not 0 <= number < 2**63:
        raise ValueError
    return number


def _or_never(text: str) -> int:
    return -1 if text == "-1" else _whole(text)


def _who(text: str) -> str:
    if text.lower() not in ("no", "yes", "local"):
        raise ValueError
    return text.lower()


def _address(text: str) -> tuple[str, int]:
    words = text.split()
    host, _, port = ":".join(words).rpartition(":")
    if len(words) > 2 or (len(words) == 2 and ":" in words[1]):
        raise ValueError
    return _host(host.strip("[]")), _positive_port(port)


def _positive_port(text: str) -> int:
    port = _port(text)
    if not port:
        raise ValueError
    return port


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip().lower() for name in text.split(",") if name.strip())


def _switch(text: str) -> bool:
    return {"1": True, "true": True, "yes": True, "on": True}.get(text.lower()) or not {
        "0": True, "false": True, "no": True, "off": True,
    }[text.lower()]  # fmt: skip


def log_level(text: str) -> str:
    """Return the name of a level. Raises ValueError."""
    if text.lower() not in LOG_LEVELS:
        raise ValueError(f"argument(s) must be one of the following: {', '.join(LOG_LEVELS)}")
    return text.lower()


def _log_format(text: str) -> str:
    if text.lower() not in LOG_FORMATS:
        raise ValueError
    return text.lower()


def _path(text: str) -> Path:
    if not text or "\0" in text:
        raise ValueError
    return Path(text).expanduser()


def _host(text: str) -> str:
    if not text.strip() or any(character.isspace() for character in text):
        raise ValueError
    text.encode("idna")  # raises UnicodeError, a ValueError, for what can be no name
    return text


def event_classes(text: str) -> str:
    """Return the letters of notify-keyspace-events in their normal form. Raises ValueError."""
    return show_event_classes(parse_event_classes(text))


_A_PORT: Final = "a number from 0 to 65535"
_SIZE: Final = "a number of megabytes"
_MICROSECONDS: Final = "a number of microseconds, or -1"
_SECONDS: Final = "a number of seconds"
_FSYNCS: Final = [fsync.value for fsync in Fsync]

GROUPS: Final = {
    "data on disk": (
        Setting("data", "DATA", "DATA", "the path of a file", _path,
                "the file that keeps the data; one that ends in .sqlite, .sqlite3 or .db is a journal, "
                "every other one a JSON snapshot", "kvdb.json", parameter="dbfilename"),
        Setting("in_memory", "--in-memory", "", "1 or 0", _switch, "keep nothing on disk"),
        Setting("snapshot_interval", "--snapshot-interval", "SECONDS", _SECONDS, _number,
                "seconds between snapshots; 0: only at the end and on SAVE", "60", parameter="save", changeable=True),
        Setting("fsync", "--fsync", "WHEN", " or ".join(_FSYNCS), lambda text: Fsync(text).value,
                f"when a change is in the journal: {', '.join(_FSYNCS)}", parameter="appendfsync"),
        Setting("import_file", "--import", "FILE", "the path of a file", _path,
                "dump.rdb of a Redis or Valkey, whose strings are put in at the start, if there is no key yet",
                "none"),
    ),
    "ports and protocols": (
        Setting("host", "--host", "ADDRESS", "an address or a name", _host,
                "address to listen on", parameter="bind"),
        Setting("port", "--port", "PORT", _A_PORT, _port,
                "main port; 0: a free one"),
        Setting("memcached_port", "--memcached-port", "PORT", _A_PORT, _port,
                "port for memcached clients (usual: 11211)", "closed"),
        Setting("haus_port", "--haus-port", "PORT", _A_PORT, _port,
                "port for the Haus protocol (usual: 9888)", "closed"),
        Setting("http_port", "--http-port", "PORT", _A_PORT, _port,
                "port for HTTP (usual: 8000)", "closed"),
        Setting("memcached_db", "--memcached-db", "N", "a number from 0 to 15", _database,
                "database that memcached clients see"),
        Setting("haus_db", "--haus-db", "N", "a number from 0 to 15", _database,
                "database that Haus clients see"),
        Setting("http_hosts", "--http-hosts", "NAME,NAME", "names, separated by commas", _names,
                "names, beside localhost and addresses, by which browsers may reach the HTTP port",
                "none"),
        Setting("http_writable", "--http-writable", "", "1 or 0", _switch,
                "have the page at / change and delete keys, too; without it, it only shows them", "no"),
    ),
    "memory and limits": (
        Setting("max_bytes", "--max-mb", "MB", _SIZE, _megabytes,
                "byte budget in MB (2**20 bytes); the least recently used keys go first; 0: no limit", "64", parameter="maxmemory", changeable=True),
        Setting("max_client_bytes", "--max-client-mb", "MB", _SIZE, _megabytes,
                "what clients' buffers and queues may take together, beside the budget, in MB; "
                "0: no limit", "64", parameter="maxmemory-clients", changeable=True),
        Setting("max_value_bytes", "--max-value-mb", "MB", _SIZE + " above 0", _some_megabytes,
                "longest value in MB", "16", parameter="proto-max-bulk-len"),
        Setting("max_clients", "--max-clients", "N", "a number above 0", _positive,
                "connections at a time", parameter="maxclients", changeable=True),
        Setting("idle_timeout", "--idle-timeout", "SECONDS", _SECONDS, _number,
                "end connections that are silent for so many seconds; 0: never", "0", parameter="timeout", changeable=True),
        Setting("output_limits", "--client-output-buffer-limit", "LIMITS",
                "a class of clients, two sizes and seconds, such as 'pubsub 32mb 8mb 60'",
                OutputLimits().changed, "what may wait for a client that does not read, as in Redis",
                "pubsub 32mb 8mb 60", changeable=True),
        Setting("script_time_limit", "--lua-time-limit", "MILLISECONDS", "a whole number", _whole,
                "a script that takes longer has others refused with BUSY, until it ends or is ended; 0: never", changeable=True),
    ),
    "who may do what": (
        Setting("password_file", "--password-file", "FILE", "the path of a file", _path,
                "file whose first line is the password that clients must give; the variable "
                "KVDB_PASSWORD may hold the password itself", "none", parameter="requirepass", changeable=True),
        Setting("acl_file", "--acl-file", "FILE", "the path of a file", _path,
                "file of users and what they may do, one per line as in Redis's users.acl", "none", parameter="aclfile"),
        Setting("no_protection", "--no-protection", "", "1 or 0", _switch,
                "allow an address other than loopback without a password", parameter="protected-mode"),
        Setting("tls_cert", "--tls-cert", "FILE", "the path of a file", _path,
                "certificate (PEM, with its chain): every port speaks TLS then, and nothing else", "none", parameter="tls-cert-file", changeable=True),
        Setting("tls_key", "--tls-key", "FILE", "the path of a file", _path,
                "the certificate's key (PEM), if it is not in the same file", "none", parameter="tls-key-file", changeable=True),
        Setting("tls_client_ca", "--tls-client-ca", "FILE", "the path of a file", _path,
                "clients must show a certificate that these authorities have signed", "none", parameter="tls-ca-cert-file", changeable=True),
        Setting("enable_debug_command", "--enable-debug-command", "WHO", "no, yes or local", _who,
                "who may use DEBUG, which is for tests: no, yes or local"),
    ),
    "replication": (
        Setting("replica_of", "--replica-of", "HOST:PORT", "HOST:PORT or HOST PORT", _address,
                "replicate this server (kvdb, Redis or Valkey): what is here is replaced, and cannot be "
                "written, until REPLICAOF NO ONE", "none", parameter="replicaof"),
        Setting("primary_user", "--primary-user", "NAME", "a name", _host,
                "who we are on that server", "default", parameter="masteruser", changeable=True),
        Setting("primary_password_file", "--primary-password-file", "FILE", "the path of a file", _path,
                "file whose first line is the password there", "none", parameter="masterauth", changeable=True),
        Setting("primary_tls_ca", "--primary-tls-ca", "FILE", "the path of a file", _path,
                "speak TLS with that server, whose certificate these authorities (PEM) have signed", "none", changeable=True),
    ),
    "looking on": (
        Setting("log_level", "--log-level", "LEVEL", " or ".join(LOG_LEVELS), log_level,
                f"one of {', '.join(LOG_LEVELS)}", parameter="loglevel", changeable=True),
        Setting("log_format", "--log-format", "FORMAT", "text or json", _log_format,
                "how a line of the log is written: text, or json for a program that reads it"),
        Setting("slow_log_threshold", "--slowlog-log-slower-than", "MICROSECONDS", _MICROSECONDS, _or_never,
                "the slow log keeps requests that take at least so many microseconds; -1: none", changeable=True),
        Setting("slow_log_length", "--slowlog-max-len", "N", "a whole number", _whole,
                "how many requests the slow log keeps", changeable=True),
        Setting("latency_threshold", "--latency-monitor-threshold", "MILLISECONDS", "a whole number", _whole,
                "LATENCY shows what takes at least so many milliseconds; 0: off", changeable=True),
        Setting("latency_tracking", "--latency-tracking", "", "1 or 0", _switch,
                "count and time each command from the start on, not from the first INFO commandstats on", "no", changeable=True),
        Setting("notify_keyspace_events", "--notify-keyspace-events", "LETTERS",
                "some of the letters AKEg$lshzxetdnm", event_classes,
                "which events of keys are published, as in Redis", "none", changeable=True),
    ),
    "settings in a file": (
        Setting("config_file", "--config", "FILE", "the path of a file", _path,
                "TOML file of settings, such as max-mb = 64; flags and variables count more", "none", parameter="config-file"),
    ),
}  # fmt: skip
"""All settings, as the help has them in groups."""

SETTINGS: Final = tuple(setting for group in GROUPS.values() for setting in group)

BY_FIELD: Final = {setting.field: setting for setting in SETTINGS}

_NOT_OF_CONFIG: Final = ("in_memory", "password_file", "primary_password_file", "no_protection")

PASSWORD_VARIABLE: Final = "KVDB_PASSWORD"
"""Not a flag: everybody on the machine sees the arguments of a process."""


def unknown_variables(environment: Mapping[str, str]) -> list[str]:
    """Return the variables that look like settings and are none."""
    known = {setting.variable for setting in SETTINGS} | {PASSWORD_VARIABLE}
    return sorted(
        name
        for name in environment
        if name.startswith("KVDB_") and name not in known and not _SERVICE.fullmatch(name)
    )


def configure(
    given: Mapping[str, Any], environment: Mapping[str, str], from_file: Mapping[str, Any]
) -> tuple[Config, list[str]]:
    """Return the configuration, and remarks on what has no effect.

    `given` is what stands on the command line, by field; it counts more than the environment, and
    that more than `from_file`. Raises BadSetting.
    """
    from_variables = {
        setting.field: value
        for setting in SETTINGS
        if (value := setting.from_environment(environment)) is not None
    }
    sources = (given, from_variables, from_file)
    values = {**from_file, **from_variables, **given}
    if values.get("in_memory") and "data" in values:
        kept, unkept = (
            next(rank for rank, source in enumerate(sources) if field in source)
            for field in ("data", "in_memory")
        )
        if kept == unkept:
            raise BadSetting(
                f"{BY_FIELD['data'].name} and {BY_FIELD['in_memory'].name} exclude each other"
            )
        values["in_memory"] = unkept < kept
    config = Config(
        **{field: value for field, value in values.items() if field not in _NOT_OF_CONFIG}
    )
    if values.get("in_memory"):
        config.data = None
    config.protected = not values.get("no_protection", False)
    config.password = _password(values.get("password_file"), environment)
    if "primary_password_file" in values:
        setting = BY_FIELD["primary_password_file"]
        config.primary_password = _first_line(values["primary_password_file"], setting.name)
    if config.primary_tls_ca is not None:
        _check_authorities(config.primary_tls_ca, BY_FIELD["primary_tls_ca"].name)
    _check_ports(config)
    if config.tls_cert is None:
        for field in ("tls_key", "tls_client_ca"):
            if field in values:
                raise BadSetting(f"{BY_FIELD[field].name} needs {BY_FIELD['tls_cert'].name}")
    return config, _check_persistence(config, values)


def _password(path: Path | None, environment: Mapping[str, str]) -> str | None:
    given = environment.get(PASSWORD_VARIABLE) or None
    if path is None:
        return given
    name = BY_FIELD["password_file"].name
    if given is not None:
        raise BadSetting(f"{name} and {PASSWORD_VARIABLE} both give a password: give one of them")
    return _first_line(path, name)


def _first_line(path: Path, name: str) -> str:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadSetting(f"cannot read the password from {path}, as {name} says: {error}") from None
    if not lines or not lines[0]:
        raise BadSetting(f"the first line of {path} is empty, and {name} says it is the password")
    return lines[0]


def _check_authorities(path: Path, name: str) -> None:
    import ssl  # 10 ms, for the few who need it

    try:
        ssl.create_default_context(cafile=path)
    except ssl.SSLError:
        raise BadSetting(f"{path} has no certificates in PEM form, as {name} wants it") from None
    except OSError as error:
        raise BadSetting(f"cannot read {path}, as {name} says: {error.strerror}") from None


def _check_ports(config: Config) -> None:
    taken: dict[int, Setting] = {}
    for field in ("port", "memcached_port", "haus_port", "http_port"):
        port, setting = getattr(config, field), BY_FIELD[field]
        if port:
            if port in taken:
                raise BadSetting(f"{taken[port].name} and {setting.name} are both {port}")
            taken[port] = setting


def _check_persistence(config: Config, values: Mapping[str, Any]) -> list[str]:
    """Refuse a promise that would not be kept; return remarks on what has no effect."""
    remarks = []
    if "fsync" in values and not (config.data and config.is_journal):
        kept = "nothing is kept on disk" if config.data is None else f"{config.data} is a snapshot"
        raise BadSetting(
            f"{BY_FIELD['fsync'].name} is for a journal (a file that ends in .sqlite, .sqlite3 or .db), and {kept}"
        )
    if "snapshot_interval" in values and (config.data is None or config.is_journal):
        kept = "nothing is kept on disk" if config.data is None else f"{config.data} is a journal"
        remarks.append(f"{BY_FIELD['snapshot_interval'].name} has no effect: {kept}")
    if config.http_hosts and config.http_port is None:
        remarks.append(f"{BY_FIELD['http_hosts'].name} has no effect without --http-port")
    if config.http_writable and config.http_port is None:
        remarks.append(f"{BY_FIELD['http_writable'].name} has no effect without --http-port")
    return remarks
