"""Videos of real sizes and lengths for the benchmarks of data, generated: H.264 with sound.

Each scene of five seconds pans over a smooth picture with an object moving across and some grain; a cut
follows. x264's own spacing of key frames (250 at most, and at cuts), three B-frames, 25 frames a second,
stereo AAC. What decoding prepared videos costs follows from their bytes: 340×256 comes to 10 kB a frame and
720p to 15 kB, where four real videos of 340×256 to 1080p, prepared, came to 9 to 10 kB. Unprepared they have
about 0.6 Mbit/s, half of what real ones had.
"""

import argparse
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from joblib import cpu_count
from tqdm import tqdm

from data_loader.prepare.videos import Encoding, convert_tree
from downstream.inputs import find_videos
from utils.config import REPOSITORY

SIZES = {"340x256": (340, 256), "720p": (1280, 720)}  # width, height
CRF = {"340x256": 14, "720p": 21}
FPS, SCENE_SECONDS, SOUND_RATE = 25, 5, 44100
MARGIN = 64  # pixels around a scene to pan over
PREPARED = " prepared"  # ends the names of sets that are


def make_videos(folder: Path, size: str, count: int, seconds: tuple[float, float] = (10, 30)) -> list[Path]:
    """`count` videos of one of SIZES below `folder`, their lengths spread evenly over `seconds`.

    Those that are there already are kept.

    Raises:
        ValueError: an unknown size.
    """
    if size not in SIZES:
        raise ValueError(f"unknown size {size!r}; there are {', '.join(SIZES)}")
    name = f"{size}-{seconds[0]:g}-{seconds[1]:g}s"
    paths = [folder / name / f"{i:03d}.mp4" for i in range(count)]
    lengths = np.linspace(*seconds, count)
    jobs = [(path, size, length, i) for i, (path, length) in enumerate(zip(paths, lengths, strict=True))]
    jobs = [job for job in jobs if not job[0].exists()]
    if jobs:
        paths[0].parent.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(min(len(jobs), cpu_count())) as pool:
            done = pool.map(write_video, *zip(*jobs, strict=True))
            for _ in tqdm(done, total=len(jobs), desc=f"{size} videos", unit="file"):
                pass
    return paths


def write_video(path: Path, size: str, seconds: float, seed: int) -> None:
    """Write one video, under a temporary name until it is whole."""
    rng = np.random.default_rng([seed, len(size)])
    unfinished = path.with_name(f".{path.name}.unfinished.mp4")
    with av.open(str(unfinished), "w") as container:
        options = {"preset": "veryfast", "crf": str(CRF[size]), "bf": "3"}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height = SIZES[size]
        stream.pix_fmt, stream.codec_context.thread_count = "yuv420p", 1
        sound = container.add_stream("aac", rate=SOUND_RATE, layout="stereo")
        written = 0  # samples of sound
        for i, pixels in enumerate(draw_frames(rng, *SIZES[size], round(seconds * FPS))):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, FPS)
            container.mux(stream.encode(frame))
            while written < (i + 1) / FPS * SOUND_RATE:
                container.mux(sound.encode(noise(rng, written)))
                written += 1024
        container.mux(stream.encode())
        container.mux(sound.encode())
    unfinished.replace(path)


def draw_frames(rng: np.random.Generator, width: int, height: int, number: int) -> Iterator[np.ndarray]:
    """uint8 [height, width, 3] each."""
    grain = rng.integers(-2, 3, (8, height, width, 1), dtype=np.int16)
    for i in range(number):
        t = i % (SCENE_SECONDS * FPS)
        if t == 0:
            ground = picture(rng, height + 2 * MARGIN, width + 2 * MARGIN)
            thing = picture(rng, height // 3, width // 3)
            pan = rng.uniform(-0.5, 0.5, 2)
        y, x = (MARGIN + pan * t).astype(int)
        frame = ground[y : y + height, x : x + width].astype(np.int16)
        y = int((height - thing.shape[0]) * (0.5 + 0.5 * np.sin(i / 17)))
        x = int((width - thing.shape[1]) * (0.5 + 0.5 * np.cos(i / 23)))
        frame[y : y + thing.shape[0], x : x + thing.shape[1]] = thing
        yield (frame + grain[rng.integers(len(grain))]).clip(0, 255).astype(np.uint8)


def picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Random, with less contrast the finer the detail, and less in colours: uint8 [height, width, 3]."""
    light = 128 + 50 * clouds(rng, height, width, falloff=1.6)
    blue, red = (15 * clouds(rng, height, width, falloff=1.9) for _ in range(2))
    rgb = light + 1.4 * red, light - 0.34 * blue - 0.71 * red, light + 1.77 * blue
    return np.stack(rgb, axis=-1).clip(0, 255).astype(np.uint8)


def clouds(rng: np.random.Generator, height: int, width: int, falloff: float) -> np.ndarray:
    """Noise of mean 0 and deviation 1 whose amplitude falls with frequency ** falloff: [height, width]."""
    spectrum = np.fft.rfft2(rng.standard_normal((height, width)))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1
    values = np.fft.irfft2(spectrum / frequency**falloff, s=(height, width))
    return (values - values.mean()) / values.std()


def noise(rng: np.random.Generator, at: int) -> av.AudioFrame:
    """1,024 samples of quiet noise."""
    samples = (0.05 * rng.standard_normal((2, 1024))).astype(np.float32)
    frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = SOUND_RATE, at, Fraction(1, SOUND_RATE)
    return frame


def prepared(videos: list[Path]) -> list[Path]:
    """The same videos as `scripts/prepare_videos.sh` writes them, beside their folder; kept if there."""
    source = videos[0].parent
    target = source.with_name(f"{source.name}-prepared")
    failed = convert_tree(source, target, Encoding(), jobs=cpu_count(), timeout=3600)
    if failed:
        raise RuntimeError(f"could not be prepared: {failed}")
    return [target / video.relative_to(source) for video in videos]


def is_prepared(name: str) -> bool:
    """Whether a set of `choose_videos` holds prepared videos."""
    return name.endswith(PREPARED)


def link_videos(videos: Sequence[Path], names: Sequence[Path]) -> None:
    """Gives the videos many names, in turn."""
    for i, name in enumerate(names):
        name.parent.mkdir(parents=True, exist_ok=True)
        name.symlink_to(videos[i % len(videos)].resolve())


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options that `choose_videos` reads."""
    group = parser.add_argument_group("the videos")
    group.add_argument(
        "--data", nargs="+", metavar="PATH", help="videos: files, folders or patterns (default: generated)"
    )
    group.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES), help="of pictures")
    group.add_argument("--videos", type=int, default=4, help="different ones of each size")
    group.add_argument(
        "--seconds", type=float, nargs=2, default=[10, 30], metavar=("MIN", "MAX"), help="lengths"
    )
    group.add_argument(
        "--cache",
        default=str(REPOSITORY / "results" / "benchmark_videos"),
        metavar="DIR",
        help="where generated ones are kept (default: results/benchmark_videos)",
    )
    which = group.add_mutually_exclusive_group()
    which.add_argument(
        "--no-prepared", action="store_true", help="without the same videos after scripts/prepare_videos.sh"
    )
    which.add_argument("--no-raw", action="store_true", help="only those after scripts/prepare_videos.sh")


def choose_videos(args: argparse.Namespace) -> dict[str, list[Path]]:
    """The videos that the options ask for, by what the tables call them."""
    if args.data:
        return {Path(args.data[0]).name: [Path(path) for path in find_videos(args.data)[0]]}
    sets: dict[str, list[Path]] = {}
    for size in args.sizes:
        videos = make_videos(Path(args.cache), size, args.videos, tuple(args.seconds))
        if not args.no_raw:
            sets[size] = videos
        if not args.no_prepared:
            sets[size + PREPARED] = prepared(videos)
    return sets
