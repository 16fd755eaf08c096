"""The gate of dispatch: may this user do what a command needs to what it names?"""

from typing import Any

from ..protocol.needs import Need
from .catalog import Catalog

_OF_ONESELF = frozenset({Need.READ_USER, Need.CHANGE_PASSWORD})


def allows(catalog: Catalog, user_id: int, need: Need, command: Any) -> bool:
    """Say whether a signed-in user has what a command needs.

    A stream or topic that does not exist is let through, so that the service says so. Whether a user exists is not
    told to who may not know.
    """
    grants = catalog.grants(user_id)
    if need in grants.everywhere:
        return True
    if need in _OF_ONESELF:
        user = catalog.users.find(command.user)
        return user is not None and user.id == user_id
    if not hasattr(command, "stream"):
        return False
    stream = catalog.streams.find(command.stream)
    if stream is None or grants.of_stream(need, stream.id):
        return True
    if not hasattr(command, "topic"):
        return False
    topic = stream.topics.find(command.topic)
    return topic is None or grants.of_topic(need, stream.id, topic.id)
