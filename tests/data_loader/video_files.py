"""Small videos of all kinds for the tests. Every frame carries its number in its pixels, as six black or
white blocks that survive compression: `frame_numbers` reads them back, so a test sees which frames a reader
has given."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

ROWS, COLS = 2, 3
MAX_FRAMES = 2 ** (ROWS * COLS)
TICKS = 1000  # time base: milliseconds


def numbered_frame(number: int, width: int, height: int) -> np.ndarray:
    """uint8 [height, width, 3] with the binary digits of `number` as blocks, the lowest at the top left."""
    rows = np.arange(height) * ROWS // height
    cols = np.arange(width) * COLS // width
    bits = (number >> (rows[:, None] * COLS + cols)) & 1
    return np.repeat((bits * 255).astype(np.uint8)[..., None], 3, axis=2)


def frame_numbers(frames) -> list[int]:
    """The numbers in frames uint8 [T, 3, H, W]. Fails where a block is neither black nor white."""
    pixels = np.asarray(frames)
    height, width = pixels.shape[2:]
    ys = ((np.arange(ROWS) + 0.5) * height / ROWS).astype(int)
    xs = ((np.arange(COLS) + 0.5) * width / COLS).astype(int)
    blocks = pixels[:, :, ys][:, :, :, xs].astype(int)  # [T, 3, ROWS, COLS]
    assert ((blocks < 40) | (blocks > 215)).all(), "a block is neither black nor white"
    bits = (blocks.mean(axis=1) > 128).reshape(len(pixels), -1)
    return (bits << np.arange(ROWS * COLS)).sum(axis=1).tolist()


def write_video(
    path: Path,
    num_frames: int = 40,
    codec: str = "libx264",
    size: tuple[int, int] = (96, 64),
    pix_fmt: str = "yuv420p",
    times: Sequence[int] | None = None,
    options: dict[str, str] | None = None,
    b_frames: int | None = None,
    container_options: dict[str, str] | None = None,
    full_range: bool = False,
) -> Path:
    """Frames 0 … num_frames − 1. size: (width, height). times: in ms, else 25 frames a second."""
    assert num_frames <= MAX_FRAMES
    width, height = size
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        context = stream.codec_context
        context.thread_count = 1
        if b_frames is not None:
            context.max_b_frames = b_frames
        if full_range:
            context.color_range = 2
        if times is not None:
            context.time_base = Fraction(1, TICKS)
        for i in range(num_frames):
            image = av.VideoFrame.from_ndarray(numbered_frame(i, width, height), format="rgb24")
            frame = image.reformat(format=pix_fmt, dst_color_range=2 if full_range else 1)
            if times is None:
                frame.pts, frame.time_base = i, Fraction(1, 25)
            else:
                frame.pts, frame.time_base = times[i], Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut_by_copy(source: Path, path: Path, first: int, keep_start: bool = True) -> Path:
    """The packets of `source` copied with time 0 at frame `first`, as `ffmpeg -ss … -c copy` does.

    What comes before stays in the file, as frames that depend on one another must; in an MP4 an edit list
    hides it. With `keep_start` False it is dropped: `first` should be a key frame then, and the pictures of
    an open GOP that lean on the one before are lost.
    """
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        shift = round(first / 25 / stream.time_base)
        started = keep_start
        for packet in old.demux(stream):
            started |= packet.is_keyframe and packet.pts >= shift
            if packet.dts is None or not started:
                continue
            packet.pts -= shift
            packet.dts -= shift
            packet.stream = copy
            new.mux(packet)
    return path


def write_sound(path: Path) -> Path:
    """One second of silence and no video."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 16000), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


ORIENTATIONS = {  # display matrix (a, b, c, d): the pixel (x, y) is shown at (ax + cy, bx + dy)
    "as stored": (1, 0, 0, 1),
    "turned clockwise": (0, 1, -1, 0),
    "upside down": (-1, 0, 0, -1),
    "turned counter-clockwise": (0, -1, 1, 0),
    "mirrored": (-1, 0, 0, 1),
    "mirrored, upside down": (1, 0, 0, -1),
    "transposed": (0, 1, 1, 0),
    "transposed along the other diagonal": (0, -1, -1, 0),
}


def orient(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Writes a display matrix (a, b, c, d) into the header of an MP4."""
    a, b, c, d = matrix
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 4 + 40  # after version, times, id, duration, layer and volume
    for k, value in enumerate((a, b, 0, c, d)):
        content[start + 4 * k : start + 4 * k + 4] = (value << 16).to_bytes(4, "big", signed=True)
    path.write_bytes(content)
    return path


def shown(stored: np.ndarray, matrix: tuple[int, int, int, int]) -> np.ndarray:
    """What a display matrix makes of the pixels [H, W, ...], moved one by one."""
    a, b, c, d = matrix
    height, width = stored.shape[:2]
    ys, xs = np.indices((height, width))
    right, down = a * xs + c * ys, b * xs + d * ys
    right, down = right - right.min(), down - down.min()
    result = np.empty((down.max() + 1, right.max() + 1, *stored.shape[2:]), stored.dtype)
    result[down, right] = stored
    return result


def set_avi_count(path: Path, count: int) -> Path:
    """Writes a number of frames into the headers of an AVI, right or wrong."""
    content = bytearray(path.read_bytes())
    for chunk, offset in ((b"avih", 16), (b"strh", 32)):
        at = content.index(chunk) + 8 + offset
        content[at : at + 4] = count.to_bytes(4, "little")
    path.write_bytes(content)
    return path


def truncate(path: Path, share: float) -> Path:
    """Cuts a file off after a share of its bytes."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path
