"""What can happen to a broker's storage, each with its weight."""

from collections.abc import Callable
from functools import partial

from pybroker.protocol.batch import read_header
from pybroker.storage.engine import LogPolicy, ReadLimit
from pybroker.storage.errors import Corrupt, Full, OffsetGone, Poisoned
from support.simdisk import FAULTS

from .catalog_actions import CATALOG_ACTIONS
from .damage import DAMAGE_ACTIONS
from .ledger import LogLedger
from .messages import Record, batch_of, records_of
from .world import World

Action = Callable[[World], None]

PAYLOAD_SIZES = (1, 40, 40, 200, 700, 3000)
BATCH_COUNT_MAX = 4


def append(world: World) -> None:
    """Append to a log, perhaps more than once at a time."""
    if (log_id := world.pick_log()) is None:
        return
    world.spawn(*(_append(world, log_id) for _ in range(world.rng.choice((1, 1, 2, 4)))))


def append_everywhere(world: World) -> None:
    world.spawn(*(_append(world, log_id) for log_id in world.open_ids()))


async def _append(world: World, log_id: int) -> None:
    ledger, log = world.ledgers[log_id], world.log_of(log_id)
    count = world.rng.randint(1, BATCH_COUNT_MAX)
    numbers = world.new_numbers(count)
    batch = batch_of(log_id, numbers, world.rng.choices(PAYLOAD_SIZES, k=count))
    ledger.send(numbers)
    before, persisted = log.bounds.next, log.policy.persisted
    with world.refusals_of(ledger):
        try:
            base = await log.append(batch)
            ledger.check_taken(base)
            # As the broker does before it acknowledges.
            if persisted and not world.life.catalog.is_durable and not await _sync_catalog(world):
                return
        except Full:
            ledger.refuse(numbers)
            if log.bounds.next < before:
                ledger.fail(f"a refused append took the end from {before} to {log.bounds.next}")
            raise
        except Poisoned:
            ledger.is_poisoned = True
            raise
        record = Record(base, read_header(batch.record).base_timestamp_us, len(batch.record), numbers)
        world.say(f"    log {log_id} has {numbers} at {base}")
        ledger.acknowledge(record, durable=persisted)
        world.tally.counts["appends acknowledged"] += 1


async def _sync_catalog(world: World) -> bool:
    try:
        await world.life.catalog.sync()
    except (Poisoned, Full):
        return False
    return True


def roll(world: World) -> None:
    """Let the next append begin a segment."""
    if (log_id := world.pick_log()) is None:
        return
    engine, before = world.life.engine, world.log_of(log_id).policy
    engine.open_log(log_id, LogPolicy(1, before.persisted))
    world.finish(_append(world, log_id))
    engine.open_log(log_id, before)


def read(world: World) -> None:
    """Read from anywhere, before and behind what there is too."""
    if (log_id := world.pick_log()) is None:
        return
    ledger, bounds = world.ledgers[log_id], world.log_of(log_id).bounds
    places = [bounds.first - 1, bounds.first, bounds.next - 1, bounds.next, bounds.next + 1, *ledger.held]
    limit = ReadLimit(world.rng.choice((1, 2, 5, 100)), world.rng.choice((1, 500, 3000, 1 << 20)))
    world.finish(_read(world, ledger, max(world.rng.choice(places), 0), limit))


async def _read(world: World, ledger: LogLedger, offset: int, limit: ReadLimit) -> None:
    log = world.log_of(ledger.log_id)
    due = ledger.due(offset)
    world.tally.counts["reads"] += 1
    try:
        records = records_of(ledger.log_id, await log.read(offset, limit))
    except OffsetGone:
        if not offset < log.bounds.first or not ledger.can_start_at(log.bounds.first):
            ledger.fail(f"offset {offset} is said to be gone, {log.bounds} and {ledger.first} are there")
    except Corrupt as error:
        ledger.check_refusal(offset, error)
    else:
        ledger.check_read(offset, limit, due, records)


def search(world: World) -> None:
    if (log_id := world.pick_log()) is None or world.ledgers[log_id].damages or world.ledgers[log_id].shaken:
        return
    world.settle()
    ledger = world.ledgers[log_id]
    times = [world.clock(), *ledger.times.values()]
    timestamp = world.rng.choice(times) + world.rng.randint(-1, 1)
    try:
        found = world.finish(world.log_of(log_id).offset_at(timestamp))
    except Corrupt:
        if not ledger.shaken:
            raise
    else:
        ledger.check_time(timestamp, found)


def trim(world: World) -> None:
    if (log_id := world.pick_log()) is None:
        return
    ledger, log = world.ledgers[log_id], world.log_of(log_id)
    cuts = log.cuts()
    before = world.rng.choice(cuts) + world.rng.randint(-1, 1)
    ledger.trim(before)  # at most: it may wait before it looks which segments there are
    world.say(f"    log {log_id} before {before}, {cuts}")
    world.spawn(_trim(world, ledger, before))


async def _trim(world: World, ledger: LogLedger, before: int) -> None:
    log = world.log_of(ledger.log_id)
    with world.refusals_of(ledger):
        await log.trim(before)


def flush(world: World) -> None:
    if (log_id := world.pick_log()) is not None:
        world.spawn(_flush(world, world.ledgers[log_id]))


async def _flush(world: World, ledger: LogLedger) -> None:
    log = world.log_of(ledger.log_id)
    end = max(ledger.held, default=-1) + 1
    with world.refusals_of(ledger):
        await log.flush()
        ledger.make_durable(end)


def sync_all(world: World) -> None:
    """Do what the background pass does; everything written before it is durable where nothing failed."""
    world.settle()
    ends = {log_id: max(world.ledgers[log_id].held, default=-1) + 1 for log_id in world.open_ids()}
    counts = [(history, history.count) for history in (world.catalog_history, world.table_history)]
    world.finish(world.life.engine.syncer.sync_dirty())
    for log_id, end in ends.items():
        if world.log_of(log_id)._group.cause is None:
            world.ledgers[log_id].make_durable(end)
    journals = (world.life.engine.journal, world.life.engine.offsets._journal)
    for (history, count), journal in zip(counts, journals, strict=True):
        if journal._group.cause is None:
            history.make_durable(count)


def run_jobs(world: World) -> None:
    for _ in range(world.rng.randint(1, 5)):
        world.step()
        world.turn()


def settle(world: World) -> None:
    world.settle()


def move_clock(world: World) -> None:
    world.clock.now_us += world.rng.choice((-5, 1, 1, 1000))


def arm(world: World) -> None:
    fault = world.rng.choice(FAULTS)
    world.say(f"    {fault} is due")
    world.disk.arm(fault)


def fill_disk(world: World) -> None:
    world.disk.room = world.rng.choice((0, 100, 1000, 5000))


def give_room(world: World) -> None:
    world.disk.room = None


def die_soon(world: World) -> None:
    """Let the process die within what comes next."""
    world.disk.die_in(world.rng.randint(0, 25))


def crash(world: World, *, power: bool) -> None:
    world.crash(power=power)
    world.start()


def reopen(world: World) -> None:
    """Stop cleanly, perhaps with work under way, and start again, perhaps after a power failure."""
    if world.rng.random() < 0.5:
        world.settle()
    world.close()
    if world.rng.random() < 0.3:
        world.lose_power()
    world.start()


ACTIONS: dict[str, tuple[int, Action]] = {
    "append": (30, append),
    "append everywhere": (6, append_everywhere),
    "roll": (3, roll),
    "read": (15, read),
    "search": (3, search),
    "trim": (5, trim),
    "flush": (5, flush),
    "sync all": (4, sync_all),
    "run jobs": (12, run_jobs),
    "settle": (5, settle),
    "move the clock": (6, move_clock),
    "arm a fault": (4, arm),
    "fill the disk": (1, fill_disk),
    "give room": (3, give_room),
    "die soon": (2, die_soon),
    "kill": (2, partial(crash, power=False)),
    "power failure": (2, partial(crash, power=True)),
    "reopen": (2, reopen),
    **CATALOG_ACTIONS,
    **DAMAGE_ACTIONS,
}
