"""Topic options: every key in every spelling, what is refused, and how they read back."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pybroker.broker.config import Config
from pybroker.broker.config.schema import Deduplication
from pybroker.broker.events import TopicSettings
from pybroker.broker.topic_options import ROWS, defaults, derived, describe, merged, refuse_any, resolve, updatable
from pybroker.protocol.errors import Refused, Status
from pybroker.protocol.primitives import U64_MAX, Compression, Option, ValueKind
from support.broker import number_option, text_option

SERVER = defaults(Config())
DAY_US = 86_400_000_000
MIB = 1 << 20
GIB = 1 << 30
BIG = 10 * GIB
DEFAULT = "the server's default"

KEYS = [
    "compression_algorithm",
    "message_expiry",
    "max_topic_size",
    "segment_size",
    "durability",
    "consumer_offset_durability",
    "messages_required_to_save",
    "size_of_messages_required_to_save",
    "preallocate_segments",
    "message_deduplication",
]
FIELDS = {
    "compression_algorithm": "compression",
    "message_expiry": "message_expiry_us",
    "max_topic_size": "max_topic_size",
    "segment_size": "segment_size",
    "durability": "persisted",
    "consumer_offset_durability": "offsets_persisted",
    "messages_required_to_save": "messages_required_to_save",
    "size_of_messages_required_to_save": "size_of_messages_required_to_save",
    "preallocate_segments": "preallocate_segments",
    "message_deduplication": "message_deduplication",
}
BOOL, U8, U16, U32, U64 = ValueKind.BOOL, ValueKind.U8, ValueKind.U16, ValueKind.U32, ValueKind.U64


def texts(key: str, values: dict[str, object]) -> list[tuple[Option, object]]:
    return [(text_option(key, text), value) for text, value in values.items()]


def numbers(key: str, kind: ValueKind, values: dict[int, object]) -> list[tuple[Option, object]]:
    return [(number_option(key, number, kind), value) for number, value in values.items()]


ACCEPTED = [
    *texts("compression_algorithm", {"none": Compression.NONE, "gzip": Compression.GZIP, "GZIP": Compression.GZIP}),
    *texts("message_expiry", {"7 days": 7 * DAY_US, "1 h 30 m": 5_400_000_000, "none": U64_MAX, "never": U64_MAX}),
    *texts("message_expiry", {"0": DEFAULT, "server_default": DEFAULT, "500ms": 500_000}),
    *numbers("message_expiry", U64, {1: 1, 5_000_000: 5_000_000, U64_MAX: U64_MAX, 0: DEFAULT}),
    *texts("max_topic_size", {"10 GiB": BIG, "unlimited": U64_MAX, "server_default": DEFAULT, "0": DEFAULT}),
    *texts("max_topic_size", {str(BIG): BIG, "11 GB": 11 * 10**9}),
    *numbers("max_topic_size", U64, {BIG: BIG, GIB: GIB, U64_MAX: U64_MAX, 0: DEFAULT}),
    *texts("segment_size", {"1 MiB": MIB, "1 GiB": GIB, "2097152": 2 * MIB, "0": DEFAULT}),
    *numbers("segment_size", U64, {MIB: MIB, MIB + 512: MIB + 512, GIB: GIB, 0: DEFAULT}),
    *numbers("segment_size", U32, {MIB: MIB, GIB: GIB}),
    *texts("durability", {"replicated": False, "persisted": True, " Persisted ": True}),
    *texts("consumer_offset_durability", {"replicated": False, "persisted": True}),
    *texts("messages_required_to_save", {"1": 1, "5000": 5000, "16777216": 16_777_216, "0": DEFAULT}),
    *numbers("messages_required_to_save", U32, {1: 1, 16_777_216: 16_777_216, 0: DEFAULT}),
    *texts("size_of_messages_required_to_save", {"2 MiB": 2 * MIB, "1 GiB": GIB, "0": DEFAULT}),
    *numbers("size_of_messages_required_to_save", U64, {1: 1, MIB: MIB, GIB: GIB, 0: DEFAULT}),
    *texts("preallocate_segments", {"true": True, "false": False, "1": True, "0": False, "TRUE": True}),
    *numbers("preallocate_segments", BOOL, {1: True, 0: False}),
    *texts("message_deduplication", {"true": True, "false": False, "1": True, "0": False}),
    *numbers("message_deduplication", BOOL, {1: True, 0: False}),
]

BAD = [
    *((key, ValueKind.STRING, b"nonsense") for key in KEYS),
    *((key, ValueKind.STRING, b"\xff\xfe") for key in KEYS),
    *((key, ValueKind.RAW, b"\0\0\0\0\0\0\x10\0") for key in KEYS),
    *((key, ValueKind.F64, bytes(8)) for key in KEYS),
    *((key, ValueKind.I64, b"\0\0\x10\0\0\0\0\0") for key in KEYS),
    *((key, U64, b"\0\0\x10\0") for key in KEYS),
    *((key, U32, b"\0\0\x10\0\0\0\0\0") for key in KEYS),
    ("compression_algorithm", ValueKind.STRING, b"lz4"),
    ("compression_algorithm", U8, b"\x01"),
    ("durability", BOOL, b"\x01"),
    ("consumer_offset_durability", U8, b"\x01"),
    ("message_expiry", ValueKind.STRING, b"5"),
    ("message_expiry", ValueKind.STRING, b"-1 s"),
    ("max_topic_size", ValueKind.STRING, b"1 zB"),
    ("segment_size", ValueKind.STRING, b"1 MiB 1"),
    ("segment_size", U64, (MIB - 512).to_bytes(8, "little")),
    ("segment_size", U64, (GIB + 512).to_bytes(8, "little")),
    ("segment_size", U64, (MIB + 1).to_bytes(8, "little")),
    ("messages_required_to_save", U32, (16_777_217).to_bytes(4, "little")),
    ("messages_required_to_save", ValueKind.STRING, b"-1"),
    ("size_of_messages_required_to_save", U64, (GIB + 1).to_bytes(8, "little")),
    ("preallocate_segments", BOOL, b"\x02"),
    ("preallocate_segments", ValueKind.STRING, b"yes"),
    ("message_deduplication", BOOL, b"\x02"),
    ("enforce_fsync", BOOL, b"\x02"),
    ("enforce_fsync", ValueKind.STRING, b"maybe"),
]


def refusal(options: tuple[Option, ...]) -> Status:
    with pytest.raises(Refused) as caught:
        resolve(options, SERVER, SERVER)
    return caught.value.status


def test_keys_are_those_of_the_0_9_client_and_one_of_ours() -> None:
    assert [row.key for row in ROWS] == KEYS
    assert {option.key for option, _ in ACCEPTED} == set(KEYS)


@pytest.mark.parametrize(("option", "value"), ACCEPTED, ids=lambda value: getattr(value, "key", ""))
def test_option_is_understood_in_every_spelling(option: Option, value: object) -> None:
    field = FIELDS[option.key]
    expected = getattr(SERVER, field) if value is DEFAULT else value
    settings = resolve((option,), SERVER, SERVER)
    assert getattr(settings, field) == expected
    assert {name for name in settings.__struct_fields__ if getattr(settings, name) != getattr(SERVER, name)} <= {field}


@pytest.mark.parametrize(("key", "kind", "value"), BAD, ids=lambda value: value if isinstance(value, str) else "")
def test_value_of_no_use_is_refused(key: str, kind: ValueKind, value: bytes) -> None:
    assert refusal((Option(key, kind, value),)) is Status.INVALID_OPTION_VALUE


@pytest.mark.parametrize("key", ["", "nonsense", "Durability", "durability ", "replication_factor"])
def test_unknown_key_is_refused(key: str) -> None:
    assert refusal((text_option(key, "1"),)) is Status.UNSUPPORTED_OPTION_KEY


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize(
    ("durability", "fsync", "persisted"),
    [("replicated", 1, True), ("replicated", 0, False), ("persisted", 0, True), ("persisted", 1, True)],
)
def test_of_two_spellings_of_durability_the_stronger_holds(
    durability: str, fsync: int, persisted: bool, swapped: bool
) -> None:
    options = (text_option("durability", durability), number_option("enforce_fsync", fsync, BOOL))
    assert resolve(options[::-1] if swapped else options, SERVER, SERVER).persisted is persisted


@pytest.mark.parametrize("option", [number_option("enforce_fsync", 1, BOOL), text_option("enforce_fsync", "true")])
def test_older_word_for_durability_sets_both(option: Option) -> None:
    settings = resolve((option,), SERVER, SERVER)
    assert (settings.persisted, settings.offsets_persisted) == (True, True)
    left = {option.key for option in derived(settings, (option,))}
    assert left == set(KEYS) - {"durability", "consumer_offset_durability"}


@pytest.mark.parametrize(
    ("options", "good"),
    [
        ((number_option("max_topic_size", GIB),), True),
        ((number_option("max_topic_size", GIB - 1),), False),
        ((number_option("max_topic_size", MIB), number_option("segment_size", MIB)), True),
        ((number_option("segment_size", 2 * MIB), number_option("max_topic_size", MIB)), False),
    ],
)
def test_topic_can_not_be_smaller_than_its_segments(options: tuple[Option, ...], good: bool) -> None:
    if good:
        resolve(options, SERVER, SERVER)
    else:
        assert refusal(options) is Status.INVALID_TOPIC_SIZE


def test_zero_takes_what_the_server_is_configured_to() -> None:
    config = Config()
    topic = replace(config.system.topic, max_size=BIG, message_expiry_us=DAY_US)
    server = defaults(replace(config, system=replace(config.system, topic=topic)))
    asked = (number_option("max_topic_size", 0), text_option("message_expiry", "0"))
    assert resolve(asked, SERVER, server) == replace_fields(SERVER, max_topic_size=BIG, message_expiry_us=DAY_US)


def test_deduplication_is_what_the_server_is_configured_to_until_it_is_asked_for() -> None:
    config = Config()
    system = replace(config.system, message_deduplication=Deduplication(enabled=True))
    server = defaults(replace(config, system=system))
    assert (SERVER.message_deduplication, server.message_deduplication) == (False, True)
    off = resolve((text_option("message_deduplication", "false"),), server, server)
    assert off == SERVER
    assert resolve((text_option("message_deduplication", "true"),), off, server) == server


def test_settings_stored_before_there_was_deduplication_load_without_it() -> None:
    older = msgspec.msgpack.encode(list(msgspec.structs.astuple(SERVER))[:9])
    loaded = msgspec.msgpack.decode(older, type=TopicSettings)
    assert loaded == replace_fields(SERVER, message_deduplication=False)


def replace_fields(settings: TopicSettings, **changes: object) -> TopicSettings:
    return msgspec.structs.replace(settings, **changes)


def test_options_change_the_base_and_leave_the_rest() -> None:
    base = resolve((text_option("durability", "persisted"), text_option("message_expiry", "1 d")), SERVER, SERVER)
    changed = resolve((text_option("compression_algorithm", "gzip"),), base, SERVER)
    assert changed == replace_fields(base, compression=Compression.GZIP)


@given(keys=st.sets(st.sampled_from(KEYS)))
def test_derived_options_complement_the_explicit_ones(keys: set[str]) -> None:
    samples = {option.key: option for option, _ in ACCEPTED}
    explicit = tuple(samples[key] for key in sorted(keys))
    settings = resolve(explicit, SERVER, SERVER)
    rest = derived(settings, explicit)
    assert {option.key for option in rest} == set(KEYS) - keys
    assert resolve(rest, SERVER, SERVER) == resolve((), SERVER, SERVER)


def test_derived_options_read_back_as_the_settings() -> None:
    """What is shown can be asked for: every derived value resolves to itself."""
    settings = TopicSettings(Compression.GZIP, 9, BIG, 2 * MIB, True, True, 7, 8, True, True)
    assert resolve(derived(settings, ()), SERVER, SERVER) == settings


@pytest.mark.parametrize("key", KEYS)
def test_only_the_three_of_iggy_and_ours_can_be_changed(key: str) -> None:
    options = (next(option for option, _ in ACCEPTED if option.key == key),)
    if key in ("compression_algorithm", "message_expiry", "max_topic_size", "message_deduplication"):
        assert updatable(options) == options
    else:
        with pytest.raises(Refused) as caught:
            updatable(options)
        assert caught.value.status is Status.UNSUPPORTED_OPTION_KEY


@pytest.mark.parametrize("key", ["enforce_fsync", "nonsense"])
def test_update_refuses_other_keys(key: str) -> None:
    with pytest.raises(Refused) as caught:
        updatable((text_option(key, "true"),))
    assert caught.value.status is Status.UNSUPPORTED_OPTION_KEY


def test_update_shows_new_values_in_place_of_the_old() -> None:
    old = (text_option("durability", "persisted"), text_option("message_expiry", "1 d"))
    new = (text_option("message_expiry", "2 d"), text_option("compression_algorithm", "gzip"))
    assert merged(old, new) == (old[0], *new)
    assert merged(old, ()) == old


def test_streams_and_users_have_no_options() -> None:
    refuse_any(())
    with pytest.raises(Refused) as caught:
        refuse_any((text_option("durability", "persisted"),))
    assert caught.value.status is Status.UNSUPPORTED_OPTION_KEY


def test_description_names_kind_and_default_of_every_key() -> None:
    specs = {spec.key: (spec.kind, spec.default) for spec in describe(SERVER)}
    assert specs == {
        "compression_algorithm": (ValueKind.STRING, b"none"),
        "message_expiry": (U64, b"\xff" * 8),
        "max_topic_size": (U64, b"\xff" * 8),
        "segment_size": (U64, b"\0\0\0\x40\0\0\0\0"),
        "durability": (ValueKind.STRING, b"replicated"),
        "consumer_offset_durability": (ValueKind.STRING, b"replicated"),
        "messages_required_to_save": (U32, b"\0\x04\0\0"),
        "size_of_messages_required_to_save": (U64, b"\0\0\x10\0\0\0\0\0"),
        "preallocate_segments": (BOOL, b"\0"),
        "message_deduplication": (BOOL, b"\0"),
    }
    assert all(spec.description for spec in describe(SERVER))
