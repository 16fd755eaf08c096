"""Payloads of users, tokens, snapshots and routing on the vsr wire, as bytes; the others are in test_layouts."""

from typing import NamedTuple

from msgspec import Struct
from pybroker.protocol.model.messages import FlushUnsavedBuffer, GetPollRouting, PollMessagesOnPrimary
from pybroker.protocol.model.offsets import GetConsumerOffsetRouting
from pybroker.protocol.model.system import AttachConsumerSession, ClusterNode, ConsumerRouting, GetSnapshot, Snapshot
from pybroker.protocol.model.tokens import CreateToken, DeleteToken, GetTokens, RawToken, Token, Tokens
from pybroker.protocol.model.users import (
    ChangePassword,
    CreateUser,
    DeleteUser,
    GetUser,
    GetUsers,
    UpdatePermissions,
    UpdateUser,
    User,
    UserDetails,
    Users,
)
from pybroker.protocol.primitives import (
    U32_MAX,
    U64_MAX,
    Consumer,
    ConsumerKind,
    Option,
    Permissions,
    PollingKind,
    PollingStrategy,
    SnapshotCompression,
    SnapshotKind,
    StreamPermissions,
    TopicPermissions,
    UserStatus,
    ValueKind,
)


class Row(NamedTuple):
    """parts: the payload. It may end after any of them and is then the payload of a shorter value."""

    value: Struct
    parts: tuple[bytes, ...]

    @property
    def payload(self) -> bytes:
        return b"".join(self.parts)

    @property
    def shorter(self) -> set[int]:
        """At how many bytes the payload may end early."""
        return {sum(map(len, self.parts[:count])) for count in range(1, len(self.parts))}


def row(value: Struct, *parts: bytes) -> Row:
    return Row(value, parts or (b"",))


ID_7 = b"\x01\x04\x07\0\0\0"
ID_MAX = b"\x01\x04\xff\xff\xff\xff"
ID_0 = b"\x01\x04\0\0\0\0"
ORDERS = b"\x02\x06orders"
CAFE = b"\x02\x05caf\xc3\xa9"
LONG = "n" * 255
NAME_LONG = b"\xff" + b"n" * 255

U64_1 = b"\x01\0\0\0\0\0\0\0"
U64_ALL = b"\xff" * 8
DURABILITY = Option("durability", ValueKind.STRING, b"persisted")
DURABILITY_BYTES = b"\x02\x0a\0\0\0durability\x02\x09\0\0\0persisted"

SINGLE = Consumer(ConsumerKind.SINGLE, 7)
IN_GROUP = Consumer(ConsumerKind.GROUP, "orders")
NODE = ClusterNode("n1", "127.0.0.1", 8090, 8080, 3000, 8092, 1, 2)
NODE_BYTES = (
    b"\x02\0\0\0n1" b"\x09\0\0\x00127.0.0.1" b"\x9a\x1f" b"\x90\x1f" b"\xb8\x0b" b"\x9c\x1f" b"\x01\x02"
)  # fmt: skip
CLIENT_ID = bytes(range(16))

NOTHING_GRANTED = Permissions()
NOTHING_BYTES = b"\x0b\0\0\0" + bytes(10) + b"\0"
# Every second flag, beginning with the first of them; no stream of its own.
SECONDS = Permissions(True, False, True, False, True, False, True, False, True, False)
SECONDS_BYTES = b"\x0b\0\0\0" b"\1\0\1\0\1\0\1\0\1\0" b"\0"  # fmt: skip
# The other five; streams 3 and 9, of which 9 has topics 0 and U32_MAX.
NESTED = Permissions(
    read_servers=True, read_users=True, read_streams=True, read_topics=True, send_messages=True,
    streams={
        3: StreamPermissions(True, False, True, False, True, False),
        9: StreamPermissions(False, True, False, True, False, True, {
            0: TopicPermissions(True, False, True, False),
            U32_MAX: TopicPermissions(False, True, False, True),
        }),
    },
)  # fmt: skip
NESTED_BYTES = (
    b"\x35\0\0\0" b"\0\1\0\1\0\1\0\1\0\1"
    b"\1" b"\x03\0\0\0" b"\1\0\1\0\1\0" b"\0"
    b"\1" b"\x09\0\0\0" b"\0\1\0\1\0\1"
    b"\1" b"\0\0\0\0" b"\1\0\1\0"
    b"\1" b"\xff\xff\xff\xff" b"\0\1\0\1"
    b"\0" b"\0"
)  # fmt: skip

BOB = User(1, 2, UserStatus.INACTIVE, "bob", (DURABILITY,))
BOB_BYTES = b"\x01\0\0\0" b"\x02\0\0\0\0\0\0\0" b"\x02" b"\x03bob" b"\x1d\0\0\0" + DURABILITY_BYTES  # fmt: skip
ROOT = User(0, U64_MAX, UserStatus.ACTIVE, LONG)
ROOT_BYTES = bytes(4) + U64_ALL + b"\x01" + NAME_LONG + bytes(4)

REQUESTS = [
    row(GetSnapshot(SnapshotCompression.STORED, [SnapshotKind.ALL]), b"\x01" b"\x01\x64"),
    row(
        GetSnapshot(SnapshotCompression.XZ, [SnapshotKind.FILESYSTEM, SnapshotKind.CONFIG]), b"\x06" b"\x02\x01\x06"
    ),
    row(AttachConsumerSession(CLIENT_ID, 513, U64_MAX), CLIENT_ID + b"\x01\x02\0\0\0\0\0\0" + U64_ALL),
    row(GetUser(7), ID_7),
    row(GetUser("orders"), ORDERS),
    row(GetUsers()),
    row(
        CreateUser("bob", "secret", UserStatus.ACTIVE, None),
        b"\x03bob" b"\x06secret" b"\x01" b"\0",
    ),
    row(
        CreateUser(LONG, "", UserStatus.INACTIVE, NESTED, (DURABILITY,)),
        NAME_LONG + b"\0" b"\x02" b"\x01" + NESTED_BYTES, DURABILITY_BYTES,
    ),
    row(DeleteUser("café"), CAFE),
    row(UpdateUser(7, None, None), ID_7 + b"\0" b"\0"),
    row(UpdateUser(7, "bob", None), ID_7 + b"\x01\x03bob" b"\0"),
    row(
        UpdateUser("orders", None, UserStatus.INACTIVE, (DURABILITY,)),
        ORDERS + b"\0" b"\x01\x02", DURABILITY_BYTES,
    ),
    row(UpdatePermissions(7, None), ID_7 + b"\0"),
    row(UpdatePermissions(7, NOTHING_GRANTED), ID_7 + b"\x01" + NOTHING_BYTES),
    row(UpdatePermissions("orders", SECONDS), ORDERS + b"\x01" + SECONDS_BYTES),
    row(UpdatePermissions(0, NESTED), ID_0 + b"\x01" + NESTED_BYTES),
    row(ChangePassword(7, "old", "secret"), ID_7 + b"\x03old" b"\x06secret"),
    row(GetTokens()),
    row(CreateToken("tok", 0), b"\x03tok" + bytes(8)),
    row(CreateToken("t", U64_MAX), b"\x01t" + U64_ALL),
    row(DeleteToken("tok"), b"\x03tok"),
    row(FlushUnsavedBuffer(7, "orders", 2, True), ID_7 + ORDERS + b"\x02\0\0\0" b"\x01"),
    row(FlushUnsavedBuffer(0, 7, U32_MAX, False), ID_0 + ID_7 + b"\xff\xff\xff\xff" b"\0"),
    row(
        GetPollRouting(SINGLE, 7, "orders", None, PollingStrategy(PollingKind.NEXT), 10, False),
        b"\x01" + ID_7 + ID_7 + ORDERS + b"\0\0\0\0\0" b"\x05\0\0\0\0\0\0\0\0" b"\x0a\0\0\0" b"\0",
    ),
    row(
        PollMessagesOnPrimary(IN_GROUP, 0, 7, 2, PollingStrategy(PollingKind.OFFSET, U64_MAX), 1, True),
        b"\x02" + ORDERS + ID_0 + ID_7 + b"\x01\x02\0\0\0" b"\x01" + U64_ALL + b"\x01\0\0\0" b"\x01",
    ),
    row(GetConsumerOffsetRouting(IN_GROUP, 0, 7, None), b"\x02" + ORDERS + ID_0 + ID_7 + b"\0\0\0\0\0"),
]  # fmt: skip

REPLIES = [
    row(Snapshot(b"PK"), b"", b"P", b"K"),
    row(
        ConsumerRouting(CLIENT_ID, 1, 513, NODE),
        CLIENT_ID + U64_1 + b"\x01\x02\0\0\0\0\0\0" + NODE_BYTES,
    ),
    row(UserDetails(BOB, None), BOB_BYTES + bytes(4)),
    row(UserDetails(ROOT, NESTED), ROOT_BYTES + b"\x01" + NESTED_BYTES),
    row(Users([])),
    row(Users([ROOT, BOB]), b"", ROOT_BYTES, BOB_BYTES),
    row(Tokens([])),
    row(Tokens([Token("tok", 0), Token("t", U64_MAX)]), b"", b"\x03tok" + bytes(8), b"\x01t" + U64_ALL),
    row(RawToken("5ecret"), b"\x065ecret"),
]  # fmt: skip

# Payloads that run to the end of the frame: what stands behind them is part of them.
OPEN: frozenset[type[Struct]] = frozenset({CreateUser, UpdateUser, Users, Tokens, Snapshot})
