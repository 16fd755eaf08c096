"""What only the classic wire has, as bytes written out from the reference: decoded, encoded, cut and prolonged."""

import struct
from typing import Any

import pytest
from msgspec import Struct
from pybroker.protocol.classic.overrides import CODECS
from pybroker.protocol.classic.wire import BY_CODE
from pybroker.protocol.errors import Refused, Status, WireError
from pybroker.protocol.model.messages import Polled, SendMessages
from pybroker.protocol.model.offsets import DeleteConsumerOffset, StoreConsumerOffset
from pybroker.protocol.model.partitions import Partition
from pybroker.protocol.model.streams import CreateStream, Stream, StreamDetails, Streams, UpdateStream
from pybroker.protocol.model.system import GetStats
from pybroker.protocol.model.tokens import LoginWithToken
from pybroker.protocol.model.topics import CreateTopic, Topic, TopicDetails, Topics, UpdateTopic
from pybroker.protocol.model.users import CreateUser, LoggedIn, Login, UpdateUser, User, UserDetails, Users
from pybroker.protocol.payloads.shared import SHARED
from pybroker.protocol.primitives import (
    U32_MAX,
    U64_MAX,
    Compression,
    Option,
    Partitioning,
    PartitioningKind,
    UserStatus,
    ValueKind,
)
from support.batches import make_batch
from support.classic import Message, polled_bytes, sent_bytes
from support.layouts import (
    CAFE,
    DURABILITY,
    ID_0,
    ID_7,
    IN_GROUP,
    LONG,
    NAME_LONG,
    NESTED,
    NESTED_BYTES,
    ORDERS,
    SINGLE,
    U64_1,
    U64_ALL,
    Row,
    row,
)

NO_OPTION = b"\x01" + bytes(16) + b"\x01"  # no compression, the server's expiry and size, one replica
GZIP = Option("compression_algorithm", ValueKind.STRING, b"gzip")
PLAIN = Option("compression_algorithm", ValueKind.STRING, b"none")
NEVER = Option("message_expiry", ValueKind.U64, U64_ALL)
DEFAULT_EXPIRY = Option("message_expiry", ValueKind.U64, bytes(8))
SIZE_1 = Option("max_topic_size", ValueKind.U64, U64_1)
DEFAULT_SIZE = Option("max_topic_size", ValueKind.U64, bytes(8))

STREAM = Stream(1, 2, 3, 4, 5, "orders")
STREAM_BYTES = (
    b"\x01\0\0\0" b"\x02\0\0\0\0\0\0\0" b"\x03\0\0\0" b"\x04\0\0\0\0\0\0\0" b"\x05\0\0\0\0\0\0\0" b"\x06orders"
)  # fmt: skip
BARE_STREAM = Stream(U32_MAX, U64_MAX, U32_MAX, U64_MAX, U64_MAX, LONG)
BARE_STREAM_BYTES = b"\xff" * 32 + NAME_LONG
TOPIC = Topic(1, 2, 3, U64_MAX, Compression.GZIP, 6, 7, 8, "t", replication_factor=9)
TOPIC_BYTES = (
    b"\x01\0\0\0" b"\x02\0\0\0\0\0\0\0" b"\x03\0\0\0" + U64_ALL + b"\x02" b"\x06\0\0\0\0\0\0\0" b"\x09"
    b"\x07\0\0\0\0\0\0\0" b"\x08\0\0\0\0\0\0\0" b"\x01t"
)  # fmt: skip
PARTITION = Partition(1, 2, 3, 4, 5, 6)
PARTITION_BYTES = (
    b"\x01\0\0\0" b"\x02\0\0\0\0\0\0\0" b"\x03\0\0\0" b"\x04\0\0\0\0\0\0\0" b"\x05\0\0\0\0\0\0\0" b"\x06\0\0\0\0\0\0\0"
)  # fmt: skip
USER = User(1, 2, UserStatus.INACTIVE, "bob")
USER_BYTES = b"\x01\0\0\0" b"\x02\0\0\0\0\0\0\0" b"\x02" b"\x03bob"  # fmt: skip

MESSAGES = (Message(b"one", id=5, origin_us=9), Message(b"three", id=6, origin_us=11, headers=b"h"))
BATCH = make_batch([b"one", b"three"], message_ids=(5, 6), origin_timestamp_us=9)
INDEX = b"\0\0\0\0" b"\x43\0\0\0" + bytes(8) + b"\0\0\0\0" b"\x88\0\0\0" + bytes(8)  # fmt: skip
FIRST, SECOND = (sent_bytes(Message(payload, id=id_, origin_us=9)) for payload, id_ in ((b"one", 5), (b"three", 6)))

REQUESTS = [
    row(Login("bob", "secret"), b"\x03bob" b"\x06secret" + bytes(8)),
    row(Login("bob", "", "0.10.0", "é"), b"\x03bob" b"\0" b"\x06\0\0\x000.10.0" b"\x02\0\0\0\xc3\xa9"),
    row(LoginWithToken("5ecret"), b"\x065ecret"),
    row(CreateUser("bob", "secret", UserStatus.ACTIVE, None), b"\x03bob" b"\x06secret" b"\x01" b"\0"),
    row(
        CreateUser(LONG, "", UserStatus.INACTIVE, NESTED), NAME_LONG + b"\0" b"\x02" b"\x01" + NESTED_BYTES
    ),
    row(UpdateUser(7, None, None), ID_7 + b"\0" b"\0"),
    row(UpdateUser("orders", "bob", UserStatus.INACTIVE), ORDERS + b"\x01\x03bob" b"\x01\x02"),
    row(
        SendMessages(7, "orders", Partitioning(PartitioningKind.BALANCED), BATCH),
        b"\x14\0\0\0" + ID_7 + ORDERS + b"\x01\0" b"\x02\0\0\0" + INDEX + FIRST + SECOND,
    ),
    row(
        StoreConsumerOffset(SINGLE, 0, 7, 1, 513),
        b"\x01" + ID_7 + ID_0 + ID_7 + b"\x01\x01\0\0\0" b"\x01\x02\0\0\0\0\0\0",
    ),
    row(DeleteConsumerOffset(IN_GROUP, 0, 7, None), b"\x02" + ORDERS + ID_0 + ID_7 + b"\0\0\0\0\0"),
    row(CreateStream("café"), CAFE[1:]),
    row(UpdateStream("orders", LONG), ORDERS + NAME_LONG),
    row(CreateTopic(7, 1000, "t"), ID_7 + b"\xe8\x03\0\0" + NO_OPTION + b"\x01t"),
    row(
        CreateTopic("orders", 0, "t", (GZIP, NEVER, SIZE_1)),
        ORDERS + bytes(4) + b"\x02" + U64_ALL + U64_1 + b"\x01" b"\x01t",
    ),
    row(CreateTopic(7, 1, "t", (SIZE_1,)), ID_7 + b"\x01\0\0\0" b"\x01" + bytes(8) + U64_1 + b"\x01" b"\x01t"),
    row(UpdateTopic(7, 0, "t", (PLAIN, DEFAULT_EXPIRY, DEFAULT_SIZE)), ID_7 + ID_0 + NO_OPTION + b"\x01t"),
    row(
        UpdateTopic("orders", 0, "t", (GZIP, NEVER, SIZE_1)),
        ORDERS + ID_0 + b"\x02" + U64_ALL + U64_1 + b"\x01" b"\x01t",
    ),
]  # fmt: skip

POLLED = [
    polled_bytes(message._replace(offset=offset, timestamp_us=77))
    for message, offset in zip(MESSAGES, (3, 4), strict=True)
]
REPLIES = [
    row(LoggedIn(513, session=0), b"\x01\x02\0\0"),
    row(UserDetails(USER, None), USER_BYTES + bytes(4)),
    row(UserDetails(USER, NESTED), USER_BYTES + b"\x01" + NESTED_BYTES),
    row(Users([])),
    row(Users([USER, USER]), b"", USER_BYTES, USER_BYTES),
    row(StreamDetails(BARE_STREAM, []), BARE_STREAM_BYTES),
    row(StreamDetails(STREAM, [TOPIC, TOPIC]), STREAM_BYTES, TOPIC_BYTES, TOPIC_BYTES),
    row(Streams([])),
    row(Streams([STREAM, BARE_STREAM]), b"", STREAM_BYTES, BARE_STREAM_BYTES),
    row(TopicDetails(TOPIC, []), TOPIC_BYTES),
    row(TopicDetails(TOPIC, [PARTITION, PARTITION]), TOPIC_BYTES, PARTITION_BYTES, PARTITION_BYTES),
    row(Topics([])),
    row(Topics([TOPIC, TOPIC]), b"", TOPIC_BYTES, TOPIC_BYTES),
    row(Polled(0, 0, 0, []), bytes(16)),
]  # fmt: skip

# Payloads that run to the end of the frame: what stands behind them is part of them.
OPEN = frozenset({Users, StreamDetails, Streams, TopicDetails, Topics, Polled, SendMessages})
ROWS = REQUESTS + REPLIES
each_row = pytest.mark.parametrize("entry", ROWS, ids=lambda entry: type(entry.value).__name__)

# The commands of Iggy 0.8, by code.
CODES = frozenset(
    {1, 10, 11, 12, 20, 21, 22, *range(31, 40), 41, 42, 43, 44, 100, 101, 102, 120, 121, 122}
    | {*range(200, 206), *range(300, 306), 402, 403, 503, *range(600, 606)}
)


def decode(kind: type[Struct], payload: bytes) -> Any:
    return CODECS[kind].decode(memoryview(payload))


def same(one: Any, other: Any) -> bool:
    """Compare values; a batch by what a client sends of it, as its checksums are made anew."""
    if not isinstance(one, SendMessages):
        return bool(one == other)
    return bytes(one.batch.record[256:]) == bytes(other.batch.record[256:]) and one.partitioning == other.partitioning


def test_every_layout_is_shared_or_has_a_row() -> None:
    own = {kind for kind, codec in CODECS.items() if codec is not SHARED.get(kind)}
    assert own == {type(entry.value) for entry in ROWS}


def test_commands_are_those_of_iggy_0_8() -> None:
    assert BY_CODE.keys() == CODES
    assert all(row.reply is None or row.reply in CODECS or row.code == 101 for row in BY_CODE.values())


@each_row
def test_payload_decodes_to_its_value(entry: Row) -> None:
    assert same(decode(type(entry.value), entry.payload), entry.value)


@each_row
def test_value_encodes_to_its_payload(entry: Row) -> None:
    assert CODECS[type(entry.value)].encode(entry.value) == entry.payload


@each_row
def test_payload_cut_anywhere_is_refused_or_a_shorter_value(entry: Row) -> None:
    kind, payload = type(entry.value), entry.payload
    for size in range(len(payload)):
        if size in entry.shorter:
            assert CODECS[kind].encode(decode(kind, payload[:size])) == payload[:size]
        else:
            with pytest.raises(WireError):
                decode(kind, payload[:size])


@each_row
def test_bytes_behind_a_payload_are_ignored_unless_it_runs_to_the_end(entry: Row) -> None:
    kind, longer = type(entry.value), entry.payload + b"\xff\xfe\xff"
    if kind in OPEN:
        with pytest.raises(WireError):
            decode(kind, longer)
    else:
        assert same(decode(kind, longer), entry.value)


def test_messages_of_a_poll_become_a_record_and_are_the_same_again() -> None:
    payload = b"\x02\0\0\0" + struct.pack("<QI", 4, 2) + b"".join(POLLED)
    polled = decode(Polled, payload)
    assert (polled.partition_id, polled.current_offset, polled.messages_count) == (2, 4, 2)
    assert CODECS[Polled].encode(polled) == payload


def test_replication_factor_of_a_topic_means_nothing() -> None:
    three = ID_7 + b"\x01\0\0\0" b"\x01" + bytes(16) + b"\x03" b"\x01t"  # fmt: skip
    assert decode(CreateTopic, three) == CreateTopic(7, 1, "t")


def test_option_that_has_no_field_can_not_be_asked() -> None:
    with pytest.raises(Refused, match=r"durability: Iggy 0\.8 has no such option") as refusal:
        CODECS[CreateTopic].encode(CreateTopic(7, 1, "t", (DURABILITY,)))
    assert refusal.value.status is Status.UNSUPPORTED_OPTION_KEY


def test_reply_is_never_one_byte_as_no_client_would_read_it() -> None:
    encoded = [CODECS[type(entry.value)].encode(entry.value) for entry in REPLIES]
    assert 1 not in map(len, encoded)
    assert decode(GetStats, b"") == GetStats()
