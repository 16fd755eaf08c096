"""How a record is kept in a file: as it came, or sealed with a key; and the proof that it still is what it was."""

from ...protocol.batch import BadBatch, Buffer, span_of, verify
from ..errors import UnknownKey
from ..seal import Keys, sealed_with

# Decrypted records are joined to one buffer up to this average size: a copy is cheaper than one more buffer to send.
_JOINED_SIZE_MAX = 16 * 1024


class Codec:
    """What stands between the records of a log and the bytes of its files.

    keys: what records are sealed with from now on; None keeps them plain.
    validate: verify what is read.
    """

    def __init__(self, keys: Keys | None = None, *, validate: bool = True) -> None:
        self.keys = keys
        self.validate = validate

    @property
    def writing_id(self) -> str | None:
        """The id of the key that new records are sealed with, None when they are kept plain."""
        return None if self.keys is None else self.keys.writing_id

    def encode(self, record: Buffer) -> Buffer:
        """Return a stamped record as it is written; it has the same size."""
        return record if self.keys is None else self.keys.seal(record)

    def decode(self, record: memoryview) -> memoryview:
        """Return the plain record that exactly `record` holds, every byte proven. Raises BadBatch, UnknownKey."""
        key = sealed_with(record)
        if key is not None:
            if self.keys is None:
                raise UnknownKey(key)
            return self.keys.unseal(record)
        if verify(record).first_delta:
            raise BadBatch(0, "the record does not start with its first message")
        return record

    def deliver(self, run: memoryview, *, trusted: bool) -> tuple[list[memoryview], int, BadBatch | None]:
        """Return what readers get of a run of stored records, how many bytes of the run that is, and why no more.

        trusted: plain records need no proof. The run is walked already, so sizes fit. Plain records come as a view
        of `run`, sealed ones in new buffers.
        """
        if self.keys is None and (trusted or not self.validate):
            return [run], len(run), None
        pieces: list[memoryview] = []
        end, fault = 0, None
        try:
            while end < len(run):
                size = span_of(run, end)[1]
                pieces.append(self._open(run[end : end + size], trusted=trusted))
                end += size
        except BadBatch as error:
            fault = error
        if not pieces:
            return [], 0, fault
        if self.keys is None:
            return [run[:end]], end, fault
        if end > len(pieces) * _JOINED_SIZE_MAX:
            return pieces, end, fault
        return [memoryview(b"".join(pieces))], end, fault

    def _open(self, record: memoryview, *, trusted: bool) -> memoryview:
        if (trusted or not self.validate) and sealed_with(record) is None:
            return record
        return self.decode(record)
