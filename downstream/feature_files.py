"""Features on disk: finding videos; .safetensors, .npz and .parquet files of vectors with their columns."""

import glob
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from utils.files import whole_file

FORMATS = (".safetensors", ".npz", ".parquet")
VIDEO_SUFFIXES = {
    *(".3gp", ".avi", ".flv", ".gif", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts"),
    *(".ogv", ".ts", ".vob", ".webm", ".wmv"),
}
LIST_SUFFIXES = {".csv", ".lst", ".txt"}


def find_videos(inputs: Iterable[str | Path], list_file: str | Path | None = None) -> list[str]:
    """Absolute paths of videos, each once, in the order given.

    An input is a file, a folder (searched through, by the usual extensions of videos), or a pattern such as
    "clips/**/*.mp4". `list_file` holds one input a line, relative to the current or else to its own folder.
    A file that does not exist is kept, so that it is reported among the unreadable ones.

    Raises:
        FileNotFoundError: no list file. ValueError: no input at all, or a folder or pattern without videos.
    """
    inputs = [os.fspath(item) for item in inputs]
    if list_file is not None:
        folder = Path(list_file).parent
        lines = [line.strip() for line in Path(list_file).read_text().splitlines() if line.strip()]
        inputs += [line if os.path.exists(line) else os.path.join(folder, line) for line in lines]
    if not inputs:
        raise ValueError("no videos given: name files, folders or patterns, or a list of them with --list")
    found = [os.path.abspath(path) for item in inputs for path in _expand(os.path.expanduser(item))]
    return list(dict.fromkeys(found))


def check_named(inputs: Iterable[str]) -> None:
    """Look at inputs that a person has typed, one by one, for what can only be a mistake.

    Raises:
        FileNotFoundError: there is no such file or folder. ValueError: it is a list of videos, not one.
    """
    for item in inputs:
        path = Path(item).expanduser()
        if not path.exists() and not glob.has_magic(item):
            raise FileNotFoundError(f"no such file or folder: {item}")
        if path.suffix.lower() in LIST_SUFFIXES and path.is_file():
            raise ValueError(
                f"{item} is no video; if it names videos, one a line, give it with --list {item}"
            )


def _expand(item: str) -> list[str]:
    if os.path.isdir(item):
        paths = sorted(str(p) for p in Path(item).rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES)
        if not paths:
            raise ValueError(
                f"no videos in the folder {item} (by extension: {', '.join(sorted(VIDEO_SUFFIXES))})"
            )
        return paths
    if not os.path.exists(item) and glob.has_magic(item):
        paths = sorted(path for path in glob.glob(item, recursive=True) if os.path.isfile(path))
        if not paths:
            raise ValueError(f"no file matches {item}")
        return paths
    return [item]


@dataclass
class FeatureTable:
    """R vectors with what belongs to each.

    features: float32 [R, D]. columns: of R values each, list[str] or arrays ("path", "duration" in seconds,
    "num_frames" of the file, "start" and "end" in seconds for windows, "tokens" [R, L, D] …).
    facts: how they were made (model, checkpoint hash …), plain JSON values.
    """

    features: np.ndarray
    columns: dict[str, Any]
    facts: dict[str, Any]

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: Sequence[int]) -> "FeatureTable":
        """The same with only these rows, in this order."""
        columns = {
            name: [column[i] for i in rows] if isinstance(column, list) else column[list(rows)]
            for name, column in self.columns.items()
        }
        return FeatureTable(self.features[list(rows)], columns, self.facts)


def join_tables(tables: Sequence[FeatureTable]) -> FeatureTable:
    """One table of the rows of all; they have the same columns."""
    columns = {}
    for name, column in tables[0].columns.items():
        parts = [table.columns[name] for table in tables]
        columns[name] = (
            [x for part in parts for x in part] if isinstance(column, list) else np.concatenate(parts)
        )
    return FeatureTable(np.concatenate([table.features for table in tables]), columns, tables[0].facts)


def check_format(path: str | Path, tokens: bool = False) -> Path:
    """`path`, or a ValueError when its extension is none that `write_features` can write."""
    path = Path(path).expanduser()
    if path.suffix not in FORMATS:
        raise ValueError(
            f"the extension of {path} chooses the format; it must be one of {', '.join(FORMATS)}"
        )
    if tokens and path.suffix == ".parquet":
        raise ValueError(f"{path}: all tokens do not fit a .parquet table; write .safetensors or .npz")
    return path


def write_features(path: str | Path, table: FeatureTable) -> None:
    """Write a table in the format of the extension, in one step: never half a file.

    .safetensors: "features" and numeric columns as tensors; a column of texts is the UTF-8 bytes of its JSON
    list, `json.loads(bytes(tensor))`; facts under "facts" in the metadata, as JSON. .npz: arrays under the
    same names. .parquet: a row a vector, "features" a list of D floats, facts in the schema's metadata.
    """
    path = check_format(path)
    write = {".safetensors": _write_safetensors, ".npz": _write_npz, ".parquet": _write_parquet}[path.suffix]
    with whole_file(path) as unfinished:
        write(unfinished, table)


def read_features(path: str | Path, without: Collection[str] = ()) -> FeatureTable:
    """Read what `write_features` wrote, but for the columns `without` (all tokens take a lot of memory).

    Raises:
        ValueError: the file is none of ours.
    """
    path = check_format(path)
    read = {".safetensors": _read_safetensors, ".npz": _read_npz, ".parquet": _read_parquet}[path.suffix]
    try:
        return read(path, without)
    except (KeyError, SafetensorError, BadZipFile) as error:
        raise ValueError(f"{path} holds no extracted features ({error!r}); choose another file") from error


def _write_safetensors(path: Path, table: FeatureTable) -> None:
    tensors = {"features": np.ascontiguousarray(table.features)}
    for name, column in table.columns.items():
        if isinstance(column, list):
            column = np.frombuffer(json.dumps(column).encode(), dtype=np.uint8)
        tensors[name] = np.ascontiguousarray(column)
    texts = [name for name, column in table.columns.items() if isinstance(column, list)]
    # not save_file, which makes files that only their owner may read
    path.write_bytes(save(tensors, {"facts": json.dumps(table.facts), "texts": json.dumps(texts)}))


def _read_safetensors(path: Path, without: Collection[str]) -> FeatureTable:
    with safe_open(path, framework="np") as file:
        metadata = file.metadata() or {}
        facts, texts = json.loads(metadata["facts"]), json.loads(metadata["texts"])
        columns = {name: file.get_tensor(name) for name in file.keys() if name not in without}  # noqa: SIM118
    features = columns.pop("features")
    return FeatureTable(features, _texts_first(columns, texts, lambda x: json.loads(bytes(x))), facts)


def _write_npz(path: Path, table: FeatureTable) -> None:
    columns = {name: np.asarray(column) for name, column in table.columns.items()}
    with open(path, "wb") as file:  # np.savez would add .npz to a name
        np.savez(file, features=table.features, facts=np.asarray(json.dumps(table.facts)), **columns)


def _read_npz(path: Path, without: Collection[str]) -> FeatureTable:
    with np.load(path, allow_pickle=False) as file:
        columns = {name: file[name] for name in file.files if name not in without}
    features, facts = columns.pop("features"), json.loads(str(columns.pop("facts")))
    texts = [name for name, column in columns.items() if column.dtype.kind == "U"]
    return FeatureTable(features, _texts_first(columns, texts, lambda x: x.tolist()), facts)


def _write_parquet(path: Path, table: FeatureTable) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    flat = pa.array(np.ascontiguousarray(table.features).reshape(-1))
    vectors = pa.FixedSizeListArray.from_arrays(flat, table.features.shape[1])
    arrow = pa.table({**table.columns, "features": vectors})
    pq.write_table(arrow.replace_schema_metadata({"facts": json.dumps(table.facts)}), path)


def _read_parquet(path: Path, without: Collection[str]) -> FeatureTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = pq.read_table(path)
    facts = json.loads((arrow.schema.metadata or {})[b"facts"])
    vectors = arrow["features"].combine_chunks()
    features = vectors.values.to_numpy().reshape(len(vectors), vectors.type.list_size)
    columns: dict[str, Any] = {}
    for name in arrow.column_names:
        if name != "features" and name not in without:
            column = arrow[name]
            columns[name] = column.to_pylist() if pa.types.is_string(column.type) else column.to_numpy()
    return FeatureTable(features, columns, facts)


def _texts_first(columns: Mapping[str, Any], texts: Sequence[str], decode: Any) -> dict[str, Any]:
    """Columns of texts as list[str], before the numeric ones, whatever order the file gave them in."""
    numeric = {name: column for name, column in columns.items() if name not in texts}
    return {name: decode(columns[name]) for name in texts if name in columns} | numeric
