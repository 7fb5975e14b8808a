"""`--fail-on-skip` turns a run with skipped tests or modules into a failure, and no other run.

Each run is pytest in pytest, in this process: a process of its own would import everything anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = "import pytest\n\ndef test_a():\n    pytest.skip('a part is missing')\n"
SKIPPED_MODULE = "import pytest\n\npytest.importorskip('no_such_module')\n\ndef test_a():\n    pass\n"
EXPECTED_FAILURE = "import pytest\n\n@pytest.mark.xfail\ndef test_a():\n    assert False\n"


def run(pytester: pytest.Pytester, source: str, *options: str) -> pytest.RunResult:
    """Run a module's tests beside one that passes."""
    pytester.makepyfile(test_it=source, test_another="def test_a():\n    pass\n")
    ours = ("-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest", "-p", "no:cacheprovider")
    return pytester.runpytest_inprocess(
        *ours, "--rootdir", str(pytester.path), *options, "test_it.py", "test_another.py"
    )


def test_a_skip_is_let_pass_unless_it_is_to_fail(pytester: pytest.Pytester) -> None:
    assert run(pytester, SKIPPED).ret == pytest.ExitCode.OK
    result = run(pytester, SKIPPED, "--fail-on-skip")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.stdout.fnmatch_lines(["*--fail-on-skip: 1 skipped, expected none", "*a part is missing*"])


def test_a_skipped_module_is_a_skip(pytester: pytest.Pytester) -> None:
    assert run(pytester, SKIPPED_MODULE).ret == pytest.ExitCode.OK
    assert run(pytester, SKIPPED_MODULE, "--fail-on-skip").ret == pytest.ExitCode.TESTS_FAILED


def test_an_expected_failure_is_no_skip(pytester: pytest.Pytester) -> None:
    assert run(pytester, EXPECTED_FAILURE, "--fail-on-skip").ret == pytest.ExitCode.OK
