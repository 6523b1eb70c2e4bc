"""WebDataset shards as storage: tar files of a thousand videos each, where millions of small files do not
work.

A sample is `<key>.mp4` (or another video suffix) with `<key>.json`, and maybe `<key>.txt`, beside it. An
index of where each file lies is kept next to the shards, so that a sample is two reads at known places. The
shards are thus drawn from in the same order as a folder of videos: the same samples for the same seed, each
rank and worker its own, any step a run can continue at. `python -m data_loader.prepare shards` writes them;
shards written by other programs (video2dataset, the webdataset package) are indexed when they are first
opened.
"""

import json
import math
import os
import tarfile
import tempfile
import zipfile
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np

from data_loader.base import VideoDataset
from data_loader.records import Strings, need_folder, prepare_hint
from data_loader.transcripts import Transcript, TranscriptError, read_transcript
from data_loader.video import VideoReadError
from data_loader.yttemporal import YTTemporal

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v")
SIDES = (".json", ".txt")  # the files beside a video, in the order of their columns in the index


class Shards:
    """Random access to the samples of the shards `folder`/<split>-*.tar, in the order of their names."""

    def __init__(self, folder: str | Path, split: str):
        self.folder = need_folder(Path(folder), "shards of videos", prepare_hint("shards"))
        paths = sorted(self.folder.glob(f"{split}-*.tar"))
        if not paths:
            raise FileNotFoundError(f"no shards {split}-*.tar in {self.folder}\n{prepare_hint('shards')}")
        index = load_index(paths, self.folder / f"{split}-index.npz")
        self.paths = paths
        self.keys = Strings(index["keys"].tobytes().decode().split("\n"))
        self.suffixes = index["suffix"]  # uint8 [samples], into VIDEO_SUFFIXES
        self.shard = index["shard"]  # int32 [samples], into paths
        self.places = index["places"]  # int64 [samples, 1 + len(SIDES), 2]: offset and size, size -1 for none

    def __len__(self) -> int:
        return len(self.shard)

    def name(self, index: int) -> Path:
        """What to call the video of a sample in messages: shard/key.mp4."""
        suffix = VIDEO_SUFFIXES[self.suffixes[index]]
        return self.paths[self.shard[index]] / f"{self.keys[index]}{suffix}"

    def read(self, index: int, column: int) -> bytes | None:
        """The bytes of a sample's video (column 0) or of a file beside it; None when it has none."""
        offset, size = (int(n) for n in self.places[index, column])
        if size < 0:
            return None
        path = self.paths[self.shard[index]]
        try:
            with open(path, "rb", buffering=0) as file:
                content = os.pread(file.fileno(), size, offset)
        except OSError as error:
            raise VideoReadError(path, str(error)) from error
        if len(content) < size:
            raise VideoReadError(self.name(index), "the shard ends in it")
        return content

    @contextmanager
    def video_file(self, index: int):
        """The video as a file of its own for as long as the context lasts: every reader can open that."""
        content = self.read(index, 0)
        with tempfile.NamedTemporaryFile(suffix=VIDEO_SUFFIXES[self.suffixes[index]]) as file:
            file.write(content)
            file.flush()
            try:
                yield Path(file.name)
            except VideoReadError as error:
                raise VideoReadError(self.name(index), error.reason) from error

    def facts(self, index: int) -> dict:
        """The JSON file of a sample with, for shards of other programs, the text file as its "caption"."""
        try:
            facts = json.loads(self.read(index, 1) or b"{}")
            text = self.read(index, 2)
            return {"caption": text.decode().strip(), **facts} if text is not None else dict(facts)
        except (ValueError, TypeError) as error:
            raise VideoReadError(self.name(index), f"the JSON beside it cannot be read: {error}") from error


def load_index(paths: list[Path], cache: Path) -> dict[str, np.ndarray]:
    """Where every file lies: from `cache` if it belongs to these very shards, else by walking through
    them."""
    state = "\n".join(f"{p.name} {p.stat().st_size}" for p in paths).encode()
    unusable = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile)
    with suppress(*unusable), np.load(cache) as stored:
        if stored["state"].tobytes() == state:
            return dict(stored)
    index = make_index(paths)
    index["state"] = np.frombuffer(state, dtype=np.uint8)
    with suppress(OSError):  # in a folder that cannot be written it is made anew each time
        with tempfile.NamedTemporaryFile(dir=cache.parent, suffix=".npz", delete=False) as file:
            np.savez(file, **index)
        os.chmod(file.name, 0o644)  # others who read the shards may use it
        os.replace(file.name, cache)  # whole or not at all: several processes may be writing it
    return index


def make_index(paths: list[Path]) -> dict[str, np.ndarray]:
    keys, suffixes, shards, places = [], [], [], []
    for number, path in enumerate(paths):
        for key, members in group_members(path).items():
            video = next((s for s in VIDEO_SUFFIXES if s in members), None)
            if video is None:
                continue
            keys.append(key)
            suffixes.append(VIDEO_SUFFIXES.index(video))
            shards.append(number)
            places.append([members.get(suffix, (0, -1)) for suffix in (video, *SIDES)])
    if not keys:
        raise ValueError(f"{paths[0]} and the shards after it hold no videos ({', '.join(VIDEO_SUFFIXES)})")
    return {
        "keys": np.frombuffer("\n".join(keys).encode(), dtype=np.uint8),
        "suffix": np.array(suffixes, dtype=np.uint8),
        "shard": np.array(shards, dtype=np.int32),
        "places": np.array(places, dtype=np.int64),
    }


def group_members(path: Path) -> dict[str, dict[str, tuple[int, int]]]:
    """The files of a shard by key, then by suffix: (offset, size). A key ends at the first '.' of a file's
    name."""
    groups: dict[str, dict[str, tuple[int, int]]] = {}
    try:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isfile():
                    folder, slash, file = member.name.rpartition("/")
                    key, dot, suffix = file.partition(".")
                    group = groups.setdefault(folder + slash + key, {})
                    group[(dot + suffix).lower()] = (member.offset_data, member.size)
    except tarfile.TarError as error:
        raise ValueError(f"{path} is no whole tar file: {error}") from error
    return groups


class FromShards:
    """What a data set from shards has in place of a folder of videos."""

    shards: Shards

    def open_shards(self) -> None:
        self.shards = Shards(self.root, "train" if self.split == "train" else "val")
        self.cache = None  # it knows videos by their files, and here each file exists for one read only

    def __len__(self) -> int:
        return len(self.shards)

    def video_path(self, index: int) -> Path:
        return self.shards.name(index)

    def video_file(self, index: int):
        return self.shards.video_file(index)


class WebVidShards(FromShards, VideoDataset):
    """WebVid from shards {train,val}-*.tar in `root`: a video, and a JSON file with "caption" (or a text
    file)."""

    name = "webvid"

    def __init__(self, split: str, **common):
        super().__init__(split, **common)
        self.open_shards()

    def video_id(self, index: int) -> str:
        return self.shards.keys[index]

    def texts(self, index: int, rng: np.random.Generator) -> list[str]:
        caption = self.shards.facts(index).get("caption")
        if not isinstance(caption, str):
            raise VideoReadError(self.video_path(index), 'there is no "caption" beside it')
        return [caption]


class YTTemporalShards(FromShards, YTTemporal):
    """YT-Temporal from shards {train,val}-*.tar in `root`: a video, and a JSON file with its transcript.

    The transcript is aligned already ("words", "times", "duration"), as `prepare shards` writes it, or the
    original.
    """

    def open_list(self) -> None:
        self.open_shards()

    def video_id(self, index: int) -> str:
        return self.shards.keys[index] + VIDEO_SUFFIXES[self.shards.suffixes[index]]

    def transcript(self, index: int) -> Transcript:
        facts = self.shards.facts(index)
        try:
            return transcript_from_json(facts) if "words" in facts else read_transcript(facts)
        except (TranscriptError, KeyError, TypeError) as error:
            raise VideoReadError(self.video_path(index), f"transcript: {error}") from error


def transcript_to_json(transcript: Transcript) -> dict:
    """An aligned transcript as the JSON file of a sample, null for a time unknown."""
    times = [None if math.isnan(t) else t for t in transcript.times]
    return {**asdict(transcript), "times": times}


def transcript_from_json(facts: dict) -> Transcript:
    """The other way round. Raises KeyError or TypeError for a file of another form."""
    times = [math.nan if t is None else float(t) for t in facts["times"]]
    return Transcript(facts["words"], times, facts["duration"], tuple(facts["problems"]))
