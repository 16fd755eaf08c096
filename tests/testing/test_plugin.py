"""The pytest plugin, in runs of pytest of its own."""

import tomllib
from pathlib import Path

import pytest

pytest_plugins = ("pytester",)

PLUGIN = ("-p", "pybroker.testing.plugin")
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def only_named_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether pybroker is installed with its entry point makes no difference here."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


def run(pytester: pytest.Pytester, text: str, *arguments: str) -> pytest.RunResult:
    """Run a test file's text with the plugin."""
    pytester.makepyfile(text)
    return pytester.runpytest_subprocess(*PLUGIN, "--strict-markers", "-Werror", *arguments, timeout=60)


def test_plugin_is_what_pytest_finds() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"pybroker": "pybroker.testing.plugin"}


def test_fixtures_serve_tests_without_a_loop(pytester: pytest.Pytester) -> None:
    text = """
        import socket

        shared = []

        def test_url(pybroker_server, pybroker_url):
            assert pybroker_url == f"iggy://iggy:iggy@{pybroker_server.address}"
            socket.create_connection(("127.0.0.1", pybroker_server.port), 10).close()

        def test_each_test_has_its_own(pybroker_server, pybroker_session_server):
            assert pybroker_server is not pybroker_session_server
            assert pybroker_server.address != pybroker_session_server.address
            shared.append(pybroker_session_server)

        def test_one_is_shared(pybroker_session_server):
            assert shared == [pybroker_session_server]
    """
    run(pytester, text).assert_outcomes(passed=3)


def test_fixtures_serve_tests_in_a_loop(pytester: pytest.Pytester) -> None:
    text = """
        import asyncio

        async def test_connects(pybroker_server):
            _, writer = await asyncio.open_connection("127.0.0.1", pybroker_server.port)
            writer.close()
            await writer.wait_closed()
    """
    options = ("-p", "pytest_asyncio.plugin", "-o", "asyncio_default_fixture_loop_scope=function")
    run(pytester, text, *options, "--asyncio-mode=auto").assert_outcomes(passed=1)


def test_markers_say_what_the_broker_is_like(pytester: pytest.Pytester) -> None:
    text = """
        import pytest

        pytestmark = pytest.mark.pybroker(listeners=("tcp", "http"), settings={"tcp.wire": "vsr"})

        def test_of_the_module(pybroker_server):
            assert set(pybroker_server.addresses) == {"tcp", "http"}

        @pytest.mark.pybroker(listeners=("http",))
        def test_closest_wins(pybroker_server):
            assert set(pybroker_server.addresses) == {"http"}

        @pytest.mark.pybroker(settings={"tcp.wires": "vsr"})
        def test_wrong(pybroker_server):
            pass
    """
    result = run(pytester, text)
    result.assert_outcomes(passed=2, errors=1)
    result.stdout.fnmatch_lines(["*settings: unknown key 'tcp.wires'; did you mean tcp.wire?*"])


def test_configuration_holds_for_the_whole_suite(pytester: pytest.Pytester) -> None:
    pytester.makeini("""
        [pytest]
        pybroker_listeners = http
        pybroker_settings =
            http.metrics.enabled = false
            system.logging.level = off
    """)
    text = """
        from urllib.error import HTTPError
        from urllib.request import urlopen

        import pytest

        def test_metrics_are_off(pybroker_server, pybroker_session_server):
            for server in (pybroker_server, pybroker_session_server):
                assert set(server.addresses) == {"http"}
                with pytest.raises(HTTPError, match="404") as raised:
                    urlopen(f"http://{server.addresses['http']}/metrics", timeout=10)
                raised.value.close()
    """
    run(pytester, text).assert_outcomes(passed=1)


def test_configuration_that_is_no_pair_is_refused(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\npybroker_settings = fast")
    result = run(pytester, "def test_any(pybroker_server): pass")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*pybroker_settings: given 'fast', expected lines such as*"])


def test_suites_without_a_broker_import_nothing_for_it(pytester: pytest.Pytester) -> None:
    text = """
        import sys

        def test_little_is_imported():
            ours = {name for name in sys.modules if name.partition(".")[0] == "pybroker"}
            assert ours == {"pybroker", "pybroker.testing", "pybroker.testing.plugin"}
            assert not {"argon2", "asyncio", "msgspec", "uvloop", "xxhash"} & set(sys.modules)
    """
    run(pytester, text).assert_outcomes(passed=1)


def test_testing_needs_no_pytest(pytester: pytest.Pytester) -> None:
    program = "import sys; from pybroker.testing import broker, running; assert 'pytest' not in sys.modules"
    assert pytester.runpython_c(program).ret == 0
