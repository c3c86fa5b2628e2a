"""A headless Chromium, driven over the pipe of its DevTools protocol: what tests of pages need, and no more."""

from __future__ import annotations

import base64
import fcntl
import io
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-extensions",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
# The name of a key, its code for Windows, and the text that it types.
KEYS = {
    "ArrowLeft": (37, ""),
    "ArrowUp": (38, ""),
    "ArrowRight": (39, ""),
    "ArrowDown": (40, ""),
    "Home": (36, ""),
    "End": (35, ""),
    "Tab": (9, ""),
    "Enter": (13, "\r"),
    " ": (32, " "),
}
SECONDS = 60.0
Box = tuple[float, float, float, float]


class Browser:
    """One browser with one page; `log` has all that the console said and all that went wrong, `requests` all URLs."""

    def __init__(self, into: int, out: int) -> None:
        self._into, self._out, self._buffer, self._number = into, out, b"", 0
        self._events: list[dict[str, Any]] = []
        self.log: list[str] = []
        self.requests: list[str] = []
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command to the page."""
        return self._call(method, self._session, **params)

    def open(self, path: Path, width: int = 1280, height: int = 900) -> None:
        """Show a file, and wait until it is loaded."""
        self.log.clear()
        self.requests.clear()
        self.resize(width, height)
        self._events.clear()
        self.call("Page.navigate", url=path.absolute().as_uri())
        self._wait_for("Page.loadEventFired")
        self.run("Promise.all([...document.images].map((image) => image.decode()))")

    def resize(self, width: int, height: int = 900) -> None:
        """Give the window another size."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def media(self, media: str = "", scheme: str = "light") -> None:
        """Show the page as on `print` or `screen`, and in a colour scheme."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited."""
        done = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done["exceptionDetails"]
        return done["result"].get("value")

    def box(self, selector: str, number: int = 0) -> Box:
        """Left, top, width and height of an element, scrolled into the middle of the window."""
        element = f"document.querySelectorAll({json.dumps(selector)})[{number}]"
        self.run(f"{element}.scrollIntoView({{block: 'center', behavior: 'instant'}})")
        rect = self.run(f"(({{x, y, width, height}}) => [x, y, width, height])({element}.getBoundingClientRect())")
        return tuple(rect)

    def click(self, selector: str, number: int = 0, at: tuple[float, float] = (0.5, 0.5)) -> None:
        """Press and release the mouse at a share of an element's width and height."""
        self.drag(selector, number, at, at)

    def drag(self, selector: str, number: int, start: tuple[float, float], stop: tuple[float, float]) -> None:
        """Press the mouse at one share of an element's size, move, and release it at another."""
        x, y, width, height = self.box(selector, number)
        steps = [
            ("mouseMoved", start, 0),
            ("mousePressed", start, 1),
            ("mouseMoved", stop, 1),
            ("mouseReleased", stop, 0),
        ]
        for kind, (right, down), buttons in steps:
            place = {"x": x + right * width, "y": y + down * height}
            button = "none" if kind == "mouseMoved" and not buttons else "left"
            self.call("Input.dispatchMouseEvent", type=kind, button=button, buttons=buttons, clickCount=1, **place)

    def focus(self, selector: str, number: int = 0) -> None:
        """Put the keyboard's focus on an element."""
        self.run(f"document.querySelectorAll({json.dumps(selector)})[{number}].focus()")

    def press(self, key: str, times: int = 1) -> None:
        """Type a key."""
        code, text = KEYS[key]
        named = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
        for _ in range(times):
            typed = {"text": text} if text else {}
            self.call("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **named, **typed)
            self.call("Input.dispatchKeyEvent", type="keyUp", **named)

    def pixels(self, selector: str, number: int = 0) -> npt.NDArray[np.uint8]:
        """(H, W, 3): what an element looks like now."""
        x, y, width, height = self.box(selector, number)
        clip = {"x": x, "y": y, "width": width, "height": height, "scale": 1}
        clip["x"] += self.run("scrollX")
        clip["y"] += self.run("scrollY")
        return _decoded(self.call("Page.captureScreenshot", format="png", clip=clip)["data"])

    def picture(self) -> npt.NDArray[np.uint8]:
        """(H, W, 3): the whole page."""
        width, height = self.run("[document.documentElement.clientWidth, document.documentElement.scrollHeight]")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        return _decoded(shot["data"])

    def pdf(self) -> bytes:
        """The page printed on A4."""
        size = {"paperWidth": 8.27, "paperHeight": 11.69}
        return base64.b64decode(
            self.call("Page.printToPDF", preferCSSPageSize=False, printBackground=True, **size)["data"]
        )

    def _call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        message |= {"sessionId": session} if session else {}
        os.write(self._into, json.dumps(message).encode() + b"\0")
        number = self._number
        while (answer := self._next()).get("id") != number:
            self._take(answer)
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def _wait_for(self, method: str) -> None:
        while all(event["method"] != method for event in self._events):
            self._take(self._next())

    def _take(self, event: dict[str, Any]) -> None:
        """Remember what happened."""
        method, params = event.get("method", ""), event.get("params", {})
        self._events.append({"method": method, **params})
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        if method == "Runtime.exceptionThrown":
            self.log.append(json.dumps(params["exceptionDetails"]))
        if method == "Runtime.consoleAPICalled":
            self.log.append(json.dumps([one.get("value") for one in params["args"]]))
        if method == "Log.entryAdded":
            self.log.append(params["entry"]["text"])

    def _next(self) -> dict[str, Any]:
        end = time.monotonic() + SECONDS
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._out], [], [], max(end - time.monotonic(), 0))
            assert ready, "Chromium does not answer"
            part = os.read(self._out, 1 << 20)
            assert part, "Chromium has ended"
            self._buffer += part
        message, _, self._buffer = self._buffer.partition(b"\0")
        return json.loads(message)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser that ends with the block, with a profile of its own."""
    assert CHROMIUM, "Chromium is not installed"
    commands, answers = os.pipe(), os.pipe()
    theirs = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in (commands[0], answers[1])]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        void = [(os.POSIX_SPAWN_OPEN, end, os.devnull, os.O_RDWR, 0) for end in (0, 1, 2)]
        pipes = [(os.POSIX_SPAWN_DUP2, theirs[0], 3), (os.POSIX_SPAWN_DUP2, theirs[1], 4)]
        arguments = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}"]
        process = os.posix_spawn(CHROMIUM, arguments, os.environ, file_actions=[*void, *pipes], setpgroup=0)
        for end in (commands[0], answers[1], *theirs):
            os.close(end)
        try:
            yield Browser(commands[1], answers[0])
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            os.close(commands[1])
            os.close(answers[0])


def _decoded(data: str) -> npt.NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))).convert("RGB"))
