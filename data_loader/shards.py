"""WebDataset shards as storage: tar files of a thousand videos each, where millions of small files do not
work.

A sample is `<key>.mp4` (or another video suffix) with `<key>.json`, and maybe `<key>.txt`, beside it. An
index of where each file lies is kept next to the shards, so that a sample is two reads at known places. The
shards are thus drawn from in the same order as a folder of videos: the same samples for the same seed, each
rank and worker its own, any step a run can continue at. `python -m data_loader.prepare shards` writes them;
shards written by other programs (video2dataset, the webdataset package) are indexed when they are first
opened, and all shards again when one of them has changed since.
"""

import logging
import math
import os
import re
import tarfile
import tempfile
import zipfile
import zlib
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_loader.base import VideoDataset
from data_loader.lists import need_folder, need_text, parse_json, prepare_hint
from data_loader.strings import Strings
from data_loader.transcripts import Transcript, check_duration, read_transcript
from data_loader.video import VideoReadError
from data_loader.yttemporal import YTTemporal
from utils.text import counted

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v")
SIDES = (".json", ".txt")  # the files beside a video, in the order of their columns in the index


BLOCK = tarfile.BLOCKSIZE


class Shards:
    """Random access to the samples of the shards `folder`/<split>-*.tar, in the order of their names."""

    def __init__(self, folder: str | Path, split: str):
        self.folder = need_folder(Path(folder), "shards of videos", prepare_hint("shards"))
        self.paths = sorted(self.folder.glob(f"{split}-*.tar"))
        if not self.paths:
            raise FileNotFoundError(
                f"no shards {split}-*.tar in {self.folder}\n"
                f"Make them with: python -m data_loader.prepare shards … --split {split}"
            )
        index = load_index(self.paths, self.folder / f"{split}-index.npz")
        self.keys = Strings(index["keys"].tobytes().decode().split("\n"))
        self.suffixes = index["suffix"]  # uint8 [samples], into VIDEO_SUFFIXES
        self.shard = index["shard"]  # int32 [samples], into paths
        # int64 [samples, 1 + len(SIDES), 3]: offset, size and the header's checksum; size -1 for none
        self.places = index["places"]
        left_out = index["left_out"].tobytes().decode().split("\n")
        if left_out != [""]:
            logger.warning(
                "%s: %s without a video (%s) beside them are left out, e.g. %s",
                f"{self.folder}/{split}-*.tar",
                counted(len(left_out), "names"),
                ", ".join(VIDEO_SUFFIXES),
                ", ".join(left_out[:3]),
            )

    def __len__(self) -> int:
        return len(self.shard)

    def id(self, index: int) -> str:
        """The name of a sample."""
        return name_of(self.keys[index])

    def name(self, index: int) -> Path:
        """What to call the video of a sample in messages: shard/key.mp4."""
        suffix = VIDEO_SUFFIXES[self.suffixes[index]]
        return self.paths[self.shard[index]] / f"{self.keys[index]}{suffix}"

    def read(self, index: int, column: int) -> bytes | None:
        """The bytes of a sample's video (column 0) or of a file beside it; None when it has none.

        Raises VideoReadError, also when the shard is no longer what it was when it was indexed.
        """
        offset, size, checksum = (int(n) for n in self.places[index, column])
        if size < 0:
            return None
        path = self.paths[self.shard[index]]
        try:
            with open(path, "rb", buffering=0) as file:
                content = os.pread(file.fileno(), BLOCK + size, offset - BLOCK)
        except OSError as error:
            raise VideoReadError(path, str(error)) from error
        if zlib.crc32(content[:BLOCK]) != checksum:
            raise VideoReadError(self.name(index), "the shard has changed since this process opened it")
        if len(content) < BLOCK + size:
            raise VideoReadError(self.name(index), "the shard ends in it")
        return content[BLOCK:]

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

    def metadata(self, index: int) -> dict:
        """The JSON file of a sample; where that has no "caption", as in shards of other programs, with the
        text file as it."""
        try:
            metadata = dict(parse_json(self.read(index, 1) or b"{}"))
            text = self.read(index, 2)
            if metadata.get("caption") is None and text is not None:
                metadata["caption"] = text.decode("utf-8-sig").strip()
        except (ValueError, TypeError) as error:
            raise VideoReadError(self.name(index), f"the text beside it cannot be read: {error}") from error
        return metadata


def load_index(paths: list[Path], cache: Path) -> dict[str, np.ndarray]:
    """Where every file lies: from `cache` if it belongs to these very shards, else by walking through
    them."""
    state = "\n".join(f"{p.name} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in paths).encode()
    unusable = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error)
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
    """Raises ValueError for shards that are damaged or hold no videos."""
    keys, suffixes, shards, places, left_out = [], [], [], [], []
    for number, path in enumerate(paths):
        for key, members in group_members(path).items():
            video = next((s for s in VIDEO_SUFFIXES if s in members), None)
            if video is None:
                left_out.append(key)
                continue
            keys.append(key)
            suffixes.append(VIDEO_SUFFIXES.index(video))
            shards.append(number)
            places.append([members.get(suffix, NOWHERE) for suffix in (video, *SIDES)])
    if not keys:
        raise ValueError(f"{paths[0]} and the shards after it hold no videos ({', '.join(VIDEO_SUFFIXES)})")
    return {
        "keys": np.frombuffer("\n".join(keys).encode(), dtype=np.uint8),
        "suffix": np.array(suffixes, dtype=np.uint8),
        "shard": np.array(shards, dtype=np.int32),
        "places": np.array(places, dtype=np.int64),
        "left_out": np.frombuffer("\n".join(left_out).encode(), dtype=np.uint8),
    }


class Place(NamedTuple):
    """Where a file lies in a shard."""

    offset: int
    size: int
    header: int  # CRC-32 of the 512 bytes before it, which hold its name and size


NOWHERE = Place(0, -1, 0)


def group_members(path: Path) -> dict[str, dict[str, Place]]:
    """The files of a shard by key, then by suffix. A key ends at the first '.' of a file's name.

    Raises ValueError for a shard that is no tar file, is cut off, damaged, or holds a name twice.
    """
    groups: dict[str, dict[str, Place]] = {}
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                key, suffix = split_name(member.name, path)
                if suffix in groups.setdefault(key, {}):
                    raise ValueError(f"{path} holds {member.name} twice; {MAKE_ANEW}")
                file.seek(member.offset_data - BLOCK)
                header = zlib.crc32(file.read(BLOCK))
                groups[key][suffix] = Place(member.offset_data, member.size, header)
            file.seek(tar.offset)
            rest = file.read()
    except tarfile.TarError as error:
        raise ValueError(f"{path} is no whole tar file: {error}; {MAKE_ANEW}") from error
    # tarfile takes a damaged header, and the end of a file that was cut between two members, for its end
    if rest.strip(b"\0"):
        raise ValueError(f"{path} is damaged {tar.offset:,} bytes in: no tar header there; {MAKE_ANEW}")
    if len(rest) < BLOCK:
        raise ValueError(f"{path} is cut off after {tar.offset:,} bytes, without its end mark; {MAKE_ANEW}")
    return groups


def split_name(name: str, path: Path) -> tuple[str, str]:
    """Key and suffix, in small letters, of a file in the shard `path`. ValueError for a name not in UTF-8."""
    folder, slash, file = name.rpartition("/")
    key, dot, suffix = file.partition(".")
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{path}: the name {name!r} is not in UTF-8; {MAKE_ANEW}") from error
    if "\n" in name:
        raise ValueError(f"{path}: the name {name!r} holds a line break; {MAKE_ANEW}")
    return folder + slash + key, (dot + suffix).lower()


MAKE_ANEW = "make the shard anew or take it out of the folder"


def key_of(name: str, occurrence: int = 1) -> str:
    """A video's name, without suffix, as a key: '.', where a key would end, is written as %2E.

    A name that occurs again among the shards gets a number, so that no sample hides another.
    """
    folder, slash, file = name.rpartition("/")
    folder, file = folder.replace("%", "%25"), file.replace("%", "%25").replace(".", "%2E")
    return folder + slash + file + (f"%~{occurrence}" if occurrence > 1 else "")


def name_of(key: str) -> str:
    """The other way round."""
    return re.sub(r"%~\d+$", "", key).replace("%2E", ".").replace("%25", "%")


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
        return self.shards.id(index)

    def texts(self, index: int, rng: np.random.Generator) -> list[str]:
        caption = self.shards.metadata(index).get("caption")
        if caption is None:
            raise VideoReadError(self.video_path(index), 'there is no "caption" beside it')
        try:
            return [need_text(caption, "its caption")]
        except ValueError as error:
            raise VideoReadError(self.video_path(index), str(error)) from error


class YTTemporalShards(FromShards, YTTemporal):
    """YT-Temporal from shards {train,val}-*.tar in `root`: a video, and a JSON file with its transcript.

    The transcript is aligned already ("words", "times", "duration"), as `prepare shards` writes it, or the
    original.
    """

    def open_list(self) -> None:
        self.open_shards()

    def video_id(self, index: int) -> str:
        return self.shards.id(index) + VIDEO_SUFFIXES[self.shards.suffixes[index]]

    def transcript(self, index: int) -> Transcript:
        metadata = self.shards.metadata(index)
        try:
            return transcript_from_json(metadata) if "words" in metadata else read_transcript(metadata)
        except (ValueError, KeyError, TypeError) as error:
            raise VideoReadError(self.video_path(index), f"transcript: {error}") from error


def transcript_to_json(transcript: Transcript) -> dict:
    """An aligned transcript as the JSON file of a sample, null for a time unknown."""
    times = [None if math.isnan(t) else t for t in transcript.times]
    return {**asdict(transcript), "times": times}


def transcript_from_json(metadata: dict) -> Transcript:
    """The other way round. Raises KeyError, TypeError or ValueError for a file of another form."""
    times = [math.nan if t is None else float(t) for t in metadata["times"]]
    words, duration = metadata["words"], metadata["duration"]
    if len(words) != len(times) or not all(isinstance(word, str) for word in words):
        raise ValueError("its words and times do not match")
    return Transcript(words, times, check_duration(duration), tuple(metadata["problems"]))
