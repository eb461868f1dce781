"""A headless Chromium for tests of HTML pages: the DevTools protocol over two pipes, no other package needed."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome", "headless_shell")
_TIMEOUT = 120


def find_chromium() -> str | None:
    """Return the path of a Chromium, or None."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


class Page:
    """A tab. Everything that it requests, logs and throws is noted."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._rest, self._count, self._session = b"", 0, None
        self.requests: list[str] = []
        self.errors: list[str] = []
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self._send(f"{domain}.enable")

    def open(self, path: Path) -> None:
        """Open a file and wait until it is loaded."""
        self._loaded = False
        self._send("Page.navigate", url=path.resolve().as_uri())
        deadline = time.monotonic() + _TIMEOUT
        while not self._loaded:
            self._receive(deadline)

    def resize(self, width: int, height: int = 900, *, mobile: bool = False) -> None:
        """Set the size of the window in CSS pixels."""
        self._send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=2 if mobile else 1,
            mobile=mobile,
        )

    def media(self, name: str) -> None:
        """Lay out for `screen` or `print`."""
        self._send("Emulation.setEmulatedMedia", media=name)

    def evaluate(self, script: str) -> Any:
        """Return the value of a JavaScript expression."""
        found = self._send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in found:
            raise AssertionError(json.dumps(found["exceptionDetails"])[:2000])
        return found["result"].get("value")

    def click(self, selector: str) -> None:
        """Click in the middle of an element, as a mouse does."""
        self.evaluate(f"document.querySelector({json.dumps(selector)}).scrollIntoView({{block: 'center'}})")
        box = self.evaluate(
            f"(() => {{ const box = document.querySelector({json.dumps(selector)}).getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self._send("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def screenshot(self, path: Path, *, clip: dict[str, float] | None = None) -> None:
        """Write a PNG of the window, or of a rectangle of the page."""
        options = {"clip": {**clip, "scale": 1}, "captureBeyondViewport": True} if clip else {}
        path.write_bytes(base64.b64decode(self._send("Page.captureScreenshot", format="png", **options)["data"]))

    def pdf(self) -> bytes:
        """Return the printed page."""
        return base64.b64decode(self._send("Page.printToPDF", preferCSSPageSize=True, printBackground=True)["data"])

    def _send(self, method: str, **params: Any) -> dict[str, Any]:
        self._count += 1
        number = self._count
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + _TIMEOUT
        while True:
            answer = self._receive(deadline)
            if answer.get("id") == number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]

    def _receive(self, deadline: float) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._from], [], [], max(0.0, deadline - time.monotonic()))
            part = os.read(self._from, 2**20) if ready else b""
            if not part:
                raise TimeoutError(f"Chromium does not answer within {_TIMEOUT} s, or has gone")
            self._rest += part
        text, self._rest = self._rest.split(b"\0", 1)
        message = json.loads(text)
        self._note(message.get("method"), message.get("params", {}))
        return message

    def _note(self, event: str | None, params: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event == "Log.entryAdded":
            self.errors.append(f"{params['entry']['level']}: {params['entry']['text']}")
        elif event == "Runtime.consoleAPICalled":
            self.errors.append(f"console.{params['type']}")
        elif event == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"])[:500])


@contextmanager
def chromium(profile: Path) -> Iterator[Page]:
    """Start a Chromium with an empty profile in a folder, lend a tab, and end it."""
    path = find_chromium()
    assert path is not None
    # Chromium reads commands from descriptor 3 and answers on 4.
    read_commands, write_commands = os.pipe()
    read_answers, write_answers = os.pipe()
    options = "--headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --disable-extensions"
    quiet = "--disable-background-networking --disable-component-update --disable-sync"
    command = (
        f'exec "$0" {options} {quiet} --user-data-dir="$1" --remote-debugging-pipe '
        f"3<&{read_commands} 4>&{write_answers}"
    )
    process = subprocess.Popen(
        ["bash", "-c", command, path, str(profile)],
        pass_fds=(read_commands, write_answers),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(read_commands)
    os.close(write_answers)
    try:
        yield Page(write_commands, read_answers)
    finally:
        os.close(write_commands)
        os.close(read_answers)
        process.terminate()
        process.wait(timeout=30)
