"""Scenarios on whole values, as in curated_commands: bits, LCS, DUMP, and what newer servers have."""

from __future__ import annotations

SCENARIOS: dict[str, str] = {
    "bits": r"""
        SETBIT k 7 1
        SETBIT k abc 1
        SETBIT k -1 1
        SETBIT k 4294967296 1
        SETBIT k 1 x
        SETBIT k x x
        SETBIT k 1
        SETBIT k 1 1 1
        GETBIT k abc
        GETBIT k 4294967296
        GETBIT k 4294967295
        GETBIT k 9999999999999999999
        SET k foobar
        BITCOUNT k
        BITCOUNT k 0 0 FOO
        BITCOUNT k 0 0 BIT X
        BITCOUNT k x 0
        BITCOUNT k 0 x
        BITCOUNT k 0 0
        BITCOUNT k 1 1 bit
        BITCOUNT k 5 30 BIT
        BITCOUNT k -5 -1 BIT
        BITCOUNT k -1 -5
        BITCOUNT k 4 2
        BITCOUNT k -100 -50
        BITCOUNT k 0 -1 BYTE
        BITCOUNT missing
        BITPOS k 1
        BITPOS k 0
        BITPOS k 2
        BITPOS k x
        BITPOS k 1 2
        BITPOS k 1 2 -1 BIT
        BITPOS k 1 -100 100
        BITPOS k 1 x
        BITPOS k 1 0 x
        BITPOS k 1 0 1 FOO
        BITPOS k 1 0 FOO
        BITPOS k 1 0 1 BIT 3
        BITPOS missing 1
        BITPOS missing 0
        BITPOS missing 2
        SET ff "\xff\xff"
        BITPOS ff 0
        BITPOS ff 0 0
        BITPOS ff 0 1
        BITPOS ff 0 2
        BITPOS ff 0 0 -1
        BITPOS ff 0 0 -1 bit
        BITPOS ff 0 3 1
        SET zz "\x00\x00"
        BITPOS zz 1
        BITPOS zz 1 0 -1 BIT
        BITPOS zz 0 9 12 BIT
        BITPOS zz 0 9 12
        BITPOS ff 1 9 12 bit
        SET e ""
        BITPOS e 0
        BITPOS e 1
        BITCOUNT e
        BITOP and d k ff
        GET d
        BITOP or d k ff
        GET d
        BITOP xor d k ff missing
        GET d
        BITOP not d k
        GET d
        BITOP not d k ff
        BITOP foo d k
        BITOP and d missing
        EXISTS d
        BITOP not d missing
        BITOP not e2 e
        BITOP AND
        BITOP AND d
        COMMAND getkeys bitop and d a b
    """,
    "fields_of_bits": r"""
        SET k foobar
        BITFIELD k
        BITFIELD k get u8 0
        BITFIELD k get i8 0 set u8 0 255 incrby u8 0 10
        BITFIELD k overflow sat incrby u8 0 300 overflow fail incrby u8 0 300 incrby i4 #1 7
        BITFIELD k get u64 0
        BITFIELD k get u63 0
        BITFIELD k get i65 0
        BITFIELD k get u0 0
        BITFIELD k get x8 0
        BITFIELD k get u8 -1
        BITFIELD k get u8 4294967289
        BITFIELD k get u8 4294967288
        BITFIELD k get u8 #x
        BITFIELD k get u8 #-1
        BITFIELD k get u8 #536870911
        BITFIELD k get u8 #536870912
        BITFIELD k get u8
        BITFIELD k set u8 0
        BITFIELD k set u8 0 x
        BITFIELD k set u8 x 0
        BITFIELD k overflow foo
        BITFIELD k overflow
        BITFIELD k overflow sat
        BITFIELD k foo u8 0
        BITFIELD k get u8 0 overflow
        BITFIELD missing get u8 0
        EXISTS missing
        BITFIELD missing get u8 0 set u8 100 1
        STRLEN missing
        BITFIELD missing2 incrby u8 0 0
        STRLEN missing2
        BITFIELD_RO k get u8 0 get i8 #1
        BITFIELD_RO k set u8 0 1
        BITFIELD_RO k overflow sat
        BITFIELD_RO k overflow sat get u8 0
        BITFIELD_RO k
        BITFIELD_RO
        BITFIELD_RO missing get u8 0
        BITFIELD m9 overflow fail set u8 0 256
        EXISTS m9
        BITFIELD m9 overflow sat set u8 0 256 get u8 0
        BITFIELD m9 overflow wrap set u8 0 257 get u8 0 set u8 0 -1
        BITFIELD m9 set i8 0 200 get i8 0
        BITFIELD m9 overflow sat set i8 0 200 set i8 0 -200 get i8 0
        BITFIELD m9 overflow fail set i8 0 200 set u8 0 -1 get i8 0
        BITFIELD m9 overflow sat set u8 0 -1 get u8 0
        BITFIELD m9 overflow sat set u8 0 9223372036854775807 incrby u8 0 -9223372036854775808
        BITFIELD m9 set i64 0 9223372036854775807 incrby i64 0 1 overflow sat incrby i64 0 9223372036854775807
        BITFIELD m9 set u63 0 9223372036854775807 incrby u63 0 1 overflow sat incrby u63 0 9223372036854775807
        BITFIELD m9 set u63 0 -1 get u63 0
        BITFIELD m9 overflow sat set u63 0 -1 get u63 0
        BITFIELD m9 overflow fail incrby u2 100 -1 incrby u2 100 1
        BITFIELD m9 incrby i8 3 -9223372036854775808
        BITFIELD m9 overflow sat incrby i8 3 -9223372036854775808 incrby i64 5 -9223372036854775808
    """,
    "longest_common_subsequence": r"""
        LCS a b
        SET a ohmytext
        SET b mynewtext
        LCS a b
        LCS a b len
        LCS a b idx
        LCS a b idx minmatchlen 4
        LCS a b idx minmatchlen 4 withmatchlen
        LCS a b idx withmatchlen
        LCS a b withmatchlen
        LCS a b minmatchlen 3
        LCS a b minmatchlen -3 idx
        LCS a b minmatchlen x
        LCS a b minmatchlen
        LCS a b foo
        LCS a b len idx
        LCS a b len len
        LCS a
        LCS a missing
        LCS a missing len
        LCS a missing idx
        LCS a a idx
        COMMAND getkeys lcs a b
    """,
    "swapped_databases": r"""
        SET a 1
        SET b 2 ex 1000
        SWAPDB 0 1
        SWAPDB 0 0
        SWAPDB x 0
        SWAPDB 0 x
        SWAPDB 0 16
        SWAPDB 16 0
        SWAPDB -1 0
        SWAPDB 99999999999999999999 0
        SWAPDB 0
        SWAPDB 0 1
        GET a
        @2 set a x
        WATCH a
        @2 swapdb 0 1
        MULTI
        GET a
        EXEC
        WATCH nothing
        @2 swapdb 0 1
        MULTI
        GET a
        EXEC
        TTL b
        DBSIZE
        SELECT 1
        DBSIZE
        KEYS *
        SELECT 0
    """,
    "dumped_values": r"""
        SET a 12
        SET b -300
        SET c 70000
        SET d aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
        SET e ''
        SET f hello
        SET g 2147483648
        SET h 127
        SET i 128
        DUMP a
        DUMP b
        DUMP c
        DUMP d
        DUMP e
        DUMP f
        DUMP g
        DUMP h
        DUMP i
        DUMP missing
        RESTORE x 0 foo
        RESTORE x 0 ''
        RESTORE x -1 foo
        RESTORE x y foo
        RESTORE x 0
        RESTORE x 0 "\x00\x05hello\x09\x00\xb3\x80\x8e\xba1\xb2C\xbb"
        RESTORE a 0 "\x00\x05hello\x09\x00\xb3\x80\x8e\xba1\xb2C\xbb"
        RESTORE a 0 bad
        RESTORE a 0 bad FOO
        RESTORE a 0 bad IDLETIME
        RESTORE a 0 bad IDLETIME x
        RESTORE a 0 bad IDLETIME -1
        RESTORE a 0 bad FREQ 256
        RESTORE a 0 bad FREQ -1
        RESTORE a 0 bad FREQ x
        RESTORE a 0 bad FREQ 1 IDLETIME 1
        RESTORE a 0 bad IDLETIME 1 FREQ 1
        RESTORE a 0 bad REPLACE ABSTTL
        RESTORE a -1 bad REPLACE
        RESTORE a x bad REPLACE
        RESTORE a x bad
        RESTORE a 1000 "\x00\x05hello\x09\x00\xb3\x80\x8e\xba1\xb2C\xbb" REPLACE ABSTTL
        EXISTS a
        RESTORE missing 1000 "\x00\x05hello\x09\x00\xb3\x80\x8e\xba1\xb2C\xbb" REPLACE ABSTTL
        RESTORE a 100000 "\x00\x05hello\x09\x00\xb3\x80\x8e\xba1\xb2C\xbb" REPLACE IDLETIME 100
        TTL a
        GET a
        OBJECT freq a
        OBJECT freq missing
        OBJECT idletime missing
        COMMAND getkeys restore a 0 b
        RESTORE x 0 "\x12\x01\x02\x0b\x0b\x00\x00\x00\x02\x00\x01\x01\x02\x01\xff\x09\x00" replace
    """,
    "eviction_policies": r"""
        CONFIG set maxmemory-policy allkeys-random
        CONFIG get maxmemory-policy
        CONFIG set maxmemory-policy volatile-random
        CONFIG get maxmemory-policy
        CONFIG set maxmemory-policy volatile-ttl
        CONFIG get maxmemory-policy
        CONFIG set maxmemory-policy volatile-lru
        CONFIG get maxmemory-policy
        CONFIG set maxmemory-policy noeviction
        CONFIG get maxmemory-policy
        CONFIG set maxmemory-policy allkeys-lru
        CONFIG get maxmemory-policy
    """,
}

OF_NEWER: dict[str, tuple[dict[str, tuple[int, int]], str]] = {
    # Each with the servers that have these commands, and since which version.
    "conditions_on_values": (
        {"valkey": (9, 1)},
        r"""
        SET k a
        SET k b IFEQ a
        SET k b IFEQ
        SET k b IFEQ x
        SET k b IFEQ b IFEQ b
        SET k b IFEQ b NX
        SET k b NX IFEQ b
        SET k b XX IFEQ b
        SET k c IFEQ b GET
        SET k d IFEQ b GET
        SET none d IFEQ b GET
        SET none d IFEQ ''
        EXISTS none
        SET k d ifeq c EX 100
        TTL k
        SET k e ifeq d keepttl
        TTL k
        SET k f ifeq e
        TTL k
        SET k f ifeq e EX 0
        SET k f ifeq e EX x
        DELIFEQ k x
        DELIFEQ k f
        DELIFEQ k f
        DELIFEQ k
        DELIFEQ k a b
        MSETEX 2 a 1 b 2
        MSETEX 2 a 1 b 2 NX
        MSETEX 1 c 1 NX
        MSETEX 2 a 1 zz 2 XX
        MSETEX 2 a 1 b 2 XX EX 100
        TTL a
        MSETEX 2 a 1 b 2 KEEPTTL
        TTL a
        MSETEX 2 a 1 b 2
        TTL a
        MSETEX 0 a 1
        MSETEX -1 a 1
        MSETEX x a 1
        MSETEX 3 a 1 b 2
        MSETEX 1 a 1 b 2
        MSETEX 1 a 1 FOO
        MSETEX 1 a 1 NX XX
        MSETEX 1 a 1 NX NX
        MSETEX 1 a 1 EX 1 PX 1
        MSETEX 1 a 1 EX 1 KEEPTTL
        MSETEX 1 a 1 EX
        MSETEX 1 a 1 EX 0
        MSETEX 1 a 1 EX x
        MSETEX 1 a
        MSETEX 1
        MSETEX 9223372036854775807 a 1
        MSETEX 2147483647 a 1
        MSETEX 2 a 1 a 2 nx
        MSETEX 2 q 1 q 2 nx
        GET q
        MSETEX 1 a 1 PXAT 1
        EXISTS a
        MSETEX 1 a 1 NX EX 0
        MSETEX 1 a 1 IFEQ 3
        MSETEX 1 a 1 GET
        COMMAND getkeys msetex 2 a 1 b 2 EX 100
        COMMAND getkeys msetex 3 a 1 b 2
        COMMAND getkeys msetex 0 a 1 b 2
        COMMAND getkeys msetex x a 1 b 2
        """,
    ),
    "bitop_of_redis_8": (
        {"redis": (8, 2)},
        r"""
        SET a "\xf0\x0f"
        SET b "\xcc"
        SET c "\xaa\xff\x01"
        BITOP DIFF d a b c
        GET d
        BITOP DIFF1 d a b c
        GET d
        BITOP ANDOR d a b c
        GET d
        BITOP ONE d a b c
        GET d
        BITOP diff d a
        BITOP ANDOR d a
        BITOP ONE d a
        """,
    ),
    "conditions_of_redis_8": (
        {"redis": (8, 4)},
        r"""
        SET k a
        SET k b IFNE a
        SET k b IFNE x GET
        SET new v IFNE x
        SET k v IFEQ b IFNE b
        DELEX k IFEQ x
        DELEX k IFNE b
        DELEX k IFEQ
        DELEX k IFEQ b
        DELEX k IFEQ b
        DELEX new
        DELEX new
        MSETEX 2 a 1 b 2 NX EX 1000
        TTL b
        """,
    ),
    "bounded_counters": (
        {"redis": (8, 8)},
        r"""
        INCREX n
        INCREX n BYINT 5 UBOUND 4
        INCREX n BYINT 5 UBOUND 4 SATURATE EX 1000
        TTL n
        INCREX n EX 5000 ENX
        TTL n
        INCREX n PERSIST
        TTL n
        INCREX n BYFLOAT 0.5
        INCREX n BYINT x
        INCREX n LBOUND x
        INCREX n LBOUND 5 UBOUND 4
        INCREX n ENX
        INCREX n FOO
        INCREX n EX 0
        INCREX n
        """,
    ),
}
