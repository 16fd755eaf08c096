"""The keys that a run encrypts with: none at all, or others from one life of the process to the next."""

import random

from pybroker.storage.cipher import KEY_SIZE, Keyring

ENCRYPTED_SHARE = 0.5  # of the runs
BEGINNING_SHARE = 0.7  # of the starts of such a run that have no key yet
NEW_KEY_SHARE = 0.3  # of the later ones
OLD_KEY_SHARE = 0.1


class KeyChain:
    """An operator's keys. They have a generator of their own, so that what else happens is the same without them.

    is_lost: the next starts get none of the keys, but one that nothing was sealed with.
    """

    def __init__(self, seed: int) -> None:
        self._rng = random.Random(f"keys of {seed}")
        self._is_used = self._rng.random() < ENCRYPTED_SHARE
        self._keys: list[bytes] = []
        self.is_lost = False

    @property
    def ring(self) -> Keyring | None:
        """All keys so far, the one that seals first; None before there is one."""
        return Keyring(self._keys) if self._keys else None

    def turn(self) -> Keyring | None:
        """Return the keys of a start: as before, with a new one in front, or one of the old ones there again."""
        if self.is_lost:
            return Keyring([self._rng.randbytes(KEY_SIZE)])
        fate = self._rng.random()
        if not self._is_used:
            return None
        if fate < (NEW_KEY_SHARE if self._keys else BEGINNING_SHARE):
            self._keys.insert(0, self._rng.randbytes(KEY_SIZE))
        elif self._keys and fate < NEW_KEY_SHARE + OLD_KEY_SHARE:
            self._keys.insert(0, self._keys.pop(self._rng.randrange(len(self._keys))))
        return self.ring

    def make_nonce(self, size: int) -> bytes:
        """Return what a run has in place of random bytes: the seed alone decides about it."""
        return self._rng.randbytes(size)
