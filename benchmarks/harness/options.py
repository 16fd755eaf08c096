"""The options of `pybroker bench KIND`, as iggy-bench names them."""

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from ...broker.units import parse_duration_us, parse_size, parse_topic_size
from .params import APART, FREE, KIND_OF, KINDS, QUIC, TCP, WEBSOCKET, Kind, Params, Range

BATCHES = 250
PARTITIONS = 4
TRANSPORTS = {TCP: TCP, QUIC: QUIC, WEBSOCKET: WEBSOCKET, "ws": WEBSOCKET}
OUTPUT = Path("performance_results")
CORES = sorted(os.sched_getaffinity(0))
PROCESSES_MAX = max(4, len(CORES))
T = TypeVar("T")

_PASSWORD, _HIDDEN = "--password", "***"

_DESCRIPTION = """Load a broker, and say how fast it was.

Without --server-address it starts a broker of its own on a temporary directory. Load generators are processes of
their own. Options are iggy-bench's but all in one place, and the defaults are for a Python server: 2 producers and
2 consumers of 250 batches of 1000 messages of 1000 bytes, 0.25 GB each, where iggy-bench has 8 of 1 GB each. It
deletes and makes anew the streams that it uses, bench-stream-1 and so on."""


class Output(Struct, frozen=True):
    """folder: where a run's folder is made; None for no files."""

    folder: Path | None


def parse(arguments: list[str]) -> tuple[Params, Output]:
    """Read the command line. Exits with status 2 and a line that says why, for what makes no sense."""
    parser = _parser()
    given: dict[str, Any] = {"processes": PROCESSES_MAX} | vars(parser.parse_intermixed_args(arguments))
    folder = given.pop("output_dir", OUTPUT)
    output = Output(None if given.pop("no_output") else folder)
    kind = KIND_OF[given.pop("kind")]
    given["transport"] = TRANSPORTS[given["transport"]]
    params = _with_defaults(Params(kind=kind.name, **given), kind)
    if wrong := _wrong(params, kind):
        parser.error(wrong)
    return params, output


def without_secrets(arguments: list[str]) -> list[str]:
    """Return a command line as others may see it."""
    shown: list[str] = []
    for word in arguments:
        name, equals, _ = word.partition("=")
        if shown and shown[-1] == _PASSWORD:
            shown.append(_HIDDEN)
        else:
            shown.append(f"{name}={_HIDDEN}" if name == _PASSWORD and equals else word)
    return shown


def _with_defaults(params: Params, kind: Kind) -> Params:
    actors = params.producers if kind.produces else params.consumers
    batches = params.message_batches
    if params.total_data is not None:
        batches = max(1, round(params.total_data / params.batch_bytes / actors))
    elif batches is None and (params.duration_us is None or not kind.produces):
        batches = BATCHES
    return replace(
        params,
        streams=params.streams or actors if kind.pinned else 1,
        partitions=params.partitions or (1 if kind.pinned else PARTITIONS),
        message_batches=batches,
    )


def _wrong(params: Params, kind: Kind) -> str | None:
    """Say what makes no sense about a run."""
    is_filled, is_group = not kind.produces, kind.consumes and not kind.pinned
    has_trust = bool(params.tls_domain or params.tls_ca_file or not params.tls_validate_certificate)
    members = -(-params.consumers // params.consumer_groups)
    checks = (
        (
            is_filled and is_group and params.duration_us,
            "--duration: a group reads what was filled before only once, give a volume",
        ),
        (params.high_level_api and kind.end_to_end, f"--high-level-api knows no {kind.name}"),
        (
            params.high_level_api and is_filled and (params.warmup_us or params.duration_us),
            "--high-level-api reads what was filled before only once: leave --warmup-time and --duration out",
        ),
        (
            is_group and members > (params.partitions or 0),
            "--partitions: fewer than a group has members, so some would have nothing to do",
        ),
        (is_group and params.consumers < params.consumer_groups, "--consumer-groups: more than there are consumers"),
        (
            kind.produces and kind.consumes and (params.streams or 0) > params.producers,
            "--streams: more than there are producers to fill them",
        ),
        (params.tls and params.transport == QUIC, "--tls: quic always has it"),
        (
            has_trust and not params.tls and params.transport != QUIC,
            "--tls-domain, --tls-ca-file and --tls-validate-certificate need --tls",
        ),
        (params.in_flight > 1 and (not kind.produces or kind.end_to_end), f"--in-flight: {kind.name} has no producers"),
        (
            params.cores == APART and (params.server_address is not None or len(CORES) < 2),
            "--cores apart needs two cores and a server of our own",
        ),
    )
    return next((what for is_so, what in checks if is_so), None)


def _parser() -> argparse.ArgumentParser:
    kinds = "\n".join(f"  {kind.alias:5} {kind.name:38} {kind.what}" for kind in KINDS)
    parser = argparse.ArgumentParser(
        "pybroker bench",
        description=f"{_DESCRIPTION}\n\nkinds:\n{kinds}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
        allow_abbrev=False,  # so that secrets have one name
        epilog="Others: pybroker bench compare A B; pybroker bench run SCENARIO...",
    )
    parser.add_argument("kind", metavar="KIND", choices=KIND_OF, help="see above, short or long")
    parser.add_argument(
        "transport", metavar="TRANSPORT", nargs="?", choices=TRANSPORTS, default=TCP, help="tcp, quic, websocket (tcp)"
    )
    for add in (_add_load, _add_actors, _add_server, _add_output):
        add(parser)
    return parser


def _add_load(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("load")
    group.add_argument(
        "-m", "--message-size", type=_read(_range), metavar="SIZE", help="bytes, or a range such as 200..500 (1000)"
    )
    group.add_argument("-P", "--messages-per-batch", type=_read(_count), metavar="N", help="(1000)")
    volume = group.add_mutually_exclusive_group()
    volume.add_argument(
        "-b", "--message-batches", type=_read(_count), metavar="N", help=f"batches of each actor ({BATCHES})"
    )
    volume.add_argument(
        "-T", "--total-data", type=_read(_size), metavar="SIZE", help="of all producers, or all consumers: 500MB"
    )
    group.add_argument(
        "--duration", dest="duration_us", type=_read(_duration), metavar="TIME", help="produce so long at most: 10s"
    )
    group.add_argument(
        "-r",
        "--rate-limit",
        type=_read(_size),
        metavar="SIZE",
        help="payload a second, of all producers and of all consumers: 50MB. Batches are sent when they are due, and "
        "latencies count from when they were due",
    )
    group.add_argument(
        "-w", "--warmup-time", dest="warmup_us", type=_read(parse_duration_us), metavar="TIME", help="not measured (0)"
    )
    group.add_argument(
        "-t",
        "--sampling-time",
        dest="sampling_us",
        type=_read(_duration),
        metavar="TIME",
        help="of the series over time (100ms)",
    )
    group.add_argument(
        "--in-flight", type=_read(_count), metavar="N", help="requests of a producer on their way at once (1)"
    )
    group.add_argument(
        "-H", "--high-level-api", action="store_true", help="Producer and Consumer in place of prebuilt batches"
    )


def _add_actors(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("actors")
    group.add_argument("-p", "--producers", type=_read(_count), metavar="N", help="(2)")
    group.add_argument("-c", "--consumers", type=_read(_count), metavar="N", help="of all groups together (2)")
    group.add_argument("-g", "--consumer-groups", type=_read(_count), metavar="N", help="(1)")
    group.add_argument("-s", "--streams", type=_read(_count), metavar="N", help="of pinned kinds (one each)")
    group.add_argument(
        "-a", "--partitions", type=_read(_count), metavar="N", help=f"of a topic (balanced: {PARTITIONS}; pinned: 1)"
    )
    group.add_argument(
        "--processes", type=_read(_count), metavar="N", help=f"that actors are spread over, at most ({PROCESSES_MAX})"
    )
    group.add_argument("--durability", choices=("replicated", "persisted"), help="when a send is answered (replicated)")
    group.add_argument(
        "--enforce-fsync", dest="durability", action="store_const", const="persisted", help="--durability persisted"
    )
    group.add_argument("--max-topic-size", type=_read(parse_topic_size), metavar="SIZE", help="of the topics")
    group.add_argument(
        "-e", "--message-expiry", dest="message_expiry_us", type=_read(_duration), metavar="TIME", help="of the topics"
    )
    group.add_argument("--reuse-streams", action="store_true", help="use what there is, and fill nothing")


def _add_server(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("server")
    group.add_argument("--server-address", metavar="HOST:PORT", help="a server that runs (one of our own)")
    group.add_argument("-u", "--username", metavar="NAME", help="(iggy)")
    group.add_argument(_PASSWORD, metavar="WORD", help="(iggy)")
    group.add_argument("--tls", action="store_true", help="encrypt")
    group.add_argument("--tls-domain", metavar="NAME", help="whom the certificate names (the host)")
    group.add_argument("--tls-ca-file", metavar="FILE", help="whom to trust (the system's)")
    group.add_argument("--tls-validate-certificate", type=_read(_flag), metavar="true|false", help="(true)")
    group.add_argument(
        "--cores", choices=(FREE, APART), help="apart: our own server has one, generators the others (free)"
    )
    group.add_argument(
        "--server-stats", action="store_true", help="tell the server's processor time and memory; on this machine only"
    )


def _add_output(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument("-o", "--output-dir", type=Path, metavar="DIR", help=f"where a folder is made ({OUTPUT})")
    group.add_argument("--no-output", action="store_true", default=False, help="write no files")
    group.add_argument("--remark", metavar="WORD", help="a word for the folder's name and the report")


def _read(read: Callable[[str], T]) -> Callable[[str], T]:
    """Have argparse say what is expected."""

    def convert(text: str) -> T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None

    return convert


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise ValueError("expected a whole number of at least 1")
    return int(text)


def _size(text: str) -> int:
    if not (size := parse_size(text)):
        raise ValueError("expected a size such as 500MB")
    return size


def _duration(text: str) -> int:
    if not (duration_us := parse_duration_us(text)):
        raise ValueError("expected a duration such as 10s")
    return duration_us


def _range(text: str) -> Range:
    least, _, most = text.partition("..")
    sizes = Range(parse_size(least), parse_size(most or least))
    if not 0 < sizes.least <= sizes.most:
        raise ValueError("expected bytes, or a range such as 200..500")
    return sizes


def _flag(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("expected true or false")
    return text == "true"
