"""The classic wire: requests of Iggy clients up to 0.8 in, their replies out. See `frames` for the bytes.

Services answer every generation alike. Where a classic client must see something else, a table here says so: a status
that it does not know, or takes for the loss of its connection, leaves it waiting or reconnecting.
"""

from collections.abc import Callable, Iterator

import msgspec

from ..batch import BadBatch, Buffer
from ..commands import COMMANDS
from ..errors import Status, WireError
from ..inbox import Inbox
from ..model import groups, offsets, streams, system, tokens, topics, users
from ..model.messages import RESYNC_PARTITION, Polled, PollMessages, SendMessages, Sent
from ..primitives import PollingKind
from ..wire import Receiver, Request
from . import frames
from .messages import HEAD_SIZE, read_send, write_polled
from .old import Guess
from .overrides import CODECS

BY_CODE = {row.code: row for row in COMMANDS if row.request in CODECS}

# Looking for what is not there is answered with nothing, wherever the search ends.
_LOOKUPS = (
    system.GetClient,
    users.GetUser,
    streams.GetStream,
    topics.GetTopic,
    topics.GetTopics,
    groups.GetConsumerGroup,
    groups.GetConsumerGroups,
    offsets.GetConsumerOffset,
)
_MISSING = frozenset(
    {
        Status.RESOURCE_NOT_FOUND,
        Status.CLIENT_NOT_FOUND,
        Status.STREAM_ID_NOT_FOUND,
        Status.TOPIC_ID_NOT_FOUND,
        Status.PARTITION_NOT_FOUND,
        Status.CONSUMER_OFFSET_NOT_FOUND,
        Status.CONSUMER_GROUP_ID_NOT_FOUND,
    }
)
# Statuses that came with 0.9, as what a client before that knows. Those of its own wire are not among them.
_TOLD_AS = {
    Status.INVALID_PERSONAL_ACCESS_TOKEN_EXPIRY: Status.INVALID_COMMAND,
    Status.TOO_MANY_STREAMS: Status.CANNOT_CREATE_STREAM,
    Status.TOO_MANY_TOPICS: Status.CANNOT_CREATE_TOPIC,
    Status.PARTITION_ID_SPACE_EXHAUSTED: Status.CANNOT_CREATE_PARTITION,
    Status.TOO_MANY_CONSUMER_OFFSETS: Status.ERROR,
    Status.UNSUPPORTED_OPTION_KEY: Status.INVALID_COMMAND,
    Status.INVALID_OPTION_VALUE: Status.INVALID_COMMAND,
    Status.OPTIONS_BLOCK_TOO_LARGE: Status.INVALID_COMMAND,
    Status.SEGMENT_SIZE_MISMATCH_AT_OPEN: Status.ERROR,
    Status.CONSUMER_GROUP_PARTITION_NOT_OWNED: Status.NOT_RESOLVED_CONSUMER,
}
# An idle consumer of a group asks again at once, thousands of times a second. After so many polls in a row that found
# nothing it is answered late, once in a round of its partitions: 5 ms make 190 polls a second of 8000.
IDLE_POLLS_MAX = 8
IDLE_PAUSE_S = 0.005
# Messages are converted one by one while everybody waits: as many take 40 ms. A poll gets fewer and asks again.
POLL_COUNT_MAX = 50_000
_LAST = PollingKind.LAST  # CPython 3.11 takes 0.3 us for the long name


class ClassicWire(Receiver):
    """The wire of one connection.

    random_bytes: where the ids of messages that have none come from.
    """

    def __init__(self, inbox: Inbox, *, frame_size_max: int, random_bytes: Callable[[int], bytes]) -> None:
        super().__init__(inbox, frame_size_max)
        inbox.measure = frames.measure
        self._random_bytes = random_bytes
        self._head_size = HEAD_SIZE  # of its messages: known from its first send on
        self._guess: Guess | None = Guess()  # until it is known, or has to be
        self._idle_polls = 0
        self._idle_partition = 0

    def requests(self, count_max: int) -> Iterator[Request]:
        return map(self._request, self._inbox.frames(count_max))

    def reply(self, request: Request, reply: msgspec.Struct | None) -> list[Buffer]:
        if type(reply) is Polled:
            return self._polled(reply)
        self._note(idle=False)
        if reply is None or type(reply) is Sent:
            return [_DONE]
        body = CODECS[type(reply)].encode(reply)
        return [frames.reply_head(len(body)) + body]

    def refuse(self, request: Request, status: Status) -> list[Buffer]:
        command = request.command
        self._note(idle=isinstance(command, PollMessages))  # it asks again as fast as one that finds nothing
        if status in _MISSING and isinstance(command, _LOOKUPS):
            return [_DONE]
        if status is Status.INVALID_PERSONAL_ACCESS_TOKEN and isinstance(command, tokens.LoginWithToken):
            status = Status.RESOURCE_NOT_FOUND
        return [frames.reply_head(0, _TOLD_AS.get(status, status))]

    def _request(self, frame: memoryview) -> Request:
        command = BY_CODE.get(frames.code_of(frame))
        if command is None:
            return Request(None, None, Status.INVALID_COMMAND)
        body = frame[frames.HEAD_SIZE :]
        try:
            if command.request is SendMessages:
                send, self._head_size = read_send(body, self._random_bytes)
                self._guess = None
                return Request(send, None)
            decoded = CODECS[command.request].decode(body)
        except WireError as error:
            return Request(None, None, error.status)
        if type(decoded) is PollMessages and decoded.count > POLL_COUNT_MAX:
            decoded = _with_less(decoded)
        if self._guess is not None and (head_size := self._guess.learn(decoded)):
            self._head_size, self._guess = head_size, None
        return Request(decoded, None)

    def _polled(self, reply: Polled) -> list[Buffer]:
        if reply.partition_id == RESYNC_PARTITION:
            reply = Polled(0, 0, 0, [])
        self._note(idle=not reply.messages_count, partition_id=reply.partition_id)
        try:
            body = write_polled(reply, self._head_size)
        except BadBatch:
            return [frames.reply_head(0, Status.CANNOT_READ_MESSAGE)]
        return [frames.reply_head(sum(map(len, body))) + body[0], *body[1:]]

    def _note(self, *, idle: bool, partition_id: int = 0) -> None:
        """Count polls that found nothing, and say whether the answer to one may be late: a round begins anew."""
        self._idle_polls = self._idle_polls + 1 if idle else 0
        is_round = partition_id <= self._idle_partition
        self._idle_partition = partition_id
        self.pause_s = IDLE_PAUSE_S if is_round and self._idle_polls > IDLE_POLLS_MAX else 0.0


def _with_less(poll: PollMessages) -> PollMessages:
    """Bound how many messages a poll asks for. One for the last ones would begin elsewhere, and stays."""
    is_last = poll.strategy.kind is _LAST
    return poll if is_last else msgspec.structs.replace(poll, count=POLL_COUNT_MAX)


_DONE = frames.reply_head(0)
