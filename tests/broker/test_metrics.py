"""What Prometheus is told, parsed by its own parser, after commands whose numbers are known."""

import json
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pybroker.broker import metrics
from pybroker.broker.metrics import Metrics
from pybroker.protocol.errors import Status
from pybroker.protocol.model.messages import SendMessages
from pybroker.protocol.model.streams import GetStream
from pybroker.protocol.model.system import Ping
from pybroker.protocol.model.topics import CreateTopic, DeleteTopic
from support.batches import make_batch
from support.broker import BALANCED, GROUP, NEXT, Broker

IGGYS = {"http_requests_total", "streams", "topics", "partitions", "segments", "messages", "users", "clients"}

# Names in an expression: not a function, which a bracket follows, nor a label.
METRIC = re.compile(r"\b(pybroker_\w+|(?:streams|topics|partitions|segments|messages|users|clients)$)")
# Sums of histograms, and what says that series are missing.
TOLD_BY_OTHERS = {
    "pybroker_request_seconds_sum",
    "pybroker_sync_seconds_count",
    "pybroker_sync_seconds_sum",
    "pybroker_loop_delay_seconds_count",
    "pybroker_loop_delay_seconds_sum",
    "pybroker_topics_left_out",
    "pybroker_consumers_left_out",
}

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(broker: Broker) -> Samples:
    """Return each sample by name and labels; twice the same is an error."""
    samples: Samples = {}
    for family in text_string_to_metric_families(Metrics(broker.state).render().decode()):
        assert family.documentation
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in samples
            samples[key] = sample.value
    return samples


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, frozenset(labels.items())]


@pytest.fixture
async def broker() -> Broker:
    broker = Broker()
    await broker.create_topic(2)
    return broker


async def test_iggys_own_names_are_there(broker: Broker) -> None:
    await broker.send(b"a", b"b")
    samples = scrape(broker)
    assert {name for name, labels in samples if not labels} >= IGGYS
    counts = {name: value(samples, name) for name in IGGYS}
    assert counts == {
        "http_requests_total": 0,
        "streams": 1,
        "topics": 1,
        "partitions": 2,
        "segments": 2,
        "messages": 2,
        "users": 2,
        "clients": 1,
    }


async def test_requests_are_counted_and_timed_by_command_and_transport(broker: Broker) -> None:
    for _ in range(3):
        await broker.ask(Ping())
    assert await broker.status(SendMessages("s", "missing", BALANCED, make_batch([b"x"]))) is not Status.OK
    samples = scrape(broker)
    assert value(samples, "pybroker_request_seconds_count", command="ping", transport="tcp") == 3
    assert value(samples, "pybroker_request_seconds_bucket", command="ping", transport="tcp", le="+Inf") == 3
    assert value(samples, "pybroker_request_failures_total", command="ping", transport="tcp") == 0
    assert value(samples, "pybroker_request_failures_total", command="send_messages", transport="tcp") == 1
    assert not [labels for _, labels in samples if ("command", GetStream.__name__) in labels]
    buckets = [
        (float(dict(labels)["le"]), count)
        for (name, labels), count in samples.items()
        if name == "pybroker_request_seconds_bucket" and ("command", "ping") in labels
    ]
    assert [count for _, count in sorted(buckets)] == sorted(count for _, count in buckets)


async def test_traffic_is_counted_by_topic_and_forgotten_with_it(broker: Broker) -> None:
    await broker.send(b"a", b"b", b"c")
    await broker.poll(count=2)
    await broker.poll(count=2)
    samples = scrape(broker)
    assert value(samples, "pybroker_topic_messages_in_total", stream="s", topic="t") == 3
    assert value(samples, "pybroker_topic_messages_out_total", stream="s", topic="t") == 4
    sizes = [value(samples, f"pybroker_topic_bytes_{way}_total", stream="s", topic="t") for way in ("in", "out")]
    assert sizes == [broker.state.counters.written_bytes, broker.state.counters.read_bytes]
    await broker.ask(DeleteTopic("s", "t"))
    await broker.ask(CreateTopic("s", 1, "again"))  # gets the id of the deleted one
    assert value(scrape(broker), "pybroker_topic_messages_in_total", stream="s", topic="again") == 0


async def test_lag_is_what_a_consumer_has_still_to_process(broker: Broker) -> None:
    member = broker.connect()
    await broker.create_group(member)
    await broker.sync_group(member)
    await broker.send(*[b"x"] * 10, partition_id=1)
    await broker.poll(NEXT, 4, consumer=GROUP, partition_id=1, auto_commit=True, session=member)
    await broker.poll(NEXT, 9, partition_id=1, auto_commit=True)
    samples = scrape(broker)
    place = {"stream": "s", "topic": "t", "partition": "1"}
    assert value(samples, "pybroker_consumer_lag", **place, kind="group", consumer="g") == 6
    assert value(samples, "pybroker_consumer_lag", **place, kind="single", consumer="1") == 1


async def test_series_are_bounded(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SERIES_MAX", 2)
    for number in range(4):
        await broker.ask(CreateTopic("s", 1, f"more {number}"))
    for partition_id in (0, 1):
        await broker.send(partition_id=partition_id)
        for consumer in (1, 2):
            broker.state.offsets.store(broker.log_ids()[partition_id], metrics.ConsumerKind.SINGLE, consumer, 0)
    samples = scrape(broker)
    assert len([name for name, _ in samples if name == "pybroker_topic_messages_in_total"]) == 2
    assert value(samples, "pybroker_topics_left_out") == 3
    assert len([name for name, _ in samples if name == "pybroker_consumer_lag"]) == 2
    assert value(samples, "pybroker_consumers_left_out") == 2


async def test_dashboard_asks_for_metrics_that_there_are(broker: Broker) -> None:
    await broker.send()
    await broker.poll(NEXT, auto_commit=True)
    await broker.status(GetStream("missing"))
    known = {name for name, _ in scrape(broker)}
    panels = json.loads((Path(__file__).parents[2] / "configs" / "grafana.json").read_text())["panels"]
    asked = {name for panel in panels for target in panel["targets"] for name in METRIC.findall(target["expr"])}
    assert asked <= known
    assert {name for name in known if name.startswith("pybroker")} - asked <= TOLD_BY_OTHERS
