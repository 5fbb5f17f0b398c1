"""What can go wrong between a client and the server, and the words for it.

Three kinds (after memcached): a `CommandError` was understood and refused, the
connection goes on; after a `ProtocolError` the position in the stream is lost, so
the connection ends; anything else is a bug of ours, logged with its traceback.

Clients match on these texts, so they are Redis's own, word for word.
"""

from __future__ import annotations

SYNTAX = "ERR syntax error"
NOT_AN_INTEGER = "ERR value is not an integer or out of range"
NOT_A_FLOAT = "ERR value is not a valid float"
OVERFLOW = "ERR increment or decrement would overflow"
NOT_FINITE = "ERR increment would produce NaN or Infinity"
NO_SUCH_KEY = "ERR no such key"
SAME_OBJECT = "ERR source and destination objects are the same"
OFFSET_OUT_OF_RANGE = "ERR offset is out of range"
DB_OUT_OF_RANGE = "ERR DB index is out of range"
INVALID_CURSOR = "ERR invalid cursor"
NESTED_MULTI = "ERR MULTI calls can not be nested"
MULTI_INSIDE_START = "ERR a transaction that was begun with START is open on this connection: COMMIT or ROLLBACK first"
WATCH_INSIDE_MULTI = "ERR WATCH inside MULTI is not allowed"
EXEC_WITHOUT_MULTI = "ERR EXEC without MULTI"
DISCARD_WITHOUT_MULTI = "ERR DISCARD without MULTI"
NOT_INSIDE_MULTI = "ERR Command not allowed inside a transaction"
TRANSACTION_ABORTED = "EXECABORT Transaction discarded because of previous errors."
TRANSACTION_ABORTED_BY = "EXECABORT Transaction discarded because of: "
NOT_AUTHENTICATED = "NOAUTH Authentication required."
HELLO_NOT_AUTHENTICATED = (
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the "
    "HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and "
    "select the RESP protocol version at the same time"
)
WRONG_PASSWORD = "WRONGPASS invalid username-password pair or user is disabled."
NO_PASSWORD_SET = (
    "ERR AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?"
)
UNSUPPORTED_PROTOCOL = "NOPROTO unsupported protocol version"
LOADING = "LOADING Redis is loading the dataset in memory"  # clients wait and try again
TOO_MANY_CLIENTS = "ERR max number of clients reached"
NO_CLUSTER = "ERR This instance has cluster support disabled"
INTERNAL = "ERR internal error"
NOT_SAVED = "MISCONF The change was undone, because it cannot be saved: "
BUSY = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
SCRIPT_UNKILLABLE = (
    "UNKILLABLE Sorry the script already executed write commands against the dataset. You can "
    "either wait the script termination or kill the server in a hard way using the SHUTDOWN NOSAVE "
    "command."
)
READ_ONLY = "READONLY You can't write against a read only replica."
OUT_OF_MEMORY = "OOM command not allowed when used memory > 'maxmemory'."


TLS_HANDSHAKE = 0x16
"""The byte that a TLS client begins with: nothing of what follows may be taken for a command."""


class CommandError(Exception):
    """A request that was understood and refused; the connection goes on.

    The text starts with a code word in capitals (ERR, NOAUTH, OOM), as in RESP.
    """

    @property
    def text(self) -> str:
        return str(self.args[0])

    def as_reply(self) -> CommandError:
        """Return it to be kept as a reply, without the frames that it came through.

        One of them holds the reply: they would keep each other, and whatever else is in there.
        """
        self.__traceback__ = self.__context__ = None
        return self


class EntryTooLarge(CommandError):
    """The entry alone is bigger than the whole byte budget; nothing was evicted for it."""

    def __init__(self, cost: int, max_bytes: int) -> None:
        super().__init__(
            f"ERR entry of {cost} bytes is larger than the whole budget of {max_bytes} bytes (--max-mb)"
        )


class ValueTooLarge(CommandError):
    """A value is longer than one value may be (`--max-value-mb`)."""

    def __init__(self, max_value_bytes: int) -> None:
        super().__init__(
            "ERR string exceeds maximum allowed size "
            f"(proto-max-bulk-len, {max_value_bytes} bytes; --max-value-mb sets it)"
        )


class OutOfMemory(CommandError):
    """The budget is used up and the eviction policy forbids making room."""

    def __init__(self) -> None:
        super().__init__(OUT_OF_MEMORY)


class ProtocolError(Exception):
    """Input that cannot be read. Answer what was due before it, then this, then close."""


class NotOurProtocol(ProtocolError):
    """A web page or a TLS client is talking to us: close without a word.

    Redis does the same for `POST` and `Host:`: a browser must not be able to drive the store.
    """
