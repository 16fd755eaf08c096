"""Who is in which consumer group, and which partitions each member reads. In memory only: members are connections.

Rules. A newcomer takes what nobody has and the last partitions of members with more than a fair share; the others keep
what they have. A partition of which its owner polled messages that are not committed is handed over once they are, or
after a time: until then it stays its owner's, who no longer gets it in turn. So a join gives no message to two members.
When a member goes, or the number of partitions changes, all partitions are dealt anew, and nothing waits any more.
Every change raises the group's generation. A member whose turn changed is told so by its next poll.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

MemberId = int


class GroupKey(NamedTuple):
    stream_id: int
    topic_id: int
    group_id: int


class HandOver(msgspec.Struct):
    """A partition that waits for its owner's commit. taker: whose it is then."""

    taker: MemberId
    waited_us: int = 0


def _nothing() -> None:
    """Tell nobody."""


class Member(msgspec.Struct):
    """partitions: what it reads, in turn; a list is not changed but replaced, so it can be handed out.

    leaving: what it owns besides, until it has committed what it polled of it.
    uncommitted: by partition, the highest offset that it has polled and not committed.
    turn: how often it polled without saying which partition. current: what it got then last.
    stale: its partitions changed and it does not know yet. A member that still owns what it polls would
    else learn only from its next heartbeat that it has more, 5 s later. told: called then, for who does not ask.
    """

    id: MemberId
    partitions: list[int] = []
    leaving: dict[int, HandOver] = {}
    uncommitted: dict[int, int] = {}
    turn: int = 0
    current: int | None = None
    stale: bool = False
    told: Callable[[], None] = _nothing

    @property
    def owned(self) -> list[int]:
        return [*self.partitions, *self.leaving]

    def owns(self, partition_id: int) -> bool:
        return partition_id in self.partitions or partition_id in self.leaving

    def next_partition(self) -> int | None:
        """Return the partition whose turn it is, None for a member that has none."""
        if not self.partitions:
            return None
        self.current = self.partitions[self.turn % len(self.partitions)]
        self.turn += 1
        return self.current

    def current_partition(self) -> int | None:
        """Return what `next_partition` gave last, even if another has it now; before that, the first partition."""
        if self.current is None and self.partitions:
            return self.partitions[0]
        return self.current

    def polled(self, partition_id: int, offset: int) -> None:
        """Take note of messages up to `offset` that it has to commit."""
        self.uncommitted[partition_id] = max(offset, self.uncommitted.get(partition_id, 0))

    def committed(self, partition_id: int, offset: int) -> bool:
        """Take note of a commit; return whether the partition is due to the member that waits for it."""
        if offset < self.uncommitted.get(partition_id, 0):
            return False
        self.uncommitted.pop(partition_id, None)
        return partition_id in self.leaving

    def share(self, partitions: list[int]) -> None:
        """Have these partitions and no others."""
        if self.partitions != partitions:
            self.read(partitions)
        self.leaving = {}
        kept = self.uncommitted.keys() & partitions
        self.uncommitted = {partition_id: self.uncommitted[partition_id] for partition_id in kept}

    def give(self, taken: set[int], taker: MemberId) -> set[int]:
        """Give what it has of `taken` to another; return what it keeps until it has committed."""
        if given := taken.intersection(self.partitions):
            self.read([partition_id for partition_id in self.partitions if partition_id not in given])
        self.leaving |= {partition_id: HandOver(taker) for partition_id in given if partition_id in self.uncommitted}
        kept = taken & self.leaving.keys()
        for partition_id in kept:
            self.leaving[partition_id].taker = taker  # it may have been promised to a third one
        return kept

    def read(self, partitions: list[int]) -> None:
        """Read these in turn from now on."""
        self.partitions = partitions
        self.stale = True
        self.told()


class Membership(msgspec.Struct):
    """One group's members in the order they joined."""

    partitions_count: int
    members: dict[MemberId, Member] = {}
    generation: int = 0

    def admit(self, member_id: MemberId) -> None:
        """Let a newcomer have its share. It asks for its partitions anyway, so it is not stale."""
        taken = claim(self._planned(), self.partitions_count)
        kept = [member.give(taken, member_id) for member in self.members.values()]
        self.members[member_id] = Member(member_id, sorted(taken.difference(*kept)))
        self.generation += 1

    def deal(self) -> None:
        self.generation += 1
        shares = assign(self.partitions_count, len(self.members))
        for member, share in zip(self.members.values(), shares, strict=True):
            member.share(share)

    def hand_over(self, member: Member, partition_id: int) -> None:
        """Give a partition that is leaving to the member that waits for it."""
        taker = self.members[member.leaving.pop(partition_id).taker]
        member.uncommitted.pop(partition_id, None)
        taker.read([*taker.partitions, partition_id])
        self.generation += 1

    def hand_over_all(self) -> None:
        for member in self.members.values():
            for partition_id in list(member.leaving):
                self.hand_over(member, partition_id)

    def wait(self, elapsed_us: int, timeout_us: int) -> None:
        """Let time pass, and hand over what has waited for `timeout_us`."""
        for member in self.members.values():
            for partition_id, leaving in list(member.leaving.items()):
                leaving.waited_us += elapsed_us
                if leaving.waited_us >= timeout_us:
                    self.hand_over(member, partition_id)

    def _planned(self) -> list[list[int]]:
        """Return what each member reads, or will once it has been handed over."""
        planned = {member.id: list(member.partitions) for member in self.members.values()}
        for member in self.members.values():
            for partition_id, leaving in member.leaving.items():
                planned[leaving.taker].append(partition_id)
        return list(planned.values())


def assign(partitions_count: int, members_count: int) -> list[list[int]]:
    """Deal partition ids to members in turn. Members beyond the partitions get none."""
    return [list(range(first, partitions_count, members_count)) for first in range(members_count)]


def claim(shares: list[list[int]], partitions_count: int) -> set[int]:
    """Return what a newcomer takes: what nobody has, and the last ones of members with more than a fair share.

    shares: of the members before it, in the order they joined. The first get one more where it does not divide.
    """
    fair, more = divmod(partitions_count, len(shares) + 1)
    taken = set(range(partitions_count)).difference(*shares)
    for index, share in enumerate(shares):
        taken.update(share[fair + (index < more) :])
    return taken


class Groups:
    """All memberships. A group that nobody ever joined has none."""

    def __init__(self) -> None:
        self._memberships: dict[GroupKey, Membership] = {}
        self._joined: dict[MemberId, list[GroupKey]] = {}

    def members(self, key: GroupKey) -> list[Member]:
        membership = self._memberships.get(key)
        return list(membership.members.values()) if membership else []

    def member(self, key: GroupKey, member_id: MemberId) -> Member | None:
        membership = self._memberships.get(key)
        return membership.members.get(member_id) if membership else None

    def generation(self, key: GroupKey) -> int:
        membership = self._memberships.get(key)
        return membership.generation if membership else 0

    def joined(self, member_id: MemberId) -> list[GroupKey]:
        """Return the groups a connection is in."""
        return list(self._joined.get(member_id, ()))

    def everyone(self) -> list[MemberId]:
        """Return the connections that are in any group."""
        return list(self._joined)

    def join(self, key: GroupKey, member_id: MemberId, partitions_count: int) -> None:
        """Add a member; once is enough."""
        membership = self._memberships.setdefault(key, Membership(partitions_count))
        if member_id not in membership.members:
            self._joined.setdefault(member_id, []).append(key)
            membership.admit(member_id)

    def leave(self, key: GroupKey, member_id: MemberId) -> bool:
        """Remove a member and deal its partitions; return whether it was one."""
        membership = self._memberships.get(key)
        if membership is None or member_id not in membership.members:
            return False
        self._forget(key, membership.members.pop(member_id))
        membership.deal()
        return True

    def leave_all(self, member_id: MemberId) -> None:
        for key in self.joined(member_id):
            self.leave(key, member_id)

    def hand_over(self, key: GroupKey, member: Member, partition_id: int) -> None:
        """Give a partition that is leaving `member` to the one that waits for it."""
        self._memberships[key].hand_over(member, partition_id)

    def wait(self, elapsed_us: int, timeout_us: int) -> None:
        """Let time pass, and hand over what has waited for `timeout_us` in vain."""
        for membership in self._memberships.values():
            membership.wait(elapsed_us, timeout_us)

    def purge(self, stream_id: int, topic_id: int) -> None:
        """Forget what members have polled of a topic: there is nothing to commit any more."""
        for key in self._of(stream_id, topic_id):
            self._memberships[key].hand_over_all()
            for member in self.members(key):
                member.uncommitted.clear()

    def resize(self, stream_id: int, topic_id: int, partitions_count: int) -> None:
        """Deal a topic's partitions anew after their number changed."""
        for key in self._of(stream_id, topic_id):
            self._memberships[key].partitions_count = partitions_count
            self._memberships[key].deal()

    def drop(self, stream_id: int, topic_id: int | None = None, group_id: int | None = None) -> None:
        """Forget the memberships of a deleted group, topic or stream."""
        for key in list(self._of(stream_id, topic_id, group_id)):
            for member in self._memberships.pop(key).members.values():
                self._forget(key, member)

    def _of(self, stream_id: int, topic_id: int | None = None, group_id: int | None = None) -> Iterator[GroupKey]:
        for key in self._memberships:
            if key.stream_id == stream_id and topic_id in (None, key.topic_id) and group_id in (None, key.group_id):
                yield key

    def _forget(self, key: GroupKey, member: Member) -> None:
        """Forget who is no member any more, and leave it nothing: a poll of its may still wait for the disk."""
        member.share([])
        self._joined[member.id].remove(key)
        if not self._joined[member.id]:
            del self._joined[member.id]
