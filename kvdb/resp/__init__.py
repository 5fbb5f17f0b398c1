"""RESP, the Redis protocol: requests and replies, in bytes and out of them.

Versions 2 and 3, after https://redis.io/docs/latest/develop/reference/protocol-spec/. Shared
by the server and the bundled client. Does no I/O, holds no lock, knows no command.
"""
