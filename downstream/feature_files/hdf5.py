"""Tables of features as HDF5 files, with h5py."""

import json
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from downstream.feature_files.table import FeatureTable


def import_h5py() -> ModuleType:
    """Raises ValueError with what to install."""
    try:
        import h5py
    except ImportError as error:
        raise ValueError("an .h5 file needs the package h5py: pip install h5py") from error
    return h5py


def write(path: Path, table: FeatureTable) -> None:
    """A dataset "features" [R, D] and one for each column, texts as UTF-8 strings; the metadata is the file's
    attribute "facts", in JSON."""
    h5py = import_h5py()
    with h5py.File(path, "w") as file:
        file.attrs["facts"] = json.dumps(table.metadata)
        file["features"] = np.ascontiguousarray(table.features)
        for name, column in table.columns.items():
            if isinstance(column, list):  # bytes in names of files that are not UTF-8 stay as they are
                texts = np.array([text.encode(errors="surrogateescape") for text in column], dtype=object)
                file.create_dataset(name, data=texts, dtype=h5py.string_dtype())
            else:
                file[name] = column


def read(path: Path, without: Collection[str]) -> FeatureTable:
    """What `write` has written. Raises ValueError for what it would not have."""
    h5py = import_h5py()
    try:
        with h5py.File(path, "r") as file:
            metadata = json.loads(file.attrs["facts"])
            columns = {name: _column(h5py, file, name) for name in file if name not in without}
    except OSError as error:
        raise ValueError(str(error)) from error
    features = columns.pop("features")
    texts = {name: column for name, column in columns.items() if isinstance(column, list)}
    return FeatureTable(features, texts | columns, metadata)


def _column(h5py: ModuleType, file: Any, name: str) -> Any:
    """A dataset that lies in the file itself, as large as it says: others could name any file, or memory that
    nobody has."""
    if not isinstance(file.get(name, getlink=True), h5py.HardLink) or not isinstance(
        file[name], h5py.Dataset
    ):
        raise ValueError(f"{name!r} is no dataset of this file")
    dataset = file[name]
    if dataset.is_virtual or dataset.external or dataset.id.get_storage_size() < dataset.nbytes:
        raise ValueError(f"{name!r} is not stored whole in this file")
    if h5py.check_string_dtype(dataset.dtype):
        return [text.decode(errors="surrogateescape") for text in dataset[()].tolist()]
    if dataset.dtype.kind not in "biuf":
        raise ValueError(f"{name!r} holds {dataset.dtype}")
    return dataset[()]
