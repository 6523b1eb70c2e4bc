"""Writing a run's files so that each is whole or absent, whatever happens meanwhile."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

UNFINISHED = ".unfinished"  # how the names of what is being written end


class WriteError(OSError):
    """A file could not be written; the message names it and says what to do."""


class RunWriteError(WriteError):
    """A file of a run could not be written; the checkpoints written before are intact."""

    @classmethod
    def of(cls, path: Path, error: Exception) -> "RunWriteError":
        """The error for a file, with what to do."""
        while not isinstance(error, OSError) and isinstance(error.__context__, Exception):
            error = error.__context__  # torch reports a full disk as "unexpected pos 768 vs 662"
        reason = getattr(error, "strerror", None) or error
        return cls(
            f"could not write {path}: {reason}; the checkpoints written before are intact: free some space, "
            "see that the folder can be written, and --resume auto"
        )


def write_text_atomically(text: str, path: Path) -> None:
    """Replace a small file's content, so that a reader finds the old or the new one, whole."""
    with whole_file(path) as unfinished:
        unfinished.write_text(text)


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A temporary name to write to, which becomes `path` if all goes well and is removed if not."""
    unfinished = path.with_name(f".{path.name}{UNFINISHED}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished.unlink(missing_ok=True)
        yield unfinished
        unfinished.replace(path)
        flush_folder(path.parent)
    except (OSError, RuntimeError) as error:
        raise RunWriteError.of(path, error) from error
    finally:
        with contextlib.suppress(OSError):  # also where `path` was the same file already: no renaming then
            unfinished.unlink()


def flush_folder(folder: Path) -> None:
    """Else a power cut may undo a renaming."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
