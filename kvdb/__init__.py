"""kvdb: a key-value server in Python that needs nothing but the standard library."""

__version__ = "0.1.0"
