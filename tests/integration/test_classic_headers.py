"""User headers, ids and times between the newest client and the classic wire, whose Python clients show no headers."""

from collections.abc import Sequence

import pytest
from apache_iggy import IggyClient, SendMessage
from support.classic import (
    HEAD_SIZE,
    OLD_HEAD_SIZE,
    SEND,
    ClassicClient,
    Message,
    messages_of,
    send_body,
    sent_bytes,
)
from support.server import Server
from support.wheel import make_topic, poll, send, stream_of

POLL = 100
ID = (1 << 127) + 5
ORIGIN_US = 1_700_000_000_000_000
POLL_FROM_FIRST = bytes.fromhex("03 0000000000000000 e8030000 00")
# A value of each kind that the client makes of Python's; its keys are strings. Pairs are in the order of the keys.
HEADERS = {"a": "żółw", "b": b"\x00\xff", "c": True, "d": 7, "e": 1 << 70, "f": -1, "g": 1.5, "h": 0.1}
ENCODED = bytes.fromhex(
    "02 01000000 61 02 07000000 c5bcc3b3c58277"
    "02 01000000 62 01 02000000 00ff"
    "02 01000000 63 03 01000000 01"
    "02 01000000 64 09 01000000 07"
    "02 01000000 65 0d 10000000 00000000000000004000000000000000"
    "02 01000000 66 04 01000000 ff"
    "02 01000000 67 0e 04000000 0000c03f"
    "02 01000000 68 0f 08000000 9a9999999999b93f"
)
# 0.6 has string keys only, and no kind before them.
PLAIN, OLD_ENCODED = {"a": "b"}, bytes.fromhex("01000000 61 02 01000000 62")


class Classic:
    """A bare classic client at the one partition of a topic. head_size: which generation it is of."""

    def __init__(self, client: ClassicClient, stream_id: int, head_size: int) -> None:
        self.client = client
        self.stream_id = stream_id
        self.head_size = head_size

    def send(self, messages: Sequence[Message]) -> None:
        encoded = [sent_bytes(message, self.head_size) for message in messages]
        assert self.client.exchange(SEND, send_body(encoded, stream=self.stream_id)) == (0, b"")

    def poll(self) -> list[Message]:
        """Poll from the first message on, as consumer 0."""
        stream, topic = (b"\x01\x04" + number.to_bytes(4, "little") for number in (self.stream_id, 0))
        consumer, partition = b"\x01" + b"\x01\x04" + bytes(4), b"\x01" + bytes(4)
        status, body = self.client.exchange(POLL, consumer + stream + topic + partition + POLL_FROM_FIRST)
        assert status == 0
        return messages_of(body, self.head_size)


@pytest.fixture(params=[HEAD_SIZE, OLD_HEAD_SIZE], ids=["0.8", "0.6"])
async def classic(request: pytest.FixtureRequest, server: Server, client: IggyClient, stream: str) -> Classic:
    """A classic client at a new topic, in which it has put one message: by that its generation is known."""
    await make_topic(client, stream)
    bare = ClassicClient(server.port)
    request.addfinalizer(bare.socket.close)
    bare.login()
    peer = Classic(bare, (await stream_of(client, stream)).id, request.param)
    peer.send([Message(b"hello", ID, origin_us=ORIGIN_US)])
    return peer


async def test_classic_client_sees_what_the_newest_sent(client: IggyClient, stream: str, classic: Classic) -> None:
    await send(client, stream, "topic", [SendMessage("full", HEADERS, ID + 1), SendMessage("bare")])
    newest = await poll(client, stream, "topic")
    seen = classic.poll()
    assert [(m.offset, m.id, m.payload, m.timestamp_us, m.origin_us) for m in seen] == [
        (m.offset(), m.id(), m.payload(), m.timestamp(), m.origin_timestamp()) for m in newest
    ]
    assert [message.payload for message in seen] == [b"hello", b"full", b"bare"]
    assert seen[1].id == ID + 1
    encoded = ENCODED if classic.head_size == HEAD_SIZE else without_key_kinds(ENCODED)
    assert [message.headers for message in seen] == [b"", encoded, b""]


async def test_newest_client_sees_what_a_classic_one_sent(client: IggyClient, stream: str, classic: Classic) -> None:
    if classic.head_size == HEAD_SIZE:
        headers, encoded = HEADERS, ENCODED
    else:
        headers, encoded = PLAIN, OLD_ENCODED
    full = Message(b"full", ID + 1, origin_us=ORIGIN_US + 7, headers=encoded)
    classic.send([full, Message(b"bare", origin_us=ORIGIN_US)])
    _, first, second = await poll(client, stream, "topic")
    assert (first.payload(), first.id(), first.origin_timestamp()) == (b"full", ID + 1, ORIGIN_US + 7)
    assert (second.payload(), second.origin_timestamp()) == (b"bare", ORIGIN_US)
    assert second.id() not in (0, ID, ID + 1)
    found = first.user_headers()
    assert found is not None
    assert found.to_scalar_dict() == headers
    assert second.user_headers() is None
    assert [message.headers for message in classic.poll()] == [b"", encoded, b""]


def without_key_kinds(headers: bytes) -> bytes:
    """Return headers, whose keys have one byte each, as 0.6 has them."""
    pairs: list[bytes] = []
    start = 0
    while start < len(headers):
        end = start + 11 + int.from_bytes(headers[start + 7 : start + 11], "little")
        pairs.append(headers[start + 1 : end])
        start = end
    return b"".join(pairs)
