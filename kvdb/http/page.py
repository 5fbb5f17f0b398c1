"""The page at /: a verdict, tiles, and the keys with their values hidden until toggled open.

It is whole without a script: `<details>` toggles by itself. With scripts, charts come to it, its
figures move, and the list of keys is replaced by one that fetches a value when it is toggled open.
Everything that a client has stored is escaped.
"""

from __future__ import annotations

import html
import urllib.parse
from collections.abc import Collection
from string import Template

from kvdb.commands.info import human
from kvdb.commands.instance import Instance
from kvdb.http.browsing import CUT
from kvdb.http.figures import TROUBLE, figures
from kvdb.http.history import History
from kvdb.http.static_files import static_file
from kvdb.http.visible import visible
from kvdb.store.entry import Key, key_in, split_key

_HIDDEN = """\
<details><summary><code>{}</code> <small>no permission to read it</small></summary></details>
"""


def render_page(
    instance: Instance,
    history: History | None,
    names: list[bytes],
    cursor: int,
    asked: dict[bytes, bytes],
    db: int = 0,
    hidden: Collection[bytes] = (),
) -> str:
    """Return the page that lists these keys of a database.

    Without a `history` there are no figures: the user may not see them. `cursor` leads to the
    next page (0: there is none). `asked` is the query. Of `hidden` keys only the names are shown.
    """
    store = instance.store
    keys = store.size(db)
    shown = [
        _HIDDEN.format(_escape(name)) if name in hidden else _render_key(instance, key_in(db, name))
        for name in names
    ]
    search, prefix = asked.get(b"search", b""), asked.get(b"prefix", b"")
    more = ""
    if cursor:
        query = urllib.parse.urlencode(
            {"cursor": cursor, "prefix": prefix, "search": search, "db": db}
        )
        more = f'<a href="/?{html.escape(query)}">More keys</a>\n'
    used = human(store.used_bytes)
    budget = f"{used} of {human(store.max_bytes)}" if store.max_bytes else used
    return Template(static_file("page.html").decode()).substitute(
        summary=f"{keys:,} {'key' if keys == 1 else 'keys'}, {budget}",
        state=_render_state(instance, history),
        search=_escape(search or prefix),
        prefix=_escape(prefix),
        db=db,
        databases=_render_databases(sorted({0, db, *store.sizes()}), db),
        rows="".join(shown) or "<p>No keys.</p>",
        more=more,
    )


def _render_state(instance: Instance, history: History | None) -> str:
    """Return the verdict, the tiles and a place for the charts."""
    if history is None:
        persistence = instance.persistence
        if persistence and persistence.last_error:
            return f'<p role="alert"><strong>{html.escape(persistence.last_error)}</strong></p>\n'
        return ""
    shown = figures(instance, history)
    level, text = shown["verdict"]["level"], shown["verdict"]["text"]
    role = "alert" if level == TROUBLE else "status"
    tiles = "".join(
        f'<div id="tile-{tile["name"]}"><dt>{tile["label"]}</dt>'
        f"<dd><strong>{html.escape(tile['value'])}</strong>"
        f" <small>{html.escape(tile['remark'])}</small></dd></div>\n"
        for tile in shown["tiles"]
    )
    return f"""<section id="state" aria-labelledby="state-title">
<h2 id="state-title">State</h2>
<div id="verdict" class="{level}"><p role="{role}">{html.escape(text)}</p></div>
<dl id="tiles">
{tiles}</dl>
</section>
<section id="charts" aria-labelledby="charts-title" hidden>
<h2 id="charts-title">History</h2>
</section>
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
    return f"<p>{' '.join(links)}</p>"


def _render_key(instance: Instance, key: Key) -> str:
    name = split_key(key)[1]
    entry = instance.store.entry(key)
    if entry is None:
        return ""  # it has gone since the keys were listed
    size = len(entry.value)
    remarks = [f"{size:,} {'byte' if size == 1 else 'bytes'}"]
    if entry.expires_at is not None:
        remarks.append(f"expires in {max(0, round(entry.expires_at - instance.store.now())):,} s")
    if size > CUT:
        remarks.append(f"the first {CUT:,} are shown")
    value = _escape(entry.value[:CUT], kept="\n\t")
    # HTML drops one newline after <pre>: let it not be the value's.
    return (
        f"<details><summary><code>{_escape(name)}</code> <small>{', '.join(remarks)}</small>"
        f"</summary><pre>\n{value}</pre></details>\n"
    )


def _escape(data: bytes, kept: str = "") -> str:
    """Return bytes as text for HTML, with everything visible but for what is `kept`."""
    return html.escape(visible(data, kept))
