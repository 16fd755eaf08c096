"""JSON web tokens: what a login answers with, and what signs a request in.

A token that signed out is remembered until it expires, in memory: with a secret of the configuration's a restart
forgets that, and such a token is good again for the rest of its time.
"""

import base64
import binascii
import secrets
import uuid
from typing import Any

import jwt
import msgspec

from ....protocol.errors import Refused, Status
from ....storage.engine import Clock
from ...catalog import User
from ...config import ConfigError
from ...config.schema import Jwt
from .shapes import AccessToken

_SECRET_SIZE = 64
_REQUIRED = ["sub", "since", "exp", "nbf", "iat", "jti", "iss", "aud"]


class Claims(msgspec.Struct):
    """Whose a token is. since: when that user was made, for ids are given out again. ident: the token's own id."""

    user_id: int
    since: int
    ident: str
    expiry: int


class Tokens:
    """Makes tokens and reads them. Raises ConfigError where the configuration makes that impossible."""

    def __init__(self, settings: Jwt, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        self._secret = _secret(settings)
        self._revoked: dict[str, int] = {}

    def issue(self, user: User) -> AccessToken:
        settings, now = self._settings, self._now
        expiry = now + settings.access_token_expiry_us // 1_000_000
        claims = {
            "jti": str(uuid.uuid4()),
            "sub": str(user.id),
            "since": user.created_at_us,
            "iss": settings.issuer,
            "aud": settings.audience,
            "iat": now,
            "nbf": now + settings.not_before_us // 1_000_000,
            "exp": expiry,
        }
        return AccessToken(jwt.encode(claims, self._secret, settings.algorithm), expiry)

    def read(self, token: str) -> Claims:
        """Return whose a token is. Raises Refused for one that is not ours, not yet or no more good."""
        settings = self._settings
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._secret,
                algorithms=[settings.algorithm],
                audience=list(settings.valid_audiences),
                issuer=list(settings.valid_issuers),
                # The times are checked below, by the broker's clock.
                options={"require": _REQUIRED, "verify_exp": False, "verify_nbf": False, "verify_iat": False},
            )
            found = Claims(int(claims["sub"]), int(claims["since"]), str(claims["jti"]), int(claims["exp"]))
            good_from = int(claims["nbf"])
        except (jwt.InvalidTokenError, ValueError, TypeError) as error:
            raise Refused(Status.UNAUTHENTICATED, f"the token is of no use: {error}") from None
        skew = settings.clock_skew_us // 1_000_000
        if not good_from - skew <= self._now < found.expiry + skew or found.ident in self._revoked:
            raise Refused(Status.UNAUTHENTICATED, "the token is not good any more, or not yet: sign in again")
        return found

    def revoke(self, claims: Claims) -> None:
        """Take a token back. What has expired is forgotten."""
        skew = self._settings.clock_skew_us // 1_000_000
        self._revoked = {ident: expiry for ident, expiry in self._revoked.items() if expiry + skew > self._now}
        self._revoked[claims.ident] = claims.expiry

    @property
    def _now(self) -> int:
        return self._clock() // 1_000_000


def _secret(settings: Jwt) -> bytes:
    """Return what signs: one of the two secrets does for both, and without any it is made up for this run."""
    given = {settings.encoding_secret, settings.decoding_secret} - {""}
    if not given:
        return secrets.token_bytes(_SECRET_SIZE)
    if len(given) > 1:
        raise ConfigError(
            "http.jwt.decoding_secret", f"expected that of .encoding_secret: {settings.algorithm} has one"
        )
    (secret,) = given
    if not settings.use_base64_secret:
        return secret.encode()
    try:
        return base64.b64decode(secret, validate=True)
    except (binascii.Error, ValueError):
        raise ConfigError("http.jwt.encoding_secret", "expected base64, as .use_base64_secret says") from None
