"""kvdb beside the real thing: Redis itself, its tools and clients, and what people type.

Needs redis-server, redis-cli, redis-benchmark, telnet, nc and redis-py, so it is apart from the
default run:  python -m unittest discover -s tests/interop -p 'interop_*.py' -t .
"""
