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
        self.head = b""
        """What has arrived first; used up to `start`. A parser may read on there by itself."""
        self.start = 0
        self._searched = 0  # the head holds no line end between start and here
        self._tail = bytearray()  # arrived after the head
        self._tail_searched = 0

    def __len__(self) -> int:
        return len(self.head) - self.start + len(self._tail)

    def receive(self, data: bytes) -> None:
        """Add what has arrived."""
        if self.start == len(self.head) and not self._tail:
            self.head, self.start, self._searched = data, 0, 0
        else:
            self._tail += data

    def first_byte(self) -> int | None:
        """Return the first unused byte, or None if there is none."""
        if self.start == len(self.head):
            if not self._tail:
                return None
            self._join()
        return self.head[self.start]

    def take_line(self, limit: int) -> bytes | None:
        """Return the next line with its LF (and CR, if there is one), or None until it is whole.

        Raises LineTooLong as soon as it is certain that the line exceeds `limit` bytes.
        """
        end = self.head.find(b"\n", max(self.start, self._searched))
        if end < 0:
            self._searched = len(self.head)
            if self._tail.find(b"\n", self._tail_searched) < 0:
                self._tail_searched = len(self._tail)
                if len(self) > limit:
                    raise LineTooLong
                return None
            self._join()
            end = self.head.find(b"\n", self._searched)
        if end - self.start > limit:
            raise LineTooLong
        line = self.head[self.start : end + 1]
        self.advance(end + 1)
        return line

    def take(self, length: int) -> bytes | None:
        """Return exactly `length` bytes, or None until so many have arrived."""
        if len(self) < length:
            return None
        missing = self.start + length - len(self.head)
        if missing > 0:  # a long value: put together once, not joined first and cut out then
            head, tail = memoryview(self.head)[self.start :], memoryview(self._tail)
            data = b"".join((head, tail[:missing]))
            self.head, self.start, self._searched = bytes(tail[missing:]), 0, 0
            self._tail, self._tail_searched = bytearray(), 0
            return data
        data = self.head[self.start : self.start + length]
        self.advance(self.start + length)
        return data

    def advance(self, end: int) -> None:
        """Use the head up to there. Once all is used up, nothing is kept for an idle client."""
        if end == len(self.head) and not self._tail:
            self.head, self.start, self._searched = b"", 0, 0
        else:
            self.start = end

    def skip(self, length: int) -> int:
        """Throw away up to `length` bytes; return how many there were to throw away."""
        skipped = min(length, len(self))
        self.take(skipped)
        return skipped

    def _join(self) -> None:
        self._searched = max(0, self._searched - self.start)
        self.head, self.start = self.head[self.start :] + self._tail, 0
        self._tail = bytearray()
        self._tail_searched = 0
