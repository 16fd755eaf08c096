"""What goes to OpenTelemetry of the log, and what happens when nobody takes it."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from threading import Event

import pytest
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pybroker.broker import telemetry as module
from pybroker.broker.config import schema
from pybroker.broker.dispatch import Dispatch
from pybroker.broker.telemetry import COMPLAINT_INTERVAL_S, SWITCH_INTERVAL_S, Complaints, Telemetry
from pybroker.protocol.model.messages import PollMessages
from pybroker.protocol.model.system import Ping
from support.broker import FIRST, READER, Broker

OURS = logging.getLogger("pybroker.broker.anything")
SDK = logging.getLogger("opentelemetry.exporter.anything")
TEST_TIMEOUT_S = 20


class Exported:
    """Telemetry into memory. `close` flushes, so look at `spans` and `records` after it."""

    def __init__(self) -> None:
        self._spans, self._records = InMemorySpanExporter(), InMemoryLogRecordExporter()
        settings = schema.Telemetry(enabled=True, service_name="mine")
        self.telemetry = Telemetry(settings, span_exporter=self._spans, log_exporter=self._records)
        self._closed = False

    async def close(self) -> None:
        if not self._closed:
            self._closed = True
            await self.telemetry.close()

    def spans(self) -> Sequence[ReadableSpan]:
        return self._spans.get_finished_spans()

    def records(self) -> Sequence[ReadableLogRecord]:
        return self._records.get_finished_logs()

    def bodies(self) -> list[object]:
        return [one.log_record.body for one in self.records()]


class StuckExporter(SpanExporter):
    """Delivers nothing until it is let go."""

    def __init__(self) -> None:
        self.is_let_go = Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.is_let_go.wait(TEST_TIMEOUT_S)
        return SpanExportResult.FAILURE


@pytest.fixture
async def exported() -> AsyncIterator[Exported]:
    logging.getLogger("pybroker").setLevel(logging.DEBUG)
    exported = Exported()
    yield exported
    await exported.close()
    logging.getLogger("pybroker").setLevel(logging.NOTSET)


async def test_log_goes_out_with_its_level_its_text_and_who_wrote_it(exported: Exported) -> None:
    OURS.warning("closed %s: %s", "127.0.0.1:1", "no login")
    await exported.close()
    (one,) = exported.records()
    record = one.log_record
    assert (record.severity_text, record.body) == ("WARN", "closed 127.0.0.1:1: no login")
    assert one.instrumentation_scope is not None
    assert (one.instrumentation_scope.name, record.trace_id) == (OURS.name, 0)
    assert one.resource.attributes["service.name"] == "mine"


async def test_exceptions_go_out_with_their_log_records(exported: Exported) -> None:
    try:
        raise KeyError("a bug")
    except KeyError:
        OURS.exception("failed")
    await exported.close()
    attributes = exported.records()[0].log_record.attributes
    assert attributes is not None
    assert (attributes["exception.type"], attributes["exception.message"]) == ("KeyError", "'a bug'")


async def test_log_records_belong_to_the_span_of_their_request(exported: Exported) -> None:
    broker = Broker()
    await broker.create_topic()
    await broker.send()
    broker.dispatch = exported.telemetry.dispatch(broker.state)
    setattr(broker.state.logs, "of", None)  # noqa: B010 - a bug, which is logged
    await broker.status(PollMessages(READER, "s", "t", 0, FIRST, 1, auto_commit=False))
    await broker.ask(Ping())
    OURS.info("between requests")
    await exported.close()
    poll, ping = exported.spans()
    failure, between = (one.log_record for one in exported.records())
    assert poll.context is not None and ping.context is not None
    assert (failure.trace_id, failure.span_id) == (poll.context.trace_id, poll.context.span_id)
    assert between.trace_id == 0


async def test_lines_of_the_sdk_and_of_telemetry_itself_stay_here(
    exported: Exported, caplog: pytest.LogCaptureFixture
) -> None:
    SDK.error("no delivery")
    logging.getLogger("somebody.else").error("not ours")
    OURS.info("ours")
    await exported.close()
    assert exported.bodies() == ["ours"]
    assert "telemetry: no delivery" in caplog.messages


async def test_after_the_end_all_is_as_before(exported: Exported) -> None:
    assert sys.getswitchinterval() == pytest.approx(SWITCH_INTERVAL_S)
    await exported.close()
    OURS.info("late")
    assert exported.bodies() == []
    assert logging.getLogger("opentelemetry").propagate
    assert sys.getswitchinterval() > SWITCH_INTERVAL_S


def test_failures_to_deliver_are_one_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    now_s = [100.0]
    complaints = Complaints(lambda: now_s[0])
    complaints.take_over()
    try:
        for second in range(int(COMPLAINT_INTERVAL_S) + 1):
            now_s[0] = 100.0 + second
            SDK.error("no delivery")
            SDK.info("of no interest")
    finally:
        complaints.give_back()
    assert caplog.messages == ["telemetry: no delivery", "telemetry: no delivery (59 such lines left out)"]


async def test_receiver_that_hangs_holds_up_neither_requests_nor_the_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "FLUSH_TIMEOUT_S", 0.1)
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "4")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1")
    stuck = StuckExporter()
    settings = schema.Telemetry(logs=schema.TelemetryLogs(endpoint=""))
    telemetry = Telemetry(settings, span_exporter=stuck)
    broker = Broker()
    broker.dispatch = telemetry.dispatch(broker.state)
    async with asyncio.timeout(TEST_TIMEOUT_S):
        for _ in range(20):
            await broker.ask(Ping())
        await telemetry.close()
    assert "telemetry: the last spans or log records were not delivered in 0.1 s" in caplog.messages
    stuck.is_let_go.set()


async def test_sampler_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    exported = Exported()
    broker = Broker()
    broker.dispatch = exported.telemetry.dispatch(broker.state)
    await broker.ask(Ping())
    OURS.warning("still there")
    await exported.close()
    assert (len(exported.spans()), exported.bodies()) == (0, ["still there"])


async def test_empty_endpoints_export_nothing() -> None:
    nowhere = schema.Telemetry(
        enabled=True, logs=schema.TelemetryLogs(endpoint=""), traces=schema.TelemetryTraces(endpoint="")
    )
    before = list(logging.getLogger("pybroker").handlers)
    telemetry = Telemetry(nowhere)
    try:
        assert type(telemetry.dispatch(Broker().state)) is Dispatch
        assert logging.getLogger("pybroker").handlers == before
    finally:
        await telemetry.close()


def test_broker_without_telemetry_imports_none_of_it() -> None:
    script = "import sys, pybroker.broker.app; sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    assert subprocess.run([sys.executable, "-c", script], timeout=TEST_TIMEOUT_S).returncode == 0
