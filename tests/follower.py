"""A replica for tests: it speaks the protocol, and keeps what it is told."""

from __future__ import annotations

import io
import re
from typing import Any

from kvdb.rdb.files import RdbReader
from kvdb.store.entry import Entry, Key, key_in, split_key
from tests.support import Wire

Entries = dict[Key, Entry]


class Follower(Wire):
    """Follows a server from its construction on; `read_stream()` brings it up to date."""

    def __init__(
        self, port: int, *, eof: bool = True, history: str = "?", offset: int = -1,
        entries: Entries | None = None, password: str = "",
    ) -> None:  # fmt: skip
        super().__init__(port)
        self.entries: Entries = {} if entries is None else entries
        self.db = 0
        self.pings = self.transactions = 0
        self.eof = eof
        requests = [["PING"]] + ([["AUTH", password]] if password else [])
        requests += [["REPLCONF", "listening-port", "7777"], ["REPLCONF", "version", "9.1.0"]]
        requests += [["REPLCONF", "capa", "eof", "capa", "psync2"]] if eof else []
        for request in requests:
            self.send(*request)
        self.handshake = [self.line() for _ in requests]
        self.send("PSYNC", history, str(offset))
        words = self.line().split()
        self.is_full = words[0] == "+FULLRESYNC"
        self.history = words[1]
        self.offset = int(words[2]) if self.is_full else offset - 1
        if self.is_full:
            self.entries.clear()
            self.read_snapshot()

    def send(self, *words: str) -> None:
        parts = [b"*%d\r\n" % len(words)]
        parts += (b"$%d\r\n%b\r\n" % (len(word.encode()), word.encode()) for word in words)
        self.socket.sendall(b"".join(parts))

    def line(self) -> str:
        return self.read_until(b"\r\n").decode().rstrip("\r\n")

    def read_snapshot(self) -> None:
        """Read everything, as an RDB."""
        head = self.line()
        if self.eof:
            mark = head.removeprefix("$EOF:").encode()
            assert len(mark) == 40, head
            data = b""
            while not data.endswith(mark):
                data += self.socket.recv(65536)
            data = data.removesuffix(mark)
        else:
            data = self.read(int(head.removeprefix("$")))
        assert data.endswith(b"\xff" + bytes(8)), data[-20:]
        for key, entry in RdbReader(io.BytesIO(data), 1 << 30).entries():
            assert key not in self.entries, "a key twice makes a real replica abort"
            self.entries[key] = entry
        self.acknowledge()

    def acknowledge(self, *, on_disk: bool = False) -> None:
        offset = str(self.offset)
        self.send("REPLCONF", "ACK", offset, *(("FACK", offset) if on_disk else ()))

    def read_stream(self, until: int) -> None:
        """Carry out what comes, up to this offset."""
        queue: list[list[bytes]] | None = None
        while self.offset < until:
            words = self.read_command()
            name = words[0].upper()
            if name == b"MULTI":
                queue = []
            elif name == b"EXEC":
                assert queue is not None
                self.transactions += 1
                for each in queue:
                    self.carry_out(each)
                queue = None
            elif queue is not None:
                queue.append(words)
            else:
                self.carry_out(words)

    def read_command(self) -> list[bytes]:
        head = self.read_until(b"\r\n")
        size = len(head)
        words = []
        for _ in range(int(head[1:])):
            length = self.read_until(b"\r\n")
            words.append(self.read(int(length[1:])))
            assert self.read(2) == b"\r\n"
            size += len(length) + len(words[-1]) + 2
        self.offset += size
        return words

    def carry_out(self, words: list[bytes]) -> None:
        name, *arguments = words
        key: Any = key_in(self.db, arguments[0]) if arguments else b""
        match name:
            case b"SELECT":
                self.db = int(arguments[0])
            case b"SET":
                expires_at = int(arguments[3]) / 1000 if len(arguments) > 2 else None
                assert len(arguments) == 2 or arguments[2] == b"PXAT"
                self.entries[key] = Entry(arguments[1], expires_at)
            case b"DEL":
                del self.entries[key]
            case b"PEXPIREAT":
                self.entries[key] = Entry(self.entries[key].value, int(arguments[1]) / 1000)
            case b"PERSIST":
                self.entries[key] = Entry(self.entries[key].value)
            case b"FLUSHALL":
                self.entries.clear()
            case b"FLUSHDB":
                for each in [each for each in self.entries if split_key(each)[0] == self.db]:
                    del self.entries[each]
            case b"SWAPDB":
                first, second = map(int, arguments)
                places = {first: second, second: first}
                moved = [(split_key(each), entry) for each, entry in self.entries.items()]
                self.entries.clear()
                for (db, each), entry in moved:
                    self.entries[key_in(places.get(db, db), each)] = entry
            case b"PING":
                self.pings += 1
            case b"REPLCONF":
                self.acknowledge()
            case _:
                raise AssertionError(f"no replica should have to know {words!r}")


def what_it_holds(info: str, field: str) -> str:
    """Return a field of INFO."""
    found = re.search(rf"^{field}:(.*)\r$", info, re.MULTILINE)
    assert found is not None, field
    return found[1]
