"""The fixture that the tests of the local engine share."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from support.engines import Stage


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Stage]:
    """A local engine on a disk that fails on demand."""
    stage = Stage("local", tmp_path)
    yield stage
    await stage.engine.close()
