"""A real headless Chromium, driven through its debugging pipe (Chrome DevTools Protocol), without further packages."""

import base64
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

VARIABLE = "LNHG_BROWSER"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
KEY_CODES = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowUp": 38, "ArrowDown": 40, "PageUp": 33, "PageDown": 34}
OPTIONS = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--window-size=1200,800")


def find() -> str:
    """Return the browser's command, or skip the test that needs it."""
    command = os.environ.get(VARIABLE) or next(filter(None, map(shutil.which, NAMES)), None)
    if not command:
        pytest.skip(f"no Chromium on the PATH: install the Debian package chromium, or name one in {VARIABLE}")
    return command


class Browser:
    """One browser with one page; use it in a `with` block."""

    def __init__(self, profile: Path) -> None:
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()

        def place() -> None:  # the browser expects its two ends as descriptors 3 and 4
            os.dup2(to_read, 100)
            os.dup2(to_write, 101)
            os.dup2(100, 3)
            os.dup2(101, 4)

        command = [find(), *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(command, close_fds=False, preexec_fn=place, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        self._number, self._buffer = 0, b""
        self._session: str | None = None
        self.requests: list[str] = []

    def __enter__(self) -> "Browser":
        target = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attach = {"targetId": target["targetId"], "flatten": True}
        self._session = self.call("Target.attachToTarget", **attach)["sessionId"]
        self.call("Page.enable")
        self.call("Network.enable")
        return self

    def close(self) -> None:
        """Close as a user does: what pages keep is written."""
        self._session = None
        self.call("Browser.close")
        self._process.wait(20)

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(20)
        os.close(self._to)
        os.close(self._from)

    def open(self, address: str) -> None:
        """Load a page and wait until it is complete."""
        self.requests.clear()
        self.call("Page.navigate", url=address)
        self._until(lambda message: message.get("method") == "Page.loadEventFired")

    def evaluate(self, script: str) -> object:
        """Return the value of a JavaScript expression in the page; its error fails the test."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def click(self, selector: str) -> None:
        """Click into the middle of an element with the mouse."""
        box = f"(e => (e.scrollIntoView(), e.getBoundingClientRect().toJSON()))(document.querySelector({selector!r}))"
        where = self.evaluate(box)
        point = {"x": where["x"] + where["width"] / 2, "y": where["y"] + where["height"] / 2}
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **point)

    def type(self, selector: str, text: str) -> None:
        """Type into a field."""
        self.click(selector)
        self.call("Input.insertText", text=text)

    def press(self, key: str) -> None:
        """Press a key, named as in JavaScript, wherever the focus is."""
        code = KEY_CODES.get(key) or ord(key.upper())
        text = "\r" if key == "Enter" else key if len(key) == 1 else ""
        kind = {"key": key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **kind)
        self.call("Input.dispatchKeyEvent", type="keyUp", **kind)

    def wait(self, condition: str, seconds: float = 20) -> None:
        """Wait until a JavaScript expression is true."""
        end = time.monotonic() + seconds
        while not self.evaluate(f"Boolean({condition})"):
            assert time.monotonic() < end, f"not within {seconds} s: {condition}"
            time.sleep(0.02)

    def save_into(self, folder: Path) -> None:
        """Put what the page saves into a folder, without asking."""
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def screenshot(self, path: Path) -> None:
        """Save what the page looks like."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def call(self, method: str, **parameters: object) -> dict:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._to, json.dumps(message).encode() + b"\0")
        answer = self._until(lambda message: message.get("id") == self._number)
        assert "error" not in answer, answer["error"]
        return answer["result"]

    def _until(self, fits) -> dict:
        while True:
            while b"\0" not in self._buffer:
                piece = os.read(self._from, 2**16)
                assert piece, "the browser ended"
                self._buffer += piece
            text, _, self._buffer = self._buffer.partition(b"\0")
            message = json.loads(text)
            if message.get("method") == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
            if fits(message):
                return message
