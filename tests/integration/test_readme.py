"""The README's own programs run as printed."""

from pathlib import Path

from support.programs import programs, run
from support.server import Server

README = Path(__file__).parents[2] / "README.md"


def test_first_producer_and_consumer_run_as_printed(tmp_path: Path) -> None:
    producer, consumer, *_ = programs(README)
    with Server(tmp_path / "data") as server:
        assert run(producer, server) == "sent 10 tasks\n"
        lines = run(consumer, server).splitlines()
    assert sorted(line.rpartition(": ")[2] for line in lines) == [f"task {number}" for number in range(10)]
    assert {line.split()[1] for line in lines} == {"0", "1"}


def test_program_with_our_own_client_runs_as_printed(tmp_path: Path) -> None:
    (program,) = (each for each in programs(README) if "asyncio.run" in each and "pybroker.client" in each)
    with Server(tmp_path / "data") as server:
        assert run(program, server).splitlines() == ["stored in partition 0 at offset 0", "remember the milk"]
