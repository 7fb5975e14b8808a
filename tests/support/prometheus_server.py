"""A real Prometheus, as Debian has it, that scrapes one server by the configuration of the compose file.

Changed of that are the target, which is the test's own, and the intervals, which are a second.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import yaml

from perf.load.free_port import free_port
from tests.support.server_process import ROOT, eventually

CONFIGURATION = ROOT / "deploy" / "compose" / "prometheus.yml"
RULES = ROOT / "deploy" / "prometheus"


def executable() -> str | None:
    """Find Prometheus; None where it isn't installed."""
    return shutil.which("prometheus")


@dataclass(frozen=True)
class Prometheus:
    """One that runs, asked over its HTTP API."""

    port: int

    def api(self, path: str, parameters: Mapping[str, str]) -> Any:
        """Return the data of an answer.

        Raises:
            OSError: it doesn't answer, or refuses: its answer is a status of 4xx then.
        """
        opener = build_opener(ProxyHandler({}))
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urlencode(parameters)}"
        with opener.open(url, timeout=10) as answer:
            document = json.load(answer)
        assert document["status"] == "success"
        return document["data"]

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the value of each series that an expression gives now."""
        found = self.api("query", {"query": expression})["result"]
        return [(series["metric"], float(series["value"][1])) for series in found]

    def number(self, expression: str) -> float | None:
        """Return the value of the only series that an expression gives; None where it gives none yet."""
        found = self.query(expression)
        assert len(found) < 2, found
        return found[0][1] if found else None


@contextmanager
def scraping(folder: Path, admin_port: int) -> Iterator[Prometheus]:
    """Run Prometheus until the end of the block; it has scraped the server once."""
    program = executable()
    assert program is not None
    config = yaml.safe_load(CONFIGURATION.read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(RULES / Path(name).name) for name in config["rule_files"]]
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": [f"127.0.0.1:{admin_port}"]}]
    file = folder / "prometheus.yml"
    file.write_text(yaml.safe_dump(config))
    port = free_port()
    flags = [f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}", "--log.level=error"]
    command = [program, *flags, f"--web.listen-address=127.0.0.1:{port}"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        prometheus = Prometheus(port)
        try:
            eventually(lambda: _is_scraping(prometheus))
            yield prometheus
        finally:
            process.kill()


def _is_scraping(prometheus: Prometheus) -> bool:
    try:
        return prometheus.number("up") == 1
    except OSError:
        return False
