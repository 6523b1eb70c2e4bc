"""Feature vectors with their columns, in memory and as .safetensors, .npz and .parquet files."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from utils.files import whole_file

if TYPE_CHECKING:
    import pandas as pd

FORMATS = (".safetensors", ".npz", ".parquet")


@dataclass
class FeatureTable:
    """R vectors with what belongs to each.

    features: float32 [R, D]. columns: of R values each, list[str] or arrays ("path", "duration" in seconds,
    "num_frames" of the file, "start" and "end" in seconds for windows, "tokens" [R, L, D] …).
    metadata: how they were made (model, checkpoint hash …), plain JSON values.
    """

    features: np.ndarray
    columns: dict[str, Any]
    metadata: dict[str, Any]

    def __len__(self) -> int:
        return len(self.features)

    def take(self, rows: Sequence[int]) -> FeatureTable:
        """The same with only these rows, in this order."""
        columns = {name: take(column, rows) for name, column in self.columns.items()}
        return FeatureTable(self.features[list(rows)], columns, self.metadata)

    def check_kinds(self, columns: Mapping[str, Any], place: Path) -> None:
        """Raises ValueError where a column is of texts here, and of numbers in `columns`, or the reverse."""
        for name, column in columns.items():
            if isinstance(column, list) != isinstance(self.columns[name], list):
                ours, theirs = ("texts", "numbers") if isinstance(column, list) else ("numbers", "texts")
                raise ValueError(
                    f"the column {name} is of {ours} now, in {place} of {theirs}: choose another --output"
                )

    def put(self, name: str, rows: Sequence[int], values: Any) -> bool:
        """Put other values into a column in some rows. Returns whether that has changed it."""
        column = self.columns[name]
        if isinstance(column, list):
            changed = take(column, rows) != values
            for row, value in zip(rows, values, strict=True):
                column[row] = value
            return changed
        if np.array_equal(column[rows], values, equal_nan=values.dtype.kind == "f"):
            return False
        self.columns[name] = column.astype(np.result_type(column, values))
        self.columns[name][rows] = values
        return True

    def to_pandas(self) -> pd.DataFrame:
        """A row a vector: the columns, then "features", each an array [D]; `metadata` are its `attrs`."""
        import pandas as pd

        columns = {
            name: list(column) if getattr(column, "ndim", 1) > 1 else column
            for name, column in self.columns.items()
        }
        frame = pd.DataFrame({**columns, "features": list(self.features)})
        frame.attrs = dict(self.metadata)
        return frame


def take(column: Any, rows: Sequence[int]) -> Any:
    """The values of a column in these rows."""
    return [column[i] for i in rows] if isinstance(column, list) else column[list(rows)]


def join_tables(tables: Sequence[FeatureTable]) -> FeatureTable:
    """One table of the rows of all. Raises ValueError where they have different columns."""
    for table in tables:
        if table.columns.keys() != tables[0].columns.keys():
            raise ValueError(
                f"tables with the columns {', '.join(table.columns)} and {', '.join(tables[0].columns)} "
                "cannot be joined"
            )
    columns = {}
    for name, column in tables[0].columns.items():
        parts = [table.columns[name] for table in tables]
        if len({isinstance(part, list) for part in parts}) > 1:
            raise ValueError(f"the column {name} is of texts in some of the tables, of numbers in others")
        columns[name] = (
            [x for part in parts for x in part] if isinstance(column, list) else np.concatenate(parts)
        )
    return FeatureTable(np.concatenate([table.features for table in tables]), columns, tables[0].metadata)


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
    list, `json.loads(bytes(tensor))`; the metadata under "facts" in the file's, as JSON. .npz: arrays under
    the same names. .parquet: a row a vector, "features" a list of D floats, the metadata in the schema's.
    `load_features` reads them all.
    """
    path = check_format(path)
    write = {".safetensors": _write_safetensors, ".npz": _write_npz, ".parquet": _write_parquet}[path.suffix]
    with whole_file(path) as unfinished:
        write(unfinished, table)


def load_features(path: str | Path, without: Collection[str] = ()) -> FeatureTable:
    """Read a file of features in any of the formats, but for the columns `without` (tokens take much memory).

    Raises:
        FileNotFoundError: there is none. ValueError: it holds something else.
    """
    path = check_format(path)
    if not path.is_file():
        raise FileNotFoundError(f"no features file {path}")
    read = {".safetensors": _read_safetensors, ".npz": _read_npz, ".parquet": _read_parquet}[path.suffix]
    try:
        table = read(path, without)
        if not isinstance(table.metadata, dict) or table.features.ndim != 2:
            raise ValueError("its features are no matrix, or its metadata no object")
        odd = [name for name, column in table.columns.items() if len(column) != len(table)]
        if odd:
            raise ValueError(f"the columns {', '.join(odd)} are longer or shorter than the features")
        return table
    except (AttributeError, KeyError, TypeError, ValueError, SafetensorError, BadZipFile) as error:
        raise ValueError(f"{path} holds no extracted features ({error!r}); choose another file") from error


def _write_safetensors(path: Path, table: FeatureTable) -> None:
    tensors = {"features": np.ascontiguousarray(table.features)}
    for name, column in table.columns.items():
        if isinstance(column, list):
            column = np.frombuffer(json.dumps(column).encode(), dtype=np.uint8)
        tensors[name] = np.ascontiguousarray(column)
    texts = [name for name, column in table.columns.items() if isinstance(column, list)]
    # not save_file, which makes files that only their owner may read
    path.write_bytes(save(tensors, {"facts": json.dumps(table.metadata), "texts": json.dumps(texts)}))


def _read_safetensors(path: Path, without: Collection[str]) -> FeatureTable:
    with safe_open(path, framework="np") as file:
        header = file.metadata() or {}
        metadata, texts = json.loads(header["facts"]), json.loads(header["texts"])
        columns = {name: file.get_tensor(name) for name in file.keys() if name not in without}  # noqa: SIM118
    features = columns.pop("features")
    return FeatureTable(features, _texts_first(columns, texts, lambda x: json.loads(bytes(x))), metadata)


def _write_npz(path: Path, table: FeatureTable) -> None:
    arrays: dict[str, Any] = {name: np.asarray(column) for name, column in table.columns.items()}
    arrays |= {"features": table.features, "facts": np.asarray(json.dumps(table.metadata))}
    with open(path, "wb") as file:  # np.savez would add .npz to a name
        np.savez(file, **arrays)


def _read_npz(path: Path, without: Collection[str]) -> FeatureTable:
    with np.load(path, allow_pickle=False) as file:
        columns = {name: file[name] for name in file.files if name not in without}
    features, metadata = columns.pop("features"), json.loads(str(columns.pop("facts")))
    texts = [name for name, column in columns.items() if column.dtype.kind == "U"]
    return FeatureTable(features, _texts_first(columns, texts, lambda x: x.tolist()), metadata)


def _write_parquet(path: Path, table: FeatureTable) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {name: _parquet_column(column) for name, column in table.columns.items()}
    flat = pa.array(np.ascontiguousarray(table.features).reshape(-1))
    vectors = pa.FixedSizeListArray.from_arrays(flat, table.features.shape[1])
    arrow = pa.table({**columns, "features": vectors})
    pq.write_table(arrow.replace_schema_metadata({"facts": json.dumps(table.metadata)}), path)


def _parquet_column(column: Any) -> Any:
    """Texts as they are; as bytes where one is the name of a file that is not UTF-8."""
    if isinstance(column, list) and not all(text.isprintable() or _is_utf8(text) for text in column):
        return [text.encode(errors="surrogateescape") for text in column]
    return column


def _is_utf8(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _read_parquet(path: Path, without: Collection[str]) -> FeatureTable:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrow = pq.read_table(path)
    metadata = json.loads((arrow.schema.metadata or {})[b"facts"])
    vectors = arrow["features"].combine_chunks()
    features = vectors.values.to_numpy().reshape(len(vectors), vectors.type.list_size)
    columns: dict[str, Any] = {}
    for name in arrow.column_names:
        if name != "features" and name not in without:
            column = arrow[name]
            if pa.types.is_binary(column.type):
                columns[name] = [text.decode(errors="surrogateescape") for text in column.to_pylist()]
            else:
                columns[name] = column.to_pylist() if pa.types.is_string(column.type) else column.to_numpy()
    return FeatureTable(features, columns, metadata)


def _texts_first(
    columns: Mapping[str, Any], texts: Sequence[str], decode: Callable[[Any], list[str]]
) -> dict[str, Any]:
    """Columns of texts as list[str], before the numeric ones, whatever order the file gave them in."""
    numeric = {name: column for name, column in columns.items() if name not in texts}
    return {name: decode(columns[name]) for name in texts if name in columns} | numeric
