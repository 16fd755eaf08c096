"""The span of a command: what it says, and what trace it belongs to."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from pybroker.broker.tracing import MESSAGES_LOOKED_AT, TracedDispatch, carried
from pybroker.protocol.model.messages import SendMessages
from pybroker.protocol.model.offsets import StoreConsumerOffset
from pybroker.protocol.model.streams import DeleteStream
from pybroker.protocol.model.system import Ping
from pybroker.protocol.model.topics import DeleteTopic, GetTopic
from pybroker.protocol.primitives import Partitioning, PartitioningKind, PollingKind, PollingStrategy, ValueKind
from pybroker.protocol.unpacked import HeaderEntry, HeaderField, Message, pack, pack_headers
from support.broker import BALANCED, GROUP, READER, Broker, join

TO_FIRST = Partitioning(PartitioningKind.PARTITION, 0)
END = {
    "messaging.system": "iggy",
    "network.transport": "tcp",
    "network.protocol.name": "iggy",
    "server.address": "127.0.0.1",
    "server.port": 8090,
    "client.address": "127.0.0.1",
    "client.port": 10_000,
}


class Traced:
    """A broker with topic "t" of stream "s", and the spans that it made since."""

    def __init__(self, broker: Broker, exporter: InMemorySpanExporter) -> None:
        self.broker = broker
        self._exporter = exporter

    def spans(self) -> list[ReadableSpan]:
        found = list(self._exporter.get_finished_spans())
        self._exporter.clear()
        return found

    def span(self) -> ReadableSpan:
        (span,) = self.spans()
        return span

    async def send(self, *headers: bytes) -> ReadableSpan:
        """Send a message with each of these user headers to partition 0, in one batch."""
        await self.broker.ask(SendMessages("s", "t", TO_FIRST, batch_of(headers)))
        return self.span()

    async def poll(self, start: int = 0, count: int = 1000) -> ReadableSpan:
        await self.broker.poll(PollingStrategy(PollingKind.OFFSET, start), count)
        return self.span()


def batch_of(headers: Sequence[bytes]):
    return pack([Message(bytes(16), b"payload", each) for each in headers], 0)


def entry(key: str, value: str, kind: ValueKind = ValueKind.STRING) -> HeaderEntry:
    return HeaderEntry(HeaderField(ValueKind.STRING, key.encode()), HeaderField(kind, value.encode()))


def parent_of(trace: int, span: int = 1, flags: int = 1) -> str:
    return f"00-{trace:032x}-{span:016x}-{flags:02x}"


def context(trace: int, span: int = 1, flags: int = 1, state: str = "") -> bytes:
    """Return the user headers of a message that belongs to a trace, among others."""
    more = [entry("tracestate", state)] if state else []
    return pack_headers([entry("a", "b"), entry("traceparent", parent_of(trace, span, flags)), *more, entry("z", "y")])


def linked(span: ReadableSpan) -> list[tuple[int, int]]:
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


def trace_id(span: ReadableSpan) -> int:
    assert span.context is not None
    return span.context.trace_id


def trace(broker: Broker, provider: TracerProvider) -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    broker.state.ports["tcp"] = 8090
    broker.dispatch = TracedDispatch(broker.state, provider.get_tracer("test"))
    return exporter


@pytest.fixture
async def traced() -> Traced:
    broker = Broker()
    await broker.create_topic(2)
    return Traced(broker, trace(broker, TracerProvider()))


async def test_send_says_what_was_sent_where(traced: Traced) -> None:
    await traced.broker.send(b"one", b"two", partition_id=1)
    span = traced.span()
    assert (span.name, span.kind, span.status.status_code) == (
        "send_messages s/t",
        SpanKind.PRODUCER,
        StatusCode.UNSET,
    )
    assert span.attributes == END | {
        "messaging.operation.name": "send_messages",
        "messaging.operation.type": "send",
        "messaging.destination.name": "s/t",
        "messaging.destination.partition.id": "1",
        "messaging.batch.message_count": 2,
    }


async def test_poll_of_a_group_says_what_it_got_from_where(traced: Traced) -> None:
    await traced.broker.create_group(traced.broker.root)
    await traced.broker.send(b"one", b"two")
    traced.spans()
    await traced.broker.poll(consumer=GROUP, partition_id=None)
    span = traced.span()
    assert (span.name, span.kind) == ("poll_messages s/t", SpanKind.CONSUMER)
    assert span.attributes == END | {
        "messaging.operation.name": "poll_messages",
        "messaging.operation.type": "receive",
        "messaging.destination.name": "s/t",
        "messaging.destination.partition.id": "0",
        "messaging.consumer.group.name": "g",
        "messaging.batch.message_count": 2,
    }


async def test_names_stand_for_numbers(traced: Traced) -> None:
    await traced.broker.ask(GetTopic(0, 0))
    assert traced.span().name == "get_topic s/t"


async def test_stored_offset_settles(traced: Traced) -> None:
    await traced.broker.send()
    traced.spans()
    await traced.broker.ask(StoreConsumerOffset(READER, "s", "t", 0, 0))
    span = traced.span()
    assert span.attributes is not None
    assert (span.kind, span.attributes["messaging.operation.type"]) == (SpanKind.SERVER, "settle")
    assert span.attributes["messaging.destination.partition.id"] == "0"


async def test_command_without_a_topic_has_no_destination(traced: Traced) -> None:
    await traced.broker.ask(Ping())
    span = traced.span()
    assert (span.name, span.kind) == ("ping", SpanKind.SERVER)
    assert span.attributes == END | {"messaging.operation.name": "ping"}
    await traced.broker.ask(DeleteStream("s"))
    assert traced.span().name == "delete_stream"


async def test_refused_command_is_an_error_with_iggys_name(traced: Traced) -> None:
    await traced.broker.status(DeleteTopic("s", "t"), traced.broker.connect(None))
    span = traced.span()
    assert span.attributes is not None
    assert (span.name, span.attributes["error.type"]) == ("delete_topic s/t", "unauthenticated")
    assert (span.status.status_code, span.status.description, span.events) == (StatusCode.ERROR, None, ())


async def test_names_that_do_not_exist_make_no_names_of_spans(traced: Traced) -> None:
    await traced.broker.status(SendMessages("s", "made up", BALANCED, batch_of([b""])))
    await traced.broker.status(SendMessages("made up", "t", BALANCED, batch_of([b""])))
    assert [span.name for span in traced.spans()] == ["send_messages", "send_messages"]


async def test_send_of_one_context_is_a_part_of_its_trace(traced: Traced) -> None:
    span = await traced.send(context(7, 8, state="vendor=x"), b"", context(7, 8, state="vendor=x"))
    assert span.parent is not None
    assert (trace_id(span), span.parent.span_id, span.parent.is_remote, linked(span)) == (7, 8, True, [])
    assert span.parent.trace_state.to_header() == "vendor=x"


async def test_send_of_several_contexts_is_linked_to_each(traced: Traced) -> None:
    span = await traced.send(context(7, 1), context(7, 2), context(9, 1), context(7, 1))
    assert span.parent is None
    assert linked(span) == [(7, 1), (7, 2), (9, 1)]


@pytest.mark.parametrize(
    "headers",
    [
        b"",
        b"\xff" * 40,
        pack_headers([entry("traceparent", "x" * 55)]),
        pack_headers([entry("traceparent", parent_of(7), ValueKind.RAW)]),
        pack_headers([entry("other", parent_of(7))]),
        context(0),
    ],
    ids=["none", "encrypted", "not one", "not text", "another", "zero"],
)
async def test_what_is_no_context_is_passed_over(traced: Traced, headers: bytes) -> None:
    for span in (await traced.send(headers), await traced.poll()):
        assert (span.parent, linked(span)) == (None, [])


async def test_headers_of_iggy_0_6_are_read(traced: Traced) -> None:
    key, value = b"traceparent", parent_of(7, 8).encode()
    headers = len(key).to_bytes(4, "little") + key + b"\x02" + len(value).to_bytes(4, "little") + value
    assert trace_id(await traced.send(headers)) == 7


async def test_poll_is_linked_to_what_it_returns_and_nothing_else(traced: Traced) -> None:
    await traced.send(context(1), context(2), context(3))
    await traced.send(context(4), b"", context(5))
    span = await traced.poll(1, 4)
    assert span.parent is None
    assert linked(span) == [(2, 1), (3, 1), (4, 1)]
    assert linked(await traced.poll()) == [(number, 1) for number in range(1, 6)]
    assert linked(await traced.poll(5, 9)) == [(5, 1)]
    assert linked(await traced.poll(6)) == []


async def test_only_the_first_messages_are_looked_at(traced: Traced) -> None:
    headers = [context(number + 1) for number in range(MESSAGES_LOOKED_AT + 10)]
    assert len(linked(await traced.send(*headers))) == MESSAGES_LOOKED_AT
    assert linked(await traced.poll())[-1] == (MESSAGES_LOOKED_AT, 1)


async def test_requests_own_context_comes_before_those_of_messages(traced: Traced) -> None:
    traced.broker.root.traceparent, traced.broker.root.tracestate = parent_of(5, 6), "vendor=x"
    span = await traced.send(context(7, 8))
    assert span.parent is not None
    assert (trace_id(span), span.parent.span_id, linked(span)) == (5, 6, [(7, 8)])
    assert span.parent.trace_state.to_header() == "vendor=x"


async def test_trace_that_its_sender_left_out_is_left_out(traced: Traced) -> None:
    await traced.broker.ask(SendMessages("s", "t", BALANCED, batch_of([context(7, flags=0)])))
    assert traced.spans() == []


async def test_commands_are_served_where_nothing_is_sampled() -> None:
    broker = Broker()
    await broker.create_topic()
    exporter = trace(broker, TracerProvider(ALWAYS_OFF))
    await broker.send()
    assert (await broker.poll()).messages_count == 1
    assert exporter.get_finished_spans() == ()


async def test_records_are_the_same_with_and_without_traces(traced: Traced) -> None:
    plain = Broker()
    await plain.create_topic()
    headers = [context(1), b"", context(2, state="a=b")]
    polled: list[bytes] = []
    for broker in (traced.broker, plain):
        await broker.ask(SendMessages("s", "t", TO_FIRST, batch_of(headers)))
        polled += [join((await broker.poll(PollingStrategy(PollingKind.OFFSET, 1), 1)).records)]
        polled += [join((await broker.poll()).records)]
    assert polled[:2] == polled[2:]


@given(st.lists(st.binary(max_size=400), max_size=4))
def test_damaged_records_end_the_search_and_nothing_more(buffers: list[bytes]) -> None:
    assert carried(buffers) == []


@given(cut=st.integers(0, 700), flips=st.lists(st.tuples(st.integers(0, 700), st.integers(0, 255)), max_size=8))
def test_records_with_any_bytes_changed_give_contexts_or_none(cut: int, flips: list[tuple[int, int]]) -> None:
    record = bytearray(batch_of([context(1), context(2), context(3)]).record)
    for position, value in flips:
        record[position % len(record)] = value
    assert len(carried([record[: cut or len(record)]])) <= 3
