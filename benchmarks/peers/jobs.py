"""What a load is told to do, and what it says it took."""

from typing import Literal

from msgspec import Struct

Kind = Literal["create", "send", "receive", "delete"]


class Job(Struct, frozen=True):
    """messages: in all, of `size` bytes; `batch` of them together. connections: as many share them."""

    kind: Kind
    topic: str
    messages: int = 0
    batch: int = 1
    size: int = 0
    connections: int = 1


class Done(Struct, frozen=True):
    seconds: float
