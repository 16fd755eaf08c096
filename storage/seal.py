"""How a sealed record looks, for those who need not open it.

A sealed record has the size of the plain one. Its frames are the ciphertext; what opens them lies in header bytes
that are zero in a plain record (little-endian; sizes in bytes):

    +-----+--------------------------------+-----+
    |   0 | the plain record's header      |  52 |
    |  52 | nonce, random                  |  12 |
    |  64 | tag                            |  16 |
    |  80 | key id                         |   4 |
    |  84 | XXH32 of the key id's 4 bytes  |   4 |
    |  88 | A5 41 45 53                    |   4 |
    |  92 | zeros                          | 164 |
    +-----+--------------------------------+-----+

Authenticated beside the frames: bytes 0..51 and the key id. So offset, time, size and count can be read without the
key, and not changed. This module stays apart from the cipher, whose library takes 7 MB of memory.
"""

from struct import Struct
from typing import Protocol

from xxhash import xxh32_intdigest

from ..protocol.batch import HEADER_SIZE, Buffer

NONCE_SIZE = 12
TAG_SIZE = 16
SEAL_POSITION = 52
MAGIC = b"\xa5AES"
SEAL = Struct(f"<{NONCE_SIZE}s{TAG_SIZE}s4sI4s")
SEAL_END = SEAL_POSITION + SEAL.size


class Keys(Protocol):
    """What seals records and opens them: cipher.Keyring."""

    @property
    def writing_id(self) -> str:
        """The id of the key that seals."""
        ...

    def __contains__(self, wanted: str) -> bool:
        """Say whether there is a key with this id."""
        ...

    def seal(self, record: Buffer) -> Buffer:
        """Return a plain record as it is stored."""
        ...

    def unseal(self, record: memoryview) -> memoryview:
        """Return the plain record. Raises BadBatch if a byte of it was changed, UnknownKey without its key."""
        ...


def sealed_with(record: Buffer, position: int = 0) -> str | None:
    """Return the id of the key that the record at `position` is sealed with, None for a plain or damaged header."""
    if position + HEADER_SIZE > len(record):
        return None
    _, _, ident, check, magic = SEAL.unpack_from(record, position + SEAL_POSITION)
    if magic != MAGIC or check != xxh32_intdigest(ident):
        return None
    return ident.hex()
