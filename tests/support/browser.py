"""A headless Chromium, driven over WebDriver's own HTTP by the standard library alone.

Nothing of it leaves this machine: the profile is new and empty, and what a browser does by itself is off.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import ProxyHandler, Request, build_opener

from perf.load.free_port import free_port

START_TIMEOUT_S = 30.0
WAIT_S = 15.0
COMMAND_TIMEOUT_S = 30.0
FLAGS = (
    "--headless",
    "--no-sandbox",  # root in a container has none
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--hide-scrollbars",
)
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"


def executables() -> tuple[str, str] | None:
    """Return browser and driver, None where either isn't installed."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    return None if chromium is None or driver is None else (chromium, driver)


class BrowserError(AssertionError):
    """The driver says that a command failed."""


class Browser:
    """One window."""

    def __init__(self, url: str, session: str) -> None:
        self._root = f"{url}/session/{session}"
        self._call = _caller(self._root)

    def open(self, url: str) -> None:
        """Go to an address and wait until the page is loaded."""
        self._call("/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """Return what a function's body returns in the page."""
        return self._call("/execute/sync", {"script": script, "args": list(arguments)})

    def cdp(self, command: str, **parameters: Any) -> Any:
        """Have the browser do what only its own protocol says."""
        return self._call("/goog/cdp/execute", {"cmd": command, "params": parameters})

    def type(self, selector: str, text: str) -> None:
        """Type into an element, key by key."""
        self._call(f"/element/{self._find(selector)}/value", {"text": text})

    def click(self, selector: str) -> None:
        """Click on an element as a user does."""
        self._call(f"/element/{self._find(selector)}/click", {})

    def press(self, *keys: str) -> None:
        """Press keys, one after the other, wherever the focus is."""
        strokes = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        self._call("/actions", {"actions": [{"type": "key", "id": "keyboard", "actions": strokes}]})

    def text(self, selector: str = "body") -> str:
        """Return the text of an element as it is shown."""
        return str(self.run("return document.querySelector(arguments[0]).innerText", selector))

    def wait_for(self, script: str, *arguments: Any) -> Any:
        """Wait until a function's body returns something true, and return it.

        Raises:
            BrowserError: it doesn't in `WAIT_S`.
        """
        deadline_s = time.monotonic() + WAIT_S
        while time.monotonic() < deadline_s:
            found = self.run(script, *arguments)
            if found:
                return found
            time.sleep(0.05)
        raise BrowserError(f"expected {script}, waited {WAIT_S} s on\n{self.text()}")

    def screen(self, width: int, height: int, *, dark: bool = False) -> None:
        """Be a screen of that size, light or dark."""
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = "dark" if dark else "light"
        wishes = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in wishes.items()]
        self.cdp("Emulation.setEmulatedMedia", features=features)

    def picture(self) -> bytes:
        """Return the screen as PNG."""
        found = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=False)
        return base64.b64decode(found["data"])

    def complaints(self) -> list[str]:
        """Return what the browser's console was told since the last time, warnings and errors."""
        entries = self._call("/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] in {"WARNING", "SEVERE"}]

    def _find(self, selector: str) -> str:
        found = self._call("/element", {"using": "css selector", "value": selector})
        return str(found[_ELEMENT])


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """Run a browser with a new profile in that folder until the end of the block."""
    found = executables()
    assert found is not None, "chromium and chromedriver: expected both installed"
    port = free_port()
    driver = subprocess.Popen(
        [found[1], f"--port={port}", "--log-level=SEVERE"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url)
        session = _caller(url)("/session", _capabilities(found[0], profile))["sessionId"]
        try:
            yield Browser(url, session)
        finally:
            _caller(url)(f"/session/{session}", None, method="DELETE")
    finally:
        driver.terminate()
        driver.wait()


def _capabilities(binary: str, profile: Path) -> dict[str, Any]:
    options = {"binary": binary, "args": [*FLAGS, f"--user-data-dir={profile}"]}
    always = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
    return {"capabilities": {"alwaysMatch": always}}


def _wait_until_ready(url: str) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            if _caller(url)("/status", None)["ready"]:
                return
        except URLError:
            if time.monotonic() > deadline_s:
                raise
        time.sleep(0.05)


def _caller(root: str) -> Callable[..., Any]:
    opener = build_opener(ProxyHandler({}))  # a proxy of the environment has no business here

    def call(path: str, body: Mapping[str, Any] | None, method: str | None = None) -> Any:
        content = None if body is None else json.dumps(body).encode()
        request = Request(root + path, content, {"Content-Type": "application/json"}, method=method)
        try:
            with opener.open(request, timeout=COMMAND_TIMEOUT_S) as response:
                return json.loads(response.read())["value"]
        except HTTPError as error:
            value = json.loads(error.read())["value"]
            raise BrowserError(f"{path}: {value['error']}: {value['message']}") from None

    return call
