"""Who is in which consumer group, and which partitions each member reads. In memory only: members are connections.

Every change of members or partitions deals all partitions anew, in turn, and raises the group's generation. A
member whose partition moved away is told so by its next poll, asks for its partitions again and goes on.
"""

from collections.abc import Iterator
from typing import NamedTuple

import msgspec

MemberId = int


class GroupKey(NamedTuple):
    stream_id: int
    topic_id: int
    group_id: int


class Member(msgspec.Struct):
    """turn: how often it polled without saying which partition; it gets its own ones in turn.

    stale: its partitions were dealt anew and it does not know yet. A member that still owns what it polls would
    else learn only from its next heartbeat that it has more, 5 s later.
    """

    id: MemberId
    partitions: list[int] = []
    turn: int = 0
    stale: bool = False

    def next_partition(self) -> int | None:
        """Return the partition whose turn it is, None for a member that has none."""
        if not self.partitions:
            return None
        partition_id = self.partitions[self.turn % len(self.partitions)]
        self.turn += 1
        return partition_id

    def current_partition(self) -> int | None:
        """Return the partition that `next_partition` gave last, the first before that."""
        return self.partitions[max(self.turn - 1, 0) % len(self.partitions)] if self.partitions else None


class Membership(msgspec.Struct):
    """One group's members in the order they joined."""

    partitions_count: int
    members: dict[MemberId, Member] = {}
    generation: int = 0

    def deal(self) -> None:
        self.generation += 1
        shares = assign(self.partitions_count, len(self.members))
        for member, share in zip(self.members.values(), shares, strict=True):
            member.partitions = share
            member.stale = True


def assign(partitions_count: int, members_count: int) -> list[list[int]]:
    """Deal partition ids to members in turn. Members beyond the partitions get none."""
    return [list(range(first, partitions_count, members_count)) for first in range(members_count)]


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

    def join(self, key: GroupKey, member_id: MemberId, partitions_count: int) -> None:
        """Add a member; once is enough."""
        membership = self._memberships.setdefault(key, Membership(partitions_count))
        if member_id in membership.members:
            return
        member = membership.members[member_id] = Member(member_id)
        self._joined.setdefault(member_id, []).append(key)
        membership.deal()
        member.stale = False  # who joins asks for its partitions anyway

    def leave(self, key: GroupKey, member_id: MemberId) -> bool:
        """Remove a member and deal its partitions; return whether it was one."""
        membership = self._memberships.get(key)
        if membership is None or member_id not in membership.members:
            return False
        del membership.members[member_id]
        self._forget(key, member_id)
        membership.deal()
        return True

    def leave_all(self, member_id: MemberId) -> None:
        for key in self.joined(member_id):
            self.leave(key, member_id)

    def resize(self, stream_id: int, topic_id: int, partitions_count: int) -> None:
        """Deal a topic's partitions anew after their number changed."""
        for key in self._of(stream_id, topic_id):
            self._memberships[key].partitions_count = partitions_count
            self._memberships[key].deal()

    def drop(self, stream_id: int, topic_id: int | None = None, group_id: int | None = None) -> None:
        """Forget the memberships of a deleted group, topic or stream."""
        for key in list(self._of(stream_id, topic_id, group_id)):
            for member_id in self._memberships.pop(key).members:
                self._forget(key, member_id)

    def _of(self, stream_id: int, topic_id: int | None = None, group_id: int | None = None) -> Iterator[GroupKey]:
        for key in self._memberships:
            if key.stream_id == stream_id and topic_id in (None, key.topic_id) and group_id in (None, key.group_id):
                yield key

    def _forget(self, key: GroupKey, member_id: MemberId) -> None:
        self._joined[member_id].remove(key)
        if not self._joined[member_id]:
            del self._joined[member_id]
