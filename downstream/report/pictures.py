"""Videos as pictures inside a page, and as files that it can play."""

import base64
import io
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from einops import rearrange
from PIL import Image
from tqdm import tqdm

from data_loader.sampling import frame_at
from data_loader.spans import Span
from data_loader.video import Video, VideoReadError, read_frames

THUMBNAIL = (96, 72)  # pixels at most, width and height of a frame; a strip is three wide, as in page.html
STRIP = (1 / 6, 1 / 2, 5 / 6)  # the middle of each third
GAP = 2  # pixels between the frames of a strip
WEB = ("http://", "https://")  # no other scheme: a browser would run javascript:


@dataclass(frozen=True)
class Picture:
    """Frames of a video to be shown side by side: its file, or what fsspec opens; and the places in it, or in
    its `span`, from 0 to 1.

    `open` gives a file to read while its context lasts, where `file` is no such one but lies in a shard.
    """

    file: str
    places: tuple[float, ...] = STRIP
    span: Span | None = None
    open: Callable[[], AbstractContextManager[str | Path]] | None = None

    def opened(self) -> AbstractContextManager[str | Path]:
        return self.open() if self.open else nullcontext(self.file)

    def frames(self, video: Video) -> list[int]:
        """The frames that are shown at the places, by time."""
        start, end = self.span or Span()
        end = min(end, video.duration)
        return [frame_at(video.times, start + place * (end - start)) for place in self.places]

    def link(self, folder: Path) -> str:
        """How a page in `folder` refers to the file and the span in it; "" where there is no file to play.

        The link is relative, so that videos and pages may be moved together.
        """
        if self.file.startswith(WEB):
            address = self.file
        elif os.path.isfile(self.file):
            address = relative_link(self.file, folder)
        else:
            return ""
        if self.span is None:
            return address
        end = f",{self.span.end:g}" if self.span.end < float("inf") else ""
        return f"{address}#t={self.span.start:g}{end}"


def relative_link(file: str | Path, folder: Path) -> str:
    """The address of a file for a page in a folder, whatever bytes its name has."""
    return quote(os.fsencode(os.path.relpath(file, folder)))


@dataclass(frozen=True)
class Thumbnails:
    """Pictures of a page by name: data URIs, and the reason where a video could not be read."""

    pictures: dict[str, Picture] = field(default_factory=dict)
    uris: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @property
    def names(self) -> dict[str, str]:
        """Picture -> the CSS class that shows it: each is in the page once, however often shown."""
        return {name: f"t{i}" for i, name in enumerate(self.uris)}

    def links(self, folder: Path) -> dict[str, str]:
        """Of the videos that a page in `folder` can play."""
        found = {name: self.pictures[name].link(folder) for name in self.uris}
        return {name: link for name, link in found.items() if link}


def thumbnails(
    pictures: dict[str, Picture], reader: str = "pyav", timeout: float | None = None
) -> Thumbnails:
    """Read and shrink pictures, several at a time. A video that cannot be read costs its picture alone."""
    uris: dict[str, str] = {}
    failed: dict[str, str] = {}

    def shrink(picture: Picture) -> str | VideoReadError:
        try:
            with picture.opened() as path:
                frames, _, _ = read_frames(path, picture.frames, reader, timeout)
        except VideoReadError as error:
            return error
        pixels = rearrange(frames.numpy(), "t c h w -> t h w c")
        return data_uri(side_by_side([Image.fromarray(frame) for frame in pixels]))

    with ThreadPoolExecutor(8) as pool:
        bar = tqdm(total=len(pictures), unit="picture", desc="page", leave=False, disable=None)
        for name, made in zip(pictures, pool.map(shrink, pictures.values()), strict=True):
            bar.update()
            if isinstance(made, VideoReadError):
                failed[name] = made.reason
            else:
                uris[name] = made
        bar.close()
    return Thumbnails(pictures, uris, failed)


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
