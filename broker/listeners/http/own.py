"""What only this port is asked for: requests that are no commands of the broker's. `app` answers them."""

import msgspec

from ....protocol.needs import Need
from ....protocol.primitives import Consumer, Identifier

ZIP = "application/zip"
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Health(msgspec.Struct):
    pass


class Ready(msgspec.Struct):
    pass


class Metrics(msgspec.Struct):
    pass


class OpenApi(msgspec.Struct):
    pass


class Docs(msgspec.Struct):
    pass


class RefreshToken(msgspec.Struct):
    """token: of a login over HTTP."""

    token: str


class Follow(msgspec.Struct):
    """Push messages as events.

    consumer: who reads, a group to be joined for as long. partition_id None: all partitions. start: "offset" and
    "timestamp" have a value, "next" goes on after the consumer's stored offsets, "new" with what is sent from now on.
    auto_commit: store the consumer's offsets. last_event_id: of the event to go on after, in place of start.
    """

    consumer: Consumer
    stream: Identifier
    topic: Identifier
    partition_id: int | None
    start: str
    value: int
    count: int
    auto_commit: bool
    last_event_id: str


# What those need that not everybody may ask for.
NEEDS: dict[type[msgspec.Struct], Need] = {Metrics: Need.READ_SERVERS, Follow: Need.POLL}
