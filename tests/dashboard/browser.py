"""A real Chromium without a window, driven over its debugging protocol.

Owns: the process and the conversation. aiohttp speaks WebSocket already, and a dozen of the protocol's
commands are all that is needed: pages, keys, sizes, colours, pictures, and what the console says.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

PATIENCE_S = 30.0
_KEYS = {"Enter": ("\r", 13), "Tab": ("", 9), "Escape": ("", 27), " ": (" ", 32)}


def find_chromium() -> str:
    """Return the browser; skip the test where there is none, fail it where it has to be."""
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("Chromium is not installed")
    return found


class Browser:
    """One browser with pages; a context that ends it."""

    def __enter__(self) -> Browser:
        self._folder = Path(tempfile.mkdtemp(prefix="gpuscalp-chromium-"))
        command = [
            find_chromium(),
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
        ]
        command += ["--remote-debugging-port=0", f"--user-data-dir={self._folder}", "--no-first-run"]
        command += ["--disable-background-networking", "--disable-component-update", "--no-proxy-server"]
        command += ["--disable-extensions", "--hide-scrollbars", "about:blank"]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._pages: list[Page] = []
        return self

    def __exit__(self, *_: object) -> None:
        for page in self._pages:
            page.close()
        self._process.kill()
        self._process.wait(PATIENCE_S)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE_S)
        self._loop.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def open(self, url: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> Page:
        """Open a page and wait until it is loaded."""
        page = Page(self._loop, self._port())
        self._pages.append(page)
        page.shape(width, height, dark=dark)
        page.call("Page.navigate", url=url)
        page.wait(lambda: page.value(f"location.href === {json.dumps(url)}") and page.is_loaded(), "the page")
        return page

    def _port(self) -> int:
        file, until = self._folder / "DevToolsActivePort", time.monotonic() + PATIENCE_S
        while time.monotonic() < until:
            assert self._process.poll() is None, "Chromium has ended"
            if file.exists() and (lines := file.read_text().splitlines()):
                return int(lines[0])
            time.sleep(0.05)
        raise AssertionError("Chromium does not say where it listens")


class Page:
    """One page.

    Attributes
    ----------
    complaints : errors and warnings of its console, exceptions, and requests that failed
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self._loop, self._number, self._waiting = loop, 0, {}
        self.complaints: list[str] = []
        self._run(self._connect(port))
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    async def _connect(self, port: int) -> None:
        self._client = aiohttp.ClientSession()
        async with self._client.put(f"http://127.0.0.1:{port}/json/new?about:blank") as reply:
            target = json.loads(await reply.text())
        self._socket = await self._client.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0)
        self._reader = asyncio.create_task(self._read())

    async def _read(self) -> None:
        async for message in self._socket:
            told = json.loads(message.data)
            if (future := self._waiting.pop(told.get("id"), None)) is not None:
                future.set_result(told)
                continue
            what, details = told.get("method"), told.get("params", {})
            if what == "Runtime.exceptionThrown":
                self.complaints.append(json.dumps(details["exceptionDetails"])[:500])
            elif what == "Runtime.consoleAPICalled" and details["type"] in ("error", "warning", "assert"):
                self.complaints.append(json.dumps(details["args"])[:500])
            elif what == "Log.entryAdded" and details["entry"]["level"] in ("error", "warning"):
                entry = details["entry"]
                self.complaints.append(f"{entry['text']} {entry.get('url', '')}")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its answer."""

        async def ask() -> dict[str, Any]:
            self._number += 1
            future = self._waiting[self._number] = self._loop.create_future()
            await self._socket.send_json({"id": self._number, "method": method, "params": params})
            return await future

        answer = self._run(ask())
        assert "error" not in answer, f"{method}: {answer['error']}"
        return answer["result"]

    def is_loaded(self) -> bool:
        return bool(self.value("document.readyState === 'complete'"))

    def close(self) -> None:
        """Close the page; once more does nothing."""
        if self._client.closed:
            return
        self.call("Page.close")

        async def end() -> None:
            self._reader.cancel()
            await self._socket.close()
            await self._client.close()

        self._run(end())

    def shape(self, width: int, height: int, *, dark: bool) -> None:
        """Set the size of the window, and which colours the system prefers."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def value(self, script: str) -> Any:
        """Return what an expression has for a value."""
        found = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def text(self, selector: str) -> str:
        """Return the text of an element; "" where there is none."""
        return str(self.value(f"document.querySelector({json.dumps(selector)})?.textContent ?? ''"))

    def wait(self, true: Callable[[], Any], what: str, *, seconds: float = PATIENCE_S) -> Any:
        """Return the first value that counts as true."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if found := true():
                return found
            time.sleep(0.05)
        raise AssertionError(f"{what} has not come true in {seconds:g} s; console: {self.complaints}")

    def click(self, selector: str) -> None:
        """Press the mouse where an element is."""
        box = self.value(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)});"
            " e.scrollIntoView({block: 'nearest'}); const b = e.getBoundingClientRect();"
            " return [b.x + b.width / 2, b.y + b.height / 2]; })()"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=box[0], y=box[1], button="left", clickCount=1)

    def press(self, key: str) -> None:
        """Press a key on the keyboard."""
        text, code = _KEYS[key]
        event = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": code}
        self.call("Input.dispatchKeyEvent", type="keyDown", text=text, **event)
        self.call("Input.dispatchKeyEvent", type="keyUp", **event)

    def type(self, text: str) -> None:
        self.call("Input.insertText", text=text)

    def picture(self, path: Path, *, whole: bool = True) -> None:
        """Write a picture of the page as PNG."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)["data"]
        path.write_bytes(base64.b64decode(data))
