"""How lines of the log are written: as text, or as a JSON object each.

Whoever logs doesn't know. What callers send may stand in a message; this is where it is made harmless.

Invariants
1. A JSON line is one object and one line, whatever was logged, and of at most about `MAX_LINE_CHARACTERS`;
   text is of as many.
2. What looks like a secret (authorization, keys, tokens, passwords) is written as `***` in both formats.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType

import orjson

_ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
MAX_MESSAGE_CHARACTERS = 4096
MAX_TRACEBACK_CHARACTERS = 16_384
MAX_LINE_CHARACTERS = 2 * (MAX_MESSAGE_CHARACTERS + MAX_TRACEBACK_CHARACTERS)
MAX_TEXT_CHARACTERS = MAX_MESSAGE_CHARACTERS + MAX_TRACEBACK_CHARACTERS
"""Of a message, and of a traceback, in the text format: to look for secrets in megabytes blocks a worker."""
TEXT_FORMAT = "%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"
_ASSIGNED = r"((?:['\"]?\s*[:=]\s*(?:b(?=['\"]))?['\"]?))"
_SECRETS = (
    # A header's whole value; a value of its own; our API keys, wherever they stand.
    re.compile(rf"(?i)(authorization){_ASSIGNED}[^'\"\r\n]+"),
    re.compile(
        r"(?i)(x-amz-security-token|secret[ _-]?access[ _-]?key|session[ _-]?token|password|api[ _-]?key)"
        rf"{_ASSIGNED}[^\s'\",&}}]+"
    ),
    re.compile(r"()()\bfs_[A-Za-z0-9_-]{16,}"),
)


def redacted(text: str) -> str:
    """Return the text with `***` in place of what looks like a secret."""
    for pattern in _SECRETS:
        text = pattern.sub(r"\1\2***", text)
    return text


class TextFormatter(logging.Formatter):
    """The ordinary format, without secrets and what is longer than anybody reads."""

    def __init__(self) -> None:
        super().__init__(TEXT_FORMAT)

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's lines."""
        return redacted(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - its base's name
        """Return the record's first part, which may be a traceback of another process."""
        if len(record.message) > MAX_TEXT_CHARACTERS:
            record.message = f"{record.message[: MAX_TEXT_CHARACTERS - 1]}…"
        return super().formatMessage(record)

    def formatException(self, ei: _ExceptionInfo) -> str:  # noqa: N802 - its base's name
        """Return the end of a traceback, which says what went wrong."""
        text = super().formatException(ei)
        return text if len(text) <= MAX_TEXT_CHARACTERS else f"…{text[1 - MAX_TEXT_CHARACTERS :]}"


class JsonFormatter(logging.Formatter):
    """A JSON object per record: time, level, logger, pid, message; an error; what was given as `fields`."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record's line."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": _capped(record.getMessage(), MAX_MESSAGE_CHARACTERS),
        }
        if record.exc_info and record.exc_info[0] is not None:
            line["error"] = record.exc_info[0].__name__
            line["traceback"] = _capped_front(self.formatException(record.exc_info), MAX_TRACEBACK_CHARACTERS)
        fields = getattr(record, "fields", None)
        if isinstance(fields, Mapping):
            line |= {name: value for name, value in fields.items() if name not in line}
        return orjson.dumps(line, default=_shown).decode()


def _capped(text: str, limit: int) -> str:
    text = _storable(redacted(text[: 2 * limit]))
    return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _capped_front(text: str, limit: int) -> str:
    """Return the end of a text: that of a traceback says what went wrong."""
    text = _storable(redacted(text[-2 * limit :]))
    return text if len(text) <= limit else f"…{text[1 - limit :]}"


def _storable(text: str) -> str:
    """Return the text without halves of surrogate pairs, which no JSON can hold."""
    return text.encode("utf-8", "backslashreplace").decode()


def _shown(value: object) -> str:
    return _capped(str(value), 64)


def start_logging(level: str, log_format: str = "text") -> None:
    """Log to stderr; of the AWS libraries only warnings, unless everything is wanted: every worker tells."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    if level != "debug":
        for library in ("aiobotocore", "botocore"):
            logging.getLogger(library).setLevel(max(logging.WARNING, logging.getLogger().level))
    if log_format == "json":
        teller = logging.getLogger(TELLER)
        teller.setLevel(logging.INFO)  # whatever the level: where it listens, and why it ended
        teller.propagate = False
        teller.addHandler(handler)


TELLER = "fastserve.server.life"


def tell(line: str) -> None:
    """Write one line for the operator: bare, or as an object where the log has those."""
    teller = logging.getLogger(TELLER)
    if teller.handlers:
        teller.info(line)
        return
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()
