"""What is said of peers: medians over rounds, and ratios of the same round."""

import pytest
from pybroker.benchmarks.peers.catalog import Peer
from pybroker.benchmarks.peers.report import Result, Sample, rows_of
from pybroker.benchmarks.peers.rounds import BATCH, CONNECTIONS, WORKS, Work
from pybroker.benchmarks.peers.servers import pybroker


def result(*seconds: float, server_cpu: float = 0.0, client_cpu: float = 0.0) -> Result:
    return Result(100, [Sample(1000, each, server_cpu, client_cpu) for each in seconds])


def test_rate_is_that_of_the_median_round() -> None:
    assert result(1.0, 50.0, 0.5).rate == 1000.0


def test_ratio_is_the_median_of_the_rounds_ratios() -> None:
    own, peer = result(1.0, 2.0, 4.0), result(2.0, 16.0, 12.0)
    assert own.ratio_to(peer) == 3.0
    assert own.ratio_to(own) == 1.0


def test_ratio_needs_the_same_rounds() -> None:
    with pytest.raises(ValueError, match="longer"):
        result(1.0).ratio_to(result(1.0, 1.0))


def test_processor_time_is_for_a_million_messages_of_all_rounds() -> None:
    measured = result(1.0, 1.0, server_cpu=0.004, client_cpu=0.01)
    assert measured.server_cpu == pytest.approx(4.0)
    assert measured.client_cpu == pytest.approx(10.0)


def test_a_row_has_the_ratio_to_the_peer_of_the_same_durability() -> None:
    results = {"own": result(1.0), "own fsync": result(2.0), "slow": result(3.0, server_cpu=0.001)}
    bases = {"own": "own", "own fsync": "own fsync", "slow": "own fsync"}
    peers = {name: Peer(pybroker, "iggy", "own.Own", "fsync", base) for name, base in bases.items()}
    rows = rows_of(results, peers)
    assert rows == [
        ["own", "1,000", "0.1", "1", "?", "0.00", "fsync"],
        ["own fsync", "500", "0.1", "1", "?", "0.00", "fsync"],
        ["slow", "333", "0.0", "1.50 times", "1.00", "0.00", "fsync"],
    ]


@pytest.mark.parametrize("messages", [1, 999, 5_000, 50_000, 123_456])
@pytest.mark.parametrize("work", WORKS, ids=[work.title for work in WORKS])
def test_every_connection_gets_the_same_number_of_whole_batches(work: Work, messages: int) -> None:
    count = work.count(messages)
    assert count > 0
    assert count % (work.batch * work.connections) == 0
    assert count <= max(messages, BATCH, CONNECTIONS)


def test_what_is_consumed_has_been_produced_in_batches() -> None:
    produced, consumed, *_ = WORKS
    assert (produced.kind, consumed.kind) == ("send", "receive")
    assert consumed.count(7_500) == produced.count(7_500)
