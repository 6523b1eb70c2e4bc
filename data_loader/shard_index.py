"""Where every file lies in the shards of a folder, kept beside them."""

import os
import tarfile
import tempfile
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

VIDEO_SUFFIXES = (".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v")
SIDES = (".json", ".txt")  # the files beside a video, in the order of their columns in the index
BLOCK = tarfile.BLOCKSIZE
MAKE_ANEW = "make the shard anew or take it out of the folder"


def index_path(folder: Path, split: str) -> Path:
    return folder / f"{split}-index.npz"


def load_index(paths: list[Path], cache: Path) -> dict[str, np.ndarray]:
    """Where every file lies: from `cache` if it belongs to these very shards, else by walking through them.

    Raises ValueError for shards as `make_index` does, and for a `cache` of places that are not in them.
    """
    state = "\n".join(f"{p.name} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in paths).encode()
    stored = read_cache(cache)
    if "state" in stored and stored["state"].tobytes() == state:
        try:
            check_index(stored, np.array([path.stat().st_size for path in paths]))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{cache} is no index of the shards beside it ({error}): remove it") from error
        return stored
    index = make_index(paths)
    columns: dict[str, Any] = {**index, "state": np.frombuffer(state, dtype=np.uint8)}
    with suppress(OSError):  # in a folder that cannot be written it is made anew each time
        with tempfile.NamedTemporaryFile(dir=cache.parent, suffix=".npz", delete=False) as file:
            np.savez(file, **columns)
        os.chmod(file.name, 0o644)  # others who read the shards may use it
        os.replace(file.name, cache)  # whole or not at all: several processes may be writing it
    return index


def read_cache(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an index; none where it is missing or damaged, or claims more than the file holds."""
    with suppress(OSError, EOFError, KeyError, ValueError, MemoryError, zipfile.BadZipFile, zlib.error):
        with zipfile.ZipFile(path) as archive:
            packed = any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
            claimed = sum(member.file_size for member in archive.infolist())
        if not packed and claimed <= path.stat().st_size:
            with np.load(path) as stored:  # of each array, no more than its member's bytes is read
                return {name: array for name, array in stored.items() if isinstance(array, np.ndarray)}
    return {}


def check_index(index: dict[str, np.ndarray], shard_sizes: np.ndarray) -> None:
    """Raises KeyError or ValueError unless each place lies in a shard of these sizes, in bytes."""
    number = len(index["shard"])
    columns = {
        "shard": ("int32", (number,)),
        "suffix": ("uint8", (number,)),
        "places": ("int64", (number, 1 + len(SIDES), len(NOWHERE))),
        "keys": ("uint8", index["keys"].shape[:1]),
        "left_out": ("uint8", index["left_out"].shape[:1]),
    }
    for name, (dtype, shape) in columns.items():
        if index[name].dtype != dtype or index[name].shape != shape:
            raise ValueError(f"{name} is {index[name].dtype} {index[name].shape}, not {dtype} {shape}")
    for name in ("keys", "left_out"):
        index[name].tobytes().decode()
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
