"""Every kind of run against a real broker, with tiny volumes: what is counted is what is stored."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from pybroker.benchmarks.harness import report, stage
from pybroker.benchmarks.harness.cli import bench
from pybroker.benchmarks.harness.crew import BenchError, Crew
from pybroker.benchmarks.harness.files import write
from pybroker.benchmarks.harness.options import parse
from pybroker.benchmarks.harness.plan import plan_of
from pybroker.benchmarks.harness.progress import Progress
from pybroker.benchmarks.harness.report import Report
from pybroker.benchmarks.harness.run import run, times_of
from pybroker.client import Client, PybrokerError
from pybroker.testing import RunningBroker, running
from pybroker.testing import broker as own_broker
from support.server import run as run_command

TIMEOUT_S = 60
TINY = "--processes 1 --no-output -m 50 -P 10 -b 6"


@pytest.fixture(scope="module")
def broker() -> Iterator[RunningBroker]:
    with running(listeners=("tcp", "quic", "websocket")) as broker:
        yield broker


async def done(words: str, address: str) -> Report:
    command = [*words.split(), "--server-address", address]
    params, _ = parse(command)
    async with asyncio.timeout(TIMEOUT_S):
        return await run(params, command, Progress())


def counts(found: Report) -> dict[str, int]:
    return {group.role: group.total.messages for group in found.groups}


@pytest.mark.parametrize("level", ["", "-H"], ids=["low", "high"])
@pytest.mark.parametrize(
    ("words", "expected", "stored"),
    [
        ("pp -p 3", {"producer": 180}, 180),
        ("pp -p 4 -s 2 --in-flight 3", {"producer": 240}, 240),
        ("pc -c 2", {"consumer": 120}, 120),
        ("pc -c 2 -s 1", {"consumer": 120}, 60),
        ("ppc -p 2 -c 2", {"producer": 120, "consumer": 120}, 120),
        ("bp -p 2 -a 3", {"producer": 120}, 120),
        ("bcg -c 3 -a 3", {"consumer": 180}, 180),
        ("bpcg -p 2 -c 4 -g 2 -a 2", {"producer": 120, "consumer": 240}, 120),
    ],
)
async def test_counts_are_exact(
    broker: RunningBroker, words: str, level: str, expected: dict[str, int], stored: int
) -> None:
    found = await done(f"{words} {level} {TINY}", broker.address)
    assert counts(found) == expected
    assert found.stored == stored
    for group in found.groups:
        actors = [actor.figures for actor in found.actors if actor.role == group.role]
        assert sum(figures.messages for figures in actors) == group.total.messages
        assert group.total.bytes == 50 * group.total.messages
        assert sum(count for _, count in group.distribution) == group.total.requests
        assert sum(group.series.messages_per_second) * group.series.interval_s == pytest.approx(group.total.messages)
        assert group.total.seconds > 0


async def test_what_is_sent_end_to_end_comes_back(broker: RunningBroker) -> None:
    found = await done(f"e2e -p 3 -s 2 {TINY}", broker.address)
    assert counts(found) == {"producing consumer": 180}
    assert found.stored == 180


@pytest.mark.parametrize("transport", ["quic", "websocket"])
async def test_other_transports_carry_the_same(broker: RunningBroker, transport: str) -> None:
    trust = "--tls-validate-certificate false" if transport == "quic" else ""
    found = await done(f"ppc {transport} {trust} {TINY}", broker.addresses[transport])
    assert counts(found) == {"producer": 120, "consumer": 120}


async def test_actors_in_processes_of_their_own_count_as_well(broker: RunningBroker) -> None:
    found = await done(f"bpcg -p 2 -c 2 {TINY} --processes 4", broker.address)
    assert counts(found) == {"producer": 120, "consumer": 120}


@pytest.mark.parametrize("kind", ["pp", "bpcg", "e2e"])
async def test_a_warm_up_is_stored_and_not_measured(broker: RunningBroker, kind: str) -> None:
    found = await done(f"{kind} -w 50ms {TINY}", broker.address)
    produced = [actor for actor in found.actors if actor.role != "consumer"]
    assert sum(actor.figures.messages for actor in produced) == 120
    assert sum(actor.messages_total for actor in produced) == found.stored > 120


@pytest.mark.parametrize("kind", ["pc", "bcg"])
async def test_who_reads_what_is_there_warms_up_on_the_beginning_of_it(broker: RunningBroker, kind: str) -> None:
    found = await done(f"{kind} -w 50ms {TINY}", broker.address)
    assert counts(found) == {"consumer": 120}


async def test_sizes_of_a_range_are_counted_as_they_are_sent(broker: RunningBroker) -> None:
    found = await done("pp -p 1 --processes 1 -m 1..1000 -P 10 -b 20", broker.address)
    total = found.groups[0].total
    assert total.messages == 200
    assert 200 <= total.bytes <= 200_000
    assert total.bytes != 200 * 500.5


async def test_a_rate_decides_how_much_fits_into_a_duration(broker: RunningBroker) -> None:
    found = await done("pp -p 2 --processes 1 -m 100 -P 10 -r 200KB --duration 200ms", broker.address)
    assert counts(found) == {"producer": 400}


async def test_a_consumer_begins_again_until_its_time_is_over(broker: RunningBroker) -> None:
    found = await done(f"pc -c 1 -r 10KB --duration 500ms {TINY}", broker.address)
    assert found.stored == 60
    # A poll of 500 bytes is due every 50 ms, ten in all, of which the seventh finds the end.
    assert counts(found) == {"consumer": 90}


async def test_streams_are_filled_once_and_read_again(broker: RunningBroker) -> None:
    await done(f"pp -p 2 {TINY}", broker.address)
    found = await done(f"pc -c 2 --reuse-streams {TINY}", broker.address)
    assert counts(found) == {"consumer": 120}
    await done(f"bp -a 2 {TINY}", broker.address)
    for _ in range(2):
        found = await done(f"bcg -a 2 --reuse-streams {TINY}", broker.address)
        assert counts(found) == {"consumer": 120}


async def test_streams_to_reuse_have_to_be_there(broker: RunningBroker) -> None:
    async with Client(broker.url) as client:
        for stream in await client.get_streams():
            await client.delete_stream(stream.name)
    with pytest.raises(BenchError, match="no bench-stream-1"):
        await done(f"pc --reuse-streams {TINY}", broker.address)


async def test_topics_are_as_the_options_say(broker: RunningBroker) -> None:
    words = f"pp -p 1 -a 3 -e 1h --max-topic-size 2GB --enforce-fsync {TINY}"
    found = await done(words, broker.address)
    assert found.parameters["durability"] == "persisted"
    async with Client(broker.url) as client:
        details = await client.get_topic("bench-stream-1", "topic-1")
    assert details is not None
    assert len(details.partitions) == 3
    options = {option.key: option for option in details.topic.options}
    assert int.from_bytes(options["message_expiry"].value, "little") == 3_600_000_000
    assert int.from_bytes(options["max_topic_size"].value, "little") == 2_000_000_000
    assert options["durability"].value == b"persisted"


async def test_the_servers_processor_time_and_memory_are_told(broker: RunningBroker) -> None:
    found = await done(f"pp --server-stats {TINY}", broker.address)
    assert found.server is not None
    assert found.server.memory_max >= found.server.memory_own_max > 1_000_000
    assert found.server.cpu_seconds_per_million == pytest.approx(found.server.cpu_seconds / 120 * 1e6)


async def test_a_report_reads_back_as_it_was_written(broker: RunningBroker, tmp_path: Path) -> None:
    found = await done(f"ppc --server-stats -r 50KB {TINY}", broker.address)
    folder, said = write(found, tmp_path, "run")
    assert report.read(folder) == report.read(folder / report.FILE) == found
    assert said == ""
    assert {path.name for path in folder.iterdir()} == {"report.json", "report.html", "throughput.png", "latency.png"}
    assert found.schema == report.SCHEMA
    assert found.parameters["kind"] == "pinned-producer-and-consumer"
    assert found.machine.cores == os.cpu_count()
    assert found.versions.server
    assert "50 B" in found.title
    assert "0.05 MB/s" in found.title


async def test_generators_end_when_the_server_is_lost() -> None:
    params, _ = parse(["pp", "--processes", "2", "--duration", "60s"])
    plan = plan_of(params)
    async with asyncio.timeout(TIMEOUT_S), own_broker() as lost:
        async with lost.client() as client:
            await stage.prepare(client, plan, params)
        async with Crew(plan.actors, params, params.url(lost.address)) as crew:
            crew.go(times_of(params))
            while not all(crew.messages.values()):
                await crew.wait(0.05)
            await lost.close()
            with pytest.raises(BenchError, match=r"ConnectionLost|ConnectError"):
                while not await crew.wait(0.05):
                    pass


async def test_a_wrong_password_is_said_and_not_shown(broker: RunningBroker) -> None:
    with pytest.raises(PybrokerError) as error:
        await done(f"pp --password s3cret {TINY}", broker.address)
    assert "s3cret" not in str(error.value)


def test_a_scenario_does_its_runs_in_turns(
    broker: RunningBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scenario = tmp_path / "mine.toml"
    scenario.write_text(
        f"""
        rounds = 2
        [every]
        kind = "pp"
        server-address = "{broker.address}"
        processes = 1
        messages-per-batch = 10
        message-batches = 6
        [runs.one]
        producers = 1
        [runs.both]
        beside = "one"
        """
    )
    assert bench(["run", str(scenario), "-o", str(tmp_path / "out")]) == 0
    told = capsys.readouterr()
    assert [line.split(":")[0] for line in told.err.splitlines()] == ["1/2 one", "1/2 both", "2/2 one", "2/2 both"]
    folder = tmp_path / "out" / "mine"
    assert (folder / "table.txt").read_text() == told.out
    assert told.out.count("of one") == 1
    found = {path.name.partition("_")[0]: counts(report.read(path)) for path in folder.iterdir() if path.is_dir()}
    one, both = {"producer": 60}, {"producer": 120}
    assert found == {"one-1": one, "one-2": one, "both-1": both, "both-2": both}


def test_a_server_that_is_not_there_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(["pp", "--server-address", "127.0.0.1:1", "--no-output"]) == 1
    assert "pybroker bench: can't connect to 127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["pp --tls", "pp quic"])
def test_without_an_address_there_is_a_broker_of_its_own(words: str, tmp_path: Path) -> None:
    ended = run_command("bench", *words.split(), *TINY.split()[:2], *TINY.split()[3:], "-o", "out", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "producers" in ended.stdout
    (folder,) = (tmp_path / "out").iterdir()
    found = report.read(folder)
    assert found.own_server
    assert counts(found) == {"producer": 120}
    assert found.stored == 120
