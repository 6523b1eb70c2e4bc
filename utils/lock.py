"""A lock on a folder that one run at a time writes to."""

import errno
import fcntl
import os
import sys
from pathlib import Path
from typing import IO

from utils.errors import RunError
from utils.files import WriteError


def lock_folder(folder: Path, what: str, advice: str) -> IO[str] | None:
    """Make a folder and lock it for this process; closing the file, or the process's end, unlocks it.

    Args:
        what: what the folder is for, and `advice`: what to do, both for the message.

    Returns:
        the file `folder`/lock; None, with a warning, where the file system has no locks.

    Raises:
        RunError: another process has the lock. WriteError: the folder cannot be made or written.
    """
    path = folder / "lock"
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = open(path, "a+")  # noqa: SIM115, held until the run ends
        except OSError as error:
            raise WriteError.of(folder, error) from error
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock's, not inherited by workers
        except OSError as error:
            lock.seek(0)
            holder = lock.read().strip()
            lock.close()
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise RunError(
                    f"another run is writing {what}{holder and f' (process {holder})'}: "
                    f"wait until it has ended, or {advice}"
                ) from error
            print(f"warning: {folder} cannot be locked: {error.strerror}", file=sys.stderr)
            return None
        if path.exists() and os.path.samestat(os.fstat(lock.fileno()), path.stat()):
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            return lock
        lock.close()  # the run that had it has just ended, and removed the folder
