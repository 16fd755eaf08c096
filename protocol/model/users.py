"""Commands about who is connected."""

import msgspec


class Login(msgspec.Struct):
    """Sign in with a password. version and context are what the client says of itself."""

    username: str
    password: str
    version: str = ""
    context: str = ""


class LoggedIn(msgspec.Struct):
    """session: the fence of this sign-in, greater than every earlier one of this server's run."""

    user_id: int
    session: int


class Logout(msgspec.Struct):
    pass
