"""The gate as a truth table: which flag, held where, lets a user do what."""

from typing import Any

import msgspec
import pytest
from msgspec import Struct
from pybroker.broker import events, gate
from pybroker.broker.dispatch import SERVICES
from pybroker.broker.permissions import RULES, without
from pybroker.protocol.commands import COMMANDS, Command
from pybroker.protocol.errors import Refused, Status
from pybroker.protocol.model.messages import PollMessages
from pybroker.protocol.model.streams import CreateStream, DeleteStream, GetStream
from pybroker.protocol.model.topics import CreateTopic, DeleteTopic, GetTopic
from pybroker.protocol.model.users import ChangePassword, GetUser, Logout, UpdatePermissions
from pybroker.protocol.needs import Need
from pybroker.protocol.primitives import (
    Permissions,
    SnapshotCompression,
    SnapshotKind,
    StreamPermissions,
    TopicPermissions,
    UserStatus,
)
from support.batches import make_batch
from support.broker import BALANCED, FIRST, READER, Broker

BOB_ID = 1

# Iggy's rules: commands, and the flags any one of which allows them: everywhere, for the stream, for the topic.
TABLE = [
    ("get_stats get_snapshot get_client get_clients", "manage_servers read_servers", "", ""),
    ("get_user get_users", "manage_users read_users", "", ""),
    ("create_user delete_user update_user update_permissions change_password", "manage_users", "", ""),
    ("get_streams", "manage_streams read_streams", "", ""),
    ("get_stream", "manage_streams read_streams", "manage_stream read_stream", ""),
    ("create_stream", "manage_streams", "", ""),
    ("delete_stream update_stream purge_stream", "manage_streams", "manage_stream", ""),
    ("create_topic", "manage_streams manage_topics", "manage_stream manage_topics", ""),
    (
        "delete_topic update_topic purge_topic create_partitions delete_partitions delete_segments",
        "manage_streams manage_topics",
        "manage_stream manage_topics",
        "manage_topic",
    ),
    (
        "get_topics",
        "manage_streams read_streams manage_topics read_topics",
        "manage_stream read_stream manage_topics read_topics",
        "",
    ),
    (
        "get_topic get_consumer_group get_consumer_groups create_consumer_group delete_consumer_group "
        "join_consumer_group leave_consumer_group",
        "manage_streams read_streams manage_topics read_topics",
        "manage_stream read_stream manage_topics read_topics",
        "manage_topic read_topic",
    ),
    (
        "poll_messages poll_messages_on_primary get_poll_routing get_consumer_offset store_consumer_offset "
        "delete_consumer_offset get_consumer_offset_routing",
        "manage_streams read_streams manage_topics read_topics poll_messages",
        "manage_stream read_stream manage_topics read_topics poll_messages",
        "manage_topic read_topic poll_messages",
    ),
    (
        "send_messages flush_unsaved_buffer",
        "manage_streams manage_topics send_messages",
        "manage_stream manage_topics send_messages",
        "manage_topic send_messages",
    ),
]
BEFORE_LOGIN = {"ping", "login_user", "login_with_token", "logout_user"}
AFTER_LOGIN = BEFORE_LOGIN | {
    "get_cluster_metadata", "describe_options", "get_me", "sync_consumer_group", "attach_consumer_session",
    "get_tokens", "create_token", "delete_token",
}  # fmt: skip

GLOBAL_FLAGS = Permissions.__struct_fields__[:-1]
STREAM_FLAGS = StreamPermissions.__struct_fields__[:-1]
TOPIC_FLAGS = TopicPermissions.__struct_fields__

each_command = pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)


def example(command: Command, number: int = 9, topic: int | None = None) -> Struct:
    """Return a command about stream, topic, group and user `number`."""
    filler: dict[str, Any] = {
        "topic": number if topic is None else topic,
        "consumer": READER,
        "partitioning": BALANCED,
        "strategy": FIRST,
        "batch": make_batch(),
        "name": "n",
        "username": "nobody",
        "password": "wrong",
        "current_password": "wrong",
        "new_password": "right",
        "token": "none",
        "status": UserStatus.ACTIVE,
        "permissions": None,
        "compression": SnapshotCompression.STORED,
        "kinds": [SnapshotKind.TEST],
        "client": bytes(16),
        "scope": 1,
        "auto_commit": False,
        "fsync": False,
    }
    fields = [field for field in msgspec.structs.fields(command.request) if field.required]
    return command.request(**{field.name: filler.get(field.name, number) for field in fields})


def everywhere(*flags: str) -> Permissions:
    return msgspec.structs.replace(Permissions(), **dict.fromkeys(flags, True))


def on_stream(stream_id: int, *flags: str) -> Permissions:
    held = msgspec.structs.replace(StreamPermissions(), **dict.fromkeys(flags, True))
    return Permissions(streams={stream_id: held})


def on_topic(stream_id: int, topic_id: int, *flags: str) -> Permissions:
    held = TopicPermissions(**dict.fromkeys(flags, True))
    return Permissions(streams={stream_id: StreamPermissions(topics={topic_id: held})})


def grant(broker: Broker, permissions: Permissions | None) -> None:
    broker.state.catalog.record(events.PermissionsUpdated(BOB_ID, permissions))


def allowed(broker: Broker, command: Command, permissions: Permissions) -> bool:
    """Say whether bob may do to things 0 what a command does."""
    grant(broker, permissions)
    return gate.allows(broker.state.catalog, BOB_ID, command.need, example(command, 0))


@pytest.fixture
async def furnished(broker: Broker) -> Broker:
    """A broker with stream "s", topic "t" and group "g", all of them number 0."""
    await broker.create_topic()
    await broker.create_group()
    return broker


def test_every_command_has_a_service() -> None:
    assert SERVICES.keys() == {command.request for command in COMMANDS}


def test_every_command_is_in_the_table_or_for_everybody() -> None:
    listed = [name for names, *_ in TABLE for name in names.split()]
    assert sorted([*listed, *AFTER_LOGIN]) == sorted(command.name for command in COMMANDS)


@each_command
async def test_each_single_flag_lets_in_whom_the_table_says(furnished: Broker, command: Command) -> None:
    rules = {name: levels for names, *levels in TABLE for name in names.split()}
    if command.name in AFTER_LOGIN:
        rules[command.name] = [" ".join(flags) for flags in (GLOBAL_FLAGS, STREAM_FLAGS, TOPIC_FLAGS)]
    anywhere, stream, topic = (level.split() for level in rules[command.name])
    for flag in GLOBAL_FLAGS:
        assert allowed(furnished, command, everywhere(flag)) == (flag in anywhere), flag
    for flag in STREAM_FLAGS:
        assert allowed(furnished, command, on_stream(0, flag)) == (flag in stream), f"stream {flag}"
    for flag in TOPIC_FLAGS:
        assert allowed(furnished, command, on_topic(0, 0, flag)) == (flag in topic), f"topic {flag}"


@each_command
async def test_flags_of_other_streams_and_topics_let_nobody_in(furnished: Broker, command: Command) -> None:
    for elsewhere in (
        on_stream(1, *STREAM_FLAGS),
        on_topic(1, 0, *TOPIC_FLAGS),
        on_topic(0, 1, *TOPIC_FLAGS),
        Permissions(),
    ):
        assert allowed(furnished, command, elsewhere) == (command.name in AFTER_LOGIN)


@each_command
async def test_before_login_only_what_needs_nothing_is_served(broker: Broker, command: Command) -> None:
    status = await broker.status(example(command), broker.connect(None))
    assert (status is not Status.UNAUTHENTICATED) == (command.name in BEFORE_LOGIN)


@each_command
async def test_user_without_permissions_is_told_so(furnished: Broker, command: Command) -> None:
    status = await furnished.status(example(command, 0), furnished.connect("bob"))
    assert (status is not Status.UNAUTHORIZED) == (command.name in AFTER_LOGIN)


@each_command
async def test_root_is_never_kept_out(broker: Broker, command: Command) -> None:
    assert await broker.status(example(command)) not in (Status.UNAUTHENTICATED, Status.UNAUTHORIZED, Status.ERROR)


@each_command
async def test_logged_out_session_is_as_before_login(broker: Broker, command: Command) -> None:
    session = broker.connect()
    await broker.ask(Logout(), session)
    status = await broker.status(example(command), session)
    assert (status is not Status.UNAUTHENTICATED) == (command.name in BEFORE_LOGIN)


OF_STREAMS = [command for command in COMMANDS if "stream" in command.request.__struct_fields__]
OF_TOPICS = [command for command in OF_STREAMS if "topic" in command.request.__struct_fields__]
MISSING = [(command, 9, 9) for command in OF_STREAMS] + [(command, 0, 9) for command in OF_TOPICS]


async def outcome(broker: Broker, command: Struct, user: str) -> object:
    try:
        return await broker.ask(command, broker.connect(user))
    except Refused as refused:
        return refused.status


@pytest.mark.parametrize(("command", "stream", "topic"), MISSING, ids=lambda value: getattr(value, "name", str(value)))
async def test_what_does_not_exist_is_answered_as_to_root(
    furnished: Broker, command: Command, stream: int, topic: int
) -> None:
    missing = example(command, stream, topic)
    assert await outcome(furnished, missing, "bob") == await outcome(furnished, missing, "iggy")


async def test_users_may_look_at_themselves_and_change_their_password(broker: Broker) -> None:
    bob = broker.connect("bob")
    for name in (BOB_ID, "bob"):
        assert (await broker.ask(GetUser(name), bob)).user.username == "bob"
        assert await broker.status(ChangePassword(name, "wrong", "new"), bob) is Status.INVALID_CREDENTIALS


@pytest.mark.parametrize("user", [0, "iggy", 9, "nobody"])
async def test_whether_others_exist_is_not_told_to_who_may_not_know(broker: Broker, user: int | str) -> None:
    bob = broker.connect("bob")
    assert await broker.status(GetUser(user), bob) is Status.UNAUTHORIZED
    assert await broker.status(ChangePassword(user, "iggy", "new"), bob) is Status.UNAUTHORIZED


async def test_new_permissions_hold_for_sessions_that_are_open(furnished: Broker) -> None:
    bob = furnished.connect("bob")
    poll = PollMessages(READER, "s", "t", 0, FIRST, 1, auto_commit=False)
    assert await furnished.status(poll, bob) is Status.UNAUTHORIZED
    for permissions in (Permissions(poll_messages=True), on_stream(0, "poll_messages"), on_topic(0, 0, "read_topic")):
        await furnished.ask(UpdatePermissions("bob", permissions))
        assert await furnished.status(poll, bob) is Status.OK
        await furnished.ask(UpdatePermissions("bob", None))
        assert await furnished.status(poll, bob) is Status.UNAUTHORIZED


async def test_permissions_do_not_pass_on_to_the_next_stream_with_that_id(furnished: Broker) -> None:
    bob = furnished.connect("bob")
    grant(furnished, on_stream(0, *STREAM_FLAGS))
    assert await furnished.status(GetStream(0), bob) is Status.OK
    await furnished.ask(DeleteStream(0))
    await furnished.ask(CreateStream("another"))
    assert furnished.state.catalog.stream("another").id == 0
    assert await furnished.status(GetStream(0), bob) is Status.UNAUTHORIZED
    assert (await furnished.ask(GetUser("bob"))).permissions == Permissions()


async def test_permissions_do_not_pass_on_to_the_next_topic_with_that_id(furnished: Broker) -> None:
    bob = furnished.connect("bob")
    grant(furnished, on_topic(0, 0, *TOPIC_FLAGS))
    assert await furnished.status(GetTopic(0, 0), bob) is Status.OK
    await furnished.ask(DeleteTopic(0, 0))
    await furnished.ask(CreateTopic(0, 1, "another"))
    assert furnished.state.catalog.topic(0, "another")[1].id == 0
    assert await furnished.status(GetTopic(0, 0), bob) is Status.UNAUTHORIZED
    assert (await furnished.ask(GetUser("bob"))).permissions == Permissions(streams={0: StreamPermissions()})


def test_taking_away_leaves_the_rest() -> None:
    topics = {1: TopicPermissions(True), 2: TopicPermissions(False, True)}
    held = Permissions(True, streams={3: StreamPermissions(True, topics=topics), 4: StreamPermissions()})
    assert without(held, 3).streams == {4: StreamPermissions()}
    assert without(held, 3, 2).streams[3] == StreamPermissions(True, topics={1: TopicPermissions(True)})
    assert without(held, 3, 9) == without(held, 9) == without(held, 9, 1) == held
    assert without(held, 3).manage_servers


def test_user_that_does_not_exist_has_what_any_user_has(broker: Broker) -> None:
    assert broker.state.catalog.grants(77).everywhere == {Need.NOTHING, Need.LOGIN}


def test_every_need_has_a_rule_and_every_flag_a_use() -> None:
    assert RULES.keys() == set(Need) - {Need.NOTHING, Need.LOGIN}
    for level, flags in (("everywhere", GLOBAL_FLAGS), ("stream", STREAM_FLAGS), ("topic", TOPIC_FLAGS)):
        used = {flag for rule in RULES.values() for flag in getattr(rule, level).split()}
        assert used == set(flags)
