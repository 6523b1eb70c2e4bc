"""The pictures of the documentation, of a demo's results.

found.png: captions, and the video found for each. retrieval.png, motion.png, map.png: the demo's pages,
which need chromium. curves.png: its training. speed.svg: the figures in docs/speed.json.

    python -m benchmarks.pictures --demo results/demo
"""

import json
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch

matplotlib.use("Agg")  # no screen needed
from matplotlib import pyplot as plt

from data_loader.video import read_clip
from downstream.feature_files import load_features
from trainer.curves import draw_curves
from utils.commands import CommandParser
from utils.config import REPOSITORY
from utils.errors import RunError, run_errors

QUERIES = 3  # the first of the evaluation, not chosen
FRAMES = 8  # of a strip
PAGES = {"retrieval": "retrieval_demo_msrvtt", "motion": "recognition_demo_hmdb51", "map": "features"}
WINDOW = (1100, 720)  # pixels


def draw_found(demo: Path, output: Path) -> None:
    """The first captions of the evaluation, each with the video found first for it, as strips."""
    results = json.loads((demo / "evaluation" / "demo_msrvtt" / "results.json").read_text())
    paths = {Path(path).stem: path for path in load_features(demo / "features.safetensors").columns["path"]}
    queries = results["queries"][:QUERIES]
    figure, rows = plt.subplots(len(queries), 1, figsize=(9, 1.62 * len(queries)), layout="constrained")
    for axes, query in zip(rows, queries, strict=True):
        video, similarity = query["top"][0]
        frames, _, _ = read_clip(paths[video], FRAMES)
        axes.imshow(torch.cat(list(frames), dim=2).permute(1, 2, 0))  # [H, FRAMES * W, 3]
        for i in range(1, len(frames)):
            axes.axvline(i * frames.shape[3] - 0.5, color="white", linewidth=1.5)
        right = "" if video == query["video"] else f" (rank {query['rank']} for the right one)"
        axes.set_title(f"“{query['caption']}”   {similarity:.2f}{right}", loc="left", fontsize=10)
        axes.axis("off")
    save(figure, output)


def draw_speed(output: Path) -> None:
    """Bars of clips a second: the official code as it is, in bf16, and ours."""
    speed = json.loads((REPOSITORY / "docs" / "speed.json").read_text())
    names = [row[0] for row in speed["rows"]]
    figure, axes = plt.subplots(figsize=(9, 3.4), layout="constrained")
    series = (("official, as is", "#b8bfc9"), ("official, bf16", "#7d8da3"), ("this repository", "#2f6fde"))
    for i, (label, colour) in enumerate(series):
        places = [n + (i - 1) * 0.27 for n in range(len(names))]
        bars = axes.barh(places, [row[i + 1] for row in speed["rows"]], 0.25, label=label, color=colour)
        axes.bar_label(bars, padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel(f"clips a second, {speed['card']}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    save(figure, output)


def save(figure: plt.Figure, output: Path) -> None:
    """On white, so that it can be read on dark pages, too."""
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type")) if output.suffix == ".svg" else None
    figure.savefig(output, dpi=100, facecolor="white", metadata=nothing)  # no date, no program
    plt.close(figure)


def photograph(page: Path, output: Path) -> None:
    """A page as chromium shows it. Raises RunError: there is no chromium, or it shows nothing."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        raise RunError("pictures of pages need chromium: apt-get install chromium")
    with tempfile.TemporaryDirectory() as profile:
        options = ["--headless", "--no-sandbox", "--hide-scrollbars", "--force-color-profile=srgb"]
        size = f"--window-size={WINDOW[0]},{WINDOW[1]}"
        places = [f"--user-data-dir={profile}", f"--screenshot={output.resolve()}", page.resolve().as_uri()]
        done = subprocess.run([browser, *options, size, *places], capture_output=True, text=True, timeout=120)
    if done.returncode or not output.is_file():
        raise RunError(f"chromium could not show {page}: {done.stderr.strip()[-300:]}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser("python -m benchmarks.pictures", __doc__)
    parser.add_argument("--demo", type=Path, default=Path("results/demo"), help="its results")
    parser.add_argument(
        "--output",
        type=Path,
        default=REPOSITORY / "docs/pictures",
        help="where the pictures go (default: docs/pictures)",
    )
    args = parser.parse_args(argv)
    with run_errors():
        if not (args.demo / "features.safetensors").is_file():
            raise RunError(f"{args.demo} holds no results of the demo: bash scripts/demo.sh makes them")
        args.output.mkdir(parents=True, exist_ok=True)
        draw_found(args.demo, args.output / "found.png")
        draw_curves(args.demo, args.output / "curves.png")
        draw_speed(args.output / "speed.svg")
        for name, page in PAGES.items():
            photograph(args.demo / "pages" / f"{page}.html", args.output / f"{name}.png")
    for picture in sorted(args.output.iterdir()):
        print(f"{picture}: {picture.stat().st_size / 1000:.0f} kB")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
