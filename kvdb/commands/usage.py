"""Reads a command's usage line, such as `key value [NX | XX] [EX seconds | PX milliseconds]`.

Lower-case words are arguments, upper-case words are typed as they stand, `[...]` may be left
out, `|` separates choices, `...` after a word or a bracket means "or more of it".
From one line follow the arity, the help and the argument tree that redis-cli draws hints from.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass
class Argument:
    """One argument of a command, as COMMAND DOCS describes it."""

    name: str = ""
    token: str = ""  # the word that is typed as it stands, if there is one
    optional: bool = False
    repeated: bool = False
    choices: bool = False  # exactly one of `parts`, else all of them in their order
    parts: list[Argument] = field(default_factory=list)

    @property
    def least(self) -> int:
        """The smallest number of words that this can stand for."""
        if self.optional:
            return 0
        if not self.parts:
            return bool(self.token) + bool(self.name)
        counts = [part.least for part in self.parts]
        return bool(self.token) + (min(counts) if self.choices else sum(counts))

    @property
    def most(self) -> int | None:
        """The greatest number of words, or None if there is no bound.

        Options with words of their own have none: one too many is a syntax error, which the
        handler finds, and not a wrong number of arguments.
        """
        if self.repeated or (self.optional and self._has_token):
            return None
        if not self.parts:
            return bool(self.token) + bool(self.name)
        counts = [part.most for part in self.parts]
        if any(count is None for count in counts):
            return None
        known = [count for count in counts if count is not None]
        return bool(self.token) + (max(known) if self.choices else sum(known))

    @property
    def _has_token(self) -> bool:
        return bool(self.token) or any(part._has_token for part in self.parts)


def parse_usage(usage: str) -> tuple[list[Argument], int, int | None]:
    """Return the arguments, and the least and greatest number of words (None: no bound)."""
    block = _parse_block(re.findall(r"\[|\]|\||\.\.\.|[^\s\[\]|]+", usage))
    plain = not (block.choices or block.name or block.token)
    return (block.parts if plain else [block]), block.least, block.most


def _parse_block(words: list[str]) -> Argument:
    """Read up to the closing bracket, or to the end; what was read is taken off the list."""
    choices: list[list[Argument]] = [[]]
    repeated = False
    while words:
        word = words.pop(0)
        current = choices[-1]
        if word == "]":
            break
        if word == "[":
            inner = _parse_block(words)
            inner.optional = True
            current.append(inner)
        elif word == "|":
            choices.append([])
        elif word == "...":
            repeated = True
        elif word.isupper():
            current.append(Argument(token=word))
        elif current and current[-1].token and not (current[-1].name or current[-1].optional):
            current[-1].name = word
        else:
            current.append(Argument(name=word))
    blocks = [_one_argument(parts) for parts in choices]
    block = Argument(parts=blocks, choices=True) if len(blocks) > 1 else blocks[0]
    block.repeated = repeated
    return block


def _one_argument(parts: list[Argument]) -> Argument:
    return parts[0] if len(parts) == 1 and not parts[0].optional else Argument(parts=parts)
