"""Video readers. This package stands on numpy and the decoding libraries alone, so that a child process
that only decodes starts fast and stays small (`killable`)."""

from .errors import VideoReadError
from .frames import Chooser, Clip

READERS = ("pyav", "decord", "torchcodec")

__all__ = ["READERS", "Chooser", "Clip", "VideoReadError", "check_reader", "read"]


def check_reader(reader: str) -> None:
    """Raises ValueError on a name that is not one of READERS."""
    if reader == "decord-unguarded":
        raise ValueError("reader 'decord-unguarded' is now called 'decord'; 'pyav', the default, is exact")
    if reader not in READERS:
        raise ValueError(f"unknown video reader {reader!r}; choose one of {', '.join(READERS)}")


def read(path: str, choose: Chooser, reader: str) -> Clip:
    """The frames of a video that `choose` names, by one of READERS.

    path: a local file. choose: from the number of frames in the file to the indices wanted, in any order
    and with repetitions; it may be called again where the first count proves wrong.
    Raises VideoReadError, ImportError where the reader is not installed, ValueError on an unknown reader.
    """
    check_reader(reader)
    if reader == "pyav":
        from .pyav_reader import read as read_with
    elif reader == "decord":
        from .decord_reader import read as read_with
    else:
        from .torchcodec_reader import read as read_with
    return read_with(path, choose)
