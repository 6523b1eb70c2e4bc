"""What features are made of: the videos and texts that a person names."""

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from data_loader.lists import read_lines
from data_loader.video import VideoReadError
from data_loader.video.sources import TAR, absolute, check_protocol, is_picture, is_url, tar_members
from data_loader.video_files import VIDEO_ENDINGS, walk_files

LIST_SUFFIXES = {".csv", ".lst", ".txt"}
WILDCARDS = re.compile(r"[*?]")  # brackets are part of a name, as in "clip [1].mp4"

Found = tuple[list[str], dict[str, str]]


def find_videos(inputs: Iterable[str | Path], list_file: str | Path | None = None) -> Found:
    """The files that the inputs name, each once, in the order given.

    An input is a file, a folder (searched through, also behind links, by the usual endings of videos; one
    without videos, for folders of numbered frames), a tar file of videos, a URL that fsspec opens, or a
    pattern such as "clips/**/*.mp4". `list_file` holds one input a line, relative to the current or else to
    its own folder. What it names need not be there: like any file that does not exist it is kept, to be
    reported among the unreadable ones.

    Returns:
        absolute paths, and the folders that cannot be entered with the reasons.

    Raises:
        FileNotFoundError: no list file. ValueError: no input at all, or a folder or pattern without videos.
    """
    given = [os.path.expanduser(item) for item in inputs]
    listed = [] if list_file is None else read_list(Path(list_file))
    if not given and not listed:
        raise ValueError("no videos given: name files, folders or patterns, or a list of them with --list")
    found: dict[str, None] = {}
    closed: dict[str, str] = {}
    for number, item in enumerate([*given, *listed]):
        paths, unreadable = _expand(item)
        if not paths and not unreadable and number >= len(given) and not os.path.isdir(item):
            paths = [item]
        if not paths and not unreadable:
            raise ValueError(
                f"no videos in the folder {item} (by ending: {', '.join(sorted(VIDEO_ENDINGS))})"
                if os.path.isdir(item)
                else f"no file matches {item}"
            )
        for path in map(absolute, paths):
            if path.endswith(TAR[:-1]):
                videos, why_not = _members(path)
                found |= dict.fromkeys(videos)
                unreadable |= why_not
            else:
                found[path] = None
        closed |= {absolute(folder): reason for folder, reason in unreadable.items()}
    return list(found), closed


def read_list(path: Path) -> list[str]:
    """The inputs of a list file; a line in double quotes is a JSON string, for names that hold line breaks.

    Bytes that are not UTF-8 stand for themselves, as in names of files.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no list of videos {path}")
    text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode(errors="surrogateescape")
    inputs = []
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        line = line.strip()
        if "\0" in line:
            raise ValueError(f"{path}, line {number} holds a zero byte; save the list as UTF-8")
        if line.startswith('"') and line.endswith('"') and len(line) > 1:
            try:
                line = json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number} is no JSON string: {error}") from error
        line = os.path.expanduser(line)
        if line:
            inputs.append(beside(line, path.parent))
    return inputs


def beside(name: str, folder: Path) -> str:
    """What a list means by a name: a URL, or a path from the current or else from the list's own folder."""
    return name if is_url(name) or os.path.exists(name) else os.path.join(folder, name)


def check_named(inputs: Iterable[str]) -> None:
    """Look at inputs that a person has typed, one by one, for what can only be a mistake.

    Raises:
        FileNotFoundError: there is no such file or folder. ValueError: it is a list of videos, not one.
    """
    for item in inputs:
        path = Path(item).expanduser()
        if is_url(item):
            continue
        if not path.exists() and not WILDCARDS.search(item):
            raise FileNotFoundError(f"no such file or folder: {item}")
        if path.suffix.lower() in LIST_SUFFIXES and path.is_file():
            raise ValueError(
                f"{item} is no video; if it names videos, one a line, give it with --list {item}"
            )


def read_texts(given: Sequence[str]) -> list[str]:
    """The texts themselves, or the lines of a file when its name is all that is given.

    Raises FileNotFoundError: that name ends as lists do, and is no file's. ValueError: the file is empty.
    """
    if len(given) == 1 and os.path.isfile(given[0]):
        texts = read_lines(Path(given[0]), "texts")
        if not texts:
            raise ValueError(f"{given[0]} holds no line of text")
        return texts
    if len(given) == 1 and re.fullmatch(rf"\S+({'|'.join(map(re.escape, LIST_SUFFIXES))})", given[0]):
        raise FileNotFoundError(f"no file of texts {given[0]}")
    return list(given)


def _expand(item: str) -> Found:
    """The files of one input, and the folders in it that cannot be entered."""
    if is_url(item):
        check_protocol(item)
        return (_remote_files(item), {}) if "*" in item else ([item], {})
    if os.path.isdir(item):
        files, closed = walk_files(item)
        videos = [str(file) for file in files if file.suffix.lower() in VIDEO_ENDINGS]
        if not videos:
            pictures = [file for file in files if is_picture(file.name)]
            videos = list(dict.fromkeys(str(file.parent) for file in pictures))
        return videos, {str(folder): reason for folder, reason in closed.items()}
    if os.path.lexists(item) or not WILDCARDS.search(item):
        return [item], {}
    return _matching(item)


def _remote_files(pattern: str) -> list[str]:
    """The files behind a URL with * in it."""
    import fsspec

    system, path = fsspec.core.url_to_fs(pattern)
    return [system.unstrip_protocol(found) for found in sorted(system.glob(path))]


def _members(archive: str) -> Found:
    """The videos of a tar file."""
    try:
        names = tar_members(archive)
    except VideoReadError as error:
        return [], {archive: error.reason}
    videos = [name for name in names if os.path.splitext(name)[1].lower() in VIDEO_ENDINGS]
    if not videos:
        return [], {archive: f"holds no videos (by ending: {', '.join(sorted(VIDEO_ENDINGS))})"}
    return [f"{archive}/{name}" for name in videos], {}


def _matching(pattern: str) -> Found:
    """The files that match a pattern, where * and ? stand for what is in one name, ** for any folders."""
    parts = pattern.split("/")
    fixed = next(i for i, part in enumerate(parts) if WILDCARDS.search(part))
    base = "/".join(parts[:fixed]) or ("/" if pattern.startswith("/") else ".")
    files: list[Path] = []
    closed: dict[Path, str] = {}
    expression = re.compile("".join(map(_part_expression, parts[fixed:-1])) + _name_expression(parts[-1]))
    if fixed == len(parts) - 1 and "**" not in parts[-1]:
        try:
            files = sorted(Path(base).iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return [], {}
        except OSError as error:
            return [], {base: error.strerror or str(error)}
    elif os.path.isdir(base):
        files, closed = walk_files(base)
    found = [str(file) for file in files if expression.fullmatch(str(file.relative_to(base)))]
    return [path for path in found if os.path.isfile(path)], {str(k): reason for k, reason in closed.items()}


def _part_expression(part: str) -> str:
    return r"(?:(?!\.)[^/]+/)*" if part == "**" else _name_expression(part) + "/"


def _name_expression(name: str) -> str:
    """A regular expression of one name; names with a dot in front match only patterns that have it, too."""
    of_character = {"*": "[^/]*", "?": "[^/]"}
    expression = "".join(of_character.get(c, re.escape(c)) for c in name)
    return rf"(?!\.){expression}" if WILDCARDS.match(name) else expression
