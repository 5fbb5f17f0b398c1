"""Users: who they are, what they may do, and what was refused them.

Data and decisions only: nothing here knows a socket, a session or a dialect.
"""

from kvdb.acl.log import DenialLog
from kvdb.acl.rules import READ, WRITE, BadRule, Denial, Reason, Rules, Subject
from kvdb.acl.users import BadUsersFile, User, Users

__all__ = [
    "READ",
    "WRITE",
    "BadRule",
    "BadUsersFile",
    "Denial",
    "DenialLog",
    "Reason",
    "Rules",
    "Subject",
    "User",
    "Users",
]
