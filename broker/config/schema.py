"""The schema: every key the broker knows a meaning for, with its kind, its bounds and its default.

A struct is a table of the file, an attribute is a key, annotated with its kind. An attribute's name is the key's name,
Iggy's where Iggy has the key; a duration's adds `_us`, for the microseconds it holds. Sizes are in bytes. Where the
generations of Iggy differ, the default is that of 0.9. `configs/server.toml` says what each key does and when to change
it; a test holds the two together.

Structs, because 33 frozen dataclasses take 20 ms to make, at every start; these take 2.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

from msgspec import Struct
from msgspec.structs import asdict, replace

from ..units import U64_MAX
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
    between,
    choice,
)

T = TypeVar("T", bound="Table")

SECRET: Final = "secret"
"""Marks a key whose value is never shown."""

Flag = Annotated[bool, FLAG]
Text = Annotated[str, TEXT]
Secret = Annotated[str, TEXT, SECRET]
Words = Annotated[tuple[str, ...], WORDS]
Address = Annotated[str, ADDRESS]
Wire = Annotated[str, choice("auto", "classic", "vsr")]
Exporter = Annotated[str, choice("grpc", "http")]

_duration_us = DURATION.parse
_size = SIZE.parse


class Table(Struct, frozen=True):
    """A table of the file. What is shown of one in a message lacks its secrets."""

    def __repr__(self) -> str:
        shown = (f"{name}={value!r}" for name, value in asdict(self).items() if not is_secret(self, name))
        return f"{type(self).__name__}({', '.join(shown)})"


class Tls(Table, frozen=True):
    """TLS of a listener. self_signed: make a certificate where the files are not there."""

    enabled: Flag = False
    self_signed: Flag = True
    cert_file: Text = "core/certs/iggy_cert.pem"
    key_file: Text = "core/certs/iggy_key.pem"


class Tcp(Table, frozen=True):
    """The TCP listener. `wire` is ours: which generation's frames it takes."""

    enabled: Flag = True
    address: Address = "127.0.0.1:8090"
    wire: Wire = "auto"
    tls: Tls = Tls()


class Cors(Table, frozen=True):
    """What browsers are told that pages of other origins may do."""

    enabled: Flag = True
    allowed_methods: Words = ("GET", "POST", "PUT", "DELETE")
    allowed_origins: Words = ("*",)
    allowed_headers: Words = ("content-type", "authorization")
    exposed_headers: Words = ("iggy-view",)
    allow_credentials: Flag = False
    allow_private_network: Flag = False


class Jwt(Table, frozen=True):
    """The tokens that a login over HTTP answers with. Without a secret one is made up for each run."""

    algorithm: Annotated[str, choice("HS256", "HS384", "HS512")] = "HS256"
    issuer: Text = "iggy.apache.org"
    audience: Text = "iggy.apache.org"
    valid_issuers: Words = ("iggy.apache.org",)
    valid_audiences: Words = ("iggy.apache.org",)
    access_token_expiry_us: Annotated[int, between(DURATION, "1 s", "3650 d")] = _duration_us("1 h")
    clock_skew_us: Annotated[int, between(DURATION, "0 s", "1 h")] = _duration_us("5 s")
    not_before_us: Annotated[int, between(DURATION, "0 s", "1 h")] = _duration_us("0 s")
    encoding_secret: Secret = ""
    decoding_secret: Secret = ""
    use_base64_secret: Flag = False


class HttpMetrics(Table, frozen=True):
    """Where Prometheus asks."""

    enabled: Flag = True
    endpoint: Text = "/metrics"


class Http(Table, frozen=True):
    """The HTTP listener."""

    enabled: Flag = True
    address: Address = "127.0.0.1:3000"
    max_request_size: Annotated[int, between(SIZE, "1 KiB", "1 GiB")] = _size("2 MB")
    web_ui: Flag = False
    tls: Tls = Tls()
    cors: Cors = Cors()
    jwt: Jwt = Jwt()
    metrics: HttpMetrics = HttpMetrics()


class QuicCertificate(Table, frozen=True):
    """What QUIC, which has no connection without TLS, shows its clients; as in Tls."""

    self_signed: Flag = True
    cert_file: Text = ""
    key_file: Text = ""


class Quic(Table, frozen=True):
    """The QUIC listener."""

    enabled: Flag = True
    address: Address = "127.0.0.1:8080"
    max_concurrent_bidi_streams: Annotated[int, between(COUNT, 1, 10_000)] = 1
    keep_alive_interval_us: Annotated[int, between(DURATION, "0 s", "1 d")] = _duration_us("10 s")
    max_idle_timeout_us: Annotated[int, between(DURATION, "1 s", "1 d")] = _duration_us("30 s")
    certificate: QuicCertificate = QuicCertificate()


class WebSocket(Table, frozen=True):
    """The WebSocket listener."""

    enabled: Flag = True
    address: Address = "127.0.0.1:8092"
    wire: Wire = "auto"
    tls: Tls = Tls()


class Logging(Table, frozen=True):
    """What goes to the log, and to files of it. A relative path is below the data directory's `runtime`.

    format is ours.
    """

    level: Annotated[str, LEVEL] = "info"
    format: Annotated[str, choice("text", "json")] = "text"
    file_enabled: Flag = True
    path: Annotated[Path, FOLDER] = Path("logs")
    max_file_size: Annotated[int, between(SIZE, "64 KiB", "1 TiB")] = _size("500 MB")
    max_total_size: Annotated[int, SIZE] = _size("4 GB")
    retention_us: Annotated[int, DURATION] = _duration_us("7 d")


class TopicDefaults(Table, frozen=True):
    """What a topic gets that names no value of its own. U64_MAX is no limit and never; 0 does not occur."""

    max_size: Annotated[int, TOPIC_SIZE] = U64_MAX
    message_expiry_us: Annotated[int, EXPIRY] = U64_MAX


class PartitionDefaults(Table, frozen=True):
    """What the partitions of a topic get that names no value of its own."""

    enforce_fsync: Flag = False
    messages_required_to_save: Annotated[int, between(COUNT, 1, 16_777_216)] = 1024
    size_of_messages_required_to_save: Annotated[int, between(SIZE, 0, "1 GiB")] = _size("1 MiB")
    validate_checksum: Flag = True


class SegmentDefaults(Table, frozen=True):
    """What the segments of a topic get that names no value of its own."""

    size: Annotated[int, between(SIZE, "1 MiB", "1 GiB", step=512)] = _size("1 GiB")
    preallocate: Flag = False


class Encryption(Table, frozen=True):
    """How messages are encrypted on the disk. key_file: ours; one key a line, the first one writes."""

    enabled: Flag = False
    key_file: Text = ""
    key: Annotated[bytes, KEY, SECRET] = b""


class Deduplication(Table, frozen=True):
    """Which messages are taken for ones that were sent before. enabled: the default of a topic."""

    enabled: Flag = False
    max_entries: Annotated[int, between(COUNT, 1, 10_000_000)] = 10_000
    expiry_us: Annotated[int, between(DURATION, "1 s", "7 days")] = _duration_us("1 m")


class System(Table, frozen=True):
    """Where the data is and how topics keep it."""

    path: Annotated[Path, FOLDER] = Path("local_data")
    logging: Logging = Logging()
    topic: TopicDefaults = TopicDefaults()
    partition: PartitionDefaults = PartitionDefaults()
    segment: SegmentDefaults = SegmentDefaults()
    encryption: Encryption = Encryption()
    message_deduplication: Deduplication = Deduplication()


class Cleaning(Table, frozen=True):
    """When retention runs."""

    cleaner_enabled: Flag = True
    interval_us: Annotated[int, between(DURATION, "10 ms", "1 d")] = _duration_us("1 m")


class DiskArchive(Table, frozen=True):
    """A folder that takes what retention deletes."""

    path: Text = "archive"


class S3Archive(Table, frozen=True):
    """A bucket that takes what retention deletes. The names are those of Iggy 0.4, which had an archiver."""

    key_id: Text = ""
    key_secret: Secret = ""
    bucket: Text = ""
    endpoint: Text = ""
    region: Text = "us-east-1"


class Archiver(Table, frozen=True):
    """Where what retention deletes is kept."""

    enabled: Flag = False
    kind: Annotated[str, choice("disk", "s3")] = "disk"
    disk: DiskArchive = DiskArchive()
    s3: S3Archive = S3Archive()


class DataMaintenance(Table, frozen=True):
    """Retention."""

    messages: Cleaning = Cleaning()
    archiver: Archiver = Archiver()


class Heartbeat(Table, frozen=True):
    """When members of consumer groups that say nothing are given up."""

    enabled: Flag = True
    interval_us: Annotated[int, between(DURATION, "1 s", "1 d")] = _duration_us("30 s")


class ConsumerGroup(Table, frozen=True):
    """How partitions change hands when a member joins."""

    rebalancing_timeout_us: Annotated[int, between(DURATION, "1 s", "1 d")] = _duration_us("30 s")


class PersonalAccessToken(Table, frozen=True):
    """What users may have of them."""

    max_tokens_per_user: Annotated[int, between(COUNT, 1, 100_000)] = 100


class TelemetryLogs(Table, frozen=True):
    """Where the log goes, by OTLP. An empty endpoint is none."""

    transport: Exporter = "grpc"
    endpoint: Annotated[str, URL] = "http://localhost:7281/v1/logs"


class TelemetryTraces(Table, frozen=True):
    """Where spans go, as in TelemetryLogs."""

    transport: Exporter = "grpc"
    endpoint: Annotated[str, URL] = "http://localhost:7281/v1/traces"


class Telemetry(Table, frozen=True):
    """What OpenTelemetry is told: the log, and a span for each request."""

    enabled: Flag = False
    service_name: Text = "iggy"
    logs: TelemetryLogs = TelemetryLogs()
    traces: TelemetryTraces = TelemetryTraces()


class Pybroker(Table, frozen=True):
    """What Iggy has no key for: the limits of section 8 of the design, and how long a power failure may reach back."""

    sync_interval_us: Annotated[int, between(DURATION, "10 ms", "1 h")] = _duration_us("1 s")
    frame_size_max: Annotated[int, between(SIZE, "64 KiB", "1 GiB")] = _size("64 MiB")
    frame_size_max_before_login: Annotated[int, between(SIZE, "4 KiB", "1 GiB")] = _size("64 KiB")
    connections_max: Annotated[int, between(COUNT, 1, 1_000_000)] = 10_000
    login_timeout_us: Annotated[int, between(DURATION, "10 ms", "1 d")] = _duration_us("30 s")
    write_timeout_us: Annotated[int, between(DURATION, "10 ms", "1 d")] = _duration_us("30 s")
    unread_size_max: Annotated[int, between(SIZE, "4 KiB", "1 GiB")] = _size("1 MiB")
    # Clients refuse a frame over 64 MiB; the rest is for the frame around the messages.
    poll_size_max: Annotated[int, between(SIZE, "64 KiB", "63 MiB")] = _size("63 MiB")
    unsent_size_max: Annotated[int, between(SIZE, "1 MiB", "1 TiB")] = _size("256 MiB")
    requests_per_turn_max: Annotated[int, between(COUNT, 1, 65_536)] = 64
    busy_poll_us: Annotated[int, between(DURATION, "0 s", "10 ms")] = _duration_us("50 us")
    web_ui_path: Text = ""


class Config(Table, frozen=True):
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


class Key(Struct, frozen=True):
    """One key of the schema: how its values are read, its default, and whether its value may be shown."""

    kind: Kind[Any]
    default: object
    secret: bool


def keys_of(table: Table, prefix: str = "") -> Iterator[tuple[str, Key]]:
    """Yield the dotted path of every key of `table`, which has its defaults, and what is known of it."""
    for name, value in asdict(table).items():
        path = prefix + name_of(name)
        if isinstance(value, Table):
            yield from keys_of(value, f"{path}.")
        else:
            yield path, Key(kind_of(table, name), value, is_secret(table, name))


def with_values(table: T, values: Mapping[str, object], prefix: str = "") -> T:
    """Return `table` with the parsed `values`, by dotted path, in place of its own."""
    given: dict[str, object] = {}
    for name, value in asdict(table).items():
        path = prefix + name_of(name)
        if isinstance(value, Table):
            given[name] = with_values(value, values, f"{path}.")
        elif path in values:
            given[name] = values[path]
    return replace(table, **given)


def kind_of(table: Table, name: str) -> Kind[Any]:
    """Return the kind of the attribute `name`, which is a key."""
    return table.__annotations__[name].__metadata__[0]


def is_secret(table: Table, name: str) -> bool:
    """Tell whether the attribute `name` is a key whose value is never shown."""
    return SECRET in getattr(table.__annotations__[name], "__metadata__", ())


def name_of(attribute: str) -> str:
    """Return the name in the file of an attribute."""
    return attribute.removesuffix("_us")


KEYS: Final = dict(keys_of(Config()))

# The first of each pair must not be more than the second.
ORDERED: Final = (
    ("pybroker.frame_size_max_before_login", "pybroker.frame_size_max"),
    # Retention drops whole segments, so a topic smaller than one could never be kept to its size.
    ("system.segment.size", "system.topic.max_size"),
)
