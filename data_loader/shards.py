"""WebDataset shards as storage: tar files of a thousand videos each, where millions of small files do not
work.

A sample is `<key>.mp4` (or another video suffix) with `<key>.json`, and maybe `<key>.txt`, beside it. An
index of where each file lies is kept next to the shards, so that a sample is reads at known places. The
shards are thus drawn from in the same order as a folder of videos: the same samples for the same seed, each
rank and worker its own, any step a run can continue at. `python -m data_loader.prepare shards` writes them;
shards written by other programs (video2dataset, the webdataset package) are indexed when they are first
opened, and a shard again when it has changed since. Behind a URL of fsspec a sample is one request, and what
was read is kept in a folder of bounded size.
"""

import hashlib
import logging
import re
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from data_loader.failures import Failure
from data_loader.lists import parse_json
from data_loader.records import Record, Records
from data_loader.shard_files import (
    CACHE,
    CACHE_GB,
    DiskCache,
    beside,
    fetch_small,
    find_shards,
    part_name,
    read_part,
)
from data_loader.shard_index import VIDEO_SUFFIXES, ShardFacts, index_path, load_index, published_names
from data_loader.shard_texts import caption_of, narration_of, pieces_of, texts_of
from data_loader.strings import Strings
from data_loader.tar_members import BLOCK
from data_loader.transcripts import TranscriptError
from data_loader.video import VideoReadError
from data_loader.video.sources import is_url
from utils.text import counted

logger = logging.getLogger(__name__)

APART = 2**16  # bytes between the files of a sample that are read with them
NAMED = 20  # damaged places and double names in the log


class ShardRecords(Records):
    """The samples of the shards `root`/<split>-*.tar, in the order of their names.

    damage: places of the shards that cannot be read, and names that come twice in one, of which the first
        counts; all are counted in a warning, some named.
    """

    def __init__(
        self,
        root: str | Path,
        split: str,
        contents: Callable[[dict], dict[str, Any]],
        shard_cache: str | Path = CACHE,
        shard_cache_gb: float = CACHE_GB,
        num_clips: int = 1,
    ):
        """
        Args:
            root: a folder, or the URL of one.
            split: for all but "train" the shards val-*.tar.
            contents: from what the files beside a video hold (see `metadata`) to what a Record has of it;
                raises ValueError where that is not as it should be.
            shard_cache, shard_cache_gb: of a URL: where what was read is kept, and how much at most.
            num_clips: of a sample, each with a text of its own.

        Raises FileNotFoundError, ValueError, as `find_shards` and `load_index` do.
        """
        self.root, self.contents, self.cache, self.num_clips = Path(root), contents, None, num_clips
        split = "train" if split == "train" else "val"
        published = None
        kept = index_path(Path(root), split)
        if is_url(str(root)):
            self.cache = DiskCache(Path(shard_cache), int(shard_cache_gb * 1e9))
            published = fetch_small(beside(str(root), kept.name))
            place = hashlib.sha256(str(root).encode()).hexdigest()[:20]
            kept = Path(shard_cache) / f"{place}-{kept.name}"
        names = published_names(published)
        self.paths = find_shards(root, split, names)
        index = load_index(self.paths, kept, published)
        self.keys = Strings(index.keys)
        self.suffixes = index.suffix  # uint8 [samples], into VIDEO_SUFFIXES
        self.shard = index.shard  # int32 [samples], into paths
        # int64 [samples, 1 + len(SIDES), 3]: offset, size and the header's checksum; size -1 for none
        self.places = index.places
        self.sizes, self.times = ([getattr(shard, n) for shard in index.facts] for n in ("size", "time"))
        self.damage = list(self.damage_of(index.facts))
        self.warn(f"{root}/{split}-*.tar", index.facts)
        self.latest: tuple[int, int, bytes] | None = None  # index, first byte and bytes of a remote sample

    def damage_of(self, facts: Sequence[ShardFacts]) -> Iterator[Failure]:
        for path, shard in zip(self.paths, facts, strict=True):
            yield from (Failure(path, f"damaged: {what}") for what in shard.damaged)
            yield from (Failure(f"{path}/{name}", "the shard holds it twice") for name in shard.twice)

    def warn(self, what: str, facts: Sequence[ShardFacts]) -> None:
        """Say what is left out."""
        if left_out := [key for shard in facts for key in shard.left_out]:
            logger.warning(
                "%s: %s without a video (%s) beside them are left out, e.g. %s",
                what,
                counted(len(left_out), "names"),
                ", ".join(VIDEO_SUFFIXES),
                ", ".join(left_out[:3]),
            )
        if self.damage:
            damaged, twice = (sum(len(getattr(each, n)) for each in facts) for n in ("damaged", "twice"))
            logger.warning(
                "%s: %s that cannot be read, %s that come again; the others are used, and "
                "python -m data_loader.check CONFIG lists all of them:\n%s",
                what,
                counted(damaged, "places"),
                counted(twice, "names"),
                "\n".join(f"  {failure}" for failure in self.damage[:NAMED]),
            )

    def __len__(self) -> int:
        return len(self.shard)

    def id(self, index: int) -> str:
        return name_of(self.keys[index])

    def path(self, index: int) -> Path:
        return Path(self.place(index))

    def place(self, index: int) -> str:
        """What to call the video of a sample in messages: shard/key.mp4."""
        return f"{self.paths[self.shard[index]]}/{self.keys[index]}{self.suffix(index)}"

    def suffix(self, index: int) -> str:
        return VIDEO_SUFFIXES[self.suffixes[index]]

    def __getitem__(self, index: int) -> Record:
        metadata = self.metadata(index)
        try:
            return Record(self.id(index), self.path(index), **self.contents(metadata))
        except TranscriptError as error:
            raise VideoReadError(self.place(index), f"transcript: {error}") from error
        except ValueError as error:
            raise VideoReadError(self.place(index), str(error)) from error

    def read(self, index: int, column: int) -> bytes | None:
        """The bytes of a sample's video (column 0) or of a file beside it; None when it has none.

        Raises VideoReadError, also when the shard is no longer what it was when it was indexed.
        """
        offset, size, checksum = (int(n) for n in self.places[index, column])
        if size < 0:
            return None
        content = self.part(index, offset - BLOCK, offset + size)
        if len(content) < BLOCK + size:
            raise VideoReadError(self.place(index), "the shard ends in it")
        if zlib.crc32(content[:BLOCK]) != checksum:
            raise VideoReadError(self.place(index), "the shard has changed since this process opened it")
        return content[BLOCK:]

    def part(self, index: int, first: int, stop: int) -> bytes:
        """Bytes of a sample's shard. From a URL all files of the sample come at once, and are kept."""
        path, size = self.paths[self.shard[index]], self.sizes[self.shard[index]]
        if self.cache is None:
            return read_part(path, first, stop, size)
        if self.latest is None or self.latest[0] != index:
            there = self.places[index][self.places[index][:, 1] >= 0]
            begin, end = int(there[:, 0].min()) - BLOCK, int((there[:, 0] + there[:, 1]).max())
            if end - begin > there[:, 1].sum() + APART:  # other files lie between
                return read_part(path, first, stop, size)
            name = part_name(path, self.times[self.shard[index]], begin, end)
            content = self.cache.get(name, end - begin)
            if content is None:
                content = read_part(path, begin, end, size)
                self.cache.put(name, content)
            self.latest = index, begin, content
        _, begin, content = self.latest
        return content[first - begin : stop - begin]

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
                raise VideoReadError(self.place(index), error.reason) from error

    def metadata(self, index: int) -> dict:
        """The JSON file of a sample; where that has no "caption", as in shards of other programs, with the
        text file as it."""
        try:
            metadata = dict(parse_json(self.read(index, 1) or b"{}"))
            text = self.read(index, 2)
            if metadata.get("caption") is None and text is not None:
                metadata["caption"] = text.decode("utf-8-sig").strip()
        except (ValueError, TypeError) as error:
            raise VideoReadError(self.place(index), f"the text beside it cannot be read: {error}") from error
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


def webvid(
    split: str,
    root: str | Path,
    meta: Path,
    *,
    shard_cache: str | Path = CACHE,
    shard_cache_gb: float = CACHE_GB,
) -> ShardRecords:
    """WebVid from shards {train,val}-*.tar in `root`: a video, and a JSON file with "caption" (or a text
    file)."""
    return ShardRecords(root, split, caption_of, shard_cache, shard_cache_gb)


def captioned(
    split: str,
    root: str | Path,
    meta: Path,
    *,
    num_clips: int = 1,
    shard_cache: str | Path = CACHE,
    shard_cache_gb: float = CACHE_GB,
) -> ShardRecords:
    """Captioned videos, or spans of them, from shards {train,val}-*.tar in `root`.

    Beside a video is a JSON file: "caption" or "captions", maybe "start" and "end" in seconds. With
    `num_clips` above 1 it has "pieces", a list of such objects, and a sample is that many of them.
    """
    contents = texts_of if num_clips == 1 else partial(pieces_of, num_clips=num_clips)
    records = ShardRecords(root, split, contents, shard_cache, shard_cache_gb, num_clips)
    records.min_frames = num_clips
    return records


class NamedByFile(ShardRecords):
    """Videos that are called by their file names."""

    def id(self, index: int) -> str:
        return super().id(index) + self.suffix(index)


def yttemporal(
    split: str,
    root: str | Path,
    meta: Path,
    *,
    num_clips: int = 4,
    transcript_cache: str | Path | None = None,
    shard_cache: str | Path = CACHE,
    shard_cache_gb: float = CACHE_GB,
) -> NamedByFile:
    """YT-Temporal from shards {train,val}-*.tar in `root`: a video, and a JSON file with its transcript.

    The transcript is aligned already ("words", "times", "duration"), as `prepare shards` writes it, or the
    original. There is nothing to cache.
    """
    contents = partial(narration_of, num_clips=num_clips)
    return NamedByFile(root, split, contents, shard_cache, shard_cache_gb, num_clips)


def narrated(
    split: str,
    root: str | Path,
    meta: Path,
    *,
    num_clips: int = 4,
    transcript_cache: str | Path | None = None,
    shard_cache: str | Path = CACHE,
    shard_cache_gb: float = CACHE_GB,
) -> ShardRecords:
    """As `yttemporal`, of a list of one's own: a video is called as the list does."""
    contents = partial(narration_of, num_clips=num_clips)
    return ShardRecords(root, split, contents, shard_cache, shard_cache_gb, num_clips)
