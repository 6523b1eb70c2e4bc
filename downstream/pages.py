"""Results as pages to look at: one HTML file each, its pictures inside, nothing taken from a network."""

import base64
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from tqdm import tqdm

from data_loader.video import VideoReadError, read_frames
from utils.files import write_text

TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
THUMBNAIL = (96, 72)  # pixels at most, width and height of a frame; a strip is three wide, as in page.html
STRIP = (1 / 6, 1 / 2, 5 / 6)  # the middle of each third
GAP = 2  # pixels between the frames of a strip


@dataclass(frozen=True)
class Picture:
    """Frames of a video to be shown side by side: where the video is, and the places in it, from 0 to 1.

    `open` gives the path of the file while its context lasts.
    """

    open: Callable[[], AbstractContextManager[str | Path]]
    places: tuple[float, ...] = STRIP

    def frames(self, vlen: int) -> list[int]:
        """Which frames, of a video of `vlen`."""
        return [min(int(place * vlen), vlen - 1) for place in self.places]


@dataclass(frozen=True)
class Thumbnails:
    """Pictures of a page by name: data URIs, and the reason where a video could not be read."""

    uris: dict[str, str]
    failed: dict[str, str]

    @property
    def names(self) -> dict[str, str]:
        """Picture -> the CSS class that shows it: each is in the page once, however often shown."""
        return {name: f"t{i}" for i, name in enumerate(self.uris)}


def thumbnails(
    pictures: dict[str, Picture], reader: str = "pyav", timeout: float | None = None
) -> Thumbnails:
    """Read and shrink pictures, several at a time. A video that cannot be read costs its picture alone."""
    uris: dict[str, str] = {}
    failed: dict[str, str] = {}

    def shrink(picture: Picture) -> str | VideoReadError:
        try:
            with picture.open() as path:
                frames, _, _ = read_frames(path, picture.frames, reader, timeout)
        except VideoReadError as error:
            return error
        return data_uri(side_by_side([Image.fromarray(frame.permute(1, 2, 0).numpy()) for frame in frames]))

    with ThreadPoolExecutor(8) as pool:
        bar = tqdm(total=len(pictures), unit="picture", desc="page", leave=False, disable=None)
        for name, made in zip(pictures, pool.map(shrink, pictures.values()), strict=True):
            bar.update()
            if isinstance(made, VideoReadError):
                failed[name] = made.reason
            else:
                uris[name] = made
        bar.close()
    return Thumbnails(uris, failed)


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Images of one size, made small, from left to right."""
    for image in images:
        image.thumbnail(THUMBNAIL)
    width, height = images[0].size
    strip = Image.new("RGB", (len(images) * (width + GAP) - GAP, height))
    for i, image in enumerate(images):
        strip.paste(image, (i * (width + GAP), 0))
    return strip


def data_uri(image: Image.Image) -> str:
    """A JPEG of `image`, as text that stands for it in HTML."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=72)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def write_page(path: Path, template: str, **values: Any) -> None:
    """Fill a template of downstream/templates/ and put it at `path` in one step; all values are escaped."""
    text = TEMPLATES.get_template(template).render(**values)
    write_text(text, path)
