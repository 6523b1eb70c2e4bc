"""Anyone's labelled videos ("labels"): a folder a class, or a list with columns of paths and labels."""

import difflib
import logging
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from data_loader.labels import ClassRecords, LabelRecords, MultiLabelRecords, plain_name, read_classes
from data_loader.lists import list_of_split, read_lines
from data_loader.text_rows import TextRows, file_namer, read_rows
from data_loader.video_files import VIDEO_ENDINGS, walk_files
from utils.text import counted

logger = logging.getLogger(__name__)

SPLIT_FOLDERS = {"train", "val", "test"}
EACH = ""  # stands for every split, where videos are in none


def labels(
    split: str,
    root: Path,
    meta: Path,
    *,
    files: str | dict[str, str] | None = None,
    path_column: str | int = "path",
    label_column: str | int = "label",
    classes: str | None = None,
    multi_label: bool = False,
    suffix: str = "",
    sep: str | None = None,
) -> ClassRecords:
    """Videos with labels, which are names or numbers.

    Without `files` the folders of `root` are the classes, or those of `root`/train, val and test where it has
    such ones alone. The text of a class is its folder's name, spelled: "brush_hair" and "BrushHair" are
    "brush hair". In a list the name of a class is taken as it is written; columns start and end make a row
    one of a span, in seconds, of its video.

    Args:
        files: the list, or one for each split, in a form of `read_rows`; below `meta` unless absolute.
        path_column, label_column: names, or places counted from 0. suffix: added to every path.
        classes: a file below `meta` with the texts of all classes: one a line, in the order of their numbers
            (from 0), or a JSON {name: number}. Without it the classes are those of the lists, or folders, of
            all splits, in alphabetical order.
        multi_label: a video has a row for each of its labels; a row with an empty label is a video of none.
            Otherwise a second row of a video is an error.
        sep: what separates the columns; by default a tab for .tsv and a comma for anything else.
    """
    if files is None:
        lists = folder_lists(root)
        here = lists.get(EACH) or of_split(lists, split, root)
    else:
        own = list_of_split("labels", files, split)
        names = [own] if classes or isinstance(files, str) else list(dict.fromkeys(files.values()))
        read = partial(read_rows, path_column=path_column, text_column=label_column, sep=sep)
        lists = {
            name: stripped(read(meta / name, "paths and labels", may_lack=multi_label)) for name in names
        }
        here = lists[own]
    given = None if classes is None else class_texts(meta / classes)
    class_names, numbers = number_classes(list(lists.values()), given)
    if files is None and given is None:
        class_names = [spelled(name) for name in class_names]
    if len(class_names) < 2:
        raise ValueError(
            f"{root if files is None else here.where(0)}: there is {'one' if class_names else 'no'} class"
            f"{f' alone, {class_names[0]!r}' if class_names else ''}; a video is told apart from those of "
            "others: it takes two, a folder each, or a label each"
        )
    file_of = file_namer(here, suffix)
    labelled = np.array([numbers.get(label, -1) for label in here.texts], dtype=np.int64)  # -1: none
    place = {name: i for i, name in enumerate(dict.fromkeys(here.names))}
    records: ClassRecords
    if multi_label:
        targets = np.zeros((len(place), len(class_names)), dtype=bool)
        videos = np.array([place[name] for name in here.names])
        targets[videos[labelled >= 0], labelled[labelled >= 0]] = True
        records = MultiLabelRecords(root, list(place), targets, class_names, file_of)
    else:
        refuse_repeated(here)
        records = LabelRecords(root, here.names, labelled, class_names, file_of)
    if here.spans is not None:
        first = {name: row for row, name in reversed(list(enumerate(here.names)))}
        records.spans = here.spans[[first[name] for name in place]]
    return records


def stripped(rows: TextRows) -> TextRows:
    return rows._replace(texts=[text.strip() for text in rows.texts])


def folder_lists(root: Path) -> dict[str, TextRows]:
    """The videos of each split, or of EACH where `root` has classes for its folders; labels are those.

    What is left out is said: videos in no class, folders without videos, files that are no videos.
    """
    files, closed = walk_files(root)
    paths = [file.relative_to(root).as_posix() for file in files]
    videos = [path for path in paths if Path(path).suffix.lower() in VIDEO_ENDINGS]
    tops = {video.partition("/")[0] for video in videos if "/" in video}
    split_up = bool(tops) and tops <= SPLIT_FOLDERS
    by_split: dict[str, list[str]] = {}
    outside = []
    for video in videos:
        split, _, rest = video.partition("/") if split_up else (EACH, "", video)
        if "/" in rest:
            by_split.setdefault(split, []).append(video)
        else:
            outside.append(video)
    if not by_split:
        raise ValueError(
            f"{root} holds no videos of classes: put them into a folder a class, {root}/<class>/<video>.mp4, "
            "or name a list of them (data.files)"
        )
    lists = {
        split: TextRows(
            names, [video.split("/")[1 if split else 0] for video in names], partial(at, root, names)
        )
        for split, names in by_split.items()
    }
    for folder in [root / split for split in lists]:
        with_videos = {label for each in lists.values() for label in each.texts}
        empty = sorted(f.name for f in folder.iterdir() if f.is_dir() and f.name not in with_videos)
        warn_left_out(folder, empty, "folders", "without videos")
    warn_left_out(root, outside, "videos", "in no class")
    warn_left_out(root, sorted(set(paths) - set(videos)), "files", "that are no videos")
    warn_left_out(
        root,
        [f"{folder} ({reason})" for folder, reason in closed.items()],
        "folders",
        "that cannot be entered",
    )
    return lists


def warn_left_out(folder: Path, names: Sequence[str], noun: str, why: str) -> None:
    if names:
        logger.warning("%s: left out: %s %s, e.g. %s", folder, counted(len(names), noun), why, names[0])


def at(root: Path, videos: Sequence[str], row: int) -> str:
    return str(root / videos[row])


def of_split(lists: Mapping[str, TextRows], split: str, root: Path) -> TextRows:
    """The videos of a split; those of val where test is asked for and is not there."""
    name = "val" if split == "test" and "test" not in lists and "val" in lists else split
    if name not in lists:
        raise ValueError(f"{root} has no folder of videos {name}/<class>/, only {', '.join(sorted(lists))}")
    return lists[name]


def class_texts(path: Path) -> list[str]:
    """The texts of all classes, in the order of their numbers. Raises ValueError where two are the same."""
    what = "the names of the classes, one a line, or {name: number}"
    names = read_classes(path, what) if path.suffix == ".json" else read_lines(path, what)
    forms: dict[str, str] = {}
    for name in names:
        if forms.setdefault(plain_name(name), name) is not name:
            raise ValueError(f"{path} has the class {name!r} twice; {forms[plain_name(name)]!r} is the first")
    return names


def number_classes(lists: Sequence[TextRows], given: list[str] | None) -> tuple[list[str], dict[str, int]]:
    """The classes, and the number of each label that is used. See `labels`.

    Raises ValueError, naming the place: a label that is none of the classes `given`, or two that differ in
    their form alone.
    """
    first: dict[str, str] = {}  # label -> where it stands first
    for each in lists:
        for row, label in enumerate(each.texts):
            if label and label not in first:
                first[label] = each.where(row)
    are_numbers = all(label.isdecimal() for label in first)
    if given is None:
        forms: dict[str, str] = {}
        for label, where in first.items():
            form = str(int(label)) if are_numbers else plain_name(label)
            if (same := forms.setdefault(form, label)) != label:
                raise ValueError(
                    f"{where}: is {label!r} the class {same!r} of {first[same]}? Write them in one way"
                )
        names = sorted(first, key=int) if are_numbers else sorted(first)
        return names, {name: number for number, name in enumerate(names)}
    if are_numbers:
        numbers = {label: int(label) for label in first}
    else:
        number_of = {plain_name(name): number for number, name in enumerate(given)}
        numbers = {label: number_of.get(plain_name(label), -1) for label in first}
    for label, number in numbers.items():
        if not 0 <= number < len(given):
            close = difflib.get_close_matches(label, given, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"they count from 0 to {len(given) - 1}"
            raise ValueError(
                f"{first[label]}: the label {label!r} is none of the {len(given)} classes of the file of "
                f"classes; {hint}"
            )
    return given, numbers


def spelled(name: str) -> str:
    """A folder's name as a text: brush_hair and BrushHair -> brush hair; with a space in it, as it is."""
    if " " in name:
        return name
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name.replace("_", " ")).strip().lower() or name


def refuse_repeated(here: TextRows) -> None:
    """ValueError where a video comes twice: which label is meant?"""
    seen: dict[str, int] = {}
    for row, video in enumerate(here.names):
        first = seen.setdefault(video, row)
        if first != row:
            raise ValueError(
                f"{here.where(row)}: {video} is in the list already, {here.where(first)}; if videos have "
                "several labels, a row each: --set data.multi_label=true"
            )
