"""The names a configuration may use: ours, those of Iggy that mean nothing here, and those that are no configuration.

Both generations of Iggy's own file must load unchanged, so every key of theirs is either in the schema or in IGNORED.
A key moves from here to the schema when code that reads it is written.
"""

from collections.abc import Iterable
from itertools import accumulate
from typing import Final

from .schema import KEYS

# Below its table, each key; `[]` marks an array of tables, whose insides nobody looks at.
_IGNORED: Final = {
    "cluster": (
        "enabled name heartbeat_timeout commit_broadcast_interval prepare_retransmit_interval "
        "view_change_retransmit_interval view_change_status_timeout request_start_view_retransmit_interval "
        "view_probe_attempts_max repair_retry_interval repair_chunk_max superblock_wedged_fatal_timeout nodes[]"
    ),
    "cluster.node": "current.name current.ip others[]",
    "cluster.auth": "enabled shared_secret previous_shared_secret",
    "cluster.tls": "enabled self_signed cert_file key_file ca_file",
    "cluster.coordinator": "skip_shard_zero_for_replicas skip_shard_zero_for_clients",
    "consumer_group": "rebalancing_check_interval",
    "data_maintenance": "messages.archiver_enabled archiver.s3.tmp_upload_dir",
    "http.jwt": "trusted_issuers[]",
    "message_bus": (
        "max_batch max_message_size peer_queue_capacity reconnect_period close_peer_timeout close_grace handshake_grace"
    ),
    "message_saver": "enabled enforce_fsync interval",
    "metadata": "prepare_queue_depth journal_slots clients_table_max",
    "partition": (
        "prepare_queue_depth evicted_ring_capacity evicted_ring_bytes_max transfer_served_cache_bytes_max "
        "transfer_artifact_bytes_max"
    ),
    "personal_access_token": "cleaner.enabled cleaner.interval",
    "quic": "datagram_send_buffer_size initial_mtu send_window receive_window stream_receive_window",
    "quic.socket": "override_defaults recv_buffer_size send_buffer_size keepalive",
    "system": (
        "backup.path runtime.path compression.allow_override compression.default_algorithm stream.path topic.path "
        "partition.path segment.archive_expired segment.cache_indexes "
        "recovery.recreate_missing_state"
    ),
    "system.backup": "compatibility.path",
    "system.state": "enforce_fsync max_file_operation_retries retry_delay",
    "system.logging": "rotation_check_interval sysinfo_print_interval",
    "system.memory_pool": "enabled size bucket_capacity",
    "system.sharding": (
        "cpu_allocation pin_cores inbox_capacity reply_inbox_capacity shutdown_drain_timeout "
        "shutdown_poll_interval shutdown_join_timeout reconcile_periodic_interval"
    ),
    "tcp": "socket_migration ipv6",
    "tcp.socket": "override_defaults recv_buffer_size send_buffer_size keepalive nodelay linger",
    "websocket": "accept_unmasked_frames",
}

IGNORED: Final = frozenset(
    {f"{table}.{name}" for table, names in _IGNORED.items() for name in names.split()}
    # Iggy 0.9 refuses this table but does not say what stood in it.
    | {"extra"}
)

# Ignored switches that ask for protection or for work. Who turns one on has to hear that nothing happens.
MISSED_IF_TRUE: Final = frozenset(
    {
        "cluster.enabled",
        "system.recovery.recreate_missing_state",
        "system.segment.archive_expired",
    }
)

_KNOWN: Final = {path: path for path in (*KEYS, *sorted(IGNORED))} | {"path": "system.path"}

FILE_NAMES: Final = {spelling.removesuffix("[]"): path for spelling, path in _KNOWN.items()}
"""The dotted path of each key, as the file may spell it, to the path the schema or IGNORED has it under."""

ENVIRONMENT_PREFIX: Final = "IGGY_"

# The inside of an array's element keeps its `[]` here: IGGY_CLUSTER_NODES[] stands for IGGY_CLUSTER_NODES_0_NAME.
ENVIRONMENT_NAMES: Final = {
    ENVIRONMENT_PREFIX + spelling.upper().replace(".", "_"): path for spelling, path in _KNOWN.items()
}
"""Each environment variable that means a key, to the path the schema or IGNORED has it under."""

LOG_NAMES: Final = {"RUST_LOG": "system.logging.level"}
"""What wins over every other source of the log level."""

CONFIG_PATH_VARIABLE: Final = "IGGY_CONFIG_PATH"
ENV_PATH_VARIABLE: Final = "IGGY_ENV_PATH"

# Variables of Iggy's processes that are no configuration of a server.
_OTHER_VARIABLES: Final = frozenset(
    {
        CONFIG_PATH_VARIABLE,
        ENV_PATH_VARIABLE,
        "IGGY_CI_BUILD",
        "IGGY_DISPLAY_CONFIG",
        "IGGY_ROOT_PASSWORD",
        "IGGY_ROOT_USERNAME",
        "IGGY_SHARD_RUNTIME_CAPACITY",
    }
)
_OTHER_PREFIXES: Final = ("IGGY_TEST_", "IGGY_MCP_", "IGGY_CONNECTORS_")

TABLES: Final = frozenset(
    table for name in FILE_NAMES for table in list(accumulate(name.split("."), "{}.{}".format))[:-1]
)
"""Every dotted path that has to be a table."""


def is_configuration(variable: str) -> bool:
    """Tell whether an environment variable claims to be a key of the configuration."""
    return (
        variable.startswith(ENVIRONMENT_PREFIX)
        and variable not in _OTHER_VARIABLES
        and not variable.startswith(_OTHER_PREFIXES)
    )


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that `name` was most likely meant to be, or None."""
    import difflib  # only for who misspells

    return next(iter(difflib.get_close_matches(name, known, n=1)), None)
