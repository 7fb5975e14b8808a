"""`fastserve get SERVICE key=value…`: one vector over the HTTP API, as a table.

Join keys go out as the strings they are: the API takes int64 as text. Request-time values have more types,
and a client that guesses types guesses wrong: they are asked for first. It uses nothing of the server's code,
so that it shows what any client would see.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fastserve.cli.flags import (
    API_KEY_VARIABLE,
    URL_VARIABLE,
    Subparsers,
    add_command,
    add_settings,
    load_settings,
    pairs,
)
from fastserve.cli.http_call import CallError, call
from fastserve.cli.request_context import typed_values
from fastserve.config import Settings
from fastserve.errors import DefinitionError, shown
from fastserve.plan.text_table import text_table

GET_FEATURES = "/api/v1/feature-service/get-features"
SERVICE_METADATA = "/api/v1/feature-service/metadata"
SERVER_HINT = "start one with `fastserve serve --repo DIR` or `fastserve demo`, or name another with --url"
SHOWN_AT_MOST = 80
CONTEXT_HELP = "a request-time value; arrays, structs and maps in JSON, null for none but of a string"
METADATA = (
    "includeNames",
    "includeDataTypes",
    "includeServingStatus",
    "includeEffectiveTimes",
    "includeSloInfo",
)


@dataclass(frozen=True, slots=True)
class Question:
    """One request for a vector."""

    workspace: str | None  # None is the server's
    service: str
    join_keys: Mapping[str, str]
    request_context: Mapping[str, Any]

    def body(self, metadata: Sequence[str] = METADATA) -> str:
        """Return the request's JSON."""
        params = self._names() | {"joinKeyMap": dict(self.join_keys)}
        if self.request_context:
            params["requestContextMap"] = dict(self.request_context)
        if metadata:
            params["metadataOptions"] = dict.fromkeys(metadata, True)
        return json.dumps({"params": params}, ensure_ascii=False)

    def metadata_body(self) -> str:
        """Return the JSON of the request for what the service takes and gives."""
        return json.dumps({"params": self._names()}, ensure_ascii=False)

    def _names(self) -> dict[str, Any]:
        workspace = {} if self.workspace is None else {"workspaceName": self.workspace}
        return {**workspace, "featureServiceName": self.service}


def add_parser(commands: Subparsers) -> None:
    """Add the command."""
    parser = add_command(commands, "get", run, "ask a running server for one vector and print it")
    parser.add_argument("service", metavar="SERVICE", help="name of the feature service")
    parser.add_argument("keys", metavar="KEY=VALUE", nargs="*", help="join keys and their values")
    parser.add_argument(
        "--url",
        metavar="URL",
        help=f"the server (default: the variable {URL_VARIABLE}, or host and port of the settings)",
    )
    parser.add_argument(
        "--request-context", metavar="NAME=VALUE", action="append", default=[], help=CONTEXT_HELP
    )
    parser.add_argument("--json", action="store_true", help="print the server's answer as it came")
    parser.add_argument(
        "--api-key",
        metavar="KEY",
        help=f"API key (better: the variable {API_KEY_VARIABLE}, which `ps` doesn't show)",
    )
    add_settings(parser, ("workspace",))


def run(arguments: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Ask and print."""
    settings = load_settings(arguments, environ)
    question = Question(
        settings.workspace,
        arguments.service,
        pairs("join key", arguments.keys),
        pairs("request context", arguments.request_context),
    )
    url = arguments.url or environ.get(URL_VARIABLE) or settings_url(settings)
    api_key = arguments.api_key or environ.get(API_KEY_VARIABLE)
    if question.request_context:
        types = context_types(url, question, api_key)
        question = replace(question, request_context=typed_values(question.request_context, types))
    answer = ask(url, question, api_key)
    print(answer if arguments.json else answer_text(answer))
    return 0


def settings_url(settings: Settings) -> str:
    """Return the URL of the server that ``serve`` starts with these settings on this machine.

    Raises:
        DefinitionError: it takes any free port.
    """
    if not settings.port:
        raise DefinitionError(
            f"URL: expected --url or {URL_VARIABLE} where the port setting is 0, got neither"
        )
    return server_url(settings.host, settings.port)


def server_url(host: str, port: int) -> str:
    """Return a URL under which this machine reaches a server that listens on ``host``."""
    local = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - all addresses, read not bound
    return f"http://[{local}]:{port}" if ":" in local else f"http://{local}:{port}"


def ask(url: str, question: Question, api_key: str | None = None) -> str:
    """Return the body of the answer, which is a vector's.

    Raises:
        CallError: no server, or it says no.
    """
    return _post(url, GET_FEATURES, question.body(), api_key)


def context_types(url: str, question: Question, api_key: str | None = None) -> dict[str, str]:
    """Return the API's type of each field that the service takes in the request context.

    Raises:
        CallError: no server, or it says no.
    """
    body = _post(url, SERVICE_METADATA, question.metadata_body(), api_key)
    try:
        fields = json.loads(body).get("inputRequestContextKeys", [])
        return {field["name"]: field["dataType"]["type"] for field in fields}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CallError(
            f"expected the types that the service takes, got an answer that has none ({shown(error)}): "
            f"{shown(body)}"
        ) from None


def _post(url: str, path: str, content: str, api_key: str | None) -> str:
    headers = {"Content-Type": "application/json"}
    if api_key:
        headers["Authorization"] = f"Tecton-key {api_key}"
    return call(url, "POST", path, SERVER_HINT, content, headers)


def answer_text(body: str) -> str:
    """Return an answer as a table with a line below that says what it took.

    Raises:
        CallError: it isn't a vector.
    """
    try:
        answer = json.loads(body)
        values = answer["result"]["features"]
        about = answer["metadata"]["features"]
        rows = [_row(value, feature) for value, feature in zip(values, about, strict=True)]
    except (ValueError, KeyError, TypeError) as error:
        raise CallError(
            f"expected a vector, got an answer that is none ({shown(error)}): {shown(body)}"
        ) from None
    table = text_table(["feature", "value", "type", "status", "effective time"], rows, {"value"})
    return "\n".join([table, *_took(len(rows), answer["metadata"].get("sloInfo"))])


def _row(value: object, feature: Mapping[str, Any]) -> list[str]:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return [
        feature["name"],
        text if len(text) <= SHOWN_AT_MOST else f"{text[: SHOWN_AT_MOST - 1]}…",
        type_text(feature["dataType"]),
        feature.get("status", ""),
        feature.get("effectiveTime") or "",
    ]


def type_text(dtype: Mapping[str, Any]) -> str:
    """Return the API's data type as it is read aloud: ``array<int64>``."""
    kind = dtype["type"]
    if kind == "array":
        return f"array<{type_text(dtype['elementType'])}>"
    if kind == "map":
        return f"map<{type_text(dtype['keyType'])}, {type_text(dtype['valueType'])}>"
    if kind == "struct":
        fields = ", ".join(f"{field['name']}: {type_text(field['dataType'])}" for field in dtype["fields"])
        return f"struct<{fields}>"
    return str(kind)


def _took(features: int, slo: Mapping[str, Any] | None) -> list[str]:
    counted = f"{features} feature{'' if features == 1 else 's'}"
    if not slo:
        return [counted]
    parts = [counted]
    if "serverTimeSeconds" in slo:
        parts.append(f"{slo['serverTimeSeconds'] * 1000:.2f} ms in the server")
    if "storeResponseSizeBytes" in slo:
        parts.append(f"{slo['storeResponseSizeBytes']:,} bytes from the store")
    return [", ".join(parts)]
