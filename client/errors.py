"""What a call can raise. All of it is a PybrokerError."""

from ..protocol.errors import Status


class PybrokerError(Exception):
    """Anything that goes wrong between a program and its broker."""


class InvalidUrl(PybrokerError, ValueError):
    """A connection string that can't be used. The text never shows what may be a secret."""


class InvalidRequest(PybrokerError, ValueError):
    """A message, name or option that no server would take; nothing was sent."""


class ConnectError(PybrokerError, ConnectionError):
    """There is no connection, and none came about in time. Nothing was sent."""


class ConnectionLost(PybrokerError, ConnectionError):
    """The connection broke while a request was on its way: the server may have done it or not."""


class Timeout(PybrokerError, TimeoutError):
    """No answer came in time: the server may have done what was asked, or do it yet."""


class Closed(PybrokerError):
    """A producer or consumer that is not open. What it had taken and not delivered may be stored or not."""


class BrokerError(PybrokerError):
    """The server refuses a request.

    code: Iggy's number, as it came. status: the same as an enumeration; Status.ERROR for a number it doesn't have.
    """

    def __init__(self, code: int, what: str) -> None:
        self.code = code
        self.status = Status(code) if code in _CODES else Status.ERROR
        super().__init__(code, what)

    @property
    def name(self) -> str:
        """Iggy's name for it, as in "stream_name_not_found"."""
        return self.status.name.lower()

    def __str__(self) -> str:
        return f"{self.args[1]}: {self.name} ({self.code})"


_CODES = frozenset(Status)
