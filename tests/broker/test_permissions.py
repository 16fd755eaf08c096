"""The gate as a truth table: who may what."""

from typing import Any

import msgspec
import pytest
from msgspec import Struct
from pybroker.broker.dispatch import SERVICES
from pybroker.broker.permissions import ROOT_ID, allows
from pybroker.protocol.commands import COMMANDS, Command
from pybroker.protocol.errors import Status
from pybroker.protocol.model.users import Logout
from pybroker.protocol.needs import Need
from support.batches import make_batch
from support.broker import BALANCED, FIRST, READER, Broker

# What users without permissions may do, which so far is every user but root.
FOR_EVERYBODY = {Need.NOTHING, Need.LOGIN}
BEFORE_LOGIN = {"ping", "login_user", "logout_user"}
AFTER_LOGIN = BEFORE_LOGIN | {"get_cluster_metadata", "describe_options", "get_me", "sync_consumer_group"}

each_command = pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)


@pytest.mark.parametrize("need", Need)
def test_root_may_everything_and_others_what_needs_no_permission(need: Need) -> None:
    assert allows(ROOT_ID, need)
    for user_id in (1, 2, 2**32 - 1):
        assert allows(user_id, need) == (need in FOR_EVERYBODY)


def test_every_command_has_a_service() -> None:
    assert SERVICES.keys() == {command.request for command in COMMANDS}


def example(command: Command) -> Struct:
    """Return a command that names nothing that exists."""
    filler: dict[str, Any] = {
        "consumer": READER,
        "partitioning": BALANCED,
        "strategy": FIRST,
        "batch": make_batch(),
        "name": "n",
        "username": "nobody",
        "password": "wrong",
        "scope": 1,
        "auto_commit": False,
    }
    fields = [field for field in msgspec.structs.fields(command.request) if field.required]
    return command.request(**{field.name: filler.get(field.name, 9) for field in fields})


@each_command
async def test_before_login_only_what_needs_nothing_is_served(broker: Broker, command: Command) -> None:
    status = await broker.status(example(command), broker.connect(None))
    assert (status is not Status.UNAUTHENTICATED) == (command.name in BEFORE_LOGIN)


@each_command
async def test_user_without_permissions_is_told_so(broker: Broker, command: Command) -> None:
    status = await broker.status(example(command), broker.connect("bob"))
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
