"""The demo's small world: coloured shapes that do one thing after the other over a dark ground.

A video is a sequence of events; an event is a colour, a shape and a motion. No single frame tells
the motion, and nothing but time tells the order of events: time matters. Six of the 24 pairs of
colour and shape never occur in training; each video of the test side shows at least one of them.
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
TRAVEL = 0.6 * SIZE  # pixels that a moving shape covers during an event, about

COLOURS = {
    "red": (220, 30, 30),
    "green": (20, 150, 40),
    "blue": (40, 60, 250),
    "yellow": (240, 220, 40),
    "purple": (150, 40, 190),
    "cyan": (40, 220, 230),
    "orange": (245, 130, 20),
    "white": (245, 245, 245),
}
SHAPES = ("square", "ring", "cross")
MOTIONS = ("stays", "blinks", "moves sideways", "moves up and down")


@dataclass(frozen=True)
class Event:
    """One coloured shape doing one thing."""

    colour: str
    shape: str
    motion: str

    @property
    def text(self) -> str:
        return f"a {self.colour} {self.shape} {self.motion}"


LOOKS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
HELD_OUT = tuple(  # six of the 24, two of each shape
    (colour, shape) for c, colour in enumerate(COLOURS) for s, shape in enumerate(SHAPES) if (c + s) % 4 == 0
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
    """Events of the same looks in a random order, each with a random motion."""
    motions = rng.choice(MOTIONS, size=len(looks))
    return [Event(*looks[i], str(m)) for i, m in zip(rng.permutation(len(looks)), motions, strict=True)]


def draw_frames(rng: np.random.Generator, events: Sequence[Event]) -> np.ndarray:
    """Paint the events one after the other, each for an equal share of the video.

    Returns:
        uint8 [NUM_FRAMES, SIZE, SIZE, 3].
    """
    frames = np.empty((NUM_FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    frames[:] = rng.integers(0, 50, size=3) + rng.integers(0, 12, size=(SIZE, SIZE, 1))
    ends = np.linspace(0, NUM_FRAMES, len(events) + 1).astype(int)
    for event, first, end in zip(events, ends[:-1], ends[1:], strict=True):
        radius = RADIUS * rng.uniform(0.85, 1.15)
        for t, centre in enumerate(_centres(rng, event.motion, end - first), start=first):
            if centre is not None:
                frames[t][_shape_mask(event.shape, centre, radius)] = COLOURS[event.colour]
    return frames


def _centres(rng: np.random.Generator, motion: str, number: int) -> list[np.ndarray | None]:
    """Where a shape is in each of `number` frames, (x, y) in pixels; None where it does not show."""
    way = {"moves sideways": np.array([1, 0]), "moves up and down": np.array([0, 1])}.get(motion, np.zeros(2))
    middle = SIZE / 2 + rng.uniform(-0.06, 0.06, size=2) * SIZE
    middle += (1 - way) * rng.uniform(-0.2, 0.2, size=2) * SIZE  # where it does not move there is more room
    path = rng.choice([-1, 1]) * TRAVEL * rng.uniform(0.8, 1.1) * np.linspace(-0.5, 0.5, number)
    shows = np.ones(number, dtype=bool)
    if motion == "blinks":
        shows = (np.arange(number) + rng.integers(2)) // 2 % 2 == 0  # two frames on, two frames off
    return [middle + way * step if show else None for step, show in zip(path, shows, strict=True)]


def _shape_mask(shape: str, centre: np.ndarray, radius: float) -> np.ndarray:
    """Where the shape is: boolean [SIZE, SIZE]."""
    x, y = ((np.arange(SIZE) - c) / radius for c in centre)
    x, y = x[None, :], y[:, None]
    match shape:
        case "square":
            return np.maximum(abs(x), abs(y)) <= 1
        case "ring":
            return abs(np.hypot(x, y) - 0.9) <= 0.15
        case "cross":
            return (np.minimum(abs(x), abs(y)) <= 0.15) & (np.maximum(abs(x), abs(y)) <= 1.1)
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
