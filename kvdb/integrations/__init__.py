"""Caches for frameworks. Each module needs the framework that it is named after, and kvdb.

Nothing in kvdb imports them: a program does, by naming one in its settings.
"""
