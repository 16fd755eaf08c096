"""What a command needs to be allowed. `broker/permissions.py` says which user has it."""

from enum import Enum, auto


class Need(Enum):
    NOTHING = auto()  # also before login
    LOGIN = auto()  # any logged-in user
    READ_SERVERS = auto()
    READ_STREAMS = auto()
    READ_STREAM = auto()
    CREATE_STREAM = auto()
    MANAGE_STREAM = auto()
    READ_TOPIC = auto()
    CREATE_TOPIC = auto()
    MANAGE_TOPIC = auto()
    POLL = auto()
    SEND = auto()
