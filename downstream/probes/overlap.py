"""What is both in the training and the test videos of a probe."""

from pathlib import Path

from data_loader.dataset import VideoDataset
from data_loader.spans import Span
from utils.text import counted


def refuse_overlap(train: VideoDataset, test: VideoDataset) -> None:
    """ValueError where a file, or a span of it, is in both: what has been trained on is no test."""
    trained_on: dict[Path | tuple[int, int], list[int]] = {}
    for i, path in enumerate(train.video_paths):
        trained_on.setdefault(file_identity(path), []).append(i)
    shared = [
        (train.records.id(k), test.records.id(i))
        for i, path in enumerate(test.video_paths)
        for k in trained_on.get(file_identity(path), [])
        if overlap(train.records.span(k), test.records.span(i))
    ]
    if shared:
        ours, theirs = shared[0]
        number = len({name for _, name in shared})
        raise ValueError(
            f"{counted(number, 'videos')} of {len(test)} to test on are among the {len(train)} to train on, "
            f"e.g. {theirs}{'' if ours == theirs else f', which is {ours}'}. Take them out of one list (a "
            "folder needs train/ and test/), or measure anyway: --set allow_overlap=true"
        )


def overlap(a: Span | None, b: Span | None) -> bool:
    """Whether two spans of a file have a moment in common; None is all of it."""
    (start, end), (other_start, other_end) = a or Span(), b or Span()
    return start < other_end and other_start < end


def file_identity(path: Path) -> Path | tuple[int, int]:
    """What two names of the same file have in common; of one that is not there, the name."""
    try:
        status = path.stat()
    except OSError:
        return path
    return status.st_dev, status.st_ino
