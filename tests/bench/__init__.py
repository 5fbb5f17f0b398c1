"""How fast and how big kvdb is beside what is installed: `make bench`, `python -m tests.bench`.

    --only PATTERN   only the groups whose name contains PATTERN, in whatever case
    --quick          fewer and shorter rounds and fewer keys: a look, not a measurement

Every peer does the same work on this machine in interleaved rounds; what counts is the ratio of
the medians, since figures of different machines or days cannot be compared. Peers are optional:
redis-server and memcached, and, of this interpreter, fakeredis, redis-py, pymemcache and
diskcache. The echo server, which always runs, answers without parsing: the floor of a server in
Python with a thread per connection.

Wire work is done by a driver in a process of its own. With two cores one is the driver's, and
what it costs itself flattens ratios: a server twice as fast as the driver looks as fast as it.

    __main__.py     the list of groups
    report.py       the table, and what is told about the machine
    servers.py      starts kvdb and its peers, and ends them whatever happens
    apart.py        a function call in a process of its own
    wire.py         the drivers: ask, load, probe
    throughput.py   requests per second on the wire, idle connections included
    clients.py      what a Python program sees through a client library
    memory.py       bytes per key; whether the budget is kept
    latency.py      how long a client waits while the server saves, grows and is emptied
    snapshots.py    a million keys to disk and back; the time that a start takes
"""
