"""What is made of results: figures, tables, pages, comparisons and scenarios."""

import re
import sys
from pathlib import Path

import msgspec
import pytest
from pybroker.benchmarks import wire
from pybroker.benchmarks.harness import files, page, tables
from pybroker.benchmarks.harness.cli import bench
from pybroker.benchmarks.harness.options import parse
from pybroker.benchmarks.harness.pictures import percentiles
from pybroker.benchmarks.harness.plan import plan_of
from pybroker.benchmarks.harness.report import (
    FILE,
    SCHEMA,
    Machine,
    Report,
    Versions,
    actors_of,
    figures_of,
    groups_of,
    write,
)
from pybroker.benchmarks.harness.scenarios import BadScenario, arguments_of, read
from pybroker.benchmarks.harness.schedule import Times
from pybroker.benchmarks.harness.tally import Result, Tally
from pybroker.benchmarks.harness.watch import ServerStats

MS = 1_000_000
SCENARIOS = Path(__file__).parents[2] / "benchmarks" / "scenarios"


def result(name: str, *, latency_ms: float, requests: int = 10, interval_ms: float = 100) -> Result:
    """Return what an actor did that ended a request of 10 messages of 100 bytes at each interval."""
    tally = Tally(name, 100 * MS)
    tally.begin(Times(0, 0))
    for number in range(1, requests + 1):
        ended_ns = round(number * interval_ms * MS)
        tally.add(ended_ns - round(latency_ms * MS), ended_ns, 10, 1000)
    return tally.result()


def report(latency_ms: float = 4.0, *, interval_ms: float = 100, words: str = "pp -p 2", cpu: float = 1.0) -> Report:
    params, _ = parse(words.split())
    actors = plan_of(params).actors
    results = [result(actor.name, latency_ms=latency_ms, interval_ms=interval_ms) for actor in actors]
    return Report(
        schema=SCHEMA,
        started_at="2026-01-02T03:04:05+00:00",
        command=["pybroker", "bench", *words.split()],
        parameters=params.shown(),
        own_server=True,
        machine=Machine("<processor>", 2, 8_000_000_000, "Linux"),
        versions=Versions("0.1.0", "3.11.7", "0.9.0", "abc"),
        stored=200,
        groups=groups_of(actors, results, params),
        actors=actors_of(actors, results),
        server=ServerStats(0.1, cpu, 90_000_000, 50_000_000),
    )


def test_figures_of_actors_add_up_over_the_longest_of_them() -> None:
    figures = figures_of([result("producer 1", latency_ms=2), result("producer 2", latency_ms=6, interval_ms=50)])
    assert (figures.messages, figures.bytes, figures.requests, figures.seconds) == (200, 20_000, 20, 1.0)
    assert figures.messages_per_second == 200
    assert figures.megabytes_per_second == 0.02
    latency = figures.latency_ms
    assert (latency.min, latency.max, latency.mean, latency.deviation) == (2, 6, 4, 2)
    assert latency.p50 == pytest.approx(2, rel=1 / 128)
    assert latency.p90 == pytest.approx(6, rel=1 / 128)


def test_figures_of_nothing_are_zero() -> None:
    figures = figures_of([Tally("producer 1", MS).result()])
    assert figures.messages_per_second == figures.latency_ms.max == figures.latency_ms.min == 0


def test_a_series_adds_up_the_actors_by_interval() -> None:
    (group,) = report().groups
    assert group.series.interval_s == 0.1
    assert group.series.messages_per_second == [0, *[200.0] * 10]
    assert group.series.latency_ms == [0, *[4.0] * 10]


def test_percentiles_begin_with_the_fastest_request() -> None:
    (group,) = report(words="pp -p 1").groups
    ((share, ms),) = percentiles(group)
    assert (share, ms) == (0.0, pytest.approx(4.0, rel=1 / 128))


def test_a_summary_has_a_line_for_each_role_and_actor() -> None:
    lines = tables.summary(report(words="ppc -p 2 -c 1 -s 1")).splitlines()
    assert lines[0] == "pinned-producer-and-consumer: 1000 x 1000 B, tcp, replicated"
    names = [re.split(r"  +", line.strip())[0] for line in lines[3:7]]
    assert names == ["producers", "producer 1", "producer 2", "consumers"]
    assert "200" in lines[3]
    assert "1.00 s of processor time a million messages, 50 MB of memory, 90 MB with mapped files" in lines[-1]


def test_a_comparison_says_ratios_and_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reports = {"a": report(4.0), "b": report(8.0, interval_ms=50, words="pp -p 2 --tls", cpu=0.5)}
    for name, each in reports.items():
        (tmp_path / name).mkdir()
        write(each, tmp_path / name)
    assert bench(["compare", str(tmp_path / "a"), str(tmp_path / "b" / FILE)]) == 0
    text = capsys.readouterr().out
    rows = {re.split(r"  +", line)[0]: line.split()[-1] for line in text.splitlines() if line}
    assert rows["producer: messages/s"] == "2.00"
    assert rows["producer: p50 ms"] == "2.00"
    assert rows["server: CPU s/million"] == "0.50"
    assert "tls: False | True" in text
    assert "differs" not in text


def test_a_report_that_is_none_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / FILE).write_text('{"schema": 1}')
    assert bench(["compare", str(tmp_path), str(tmp_path)]) == 1
    assert bench(["compare", str(tmp_path / "none"), str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("pybroker bench: ") == 2


def test_a_page_needs_nothing_else_and_escapes_what_it_shows(tmp_path: Path) -> None:
    found = report()
    folder, _ = files.write(found, tmp_path, "run")
    text = (folder / page.FILE).read_text()
    assert text.count("data:image/png;base64,") == 2
    assert not re.search(r"(src|href)=\"?(?!\"?data:)", text)
    assert "&lt;processor&gt;" in text
    assert "<processor>" not in text


def test_without_matplotlib_there_are_no_pictures_and_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    folder, said = files.write(report(), tmp_path, "run")
    assert said == files.NO_PICTURES
    assert {path.name for path in folder.iterdir()} == {"report.json", "report.html"}
    assert "<img" not in (folder / page.FILE).read_text()


def test_a_scenarios_table_has_ratios_to_the_run_beside() -> None:
    rounds = {
        "slow": [report(interval_ms=ms) for ms in (100, 200, 50)],
        "fast": [report(interval_ms=ms) for ms in (40, 100, 10)],
    }
    lines = tables.scenario(rounds, {"fast": "slow"}).splitlines()
    assert lines[1].split()[:3] == ["slow", "producer", "200"]
    assert lines[2].split()[:3] == ["fast", "producer", "500"]
    assert lines[2].split()[-3:] == ["2.50", "of", "slow"]


def test_a_scenarios_table_has_the_ratios_to_the_floor() -> None:
    row = wire.Row("send 1 x 100 B", (0.6, 0.9), (6000.0, 9000.0), (6000.0, 9000.0), (70.0, 23.0), 0.66, 2 / 3)
    start = wire.Start(0.4, 50_000_000)
    small = wire.Row("send 1000 x 100 B", (60.0, 90.0), (6e5, 9e5), (600.0, 900.0), (0.3, 0.1), 0.66, 0)
    floor = wire.Report("apart", [small, row], start, start, 80_000_000, (0.02e-6, 0.2e-6), {"send 1 x 100 B": 0.5})
    line = tables.scenario({"one": [report()]}, {}, floor).splitlines()[-1]
    assert re.sub(" +", " ", line) == "send 1 x 100 B wire 6,000 0.60 70.00 0.66 of the floor (wanted: 0.67)"
    assert "0.40 s later" in wire.notes(floor)
    assert "0.30 us of processor time to take a message; verifying it alone takes 0.02 us" in wire.notes(floor)
    assert "in Python 0.20 us (1.5 times that)" in wire.notes(floor)
    assert re.search("beside pings +send 1 x 100 B 0.50\n", wire.notes(floor))


def test_a_runs_folder_has_a_name_that_is_fit_for_one(tmp_path: Path) -> None:
    folder, _ = files.write(report(), tmp_path, "1 x 100 B, a/b")
    assert folder == tmp_path / "1-x-100-B-a-b_20260102T030405Z"


@pytest.mark.parametrize("path", sorted(SCENARIOS.glob("*.toml")), ids=lambda path: path.stem)
def test_the_scenarios_that_we_quote_can_be_run(path: Path) -> None:
    scenario = read(path)
    assert scenario.about
    assert scenario.runs


def test_options_of_a_scenario_are_words_of_a_command_line() -> None:
    options = {"tls": True, "kind": "pp", "reuse-streams": False, "message-size": "1..5", "transport": "ws"}
    assert arguments_of(options) == ["pp", "ws", "--tls", "--message-size=1..5"]


def test_runs_of_a_scenario_share_what_is_said_of_every(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(
        '[every]\nkind="pp"\nproducers=3\n[runs.one]\n[runs.two]\nproducers=4\nbeside="one"\n[floor]\nrounds=2'
    )
    scenario = read(path)
    assert [(run.name, run.params.producers, run.beside) for run in scenario.runs] == [
        ("one", 3, None),
        ("two", 4, "one"),
    ]
    assert scenario.floor is not None
    assert scenario.floor.rounds == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("runs = 1", "Expected `object`"),
        ("[runs", "Expected"),
        ("[runs]", "no runs"),
        ('[runs.one]\nkind = "pp"\nbeside = "two"', "no run before it"),
        ("[runs.one]\nproducers = 1", "has no kind"),
        ('[runs.one]\nkind = "pp"\n[other]', "unknown field"),
    ],
)
def test_a_bad_scenario_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(BadScenario, match=said):
        read(path)


def test_a_scenario_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bench(["run", str(tmp_path / "none.toml")]) == 1
    assert "none.toml" in capsys.readouterr().err


def test_the_schema_is_a_schema() -> None:
    schema = msgspec.json.schema(Report)
    assert {"schema", "parameters", "machine", "versions", "groups", "actors"} <= {
        *schema["$defs"]["Report"]["required"]
    }
