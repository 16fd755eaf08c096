"""The schema: every key the broker knows a meaning for, with its kind, its bounds and its default.

A dataclass is a table of the file, an attribute is a key. An attribute's name is the key's name, Iggy's where Iggy has
the key; a duration's adds `_us`, for the microseconds it holds. Sizes are in bytes. Where the generations of Iggy
differ, the default is that of 0.9. `configs/server.toml` says what each key does and when to change it; a test holds
the two together.
"""

from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol, TypeGuard, TypeVar

from .kinds import (
    ADDRESS,
    COUNT,
    DURATION,
    EXPIRY,
    FLAG,
    FOLDER,
    KEY,
    LEVEL,
    SIZE,
    TEXT,
    TOPIC_SIZE,
    URL,
    WORDS,
    Kind,
    Raw,
    between,
    choice,
)


class Table(Protocol):
    """Any dataclass of this module."""

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]


V = TypeVar("V")
T = TypeVar("T", bound=Table)


def key(default: Raw, kind: Kind[V], *, secret: bool = False) -> V:
    """Declare a key. `default` is written as in the file; a secret is never shown."""
    return field(default=kind.parse(default), repr=not secret, metadata={"kind": kind, "secret": secret})


@dataclass(frozen=True)
class Tls:
    """TLS of a listener. self_signed: make a certificate where the files are not there."""

    enabled: bool = key(False, FLAG)
    self_signed: bool = key(True, FLAG)
    cert_file: str = key("core/certs/iggy_cert.pem", TEXT)
    key_file: str = key("core/certs/iggy_key.pem", TEXT)


@dataclass(frozen=True)
class Tcp:
    """The TCP listener. `wire` is ours: which generation's frames it takes."""

    enabled: bool = key(True, FLAG)
    address: str = key("127.0.0.1:8090", ADDRESS)
    wire: str = key("auto", choice("auto", "classic", "vsr"))
    tls: Tls = Tls()


@dataclass(frozen=True)
class Cors:
    """What browsers are told that pages of other origins may do."""

    enabled: bool = key(True, FLAG)
    allowed_methods: tuple[str, ...] = key(["GET", "POST", "PUT", "DELETE"], WORDS)
    allowed_origins: tuple[str, ...] = key(["*"], WORDS)
    allowed_headers: tuple[str, ...] = key(["content-type", "authorization"], WORDS)
    exposed_headers: tuple[str, ...] = key(["iggy-view"], WORDS)
    allow_credentials: bool = key(False, FLAG)
    allow_private_network: bool = key(False, FLAG)


@dataclass(frozen=True)
class Jwt:
    """The tokens that a login over HTTP answers with. Without a secret one is made up for each run."""

    algorithm: str = key("HS256", choice("HS256", "HS384", "HS512"))
    issuer: str = key("iggy.apache.org", TEXT)
    audience: str = key("iggy.apache.org", TEXT)
    valid_issuers: tuple[str, ...] = key(["iggy.apache.org"], WORDS)
    valid_audiences: tuple[str, ...] = key(["iggy.apache.org"], WORDS)
    access_token_expiry_us: int = key("1 h", between(DURATION, "1 s", "3650 d"))
    clock_skew_us: int = key("5 s", between(DURATION, "0 s", "1 h"))
    not_before_us: int = key("0 s", between(DURATION, "0 s", "1 h"))
    encoding_secret: str = key("", TEXT, secret=True)
    decoding_secret: str = key("", TEXT, secret=True)
    use_base64_secret: bool = key(False, FLAG)


@dataclass(frozen=True)
class HttpMetrics:
    """Where Prometheus asks."""

    enabled: bool = key(True, FLAG)
    endpoint: str = key("/metrics", TEXT)


@dataclass(frozen=True)
class Http:
    """The HTTP listener."""

    enabled: bool = key(True, FLAG)
    address: str = key("127.0.0.1:3000", ADDRESS)
    max_request_size: int = key("2 MB", between(SIZE, "1 KiB", "1 GiB"))
    web_ui: bool = key(False, FLAG)
    tls: Tls = Tls()
    cors: Cors = Cors()
    jwt: Jwt = Jwt()
    metrics: HttpMetrics = HttpMetrics()


@dataclass(frozen=True)
class QuicCertificate:
    """What QUIC, which has no connection without TLS, shows its clients; as in Tls."""

    self_signed: bool = key(True, FLAG)
    cert_file: str = key("", TEXT)
    key_file: str = key("", TEXT)


@dataclass(frozen=True)
class Quic:
    """The QUIC listener."""

    enabled: bool = key(True, FLAG)
    address: str = key("127.0.0.1:8080", ADDRESS)
    max_concurrent_bidi_streams: int = key(1, between(COUNT, 1, 10_000))
    keep_alive_interval_us: int = key("10 s", between(DURATION, "0 s", "1 d"))
    max_idle_timeout_us: int = key("30 s", between(DURATION, "1 s", "1 d"))
    certificate: QuicCertificate = QuicCertificate()


@dataclass(frozen=True)
class WebSocket:
    """The WebSocket listener."""

    enabled: bool = key(True, FLAG)
    address: str = key("127.0.0.1:8092", ADDRESS)
    wire: str = key("auto", choice("auto", "classic", "vsr"))
    tls: Tls = Tls()


@dataclass(frozen=True)
class Logging:
    """What goes to the log, and to files of it. A relative path is below the data directory's `runtime`.

    format is ours.
    """

    level: str = key("info", LEVEL)
    format: str = key("text", choice("text", "json"))
    file_enabled: bool = key(True, FLAG)
    path: Path = key("logs", FOLDER)  # noqa: RUF009 - a field, which ruff cannot see here
    max_file_size: int = key("500 MB", between(SIZE, "64 KiB", "1 TiB"))
    max_total_size: int = key("4 GB", SIZE)
    retention_us: int = key("7 d", DURATION)


@dataclass(frozen=True)
class TopicDefaults:
    """What a topic gets that names no value of its own. U64_MAX is no limit and never; 0 does not occur."""

    max_size: int = key("unlimited", TOPIC_SIZE)
    message_expiry_us: int = key("none", EXPIRY)


@dataclass(frozen=True)
class PartitionDefaults:
    """What the partitions of a topic get that names no value of its own."""

    enforce_fsync: bool = key(False, FLAG)
    messages_required_to_save: int = key(1024, between(COUNT, 1, 16_777_216))
    size_of_messages_required_to_save: int = key("1 MiB", between(SIZE, 0, "1 GiB"))
    validate_checksum: bool = key(True, FLAG)


@dataclass(frozen=True)
class SegmentDefaults:
    """What the segments of a topic get that names no value of its own."""

    size: int = key("1 GiB", between(SIZE, "1 MiB", "1 GiB", step=512))
    preallocate: bool = key(False, FLAG)


@dataclass(frozen=True)
class Encryption:
    """How messages are encrypted on the disk. key_file: ours; one key a line, the first one writes."""

    enabled: bool = key(False, FLAG)
    key_file: str = key("", TEXT)
    key: bytes = key("", KEY, secret=True)  # last: it hides the function


@dataclass(frozen=True)
class Deduplication:
    """Which messages are taken for ones that were sent before. enabled: the default of a topic."""

    enabled: bool = key(False, FLAG)
    max_entries: int = key(10_000, between(COUNT, 1, 10_000_000))
    expiry_us: int = key("1 m", between(DURATION, "1 s", "7 days"))


@dataclass(frozen=True)
class System:
    """Where the data is and how topics keep it."""

    path: Path = key("local_data", FOLDER)  # noqa: RUF009 - a field, which ruff cannot see here
    logging: Logging = Logging()
    topic: TopicDefaults = TopicDefaults()
    partition: PartitionDefaults = PartitionDefaults()
    segment: SegmentDefaults = SegmentDefaults()
    encryption: Encryption = Encryption()
    message_deduplication: Deduplication = Deduplication()


@dataclass(frozen=True)
class Cleaning:
    """When retention runs."""

    cleaner_enabled: bool = key(True, FLAG)
    interval_us: int = key("1 m", between(DURATION, "10 ms", "1 d"))


@dataclass(frozen=True)
class DiskArchive:
    """A folder that takes what retention deletes."""

    path: str = key("archive", TEXT)


@dataclass(frozen=True)
class S3Archive:
    """A bucket that takes what retention deletes. The names are those of Iggy 0.4, which had an archiver."""

    key_id: str = key("", TEXT)
    key_secret: str = key("", TEXT, secret=True)
    bucket: str = key("", TEXT)
    endpoint: str = key("", TEXT)
    region: str = key("us-east-1", TEXT)


@dataclass(frozen=True)
class Archiver:
    """Where what retention deletes is kept."""

    enabled: bool = key(False, FLAG)
    kind: str = key("disk", choice("disk", "s3"))
    disk: DiskArchive = DiskArchive()
    s3: S3Archive = S3Archive()


@dataclass(frozen=True)
class DataMaintenance:
    """Retention."""

    messages: Cleaning = Cleaning()
    archiver: Archiver = Archiver()


@dataclass(frozen=True)
class Heartbeat:
    """When members of consumer groups that say nothing are given up."""

    enabled: bool = key(True, FLAG)
    interval_us: int = key("30 s", between(DURATION, "1 s", "1 d"))


@dataclass(frozen=True)
class ConsumerGroup:
    """How partitions change hands when a member joins."""

    rebalancing_timeout_us: int = key("30 s", between(DURATION, "1 s", "1 d"))


@dataclass(frozen=True)
class PersonalAccessToken:
    """What users may have of them."""

    max_tokens_per_user: int = key(100, between(COUNT, 1, 100_000))


@dataclass(frozen=True)
class TelemetryLogs:
    """Where the log goes, by OTLP. An empty endpoint is none."""

    transport: str = key("grpc", choice("grpc", "http"))
    endpoint: str = key("http://localhost:7281/v1/logs", URL)


@dataclass(frozen=True)
class TelemetryTraces:
    """Where spans go, as in TelemetryLogs."""

    transport: str = key("grpc", choice("grpc", "http"))
    endpoint: str = key("http://localhost:7281/v1/traces", URL)


@dataclass(frozen=True)
class Telemetry:
    """What OpenTelemetry is told: the log, and a span for each request."""

    enabled: bool = key(False, FLAG)
    service_name: str = key("iggy", TEXT)
    logs: TelemetryLogs = TelemetryLogs()
    traces: TelemetryTraces = TelemetryTraces()


@dataclass(frozen=True)
class Pybroker:
    """What Iggy has no key for: the limits of section 8 of the design, and how long a power failure may reach back."""

    sync_interval_us: int = key("1 s", between(DURATION, "10 ms", "1 h"))
    frame_size_max: int = key("64 MiB", between(SIZE, "64 KiB", "1 GiB"))
    frame_size_max_before_login: int = key("64 KiB", between(SIZE, "4 KiB", "1 GiB"))
    connections_max: int = key(10_000, between(COUNT, 1, 1_000_000))
    login_timeout_us: int = key("30 s", between(DURATION, "10 ms", "1 d"))
    write_timeout_us: int = key("30 s", between(DURATION, "10 ms", "1 d"))
    unread_size_max: int = key("1 MiB", between(SIZE, "4 KiB", "1 GiB"))
    # Clients refuse a frame over 64 MiB; the rest is for the frame around the messages.
    poll_size_max: int = key("63 MiB", between(SIZE, "64 KiB", "63 MiB"))
    unsent_size_max: int = key("256 MiB", between(SIZE, "1 MiB", "1 TiB"))
    requests_per_turn_max: int = key(64, between(COUNT, 1, 65_536))
    web_ui_path: str = key("", TEXT)


@dataclass(frozen=True)
class Config:
    """The whole configuration."""

    tcp: Tcp = Tcp()
    http: Http = Http()
    quic: Quic = Quic()
    websocket: WebSocket = WebSocket()
    system: System = System()
    data_maintenance: DataMaintenance = DataMaintenance()
    personal_access_token: PersonalAccessToken = PersonalAccessToken()
    heartbeat: Heartbeat = Heartbeat()
    consumer_group: ConsumerGroup = ConsumerGroup()
    telemetry: Telemetry = Telemetry()
    pybroker: Pybroker = Pybroker()


@dataclass(frozen=True)
class Key:
    """One key of the schema: how its values are read, its parsed default, and whether its value may be shown."""

    kind: Kind[Any]
    default: object
    secret: bool


def keys_of(table: Table, prefix: str = "") -> Iterator[tuple[str, Key]]:
    """Yield the dotted path of every key of `table` and what is known of it."""
    for item in fields(table):
        path = prefix + name_of(item)
        if is_table(item.default):
            yield from keys_of(item.default, f"{path}.")
        else:
            yield path, Key(item.metadata["kind"], item.default, item.metadata["secret"])


def with_values(table: T, values: Mapping[str, object], prefix: str = "") -> T:
    """Return `table` with the parsed `values`, by dotted path, in place of its own."""
    given: dict[str, object] = {}
    for item in fields(table):
        path = prefix + name_of(item)
        if is_table(item.default):
            given[item.name] = with_values(getattr(table, item.name), values, f"{path}.")
        elif path in values:
            given[item.name] = values[path]
    return replace(table, **given)


def is_table(default: object) -> TypeGuard[Table]:
    """Tell a table by the default of its attribute: a key's is never a dataclass."""
    return is_dataclass(default)


def name_of(item: Field[Any]) -> str:
    """Return the name in the file of the attribute `item`."""
    return item.name.removesuffix("_us")


KEYS: Final = dict(keys_of(Config()))

# The first of each pair must not be more than the second.
ORDERED: Final = (
    ("pybroker.frame_size_max_before_login", "pybroker.frame_size_max"),
    # Retention drops whole segments, so a topic smaller than one could never be kept to its size.
    ("system.segment.size", "system.topic.max_size"),
)
