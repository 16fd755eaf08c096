"""About the server and who is connected; signing in and out."""

import os

import pytest
from pybroker.broker import passwords, topic_options
from pybroker.protocol.errors import Status
from pybroker.protocol.model.system import (
    Client,
    ClientDetails,
    Clients,
    ClusterMetadata,
    ClusterNode,
    DescribeOptions,
    GetClient,
    GetClients,
    GetClusterMetadata,
    GetMe,
    GetStats,
    Ping,
)
from pybroker.protocol.model.users import LoggedIn, Login, Logout
from pybroker.protocol.primitives import U32_MAX, Transport
from pybroker.protocol.vsr.overrides import CODECS
from support.broker import Broker


async def test_ping_has_an_empty_answer_also_before_login(broker: Broker) -> None:
    assert await broker.ask(Ping()) is None
    assert await broker.ask(Ping(), broker.connect(None)) is None


async def test_client_is_shown_to_itself_and_to_others(broker: Broker) -> None:
    session = broker.connect("bob")
    details = ClientDetails(Client(session.client_id, 1, Transport.TCP, session.address, 0), [])
    assert await broker.ask(GetMe(), session) == details
    assert await broker.ask(GetClient(session.client_id)) == details
    assert await broker.ask(GetClient(999)) is None


async def test_clients_are_listed_as_they_came_and_without_those_that_went(broker: Broker) -> None:
    gone, stranger = broker.connect(), broker.connect(None)
    broker.dispatch.disconnected(gone)
    listed = await broker.ask(GetClients())
    assert isinstance(listed, Clients)
    assert [(client.client_id, client.user_id) for client in listed.clients] == [
        (broker.root.client_id, 0),
        (stranger.client_id, U32_MAX),
    ]


async def test_client_ids_are_never_0_and_never_given_twice(broker: Broker) -> None:
    ids: list[int] = []
    for _ in range(5):
        session = broker.connect()
        ids.append(session.client_id)
        broker.dispatch.disconnected(session)
    assert 0 not in ids
    assert len(set(ids)) == 5


async def test_cluster_is_exactly_one_healthy_leader(broker: Broker) -> None:
    broker.state.ports["tcp"] = 8090
    metadata = await broker.ask(GetClusterMetadata())
    assert isinstance(metadata, ClusterMetadata)
    (node,) = metadata.nodes
    assert node == ClusterNode(node.name, node.ip, 8090, 0, 0, 0, role=0, status=0)


@pytest.mark.parametrize(
    ("scope", "count", "status"),
    [
        (0, None, Status.INVALID_COMMAND),
        (1, len(topic_options.ROWS), Status.OK),
        (2, 0, Status.OK),
        (3, 0, Status.OK),
        (4, None, Status.INVALID_COMMAND),
    ],
)
async def test_options_are_described_by_scope(broker: Broker, scope: int, count: int | None, status: Status) -> None:
    assert await broker.status(DescribeOptions(scope)) is status
    if count is not None:
        specs = await broker.ask(DescribeOptions(scope))
        assert len(specs.specs) == count
        assert CODECS[type(specs)].encode(specs)


async def test_stats_count_what_there_is(broker: Broker) -> None:
    await broker.create_topic(2)
    await broker.create_topic(1, name="u")
    await broker.create_group()
    broker.connect(None)
    await broker.send(b"abc", b"d")
    await broker.send(b"e", topic="u")
    await broker.poll()
    broker.clock.now_us += 500
    stats = await broker.ask(GetStats())
    assert (stats.streams_count, stats.topics_count, stats.partitions_count, stats.groups_count) == (1, 2, 3, 1)
    assert (stats.messages_count, stats.messages_size, stats.clients_count) == (3, 356 + 305, 2)
    assert (stats.written_bytes, stats.read_bytes) == (356 + 305, 356)
    assert (stats.started_at_us, stats.run_time_us) == (1_000_000, 500)
    assert (stats.process_id, stats.semver, stats.cache_metrics) == (os.getpid(), 9000, [])
    assert stats.memory_usage > 0
    assert stats.total_memory >= stats.available_memory > 0
    assert stats.server_version.startswith("0.9.0")
    assert CODECS[type(stats)].encode(stats)


async def test_login_gives_a_session_that_grows(broker: Broker) -> None:
    epochs: list[int] = []
    for name, number in (("iggy", 0), ("bob", 1), ("iggy", 0)):
        session = broker.connect(None)
        assert not session.signed_in
        answer = await broker.ask(Login(name, name), session)
        assert answer == LoggedIn(number, session.epoch)
        assert (session.user_id, session.signed_in) == (number, True)
        epochs.append(session.epoch)
    assert epochs == sorted(set(epochs))
    assert epochs[0] > 0


WRONG = [
    ("iggy", "wrong"),
    ("iggy", ""),
    ("iggy", "Iggy"),
    ("nobody", "iggy"),
    ("", ""),
    ("Iggy", "iggy"),
    ("bob", "iggy"),
]


@pytest.mark.parametrize(("username", "password"), WRONG)
async def test_wrong_credentials_are_refused_and_change_nothing(broker: Broker, username: str, password: str) -> None:
    stranger, known = broker.connect(None), broker.connect("bob")
    epoch = known.epoch
    for session in (stranger, known):
        assert await broker.status(Login(username, password), session) is Status.INVALID_CREDENTIALS
    assert not stranger.signed_in
    assert (known.user_id, known.epoch) == (1, epoch)


async def test_login_on_a_signed_in_connection_replaces_the_user(broker: Broker) -> None:
    session = broker.connect("bob")
    epoch = session.epoch
    await broker.ask(Login("iggy", "iggy"), session)
    assert session.user_id == 0
    assert session.epoch > epoch


async def test_logout_keeps_the_connection_and_is_fine_twice(broker: Broker) -> None:
    session = broker.connect()
    for _ in range(2):
        assert await broker.status(Logout(), session) is Status.OK
    assert await broker.status(GetMe(), session) is Status.UNAUTHENTICATED
    assert await broker.status(Ping(), session) is Status.OK
    await broker.ask(Login("iggy", "iggy"), session)
    assert await broker.status(GetMe(), session) is Status.OK


async def test_hash_matches_its_password_only() -> None:
    password_hash = await passwords.make_hash("sécret")
    assert password_hash.startswith("$argon2id$")
    assert "sécret" not in password_hash
    assert await passwords.matches(password_hash, "sécret")
    for wrong in ("secret", "", "sécret ", "x" * 1000):
        assert not await passwords.matches(password_hash, wrong)
    assert not await passwords.matches("not a hash", "sécret")


async def test_user_that_does_not_exist_is_checked_like_one_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[str] = []

    def verify(password_hash: str, _password: str) -> bool:
        checked.append(password_hash)
        return True

    monkeypatch.setattr(passwords, "_verify", verify)
    assert not await passwords.matches(None, "any")
    assert checked[0].startswith("$argon2id$")


def test_random_passwords_are_long_and_differ() -> None:
    made = {passwords.random_password() for _ in range(10)}
    assert len(made) == 10
    assert {len(password) for password in made} == {24}
