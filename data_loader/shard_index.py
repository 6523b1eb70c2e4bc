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
    """Where every file lies: from `cache` if it belongs to these very shards, else by walking through
    them."""
    state = "\n".join(f"{p.name} {p.stat().st_size} {p.stat().st_mtime_ns}" for p in paths).encode()
    unusable = (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error)
    with suppress(*unusable), np.load(cache) as stored:
        if stored["state"].tobytes() == state:
            return dict(stored)
    index = make_index(paths)
    columns: dict[str, Any] = {**index, "state": np.frombuffer(state, dtype=np.uint8)}
    with suppress(OSError):  # in a folder that cannot be written it is made anew each time
        with tempfile.NamedTemporaryFile(dir=cache.parent, suffix=".npz", delete=False) as file:
            np.savez(file, **columns)
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
