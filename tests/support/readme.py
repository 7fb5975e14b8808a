"""The shell commands of a Markdown file: found, run in their order, and compared with what the file shows.

What counts, so write a README by it:

- In a block fenced by ```` ```console ```` a command begins with ``$ ``. A backslash at a line's end goes on
  with the next one, a here-document (``<<'END'``) to its end. The lines below a command, up to the next
  one, are all that it prints. ``…`` stands for anything within a line; a line that is ``…`` alone stands for
  any number of lines, none included. How many spaces there are doesn't count. A command without lines below
  it may print what it likes.
- In a block fenced by ```` ```sh ```` every line is a command, and nothing is shown. A block without a
  language that follows it is found somewhere in what the last of them has printed. `bash`, `shell` and `zsh`
  are refused, so that no command escapes. Blocks of other languages aren't run.
- Every command has to end with exit code 0 within `COMMAND_TIMEOUT_S`. All run in one shell, so ``cd``,
  ``export``, ``… &`` and ``kill %1`` work.
- ``git clone URL [NAME]`` stands for the fresh copy of this checkout. Without one, the commands begin in it.
- ``make demo``, ``fastserve demo`` and ``fastserve serve`` don't end: they go on in the background once they
  are ready and have printed what is shown, and are stopped at the end or before the next one of them.
- ``127.0.0.1:8080`` and ``localhost:8080`` are replaced by a free port, in commands and output alike, and
  FASTSERVE_PORT and FASTSERVE_URL are set to it; ``127.0.0.1:8081`` and ``--admin-port 8081`` by another.
- ``make test``, ``make check`` and others of `NOT_RUN_AGAIN` are only looked at (``make -n``): they would run
  this test again, or install.
- ``<!-- not run: REASON -->`` on a line of its own above a block keeps the block from being run: for what
  needs a Docker daemon, an account, or minutes.
"""

from __future__ import annotations

import os
import re
import select
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from perf.load.free_port import free_port

COMMAND_TIMEOUT_S = 60.0
READY_TIMEOUT_S = 75.0
REFUSED = ("bash", "shell", "zsh")
NOT_RUN_AGAIN = ("test", "check", "lint", "type", "format", "wheel", "perf-smoke", "lock", "upgrade", "tools")
STAYS = re.compile(r"(?:^|/|\s)(?:make demo|fastserve (?:demo|serve))\b")
README_ADDRESS = re.compile(r"\b(127\.0\.0\.1|localhost):8080\b")
ADMIN_ADDRESS = re.compile(r"(\b127\.0\.0\.1:|\blocalhost:|--admin-port )8081\b")
_FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,}|~{3,}) *(?P<language>[\w+-]*)[^`]*$")
_NOT_RUN = re.compile(r"^ *<!-- not run: (?P<reason>.*\S) *-->$")
_MARK = "fastserve-readme-done"


_HERE_DOCUMENT = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")


@dataclass(frozen=True)
class Command:
    """One command and the lines that it prints; with ``among`` these are among others."""

    line: int
    text: str
    shown: tuple[str, ...] = ()
    among: bool = False


class ReadmeError(AssertionError):
    """A command that doesn't do what the file says."""


def commands(markdown: str) -> list[Command]:
    """Return the commands of a Markdown text that are to be run.

    Raises:
        ReadmeError: a block of a shell that isn't looked at, or output without a command.
    """
    found: list[Command] = []
    last_language = ""
    for language, first_line, block in _blocks(markdown.splitlines()):
        if language in REFUSED:
            raise ReadmeError(f"line {first_line - 1}: expected a console or sh block, got {language}")
        if language == "" and last_language == "sh":
            found[-1] = replace(found[-1], shown=tuple(block), among=True)
        elif language == "console":
            found += _console(first_line, block)
        elif language == "sh":
            found += _script(first_line, block)
        last_language = language
    return found


def _blocks(lines: list[str]) -> Iterator[tuple[str, int, list[str]]]:
    """Give language, number of the first line and lines of every block that is to be looked at."""
    number = 0
    skipped = False
    while number < len(lines):
        line = lines[number]
        number += 1
        fence = _FENCE.match(line)
        if fence is None:
            skipped = (skipped and not line.strip()) or _NOT_RUN.match(line) is not None
            continue
        first = number
        while number < len(lines) and lines[number].strip() != fence["fence"]:
            number += 1
        block = [text.removeprefix(fence["indent"]) for text in lines[first:number]]
        number += 1
        yield "not run" if skipped else fence["language"], first + 1, block
        skipped = False


def _console(first_line: int, block: list[str]) -> list[Command]:
    found: list[Command] = []
    number = 0
    while number < len(block):
        start = number
        if not block[number].startswith("$ "):
            raise ReadmeError(f"line {first_line + number}: expected a command after `$ `, got output")
        text, number = _whole(block, number, block[number][2:])
        shown_from = number
        while number < len(block) and not block[number].startswith("$ "):
            number += 1
        found.append(Command(first_line + start, text, tuple(block[shown_from:number])))
    return found


def _script(first_line: int, block: list[str]) -> list[Command]:
    found: list[Command] = []
    number = 0
    while number < len(block):
        start = number
        text, number = _whole(block, number, block[number])
        if text.strip() and not text.startswith("#"):
            found.append(Command(first_line + start, text))
    return found


def _whole(block: list[str], number: int, text: str) -> tuple[str, int]:
    """Return a command with the lines it goes on with, and the number of the line behind it."""
    number += 1
    while text.endswith("\\") and number < len(block):
        text = f"{text}\n{block[number]}"
        number += 1
    document = _HERE_DOCUMENT.search(text)
    if document is not None:
        while number < len(block):
            text = f"{text}\n{block[number]}"
            number += 1
            if block[number - 1].strip() == document[2]:
                break
    return text, number


def matches(shown: tuple[str, ...], printed: str) -> bool:
    """Whether what was printed is what is shown, with `…` for anything."""
    return _pattern(shown).fullmatch(_tidied(printed)) is not None


def holds(shown: tuple[str, ...], printed: str) -> bool:
    """Whether what is shown is somewhere in what was printed."""
    return re.search(f"^{_pattern(shown).pattern}", _tidied(printed), re.MULTILINE) is not None


def begins_with(shown: tuple[str, ...], printed: str) -> bool:
    """Whether what was printed so far begins with what is shown."""
    return _pattern(shown).match(_tidied(printed)) is not None


def _tidied(text: str) -> str:
    return "".join(f"{' '.join(line.split())}\n" for line in text.strip().splitlines())


def _pattern(shown: tuple[str, ...]) -> re.Pattern[str]:
    parts = []
    for line in _tidied("\n".join(shown)).splitlines():
        anything = line == "…"
        parts.append(r"(?:.*\n)*?" if anything else ".*".join(map(re.escape, line.split("…"))) + r"\n")
    return re.compile("".join(parts))


class Session:
    """A shell in a folder, in which commands run one after the other."""

    def __init__(self, folder: Path, copy: Path, environ: Mapping[str, str], log: Path) -> None:
        self._copy = copy
        self._log = log
        self._port = free_port()
        self._admin_port = free_port()
        self._has_server = False
        self._received = b""
        url = f"http://127.0.0.1:{self._port}"
        self._shell = subprocess.Popen(
            ["bash", "--norc"],
            cwd=folder,
            env={**environ, "FASTSERVE_PORT": str(self._port), "FASTSERVE_URL": url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, command: Command) -> None:
        """Run a command and compare.

        Raises:
            ReadmeError: it fails, takes too long, or prints something else.
        """
        text = self._here(command.text)
        shown = tuple(map(self._here, command.shown))
        clone = re.fullmatch(r"git clone \S+?([\w.-]+?)(?:\.git)?/?(?: ([\w.-]+))?", text)
        make = re.fullmatch(r"make ([a-z-]+)(.*)", text)
        stays = STAYS.search(text) is not None
        if stays:
            self._stop_server()
        if clone is not None:
            text = f"ln -s {shlex.quote(str(self._copy))} {clone[2] or clone[1]}"
        elif make is not None and make[1] in NOT_RUN_AGAIN:
            text, shown = f"make -n {make[1]}{make[2]} >/dev/null", ()
        if stays and not text.endswith("&"):
            self._start_server(command, text, shown)
            return
        code, printed = self._shell_does(text, command.line)
        if code != 0:
            raise ReadmeError(f"line {command.line}: `{text}` ended with {code}\n{printed}")
        if shown and not (holds if command.among else matches)(shown, printed):
            raise ReadmeError(_difference(command.line, text, shown, printed))

    def _here(self, text: str) -> str:
        text = ADMIN_ADDRESS.sub(lambda found: f"{found[1]}{self._admin_port}", text)
        return README_ADDRESS.sub(lambda found: f"{found[1]}:{self._port}", text)

    def _shell_does(self, text: str, line: int) -> tuple[int, str]:
        """Have the shell run a text; return its exit code and what was printed."""
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        script = f"{{ {text}\n}} </dev/null\nprintf '\\n{_MARK} %d\\n' $?\n"
        self._shell.stdin.write(script.encode())
        self._shell.stdin.flush()
        fd = self._shell.stdout.fileno()
        deadline_s = time.monotonic() + COMMAND_TIMEOUT_S
        while (done := re.search(rb"\n%b (\d+)\n" % _MARK.encode(), self._received)) is None:
            left_s = deadline_s - time.monotonic()
            data = os.read(fd, 65536) if left_s > 0 and select.select([fd], [], [], left_s)[0] else None
            if not data:
                what = "ended the shell" if data == b"" else f"took over {COMMAND_TIMEOUT_S:g} s"
                raise ReadmeError(f"line {line}: `{text}` {what}\n{self._received.decode(errors='replace')}")
            self._received += data
        printed = self._received[: done.start()].decode(errors="replace")
        self._received = self._received[done.end() :]
        return int(done[1]), printed

    def _start_server(self, command: Command, text: str, shown: tuple[str, ...]) -> None:
        log = shlex.quote(str(self._log))
        self._shell_does(f"{text} >{log} 2>&1 </dev/null & fastserve_server=$!", command.line)
        self._has_server = True
        is_shown = holds if command.among else begins_with
        deadline_s = time.monotonic() + READY_TIMEOUT_S
        while not (is_ready(self._port) and is_shown(shown, self.server_said())):
            code, _ = self._shell_does("kill -0 $fastserve_server 2>/dev/null", command.line)
            if code != 0:
                raise ReadmeError(f"line {command.line}: `{text}` ended\n{self.server_said()}")
            if time.monotonic() > deadline_s:
                raise ReadmeError(_difference(command.line, text, shown, self.server_said()))
            select.select([], [], [], 0.1)

    def server_said(self) -> str:
        """Return what the server in the background has printed."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def _stop_server(self) -> None:
        if self._has_server:
            self._has_server = False
            self._shell_does("kill $fastserve_server; wait $fastserve_server", 0)

    def close(self) -> None:
        """End the shell and everything that was started in it."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self._shell.pid, number)  # a session of its own: nobody else's processes
            deadline_s = time.monotonic() + 20
            while _group_lives(self._shell.pid) and time.monotonic() < deadline_s:
                self._shell.poll()
                select.select([], [], [], 0.05)
        for pipe in (self._shell.stdin, self._shell.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()
        self._shell.wait()


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _difference(line: int, text: str, shown: tuple[str, ...], printed: str) -> str:
    expected = "\n".join(shown)
    return f"line {line}: `{text}`: expected\n{expected}\ngot\n{printed}"


def is_ready(port: int) -> bool:
    """Whether a server on this port says so."""
    try:
        with build_opener(ProxyHandler({})).open(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except (URLError, OSError):
        return False
