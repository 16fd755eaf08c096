"""Commands about users, and about who is connected. Times and durations are microseconds."""

import msgspec

from ..primitives import Identifier, Options, Permissions, UserStatus


class Login(msgspec.Struct):
    """Sign in with a password. version, context and client, 16 bytes or none, are what the client says of itself."""

    username: str
    password: str
    version: str = ""
    context: str = ""
    client: bytes = b""


class LoggedIn(msgspec.Struct):
    """session: the fence of this sign-in, greater than every earlier one of this server's run."""

    user_id: int
    session: int


class Logout(msgspec.Struct):
    pass


class GetUser(msgspec.Struct):
    user: Identifier


class GetUsers(msgspec.Struct):
    pass


class CreateUser(msgspec.Struct):
    """permissions None: the user may do what needs none."""

    username: str
    password: str
    status: UserStatus
    permissions: Permissions | None
    options: Options = ()


class DeleteUser(msgspec.Struct):
    user: Identifier


class UpdateUser(msgspec.Struct):
    """None leaves a value as it is."""

    user: Identifier
    username: str | None
    status: UserStatus | None
    options: Options = ()


class UpdatePermissions(msgspec.Struct):
    """Replace all of a user's permissions."""

    user: Identifier
    permissions: Permissions | None


class ChangePassword(msgspec.Struct):
    user: Identifier
    current_password: str
    new_password: str


class User(msgspec.Struct):
    id: int
    created_at_us: int
    status: UserStatus
    username: str
    options: Options = ()


class UserDetails(msgspec.Struct):
    user: User
    permissions: Permissions | None


class Users(msgspec.Struct):
    users: list[User]
