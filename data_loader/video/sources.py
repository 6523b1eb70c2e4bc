"""Where videos lie: plain files, folders of frames, members of tar files (x.tar/a.mp4), and URLs of fsspec.

This file stands on the standard library alone (see `process`); fsspec is imported for the first URL.
"""

import hashlib
import io
import logging
import os
import re
import shutil
import stat
import tarfile
import tempfile
import time
from collections.abc import Callable
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from .base import VideoReadError

logger = logging.getLogger(__name__)

URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:(//|:)")  # also of chained file systems, zip::https://…
TAR = ".tar/"
NAMED = 20  # double names in the log
IMAGE_ENDINGS = {".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
BLOCK_BYTES = 2**19  # that one request asks for
BLOCKS_KEPT = 32  # of each file that is open
SPARE_BYTES = 2**28  # that a copy of a whole file leaves free in the temporary folder
WAITS = (0.5, 2.0, 8.0)  # seconds before each new try after a broken connection


def is_picture(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in IMAGE_ENDINGS


def is_url(path: str) -> bool:
    return URL.match(path) is not None


def absolute(path: str) -> str:
    """The path from anywhere; a URL stays."""
    return path if is_url(path) else os.path.abspath(path)


def split_member(path: str) -> tuple[str, str] | None:
    """The tar file and the name in it of a path x.tar/a.mp4; None for other paths."""
    archive, separator, name = path.partition(TAR)
    archive += TAR[:-1]
    return (archive, name) if separator and (is_url(path) or os.path.isfile(archive)) else None


def file_state(path: str) -> tuple[int, int]:
    """Size, and time of the last change in ns. Raises VideoReadError for what needs no decoder to tell.

    A member has the time of its tar file, a folder the size of all its frames and the time of the last. For
    a URL the time is what its server tells, or else a number made of its ETag, checksum or the time as an
    HTTP header has it; 0 for neither.
    """
    member = split_member(path)
    if member is not None:
        archive, name = member
        return _member(archive, name).size, file_state(archive)[1]
    if is_url(path):
        return _remote_state(path)
    try:
        state = os.stat(path)
        if stat.S_ISDIR(state.st_mode):
            with os.scandir(path) as entries:
                states = [e.stat() for e in entries if is_picture(e.name) and e.is_file()]
            if not states:
                raise VideoReadError(path, "is not a file, nor a folder of frames")
            return sum(s.st_size for s in states), max((s.st_mtime_ns for s in states), default=0)
    except FileNotFoundError as error:
        raise VideoReadError(path, "no such file") from error
    except OSError as error:
        raise VideoReadError(path, error.strerror or str(error)) from error
    if not stat.S_ISREG(state.st_mode):
        raise VideoReadError(path, "is not a file")
    if state.st_size == 0:
        raise VideoReadError(path, "the file is empty")
    return state.st_size, state.st_mtime_ns


def is_plain(path: str) -> bool:
    """Whether any program can open it by its name."""
    return not is_url(path) and split_member(path) is None


def open_source(path: str) -> Any:
    """A file to read and seek in, of what is not plain. Raises VideoReadError."""
    member = split_member(path)
    if member is None:
        return RemoteFile(path) if is_url(path) else open(path, "rb")
    archive, name = member
    place = _member(archive, name)
    return Part(open_source(archive), place)


class Place(NamedTuple):
    """Where a file lies in another."""

    offset: int
    size: int


NOWHERE = Place(0, 0)  # of a link that leads out of its tar file


class Seekable(io.RawIOBase):
    """A file of `size` bytes that is to be read from the byte `at` on, wherever that is."""

    size: int
    at = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self.at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.size}[whence]
        return self.at

    def tell(self) -> int:
        return self.at

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True


class Part(Seekable):
    """A part of an open file, as a file."""

    def __init__(self, file: Any, place: Place):
        self.file, self.offset, self.size = file, *place

    def read(self, size: int = -1) -> bytes:
        rest = max(0, self.size - self.at)
        self.file.seek(self.offset + self.at)
        content = self.file.read(rest if size < 0 else min(size, rest))
        self.at += len(content)
        return content


def tar_members(archive: str) -> dict[str, Place]:
    """The files of a tar file by name, also those that are links to others in it. Raises VideoReadError: it
    is none, or is cut off.

    `tar -c .` names them ./a.mp4, which paths do not tell from a.mp4: here they are a.mp4. Of a name that
    comes twice the first counts, as in shards of training; a warning names them.
    """
    return _tar_members(archive, file_state(archive))


@lru_cache(maxsize=64)
def _tar_members(archive: str, state: tuple[int, int]) -> dict[str, Place]:
    try:
        with open_source(archive) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            files, links, twice = {}, {}, []
            for member in tar:
                name = _plain_name(member.name)
                if not member.isdir() and (name in files or name in links):
                    twice.append(name)
                elif member.isreg() and not member.issparse():
                    files[name] = Place(member.offset_data, member.size)
                elif member.islnk():
                    links[name] = _plain_name(member.linkname)
                elif member.issym():
                    links[name] = _plain_name(f"{os.path.dirname(member.name)}/{member.linkname}")
            if twice:
                logger.warning(
                    "%s: names in it that come again: %d; the first of each is read: %s",
                    archive,
                    len(twice),
                    ", ".join(twice[:NAMED]) + (" …" if len(twice) > NAMED else ""),
                )
            return files | {name: files.get(to, NOWHERE) for name, to in links.items()}
    except (tarfile.TarError, EOFError) as error:
        raise VideoReadError(archive, f"is no whole tar file: {error}") from error
    except OSError as error:
        raise VideoReadError(archive, error.strerror or str(error)) from error


def _plain_name(name: str) -> str:
    return os.path.normpath(name.lstrip("/"))


def _member(archive: str, name: str) -> Place:
    place = tar_members(archive).get(name)
    if place is None:
        raise VideoReadError(f"{archive}/{name}", "no such file in the tar file")
    if place is NOWHERE:
        raise VideoReadError(f"{archive}/{name}", "is a link to what is no file in the tar file")
    if place.size == 0:
        raise VideoReadError(f"{archive}/{name}", "the file is empty")
    return place


# URLs

PACKAGES = {
    "s3": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "hf": "huggingface_hub",
    "http": "aiohttp",
    "https": "aiohttp",
}


def check_protocol(url: str) -> None:
    """Raises ValueError, with what to install, where nothing here opens such URLs."""
    import fsspec

    for protocol in re.findall(r"(?:^|::)([a-zA-Z][a-zA-Z0-9+.-]+)(?=:)", url):
        try:
            fsspec.get_filesystem_class(protocol)
        except ImportError as error:
            package = PACKAGES.get(protocol)
            advice = f"pip install {package}" if package else str(error)
            raise ValueError(
                f"{url}: {protocol}:// needs a package that is not installed: {advice}"
            ) from error
        except ValueError as error:
            raise ValueError(f"{url}: fsspec knows no {protocol}://") from error


def tried(path: str, call: Callable[[], Any]) -> Any:
    """What `call` gives, tried again after the WAITS. Raises VideoReadError.

    What is not there, or is not ours to read, is not tried again.
    """
    for wait in (*WAITS, None):
        try:
            return call()
        except VideoReadError:
            raise
        except Exception as error:
            cause = error.__cause__ or error  # fsspec says of each failure of HTTP that the file is not there
            status = getattr(cause, "status", None)
            if isinstance(cause, FileNotFoundError) or status in (404, 410):
                raise VideoReadError(path, "no such file") from error
            if wait is None or isinstance(cause, PermissionError) or status in (401, 403):
                reason = " ".join(f"{type(cause).__name__}: {cause}".split()).strip(": ")
                tries = "" if wait is not None else f" (tried {len(WAITS) + 1} times)"
                raise VideoReadError(path, f"cannot be fetched: {reason}{tries}") from error
            time.sleep(wait)
    raise AssertionError


def _remote_state(url: str) -> tuple[int, int]:
    import fsspec

    def info() -> dict[str, Any]:
        system, path = fsspec.core.url_to_fs(url)
        found: dict[str, Any] = system.info(path)
        return found

    about = tried(url, info)
    if about.get("type") == "directory":
        raise VideoReadError(url, "is not a file")
    if about.get("size") == 0:
        raise VideoReadError(url, "the file is empty")
    for key in ("mtime", "LastModified", "last_modified", "updated", "created"):
        if isinstance(about.get(key), datetime):
            return int(about.get("size") or -1), int(about[key].timestamp() * 1e6) * 1000
    for key in ("ETag", "etag", "md5Hash", "Content-MD5", "checksum", "Last-Modified"):
        if about.get(key):
            digest = hashlib.sha256(str(about[key]).encode()).digest()
            return int(about.get("size") or -1), int.from_bytes(digest[:7], "big")
    return int(about.get("size") or -1), 0


_failures: dict[str, VideoReadError] = {}


def raise_failure(path: str) -> None:
    """Raises what a RemoteFile met with: FFmpeg takes an error in the middle of a file for its end."""
    member = split_member(path)
    if failure := _failures.pop(member[0] if member else path, None):
        raise failure


class RemoteFile(Seekable):
    """A file behind a URL, of which no other blocks are fetched than those that are read.

    A server that gives no parts of a file gives all of it, into a temporary file, if there is room. A broken
    connection is tried again; what fails then is raised, and kept for `raise_failure`.
    """

    def __init__(self, path: str):
        self.path = path
        _failures.pop(path, None)  # of an earlier try
        self.file: Any = None
        self.whole = False  # whether the file is a copy of all of it
        self.size: int = self._keep(self._measure)

    def _keep(self, call: Callable[[], Any]) -> Any:
        try:
            return tried(self.path, call)
        except VideoReadError as error:
            _failures[self.path] = error
            raise

    def _measure(self) -> int:
        self._open()
        if self.whole:
            return os.fstat(self.file.fileno()).st_size
        return int(self.file.size)

    def _open(self, whole: bool = False) -> None:
        import fsspec

        system, path = fsspec.core.url_to_fs(self.path)
        options = {"cache_type": "blockcache", "cache_options": {"maxblocks": BLOCKS_KEPT}}
        file = system.open(path, "rb", block_size=0 if whole else BLOCK_BYTES, **options)
        if whole or getattr(file, "size", None) is None:  # fsspec's for HTTP has no size where it is a stream
            file, self.whole = self._copy(file), True
        self.file = file

    def _copy(self, file: Any) -> Any:
        """All of a file that comes in one piece. Raises VideoReadError where the disk has no room for it."""
        room = shutil.disk_usage(tempfile.gettempdir()).free - SPARE_BYTES
        size = getattr(file, "size", None) or 0  # as announced, if it is; what comes is counted
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - it goes with this object
        while size <= room and (content := file.read(2**20)):
            copy.write(content)
            size = max(size, copy.tell())
        if size > room:
            copy.close()
            raise VideoReadError(
                self.path,
                f"the server gives no parts of files, and the whole, {size:,} bytes at least, does not fit "
                f"into {tempfile.gettempdir()}, which has room for {max(0, room):,}: fetch it by hand, or "
                "set TMPDIR to a larger disk",
            )
        return copy

    def _read(self, size: int) -> bytes:
        if self.file is None:
            self._open()
        try:
            self.file.seek(self.at)
            try:
                content: bytes = self.file.read(size)
            except ValueError as error:
                if self.whole or "range requests" not in str(error):
                    raise
                self._open(whole=True)  # the server has sent all, where a part was asked for
                self.file.seek(self.at)
                content = self.file.read(size)
            if len(content) < size:
                raise OSError(f"{size - len(content)} bytes are missing at {self.at}")
        except BaseException:
            self.file = None
            raise
        return content

    def read(self, size: int = -1) -> bytes:
        rest = max(0, self.size - self.at)
        size = rest if size < 0 else min(size, rest)
        content: bytes = self._keep(lambda: self._read(size)) if size else b""
        self.at += len(content)
        return content
