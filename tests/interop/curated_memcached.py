"""What the differential suite sends to memcached and to kvdb, and expects the same of.

One request per line; `|` is a line end (the one after the request is added), `{cas}` the last
cas token that the server told, Python's escapes mean what they mean in Python. Each scenario
starts with no keys and a new connection.
"""

from __future__ import annotations

LONG_KEY = "k" * 250
TOO_LONG_KEY = "k" * 251

SCENARIOS: dict[str, str] = {
    "set_and_get": r"""
        set k 0 0 5|value
        get k
        get missing
        get k missing k
        set k 0 0 0|
        get k
        set k 4294967295 0 1|x
        get k
        set k 1 100 2|\x00\xff
        get k
        set k 1 0 4|\r\n\r\n
        get k
        set k 1 0 7|END\r\n\r\n
        get k
        set \xc3\xa4 7 0 1|u
        get \xc3\xa4
        set   spaced    1    0   1|s
        get    spaced
        get  spaced   k
        gets missing
        set K 0 0 1|K
        get K k
    """,
    "storage_with_conditions": r"""
        add a 1 0 1|1
        add a 2 0 1|2
        get a
        replace a 3 0 2|33
        get a
        replace missing 0 0 1|x
        append a 9 0 2|44
        get a
        prepend a 9 0 2|22
        get a
        append a 0 0 0|
        append missing 0 0 1|x
        append missing 0 0 0|
        prepend missing 0 0 1|x
        get missing
        delete a
        replace a 0 0 1|x
        add a 0 0 1|y
        get a
    """,
    "noreply": r"""
        set k 0 0 1 noreply|1
        get k
        add k 0 0 1 noreply|2
        add l 0 0 1 noreply|2
        replace k 0 0 1 noreply|3
        replace m 0 0 1 noreply|3
        append k 0 0 1 noreply|4
        prepend k 0 0 1 noreply|5
        get k l m
        gets k
        cas k 0 0 1 77777777 noreply|6
        cas k 0 0 1 {cas} noreply|7
        get k
        incr k 5 noreply
        decr k 2 noreply
        incr missing 2 noreply
        get k
        touch k 100 noreply
        touch missing 100 noreply
        delete l noreply
        delete l noreply
        delete l 0 noreply
        get k l
        verbosity 0 noreply
        flush_all noreply
        get k
        set k 0 0 1|1
        flush_all 0 noreply
        get k
        set k 0 0 1 nor|1
        set k 0 0 1 NOREPLY|1
        delete k nor
        incr k 1 nor
        touch k 100 nor
    """,
    "noreply_and_errors": r"""
        set k 0 0 1|1
        incr k x noreply
        incr k -1 noreply
        decr k x noreply
        set s 0 0 1|s
        incr s 1 noreply
        touch k x noreply
        delete k 1 noreply
        delete k 0 0 noreply
        verbosity noreply
        flush_all x noreply
        flush_all 0 0 noreply
        incr k
        incr noreply
        touch noreply
        verbosity 1 noreply
        verbosity a noreply
        flush_all 100 noreply
        flush_all 0 noreply
        set k 0 0 1|1
        get noreply
        gat noreply k
        get k
    """,
    "control_characters_in_keys": r"""
        set a\tb 0 0 1|1
        get a\tb
        get a
        set \x01\x7f\x0b\x0c 0 0 1|2
        get \x01\x7f\x0b\x0c
        incr a\tb 1
        delete a\tb
        set a\rb 0 0 1|1
        get a\rb
    """,
    "cas": r"""
        set k 5 0 1|1
        gets k
        gets k
        cas k 6 0 1 {cas}|2
        gets k
        cas k 6 0 1 77777777|3
        get k
        cas missing 0 0 1 1|x
        gets k
        append k 0 0 1|!
        cas k 0 0 1 {cas}|x
        gets k
        incr k 1
        set n 0 0 1|1
        gets n
        incr n 1
        cas n 0 0 1 {cas}|x
        gets n k missing
        set a 0 0 1|a
        set b 0 0 1|b
        gets a b
        cas a 0 0 1 {cas}|x
        cas b 0 0 1 {cas}|y
        get a b
        cas k 0 0 1 18446744073709551615|x
        cas k 0 0 1 0|x
        get k
    """,
    "get_and_touch": r"""
        gat 100 k
        set k 5 0 1|1
        gat 100 k
        gat 0 k missing k
        gats 100 k
        gat
        gat 100
        gats
        gats 100
        gat x k
        gat 1x k
        gat k 100
        set gone 0 0 1|1
        gat -1 gone
        get gone
        mg k t
    """,
    "touch_and_exptime": r"""
        touch k 100
        set k 5 0 1|1
        touch k 100
        mg k t
        touch k 0
        mg k t
        touch k -1
        get k
        touch
        touch k
        touch k x
        touch k 1 2
        touch k 1 2 3
        set k 0 100 1|1
        mg k t
        set k 0 2592000 1|1
        mg k t
        set k 0 2592001 1|1
        get k
        set k 0 0 1|1
        set k 0 -1 1|2
        get k
        set k 0 0 1|1
        add k 0 -1 1|2
        get k
        replace k 0 -5 1|2
        get k
        add k 0 -1 1|2
        get k
        set k 0 2000000000 1|1
        get k
        set k 0 1000000000 1|1
        get k
        set k 0 0 1|1
        touch k 1000000000
        get k
        set k 0 100 1|1
        append k 0 0 1|2
        mg k t v
        set n 0 100 1|1
        incr n 1
        mg n t v
    """,
    "delete": r"""
        delete k
        set k 0 0 1|1
        delete k
        delete k
        get k
        set k 0 0 1|1
        delete k 0
        get k
        delete k 1
        delete k 0 0
        delete k 0 0 0
        delete k -1
        delete k badarg
        delete
        delete a b c d
    """,
    "incr_and_decr": r"""
        incr n 1
        decr n 1
        set n 3 0 2|10
        incr n 1
        incr n 0
        decr n 2
        get n
        decr n 1
        get n
        decr n 100
        get n
        incr n 5
        get n
        incr n 100
        get n
        set n 0 0 20|18446744073709551615
        incr n 1
        get n
        set n 0 0 20|18446744073709551615
        incr n 18446744073709551615
        get n
        set n 0 0 20|18446744073709551616
        incr n 1
        set n 0 0 20|99999999999999999999
        incr n 1
        set n 0 0 21|000000000000000000001
        set n 0 0 3|007
        incr n 1
        get n
        decr n 1
        get n
        incr n 99
        get n
        set n 0 0 1|x
        incr n 1
        decr n 1
        set n 0 0 2|1x
        incr n 1
        set n 0 0 2|-1
        incr n 1
        set n 0 0 0|
        set n 0 0 3|5\x20\x20
        incr n 1
        get n
        set n 0 0 2|10
        incr n -1
        incr n 18446744073709551616
        incr n x
        incr n 1x
        incr n
        incr
        incr n 1 2 3
        decr n
        decr n -1
        set n 0 0 19|9223372036854775807
        incr n 1
        decr n 1
    """,
    "values_that_are_hardly_numbers": r"""
        set n 0 0 0|
        incr n 1
        set n 0 0 2| 5
        incr n 1
        set n 0 0 2|+5
        incr n 1
        set n 0 0 3|1.5
        incr n 1
        set n 0 0 22|0000000000000000000001
        incr n 1
        get n
    """,
    "keys": rf"""
        set {LONG_KEY} 0 0 1|1
        get {LONG_KEY}
        incr {LONG_KEY} 1
        touch {LONG_KEY} 100
        delete {LONG_KEY}
        get {TOO_LONG_KEY}
        gets k {TOO_LONG_KEY}
        gat 0 {TOO_LONG_KEY}
        delete {TOO_LONG_KEY}
        incr {TOO_LONG_KEY} 1
        touch {TOO_LONG_KEY} 1
        set k 0 0 1|1
        get k
        mg {LONG_KEY} k
        mg {TOO_LONG_KEY} k
        md {TOO_LONG_KEY}
        ma {TOO_LONG_KEY}
        me {TOO_LONG_KEY}
    """,
    "errors": r"""
        GET k
        SET k 0 0 1
        get
        gets
        set
        set k
        set k 0
        set k 0 0
        foo
        foo bar

        |
         get k
        \t
        set k 0 0 1 2 3
        add k 0 0
        cas k 0 0
        verbosity
        verbosity 1
        verbosity 0
        verbosity a b c
        flush_all x
        flush_all 0
        flush_all
        flush_all -1
        shutdown now now
        stats nosuch
        stats reset
        stats detail
        stats detail off
        mn
        mn x
        mg
        me
        get\tk
    """,
    "data_that_is_longer_or_shorter_than_told": r"""
        set k 0 0 1|1
        set k 0 0 2|abcd
        get k
        set k 0 0 2|abc
        get k
        add l 0 0 2|abcd
        get l
    """,
    "many_in_one_packet": r"""
        set a 0 0 1|1|get a|incr a 1|get a b|delete a|get a
        set a 0 0 1 noreply|1|set b 0 0 1 noreply|2|get a b
        foo|get a|bar|get b
    """,
    "hits_and_ages": r"""
        mg k h l
        set k 0 0 2|hi
        mg k h l u
        mg k h l
        mg k l h v
        set k 0 0 2|ho
        mg k h u
        get k
        mg k h u
        set k 0 0 2|ho
        gat 100 k
        mg k h u
        set k 0 0 2|ho
        touch k 100
        mg k h u
        append k 0 0 1|!
        mg k h u
        mg k h
        md k I
        mg k v h l
        ms k 1|1
        mg k h l
        mg new N100 h l
        mg new h l
    """,
    "meta_get": r"""
        mg k
        mg k v
        mg k v q
        mg k q
        set k 5 100 5|value
        mg k
        mg k v
        mg k v q
        mg k q
        mg k s v f t k
        mg k t f s k v
        mg k O123 v
        mg k v O123 k
        mg k Oopaque q
        mg missing Oopaque k v
        mg missing Oopaque q
        mg k c
        mg k c v
        mg k q k v
        mg k T1000 t
        mg k t
        mg k T0 t
        mg k N100
        mg k v t
        mg k s N0 v
        mg new N100 v s t c
        mg new N100 v t
        mg new v
        mg k Tx
        mg k T
        mg k N
        mg k Nx
        mg k Rx
        mg k !
        mg k v v
        mg k v O1 O2
        mg k z
        mg k c f h k l q s t u v I D1 J1 L O P R1
        mg k c f h k l q s t u v I D1 J1 L O P R1 T1
        md k c f h k l q s t u v I D1 J1 L O P R1 T1
        ma k c f h k l q s t u v I D1 J1 L O P R1 T1
        mg k M
        mg
        mg  k   v
        mg k 1
    """,
    "meta_get_vivify": r"""
        mg v N30 s v t
        mg v N30 s v
        mg v s v
        ms v 2 T100|hi
        mg v N30 s v
        md v
        mg v N100 q v k O1
        mg v N100 q v k O1
        mg w N-1 v
        mg w v
    """,
    "meta_get_recache": r"""
        ms k 2 T100|hi
        mg k R30 v
        mg k R200 v
        mg k R200 v
        mg k v
        ms k 2 T100|ho
        mg k R200 v
        mg k R200 v t
        ms n 2|hi
        mg n R200 v
        mg k R-1
    """,
    "meta_stale_and_win": r"""
        ms k 2|hi
        md k I T100
        mg k v c t
        mg k v c
        mg k v
        ms k 3|new
        mg k v
        mg k c
        md k I T100 C{cas}
        mg k c v
        mg k c v
        ms k 3 C{cas}|win
        mg k v
        md k C77777777
        md k I C77777777
        ms k 3 I C1|old
        mg k v c
        mg k v
        md k I
        md k I
        mg k v s
        ms k 3 C9999999999999999999|old
        ms k 3 C9999999999999999999 I|old
        mg k v
        ms k 5 T0 c|again
        mg k v
        ms k 2 F5|hi
        mg k v f s
    """,
    "meta_set": r"""
        ms k 2|hi
        mg k v
        ms k 2 F4294967295 T100|ho
        mg k f t v
        ms k 2 c|hi
        mg k c
        ms k 2 C{cas} c|hu
        ms k 2 C77777777|no
        ms missing 2 C77777777|no
        ms k 2 k O9|hi
        ms k 2 O9 k q|hi
        ms k 2 q|hi
        ms k 2 C77777777 k O9 q|hi
        ms missing 2 C77777777 k O9 q|hi
        ms k 2 ME k O9 q|hi
        ms k 2 ME k O9|hi
        ms k 2 MS|S1
        mg k v
        ms k 2 Mset|S2
        ms k 2 ms|S2
        mg k v
        ms k 2 MR|R1
        mg k v
        ms missing 2 MR|R1
        ms k 2 MA|A1
        mg k v
        ms k 2 MP|P1
        mg k v
        ms missing 2 MA|A1
        ms missing 2 MP|A1
        ms e 2 ME|E1
        ms e 2 ME|E2
        ms e 2 Me|E2
        ms e 2 Ma|E2
        ms e 2 Mr|E2
        ms e 2 Mp|P2
        ms e 2 Ms|s2
        mg e v
        ms k 2 MX|xx
        ms k 2 M|xx
        ms k 2 Fx|xx
        ms k 2 Tx|xx
        ms k 2 Cx|xx
        ms k 2 z|xx
        ms k 2 k k|xx
        ms k 2 I|xx
        mg k v
        ms k 2 T-1|xx
        mg k v
        ms k 0|
        mg k v
        ms k 2 v|xx
        ms k 2 t|xx
        ms k 2 f|xx
        ms k 2 b|xx
        mg k v
        ms k 2 T|xx
        ms k 2 F|xx
        ms k 2 C|xx
    """,
    "meta_set_data": r"""
        ms k 2|abcd
        mg k v
        ms k 2|abc
        mg k v
        ms k 2 q|abcd
    """,
    "meta_delete": r"""
        md k
        md k q
        md k q O1 k
        md k k O1
        ms k 2|hi
        md k k O1
        mg k
        ms k 2|hi
        md k q
        ms k 2|hi
        mg k c
        md k C77777777
        md k C77777777 q
        md k C{cas}
        ms k 2|hi
        md k T100
        mg k t
        md k Cx
        md k Tx
        md k z
        md k v
        md
        md k b
    """,
    "meta_arithmetic": r"""
        ma n
        ma n q
        ma n k O1
        ma n N0
        ma n v
        ma n
        ma n v
        ma n D5 v
        ma n M+ v
        ma n MI v
        ma n Mi v
        ma n Mincr v
        ma n Mdecr v
        ma n MINCR v
        ma n MDECR v
        ma n MD v
        ma n Md v
        ma n M- v
        ma n MD D100 v
        ma n t
        ma n T100 t
        ma n t v
        ma n T0 t v k O5
        ma n c
        ma n C{cas} v c
        ma n C77777777 v
        ma n q
        ma n q v
        ma n k q
        ma init J13 N100 v t
        ma init J13 N100 v t
        ma init2 N0 J18446744073709551615 v
        ma init2 v
        ma down N0 J5 MD v
        ma down MD v
        ma quiet N0 J5
        ma quiet v
        set x 0 0 1|x
        ma x
        ma x q
        ma x v
        ma n Dx
        ma n D-1
        ma n D18446744073709551616
        ma n Jx N0
        ma n MX
        ma n M
        ma n z
        ma n s
        ma n f
        ma n Cx
        ma n Nx
        ma n Tx
        ma
        set p 0 0 2|10
        ma p MD v
        get p
        ma p MD t v
        get p
        incr p 1
    """,
    "meta_base64_keys": r"""
        ms Zm9v 3 b|bar
        get foo
        mg Zm9v b v k
        mg Zm9v b k O1 v
        mg Zm9v k v
        mg foo v
        ma Zm9v b
        md Zm9v b k
        mg foo
        ms AAEC 2 b|hi
        mg AAEC b v k s
        ma Y291bnQ= b N0 J3 v
        ma Y291bnQ= b k v
        mg count v
        mg Zm9 b
        mg !!! b
        mg Zm9v= b
        ms Zm9 2 b|xx
        ms !!! 2 b|xx
        md !!! b
        ma !!! b
        ms a2V5IHdpdGggc3BhY2U= 3 b T100|hey
        mg a2V5IHdpdGggc3BhY2U= b k v t
        md a2V5IHdpdGggc3BhY2U= b q
        mg a2V5IHdpdGggc3BhY2U= b k v t
        mg Zm9v v b
        mg Zm9v b b
    """,
    "meta_opaque_and_quiet": r"""
        mg a q|mg b q
        ms a 1|1
        mg a v q O1|mg b v q O2|mg c v q O3 k
        ms a 1 q O1|2
        ms b 1 ME q|3
        ms b 1 ME q|3
        md c q O7
        md a q O7
        ma c q O8
        mg b Oabcdefghijklmnopqrstuvwxyz012345
        mg b Oabcdefghijklmnopqrstuvwxyz0123456789
        mg b O
        mg b O1 k v q t f s c
    """,
    "meta_and_classic_share_the_values": r"""
        set k 7 100 1|1
        mg k f t s v
        ms k 2 F9|20
        gets k
        cas k 1 0 1 {cas}|3
        mg k v f c
        cas k 1 0 1 {cas}|4
        gets k
        ms k 1 C{cas} F3|5
        ms k 1 C{cas} F3|6
        get k
        incr k 1
        ma k v
        decr k 1
        md k I
        get k
        gets k
        mg k v
        get k
    """,
}
