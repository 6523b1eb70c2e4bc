"""The demo's small world: coloured shapes that do one thing after the other over a dark ground.

A video is a sequence of events; an event is a colour, a shape and a motion. No single frame tells
the motion, and nothing but time tells the order of events: time matters. Six of the 24 pairs of
colour and shape never occur in training; each video of the test side shows at least one of them.

Every word here is one token to CLIP's tokenizer, so that an event has its place in a caption as it has
in the video. Captions whose words shift about teach a small model the order of events far more slowly.
"""

import itertools
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
TRAVEL = 0.7 * SIZE  # pixels from one turning point of a sliding shape to the next, about
PASS = 9  # frames that it takes for them, or to grow, however long the event is

COLOURS = {
    "red": (220, 30, 30),
    "green": (20, 150, 40),
    "blue": (40, 60, 250),
    "yellow": (240, 220, 40),
    "purple": (150, 40, 190),
    "aqua": (40, 220, 230),
    "orange": (245, 130, 20),
    "white": (245, 245, 245),
}
SHAPES = ("square", "ring", "cross")
MOTIONS = ("stays", "flashes", "slides", "grows")


@dataclass(frozen=True)
class Event:
    """One coloured shape doing one thing."""

    colour: str
    shape: str
    motion: str

    @property
    def text(self) -> str:
        return f"{self.look} {self.motion}"

    @property
    def look(self) -> str:
        return f"{'an' if self.colour[0] in 'ao' else 'a'} {self.colour} {self.shape}"


LOOKS = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
HELD_OUT = tuple(  # six of the 24, two of each shape
    (colour, shape) for c, colour in enumerate(COLOURS) for s, shape in enumerate(SHAPES) if (c + s) % 4 == 0
)


FAMILIAR = tuple(look for look in LOOKS if look not in HELD_OUT)
ALONE = FAMILIAR[::3]  # six looks, for training videos of a single event
# 16 of the 56 sets of three colours, each colour in six of them
PALETTES = tuple(
    tuple(tuple(COLOURS)[(first + step) % len(COLOURS)] for step in steps)
    for steps in ((0, 1, 3), (0, 2, 5))
    for first in range(len(COLOURS))
)


def draw_events(rng: np.random.Generator, number: int, held_out: bool) -> list[Event]:
    """`number` events of different looks: one look of the test side at least, or none at all."""
    looks = [FAMILIAR[i] for i in rng.choice(len(FAMILIAR), size=number, replace=False)]
    if held_out:
        new = 1 + int(rng.integers(min(number, len(HELD_OUT))))
        looks[:new] = [HELD_OUT[i] for i in rng.choice(len(HELD_OUT), size=new, replace=False)]
    return _events(rng, looks)


def draw_single_event(rng: np.random.Generator) -> list[Event]:
    """One event in one of few looks of the training side: what tells such videos apart is their motion."""
    return _events(rng, [ALONE[rng.integers(len(ALONE))]])


def draw_palette_stories(rng: np.random.Generator, number: int) -> list[list[Event]]:
    """Three events in the colours of a palette, looks of the training side, in `number` different orders.

    With so few sets of colours, a batch holds several orders of each, which little but the order of events
    tells apart. With any colours, contrastive training stops at what happens and never comes to when.
    """
    colours = PALETTES[rng.integers(len(PALETTES))]
    choices = [[look for look in FAMILIAR if look[0] == colour] for colour in colours]
    events = _events(rng, [looks[rng.integers(len(looks))] for looks in choices])
    orders = list(itertools.permutations(events))
    return [list(orders[i]) for i in rng.choice(len(orders), size=number, replace=False)]


def _events(rng: np.random.Generator, looks: Sequence[tuple[str, str]]) -> list[Event]:
    """Events of these looks in a random order, each with a random motion."""
    motions = rng.choice(MOTIONS, size=len(looks))
    order: list[int] = rng.permutation(len(looks)).tolist()
    return [Event(*looks[i], motion) for i, motion in zip(order, motions.tolist(), strict=True)]


def draw_frames(rng: np.random.Generator, events: Sequence[Event]) -> np.ndarray:
    """Paint the events one after the other, each for an equal share of the video.

    Returns:
        uint8 [NUM_FRAMES, SIZE, SIZE, 3].
    """
    frames = np.empty((NUM_FRAMES, SIZE, SIZE, 3), dtype=np.uint8)
    frames[:] = 20 + rng.integers(0, 12, size=(SIZE, SIZE, 1))  # the same ground: none to know a video by
    ends = np.linspace(0, NUM_FRAMES, len(events) + 1).astype(int)
    for event, first, end in zip(events, ends[:-1], ends[1:], strict=True):
        for t, place in enumerate(_places(rng, event.motion, end - first), start=first):
            if place is not None:
                frames[t][_shape_mask(event.shape, *place)] = COLOURS[event.colour]
    return frames


def _places(rng: np.random.Generator, motion: str, number: int) -> list[tuple[float, float, float] | None]:
    """Where a shape is in each of `number` frames, (x, y, radius) in pixels; None where it does not show."""
    x, y = SIZE / 2 + rng.uniform(-0.2, 0.2, size=2) * SIZE
    x, y, radius = (np.full(number, value) for value in (x, y, RADIUS * rng.uniform(0.85, 1.15)))
    shows = np.ones(number, dtype=bool)
    t = np.arange(number)
    if motion == "flashes":
        shows = (t + rng.integers(2)) // 2 % 2 == 0  # two frames on, two frames off
    elif motion == "slides":  # to and fro, starting from either end
        x = SIZE / 2 + TRAVEL * rng.uniform(0.9, 1.1) * (abs((t / PASS + rng.integers(2)) % 2 - 1) - 0.5)
    elif motion == "grows":  # again and again
        radius = radius * (0.4 + 1.2 * (t % PASS) / (PASS - 1))
    places = zip(x, y, radius, strict=True)
    return [place if show else None for place, show in zip(places, shows, strict=True)]


def _shape_mask(shape: str, x: float, y: float, radius: float) -> np.ndarray:
    """Where a shape around (x, y) is: boolean [SIZE, SIZE]."""
    right = (np.arange(SIZE)[None, :] - x) / radius
    down = (np.arange(SIZE)[:, None] - y) / radius
    match shape:
        case "square":
            return np.maximum(abs(right), abs(down)) <= 1
        case "ring":
            return abs(np.hypot(right, down) - 0.9) <= 0.15
        case "cross":
            narrow, wide = np.minimum(abs(right), abs(down)), np.maximum(abs(right), abs(down))
            return (narrow <= 0.15) & (wide <= 1.1)
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
