"""Twenty steps of a fixed small config on the CPU, on videos that decode to the same pixels everywhere.

`python -m tests.trainer.golden` writes their losses to tests/golden/demo_losses.json; it is to be run where a
change of the losses is meant. Config and variant are copies of the demo's as it was one day, so that the demo
can be tuned without losing the guard.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import av
import numpy as np

import train
from model.variants import VARIANTS, Variant
from tests.trainer.runs import rows
from utils.config import REPOSITORY

GOLDEN = REPOSITORY / "tests/golden"
LOSSES = GOLDEN / "demo_losses.json"
PARTS = ("loss", "contrastive", "sorting")
VIDEOS, SECONDS, FPS = 10, 20, 3
SIZE = 76  # pixels; int(1.2 * 64), so that the data sets' resize leaves the frames untouched
WORDS = ("a", "red", "ring", "moves", "up", "then", "some", "blue", "square", "blinks", "and", "so", "stays")


def write_video(path: Path, rng: np.random.Generator) -> None:
    """Blurred noise that drifts, as lossless H.264 in RGB: what is decoded does not depend on the encoder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = rng.integers(0, 256, size=(SIZE // 4 + 30, SIZE // 4, 3), dtype=np.uint8)
    picture = blocks.repeat(4, axis=0).repeat(4, axis=1)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264rgb", rate=FPS, options={"qp": "0", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = SIZE, SIZE, "rgb24"
        for t in range(SECONDS * FPS):
            frame = np.ascontiguousarray(picture[2 * t % 120 :][:SIZE])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def write_world(root: Path) -> None:
    """A few narrated videos in YT-Temporal's layout, and the same number of captioned ones in WebVid's."""
    (root / "meta").mkdir(parents=True)
    narrated = [f"subset_87/data/{i}.mp4" for i in range(VIDEOS)]
    captioned = [f"{i % 2}/{i}" for i in range(VIDEOS)]
    (root / "meta/yttemporal_train.csv").write_text("\n".join(["Name", *narrated]) + "\n")
    lines = [f"{' '.join(WORDS[i % 5 : i % 5 + 4])}\t{path}" for i, path in enumerate(captioned)]
    (root / "meta/webvid_train.tsv").write_text("\n".join(["caption\tpath", *lines]) + "\n")
    for i in range(VIDEOS):
        write_video(root / "videos/videos" / narrated[i], np.random.default_rng([0, i]))
        write_video(root / "videos/train" / f"{captioned[i]}.mp4", np.random.default_rng([1, i]))
        said = [WORDS[int(k)] for k in np.random.default_rng([2, i]).integers(len(WORDS), size=2 * SECONDS)]
        transcript = {
            "subtitles": [{"word": word, "time": 0.2 + k / 2} for k, word in enumerate(said)],
            "denoised": [{"cleanasr": " ".join(said)}],
            "info": {"duration": SECONDS},
        }
        path = root / "videos/videos/subset_87/annotations" / f"{i}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(transcript))


def golden_arguments(root: Path) -> list[str]:
    """Arguments of train.py for the run on the world below `root`."""
    overrides = [
        f"trainer.save_dir={root}",
        f"data.meta={root / 'meta'}",
        *(f"data.train.{i}.root={root / 'videos'}" for i in range(2)),
    ]
    return [
        "--config",
        str(GOLDEN / "demo_config.json"),
        *(part for override in overrides for part in ("--set", override)),
    ]


def twenty_losses(root: Path) -> list[dict[str, float]]:
    """Train in the empty folder `root`; the losses of each step, by part."""
    write_world(root)
    settings = json.loads((GOLDEN / "demo_variant.json").read_text())
    VARIANTS["TVTSv2_Golden"] = Variant(name="TVTSv2_Golden", **settings)
    try:
        train.main(golden_arguments(root))
    finally:
        del VARIANTS["TVTSv2_Golden"]
    return [{part: row[part] for part in PARTS if part in row} for row in rows(root / "golden", "step")]


def main(argv: Sequence[str] | None = None) -> None:
    target = Path((argv or sys.argv[1:] or [LOSSES])[0])
    with tempfile.TemporaryDirectory() as folder:
        losses = twenty_losses(Path(folder) / "world")
    target.write_text("[\n" + ",\n".join(f"  {json.dumps(step)}" for step in losses) + "\n]\n")
    print(f"wrote {len(losses)} steps to {target}")


if __name__ == "__main__":
    main()
