"""Redis's own format (RDB), as far as strings go: DUMP, RESTORE, files, replicas.

A string begins with its length, of which the two highest bits of its first byte say how it
stands there: in 6 bits, in 14, in 4 or 8 bytes of its own, or that what follows is not text but
a number, or compressed with LZF.
"""

from kvdb.rdb.crc64 import crc64
from kvdb.rdb.payloads import WrongChecksum, dump, load
from kvdb.rdb.strings import BadFormat, TooLong, decompress, encode_length, encode_string

__all__ = [
    "BadFormat",
    "TooLong",
    "WrongChecksum",
    "crc64",
    "decompress",
    "dump",
    "encode_length",
    "encode_string",
    "load",
]
