"""The same scripts to Redis and to kvdb by EVAL: the same answers, byte for byte.

KVDB_INTEROP_SEED chooses other random programs than those of every run.
"""

from __future__ import annotations

import os
import re
import socket
import unittest
from collections.abc import Iterator
from typing import Final

from kvdb.resp.replies import encode_request
from tests import lua_error_programs, lua_library_programs, lua_programs, lua_syntax_programs
from tests.interop.servers import Address, RedisAddress, running_kvdb, running_redis
from tests.lua_generator import RandomProgram
from tests.script_scenes import SCENES

SEED = int(os.environ.get("KVDB_INTEROP_SEED", 1))
RANDOM_PROGRAMS = 300

END: Final = b"$10\r\nthe end...\r\n"

DIFFERENT: Final = re.compile(
    r"coroutine|\bos\b|newproxy|_G|pairs|next|foreach|collectgarbage|gcinfo|math\.random"
    r"|chunk is too long|too complex|n \+ 1 return f\(\)|code = |P\(pcall\)"
)
"""What is in a script whose answer may be another one here, for the reasons that the README gives,
or because the order of a table's keys is; the last three are endless in Redis, or crash it."""


class Talk:
    """A connection on which each answer is read whole."""

    def __init__(self, address: Address, version: int) -> None:
        self._socket: socket.socket = address.connect()
        self.ask(b"HELLO", b"%d" % version)

    def ask(self, *words: bytes) -> bytes:
        request = encode_request([*words])
        self._socket.sendall(request + encode_request([b"ECHO", b"the end..."]))
        received = b""
        while not received.endswith(END):
            data = self._socket.recv(1 << 20)
            if not data:
                raise ConnectionError("the server has closed the connection")
            received += data
        return received[: -len(END)]

    def close(self) -> None:
        self._socket.close()


def programs() -> Iterator[str]:
    for module in (lua_programs, lua_library_programs, lua_error_programs, lua_syntax_programs):
        for name, table in vars(module).items():
            for program, _ in table if name.isupper() else ():
                yield program


class EvalInterop(unittest.TestCase):
    redis: RedisAddress

    @classmethod
    def setUpClass(cls) -> None:
        cls.redis = cls.enterClassContext(running_redis())
        cls.kvdb = cls.enterClassContext(running_kvdb())

    def talks(self, version: int) -> tuple[Talk, Talk]:
        talks = Talk(self.redis, version), Talk(self.kvdb, version)
        for talk in talks:
            self.addCleanup(talk.close)
            talk.ask(b"FLUSHALL")
        return talks

    def assert_same(self, talks: tuple[Talk, Talk], script: str, **where: int) -> None:
        source = script.encode("latin-1")
        theirs, ours = (without_addresses(talk.ask(b"EVAL", source, b"0")) for talk in talks)
        with self.subTest(script=script, **where):
            self.assertEqual(ours, theirs)

    def test_the_scenes(self) -> None:
        for version in (2, 3):
            talks = self.talks(version)
            for script, _ in SCENES:
                self.assert_same(talks, script, version=version)

    def test_the_written_programs(self) -> None:
        talks = self.talks(2)
        for program in programs():
            if not DIFFERENT.search(program):
                self.assert_same(talks, program)

    def test_random_programs(self) -> None:
        talks = self.talks(3)
        for seed in range(SEED, SEED + RANDOM_PROGRAMS):
            program = RandomProgram(seed).text()
            if not DIFFERENT.search(program):
                self.assert_same(talks, program, seed=seed)


def without_addresses(reply: bytes) -> bytes:
    return re.sub(rb"0x[0-9a-f]{6,}", b"0x?", reply)


if __name__ == "__main__":
    unittest.main()
