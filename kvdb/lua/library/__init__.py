"""What a program can call: the standard library of Lua 5.1, and what Redis adds to it."""

from __future__ import annotations

from kvdb.lua.library.basic import basic_library
from kvdb.lua.library.cjson import cjson_library
from kvdb.lua.library.cmsgpack import cmsgpack_library
from kvdb.lua.library.mathematics import Random, bit_library, math_library, os_library
from kvdb.lua.library.packing import struct_library
from kvdb.lua.library.strings import string_library
from kvdb.lua.library.tables import table_library
from kvdb.lua.program import load
from kvdb.lua.runtime import Runtime
from kvdb.lua.values import ReadOnlyTable, Value


def install(runtime: Runtime, random: Random) -> None:
    """Give the programs of a runtime the libraries. No program can change them."""
    runtime.strings.update(string_library(runtime.meter, runtime.index))
    libraries: dict[bytes, dict[bytes, Value]] = {
        b"table": table_library(runtime.meter),
        b"math": math_library(random),
        b"bit": bit_library(),
        b"os": os_library(),
        b"cjson": cjson_library(runtime.meter),
        b"cmsgpack": cmsgpack_library(runtime.meter),
        b"struct": struct_library(runtime.meter),
    }
    names: dict[bytes, Value] = dict(
        basic_library(runtime, lambda source, chunk: load(runtime, source, chunk))
    )
    names |= {name: ReadOnlyTable(library) for name, library in libraries.items()}
    runtime.globals.update(names | {b"string": runtime.strings, b"_G": runtime.globals})
