"""A headless Chromium for tests, driven by its DevTools protocol over two pipes: JSON, each ended by NUL."""

import base64
import contextlib
import json
import os
import selectors
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOUND = shutil.which("chromium") or shutil.which("google-chrome")
HOW = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip
AT_3_AND_4 = """
import fcntl, os, sys
high = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]]
for fd, place in zip(high, (3, 4)):
    os.dup2(fd, place)
os.execv(sys.argv[3], sys.argv[3:])
"""  # where the browser looks for its pipes
PATIENCE = 30  # seconds for anything that is waited for


class Browser:
    """One tab.

    Args:
        to: end of the pipe that the browser reads.
        back: end of the pipe that it writes.
    """

    def __init__(self, to: int, back: int) -> None:
        self.to, self.back, self.number, self.rest = to, back, 0, b""
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{part}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command, and wait for its result; what happens meanwhile is kept in `events`."""
        self.number += 1
        session = {"sessionId": self.session} if self.session else {}
        message = {"id": self.number, "method": method, "params": params, **session}
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            heard = self._next()
            if heard.get("id") == self.number:
                assert "error" not in heard, (method, heard)
                return heard["result"]
            self.events.append(heard)

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        with selectors.DefaultSelector() as waits:
            waits.register(self.back, selectors.EVENT_READ)
            while b"\0" not in self.rest:
                assert waits.select(end - time.monotonic()), "the browser does not answer"
                self.rest += os.read(self.back, 1 << 20)
        first, _, self.rest = self.rest.partition(b"\0")
        return json.loads(first)

    def run(self, code: str) -> Any:
        """The value of an expression in the page."""
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, (code, found)
        return found["result"].get("value")

    def until(self, code: str) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + PATIENCE
        while not self.run(f"!!({code})"):
            assert time.monotonic() < end, (code, self.text())
            time.sleep(0.02)

    def see(self, place: str) -> None:
        """Wait until there is an element of a selector."""
        self.until(f"document.querySelector({json.dumps(place)})")

    def open(self, url: str) -> None:
        """Go to an address, in a document of its own."""
        self.call("Page.navigate", url="about:blank")
        self.until("location.href === 'about:blank'")
        self.call("Page.navigate", url=url)
        self.until("location.href !== 'about:blank' && document.readyState === 'complete'")

    def type(self, place: str, text: str) -> None:
        """Put text into a field, as a keyboard does."""
        self.run(f"document.querySelector({json.dumps(place)}).focus()")
        self.call("Input.insertText", text=text)

    def press(self, key: str, modifiers: int = 0) -> None:
        """Press a key; modifiers: 2 Ctrl, 8 Shift."""
        numbers = {"Enter": 13, "Tab": 9, "ArrowDown": 40, "ArrowUp": 38}
        about = {"key": key, "code": key, "windowsVirtualKeyCode": numbers[key], "modifiers": modifiers}
        text = {"text": "\r"} if key == "Enter" else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", **about, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", **about)

    def click(self, place: str) -> None:
        """Click an element, found by its selector."""
        self.run(f"document.querySelector({json.dumps(place)}).click()")

    def text(self, place: str = "body") -> str:
        """What an element shows."""
        return self.run(f"document.querySelector({json.dumps(place)})?.innerText ?? ''")

    def size(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Another window, and the colours that its reader likes."""
        about = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.call("Emulation.setDeviceMetricsOverride", **about)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """What is seen, as PNG."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))

    def complaints(self) -> list[str]:
        """Errors of the page so far: uncaught ones, and what its policy forbade."""
        self.run("0")
        thrown = [one["params"] for one in self.events if one.get("method") == "Runtime.exceptionThrown"]
        logged = [one["params"]["entry"] for one in self.events if one.get("method") == "Log.entryAdded"]
        forbidden = [one for one in logged if one["level"] == "error" and one["source"] != "network"]
        return [json.dumps(one) for one in thrown + forbidden]

    def asked(self) -> list[str]:
        """Addresses that were asked for so far."""
        self.run("0")
        sent = [one for one in self.events if one.get("method") == "Network.requestWillBeSent"]
        return [one["params"]["request"]["url"] for one in sent]


@contextlib.contextmanager
def browser() -> Iterator[Browser]:
    """A browser with a profile of its own, ended with the block."""
    assert FOUND is not None
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [FOUND, *HOW, f"--user-data-dir={profile}"]
        fds = (theirs_in, theirs_out)
        whole = [sys.executable, "-c", AT_3_AND_4, *map(str, fds), *command]
        process = subprocess.Popen(whole, pass_fds=fds, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for fd in fds:
            os.close(fd)
        try:
            yield Browser(ours_out, ours_in)
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            os.close(ours_out)
            os.close(ours_in)
