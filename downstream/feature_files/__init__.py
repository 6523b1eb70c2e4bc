"""Tables of features on disk: .safetensors, .npz, .parquet and HDF5 files, or a folder of a file a video."""

import json
import math
import zlib
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from downstream.feature_files import folders, hdf5
from downstream.feature_files.table import FeatureTable, join_tables, take
from utils.files import check_folder, whole_file

__all__ = [
    "FORMATS",
    "FeatureTable",
    "check_format",
    "has_features",
    "is_folder",
    "join_tables",
    "load_features",
    "take",
    "write_features",
]

FORMATS = (".safetensors", ".npz", ".parquet", ".h5", ".hdf5")


def check_format(path: str | Path, tokens: bool = False, one_file_each: bool = False) -> Path:
    """`path`, or a ValueError where features cannot be written there: its extension is none of FORMATS, the
    package for it is missing, or it is to be a folder, `one_file_each`, and is none."""
    path = Path(path).expanduser()
    if one_file_each:
        if path.suffix in FORMATS or path.is_file():
            raise ValueError(f"{path}: a file each goes into a folder; name one")
        if tokens:
            raise ValueError("a file each holds no tokens; write all into one .safetensors, .npz or .h5")
        check_folder(path)
        return path
    if path.suffix not in FORMATS:
        raise ValueError(
            f"the extension of {path} chooses the format; it must be one of {', '.join(FORMATS)}, or for a "
            "file each of a folder --one-file-each be given"
        )
    if path.suffix in (".h5", ".hdf5"):
        hdf5.import_h5py()
    if tokens and path.suffix == ".parquet":
        raise ValueError(f"{path}: all tokens do not fit a .parquet table; write .safetensors, .npz or .h5")
    return path


def has_features(path: Path) -> bool:
    """Whether there is a table of features, or a file that should be one."""
    return path.is_file() or (is_folder(path) and folders.has_features(path))


def is_folder(path: Path) -> bool:
    """Whether features there are a file a video; a folder that is named like a table is a mistake."""
    return path.is_dir() and path.suffix not in FORMATS


def write_features(path: str | Path, table: FeatureTable) -> None:
    """Write a table in the format of the extension, in one step: never half a file.

    .safetensors: "features" and numeric columns as tensors; a column of texts is the UTF-8 bytes of its JSON
    list, `json.loads(bytes(tensor))`; the metadata under "facts" in the file's, as JSON. .npz: arrays under
    the same names. .parquet: a row a vector, "features" a list of D floats, the metadata in the schema's.
    .h5: see hdf5. A folder that is there: a file a video, see folders.
    `load_features` reads them all.
    """
    path = Path(path).expanduser()
    if is_folder(path):
        folders.write(path, table)
        return
    path = check_format(path)
    write = {".safetensors": _write_safetensors, ".npz": _write_npz, ".parquet": _write_parquet}
    with whole_file(path) as unfinished:
        write.get(path.suffix, hdf5.write)(unfinished, table)


def load_features(path: str | Path, without: Collection[str] = ()) -> FeatureTable:
    """Read features in any of the formats, but for the columns `without` (tokens take much memory).

    Raises:
        FileNotFoundError: there is none. ValueError: it holds something else.
    """
    path = Path(path).expanduser()
    read: Callable[[Path, Collection[str]], FeatureTable] = folders.read
    if not is_folder(path):
        path = check_format(path)
        if not path.is_file():
            raise FileNotFoundError(f"no features file {path}")
        formats = {".safetensors": _read_safetensors, ".npz": _read_npz, ".parquet": _read_parquet}
        read = formats.get(path.suffix, hdf5.read)
    try:
        table = read(path, without)
        if not isinstance(table.metadata, dict) or table.features.ndim != 2:
            raise ValueError("its features are no matrix, or its metadata no object")
        odd = [name for name, column in table.columns.items() if len(column) != len(table)]
        if odd:
            raise ValueError(f"the columns {', '.join(odd)} are longer or shorter than the features")
        return table
    except PermissionError:
        raise
    except NOT_OURS as error:
        raise ValueError(f"{path} holds no extracted features ({error!r}); choose another file") from error


NOT_OURS = (  # what the libraries raise on damaged files
    *(AttributeError, EOFError, KeyError, OSError, RuntimeError, TypeError, ValueError),
    *(SafetensorError, BadZipFile, zlib.error),
)


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
    with ZipFile(path, "w") as file:  # as np.savez does, which adds .npz to a name, and takes not all names
        for name, array in arrays.items():
            with file.open(f"{name}.npy", "w", force_zip64=True) as entry:
                np.lib.format.write_array(entry, np.asanyarray(array), allow_pickle=False)


def _check_claims(path: Path) -> None:
    """Raises ValueError where an array of an .npz claims to be larger than what is there of it."""
    headers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    with ZipFile(path) as archive:
        for member in archive.infolist():
            with archive.open(member) as file:
                shape, _, dtype = headers[np.lib.format.read_magic(file)](file)
            if math.prod(shape) * dtype.itemsize > member.file_size:
                raise ValueError(f"{member.filename} claims to be {list(shape)}, more than the file holds")


def _read_npz(path: Path, without: Collection[str]) -> FeatureTable:
    _check_claims(path)
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
