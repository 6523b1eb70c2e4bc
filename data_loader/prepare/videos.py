"""Re-encode a tree of videos so that they load fast.

Each video becomes H.264 with its shorter side at most `--short_side`, a key frame every `--key_frames`
frames, no sound, upright. It keeps its name, so that lists of files go on working, whatever the ending says
about the format. The frames stay as many, with their times.

    bash scripts/prepare_videos.sh raw_videos/ videos/ --short_side 256 --jobs 8

Called again, it goes on where it ended, and writes videos anew whose source has changed since. Exit status:
0 all done, 1 some failed (listed), 2 a wrong call or a folder that cannot be written, 130 stopped by Ctrl-C.
"""

import argparse
import contextlib
import errno
import itertools
import json
import math
import multiprocessing
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from joblib import cpu_count
from tqdm import tqdm

from data_loader.prepare.encoding import PRESETS, Encoding, encode, is_being_written
from data_loader.video import VideoReadError
from data_loader.video_files import VIDEO_ENDINGS, walk_files
from utils.commands import CommandParser
from utils.errors import user_errors
from utils.files import UNFINISHED, WriteError, check_folder, unfinished_name, write_text

PREPARED = "prepared.jsonl"  # in OUT: of each video there, which source it was made of, and how
UNREADABLE = "unreadable.tsv"  # in OUT: file and reason
# Errors in writing that are those of one file, for its name or place. All others would befall the next, too.
OF_ONE_FILE = {
    *(errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.EACCES, errno.EPERM),
    *(errno.EEXIST, errno.EISDIR, errno.ENOTDIR),
}


class Job:
    """One video being written in a process of its own, which may crash, hang or be killed."""

    def __init__(self, source: Path, target: Path, encoding: Encoding, timeout: float, parent: "Lifetime"):
        self.target = target
        self.timeout, self.deadline = timeout, time.monotonic() + timeout
        context = multiprocessing.get_context("fork")  # started by the hundred thousand: it has to be cheap
        self.results, theirs = context.Pipe(duplex=False)
        arguments = (source, target, encoding, theirs, parent)
        self.process = context.Process(target=self.work, args=arguments, daemon=True)
        self.process.start()
        theirs.close()

    @staticmethod
    def work(source: Path, target: Path, encoding: Encoding, results: Connection, parent: "Lifetime") -> None:
        """Sends the reason why the video could not be written, or "", and what else that tells (errno)."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent stops its jobs itself
        unfinished = unfinished_name(target)
        parent.exit_with_parent(unfinished)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            encode(source, unfinished, encoding)
            unfinished.replace(target)
            results.send(("", None))
        except VideoReadError as error:
            results.send((error.reason, None))
        except MemoryError:
            results.send(("there is not enough memory to decode it", None))
        except OSError as error:
            results.send((f"cannot be written: {error.strerror or error}", error.errno))

    def finish(self) -> str:
        """Returns "" if the video is in its place, or the reason why there is none.

        Raises:
            WriteError: nothing can be written there, neither this video nor another.
        """
        try:
            if not self.results.poll():
                return f"not done within {self.timeout:g} s"
            reason, number = self.results.recv()
            if number is not None and number not in OF_ONE_FILE:
                raise WriteError.of(self.target, OSError(number, os.strerror(number)))
            return reason
        except EOFError:
            self.process.join()
            return f"the process writing it crashed (exit status {self.process.exitcode})"
        finally:
            self.stop()

    def stop(self) -> None:
        """End the process, and leave nothing half written."""
        self.process.kill()
        self.process.join()
        self.results.close()
        with contextlib.suppress(OSError):
            unfinished_name(self.target, self.process.pid).unlink()


class Lifetime:
    """A pipe by which the jobs' processes notice that the one that started them has ended, however it did."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()  # nobody writes: its end is what is waited for

    def exit_with_parent(self, unfinished: Path) -> None:
        """In a job's process: from now on it removes the file and ends when the parent does."""
        os.close(self.writing)  # the parent's alone

        def watch() -> None:
            os.read(self.reading, 1)
            with contextlib.suppress(OSError):
                unfinished.unlink()
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


def run_jobs(starters: Iterable[tuple[Path, Callable[[], Job]]], count: int) -> Generator[tuple[Path, str]]:
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
            ended = wait(list(running), max(0, patience))
            now = time.monotonic()
            for connection in [c for c, (_, job) in running.items() if c in ended or job.deadline <= now]:
                video, job = running.pop(connection)
                yield video, job.finish()
    finally:
        for _, job in running.values():
            job.stop()


@dataclass(frozen=True)
class Made:
    """What a prepared video was made of, and how."""

    size: int  # of the source, in bytes
    mtime_ns: int
    encoding: dict[str, Any]

    @classmethod
    def of(cls, source: Path, encoding: Encoding) -> "Made":
        status = source.stat()
        return cls(status.st_size, status.st_mtime_ns, asdict(encoding))


class Records:
    """A line for each prepared video, in a file beside them. The last line about a video counts."""

    def __init__(self, folder: Path):
        self.path = folder / PREPARED
        self.made: dict[str, Made] = {}
        if self.path.exists():
            for line in self.path.read_bytes().splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # cut off by a kill: made anew
                    row = json.loads(line)
                    path = row.pop("path")
                    self.made[path] = Made(**row)

    def add(self, video: Path, made: Made) -> None:
        line = json.dumps({"path": str(video), **asdict(made)})
        try:
            with self.path.open("ab") as file:
                file.write(f"\n{line}".encode())  # first the break: the line before may have been cut off
        except OSError as error:
            raise WriteError.of(self.path, error) from error


def choose_videos(
    videos: Iterable[Path], source: Path, target: Path, encoding: Encoding, overwrite: bool
) -> list[Path]:
    """Those of the videos that are not in the target yet, or were made from another file than lies there now.

    Raises:
        FileExistsError: some were made with other options, and they are not to be overwritten.
    """
    records = Records(target)
    waiting, others = [], []
    for video in videos:
        made = records.made.get(str(video))
        try:
            wanted, there = Made.of(source / video, encoding), (target / video).stat()
        except OSError:  # not there yet; or no source to be read, as encoding it will tell
            waiting.append(video)
            continue
        if not stat.S_ISREG(there.st_mode):
            waiting.append(video)
            continue
        if made is None:  # of a version that kept no records
            if overwrite or wanted.mtime_ns > there.st_mtime_ns:
                waiting.append(video)
        elif made.encoding != wanted.encoding:
            others.append((video, made))
        elif made != wanted:
            waiting.append(video)
    if others and not overwrite:
        video, made = others[0]
        differences = [f"--{k} {v}" for k, v in made.encoding.items() if v != asdict(encoding).get(k)]
        raise FileExistsError(
            f"{target} holds videos made with {' '.join(differences)} ({len(others)}, {video} among them): "
            "give the same options, name another folder, or --overwrite to make them anew"
        )
    return sorted([*waiting, *(video for video, _ in others)])


def convert_tree(
    source: Path, target: Path, encoding: Encoding, jobs: int, timeout: float, overwrite: bool = False
) -> dict[Path, str]:
    """All videos under `source`, written to the same places under `target`. Returns what failed, and why.

    Raises:
        FileNotFoundError, ValueError: there is nothing to be read, or `target` lies within `source`.
        FileExistsError: `target` holds videos made with other options, and not `overwrite`.
        WriteError: the target cannot be written, from the start or from some video on.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"no folder {source}")
    if target.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{target} lies within {source}; name a folder outside of it")
    check_folder(target)
    files, closed = walk_files(source)
    videos = [path.relative_to(source) for path in files if path.suffix.lower() in VIDEO_ENDINGS]
    failures = {path.relative_to(source): f"cannot be entered: {reason}" for path, reason in closed.items()}
    if not videos and not failures:
        raise FileNotFoundError(f"{source} holds no videos ({', '.join(sorted(VIDEO_ENDINGS))})")
    if source.resolve().is_relative_to(target.resolve()):
        above = source.resolve().relative_to(target.resolve()).parts
        if clash := next((video for video in videos if video.parts[: len(above)] == above), None):
            raise ValueError(
                f"{source / clash} would be written into {source}, where originals lie; name another folder"
            )
    waiting = choose_videos(videos, source, target, encoding, overwrite)
    remove_left_over(target)
    records, made, parent = Records(target), {}, Lifetime()

    def start(video: Path) -> Job:
        with contextlib.suppress(OSError):  # the source as it is before it is read
            made[video] = Made.of(source / video, encoding)
        return Job(source / video, target / video, encoding, timeout, parent)

    starters = ((video, partial(start, video)) for video in waiting)
    tqdm.monitor_interval = 0  # no thread of the bar's own: this process forks
    done = len(videos) - len(waiting)
    with contextlib.closing(parent), contextlib.closing(run_jobs(starters, jobs)) as outcomes:
        for video, reason in tqdm(outcomes, initial=done, total=len(videos), unit="video"):
            if reason:
                failures[video] = reason
            else:
                records.add(video, made[video])
    return failures


def remove_left_over(target: Path) -> None:
    """Remove what processes have left half written that were killed all at once."""
    for path in walk_files(target)[0]:
        if path.name.startswith(".") and path.name.endswith(UNFINISHED) and not is_being_written(path):
            path.unlink(missing_ok=True)


def report(failures: dict[Path, str], target: Path) -> None:
    """Prints what failed and keeps the whole list in the output folder."""
    listing = target / UNREADABLE
    if not failures:
        listing.unlink(missing_ok=True)
        print("all done")
        return
    lines = [f"{one_line(str(path))}\t{one_line(reason)}\n" for path, reason in sorted(failures.items())]
    write_text("".join(lines), listing)
    videos = "1 video" if len(lines) == 1 else f"{len(lines)} videos"
    print(f"{videos} failed, all listed in {listing}:", file=sys.stderr)
    sys.stderr.writelines(f"  {line}" for line in lines[:20])


def one_line(text: str) -> str:
    """The text with what would end a line or a column, and bytes that are no text, spelled out."""
    for character, spelled in (("\\", "\\\\"), ("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t")):
        text = text.replace(character, spelled)
    return text.encode("utf-8", "backslashreplace").decode()


def at_least(lowest: int, highest: int | None = None) -> Callable[[str], int]:
    """A type for argparse: whole numbers in a range."""

    def number(text: str) -> int:
        value = int(text)
        if not lowest <= value <= (math.inf if highest is None else highest):
            to = "or more" if highest is None else f"to {highest}"
            raise argparse.ArgumentTypeError(f"{text} is not {lowest} {to}")
        return value

    return number


def seconds(text: str) -> float:
    """A type for argparse: a time above 0."""
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def main(argv: list[str] | None = None) -> int:
    default = Encoding()
    parser = CommandParser("bash scripts/prepare_videos.sh", __doc__)
    add = parser.add_argument
    add("source", metavar="IN", type=Path, help="folder of videos, searched through, also behind links")
    add("target", metavar="OUT", type=Path, help="folder for the new ones, in the same places")
    add("--short_side", type=at_least(2), default=default.short_side, help="pixels")
    add("--key_frames", type=at_least(1), default=default.key_frames, help="distance")
    add("--crf", type=at_least(0, 51), default=default.crf, help="quality, lower is better")
    add("--preset", choices=PRESETS, default=default.preset, help="x264's effort")
    add("--jobs", type=at_least(1), default=cpu_count(), help="at a time")
    add("--timeout", type=seconds, default=3600, help="seconds for one video")
    add("--overwrite", action="store_true", help="make anew what was made with other options")
    args = parser.parse_args(argv)
    encoding = Encoding(args.short_side, args.key_frames, args.crf, args.preset)
    try:
        with user_errors():
            failures = convert_tree(
                args.source, args.target, encoding, args.jobs, args.timeout, args.overwrite
            )
            report(failures, args.target)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        return 130
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
