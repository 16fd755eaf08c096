"""A client of the REST API for tests: httpx, signed in, and JSON in and out."""

import asyncio
import base64
from types import TracebackType
from typing import Any

import httpx

from .listeners import LIMITS as LIMITS

CALL_TIMEOUT_S = 20.0


class Rest:
    """One client. `ask` returns a response, `get` and `post` the JSON of a success."""

    def __init__(self, address: str, *, token: str | None = None, context: Any = True, scheme: str = "http") -> None:
        """token: what it brings with each request. context: what proves an https server."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        self.http = httpx.AsyncClient(
            base_url=f"{scheme}://{address}", headers=headers, timeout=CALL_TIMEOUT_S, verify=context, trust_env=False
        )

    async def login(self, username: str = "iggy", password: str | None = None) -> dict[str, Any]:
        """Sign in, and bring the token from now on; the password is the name unless given."""
        identity = await self.post("/users/login", {"username": username, "password": password or username})
        self.http.headers["authorization"] = f"Bearer {identity['access_token']['token']}"
        return identity

    async def ask(self, method: str, path: str, body: object = None, **params: Any) -> httpx.Response:
        return await self.http.request(method, path, json=body, params=params or None)

    async def get(self, path: str, **params: Any) -> Any:
        return succeeded(await self.ask("GET", path, **params)).json()

    async def post(self, path: str, body: object) -> Any:
        return succeeded(await self.ask("POST", path, body)).json()

    async def do(self, method: str, path: str, body: object = None, **params: Any) -> None:
        """Ask for what is answered with nothing."""
        response = succeeded(await self.ask(method, path, body, **params))
        assert not response.content

    async def code(self, method: str, path: str, body: object = None, **params: Any) -> tuple[int, str]:
        """Return how a refused request ends: the HTTP status, and the code of its JSON."""
        response = await self.ask(method, path, body, **params)
        error = response.json()
        assert set(error) == {"id", "code", "reason", "field"}
        return response.status_code, error["code"]

    async def __aenter__(self) -> "Rest":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.http.aclose()


def succeeded(response: httpx.Response) -> httpx.Response:
    assert response.is_success, f"{response.status_code} {response.text}"
    return response


def text64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def message(payload: bytes, **more: object) -> dict[str, object]:
    return {"payload": text64(payload), **more}


def to_partition(*messages: dict[str, object], partition_id: int = 0) -> dict[str, object]:
    """Return the body of a send."""
    value = text64(partition_id.to_bytes(4, "little"))
    return {"partitioning": {"kind": "partition_id", "value": value}, "messages": list(messages)}


def new_topic(name: str = "t", partitions_count: int = 1, **more: object) -> dict[str, object]:
    return {
        "name": name,
        "partitions_count": partitions_count,
        "compression_algorithm": "none",
        "message_expiry": 0,
        "max_topic_size": 0,
        **more,
    }


async def exchange(address: str, data: bytes) -> bytes:
    """Send bytes and return all that comes until the server closes."""
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(CALL_TIMEOUT_S):
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(data)
        answer = await reader.read()
        writer.close()
        return answer
