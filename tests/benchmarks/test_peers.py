"""Each peer's driver against its real server, with a few messages; those that are not installed are skipped."""

from collections.abc import Generator as Yields
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from pybroker.benchmarks.peers.__main__ import chosen
from pybroker.benchmarks.peers.catalog import OWN, PEERS, WRITTEN, Needs, iggy_at
from pybroker.benchmarks.peers.generator import Generator
from pybroker.benchmarks.peers.jobs import Job
from pybroker.benchmarks.peers.rounds import WORKS, measure
from pybroker.benchmarks.peers.servers import pybroker

SIZE = 100


@contextmanager
def running(name: str, folder: Path) -> Yields[Generator]:
    """Run a peer's server and a load on it."""
    peer = PEERS[name]
    with peer.serve(folder) as server, closing(Generator(name, peer, server)) as load:
        yield load


@pytest.fixture(params=PEERS)
def generator(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Generator]:
    if missing := PEERS[request.param].needs.missing():
        pytest.skip(missing)
    with running(request.param, tmp_path) as load:
        yield load


def test_what_is_sent_is_received_once(generator: Generator) -> None:
    generator.run(Job("create", "first"))
    generator.run(Job("send", "first", 20, 10, SIZE))
    generator.run(Job("send", "first", 6, 1, SIZE, connections=3))
    received = generator.run(Job("receive", "first", 26, 10, SIZE))
    assert (received.messages, received.seconds > 0) == (26, True)
    generator.run(Job("delete", "first"))
    generator.run(Job("create", "second"))
    generator.run(Job("send", "second", 10, 10, SIZE))
    assert generator.run(Job("receive", "second", 10, 10, SIZE)).messages == 10


def test_a_whole_measurement_has_every_work_and_round(tmp_path: Path) -> None:
    with running(WRITTEN, tmp_path) as load:
        results = measure({WRITTEN: load}, messages=1000, size=SIZE, rounds=2)
    assert list(results) == list(WORKS)
    for work, by_peer in results.items():
        assert [sample.messages for sample in by_peer[WRITTEN].samples] == [work.count(1000)] * 2
        assert by_peer[WRITTEN].rate > 0


def test_messages_of_another_size_end_the_load(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with running(WRITTEN, tmp_path) as load:
        load.run(Job("create", "topic"))
        load.run(Job("send", "topic", 10, 10, SIZE))
        with pytest.raises(RuntimeError, match="the load on pybroker ended in receive"):
            load.run(Job("receive", "topic", 10, 10, SIZE + 1))
    assert f"expected 10 more messages of {SIZE + 1} bytes" in capfd.readouterr().err


def test_a_server_at_an_address_is_measured_without_its_processor_time(tmp_path: Path) -> None:
    with pybroker(tmp_path) as there:
        peer = iggy_at(there.addresses["iggy"])
        with peer.serve(tmp_path) as server, closing(Generator("iggy", peer, server)) as load:
            load.run(Job("create", "topic"))
            assert load.run(Job("send", "topic", 10, 10, SIZE)).server_cpu == 0


def test_a_peer_that_is_not_installed_says_how_to_install_it() -> None:
    assert Needs(("json",), "sh").missing() == ""
    assert Needs(("no_such_module",)).missing() == "pip install 'pybroker[peers]'"
    assert Needs(("no_such_module",), "no-such-server").missing().startswith("apt-get install no-such-server; pip")


def test_every_peer_is_compared_with_pybroker_by_its_own_client() -> None:
    assert {peer.base for peer in PEERS.values()} == set(OWN)
    assert next(iter(PEERS)) == WRITTEN


def test_peers_are_chosen_by_the_first_words_of_their_names() -> None:
    assert set(chosen(["pybroker"])) <= {*OWN, "pybroker by apache-iggy"}
    assert set(chosen(["redis"])) - {"redis everysec", "redis always"} == set(OWN)
    with pytest.raises(ValueError, match="no such peer: reddis; there are nats, pybroker, rabbitmq, redis"):
        chosen(["reddis", "nats"])


def test_a_peer_with_an_address_is_measured_whatever_else_is_chosen() -> None:
    assert "iggy" in chosen(["redis"], iggy="iggy://user:password@host:1")
    assert "iggy" not in chosen(["redis"])


def test_a_peer_that_is_left_out_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", "")
    assert "redis everysec" not in chosen(["redis"])
    assert "redis everysec is left out: apt-get install redis-server" in capsys.readouterr().out
