"""How a person's mistakes, and what stops a run on the way, end a command: with their message alone.

TVTS_DEBUG=1 in the environment shows the traceback, too.
"""

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from utils.files import WriteError


class RunError(RuntimeError):
    """Something about the data or the machine stops a run; the message says what to do."""


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, with what to tell the person who pressed it."""


MISTAKES = (ValueError, FileNotFoundError, FileExistsError, NotADirectoryError, PermissionError)
# What a run may meet at any step; each says what happened and what to do.
STOPS_A_RUN = (FloatingPointError, RunError, WriteError)


@contextmanager
def user_errors() -> Iterator[None]:
    """While a run is prepared, mistakes in files, options and configs end it with their message alone."""
    try:
        yield
    except RunError as error:  # no mistake: another run, say, has the folder
        _say(error)
        raise SystemExit(1) from error
    except (*MISTAKES, WriteError) as error:
        _say(error)
        raise SystemExit(2) from error


@contextmanager
def run_errors() -> Iterator[None]:
    """While a run lasts, what no debugging would help against ends it with its message alone."""
    try:
        yield
    except STOPS_A_RUN as error:
        _say(error)
        raise SystemExit(1) from error


@contextmanager
def one_line_interrupts(advice: str = "the same command starts again") -> Iterator[None]:
    """Ctrl-C ends a command with one line, on the first process: that of Interrupted, or else `advice`."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        if os.environ.get("RANK", "0") == "0":
            said = str(interrupt) if isinstance(interrupt, Interrupted) else advice
            print(f"\ninterrupted: {said}", file=sys.stderr, flush=True)
        raise SystemExit(130) from None  # 128 + SIGINT, as shells have it


def _say(error: BaseException) -> None:
    if os.environ.get("TVTS_DEBUG"):
        traceback.print_exception(error)
    rank = os.environ.get("RANK", "0")
    print(f"error{'' if rank == '0' else f' (process {rank})'}: {error}", file=sys.stderr, flush=True)
