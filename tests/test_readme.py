"""Every command of the README and of the quickstart does what it says there, in a fresh copy.

What counts as a command, and how its output is shown, stands in `support/readme.py`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.fresh_copy import copy_checkout
from tests.support.readme import Command, ReadmeError, Session, begins_with, commands, holds, matches
from tests.support.server_process import ROOT


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("clone") / "fastserve")


@contextmanager
def session(checkout: Path, folder: Path) -> Iterator[Session]:
    """Begin where a reader does: in some folder, with nothing set."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FASTSERVE_", "AWS_", "MAKE"))
    }
    path = f"{checkout / '.venv' / 'bin'}{os.pathsep}{kept['PATH']}"
    (folder / "empty").mkdir()
    running = Session(folder / "empty", checkout, {**kept, "PATH": path}, folder / "server.log")
    try:
        yield running
    finally:
        running.close()


def test_every_command_of_the_readme_works(checkout: Path, tmp_path: Path) -> None:
    found = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    with session(checkout, tmp_path) as shell:
        if not any(command.text.startswith("git clone") for command in found):
            shell.run(Command(0, "git clone https://example.org/fastserve", ()))
            shell.run(Command(0, "cd fastserve", ()))
        for command in found:
            shell.run(command)


def test_every_command_of_the_quickstart_works(checkout: Path, tmp_path: Path) -> None:
    with session(checkout, tmp_path) as shell:
        for command in commands((ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")):
            shell.run(command)


def test_the_demo_prints_a_vector_and_a_curl_that_works_when_pasted(checkout: Path, tmp_path: Path) -> None:
    with session(checkout, tmp_path) as shell:
        shell.run(Command(1, "git clone https://example.org/some/fastserve.git", ()))
        shell.run(Command(2, "cd fastserve", ()))
        shown = ("…", "feature value type status effective time", "…", "Serving on http://127.0.0.1:8080 …")
        shell.run(Command(3, "make demo", shown))
        said = shell.server_said()
        assert re.search(r"carrier_delays\.dep_delay_mean_7d_1h +-?\d+\.\d+ +float64 +PRESENT", said)
        curl = re.search(r"^ +(curl .*)$", said, re.MULTILINE)
        assert curl is not None
        shell.run(Command(4, curl[1], ('{"result":{"features":["14","United Air Lines Inc.",…',)))


def test_commands_are_found_with_what_is_shown_below_them() -> None:
    text = """
# Title
```console
$ make demo
some output

more
$ curl -s http://127.0.0.1:8080 \\
    -d '{}'
{"a":…}
```
```python
print("$ no command")
```
<!-- not run: needs a Docker daemon -->

```console
$ docker run fastserve
```
1. In a list:

   ```console
   $ true
   ```
"""
    assert commands(text) == [
        Command(4, "make demo", ("some output", "", "more")),
        Command(8, "curl -s http://127.0.0.1:8080 \\\n    -d '{}'", ('{"a":…}',)),
        Command(23, "true", ()),
    ]


def test_lines_of_a_script_are_commands_and_a_here_document_is_one() -> None:
    text = """
```sh
# a comment
make demo
```

prints a vector:

```
a
```

```console
$ cat > x.py <<'END'
no command
END
$ cat x.py
no command
```
```
not shown by any
```
"""
    assert commands(text) == [
        Command(4, "make demo", ("a",), among=True),
        Command(14, "cat > x.py <<'END'\nno command\nEND"),
        Command(17, "cat x.py", ("no command",)),
    ]


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "```bash\nmake demo\n```",
            "line 1: expected a console or sh block, got bash",
        ),
        ("\n```console\nmake demo\n```", "line 3: expected a command after `$ `, got output"),
    ],
)
def test_a_command_that_would_escape_is_refused(text: str, message: str) -> None:
    with pytest.raises(ReadmeError, match=f"^{re.escape(message)}$"):
        commands(text)


@pytest.mark.parametrize(
    "shown, printed, is_so",
    [
        (("a  b", "c"), "a b\nc  \n", True),
        (("a…c",), "a b c", True),
        (("a…c",), "a b\nc", False),
        (("a", "…", "c"), "a\nb\nb\nc\n", True),
        (("a", "…", "c"), "a\nc\n", True),
        (("…",), "", True),
        (("a", "…"), "b\n", False),
        (("a.c",), "abc", False),
        (("a",), "a\nb", False),
    ],
)
def test_an_ellipsis_stands_for_anything(shown: tuple[str, ...], printed: str, is_so: bool) -> None:
    assert matches(shown, printed) is is_so


def test_what_is_printed_so_far_may_go_on() -> None:
    assert begins_with(("a", "…", "c"), "a\nb\nc\nd\n")
    assert not begins_with(("a", "…", "c"), "a\nb\n")
    assert begins_with((), "")
    assert holds(("b", "c…"), "a\nb\ncd\nd\n")
    assert not holds(("b", "d"), "a\nb\nc\nd\n")


def test_a_command_that_fails_or_says_something_else_is_told(checkout: Path, tmp_path: Path) -> None:
    with session(checkout, tmp_path) as shell:
        shell.run(Command(1, "mkdir here && cd here && export WHO=me", ()))
        shell.run(Command(2, 'echo "$WHO in $(basename "$PWD")"', ("me in here",)))
        with pytest.raises(ReadmeError, match=r"^line 3: `false` ended with 1"):
            shell.run(Command(3, "false", ()))
        with pytest.raises(ReadmeError, match=r"^line 4: `echo a`: expected\nb\ngot\na"):
            shell.run(Command(4, "echo a", ("b",)))
        with pytest.raises(
            ReadmeError, match=r"^line 5: `fastserve serve --repo none` ended\nfastserve: error: "
        ):
            shell.run(Command(5, "fastserve serve --repo none", ()))


def test_the_copy_runs_its_own_fastserve(checkout: Path, tmp_path: Path) -> None:
    with session(checkout, tmp_path) as shell:
        shell.run(
            Command(
                1, "python -c 'import fastserve; print(fastserve.__file__)'", (f"{checkout}/fastserve/…",)
            )
        )
        shell.run(Command(2, "fastserve --version", ("fastserve …",)))
        shell.run(Command(3, f"cd {checkout}", ()))
        shell.run(Command(4, "make check", ()))
