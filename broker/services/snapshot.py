"""What a person who is asked for help wants to see of a server, as a zip of texts. No secrets, no messages."""

import asyncio
from threading import Lock

from ...protocol.errors import Refused, Status
from ...protocol.model.system import GetSnapshot, Snapshot
from ...protocol.primitives import SnapshotCompression, SnapshotKind
from ..session import Session
from ..state import State

_one_at_a_time = Lock()


async def take(state: State, _session: Session, command: GetSnapshot) -> Snapshot:
    """Collect the kinds asked for, a text each; a part that fails is left out, and the log says why.

    ALL is all but the test, and stands alone. None is an empty zip. Another one at the same time is refused.
    """
    kinds = list(dict.fromkeys(command.kinds))
    if SnapshotKind.ALL in kinds:
        if len(command.kinds) > 1:
            raise Refused(Status.INVALID_COMMAND, "a snapshot of everything names no other kind")
        kinds = [kind for kind in SnapshotKind if kind not in (SnapshotKind.ALL, SnapshotKind.TEST)]
    return Snapshot(await asyncio.to_thread(_collect, state, kinds, command.compression))


def _collect(state: State, kinds: list[SnapshotKind], compression: SnapshotCompression) -> bytes:
    from .snapshot_files import pack  # only for who asks

    # Held and given back in the thread: who asked may be gone before it is done.
    if not _one_at_a_time.acquire(blocking=False):
        raise Refused(Status.SNAPSHOT_FILE_COMPLETION_FAILED, "another snapshot is being made, ask again later")
    try:
        return pack(state, kinds, compression)
    finally:
        _one_at_a_time.release()
