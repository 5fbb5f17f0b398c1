"""The page at /: the keys, with their values hidden until they are toggled open.

Plain HTML: `<details>` toggles without a script, and everything that a client has stored is
escaped.
"""

from __future__ import annotations

import html
import urllib.parse
from collections.abc import Collection

from kvdb.commands.info import human
from kvdb.commands.instance import Instance
from kvdb.store.entry import Key, key_in, split_key

SHOWN_BYTES = 10_000
"""Of each value."""

STYLE = """\
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; accent-color: #2a7ae2; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
header { display: flex; align-items: baseline; gap: 1rem; flex-wrap: wrap; }
h1 { margin: 0; font-size: 1.6rem; }
h1 a { color: inherit; text-decoration: none; }
header p { margin: 0; opacity: .8; }
form { display: flex; align-items: center; gap: .5rem; flex-wrap: wrap; margin: 1rem 0; }
input, button { font: inherit; padding: .2rem .6rem; }
code, pre { font: .9rem/1.5 ui-monospace, monospace; white-space: pre-wrap; overflow-wrap: anywhere; }
details { border-top: 1px solid #8885; }
summary { cursor: pointer; padding: .4rem .3rem; }
summary:hover { background: #8882; }
summary code { word-break: break-all; }
summary small { margin-left: .5rem; opacity: .8; white-space: nowrap; }
pre { background: #8882; border-radius: .3rem; margin: 0 0 .7rem 1.2rem; padding: .6rem .8rem; }
[role=alert] { border-left: .3rem solid #d33; background: #d332; padding: .5rem .8rem; }
nav { border-top: 1px solid #8885; padding: .8rem 0; display: flex; gap: 1.5rem; flex-wrap: wrap; }
"""


_HIDDEN = """\
<details><summary><code>{}</code> <small>no permission to read it</small></summary></details>
"""


def render_page(
    instance: Instance,
    names: list[bytes],
    cursor: int,
    prefix: bytes,
    db: int = 0,
    hidden: Collection[bytes] = (),
) -> str:
    """Return the page that lists these keys of a database.

    `cursor` leads to the next page (0: there is none). Of `hidden` keys only the names are shown.
    """
    store = instance.store
    keys = store.size(db)
    shown = [
        _HIDDEN.format(_escape(name)) if name in hidden else _render_key(instance, key_in(db, name))
        for name in names
    ]
    more = ""
    if cursor:
        query = urllib.parse.urlencode({"cursor": cursor, "prefix": prefix, "db": db})
        more = f'<a href="/?{html.escape(query)}">More keys</a>\n'
    used = human(store.used_bytes)
    budget = f"{used} of {human(store.max_bytes)}" if store.max_bytes else used
    databases = _render_databases(sorted({0, db, *store.sizes()}), db)
    persistence = instance.persistence
    trouble = ""
    if persistence and persistence.last_error:
        trouble = f'<p role="alert"><strong>{html.escape(persistence.last_error)}</strong></p>\n'
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>kvdb</title>
<link rel="stylesheet" href="/style.css">
</head>
<body>
<header>
<h1><a href="/">kvdb</a></h1>
<p>{keys:,} {"key" if keys == 1 else "keys"}, {budget}</p>
</header>
<main>
{trouble}<form action="/">
<label for="prefix">Keys that begin with</label>
<input id="prefix" name="prefix" value="{_escape(prefix)}"> <button>Show</button>
<input type="hidden" name="db" value="{db}">
</form>
{databases}{"".join(shown) or "<p>No keys.</p>"}
</main>
<nav>
{more}<a href="/metrics">Metrics</a>
<a href="/healthz">Health</a>
</nav>
</body>
</html>
"""


def _render_databases(databases: list[int], shown: int) -> str:
    """Return links to all databases that have keys, if there is more than one."""
    if len(databases) < 2:
        return ""
    links = [
        f"<strong>Database {db}</strong>"
        if db == shown
        else f'<a href="/?db={db}">Database {db}</a>'
        for db in databases
    ]
    return f"<p>{' '.join(links)}</p>\n"


def _render_key(instance: Instance, key: Key) -> str:
    name = split_key(key)[1]
    entry = instance.store.entry(key)
    if entry is None:
        return ""  # it has gone since the keys were listed
    size = len(entry.value)
    remarks = [f"{size:,} {'byte' if size == 1 else 'bytes'}"]
    if entry.expires_at is not None:
        remarks.append(f"expires in {max(0, round(entry.expires_at - instance.store.now())):,} s")
    if size > SHOWN_BYTES:
        remarks.append(f"the first {SHOWN_BYTES:,} are shown")
    value = _escape(entry.value[:SHOWN_BYTES], kept="\n\t")
    # HTML drops one newline after <pre>: let it not be the value's.
    return (
        f"<details><summary><code>{_escape(name)}</code> <small>{', '.join(remarks)}</small>"
        f"</summary><pre>\n{value}</pre></details>\n"
    )


def _escape(data: bytes, kept: str = "") -> str:
    """Return bytes as text for HTML: as `\\x..` what is not UTF-8, and what one would not see.

    `kept` lists the control characters that stay as they are.
    """
    text = data.decode("utf-8", "backslashreplace")
    return html.escape("".join(c if c.isprintable() or c in kept else _code(c) for c in text))


def _code(character: str) -> str:
    number = ord(character)
    return f"\\x{number:02x}" if number < 256 else f"\\u{number:04x}"
