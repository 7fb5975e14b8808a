"""The Dockerfile's promises, read from its text: no engine is needed, so they are checked everywhere."""

from __future__ import annotations

import ast
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
STATE = "/var/lib/fastserve"


class Instruction(NamedTuple):
    word: str
    rest: str


def instructions(text: str) -> list[Instruction]:
    """Return the instructions with continued lines joined; comments may stand between these."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n", " ", "\n".join(lines))
    found = [line.strip().split(None, 1) for line in whole.splitlines()]
    return [Instruction(word.upper(), rest.strip()) for word, rest in found]


def stages() -> list[list[Instruction]]:
    parts: list[list[Instruction]] = []
    for instruction in instructions((ROOT / "Dockerfile").read_text(encoding="utf-8")):
        if instruction.word == "FROM":
            parts.append([])
        if parts:
            parts[-1].append(instruction)
    return parts


def final(word: str) -> list[str]:
    return [instruction.rest for instruction in stages()[-1] if instruction.word == word]


def copied_from_the_checkout() -> Iterator[str]:
    for stage in stages():
        for word, rest in stage:
            if word in {"COPY", "ADD"} and "--from=" not in rest:
                *sources, _ = [part for part in rest.split() if not part.startswith("--")]
                yield from sources


def test_it_is_built_in_stages_from_a_slim_base() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert len(stages()) == 2
    slim = re.search(r"^ARG PYTHON_IMAGE=python:(3\.\d+)-slim$", text, re.MULTILINE)
    whole = re.search(r"^ARG COMPILER_IMAGE=python:(3\.\d+)$", text, re.MULTILINE)
    assert slim is not None
    assert whole is not None
    assert whole[1] == slim[1]  # what is compiled for one version can't be loaded by another
    assert [stage[0].rest.split()[0] for stage in stages()] == ["${COMPILER_IMAGE}", "${PYTHON_IMAGE}"]


def test_what_is_built_is_the_compiled_build() -> None:
    (environment,) = [rest for word, rest in stages()[0] if word == "ENV"]
    assert "FASTSERVE_COMPILED=1" in environment.split()


def test_what_builds_does_not_travel() -> None:
    assert all(rest.startswith("python -m compileall ") for rest in final("RUN"))
    assert all("--from=build" in rest for rest in final("COPY"))


def test_everything_fetched_is_held_to_a_hash() -> None:
    for stage in stages():
        for command in (part.strip() for word, rest in stage if word == "RUN" for part in rest.split("&&")):
            if re.match(r"pip .*\b(install|wheel)\b", command):
                assert re.search(
                    r"--require-hashes|--no-index|--no-deps .*--no-build-isolation .*\.$", command
                ), command
            assert not re.search(r"\b(curl|wget|apt-get)\b", command), command


def test_nobody_is_root_and_the_user_is_a_number() -> None:
    (user,) = final("USER")
    assert re.fullmatch(r"[1-9]\d{3,}:[1-9]\d{3,}", user)
    assert f"--chown={user} /state {STATE}" in " ".join(final("COPY"))


def test_signals_reach_the_arbiter() -> None:
    (entrypoint,) = final("ENTRYPOINT")
    (command,) = final("CMD")
    assert json.loads(entrypoint) == ["/opt/fastserve/bin/fastserve"]
    assert json.loads(command) == ["serve"]
    assert final("STOPSIGNAL") == ["SIGTERM"]


def test_the_root_file_system_may_be_read_only() -> None:
    (environment,) = final("ENV")
    assert "PYTHONDONTWRITEBYTECODE=1" in environment.split()
    assert final("WORKDIR") == [STATE]
    assert [json.loads(volume) for volume in final("VOLUME")] == [[STATE]]
    built = " ".join(rest for word, rest in stages()[0] if word == "RUN")
    assert re.search(r"-m compileall .*--invalidation-mode unchecked-hash /opt/fastserve/lib", built)


def test_the_health_check_runs_without_a_shell_and_without_curl() -> None:
    (check,) = final("HEALTHCHECK")
    options, _, command = check.partition("CMD ")
    python, flag, code = json.loads(command)
    assert (python, flag) == ("/opt/fastserve/bin/python", "-c")
    assert "--timeout=" in options
    port = "os.environ.get('FASTSERVE_ADMIN_PORT') or os.environ.get('FASTSERVE_PORT') or 8080"
    assert f"'127.0.0.1', int({port})" in code
    ast.parse(code)
    (request,) = re.findall(r"sendall\((b'.*?')\)", code)
    assert ast.literal_eval(request).split(b"\r\n") == [
        b"GET /healthz HTTP/1.1",
        b"Host: localhost",
        b"Connection: close",
        b"",
        b"",
    ]


@pytest.mark.parametrize("variable", ["FASTSERVE_PORT", "FASTSERVE_ADMIN_PORT"])
@pytest.mark.parametrize("status, healthy", [(b"200 OK", True), (b"503 Service Unavailable", False)])
def test_the_health_check_tells_a_healthy_server_from_another(
    status: bytes, variable: str, *, healthy: bool
) -> None:
    (check,) = final("HEALTHCHECK")
    code = json.loads(check.partition("CMD ")[2])[2]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        port = listener.getsockname()[1]
        checker = subprocess.Popen([sys.executable, "-c", code], env={variable: str(port)})
        with listener.accept()[0] as connection:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n\r\n")
            assert (checker.wait(timeout=10) == 0) is healthy


@pytest.mark.parametrize("path", sorted(set(copied_from_the_checkout())))
def test_what_is_copied_is_there_and_is_not_ignored(path: str) -> None:
    assert (ROOT / path).exists()
    ignored = False
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip()
        if pattern and not pattern.startswith("#") and fnmatch(path, pattern.removeprefix("!")):
            ignored = not pattern.startswith("!")
    assert not ignored
