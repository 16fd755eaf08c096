"""The routes: a row for each method and path, with the command behind it. The first row that fits is taken.

A path's values are named: {stream}, {topic}, {user}, {group} and {consumer} are ids or names, {partition_id} and
{client_id} numbers.
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from ....protocol.model import groups, messages, offsets, partitions, streams, system, tokens, topics, users
from . import commands, decode
from .commands import Call

_STREAM = "/streams/{stream}"
_TOPIC = _STREAM + "/topics/{topic}"
_TOKENS = "/personal-access-tokens"


class Route(NamedTuple):
    """http_status: of a success. body, query: what is read of a request, None for nothing.

    make: makes the command; None where its fields are the values in the path. is_public: needs no sign-in.
    """

    method: str
    path: str
    command: type[msgspec.Struct]
    http_status: int = 200
    body: type[msgspec.Struct] | None = None
    query: type[msgspec.Struct] | None = None
    make: Callable[[Call], msgspec.Struct] | None = None
    is_public: bool = False


_READERS: dict[str, Callable[[str], int | str]] = {"partition_id": decode.number, "client_id": decode.number}


def command_of(route: Route, call: Call) -> msgspec.Struct:
    """Return the command that a request is. Raises Refused and Malformed."""
    if route.make is not None:
        return route.make(call)
    values = {name: _READERS.get(name, decode.identifier)(text) for name, text in call.path.items()}
    if "user" in values:
        values["user"] = call.user
    return route.command(**values)


ROUTES = (
    Route("GET", "/ping", system.Ping, is_public=True),
    Route("GET", "/stats", system.GetStats),
    Route("GET", "/cluster/metadata", system.GetClusterMetadata),
    Route("GET", "/options/{scope}", system.DescribeOptions, make=commands.describe_options),
    Route("GET", "/clients", system.GetClients),
    Route("GET", "/clients/{client_id}", system.GetClient),
    Route("POST", "/users/login", users.Login, body=decode.Login, make=commands.login, is_public=True),
    Route("DELETE", "/users/logout", users.Logout, 204),
    Route("GET", "/users", users.GetUsers),
    Route("POST", "/users", users.CreateUser, body=decode.NewUser, make=commands.create_user),
    Route("GET", "/users/{user}", users.GetUser),
    Route("PUT", "/users/{user}", users.UpdateUser, 204, decode.UserChanges, make=commands.update_user),
    Route("DELETE", "/users/{user}", users.DeleteUser, 204),
    Route(
        "PUT",
        "/users/{user}/permissions",
        users.UpdatePermissions,
        204,
        decode.NewPermissions,
        make=commands.update_permissions,
    ),
    Route(
        "PUT", "/users/{user}/password", users.ChangePassword, 204, decode.NewPassword, make=commands.change_password
    ),
    Route("GET", _TOKENS, tokens.GetTokens),
    Route("POST", _TOKENS, tokens.CreateToken, body=decode.NewToken, make=commands.create_token),
    Route(
        "POST",
        f"{_TOKENS}/login",
        tokens.LoginWithToken,
        body=decode.TokenLogin,
        make=commands.token_login,
        is_public=True,
    ),
    Route("DELETE", f"{_TOKENS}/{{name}}", tokens.DeleteToken, 204, make=commands.delete_token),
    Route("GET", "/streams", streams.GetStreams),
    Route("POST", "/streams", streams.CreateStream, body=decode.NewStream, make=commands.create_stream),
    Route("GET", _STREAM, streams.GetStream),
    Route("PUT", _STREAM, streams.UpdateStream, 204, decode.NewStream, make=commands.update_stream),
    Route("DELETE", _STREAM, streams.DeleteStream, 204),
    Route("DELETE", f"{_STREAM}/purge", streams.PurgeStream, 204),
    Route("GET", f"{_STREAM}/topics", topics.GetTopics),
    Route("POST", f"{_STREAM}/topics", topics.CreateTopic, body=decode.NewTopic, make=commands.create_topic),
    Route("GET", _TOPIC, topics.GetTopic),
    Route("PUT", _TOPIC, topics.UpdateTopic, 204, decode.TopicChanges, make=commands.update_topic),
    Route("DELETE", _TOPIC, topics.DeleteTopic, 204),
    Route("DELETE", f"{_TOPIC}/purge", topics.PurgeTopic, 204),
    Route(
        "POST",
        f"{_TOPIC}/partitions",
        partitions.CreatePartitions,
        body=decode.PartitionsCount,
        make=commands.create_partitions,
    ),
    Route(
        "DELETE",
        f"{_TOPIC}/partitions",
        partitions.DeletePartitions,
        204,
        query=decode.PartitionsCount,
        make=commands.delete_partitions,
    ),
    Route(
        "DELETE",
        f"{_TOPIC}/partitions/{{partition_id}}",
        partitions.DeleteSegments,
        204,
        query=decode.SegmentsCount,
        make=commands.delete_segments,
    ),
    Route("POST", f"{_TOPIC}/messages", messages.SendMessages, 201, decode.Send, decode.Ack, commands.send),
    Route("GET", f"{_TOPIC}/messages", messages.PollMessages, query=decode.Poll, make=commands.poll),
    Route(
        "GET",
        f"{_TOPIC}/messages/flush/{{partition_id}}/{{fsync}}",
        messages.FlushUnsavedBuffer,
        make=commands.flush,
    ),
    Route(
        "GET",
        f"{_TOPIC}/consumer-offsets",
        offsets.GetConsumerOffset,
        query=decode.OffsetOf,
        make=commands.get_offset,
    ),
    Route(
        "PUT",
        f"{_TOPIC}/consumer-offsets",
        offsets.StoreConsumerOffset,
        204,
        decode.NewOffset,
        make=commands.store_offset,
    ),
    Route(
        "DELETE",
        f"{_TOPIC}/consumer-offsets/{{consumer}}",
        offsets.DeleteConsumerOffset,
        204,
        query=decode.PartitionOf,
        make=commands.delete_offset,
    ),
    Route("GET", f"{_TOPIC}/consumer-groups", groups.GetConsumerGroups),
    Route(
        "POST", f"{_TOPIC}/consumer-groups", groups.CreateConsumerGroup, body=decode.Named, make=commands.create_group
    ),
    Route("GET", f"{_TOPIC}/consumer-groups/{{group}}", groups.GetConsumerGroup),
    Route("DELETE", f"{_TOPIC}/consumer-groups/{{group}}", groups.DeleteConsumerGroup, 204),
)
