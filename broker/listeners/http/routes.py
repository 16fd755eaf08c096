"""The table of routes: a row for every method and path that the port answers. The first row that fits is taken.

Behind each is a command of the broker's, or a request of this port's own (`own`). The API's document is made from the
same rows, so none can be missing there. A path's values are named: {stream}, {topic}, {user}, {group} and {consumer}
are ids or names, {partition_id} and {client_id} numbers.
"""

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from ....protocol.model import groups, messages, offsets, partitions, streams, system, tokens, topics, users
from ...config.schema import HttpMetrics
from . import commands, decode, own
from .commands import Call

_STREAM = "/streams/{stream}"
_TOPIC = _STREAM + "/topics/{topic}"
_PARTITIONS = _TOPIC + "/partitions"
_MESSAGES = _TOPIC + "/messages"
FOLLOWED = "/messages/stream"  # how paths of events end
_OFFSETS = _TOPIC + "/consumer-offsets"
_GROUPS = _TOPIC + "/consumer-groups"
_USER = "/users/{user}"
_TOKENS = "/personal-access-tokens"


class Route(NamedTuple):
    """http_status: of a success. body, query: what is read of a request, None for nothing.

    summary: what it does, for people. make: makes the command; None where its fields are the values in the path.
    is_public: needs no sign-in.
    """

    method: str
    path: str
    command: type[msgspec.Struct]
    summary: str
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


def routes_with(metrics: HttpMetrics) -> tuple[Route, ...]:
    """Return the table with the metrics where they are asked for, or without them."""
    rows = (row._replace(path=metrics.endpoint) if row.command is own.Metrics else row for row in ROUTES)
    return tuple(row for row in rows if metrics.enabled or row.command is not own.Metrics)


ROUTES = (
    Route("GET", "/ping", system.Ping, "Say that the server is there", is_public=True),
    Route("GET", "/health", own.Health, "Say that the process is alive", is_public=True),
    Route("GET", "/ready", own.Ready, "Say whether requests can be served, and if not why", is_public=True),
    Route("GET", "/metrics", own.Metrics, "Show the metrics for Prometheus"),
    Route("GET", "/openapi.json", own.OpenApi, "Show this document", is_public=True),
    Route("GET", "/docs", own.Docs, "Show this document as a page that can be tried out", is_public=True),
    Route("GET", "/stats", system.GetStats, "Show the state of the server and its machine"),
    Route("GET", "/cluster/metadata", system.GetClusterMetadata, "Show the servers and their ports"),
    Route(
        "GET",
        "/options/{scope}",
        system.DescribeOptions,
        "List the options of a topic, stream or user",
        make=commands.describe_options,
    ),
    Route(
        "POST",
        "/snapshot",
        system.GetSnapshot,
        "Download a zip of what helps to find a fault",
        body=decode.SnapshotOf,
        make=commands.snapshot,
    ),
    Route("GET", "/clients", system.GetClients, "List the connected clients"),
    Route("GET", "/clients/{client_id}", system.GetClient, "Show a client and its groups"),
    Route(
        "POST",
        "/users/login",
        users.Login,
        "Sign in with a name and password",
        body=decode.Login,
        make=commands.login,
        is_public=True,
    ),
    Route(
        "POST",
        "/users/refresh-token",
        own.RefreshToken,
        "Get a new token for one that is still good",
        body=decode.TokenLogin,
        make=commands.refresh,
        is_public=True,
    ),
    Route("DELETE", "/users/logout", users.Logout, "Sign out: the token is good no more", 204),
    Route("GET", "/users", users.GetUsers, "List the users"),
    Route("POST", "/users", users.CreateUser, "Create a user", body=decode.NewUser, make=commands.create_user),
    Route("GET", _USER, users.GetUser, "Show a user and what it may do; `me` is oneself"),
    Route(
        "PUT",
        _USER,
        users.UpdateUser,
        "Rename a user, or make it active or inactive",
        204,
        body=decode.UserChanges,
        make=commands.update_user,
    ),
    Route("DELETE", _USER, users.DeleteUser, "Delete a user", 204),
    Route(
        "PUT",
        f"{_USER}/permissions",
        users.UpdatePermissions,
        "Replace what a user may do",
        204,
        body=decode.NewPermissions,
        make=commands.update_permissions,
    ),
    Route(
        "PUT",
        f"{_USER}/password",
        users.ChangePassword,
        "Change a password",
        204,
        body=decode.NewPassword,
        make=commands.change_password,
    ),
    Route("GET", _TOKENS, tokens.GetTokens, "List one's own personal access tokens"),
    Route(
        "POST",
        _TOKENS,
        tokens.CreateToken,
        "Create a personal access token; it is shown this once",
        body=decode.NewToken,
        make=commands.create_token,
    ),
    Route(
        "POST",
        f"{_TOKENS}/login",
        tokens.LoginWithToken,
        "Sign in with a personal access token",
        body=decode.TokenLogin,
        make=commands.token_login,
        is_public=True,
    ),
    Route(
        "DELETE",
        f"{_TOKENS}/{{name}}",
        tokens.DeleteToken,
        "Delete a personal access token",
        204,
        make=commands.delete_token,
    ),
    Route("GET", "/streams", streams.GetStreams, "List the streams"),
    Route(
        "POST", "/streams", streams.CreateStream, "Create a stream", body=decode.NewStream, make=commands.create_stream
    ),
    Route("GET", _STREAM, streams.GetStream, "Show a stream and its topics"),
    Route(
        "PUT", _STREAM, streams.UpdateStream, "Rename a stream", 204, body=decode.NewStream, make=commands.update_stream
    ),
    Route("DELETE", _STREAM, streams.DeleteStream, "Delete a stream with all it holds", 204),
    Route("DELETE", f"{_STREAM}/purge", streams.PurgeStream, "Delete all messages of a stream", 204),
    Route("GET", f"{_STREAM}/topics", topics.GetTopics, "List the topics of a stream"),
    Route(
        "POST",
        f"{_STREAM}/topics",
        topics.CreateTopic,
        "Create a topic",
        body=decode.NewTopic,
        make=commands.create_topic,
    ),
    Route("GET", _TOPIC, topics.GetTopic, "Show a topic and its partitions"),
    Route(
        "PUT",
        _TOPIC,
        topics.UpdateTopic,
        "Rename a topic, or change how long it keeps messages",
        204,
        body=decode.TopicChanges,
        make=commands.update_topic,
    ),
    Route("DELETE", _TOPIC, topics.DeleteTopic, "Delete a topic with all it holds", 204),
    Route("DELETE", f"{_TOPIC}/purge", topics.PurgeTopic, "Delete all messages of a topic", 204),
    Route(
        "POST",
        _PARTITIONS,
        partitions.CreatePartitions,
        "Add partitions",
        body=decode.PartitionsCount,
        make=commands.create_partitions,
    ),
    Route(
        "DELETE",
        _PARTITIONS,
        partitions.DeletePartitions,
        "Delete the partitions with the highest ids, and their messages",
        204,
        query=decode.PartitionsCount,
        make=commands.delete_partitions,
    ),
    Route(
        "DELETE",
        f"{_PARTITIONS}/{{partition_id}}",
        partitions.DeleteSegments,
        "Delete the oldest segments of a partition",
        204,
        query=decode.SegmentsCount,
        make=commands.delete_segments,
    ),
    Route(
        "POST",
        _MESSAGES,
        messages.SendMessages,
        "Send messages",
        201,
        body=decode.Send,
        query=decode.Ack,
        make=commands.send,
    ),
    Route(
        "GET", _MESSAGES, messages.PollMessages, "Poll messages of a partition", query=decode.Poll, make=commands.poll
    ),
    Route(
        "GET",
        _TOPIC + FOLLOWED,
        own.Follow,
        "Push messages as server-sent events",
        query=decode.Follow,
        make=commands.follow,
    ),
    Route(
        "GET",
        f"{_MESSAGES}/flush/{{partition_id}}/{{fsync}}",
        messages.FlushUnsavedBuffer,
        "Write a partition's messages through to the disk",
        make=commands.flush,
    ),
    Route(
        "GET",
        _OFFSETS,
        offsets.GetConsumerOffset,
        "Show where a consumer is",
        query=decode.OffsetOf,
        make=commands.get_offset,
    ),
    Route(
        "PUT",
        _OFFSETS,
        offsets.StoreConsumerOffset,
        "Store where a consumer is",
        204,
        body=decode.NewOffset,
        make=commands.store_offset,
    ),
    Route(
        "DELETE",
        f"{_OFFSETS}/{{consumer}}",
        offsets.DeleteConsumerOffset,
        "Forget where a consumer is",
        204,
        query=decode.PartitionOf,
        make=commands.delete_offset,
    ),
    Route("GET", _GROUPS, groups.GetConsumerGroups, "List the consumer groups of a topic"),
    Route(
        "POST",
        _GROUPS,
        groups.CreateConsumerGroup,
        "Create a consumer group",
        body=decode.Named,
        make=commands.create_group,
    ),
    Route("GET", f"{_GROUPS}/{{group}}", groups.GetConsumerGroup, "Show a consumer group and its members"),
    Route("DELETE", f"{_GROUPS}/{{group}}", groups.DeleteConsumerGroup, "Delete a consumer group", 204),
)
