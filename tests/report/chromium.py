"""A headless Chromium, driven by its DevTools protocol over a pipe: what tests of pages need of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAME = next((name for name in ("chromium", "chromium-browser", "google-chrome") if shutil.which(name)), None)
needs_chromium = pytest.mark.skipif(
    NAME is None, reason="no Chromium on this machine (Debian: apt-get install chromium)"
)
_AS_3_AND_4 = (
    "import fcntl, os, sys; a, b = (fcntl.fcntl(int(one), fcntl.F_DUPFD, 10) for one in sys.argv[1:3]); "
    "os.dup2(a, 3); os.dup2(b, 4); os.execvp(sys.argv[3], sys.argv[3:])"
)
"""Runs the browser with its pipes where it expects them."""

_KEYS = {"Enter": 13, "Backspace": 8, "Escape": 27, "ArrowRight": 39, "ArrowDown": 40, "ArrowLeft": 37, "ArrowUp": 38}


class Page:
    """One page of the browser. `complaints`: everything that its console got, and exceptions."""

    def __init__(self, process: subprocess.Popen[bytes], to_browser: int, from_browser: int) -> None:
        """`to_browser`, `from_browser`: the ends of the pipes."""
        self._process, self._to, self._from = process, to_browser, from_browser
        self._number, self._buffer = 0, b""
        self.complaints: list[str] = []
        self.dialogs: list[str] = []
        target = self._send("Target.createTarget", {"url": "about:blank"}, session="")["targetId"]
        self._session = self._send("Target.attachToTarget", {"targetId": target, "flatten": True}, session="")[
            "sessionId"
        ]
        for domain in ("Page", "Runtime", "Log"):
            self._send(f"{domain}.enable")

    def open(self, path: Path, fragment: str = "", *, width: int = 1280, height: int = 900) -> Page:
        """Opens a file and waits until its script ran."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self._send("Emulation.setDeviceMetricsOverride", size)
        self._send("Page.navigate", {"url": "about:blank"})
        self._send("Page.navigate", {"url": f"{path.as_uri()}{fragment}"})
        wait = "new Promise(done => { const look = () => document.readyState === 'complete' && location.protocol === 'file:' ? done(true) : setTimeout(look, 20); look(); })"
        for _ in range(50):
            if self._evaluated(wait):
                break
        return self

    def value(self, expression: str) -> Any:
        """The value of an expression of JavaScript."""
        return self._evaluated(expression)

    def press(self, *keys: str) -> None:
        """Presses keys, one after the other."""
        for key in keys:
            text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
            code = _KEYS.get(key, ord(key.upper()) if len(key) == 1 else 0)
            pressed = {"key": key, "windowsVirtualKeyCode": code, "code": key}
            self._send("Input.dispatchKeyEvent", {"type": "keyDown", **pressed, **text})
            self._send("Input.dispatchKeyEvent", {"type": "keyUp", **pressed})

    def media(self, **features: str) -> None:
        """Emulates media: `scheme="dark"`, `media="print"`."""
        scheme = [{"name": "prefers-color-scheme", "value": features.get("scheme", "light")}]
        self._send("Emulation.setEmulatedMedia", {"media": features.get("media", ""), "features": scheme})

    def _evaluated(self, expression: str) -> Any:
        call = {"expression": expression, "returnByValue": True, "awaitPromise": True}
        found = self._send("Runtime.evaluate", call)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def _send(self, method: str, parameters: dict[str, Any] | None = None, session: str | None = None) -> Any:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters or {}}
        if session is None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            got = self._receive()
            if got.get("id") == self._number:
                assert "error" not in got, got
                return got["result"]
            self._note(got)

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            data = os.read(self._from, 1 << 20)
            assert data, "the browser has closed its pipe"
            self._buffer += data
        first, _, self._buffer = self._buffer.partition(b"\0")
        return dict(json.loads(first))

    def _note(self, event: dict[str, Any]) -> None:
        method, values = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(values["exceptionDetails"]))
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(str(values["args"]))
        elif method == "Log.entryAdded":
            self.complaints.append(str(values["entry"]["text"]))
        elif method == "Page.javascriptDialogOpening":
            self.dialogs.append(str(values["message"]))


@contextmanager
def browser(profile: Path) -> Iterator[Page]:
    """A page of a new browser, which ends with the `with`."""
    assert NAME is not None
    read_by_browser, to_browser = os.pipe()
    from_browser, written_by_browser = os.pipe()
    command = [
        NAME, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--disable-background-networking", f"--user-data-dir={profile}", "--remote-debugging-pipe",
    ]  # fmt: skip
    pipes = (read_by_browser, written_by_browser)
    with subprocess.Popen(
        [sys.executable, "-c", _AS_3_AND_4, *map(str, pipes), *command], pass_fds=pipes,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as process:  # fmt: skip
        os.close(read_by_browser)
        os.close(written_by_browser)
        try:
            yield Page(process, to_browser, from_browser)
        finally:
            process.terminate()
            process.wait(20)
            os.close(to_browser)
            os.close(from_browser)
