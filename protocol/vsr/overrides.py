"""The layouts of the vsr wire, protocol 0.11 (Iggy 0.9): what it shares and what only it has."""

from ..model import groups, messages, offsets, streams, system, topics, users
from ..payloads.codec import U8, U32, U64, counted, fixed, layout, optional, rest
from ..payloads.fields import (
    ACK_LEVEL,
    COMPRESSION,
    NAME,
    OPTIONS,
    OPTIONS_BLOCK,
    SHORT_TEXT,
    TEXT,
    USER_STATUS,
    VALUE,
    VALUE_KIND,
)
from ..payloads.permissions import GRANTED, SHOWN
from ..payloads.polls import POLL
from ..payloads.shared import (
    CLUSTER_NODE,
    CONSUMER_OF_TOPIC,
    GROUP_ID,
    PARTITION,
    SHARED,
    STREAM_ID,
    TOPIC_ID,
    USER_ID,
    Codecs,
)
from .messages import POLLED, SEND_MESSAGES, SENT

STREAM = layout(
    streams.Stream,
    id=U32,
    created_at_us=U64,
    topics_count=U32,
    size=U64,
    messages_count=U64,
    name=NAME,
    options=OPTIONS_BLOCK,
)
TOPIC = layout(
    topics.Topic,
    id=U32,
    created_at_us=U64,
    partitions_count=U32,
    message_expiry_us=U64,
    compression=COMPRESSION,
    max_topic_size=U64,
    size=U64,
    messages_count=U64,
    name=NAME,
    options=OPTIONS_BLOCK,
    derived=OPTIONS_BLOCK,
)
OPTION_SPEC = layout(system.OptionSpec, key=NAME, kind=VALUE_KIND, default=VALUE, description=TEXT)
USER = layout(users.User, id=U32, created_at_us=U64, status=USER_STATUS, username=NAME, options=OPTIONS_BLOCK)
CONSUMER_SESSION = {"client": fixed(16), "session": U64, "metadata_watermark": U64}

CODECS: Codecs = SHARED | {
    system.AttachConsumerSession: layout(system.AttachConsumerSession, **CONSUMER_SESSION),
    system.ConsumerRouting: layout(system.ConsumerRouting, **CONSUMER_SESSION, primary=CLUSTER_NODE),
    users.CreateUser: layout(
        users.CreateUser,
        username=SHORT_TEXT,
        password=SHORT_TEXT,
        status=USER_STATUS,
        permissions=GRANTED,
        options=OPTIONS,
    ),
    users.UpdateUser: layout(
        users.UpdateUser, **USER_ID, username=optional(SHORT_TEXT), status=optional(USER_STATUS), options=OPTIONS
    ),
    users.UserDetails: layout(users.UserDetails, user=USER, permissions=SHOWN),
    users.Users: layout(users.Users, users=rest(USER)),
    messages.PollMessagesOnPrimary: layout(messages.PollMessagesOnPrimary, **POLL),
    messages.GetPollRouting: layout(messages.GetPollRouting, **POLL),
    offsets.GetConsumerOffsetRouting: layout(offsets.GetConsumerOffsetRouting, **CONSUMER_OF_TOPIC),
    system.DescribeOptions: layout(system.DescribeOptions, scope=U8),
    system.OptionSpecs: layout(system.OptionSpecs, specs=counted(OPTION_SPEC)),
    messages.SendMessages: SEND_MESSAGES,
    messages.Sent: SENT,
    messages.Polled: POLLED,
    offsets.StoreConsumerOffset: layout(offsets.StoreConsumerOffset, **CONSUMER_OF_TOPIC, offset=U64, ack=ACK_LEVEL),
    offsets.DeleteConsumerOffset: layout(offsets.DeleteConsumerOffset, **CONSUMER_OF_TOPIC, ack=ACK_LEVEL),
    streams.CreateStream: layout(streams.CreateStream, name=NAME, options=OPTIONS),
    streams.UpdateStream: layout(streams.UpdateStream, **STREAM_ID, name=NAME, options=OPTIONS),
    streams.StreamDetails: layout(streams.StreamDetails, stream=STREAM, topics=rest(TOPIC)),
    streams.Streams: layout(streams.Streams, streams=rest(STREAM)),
    topics.CreateTopic: layout(topics.CreateTopic, **STREAM_ID, partitions_count=U32, name=NAME, options=OPTIONS),
    topics.UpdateTopic: layout(topics.UpdateTopic, **TOPIC_ID, name=NAME, options=OPTIONS),
    topics.TopicDetails: layout(topics.TopicDetails, topic=TOPIC, partitions=rest(PARTITION)),
    topics.Topics: layout(topics.Topics, topics=counted(TOPIC)),
    groups.SyncConsumerGroup: layout(groups.SyncConsumerGroup, **GROUP_ID),
    groups.GroupAssignment: layout(groups.GroupAssignment, generation=U64, partitions=counted(U32)),
}
