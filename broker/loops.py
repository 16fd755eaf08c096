"""Which event loop everything runs on."""

import asyncio
import os
from collections.abc import Callable


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return uvloop's loop where it is installed, None for asyncio's own elsewhere."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def has_cores() -> bool:
    """Say whether the machine has more than one core, so that clients run while this process does."""
    return (os.cpu_count() or 1) > 1
