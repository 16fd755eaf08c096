"""AES-256-GCM of a stored record's body. What is encrypted never leaves the engine, what is plain never reaches it.

The layout is in seal.py. A key's id is the first 4 bytes of a SHA-256 over it: which key it was, not what it is.

Nonces are random: after 2^32 records under one key the chance of two alike is 2^-33, and worth a new key.
"""

from hashlib import sha256
from secrets import token_bytes

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import GCM
from xxhash import xxh32_intdigest

from ..protocol.batch import HEADER_SIZE, BadBatch, Buffer
from .errors import UnknownKey
from .seal import MAGIC, NONCE_SIZE, SEAL, SEAL_END, SEAL_POSITION, TAG_SIZE

KEY_SIZE = 32
_ZEROS = bytes(HEADER_SIZE - SEAL_END)
_RESERVED = bytes(HEADER_SIZE - SEAL_POSITION)
# Two ways to one result. AESGCM takes 2 us for a small record, but copies; Cipher takes 10 us and writes where it is
# told: 0.1 ms for a record of 1 MB instead of 0.1 to 2 ms, most of which is new pages (CPython 3.11, AES instructions).
_LARGE_SIZE_MIN = 64 * 1024
_ID_LABEL = b"pybroker key id\0"


class Keyring:
    """The keys of an engine: the first one seals, all of them open."""

    def __init__(self, keys: list[bytes]) -> None:
        """keys: at least one, of 32 bytes each."""
        assert keys and all(len(key) == KEY_SIZE for key in keys), "keys have 32 bytes"
        self._keys = {key_id(key): (AESGCM(key), AES(key)) for key in reversed(keys)}
        self.writing_id = key_id(keys[0])
        self._id = bytes.fromhex(self.writing_id)
        self._id_check = xxh32_intdigest(self._id)

    def __contains__(self, wanted: str) -> bool:
        return wanted in self._keys

    def seal(self, record: Buffer) -> Buffer:
        """Return a plain record as it is stored."""
        view, nonce = memoryview(record), token_bytes(NONCE_SIZE)
        head, frames = bytes(view[:SEAL_POSITION]), view[HEADER_SIZE:]
        small, large = self._keys[self.writing_id]
        if len(view) < _LARGE_SIZE_MIN:
            sealed = small.encrypt(nonce, frames, head + self._id)
            return b"".join((head, self._pack(nonce, sealed[-TAG_SIZE:]), _ZEROS, sealed[:-TAG_SIZE]))
        stored = bytearray(len(view))
        encryptor = Cipher(large, GCM(nonce)).encryptor()
        encryptor.authenticate_additional_data(head + self._id)
        encryptor.update_into(frames, memoryview(stored)[HEADER_SIZE:])
        encryptor.finalize()
        stored[:SEAL_END] = head + self._pack(nonce, encryptor.tag)
        return stored

    def unseal(self, record: memoryview) -> memoryview:
        """Return the plain record. Raises BadBatch if a byte of it was changed, UnknownKey without its key."""
        nonce, tag, ident, _, _ = SEAL.unpack_from(record, SEAL_POSITION)
        ciphers = self._keys.get(ident.hex())
        if ciphers is None:
            raise UnknownKey(ident.hex())
        head, frames = bytes(record[:SEAL_POSITION]), record[HEADER_SIZE:]
        try:
            if len(record) < _LARGE_SIZE_MIN:
                opened = ciphers[0].decrypt(nonce, b"".join((frames, tag)), head + ident)
                return memoryview(b"".join((head, _RESERVED, opened)))
            plain = bytearray(len(record))
            decryptor = Cipher(ciphers[1], GCM(nonce, tag)).decryptor()
            decryptor.authenticate_additional_data(head + ident)
            decryptor.update_into(frames, memoryview(plain)[HEADER_SIZE:])
            decryptor.finalize()
        except InvalidTag:
            raise BadBatch(SEAL_POSITION + NONCE_SIZE, "the encrypted record was changed") from None
        plain[:SEAL_POSITION] = head
        return memoryview(plain)

    def _pack(self, nonce: bytes, tag: bytes) -> bytes:
        return SEAL.pack(nonce, tag, self._id, self._id_check, MAGIC)


def key_id(key: bytes) -> str:
    """Return what a key is called, 8 hexadecimal digits."""
    return sha256(_ID_LABEL + key).hexdigest()[:8]
