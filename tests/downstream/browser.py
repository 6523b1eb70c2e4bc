"""Pages in a real browser: Debian's chromium, without a window and without a network."""

import io
import json
import os
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image

CHROMIUM = shutil.which("chromium")
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="pages are not looked at: no chromium here (apt-get install chromium)"
)
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
    ),
    *("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--window-size=1280,1000"),
)


def chromium(page: Path, profile: Path, *options: str) -> str:
    command = [CHROMIUM, *OPTIONS, f"--user-data-dir={profile}", *options, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def document(page: Path, profile: Path) -> str:
    """The page as the browser has understood it."""
    return chromium(page, profile, "--dump-dom")


def screenshot(page: Path, profile: Path) -> np.ndarray:
    """What is seen of the page, uint8 [1000, 1280, 3]."""
    file = profile.parent / "screenshot.png"
    chromium(page, profile, f"--screenshot={file}")
    return np.asarray(Image.open(io.BytesIO(file.read_bytes())).convert("RGB"))


class Browser:
    """Chromium under command, by its DevTools protocol over two pipes: a page to click and type in."""

    def __init__(self, profile: Path):
        self.profile = profile
        self.failures: list[str] = []  # exceptions in the page's scripts
        self.number = 0

    def __enter__(self) -> "Browser":
        commands, self.commands = os.pipe()
        self.answers, answers = os.pipe()

        def as_three_and_four() -> None:
            kept = os.dup(commands), os.dup(answers)
            os.dup2(kept[0], 3)
            os.dup2(kept[1], 4)

        options = (*OPTIONS, "--autoplay-policy=no-user-gesture-required", "--remote-debugging-pipe")
        command = [CHROMIUM, *options, f"--user-data-dir={self.profile}", "about:blank"]
        self.process = subprocess.Popen(
            command, preexec_fn=as_three_and_four, close_fds=False, stderr=subprocess.DEVNULL
        )
        os.close(commands)
        os.close(answers)
        self.reader = os.fdopen(self.answers, "rb")
        self.session: dict[str, str] = {}
        target = next(one for one in self.send("Target.getTargets")["targetInfos"] if one["type"] == "page")
        attached = self.send("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self.session = {"sessionId": attached["sessionId"]}
        self.send("Runtime.enable")
        self.send("Page.enable")
        return self

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.reader.close()
        os.close(self.commands)

    def send(self, method: str, **given: object) -> dict:
        """What the browser answers to a command."""
        self.number += 1
        message = {"id": self.number, "method": method, "params": given, **self.session}
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            said = json.loads(self._message())
            if said.get("method") == "Runtime.exceptionThrown":
                self.failures.append(str(said["params"]["exceptionDetails"]))
            if said.get("id") == self.number:
                assert "error" not in said, said["error"]
                return said["result"]

    def _message(self) -> bytes:
        message = bytearray()
        while (byte := self.reader.read(1)) != b"\0":
            assert byte, "the browser has ended"
            message += byte
        return bytes(message)

    def open(self, address: str) -> None:
        self.send("Page.navigate", url=address)

    def value(self, expression: str) -> Any:
        """Of an expression in JavaScript."""
        done = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def wait(self, condition: str) -> None:
        """Until a condition in JavaScript is true."""
        end = time.monotonic() + 60
        while not self.value(condition):
            if time.monotonic() > end:
                raise AssertionError(f"never came true: {condition}\n{self.value('document.body.innerText')}")
            time.sleep(0.05)

    def click(self, selector: str) -> None:
        """With the mouse, in the middle of what is there."""
        x, y = self.value(
            "(element => { element.scrollIntoView({block: 'center'}); "
            "const box = element.getBoundingClientRect(); "
            "return [box.x + box.width / 2, box.y + box.height / 2] })"
            f"(document.querySelector({json.dumps(selector)}))"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def type(self, text: str) -> None:
        """Key by key; \\r is Enter."""
        for key in text:
            enter = {"key": "Enter", "windowsVirtualKeyCode": 13} if key == "\r" else {}
            self.send("Input.dispatchKeyEvent", type="keyDown", text=key, **enter)
            self.send("Input.dispatchKeyEvent", type="keyUp", **enter)

    def choose(self, selector: str, place: int) -> None:
        """One of the options of a list."""
        self.value(
            f"(list => {{ list.selectedIndex = {place}; list.dispatchEvent(new Event('change')) }})"
            f"(document.querySelector({json.dumps(selector)}))"
        )


class Texts(HTMLParser):
    """The text inside each element whose class attribute is `style`, in the order in which they begin."""

    def __init__(self, style: str):
        super().__init__()
        self.style, self.depth = style, 0
        self.inside: list[tuple[int, int]] = []  # of the elements open now: depth, place in `found`
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in ("meta", "br", "input"):  # never closed
            return
        self.depth += 1
        if dict(attributes).get("class") == self.style:
            self.inside.append((self.depth, len(self.found)))
            self.found.append("")

    def handle_endtag(self, tag: str) -> None:
        if self.inside and self.inside[-1][0] == self.depth:
            self.inside.pop()
        self.depth -= 1

    def handle_data(self, data: str) -> None:
        for _, place in self.inside:
            self.found[place] += data


def elements(text: str, style: str) -> list[str]:
    """The texts of the elements of a class, spaces made single."""
    parser = Texts(style)
    parser.feed(text)
    return [" ".join(found.split()) for found in parser.found]


def outside(text: str) -> list[str]:
    """Whatever a page refers to that is not inside it, as the text says it."""
    targets = re.findall(r'(?:src|href|srcset|action)="([^"]*)"|url\("?([^")]*)', text)
    return [target for pair in targets for target in pair if target and not target.startswith("data:")]


def files_beside(page: Path, text: str) -> set[Path]:
    """The files that a page refers to from its folder, all of which are there; and that it refers to no other
    thing but its own parts."""
    targets = [target for target in outside(text) if not target.startswith("#")]
    files = {Path(os.path.normpath(page.parent / unquote(target.partition("#")[0]))) for target in targets}
    assert not any(":" in target or target.startswith("/") for target in targets)
    assert all(file.is_file() for file in files), files
    return files
