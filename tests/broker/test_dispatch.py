"""The one place where exceptions become statuses."""

import logging
from pathlib import Path

import pytest
from pybroker.broker.dispatch import Dispatch
from pybroker.protocol.errors import Refused, Status
from pybroker.protocol.model.messages import PollMessages
from pybroker.protocol.model.system import Ping
from pybroker.storage.engine import ReadLimit
from pybroker.storage.errors import Corrupt, Full, OffsetGone, Poisoned
from support.broker import FIRST, READER, Broker

FAILURES = [
    (Full("no room"), Status.CANNOT_APPEND_TO_FILE),
    (Poisoned(Path("f"), OSError(5, "EIO")), Status.CANNOT_SAVE_MESSAGES_TO_SEGMENT),
    (Corrupt(Path("f"), 7, "checksum"), Status.CANNOT_READ_MESSAGE),
    (OffsetGone("3"), Status.INVALID_OFFSET),
    (Refused(Status.TASK_TIMEOUT, "x"), Status.TASK_TIMEOUT),
    (ValueError("a bug"), Status.ERROR),
    (KeyError("a bug"), Status.ERROR),
]


async def failing_broker(error: BaseException, *, waits: bool = True) -> Broker:
    """Return a broker whose one partition can't be read. waits: whether that shows after a wait."""
    broker = Broker()
    await broker.create_topic()
    await broker.send()
    log = broker.state.logs.of(broker.state.catalog.topic("s", "t")[1].partitions[0])

    async def read(_offset: int, _limit: ReadLimit) -> list[memoryview]:
        raise error

    def read_nowait(_offset: int, _limit: ReadLimit) -> None:
        if not waits:
            raise error

    vars(log).update(read=read, read_nowait=read_nowait)
    return broker


POLL = PollMessages(READER, "s", "t", 0, FIRST, 1, auto_commit=True)


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(("error", "status"), FAILURES, ids=lambda value: type(value).__name__)
async def test_every_failure_of_a_service_is_a_refusal(error: Exception, status: Status, waits: bool) -> None:
    broker = await failing_broker(error, waits=waits)
    timing = broker.state.counters.requests[PollMessages][broker.root.transport]
    assert await broker.status(POLL) is status
    assert (timing.failures, sum(timing.counts)) == (1, 1)
    assert await broker.status(Ping()) is Status.OK
    assert broker.engine.offsets.keys() == []


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(("error", "level"), [(Full("x"), logging.ERROR), (ValueError("x"), logging.ERROR)])
async def test_failure_that_is_not_the_clients_is_logged_with_its_address(
    error: Exception, level: int, waits: bool, caplog: pytest.LogCaptureFixture
) -> None:
    broker = await failing_broker(error, waits=waits)
    await broker.status(POLL)
    (record,) = caplog.records
    assert record.levelno == level
    assert broker.root.address in record.getMessage()
    assert "PollMessages" in record.getMessage()


async def test_refusal_is_not_logged(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    assert await broker.status(POLL) is Status.STREAM_ID_NOT_FOUND
    assert caplog.records == []


async def test_cancellation_passes_through() -> None:
    class Cancelled(BaseException):
        pass

    broker = await failing_broker(Cancelled())
    with pytest.raises(Cancelled):
        await broker.ask(POLL)


async def test_disconnected_session_is_forgotten(broker: Broker) -> None:
    await broker.create_topic()
    member = broker.connect()
    await broker.create_group(member)
    Dispatch(broker.state).disconnected(member)
    assert broker.state.clients.find(member.client_id) is None
    assert broker.state.groups.joined(member.client_id) == []
