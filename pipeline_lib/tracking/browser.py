"""A headless Chromium that is told by its debugging pipe what to do: enough of it to photograph a page."""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from pipeline_lib.exits import TryAgain

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
PATIENCE_SECONDS = 60.0
STILL_SECONDS = 2.0


class Browser:
    """Chromium for the length of a `with` block; raises TryAgain where it is not installed or stops answering."""

    def __init__(self, width: int = 1600, height: int = 900) -> None:
        program = next((found for name in NAMES if (found := shutil.which(name))), None)
        if program is None:
            raise TryAgain("Chromium is not installed; install it (Debian: apt-get install chromium) and run again.")
        self.size = {"width": width, "height": height}
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        flags = [*FLAGS, f"--user-data-dir={self.profile.name}"]
        read, self.commands = os.pipe()
        self.answers, write = os.pipe()
        # Chromium reads commands from descriptor 3 and answers on 4: https://chromedevtools.github.io/devtools-protocol
        shell = ["bash", "-c", f'exec "$@" 3<&{read} 4>&{write}', "chromium", program, *flags]
        silent = subprocess.DEVNULL
        self.process = subprocess.Popen(shell, pass_fds=(read, write), stdout=silent, stderr=silent)
        os.close(read)
        os.close(write)
        self.buffer, self.count, self.session = b"", 0, ""

    def __enter__(self) -> "Browser":
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")
        self.call("Emulation.setDeviceMetricsOverride", **self.size, deviceScaleFactor=1, mobile=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(20)
        os.close(self.commands)
        os.close(self.answers)
        self.profile.cleanup()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """The result of one command of the DevTools protocol."""
        self.count += 1
        command: dict[str, Any] = {"id": self.count, "method": method, "params": params}
        if self.session:
            command["sessionId"] = self.session
        os.write(self.commands, json.dumps(command).encode() + b"\0")
        while (answer := self._receive()).get("id") != self.count:
            pass
        if "error" in answer:
            raise TryAgain(f"Chromium refused {method}: {answer['error'].get('message')}")
        return answer["result"]

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page."""
        return self.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def open(self, page: str, wanted: str) -> None:
        """Go to an address, and wait until the CSS selector `wanted` finds something and nothing changes any more."""
        self.call("Page.navigate", url=page)
        end = time.monotonic() + PATIENCE_SECONDS
        while not self.evaluate(f"document.querySelector({json.dumps(wanted)}) !== null"):
            if time.monotonic() > end:
                raise TryAgain(f"{page} did not show '{wanted}' within {PATIENCE_SECONDS:.0f} s; run again.")
            time.sleep(0.2)
        self.settle()

    def settle(self) -> None:
        """Wait until the page has been the same for STILL_SECONDS, at most PATIENCE_SECONDS."""
        start = since = time.monotonic()
        before = None
        while time.monotonic() - since < STILL_SECONDS and time.monotonic() - start < PATIENCE_SECONDS:
            now = self.evaluate("document.documentElement.outerHTML.length")
            if now != before:
                before, since = now, time.monotonic()
            time.sleep(0.2)

    def photograph(self, picture: Path) -> None:
        """Write what the window shows as PNG."""
        picture.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self.buffer:
            ready = select.select([self.answers], [], [], PATIENCE_SECONDS)[0]
            chunk = os.read(self.answers, 1 << 20) if ready else b""
            if not chunk:
                raise TryAgain("Chromium stopped answering; run again.")
            self.buffer += chunk
        message, self.buffer = self.buffer.split(b"\0", 1)
        return json.loads(message)
