"""Writing files so that each is whole or absent, whatever happens meanwhile."""

import contextlib
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

UNFINISHED = ".unfinished"  # how the names of what is being written end


class WriteError(OSError):
    """A file could not be written; the message names it and says what to do."""

    advice = "see that there is room and that the folder can be written, or name another"

    @classmethod
    def of(cls, path: Path, error: BaseException) -> "WriteError":
        """The error for a file, with what to do."""
        while not isinstance(error, OSError) and isinstance(error.__context__, Exception):
            error = error.__context__  # torch reports a full disk as "unexpected pos 768 vs 662"
        return cls(f"could not write {path}: {getattr(error, 'strerror', None) or error}; {cls.advice}")


class RunWriteError(WriteError):
    """A file of a training run could not be written."""

    advice = (
        "the checkpoints written before are intact: free some space, see that the folder can be written, and "
        "--resume auto"
    )


def unfinished_name(path: Path, process: int | None = None) -> Path:
    """What to call `path` while a process (this one) writes it: hidden, its own, and never too long."""
    name = os.fsencode(path.name)[:200].decode(errors="ignore")
    return path.with_name(f".{name}.{process or os.getpid()}{UNFINISHED}")


@contextlib.contextmanager
def whole_file(path: Path, error: type[WriteError] = WriteError) -> Iterator[Path]:
    """A temporary name to write to, which becomes `path` if all goes well and is removed if not.

    Raises:
        WriteError, or its subclass `error`: the folder cannot be made or written, or the disk is full; an
            earlier file of that name is untouched.
    """
    unfinished = unfinished_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.unlink(missing_ok=True)
        yield unfinished
        unfinished.replace(path)
        flush_folder(path.parent)
    except (OSError, RuntimeError) as cause:
        if _is_of_another(cause, path, unfinished):
            raise
        raise error.of(path, cause) from cause
    finally:
        with contextlib.suppress(OSError):  # also where `path` was the same file already: no renaming then
            unfinished.unlink()


def _is_of_another(cause: BaseException, path: Path, unfinished: Path) -> bool:
    """Whether an error is not of writing `path`, but of a file that was read, or written, meanwhile."""
    if isinstance(cause, WriteError) or (isinstance(cause, FileNotFoundError) and cause.errno is None):
        return True
    if not isinstance(cause, OSError) or not isinstance(cause.filename, str | bytes | os.PathLike):
        return False
    return Path(os.fsdecode(cause.filename)) not in {unfinished, path, *path.parents}


def write_text(text: str, path: Path, error: type[WriteError] = WriteError) -> None:
    """Replace a small file's content, so that a reader finds the old or the new one, whole.

    Bytes in names of files that are not UTF-8 become escapes, "\\udce9", which JSON reads as they were.
    """
    with whole_file(path, error) as unfinished:
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


def check_folder(folder: Path, error: type[WriteError] = WriteError) -> None:
    """Make a folder for results and see that it can be written: better said before hours of work than after.

    Raises:
        WriteError, or its subclass `error`: it cannot.
    """
    probe = unfinished_name(folder / "probe")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as cause:
        raise error.of(folder, cause) from cause


@contextlib.contextmanager
def or_warn() -> Iterator[None]:
    """What is written within can be done without: where it cannot be written, a warning says so."""
    try:
        yield
    except WriteError as error:
        print(f"warning: {error}", file=sys.stderr)


def flush_folder(folder: Path) -> None:
    """Else a power cut may undo a renaming."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal; of a folder, what `sha256sum * | sha256sum` gives in it."""
    if path.is_dir():
        lines = [f"{sha256_of(file)}  {file.name}\n" for file in sorted(path.iterdir())]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
