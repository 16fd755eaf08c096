"""For clients of a cluster, which poll and commit at a partition's own server while another keeps their membership.

There is one server, so every route leads here; the connection that comes by it acts as the member that asked for it.
"""

from ...protocol.errors import Refused, Status
from ...protocol.model.messages import GetPollRouting
from ...protocol.model.offsets import GetConsumerOffsetRouting
from ...protocol.model.system import AttachConsumerSession, ConsumerRouting
from ..session import Session
from ..state import State
from .consumers import owner
from .views import node_view


async def route(state: State, session: Session, command: GetPollRouting | GetConsumerOffsetRouting) -> ConsumerRouting:
    """Tell a consumer where its partition is, and as whom to attach there. Raises Refused as `owner` does."""
    stream, topic = state.catalog.topic(command.stream, command.topic)
    owner(state, session, stream, topic, command.consumer, command.partition_id)
    return ConsumerRouting(session.client, session.epoch, 0, node_view(state))


async def attach(state: State, session: Session, command: AttachConsumerSession) -> None:
    """Let a connection act as the group member that another one of its user is, as long as that one stays signed in."""
    asked = (command.client, command.session)
    own = state.clients.of_user(session.user_id)
    parent = next((other for other in own if (other.client, other.epoch) == asked), None)
    if parent is None:
        raise Refused(Status.INVALID_SESSION, "no connection of this user has that client id and session")
    session.parent, session.parent_epoch = parent, parent.epoch
