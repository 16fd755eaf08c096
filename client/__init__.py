"""The client: `async with Client("iggy://user:password@host:8090") as client`. See docs/client.md."""

from .client import Client
from .commits import Every
from .consumer import Consumer
from .errors import (
    BrokerError,
    Closed,
    ConnectError,
    ConnectionLost,
    InvalidRequest,
    InvalidUrl,
    PybrokerError,
    Timeout,
)
from .lanes import Delivery
from .messages import Message, Offset, PolledMessages, Received, Timestamp
from .producer import Producer
from .retry import Retry

__all__ = [
    "Client",
    "Retry",
    "Producer",
    "Delivery",
    "Consumer",
    "Every",
    "Message",
    "Received",
    "PolledMessages",
    "Offset",
    "Timestamp",
    "PybrokerError",
    "InvalidUrl",
    "InvalidRequest",
    "ConnectError",
    "ConnectionLost",
    "Timeout",
    "Closed",
    "BrokerError",
]
