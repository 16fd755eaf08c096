"""Who does what in a run: from its parameters to actors, and the processes they are in."""

from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from .params import KIND_OF, Params

TOPIC = "topic-1"
PRODUCER, CONSUMER, ECHO = "producer", "consumer", "producing consumer"


class Actor(Struct, frozen=True, kw_only=True):
    """role: PRODUCER, CONSUMER, or ECHO, which polls what it has sent.

    partition: None for the next in turn, or those of the group. batches: how many are measured; None for no such limit.
    rehearses: polls the same again and again in the warm-up. wraps: begins again at the end of the partition.
    """

    name: str
    role: str
    stream: str
    partition: int | None = None
    group: str | None = None
    batches: int | None = None
    rehearses: bool = False
    wraps: bool = False


class Plan(Struct, frozen=True):
    """fill: who sends what is to be read, before anything is measured."""

    streams: list[str]
    groups: list[str]
    fill: list[Actor]
    actors: list[Actor]


def plan_of(params: Params) -> Plan:
    kind = KIND_OF[params.kind]
    streams = [f"bench-stream-{number}" for number in range(1, (params.streams or 1) + 1)]
    groups = [f"bench-group-{number}" for number in range(1, params.consumer_groups + 1)]
    actors = _producers(params, streams) if kind.produces else []
    if kind.consumes:
        actors += _consumers(params, streams, groups)
    fill = [] if kind.produces or params.reuse_streams else _fill(params, streams)
    return Plan(streams, groups if kind.consumes and not kind.pinned else [], fill, actors)


def split(actors: Sequence[Actor], processes_max: int) -> list[list[Actor]]:
    """Spread actors over processes, one each as far as that goes."""
    count = min(len(actors), processes_max)
    return [list(actors[index::count]) for index in range(count)]


def peers_of(actors: Sequence[Actor], actor: Actor) -> int:
    """Return how many actors share a rate with this one, itself included: producers do, and consumers do."""
    return sum(other.role == actor.role for other in actors)


def _producers(params: Params, streams: list[str]) -> list[Actor]:
    kind = KIND_OF[params.kind]
    role = ECHO if kind.end_to_end else PRODUCER
    partitions = params.partitions or 1
    return [
        Actor(
            name=f"{role} {number + 1}",
            role=role,
            stream=streams[number % len(streams)],
            partition=number // len(streams) % partitions if kind.pinned else None,
            batches=params.message_batches,
        )
        for number in range(params.producers)
    ]


def _consumers(params: Params, streams: list[str], groups: list[str]) -> list[Actor]:
    kind = KIND_OF[params.kind]
    return [
        Actor(
            name=f"{CONSUMER} {number + 1}",
            role=CONSUMER,
            stream=streams[number % len(streams)],
            partition=number // len(streams) % (params.partitions or 1) if kind.pinned else None,
            group=None if kind.pinned else groups[number % len(groups)],
            rehearses=not kind.produces,
            wraps=not kind.produces and params.duration_us is not None,
        )
        for number in range(params.consumers)
    ]


def _fill(params: Params, streams: list[str]) -> list[Actor]:
    """Send each stream what its consumers are to read: a pinned one `batches`, a group as many for each consumer."""
    batches = params.message_batches or 1
    is_pinned = KIND_OF[params.kind].pinned
    readers = 1 if is_pinned else params.consumers // params.consumer_groups
    filled = _producers(replace(params, producers=len(streams) * (params.partitions or 1 if is_pinned else 1)), streams)
    return [replace(actor, name=f"fill {actor.name}", batches=batches * readers) for actor in filled]
