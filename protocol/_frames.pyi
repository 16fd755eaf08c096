"""What protocol/native/frames.c builds, where there was a C compiler: `verify`, `stamp` and `hop` of batch.py."""

def verify(record: memoryview, /) -> tuple[int, bytes, int, int] | None:
    """Return what a Batch has beside its record: count, checksums, partition id, first delta.

    None for a record that is wrong in any way; `verify_in_python` in batch.py says in which.
    """

def stamp(
    record: memoryview, checksums: bytes, partition_id: int, base_offset: int, base_timestamp_us: int, /
) -> None: ...
def hop(data: memoryview, position: int, offset: int, stop: int, room: int, /) -> tuple[int, int, int, int]: ...
