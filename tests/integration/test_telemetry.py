"""A running server and a receiver of OTLP: what arrives, and what happens where there is none."""

import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from apache_iggy import SendMessage
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from pybroker.broker.telemetry import FLUSH_TIMEOUT_S
from support.otlp import SETTINGS, Receiver, attributes_of, endpoints
from support.rest import Rest
from support.server import START_TIMEOUT_S, Server, environment, free_port
from support.wheel import bounded, connect, make_topic, poll, send

TRACE, SPAN, OTHER = 0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, 0x00F067AA0BA902B7
PASSWORD = "correct-horse-battery"
ROOT = {"IGGY_ROOT_USERNAME": "iggy", "IGGY_ROOT_PASSWORD": PASSWORD}
WITHOUT = "import sys; sys.modules['opentelemetry.sdk'] = None; from pybroker.__main__ import main; sys.exit(main())"


def traceparent(span_id: int = SPAN) -> str:
    return f"00-{TRACE:032x}-{span_id:016x}-01"


def ids(trace_id: bytes, span_id: bytes) -> tuple[int, int]:
    return int.from_bytes(trace_id, "big"), int.from_bytes(span_id, "big")


@pytest.fixture(params=["http", "grpc"])
def receiver(request: pytest.FixtureRequest) -> Iterator[Receiver]:
    with Receiver(request.param) as receiver:
        yield receiver


async def test_trace_of_messages_goes_through_the_server(tmp_path: Path, receiver: Receiver) -> None:
    with Server(tmp_path / "data", settings=receiver.settings | ROOT, default_root=False) as server:
        client = await connect(server.address, password=PASSWORD)
        await make_topic(client, "s")
        await send(client, "s", "topic", [SendMessage("one", user_headers={"traceparent": traceparent()})])
        (message,) = await poll(client, "s", "topic")
        assert server.stop() == 0
    assert message.user_headers() is not None
    sent, polled = receiver.span("send_messages s/topic"), receiver.span("poll_messages s/topic")
    assert ids(sent.trace_id, sent.parent_span_id) == (TRACE, SPAN)
    assert [ids(link.trace_id, link.span_id) for link in polled.links] == [(TRACE, SPAN)]
    assert attributes_of(sent.attributes)["server.port"] == server.port
    (resource,) = {group.resource.SerializeToString() for one in receiver.traces for group in one.resource_spans}
    assert b"service.name" in resource
    assert PASSWORD.encode() not in receiver.everything()


async def test_log_goes_to_the_receiver_until_the_end(tmp_path: Path, receiver: Receiver) -> None:
    settings = receiver.settings | {"IGGY_TELEMETRY_SERVICE_NAME": "mine", "IGGY_SYSTEM_LOGGING_LEVEL": "debug"}
    with Server(tmp_path / "data", settings=settings) as server:
        client = await connect(server.address)
        with pytest.raises(RuntimeError):
            await bounded(client.delete_stream("unknown"))
        assert server.stop() == 0
    bodies = receiver.bodies()
    assert f"listening for tcp on {server.address}" in bodies
    assert "stopping" in bodies
    (resource,) = {group.resource.SerializeToString() for one in receiver.logs for group in one.resource_logs}
    assert b"mine" in resource
    assert not [body for body in bodies if "telemetry" in body or "urllib3" in body or "OTLP" in body]


async def test_log_records_of_a_request_have_its_trace(tmp_path: Path) -> None:
    with Receiver() as receiver, Server(tmp_path / "data", settings=receiver.settings) as server:
        client = await connect(server.address)
        await make_topic(client, "s")
        await send(client, "s", "topic", ["one"])
        damage(server.path)
        with pytest.raises(RuntimeError):
            await poll(client, "s", "topic")
        assert server.stop() == 0
    span = receiver.span("poll_messages s/topic")
    (record,) = [record for record in receiver.records() if is_failure(record)]
    assert (record.trace_id, record.span_id) == (span.trace_id, span.span_id)
    assert attributes_of(span.attributes)["error.type"] == "cannot_read_message"


def damage(data: Path) -> None:
    """Make what a log holds unreadable, behind the server's back."""
    for segment in data.rglob("*.log"):
        if "logs" in segment.parts and segment.stat().st_size and segment.name[0].isdigit():
            segment.write_bytes(b"")


def is_failure(record: LogRecord) -> bool:
    return record.body.string_value.startswith("PollMessages from ")


async def test_http_request_is_a_part_of_its_callers_trace(tmp_path: Path) -> None:
    with Receiver() as receiver, Server(tmp_path / "data", settings=receiver.settings) as server:
        async with Rest(server.http_address) as rest:
            await rest.login()
            rest.http.headers["traceparent"] = traceparent(OTHER)
            await rest.get("/streams")
        assert server.stop() == 0
    asked, login = receiver.span("get_streams"), receiver.span("login_user")
    assert ids(asked.trace_id, asked.parent_span_id) == (TRACE, OTHER)
    assert login.parent_span_id == b""
    assert attributes_of(asked.attributes)["network.protocol.name"] == "http"


async def test_sampler_of_the_environment_leaves_spans_out(tmp_path: Path) -> None:
    with Receiver() as receiver:
        settings = receiver.settings | {"OTEL_TRACES_SAMPLER": "always_off"}
        with Server(tmp_path / "data", settings=settings) as server:
            await make_topic(await connect(server.address), "s")
            assert server.stop() == 0
    assert receiver.spans() == []
    assert "stopping" in receiver.bodies()


@pytest.mark.parametrize("transport", ["http", "grpc"])
async def test_receiver_that_is_not_there_costs_a_few_lines_and_no_request(tmp_path: Path, transport: str) -> None:
    settings = SETTINGS | endpoints(f"http://127.0.0.1:{free_port()}", transport) | {"OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    with Server(tmp_path / "data", settings=settings) as server:
        client = await connect(server.address)
        await make_topic(client, "s")
        server.wait_log(lambda lines: any(" telemetry: " in line for line in lines))
        for number in range(20):
            await send(client, "s", "topic", [f"{number}"])
        assert len(await poll(client, "s", "topic")) == 20
        assert server.stop() == 0
    lines = [line for line in server.log().splitlines() if "telemetry" in line.lower() or "opentelemetry" in line]
    assert len(lines) <= 2  # the first failure, and what was left at the end


async def test_receiver_that_never_answers_holds_up_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings = SETTINGS | endpoints(f"http://127.0.0.1:{silent.getsockname()[1]}", "http")
        with Server(tmp_path / "data", settings=settings) as server:
            client = await connect(server.address)
            await make_topic(client, "s")
            await send(client, "s", "topic", ["one"])
            assert len(await poll(client, "s", "topic")) == 1
            assert server.stop() == 0
    assert f"were not delivered in {FLUSH_TIMEOUT_S:g} s" in server.log()


def test_start_without_the_extra_says_what_to_install(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, "serve"],
        env=environment({"IGGY_SYSTEM_PATH": str(tmp_path / "data"), "IGGY_TELEMETRY_ENABLED": "true"}),
        capture_output=True,
        text=True,
        timeout=START_TIMEOUT_S,
    )
    assert done.returncode == 1
    assert "pybroker: telemetry.enabled needs `pip install pybroker[otel]`" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "data").exists()


def test_endpoint_that_is_no_url_stops_the_start(tmp_path: Path) -> None:
    settings = {"IGGY_TELEMETRY_TRACES_ENDPOINT": "localhost:4317"}
    with pytest.raises(RuntimeError, match="expected a URL"):
        Server(tmp_path / "data", settings=settings).start()
