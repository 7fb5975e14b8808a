"""One call of a running server's HTTP API by a command, and what to say when it can't be made.

It uses nothing of the server's code and no proxy of the environment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fastserve.errors import FastserveError, shown

TIMEOUT_S = 30.0


class CallError(FastserveError):
    """No server, or an answer that isn't what was asked for."""


def call(
    url: str,
    method: str,
    path: str,
    hint: str,
    content: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> str:
    """Return the body of a server's answer; ``hint`` says what to do where there is no server.

    Raises:
        CallError: no server, or it says no.
    """
    from http.client import HTTPException

    connection, prefix = _connection(url)
    sent = None if content is None else content.encode()
    try:
        connection.request(method, prefix + path, sent, dict(headers or {}))
        response = connection.getresponse()
        body = str(response.read(), "utf-8", "replace")
    except ConnectionRefusedError:
        raise CallError(f"no server at {url}; {hint}") from None
    except (OSError, HTTPException) as error:
        raise CallError(f"no answer from {url}: {str(error) or type(error).__name__}") from None
    except ValueError:  # whose message may hold the key
        raise CallError(f"expected a host and an API key that HTTP can carry, got others for {url}") from None
    finally:
        connection.close()
    if response.status != 200:
        raise CallError(f"the server answered {response.status}: {_error_text(body)}")
    return body


def _connection(url: str) -> tuple[Any, str]:
    """Return a connection to the server and the path before the API's own."""
    from http.client import HTTPConnection, HTTPSConnection
    from urllib.parse import urlsplit

    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    kinds = {"http": HTTPConnection, "https": HTTPSConnection}
    if parts.scheme not in kinds or not parts.hostname:
        raise CallError(f"URL: expected http://HOST:PORT or https://HOST, got {shown(url)}")
    return kinds[parts.scheme](parts.hostname, port, timeout=TIMEOUT_S), parts.path.rstrip("/")


def _error_text(body: str) -> str:
    try:
        message = json.loads(body)["message"]
    except (ValueError, KeyError, TypeError):
        return shown(body)
    return str(message)
