"""How a person's mistakes end a command: with their message alone."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def user_errors() -> Iterator[None]:
    """While a run is prepared, mistakes in files, options and configs end it with their message alone."""
    try:
        yield
    except (ValueError, FileNotFoundError, FileExistsError) as error:
        rank = os.environ.get("RANK", "0")
        print(f"error{'' if rank == '0' else f' (process {rank})'}: {error}", file=sys.stderr)
        raise SystemExit(2) from error
