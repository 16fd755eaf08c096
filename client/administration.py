"""The server and its clients, users, and access tokens."""

from collections.abc import Sequence
from datetime import timedelta

from ..protocol.model import system, tokens, users
from ..protocol.model.system import ClientDetails, ClusterMetadata, OptionSpec, OptionSpecs, Stats
from ..protocol.model.tokens import Token, Tokens
from ..protocol.model.users import User, UserDetails, Users
from ..protocol.primitives import Identifier, Permissions, SnapshotCompression, SnapshotKind, UserStatus
from .caller import Caller

TOPIC_OPTIONS, STREAM_OPTIONS, USER_OPTIONS = 1, 2, 3
_MICROSECOND = timedelta(microseconds=1)


class AdministrationCommands(Caller):
    """What is looked up and isn't there is None; what is changed and isn't there is a BrokerError."""

    async def ping(self) -> None:
        await self.call(system.Ping())

    async def get_stats(self) -> Stats:
        return await self._get(system.GetStats(), Stats)

    async def get_snapshot(
        self,
        kinds: Sequence[SnapshotKind] = (SnapshotKind.ALL,),
        compression: SnapshotCompression = SnapshotCompression.DEFLATED,
    ) -> bytes:
        """Return a zip file that tells of the server, for who looks into a problem."""
        return (await self._get(system.GetSnapshot(compression, list(kinds)), system.Snapshot)).zip

    async def get_cluster_metadata(self) -> ClusterMetadata:
        return await self._get(system.GetClusterMetadata(), ClusterMetadata)

    async def describe_options(self, scope: int = TOPIC_OPTIONS) -> list[OptionSpec]:
        return (await self._get(system.DescribeOptions(scope), OptionSpecs)).specs

    async def get_me(self) -> ClientDetails:
        return await self._get(system.GetMe(), ClientDetails)

    async def get_client(self, client_id: int) -> ClientDetails | None:
        return await self._find(system.GetClient(client_id), ClientDetails)

    async def get_clients(self) -> list[system.Client]:
        return (await self._find(system.GetClients(), system.Clients) or system.Clients([])).clients

    async def get_users(self) -> list[User]:
        return (await self._find(users.GetUsers(), Users) or Users([])).users

    async def get_user(self, user: Identifier) -> UserDetails | None:
        return await self._find(users.GetUser(user), UserDetails)

    async def create_user(
        self,
        username: str,
        password: str,
        permissions: Permissions | None = None,
        *,
        status: UserStatus = UserStatus.ACTIVE,
    ) -> UserDetails:
        return await self._get(users.CreateUser(username, password, status, permissions), UserDetails)

    async def update_user(
        self, user: Identifier, *, username: str | None = None, status: UserStatus | None = None
    ) -> None:
        """Change what is not None."""
        await self.call(users.UpdateUser(user, username, status))

    async def delete_user(self, user: Identifier) -> None:
        await self.call(users.DeleteUser(user))

    async def update_permissions(self, user: Identifier, permissions: Permissions | None) -> None:
        """Replace all of a user's permissions."""
        await self.call(users.UpdatePermissions(user, permissions))

    async def change_password(self, user: Identifier, current: str, new: str) -> None:
        """Change a password. A client that is signed in with the old one can't come back after a lost connection."""
        await self.call(users.ChangePassword(user, current, new))

    async def get_tokens(self) -> list[Token]:
        """Return one's own tokens."""
        return (await self._find(tokens.GetTokens(), Tokens) or Tokens([])).tokens

    async def create_token(self, name: str, expiry: timedelta | None = None) -> str:
        """Return a new secret that signs in as this user, for ever or for as long as `expiry`. It is told once."""
        expiry_us = 0 if expiry is None else expiry // _MICROSECOND
        return (await self._get(tokens.CreateToken(name, expiry_us), tokens.RawToken)).token

    async def delete_token(self, name: str) -> None:
        await self.call(tokens.DeleteToken(name))
