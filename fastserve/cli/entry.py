"""`fastserve COMMAND …`: finds the command, runs it, turns errors into text and exit codes.

It knows no command's business. Command modules import what is heavy inside their `run`, so that help and
mistyped flags answer at once.

Exit codes: 0 done; 1 the world's fault (a port, a store, a server, a no at the prompt); 2 the caller's (a
flag, a setting, a definition); 70 ours, with a traceback; 130 interrupted.

Invariants
1. An error that fastserve raises on purpose is printed as ``fastserve: error: …`` without a traceback.
2. What went wrong goes to stderr, what was asked for to stdout.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import traceback
from collections.abc import Mapping, Sequence

from fastserve.cli import (
    apply,
    capacity,
    check,
    compact,
    demo,
    explain,
    get,
    import_feast,
    ingest,
    keys,
    materialize,
    serve,
    test_view,
)
from fastserve.compiled import has_loops, is_compiled
from fastserve.errors import DefinitionError, FastserveError, InvariantError

FAILED = 1
USAGE = 2
OUR_FAULT = 70  # EX_SOFTWARE of sysexits.h
INTERRUPTED = 130  # 128 + SIGINT, as shells count it

COMMANDS = (
    *(serve, demo, apply, materialize, ingest, compact, explain, capacity, get, check, test_view, keys),
    import_feast,
)
DESCRIPTION = "An online feature server: feature vectors out of DynamoDB, Redis or a local store, over HTTP."


def main(argv: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run one command and return its exit code; ``argv`` is without the program's name."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may have another encoding
    arguments, unknown = _parser().parse_known_args(argv)
    if unknown:  # told by the command's own parser, whose usage has what it knows
        arguments.parser.error(f"unrecognized arguments: {' '.join(unknown)}")
    try:
        code: int = arguments.run(arguments, os.environ if environ is None else environ)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`fastserve explain … | head`); the flush at exit mustn't complain of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except InvariantError:
        traceback.print_exc()
        return OUR_FAULT
    except FastserveError as error:
        complain(str(error))
        return USAGE if isinstance(error, DefinitionError) else FAILED
    except Exception:  # noqa: BLE001 - the outermost place; whatever comes here nobody foresaw
        traceback.print_exc()
        complain("this is a fault of fastserve's own; the traceback above belongs into the report")
        return OUR_FAULT
    return code


def complain(message: str) -> None:
    """Print an error for the caller."""
    print(f"fastserve: error: {message}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("fastserve", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--version", action=_Version, help="print the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in COMMANDS:
        command.add_parser(commands)
    return parser


class _Version(argparse.Action):
    """``--version``; a checkout that isn't installed has one, too, so metadata isn't asked."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_rest: object) -> None:
        build = ", compiled" if is_compiled() else ", inner loops compiled" if has_loops() else ""
        print(f"fastserve {sys.modules['fastserve'].__version__}{build}")
        parser.exit()
