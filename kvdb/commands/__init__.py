"""The commands. Importing this package fills the table; see `table` for how one is declared."""

from kvdb.commands import (  # noqa: F401  (imported for the commands they declare)
    config,
    connection,
    info,
    introspection,
    keys,
    server,
    strings,
    transactions,
)
