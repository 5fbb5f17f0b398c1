"""Who may send a request: nobody who does it by way of a browser on another site's page."""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from email.message import Message
from typing import Final

from kvdb.http.body import Refused

_ANY_HOST: Final = {"/healthz", "/metrics"}
"""Answered whatever the Host header says: probes and Prometheus use the name of a service. They
tell nothing of keys and values."""


def check_sender(
    method: str, path: str, version: str, headers: Message, names: Collection[str]
) -> None:
    """Refuse what another site's page has sent, and a Host that is not ours; `names` are.

    Raises Refused.

    With a name of its own that points here, a foreign site would pass for us otherwise
    (DNS rebinding); addresses cannot be made to point elsewhere.

    Over http, browsers send Sec-Fetch-Site to loopback only. To any other address, an image
    of a foreign page is asked for with neither that nor an Origin: so from a browser (all
    call themselves Mozilla) the one path that writes by GET wants to be told.
    """
    hosts = headers.get_all("Host", [])
    if len(hosts) > 1 or (not hosts and version != "HTTP/1.0"):
        raise Refused(400, "bad Host", close=True)
    host = hosts[0].lower() if hosts else ""
    if hosts and path not in _ANY_HOST and not _is_ours(host, names):
        raise Refused(403, f"this is not {host[:100]} (--http-hosts allows a name)")
    origin = _only_header(headers, "Origin")
    if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
        raise Refused(403, "sent by another site")
    site = _only_header(headers, "Sec-Fetch-Site")
    ours = site is None or site.lower() in ("none", "same-origin")
    if not ours and not _follows_a_link(method, path, headers):
        raise Refused(403, "sent by another site")
    is_browser = headers.get("User-Agent", "").startswith("Mozilla/")
    if site is None and is_browser and path == "/set":
        raise Refused(403, "from a browser, /set works by way of localhost or https only")


def _only_header(headers: Message, name: str) -> str | None:
    """Return a header's value, or None. Twice the same header is refused: which one counts?"""
    values = headers.get_all(name, [])
    if len(values) > 1:
        raise Refused(400, f"two {name} headers", close=True)
    return values[0] if values else None


def _follows_a_link(method: str, path: str, headers: Message) -> bool:
    """Tell whether somebody has clicked on a link, and only reads by that.

    The other site learns nothing of the page that opens.
    """
    return (
        method == "GET"
        and path != "/set"
        and headers.get("Sec-Fetch-Mode", "").lower() == "navigate"
        and headers.get("Sec-Fetch-Dest", "").lower() == "document"
    )


def _is_ours(host: str, names: Collection[str]) -> bool:
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    name = name.strip("[]")
    if name == "localhost" or name in names:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
