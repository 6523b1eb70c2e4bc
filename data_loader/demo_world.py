"""The demo's small world: one coloured shape at a time drifts over a dark ground, in one of four directions.

A video is a sequence of events; an event is a colour, a shape and a direction. A shape crosses the
same part of the picture whichever way it goes, so no single frame tells the direction: time
matters. Four of the 24 pairs of colour and shape never occur in training; each video of the test
side shows at least one of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np

SIZE = 76  # pixels; int(1.2 * 64), so the data sets' resize leaves the 64-pixel demo's frames untouched
FPS = 3
DURATION = 12  # seconds; under 16 s YT-Temporal takes the whole video, with the same four clips each time
NUM_FRAMES = FPS * DURATION
RADIUS = 13.0  # pixels, about
TRAVEL = 0.6 * SIZE  # pixels from the start of an event to its end, about

COLOURS = {
    "red": (225, 40, 40),
    "green": (40, 190, 60),
    "blue": (60, 90, 240),
    "yellow": (235, 215, 50),
    "purple": (170, 60, 200),
    "white": (240, 240, 240),
}
SHAPES = ("circle", "square", "triangle", "cross")
DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}


@dataclass(frozen=True)
class Event:
    """One coloured shape moving in one direction."""

    colour: str
    shape: str
    direction: str

    @property
    def text(self) -> str:
        return f"a {self.colour} {self.shape} moves {self.direction}"


LOOKS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
# Four different colours and all four shapes: red circle, white square, purple triangle, yellow cross.
HELD_OUT = tuple(
    (colour, shape)
    for c, colour in enumerate(COLOURS)
    for s, shape in enumerate(SHAPES)
    if (c + s) % len(COLOURS) == 0
)


def draw_events(rng: np.random.Generator, number: int, held_out: bool) -> list[Event]:
    """`number` events of different looks: one look of the test side at least, or none at all."""
    familiar = [look for look in LOOKS if look not in HELD_OUT]
    looks = [familiar[i] for i in rng.choice(len(familiar), size=number, replace=False)]
    if held_out:
        new = 1 + int(rng.integers(min(number, len(HELD_OUT))))
        looks[:new] = [HELD_OUT[i] for i in rng.choice(len(HELD_OUT), size=new, replace=False)]
    return redraw_events(rng, looks)


def redraw_events(rng: np.random.Generator, looks: Sequence[tuple[str, str]]) -> list[Event]:
    """Events of the same looks in a random order, each in a random direction."""
    directions = rng.choice(list(DIRECTIONS), size=len(looks))
    return [Event(*looks[i], str(d)) for i, d in zip(rng.permutation(len(looks)), directions, strict=True)]


def draw_frames(rng: np.random.Generator, events: list[Event]) -> np.ndarray:
    """Paint the events one after the other, each for an equal share of the video.

    Returns:
        uint8 [NUM_FRAMES, SIZE, SIZE, 3].
    """
    frames = np.empty((NUM_FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    frames[:] = rng.integers(0, 50, size=3) + rng.integers(0, 12, size=(SIZE, SIZE, 1))
    ends = np.linspace(0, NUM_FRAMES, len(events) + 1).astype(int)
    for event, first, end in zip(events, ends[:-1], ends[1:], strict=True):
        way = np.array(DIRECTIONS[event.direction])
        middle = SIZE / 2 + rng.uniform(-0.06, 0.06, size=2) * SIZE
        middle += (1 - abs(way)) * rng.uniform(-0.2, 0.2, size=2) * SIZE  # sideways there is more room
        travel, radius = TRAVEL * rng.uniform(0.8, 1.1), RADIUS * rng.uniform(0.85, 1.15)
        for t in range(first, end):
            centre = middle + way * travel * ((t - first) / (end - 1 - first) - 0.5)
            frames[t][_shape_mask(event.shape, centre, radius)] = COLOURS[event.colour]
    return frames


def _shape_mask(shape: str, centre: np.ndarray, radius: float) -> np.ndarray:
    """Where the shape is: boolean [SIZE, SIZE]."""
    x, y = ((np.arange(SIZE) - c) / radius for c in centre)
    x, y = x[None, :], y[:, None]
    match shape:
        case "circle":
            return x**2 + y**2 <= 1
        case "square":
            return np.maximum(abs(x), abs(y)) <= 0.9
        case "triangle":
            return (y <= 0.8) & (y >= 2 * abs(x) - 1.1)
        case "cross":
            return (np.minimum(abs(x), abs(y)) <= 0.35) & (np.maximum(abs(x), abs(y)) <= 1.1)
    raise ValueError(f"no such shape: {shape!r}; there are {', '.join(SHAPES)}")


def write_video(path: Path, frames: np.ndarray) -> None:
    """Write uint8 frames [T, H, W, 3] as an H.264 file, under a temporary name until it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished.mp4")
    with av.open(str(unfinished), "w") as container:
        stream = container.add_stream(
            "libx264", rate=FPS, options={"preset": "ultrafast", "crf": "18", "g": "12"}
        )
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    unfinished.replace(path)
