"""The layouts of the vsr wire, protocol 0.11 (Iggy 0.9): what it shares and what only it has."""

from ..model import groups, messages, offsets, streams, system, topics
from ..payloads.codec import U8, U32, U64, counted, layout, rest
from ..payloads.fields import (
    ACK_LEVEL,
    COMPRESSION,
    NAME,
    OPTIONS,
    OPTIONS_BLOCK,
    TEXT,
    VALUE,
    VALUE_KIND,
)
from ..payloads.shared import CONSUMER_OF_TOPIC, GROUP_ID, PARTITION, SHARED, STREAM_ID, TOPIC_ID, Codecs
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

CODECS: Codecs = SHARED | {
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
