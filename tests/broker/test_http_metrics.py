"""What watches a broker over HTTP: whether it is there, and its metrics."""

import errno
from pathlib import Path

import pytest
from msgspec.structs import replace
from pybroker.broker.config import ConfigError
from pybroker.broker.config.schema import Http, HttpMetrics
from pybroker.broker.listeners.http.listener import HttpListener
from pybroker.broker.listeners.http.own import METRICS_TYPE
from pybroker.protocol.errors import Refused
from support.broker import Broker
from support.engines import Stage
from support.rest import LIMITS, Rest


async def test_health_is_for_everybody(anyone: Rest) -> None:
    response = await anyone.ask("GET", "/health")
    assert (response.status_code, response.text) == (200, "ok")


async def test_a_broker_that_can_serve_is_ready(anyone: Rest) -> None:
    response = await anyone.ask("GET", "/ready")
    assert (response.status_code, response.text) == (200, "ready")


async def test_a_broker_whose_disk_failed_is_not_ready_until_it_is_restarted(tmp_path: Path) -> None:
    stage = Stage("local", tmp_path)
    broker = Broker(stage=stage)
    await broker.create_topic()
    listener = HttpListener(broker.state, broker.dispatch, LIMITS)
    async with Rest(await listener.open("127.0.0.1", 0)) as anyone:
        stage.disk.write_faults = [OSError(errno.EIO, "a secret path")]
        with pytest.raises(Refused):
            await broker.send(b"lost")
        response = await anyone.ask("GET", "/ready")
        assert (response.status_code, response.text.partition(";")[0]) == (503, "the disk failed")
        assert (await anyone.ask("GET", "/health")).status_code == 200
    await listener.finish(1)
    assert not (await stage.reopen()).is_poisoned
    await stage.engine.close()


async def test_a_broker_whose_disk_is_full_is_ready(tmp_path: Path) -> None:
    stage = Stage("local", tmp_path)
    broker = Broker(stage=stage)
    await broker.create_topic()
    stage.disk.write_faults = [OSError(errno.ENOSPC, "no room")]
    with pytest.raises(Refused):
        await broker.send(b"refused")
    assert not broker.state.logs.is_poisoned
    await broker.send(b"kept")
    await stage.engine.close()


async def test_metrics_are_for_those_who_may_read_servers(anyone: Rest, address: str) -> None:
    async with Rest(address) as root, Rest(address) as bob:
        await root.login()
        await bob.login("bob")
        await check_metrics(anyone, root, bob)


async def check_metrics(anyone: Rest, root: Rest, bob: Rest) -> None:
    assert await anyone.code("GET", "/metrics") == (401, "unauthenticated")
    assert await bob.code("GET", "/metrics") == (403, "unauthorized")
    response = await root.ask("GET", "/metrics")
    assert (response.status_code, response.headers["content-type"]) == (200, METRICS_TYPE)
    (asked,) = [line for line in response.text.splitlines() if line.startswith("http_requests_total ")]
    assert float(asked.split()[1]) == 5  # two logins and these three


@pytest.mark.parametrize(
    ("metrics", "path"), [(HttpMetrics(endpoint="/m"), "/metrics"), (HttpMetrics(enabled=False), "/metrics")]
)
async def test_metrics_are_where_the_configuration_says(broker: Broker, metrics: HttpMetrics, path: str) -> None:
    broker.state.config = replace(broker.config, http=Http(metrics=metrics))
    listener = HttpListener(broker.state, broker.dispatch, LIMITS)
    async with Rest(await listener.open("127.0.0.1", 0)) as rest:
        await rest.login()
        assert (await rest.ask("GET", "/metrics")).status_code == 404
        assert (await rest.ask("GET", "/m")).status_code == (200 if metrics.enabled else 404)
        told = {path for path in (await rest.get("/openapi.json"))["paths"] if path in ("/m", "/metrics")}
        assert told == ({"/m"} if metrics.enabled else set())
    await listener.finish(1)


def test_endpoint_of_metrics_is_a_path(broker: Broker) -> None:
    broker.state.config = replace(broker.config, http=Http(metrics=HttpMetrics(endpoint="metrics")))
    with pytest.raises(ConfigError, match="expected a path"):
        HttpListener(broker.state, broker.dispatch, LIMITS)
