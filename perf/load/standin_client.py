"""The stand-in DynamoDB as seen by what uses it: its address, its control endpoint, its process.

Knows nothing of loads. Blocking: for set-up and for reading counters, never inside a measured path.

Invariants:
1. `running()` has a stand-in that accepts connections, and none is left behind.
2. Control goes over the plain port, also where the store is read over TLS.
"""

from __future__ import annotations

import contextlib
import http.client
import subprocess
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
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
    tls_port: int | None = None
    # The certificate of the TLS port, to be trusted.
    ca_bundle: str | None = None

    @property
    def endpoint(self) -> str:
        """Give the address as an endpoint URL."""
        return f"http://{self.host}:{self.port}"

    @property
    def tls_endpoint(self) -> str:
        """Give the TLS port's address; the certificate is for that name.

        Raises:
            ControlError: it was started without a certificate.
        """
        if self.tls_port is None:
            raise ControlError("the stand-in was started without TLS")
        return f"https://localhost:{self.tls_port}"

    def store_url(self, prefix: str = "", *, tls: bool = False) -> str:
        """Give the address as fastserve's store URL."""
        endpoint = self.tls_endpoint if tls else self.endpoint
        return f"dynamodb://local?endpoint={endpoint}" + (f"&prefix={prefix}" if prefix else "")

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

    def prepare_items(self, table: str, key: str, items: Sequence[str]) -> None:
        """Have a table answer from a pool of items, each the JSON of its attributes without the key's.

        Raises:
            ControlError: the items are no texts.
        """
        self.control(prepare=[{"table": table, "key": key, "items": list(items)}])

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
def running(arguments: Sequence[str] = (), *, tls: bool = False) -> Iterator[StandInAddress]:
    """Start a stand-in of its own process on a free port, and with TLS on another; stop it at the end."""
    with contextlib.ExitStack() as stack:
        more: list[str] = []
        ca_bundle = None
        if tls:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            ca_bundle, key = _make_certificate(Path(folder))
            more = ["--tls-cert", ca_bundle, "--tls-key", key]
        started = module_process("perf.load.standin", [*arguments, *more])
        pid, port = stack.enter_context(started)
        address = StandInAddress(port, pid)
        tls_port = address.counters()["tls_port"] if tls else None
        yield replace(address, tls_port=tls_port, ca_bundle=ca_bundle)


def _make_certificate(folder: Path) -> tuple[str, str]:
    """Make a certificate for localhost that signs itself; give the files of it and of its key."""
    certificate, key = str(folder / "certificate.pem"), str(folder / "key.pem")
    made = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    made += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*made, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key
