"""Requests read by the fast branch: the same as read exactly, however they arrive."""

from __future__ import annotations

import random
import unittest
from collections.abc import Callable, Iterator, Mapping
from unittest import mock

from kvdb.errors import CommandError, ProtocolError
from kvdb.resp.buffer import InputBuffer, LineTooLong
from kvdb.resp.limits import MAX_LINE
from kvdb.resp.replies import encode_request
from kvdb.resp.requests import NotAnArray, RequestLimits, RequestParser, Run
from tests.support import Conversation

LONGEST = 1023  # bytes of an argument that the fast branch takes
MOST_ARGUMENTS = 1024
NARROW, LOOK, WIDE = 512, 4096, 64 * 1024  # bytes that it splits at a time, or looks at before

RUNS = {b"GET": 2, b"SET": 3, b"MGET": 7}
NO_RUNS: dict[bytes, int] = {}
GET = encode_request([b"GET", b"k"])

Event = list[bytes] | tuple[str, object]
"""A request, or what else was found in a stream: a line, an error."""


class ExactParser(RequestParser):
    """The parser without its fast branch: what the other one is held against."""

    def _split(self) -> bool:
        return False


class FastParser(RequestParser):
    """The parser, which tells how much it has split, and what it has read exactly."""

    split_bytes = exact_reads = 0

    def _split(self) -> bool:
        has_split = super()._split()
        if has_split:
            self.split_bytes += self._end - self._buffer.start
        return has_split

    def _read_exactly(self) -> list[bytes] | None:
        self.exact_reads += self._buffer.first_byte() is not None
        return super()._read_exactly()


class Reader:
    """A parser, its buffer, and all that was read so far."""

    def __init__(
        self,
        parser: type[RequestParser] = FastParser,
        runs: Mapping[bytes, int] = NO_RUNS,
        limits: RequestLimits | None = None,
        limits_after: dict[int, RequestLimits] | None = None,
        give_back: bool = False,
    ) -> None:
        """`limits_after` has the limits that hold from the n-th event on.

        `give_back`: have the parser give back what it has split after each event, so that
        `lengths` has what was left in the buffer then.
        """
        self.buffer = InputBuffer()
        self.parser = parser(self.buffer, limits or RequestLimits())
        self.runs, self.limits_after, self.give_back = runs, limits_after or {}, give_back
        self.events: list[Event] = []
        self.run_lengths: list[int] = []
        self.lengths: dict[int, int] = {}  # number of events -> bytes left in the buffer
        self.is_lost = False  # nothing can be read after a ProtocolError
        self._in_line = False

    def receive(self, data: bytes) -> None:
        """Take in data, and read all that is whole."""
        self.buffer.receive(data)
        while not self.is_lost and self._read_next():
            if len(self.events) in self.limits_after:
                self.parser.limits = self.limits_after[len(self.events)]
            elif self.give_back:
                self.parser.limits = self.parser.limits
                self.lengths[len(self.events)] = len(self.buffer)

    def _read_next(self) -> bool:
        try:
            if not self._in_line:
                request = self.parser.next_request(self.runs)
                if request is None:
                    return False
                if isinstance(request, Run):
                    together = requests_of(request)
                    self.events += together
                    self.run_lengths.append(len(together))
                else:
                    self.events.append(request)
                return True
        except NotAnArray:
            self._in_line = True
        except CommandError as error:
            self.events.append(("refused", error.text))
            return True
        except ProtocolError as error:
            return self._lost(str(error))
        try:
            line = self.buffer.take_line(MAX_LINE)
        except LineTooLong:
            return self._lost("line too long")
        if line is None:
            return False
        self._in_line = False
        self.events.append(("line", line))
        return True

    def _lost(self, why: str) -> bool:
        self.events.append(("lost", why))
        self.is_lost = True
        return False


def requests_of(run: Run) -> list[list[bytes]]:
    return [[run.name, *arguments] for arguments in zip(*run.columns, strict=True)]


def read(data: bytes, runs: Mapping[bytes, int] = NO_RUNS, **options: object) -> Reader:
    """Return a reader with the fast branch that has received `data` at once."""
    reader = Reader(FastParser, runs, **options)  # type: ignore[arg-type]
    reader.receive(data)
    return reader


# --- streams -----------------------------------------------------------------------------

SIZES = (0, 0, 1, 1, 2, 3, 9, 10, 11, 99, 100, 101)
EDGES = (LONGEST - 1, LONGEST, LONGEST + 1, LONGEST + 2, 3000)
FILLINGS = (
    b"x",
    b"v",
    b"\r\n",
    b"\r",
    b"\n",
    b"\r\n$1\r\nx",
    b"$1",
    b"*1\r\n$4\r\nPING\r\n",
    b"*2",
)
NAMES = (b"GET", b"SET", b"MGET", b"get", b"GETEX", b"GE", b"DEL", b"")
SCRAPS = (b"", b"", b"\r", b"\n", b"\r\n", b"0", b"1", b"-", b"$", b"*", b"{", b"\x00", b"+")
OTHERS = (
    b"PING inline\r\n", b"\r\n", b"\n", b'{"command": "PING"}\n', b"*0\r\n", b"*-1\r\n", b"*-7\r\n",
)  # fmt: skip
BROKEN = (
    b"*01\r\n$4\r\nPING\r\n", b"*1\r\n$04\r\nPING\r\n", b"*1\r\n$5\r\nPING\r\n", b"*\r\n",
    b"*1\r\n$3\r\nPING\r\n", b"*1\r\n+4\r\nPING\r\n", b"*1\n$4\r\nPING\r\n", b"*1\r\n$4\nPING\r\n",
    b"*1\r\n$4\r\nPING\n", b"*1\r\n$4\r\nPINGxx", b"*1\r\n\r\n", b"*1\r\n\r\nPING\r\n", b"*+1\r\n",
    b"*1\r\n$-1\r\n", b"*1 \r\n$4\r\nPING\r\n", b"*2\r\n$3\r\nGET\r\n\r\n%b\r\n" % (b"x" * 1024),
    b"*1\r\n$4\r\nPING\r\r\n", b"*1\r\r\n$4\r\nPING\r\n", b"*1\r\n$4\r\n\r\nPING", b"*1048577\r\n",
)  # fmt: skip


def some_argument(generator: random.Random) -> bytes:
    size = generator.choice(EDGES if generator.random() < 0.04 else SIZES)
    filling = generator.choice(FILLINGS if generator.random() < 0.2 else FILLINGS[:2])
    return (filling * (size // len(filling) + 1))[:size]


def some_requests(generator: random.Random) -> bytes:
    """Return requests of one kind: one, or many that are alike or nearly so."""
    name, count = generator.choice(NAMES), generator.choice((0, 1, 1, 2, 2, 3, 7))
    data = b""
    for _ in range(generator.choice((1, 1, 2, 3, 4, 5, 9, 40))):
        if generator.random() < 0.02:
            name = generator.choice(NAMES)
        if generator.random() < 0.02:
            count += 1
        data += encode_request([name, *(some_argument(generator) for _ in range(count))])
    return data


def some_stream(generator: random.Random) -> bytes:
    """Return requests of all kinds, and now and then one of another dialect."""
    data = b""
    for _ in range(generator.randrange(1, 8)):
        data += some_requests(generator)
        if generator.random() < 0.3:
            data += generator.choice(OTHERS)
    return data


def damaged(data: bytes, generator: random.Random) -> bytes:
    """Return data with a few bytes lost, added or replaced, mostly near a line end."""
    place = generator.randrange(len(data))
    if generator.random() < 0.7:
        place = max(0, data.find(b"\n", place) + generator.choice((-2, -1, 0, 1, 2)))
    kept = data[place + generator.randrange(3) :]
    return data[:place] + generator.choice(SCRAPS) + kept


def any_stream(generator: random.Random) -> bytes:
    data = some_stream(generator)
    match generator.randrange(5):
        case 0 | 1:
            return data
        case 2:
            return data + generator.choice(BROKEN) + some_stream(generator)
        case _:
            return damaged(data, generator)


def random_pieces(data: bytes, generator: random.Random, most: int = 3000) -> list[bytes]:
    pieces = []
    while data:
        size = generator.choice(
            (1, 2, 7, generator.randrange(1, 100), generator.randrange(1, most))
        )
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def ways_to_arrive(data: bytes, generator: random.Random) -> Iterator[list[bytes]]:
    """Yield the pieces that something may arrive in."""
    middle = generator.randrange(len(data) + 1)
    yield [data]
    yield [data[:middle], data[middle:]]
    yield random_pieces(data, generator)
    if len(data) < 4000:
        yield [bytes([byte]) for byte in data]


def padding(length: int) -> bytes:
    """Return plain requests that are of this length together (100 or more)."""
    filler = encode_request([b"SET", b"pad", b"p" * 200])
    data = filler * ((length - 100) // len(filler))
    for key in (b"pad", b"padd"):  # one more digit in a length is one more byte, too
        for size in range(length - len(data)):
            last = encode_request([b"SET", key, b"p" * size])
            if len(data) + len(last) == length:
                return data + last
    raise ValueError(length)


class SameRequestsTest(unittest.TestCase):
    def assert_same(
        self,
        pieces: list[bytes],
        runs: Mapping[bytes, int] = NO_RUNS,
        limits: Callable[[], dict[str, object]] = dict,
    ) -> Reader:
        """Both parsers read the same; after each piece as much is left to be read."""
        fast, exact = Reader(FastParser, runs, **limits()), Reader(ExactParser, **limits())  # type: ignore[arg-type]
        for piece in pieces:
            fast.receive(piece)
            exact.receive(piece)
            self.assertEqual(fast.events, exact.events, pieces)
            if not exact.is_lost:
                self.assertEqual(len(fast.buffer), len(exact.buffer), pieces)
        self.assertNotIn(1, fast.run_lengths)
        return fast

    def test_any_stream_gives_the_same_requests_however_it_arrives(self) -> None:
        generator = random.Random(1)
        for _ in range(120):
            for pieces in ways_to_arrive(any_stream(generator), generator):
                self.assert_same(pieces, generator.choice((NO_RUNS, RUNS)))

    def test_long_streams_too(self) -> None:
        generator = random.Random(2)
        for _ in range(8):
            data = b"".join(some_stream(generator) for _ in range(40))
            data += any_stream(generator)
            for pieces in ([data], random_pieces(data, generator, most=100_000)):
                self.assert_same(pieces, RUNS)

    def test_every_broken_request_is_found_at_its_place(self) -> None:
        for broken in (*BROKEN, *OTHERS):
            for before in (b"", GET, GET * 2, GET * 3, GET * 300, padding(LOOK), padding(WIDE)):
                data = before + broken + GET * 5
                for pieces in ([data], [data[:-1], data[-1:]]):
                    with self.subTest(broken=broken, before=len(before)):
                        self.assert_same(pieces)
                        self.assert_same(pieces, RUNS)

    def test_a_request_may_lie_across_the_end_of_what_is_split(self) -> None:
        request = encode_request([b"SET", b"key", b"a value"])
        across = (b"GET inline\r\n", GET * 4, request * 5, encode_request([b"SET", b"k", b"\r\n"]))
        for edge in (NARROW, 4 * NARROW, LOOK, WIDE):
            for distance in range(-len(request) - 2, 4):
                data = padding(edge + distance) + across[distance % len(across)] + request * 3
                with self.subTest(edge=edge, distance=distance):
                    self.assert_same([data], RUNS)
                    self.assert_same([b"\r\n" + data])  # not from the start of what has arrived

    def test_padding_is_as_long_as_it_says(self) -> None:
        for length in range(100, 1000, 7):
            self.assertEqual(len(padding(length)), length)

    def test_lengths_at_the_limits_of_the_fast_branch(self) -> None:
        for length in (0, 1, 9, 10, 99, 100, 999, 1000, *EDGES, LOOK, WIDE, WIDE + 1):
            for filling in (b"v", b"\r\n", b"$1\r\nx"):
                value = (filling * length)[:length]
                request = encode_request([b"SET", b"k", value])
                for data in (GET + request + GET, GET * 4 + request * 4 + GET * 4):
                    with self.subTest(length=length, filling=filling):
                        reader = self.assert_same([data], RUNS)
                        self.assertIn([b"SET", b"k", value], reader.events)

    def test_numbers_of_arguments_at_the_limits_of_the_fast_branch(self) -> None:
        for count in (1, 2, 9, 10, 99, 100, 1023, 1024, 1025, 1026):
            words = [b"DEL", *(b"k%d" % number for number in range(count - 1))]
            with self.subTest(count=count):
                reader = self.assert_same(
                    [GET + encode_request(words) * 2 + GET], RUNS | {b"DEL": count}
                )
                self.assertEqual(reader.events[1], words)

    def test_narrow_limits_are_kept(self) -> None:
        generator = random.Random(3)
        for _ in range(60):
            narrow = {
                "max_arguments": generator.choice((2, 3, 1024, 2**20)),
                "max_value": generator.choice((0, 10, 1022, 1023, 2**20)),
                "max_request": generator.choice((12, 1000, 2**20, 2**21)),
                "unauthenticated": generator.random() < 0.3,
            }
            data = any_stream(generator)
            for pieces in ([data], random_pieces(data, generator)):
                self.assert_same(pieces, RUNS, lambda: {"limits": RequestLimits(**narrow)})  # noqa: B023

    def test_a_value_one_past_the_limit_is_refused_wherever_the_limit_is(self) -> None:
        for limit in (0, 1, LONGEST - 1, LONGEST, LONGEST + 1):
            limits = RequestLimits(max_value=limit)
            for size, kind in ((limit, list), (limit + 1, tuple)):
                reader = read(encode_request([b"v" * size]) * 5, limits=limits)
                self.assertEqual([type(event) for event in reader.events], [kind] * 5)

    def test_limits_that_change_hold_from_the_next_request_on(self) -> None:
        generator = random.Random(4)
        strangers, others = RequestLimits.before_authentication(), RequestLimits()
        small = RequestLimits(max_value=5)
        for _ in range(120):
            data = any_stream(generator)
            places = sorted(generator.sample(range(1, 60), 6))
            changes = dict(
                zip(places, generator.choices((strangers, others, small), k=6), strict=True)
            )
            for pieces in ways_to_arrive(data, generator):
                self.assert_same(pieces, NO_RUNS, lambda: {"limits_after": changes})  # noqa: B023

    def test_what_follows_each_request_is_left_in_the_buffer(self) -> None:
        generator = random.Random(5)
        for number in range(100):
            data = any_stream(generator) + (GET * 3500 if number == 0 else b"")
            exact = Reader(ExactParser, give_back=True)
            exact.receive(data)
            for runs in (NO_RUNS, RUNS):
                fast = Reader(FastParser, runs, give_back=True)
                fast.receive(data)
                for events, length in fast.lengths.items():
                    self.assertEqual(length, exact.lengths[events], data)

    def test_what_was_read_makes_up_what_was_sent(self) -> None:
        data = GET * 3000 + GET[:1]
        for runs in (NO_RUNS, RUNS):
            reader = read(data, runs)
            self.assertEqual(reader.events, [[b"GET", b"k"]] * 3000)
            self.assertEqual(len(reader.buffer), 1)
            reader.receive(GET[1:] + b"*")
            self.assertEqual((len(reader.events), len(reader.buffer)), (3001, 1))

    def test_nothing_is_used_up_of_another_dialect(self) -> None:
        for before in (b"", GET, GET * 7, GET * 5000):
            buffer = InputBuffer()
            parser = RequestParser(buffer, RequestLimits())
            buffer.receive(before + b"PING\r\n" + GET)
            for _ in range(len(before) // len(GET)):
                self.assertEqual(parser.next_request(), [b"GET", b"k"])
            for _ in range(2):
                with self.assertRaises(NotAnArray):
                    parser.next_request()
                self.assertEqual(buffer.first_byte(), ord("P"))
                self.assertEqual(len(buffer), len(b"PING\r\n" + GET))


class FastBranchTest(unittest.TestCase):
    """What the fast branch takes, so that the comparison above is not one of equals."""

    def exact_reads(self, data: bytes) -> int:
        parser = read(data).parser
        assert isinstance(parser, FastParser)
        return parser.exact_reads

    def test_short_arguments_are_not_read_exactly(self) -> None:
        longest = encode_request([b"SET", b"", b"v" * LONGEST])
        most = encode_request([b"k"] * MOST_ARGUMENTS)
        for data in (GET, GET * 200, longest * 2, most, encode_request([b""])):
            self.assertEqual(self.exact_reads(data), 0, data[:40])

    def test_of_what_is_no_more_than_a_window_nothing_is_read_exactly(self) -> None:
        self.assertEqual(self.exact_reads(GET * (WIDE // len(GET))), 0)

    def test_one_request_for_each_window_is_read_exactly(self) -> None:
        self.assertLessEqual(self.exact_reads(GET * 20_000), 20_000 * len(GET) // WIDE + 1)

    def test_what_is_long_or_cut_or_not_plain_is_read_exactly(self) -> None:
        for words in ([b"SET", b"k", b"v" * (LONGEST + 1)], [b"k"] * (MOST_ARGUMENTS + 1),
                      [b"SET", b"k", b"a\r\nb"], [b"GET", b"\r\n"]):  # fmt: skip
            self.assertEqual(self.exact_reads(GET + encode_request(words) + GET), 1)
        self.assertEqual(self.exact_reads(GET + GET[:-1]), 1)

    def test_a_long_value_is_not_searched_for_line_ends(self) -> None:
        parser = read(encode_request([b"SET", b"k", b"\r\n" + b"v" * 60_000])).parser
        self.assertEqual((parser.split_bytes, parser.exact_reads), (0, 1))  # type: ignore[attr-defined]

    def test_what_is_not_plain_has_little_split_in_vain(self) -> None:
        """Splitting 64 KB for every other request makes a pipeline 25 times slower."""
        odd = encode_request([b"GET", b"a\r\nb"])
        long = encode_request([b"SET", b"k", b"v" * 1100])
        for data in ((GET + b"PING\r\n") * 4000, (GET + odd) * 2000, odd * 3000, long * 200,
                     (long + GET) * 200, b"PING\r\n" * 10_000):  # fmt: skip
            parser = read(data).parser
            self.assertLess(parser.split_bytes, 40 * len(data), data[:60])  # type: ignore[attr-defined]

    def test_much_is_split_at_a_time_again_once_all_is_plain(self) -> None:
        data = (GET + b"PING\r\n") * 100 + GET * 30_000
        self.assertLess(self.exact_reads(data), 200 + 4 + len(data) // WIDE)

    def test_a_stranger_is_read_exactly(self) -> None:
        parser = read(GET * 3, limits=RequestLimits.before_authentication()).parser
        self.assertEqual(parser.exact_reads, 3)  # type: ignore[attr-defined]


class RunsTest(unittest.TestCase):
    def run_at_start(self, data: bytes, runs: Mapping[bytes, int] = RUNS) -> Run:
        buffer = InputBuffer()
        buffer.receive(data)
        found = RequestParser(buffer, RequestLimits()).next_request(runs)
        assert isinstance(found, Run), found
        return found

    def test_a_run_has_one_column_for_each_argument(self) -> None:
        data = b"".join(encode_request([b"SET", b"k%d" % i, b"v" * i]) for i in range(4))
        run = self.run_at_start(data + b"*3\r\n$3\r\nSET")
        self.assertEqual(run.name, b"SET")
        self.assertEqual(run.columns, [[b"k0", b"k1", b"k2", b"k3"], [b"", b"v", b"vv", b"vvv"]])

    def test_no_run_begins_with_fewer_than_three(self) -> None:
        other = encode_request([b"DEL", b"k"])
        for data in (GET, GET * 2, GET * 2 + other, GET + other + GET, other + GET * 2 + other):
            self.assertEqual(read(data, RUNS).run_lengths, [])
        self.assertEqual(read(GET * 3, RUNS).run_lengths, [3])

    def test_only_the_names_asked_for_make_a_run(self) -> None:
        for name in (b"get", b"GETEX", b"GE", b"DEL", b""):
            reader = read(encode_request([name, b"k"]) * 50, RUNS)
            self.assertEqual((len(reader.events), reader.run_lengths), (50, []))
        self.assertEqual(read(GET * 50).run_lengths, [])

    def test_only_requests_of_the_right_number_of_words_make_a_run(self) -> None:
        for words in ([b"GET"], [b"SET", b"k"], [b"SET", b"k", b"v", b"NX"]):
            reader = read(encode_request(words) * 50, RUNS)
            self.assertEqual((reader.events, reader.run_lengths), ([words] * 50, []))

    def test_a_run_ends_before_what_differs(self) -> None:
        for other in (
            encode_request([b"DEL", b"k"]),
            encode_request([b"get", b"k"]),
            encode_request([b"GETEX", b"k"]),
            encode_request([b"GE", b"k"]),
            encode_request([b"GET"]),
            encode_request([b"GET", b"k", b"more"]),
            encode_request([b"GET", b"a\r\n$1\r\nb"]),
            encode_request([b"GET", b"k" * (LONGEST + 1)]),
            b"*2\r\n$3\r\nGET\r\n\r\n%b\r\n" % (b"k" * (LONGEST + 1)),
            b"*2\r\n$3\r\nGET\r\n$2\r\nk\r\n",
            b"*2\r\n$3\r\nGET\r\n$01\r\nk\r\n",
            b"*2\r\n$03\r\nGET\r\n$1\r\nk\r\n",
            b"*02\r\n$3\r\nGET\r\n$1\r\nk\r\n",
            b"*2\r\n$3\r\nGET\r\n:1\r\nk\r\n",
            b"PING\r\n",
            b"*0\r\n",
        ):
            for before in (1, 2, 3, 4, 5, 40):
                data = GET * before + other + GET * 6
                with self.subTest(other=other[:40], before=before):
                    exact = Reader(ExactParser)
                    exact.receive(data)
                    reader = read(data, RUNS)
                    self.assertEqual(reader.events, exact.events)
                    if before == 3:
                        self.assertEqual(reader.run_lengths[0], 3)

    def test_a_difference_in_any_column_cuts_a_run(self) -> None:
        good = [b"SET", b"key", b"value", b"EX", b"100"]
        plain = encode_request(good)
        for place in range(len(good)):
            words = good.copy()
            words[place] += b"\r\n"
            for bad in (encode_request(words), plain.replace(good[place], good[place] + b"!")):
                for before in (3, 4, 30):
                    reader = read(plain * before + bad + plain * 3, {b"SET": 5})
                    self.assertEqual(reader.events[:before], [good] * before)
                    self.assertNotEqual(reader.events[before], good)
                    self.assertTrue(reader.run_lengths)

    def test_what_is_not_whole_is_not_in_the_run(self) -> None:
        for cut in range(1, len(GET)):
            reader = read(GET * 4 + GET[:cut], RUNS)
            self.assertEqual((len(reader.events), reader.run_lengths), (4, [4]))
            reader.receive(GET[cut:])
            self.assertEqual(reader.events, [[b"GET", b"k"]] * 5)

    def test_long_runs_come_in_a_few_parts(self) -> None:
        reader = read(GET * 3000, RUNS)
        self.assertLess(len(reader.run_lengths), 9)
        self.assertGreater(sum(reader.run_lengths), 2990)

    def test_runs_that_are_cut_again_and_again_cost_little(self) -> None:
        """Who alternates has a few requests looked at for each run, and not all that follow."""
        data = GET * 3000 + (GET * 3 + encode_request([b"DEL", b"k"])) * 3000
        with mock.patch("kvdb.resp.requests._LENGTHS", CountedLengths()) as lengths:
            reader = read(data, RUNS)
        self.assertGreater(reader.run_lengths.count(3), 2900)
        self.assertLess(lengths.asked, 6 * len(reader.events))
        self.assertLess(reader.parser._together, 20)
        assert isinstance(reader.parser, FastParser)
        self.assertLess(reader.parser.split_bytes, 1.1 * len(data))  # hardly anything twice

    def test_requests_may_be_answered_together_at_one_time_and_not_at_another(self) -> None:
        generator = random.Random(6)
        for _ in range(60):
            data = any_stream(generator)
            exact = Reader(ExactParser)
            exact.receive(data)
            reader = Reader()
            for piece in random_pieces(data, generator):
                reader.runs = generator.choice((NO_RUNS, RUNS))
                reader.receive(piece)
            self.assertEqual(reader.events, exact.events, data)


class CountedLengths(tuple[bytes, ...]):
    """The table of the headers, which tells how often it was asked."""

    asked = 0

    def __new__(cls) -> CountedLengths:
        return super().__new__(cls, (b"$%d" % length for length in range(LONGEST + 1)))

    def __getitem__(self, place: int) -> bytes:  # type: ignore[override]
        self.asked += 1
        return super().__getitem__(place)


# --- whole conversations -----------------------------------------------------------------

KEYS = (b"", b"a", b"b", b"1", b"10", b"9" * 18, b"9" * 19, b"x" * 30, b"a\r\nb", b"\r\n", b"$1")


def some_command(generator: random.Random) -> list[bytes]:
    key, value = generator.choice(KEYS), generator.choice(KEYS)
    return generator.choice(
        (
            [b"GET", key], [b"SET", key, value], [b"INCR", key], [b"get", key], [b"SET", key],
            [b"SET", key, value, b"EX", b"100"], [b"MGET", key, value], [b"EXPIRE", key, b"5"],
            [b"DEL", key], [b"MULTI"], [b"EXEC"], [b"SELECT", b"1"], [b"SELECT", b"0"],
            [b"HELLO", b"3"], [b"CLIENT", b"REPLY", b"SKIP"], [b"NOPE", key], [b"WATCH", key],
            [b"SET", key, b"v" * 3000], [b"RESET"], [b"GET"], [b"SET"], [b"INCR", key, value],
            [b"SET", key, value, b"NX"], [b"SET", key, value, b"NONSENSE"], [b"HELLO", b"2"],
            [b"CLIENT", b"REPLY", b"OFF"], [b"CLIENT", b"REPLY", b"ON"], [b"DISCARD"],
            [b"CLIENT", b"NO-TOUCH", b"ON"], [b"SET", key, b"v" * 500], [b"SET", key, b"5"],
            [b"AUTH", b"secret"],
        )
    )  # fmt: skip


def some_conversation(generator: random.Random) -> bytes:
    """Return requests of all kinds, with runs of the same one among them."""
    data = b""
    for _ in range(generator.randrange(1, 10)):
        if generator.random() < 0.1:
            data += generator.choice((b"SET a inline\r\n", b"INCR n\n", *OTHERS))
        many = generator.choice((1, 1, 1, 2, 3, 4, 30))
        if generator.random() < 0.5:
            data += encode_request(some_command(generator)) * many
        else:  # alike, but for their arguments
            name = generator.choice((b"GET", b"SET", b"INCR"))
            for _ in range(many):
                words = [generator.choice(KEYS) for _ in range(2 if name == b"SET" else 1)]
                data += encode_request([name, *words])
    return data


class SameAnswersTest(unittest.TestCase):
    def outcome(self, pieces: list[bytes], **config: object) -> list[object]:
        client = Conversation(**config)
        replies = b"".join(client.bytes(piece) for piece in pieces if not client.dialect.closing)
        client.store.check()
        store, session = client.store, client.session
        return [
            replies,
            store.dump()[:3],
            (store.hits, store.misses, store.evicted_keys, store.used_bytes),
            (session.commands, session.counts, session.last_command),
            (client.dialect.closing, client.dialect.closing or client.dialect.held_bytes),
        ]

    def assert_same_answers(
        self,
        make: Callable[[random.Random], bytes],
        times: int,
        seed: int,
        **config: object,
    ) -> None:
        generator = random.Random(seed)
        for _ in range(times):
            data = make(generator)
            for pieces in ways_to_arrive(data, generator):
                with mock.patch.object(RequestParser, "_split", return_value=False):
                    expected = self.outcome(pieces, **config)
                self.assertEqual(self.outcome(pieces, **config), expected, pieces)

    def damaged_conversation(self, generator: random.Random) -> bytes:
        return damaged(some_conversation(generator), generator)

    def test_any_stream_is_answered_as_read_exactly(self) -> None:
        self.assert_same_answers(some_conversation, 100, seed=7)

    def test_a_damaged_stream_too(self) -> None:
        self.assert_same_answers(self.damaged_conversation, 100, seed=8)

    def test_with_a_budget_that_is_used_up_too(self) -> None:
        self.assert_same_answers(some_conversation, 60, seed=9, max_bytes=1_000)

    def test_with_small_values_allowed_only_too(self) -> None:
        self.assert_same_answers(some_conversation, 40, seed=10, max_value_bytes=20)
        self.assert_same_answers(some_conversation, 20, seed=11, max_value_bytes=2000)

    def test_with_a_password_that_is_given_and_lost_again_too(self) -> None:
        def log_in_and_out(generator: random.Random) -> bytes:
            words = generator.choice(
                ([b"AUTH", b"secret"], [b"HELLO", b"3", b"AUTH", b"default", b"secret"])
            )
            log_in, reset = encode_request(words), encode_request([b"RESET"])
            parts = [some_conversation(generator) for _ in range(3)]
            return parts[0][:200] + log_in + parts[1] + reset + parts[2] + log_in + GET * 5

        self.assert_same_answers(log_in_and_out, 60, seed=12, password="secret")


class TogetherTest(unittest.TestCase):
    def test_what_arrives_together_is_split_once(self) -> None:
        client, split = Conversation(), RequestParser._split
        with mock.patch.object(RequestParser, "_split", autospec=True, side_effect=split) as calls:
            client.bytes((GET + encode_request([b"INCR", b"n"])) * 1000)
        self.assertLess(calls.call_count, 4)

    def test_a_run_of_reads_takes_the_lock_once(self) -> None:
        client = Conversation()
        client("SET", "k", "v")
        client.bytes(GET * 50)  # from the second time on, longer runs are worth a look
        with mock.patch.object(client.store, "get_many", wraps=client.store.get_many) as get_many:
            replies = client.bytes(GET * 50)
        self.assertEqual(replies, b"$1\r\nv\r\n" * 50)
        self.assertEqual(get_many.call_count, 1)

    def test_an_error_in_a_run_takes_its_own_place_only(self) -> None:
        client = Conversation(max_bytes=4_000)
        client("SET", "word", "x")
        keys = [b"n", b"word", b"n", b"n", b"n", b"n"]
        replies = client.bytes(b"".join(encode_request([b"INCR", key]) for key in keys))
        self.assertEqual(
            replies,
            b":1\r\n-ERR value is not an integer or out of range\r\n:2\r\n:3\r\n:4\r\n:5\r\n",
        )
        values = [b"a", b"b" * 1000, b"b" * 999, b"c", b"d", b"e"]
        client("CONFIG", "SET", "maxmemory", "700")
        replies = client.bytes(b"".join(encode_request([b"SET", b"k", each]) for each in values))
        self.assertEqual(replies.count(b"+OK\r\n"), 4)
        self.assertEqual(replies.count(b"-ERR entry of "), 2)

    def test_too_few_arguments_again_and_again_are_refused_one_by_one(self) -> None:
        client = Conversation()
        for name in (b"GET", b"SET", b"INCR"):
            replies = client.bytes(encode_request([name]) * 5 + b"PING\r\n")
            refusal = b"-ERR wrong number of arguments for '%b' command\r\n" % name.lower()
            self.assertEqual(replies, refusal * 5 + b"+PONG\r\n")

    def test_the_reply_to_a_run_is_due_in_one_piece_unless_it_is_large(self) -> None:
        client = Conversation()
        client("SET", "big", b"x" * 300_000)
        first = client.dialect.receive(encode_request([b"GET", b"big"]) * 100)
        self.assertLess(len(first), 2 * 1024 * 1024)
        self.assertTrue(client.dialect.more)

    def test_nothing_is_answered_behind_quit(self) -> None:
        client = Conversation()
        self.assertEqual(
            client.bytes(GET * 5 + encode_request([b"QUIT"]) + GET * 5), b"$-1\r\n" * 5 + b"+OK\r\n"
        )
        self.assertTrue(client.dialect.closing)

    def test_hits_and_misses_are_counted_in_a_run(self) -> None:
        client = Conversation()
        client("SET", "k", "v")
        client.bytes(GET * 30)
        client.bytes(encode_request([b"GET", b"none"]) * 20)
        self.assertEqual((client.store.hits, client.store.misses), (30, 20))


if __name__ == "__main__":
    unittest.main()
