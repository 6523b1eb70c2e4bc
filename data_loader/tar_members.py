"""The members of a tar file, also of one that is damaged: behind a header that cannot be read, the next."""

import tarfile
from collections.abc import Iterator
from typing import Any, NamedTuple

BLOCK = tarfile.BLOCKSIZE
MAKE_ANEW = "make the shard anew or take it out of the folder"
MAGIC, MAGIC_AT = b"ustar", 257  # in a header
CHUNK = 2**20


class Member(NamedTuple):
    """A file in a tar file: `size` bytes at `offset`."""

    name: str
    offset: int
    size: int


class CutOff(tarfile.ReadError):
    """A tar file that has not come, or was not written, to its end: how much is missing, nobody knows."""


class Damage(NamedTuple):
    """A place, in bytes from the start, where a tar file cannot be read."""

    offset: int
    reason: str

    def __str__(self) -> str:
        return f"{self.reason} ({self.offset:,} bytes in)"


def walk(file: Any, size: int) -> Iterator[Member | Damage]:
    """The regular files in an open tar file of `size` bytes, and what is damaged or a link, in their order.

    Raises CutOff for a file that ends too early, and passes on what the file raises when it is read.
    """
    at = 0  # where the next header should be
    while at < size:
        file.seek(at)
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:
                for member in tar:
                    if member.offset_data + member.size > size:
                        raise CutOff(f"no whole tar file: unexpected end of data, in {member.name}")
                    if member.isreg() and not member.issparse():
                        yield Member(member.name, member.offset_data, member.size)
                    elif not member.isdir():  # its content is elsewhere, or not in one piece
                        yield Damage(member.offset, f"{member.name} is a link or another special file")
                    at = tar.offset
        except CutOff:
            raise
        except tarfile.TarError:
            pass  # at `at`
        file.seek(at)
        block = file.read(BLOCK)
        following, blank = next_header(file, at + BLOCK, size)
        if len(block) == BLOCK and blank and not block.strip(b"\0"):
            return  # the end mark
        if len(block) < BLOCK:
            break
        yield Damage(at, "no tar header where one should be")
        if following is None:
            return
        at = following
    raise CutOff(f"cut off after {at:,} bytes, without its end mark")


def next_header(file: Any, at: int, size: int) -> tuple[int | None, bool]:
    """Where the first whole header from the byte `at` on begins, or None; and whether all is zeros."""
    blank = True
    while at < size:
        file.seek(at)
        chunk = file.read(min(CHUNK, size - at))
        found = chunk.find(MAGIC)
        while found >= 0:
            start = found - MAGIC_AT
            if start >= 0 and start % BLOCK == 0 and is_header(chunk[start : start + BLOCK]):
                return at + start, False
            found = chunk.find(MAGIC, found + 1)
        blank = blank and not chunk.strip(b"\0")
        at += CHUNK  # a multiple of BLOCK, as `at` is: no header lies across
    return None, blank


def is_header(block: bytes) -> bool:
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.TarError:
        return False
    return True
