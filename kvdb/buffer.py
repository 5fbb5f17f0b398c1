"""Bytes that have arrived on a connection and are not used up yet."""

from __future__ import annotations


class LineTooLong(Exception):
    """No line end within the limit."""


class InputBuffer:
    """Collects what arrives; gives out whole lines and exact lengths.

    What arrives while something is incomplete is only appended, and searched for a line end
    once, so that a slow sender costs no more than a fast one.
    """

    def __init__(self) -> None:
        self._head = b""  # unused from self._start on
        self._start = 0
        self._searched = 0  # the head holds no line end between _start and here
        self._tail = bytearray()  # arrived after the head
        self._tail_searched = 0

    def __len__(self) -> int:
        return len(self._head) - self._start + len(self._tail)

    def receive(self, data: bytes) -> None:
        """Add what has arrived."""
        if self._start == len(self._head) and not self._tail:
            self._head, self._start, self._searched = data, 0, 0
        else:
            self._tail += data

    def first_byte(self) -> int | None:
        """Return the first unused byte, or None if there is none."""
        if self._start == len(self._head):
            if not self._tail:
                return None
            self._join()
        return self._head[self._start]

    def take_line(self, limit: int) -> bytes | None:
        """Return the next line with its LF (and CR, if there is one), or None until it is whole.

        Raises LineTooLong as soon as it is certain that the line exceeds `limit` bytes.
        """
        end = self._head.find(b"\n", max(self._start, self._searched))
        if end < 0:
            self._searched = len(self._head)
            if self._tail.find(b"\n", self._tail_searched) < 0:
                self._tail_searched = len(self._tail)
                if len(self) > limit:
                    raise LineTooLong
                return None
            self._join()
            end = self._head.find(b"\n", self._searched)
        if end - self._start > limit:
            raise LineTooLong
        line = self._head[self._start : end + 1]
        self._start = end + 1
        self._forget_used()
        return line

    def take(self, length: int) -> bytes | None:
        """Return exactly `length` bytes, or None until so many have arrived."""
        if len(self) < length:
            return None
        missing = self._start + length - len(self._head)
        if missing > 0:  # a long value: put together once, not joined first and cut out then
            head, tail = memoryview(self._head)[self._start :], memoryview(self._tail)
            data = b"".join((head, tail[:missing]))
            self._head, self._start, self._searched = bytes(tail[missing:]), 0, 0
            self._tail, self._tail_searched = bytearray(), 0
            return data
        data = self._head[self._start : self._start + length]
        self._start += length
        self._forget_used()
        return data

    def _forget_used(self) -> None:
        """Let go of what has arrived once all of it is used up: an idle client keeps nothing."""
        if self._start == len(self._head) and not self._tail:
            self._head, self._start, self._searched = b"", 0, 0

    def take_all(self) -> bytes:
        """Return everything that has arrived and is not used up."""
        return self.take(len(self)) or b""

    def skip(self, length: int) -> int:
        """Throw away up to `length` bytes; return how many there were to throw away."""
        skipped = min(length, len(self))
        self.take(skipped)
        return skipped

    def _join(self) -> None:
        self._searched = max(0, self._searched - self._start)
        self._head, self._start = self._head[self._start :] + self._tail, 0
        self._tail = bytearray()
        self._tail_searched = 0
