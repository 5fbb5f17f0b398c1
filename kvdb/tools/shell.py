"""`kvdb shell`: type requests and read replies; or have one, or lines of them, carried out."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Any, BinaryIO, Final

from kvdb.client.address import Address
from kvdb.client.errors import Error, ServerError
from kvdb.commands.hints import explanation, hint
from kvdb.errors import ProtocolError
from kvdb.flags import Parser
from kvdb.protocols.inline import split_words
from kvdb.tools import complain
from kvdb.tools.addresses import add_flags, address_of, is_url
from kvdb.tools.editing import HISTORY, History, load_readline, set_up
from kvdb.tools.remote import LISTENING, Remote, describe
from kvdb.tools.showing import raw, readable

_MOST_KEYS: Final = 100  # that are offered to complete a word


def main(arguments: Sequence[str]) -> int:
    """Run the shell; return the exit code: 1 if a request of a script was refused or failed."""
    parser = Parser(
        prog="kvdb shell",
        description="Talk to a server, kvdb or Redis. With a request, carry out that one and print "
        "what it returns as it is. Lines from a pipe are requests, too.",
        usage="%(prog)s [flags] [URL] [REQUEST ...]",
        allow_abbrev=False,
    )
    parser.add_argument(
        "words", nargs=argparse.REMAINDER, metavar="URL REQUEST",
        help="kvdb://HOST:PORT/DB or redis://HOST, and the words of a request",
    )  # fmt: skip
    add_flags(parser)
    url = arguments[0] if arguments and is_url(arguments[0]) else None
    options = parser.parse_args(arguments[1:] if url else arguments)
    words: list[str] = options.words
    if words and url is None and is_url(words[0]):
        url = words.pop(0)
    address = address_of(parser, url, options)
    if words:
        return carry_out([word.encode("utf-8", "surrogateescape") for word in words], address)
    if not sys.stdin.isatty():
        return carry_out_lines(sys.stdin.buffer, address)
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    return Shell(address, History(HISTORY)).run()


# --- for scripts --------------------------------------------------------------------------


def carry_out(words: Sequence[bytes], address: Address) -> int:
    """Print what one request returns as it is. A refusal goes to standard error, with code 1."""
    remote = Remote(address)
    try:
        problem = _print_raw(remote, words)
    except Error as error:
        problem = describe(error)
    finally:
        remote.close()
    return complain("shell", problem) if problem else 0


def carry_out_lines(lines: Iterable[bytes], address: Address) -> int:
    """Carry out a request per line. A refused one is told and does not keep the next from it."""
    remote = Remote(address)
    code = 0
    try:
        for number, line in enumerate(lines, 1):
            try:
                words = split_words(line.rstrip(b"\r\n"))
                problem = _print_raw(remote, words) if words else None
            except ProtocolError as error:
                problem = str(error)
            except Error as error:
                return complain(
                    "shell", f"line {number}: {describe(error)}; no line after it was sent"
                )
            if problem:
                code = complain("shell", f"line {number}: {problem}")
    finally:
        remote.close()
    return code


def _print_raw(remote: Remote, words: Sequence[bytes]) -> str | None:
    """Carry out a request and print its reply; return the refusal instead, if it is one."""
    output: BinaryIO = sys.stdout.buffer
    if words[0].upper() in LISTENING and not remote.in_transaction:
        return _listen(remote, words, lambda reply: output.write(raw(reply) + b"\n"))
    reply = remote.ask(words)
    if isinstance(reply, ServerError):
        return _with_hint(words, reply)
    output.write(raw(reply) + b"\n")
    output.flush()
    return None


def _listen(remote: Remote, words: Sequence[bytes], show: Callable[[Any], object]) -> str | None:
    """Print what comes until Ctrl-C; return the refusal, if the server does not want that."""
    try:
        for reply in remote.listen(words):
            if isinstance(reply, ServerError):
                return _with_hint(words, reply)
            show(reply)
            sys.stdout.flush()
    except KeyboardInterrupt:
        pass
    return None


def _with_hint(words: Sequence[bytes], refusal: ServerError) -> str:
    text = describe(refusal)
    help_ = hint(words, text)
    return f"{text} ({help_})" if help_ else text


# --- for people ---------------------------------------------------------------------------


class Shell:
    """Reads lines from a terminal and shows the replies, until Ctrl-D, `exit` or `quit`."""

    def __init__(
        self,
        address: Address,
        history: History | None = None,
        read: Callable[[str], str] = input,
        write: Callable[[str], object] = print,
    ) -> None:
        """`read` shows a prompt and returns a line, as input() does; `write` shows lines."""
        self._remote = Remote(address, resp3=True)
        self._history = history or History(None)
        self._read, self._write = read, write

    def run(self) -> int:
        """Read lines until the end; return 0."""
        readline = load_readline() if self._read is input else None
        if readline is not None:
            set_up(readline, self._history, self._keys)
        try:
            while True:
                try:
                    line = self._read(self.prompt)
                    if self._history.add(line) and readline is not None:
                        readline.add_history(line)
                    if not self.handle(line):
                        return 0
                except KeyboardInterrupt:  # what was typed, or a request under way
                    self._write("")
                except EOFError:
                    self._write("")
                    return 0
        finally:
            self._remote.close()

    @property
    def prompt(self) -> str:
        """Where the server is; `(TX)`: within MULTI."""
        return self._remote.place + ("(TX)> " if self._remote.in_transaction else "> ")

    def handle(self, line: str) -> bool:
        """Carry out a line and show what comes of it; tell whether to go on."""
        try:
            words = split_words(line.encode("utf-8", "surrogateescape"))
        except ProtocolError:
            self._write("A quotation mark is not closed, or something follows it without a space.")
            return True
        if not words:
            return True
        name = words[0].upper()
        if name in (b"EXIT", b"QUIT") and len(words) == 1:
            return False
        try:
            if name in (b"HELP", b"?"):
                self._explain(words[1:])
            elif name in LISTENING:
                self._listen(words)
            else:
                self._show(words, self._remote.ask(words))
        except Error as error:
            self._write(f"({describe(error)})")
        return True

    def _show(self, words: Sequence[bytes], reply: Any) -> None:
        self._write(readable(reply))
        if isinstance(reply, ServerError) and (help_ := hint(words, str(reply))):
            self._write(help_)
        while self._remote.news:
            self._write("Sent unasked:\n" + readable(self._remote.news.pop(0)))

    def _explain(self, words: Sequence[bytes]) -> None:
        """Show what the server's HELP says, or what we know, if it has none."""
        reply = None if self._remote.in_transaction else self._remote.ask([b"HELP", *words])
        if isinstance(reply, bytes):
            self._write(readable(reply))
        else:
            self._write(explanation(words))

    def _listen(self, words: Sequence[bytes]) -> None:
        if self._remote.in_transaction:
            self._write("That waits for messages: EXEC or DISCARD the transaction first.")
            return
        self._write("Ctrl-C ends it.")
        if problem := _listen(self._remote, words, lambda reply: self._write(_message(reply))):
            self._write(f"(error) {problem}")
        else:
            self._write("")  # behind the ^C that the terminal shows

    def _keys(self, begun: str) -> list[str]:
        """Return some keys that begin so. For the completion: it must not take long, nor raise."""
        if self._remote.in_transaction or any(character in begun for character in "\"'\\"):
            return []
        pattern = "".join(f"\\{each}" if each in "*?[]" else each for each in begun) + "*"
        try:
            reply = self._remote.ask([b"SCAN", b"0", b"MATCH", pattern.encode(), b"COUNT", b"1000"])
            found = [key.decode() for key in reply[1]]
        except (Error, TypeError, ValueError, IndexError):
            return []
        return sorted(key for key in found if key.isprintable() and " " not in key)[:_MOST_KEYS]


def _message(reply: Any) -> str:
    """Return what was published, or how a subscription began, in a line."""
    match reply:
        case [b"message" | b"smessage", channel, data]:
            return f"{readable(channel)}: {readable(data)}"
        case [b"pmessage", pattern, channel, data]:
            return f"{readable(channel)} ({readable(pattern)}): {readable(data)}"
        case [b"subscribe" | b"psubscribe" | b"ssubscribe", channel, int()]:
            return f"subscribed to {readable(channel)}"
    return readable(reply)
