"""The files of the page that are the same for everybody: style, scripts, icon."""

from __future__ import annotations

import functools
from importlib.resources import files
from typing import Final

KINDS: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
"""Content types by the end of a name. Any other file, such as the page's template, is not served."""

SERVED: Final = (
    "style.css", "main.js", "chart.js", "editing.js", "elements.js", "keys.js", "panels.js", "tree.js",
    "value.js", "icon.svg",
)  # fmt: skip
"""All there are: a name in a request never becomes a path."""


@functools.cache
def static_file(name: str) -> bytes:
    """Return a file of the package; it is read once."""
    return (files("kvdb.http") / "static" / name).read_bytes()


def content_type(name: str) -> str:
    """Return the content type of a file that is served."""
    return KINDS[name.rpartition(".")[2]]
