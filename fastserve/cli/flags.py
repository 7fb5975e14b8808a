"""Flags that several commands share: settings, times, names with values.

Invariants
1. A setting's flag, variable and key in the file are those of `config.SETTINGS`; no command has others.
2. A value that can't be used is refused with what was expected and what came.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias, cast

from fastserve.config import (
    CONFIG_VARIABLE,
    DEFAULT_FILE,
    SETTINGS,
    STORES,
    VARIABLE_PREFIX,
    Setting,
    Settings,
)
from fastserve.errors import DefinitionError, shown

Subparsers: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"  # noqa: SLF001 - its only name
Run: TypeAlias = Callable[[argparse.Namespace, Mapping[str, str]], int]

# Variables that only commands which ask a server read; `serve` is not to warn of them.
URL_VARIABLE = VARIABLE_PREFIX + "URL"
API_KEY_VARIABLE = VARIABLE_PREFIX + "API_KEY"
CLIENT_VARIABLES = (URL_VARIABLE, API_KEY_VARIABLE)

TIME_EXPECTED = "a time as in RFC 3339 (2013-12-30T12:00:00Z) or a date, from 1700 to 2199"
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_NAMED_STORE = re.compile(r"[A-Za-z0-9_-]+=")  # a URL has a colon before any equals sign
_BY_NAME = {setting.name: setting for setting in SETTINGS}


def add_command(commands: Subparsers, name: str, run: Run, help_text: str) -> argparse.ArgumentParser:
    """Return a new command's parser, which arguments hold, too; ``run`` gets these and the environment."""
    parser = commands.add_parser(
        name, help=help_text, description=f"{help_text[0].upper()}{help_text[1:]}.", allow_abbrev=False
    )
    parser.set_defaults(run=run, parser=parser)
    return parser


def add_settings(
    parser: argparse.ArgumentParser,
    names: Sequence[str] = tuple(_BY_NAME),
    defaults: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Give a command the flags of these settings, and ``--config``; ``defaults`` are the command's own."""
    group = parser.add_argument_group(
        "settings", f"each also by a {VARIABLE_PREFIX}… variable or in {DEFAULT_FILE}; the flag wins"
    )
    for name in names:
        setting = _BY_NAME[name]
        help_text = _help(setting, defaults.get(name, setting.default_text))
        if name == "store":
            help_text += "; NAME=URL for a store that views name, may be repeated"
            group.add_argument(setting.flag, action="append", metavar="[NAME=]URL", help=help_text)
        elif name != STORES:  # the same flag
            group.add_argument(setting.flag, dest=name, metavar=_metavar(setting), help=help_text)
    group.add_argument(
        "--config",
        metavar="FILE",
        help=f"settings file (default: the variable {CONFIG_VARIABLE}, or {DEFAULT_FILE} if there is one)",
    )


def load_settings(arguments: argparse.Namespace, environ: Mapping[str, str]) -> Settings:
    """Return the settings out of flags, variables and file.

    Raises:
        DefinitionError: a value that can't be used, or a file that was named and can't be read.
    """
    named = arguments.config or environ.get(CONFIG_VARIABLE)
    path = Path(named or DEFAULT_FILE)
    text = _read(path) if named or path.is_file() else None
    return Settings.load(flags_of(arguments), environ, text, str(path))


def flags_of(arguments: argparse.Namespace) -> dict[str, str | None]:
    """Return the flags that were given, by the settings' names.

    Raises:
        DefinitionError: more than one store without a name.
    """
    flags = {name: getattr(arguments, name) for name in _BY_NAME if hasattr(arguments, name)}
    given: Sequence[str] | None = flags.get("store")
    if given is not None:
        named = [text for text in given if _NAMED_STORE.match(text)]
        urls = [text for text in given if text not in named]
        if len(urls) > 1:
            raise DefinitionError(
                f"flag --store: expected one URL, and NAME=URL for others, got {shown(urls[0])} and "
                f"{shown(urls[1])}"
            )
        flags["store"] = urls[0] if urls else None
        flags[STORES] = " ".join(named) or None
    return flags


def time_argument(text: str) -> datetime:
    """Return the time that a flag gives; a date is its first moment in UTC.

    Raises:
        ArgumentTypeError: it isn't one.
    """
    try:
        return cast(
            "datetime",
            _BY_NAME["clock"].kind.from_text(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text),
        )
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected {TIME_EXPECTED}, got {shown(text)}") from None


def count_argument(minimum: int) -> Callable[[str], int]:
    """Return the reader of a whole number from ``minimum`` on."""

    def count(text: str) -> int:
        if re.fullmatch(r"[0-9]{1,15}", text, re.ASCII) is None or int(text) < minimum:
            raise argparse.ArgumentTypeError(f"expected a whole number from {minimum} on, got {shown(text)}")
        return int(text)

    return count


_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def duration_argument(text: str) -> timedelta:
    """Return the duration that a flag gives: a whole number and s, m, h or d.

    Raises:
        ArgumentTypeError: it isn't one.
    """
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", text, re.ASCII)
    if match is None:
        raise argparse.ArgumentTypeError(f"expected a duration such as 90s, 15m, 2h or 1d, got {shown(text)}")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def pairs(what: str, texts: Sequence[str]) -> dict[str, str]:
    """Return the names and values of ``name=value`` texts; the value may hold further equals signs.

    Raises:
        DefinitionError: a text has no equals sign or no name, or a name comes twice.
    """
    values: dict[str, str] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise DefinitionError(f"{what}: expected NAME=VALUE, got {shown(text)}")
        if name in values:
            raise DefinitionError(f"{what} {shown(name)}: expected once, got it twice")
        values[name] = value
    return values


def _metavar(setting: Setting) -> str:
    special = {
        "host": "ADDRESS",
        "admin_host": "ADDRESS",
        "port": "N",
        "repo": "DIR",
        "workspace": "NAME",
        "clock": "TIME",
        "api_keys": "FILE",
        "tls_cert": "FILE",
        "tls_key": "FILE",
        "tls_client_ca": "FILE",
        "feature_log": "DIR",
        "trace_endpoint": "URL",
        "trace_sample": "SHARE",
    }
    if setting.name in special:
        return special[setting.name]
    return {"log_level": "LEVEL", "log_format": "FORMAT"}.get(setting.name, "N")


def _help(setting: Setting, default: str) -> str:
    unit = f" {setting.unit}" if setting.unit and setting.default is not None else ""
    return f"{setting.help} (default: {default}{unit})".replace("%", "%%")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8"
        raise DefinitionError(
            f"settings file {shown(str(path))}: expected a readable file, got: {reason}"
        ) from None
