"""What the tests of listeners share: limits that are quickly reached, and an answer that needs many packets."""

from pybroker.broker.connection import Connection, Limits
from pybroker.broker.listeners.peers import Peers

LIMITS = Limits(
    frame_size_max=1 << 20,
    frame_size_max_before_login=1 << 16,
    unread_size_max=1 << 16,
    requests_per_turn_max=8,
    login_timeout_s=20,
    write_timeout_s=20,
)
ANSWER_SIZE = 200_000
ASKED = 100  # 20 MB of answers: more than the sockets' buffers take


def only(peers: Peers) -> Connection:
    """Return the one connection there is."""
    (connection,) = peers._tasks.values()
    return connection
