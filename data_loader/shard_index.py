"""Where every file lies in shards: an index, kept beside those of a folder, and in the cache for a URL."""

import hashlib
import io
import json
import logging
import os
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_loader.shard_files import REQUESTS, open_shard, read_part, states_of
from data_loader.tar_members import BLOCK, MAKE_ANEW, CutOff, Damage, walk
from data_loader.video.base import VideoReadError
from data_loader.video.sources import is_url

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v")
SIDES = (".json", ".txt")  # the files beside a video, in the order of their columns in the index
SPOT_CHECKS = 4  # samples whose headers are read of a remote shard of another time; each is when it is used


class Place(NamedTuple):
    """Where a file lies in a shard."""

    offset: int
    size: int
    header: int  # CRC-32 of the 512 bytes before it, which hold its name and size


NOWHERE = Place(0, -1, 0)


@dataclass
class ShardFacts:
    """What an index knows of a shard, beside the places of its samples.

    time: of its last change, as `file_state` has it. digest: SHA-256 of all headers. left_out: keys without
    a video. damaged: what cannot be read of it. twice: names that come again, of which the first counts.
    """

    name: str
    size: int
    time: int
    samples: int
    digest: str
    left_out: list[str] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)


@dataclass
class Shard:
    """A shard's part of an index: suffixes uint8 [samples], places int64 [samples, 1 + SIDES, 3]."""

    facts: ShardFacts
    keys: list[str]
    suffixes: np.ndarray
    places: np.ndarray


class Index(NamedTuple):
    """keys, suffix uint8, shard int32: of each sample; places int64 [samples, 1 + SIDES, 3]; facts: of each
    shard."""

    keys: list[str]
    suffix: np.ndarray
    shard: np.ndarray
    places: np.ndarray
    facts: list[ShardFacts]


def index_path(folder: Path, split: str) -> Path:
    return folder / f"{split}-index.npz"


def load_index(shards: Sequence[str | Path], cache: Path, published: bytes | None = None) -> Index:
    """Where every file lies: from `cache`, or `published`, as far as these still are the shards that they
    tell of; others are walked through, and `cache` is written anew.

    A shard is known by its name, size and time of change. Behind a URL one of another time is known, too, if
    some of its headers are as they were: shards that were uploaded with their index.

    Raises ValueError for shards that hold no videos, or cannot be read at all, and for a `cache` of places
    that are not in them.
    """
    paths = [str(path) for path in shards]
    stored = read_arrays(cache.read_bytes() if cache.is_file() else None)
    known = {}
    if "shards" in stored:
        try:
            known = {shard.facts.name: shard for shard in shards_of(stored)}
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{cache} is no index of the shards beside it ({error}): remove it") from error
    elif published is not None:
        with suppress(KeyError, TypeError, ValueError):
            known = {shard.facts.name: shard for shard in shards_of(read_arrays(published))}
    try:
        states = states_of(paths)
        with ThreadPoolExecutor(REQUESTS) as pool:
            of_each = [known.get(os.path.basename(path)) for path in paths]
            found = list(pool.map(renewed, paths, states, of_each))
    except VideoReadError as error:
        raise ValueError(str(error)) from error
    warn_of_copies(found)
    if not any(shard.facts.samples for shard in found):
        raise ValueError(f"{paths[0]} and the shards after it hold no videos ({', '.join(VIDEO_SUFFIXES)})")
    columns = arrays_of(found)
    if any(name not in stored or not np.array_equal(stored[name], columns[name]) for name in columns):
        write_arrays(columns, cache)
    return Index(
        [key for shard in found for key in shard.keys],
        columns["suffix"],
        columns["shard"],
        columns["places"],
        [shard.facts for shard in found],
    )


def warn_of_copies(shards: Sequence[Shard]) -> None:
    """Name shards whose headers are all alike: their samples come twice."""
    first: dict[str, str] = {}
    for shard in filter(lambda shard: shard.keys, shards):
        name = first.setdefault(shard.facts.digest, shard.facts.name)
        if name != shard.facts.name:
            logger.warning(
                "the shards %s and %s hold files of the same names and sizes: if one is a copy, take it away",
                name,
                shard.facts.name,
            )


def renewed(path: str, state: tuple[int, int], known: Shard | None) -> Shard:
    """A shard's part of the index, which is `known` if that is still true. Raises ValueError as `make`."""
    size, time = state
    if known is not None and known.facts.size == size:
        if known.facts.time == time:
            return known
        if is_url(path) and headers_agree(path, known):
            known.facts.time = time
            return known
    made = make(path, size, time)
    if known is not None and known.facts.digest != made.facts.digest:
        logger.info("%s has changed since it was indexed: it is indexed anew", path)
    return made


def headers_agree(path: str, known: Shard) -> bool:
    """Whether some headers of a remote shard, from its first to its last, are those of the index."""
    last = len(known.keys) - 1
    rows = np.unique(np.linspace(0, last, SPOT_CHECKS).astype(int))[: len(known.keys)]
    for offset, size, checksum in known.places[rows].reshape(-1, len(NOWHERE)).tolist():
        if size == NOWHERE.size:
            continue
        if zlib.crc32(read_part(path, offset - BLOCK, offset, known.facts.size)) != checksum:
            return False
    return True


def make(path: str, size: int, time: int) -> Shard:
    """Walk through a shard. Raises ValueError for one that is no tar file or is cut off."""
    groups: dict[str, dict[str, Place]] = {}
    facts = ShardFacts(os.path.basename(path), size, time, 0, "")
    digest = hashlib.sha256()
    try:
        with open_shard(path) as file:
            refuse_whole(path, file)  # its size may not be known either
            for member in walk(file, size):
                if isinstance(member, Damage):
                    facts.damaged.append(str(member))
                    continue
                file.seek(member.offset - BLOCK)
                header = file.read(BLOCK)
                digest.update(header)
                key, suffix = split_name(member.name, path)
                group = groups.setdefault(key, {})
                if suffix in group:
                    facts.twice.append(member.name)
                else:
                    group[suffix] = Place(member.offset, member.size, zlib.crc32(header))
            refuse_whole(path, file)
    except CutOff as error:
        raise ValueError(f"{path} is {error}; {MAKE_ANEW}") from error
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror or error}") from error
    if not groups and (facts.damaged or size > tarfile.RECORDSIZE):  # larger than one of no files
        raise ValueError(f"{path} is no whole tar file: {'; '.join(facts.damaged)}; {MAKE_ANEW}")
    keys, suffixes, places = [], [], []
    for key, members in groups.items():
        video = next((s for s in VIDEO_SUFFIXES if s in members), None)
        if video is None:
            facts.left_out.append(key)
            continue
        keys.append(key)
        suffixes.append(VIDEO_SUFFIXES.index(video))
        places.append([members.get(suffix, NOWHERE) for suffix in (video, *SIDES)])
    facts.samples, facts.digest = len(keys), digest.hexdigest()
    shaped = np.array(places, dtype=np.int64).reshape(len(keys), 1 + len(SIDES), len(NOWHERE))
    return Shard(facts, keys, np.array(suffixes, dtype=np.uint8), shaped)


def refuse_whole(path: str, file: Any) -> None:
    """ValueError for a remote file that came in one piece."""
    if getattr(file, "whole", False):
        raise ValueError(
            f"{path}: the server gives no parts of files (Range), which reading shards needs: take one that "
            "does, or fetch the shards into a folder"
        )


def split_name(name: str, path: str) -> tuple[str, str]:
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


# As a file


def published_names(published: bytes | None) -> list[str]:
    """The shards of an index that lies beside them; none where it is no index."""
    with suppress(KeyError, TypeError, ValueError):
        return [shard.facts.name for shard in shards_of(read_arrays(published))]
    return []


def arrays_of(shards: Sequence[Shard]) -> dict[str, np.ndarray]:
    samples = [shard.facts.samples for shard in shards]
    facts = json.dumps([asdict(shard.facts) for shard in shards])
    keys = "\n".join(key for shard in shards for key in shard.keys)
    return {
        "keys": np.frombuffer(keys.encode(), dtype=np.uint8),
        "suffix": np.concatenate([shard.suffixes for shard in shards]),
        "shard": np.repeat(np.arange(len(shards), dtype=np.int32), samples),
        "places": np.concatenate([shard.places for shard in shards]),
        "shards": np.frombuffer(facts.encode(), dtype=np.uint8),
    }


def shards_of(arrays: Mapping[str, np.ndarray]) -> list[Shard]:
    """The other way round. Raises KeyError, TypeError or ValueError for what is no index."""
    facts = [ShardFacts(**each) for each in json.loads(arrays["shards"].tobytes())]
    check_arrays(arrays, np.array([shard.size for shard in facts], dtype=np.int64))
    if [shard.samples for shard in facts] != np.bincount(arrays["shard"], minlength=len(facts)).tolist():
        raise ValueError("its shards have other numbers of samples")
    if (np.diff(arrays["shard"]) < 0).any():
        raise ValueError("its samples are not in the order of the shards")
    keys = arrays["keys"].tobytes().decode().split("\n")
    ends = np.cumsum([shard.samples for shard in facts])
    return [
        Shard(each, keys[end - each.samples : end], *(arrays[n][end - each.samples : end] for n in COLUMNS))
        for each, end in zip(facts, ends.tolist(), strict=True)
    ]


COLUMNS = ("suffix", "places")


def write_arrays(columns: Mapping[str, Any], path: Path) -> None:
    with suppress(OSError):  # in a folder that cannot be written it is made anew each time
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".npz", delete=False) as file:
            np.savez(file, **columns)
        os.chmod(file.name, 0o644)  # others who read the shards may use it
        os.replace(file.name, path)  # whole or not at all: several processes may be writing it


def read_arrays(content: bytes | None) -> dict[str, np.ndarray]:
    """The arrays of an index; none where it is missing or damaged, or claims more than the file holds."""
    if content is None:
        return {}
    with suppress(OSError, EOFError, KeyError, ValueError, MemoryError, zipfile.BadZipFile, zlib.error):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            packed = any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
            claimed = sum(member.file_size for member in archive.infolist())
        if not packed and claimed <= len(content):
            with np.load(io.BytesIO(content), allow_pickle=False) as stored:  # no more than a member's bytes
                return {name: array for name, array in stored.items() if isinstance(array, np.ndarray)}
    return {}


def check_arrays(index: Mapping[str, np.ndarray], shard_sizes: np.ndarray) -> None:
    """Raises KeyError or ValueError unless each place lies in a shard of these sizes, in bytes."""
    number = len(index["shard"])
    columns = {
        "shard": ("int32", (number,)),
        "suffix": ("uint8", (number,)),
        "places": ("int64", (number, 1 + len(SIDES), len(NOWHERE))),
        "keys": ("uint8", index["keys"].shape[:1]),
    }
    for name, (dtype, shape) in columns.items():
        if index[name].dtype != dtype or index[name].shape != shape:
            raise ValueError(f"{name} is {index[name].dtype} {index[name].shape}, not {dtype} {shape}")
    index["keys"].tobytes().decode()
    if np.count_nonzero(index["keys"] == ord("\n")) + 1 != number:
        raise ValueError(f"its number of keys is not that of its samples, {number}")
    shard = index["shard"]
    if shard.min() < 0 or shard.max() >= len(shard_sizes) or index["suffix"].max() >= len(VIDEO_SUFFIXES):
        raise ValueError("it names shards or kinds of video that there are not")
    offset, size, _ = np.moveaxis(index["places"], -1, 0)  # [samples, 1 + sides] each
    nowhere = (size == NOWHERE.size) & (np.arange(1 + len(SIDES)) > 0)  # a video is never missing
    inside = (offset >= BLOCK) & (size >= 0) & (size <= shard_sizes[shard][:, None] - offset)
    if not (inside | nowhere).all():
        sample = int(np.flatnonzero(~(inside | nowhere).all(axis=1))[0])
        raise ValueError(f"a place of its sample {sample} is not in the shard")
