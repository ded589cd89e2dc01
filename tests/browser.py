"""Debian's Chromium without a window, driven over the DevTools protocol.

The protocol runs over two pipes, descriptors 3 and 4 of the browser, as JSON ended by NUL: no port,
and no websocket.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, BinaryIO, TypeVar

import pytest

T = TypeVar("T")

PATIENCE_SECONDS = 60.0  # far beyond anything that is waited for: who waits so long has failed
PAUSE_SECONDS = 0.05
FLAGS = (
    "--headless",
    "--no-sandbox",  # which root cannot have
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
# Puts the two ends at the descriptors that Chromium looks at.
LAUNCH = (
    "import os, sys; os.dup2({read}, 3); os.dup2({write}, 4); os.execvp(sys.argv[1], sys.argv[1:])"
)


class Browser:
    """A browser that runs."""

    def __init__(self, commands: BinaryIO, answers: BinaryIO) -> None:
        self._commands = commands
        self._number = 0
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._events: dict[str, list[tuple[str, dict[str, Any]]]] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._listen, args=(answers,), daemon=True).start()

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Have a command carried out; return its result."""
        answer: queue.Queue[dict[str, Any]] = queue.Queue()
        with self._lock:
            self._number += 1
            self._answers[self._number] = answer
            message = {"id": self._number, "method": method, "params": parameters}
            if session:
                message["sessionId"] = session
            self._commands.write(json.dumps(message).encode() + b"\0")
            self._commands.flush()
        got = answer.get(timeout=PATIENCE_SECONDS)
        assert "error" not in got, f"{method}: {got}"
        result: dict[str, Any] = got["result"]
        return result

    def events(self, session: str, method: str) -> list[dict[str, Any]]:
        """Return what has happened of one kind."""
        return [event for name, event in list(self._events.get(session, ())) if name == method]

    def _listen(self, answers: BinaryIO) -> None:
        buffer = b""
        while part := os.read(answers.fileno(), 1 << 16):
            *messages, buffer = (buffer + part).split(b"\0")
            for message in map(json.loads, messages):
                if "id" in message:
                    self._answers.pop(message["id"]).put(message)
                else:
                    events = self._events.setdefault(message.get("sessionId", ""), [])
                    events.append((message["method"], message["params"]))


class Tab:
    """A page in the browser."""

    def __init__(
        self,
        browser: Browser,
        url: str,
        *,
        width: int = 1440,
        height: int = 900,
        dark: bool = False,
        javascript: bool = True,
    ) -> None:
        self._browser = browser
        context = browser.call("Target.createBrowserContext")["browserContextId"]
        target = browser.call("Target.createTarget", url="about:blank", browserContextId=context)
        attached = browser.call("Target.attachToTarget", flatten=True, **target)
        self._session: str = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Emulation.setScriptExecutionDisabled", value=not javascript)
        self.call("Page.navigate", url=url)
        self.until(lambda: self._browser.events(self._session, "Page.loadEventFired") or None)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Have a command carried out in this page."""
        return self._browser.call(method, self._session, **parameters)

    def evaluate(self, expression: str) -> Any:
        """Return what an expression gives in the page; a promise is waited for."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def text(self, selector: str) -> str:
        """Return the text of an element as it is seen."""
        return str(self.evaluate(f"document.querySelector({selector!r}).innerText"))

    def until(self, look: Callable[[], T | None]) -> T:
        """Return the first thing that is seen."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < deadline:
            seen = look()
            if seen is not None:
                return seen
            time.sleep(PAUSE_SECONDS)
        raise AssertionError("it did not come to that")

    def press(self, key: str, code: int) -> None:
        """Press and release a key."""
        for kind in ("keyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )

    def complaints(self) -> list[Mapping[str, Any]]:
        """Return what stands in the console: errors, warnings, violations of the policy."""
        found: list[Mapping[str, Any]] = []
        for kind in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
            found += self._browser.events(self._session, kind)
        return found

    def requests(self) -> list[str]:
        """Return the URLs that the page has asked for."""
        sent = self._browser.events(self._session, "Network.requestWillBeSent")
        return [str(event["request"]["url"]) for event in sent]

    def picture(self, form: str = "png") -> bytes:
        """Return the whole page as a picture, also what is below the window."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, format=form)
        return base64.b64decode(shot["data"])


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """Run the browser while the context lasts; without one the test is skipped."""
    program = shutil.which("chromium")
    if program is None:
        pytest.skip("no chromium on PATH: `make setup` installs Debian's where it may")
    read_commands, write_commands = os.pipe()
    read_answers, write_answers = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [
                sys.executable,
                "-c",
                LAUNCH.format(read=read_commands, write=write_answers),
                program,
                *FLAGS,
                f"--user-data-dir={profile}",
            ],
            pass_fds=(read_commands, write_answers),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(read_commands)
        os.close(write_answers)
        with os.fdopen(write_commands, "wb") as commands, os.fdopen(read_answers, "rb") as answers:
            browser = Browser(commands, answers)
            try:
                yield browser
                browser.call("Browser.close")
            finally:
                process.terminate()
                process.wait()
