from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SKIPPED = "import pytest\n\ndef test_a():\n    pytest.skip('a part is missing')\n"
EXPECTED_FAILURE = "import pytest\n\n@pytest.mark.xfail\ndef test_a():\n    assert False\n"


def run(source: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    test = folder / "test_it.py"
    test.write_text(source, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-c", str(ROOT / "pyproject.toml"), "-p", "tests.conftest"]
    command += ["-p", "no:cacheprovider", "--rootdir", str(folder), *options, str(test)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)


def test_a_skip_is_let_pass_unless_it_is_to_fail(tmp_path: Path) -> None:
    assert run(SKIPPED, tmp_path).returncode == pytest.ExitCode.OK
    result = run(SKIPPED, tmp_path, "--fail-on-skip")
    assert result.returncode == pytest.ExitCode.TESTS_FAILED
    assert "--fail-on-skip: 1 skipped, expected none" in result.stdout
    assert "a part is missing" in result.stdout


def test_a_skipped_module_is_a_skip(tmp_path: Path) -> None:
    source = "import pytest\n\npytest.importorskip('no_such_module')\n\ndef test_a():\n    pass\n"
    assert run(source, tmp_path, "--fail-on-skip").returncode != pytest.ExitCode.OK


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    assert run(EXPECTED_FAILURE, tmp_path, "--fail-on-skip").returncode == pytest.ExitCode.OK
