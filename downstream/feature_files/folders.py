"""Features as a folder of a file a video, as codebases of temporal detection read them.

Beside a.npy, float32 [pieces of a.mp4, D], stands a.json: {"columns": a list of as many values each,
"settings": how they were made}. One without the other is no part of the table.
"""

import io
import json
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from downstream.feature_files.table import FeatureTable, join_tables
from utils.files import WriteError, flush_folder, unfinished_name


def has_features(folder: Path) -> bool:
    return bool(_pairs(folder))


def file_name(video: str) -> str:
    """What the files of a video are called, without suffix."""
    return os.path.splitext(os.path.basename(video.partition("?")[0].rstrip("/")))[0]


def check_names(folder: Path, videos: Iterable[str]) -> None:
    """Raises ValueError where two videos would have the same file."""
    of_name: dict[str, str] = {}
    for video in videos:
        other = of_name.setdefault(file_name(video), video)
        if other != video:
            raise ValueError(
                f"{other} and {video} would both be {folder / file_name(video)}.npy: "
                "extract them into folders of their own"
            )


def check_ours(folder: Path, videos: Iterable[str], overwrite: bool) -> None:
    """Raises ValueError where writing would take away what others have put into the folder: one of .npy and
    .json, without the other, of a name that is to be written; or with `overwrite` both that are none of ours.
    """
    if overwrite:
        try:
            for about, features in _pairs(folder):
                _read_video(features, about, ())
        except ValueError as error:
            raise ValueError(
                f"{folder} holds files that are none of ours and would be removed ({error}): choose another "
                "--output"
            ) from error
        return
    for name in map(file_name, videos):
        there = [path for end in ("npy", "json") if (path := folder / f"{name}.{end}").exists()]
        if len(there) == 1:
            raise ValueError(
                f"{there[0]} is none of ours, which are pairs of .npy and .json, and would be replaced: "
                "choose another --output, or --overwrite it"
            )


def _pairs(folder: Path) -> list[tuple[Path, Path]]:
    """The .json and .npy files that stand beside each other, by name."""
    return [
        (about, features)
        for about in sorted(folder.glob("*.json"))
        if (features := about.with_name(about.name.removesuffix(".json") + ".npy")).exists()
    ]


def write(folder: Path, table: FeatureTable) -> None:
    """Make the folder hold this table and no other rows; files that would stay the same are left alone.

    Each is whole or absent; a video's .json is absent while its .npy is replaced. Raises WriteError.
    """
    rows: dict[str, list[int]] = {}
    for row, video in enumerate(table.columns["path"]):
        rows.setdefault(video, []).append(row)
    names = {folder / file_name(video) for video in rows}
    try:
        for video, of_video in rows.items():
            _write_video(folder / file_name(video), table.take(of_video))
        for about, features in _pairs(folder):
            if about.with_suffix("") not in names:
                about.unlink()
                features.unlink()
        flush_folder(folder)
    except OSError as error:
        raise WriteError.of(folder, error) from error


def _write_video(path: Path, table: FeatureTable) -> None:
    array = io.BytesIO()
    np.save(array, np.ascontiguousarray(table.features), allow_pickle=False)
    columns = {name: _plain(column) for name, column in table.columns.items()}
    content = json.dumps({"columns": columns, "settings": table.metadata}, indent=1, allow_nan=False)
    # not with_suffix, which would take what stands behind a dot in the name
    features, about = path.with_name(f"{path.name}.npy"), path.with_name(f"{path.name}.json")
    if not _holds(features, array.getvalue()):
        about.unlink(missing_ok=True)
        _replace(features, array.getvalue())
    if not _holds(about, content.encode()):
        _replace(about, content.encode())


def _plain(column: Any) -> list[Any]:
    """A column as JSON has it: NaN is null."""
    if isinstance(column, list):
        return column
    values = column.tolist()
    return [None if value != value else value for value in values] if column.dtype.kind == "f" else values


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.stat().st_size == len(content) and path.read_bytes() == content


def _replace(path: Path, content: bytes) -> None:
    unfinished = unfinished_name(path)
    unfinished.write_bytes(content)
    unfinished.replace(path)


def read(folder: Path, without: Collection[str]) -> FeatureTable:
    """All videos of a folder, in the order of their names. Raises ValueError for what `write` has not
    written, and where they were made with different settings."""
    tables = [_read_video(features, about, without) for about, features in _pairs(folder)]
    if not tables:
        raise ValueError("it is a folder without .npy files and a .json beside each")
    for table in tables:
        if table.metadata != tables[0].metadata:
            raise ValueError(f"{table.columns['path'][0]} was made with other settings than the rest")
    return join_tables(tables)


def _read_video(features: Path, about: Path, without: Collection[str]) -> FeatureTable:
    try:
        content = json.loads(about.read_bytes())
        columns = {
            name: _column(column) for name, column in content["columns"].items() if name not in without
        }
        mapped = np.load(features, mmap_mode="r", allow_pickle=False)  # checks the size beforehand
        if mapped.ndim != 2 or any(len(column) != len(mapped) for column in columns.values()):
            raise ValueError("has another number of rows")
        return FeatureTable(np.array(mapped), columns, content["settings"])
    except (AttributeError, EOFError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{features.name} and {about.name} do not belong together ({error!r})") from error


def _column(values: list[Any]) -> list[str] | np.ndarray:
    """Texts, or numbers, where null is NaN."""
    if all(isinstance(value, str) for value in values):
        return values
    return np.array([np.nan if value is None else value for value in values])
