"""The page at /: the keys, with their values hidden until they are toggled open.

Plain HTML: `<details>` toggles without a script, and everything that a client has stored is
escaped.
"""

from __future__ import annotations

import html
import urllib.parse

from kvdb.commands.info import human
from kvdb.commands.session import Instance

SHOWN_BYTES = 10_000
"""Of each value."""

STYLE = """\
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
details { border-bottom: 1px solid #8884; padding: .3rem 0; }
summary { cursor: pointer; overflow-wrap: anywhere; }
summary small { opacity: .7; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #8882; padding: .5rem; }
"""


def render_page(instance: Instance, names: list[bytes], cursor: int, prefix: bytes) -> str:
    """Return the page that lists these keys; `cursor` leads to the next one (0: there is none)."""
    store = instance.store
    keys = store.size()
    shown = [_render_key(instance, name) for name in names]
    more = ""
    if cursor:
        query = urllib.parse.urlencode({"cursor": cursor, "prefix": prefix})
        more = f'<p><a href="/?{html.escape(query)}">More keys</a></p>'
    budget = f"{human(store.used_bytes)} of {human(store.max_bytes)}" if store.max_bytes else ""
    persistence = instance.persistence
    trouble = ""
    if persistence and persistence.last_error:
        trouble = f'<p role="alert"><strong>{html.escape(persistence.last_error)}</strong></p>'
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>kvdb</title>
<link rel="stylesheet" href="/style.css">
</head>
<body>
<h1>kvdb</h1>
{trouble}<p>{keys} keys. {budget}</p>
<form action="/"><label>Keys that begin with
<input name="prefix" value="{_escape(prefix)}"></label> <button>Show</button></form>
{"".join(shown) or "<p>No keys.</p>"}
{more}
</body>
</html>
"""


def _render_key(instance: Instance, name: bytes) -> str:
    entry = instance.store.entry(name)
    if entry is None:
        return ""  # it has gone since the keys were listed
    remarks = [f"{len(entry.value)} bytes"]
    if entry.expires_at is not None:
        remarks.append(f"expires in {max(0, round(entry.expires_at - instance.store.clock()))} s")
    cut = " (cut)" if len(entry.value) > SHOWN_BYTES else ""
    return (
        f"<details><summary>{_escape(name)} <small>{', '.join(remarks)}{cut}</small></summary>"
        f"<pre>{_escape(entry.value[:SHOWN_BYTES])}</pre></details>\n"
    )


def _escape(data: bytes) -> str:
    """Return bytes as text for HTML: what is not UTF-8, and control characters, as `\\x..`."""
    text = data.decode("utf-8", "backslashreplace")
    visible = "".join(c if c.isprintable() or c in "\n\t" else f"\\x{ord(c):02x}" for c in text)
    return html.escape(visible)
