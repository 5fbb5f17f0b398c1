"""CONFIG: what the server was told, under Redis's parameter names."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from kvdb import errors
from kvdb.commands.arguments import INT64_MAX
from kvdb.commands.info import keeps_journal
from kvdb.commands.instance import Instance
from kvdb.commands.session import Session
from kvdb.commands.table import ADMIN, command, container
from kvdb.errors import CommandError
from kvdb.glob import compile_glob
from kvdb.output_limits import OutputLimits, parse_bytes
from kvdb.replies import OK, Reply
from kvdb.settings import LOG_LEVELS, SETTINGS, event_classes, log_level
from kvdb.store.budget import EvictionPolicy
from kvdb.store.entry import DATABASES

container("CONFIG", "Look at the configuration, and change what may change.", group="server")


class Parameter(NamedTuple):
    """How a parameter is read and, if it may change at run time, changed.

    `check` turns the text into a value or raises ValueError with a reason; `apply` takes it.
    """

    read: Callable[[Instance], str]
    check: Callable[[str], object] | None = None
    apply: Callable[[Instance, object], None] | None = None


def _number(least: int, most: int = 2**31 - 1) -> Callable[[str], object]:
    def check(text: str) -> object:
        if not re.fullmatch(r"-?\d{1,18}", text):
            raise ValueError("argument couldn't be parsed into an integer")
        if not least <= int(text) <= most:
            raise ValueError(f"argument must be between {least} and {most} inclusive")
        return int(text)

    return check


def _policy(text: str) -> EvictionPolicy:
    try:
        return EvictionPolicy(text.lower())
    except ValueError:
        allowed = ", ".join(policy.value for policy in EvictionPolicy)
        raise ValueError(f"argument(s) must be one of the following: {allowed}") from None


def _save_points(text: str) -> float:
    """Parse `save`: pairs of seconds and changes. We save after the shortest time, if there was any change."""
    words = text.split()
    well_formed = all(re.fullmatch(r"\d{1,9}", word) for word in words)
    if len(words) % 2 or not well_formed or "0" in words[::2]:
        raise ValueError("Invalid save parameters")
    return float(min((int(seconds) for seconds in words[::2]), default=0))


def _yes_or_no(text: str) -> bool:
    if text.lower() not in ("yes", "no"):
        raise ValueError("argument must be 'yes' or 'no'")
    return text.lower() == "yes"


def _set_save(instance: Instance, interval: object) -> None:
    instance.config.snapshot_interval = interval  # type: ignore[assignment]
    if instance.persistence:
        instance.persistence.interval_changed()


def _set_log_level(instance: Instance, level: object) -> None:
    instance.config.log_level = str(level)
    logging.getLogger("kvdb").setLevel(LOG_LEVELS[str(level)])


def _set(field: str) -> Callable[[Instance, object], None]:
    return lambda instance, value: setattr(instance.config, field, value)


def _set_and_oversee(field: str) -> Callable[[Instance, object], None]:
    """As _set(), for what decides whether anybody wants to see every request."""

    def change(instance: Instance, value: object) -> None:
        setattr(instance.config, field, value)
        instance.overseer.update()

    return change


def _set_slow_log_length(instance: Instance, value: object) -> None:
    instance.config.slow_log_length = value  # type: ignore[assignment]
    instance.overseer.slow_log.resize(value)  # type: ignore[arg-type]


def _set_max_bytes(instance: Instance, value: object) -> None:
    instance.store.max_bytes = value  # type: ignore[assignment]


def _set_policy(instance: Instance, value: object) -> None:
    instance.store.policy = value  # type: ignore[assignment]


def _set_password(instance: Instance, password: object) -> None:
    instance.user_changed(instance.users.set_password(str(password) or None))


def _output_limits(text: str) -> str:
    OutputLimits().changed(text)
    return text


def _set_output_limits(instance: Instance, text: object) -> None:
    """Change the limits of the classes that are named."""
    instance.config.output_limits = instance.config.output_limits.changed(str(text))


def _refuse_too_many_clients(instance: Instance, value: object) -> None:
    most = instance.most_clients
    if most is not None and isinstance(value, int) and value > most:
        raise ValueError(
            "The operating system is not able to handle the specified number of clients, "
            f"try with {most}"
        )


def _read_save(instance: Instance) -> str:
    """Return the save point; a journal has none, as its --snapshot-interval has no effect."""
    interval = instance.config.snapshot_interval
    saves = instance.persistence and not keeps_journal(instance)
    return f"{_seconds(interval)} 1" if saves and interval else ""


def _seconds(number: float) -> str:
    """Return all digits of a number, without an exponent: clients read it as an integer."""
    return str(int(number)) if number == int(number) else f"{number:f}".rstrip("0")


def _or_none(text: str) -> str | None:
    return text or None


def _file(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


_TLS_FILES: Final = {
    "tls-cert-file": "tls_cert",
    "tls-key-file": "tls_key",
    "tls-ca-cert-file": "tls_client_ca",
}


def _use_certificates(instance: Instance, given: dict[str, object]) -> None:
    """Have new connections use these files in place of those that the configuration names."""
    if instance.certificates is None:
        raise _refused(next(iter(given)), "TLS is off: the server was started without --tls-cert")
    files = {
        field: given.get(name, getattr(instance.config, field))
        for name, field in _TLS_FILES.items()
    }
    try:
        instance.certificates.use(*files.values())  # type: ignore[arg-type]
    except (OSError, TypeError) as error:
        raise _refused(next(iter(given)), f"the files cannot be used: {error}") from None


def _read(field: str) -> Callable[[Instance], str]:
    """Return how a field of the configuration is shown where Redis has no form for it."""

    def read(instance: Instance) -> str:
        value = getattr(instance.config, field)
        return ",".join(value) if isinstance(value, tuple) else "" if value is None else str(value)

    return read


def _read_fsync(instance: Instance) -> str:
    return "no" if instance.config.fsync == "never" else instance.config.fsync


def _read_file_name(instance: Instance) -> str:
    return instance.persistence.path.name if instance.persistence else ""


_READERS: Final[dict[str, Callable[[Instance], str]]] = {
    "data": _read_file_name,
    "in_memory": lambda instance: "no" if instance.persistence else "yes",
    "max_bytes": lambda instance: str(instance.store.max_bytes),
    "idle_timeout": lambda instance: _seconds(instance.config.idle_timeout),
    "snapshot_interval": _read_save,
    "fsync": _read_fsync,
    "notify_keyspace_events": lambda instance: str(instance.notifications),
    "output_limits": lambda instance: str(instance.config.output_limits),
    "password_file": lambda instance: "(set)" if instance.users.default.rules.passwords else "",
    "latency_tracking": lambda instance: "yes" if instance.config.latency_tracking else "no",
    "replica_of": lambda instance: (
        "{} {}".format(*instance.standby.primary[:2]) if instance.standby else ""
    ),
    "primary_password_file": lambda instance: "(set)" if instance.config.primary_password else "",
    "http_writable": lambda instance: "yes" if instance.config.http_writable else "no",
    "no_protection": lambda instance: "yes" if instance.config.protected else "no",
}

_CHANGES: Final[dict[str, tuple[Callable[[str], object], Callable[[Instance, object], None]]]] = {
    "max_bytes": (parse_bytes, _set_max_bytes),
    "max_client_bytes": (parse_bytes, _set("max_client_bytes")),
    "max_clients": (_number(1), _set("max_clients")),
    "idle_timeout": (_number(0), _set("idle_timeout")),
    "snapshot_interval": (_save_points, _set_save),
    "log_level": (log_level, _set_log_level),
    "notify_keyspace_events": (
        event_classes,
        lambda instance, text: instance.notifications.use(str(text)),
    ),
    "output_limits": (_output_limits, _set_output_limits),
    "password_file": (str, _set_password),
    "primary_user": (_or_none, _set("primary_user")),
    "primary_password_file": (_or_none, _set("primary_password")),
    "primary_tls_ca": (_file, _set("primary_tls_ca")),
    "tls_cert": (_file, _set("tls_cert")),
    "tls_key": (_file, _set("tls_key")),
    "tls_client_ca": (_file, _set("tls_client_ca")),
    "slow_log_threshold": (_number(-1, INT64_MAX), _set_and_oversee("slow_log_threshold")),
    "slow_log_length": (_number(0, INT64_MAX), _set_slow_log_length),
    "script_time_limit": (_number(0, INT64_MAX), _set("script_time_limit")),
    "latency_threshold": (_number(0, INT64_MAX), _set_and_oversee("latency_threshold")),
    "latency_tracking": (_yes_or_no, _set_and_oversee("latency_tracking")),
}

PARAMETERS: Final[dict[str, Parameter]] = {
    **{
        setting.config_name: Parameter(
            _READERS.get(setting.field) or _read(setting.field),
            *_CHANGES.get(setting.field, (None, None)),
        )
        for setting in SETTINGS
    },
    "maxmemory-policy": Parameter(
        lambda instance: instance.store.policy.value, _policy, _set_policy
    ),
    "tracking-table-max-keys": Parameter(
        lambda instance: str(instance.tracking.max_keys),
        _number(0, INT64_MAX),
        lambda instance, value: instance.tracking.set_max_keys(value),  # type: ignore[arg-type]
    ),
    "acllog-max-len": Parameter(
        lambda instance: str(instance.config.acl_log_max_len),
        _number(0, INT64_MAX),
        _set("acl_log_max_len"),
    ),
    # What follows from the settings, or cannot be set; tools ask for it.
    "busy-reply-threshold": Parameter(
        lambda instance: str(instance.config.script_time_limit),
        _number(0, INT64_MAX),
        _set("script_time_limit"),
    ),
    "latency-tracking-info-percentiles": Parameter(lambda instance: "50 99 99.9"),
    "acl-pubsub-default": Parameter(lambda instance: "resetchannels"),
    "databases": Parameter(lambda instance: str(DATABASES)),
    "dir": Parameter(
        lambda instance: (
            str(instance.persistence.path.resolve().parent) if instance.persistence else ""
        )
    ),
    "appendonly": Parameter(lambda instance: "yes" if keeps_journal(instance) else "no"),
    "tls-port": Parameter(
        lambda instance: str(instance.config.port if instance.certificates else 0)
    ),
    "tls-auth-clients": Parameter(
        lambda instance: "yes" if instance.config.tls_client_ca else "no"
    ),
}


@command(
    "CONFIG GET",
    "parameter [parameter ...]",
    ADMIN,
    "Return the parameters that match these globs.",
    group="server",
)
def config_get(session: Session, *patterns: bytes) -> Reply:
    found = {}
    for pattern in patterns:
        matches = compile_glob(pattern.lower())
        for name, parameter in PARAMETERS.items():
            if matches(name.encode()):
                # A name that was typed in full comes back as it was typed.
                shown = pattern if pattern.lower() == name.encode() else name.encode()
                found[shown] = parameter.read(session.instance).encode()
    return found


@command(
    "CONFIG SET",
    "parameter value [parameter value ...]",
    ADMIN,
    "Change parameters, all or none.",
    group="server",
)
def config_set(session: Session, *names_and_values: bytes) -> Reply:
    if len(names_and_values) % 2:
        raise CommandError(errors.SYNTAX)
    changes: list[tuple[Callable[[Instance, object], None], object]] = []
    certificates: dict[str, object] = {}
    for given, text in zip(names_and_values[::2], names_and_values[1::2], strict=True):
        name = given.decode("utf-8", "replace").lower()
        parameter = PARAMETERS.get(name)
        if parameter is None:
            raise CommandError(
                f"ERR Unknown option or number of arguments for CONFIG SET - '{name[:128]}'"
            )
        if parameter.check is None or parameter.apply is None:
            raise _refused(name, "can't set immutable config")
        if any(apply is parameter.apply for apply, _ in changes):
            raise _refused(name, "duplicate parameter")
        try:
            value = parameter.check(text.decode("utf-8", "replace"))
            if name == "maxclients":
                _refuse_too_many_clients(session.instance, value)
        except ValueError as error:
            raise _refused(name, str(error)) from None
        changes.append((parameter.apply, value))
        if name in _TLS_FILES:
            certificates[name] = value
    if certificates:  # first: what cannot be used changes nothing
        _use_certificates(session.instance, certificates)
    for apply, value in changes:
        apply(session.instance, value)
    return OK


def _refused(name: str, reason: str) -> CommandError:
    return CommandError(f"ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}")


@command("CONFIG RESETSTAT", "", ADMIN, "Set the counters of INFO back to 0.", group="server")
def config_resetstat(session: Session) -> Reply:
    session.instance.reset_statistics()
    return OK


@command(
    "CONFIG REWRITE",
    "",
    ADMIN,
    "Refused: there is no configuration file to rewrite.",
    group="server",
)
def config_rewrite(session: Session) -> Reply:
    raise CommandError("ERR The server is running without a config file")
