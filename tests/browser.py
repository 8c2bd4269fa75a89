"""A real Chromium, spoken to by its own protocol: what a page shows, complains of, and asks for."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from websockets.sync.client import connect

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from websockets.sync.client import ClientConnection

__all__ = ["CHROMIUM", "Page", "browsing"]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LIMIT_S = 60
FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --disable-dev-shm-usage --remote-debugging-port=0 --mute-audio "
    "--hide-scrollbars"
)


class Page:
    """One tab; `complaints` and `requests` grow as it is spoken to."""

    def __init__(self, connection: ClientConnection) -> None:
        self._connection = connection
        self._number = 0
        self.complaints: list[str] = []
        self.requests: list[str] = []

    def call(self, method: str, **parameters: object) -> dict[str, Any]:
        """Call the browser, and note what it tells in between."""
        self._number += 1
        self._connection.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            told = json.loads(self._connection.recv(timeout=LIMIT_S))
            if told.get("id") == self._number:
                assert "error" not in told, told
                result: dict[str, Any] = told["result"]
                return result
            self._note(told)

    def _note(self, told: dict[str, Any]) -> None:
        of = told.get("params", {})
        match told.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(of["request"]["url"])
            case "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(of["exceptionDetails"]))
            case "Runtime.consoleAPICalled":
                self.complaints.append(json.dumps(of["args"]))
            case "Log.entryAdded":
                self.complaints.append(of["entry"]["text"])

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Go to a page, as a screen of that size shows it."""
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:  # noqa: ANN401  # whatever the page answers
        """The value of an expression of JavaScript in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def until(self, expression: str) -> Any:  # noqa: ANN401  # likewise
        """Look until an expression is true."""
        end_s = time.monotonic() + LIMIT_S
        while not (value := self.evaluate(expression)):
            assert time.monotonic() < end_s, f"never true: {expression}"
            time.sleep(0.05)
        return value


@contextmanager
def browsing(profile: Path) -> Iterator[Page]:
    """Run a browser that can reach this machine alone; gives its tab."""
    assert CHROMIUM is not None
    rules = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
    command = [CHROMIUM, *FLAGS.split(), rules, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = next(line for line in process.stderr if line.startswith("DevTools listening on "))
        port = said.partition("ws://")[2].partition("/")[0]
        with connect(f"ws://{port}/{said.rpartition(port)[2].strip().removeprefix('/')}", max_size=None) as browser:
            target = _tab(browser)
        with connect(f"ws://{port}/devtools/page/{target}", max_size=None) as tab:
            yield Page(tab)
    finally:
        process.kill()
        with suppress(ValueError):
            process.communicate()


def _tab(browser: ClientConnection) -> str:
    browser.send(json.dumps({"id": 1, "method": "Target.getTargets"}))
    while (told := json.loads(browser.recv(timeout=LIMIT_S))).get("id") != 1:
        continue
    return next(one["targetId"] for one in told["result"]["targetInfos"] if one["type"] == "page")
