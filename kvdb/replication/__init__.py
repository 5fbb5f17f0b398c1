"""Replication: other servers follow ours (`primary`), as Redis's replicas follow a Redis.

https://redis.io/docs/latest/operate/oss_and_stack/management/replication/ tells what both sides do;
the bytes were seen on the wire between Redis 7.0, 8.0 and Valkey 9.1.
"""
