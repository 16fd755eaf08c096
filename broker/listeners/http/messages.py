"""Sends in JSON become commands."""

import os
import uuid

from ....protocol.batch import NO_ID, BadBatch
from ....protocol.errors import Refused, Status
from ....protocol.model.messages import SendMessages
from ....protocol.primitives import Identifier, Partitioning, PartitioningKind
from ....protocol.unpacked import HeaderEntry, HeaderField, Message, pack, pack_headers
from . import decode, shapes
from .errors import Malformed

_ID_SIZE = 16
_ID_MAX = 2**128 - 1
_PARTITION_SIZE = 4


def send_of(stream: Identifier, topic: Identifier, given: decode.Send, now_us: int) -> SendMessages:
    """Return a command whose messages were made now. Raises Refused, and Malformed for an id that is none."""
    try:
        batch = pack([_message(message) for message in given.messages], now_us)
    except BadBatch as error:
        raise Refused(error.status, error.what) from None
    return SendMessages(stream, topic, _partitioning(given.partitioning), batch)


def _partitioning(given: decode.SentPartitioning) -> Partitioning:
    if given.kind == "balanced":
        return Partitioning(PartitioningKind.BALANCED)
    if given.kind == "messages_key":
        if not 1 <= len(given.value) <= decode.NAME_SIZE_MAX:
            raise Refused(Status.INVALID_KEY_VALUE_LENGTH, f"{len(given.value)} bytes, expected 1 to 255")
        return Partitioning(PartitioningKind.MESSAGES_KEY, given.value)
    if len(given.value) != _PARTITION_SIZE:
        raise Refused(Status.INVALID_FORMAT, f"a partition id of {len(given.value)} bytes, expected 4")
    return Partitioning(PartitioningKind.PARTITION, int.from_bytes(given.value, "little"))


def _message(given: decode.SentMessage) -> Message:
    return Message(_ident(given.id), given.payload, _headers(given.user_headers))


def _ident(given: int | str | None) -> bytes:
    """Return a message's id: a number of 128 bits, in digits or as a UUID; one of our own for none and 0."""
    try:
        value = given or 0
        if isinstance(value, str):
            # 32 digits can be either; as in Iggy they are a UUID.
            value = uuid.UUID(value).int if len(value) in (32, 36) else int(value)
        if not 0 <= value <= _ID_MAX:
            raise ValueError(f"{value} has more than 128 bits")
    except ValueError as error:
        raise Malformed(422, f"the body does not fit: a message's id: {error}") from None
    ident = value.to_bytes(_ID_SIZE, "little")
    return ident if ident != NO_ID else os.urandom(_ID_SIZE)


def _headers(given: list[shapes.HeaderEntry] | bytes | None) -> bytes:
    if given is None or isinstance(given, bytes):
        return given or b""
    return pack_headers([HeaderEntry(_field(entry.key), _field(entry.value)) for entry in given])


def _field(given: shapes.HeaderField) -> HeaderField:
    return HeaderField(shapes.VALUE_KINDS[given.kind], given.value)
