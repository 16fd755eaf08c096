"""What the harness and its load generators tell each other: a line of JSON each, over a generator's pipes."""

import msgspec

from .params import Params
from .plan import Actor
from .schedule import Times
from .tally import Result


class Work(msgspec.Struct, tag=True):
    """Connect and get ready. shares: among how many an actor shares its role's rate."""

    params: Params
    url: str
    actors: list[Actor]
    shares: list[int]


class Go(msgspec.Struct, tag=True):
    times: Times


class Stop(msgspec.Struct, tag=True):
    """Actors who have nothing left to read."""

    names: list[str]


class Ready(msgspec.Struct, tag=True):
    pass


class Progress(msgspec.Struct, tag=True):
    """messages: of each actor so far, warm-up included. ended: who is done."""

    messages: dict[str, int]
    ended: list[str]


class Done(msgspec.Struct, tag=True):
    results: list[Result]


class Failed(msgspec.Struct, tag=True):
    why: str


Order = Work | Go | Stop
Report = Ready | Progress | Done | Failed

_ORDERS = msgspec.json.Decoder(Order)
_REPORTS = msgspec.json.Decoder(Report)
LINE_SIZE_MAX = 64 << 20


def line_of(message: Order | Report) -> bytes:
    return msgspec.json.encode(message) + b"\n"


def read_order(line: bytes) -> Order:
    return _ORDERS.decode(line)


def read_report(line: bytes) -> Report:
    return _REPORTS.decode(line)
