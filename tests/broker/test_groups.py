"""Which member reads which partitions, and how that changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pybroker.broker.groups import GroupKey, Groups, assign

KEY = GroupKey(0, 0, 0)

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


@pytest.mark.parametrize(("partitions", "members", "shares"), ASSIGNMENTS)
def test_partitions_are_dealt_in_turn(partitions: int, members: int, shares: list[list[int]]) -> None:
    assert assign(partitions, members) == shares


@given(partitions=st.integers(0, 200), members=st.integers(1, 50))
def test_every_partition_has_one_owner_and_shares_differ_by_one_at_most(partitions: int, members: int) -> None:
    shares = assign(partitions, members)
    assert sorted(partition for share in shares for partition in share) == list(range(partitions))
    assert len(shares) == members
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


class GroupsMachine(RuleBasedStateMachine):
    """Joins, leaves, resizes and drops of three groups against plain sets."""

    keys = (GroupKey(0, 0, 0), GroupKey(0, 1, 0), GroupKey(1, 0, 3))

    def __init__(self) -> None:
        super().__init__()
        self.groups = Groups()
        self.members: dict[GroupKey, list[int]] = {key: [] for key in self.keys}
        self.partitions: dict[GroupKey, int] = dict.fromkeys(self.keys, 4)
        self.generations: dict[GroupKey, int] = dict.fromkeys(self.keys, 0)

    @rule(key=st.sampled_from(keys), member=st.integers(1, 6))
    def join(self, key: GroupKey, member: int) -> None:
        self.groups.join(key, member, self.partitions[key])
        if member not in self.members[key]:
            self.members[key].append(member)
            self.grew(key)

    @rule(key=st.sampled_from(keys), member=st.integers(1, 6))
    def leave(self, key: GroupKey, member: int) -> None:
        assert self.groups.leave(key, member) == (member in self.members[key])
        if member in self.members[key]:
            self.members[key].remove(member)
            self.grew(key)

    @rule(member=st.integers(1, 6))
    def disconnect(self, member: int) -> None:
        self.groups.leave_all(member)
        for key, members in self.members.items():
            if member in members:
                members.remove(member)
                self.grew(key)

    @rule(key=st.sampled_from(keys), partitions=st.integers(0, 9))
    def resize(self, key: GroupKey, partitions: int) -> None:
        known = self.generations[key] > 0
        self.groups.resize(key.stream_id, key.topic_id, partitions)
        self.partitions[key] = partitions
        if known:
            self.grew(key)

    @rule(key=st.sampled_from(keys), depth=st.integers(1, 3))
    def drop(self, key: GroupKey, depth: int) -> None:
        self.groups.drop(*key[:depth])
        for other in self.keys:
            if other[:depth] == key[:depth]:
                self.members[other] = []
                self.generations[other] = 0

    def grew(self, key: GroupKey) -> None:
        generation = self.groups.generation(key)
        assert generation > self.generations[key]
        self.generations[key] = generation

    @invariant()
    def members_share_all_partitions(self) -> None:
        for key in self.keys:
            members = self.groups.members(key)
            assert [member.id for member in members] == self.members[key]
            assert [member.partitions for member in members] == assign(self.partitions[key], len(members))
            assert self.groups.generation(key) == self.generations[key]

    @invariant()
    def members_know_their_groups(self) -> None:
        for member in range(1, 7):
            joined = self.groups.joined(member)
            assert sorted(joined) == sorted(key for key in self.keys if member in self.members[key])
            for key in self.keys:
                assert (self.groups.member(key, member) is None) == (key not in joined)


TestGroupsMachine = GroupsMachine.TestCase


def test_joining_twice_changes_nothing() -> None:
    groups = Groups()
    groups.join(KEY, 1, 3)
    generation = groups.generation(KEY)
    groups.join(KEY, 1, 3)
    assert (groups.generation(KEY), len(groups.members(KEY))) == (generation, 1)


def test_group_that_nobody_joined_has_no_members_and_generation_0() -> None:
    groups = Groups()
    assert (groups.members(KEY), groups.generation(KEY), groups.member(KEY, 1)) == ([], 0, None)
    assert not groups.leave(KEY, 1)
    groups.resize(0, 0, 5)
    groups.drop(0)
    assert groups.generation(KEY) == 0


def test_member_gets_its_partitions_in_turn() -> None:
    groups = Groups()
    groups.join(KEY, 1, 3)
    member = groups.member(KEY, 1)
    assert member is not None
    assert [member.next_partition() for _ in range(5)] == [0, 1, 2, 0, 1]


def test_member_without_partitions_has_no_turn() -> None:
    groups = Groups()
    groups.join(KEY, 1, 0)
    member = groups.member(KEY, 1)
    assert member is not None
    assert member.next_partition() is None


def test_one_of_two_members_dies_and_the_other_takes_over() -> None:
    groups = Groups()
    groups.join(KEY, 1, 4)
    groups.join(KEY, 2, 4)
    assert [member.partitions for member in groups.members(KEY)] == [[0, 2], [1, 3]]
    groups.leave_all(1)
    assert [(member.id, member.partitions) for member in groups.members(KEY)] == [(2, [0, 1, 2, 3])]
    assert groups.generation(KEY) == 3
