"""Which files are videos, and finding them in folders."""

import os
from pathlib import Path

VIDEO_ENDINGS = {
    *(".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
    *(".ogv", ".ts", ".vob", ".webm", ".wmv"),
}


def walk_files(folder: str | Path) -> tuple[list[Path], dict[Path, str]]:
    """All files below a folder, also behind symbolic links; a link back to a folder above it is not followed.

    Returns:
        The paths of the files, sorted, links that lead nowhere among them; and what could not be entered,
        with the reasons.
    """
    files: list[Path] = []
    closed: dict[Path, str] = {}
    waiting: list[tuple[Path, frozenset[tuple[int, int]]]] = [(Path(folder), frozenset())]
    while waiting:
        where, above = waiting.pop()
        try:
            status = os.stat(where)
            if (status.st_dev, status.st_ino) in above:
                continue
            within = above | {(status.st_dev, status.st_ino)}
            with os.scandir(where) as entries:
                for entry in entries:
                    try:
                        is_folder = entry.is_dir()
                    except OSError as error:  # a link into a folder that is closed, or to itself
                        closed[Path(entry.path)] = error.strerror or str(error)
                        continue
                    if is_folder:
                        waiting.append((Path(entry.path), within))
                    else:
                        files.append(Path(entry.path))
        except OSError as error:
            closed[where] = error.strerror or str(error)
    return sorted(files), closed
