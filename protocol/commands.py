"""The registry: a row per command. Wires find what to decode here, dispatch what to check.

`operation` is the vsr wire's operation byte, None for what it carries as a non-replicated request (by code).
`need` has no default, so that a command without a rule can't be added.
"""

from typing import NamedTuple

from msgspec import Struct

from .model import groups, messages, offsets, partitions, streams, system, tokens, topics, users
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
    Command(11, "get_snapshot", None, system.GetSnapshot, system.Snapshot, Need.READ_SERVERS),
    Command(12, "get_cluster_metadata", None, system.GetClusterMetadata, system.ClusterMetadata, Need.LOGIN),
    Command(13, "describe_options", None, system.DescribeOptions, system.OptionSpecs, Need.LOGIN),
    Command(14, "attach_consumer_session", None, system.AttachConsumerSession, None, Need.LOGIN),
    Command(20, "get_me", None, system.GetMe, system.ClientDetails, Need.LOGIN),
    Command(21, "get_client", None, system.GetClient, system.ClientDetails, Need.READ_SERVERS),
    Command(22, "get_clients", None, system.GetClients, system.Clients, Need.READ_SERVERS),
    Command(31, "get_user", None, users.GetUser, users.UserDetails, Need.READ_USER),
    Command(32, "get_users", None, users.GetUsers, users.Users, Need.READ_USERS),
    Command(33, "create_user", 141, users.CreateUser, users.UserDetails, Need.MANAGE_USERS),
    Command(34, "delete_user", 143, users.DeleteUser, None, Need.MANAGE_USERS),
    Command(35, "update_user", 142, users.UpdateUser, None, Need.MANAGE_USERS),
    Command(36, "update_permissions", 145, users.UpdatePermissions, None, Need.MANAGE_USERS),
    Command(37, "change_password", 144, users.ChangePassword, None, Need.CHANGE_PASSWORD),
    Command(38, "login_user", 1, users.Login, users.LoggedIn, Need.NOTHING),
    Command(39, "logout_user", 3, users.Logout, None, Need.NOTHING),
    Command(41, "get_tokens", None, tokens.GetTokens, tokens.Tokens, Need.LOGIN),
    Command(42, "create_token", 146, tokens.CreateToken, tokens.RawToken, Need.LOGIN),
    Command(43, "delete_token", 147, tokens.DeleteToken, None, Need.LOGIN),
    Command(44, "login_with_token", 1, tokens.LoginWithToken, users.LoggedIn, Need.NOTHING),
    Command(100, "poll_messages", None, messages.PollMessages, messages.Polled, Need.POLL),
    Command(101, "send_messages", 160, messages.SendMessages, messages.Sent, Need.SEND),
    Command(102, "flush_unsaved_buffer", None, messages.FlushUnsavedBuffer, None, Need.SEND),
    Command(103, "get_poll_routing", None, messages.GetPollRouting, system.ConsumerRouting, Need.POLL),
    Command(104, "poll_messages_on_primary", None, messages.PollMessagesOnPrimary, messages.Polled, Need.POLL),
    Command(120, "get_consumer_offset", None, offsets.GetConsumerOffset, offsets.ConsumerOffset, Need.POLL),
    Command(121, "store_consumer_offset", 161, offsets.StoreConsumerOffset, None, Need.POLL),
    Command(122, "delete_consumer_offset", 162, offsets.DeleteConsumerOffset, None, Need.POLL),
    Command(
        123,
        "get_consumer_offset_routing",
        None,
        offsets.GetConsumerOffsetRouting,
        system.ConsumerRouting,
        Need.POLL,
    ),
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
BY_OPERATION = {row.operation: row for row in COMMANDS if row.operation is not None}  # 1 is either login
BY_REQUEST = {row.request: row for row in COMMANDS}
