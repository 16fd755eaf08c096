"""The Web UI: a folder of files below /ui, and its page for the paths that only the page knows."""

from pathlib import Path

import pytest
from msgspec.structs import replace
from pybroker.broker.config import Config, ConfigError
from pybroker.broker.config.schema import Http, Pybroker
from pybroker.broker.listeners.http.listener import HttpListener
from support.broker import Broker
from support.rest import LIMITS, Rest, exchange

PAGE = "<html>the page</html>"
SCRIPT = "import './other.js'"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A built UI, and beside it what is nobody's business."""
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "ui"
    (folder / "_app").mkdir(parents=True)
    (folder / "index.html").write_text(PAGE)
    (folder / "_app" / "start.js").write_text(SCRIPT)
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    return folder


def broker_with(*, path: str) -> Broker:
    return Broker(config=replace(Config(), http=Http(web_ui=True), pybroker=Pybroker(web_ui_path=path)))


@pytest.fixture
def broker(folder: Path) -> Broker:
    return broker_with(path=str(folder))


@pytest.mark.parametrize(
    "path", ["/ui", "/ui/", "/ui/index.html", "/ui/dashboard/streams/0", "/ui/auth/sign-in", "/ui/_app"]
)
async def test_the_page_is_for_everybody_on_all_of_its_paths(anyone: Rest, path: str) -> None:
    response = await anyone.ask("GET", path)
    assert (response.status_code, response.text) == (200, PAGE)
    assert response.headers["content-type"].startswith("text/html")


async def test_files_come_with_their_types_and_only_when_they_changed(anyone: Rest) -> None:
    response = await anyone.ask("GET", "/ui/_app/start.js")
    assert (response.status_code, response.text) == (200, SCRIPT)
    assert response.headers["content-type"].startswith("text/javascript")
    again = await anyone.http.get("/ui/_app/start.js", headers={"if-none-match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_a_file_that_is_not_there_is_no_page(anyone: Rest) -> None:
    response = await anyone.ask("GET", "/ui/_app/gone.js")
    assert (response.status_code, response.text) == (404, "Not Found")
    assert (await anyone.ask("POST", "/ui/index.html")).status_code == 405
    assert (await anyone.ask("GET", "/uix")).status_code == 404


@pytest.mark.parametrize(
    "path", ["/ui/../secret.txt", "/ui/..%2fsecret.txt", "/ui/%2e%2e/secret.txt", "/ui//secret.txt", "/ui/link.txt"]
)
async def test_nothing_outside_of_the_folder_is_served(address: str, path: str) -> None:
    answer = await exchange(address, f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"secret" not in answer


async def test_without_a_folder_nothing_is_served_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    broker = broker_with(path="")
    listener = HttpListener(broker.state, broker.dispatch, LIMITS)
    async with Rest(await listener.open("127.0.0.1", 0)) as rest:
        assert (await rest.ask("GET", "/ui/")).status_code == 404
        assert (await rest.ask("GET", "/ping")).text == "pong"
    await listener.finish(1)
    assert "set pybroker.web_ui_path" in caplog.text


def test_a_folder_without_a_page_is_refused_at_the_start(tmp_path: Path) -> None:
    broker = broker_with(path=str(tmp_path))
    with pytest.raises(ConfigError, match=r"pybroker\.web_ui_path: .* an index\.html"):
        HttpListener(broker.state, broker.dispatch, LIMITS)
