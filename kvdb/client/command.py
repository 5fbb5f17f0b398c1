"""How a command is declared: once, for clients, asyncio clients and pipelines.

A declaration returns a `Command`: a request, and what makes a result of its reply. Whoever has
the method runs it: a client returns the result, an asyncio client something to be awaited, a
pipeline a `Later`. To a type checker `method` says so; at run time `implement` puts plain
functions in its place, which take no longer than written ones.
"""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, Generic, NamedTuple, ParamSpec, Self, TypeVar, overload

from kvdb.client.errors import Error

P = ParamSpec("P")
T = TypeVar("T")


class Command(NamedTuple, Generic[T]):
    """A request, and what its reply means."""

    request: list[bytes]
    """Its words; without any, no server is asked."""
    result: Callable[[Any], T]
    repeatable: bool = True
    """Whether it may be sent again when it is not known whether it was carried out."""


class Later(Generic[T]):
    """The result of a command in a pipeline: there is none before that was executed."""

    __slots__ = ("_result",)

    _result: T | Error

    @property
    def value(self) -> T:
        """The result. Raises the error that there was instead, or RuntimeError: not executed yet."""
        try:
            result = self._result
        except AttributeError:
            raise RuntimeError("the pipeline has not been executed yet") from None
        if isinstance(result, Error):
            raise result
        return result

    def settle(self, result: T | Error) -> None:
        """Say what it has become: the pipeline does."""
        self._result = result


class AtOnce:
    """What has its results at once."""


class Awaited:
    """What has to be awaited."""


class Collecting:
    """What collects commands."""


class method(Generic[P, T]):  # noqa: N801 (a decorator)
    """Declares a command of `Commands`."""

    def __init__(self, build: Callable[Concatenate[Any, P], Command[T]]) -> None:
        self.build = build
        self.__doc__ = build.__doc__

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: AtOnce, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, instance: Awaited, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, instance: Collecting, owner: type) -> Callable[P, Later[T]]: ...
    def __get__(self, instance: object | None, owner: type) -> object:
        return self

    def __call__(self, commands: Any, *arguments: P.args, **options: P.kwargs) -> Command[T]:
        """Return the command, to be run in some other way."""
        return self.build(commands, *arguments, **options)


C = TypeVar("C", bound=type)


def implement(cls: C) -> C:
    """Give a class a function for each command that it has inherited; `_run` carries it out."""
    for base in cls.__mro__:
        for name, declared in vars(base).items():
            if isinstance(declared, method) and not isinstance(vars(cls).get(name), Callable):  # type: ignore[arg-type]
                call = _function(declared.build, cls)
                setattr(
                    cls, name, _as_coroutine_function(call) if issubclass(cls, Awaited) else call
                )
    return cls


def _function(build: Callable[..., Command[Any]], cls: type) -> Callable[..., Any]:
    @functools.wraps(build)
    def call(self: Any, *arguments: Any, **options: Any) -> Any:
        return self._run(build(self, *arguments, **options))

    # What help() shows: `Command[int]` is what `build` returns, and not what the caller gets.
    returned = re.fullmatch(r"Command\[(.*)\]", call.__annotations__.get("return", ""))
    if returned is not None:
        shown = f"Later[{returned[1]}]" if issubclass(cls, Collecting) else returned[1]
        call.__annotations__ = {**call.__annotations__, "return": shown}
    del call.__wrapped__  # it would be asked in place of us
    call.__signature__ = inspect.signature(build).replace(  # type: ignore[attr-defined]
        return_annotation=call.__annotations__.get("return", inspect.Signature.empty)
    )
    return call


def _as_coroutine_function(call: Callable[..., Any]) -> Callable[..., Any]:
    """Have a function that returns a coroutine pass for a coroutine function: AsyncMock asks."""
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(call)
    import asyncio.coroutines

    call._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]
    return call
