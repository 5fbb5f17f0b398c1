"""Any Python object as a value. Reading runs code of whoever wrote it: only if you trust every writer.

from kvdb.unsafe_pickle import PICKLE

db = kvdb.Client(serializer=PICKLE)
"""

from __future__ import annotations

import pickle
import re
from typing import Any, Final

from kvdb.client.serializers import Serializer

_NUMBER: Final = re.compile(rb"-?[0-9]{1,20}")
_MOST: Final = 2**63  # what incr() can count to


def _dump(value: Any) -> bytes:
    is_counter = type(value) is int and -_MOST <= value < _MOST
    return b"%d" % value if is_counter else pickle.dumps(value)


def _load(data: bytes) -> Any:
    # No pickle is a number in decimal digits; what incr() has written is.
    return int(data) if _NUMBER.fullmatch(data) else pickle.loads(data)


PICKLE: Final[Serializer[Any]] = Serializer("pickle", _dump, _load)
"""Whole numbers are stored in decimal digits, so that they count with incr()."""
