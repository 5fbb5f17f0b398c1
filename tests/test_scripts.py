"""EVAL and what belongs to it: what a script may do, what it answers, and that it is one step."""

from __future__ import annotations

import hashlib
from unittest import mock

from kvdb.commands.instance import Instance
from kvdb.config import Config
from kvdb.errors import BUSY, OUT_OF_MEMORY, SCRIPT_UNKILLABLE, CommandError
from kvdb.replies import OK, BigNumber, Reply, SimpleString, Verbatim
from kvdb.resp.encoding import encode_reply
from kvdb.scripting import machine
from kvdb.scripting import scripts as scripts_module
from kvdb.store import Store
from kvdb.store.budget import EvictionPolicy
from kvdb.store.feed import Change
from tests.command_case import NOT_AN_INTEGER, CommandTest, plain, wrong_arity
from tests.script_scenes import RESP3, SCENES
from tests.support import Conversation, ManualClock, TickingClock

NOSCRIPT = "NOSCRIPT No matching script. Please use EVAL."


def digest(script: str) -> str:
    return hashlib.sha1(script.encode()).hexdigest()


def at(script: str, line: int = 1) -> str:
    """Return what Redis puts behind an error that a script has not caught."""
    return f" script: {digest(script)}, on @user_script:{line}."


class ScriptTest(CommandTest):
    def eval(self, script: str, *words: object, keys: int = 0) -> Reply:
        return plain(self.talk("EVAL", script, keys, *map(str, words)))


class SceneTest(ScriptTest):
    """What is in `script_scenes` was asked of Redis as well."""

    def test_what_a_script_answers_is_what_redis_answers(self) -> None:
        self.assert_scenes({})

    def test_a_client_that_speaks_resp3_gets_its_types(self) -> None:
        self.talk("HELLO", 3)
        self.assert_scenes(RESP3)

    def assert_scenes(self, others: dict[str, bytes]) -> None:
        for script, expected in SCENES:
            expected = others.get(script, expected)
            with self.subTest(script):
                reply = self.talk("EVAL", script, 0)
                version = self.talk.session.version
                where = at(script).encode() if b"@" in expected else b""
                self.assertEqual(encode_reply(reply, version), expected.replace(b"@", where))


class CommandsTest(ScriptTest):
    def test_keys_and_arguments_are_handed_over(self) -> None:
        script = "return {KEYS[1], KEYS[2], #KEYS, ARGV[1], #ARGV, KEYS[3]}"
        reply = self.eval(script, "k1", "k2", "a", keys=2)
        self.assertEqual(reply, [b"k1", b"k2", 2, b"a", 1])
        self.assertEqual(self.eval("return #KEYS + #ARGV"), 0, "nothing is left of them")

    def test_a_wrong_number_of_keys_is_refused(self) -> None:
        self.assert_arity("EVAL", "EVAL x", "EVALSHA", "EVALSHA x", "EVAL_RO x", "SCRIPT")
        self.assert_replies(
            ("EVAL 'return 1' x", NOT_AN_INTEGER),
            ("EVAL 'return 1' -1", "ERR Number of keys can't be negative"),
            ("EVAL 'return 1' 2 a", "ERR Number of keys can't be greater than number of args"),
            ("SCRIPT EXISTS", wrong_arity("script|exists")),
        )

    def test_a_known_script_is_called_by_its_digest(self) -> None:
        script = "return ARGV[1]"
        name = digest(script)
        self.assert_replies(
            (f"EVALSHA {name} 0 a", NOSCRIPT),
            (f"SCRIPT LOAD '{script}'", name.encode()),
            (f"EVALSHA {name} 0 a", b"a"),
            (f"EVALSHA {name.upper()} 0 a", b"a"),
            (f"EVALSHA_RO {name} 0 a", b"a"),
            (f"SCRIPT EXISTS {name} {name.upper()} x", [1, 1, 0]),
            ("SCRIPT FLUSH", OK),
            ("SCRIPT FLUSH SYNC", OK),
            ("SCRIPT FLUSH LATER", "ERR SCRIPT FLUSH only support SYNC|ASYNC option"),
            (f"SCRIPT EXISTS {name}", [0]),
            (f"EVALSHA {name} 0 a", NOSCRIPT),
            ("EVALSHA abc 0", NOSCRIPT),
            (f"EVAL '{script}' 0 b", b"b"),
            (f"EVALSHA {name} 0 a", b"a"),
            ("SCRIPT LOAD 'retrn 1'",
             "ERR Error compiling script (new function): user_script:1: '=' expected near '1'"),
            ("SCRIPT DEBUG NO", OK),
            ("SCRIPT DEBUG YES", "ERR there is no debugger for scripts here"),
            ("SCRIPT DEBUG X", "ERR Use SCRIPT DEBUG YES/SYNC/NO"),
            ("SCRIPT KILL", "NOTBUSY No scripts in execution right now."),
            ("FUNCTION KILL", "NOTBUSY No scripts in execution right now."),
        )  # fmt: skip

    def test_there_are_no_functions(self) -> None:
        self.assert_replies(
            ("FCALL f 0", "ERR Function not found"),
            ("FCALL_RO f 0", "ERR Function not found"),
            ("FUNCTION DELETE f", "ERR Library not found"),
            ("FUNCTION LOAD x",
             "ERR functions are not supported here: use EVAL, or SCRIPT LOAD and EVALSHA"),
        )  # fmt: skip

    def test_of_what_only_eval_has_brought_the_latest_are_kept(self) -> None:
        self.enterContext(mock.patch.object(scripts_module, "MOST_SCRIPTS", 5))
        scripts = self.talk.instance.scripts
        loaded = self.ask("SCRIPT LOAD 'return 0'")
        for number in range(1, 8):
            self.eval(f"return {number}")
            self.ask(f"EVALSHA {digest('return 1')} 0")
        self.assertEqual(scripts.count, 6)
        known = self.ask(
            f"SCRIPT EXISTS {digest('return 1')} {digest('return 2')} {loaded.decode()}"
        )
        self.assertEqual(known, [1, 0, 1])
        self.assertEqual(self.info("memory")["number_of_cached_scripts"], "6")
        held = scripts.held_bytes
        self.assertGreaterEqual(self.talk.instance.not_entries_bytes(), held)
        self.ask("SCRIPT FLUSH")
        self.assertEqual((scripts.count, scripts.held_bytes), (0, 0))

    def test_the_first_line_may_say_what_the_script_does(self) -> None:
        self.assert_eval(
            ("#!lua\nreturn 1", 1),
            ("#!lua flags=no-writes,allow-stale\nreturn 1", 1),
            ("#!lua flags=\nreturn 1", 1),
            ("#!lua flags=foo\nreturn 1", "ERR Unexpected flag in script shebang: foo"),
            ("#!lua foo=bar\nreturn 1", "ERR Unknown lua shebang option: foo=bar"),
            ("#!python\nreturn 1", "ERR Unexpected engine in script shebang: #!python"),
            ("#!lua", "ERR Invalid script shebang"),
        )
        script = "#!lua flags=no-writes\n\nreturn redis.call('set', 'a', 'b')"
        text = "ERR Write commands are not allowed from read-only scripts."
        self.assertEqual(self.eval(script), text + at(script, 3))

    def assert_eval(self, *table: tuple[str, Reply]) -> None:
        for script, expected in table:
            with self.subTest(script):
                self.assertEqual(self.eval(script), expected)

    def test_a_read_only_script_changes_nothing(self) -> None:
        self.ask("SET a 1")
        for words in (("EVAL_RO", script := "return redis.call('incr', 'a')"),):
            self.assertEqual(
                plain(self.talk(*words, 0)),
                "ERR Write commands are not allowed from read-only scripts." + at(script),
            )
        self.assertEqual(plain(self.talk("EVAL_RO", "return redis.call('get', 'a')", 0)), b"1")
        self.ask(f'SCRIPT LOAD "{script}"')
        self.assertIn("read-only scripts", str(self.ask(f"EVALSHA_RO {digest(script)} 0")))
        self.assertEqual(self.ask("GET a"), b"1")

    def test_a_command_that_there_is_not_is_named(self) -> None:
        script = "return redis.call('hset', 'h', 'f', 'v')"
        text = "ERR Unknown Redis command called from script: 'hset'"
        self.assertEqual(self.eval(script), text + at(script))

    def test_what_concerns_the_connection_is_refused(self) -> None:
        for name in (
            "multi", "exec", "watch', 'k", "subscribe', 'x", "eval', 'return 1', '0", "client', 'id",
            "config', 'get', 'port", "script', 'flush", "acl', 'whoami", "monitor", "debug', 'sleep', '0",
            "wait', '0', '0", "shutdown", "hello", "auth', 'x", "save", "latency', 'latest", "fcall', 'f', '0",
        ):  # fmt: skip
            script = f"return redis.call('{name}')"
            with self.subTest(script):
                text = "ERR This Redis command is not allowed from script"
                self.assertEqual(self.eval(script), text + at(script))


class StateTest(ScriptTest):
    def test_a_script_works_in_the_clients_database_and_select_ends_with_it(self) -> None:
        self.ask("SELECT 2")
        script = "redis.call('set', KEYS[1], ARGV[1]) return redis.call('get', KEYS[1])"
        self.assertEqual(self.eval(script, "k", "v", keys=1), b"v")
        script = "redis.call('select', 5) redis.call('set', KEYS[1], 'five') return KEYS[1]"
        self.assertEqual(self.eval(script, "k", keys=1), b"k")
        self.assert_replies(
            ("GET k", b"v"), ("SELECT 5", OK), ("GET k", b"five"), ("SELECT 0", OK), ("GET k", None)
        )

    def test_a_script_is_one_step_and_one_moment(self) -> None:
        store = self.talk.store
        steps: list[list[object]] = []
        store.add_listener(lambda number, facts: steps.append(list(facts)))
        ticking = mock.patch.object(store, "_clock", TickingClock(tick=1.0))
        script = (
            "local t = redis.call('time') redis.call('set', 'a', 1, 'EX', 100) "
            "redis.call('incr', 'a') redis.call('del', 'b') return {t, redis.call('time')}"
        )
        with ticking:
            before, after = self.eval(script)
        self.assertEqual(before, after)
        (facts,) = steps
        self.assertEqual([each.value for each in facts if isinstance(each, Change)], [b"1", b"2"])

    def test_what_a_script_did_before_its_error_stays(self) -> None:
        script = "redis.call('set', 'a', 'x') redis.call('incr', 'a') redis.call('set', 'b', 1)"
        self.assertEqual(self.eval(script), NOT_AN_INTEGER + at(script))
        self.assert_replies(("GET a", b"x"), ("GET b", None))

    def test_within_exec_a_script_is_a_part_of_its_step(self) -> None:
        self.assert_replies(
            ("MULTI", b"OK"), ("SET n 5", b"QUEUED"),
            ("EVAL \"return redis.call('incr', KEYS[1])\" 1 n", b"QUEUED"),
            ("EVAL 'return nosuch' 0", b"QUEUED"), ("INCR n", b"QUEUED"),
        )  # fmt: skip
        script = "return nosuch"
        error = "ERR user_script:1: Script attempted to access nonexistent global variable 'nosuch'"
        self.assertEqual(self.ask("EXEC"), [OK, 6, error + at(script), 7])

    def test_a_watched_key_that_a_script_changes_ends_the_transaction(self) -> None:
        other = self.talk.another()
        for line in ("WATCH k", "MULTI", "GET k"):
            self.ask(line, other)
        self.eval("redis.call('set', KEYS[1], 1)", "k", keys=1)
        self.assertEqual(encode_reply(other("EXEC")), b"*-1\r\n")

    def test_who_keeps_a_copy_of_what_a_script_changes_is_told(self) -> None:
        other = self.talk.another()
        pushed: list[bytes] = []
        other.session.push = pushed.append
        for line in ("HELLO 3", "CLIENT TRACKING ON", "GET k"):
            self.ask(line, other)
        self.eval("redis.call('set', KEYS[1], 1)", "k", keys=1)
        self.talk.instance.tracking.send()
        self.assertIn(b"invalidate", b"".join(pushed))

    def test_errors_are_counted_once(self) -> None:
        for script in (
            "return redis.call('incr', 'x', 'y')",  # refused, and not caught
            "redis.pcall('nosuch') return 1",
            "return redis.pcall('get')",  # an error that is handed on
            "error('mine')",
        ):
            self.eval(script)
        self.assertEqual(self.info("errorstats")["errorstat_ERR"], "count=4")
        self.assertEqual(self.eval("return redis.error_reply('MY own')"), "MY own")

    def test_each_call_of_a_command_counts(self) -> None:
        before = int(self.info("stats")["total_commands_processed"])
        self.eval("for i = 1, 10 do redis.call('incr', 'n') end")
        self.assertEqual(int(self.info("stats")["total_commands_processed"]), before + 12)


class RightsTest(ScriptTest):
    def setUp(self) -> None:
        super().setUp()
        self.ask("ACL SETUSER bob on >x ~a* +eval +evalsha +get +multi +exec")
        self.bob = self.talk.another()
        self.ask("AUTH bob x", self.bob)

    def as_bob(self, script: str, *words: str, keys: int = 0) -> Reply:
        return plain(self.bob("EVAL", script, keys, *words))

    def test_a_script_may_do_what_its_user_may(self) -> None:
        set_, get = "return redis.call('set', 'a', 1)", "return redis.call('get', KEYS[1] or 'b')"
        text = "ERR The user executing the script can't run this command or subcommand"
        self.assertEqual(self.as_bob(set_), text + at(set_))
        text = (
            "ERR The user executing the script can't access at least one of the keys mentioned in "
            "the command arguments"
        )
        self.assertEqual(self.as_bob(get), text + at(get))
        self.assertEqual(self.as_bob(get, "a", keys=1), None)
        self.assertEqual(self.as_bob(get, "b", keys=1), "NOPERM No permissions to access a key")
        self.assertEqual(self.as_bob("return redis.pcall('get', 'b')"), text)
        self.assertEqual(self.ask("ACL LOG")[0][b"context"], "lua")

    def test_a_script_may_ask_what_its_user_may(self) -> None:
        script = "return {redis.acl_check_cmd('get', 'a'), redis.acl_check_cmd('set', 'a', '1'), 7}"
        self.assertEqual(self.as_bob(script), [1, None, 7])
        self.assertEqual(self.eval("return redis.acl_check_cmd('set', 'a', '1')"), 1)


class FullTest(ScriptTest):
    def setUp(self) -> None:
        super().setUp()
        self.talk.store.max_bytes = 1000
        self.talk.store.policy = EvictionPolicy.NOEVICTION
        number = 0
        while plain(self.talk("SET", f"k{number}", "x" * 50)) != OUT_OF_MEMORY:
            number += 1

    def test_a_write_without_room_is_an_error_of_the_script(self) -> None:
        script = "return redis.call('set', 'b', ARGV[1])"
        self.assertEqual(self.eval(script, "x" * 100), OUT_OF_MEMORY + at(script))
        self.assertEqual(
            self.eval("return redis.pcall('set', 'b', ARGV[1])", "x" * 100), OUT_OF_MEMORY
        )
        self.assertEqual(
            self.eval("redis.call('del', 'k0') return redis.call('set', 'b', 1)"), b"OK"
        )

    def test_one_that_says_what_it_does_is_not_begun(self) -> None:
        refusal = (
            "OOM allow-oom flag is not set on the script, can not run it when used memory > "
            "'maxmemory'"
        )
        with mock.patch.object(Store, "is_full", True):
            self.assertEqual(self.eval("#!lua\nreturn 1"), refusal)
            for flags in ("no-writes", "allow-oom"):
                self.assertEqual(self.eval(f"#!lua flags={flags}\nreturn 1"), 1)
            self.assertEqual(self.eval("return 1"), 1)


class EndTest(ScriptTest):
    """A script that takes too long, by a clock that moves with each look at it."""

    def setUp(self) -> None:
        super().setUp()
        self.monotonic = TickingClock(tick=0.1)
        store = Store(0, clock=ManualClock())
        instance = Instance(store, Config(script_time_limit=1000), monotonic=self.monotonic)
        self.talk = Conversation(instance)
        self.engine = instance.scripts

    def while_busy(self, *lines: str) -> list[Reply]:
        """Have another client ask these while the script runs; return the replies."""
        replies: list[Reply] = []
        other = self.talk.another()

        def serve() -> bool:
            if not replies:
                replies.extend(self.ask(line, other) for line in lines)
            return True

        self.engine.serve_others = serve
        return replies

    def test_others_are_refused_but_for_what_may_end_it(self) -> None:
        replies = self.while_busy(
            "PING", "GET a", "EVAL 'return 1' 0", "MULTI", "WATCH a", "DISCARD", "HELLO", "INFO",
            "SCRIPT EXISTS a", "SCRIPT KILL",
        )  # fmt: skip
        script = "while true do end"
        killed = "ERR Script killed by user with SCRIPT KILL..." + at(script)
        self.assertEqual(self.eval(script), killed)
        hello = replies.pop(6)
        self.assertIn(b"version", hello)
        inside = "ERR WATCH inside MULTI is not allowed"
        self.assertEqual(replies, [BUSY, BUSY, BUSY, OK, inside, OK, BUSY, BUSY, OK])
        self.assertFalse(self.engine.is_busy)
        self.assert_replies(("PING", b"PONG"), ("GET a", None), ("EVAL 'return 1' 0", 1))
        self.assertTrue(self.talk.session.plain)

    def test_nothing_that_it_does_can_prevent_its_end(self) -> None:
        for script in (
            "while true do pcall(function() while true do end end) end",
            "repeat until false",
            "for i = 1, math.huge do end",
            "for i = 1, 1e15 do for j = 1, 3 do end end",
            "local function f() return pcall(f) end while true do f() end",
            "local function f(n) if n > 0 then f(n - 1) f(n - 1) end end f(100)",
            "for k in function() return 1 end do end",
            "string.find(('a'):rep(100), '.-.-.-.-.-.-.-.-.-b')",
            "local t = {} for i = 1, 100 do t[i] = i end while true do table.sort(t, function(a, b) return a > b end) end",
            "xpcall(function() while true do end end, function() while true do end end)",
            "local t = setmetatable({}, {__index = function(t, k) return t[k + 1] end}) while true do pcall(function() return t[1] end) end",
            "while true do redis.pcall('nosuch') end",
            "return load(function() return ' ' end)",
        ):  # fmt: skip
            with self.subTest(script):
                self.while_busy("SCRIPT KILL")
                self.assertIn("killed by user", str(self.eval(script)))

    def test_one_that_has_written_cannot_be_killed(self) -> None:
        replies = self.while_busy("SCRIPT KILL", "FUNCTION KILL")
        script = "redis.call('set', 'a', 1) for i = 1, 100000 do end return 'done'"
        self.assertEqual(self.eval(script), b"done")
        self.assertEqual(replies, [SCRIPT_UNKILLABLE, SCRIPT_UNKILLABLE])
        self.assertEqual(self.ask("GET a"), b"1")

    def test_one_that_writes_nothing_ends_after_ten_times_the_limit(self) -> None:
        self.engine.serve_others = lambda: True
        began = self.monotonic.now
        self.assertIn(
            "Script ended after 10 s: it has written nothing", self.eval("while true do end")
        )
        self.assertLess(self.monotonic.now - began, 12)

    def test_where_nobody_can_be_served_it_ends_at_the_limit(self) -> None:
        self.assertIn("Script ended after 1 s", self.eval("while true do end"))

    def test_a_server_that_stops_ends_it(self) -> None:
        self.engine.serve_others = lambda: True
        self.engine.stopping = True
        script = "redis.call('set', 'a', 1) while true do end"
        self.assertIn("Script ended, because the server stops", self.eval(script))

    def test_without_a_limit_nobody_is_refused(self) -> None:
        self.ask("CONFIG SET lua-time-limit 0")
        self.assertEqual(
            self.ask("CONFIG GET busy-reply-threshold"), {b"busy-reply-threshold": b"0"}
        )
        self.engine.serve_others = self.fail
        self.assertEqual(self.eval("for i = 1, 100000 do end return 1"), 1)

    def test_memory_is_bounded(self) -> None:
        self.ask("CONFIG SET lua-time-limit 0")
        taken = iter(range(0, 100_000_000_000, 20_000_000))
        with mock.patch.object(machine, "resident_bytes", side_effect=taken):
            for script in (
                "local t = {} while true do t[#t + 1] = {} end",
                "pcall(function() while true do end end)",
            ):
                with self.subTest(script):
                    self.assertIn("ERR not enough memory", self.eval(script))

    def test_a_string_that_is_too_long_ends_it(self) -> None:
        self.ask("CONFIG SET lua-time-limit 0")
        for script in (
            "return ('x'):rep(1e9)",
            "local s = 'x' while true do s = s .. s end",
            "return #table.concat({('x'):rep(6e7), ('x'):rep(6e7)})",
            "return ('x'):rep(1e5):gsub('x', ('y'):rep(1e4))",
            "pcall(string.rep, 'x', 1e9) return 1",
        ):
            with self.subTest(script):
                self.assertIn("ERR not enough memory", str(self.eval(script)))
        self.assertEqual(self.eval("return 1"), 1)


class ConversionTest(ScriptTest):
    def test_a_script_may_ask_for_resp3(self) -> None:
        script = "redis.setresp(3) return {type(redis.call('get', 'k')), redis.call('acl', 'x')}"
        self.assertIn("ERR", str(self.eval(script)))
        self.eval("redis.setresp(3) return 1")
        self.assertEqual(self.eval("return tostring(redis.call('get', 'k'))"), b"false")

    def test_each_type_of_reply_comes_back_as_it_was(self) -> None:
        self.talk.instance.config.enable_debug_command = "yes"
        self.ask("DEBUG SET-DISABLE-DENY-SCRIPTS 1")
        for kind in ("string", "integer", "double", "bignum", "null", "set", "map", "verbatim", "true",
                     "false"):  # fmt: skip
            self.talk("HELLO", 3)
            plain_reply = encode_reply(self.talk("DEBUG", "PROTOCOL", kind), 3)
            plain_in_2 = encode_reply(self.talk("DEBUG", "PROTOCOL", kind), 2)
            script = f"redis.setresp(3) return redis.call('debug', 'protocol', '{kind}')"
            in_2 = f"return redis.call('debug', 'protocol', '{kind}')"
            with self.subTest(kind):
                self.assertEqual(encode_reply(self.talk("EVAL", script, 0), 3), plain_reply)
                self.assertEqual(encode_reply(self.talk("EVAL", script, 0), 2), plain_in_2)
                self.assertEqual(encode_reply(self.talk("EVAL", in_2, 0), 2), plain_in_2)
        self.ask("DEBUG SET-DISABLE-DENY-SCRIPTS 0")
        script = "return redis.call('debug', 'protocol', 'null')"
        self.assertIn("not allowed from script", str(self.eval(script)))

    def test_types_of_resp3_can_be_returned(self) -> None:
        self.talk("HELLO", 3)
        for script, expected in (
            ("return {big_number = '123'}", BigNumber(b"123")),
            ("return {verbatim_string = {string = 'x', format = 'txt'}}", Verbatim("x")),
            ("return {double = 0.5}", 0.5),
            ("return {map = {a = 1}}", {b"a": 1}),
            ("return {set = {a = true}}", frozenset((b"a",))),
            ("return {ok = 'a'}", SimpleString(b"a")),
        ):
            with self.subTest(script):
                reply = self.talk("EVAL", script, 0)
                self.assertEqual((reply, type(reply)), (expected, type(expected)))

    def test_a_reply_that_never_ends_is_refused(self) -> None:
        self.assertEqual(self.eval("local t = {} t[1] = t return t"), "ERR reached lua stack limit")

    def test_a_fault_of_ours_is_no_error_of_the_script(self) -> None:
        with (
            mock.patch.object(machine, "to_reply", mock.Mock(side_effect=ValueError)),
            self.assertLogs("kvdb", "ERROR"),
        ):
            self.assertEqual(self.eval("return 1"), "ERR internal error")
        self.assertIsNone(self.talk.instance.scripts.running)
        self.assertEqual(self.eval("return 1"), 1)
        self.assertIsInstance(self.talk("EVAL", "error('x')", 0), CommandError)
