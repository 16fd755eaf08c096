"""The command line of `pybroker bench KIND`."""

from pathlib import Path

import pytest
from msgspec import to_builtins
from pybroker.benchmarks.harness.options import OUTPUT, parse, without_secrets
from pybroker.benchmarks.harness.params import KINDS, Range

SECOND_US = 1_000_000


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.alias)
def test_a_kind_has_a_short_name_and_a_long_one(kind: object) -> None:
    names = to_builtins(kind)
    assert parse([names["alias"]]) == parse([names["name"]])
    assert parse([names["alias"]])[0].kind == names["name"]


def test_options_are_read_in_their_units() -> None:
    words = "ppc -m 200..500 -P 10 -b 7 -r 50MB -w 2s -t 10ms -p 3 -c 4 -a 2 -s 3 --duration 5s -e 1h ws --tls"
    params, output = parse([*words.split(), "--max-topic-size", "1 GB", "-o", "there"])
    assert params.message_size == Range(200, 500)
    assert (params.messages_per_batch, params.message_batches) == (10, 7)
    assert params.rate_limit == 50_000_000
    assert (params.warmup_us, params.sampling_us, params.duration_us) == (2 * SECOND_US, 10_000, 5 * SECOND_US)
    assert (params.producers, params.consumers, params.partitions, params.streams) == (3, 4, 2, 3)
    assert params.message_expiry_us == 3600 * SECOND_US
    assert params.max_topic_size == 1_000_000_000
    assert (params.transport, params.tls) == ("websocket", True)
    assert output.folder == Path("there")


def test_without_options_a_run_is_small_and_lands_in_the_usual_folder() -> None:
    params, output = parse(["pp"])
    assert output.folder == OUTPUT
    assert (params.producers, params.streams, params.partitions) == (2, 2, 1)
    assert (params.message_batches or 0) * params.batch_bytes * params.producers == 500_000_000


def test_files_can_be_left_out() -> None:
    assert parse(["pp", "--no-output"])[1].folder is None


@pytest.mark.parametrize(
    ("words", "batches"),
    [
        ("pp -p 4 -T 400MB", 100),
        ("pc -c 2 -T 400MB", 200),
        ("pp -T 1B", 1),
        ("pp --duration 3s", None),
        ("pc --duration 3s", 250),
        ("pp -p 4 -m 50..150 -T 400MB", 1000),
    ],
)
def test_the_volume_is_shared_by_the_actors(words: str, batches: int | None) -> None:
    assert parse(words.split())[0].message_batches == batches


@pytest.mark.parametrize(("words", "interval_ms"), [("pp -r 10MB -p 4", 400), ("pp -r 1MB -P 1 -m 100", 0.2)])
def test_a_rate_is_that_of_all_producers(words: str, interval_ms: float) -> None:
    params, _ = parse(words.split())
    assert params.interval_ns(params.producers) == interval_ms * 1e6


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("", "KIND"),
        ("xx", "invalid choice"),
        ("pp http", "invalid choice"),
        ("pp -m 0", "expected bytes, or a range"),
        ("pp -m 500..200", "expected bytes, or a range"),
        ("pp -P 0", "at least 1"),
        ("pp -b 5 -T 5MB", "not allowed with"),
        ("pp --duration 0", "expected a duration"),
        ("pp -r none", "expected a size"),
        ("bcg --duration 5s", "give a volume"),
        ("e2e -H", "end-to-end"),
        ("pc -H -w 1s", "leave --warmup-time"),
        ("bcg -c 5 -a 4", "--partitions"),
        ("bcg -c 1 -g 2", "--consumer-groups"),
        ("ppc -s 3", "--streams"),
        ("pp quic --tls", "quic always has it"),
        ("pp --tls-domain here", "need --tls"),
        ("pc --in-flight 4", "no producers"),
        ("pp --cores apart --server-address 127.0.0.1:1", "--cores apart"),
    ],
)
def test_what_makes_no_sense_is_refused(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse(words.split())
    assert exit_.value.code == 2
    assert said in capsys.readouterr().err


def test_secrets_are_for_the_server_only() -> None:
    params, _ = parse(["pp", "-u", "bob", "--password", "s/cret"])
    assert "bob:s%2Fcret@host:1" in params.url("host:1")
    assert not {"username", "password"} & params.shown().keys()
    assert "cret" not in str(params.shown())


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("pp --password s3cret -b 5", "pp --password *** -b 5"),
        ("pp --password=s3cret", "pp --password=***"),
        ("pp --password --password -b 5", "pp --password *** -b 5"),
        ("pp -p 4", "pp -p 4"),
    ],
)
def test_a_command_line_is_shown_without_secrets(words: str, shown: str) -> None:
    assert without_secrets(words.split()) == shown.split()


def test_a_secret_has_no_other_name(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["pp", "--passw", "s3cret"])
    assert "unrecognized arguments: --passw" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "url"),
    [
        ("pp", "iggy+tcp://iggy:iggy@h:1?tls=false"),
        ("pp quic", "iggy+quic://iggy:iggy@h:1?tls=false"),
        ("pp websocket --tls --tls-domain d", "iggy+ws://iggy:iggy@h:1?tls=true&tls_domain=d"),
        (
            "pp --tls --tls-ca-file /a/b --tls-validate-certificate false",
            "iggy+tcp://iggy:iggy@h:1?tls=true&tls_validate_certificate=false&tls_ca_file=%2Fa%2Fb",
        ),
    ],
)
def test_the_url_says_the_transport(words: str, url: str) -> None:
    assert parse(words.split())[0].url("h:1") == url


def test_a_runs_name_tells_it_from_others() -> None:
    assert parse(["pp", "--remark", "mine"])[0].name == "pinned-producer_2_1000_1000_250_tcp_mine"
    assert parse(["bpcg", "ws", "--tls", "--duration", "90s"])[0].name == (
        "balanced-producer-and-consumer-group_4_1000_1000_90s_websocket+tls"
    )
