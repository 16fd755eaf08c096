"""What services work on: the broker's parts, without its sockets and formats."""

from dataclasses import dataclass, field

from ..storage.engine import Clock
from .catalog import Catalog
from .config import Config
from .dedup import Windows
from .groups import Groups
from .logs import Logs
from .offsets import Offsets
from .session import Clients
from .throttle import Throttle


@dataclass
class Counters:
    """What went through since the start, in bytes of records; unsent: bytes of answers that peers have yet to take."""

    read_bytes: int = 0
    written_bytes: int = 0
    unsent_bytes: int = 0


@dataclass
class State:
    """ports: the listeners' real ones by transport, once they are bound.

    balanced: how many sends without a partition each topic had, by stream and topic id.
    windows: the ids of messages that topics with deduplication had lately.
    throttle: who failed to sign in lately.
    """

    config: Config
    clock: Clock
    catalog: Catalog
    logs: Logs
    offsets: Offsets
    windows: Windows
    groups: Groups
    clients: Clients
    throttle: Throttle
    started_at_us: int
    ports: dict[str, int] = field(default_factory=dict[str, int])
    counters: Counters = field(default_factory=Counters)
    balanced: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
