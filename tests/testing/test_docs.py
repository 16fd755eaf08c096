"""The tests in docs/testing.md, and the one in the README, pass as printed."""

import re
from pathlib import Path

import pytest
from support.programs import programs

pytest_plugins = ("pytester",)

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "testing.md"
TESTS = [program for page in (PAGE, ROOT / "README.md") for program in programs(page) if "def test_" in program]
PLUGINS = ("-p", "pybroker.testing.plugin", "-p", "pytest_asyncio.plugin")


@pytest.mark.parametrize("number", range(len(TESTS)))
def test_tests_of_the_documents_pass(number: int, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    program = TESTS[number]
    pytester.makepyfile(program)
    result = pytester.runpytest_subprocess(*PLUGINS, "--asyncio-mode=auto", "--strict-markers", timeout=60)
    result.assert_outcomes(passed=len(re.findall(r"^(?:async )?def test_", program, re.MULTILINE)))


def test_configuration_of_the_document_is_taken(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    (configuration,) = programs(PAGE, "ini")
    pytester.makeini(configuration)
    pytester.makepyfile("""
        def test_listeners(pybroker_session_server):
            assert sorted(pybroker_session_server.addresses) == ["http", "tcp"]
    """)
    pytester.runpytest_subprocess(*PLUGINS, timeout=60).assert_outcomes(passed=1)
