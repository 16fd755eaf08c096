"""What services work on: the broker's parts, without its sockets and formats."""

from dataclasses import dataclass, field

from ..storage.engine import Clock
from .arrivals import Arrivals
from .catalog import Catalog
from .config import Config
from .counters import Counters
from .dedup import Windows
from .groups import Groups
from .logs import Logs
from .offsets import Offsets
from .passwords import Passwords
from .session import Clients
from .throttle import Throttle


@dataclass
class State:
    """ports: the listeners' real ones by transport, once they are bound.

    balanced: how many sends without a partition each topic had, by stream and topic id.
    windows: the ids of messages that topics with deduplication had lately.
    arrivals: who waits for messages. throttle: who failed to sign in lately. passwords: hashes them, and checks.
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
    passwords: Passwords
    started_at_us: int
    ports: dict[str, int] = field(default_factory=dict[str, int])
    counters: Counters = field(default_factory=Counters)
    arrivals: Arrivals = field(default_factory=Arrivals)
    balanced: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
