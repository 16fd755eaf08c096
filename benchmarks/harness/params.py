"""What a run is: its kind, its load, and where. Words and meanings are those of iggy-bench."""

from urllib.parse import quote, urlencode

from msgspec import Struct, to_builtins

_SECOND_US = 1_000_000
_SECRET = {"username", "password"}
APART, FREE = "apart", "free"
TCP, QUIC, WEBSOCKET = "tcp", "quic", "websocket"
SCHEMES = {TCP: "tcp", QUIC: "quic", WEBSOCKET: "ws"}


class Kind(Struct, frozen=True):
    """produces, consumes: which actors there are. pinned: each with a stream of its own; else all share one."""

    name: str
    alias: str
    what: str
    produces: bool = False
    consumes: bool = False
    pinned: bool = True
    end_to_end: bool = False


KINDS = (
    Kind("pinned-producer", "pp", "producers, a stream each", produces=True),
    Kind("pinned-consumer", "pc", "consumers, a stream each, filled before", consumes=True),
    Kind("pinned-producer-and-consumer", "ppc", "both at once, on the same streams", produces=True, consumes=True),
    Kind("balanced-producer", "bp", "producers that share a topic's partitions", produces=True, pinned=False),
    Kind("balanced-consumer-group", "bcg", "groups on one topic, filled before", consumes=True, pinned=False),
    Kind(
        "balanced-producer-and-consumer-group",
        "bpcg",
        "producers and groups on one topic",
        produces=True,
        consumes=True,
        pinned=False,
    ),
    Kind(
        "end-to-end-producing-consumer", "e2e", "actors that send a batch and poll it", produces=True, end_to_end=True
    ),
)
KIND_OF = {name: kind for kind in KINDS for name in (kind.name, kind.alias)}


class Range(Struct, frozen=True):
    """Sizes from `least` to `most` bytes, all as likely."""

    least: int
    most: int

    @property
    def mean(self) -> float:
        return (self.least + self.most) / 2

    def __str__(self) -> str:
        return str(self.least) if self.least == self.most else f"{self.least}..{self.most}"


class Params(Struct, frozen=True, kw_only=True):
    """Sizes are bytes. None leaves a thing open, or to the kind.

    message_batches: of each actor. rate_limit: payload bytes a second, of all producers together, and of all consumers.
    in_flight: requests of a producer that are on their way at once. server_address: None for a broker of our own.
    """

    kind: str
    message_size: Range = Range(1000, 1000)
    messages_per_batch: int = 1000
    message_batches: int | None = None
    total_data: int | None = None
    duration_us: int | None = None
    rate_limit: int | None = None
    warmup_us: int = 0
    sampling_us: int = 100_000
    producers: int = 2
    consumers: int = 2
    consumer_groups: int = 1
    streams: int | None = None
    partitions: int | None = None
    in_flight: int = 1
    high_level_api: bool = False
    durability: str = "replicated"
    max_topic_size: int | None = None
    message_expiry_us: int | None = None
    reuse_streams: bool = False
    server_address: str | None = None
    transport: str = TCP
    tls: bool = False
    tls_domain: str = ""
    tls_ca_file: str = ""
    tls_validate_certificate: bool = True
    processes: int = 4
    cores: str = FREE
    server_stats: bool = False
    remark: str = ""
    username: str = "iggy"
    password: str = "iggy"

    @property
    def carrier(self) -> str:
        return f"{self.transport}+tls" if self.tls else self.transport

    @property
    def batch_bytes(self) -> float:
        """Return the mean bytes of a batch's payloads."""
        return self.messages_per_batch * self.message_size.mean

    def interval_ns(self, actors: int) -> int:
        """Return the time between two batches of one actor, 0 for none."""
        return 0 if self.rate_limit is None else round(self.batch_bytes * actors / self.rate_limit * 1e9)

    def url(self, address: str) -> str:
        """Return what the client connects to. It holds the password."""
        options = {"tls": str(self.tls).lower()}
        options |= {} if self.tls_validate_certificate else {"tls_validate_certificate": "false"}
        options |= {"tls_domain": self.tls_domain} if self.tls_domain else {}
        options |= {"tls_ca_file": self.tls_ca_file} if self.tls_ca_file else {}
        who = f"{quote(self.username, safe='')}:{quote(self.password, safe='')}"
        return f"iggy+{SCHEMES[self.transport]}://{who}@{address}?{urlencode(options)}"

    def shown(self) -> dict[str, object]:
        """Return everything that a report may tell."""
        fields: dict[str, object] = to_builtins(self)
        return {key: value for key, value in fields.items() if key not in _SECRET}

    @property
    def name(self) -> str:
        """Return what tells this run from others."""
        kind = KIND_OF[self.kind]
        volume = f"{self.duration_us / _SECOND_US:g}s" if self.duration_us else self.message_batches
        actors = (self.producers if kind.produces else 0) + (self.consumers if kind.consumes else 0)
        parts = (self.kind, actors, self.message_size, self.messages_per_batch, volume, self.carrier, self.remark)
        return "_".join(str(part) for part in parts if part)
