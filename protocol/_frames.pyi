"""What protocol/native/frames.c builds, where there was a C compiler: `verify` for the records that are right."""

def verify(record: memoryview, /) -> tuple[int, bytes, int, int] | None:
    """Return what a Batch has beside its record: count, checksums, partition id, first delta.

    None for a record that is wrong in any way; `verify_in_python` in batch.py says in which.
    """
