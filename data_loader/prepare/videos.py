"""Re-encode a tree of videos so that they load fast: `python -m data_loader.prepare.videos IN OUT`.

Each video becomes H.264 with its shorter side at most `--short_side`, a key frame every `--key_frames`
frames, no sound, upright. It keeps its name, so that lists of files go on working, whatever the ending says
about the format. The frames stay as many, with their times. Pixels are picked as the data sets' own resize
picks them, so that what changes is the compression alone. A second call goes on where the first one ended.
"""

import argparse
import itertools
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import VideoReformatter
from tqdm import tqdm

from data_loader.cores import usable_cores
from data_loader.readers import VideoReadError
from data_loader.readers.container import open_video
from data_loader.readers.packets import scan_packets
from data_loader.readers.rgb import RGB
from data_loader.transforms import nearest_index, resized_shape

ENDINGS = {
    ".3gp",
    ".avi",
    ".flv",
    ".m4v",
    ".mkv",
    ".mov",
    ".mp4",
    ".mpeg",
    ".mpg",
    ".ogv",
    ".ts",
    ".webm",
    ".wmv",
}
UNREADABLE = "unreadable.tsv"  # in OUT: file and reason


@dataclass(frozen=True)
class Encoding:
    """How the videos are written."""

    short_side: int = 268  # pixels; int(1.2 · 224), so that nothing is left to resize when loading
    key_frames: int = 1  # frames from one key frame to the next; 1: no frame needs another
    crf: int = 17  # x264's quality, lower is better; 0 is lossless
    preset: str = "fast"  # x264's effort


def encode(source: Path, target: Path, encoding: Encoding) -> int:
    """Writes one video anew and returns its number of frames. Raises VideoReadError on a bad source."""
    with open_video(str(source)) as (old, stream), av.open(str(target), "w", format="mp4") as new:
        copy, count, converter = None, 0, VideoReformatter()
        for pixels, time in upright_frames(old, stream, encoding.short_side):
            if copy is None:
                copy = add_stream(new, stream, pixels.shape[:2], encoding)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame = converter.reformat(frame, format=copy.pix_fmt, threads=1)
            frame.pts, frame.time_base = time, stream.time_base
            new.mux(copy.encode(frame))
            count += 1
        if copy is None:
            raise VideoReadError(str(source), "has no video frames")
        new.mux(copy.encode())
    written = scan_packets(str(target)).count
    if written != count:
        raise VideoReadError(str(source), f"{count} frames came in and {written} went out")
    return count


def upright_frames(container, stream: av.VideoStream, short_side: int) -> Iterator[tuple[np.ndarray, int]]:
    """Every frame as uint8 RGB [H, W, 3], resized, and its time in the stream's time base, always rising."""
    to_rgb, first, last = RGB(), None, -1
    for frame in container.decode(stream):
        pixels = to_rgb(frame)
        height, width = pixels.shape[:2]
        if min(height, width) > short_side:
            height, width = resized_shape(height, width, short_side)
            rows, cols = nearest_index(pixels.shape[0], height), nearest_index(pixels.shape[1], width)
            pixels = pixels[rows[:, None], cols]
        time = last + 1 if frame.pts is None else frame.pts
        first = time if first is None else first
        last = max(time - first, last + 1)
        yield np.ascontiguousarray(pixels), last


def add_stream(
    container, source: av.VideoStream, shape: tuple[int, int], encoding: Encoding
) -> av.VideoStream:
    """An H.264 stream for frames of a shape (height, width) and the times of another stream."""
    height, width = shape
    options = {
        "tune": "fastdecode",  # about a third less time to decode, for a tenth more bytes
        "crf": str(encoding.crf),
        "preset": encoding.preset,
        "g": str(encoding.key_frames),
        "x264-params": "open-gop=0:log-level=none",
    }
    stream = container.add_stream("libx264", rate=source.average_rate or Fraction(25), options=options)
    stream.height, stream.width = height, width
    stream.pix_fmt = "yuv444p" if height % 2 or width % 2 else "yuv420p"  # 4:2:0 has no odd sizes
    stream.codec_context.time_base = source.time_base
    stream.codec_context.thread_count = 1  # files are written side by side
    return stream


class Job:
    """One video being written in a process of its own, which may crash, hang or be killed."""

    def __init__(self, source: Path, target: Path, encoding: Encoding, timeout: float):
        self.target = target
        self.unfinished = target.with_name(f".{target.name}.{os.getpid()}.unfinished")
        self.timeout, self.deadline = timeout, time.monotonic() + timeout
        target.parent.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("fork")  # started by the hundred thousand: it has to be cheap
        self.results, theirs = context.Pipe(duplex=False)
        arguments = (source, self.unfinished, encoding, theirs)
        self.process = context.Process(target=self.work, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    @staticmethod
    def work(source: Path, target: Path, encoding: Encoding, results: Connection) -> None:
        """Sends "" or the reason why the video could not be written."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its jobs itself
        try:
            encode(source, target, encoding)
            results.send("")
        except VideoReadError as error:
            results.send(error.reason)

    def finish(self) -> str:
        """Puts the video into its place, or returns the reason why there is none."""
        try:
            if not self.results.poll():
                return f"not done within {self.timeout:g} s"
            reason = self.results.recv()
            if not reason:
                self.unfinished.replace(self.target)
            return reason
        except EOFError:
            self.process.join()
            return f"the process writing it crashed (exit status {self.process.exitcode})"
        finally:
            self.stop()

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.results.close()
        self.unfinished.unlink(missing_ok=True)


def run_jobs(starters: Iterable[tuple[Path, Callable[[], Job]]], count: int) -> Iterator[tuple[Path, str]]:
    """Runs up to `count` jobs at a time. Yields each video as it ends, with its failure or ""."""
    running: dict[Connection, tuple[Path, Job]] = {}
    starters = iter(starters)
    try:
        while True:
            for video, start in itertools.islice(starters, count - len(running)):
                job = start()
                running[job.results] = video, job
            if not running:
                return
            patience = min(job.deadline for _, job in running.values()) - time.monotonic()
            ended = wait(running, max(0, patience))
            late = [c for c, (_, job) in running.items() if job.deadline <= time.monotonic()]
            for connection in {*ended, *late}:
                video, job = running.pop(connection)
                yield video, job.finish()
    finally:
        for _, job in running.values():
            job.stop()


def find_videos(folder: Path) -> list[Path]:
    """The paths of all videos under a folder, relative to it, sorted."""
    found = (Path(where, name) for where, _, names in os.walk(folder) for name in names)
    videos = sorted(p.relative_to(folder) for p in found if p.suffix.lower() in ENDINGS)
    if not videos:
        raise FileNotFoundError(f"{folder} holds no videos ({', '.join(sorted(ENDINGS))})")
    return videos


def convert_tree(
    source: Path, target: Path, encoding: Encoding, jobs: int, timeout: float
) -> dict[Path, str]:
    """All videos under `source`, written to the same places under `target`. Returns what failed, and why."""
    if not source.is_dir():
        raise FileNotFoundError(f"no folder {source}")
    if target.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{target} lies within {source}; name a folder outside of it")
    videos = find_videos(source)
    waiting = [v for v in videos if not (target / v).exists()]
    starters = ((v, partial(Job, source / v, target / v, encoding, timeout)) for v in waiting)
    tqdm.monitor_interval = 0  # no thread of the bar's own: this process forks
    done = len(videos) - len(waiting)
    outcomes = tqdm(run_jobs(starters, jobs), initial=done, total=len(videos), unit="video")
    return {video: reason for video, reason in outcomes if reason}


def report(failures: dict[Path, str], target: Path) -> None:
    """Prints what failed and keeps the whole list in the output folder."""
    listing = target / UNREADABLE
    if not failures:
        listing.unlink(missing_ok=True)
        print("all done")
        return
    lines = [f"{path}\t{reason}\n" for path, reason in sorted(failures.items())]
    listing.write_text("".join(lines))
    print(f"{len(failures)} videos failed, all listed in {listing}:", file=sys.stderr)
    sys.stderr.writelines(f"  {line}" for line in lines[:20])


def main(argv: list[str] | None = None) -> int:
    default = Encoding()
    parser = argparse.ArgumentParser(prog="prepare_videos.sh", description=__doc__)
    parser.add_argument("source", metavar="IN", type=Path, help="folder of videos, searched through")
    parser.add_argument(
        "target", metavar="OUT", type=Path, help="folder for the new ones, in the same places"
    )
    parser.add_argument("--short_side", type=int, default=default.short_side, help="pixels (%(default)s)")
    parser.add_argument("--key_frames", type=int, default=default.key_frames, help="distance (%(default)s)")
    parser.add_argument(
        "--crf", type=int, default=default.crf, help="x264 quality, lower is better (%(default)s)"
    )
    parser.add_argument("--preset", default=default.preset, help="x264 effort (%(default)s)")
    parser.add_argument("--jobs", type=int, default=usable_cores(), help="at a time (%(default)s)")
    parser.add_argument("--timeout", type=float, default=3600, help="seconds for one video (%(default)s)")
    args = parser.parse_args(argv)
    encoding = Encoding(args.short_side, args.key_frames, args.crf, args.preset)
    try:
        failures = convert_tree(args.source, args.target, encoding, args.jobs, args.timeout)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    report(failures, args.target)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
