"""Pages in a real browser: Debian's chromium, without a window and without a network."""

import io
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

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
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--window-size=1280,1000"),
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


class Texts(HTMLParser):
    """The text inside each element whose class attribute is `style`, in the order in which they begin."""

    def __init__(self, style: str):
        super().__init__()
        self.style, self.depth = style, 0
        self.inside: list[tuple[int, int]] = []  # of the elements open now: depth, place in `found`
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in ("meta", "br"):  # never closed
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
    """Whatever a page refers to that is not inside it."""
    targets = re.findall(r'(?:src|href|srcset|action)="([^"]*)"|url\("?([^")]*)', text)
    return [target for pair in targets for target in pair if target and not target.startswith("data:")]
