"""Bare clients of both wires on one port of a real server: the same topics, messages, ids, groups and statuses."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from pybroker.protocol.classic.overrides import CODECS
from pybroker.protocol.errors import Status
from pybroker.protocol.model.groups import (
    CreateConsumerGroup,
    GetConsumerGroup,
    GetConsumerGroups,
    Groups,
    JoinConsumerGroup,
    LeaveConsumerGroup,
)
from pybroker.protocol.model.messages import Polled, PollMessages, SendMessages
from pybroker.protocol.model.offsets import ConsumerOffset, GetConsumerOffset, StoreConsumerOffset
from pybroker.protocol.model.streams import CreateStream, DeleteStream, GetStream, StreamDetails
from pybroker.protocol.model.system import (
    ClientDetails,
    ClusterMetadata,
    GetClusterMetadata,
    GetMe,
    GetStats,
    Ping,
    Stats,
)
from pybroker.protocol.model.topics import CreateTopic, GetTopic, GetTopics, TopicDetails, Topics, UpdateTopic
from pybroker.protocol.model.users import LoggedIn, Login, Logout
from pybroker.protocol.primitives import (
    U64_MAX,
    Compression,
    Consumer,
    ConsumerKind,
    Option,
    Partitioning,
    PartitioningKind,
    PollingKind,
    PollingStrategy,
    ValueKind,
)
from support.batches import make_batch
from support.classic import (
    OLD_HEAD_SIZE,
    POLL_ONCE,
    SEND,
    ClassicClient,
    Message,
    messages_of,
    request_frame,
    send_body,
    sent_bytes,
)
from support.raw import RawClient, read_log
from support.server import Server

ALL = PollMessages(
    Consumer(ConsumerKind.SINGLE, 9), "s", "t", 0, PollingStrategy(PollingKind.FIRST), 1000, auto_commit=False
)
GROUP = Consumer(ConsumerKind.GROUP, "g")
CLIENTS: dict[str, type[ClassicClient | RawClient]] = {"classic": ClassicClient, "vsr": RawClient}


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with Server(tmp_path_factory.mktemp("classic") / "data") as server:
        yield server.port


@pytest.fixture
def classic(port: int) -> Iterator[ClassicClient]:
    with ClassicClient(port) as client:
        client.login()
        yield client
        client.ask(DeleteStream("s"))


@pytest.fixture
def vsr(port: int) -> Iterator[RawClient]:
    with RawClient(port) as client:
        client.login()
        yield client


def make_topic(client: ClassicClient, *options: Option, partitions_count: int = 1) -> TopicDetails:
    assert isinstance(client.ask(CreateStream("s")), StreamDetails)
    topic = client.ask(CreateTopic("s", partitions_count, "t", options))
    assert isinstance(topic, TopicDetails)
    return topic


def send(client: ClassicClient, *messages: Message, head_size: int = 64) -> None:
    topic = client.ask(GetStream("s")).stream.id
    body = send_body([sent_bytes(message, head_size) for message in messages], stream=topic)
    assert client.exchange(SEND, body) == (0, b"")


def poll(client: ClassicClient, command: PollMessages = ALL, *, head_size: int = 64) -> list[Message]:
    status, body = client.exchange(100, bytes(CODECS[PollMessages].encode(command)))
    assert status == 0
    return messages_of(body, head_size)


def test_messages_of_both_generations_are_the_same_for_both(classic: ClassicClient, vsr: RawClient) -> None:
    make_topic(classic)
    sent = [Message(b"classic", id=7, origin_us=9), Message(b"no id", origin_us=10, headers=b"headers")]
    send(classic, *sent)
    batch = make_batch([b"newer"] * 10, message_ids=range(100, 110))
    vsr.ask(SendMessages("s", "t", Partitioning(PartitioningKind.BALANCED), batch))
    send(classic, *[Message(b"alike", id=200 + index) for index in range(10)])
    by_classic, by_vsr = poll(classic), read_log(vsr, "s", "t")
    assert [message.payload for message in by_classic] == [b"classic", b"no id", *[b"newer"] * 10, *[b"alike"] * 10]
    assert [(message.offset, message.id, message.payload, message.timestamp_us) for message in by_classic] == [
        (message.offset, message.id, message.payload, message.timestamp_us) for message in by_vsr
    ]
    assert [(message.origin_us, message.headers) for message in by_classic[:2]] == [(9, b""), (10, b"headers")]
    assert by_classic[1].id
    assert poll(classic) == by_classic


def test_poll_begins_and_ends_inside_what_was_sent_at_once(classic: ClassicClient) -> None:
    make_topic(classic)
    for index in range(3):
        send(classic, *[Message(b"%d" % (10 * index + number)) for number in range(10)])
    at_7 = PollMessages(ALL.consumer, "s", "t", 0, PollingStrategy(PollingKind.OFFSET, 7), 15, auto_commit=True)
    assert [int(message.payload) for message in poll(classic, at_7)] == list(range(7, 22))
    following = PollMessages(ALL.consumer, "s", "t", 0, PollingStrategy(PollingKind.NEXT), 100, auto_commit=False)
    assert [message.offset for message in poll(classic, following)] == list(range(22, 30))


def test_old_client_gets_what_others_sent(classic: ClassicClient, port: int) -> None:
    make_topic(classic)
    send(classic, Message(b"new", id=1))
    with ClassicClient(port) as old:
        old.login()
        send(old, Message(b"old", id=2), head_size=OLD_HEAD_SIZE)
        assert [message.payload for message in poll(old, head_size=OLD_HEAD_SIZE)] == [b"new", b"old"]
    assert [(message.payload, message.id) for message in poll(classic)] == [(b"new", 1), (b"old", 2)]


def test_topic_settings_are_fields_and_options(classic: ClassicClient, vsr: RawClient) -> None:
    gzip = Option("compression_algorithm", ValueKind.STRING, b"gzip")
    hour = Option("message_expiry", ValueKind.U64, struct.pack("<Q", 3_600_000_000))
    made = make_topic(classic, gzip, hour, partitions_count=2).topic
    assert (made.compression, made.message_expiry_us, made.max_topic_size) == (Compression.GZIP, 3_600_000_000, U64_MAX)
    shown = vsr.ask(GetTopic("s", "t")).topic
    assert shown.options == (gzip, hour)
    assert classic.ask(UpdateTopic("s", "t", "t2")) is None
    changed = classic.ask(GetTopic("s", "t2"))
    assert (changed.topic.compression, changed.topic.message_expiry_us) == (Compression.NONE, U64_MAX)
    assert [partition.id for partition in changed.partitions] == [0, 1]


def test_looking_for_what_is_not_there_finds_nothing(classic: ClassicClient) -> None:
    make_topic(classic)
    for command in (GetStream("x"), GetTopic("s", "x"), GetTopic("x", "t"), GetConsumerGroup("s", "t", "x")):
        assert classic.ask(command) is None
    for command in (
        GetTopics("x"),
        GetConsumerGroups("x", "t"),
        GetConsumerGroups("s", "x"),
        GetConsumerGroup("x", 0, 0),
    ):
        assert classic.ask(command) is None
    assert classic.ask(GetConsumerOffset(ALL.consumer, "x", "t", 0)) is None
    assert isinstance(classic.ask(GetTopics("s")), Topics)
    assert classic.ask(GetConsumerGroups("s", "t")) is None  # an empty list has no bytes
    assert classic.ask(DeleteStream("x")) is Status.STREAM_ID_NOT_FOUND


def test_member_of_a_group_gets_its_partitions_in_turn(classic: ClassicClient) -> None:
    make_topic(classic, partitions_count=2)
    stream = classic.ask(GetStream("s")).stream.id
    for partition_id in (0, 1):
        body = send_body([sent_bytes(Message(b"%d" % partition_id))], stream=stream, partition_id=partition_id)
        assert classic.exchange(SEND, body) == (0, b"")
    in_group = PollMessages(GROUP, "s", "t", None, PollingStrategy(PollingKind.NEXT), 10, auto_commit=True)
    assert classic.ask(in_group) is Status.CONSUMER_GROUP_ID_NOT_FOUND
    classic.ask(CreateConsumerGroup("s", "t", "g"))
    assert classic.ask(in_group) is Status.CONSUMER_GROUP_MEMBER_NOT_FOUND
    assert classic.ask(JoinConsumerGroup("s", "t", "g")) is None
    assert {message.payload for _ in range(2) for message in poll(classic, in_group)} == {b"0", b"1"}
    assert poll(classic, in_group) == []
    assert isinstance(classic.ask(GetConsumerGroups("s", "t")), Groups)
    assert [len(member.partitions) for member in classic.ask(GetConsumerGroup("s", "t", "g")).members] == [2]
    assert classic.ask(GetConsumerOffset(GROUP, "s", "t", 1)) == ConsumerOffset(1, 0, 0)
    assert classic.ask(LeaveConsumerGroup("s", "t", "g")) is None


def test_member_that_owns_nothing_polls_nothing_and_may_store_nothing(classic: ClassicClient, port: int) -> None:
    make_topic(classic)
    send(classic, Message(b"one"))
    classic.ask(CreateConsumerGroup("s", "t", "g"))
    classic.ask(JoinConsumerGroup("s", "t", "g"))
    with ClassicClient(port) as other:
        other.login()
        other.ask(JoinConsumerGroup("s", "t", "g"))
        members = (classic, other)
        owned = [client.ask(StoreConsumerOffset(GROUP, "s", "t", 0, 0)) for client in members]
        assert sorted(owned, key=str) == [Status.NOT_RESOLVED_CONSUMER, None]
        idle = members[owned.index(Status.NOT_RESOLVED_CONSUMER)]
        any_partition = PollMessages(GROUP, "s", "t", None, PollingStrategy(PollingKind.FIRST), 10, auto_commit=False)
        this_one = PollMessages(GROUP, "s", "t", 0, PollingStrategy(PollingKind.FIRST), 10, auto_commit=False)
        assert idle.ask(any_partition) == idle.ask(this_one) == Polled(0, 0, 0, [])


def test_nothing_but_a_ping_before_login(port: int) -> None:
    with ClassicClient(port) as client:
        assert client.ask(Ping()) is None
        assert client.ask(GetMe()) is Status.UNAUTHENTICATED
        body = send_body([sent_bytes(Message(b"one"))])
        assert client.exchange(SEND, body) == (Status.UNAUTHENTICATED, b"")
        assert client.ask(Login("iggy", "wrong")) is Status.INVALID_CREDENTIALS
        assert client.ask(Login("iggy", "iggy")) == LoggedIn(0, session=0)
        assert isinstance(client.ask(GetMe()), ClientDetails)
        assert isinstance(client.ask(GetStats()), Stats)
        metadata = client.ask(GetClusterMetadata())
        assert isinstance(metadata, ClusterMetadata)
        assert [(node.tcp_port, node.role, node.status) for node in metadata.nodes] == [(port, 0, 0)]
        assert client.ask(Logout()) is None
        assert client.ask(GetMe()) is Status.UNAUTHENTICATED
        assert client.ask(Ping()) is None


def test_broken_requests_are_refused_and_the_connection_lives(classic: ClassicClient) -> None:
    assert classic.exchange(999, b"what?") == (Status.INVALID_COMMAND, b"")
    assert classic.exchange(202, b"\0") == (Status.INVALID_FORMAT, b"")
    assert classic.exchange(200, b"\x01\x04\0") == (Status.INVALID_COMMAND, b"")
    classic.socket.sendall(struct.pack("<I", 2) + b"??")
    assert classic.receive() == (Status.INVALID_COMMAND, b"")
    assert classic.ask(Ping()) is None


def test_requests_that_come_at_once_are_answered_in_order(classic: ClassicClient) -> None:
    classic.socket.sendall(request_frame(1) + request_frame(999) + request_frame(201) + request_frame(1))
    assert [classic.receive()[0] for _ in range(4)] == [0, Status.INVALID_COMMAND, 0, 0]


@pytest.mark.parametrize("wire", CLIENTS)
def test_port_may_be_for_one_generation(tmp_path: Path, wire: str) -> None:
    (other_wire,) = CLIENTS.keys() - {wire}
    with Server(tmp_path / "data", settings={"IGGY_TCP_WIRE": wire}) as server:
        with CLIENTS[wire](server.port) as client:
            client.login()
            assert isinstance(client.ask(GetMe()), ClientDetails)
        with CLIENTS[other_wire](server.port) as other, pytest.raises(ConnectionError):
            other.login()
        (closed,) = [line for line in server.log().splitlines() if "WARNING" in line]
        assert f"need a client of the {wire} wire, as configured, have one of the {other_wire} wire" in closed


def test_idle_poll_of_a_real_server_is_answered(classic: ClassicClient) -> None:
    make_topic(classic)
    assert [classic.ask(POLL_ONCE) for _ in range(20)] == [Polled(0, 0, 0, [])] * 20
