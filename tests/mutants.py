"""Does a test fail when the code is wrong? A mutation tester: `make mutants`.

    python -m tests.mutants [FILE ...] [--sample N] [--seed N] [--jobs N] [--timeout SECONDS]

    FILE       source files below kvdb/; without any, those of DEFAULT
    --sample   how many mutants to test, spread evenly over the files by their size (300)
    --seed     chooses the same sample again
    --jobs     mutants tested at a time (2)
    --timeout  seconds for a mutant; else 3 times what its tests take without it, and 10 more
    --list     print the mutants there are, and test none
    --verbose  print a line for the killed ones, too

A mutant is a copy of kvdb with one small mistake in it: a `<` made `<=`, a condition negated, a
statement left out. If some test fails or takes too long, it is killed. Each survivor is
a line of the output and a question: is a test missing, or does the mistake change nothing that
anybody could see? The latter kind is common, so 100 % is not the aim.

A mutant is tested with the test modules that call its function, fastest first; which ones these
are is measured, once for each state of the sources, and kept in the folder for temporary files.
What a test runs in another process is not seen by that, hence END_TO_END.

All this works on copies, made at the start: the project may be edited meanwhile.
"""

from __future__ import annotations

import _thread
import argparse
import ast
import concurrent.futures
import contextlib
import copy
import faulthandler
import hashlib
import itertools
import json
import os
import queue
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import types
import unittest
import warnings
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

ROOT = Path(__file__).resolve().parent.parent
COPIED = ("kvdb", "tests", "README.md")
"""What the tests need."""

DEFAULT = (
    "kvdb/store/*.py",
    "kvdb/persistence/*.py",
    "kvdb/commands/session.py",
    "kvdb/server*.py",
    "kvdb/protocols/*.py",
)
END_TO_END = ("tests.test_cli", "tests.test_crash", "tests.test_every_port")
"""Modules that start a server in another process: they come last for every mutant."""

MOST_MEMORY = 4 << 30
"""Bytes for a process of tests: a loop that a mutant made endless may append to a list."""

_PATIENCE = 120.0  # seconds for one test module without a mutant, while its calls are counted

# How a process of tests ends, beside 0. The watchdog of faulthandler ends it with 1.
_FAILED, _TOO_LATE = 3, 1

T = TypeVar("T")
R = TypeVar("R")
Outcome = Literal["survived", "failed", "timed out"]

# --- finding mutants ----------------------------------------------------------------------

REPLACED: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
    ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.And: ast.Or, ast.Or: ast.And, ast.Add: ast.Sub, ast.Sub: ast.Add,
}  # fmt: skip
NEGATED_BY_THAT = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)

ORDINARY = (ast.Expr, ast.Assign, ast.AugAssign, ast.AnnAssign, ast.Delete)
REMOVABLE = (*ORDINARY, ast.Return, ast.Raise, ast.Break, ast.Continue)
CALLS = (ast.Call, ast.Await, ast.Yield, ast.YieldFrom)
HARMLESS = re.compile(
    r"bool|bytes|dict|float|int|len|list|max|min|set|sorted|str|sum"
    r"|itertools\.count|re\.compile|[A-Z]\w*"
)
"""Functions, and classes, that change nothing when they are called: they return something."""


@dataclass(frozen=True)
class Mutant:
    """A mistake: `after` stands in a file in place of `before`."""

    file: str  # with slashes, from the project's folder on
    position: str  # "line:column", as editors count
    function: str
    scope: str  # "file:first line of the function", or "file:0" outside of any
    kind: str
    start: int  # in bytes
    before: bytes
    after: bytes

    def __str__(self) -> str:
        before, after = _one_line(self.before), _one_line(self.after)
        return f"{self.file}:{self.position}  {self.function}  {self.kind}: {before} -> {after}"

    def applied_to(self, source: bytes) -> bytes:
        return source[: self.start] + self.after + source[self.start + len(self.before) :]


def _one_line(text: bytes) -> str:
    line = " ".join(text.decode().split())
    return line if len(line) <= 80 else f"{line[:60]} ... {line[-15:]}"


class Finder(ast.NodeVisitor):
    """Collects in `found` what mistakes could be made in a file; not all of them change it."""

    def __init__(self, file: str, source: bytes) -> None:
        self.found: list[Mutant] = []
        self._file, self._source = file, source
        lengths = map(len, source.splitlines(keepends=True))
        self._line_starts = list(itertools.accumulate(lengths, initial=0))
        self._names: list[str] = []  # of the classes and functions around
        self._scope = f"{file}:0"
        self.visit(ast.parse(source))

    def visit(self, node: ast.AST) -> None:
        if _is_left_out(node):
            return
        self._propose(node)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            self._visit_function(node)
        elif isinstance(node, ast.ClassDef):
            self._names.append(node.name)
            self.generic_visit(node)
            self._names.pop()
        else:
            self.generic_visit(node)

    def generic_visit(self, node: ast.AST) -> None:
        """Visit what is in a node, but for annotations: nothing looks at them."""
        for field, value in ast.iter_fields(node):
            if isinstance(value, list):
                self._visit_list(value)
            elif isinstance(value, ast.AST) and field not in ("annotation", "returns"):
                self.visit(value)

    def _visit_list(self, nodes: Sequence[Any]) -> None:
        for first, second in itertools.pairwise(nodes):
            both = (first, second)
            if all(isinstance(node, ORDINARY) and not _is_left_out(node) for node in both):
                self._swap(first, second)
        for node in nodes:
            if isinstance(node, ast.AST):  # others are names, or the None in `{**settings}`
                self.visit(node)

    def _visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for outside in (*node.decorator_list, node.args):  # evaluated where the function is made
            self.visit(outside)
        if node.name == "check":
            return  # it tests the rest
        scope = self._scope
        # Where the code object begins, by which a profile function knows it.
        first_line = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        self._scope = f"{self._file}:{first_line}"
        self._names.append(node.name)
        self._visit_list(node.body)
        self._names.pop()
        self._scope = scope

    def _propose(self, node: ast.AST) -> None:
        if isinstance(node, REMOVABLE):
            self._add(node, "removed", "pass")
        match node:
            case ast.Compare():
                for place, operator in enumerate(node.ops):
                    operators: list[Any] = list(node.ops)
                    operators[place] = REPLACED[type(operator)]()
                    changed = ast.Compare(node.left, operators, node.comparators)
                    self._add(node, "comparison", ast.unparse(changed))
            case ast.Constant(value=bool() as value):
                self._add(node, "constant", str(not value))
            case ast.Constant(value=int() as value):
                self._add(node, "constant", str(value + 1))
            case ast.BoolOp() | ast.BinOp() | ast.AugAssign() if type(node.op) in REPLACED:
                other: Any = copy.copy(node)
                other.op = REPLACED[type(node.op)]()
                self._add(node, "operator", ast.unparse(other))
            case ast.If() | ast.While() | ast.IfExp():
                self._negate(node.test)
            case ast.comprehension():
                for condition in node.ifs:
                    self._negate(condition)

    def _negate(self, test: ast.expr) -> None:
        match test:
            case ast.Constant():
                pass  # `while True`
            case ast.Compare(ops=[operator]) if isinstance(operator, NEGATED_BY_THAT):
                pass  # a mutant already
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                self._add(test, "condition", f"({ast.unparse(operand)})")
            case _:
                self._add(test, "condition", f"not ({self._text(*self._span(test)).decode()})")

    def _swap(self, first: ast.stmt, second: ast.stmt) -> None:
        if not _are_independent(first, second):
            (start, first_end), (second_start, end) = self._span(first), self._span(second)
            between = self._text(first_end, second_start)
            after = self._text(second_start, end) + between + self._text(start, first_end)
            self._add(first, "swapped", after.decode(), end)

    def _add(self, node: Any, kind: str, after: str, end: int | None = None) -> None:
        start, node_end = self._span(node)
        function = ".".join(self._names) or "<module>"
        position = f"{node.lineno}:{node.col_offset + 1}"
        place = (self._file, position, function, self._scope)
        before = self._text(start, end or node_end)
        self.found.append(Mutant(*place, kind, start, before, after.encode()))

    def _span(self, node: Any) -> tuple[int, int]:
        """Return where a node begins and ends in the file. Its own offsets are in bytes, too."""
        return (
            self._line_starts[node.lineno - 1] + node.col_offset,
            self._line_starts[node.end_lineno - 1] + node.end_col_offset,
        )

    def _text(self, start: int, end: int) -> bytes:
        return self._source[start:end]


def _is_left_out(node: ast.AST) -> bool:
    """Tell whether no test can be asked to notice a mistake in this."""
    match node:
        case ast.JoinedStr():
            return True  # Python 3.11 does not know where the expressions in it stand
        case ast.Assert() | ast.AnnAssign(value=None) | ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Expr(value=ast.Constant()):  # a docstring, or `...`
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="log")))):
            return True
        case ast.Assign(targets=[ast.Name(id="__slots__")]):
            return True
    return False


def _are_independent(first: ast.stmt, second: ast.stmt) -> bool:
    """Tell whether the order of two statements cannot matter, but to another thread."""
    (writes, reads, calls), (writes_too, reads_too, calls_too) = _effects(first), _effects(second)
    if (calls and calls_too) or writes & (reads_too | writes_too) or writes_too & reads:
        return False
    # What a call reads and writes is not known, but for local variables: it leaves them alone.
    beside_a_call = (writes_too | reads_too if calls else set()) | (
        writes | reads if calls_too else set()
    )
    return all(name.isidentifier() for name in beside_a_call)


def _effects(statement: ast.stmt) -> tuple[set[str], set[str], bool]:
    """Return the names and attributes that a statement writes and reads; whether it calls."""
    writes: set[str] = set()
    reads: set[str] = set()
    calls = False
    for node in ast.walk(statement):
        harmless = isinstance(node, ast.Call) and HARMLESS.fullmatch(ast.unparse(node.func))
        calls |= isinstance(node, CALLS) and not harmless
        if isinstance(node, ast.Name | ast.Attribute | ast.Subscript):
            name = ast.unparse(node.value if isinstance(node, ast.Subscript) else node)
            (reads if isinstance(node.ctx, ast.Load) else writes).add(name)
    if isinstance(statement, ast.AugAssign):
        reads |= writes
    return writes, reads, calls


def mutants_of(file: str, source: bytes) -> Generator[Mutant, None, None]:
    """Yield mutants of a file from top to bottom: those that compile, to something of their own."""
    seen = {_fingerprint(source)}
    for mutant in sorted(Finder(file, source).found, key=lambda mutant: mutant.start):
        with contextlib.suppress(SyntaxError):
            fingerprint = _fingerprint(mutant.applied_to(source))
            if fingerprint not in seen:
                seen.add(fingerprint)
                yield mutant


def _fingerprint(source: bytes) -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # such as: "is" with a literal
        return hash(_instructions(compile(source, "mutant", "exec", dont_inherit=True)))


def _instructions(code: types.CodeType) -> tuple[object, ...]:
    """Return what a code object does, without the line numbers that == would compare."""
    constants = [
        _instructions(constant) if isinstance(constant, types.CodeType) else repr(constant)
        for constant in code.co_consts
    ]
    names = (code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars)
    return code.co_code, code.co_exceptiontable, tuple(constants), names


# --- running tests ------------------------------------------------------------------------


class Workspace:
    """A copy of the project in which one mutant at a time is tested."""

    def __init__(self, folder: Path, original: Path) -> None:
        self._root, self._output = folder / "project", folder / "output"
        shutil.copytree(original, self._root)
        temporary = folder / "tmp"  # what killed tests leave behind goes with us
        temporary.mkdir()
        # Without bytecode files none can be taken for that of another mutant.
        self._environment = os.environ | {
            "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0", "TMPDIR": str(temporary)
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = False

    def test(self, tests: Tests, mutant: Mutant | None = None, limit: float = inf) -> Outcome:
        """Run tests, with a mistake in the sources, until one fails or the time is up."""
        if mutant is None:
            return self._test(tests, limit)
        file = self._root / mutant.file
        source = file.read_bytes()
        file.write_bytes(mutant.applied_to(source))
        try:
            return self._test(tests, limit)
        finally:
            file.write_bytes(source)

    def _test(self, tests: Tests, limit: float) -> Outcome:
        arguments = [f"{module}={allowed(seconds):.1f}" for module, seconds in tests.items()]
        status = self._run("--run", *arguments, limit=min(limit, allowed(sum(tests.values()))))
        outcomes: dict[int, Outcome] = {0: "survived", _TOO_LATE: "timed out"}
        return outcomes.get(status, "failed")

    def count_calls(self, module: str) -> dict[str, int]:
        """Return how often a test module calls which functions of kvdb."""
        self._run("--cover", module, limit=_PATIENCE)
        try:
            calls: dict[str, int] = json.loads(self._output.read_bytes().splitlines()[-1])
        except (IndexError, ValueError):
            return {}
        return calls

    def _run(self, *arguments: str, limit: float) -> int:
        """Run this program in another mode, and end whatever it has started."""
        if self._stopped:
            return _TOO_LATE
        with open(self._output, "wb") as output:  # a pipe would stay open in what it has started
            process = self._process = subprocess.Popen(
                [sys.executable, "-B", "-m", "tests.mutants", *arguments],
                cwd=self._root, env=self._environment, start_new_session=True,
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        try:
            return process.wait(limit)
        except subprocess.TimeoutExpired:
            return _TOO_LATE
        finally:
            self._kill()
            process.wait()

    def stop(self) -> None:
        """End what runs in here, and let nothing more begin."""
        self._stopped = True
        self._kill()

    def _kill(self) -> None:
        process, self._process = self._process, None  # its number may be given to another one
        if process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def allowed(seconds: float) -> float:
    """Return how long that may take with a mutant that takes so long without."""
    return 3 * seconds + 10


def run_tests(modules_and_limits: Sequence[str]) -> None:
    """Run test modules in this process, which ends at once when a test fails or takes too long.

    Quicker than `python -m unittest -f`: a module is not imported until it is its turn, one
    that hangs does not use up the time of all, and nobody waits for threads of a failed test.
    """
    resource.setrlimit(resource.RLIMIT_DATA, (MOST_MEMORY, MOST_MEMORY))
    for module_and_limit in modules_and_limits:
        module, _, limit = module_and_limit.partition("=")
        faulthandler.dump_traceback_later(float(limit), exit=True)  # holds for our exit, too
        try:
            suite = unittest.defaultTestLoader.loadTestsFromName(module)
            succeeded = unittest.TextTestRunner(failfast=True).run(suite).wasSuccessful()
        except BaseException:  # a module that cannot be imported
            succeeded = False
        if not succeeded:
            os._exit(_FAILED)


def print_calls(module: str) -> None:
    """Run a test module; print which functions of kvdb it calls, and how often, as JSON.

    A profile function sees calls alone, which costs far less than seeing every line.
    """
    seen: dict[int, list[Any]] = {}  # id of a code object, which takes long to hash -> it, calls

    def note(frame: types.FrameType, event: str, _: object) -> None:
        if event == "call":
            code = frame.f_code
            entry = seen.get(id(code))
            if entry is None:
                seen[id(code)] = [code, 1]
            else:
                entry[1] += 1

    start = _thread.start_new_thread

    def start_noted(function: Callable[..., object], *arguments: Any) -> int:
        """Connections have threads that `threading` knows nothing of."""

        def run(*given: Any) -> None:
            sys.setprofile(note)
            function(*given)

        return start(run, *arguments)

    _thread.start_new_thread = start_noted  # type: ignore[assignment]
    threading.setprofile(note)
    sys.setprofile(note)
    with contextlib.suppress(BaseException):
        unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromName(module))
    sys.setprofile(None)
    calls: dict[str, int] = {}
    for code, count in list(seen.values()):
        path = Path(code.co_filename)
        if path.is_relative_to(ROOT / "kvdb"):
            line = 0 if code.co_name == "<module>" else code.co_firstlineno
            scope = f"{path.relative_to(ROOT).as_posix()}:{line}"
            calls[scope] = calls.get(scope, 0) + count
    print(f"\n{json.dumps(calls)}", flush=True)
    os._exit(0)


# --- which tests --------------------------------------------------------------------------

Tests = dict[str, float]
"""Test modules in the order in which to run them, and the seconds that each takes."""


@dataclass
class Coverage:
    """How long each test module takes, and how often it calls which function ("file:line")."""

    seconds: Tests
    calls: dict[str, dict[str, int]]

    def tests_of(self, mutant: Mutant) -> Tests:
        """Return the tests that might notice a mistake, fastest first."""
        modules = [module for module, calls in self.calls.items() if mutant.scope in calls]
        modules.sort(key=self.seconds.__getitem__)
        modules += [m for m in END_TO_END if m in self.seconds and m not in modules]
        return {module: self.seconds[module] for module in modules}

    def is_called(self, mutant: Mutant) -> bool:
        return any(mutant.scope in calls for calls in self.calls.values())


def measure_coverage(original: Path, workspaces: Sequence[Workspace]) -> Coverage:
    """Run each test module twice and all in a row, or remember what the same sources gave."""
    digest = hashlib.sha256(sys.version.encode())
    for path in sorted(path for path in original.rglob("*") if path.is_file()):
        digest.update(b"%b\0%b\0" % (str(path.relative_to(original)).encode(), path.read_bytes()))
    cache = Path(tempfile.gettempdir()) / f"kvdb-mutants-{digest.hexdigest()[:16]}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        return Coverage(**json.loads(cache.read_bytes()))
    modules = [f"tests.{path.stem}" for path in sorted((original / "tests").glob("test_*.py"))]
    print(f"measuring which functions {len(modules)} test modules call", flush=True)
    coverage = Coverage({}, {})
    with contextlib.closing(in_parallel(workspaces, modules, measure_module)) as measures:
        for module, (outcome, seconds, calls) in measures:
            if outcome == "survived":
                coverage.seconds[module], coverage.calls[module] = seconds, calls
            else:
                print(f"{module} fails without a mutant: it is left out", flush=True)
    if workspaces[0].test(coverage.seconds) != "survived":
        sys.exit("the test modules disturb each other: in one process some fail without a mutant")
    if len(coverage.seconds) == len(modules):
        cache.write_text(json.dumps(vars(coverage)), encoding="utf-8")
    return coverage


def measure_module(workspace: Workspace, module: str) -> tuple[Outcome, float, dict[str, int]]:
    """Return whether a test module succeeds, the seconds it takes and what it calls."""
    started = time.monotonic()
    outcome = workspace.test({module: _PATIENCE}, limit=_PATIENCE)
    return outcome, time.monotonic() - started, workspace.count_calls(module)


def in_parallel(
    workspaces: Sequence[Workspace], things: Sequence[T], work: Callable[[Workspace, T], R]
) -> Generator[tuple[T, R], None, None]:
    """Do some work on each thing, one in each workspace at a time; yield each with its result."""
    free: queue.SimpleQueue[Workspace] = queue.SimpleQueue()
    for workspace in workspaces:
        free.put(workspace)

    def work_on(thing: T) -> R:
        workspace = free.get()
        try:
            return work(workspace, thing)
        finally:
            free.put(workspace)

    with concurrent.futures.ThreadPoolExecutor(len(workspaces)) as pool:
        try:
            futures = {pool.submit(work_on, thing): thing for thing in things}
            for future in concurrent.futures.as_completed(futures):
                yield futures[future], future.result()
        except BaseException:  # somebody loses patience: the pool's end shall not be a long wait
            pool.shutdown(wait=False, cancel_futures=True)
            for workspace in workspaces:
                workspace.stop()
            raise


# --- the program --------------------------------------------------------------------------


class Parser(argparse.ArgumentParser):
    """Answers wrong usage with one sentence."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}\n")


def main() -> None:
    given = parse_arguments()
    if given.run:
        run_tests(given.run)
    elif given.cover:
        print_calls(given.cover)
    else:
        try:
            test_or_list(given)
        except KeyboardInterrupt:
            sys.exit("interrupted")


def test_or_list(given: argparse.Namespace) -> None:
    """Work on a copy of the project; whoever tells us to end waits until it is removed."""
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="kvdb-mutants-") as folder:
        original = Path(folder) / "original"
        copy_project(original)
        mutants = [
            m for file in given.files for m in mutants_of(file, (original / file).read_bytes())
        ]
        if given.list:
            print(*mutants, f"{len(mutants)} mutants", sep="\n")
            return
        chosen = sample(mutants, given.sample, given.seed)
        print(f"{len(chosen)} of {len(mutants)} mutants, --seed {given.seed}", flush=True)
        workspaces = [Workspace(Path(folder) / str(job), original) for job in range(given.jobs)]
        coverage = measure_coverage(original, workspaces)
        test_all(chosen, coverage, workspaces, given)


def parse_arguments() -> argparse.Namespace:
    parser = Parser(prog="python -m tests.mutants", description="Tests the tests.")
    parser.add_argument("files", nargs="*", metavar="FILE", help="source files below kvdb/")
    parser.add_argument("--sample", type=positive, default=300, metavar="N", help="mutants to test")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), metavar="N")
    parser.add_argument("--jobs", type=positive, default=2, metavar="N", help="tested at a time")
    parser.add_argument("--timeout", type=positive, default=inf, metavar="SECONDS")
    parser.add_argument("--list", action="store_true", help="list the mutants, test none")
    parser.add_argument("--verbose", action="store_true", help="show the killed ones, too")
    parser.add_argument("--cover", metavar="MODULE", help="print what a test module calls")
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if not given.files:
        given.files = [path for pattern in DEFAULT for path in ROOT.glob(pattern)]
    files = {Path(file).resolve() for file in given.files}
    for file in files:
        if file.suffix != ".py" or not file.is_file() or not file.is_relative_to(ROOT / "kvdb"):
            parser.error(f"{file} is not a Python file below {ROOT / 'kvdb'}")
    given.files = sorted(file.relative_to(ROOT).as_posix() for file in files)
    return given


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def copy_project(target: Path) -> None:
    """Copy what the tests need, as it is now."""
    target.mkdir()
    for name in COPIED:
        if (ROOT / name).is_dir():
            unwanted = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(ROOT / name, target / name, ignore=unwanted)
        else:
            shutil.copy(ROOT / name, target / name)


def sample(mutants: Sequence[Mutant], size: int, seed: int) -> list[Mutant]:
    """Return one from each of `size` equal slices, in any order: an early look is a fair one."""
    size = min(size, len(mutants))
    dice = random.Random(seed)
    bounds = [number * len(mutants) // size for number in range(size + 1)] if size else []
    chosen = [mutants[dice.randrange(*slice)] for slice in itertools.pairwise(bounds)]
    dice.shuffle(chosen)
    return chosen


def test_all(
    mutants: Sequence[Mutant],
    coverage: Coverage,
    workspaces: Sequence[Workspace],
    given: argparse.Namespace,
) -> None:
    """Test mutants; print the survivors, and a table even if somebody loses patience."""

    def test(workspace: Workspace, mutant: Mutant) -> Outcome:
        return workspace.test(coverage.tests_of(mutant), mutant, given.timeout)

    started = time.monotonic()
    outcomes: dict[Mutant, Outcome] = {}
    try:
        with contextlib.closing(in_parallel(workspaces, mutants, test)) as results:
            for mutant, outcome in results:
                outcomes[mutant] = outcome
                if outcome == "survived" or given.verbose:
                    shown = f"{outcome}: {mutant}" if given.verbose else str(mutant)
                    remark = "" if coverage.is_called(mutant) else "  (no test calls it)"
                    print(shown + remark, flush=True)
    finally:
        print_table(outcomes)
        print(f"\nTook {time.monotonic() - started:.0f} s.")


def print_table(outcomes: Mapping[Mutant, Outcome]) -> None:
    """Print by file how many mutants were killed."""
    files = sorted({mutant.file for mutant in outcomes})
    width = max(map(len, [*files, "total"]))
    print(f"\n{'file':{width}}  mutants   killed  survived  score")
    for file in [*files, ""]:
        found = [outcome for mutant, outcome in outcomes.items() if file in ("", mutant.file)]
        survived = found.count("survived")
        killed = len(found) - survived
        score = f"{100 * killed / len(found):.0f} %" if found else ""
        numbers = f"{len(found):7}  {killed:7}  {survived:8}  {score:>5}"
        print(f"{file or 'total':{width}}  {numbers}")
    print(f"{list(outcomes.values()).count('timed out')} of the killed ones took too long")


if __name__ == "__main__":
    main()
