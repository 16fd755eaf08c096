"""The registry: a row per command. Wires find what to decode here, dispatch what to check.

`operation` is the vsr wire's operation byte, None for what it carries as a non-replicated request (by code).
`need` has no default, so that a command without a rule can't be added.
"""

from typing import NamedTuple

from msgspec import Struct

from .model import groups, messages, offsets, partitions, streams, system, topics, users
from .needs import Need


class Command(NamedTuple):
    """reply: the struct that answers; None for an answer that is always empty."""

    code: int
    name: str
    operation: int | None
    request: type[Struct]
    reply: type[Struct] | None
    need: Need


COMMANDS = (
    Command(1, "ping", None, system.Ping, None, Need.NOTHING),
    Command(10, "get_stats", None, system.GetStats, system.Stats, Need.READ_SERVERS),
    Command(12, "get_cluster_metadata", None, system.GetClusterMetadata, system.ClusterMetadata, Need.LOGIN),
    Command(13, "describe_options", None, system.DescribeOptions, system.OptionSpecs, Need.LOGIN),
    Command(20, "get_me", None, system.GetMe, system.ClientDetails, Need.LOGIN),
    Command(21, "get_client", None, system.GetClient, system.ClientDetails, Need.READ_SERVERS),
    Command(22, "get_clients", None, system.GetClients, system.Clients, Need.READ_SERVERS),
    Command(38, "login_user", 1, users.Login, users.LoggedIn, Need.NOTHING),
    Command(39, "logout_user", 3, users.Logout, None, Need.NOTHING),
    Command(100, "poll_messages", None, messages.PollMessages, messages.Polled, Need.POLL),
    Command(101, "send_messages", 160, messages.SendMessages, messages.Sent, Need.SEND),
    Command(120, "get_consumer_offset", None, offsets.GetConsumerOffset, offsets.ConsumerOffset, Need.POLL),
    Command(121, "store_consumer_offset", 161, offsets.StoreConsumerOffset, None, Need.POLL),
    Command(122, "delete_consumer_offset", 162, offsets.DeleteConsumerOffset, None, Need.POLL),
    Command(200, "get_stream", None, streams.GetStream, streams.StreamDetails, Need.READ_STREAM),
    Command(201, "get_streams", None, streams.GetStreams, streams.Streams, Need.READ_STREAMS),
    Command(202, "create_stream", 128, streams.CreateStream, streams.StreamDetails, Need.CREATE_STREAM),
    Command(203, "delete_stream", 130, streams.DeleteStream, None, Need.MANAGE_STREAM),
    Command(204, "update_stream", 129, streams.UpdateStream, None, Need.MANAGE_STREAM),
    Command(205, "purge_stream", 131, streams.PurgeStream, None, Need.MANAGE_STREAM),
    Command(300, "get_topic", None, topics.GetTopic, topics.TopicDetails, Need.READ_TOPIC),
    Command(301, "get_topics", None, topics.GetTopics, topics.Topics, Need.READ_TOPIC),
    Command(302, "create_topic", 132, topics.CreateTopic, topics.TopicDetails, Need.CREATE_TOPIC),
    Command(303, "delete_topic", 134, topics.DeleteTopic, None, Need.MANAGE_TOPIC),
    Command(304, "update_topic", 133, topics.UpdateTopic, None, Need.MANAGE_TOPIC),
    Command(305, "purge_topic", 135, topics.PurgeTopic, None, Need.MANAGE_TOPIC),
    Command(402, "create_partitions", 136, partitions.CreatePartitions, None, Need.MANAGE_TOPIC),
    Command(403, "delete_partitions", 137, partitions.DeletePartitions, None, Need.MANAGE_TOPIC),
    Command(503, "delete_segments", 138, partitions.DeleteSegments, None, Need.MANAGE_TOPIC),
    Command(600, "get_consumer_group", None, groups.GetConsumerGroup, groups.GroupDetails, Need.READ_TOPIC),
    Command(601, "get_consumer_groups", None, groups.GetConsumerGroups, groups.Groups, Need.READ_TOPIC),
    Command(602, "create_consumer_group", 139, groups.CreateConsumerGroup, groups.GroupDetails, Need.READ_TOPIC),
    Command(603, "delete_consumer_group", 140, groups.DeleteConsumerGroup, None, Need.READ_TOPIC),
    Command(604, "join_consumer_group", 148, groups.JoinConsumerGroup, None, Need.READ_TOPIC),
    Command(605, "leave_consumer_group", 149, groups.LeaveConsumerGroup, None, Need.READ_TOPIC),
    Command(606, "sync_consumer_group", None, groups.SyncConsumerGroup, groups.GroupAssignment, Need.LOGIN),
)

BY_CODE = {row.code: row for row in COMMANDS}
BY_OPERATION = {row.operation: row for row in COMMANDS if row.operation is not None}
BY_REQUEST = {row.request: row for row in COMMANDS}
