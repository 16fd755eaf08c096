"""What Prometheus is told: Iggy's eight names, and what an operator needs, read from plain counters when it asks.

Series by topic and by consumer are bounded in number: the first SERIES_MAX are told, and how many were left out.
"""

from collections.abc import Iterable, Iterator
from itertools import accumulate, islice

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.registry import Collector, CollectorRegistry

from ..protocol.commands import BY_REQUEST
from ..protocol.primitives import ConsumerKind
from .counters import BUCKETS_S, Timing, Traffic
from .services.views import bounds_of, segments_of
from .state import State

SERIES_MAX = 2000
_TOPIC = ("stream", "topic")
_CONSUMER = (*_TOPIC, "partition", "kind", "consumer")


class Metrics(Collector):
    """The broker's metrics in the text format of Prometheus."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def render(self) -> bytes:
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        yield from self._totals()
        yield from self._requests()
        yield from self._traffic()
        yield from self._consumers()

    def _totals(self) -> Iterator[Metric]:
        """Yield Iggy's own metrics, and what there is of the whole broker."""
        state, counters = self._state, self._state.counters
        topics = state.catalog.topics()
        held = [bounds for topic in topics for bounds in bounds_of(state, topic)]
        yield _counter("http_requests", "total count of http_requests.", counters.http_requests)
        for name, value in (
            ("streams", len(state.catalog.streams)),
            ("topics", len(topics)),
            ("partitions", len(held)),
            ("segments", sum(map(segments_of, held))),
            ("messages", sum(bounds.messages for bounds in held)),
            ("users", len(state.catalog.users)),
            ("clients", len(state.clients)),
        ):
            yield GaugeMetricFamily(name, f"total count of {name}.", value)
        yield GaugeMetricFamily("pybroker_log_bytes", "Size of all logs.", sum(bounds.size for bounds in held))
        yield GaugeMetricFamily("pybroker_unsent_bytes", "Answers that peers have yet to take.", counters.unsent_bytes)
        yield GaugeMetricFamily("pybroker_start_time_seconds", "When it started.", state.started_at_us / 1e6)
        connections = GaugeMetricFamily("pybroker_connections", "Open connections.", labels=("transport",))
        sessions = state.clients.all()
        for transport in {session.transport for session in sessions}:
            count = sum(session.transport is transport for session in sessions)
            connections.add_metric((transport.name.lower(),), count)
        yield connections
        yield _histogram("pybroker_sync_seconds", "How long syncs of the disk took.", (), [((), counters.syncs)])
        yield _histogram("pybroker_loop_delay_seconds", "Lateness of the event loop.", (), [((), counters.loop_delays)])

    def _requests(self) -> Iterator[Metric]:
        labels = ("command", "transport")
        timings = [
            ((BY_REQUEST[request].name, transport.name.lower()), timing)
            for request, row in self._state.counters.requests.items()
            for transport, timing in row.items()
            if any(timing.counts)
        ]
        yield _histogram("pybroker_request_seconds", "How long requests took.", labels, timings)
        failures = CounterMetricFamily("pybroker_request_failures", "Requests that were refused.", labels=labels)
        for values, timing in timings:
            failures.add_metric(values, timing.failures)
        yield failures

    def _traffic(self) -> Iterator[Metric]:
        traffic = self._state.counters.traffic
        topics = [(stream, topic) for stream in self._state.catalog.streams for topic in stream.topics]
        nothing = Traffic()
        for name, what in (
            ("messages_in", "Messages stored."),
            ("messages_out", "Messages polled."),
            ("bytes_in", "Bytes of records stored."),
            ("bytes_out", "Bytes of records polled."),
        ):
            family = CounterMetricFamily(f"pybroker_topic_{name}", what, labels=_TOPIC)
            for stream, topic in topics[:SERIES_MAX]:
                held = traffic.get((stream.id, topic.id), nothing)
                family.add_metric((stream.name, topic.name), getattr(held, name))
            yield family
        yield GaugeMetricFamily(
            "pybroker_topics_left_out", "Topics without series of their own.", max(len(topics) - SERIES_MAX, 0)
        )

    def _consumers(self) -> Iterator[Metric]:
        """Yield how many messages each consumer with a stored offset has still to process."""
        lag = GaugeMetricFamily("pybroker_consumer_lag", "Messages not processed yet.", labels=_CONSUMER)
        known = self._lags()
        for values, behind in islice(known, SERIES_MAX):
            lag.add_metric(values, behind)
        yield lag
        left_out = sum(1 for _ in known)
        yield GaugeMetricFamily("pybroker_consumers_left_out", "Consumers without series of their own.", left_out)

    def _lags(self) -> Iterator[tuple[tuple[str, ...], int]]:
        state = self._state
        places = {
            partition.log_id: (stream, topic, partition) for stream, topic, partition in state.catalog.partitions()
        }
        for log_id, kind, consumer, offset in state.offsets.all():
            if log_id not in places:
                continue
            stream, topic, partition = places[log_id]
            group = topic.groups.items.get(consumer) if kind is ConsumerKind.GROUP else None
            name = group.name if group else str(consumer)
            values = (stream.name, topic.name, str(partition.id), kind.name.lower(), name)
            bounds = state.logs.of(partition).bounds
            yield values, max(bounds.next - max(offset + 1, bounds.first), 0)


def _counter(name: str, what: str, value: int) -> Metric:
    return CounterMetricFamily(name, what, value)


def _histogram(
    name: str, what: str, labels: tuple[str, ...], timings: Iterable[tuple[tuple[str, ...], Timing]]
) -> Metric:
    family = HistogramMetricFamily(name, what, labels=labels)
    bounds = [*map(str, BUCKETS_S), "+Inf"]
    for values, timing in timings:
        family.add_metric(values, list(zip(bounds, accumulate(timing.counts), strict=True)), timing.seconds)
    return family
