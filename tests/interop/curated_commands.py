"""The commands that the differential suite sends to Redis and to kvdb, and expects the same of.

One request per line, quoted as in a shell, with Python's escapes (`\\x00`, `\\r`). A line
`@2 ...` is sent by a second client. Each scenario starts with no keys and new connections.
"""

from __future__ import annotations

SCENARIOS: dict[str, str] = {
    "set_and_get": r"""
        SET k v
        GET k
        GET missing
        SET k ''
        GET k
        SET '' empty-key
        GET ''
        SET 'a b' "c\r\nd"
        GET 'a b'
        SET "\x00\xff" "\x00\x01\xfe\xff"
        GET "\x00\xff"
        sEt k Mixed
        get K
        get k
        STRLEN k
        STRLEN missing
        GETSET k new
        GETSET fresh value
        GETDEL fresh
        GETDEL fresh
        SETNX k other
        SETNX n 1
        SUBSTR k 0 1
        MSET a 1 b 2 a 3
        MGET a b missing a
        MSETNX c 1 a 2
        EXISTS c
        MSETNX c 1 d 2 c 3
        MGET c d
    """,
    "options_of_set": r"""
        SET k v NX
        SET k w NX
        SET k w XX
        SET missing w XX
        SET k x GET
        SET fresh x GET
        SET k y NX GET
        SET other y NX GET
        SET k z XX GET
        SET nothing z XX GET
        EXISTS nothing
        SET k v EX 100
        TTL k
        SET k v KEEPTTL
        TTL k
        SET k v
        TTL k
        SET k v PX 100000
        PTTL k
        SET k v EXAT 4102444800
        EXPIRETIME k
        SET k v PXAT 4102444800123
        PEXPIRETIME k
        SET k v XX KEEPTTL GET
        PEXPIRETIME k
        set k v ex 10 nx
        set k v nx ex 10 get
        SET k v EXAT 1
        GET k
        SET k v PXAT 1
        EXISTS k
        SET k v NX NX
        SET k v GET GET
        SET k v XX XX
    """,
    "errors_of_set": r"""
        SET k kept
        SET k v EX
        SET k v EX 0
        SET k v EX -1
        SET k v EX 9223372036854775807
        SET k v EX 9223372036854775808
        SET k v EX 9223372036854775
        SET k v PX 9223372036854775807
        SET k v PX 0
        SET k v PX abc
        SET k v EX 1.5
        SET k v EX ' 5'
        SET k v EX +5
        SET k v EX 05
        SET k v EXAT 0
        SET k v EXAT -5
        SET k v PXAT 0
        SET k v EX 10 PX 10
        SET twice v EX 10 EX 10
        SET k v EX 10 KEEPTTL
        SET k v KEEPTTL EX 10
        SET twice v KEEPTTL KEEPTTL
        SET k v NX XX
        SET k v XX NX
        SET k v FOO
        SET k v EX 10 FOO
        SET k v PERSIST
        SET k v 10
        SET k v NX EX
        SET k v ''
        SET k v EX ''
        GET k
        TTL k
        SET missing v XX EX 0
        SET k v NX EX 0
        SET k v EX abc FOO
        SET k v EX abc NX XX
    """,
    "arity": r"""
        GET
        GET a b
        SET
        SET a
        SETNX a
        SETEX a 1
        PSETEX a 1
        GETSET a
        GETDEL
        GETEX
        MGET
        MSET
        MSET a
        MSET a 1 b
        MSETNX a
        MSETNX a 1 b
        APPEND a
        STRLEN
        GETRANGE a 0
        SETRANGE a 0
        INCR
        INCR a b
        DECR
        INCRBY a
        DECRBY a 1 2
        INCRBYFLOAT a
        DEL
        UNLINK
        EXISTS
        TOUCH
        TYPE
        TYPE a b
        EXPIRE a
        PEXPIRE
        EXPIREAT a
        PEXPIREAT a
        TTL
        PTTL a b
        EXPIRETIME
        PEXPIRETIME
        PERSIST
        KEYS
        KEYS a b
        SCAN
        RANDOMKEY a
        DBSIZE a
        RENAME a
        RENAMENX a b c
        COPY a
        MOVE a
        ECHO
        ECHO a b
        PING a b
        SELECT
        SELECT 1 2
        AUTH
        MULTI a
        EXEC a
        DISCARD a
        WATCH
        UNWATCH a
        TIME a
        LASTSAVE a
        SAVE a
        RESET a
        CLIENT
        CLIENT ID a
        CLIENT GETNAME a
        CLIENT SETNAME
        CLIENT SETNAME a b
        CLIENT KILL
        CLIENT REPLY
        CLIENT NO-EVICT
        CLIENT INFO a
        CONFIG
        CONFIG GET
        CONFIG SET
        CONFIG SET a
        CONFIG RESETSTAT a
        CONFIG REWRITE a
        COMMAND COUNT a
        COMMAND GETKEYS
        OBJECT
        OBJECT ENCODING
        OBJECT ENCODING a b
        OBJECT REFCOUNT
        MEMORY
        MEMORY USAGE
        get
        Get a b
    """,
    "unknown_commands": r"""
        NOSUCH
        nosuch a b c
        NOSUCH "a\r\nb" "c\nd"
        "NO\r\nSUCH" a
        "\x00\x01" "\xff\xfe"
        '' a
        NOSUCH aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb cccccccccccccccccccccccccccc
        aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa b
        NOSUCH aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa b
        NOSUCH aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa b c d
        NOSUCH a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i j k l m n o p q r s t u v w x y z
        CLIENT NOSUCH
        CONFIG NOSUCH a
        OBJECT NOSUCH k
        MEMORY "no\r\nsuch"
        COMMAND nosuch
        CLIENT ''
    """,
    "counters": r"""
        INCR n
        INCRBY n 10
        DECR n
        DECRBY n 20
        GET n
        INCRBY n -5
        DECRBY n -5
        INCRBY n 0
        SET n 9223372036854775807
        INCR n
        INCRBY n 1
        DECRBY n -1
        GET n
        SET n -9223372036854775808
        DECR n
        DECRBY n 1
        INCR n
        INCRBY n 9223372036854775807
        DECRBY n -9223372036854775808
        INCRBY n -9223372036854775808
        INCRBY n 9223372036854775808
        INCRBY n abc
        INCRBY n 1.0
        INCRBY n ''
        INCRBY n +1
        INCRBY n ' 1'
        INCRBY n '1 '
        INCRBY n 01
        INCRBY n -0
        INCRBY n 1_0
        INCRBY n 0x10
        INCRBY n 1e3
        INCRBY n "1\x00"
        SET n +5
        INCR n
        SET n ' 5'
        INCR n
        SET n '5 '
        INCR n
        SET n 1_0
        INCR n
        SET n 1.5
        INCR n
        SET n 05
        INCR n
        SET n -0
        INCR n
        SET n 00
        INCR n
        SET n ''
        INCR n
        SET n abc
        DECR n
        SET n 99999999999999999999999999999999
        INCR n
        SET n 9223372036854775808
        DECR n
        SET n 10
        EXPIRE n 100
        INCR n
        TTL n
    """,
    "decimal_counters": r"""
        INCRBYFLOAT f 1.5
        INCRBYFLOAT f 0.1
        INCRBYFLOAT f -1.6
        SET f 10.50
        INCRBYFLOAT f 0.1
        INCRBYFLOAT f -5
        SET f 5.0e3
        INCRBYFLOAT f 2.0e2
        INCRBYFLOAT f 1e2
        INCRBYFLOAT f .5
        INCRBYFLOAT f 5.
        INCRBYFLOAT f +1
        INCRBYFLOAT f abc
        INCRBYFLOAT f ''
        INCRBYFLOAT f ' 1'
        INCRBYFLOAT f '1 '
        INCRBYFLOAT f nan
        INCRBYFLOAT f inf
        INCRBYFLOAT f -inf
        INCRBYFLOAT f 1e5000
        INCRBYFLOAT f 1_0
        INCRBYFLOAT f 1e
        INCRBYFLOAT f .
        INCRBYFLOAT f -
        GET f
        SET f abc
        INCRBYFLOAT f 1
        SET f ''
        INCRBYFLOAT f 1
        SET f ' 1'
        INCRBYFLOAT f 1
        SET f 3
        INCRBYFLOAT f 0
        INCRBYFLOAT f -3
        INCRBYFLOAT f -0.0
        SET f 0.1
        INCRBYFLOAT f 0.2
        SET f 1
        INCRBYFLOAT f 0.00000000000000001
        SET exact 0.00000000000000001
        INCRBYFLOAT exact 1e17
        SET f 3.0
        EXPIRE f 100
        INCRBYFLOAT f 1
        TTL f
        SET big 1e4932
        INCRBYFLOAT big 1e4932
    """,
    "ranges": r"""
        SET s 'Hello World'
        GETRANGE s 0 4
        GETRANGE s 0 -1
        GETRANGE s -5 -1
        GETRANGE s -1 -5
        GETRANGE s 5 3
        GETRANGE s 100 200
        GETRANGE s -100 3
        GETRANGE s -100 -100
        GETRANGE s -100 -50
        GETRANGE s 0 0
        GETRANGE s 0 9223372036854775807
        GETRANGE s -9223372036854775808 9223372036854775807
        GETRANGE s abc 1
        GETRANGE s 0 abc
        GETRANGE s 0 9223372036854775808
        GETRANGE missing 0 -1
        GETRANGE missing abc 1
        SUBSTR s 6 -1
        SUBSTR s -3 -1
        SETRANGE s 6 Redis
        GET s
        SETRANGE s 20 x
        GET s
        SETRANGE s 0 ''
        SETRANGE missing 0 ''
        EXISTS missing
        SETRANGE missing 5 ''
        EXISTS missing
        SETRANGE padded 3 abc
        GET padded
        SETRANGE s -1 x
        SETRANGE s -1 ''
        SETRANGE missing -1 x
        SETRANGE s abc x
        SETRANGE s 9223372036854775808 x
        SETRANGE s 0 longer-than-what-was-there-before-in-the-value
        STRLEN s
        APPEND s !!
        APPEND fresh abc
        APPEND fresh ''
        APPEND nothing ''
        EXISTS nothing
        TYPE nothing
        SET n 10
        APPEND n 5
        INCR n
        SETRANGE n 0 2
        GET n
        EXPIRE n 100
        APPEND n 1
        TTL n
        SETRANGE n 0 9
        TTL n
    """,
    "expiry": r"""
        SET k v
        TTL k
        PTTL k
        EXPIRETIME k
        PEXPIRETIME k
        TTL missing
        PTTL missing
        EXPIRETIME missing
        PEXPIRETIME missing
        EXPIRE k 100
        TTL k
        PTTL k
        PERSIST k
        PERSIST k
        PERSIST missing
        EXPIRE missing 100
        PEXPIRE k 100000
        TTL k
        EXPIREAT k 4102444800
        EXPIRETIME k
        PEXPIRETIME k
        PEXPIREAT k 4102444800500
        PEXPIRETIME k
        EXPIRETIME k
        PEXPIREAT k 4102444800499
        EXPIRETIME k
        EXPIRE k 0
        EXISTS k
        SET k v
        EXPIRE k -1
        EXISTS k
        SET k v
        PEXPIRE k 0
        EXISTS k
        SET k v
        PEXPIRE k -5
        EXISTS k
        SET k v
        EXPIREAT k 0
        EXISTS k
        SET k v
        EXPIREAT k -1
        EXISTS k
        SET k v
        PEXPIREAT k 1
        EXISTS k
        SETEX k 100 v
        TTL k
        PSETEX k 100000 w
        PTTL k
        GET k
        SETEX k 0 v
        SETEX k -1 v
        SETEX k abc v
        SETEX k 9223372036854775807 v
        PSETEX k 0 v
        PSETEX k 1.5 v
        PSETEX k 9223372036854775807 v
        GET k
        EXPIRE k 9223372036854775807
        EXPIRE k -9223372036854775808
        EXPIRE k 9223372036854775
        EXPIRE k -9223372036854775
        EXPIRE k 9223372036854776
        PEXPIRE k 9223372036854775807
        PEXPIRE k -9223372036854775808
        EXPIREAT k 9223372036854775807
        EXPIREAT k 9223372036854775
        EXPIREAT k abc
        EXPIRE k abc
        EXPIRE k 1.5
        EXPIRE k ''
        EXPIRE missing abc
        EXPIRE missing 9223372036854775807
        EXISTS k
    """,
    "conditions_of_expire": r"""
        SET k v
        EXPIRE k 100 XX
        EXPIRE k 100 GT
        EXPIRE k 1000 NX
        EXPIRE k 1000 NX
        EXPIRE k 2000 XX
        EXPIRE k 100 GT
        EXPIRE k 5000 GT
        TTL k
        EXPIRE k 9000 LT
        EXPIRE k 100 LT
        TTL k
        EXPIRE k 200 XX GT
        EXPIRE k 20 XX LT
        EXPIRE k 300 XX XX
        EXPIRE k 400 GT GT
        EXPIRE k 100 NX XX
        EXPIRE k 100 NX GT
        EXPIRE k 100 NX LT
        EXPIRE k 100 GT LT
        EXPIRE k 100 GT LT NX
        EXPIRE k 100 FOO
        EXPIRE k 100 NX FOO
        EXPIRE k 100 foo NX
        EXPIRE k 100 'two words'
        EXPIRE k 100 nx gt
        expire k 100 xx
        EXPIRE k abc FOO
        EXPIRE k abc NX XX
        PERSIST k
        EXPIRE k 100 LT
        TTL k
        EXPIREAT k 4102444800 GT
        EXPIREAT k 4102444800 GT
        EXPIREAT k 4102444800 LT
        PEXPIREAT k 4102444800001 GT
        PEXPIREAT k 4102444800000 LT
        PEXPIREAT k 4102444800000 NX
        EXPIRE missing 100 NX
        EXPIRE missing 100 FOO
        PEXPIRE k 100000 LT
        PTTL k
        EXPIRE k -1 GT
        EXISTS k
        EXPIRE k -1 XX
        EXISTS k
        SET k v
        EXPIRE k -1 LT
        EXISTS k
    """,
    "getex": r"""
        SET k v
        GETEX k
        TTL k
        GETEX k EX 100
        TTL k
        GETEX k
        TTL k
        GETEX k PX 200000
        PTTL k
        GETEX k EXAT 4102444800
        EXPIRETIME k
        GETEX k PXAT 4102444800001
        PEXPIRETIME k
        GETEX k PERSIST
        TTL k
        getex k persist
        GETEX missing
        GETEX missing EX 10
        GETEX missing EX 0
        GETEX missing EX -1
        GETEX missing EX abc
        GETEX missing FOO
        GETEX k EX 0
        GETEX k EX -1
        GETEX k EX abc
        GETEX k EX
        GETEX k PX 0
        GETEX k EX 10 PX 10
        GETEX k EX 10 PERSIST
        GETEX k PERSIST EX 10
        GETEX k PERSIST PERSIST
        GETEX k KEEPTTL
        GETEX k NX
        GETEX k GET
        GETEX k EX 9223372036854775807
        GETEX k EXAT 1
        EXISTS k
    """,
    "keys": r"""
        DEL missing
        MSET a 1 b 2 c 3
        EXISTS a b missing a
        DEL a a b
        UNLINK c c
        TYPE missing
        SET a 1
        TYPE a
        TOUCH a a missing
        DBSIZE
        RENAME a b
        GET b
        RENAME missing x
        RENAME b b
        RENAME missing missing
        RENAMENX b c
        RENAMENX missing x
        SET d 4
        RENAMENX c d
        RENAMENX c c
        SETEX x 100 v
        SET y w
        RENAME x y
        TTL y
        SET x w
        RENAME x y
        TTL y
        FLUSHDB
        RANDOMKEY
        SET only one
        RANDOMKEY
        FLUSHALL
        DBSIZE
        FLUSHALL SYNC
        FLUSHALL ASYNC
        FLUSHALL async
        FLUSHALL FOO
        FLUSHDB SYNC
        FLUSHDB FOO
        FLUSHALL SYNC ASYNC
        FLUSHDB ASYNC SYNC
    """,
    "copy_and_move": r"""
        SET a 1
        COPY a b
        COPY a b
        COPY a b REPLACE
        COPY a a
        COPY a a REPLACE
        COPY missing b
        COPY missing missing
        COPY a c DB 3
        COPY a c DB 3
        COPY a c DB 3 REPLACE
        COPY a a DB 3
        COPY a a DB 0
        COPY a c DB 16
        COPY a c DB -1
        COPY a c DB abc
        COPY a c DB 99999999999999999999
        COPY a c DB
        COPY a c FOO
        COPY a c REPLACE FOO
        COPY a c REPLACE REPLACE
        COPY a c DB 1 DB 2
        copy a c replace db 2
        SELECT 3
        GET c
        DBSIZE
        SELECT 0
        SETEX t 100 v
        COPY t u
        TTL u
        MOVE a 3
        MOVE a 5
        MOVE missing 5
        MOVE b 0
        MOVE missing 0
        MOVE b 16
        MOVE b -1
        MOVE b abc
        MOVE b 99999999999999999999
        MOVE t 5
        SELECT 5
        TTL t
        GET a
        KEYS *
        FLUSHDB
        SELECT 0
        DBSIZE
    """,
    "databases": r"""
        SELECT 1
        SET k one
        SELECT 0
        GET k
        SELECT 15
        SET k fifteen
        SELECT 1
        GET k
        SELECT 16
        SELECT -1
        SELECT abc
        SELECT ''
        SELECT 99999999999999999999
        SELECT 1.0
        SELECT 01
        GET k
        FLUSHDB
        SELECT 15
        GET k
        FLUSHALL
        DBSIZE
        @2 SET k other
        GET k
        @2 GET k
    """,
    "patterns": r"""
        MSET hello 1 hallo 2 hxllo 3 heeeello 4 h*llo 5 'h?llo' 6 '[x]' 7 a\\b 8 'h-llo' 9 HELLO 10 '' 11 '^' 12
        KEYS *
        KEYS h?llo
        KEYS h*llo
        KEYS h[ae]llo
        KEYS h[^e]llo
        KEYS h[a-e]llo
        KEYS h[e-a]llo
        KEYS 'h\\*llo'
        KEYS 'h\\?llo'
        KEYS '\\[x\\]'
        KEYS '[[]x]'
        KEYS 'a\\\\b'
        KEYS '[a'
        KEYS '[a-'
        KEYS 'h[a-'
        KEYS 'h[\\-]llo'
        KEYS 'h[*]llo'
        KEYS 'hello\\'
        KEYS ''
        KEYS '[^]'
        KEYS '[]]'
        KEYS '[]x]'
        KEYS h**llo
        KEYS '*l*l*'
        KEYS 'h[^a-e]llo'
        KEYS 'h[a-z'
        KEYS 'h[ae'
        KEYS '?'
        KEYS '??????'
        KEYS hello
        KEYS HEL*
        KEYS '[\\^]'
        KEYS "h\xff*"
    """,
    "scan": r"""
        SCAN 0
        MSET a 1 b 2 user:1 x user:2 y
        SCAN 0 COUNT 1000
        SCAN 0 MATCH user:* COUNT 1000
        SCAN 0 COUNT 1000 MATCH user:1
        SCAN 0 COUNT 1000 TYPE string
        SCAN 0 COUNT 1000 TYPE STRING
        SCAN 0 COUNT 1000 TYPE hash
        SCAN 0 COUNT 1000 TYPE list MATCH *
        scan 0 match b* count 1000
        SCAN 0 COUNT 0
        SCAN 0 COUNT -1
        SCAN 0 COUNT abc
        SCAN 0 COUNT
        SCAN 0 MATCH
        SCAN 0 TYPE
        SCAN 0 FOO
        SCAN 0 FOO 1
        SCAN 0 MATCH a FOO
        SCAN abc
        SCAN -1
        SCAN ''
        SCAN ' 0'
        SCAN 1.5
        SCAN 99999999999999999999
        SCAN 18446744073709551616
        SCAN +0
        SCAN 00 COUNT 1000
        SCAN '0 '
        SCAN abc FOO
        SCAN 0 COUNT 1000 COUNT 2000
    """,
    "objects": r"""
        SET n 12345
        OBJECT ENCODING n
        SET s abc
        OBJECT ENCODING s
        SET s aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
        OBJECT ENCODING s
        SET s aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
        OBJECT ENCODING s
        SET s 9223372036854775807
        OBJECT ENCODING s
        SET s 9223372036854775808
        OBJECT ENCODING s
        SET s 012
        OBJECT ENCODING s
        OBJECT ENCODING missing
        OBJECT REFCOUNT missing
        SET s abc
        OBJECT REFCOUNT s
        object encoding n
        MEMORY USAGE missing
        MEMORY USAGE s SAMPLES
        MEMORY USAGE s SAMPLES abc
        MEMORY USAGE s SAMPLES -1
        MEMORY USAGE s FOO
        MEMORY USAGE s FOO 1
    """,
    "transactions": r"""
        MULTI
        SET k 1
        INCR k
        GET k
        GET missing
        MGET k missing
        SET k 2 NX
        EXEC
        EXEC
        DISCARD
        MULTI
        EXEC
        MULTI
        SET k lost
        DISCARD
        GET k
        MULTI
        UNWATCH
        EXEC
        MULTI
        SET k word
        INCR k
        GET k
        EXEC
        MULTI
        SET k
        INCR k
        EXEC
        MULTI
        NOSUCH a
        PING
        EXEC
        MULTI
        CLIENT NOSUCH
        EXEC
        MULTI
        SET k v FOO
        SET k v EX 0
        INCRBY k abc
        GET k
        EXEC
        MULTI
        SELECT 1
        SET k 'in one'
        SELECT 0
        GET k
        EXEC
        SELECT 1
        GET k
        SELECT 0
        MULTI
        PING
        PING hello
        ECHO x
        EXPIRE k 100
        TYPE k
        DEL k
        EXISTS k
        DBSIZE
        FLUSHALL
        EXEC
        MULTI
        CONFIG GET databases
        EXEC
        MULTI
        AUTH x
        EXEC
        MULTI
        DISCARD a
        EXEC
        multi
        exec
    """,
    "refused_in_a_transaction": r"""
        SET k 1
        MULTI
        MULTI
        INCR k
        EXEC
        SET k 1
        MULTI
        WATCH k
        INCR k
        EXEC
        GET missing
        MULTI
        SAVE
        INCR k
        EXEC
    """,
    "watch": r"""
        SET k 1
        WATCH k
        @2 SET k 2
        MULTI
        SET k 3
        EXEC
        GET k
        WATCH k
        MULTI
        SET k 4
        EXEC
        WATCH k
        SET k 5
        MULTI
        PING
        EXEC
        WATCH k other
        @2 SET other x
        UNWATCH
        MULTI
        PING
        EXEC
        WATCH missing
        @2 SET missing now
        MULTI
        PING
        EXEC
        WATCH k
        @2 GET k
        @2 TTL k
        @2 EXISTS k
        MULTI
        PING
        EXEC
        WATCH k
        @2 EXPIRE k 100
        MULTI
        PING
        EXEC
        WATCH k
        @2 PERSIST k
        MULTI
        PING
        EXEC
        WATCH k
        @2 PERSIST k
        MULTI
        PING
        EXEC
        WATCH k
        @2 DEL k
        MULTI
        PING
        EXEC
        WATCH k
        @2 DEL k
        MULTI
        PING
        EXEC
        WATCH gone
        @2 SET gone 1
        @2 DEL gone
        MULTI
        PING
        EXEC
        SET k 1
        WATCH k
        @2 FLUSHALL
        MULTI
        PING
        EXEC
        WATCH k
        @2 FLUSHALL
        MULTI
        PING
        EXEC
        SET k 1
        WATCH k
        @2 RENAME k l
        MULTI
        PING
        EXEC
        SET k 1
        WATCH k
        @2 SETRANGE k 0 ''
        @2 SETNX k 2
        @2 SET k 1 NX
        @2 INCRBY k abc
        MULTI
        PING
        EXEC
        WATCH k
        @2 APPEND k ''
        MULTI
        PING
        EXEC
        WATCH k
        @2 INCRBY k 0
        MULTI
        PING
        EXEC
        WATCH k
        @2 GETEX k
        MULTI
        PING
        EXEC
        WATCH k
        @2 GETEX k EX 100
        MULTI
        PING
        EXEC
        WATCH k
        @2 GETEX k PERSIST
        MULTI
        PING
        EXEC
        WATCH k
        @2 GETEX k PERSIST
        MULTI
        PING
        EXEC
        WATCH k
        @2 MOVE k 1
        MULTI
        PING
        EXEC
        SELECT 1
        WATCH k
        SELECT 0
        @2 SET k 'in zero'
        MULTI
        PING
        EXEC
        SELECT 1
        WATCH k
        @2 SELECT 1
        @2 SET k 'in one'
        MULTI
        PING
        EXEC
        WATCH k
        @2 COPY k copied
        MULTI
        PING
        EXEC
        WATCH copied
        @2 COPY k copied REPLACE
        MULTI
        PING
        EXEC
        WATCH k
        MULTI
        DISCARD
        @2 SET k changed
        MULTI
        PING
        EXEC
        WATCH k
        @2 SET k again
        MULTI
        SET k
        EXEC
        MULTI
        PING
        EXEC
        WATCH k k k
        SET k v PXAT 1
        MULTI
        PING
        EXEC
    """,
    "connection": r"""
        PING
        PING hello
        PING ''
        ECHO hello
        ECHO "\x00\r\n"
        CLIENT GETNAME
        CLIENT SETNAME worker-1
        CLIENT GETNAME
        CLIENT SETNAME 'two words'
        CLIENT SETNAME "a\nb"
        CLIENT GETNAME
        CLIENT SETNAME ''
        CLIENT GETNAME
        CLIENT REPLY FOO
        CLIENT REPLY ON
        CLIENT NO-EVICT on
        CLIENT NO-EVICT OFF
        CLIENT NO-EVICT FOO
        CLIENT KILL 1.2.3.4:5
        CLIENT KILL ID 999999
        CLIENT KILL ID 0
        CLIENT KILL ID abc
        CLIENT KILL ID -1
        CLIENT KILL TYPE FOO
        CLIENT KILL TYPE pubsub
        CLIENT KILL TYPE master
        CLIENT KILL ADDR 1.2.3.4:5
        CLIENT KILL LADDR 1.2.3.4:5
        CLIENT KILL USER nobody
        CLIENT KILL SKIPME FOO
        CLIENT KILL FOO bar
        CLIENT KILL ID 1 FOO
        CLIENT KILL ADDR 1.2.3.4:5 SKIPME yes ID 999999 TYPE normal
        CLIENT LIST TYPE pubsub
        CLIENT LIST TYPE FOO
        CLIENT LIST FOO
        CLIENT LIST ID 999999
        CLIENT LIST ID
        CLIENT LIST ID abc
        CLIENT LIST ID 0
        CLIENT LIST TYPE
        AUTH x
        AUTH default x
        AUTH nobody x
        AUTH a b c
        AUTH ''
        RESET
        PING
        MULTI
        SET k v
        RESET
        EXEC
        SELECT 4
        SET k four
        RESET
        GET k
    """,
    "hello": r"""
        HELLO 4
        HELLO 1
        HELLO 0
        HELLO x
        HELLO ''
        HELLO -3
        HELLO 3.0
        HELLO 99999999999999999999
        HELLO 3 FOO
        HELLO 3 AUTH
        HELLO 3 AUTH default
        HELLO 3 SETNAME
        HELLO 3 SETNAME 'two words'
        HELLO 4 FOO
        GET missing
        HELLO 3 AUTH nobody x
        HELLO 3 SETNAME me
        CLIENT GETNAME
        GET missing
        HELLO
        HELLO 2
        GET missing
        MULTI
        HELLO 3
        GET missing
        EXEC
        GET missing
        RESET
        GET missing
    """,
    "configuration": r"""
        CONFIG GET databases
        CONFIG GET DATABASES
        CONFIG GET databas?s
        CONFIG GET no-such
        CONFIG GET databases no-such
        CONFIG GET databases databases
        CONFIG GET appendonly
        CONFIG GET requirepass
        CONFIG SET no-such 1
        CONFIG SET databases 5
        CONFIG SET maxmemory abc
        CONFIG SET maxmemory -1
        CONFIG SET maxmemory ''
        CONFIG SET maxmemory-policy foo
        CONFIG SET maxmemory-policy volatile-lru maxmemory-policy noeviction
        CONFIG SET maxmemory-policy volatile-lru no-such 1
        CONFIG SET maxmemory-policy volatile-lru
        CONFIG GET maxmemory-policy
        CONFIG SET MAXMEMORY-POLICY noeviction
        CONFIG GET maxmemory-policy
        CONFIG SET maxmemory-policy allkeys-lru
        CONFIG SET maxmemory 100mb
        CONFIG GET maxmemory
        CONFIG SET maxmemory 1gb
        CONFIG GET maxmemory
        CONFIG SET maxmemory 0
        CONFIG SET timeout abc
        CONFIG SET timeout -1
        CONFIG SET timeout 0
        CONFIG SET maxclients 0
        CONFIG SET loglevel foo
        CONFIG SET loglevel warning timeout
        CONFIG SET save 'abc'
        CONFIG SET save '3600'
        CONFIG SET save ''
        CONFIG GET save
        CONFIG RESETSTAT
        CONFIG REWRITE
    """,
    "introspection": r"""
        COMMAND INFO nosuch
        COMMAND INFO nosuch other
        COMMAND DOCS nosuch
        COMMAND GETKEYS GET k
        COMMAND GETKEYS MSET a 1 b 2
        COMMAND GETKEYS MGET a b c
        COMMAND GETKEYS DEL a b
        COMMAND GETKEYS RENAME a b
        COMMAND GETKEYS COPY a b REPLACE
        COMMAND GETKEYS SET k v EX 10
        COMMAND GETKEYS WATCH a b
        COMMAND GETKEYS OBJECT ENCODING k
        COMMAND GETKEYS MEMORY USAGE k
        COMMAND GETKEYS NOSUCH k
        COMMAND GETKEYS PING
        COMMAND GETKEYS GET
        COMMAND GETKEYS GET a b
        COMMAND LIST FILTERBY PATTERN getd*
        COMMAND LIST FILTERBY PATTERN nosuch*
        COMMAND LIST FILTERBY MODULE nosuch
        COMMAND LIST FILTERBY FOO x
        COMMAND LIST FOO
        COMMAND LIST FILTERBY
    """,
    "saving": r"""
        SAVE
        BGSAVE FOO
        BGSAVE SCHEDULE FOO
        SHUTDOWN FOO
        SHUTDOWN SAVE NOSAVE
        SHUTDOWN ABORT
        SHUTDOWN ABORT SAVE
        INFO nosuch
    """,
    "expired_keys_are_invisible": r"""
        SET k v PXAT 1
        GET k
        EXISTS k
        TTL k
        TYPE k
        STRLEN k
        KEYS *
        DBSIZE
        SET k v
        EXPIREAT k 1
        GET k
        SETNX k w
        TTL k
        PEXPIREAT k 1
        RENAME k l
        COPY k l
        PERSIST k
        APPEND k abc
        TTL k
        EXPIREAT k 1
        INCR k
        TTL k
        GETEX k EXAT 1
        SET k w XX
        SET k w NX GET
        MSETNX k 1 other 2
        RANDOMKEY
        DEL k
    """,
    "slow_log": r"""
        SLOWLOG
        SLOWLOG FOO
        SLOWLOG RESET
        SLOWLOG LEN
        SLOWLOG LEN x
        SLOWLOG GET
        SLOWLOG GET 0
        SLOWLOG GET -1
        SLOWLOG GET -2
        SLOWLOG GET x
        SLOWLOG GET 1 2
        CONFIG GET slowlog-max-len
        CONFIG SET slowlog-max-len -1
        CONFIG SET slowlog-max-len x
        CONFIG SET slowlog-max-len 64
        CONFIG GET slowlog-max-len
        CONFIG SET slowlog-max-len 128
        CONFIG SET slowlog-log-slower-than -2
        CONFIG SET slowlog-log-slower-than x
        CONFIG SET slowlog-log-slower-than -1
        CONFIG GET slowlog-log-slower-than
        CONFIG SET slowlog-log-slower-than 10000
        MULTI
        MONITOR
        EXEC
    """,
    "latency": r"""
        LATENCY
        LATENCY FOO
        LATENCY LATEST
        LATENCY HISTORY
        LATENCY HISTORY command
        LATENCY GRAPH command
        LATENCY GRAPH
        LATENCY RESET
        LATENCY RESET command other
        LATENCY HISTOGRAM nosuch
        CONFIG GET latency-monitor-threshold
        CONFIG SET latency-monitor-threshold -1
        CONFIG SET latency-monitor-threshold x
        CONFIG SET latency-monitor-threshold 100
        LATENCY DOCTOR
        LATENCY LATEST
        CONFIG SET latency-monitor-threshold 0
        CONFIG SET latency-tracking foo
        CONFIG GET latency-tracking-info-percentiles
    """,
    "pause": r"""
        CLIENT PAUSE
        CLIENT PAUSE x
        CLIENT PAUSE -1
        CLIENT PAUSE 1.5
        CLIENT PAUSE 10 FOO
        CLIENT PAUSE 1 ALL x
        CLIENT PAUSE 0
        CLIENT PAUSE 100
        PING
        CLIENT PAUSE 50 ALL
        @2 SET k v
        @2 GET k
        CLIENT PAUSE 50 WRITE
        @2 GET k
        @2 INCR n
        CLIENT PAUSE 100000 WRITE
        CLIENT UNPAUSE
        @2 SET k w
        MULTI
        SET k x
        @2 CLIENT PAUSE 50 WRITE
        GET k
        EXEC
        CLIENT UNPAUSE
        CLIENT UNPAUSE x
        CLIENT UNBLOCK
        CLIENT UNBLOCK x
        CLIENT UNBLOCK 99999999
        CLIENT UNBLOCK 99999999 FOO
        CLIENT UNBLOCK 99999999 ERROR
    """,
    "without_replicas": r"""
        ROLE
        ROLE x
        WAIT
        WAIT 0 0
        WAIT 0 1000
        WAIT 1 50
        WAIT -1 0
        WAIT x 0
        WAIT 1 x
        WAIT 1 -1
        MULTI
        WAIT 1 0
        EXEC
        REPLICAOF NO ONE
        SLAVEOF no one
        REPLICAOF a
        REPLICAOF localhost x
        FAILOVER ABORT
        CLUSTER INFO
        CLUSTER KEYSLOT a
        CLUSTER
        READONLY
        READWRITE
        MODULE
        MODULE FOO
        FUNCTION LIST
        FUNCTION LIST WITHCODE
        FUNCTION LIST LIBRARYNAME x
        FUNCTION LIST LIBRARYNAME
        FUNCTION LIST FOO
        FUNCTION FLUSH
        FUNCTION FLUSH FOO
        FUNCTION KILL
        FUNCTION FOO
        SCRIPT EXISTS a b
        SCRIPT EXISTS
        SCRIPT FLUSH
        SCRIPT FLUSH ASYNC
        SCRIPT FLUSH FOO
        SCRIPT KILL
        SCRIPT FOO
    """,
    "keys_and_what_is_done_to_them": r"""
        COMMAND GETKEYSANDFLAGS GET k
        COMMAND GETKEYSANDFLAGS SET k v
        COMMAND GETKEYSANDFLAGS SET k v GET
        COMMAND GETKEYSANDFLAGS MSET a 1 b 2
        COMMAND GETKEYSANDFLAGS MSETNX a 1
        COMMAND GETKEYSANDFLAGS DEL a b
        COMMAND GETKEYSANDFLAGS COPY a b
        COMMAND GETKEYSANDFLAGS RENAME a b
        COMMAND GETKEYSANDFLAGS RENAMENX a b
        COMMAND GETKEYSANDFLAGS GETDEL a
        COMMAND GETKEYSANDFLAGS APPEND a b
        COMMAND GETKEYSANDFLAGS TYPE a
        COMMAND GETKEYSANDFLAGS INCR a
        COMMAND GETKEYSANDFLAGS PING
        COMMAND GETKEYSANDFLAGS GET
        COMMAND GETKEYSANDFLAGS NOSUCH
        COMMAND GETKEYSANDFLAGS
    """,
    "memory": r"""
        MEMORY
        MEMORY FOO
        MEMORY PURGE
        MEMORY DOCTOR
        MEMORY DOCTOR x
        MEMORY MALLOC-STATS x
        MEMORY USAGE nosuch
        MEMORY USAGE k SAMPLES
        MEMORY USAGE k SAMPLES x
        MEMORY USAGE k SAMPLES -1
        MEMORY USAGE k FOO 5
    """,
    "debug": r"""
        DEBUG
        DEBUG FOO
        DEBUG SLEEP
        DEBUG SLEEP 0
        DEBUG SLEEP x
        DEBUG SET-ACTIVE-EXPIRE
        DEBUG SET-ACTIVE-EXPIRE 1
        DEBUG OBJECT
        DEBUG OBJECT nosuch
        DEBUG RELOAD
        DEBUG CHANGE-REPL-ID
        DEBUG ERROR 'WRONGTYPE mine'
        DEBUG LOG hello
        DEBUG DIGEST
        DEBUG POPULATE 3
        DEBUG POPULATE 2 pre 10
        GET key:2
        GET pre:1
        DEBUG DIGEST
        SET k v EX 1000
        SELECT 2
        SET k "\x00\xff"
        SET n 12345
        DEBUG DIGEST
        DEBUG DIGEST-VALUE k n nosuch
        FLUSHALL
        DEBUG PROTOCOL string
        DEBUG PROTOCOL integer
        DEBUG PROTOCOL double
        DEBUG PROTOCOL null
        DEBUG PROTOCOL array
        DEBUG PROTOCOL set
        DEBUG PROTOCOL map
        DEBUG PROTOCOL verbatim
        DEBUG PROTOCOL true
        DEBUG PROTOCOL false
    """,
    "ending_clients": r"""
        CLIENT KILL ID
        CLIENT KILL ID 0
        CLIENT KILL ID x
        CLIENT KILL ID 99999999
        CLIENT KILL ID 99999999 SKIPME no
        CLIENT KILL SKIPME
        CLIENT KILL SKIPME foo ID 5
        CLIENT KILL USER nosuch
        CLIENT KILL TYPE pubsub
        CLIENT KILL TYPE replica
        CLIENT KILL TYPE foo
        CLIENT KILL ADDR 1.2.3.4:5
        CLIENT KILL LADDR 1:1 ADDR 2:2
        CLIENT KILL 1:1
        CLIENT KILL FOO BAR
        CLIENT LIST ID
        CLIENT LIST ID x
        CLIENT LIST ID 99999998 99999999
        CLIENT LIST TYPE pubsub
        CLIENT LIST TYPE foo
        CLIENT LIST FOO
        CLIENT NO-EVICT foo
        CLIENT NO-EVICT on
        CLIENT NO-EVICT off
    """,
}
