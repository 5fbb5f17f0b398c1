"""The file of settings that --config names: TOML, one line per flag.

port = 4242
http-port = 8000
max-mb = 256
data = "/var/lib/kvdb/kvdb.sqlite"
http-hosts = ["kv.example"]
latency-tracking = true
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

from kvdb.settings import SETTINGS, BadSetting, Setting

_BY_NAME: Final = {
    each.flag.lstrip("-").lower(): each for each in SETTINGS if each.flag != "--config"
}


def read_config_file(path: Path) -> dict[str, Any]:
    """Return what a file sets, by field. Raises BadSetting, whose sentence names the file."""
    try:
        with open(path, "rb") as file:
            lines = tomllib.load(file)
    except (OSError, ValueError, RecursionError) as error:  # ValueError: no TOML, no UTF-8
        raise BadSetting(f"cannot read the settings in {path}: {error}") from None
    values: dict[str, Any] = {}
    for name, value in lines.items():
        setting = _BY_NAME.get(name.replace("_", "-"))
        if setting is None:
            raise BadSetting(f"there is no setting {name} (in {path}){_proposal(name)}")
        if setting.field in values:
            raise BadSetting(f"{path} sets {name} twice")
        values[setting.field] = setting.parse(_text(value, setting), f"{name} (in {path})")
    return values


def _text(value: object, setting: Setting) -> str:
    """Return what would stand on the command line; what has no such form is refused by the setting."""
    if isinstance(value, bool):
        return str(int(value)) if setting.is_switch else str(value).lower()
    if isinstance(value, list):
        if setting.field != "http_hosts" or not all(isinstance(each, str) for each in value):
            raise BadSetting(f"{setting.name} must be {setting.wanted}, not a list such as {value}")
        return ",".join(value)
    return value if isinstance(value, str) else str(value)


def _proposal(name: str) -> str:
    from difflib import get_close_matches  # only who mistypes needs it

    close = get_close_matches(name, _BY_NAME, 1)
    return f"; did you mean {close[0]}?" if close else ""
