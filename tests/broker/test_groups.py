"""Which member reads which partitions, and how that changes."""

from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from pybroker.broker.groups import GroupKey, Groups, Member, assign, claim

KEY = GroupKey(0, 0, 0)
TIMEOUT_US = 30_000_000

ASSIGNMENTS: list[tuple[int, int, list[list[int]]]] = [
    (0, 0, []),
    (3, 0, []),
    (0, 2, [[], []]),
    (1, 1, [[0]]),
    (3, 1, [[0, 1, 2]]),
    (4, 2, [[0, 2], [1, 3]]),
    (5, 2, [[0, 2, 4], [1, 3]]),
    (3, 2, [[0, 2], [1]]),
    (2, 4, [[0], [1], [], []]),
]
# What members have, of how many, and what a newcomer takes.
CLAIMS: list[tuple[list[list[int]], int, set[int]]] = [
    ([], 0, set()),
    ([], 3, {0, 1, 2}),
    ([[0]], 1, set()),
    ([[0, 1, 2]], 3, {2}),
    ([[0, 1, 2, 3]], 4, {2, 3}),
    ([[0, 2], [1, 3]], 4, {3}),
    ([[0, 2, 4], [1, 3, 5]], 6, {4, 5}),
    ([[0], [1]], 2, set()),
    ([[0], []], 1, set()),
    ([[]], 0, set()),
    ([[0, 1]], 4, {2, 3}),
]


@pytest.mark.parametrize(("partitions", "members", "shares"), ASSIGNMENTS)
def test_partitions_are_dealt_in_turn(partitions: int, members: int, shares: list[list[int]]) -> None:
    assert assign(partitions, members) == shares


@given(partitions=st.integers(0, 200), members=st.integers(1, 50))
def test_every_partition_has_one_owner_and_shares_differ_by_one_at_most(partitions: int, members: int) -> None:
    assert is_fair(assign(partitions, members), partitions)


@pytest.mark.parametrize(("shares", "partitions", "taken"), CLAIMS)
def test_newcomer_takes_the_last_ones_of_those_that_have_too_many(
    shares: list[list[int]], partitions: int, taken: set[int]
) -> None:
    assert claim(shares, partitions) == taken


@given(partitions=st.integers(0, 60), dealt=st.integers(0, 5), joins=st.integers(1, 8))
def test_shares_stay_fair_however_many_join(partitions: int, dealt: int, joins: int) -> None:
    shares = assign(partitions, dealt)
    for _ in range(joins):
        taken = claim(shares, partitions)
        kept = [[each for each in share if each not in taken] for share in shares]
        shares = [*kept, sorted(taken)]
        assert is_fair(shares, partitions)


def is_fair(shares: list[list[int]], partitions: int) -> bool:
    """Tell whether each partition is in one share, and shares differ by one at most."""
    sizes = [len(share) for share in shares]
    return sorted(chain(*shares)) == list(range(partitions)) and max(sizes) - min(sizes) <= 1


class GroupsMachine(RuleBasedStateMachine):
    """Three groups through everything that can happen to them, against plain sets of what was polled."""

    keys = (GroupKey(0, 0, 0), GroupKey(0, 1, 0), GroupKey(1, 0, 3))
    some_key = st.sampled_from(keys)
    some_member = st.integers(1, 6)

    def __init__(self) -> None:
        super().__init__()
        self.groups = Groups()
        self.members: dict[GroupKey, list[int]] = {key: [] for key in self.keys}
        self.partitions: dict[GroupKey, int] = dict.fromkeys(self.keys, 4)
        self.generations: dict[GroupKey, int] = dict.fromkeys(self.keys, 0)
        # By group, member and partition: the highest offset that was polled and not committed.
        self.polled: dict[tuple[GroupKey, int, int], int] = {}

    def owners(self, key: GroupKey) -> dict[int, int]:
        """Return who owns each partition."""
        return {partition: member.id for member in self.groups.members(key) for partition in member.owned}

    def turns(self, key: GroupKey) -> dict[int, list[int]]:
        return {member.id: list(member.partitions) for member in self.groups.members(key)}

    @rule(key=some_key, member=some_member)
    def join(self, key: GroupKey, member: int) -> None:
        owners, turns = self.owners(key), self.turns(key)
        self.groups.join(key, member, self.partitions[key])
        if member in self.members[key]:
            assert (self.owners(key), self.turns(key)) == (owners, turns)
            return
        self.members[key].append(member)
        self.grew(key)
        after = self.owners(key)
        for partition, owner in owners.items():
            assert after[partition] in (owner, member)
            if (key, owner, partition) in self.polled:
                assert after[partition] == owner
        for known, turn in turns.items():
            kept = self.turns(key)[known]
            assert kept == turn[: len(kept)]

    @rule(key=some_key, member=some_member)
    def leave(self, key: GroupKey, member: int) -> None:
        assert self.groups.leave(key, member) == (member in self.members[key])
        if member in self.members[key]:
            self.left(key, member)

    @rule(member=some_member)
    def disconnect(self, member: int) -> None:
        self.groups.leave_all(member)
        for key, members in self.members.items():
            if member in members:
                self.left(key, member)

    @rule(key=some_key, partitions=st.integers(0, 9))
    def resize(self, key: GroupKey, partitions: int) -> None:
        known = self.generations[key] > 0
        self.groups.resize(key.stream_id, key.topic_id, partitions)
        self.partitions[key] = partitions
        if known:
            self.dealt(key)

    @rule(key=some_key, depth=st.integers(1, 3))
    def drop(self, key: GroupKey, depth: int) -> None:
        held = [member for other in self.keys for member in self.groups.members(other) if other[:depth] == key[:depth]]
        self.groups.drop(*key[:depth])
        assert [member.owned for member in held] == [[]] * len(held)
        for other in self.keys:
            if other[:depth] == key[:depth]:
                self.members[other] = []
                self.generations[other] = 0
                self.forget(other)

    @precondition(lambda self: any(self.members.values()))
    @rule(data=st.data(), offset=st.integers(0, 5))
    def poll(self, data: st.DataObject, offset: int) -> None:
        if place := self.some_owned(data):
            key, member, partition = place
            member.polled(partition, offset)
            at = (key, member.id, partition)
            self.polled[at] = max(offset, self.polled.get(at, 0))

    @precondition(lambda self: any(self.members.values()))
    @rule(data=st.data(), offset=st.integers(0, 5))
    def commit(self, data: st.DataObject, offset: int) -> None:
        place = self.some_owned(data)
        if place is None:
            return
        key, member, partition = place
        was_leaving = partition in member.leaving
        settles = offset >= self.polled.get((key, member.id, partition), 0)
        due = member.committed(partition, offset)
        assert due == (settles and was_leaving)
        if settles:
            self.polled.pop((key, member.id, partition), None)
        if due:
            taker = member.leaving[partition].taker
            self.groups.hand_over(key, member, partition)
            self.grew(key)
            assert self.owners(key)[partition] == taker

    @rule(elapsed_us=st.sampled_from((1, TIMEOUT_US // 2, TIMEOUT_US)))
    def wait(self, elapsed_us: int) -> None:
        before = {key: self.owners(key) for key in self.keys}
        leaving = [(key, member, dict(member.leaving)) for key in self.keys for member in self.groups.members(key)]
        due = {
            (key, member.id, partition): hand_over.taker
            for key, member, hand_overs in leaving
            for partition, hand_over in hand_overs.items()
            if hand_over.waited_us + elapsed_us >= TIMEOUT_US
        }
        self.groups.wait(elapsed_us, TIMEOUT_US)
        for key in self.keys:
            for partition, owner in self.owners(key).items():
                old = before[key][partition]
                assert owner == due.get((key, old, partition), old)
        self.handed_over(due)

    @rule(key=some_key)
    def purge(self, key: GroupKey) -> None:
        self.groups.purge(key.stream_id, key.topic_id)
        self.generations[key] = self.groups.generation(key)
        self.forget(key)
        shares = [member.partitions for member in self.groups.members(key)]
        assert not shares or is_fair(shares, self.partitions[key])

    def some_owned(self, data: st.DataObject) -> tuple[GroupKey, Member, int] | None:
        key = data.draw(st.sampled_from([key for key in self.keys if self.members[key]]))
        member = data.draw(st.sampled_from(self.groups.members(key)))
        return (key, member, data.draw(st.sampled_from(member.owned))) if member.owned else None

    def left(self, key: GroupKey, member: int) -> None:
        self.members[key].remove(member)
        self.dealt(key)

    def dealt(self, key: GroupKey) -> None:
        """All partitions were dealt anew: who kept one still has to commit what it polled of it."""
        self.grew(key)
        shares = assign(self.partitions[key], len(self.members[key]))
        assert list(self.turns(key).values()) == shares
        owners = self.owners(key)
        for place in list(self.polled):
            if place[0] == key and owners.get(place[2]) != place[1]:
                del self.polled[place]

    def handed_over(self, due: dict[tuple[GroupKey, int, int], int]) -> None:
        for place in due:
            del self.polled[place]
        for key in {place[0] for place in due}:
            self.grew(key)

    def forget(self, key: GroupKey) -> None:
        self.polled = {place: offset for place, offset in self.polled.items() if place[0] != key}

    def grew(self, key: GroupKey) -> None:
        generation = self.groups.generation(key)
        assert generation > self.generations[key]
        self.generations[key] = generation

    @invariant()
    def every_partition_has_one_owner(self) -> None:
        for key in self.keys:
            members = self.groups.members(key)
            assert [member.id for member in members] == self.members[key]
            owned = sorted(partition for member in members for partition in member.owned)
            assert owned == (list(range(self.partitions[key])) if members else [])
            assert self.groups.generation(key) == self.generations[key]

    @invariant()
    def shares_are_fair_once_all_is_handed_over(self) -> None:
        for key in self.keys:
            members = self.groups.members(key)
            planned = {member.id: list(member.partitions) for member in members}
            for member in members:
                for partition, hand_over in member.leaving.items():
                    planned[hand_over.taker].append(partition)
            assert not planned or is_fair(list(planned.values()), self.partitions[key])

    @invariant()
    def only_what_is_uncommitted_waits(self) -> None:
        for key in self.keys:
            for member in self.groups.members(key):
                for partition in member.owned:
                    assert member.uncommitted.get(partition) == self.polled.get((key, member.id, partition))
                assert member.leaving.keys() <= member.uncommitted.keys() <= set(member.owned)

    @invariant()
    def members_know_their_groups(self) -> None:
        for member in range(1, 7):
            joined = self.groups.joined(member)
            assert sorted(joined) == sorted(key for key in self.keys if member in self.members[key])
            assert (member in self.groups.everyone()) == bool(joined)
            for key in self.keys:
                assert (self.groups.member(key, member) is None) == (key not in joined)


TestGroupsMachine = GroupsMachine.TestCase
TestGroupsMachine.settings = settings(max_examples=150, stateful_step_count=80)


def join(groups: Groups, *member_ids: int, partitions_count: int = 4) -> list[Member]:
    for member_id in member_ids:
        groups.join(KEY, member_id, partitions_count)
    return [member for member in groups.members(KEY) if member.id in member_ids]


def shares_of(groups: Groups) -> list[list[int]]:
    return [member.partitions for member in groups.members(KEY)]


def test_joining_twice_changes_nothing() -> None:
    groups = Groups()
    join(groups, 1)
    generation = groups.generation(KEY)
    join(groups, 1)
    assert (groups.generation(KEY), len(groups.members(KEY))) == (generation, 1)


def test_group_that_nobody_joined_has_no_members_and_generation_0() -> None:
    groups = Groups()
    assert (groups.members(KEY), groups.generation(KEY), groups.member(KEY, 1)) == ([], 0, None)
    assert not groups.leave(KEY, 1)
    groups.resize(0, 0, 5)
    groups.purge(0, 0)
    groups.wait(TIMEOUT_US, TIMEOUT_US)
    groups.drop(0)
    assert groups.generation(KEY) == 0


def test_member_gets_its_partitions_in_turn() -> None:
    (member,) = join(Groups(), 1, partitions_count=3)
    assert [member.next_partition() for _ in range(5)] == [0, 1, 2, 0, 1]


def test_member_without_partitions_has_no_turn() -> None:
    (member,) = join(Groups(), 1, partitions_count=0)
    assert (member.next_partition(), member.current_partition()) == (None, None)


def test_members_current_partition_is_the_one_it_got_last_also_when_that_leaves() -> None:
    groups = Groups()
    (member,) = join(groups, 1, partitions_count=2)
    assert member.current_partition() == 0
    assert [member.next_partition(), member.next_partition()] == [0, 1]
    member.polled(1, 5)
    join(groups, 2)
    assert (member.partitions, member.current_partition()) == ([0], 1)
    assert member.next_partition() == 0


def test_one_of_two_members_dies_and_the_other_takes_over() -> None:
    groups = Groups()
    join(groups, 1, 2)
    assert shares_of(groups) == [[0, 1], [2, 3]]
    groups.leave_all(1)
    assert [(member.id, member.partitions) for member in groups.members(KEY)] == [(2, [0, 1, 2, 3])]
    assert groups.generation(KEY) == 3


def test_newcomer_waits_only_for_partitions_with_uncommitted_messages() -> None:
    groups = Groups()
    (old,) = join(groups, 1)
    for partition in (0, 3):
        old.polled(partition, 9)
    join(groups, 2)
    assert shares_of(groups) == [[0, 1], [2]]
    assert (old.owned, old.owns(3)) == ([0, 1, 3], True)
    assert not old.committed(3, 8)
    assert old.committed(3, 9)
    groups.hand_over(KEY, old, 3)
    assert shares_of(groups) == [[0, 1], [2, 3]]
    assert not old.owns(3)


def test_partition_that_waits_goes_to_who_joined_last() -> None:
    groups = Groups()
    (old,) = join(groups, 1)
    for partition in range(4):
        old.polled(partition, 0)
    join(groups, 2, 3)
    assert {partition: hand_over.taker for partition, hand_over in old.leaving.items()} == {2: 2, 3: 3}
    groups.wait(TIMEOUT_US, TIMEOUT_US)
    assert [len(share) for share in shares_of(groups)] == [2, 1, 1]


def test_only_who_has_others_than_before_is_stale() -> None:
    groups = Groups()
    first, second = join(groups, 1, 2)
    assert (first.stale, second.stale) == (True, False)
    first.stale = False
    (third,) = join(groups, 3)
    assert (first.stale, second.stale, third.stale) == (False, True, False)
    second.stale = False
    second.polled(2, 0)
    join(groups, 4)
    assert (first.stale, second.stale, third.stale) == (True, False, False)


def test_both_are_told_of_a_hand_over_each_in_its_time() -> None:
    groups = Groups()
    (first,) = join(groups, 1, partitions_count=2)
    first.polled(1, 0)
    (second,) = join(groups, 2)
    assert (first.stale, second.stale) == (True, False)
    first.stale = False
    groups.wait(TIMEOUT_US, TIMEOUT_US)
    assert (first.stale, second.stale) == (False, True)
    assert groups.generation(KEY) == 3


def test_time_adds_up_until_a_partition_is_handed_over() -> None:
    groups = Groups()
    (first,) = join(groups, 1, partitions_count=2)
    first.polled(1, 0)
    join(groups, 2)
    groups.wait(TIMEOUT_US - 1, TIMEOUT_US)
    assert shares_of(groups) == [[0], []]
    groups.wait(1, TIMEOUT_US)
    assert shares_of(groups) == [[0], [1]]
    assert (first.leaving, first.uncommitted) == ({}, {})
