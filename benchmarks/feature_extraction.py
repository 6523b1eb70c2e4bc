"""Feature extraction from files to vectors: `downstream/feature_extraction.py` on generated videos.

Times the whole command on one video and on many; the difference is the rate without its start. (It starts
once before, untimed, which leaves its files in the disk's cache.) The videos are a few different ones under
many names. Weights are random: the arithmetic is the same. Memory is the most that any one process holds, in
the first half of the time and in the second: they are to be alike, however many videos there are.

    python benchmarks/feature_extraction.py --arch TVTSv2_B_16 --precision bf16 --workers 16
    python benchmarks/feature_extraction.py --arch TVTSv2_B_32 --precision fp32 --device cpu --workers 1 \\
        --sizes 340x256 --seconds 1 2 --no-prepared --raw-count 10000
"""

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run as a file from anywhere

import torch
from joblib import cpu_count

from benchmarks.common import report
from benchmarks.videos import add_arguments, choose_videos, is_prepared, link_videos
from downstream.embedding.embedder import PRECISIONS
from downstream.features import READ_TIMEOUT
from model import VARIANTS, create_model
from utils.commands import CommandParser
from utils.config import REPOSITORY
from utils.errors import user_errors

RAW_COUNT = 512
COMMAND = REPOSITORY / "downstream" / "feature_extraction.py"


def run(folder: Path, number: int, options: Sequence[str]) -> tuple[float, list[int]]:
    """How many seconds the command takes for the first `number` videos of a folder, and the memory of its
    largest process, in MiB, twice a second."""
    videos = sorted(str(path) for path in folder.iterdir())[:number]
    with tempfile.TemporaryDirectory() as where:
        listing, output = Path(where) / "videos.txt", Path(where) / "features.safetensors"
        listing.write_text("\n".join(videos) + "\n")
        command = [sys.executable, str(COMMAND), "--list", str(listing), "--output", str(output), *options]
        start, memory = time.perf_counter(), []
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
            while process.poll() is None:
                memory.append(max(map(resident_mib, family(process.pid)), default=0))
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.5)
        seconds = time.perf_counter() - start
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        return seconds, memory


def family(process: int) -> list[int]:
    """A process and all that it has started."""
    children: list[int] = []
    for listing in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):  # it has just ended
            children += map(int, listing.read_text().split())
    return [process, *(one for child in children for one in family(child))]


def resident_mib(process: int) -> int:
    """Of a process, without what it has mapped of files; 0 when it has ended, and where there is no /proc."""
    with suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) // 1024
    return 0


def measure(name: str, videos: Sequence[Path], args: argparse.Namespace, weights: Path) -> dict:
    options = ["--arch", args.arch, "--checkpoint", str(weights), "--precision", args.precision]
    options += ["--batch-size", str(args.batch_size), "--num-workers", str(args.workers)]
    options += ["--reader", args.reader, "--read-timeout", str(args.read_timeout)] + (
        ["--device", args.device] if args.device else []
    )
    count = args.count
    if not is_prepared(name):
        count = args.raw_count or min(count, RAW_COUNT)
    with tempfile.TemporaryDirectory() as where:
        folder = Path(where)
        link_videos(videos, [folder / f"{i:06d}.mp4" for i in range(count)])
        _, (start, _), (whole, memory) = (run(folder, number, options) for number in (1, 1, count))
    half = len(memory) // 2
    return {
        "name": name,
        "videos": count,
        "videos/s": rate(count, start, whole),
        "whole command, s": whole,
        "of one video, s": start,
        "MiB a process": max(memory[:half], default=0),
        "in the second half": max(memory[half:], default=0),
    }


def rate(count: int, start: float, whole: float) -> float | None:
    """Videos a second behind the first, which stands for the start; None where they are too few to tell."""
    return (count - 1) / (whole - start) if whole > start else None


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser("python benchmarks/feature_extraction.py", __doc__)
    parser.add_argument("--arch", choices=VARIANTS, default="TVTSv2_B_16", help="the model")
    add_arguments(parser)
    parser.add_argument("--count", type=int, default=8192, help="videos to embed")
    parser.add_argument(
        "--raw-count",
        type=int,
        help=f"the same for videos as they are, which are slow to read (--count, but {RAW_COUNT} at most)",
    )
    speed = parser.add_argument_group("speed")
    speed.add_argument("--batch-size", type=int, default=48, help="clips at once")
    speed.add_argument("--precision", choices=PRECISIONS, default="bf16", help="of the arithmetic")
    speed.add_argument("--reader", default="pyav", help="how videos are decoded")
    speed.add_argument(
        "--read-timeout", type=float, default=READ_TIMEOUT, help="seconds of one read; inf decodes in workers"
    )
    speed.add_argument("--workers", type=int, default=cpu_count(), help="processes that read")
    speed.add_argument("--device", help="cuda or cpu (default: a GPU where there is one)")
    parser.add_argument("--json", metavar="FILE", help="write the figures to a file, too")
    args = parser.parse_args(argv)
    with user_errors(), tempfile.TemporaryDirectory() as where:
        if min(args.count, args.raw_count or args.count) < 2:
            raise ValueError("--count and --raw-count must be at least 2")
        weights = Path(where) / "random.pth"
        model = create_model(args.arch, sort_head=False)
        torch.save({"state_dict": model.state_dict()}, weights)
        del model
        rows = [measure(name, videos, args, weights) for name, videos in choose_videos(args).items()]
    title = f"feature extraction, {args.arch}, {args.precision}, {args.reader}, {args.workers} workers"
    report(title, {"files to vectors": rows}, args.json, arguments=vars(args))
    return 0


if __name__ == "__main__":
    sys.exit(main())
