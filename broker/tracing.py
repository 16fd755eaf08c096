"""A span for each command, named and described by the semantic conventions for messaging, and its place in a trace.

Only who sends traces imports this: it needs OpenTelemetry. Nothing here changes a message.

Messages bring their trace context in user headers, `traceparent` and `tracestate`, text both. What one context sent is
a part of its trace; what several did is linked to each of them, and so is a poll to those of what it returns.
"""

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from struct import Struct as Layout
from struct import error
from typing import Any, Final, cast

from msgspec import Struct
from opentelemetry.context import Context, attach, detach
from opentelemetry.trace import (
    Link,
    Span,
    SpanContext,
    SpanKind,
    StatusCode,
    Tracer,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from ..protocol.batch import FRAME_HEADER_SIZE, HEADER_SIZE, Buffer, span_of
from ..protocol.commands import BY_REQUEST
from ..protocol.errors import Refused
from ..protocol.model.messages import RESYNC_PARTITION, Polled, PollMessages, PollMessagesOnPrimary, SendMessages, Sent
from ..protocol.model.offsets import StoreConsumerOffset
from ..protocol.primitives import Consumer, ConsumerKind, Transport
from .catalog import Topic
from .dispatch import Dispatch, Serving
from .session import Session
from .state import State

MESSAGES_LOOKED_AT = 128
"""So many messages of a request are searched for a context, the first ones."""

# What a command does to messages, and on whose side of them its span stands.
_OPERATIONS: Final[dict[type[Struct], tuple[str, SpanKind]]] = {
    SendMessages: ("send", SpanKind.PRODUCER),
    PollMessages: ("receive", SpanKind.CONSUMER),
    PollMessagesOnPrimary: ("receive", SpanKind.CONSUMER),
    StoreConsumerOffset: ("settle", SpanKind.SERVER),
}
_NAMES: Final = {Transport.TCP: "tcp", Transport.QUIC: "quic", Transport.HTTP: "http", Transport.WEBSOCKET: "websocket"}
_PROTOCOLS: Final = {Transport.HTTP: "http", Transport.WEBSOCKET: "websocket"}

_SIZES = Layout("<32xII")  # of a frame's headers and payload
# Headers as `unpacked` draws them, from the size of the key on: Iggy 0.6 has no kind before it. They are searched for
# because 100 KB of headers can hold 8000.
_PARENT = re.compile(rb"\x0b\0\0\0traceparent\x02\x37\0\0\0([0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2})")
_STATE = re.compile(rb"\x0a\0\0\0tracestate\x02(.)\0\0\0", re.DOTALL)
_W3C = TraceContextTextMapPropagator()


class TracedDispatch(Dispatch):
    """Dispatch that makes a span of each command; log records written meanwhile belong to it."""

    def __init__(self, state: State, tracer: Tracer) -> None:
        super().__init__(state)
        self._tracer = tracer
        self._ports = state.ports
        config = state.config
        self._hosts = {
            Transport.TCP: config.tcp.address,
            Transport.QUIC: config.quic.address,
            Transport.HTTP: config.http.address,
            Transport.WEBSOCKET: config.websocket.address,
        }
        self._ends: dict[Transport, dict[str, str | int]] = {}

    def begin(self, session: Session, command: Struct) -> Serving:
        return Serving(self._trace(session, command))  # a span is the current one of its task

    async def _trace(self, session: Session, command: Struct) -> Struct | None:
        span = self._start(session, command)
        token = attach(set_span_in_context(span))
        try:
            begun = super().begin(session, command)
            reply = await begun if type(begun) is Serving else begun
            if span.is_recording():
                _describe(span, reply)
            return reply
        except Refused as refused:
            span.set_attribute("error.type", refused.status.name.lower())
            span.set_status(StatusCode.ERROR)
            raise
        finally:
            detach(token)
            span.end()

    def _start(self, session: Session, command: Struct) -> Span:
        kind = type(command)
        operation, side = _OPERATIONS.get(kind, ("", SpanKind.SERVER))
        name = BY_REQUEST[kind].name
        host, _, port = session.address.rpartition(":")
        facts: dict[str, str | int] = {
            **(self._ends.get(session.transport) or self._end(session.transport)),
            "messaging.operation.name": name,
            "client.address": host.strip("[]"),
            "client.port": int(port),
        }
        if operation:
            facts["messaging.operation.type"] = operation
        destination = self._destination(command, facts)
        context, links = _origin(session, command)
        return self._tracer.start_span(f"{name} {destination}".rstrip(), context, side, facts, links)

    def _end(self, transport: Transport) -> dict[str, str | int]:
        """Return what is so of every request by that transport; where it listens is known once it does."""
        facts: dict[str, str | int] = {
            "messaging.system": "iggy",
            "network.transport": "quic" if transport is Transport.QUIC else "tcp",
            "network.protocol.name": _PROTOCOLS.get(transport, "iggy"),
            "server.address": self._hosts[transport].rpartition(":")[0].strip("[]"),
        }
        if port := self._ports.get(_NAMES[transport]):
            facts["server.port"] = port
            self._ends[transport] = facts
        return facts

    def _destination(self, command: Any, facts: dict[str, str | int]) -> str:
        """Put what a command is about into `facts`, and return its topic as "stream/topic", nothing where it has none.

        Only names that exist: a stranger must not make up any number of them.
        """
        stream = self._catalog.streams.find(getattr(command, "stream", -1))
        topic = stream.topics.find(getattr(command, "topic", -1)) if stream else None
        if stream is None or topic is None:
            return ""
        name = facts["messaging.destination.name"] = f"{stream.name}/{topic.name}"
        if isinstance(command, SendMessages):
            facts["messaging.batch.message_count"] = command.batch.count
            return name
        if group := _group_name(topic, command):
            facts["messaging.consumer.group.name"] = group
        partition_id = getattr(command, "partition_id", None)
        if partition_id is not None:
            facts["messaging.destination.partition.id"] = str(partition_id)
        return name


def _group_name(topic: Topic, command: Any) -> str | None:
    consumer: Consumer | None = getattr(command, "consumer", None)
    if consumer is None:
        identifier = getattr(command, "group", None)
    else:
        identifier = consumer.id if consumer.kind is ConsumerKind.GROUP else None
    group = None if identifier is None else topic.groups.find(identifier)
    return group and group.name


def _describe(span: Span, reply: Struct | None) -> None:
    """Add what only the reply knows."""
    if isinstance(reply, Sent):
        span.set_attribute("messaging.destination.partition.id", str(reply.partition_id))
    elif isinstance(reply, Polled):
        span.set_attribute("messaging.batch.message_count", reply.messages_count)
        if reply.partition_id != RESYNC_PARTITION:
            span.set_attribute("messaging.destination.partition.id", str(reply.partition_id))
        for parent, state in carried(reply.records):
            span.add_link(_context(parent, state)[1])


def _origin(session: Session, command: Struct) -> tuple[Context, list[Link]]:
    """Return what a span is a part of, and what it is linked to: the request's own context comes before messages'."""
    found = carried([command.batch.record]) if isinstance(command, SendMessages) else []
    if session.traceparent:
        return _context(session.traceparent, session.tracestate)[0], [Link(_context(*one)[1]) for one in found]
    if len(found) == 1:
        return _context(*found[0])[0], []
    return Context(), [Link(_context(*one)[1]) for one in found]


def _context(parent: str, state: str) -> tuple[Context, SpanContext]:
    """Read headers as the W3C has them; what makes no sense is an empty context, and no span."""
    context = _W3C.extract({"traceparent": parent, "tracestate": state} if state else {"traceparent": parent})
    return context, get_current_span(context).get_span_context()


def carried(records: Iterable[Buffer]) -> list[tuple[str, str]]:
    """Return the different trace contexts of the first MESSAGES_LOOKED_AT messages: traceparent, tracestate or nothing.

    records: whole records back to back, in buffers that end between frames. What is damaged ends the search.
    """
    found: dict[tuple[str, str], None] = {}
    try:
        for headers in islice(_headers(records), MESSAGES_LOOKED_AT):
            if headers and (parent := _PARENT.search(headers)):
                found[parent[1].decode("ascii"), _state(headers)] = None
    except error:
        pass
    return list(found)


def _headers(records: Iterable[Buffer]) -> Iterator[memoryview | None]:
    """Yield each message's user headers, None for none. Raises struct.error for bytes that are no frame."""
    left = 0
    for buffer in records:
        view = memoryview(buffer)
        position = 0
        while position < len(view):
            if not left:
                left = span_of(view, position)[2]
                position += HEADER_SIZE
                continue
            headers_size, payload_size = _SIZES.unpack_from(view, position)
            start = position + FRAME_HEADER_SIZE + payload_size
            position = start + headers_size
            yield view[start:position] if headers_size else None
            left -= 1


def _state(headers: memoryview) -> str:
    match = _STATE.search(headers)
    if match is None:
        return ""
    size = cast(bytes, match[1])[0]
    return bytes(headers[match.end() : match.end() + size]).decode("ascii", "replace")
