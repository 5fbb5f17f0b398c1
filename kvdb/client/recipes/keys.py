"""Keys of cached functions: made of their names and arguments, the same in every process."""

from __future__ import annotations

import enum
import hashlib
import inspect
import string
from collections.abc import Callable, Iterable
from typing import Any, Final

from kvdb.client.recipes.limits import name_of_function

LONGEST_READABLE: Final = 200
"""Characters of arguments; what is longer appears in a key as its SHA-256."""

_SAME_EVERYWHERE: Final = frozenset((
    "builtins.NoneType", "builtins.bool", "builtins.int", "builtins.float", "builtins.str",
    "builtins.bytes", "decimal.Decimal", "fractions.Fraction", "uuid.UUID", "datetime.date",
    "datetime.timedelta",
))  # fmt: skip
"""The types whose repr() is the same in every process and tells values apart."""

_WITH_ZONE: Final = frozenset(("datetime.datetime", "datetime.time"))
_ZONES: Final = frozenset(("builtins.NoneType", "datetime.timezone", "zoneinfo.ZoneInfo"))


def text_of(value: object) -> str:
    """Return a text that stands for an argument: equal for equal ones, in every process.

    Takes None, bool, int, float, str, bytes, Decimal, Fraction, UUID, dates, times (with a timezone
    or ZoneInfo), members of an Enum, and lists, tuples, sets and dicts of them. Raises TypeError for
    everything else, subclasses of these included: there is no telling what makes two of them equal.
    """
    kind = _full_name(type(value))
    if kind in _SAME_EVERYWHERE:
        return repr(value)
    if kind in _WITH_ZONE and _full_name(type(value.tzinfo)) in _ZONES:  # type: ignore[attr-defined]
        return repr(value)
    if isinstance(value, enum.Enum):
        return f"{kind}.{value.name}"
    if type(value) in (list, tuple):
        opening, closing = "[]" if type(value) is list else "()"
        return f"{opening}{_texts_of(value)}{closing}"  # type: ignore[arg-type]
    if type(value) in (set, frozenset):
        return "{" + ", ".join(sorted(map(text_of, value))) + "}"  # type: ignore[call-overload]
    if type(value) is dict:
        pairs = sorted(f"{text_of(key)}: {text_of(each)}" for key, each in value.items())
        return "{:" + ", ".join(pairs) + "}"
    raise TypeError(
        f"a {kind} as an argument of a cached function: give it a key=, say 'user:{{user.id}}'"
    )


def _texts_of(values: Iterable[object]) -> str:
    return ", ".join(map(text_of, values))


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


class Namer:
    """Makes the keys and tags of calls of a function.

    A key is, by default, the function's module and qualified name and its arguments, defaults
    included: `f(1)` and `f(x=1)` are the same call. Otherwise a format string ("user:{id}") of the
    parameters, or a function of the arguments. Tags are format strings.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        key: str | Callable[..., str] | None,
        tags: str | Iterable[str],
    ) -> None:
        """Raises ValueError if a format string names a parameter that there is not."""
        self._function_name = name_of_function(function)
        self._signature = inspect.signature(function)
        self._key = key
        self._tags = (tags,) if isinstance(tags, str) else tuple(tags)
        for text in (*self._tags, *([key] if isinstance(key, str) else [])):
            self._check(text)

    def _check(self, text: str) -> None:
        for _, field, _, _ in string.Formatter().parse(text):
            name = (field or "").partition(".")[0].partition("[")[0]
            if field is not None and name not in self._signature.parameters:
                raise ValueError(f"{text!r}: {self._function_name} has no parameter {name!r}")

    def names(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, list[str]]:
        """Return the key of a call and its tags.

        Raises TypeError if the function cannot be called that way, or as text_of() does.
        """
        bound = self._signature.bind(*args, **kwargs)
        bound.apply_defaults()
        tags = [tag.format(**bound.arguments) for tag in self._tags]
        if isinstance(self._key, str):
            return self._key.format(**bound.arguments), tags
        if self._key is None:
            text = _texts_of(bound.arguments.values())
            if len(text) > LONGEST_READABLE:
                text = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
            return f"{self._function_name}({text})", tags
        key = self._key(*args, **kwargs)
        if not isinstance(key, str):
            raise TypeError(f"key= has to return a str, not a {type(key).__name__}")
        return key, tags
