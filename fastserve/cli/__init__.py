"""The command line: argv and environment in, wiring, text and an exit code out. One module per command."""

from __future__ import annotations

from fastserve.cli.entry import main

__all__ = ["main"]
