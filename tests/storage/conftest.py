"""The fixtures that the tests of the local engine share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.engines import Stage
from support.machine import Machine


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Stage]:
    """A local engine on a disk that fails on demand."""
    stage = Stage("local", tmp_path)
    yield stage
    await stage.engine.close()


@pytest.fixture
async def machine(tmp_path: Path) -> AsyncIterator[Machine]:
    """A machine that is on; everything that was started on it is closed in the end."""
    machine = Machine(tmp_path)
    yield machine
    await machine.close()
