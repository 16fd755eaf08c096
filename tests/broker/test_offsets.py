"""The table of consumer offsets: whose they are, and what goes with a log or a group."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pybroker.broker.offsets import Offsets, consumer_id
from pybroker.protocol.primitives import ConsumerKind
from pybroker.storage.memory import MemoryTable

SINGLE, GROUP = ConsumerKind.SINGLE, ConsumerKind.GROUP
Key = tuple[int, ConsumerKind, int]
KEYS = st.tuples(st.integers(0, 2), st.sampled_from(ConsumerKind), st.integers(0, 2))


class CountingTable(MemoryTable):
    syncs = 0

    async def sync(self) -> None:
        self.syncs += 1


async def filled(*keys: Key) -> Offsets:
    offsets = Offsets(MemoryTable())
    for number, (log_id, kind, consumer) in enumerate(keys):
        offsets.store(log_id, kind, consumer, number)
    return offsets


def kept(offsets: Offsets, *keys: Key) -> list[int | None]:
    return [offsets.get(*key) for key in keys]


# XXH32 with seed 0, from its published test vectors: "a" and "abc"
@pytest.mark.parametrize(
    ("identifier", "number"), [(0, 0), (2**32 - 1, 2**32 - 1), ("a", 0x550D7456), ("abc", 0x32D153FF)]
)
def test_consumers_are_kept_under_their_number_or_their_names_hash(identifier: int | str, number: int) -> None:
    assert consumer_id(identifier) == number


@given(entries=st.dictionaries(KEYS, st.integers(0, 2**64 - 1)))
async def test_each_consumer_has_its_own_offset_in_each_log(entries: dict[Key, int]) -> None:
    offsets = Offsets(MemoryTable())
    for (log_id, kind, consumer), value in entries.items():
        offsets.store(log_id, kind, consumer, value)
    for log_id in range(3):
        for kind in ConsumerKind:
            for consumer in range(3):
                assert offsets.get(log_id, kind, consumer) == entries.get((log_id, kind, consumer))


@given(keys=st.sets(KEYS), log_ids=st.sets(st.integers(0, 2)), group_id=st.integers(0, 2))
async def test_drops_take_what_they_name_and_nothing_else(keys: set[Key], log_ids: set[int], group_id: int) -> None:
    offsets = await filled(*keys)
    offsets.drop_group(log_ids, group_id)
    left = {key for key in keys if not (key[0] in log_ids and key[1:] == (GROUP, group_id))}
    assert {key for key in keys if offsets.get(*key) is not None} == left
    offsets.drop_logs(log_ids)
    assert {key for key in keys if offsets.get(*key) is not None} == {key for key in left if key[0] not in log_ids}


async def test_offset_goes_back_and_forth_as_asked() -> None:
    offsets = Offsets(MemoryTable())
    for value in (5, 0, 9):
        offsets.store(1, SINGLE, 1, value)
        assert offsets.get(1, SINGLE, 1) == value


async def test_deleted_offset_is_gone_once() -> None:
    offsets = await filled((1, SINGLE, 1))
    assert offsets.delete(1, SINGLE, 1)
    assert not offsets.delete(1, SINGLE, 1)
    assert offsets.get(1, SINGLE, 1) is None


async def test_offsets_wait_for_the_disk_where_they_are_told_to() -> None:
    table = CountingTable()
    offsets = Offsets(table)
    offsets.store(1, SINGLE, 1, 0)
    assert offsets.delete(1, SINGLE, 1)
    assert table.syncs == 0
    await offsets.sync()
    assert table.syncs == 1


async def test_slowest_is_the_smallest_offset_of_any_consumer_of_that_log() -> None:
    offsets = Offsets(MemoryTable())
    for log_id, kind, value in ((1, SINGLE, 7), (1, GROUP, 4), (2, SINGLE, 1)):
        offsets.store(log_id, kind, 0, value)
    assert [offsets.slowest(log_id) for log_id in (1, 2, 3)] == [4, 1, None]


async def test_start_forgets_offsets_of_logs_and_groups_that_are_gone() -> None:
    keys = [(1, SINGLE, 0), (1, GROUP, 0), (1, GROUP, 9), (2, SINGLE, 0), (2, GROUP, 0)]
    offsets = await filled(*keys)
    offsets.keep_only({1: {0}})
    assert kept(offsets, *keys) == [0, 1, None, None, None]


async def test_group_and_consumer_of_one_number_are_two() -> None:
    offsets = await filled((1, SINGLE, 3), (1, GROUP, 3))
    assert kept(offsets, (1, SINGLE, 3), (1, GROUP, 3)) == [0, 1]
