"""Makes a function of a program's text."""

from __future__ import annotations

from typing import Any

from kvdb.lua.codegen import CodeGenerator
from kvdb.lua.lexer import LuaSyntaxError
from kvdb.lua.parser import parse
from kvdb.lua.runtime import Runtime
from kvdb.lua.values import Function


def load(runtime: Runtime, source: bytes, chunk: str) -> Function:
    """Return a program as a function. `chunk` is what errors call it. Raises LuaSyntaxError."""
    generator = CodeGenerator(chunk)
    try:
        code = generator.generate(parse(source, chunk))
    except RecursionError:  # of the parser
        raise LuaSyntaxError(f"{chunk}:1: chunk has too many syntax levels") from None
    namespace: dict[str, Any] = runtime.namespace()
    namespace |= {"PLACES": generator.places, "CHUNK": chunk}
    exec(code, namespace)
    main: Function = namespace["main"]
    return main
