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
import os
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from data_loader.lists import need_folder, need_text, parse_json, prepare_hint
from data_loader.records import Record, Records
from data_loader.shard_index import BLOCK, VIDEO_SUFFIXES, index_path, load_index
from data_loader.strings import Strings
from data_loader.transcripts import TranscriptError, read_transcript, transcript_from_json
from data_loader.video import VideoReadError
from utils.text import counted

logger = logging.getLogger(__name__)


class ShardRecords(Records):
    """The samples of the shards `folder`/<split>-*.tar, in the order of their names.

    contents: from what the files beside a video hold (see `metadata`) to what a Record has of it; raises
        ValueError where that is not as it should be.
    """

    def __init__(self, folder: Path, split: str, contents: Callable[[dict], dict[str, Any]]):
        self.root, self.contents = need_folder(folder, "shards of videos", prepare_hint("shards")), contents
        self.paths = sorted(folder.glob(f"{split}-*.tar"))
        if not self.paths:
            raise FileNotFoundError(
                f"no shards {split}-*.tar in {folder}\n"
                f"Make them with: python -m data_loader.prepare shards … --split {split}"
            )
        index = load_index(self.paths, index_path(folder, split))
        self.keys = Strings(index["keys"].tobytes().decode().split("\n"))
        self.suffixes = index["suffix"]  # uint8 [samples], into VIDEO_SUFFIXES
        self.shard = index["shard"]  # int32 [samples], into paths
        # int64 [samples, 1 + len(SIDES), 3]: offset, size and the header's checksum; size -1 for none
        self.places = index["places"]
        left_out = index["left_out"].tobytes().decode().split("\n")
        if left_out != [""]:
            logger.warning(
                "%s: %s without a video (%s) beside them are left out, e.g. %s",
                f"{folder}/{split}-*.tar",
                counted(len(left_out), "names"),
                ", ".join(VIDEO_SUFFIXES),
                ", ".join(left_out[:3]),
            )

    def __len__(self) -> int:
        return len(self.shard)

    def id(self, index: int) -> str:
        return name_of(self.keys[index])

    def path(self, index: int) -> Path:
        """What to call the video of a sample in messages: shard/key.mp4."""
        return self.paths[self.shard[index]] / f"{self.keys[index]}{self.suffix(index)}"

    def suffix(self, index: int) -> str:
        return VIDEO_SUFFIXES[self.suffixes[index]]

    def __getitem__(self, index: int) -> Record:
        metadata = self.metadata(index)
        try:
            return Record(self.id(index), self.path(index), **self.contents(metadata))
        except TranscriptError as error:
            raise VideoReadError(self.path(index), f"transcript: {error}") from error
        except ValueError as error:
            raise VideoReadError(self.path(index), str(error)) from error

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
        if len(content) < BLOCK + size:
            raise VideoReadError(self.path(index), "the shard ends in it")
        if zlib.crc32(content[:BLOCK]) != checksum:
            raise VideoReadError(self.path(index), "the shard has changed since this process opened it")
        return content[BLOCK:]

    @contextmanager
    def video_file(self, index: int) -> Iterator[Path]:
        content = self.read(index, 0)
        assert content is not None, "samples without a video are left out of the index"
        with tempfile.NamedTemporaryFile(suffix=self.suffix(index)) as file:
            file.write(content)
            file.flush()
            try:
                yield Path(file.name)
            except VideoReadError as error:
                raise VideoReadError(self.path(index), error.reason) from error

    def metadata(self, index: int) -> dict:
        """The JSON file of a sample; where that has no "caption", as in shards of other programs, with the
        text file as it."""
        try:
            metadata = dict(parse_json(self.read(index, 1) or b"{}"))
            text = self.read(index, 2)
            if metadata.get("caption") is None and text is not None:
                metadata["caption"] = text.decode("utf-8-sig").strip()
        except (ValueError, TypeError) as error:
            raise VideoReadError(self.path(index), f"the text beside it cannot be read: {error}") from error
        return metadata


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


def webvid(split: str, root: Path, meta: Path) -> ShardRecords:
    """WebVid from shards {train,val}-*.tar in `root`: a video, and a JSON file with "caption" (or a text
    file)."""
    return ShardRecords(root, "train" if split == "train" else "val", caption_of)


def caption_of(metadata: dict) -> dict[str, Any]:
    caption = metadata.get("caption")
    if caption is None:
        raise ValueError('there is no "caption" beside it')
    return {"captions": [need_text(caption, "its caption")]}


class NarratedShards(ShardRecords):
    """Narrated videos, which are called by their file names."""

    def __init__(self, folder: Path, split: str, num_clips: int):
        super().__init__(folder, split, partial(narration_of, num_clips=num_clips))
        self.num_clips = num_clips

    def id(self, index: int) -> str:
        return super().id(index) + self.suffix(index)


def yttemporal(
    split: str, root: Path, meta: Path, *, num_clips: int = 4, transcript_cache: str | Path | None = None
) -> NarratedShards:
    """YT-Temporal from shards {train,val}-*.tar in `root`: a video, and a JSON file with its transcript.

    The transcript is aligned already ("words", "times", "duration"), as `prepare shards` writes it, or the
    original. There is nothing to cache.
    """
    return NarratedShards(root, "train" if split == "train" else "val", num_clips)


def narration_of(metadata: dict, num_clips: int) -> dict[str, Any]:
    transcript = transcript_from_json(metadata) if "words" in metadata else read_transcript(metadata)
    return {"transcript": transcript, "num_clips": num_clips}
