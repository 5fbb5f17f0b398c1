"""Scripts: programs that clients send, carried out as one step. The language is in `kvdb.lua`."""
