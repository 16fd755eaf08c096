"""Commands about personal access tokens: secrets that sign in as the user who made them."""

import msgspec


class GetTokens(msgspec.Struct):
    pass


class CreateToken(msgspec.Struct):
    """expiry_us: how long it is good for; 0 or U64_MAX is for ever."""

    name: str
    expiry_us: int


class DeleteToken(msgspec.Struct):
    name: str


class LoginWithToken(msgspec.Struct):
    """Sign in with a token. version, context and client, 16 bytes or none, are what the client says of itself."""

    token: str
    version: str = ""
    context: str = ""
    client: bytes = b""


class Token(msgspec.Struct):
    """expires_at_us: microseconds since the epoch, 0 for never."""

    name: str
    expires_at_us: int


class Tokens(msgspec.Struct):
    tokens: list[Token]


class RawToken(msgspec.Struct):
    """The secret itself, told once."""

    token: str
