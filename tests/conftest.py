"""What holds for every test: ``--fail-on-skip`` for CI, which misses nothing, and one hypothesis profile."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests.support.redis_servers import redis_cluster, redis_server

__all__ = ["redis_cluster", "redis_server"]  # of each server one for the session, for whoever asks for it

# No deadline: it measures the machine's other tenants. A failure prints the blob that plays it again.
settings.register_profile("fastserve", deadline=None, print_blob=True)
settings.load_profile("fastserve")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fail-on-skip", action="store_true", help="fail if any test or module is skipped")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Turn a success with skipped tests into a failure; expected failures aren't skips."""
    if not session.config.getoption("--fail-on-skip"):
        return
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    skipped = reporter.stats.get("skipped", []) if reporter is not None else []
    if skipped and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped and config.getoption("--fail-on-skip"):
        terminalreporter.write_line(f"--fail-on-skip: {len(skipped)} skipped, expected none", red=True)
