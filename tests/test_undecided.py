"""Replies that wait for the disk: what becomes of each when the disk has decided.

The journal has no thread here: a test says when something is written, and whether the disk takes
it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from unittest import mock

from kvdb.commands.session import Session
from kvdb.errors import NOT_SAVED
from kvdb.persistence import Seen
from kvdb.persistence.journal import Fsync
from kvdb.protocols import BATCH_BYTES, Instead, RequestLoop
from kvdb.protocols.haus import Haus
from kvdb.protocols.main_port import MainPort
from kvdb.protocols.memcached import Memcached
from kvdb.store.entry import key_in
from kvdb.store.feed import Cause, Change, Flush
from tests.journal_case import JournalCase
from tests.store_case import Feed, contents
from tests.test_main_port import resp

REFUSED = f"-{NOT_SAVED}".encode()


class UndecidedCase(JournalCase):
    """Clients of a server with `--fsync always`; key k holds `saved`."""

    def setUp(self) -> None:
        super().setUp()
        self.open(Fsync.ALWAYS, thread=False)
        self.store.set(b"k", b"saved")
        self.write_down()
        self.clients: list[RequestLoop] = []
        self.enterContext(mock.patch("kvdb.persistence.journal.log"))

    def tearDown(self) -> None:
        for client in self.clients:
            self.assertIsNone(client.undecided)
        self.assertEqual(self.journal._outcomes._tickets, {})

    def client(self) -> RequestLoop:
        client = self.talk().dialect
        client.session.at_leisure = False
        self.clients.append(client)
        return client

    def send(self, client: RequestLoop, data: bytes) -> None:
        """Send what has to wait."""
        self.assertEqual(client.receive(data), b"")
        assert client.undecided is not None
        self.assertFalse(client.undecided.is_decided)

    def settle(self, client: RequestLoop) -> bytes | None:
        assert client.undecided is not None
        self.assertTrue(client.undecided.is_decided)
        return client.undecided.settle()

    def replies(self, client: RequestLoop) -> bytes:
        """Settle what is decided, also once it was answered anew."""
        while (replies := self.settle(client)) is None:
            pass
        return replies

    def assert_settled(self, client: RequestLoop, expected: bytes) -> None:
        """Compare replies; of an error only what comes before the reason."""
        replies = self.replies(client)
        lines = [REFUSED if REFUSED in line else line for line in replies.split(b"\r\n")]
        self.assertEqual(b"\r\n".join(lines), expected)

    def before_request(self, number: int, client: RequestLoop, action: Callable[[], None]) -> None:
        """Have something happen in the middle of a batch, before its request of this number."""
        real, count = client._answer_next, 0

        def answer_next() -> bytes | None:
            nonlocal count
            count += 1
            if count == number:
                action()
            return real()

        client._answer_next = answer_next  # type: ignore[method-assign]


class WaitingTest(UndecidedCase):
    def test_a_write_and_a_read_wait_for_the_step_that_they_depend_on(self) -> None:
        writer, reader, other = self.client(), self.client(), self.client()
        self.send(writer, b"SET k new\r\n")
        self.send(reader, b"GET k\r\n")
        self.write_down()
        self.send(other, b"SET k newer\r\n")
        self.assert_settled(writer, b"+OK\r\n")
        self.assert_settled(reader, b"$3\r\nnew\r\n")
        self.write_down()
        self.assert_settled(other, b"+OK\r\n")

    def test_what_depends_on_nothing_new_is_answered_at_once(self) -> None:
        self.assertEqual(self.client().receive(b"GET k\r\nDEL l\r\n"), b"$5\r\nsaved\r\n:0\r\n")

    def test_what_is_answered_anew_and_again_not_decided_waits_again(self) -> None:
        writers, reader = [self.client() for _ in range(3)], self.client()
        self.send(writers[0], b"SET k first\r\n")
        self.send(reader, b"GET k\r\n")
        self.write_down(refused=True)
        self.send(writers[1], b"SET k second\r\n")
        self.assertIsNone(self.settle(reader))  # it has seen the second one
        self.assertFalse(reader.undecided is None or reader.undecided.is_decided)
        self.write_down(refused=True)
        self.send(writers[2], b"SET k third\r\n")
        self.assertIsNone(self.settle(reader))
        self.write_down()
        self.assert_settled(reader, b"$5\r\nthird\r\n")
        self.assert_settled(writers[0], REFUSED + b"\r\n")
        self.assert_settled(writers[1], REFUSED + b"\r\n")
        self.assert_settled(writers[2], b"+OK\r\n")

    def test_who_is_unlucky_five_times_is_told_so(self) -> None:
        writer, reader = self.client(), self.client()
        self.send(writer, b"SET k new\r\n")
        self.send(reader, b"GET k\r\nPING\r\n")
        for _ in range(4):
            self.write_down(refused=True)
            self.assert_settled(writer, REFUSED + b"\r\n")
            self.send(writer, b"SET k new\r\n")
            self.assertIsNone(self.settle(reader))
        self.write_down(refused=True)
        self.assert_settled(reader, REFUSED + b"\r\n+PONG\r\n")
        self.assert_settled(writer, REFUSED + b"\r\n")

    def test_who_leaves_meanwhile_gives_the_ticket_back(self) -> None:
        writer, reader = self.client(), self.client()
        self.send(writer, b"SET k new\r\n")
        self.send(reader, b"GET k\r\n")
        for client in (writer, reader):
            client.end()
        self.write_down()

    def test_a_bug_in_the_middle_of_a_batch_gives_the_ticket_back(self) -> None:
        client = self.client()
        with (
            mock.patch.object(client, "_answer_next", side_effect=MemoryError),
            self.assertRaises(MemoryError),
        ):
            client.receive(b"GET k\r\n")

    def test_an_expiry_that_was_undone_is_no_reason_to_refuse_a_read(self) -> None:
        self.store.set(b"short", b"v", expires_at=self.clock.now + 5)
        self.write_down()
        self.clock.now += 5
        reader = self.client()
        self.send(reader, b"GET short\r\n")
        self.write_down(refused=True)
        self.assert_settled(reader, b"$-1\r\n")


class BatchTest(UndecidedCase):
    """The requests of one batch may have different fates."""

    def test_of_two_writes_the_one_that_was_undone_is_refused(self) -> None:
        for first_refused in (True, False):
            with self.subTest(first_refused=first_refused):
                client = self.client()
                self.before_request(2, client, partial(self.write_down, refused=first_refused))
                self.send(client, b"SET a 1\r\nSET b 2\r\n")
                self.write_down(refused=not first_refused)
                outcomes = [REFUSED + b"\r\n", b"+OK\r\n"]
                self.assert_settled(client, b"".join(outcomes[:: 1 if first_refused else -1]))
                kept = b"b" if first_refused else b"a"
                self.assertEqual(contents(self.store).keys(), {b"k", kept})
                self.assertEqual(self.entries_on_disk(), contents(self.store))
                self.store.delete(kept)
                self.write_down()

    def test_of_two_reads_the_one_that_saw_what_was_undone_is_answered_anew(self) -> None:
        writers, reader = [self.client(), self.client()], self.client()

        def undo_and_write() -> None:
            self.write_down(refused=True)
            self.send(writers[1], b"SET l new\r\n")

        self.send(writers[0], b"SET k undone\r\n")
        self.before_request(2, reader, undo_and_write)
        self.send(reader, b"GET k\r\nGET l\r\n")
        self.write_down()
        self.assert_settled(reader, b"$5\r\nsaved\r\n$3\r\nnew\r\n")
        self.assert_settled(writers[0], REFUSED + b"\r\n")
        self.assert_settled(writers[1], b"+OK\r\n")

    def test_what_came_after_the_undoing_is_not_in_doubt(self) -> None:
        writer, reader = self.client(), self.client()
        for _ in range(2):  # the second time, what was undone first is forgotten
            self.send(writer, b"SET k undone\r\n")
            self.before_request(2, reader, partial(self.write_down, refused=True))
            self.assertEqual(
                reader.receive(b"PING\r\nMULTI\r\nGET k\r\nEXEC\r\n"),
                b"+PONG\r\n+OK\r\n+QUEUED\r\n*1\r\n$5\r\nsaved\r\n",
            )
            self.assert_settled(writer, REFUSED + b"\r\n")

    def test_what_does_not_get_as_far_as_the_store_depends_on_nothing(self) -> None:
        client = self.client()
        self.send(client, b"SET k undone\r\nSET\r\n")
        self.write_down(refused=True)
        replies = self.replies(client).splitlines()
        self.assertIn(REFUSED, replies[0])
        self.assertTrue(replies[1].startswith(b"-ERR wrong number of arguments for 'set' command"))

    def test_a_data_block_that_is_under_way_still_belongs_to_its_request(self) -> None:
        writer, client = self.client(), Memcached(Session(self.instance))
        self.clients.append(client)
        self.send(writer, b"SET k undone\r\n")
        self.send(client, b"get k\r\nset l 0 0 5\r\nval")
        self.write_down(refused=True)
        self.assert_settled(client, b"VALUE k 0 5\r\nsaved\r\nEND\r\n")
        self.send(client, b"ue\r\n")
        self.write_down(refused=True)
        self.assertTrue(self.replies(client).startswith(b"SERVER_ERROR not saved: "))
        self.assert_settled(writer, REFUSED + b"\r\n")

    def test_a_run_of_writes_is_one_step_and_each_is_refused(self) -> None:
        client, step = self.client(), self.store.step
        self.send(client, b"".join(resp("SET", f"a{n}", "v") for n in range(4)))
        self.assertEqual(self.store.step, step + 1)
        self.write_down(refused=True)
        self.assert_settled(client, (REFUSED + b"\r\n") * 4)
        self.assertEqual(contents(self.store).keys(), {b"k"})

    def test_writes_with_options_are_no_run_and_each_has_its_own_fate(self) -> None:
        client = self.client()
        self.before_request(2, client, partial(self.write_down, refused=True))
        self.send(client, b"".join(resp("SET", f"a{n}", "v", "EX", "10") for n in range(4)))
        self.write_down()
        self.assert_settled(client, REFUSED + b"\r\n" + b"+OK\r\n" * 3)
        self.assertEqual(contents(self.store).keys(), {b"k", b"a1", b"a2", b"a3"})

    def test_of_those_whose_condition_fails_one_is_answered_anew_after_the_other(self) -> None:
        client = self.client()
        self.send(client, resp("SET", "n", "1", "NX") * 4)
        self.write_down(refused=True)
        self.assertIsNone(self.settle(client))  # the second one has set it now
        self.write_down()
        self.assert_settled(client, REFUSED + b"\r\n+OK\r\n" + b"$-1\r\n" * 2)

    def test_a_run_of_reads_is_answered_anew_as_a_whole(self) -> None:
        writer, reader = self.client(), self.client()
        self.send(writer, b"SET k undone\r\n")
        self.send(reader, resp("GET", "k") * 4)
        self.write_down(refused=True)
        self.assert_settled(reader, b"$5\r\nsaved\r\n" * 4)
        self.assert_settled(writer, REFUSED + b"\r\n")

    def test_what_takes_long_is_answered_anew_all_the_same(self) -> None:
        self.store.set(b"k", b"x" * 100_000)
        self.write_down()
        writer, reader = self.client(), Haus(Session(self.instance))
        reader.session.at_leisure = False
        self.clients.append(reader)
        self.send(writer, b"SET k undone\r\n")
        self.send(reader, b"GET k\n")
        self.write_down(refused=True)
        self.assertEqual(self.replies(reader).count(b"x"), 100_000)
        self.assertFalse(reader.session.at_leisure)
        self.assert_settled(writer, REFUSED + b"\r\n")

    def test_a_list_of_keys_is_answered_anew(self) -> None:
        for request, anew in (
            (b"KEYS *\r\n", b"*1\r\n$1\r\nk\r\n"),
            (b"RANDOMKEY\r\n", b"$1\r\nk\r\n"),
        ):
            with self.subTest(request):
                writer, reader = self.client(), self.client()
                self.send(writer, b"RENAME k other\r\n")
                reader.session.at_leisure = True
                self.send(reader, request)
                reader.session.at_leisure = False
                self.write_down(refused=True)
                self.assert_settled(reader, anew)
                self.assert_settled(writer, REFUSED + b"\r\n")

    def test_what_a_subcommand_says_of_a_key_is_answered_anew(self) -> None:
        for request, anew in (
            (b"OBJECT ENCODING k\r\n", b"$6\r\nembstr\r\n"),
            (b"MEMORY USAGE k\r\n", b":%d\r\n" % (self.store.cost(b"k") or 0)),
        ):
            with self.subTest(request):
                writer, reader = self.client(), self.client()
                self.send(writer, b"SET k 1\r\n")
                self.send(reader, request)
                self.write_down(refused=True)
                self.assert_settled(reader, anew)
                self.assert_settled(writer, REFUSED + b"\r\n")

    def test_a_request_that_was_put_off_is_not_forgotten_for_an_earlier_one(self) -> None:
        writer, reader = self.client(), self.client()
        self.send(writer, b"SET k undone\r\n")
        self.send(reader, resp("GET", "k") + resp("EXISTS", *["k"] * 1000))
        self.assertTrue(reader.takes_long)
        self.write_down(refused=True)
        self.assert_settled(reader, b"$5\r\nsaved\r\n")
        self.assertTrue(reader.more and reader.takes_long)
        reader.session.at_leisure = True
        self.assertEqual(reader.receive(b""), b":1000\r\n")
        self.assert_settled(writer, REFUSED + b"\r\n")

    def test_what_becomes_large_is_sent_to_its_end(self) -> None:
        self.store.set(b"k", b"x" * BATCH_BYTES)
        self.write_down()
        writer, reader = self.client(), self.client()
        self.send(writer, b"SET k undone\r\n")

        instead = reader._instead

        def decide_and_go_on() -> Instead | None:
            """The disk decides before the batch is at its end: it does not have to wait at all."""
            self.write_down(refused=True)
            return instead()

        with mock.patch.object(reader, "_instead", decide_and_go_on):
            replies = reader.receive(resp("MGET", "k", "k"))
        self.assertTrue(reader.more)
        self.assertFalse(reader.idle)
        while reader.more:
            replies += reader.receive(b"")
        one = b"$%d\r\n%b\r\n" % (BATCH_BYTES, b"x" * BATCH_BYTES)
        self.assertEqual(replies, b"*2\r\n" + one * 2)
        self.assert_settled(writer, REFUSED + b"\r\n")


class TooLargeTest(UndecidedCase):
    """memcached deletes the old value if the new one is too large: that, too, has to be saved."""

    def test_the_refusal_of_a_large_value_waits_until_the_old_one_is_gone(self) -> None:
        self.instance.config.max_value_bytes = 10
        data = b"12345678901\r\n"
        for line in (b"set k 0 0 11\r\n", b"ms k 11\r\n"):
            for pieces in ([line + data], [line, data[:5], data[5:]]):
                for refused in (True, False):
                    with self.subTest(pieces=pieces, refused=refused):
                        self.store.set(b"k", b"saved")
                        self.write_down()
                        client = Memcached(Session(self.instance))
                        self.clients.append(client)
                        for piece in pieces[:-1]:
                            self.assertEqual(client.receive(piece), b"")
                        self.send(client, pieces[-1])
                        self.write_down(refused=refused)
                        reply = b"not saved" if refused else b"object too large for cache\r\n"
                        self.assertIn(b"SERVER_ERROR " + reply, self.replies(client))
                        self.assertEqual(client.session.last_command, line.split()[0].decode())
                        self.assertEqual(contents(self.store).keys(), {b"k"} if refused else set())
                        self.assertEqual(self.entries_on_disk(), contents(self.store))

    def test_where_the_old_value_stays_nothing_waits(self) -> None:
        self.instance.config.max_value_bytes = 10
        for line in (b"add k 0 0 11\r\n", b"ms k 11 MA\r\n", b"set gone 0 0 11\r\n"):
            client = Memcached(Session(self.instance))
            self.assertIn(b"too large", client.receive(line + b"12345678901\r\n"))
        self.assertEqual(contents(self.store).keys(), {b"k"})


class IdleTest(UndecidedCase):
    """Clients may be idle for hours: what they have written is not kept for them."""

    VALUE = b"x" * 1_000_000

    def test_nothing_of_a_request_is_kept_once_it_is_answered(self) -> None:
        for dialect, request in (
            (MainPort, resp("SET", "k", self.VALUE.decode())),
            (MainPort, resp("SET", "k", self.VALUE.decode()) * 2),  # a run
            (MainPort, b"SET k %b\r\n" % self.VALUE[:60_000]),
            (MainPort, b'{"command": "SET", "args": ["k", "%b"]}\n' % self.VALUE),
            (Haus, b"PUT k %b\n" % self.VALUE),
            (Memcached, b"set k 0 0 1000000\r\n%b\r\n" % self.VALUE),
            (Memcached, b"get %b\r\n" % b" ".join([b"x" * 200] * 300)),
        ):
            with self.subTest(dialect=dialect.__name__, request=request[:30]):
                client = dialect(Session(self.instance))
                self.clients.append(client)
                client.receive(request)
                if client.undecided:
                    self.write_down()
                    self.replies(client)
                self.assertTrue(client.idle)
                self.assertIsNone(client._last)


class ConversationGoesOnTest(UndecidedCase):
    """A request is not answered anew in another state of its conversation than it came in."""

    def test_what_came_before_select_multi_or_start_is_not_repeated_behind_it(self) -> None:
        self.store.set(key_in(3, b"k"), b"of another database")
        self.write_down()
        for request, replies in (
            (b"SELECT 3\r\n", b"+OK\r\n"),
            (b"MULTI\r\n", b"+OK\r\n"),
            (b'{"command": "START"}\n', b'{"status": "OK"}\n'),
        ):
            with self.subTest(request):
                writer, reader = self.client(), self.client()
                self.send(writer, b"SET k undone\r\n")
                self.send(reader, b"GET k\r\n" + request)
                self.write_down(refused=True)
                self.assert_settled(reader, REFUSED + b"\r\n" + replies)
                self.assert_settled(writer, REFUSED + b"\r\n")
                if reader.session.transaction:
                    self.assertEqual(reader.session.transaction.queue, [])

    def test_what_a_transaction_has_queued_is_not_written_without_its_commit(self) -> None:
        writer, client = self.client(), Haus(Session(self.instance))
        self.clients.append(client)
        self.send(writer, b"SET k undone\r\n")
        self.send(client, b"START\nPUT a 1\nPUT b 2\nCOMMIT\n")
        self.write_down(refused=True)
        self.assertIn(b"Not saved", self.replies(client).splitlines()[-1])
        self.assertEqual(contents(self.store).keys(), {b"k"})
        self.assert_settled(writer, REFUSED + b"\r\n")


class OutcomeTest(UndecidedCase):
    def test_a_change_was_undone_if_its_step_was(self) -> None:
        ticket = self.journal.arrive()
        self.journal._outcomes._undone += [range(3, 6), range(8, 9)]
        outcomes = [self.journal.outcome(Seen(step, 0, step)) for step in range(1, 10)]
        self.assertEqual(outcomes, [True, True, False, False, False, True, True, False, True])
        # Steps that were undone before it was made are nothing to it.
        self.assertTrue(self.journal.outcome(Seen(4, 1, 4)))
        self.assertFalse(self.journal.outcome(Seen(8, 1, 8)))
        self.journal.leave(ticket)

    def test_a_read_is_in_doubt_if_anything_that_it_can_have_seen_was_undone_since(self) -> None:
        ticket = self.journal.arrive()
        self.journal._outcomes._undone += [range(3, 6), range(8, 9)]
        for undos, last, outcome in (
            (0, 2, True), (0, 3, False), (0, 5, False), (0, 7, False), (0, 9, False),
            (1, 7, True), (1, 8, False), (1, 9, False), (2, 9, True),
        ):  # fmt: skip
            with self.subTest(undos=undos, last=last):
                self.assertEqual(self.journal.outcome(Seen(0, undos, last)), outcome)
        self.journal.leave(ticket)

    def test_what_nobody_can_ask_for_any_more_is_forgotten_and_the_count_goes_on(self) -> None:
        early = self.journal.arrive()
        self.journal._outcomes._undone.append(range(3, 6))
        late = self.journal.arrive()
        self.journal._outcomes._undone.append(range(8, 9))
        self.journal.leave(early)
        self.assertEqual((self.journal._outcomes._undone, self.journal.undos), ([range(8, 9)], 2))
        self.assertTrue(self.journal.outcome(Seen(0, 1, 7)))
        self.assertFalse(self.journal.outcome(Seen(0, 1, 8)))
        self.journal.leave(late)
        self.assertEqual((self.journal._outcomes._undone, self.journal.undos), ([], 2))

    def test_progress_is_told_after_a_commit_and_after_an_undo(self) -> None:
        durable: list[int] = []

        def progress() -> None:
            self.assertFalse(self.store._lock._is_owned())  # type: ignore[attr-defined]
            durable.append(self.journal.durable_step)

        self.journal.on_progress = progress
        self.store.set(b"k", b"1")
        self.write_down()
        self.assertEqual(durable, [self.store.step])
        self.store.set(b"k", b"2")
        self.write_down(refused=True)
        self.assertEqual(durable[1:], [self.store.step])


class SwapTest(UndecidedCase):
    def test_what_is_refused_while_a_swap_waits_is_not_undone_but_written_with_it(self) -> None:
        """The file tells what there was before the swap, under other names."""
        self.store.set((1, b"k"), b"other")
        self.write_down()
        writer = self.client()
        self.send(writer, resp("SET", "k", "new"))
        self.fail_to_commit(lambda: self.store.swap(0, 1))
        assert writer.undecided is not None
        self.assertFalse(writer.undecided.is_decided, "nothing is decided yet")
        self.write_down()
        self.assertEqual(self.replies(writer), b"+OK\r\n")
        expected = {b"k": b"other", (1, b"k"): b"new"}
        self.assertEqual({key: self.store.get(key) for key in expected}, expected)
        self.reopen(Fsync.ALWAYS)
        self.assertEqual({key: self.store.get(key) for key in expected}, expected)


class TakenBackTest(UndecidedCase):
    def test_what_is_taken_back_is_told_as_that(self) -> None:
        feed = Feed(self.store)
        self.store.set(b"k", b"2")
        self.store.set(b"l", b"v")
        self.write_down(refused=True)
        self.assertEqual(
            feed.steps[2:],
            [
                [
                    Change(b"k", b"saved", cause=Cause.TAKEN_BACK),
                    Change(b"l", None, cause=Cause.TAKEN_BACK),
                ]
            ],
        )
        self.assertEqual(self.journal.changes_since_save, 0)

    def test_so_is_a_flush_and_what_comes_back_is_all_that_there_is(self) -> None:
        self.store.set((2, b"l"), b"v", client_flags=7)
        self.write_down()
        before = contents(self.store)
        for db in (0, None):
            with self.subTest(db=db):
                feed = Feed(self.store)
                self.store.set(b"new", b"v")
                self.store.flush(db)
                self.store.set(b"newer", b"v")
                self.write_down(refused=True)
                self.assertEqual(
                    feed.steps[3:],
                    [
                        [
                            Flush(None, Cause.TAKEN_BACK),
                            Change(b"k", b"saved", cause=Cause.TAKEN_BACK),
                            Change((2, b"l"), b"v", None, 7, Cause.TAKEN_BACK),
                        ]
                    ],
                )
                self.store.remove_listener(feed)
                self.assertEqual(contents(self.store), before)
                self.assertEqual(self.journal.durable_step, self.store.step)
                self.assertEqual(self.journal.changes_since_save, 0)
                self.assertEqual(self.entries_on_disk(), before)

    def test_so_is_what_comes_while_the_disk_makes_up_its_mind(self) -> None:
        self.store.set((2, b"l"), b"v")
        self.write_down()
        before = contents(self.store)
        for db in (0, None):
            with self.subTest(db=db):
                self.store.set(b"k", b"new")
                self.fail_to_commit(partial(self.store.flush, db))
                self.assertEqual(contents(self.store), before)
                self.assertEqual((self.journal.changes_since_save, self.journal.age), (0, 0.0))
                self.write_down()
                self.assertEqual(self.entries_on_disk(), before)

    def test_a_flush_can_be_taken_back_whatever_the_file_held_when_it_was_opened(self) -> None:
        self.store.set(b"short", b"v", expires_at=self.clock.now + 5)
        self.write_down()
        self.assertTrue(self.journal.stop())
        self.clock.now += 5
        self.open(Fsync.ALWAYS, thread=False)
        for key in (b"short", b"l"):  # has expired before the start; is written since
            with self.subTest(key):
                if key == b"l":
                    self.store.set(key, b"since")
                    self.write_down()
                before = contents(self.store)
                client = self.talk().dialect
                self.clients.append(client)
                self.send(client, b"FLUSHALL\r\n")
                self.write_down(refused=True)
                self.assert_settled(client, REFUSED + b"\r\n")
                self.assertEqual(contents(self.store), before)

    def test_what_has_expired_meanwhile_is_gone_from_the_file_in_the_end(self) -> None:
        """Else the next start would find more rows than there should be, and refuse the file."""
        for request in (b"GET short\r\n", b"SET short new\r\n", b"FLUSHALL\r\n"):
            for last in (False, True):
                with self.subTest(request=request, last=last):
                    self.store.set(b"short", b"v", expires_at=self.clock.now + 5)
                    self.write_down()
                    self.clock.now += 5 * (request != b"SET short new\r\n")
                    client = self.client()
                    client.session.at_leisure = True
                    if not last:
                        self.send(client, request + b"SET other v\r\n")
                    else:
                        self.send(client, b"SET other v\r\n" + request)
                    self.clock.now += 5
                    self.write_down(refused=True)
                    self.replies(client)
                    self.store.set(b"k", b"later")
                    self.write_down()
                    self.assertTrue(self.journal.stop())
                    self.assertEqual(self.rows(columns="key"), [("k",)])
                    self.open(Fsync.ALWAYS, thread=False)
