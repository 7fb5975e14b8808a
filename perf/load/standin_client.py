"""The stand-in DynamoDB as seen by what uses it: its address, its control endpoint, its process.

Knows nothing of loads. Blocking: for set-up and for reading counters, never inside a measured path.

Invariants:
1. `running()` has a stand-in that accepts connections, and none is left behind.
"""

from __future__ import annotations

import contextlib
import http.client
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from perf.load.child import module_process

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class ControlError(Exception):
    """The stand-in refused what it was asked to become."""


@dataclass(frozen=True)
class StandInAddress:
    """Where a stand-in listens and which process it is."""

    port: int
    pid: int
    host: str = "127.0.0.1"
    scheme: str = "http"

    @property
    def endpoint(self) -> str:
        """Give the address as an endpoint URL."""
        return f"{self.scheme}://{self.host}:{self.port}"

    def store_url(self, prefix: str = "") -> str:
        """Give the address as fastserve's store URL."""
        return f"dynamodb://local?endpoint={self.endpoint}" + (f"&prefix={prefix}" if prefix else "")

    def counters(self) -> dict[str, Any]:
        """Read the counters."""
        return self._exchange("GET", None)

    def control(self, **wanted: object) -> dict[str, Any]:
        """Set `faults`, `latency_ms` or `reset`; give the counters.

        Raises:
            ControlError: an unknown name.
        """
        return self._exchange("POST", orjson.dumps(wanted))

    def prepare(self, table: str, rows: Sequence[str | None]) -> None:
        """Have a table answer from a pool of base64 rows, None for keys that are absent.

        Raises:
            ControlError: the rows are no texts.
        """
        self.control(prepare=[{"table": table, "rows": list(rows)}])

    def _exchange(self, method: str, body: bytes | None) -> dict[str, Any]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        with contextlib.closing(connection):
            connection.request(method, "/_control", body=body)
            answer = connection.getresponse()
            content: dict[str, Any] = orjson.loads(answer.read())
            if answer.status != http.HTTPStatus.OK:
                raise ControlError(str(content))
            return content


@contextlib.contextmanager
def running(arguments: Sequence[str] = ()) -> Iterator[StandInAddress]:
    """Start a stand-in of its own process on a free port; stop it at the end."""
    with module_process("perf.load.standin", arguments) as (pid, port):
        yield StandInAddress(port, pid)
