"""What a command needs to be allowed. `broker/permissions.py` says which user has it."""

from enum import IntEnum, auto


class Need(IntEnum):
    """Asked for in sets with every command: a plain Enum would take three times as long."""

    NOTHING = auto()  # also before login
    LOGIN = auto()  # any logged-in user
    READ_SERVERS = auto()
    READ_USER = auto()  # of a user, who may itself
    READ_USERS = auto()
    MANAGE_USERS = auto()
    CHANGE_PASSWORD = auto()  # of a user, who may itself
    READ_STREAMS = auto()
    READ_STREAM = auto()
    CREATE_STREAM = auto()
    MANAGE_STREAM = auto()
    READ_TOPIC = auto()
    CREATE_TOPIC = auto()
    MANAGE_TOPIC = auto()
    POLL = auto()
    SEND = auto()
