"""The ports: listeners that accept, the event loop that serves, connections and their transports.

Nothing in here knows a protocol: a dialect object takes what arrives and returns what is to be
sent.
"""
