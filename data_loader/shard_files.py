"""Shards in a folder or behind a URL of fsspec: which there are, and the bytes of their members."""

import fcntl
import hashlib
import logging
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from data_loader.lists import need_folder, prepare_hint
from data_loader.video.base import VideoReadError
from data_loader.video.sources import RemoteFile, check_protocol, file_state, is_url, tried
from utils.config import resolve_path
from utils.files import unfinished_name

logger = logging.getLogger(__name__)

REQUESTS = 16  # at a time, for the states of shards
INDEX_BYTES = 2**31  # an index that claims more is none
CACHE = "results/shard_cache"
CACHE_GB = 20.0
CHECKSUM = 4  # bytes, behind what is kept


def locate(root: str | Path) -> str | Path:
    """Where a config's root lies: a URL stays, a folder is looked for as every path is."""
    return str(root) if is_url(str(root)) else resolve_path(root)


def find_shards(root: str | Path, split: str, published: Sequence[str]) -> list[str]:
    """The shards `root`/<split>-*.tar in the order of their names.

    published: names that an index beside them has, where a server lists no folders.

    Raises FileNotFoundError: there are none; ValueError: nothing installed opens such URLs.
    """
    pattern = f"{split}-*.tar"
    if not is_url(str(root)):
        folder = need_folder(Path(root), "shards of videos", prepare_hint("shards"))
        found = sorted(str(path) for path in folder.glob(pattern))
        advice = f"Make them with: python -m data_loader.prepare shards … --split {split}"
    else:
        names = {name for name in list_names(str(root)) if fnmatch(name, pattern)} or published
        found = [beside(str(root), name) for name in sorted(names)]
        advice = (
            f"Where the server lists no folders, put {split}-index.npz beside the shards: opening them once "
            "from a folder writes it there"
        )
    if not found:
        raise FileNotFoundError(f"no shards {pattern} in {root}\n{advice}")
    return found


def beside(root: str, name: str) -> str:
    return f"{root.rstrip('/')}/{name}"


def list_names(url: str) -> set[str]:
    """The names in a folder behind a URL; none where the server does not tell."""
    import fsspec

    check_protocol(url)

    def names() -> list[str]:
        system, path = fsspec.core.url_to_fs(url.rstrip("/") + "/")
        listed: list[str] = system.ls(path, detail=False)
        return listed

    try:
        return {name.rstrip("/").rpartition("/")[2] for name in tried(url, names)}
    except VideoReadError as error:
        logger.info("%s: no list of its files: %s", url, error.reason)
        return set()


def states_of(shards: Sequence[str]) -> list[tuple[int, int]]:
    """Size and time of the last change of each, as `file_state`. Raises VideoReadError."""
    if not is_url(shards[0]):
        return [file_state(path) for path in shards]
    with ThreadPoolExecutor(REQUESTS) as pool:
        return list(pool.map(file_state, shards))


def open_shard(path: str) -> Any:
    """To read and seek in. Raises VideoReadError, OSError."""
    return RemoteFile(path) if is_url(path) else open(path, "rb")


def read_part(path: str, first: int, stop: int, size: int) -> bytes:
    """Bytes of a shard of `size` bytes; fewer where it ends before. Raises VideoReadError."""
    if not is_url(path):
        try:
            with open(path, "rb") as file:  # buffered: a single read of the system ends at 2 GiB
                file.seek(first)
                return file.read(stop - first)
        except OSError as error:
            raise VideoReadError(path, str(error)) from error
    import fsspec

    def fetch() -> bytes:
        system, name = fsspec.core.url_to_fs(path)
        with system.open(name, "rb", cache_type="none", size=size) as file:  # its size known: one request
            file.seek(first)
            content: bytes = file.read(stop - first)
        if len(content) < stop - first:
            raise OSError(f"{stop - first - len(content)} bytes are missing at {first}")
        return content

    content: bytes = tried(path, fetch)
    return content


def fetch_small(url: str, most: int = INDEX_BYTES) -> bytes | None:
    """A whole file, such as an index; None where there is none, or one of more than `most` bytes."""
    try:
        size, _ = file_state(url)
        return read_part(url, 0, size, size) if 0 < size <= most else None
    except VideoReadError:
        return None


class DiskCache:
    """Bytes by name in a folder of bounded size, which processes share.

    Where more would not fit, those that were not used for longest go. A disk that fails is done without.
    """

    def __init__(self, folder: Path, most: int):
        """most: bytes that all files together may have; 0 keeps nothing."""
        self.folder, self.most, self.failed = folder, most, False

    def get(self, name: str, size: int) -> bytes | None:
        """What was kept by that name, if it has that size and is what was put there: a power cut may leave
        other bytes."""
        path = self.folder / name
        try:
            kept = path.read_bytes()
            os.utime(path)
        except OSError:
            return None
        content, checksum = kept[:-CHECKSUM], kept[-CHECKSUM:]
        return content if len(content) == size and checksum == checksum_of(content) else None

    def put(self, name: str, content: bytes) -> None:
        content += checksum_of(content)
        if len(content) > self.most or self.failed:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with open(self.folder / "bytes", "a+") as ledger:  # how many there are; its lock is the folder's
                fcntl.flock(ledger, fcntl.LOCK_EX)
                ledger.seek(0)
                written = ledger.read()
                total = int(written) if written.isdigit() else self.make_room(self.most)
                if total + len(content) > self.most:
                    total = self.make_room(int(0.9 * (self.most - len(content))))
                ledger.truncate(0)
                ledger.write(str(total + len(content)))
                ledger.flush()
                unfinished = unfinished_name(self.folder / name)
                unfinished.write_bytes(content)
                unfinished.replace(self.folder / name)
        except OSError as error:
            self.failed = True
            logger.warning("%s: parts of shards are kept there no longer: %s", self.folder, error)

    def make_room(self, wanted: int) -> int:
        """Remove what was not used for longest until at most `wanted` bytes are left. Returns how many."""
        with os.scandir(self.folder) as entries:
            files = [(e.stat().st_mtime_ns, e.stat().st_size, e.path) for e in entries if ".part" in e.name]
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= wanted:
                break
            os.unlink(path)
            total -= size
        return total


def checksum_of(content: bytes) -> bytes:
    return zlib.crc32(content).to_bytes(CHECKSUM, "big")


def part_name(path: str, time: int, first: int, stop: int) -> str:
    """What a part of a shard, as it was at that time, is called in the cache."""
    shard = hashlib.sha256(f"{path} {time}".encode()).hexdigest()[:20]
    return f"{shard}-{first}-{stop}.part"
