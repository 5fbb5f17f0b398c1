"""Recipes: locks, semaphores, rate limits and cached functions, built from a client's commands.

Each change is one step on the server (a script), and all that is stored has a deadline: a process
may die at any moment without leaving anything half done or taken for ever. The scripts use string
commands only and run on kvdb, Redis 7 and Valkey. Keys live in the client's namespace.

A server that evicts keys for lack of memory may evict these, too: a lock is then lost before its
time. Where that matters, use a server with the policy `noeviction`.
"""

from kvdb.client.recipes.errors import LockLost, Throttled
from kvdb.client.recipes.mixin import AsyncRecipes, Recipes

__all__ = ["AsyncRecipes", "LockLost", "Recipes", "Throttled"]
