"""The way out: a real Redis or Valkey as a replica, a cluster, twemproxy, redis-cli's own tools."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pymemcache
import redis
from redis.cluster import RedisCluster

from tests.interop.servers import ROOT, Address, free_port, program_of_redis, running_kvdb

PATIENCE = 30.0  # seconds for anything that is waited for


def until(is_so: Any, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not is_so():
        assert time.monotonic() < end, f"never: {what}"
        time.sleep(0.02)


def answers(client: Any) -> bool:
    with contextlib.suppress(redis.RedisError, OSError):
        return bool(client.ping())
    return False


@contextlib.contextmanager
def running(
    command: list[str], folder: Path, log_folder: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a peer within the block; its log is in the folder, too, or in another one."""
    with open((log_folder or folder) / "peer.log", "ab") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.kill()
        process.wait(30)


def contents(client: redis.Redis) -> dict[bytes, tuple[bytes | None, int]]:
    """Return the values and deadlines of all keys of a database."""
    names = sorted(client.scan_iter(count=1000))
    with client.pipeline(transaction=False) as pipe:
        for name in names:
            pipe.get(name)
            pipe.pexpiretime(name)
        replies = pipe.execute()
    found = zip(names, replies[::2], replies[1::2], strict=True)
    return {name: (value, at) for name, value, at in found if value is not None}


def differences(ours: redis.Redis, theirs: redis.Redis) -> dict[bytes, Any]:
    """Return the keys that differ. What has expired between the two looks does not count."""
    here, there = contents(ours), contents(theirs)
    now = time.time() * 1000
    found = {}
    for name in here.keys() | there.keys():
        pair = here.get(name), there.get(name)
        expired = any(0 < at <= now for _, at in filter(None, pair))
        if pair[0] != pair[1] and not expired:
            found[name] = pair
    return found


class Writers:
    """Threads that change everything all the time, while they run."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._write, args=(n,)) for n in range(2)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _write(self, seed: int) -> None:
        chance, client = random.Random(seed), redis.Redis(port=self._port)
        while not self._stop.is_set():
            with contextlib.suppress(redis.ConnectionError, redis.BusyLoadingError):
                self._change(chance, client)

    def _change(self, chance: random.Random, client: redis.Redis) -> None:
        key = f"k{chance.randrange(3000)}"
        chance.choice((
            lambda: client.set(key, chance.randbytes(chance.randrange(300))),
            lambda: client.set(key, "v", px=chance.randrange(1, 3000)),
            lambda: client.incr("counter"),
            lambda: client.delete(key),
            lambda: client.expire(key, chance.randrange(1, 5000)),
            lambda: client.persist(key),
            lambda: client.append(key, "x"),
            lambda: client.mset({f"m{chance.randrange(100)}": "z" for _ in range(5)}),
            lambda: client.transaction(lambda pipe: pipe.incr("a").incr("b")),
            lambda: client.eval("return redis.call('set', KEYS[1], 'lua')", 1, key),
        ))()  # fmt: skip


class Replicas(unittest.TestCase):
    """`REPLICAOF kvdb-host port` on a real server, and what happens to the link."""

    def start(self, *flags: str, password: str | None = None) -> None:
        flags = flags or ("--in-memory",)
        self.attach(self.enterContext(running_kvdb(*flags, password=password)), password)

    def attach(self, kvdb: Address, password: str | None = None) -> None:
        self.kvdb = kvdb
        self.stack = self.enterContext(contextlib.ExitStack())
        self.ours = redis.Redis(port=self.kvdb.port, password=password)
        self.port = free_port()
        self.folder = self.kvdb.folder / "replica"
        self.folder.mkdir()
        self.options = ["--masterauth", password] if password else []
        self.start_replica()

    def start_replica(self) -> None:
        self.process = self.stack.enter_context(running([
            program_of_redis("redis-server"), "--port", str(self.port), "--save", "",
            "--dir", str(self.folder), "--replicaof", "127.0.0.1", str(self.kvdb.port),
            "--repl-diskless-load", "disabled", *self.options,
        ], self.folder))  # fmt: skip
        self.theirs = redis.Redis(port=self.port)
        until(lambda: answers(self.theirs), "the replica answers")
        self.wait_for_link()

    def wait_for_link(self) -> None:
        def is_up() -> bool:
            with contextlib.suppress(redis.RedisError):
                return self.theirs.info("replication")["master_link_status"] == "up"
            return False

        until(is_up, "the link is up")

    def assert_same(self) -> None:
        """Hold the writes, and compare everything."""
        self.ours.execute_command("CLIENT", "PAUSE", 20_000, "WRITE")
        try:
            time.sleep(0.1)
            self.assertEqual(self.ours.wait(1, 10_000), 1)
            self.assertEqual(differences(self.ours, self.theirs), {})
        finally:
            self.ours.execute_command("CLIENT", "UNPAUSE")

    def log(self) -> str:
        return (self.folder / "peer.log").read_text(errors="replace")

    def test_contents_are_equal_under_steady_writes_and_after_every_break(self) -> None:
        self.start("--in-memory", "--max-value-mb", "64", "--max-mb", "256")
        self.ours.set("large", random.randbytes(30 * 2**20))
        with Writers(self.kvdb.port):
            time.sleep(1)
            self.assert_same()
            self.ours.execute_command("CLIENT", "KILL", "TYPE", "replica")
            until(lambda: "accepted a Partial" in self.log(), "a partial resynchronisation")
            self.wait_for_link()
            self.assert_same()
            self.process.kill()
            self.process.wait(30)
            self.start_replica()
            self.assert_same()
            self.ours.config_set("maxmemory", 20 * 2**20)  # what is evicted is told, too
            for number in range(300):
                self.ours.set(f"fill:{number}", b"f" * 50_000)
            self.assertGreater(self.ours.info("stats")["evicted_keys"], 0)
            self.assert_same()
        role, offset, replicas = self.ours.execute_command("ROLE")
        self.assertEqual((role, len(replicas)), (b"master", 1))
        self.assertGreater(offset, 0)

    def test_a_replica_that_is_promoted_serves_the_same_clients(self) -> None:
        self.start()
        self.ours.set("k", "v", ex=1000)
        self.ours.incr("n")
        self.assert_same()
        self.theirs.execute_command("REPLICAOF", "NO", "ONE")
        self.assertEqual((self.theirs.incr("n"), self.theirs.get("k")), (2, b"v"))

    def test_a_primary_that_was_killed_is_followed_again(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        address = Address("127.0.0.1", free_port(), folder)
        command = [sys.executable, "-m", "kvdb", str(folder / "data.sqlite"), "--fsync", "always"]
        command += ["--port", str(address.port)]
        with running(command, ROOT, folder) as process:
            until(lambda: answers(redis.Redis(port=address.port)), "kvdb answers")
            self.attach(address)
            with Writers(address.port):
                time.sleep(1)
                self.assert_same()
                process.kill()
                process.wait(30)
                self.stack.enter_context(running(command, ROOT, folder))
                until(lambda: answers(self.ours), "kvdb answers again")
                self.wait_for_link()
                time.sleep(0.5)
                self.assert_same()
        self.assertGreater(len(self.log().split("Full resync from")), 2)

    def test_a_password_is_given(self) -> None:
        self.start(password="secret")
        self.ours.set("k", "v")
        self.assert_same()

    def test_kvdb_follows_a_redis_and_is_let_go(self) -> None:
        self.start()
        self.theirs.execute_command("REPLICAOF", "NO", "ONE")
        self.theirs.mset({f"theirs:{number}": "v" for number in range(500)})
        self.theirs.rpush("list", "a")
        self.theirs.set("due", "v", ex=1000)
        self.ours.execute_command("REPLICAOF", "127.0.0.1", self.port)
        until(lambda: self.ours.execute_command("ROLE")[3:4] == [b"connected"], "kvdb follows")
        with Writers(self.port):
            time.sleep(1)
        self.assertEqual(self.theirs.wait(1, 10_000), 1)
        self.theirs.delete("list")
        until(lambda: not differences(self.ours, self.theirs), "both are equal")
        with self.assertRaises(redis.ReadOnlyError):
            self.ours.set("k", "v")
        self.ours.execute_command("REPLICAOF", "NO", "ONE")
        self.assertTrue(self.ours.set("k", "v"))


class RedisCli(unittest.TestCase):
    """The tools that come with Redis."""

    def setUp(self) -> None:
        self.kvdb = self.enterContext(running_kvdb("--in-memory"))
        self.ours = redis.Redis(port=self.kvdb.port)
        self.ours.mset({f"k{number}": "v" * number for number in range(300)})
        self.ours.set(b"\x00\xff", b"\xff\x00", ex=1000)

    def cli(self, *arguments: str) -> str:
        done = subprocess.run(
            [program_of_redis("redis-cli"), "-p", str(self.kvdb.port), *arguments],
            capture_output=True, timeout=60, cwd=self.kvdb.folder,
        )  # fmt: skip
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.decode()

    def test_a_file_by_redis_cli_is_sound(self) -> None:
        self.cli("--rdb", "out.rdb")
        checker = shutil.which("redis-check-rdb") or shutil.which("valkey-check-rdb")
        if checker is None:
            self.skipTest("there is no redis-check-rdb")
        done = subprocess.run([checker, str(self.kvdb.folder / "out.rdb")], capture_output=True)
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn(b"301 keys read", done.stdout)

    def test_the_live_stream_is_shown(self) -> None:
        process = subprocess.Popen(
            [program_of_redis("redis-cli"), "-p", str(self.kvdb.port), "--replica"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:

            def is_online() -> bool:
                slave = self.ours.info("replication").get("slave0", {})
                return bool(slave) and slave["state"] == "online"

            until(is_online, "it listens")
            self.ours.incr("first")  # redis-cli takes what comes first for an answer to its ACK
            self.ours.set("live", "1", ex=1000)
            self.ours.delete("k1")
            until(
                lambda: self.ours.info("replication")["master_repl_offset"] > 0, "there is a stream"
            )
            time.sleep(0.3)
            self.ours.execute_command("CLIENT", "KILL", "TYPE", "replica")
            time.sleep(0.3)
        finally:
            process.kill()
        assert process.stdout is not None
        shown = process.stdout.read()
        process.stdout.close()
        process.wait(30)
        self.assertRegex(shown, rb'"SET","live","1","PXAT","\d+"')
        self.assertIn(b'"DEL","k1"', shown)


class Cluster(unittest.TestCase):
    """`redis-cli --cluster import` fills a cluster of three nodes from a running kvdb."""

    def test_every_key_arrives(self) -> None:
        kvdb = self.enterContext(running_kvdb("--in-memory"))
        ours = redis.Redis(port=kvdb.port)
        with ours.pipeline(transaction=False) as pipe:
            for number in range(2500):
                pipe.set(f"user:{number}", f"v{number}", ex=1000 if number % 3 == 0 else None)
            for number in range(50):
                pipe.set(f"{{tag{number % 5}}}:{number}", "t")
            pipe.set("large", b"x" * 3_000_000)
            pipe.execute()
        ports = [free_port() for _ in range(3)]
        for port in ports:
            folder = kvdb.folder / str(port)
            folder.mkdir()
            self.enterContext(running([
                program_of_redis("redis-server"), "--port", str(port), "--cluster-enabled", "yes",
                "--cluster-port", str(free_port()), "--save", "", "--dir", str(folder),
            ], folder))  # fmt: skip
            until(lambda port=port: answers(redis.Redis(port=port)), "the node answers")  # type: ignore[misc]
        cli, addresses = program_of_redis("redis-cli"), [f"127.0.0.1:{port}" for port in ports]
        self.run_it(cli, "--cluster", "create", *addresses, "--cluster-yes")
        for port in ports:
            node = redis.Redis(port=port)
            until(lambda node=node: node.cluster("info")["cluster_state"] == "ok", "it is up")  # type: ignore[misc]
        self.run_it(
            cli, "--cluster", "import", addresses[0], "--cluster-from", f"127.0.0.1:{kvdb.port}",
            "--cluster-copy", "--cluster-replace",
        )  # fmt: skip
        # What changes in a program: the guide shows these two lines.
        theirs = RedisCluster(host="127.0.0.1", port=ports[0])
        for name, (value, at) in contents(ours).items():
            self.assertEqual(theirs.get(name), value)
            self.assertLess(abs(theirs.pexpiretime(name) - at), 3000)
        self.assertEqual(sum(redis.Redis(port=port).dbsize() for port in ports), ours.dbsize())

    def run_it(self, *command: str) -> None:
        done = subprocess.run(command, capture_output=True, timeout=100)
        self.assertEqual(done.returncode, 0, (done.stdout + done.stderr)[-2000:])


class Proxy(unittest.TestCase):
    """Three kvdb behind twemproxy, with the configuration in deploy/."""

    def setUp(self) -> None:
        program = shutil.which("nutcracker") or shutil.which("nutcracker", path="/usr/sbin")
        if program is None:
            self.skipTest("there is no nutcracker")
        text = (ROOT / "deploy" / "nutcracker.yml").read_text(encoding="utf-8")
        self.folder = folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.nodes: list[Address] = []
        self.commands: list[list[str]] = []
        self.processes: list[subprocess.Popen[bytes]] = []
        for number in (1, 2, 3):
            memcached = free_port()
            node = Address("127.0.0.1", free_port(), self.folder)
            command = [
                sys.executable, "-m", "kvdb", str(self.folder / f"{number}.sqlite"),
                "--port", str(node.port), "--memcached-port", str(memcached),
                "--max-mb", "4", "--fsync", "always",
            ]  # fmt: skip
            self.commands.append(command)
            self.processes.append(self.run_node(command))
            self.nodes.append(node)
            text = text.replace(f":420{number}:", f":{node.port}:")
            text = text.replace(f":1120{number}:", f":{memcached}:")
        self.port, self.memcached_port, stats = free_port(), free_port(), free_port()
        text = text.replace(":22121", f":{self.port}").replace(":22122", f":{self.memcached_port}")
        for node in self.nodes:
            until(lambda node=node: answers(redis.Redis(port=node.port)), "the node answers")  # type: ignore[misc]
        (folder / "nutcracker.yml").write_text(text, encoding="utf-8")
        self.enterContext(running([
            program, "-c", str(folder / "nutcracker.yml"), "-a", "127.0.0.1", "-s", str(stats),
        ], folder))  # fmt: skip
        self.stats_port = stats

        def listens() -> bool:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return True
            return False

        until(listens, "the proxy listens")

    def run_node(self, command: list[str]) -> subprocess.Popen[bytes]:
        return self.enterContext(running(command, ROOT, self.folder))

    def errors(self) -> int:
        """How often the proxy has taken a node for dead."""
        with socket.create_connection(("127.0.0.1", self.stats_port)) as connection:
            data = b""
            while piece := connection.recv(65536):
                data += piece
        counted = re.findall(rb'"server_(?:err|timedout|ejects|eof)": ?(\d+)', data)
        return sum(map(int, counted))

    def test_redis_clients(self) -> None:
        client = redis.Redis(port=self.port, protocol=2, driver_info=None)
        for number in range(600):
            client.set(f"k{number}", number, ex=1000)
        self.assertEqual(
            client.mget([f"k{n}" for n in range(600)]), [b"%d" % n for n in range(600)]
        )
        sizes = [redis.Redis(port=node.port).dbsize() for node in self.nodes]
        self.assertEqual(sum(sizes), 600)
        self.assertGreater(min(sizes), 100)
        self.assertEqual(
            (client.incr("n"), client.append("n", "0"), client.setnx("n", 1)), (1, 2, False)
        )
        self.assertEqual((client.delete("k1", "k2", "k3"), client.getdel("k4")), (3, b"4"))
        for request in (
            ("SET", "k", "x" * 5_000_000), ("INCRBY", "n", "x"), ("SET", "k", "v", "EX", "0"),
            ("SETRANGE", "k", "999999999", "x"),
        ):  # fmt: skip
            with self.assertRaises(redis.ResponseError):
                client.execute_command(*request)
        self.assertEqual(self.errors(), 0, "a refusal is no dead node")

    def test_a_node_is_killed_and_comes_back(self) -> None:
        client = redis.Redis(port=self.port, protocol=2, driver_info=None)
        names = [f"k{number}" for number in range(300)]
        for name in names:
            client.set(name, name)

        def answered() -> int:
            count = 0
            for name in names:
                with contextlib.suppress(redis.RedisError):
                    self.assertEqual(client.get(name), name.encode())
                    count += 1
            return count

        lost = redis.Redis(port=self.nodes[1].port).dbsize()
        self.processes[1].kill()
        self.processes[1].wait(30)
        self.assertEqual(answered(), len(names) - lost, "the others go on")
        self.run_node(self.commands[1])
        until(lambda: answered() == len(names), "all of them are back")

    def test_memcached_clients(self) -> None:
        client = pymemcache.Client(("127.0.0.1", self.memcached_port))
        for number in range(300):
            client.set(f"k{number}", str(number), expire=1000)
        self.assertEqual(client.get_many(["k1", "k2", "none"]), {"k1": b"1", "k2": b"2"})
        _, token = client.gets("k3")
        self.assertTrue(client.cas("k3", "new", token))
        self.assertEqual(
            (client.incr("k4", 5), client.delete("k5"), client.get("k3")), (9, True, b"new")
        )
        with self.assertRaises(pymemcache.exceptions.MemcacheServerError):
            client.set("large", "x" * 5_000_000, noreply=False)
        self.assertEqual(client.get("k6"), b"6")
        self.assertEqual(self.errors(), 0, "a refusal is no dead node")

    def test_the_bundled_client(self) -> None:
        import kvdb

        with kvdb.Client(port=self.port) as db:
            db.set("a", {"n": 1}, ttl=60)
            self.assertEqual((db.get("a"), db.incr("n"), db.delete("a")), ({"n": 1}, 1, 1))


if __name__ == "__main__":
    unittest.main()
