"""A bare sign-in over asyncio's streams: for who runs in the loop of the broker that answers."""

import asyncio

from .raw import HEADER_SIZE, REPLY, login_body, request_frame

TIMEOUT_S = 20.0


async def signed_in(address: str) -> bool:
    """Connect, sign in as root, say whether it was let in, and leave. Raises IncompleteReadError when closed."""
    async with asyncio.timeout(TIMEOUT_S):
        reader, writer = await asyncio.open_connection(*address.split(":"))
        writer.write(request_frame(login_body(), operation=1, request=0))
        try:
            header = await reader.readexactly(HEADER_SIZE)
        finally:
            writer.close()
            await writer.wait_closed()
    return header[60] == REPLY
