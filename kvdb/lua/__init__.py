"""Lua 5.1, the language: what a program is, made into Python code and run.

The way of a program: `lexer` cuts it into tokens, `parser` makes statements and expressions of
them (`syntax`), `codegen` makes Python code of those, which calls `runtime` where something is not
as usual, and `library` for all that a program can call. `meter` is who ends it.
"""
