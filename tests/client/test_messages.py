"""Messages of a program to records and back."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pybroker.client.errors import InvalidRequest, PybrokerError
from pybroker.client.messages import (
    HeaderValue,
    Message,
    Offset,
    Received,
    Start,
    Timestamp,
    pack_messages,
    strategy_of,
    unpack_messages,
)
from pybroker.protocol.batch import verify
from pybroker.protocol.primitives import PollingKind, PollingStrategy, ValueKind
from pybroker.protocol.unpacked import unpack_headers


def round_trip(*messages: Message | bytes | str) -> list[Received]:
    """Pack the messages as a send does, and unpack them as a poll."""
    return unpack_messages([verify(pack_messages(messages).record).record], 3)


def headers_of(headers: dict[str, Any]) -> dict[str, HeaderValue]:
    (received,) = round_trip(Message(b"x", headers=headers))
    return received.headers


def test_what_is_sent_is_what_is_received() -> None:
    bare, text, whole = round_trip(b"bytes", "text é", Message("payload", id=7, headers={"k": "v"}))
    assert (bare.payload, text.payload, whole.payload) == (b"bytes", "text é".encode(), b"payload")
    assert text.text == "text é"
    assert [each.offset for each in (bare, text, whole)] == [0, 1, 2]
    assert {each.partition for each in (bare, text, whole)} == {3}
    assert whole.id == 7 and whole.headers == {"k": "v"} and bare.headers == {}


def test_messages_without_an_id_get_one_each() -> None:
    ids = {each.id for each in round_trip(*[b"x"] * 100)}
    assert len(ids) == 100 and 0 not in ids


def test_the_time_of_sending_is_told() -> None:
    (first,), (second,) = round_trip(b"x"), round_trip(b"x")
    assert 1_700_000_000_000_000 < first.origin_timestamp_us <= second.origin_timestamp_us


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (0, ValueKind.U8),
        (255, ValueKind.U8),
        (256, ValueKind.U16),
        (1 << 16, ValueKind.U32),
        (1 << 32, ValueKind.U64),
        ((1 << 128) - 1, ValueKind.U128),
        (-1, ValueKind.I8),
        (-129, ValueKind.I16),
        (-(1 << 31), ValueKind.I32),
        (-(1 << 63), ValueKind.I64),
        (-(1 << 127), ValueKind.I128),
        (1.5, ValueKind.F32),
        (0.1, ValueKind.F64),
        (1e300, ValueKind.F64),
        (3.4028234663852886e38, ValueKind.F64),
        (math.inf, ValueKind.F64),
        (True, ValueKind.BOOL),
        (False, ValueKind.BOOL),
        ("text", ValueKind.STRING),
        (b"\0\xff", ValueKind.RAW),
    ],
)
def test_a_header_has_the_smallest_kind_that_holds_it(value: HeaderValue, kind: ValueKind) -> None:
    (received,) = round_trip(Message(b"x", headers={"key": value}))
    entries = unpack_headers(received.headers_raw)
    assert entries is not None and [entry.value.kind for entry in entries] == [kind]
    assert received.headers == {"key": value} and type(received.headers["key"]) is type(value)


TEXTS = st.text(min_size=1, max_size=60)
INTEGERS = st.integers(-(1 << 127), (1 << 128) - 1)


@given(
    st.dictionaries(
        TEXTS,
        TEXTS | INTEGERS | st.floats(allow_nan=False) | st.booleans() | st.binary(min_size=1, max_size=255),
        max_size=10,
    )
)
def test_any_headers_survive(headers: dict[str, HeaderValue]) -> None:
    assert headers_of(headers) == headers


@given(st.binary(max_size=100))
def test_headers_of_any_bytes_can_be_asked_for(data: bytes) -> None:
    assert isinstance(Received(b"x", 0, 0, 0, 0, bytes(16), data).headers, dict)


@pytest.mark.parametrize(
    ("messages", "said"),
    [
        ([], "no messages"),
        ([b""], "an empty payload"),
        ([Message("")], "an empty payload"),
        ([b"x" * 64_000_001], "a payload of 64000001 bytes"),
        ([Message(b"x", id=0)], "message id 0: expected 1 to"),
        ([Message(b"x", id=1 << 128)], "expected 1 to"),
        ([Message(b"x", headers={"": 1})], "key of 0 bytes"),
        ([Message(b"x", headers={"k" * 256: 1})], "key of 256 bytes"),
        ([Message(b"x", headers={"k": ""})], "value of 0 bytes"),
        ([Message(b"x", headers={"k": b"v" * 256})], "value of 256 bytes"),
        ([Message(b"x", headers={"k": 1 << 128})], "at most 128 bits"),
        ([Message(b"x", headers={str(number): "v" * 255 for number in range(400)})], "user headers of"),
        (b"payload", "expected a list of messages"),
    ],
)
def test_what_no_server_takes_is_refused_here(messages: Any, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        pack_messages(messages)


def test_records_that_can_not_be_read_are_an_error() -> None:
    with pytest.raises(PybrokerError, match="can't be read"):
        unpack_messages([bytes(pack_messages([b"x"]).record)[:-1]], 0)


@pytest.mark.parametrize(
    ("start", "strategy"),
    [
        ("first", PollingStrategy(PollingKind.FIRST)),
        ("last", PollingStrategy(PollingKind.LAST)),
        ("next", PollingStrategy(PollingKind.NEXT)),
        (Offset(7), PollingStrategy(PollingKind.OFFSET, 7)),
        (Timestamp(8), PollingStrategy(PollingKind.TIMESTAMP, 8)),
    ],
)
def test_a_poll_starts_where_it_is_told(start: Start, strategy: PollingStrategy) -> None:
    assert strategy_of(start) == strategy


def test_a_poll_starts_nowhere_else() -> None:
    wrong: Any = "middle"
    with pytest.raises(InvalidRequest, match="'middle': expected first"):
        strategy_of(wrong)
