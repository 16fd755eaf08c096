"""Connection strings, as Iggy's clients take them.

iggy://user:password@host:port?option=value&...      iggy+tcp:// is the same; the port is 8090 where none is named
iggy://token@host:port                               signs in with a personal access token
iggy+ws://  iggy+wss://                              over WebSocket; the port is 8092
iggy+quic://                                         over QUIC; the port is 8080

User, password and token are percent-decoded. An IPv6 address stands in brackets.
"""

import re
from collections.abc import Callable
from enum import Enum
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

import msgspec

from ..protocol.model.tokens import LoginWithToken
from ..protocol.model.users import Login
from .errors import InvalidUrl
from .retry import Retry

_NOT_SUPPORTED = ("iggy+http", "iggy+https")
_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "sec": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86_400.0}
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?) *([a-z]+) *")
_DURATION = re.compile(rf"(?:{_DURATION_PART.pattern})+")


class Transport(Enum):
    """What carries the bytes. Its value is the port where none is named."""

    TCP = 8090
    WEBSOCKET = 8092
    QUIC = 8080


_TRANSPORTS = {
    "iggy": Transport.TCP,
    "iggy+tcp": Transport.TCP,
    "iggy+ws": Transport.WEBSOCKET,
    "iggy+wss": Transport.WEBSOCKET,
    "iggy+quic": Transport.QUIC,
}
_TLS_SCHEMES = ("iggy+wss",)


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Where to connect, as whom and how.

    tls_domain: whom the certificate has to name; empty for the host. reestablish_after_s: the least time between two
    sign-ins.
    """

    host: str
    port: int
    login: Login | LoginWithToken
    transport: Transport = Transport.TCP
    tls: bool = False
    tls_domain: str = ""
    tls_ca_file: str = ""
    tls_verify: bool = True
    retry: Retry | None = None
    reestablish_after_s: float = 0.0
    heartbeat_s: float = 5.0

    @property
    def address(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def name(self) -> str:
        """Whom the certificate has to name."""
        return self.tls_domain or self.host

    def __repr__(self) -> str:
        who = self.login.username if isinstance(self.login, Login) else "token"
        return f"Target({who} at {self.address})"


def parse(url: str) -> Target:
    """Read a connection string. Raises InvalidUrl."""
    parts, port = _split(url)
    transport = _transport(parts.scheme)
    if not parts.hostname or parts.path not in ("", "/") or parts.fragment:
        raise InvalidUrl("expected iggy://user:password@host:port; write / ? # @ in a password as %2F %3F %23 %40")
    options = _options(parts.query)
    if parts.scheme in _TLS_SCHEMES:
        options["tls"] = True
    port = transport.value if port is None else port
    return Target(host=parts.hostname, port=port, login=_login(parts), transport=transport, **options)


def _transport(scheme: str) -> Transport:
    if scheme in _NOT_SUPPORTED:
        raise InvalidUrl(f"{scheme}:// is not supported by this client; connect with iggy+tcp://")
    if scheme not in _TRANSPORTS:
        raise InvalidUrl("a connection string begins with iggy:// or iggy+tcp://")
    return _TRANSPORTS[scheme]


def _split(url: str) -> tuple[SplitResult, int | None]:
    try:
        parts = urlsplit(url)
        return parts, parts.port
    except ValueError:
        # The error's own text may hold a piece of the password.
        raise InvalidUrl("the address is no host:port; write / ? # @ : in a password percent-encoded") from None


def _login(parts: SplitResult) -> Login | LoginWithToken:
    """Return whom to sign in as; a user without a password is a token."""
    if not parts.username:
        raise InvalidUrl("nobody to sign in as: expected iggy://user:password@host:port or iggy://token@host:port")
    if parts.password is None:
        return LoginWithToken(unquote(parts.username))
    if not parts.password:
        raise InvalidUrl("the password is empty")
    return Login(unquote(parts.username), unquote(parts.password))


def _options(query: str) -> dict[str, Any]:
    """Return the options as fields of Target."""
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError:
        raise InvalidUrl("the options are not name=value, joined by &") from None
    fields: dict[str, Any] = {}
    retry: dict[str, Any] = {}
    for name, value in pairs:
        if name not in _OPTIONS:
            raise InvalidUrl(f"unknown option {name!r}; there are {', '.join(sorted(_OPTIONS))}")
        field, read = _OPTIONS[name]
        into = retry if field in Retry.__struct_fields__ else fields
        into[field] = read(name, value)
    fields.pop("", None)
    if "first_s" in retry:
        retry["max_s"] = retry["first_s"]  # Iggy dials at even intervals
    return fields | ({"retry": Retry(**retry)} if retry else {})


def _flag(name: str, value: str) -> bool:
    if value not in ("true", "false"):
        raise InvalidUrl(f"option {name}: expected true or false, got {value!r}")
    return value == "true"


def _text(_name: str, value: str) -> str:
    return value


def _attempts(name: str, value: str) -> int | None:
    if value != "unlimited" and not (value.isdecimal() and len(value) < 10):
        raise InvalidUrl(f"option {name}: expected a number or unlimited, got {value!r}")
    return None if value == "unlimited" else int(value)


def _duration(name: str, value: str) -> float:
    parts: list[tuple[str, str]] = _DURATION_PART.findall(value) if _DURATION.fullmatch(value) else []
    if not parts or any(unit not in _UNITS_S for _, unit in parts):
        raise InvalidUrl(f"option {name}: expected a duration such as 500ms, 5s or 1m 30s, got {value!r}")
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)


def _positive_duration(name: str, value: str) -> float:
    if not (duration := _duration(name, value)):
        raise InvalidUrl(f"option {name}: expected more than 0")
    return duration


_OPTIONS: dict[str, tuple[str, Callable[[str, str], Any]]] = {
    "tls": ("tls", _flag),
    "tls_domain": ("tls_domain", _text),
    "tls_ca_file": ("tls_ca_file", _text),
    "tls_validate_certificate": ("tls_verify", _flag),
    "validate_certificate": ("tls_verify", _flag),  # its name over QUIC
    "reconnection_retries": ("attempts_max", _attempts),
    "reconnection_interval": ("first_s", _positive_duration),
    "reestablish_after": ("reestablish_after_s", _duration),
    "heartbeat_interval": ("heartbeat_s", _positive_duration),
    "nodelay": ("", _flag),  # always so
}
