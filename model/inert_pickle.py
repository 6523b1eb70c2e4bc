"""The tensors of a torch.save file, without running anything that its pickle names.

A pickle is a small program: it names classes and functions and says what to call them with. `torch.load` with
weights_only=True refuses a file that names a class it does not know, and the training checkpoints of the
official release do (their `config` is an object of the training script). Here such a file is read as data.
Whatever it names, torch's and Python's own classes included, becomes an inert record of the name and the
arguments: nothing is imported, nothing looked up, nothing called. When the pickle has ended, the records that
describe tensors are turned into tensors by this module, with their bounds checked; the rest is dropped.

Why that is safe: an unpickler can call nothing but what `find_class` gave it, and methods of what that made.
`find_class` below gives fresh subclasses of `Record` and nothing else, and their methods store or do nothing.
"""

import pickle
import zipfile
from pathlib import Path

import torch
from torch import Tensor

DTYPES = {
    "torch.DoubleStorage": torch.float64,
    "torch.FloatStorage": torch.float32,
    "torch.HalfStorage": torch.float16,
    "torch.BFloat16Storage": torch.bfloat16,
    "torch.LongStorage": torch.int64,
    "torch.IntStorage": torch.int32,
    "torch.ShortStorage": torch.int16,
    "torch.CharStorage": torch.int8,
    "torch.ByteStorage": torch.uint8,
    "torch.BoolStorage": torch.bool,
}


class Record:
    """Stands in for an object that a pickle describes: keeps the arguments and items it is given."""

    named = ""  # module.name in the pickle, set on each subclass

    def __new__(cls, *args, **kwargs):
        self = super().__new__(cls)
        self.args, self.items = args, {}
        return self

    def __init__(self, *args, **kwargs):
        pass

    def __call__(self, *args, **kwargs):
        return self

    def __setitem__(self, key, value):
        self.items[key] = value

    def __setstate__(self, state):
        pass

    def append(self, item):
        pass

    def extend(self, items):
        pass

    def add(self, item):
        pass


class InertUnpickler(pickle.Unpickler):
    """Reads a pickle into plain values and `Record`s."""

    def find_class(self, module, name):
        return type("Record", (Record,), {"named": f"{module}.{name}"})

    def persistent_load(self, pid):
        """torch refers to a storage by ("storage", its type, its file in the archive, device, elements)."""
        return Record("storage", pid)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Name -> tensor for the `state_dict` in a torch.save file, or for the file's own dict if it has none.

    Raises:
        ValueError: the file is no torch.save archive, or what it holds makes no sense.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            return _read_archive(archive)
    except (
        *(pickle.UnpicklingError, EOFError, UnicodeDecodeError, OverflowError, zipfile.BadZipFile),
        *(LookupError, TypeError, ValueError, AttributeError, RuntimeError),
    ) as error:
        raise ValueError(f"{path} cannot be read as a torch.save archive: {error!r}") from error


def _read_archive(archive: zipfile.ZipFile) -> dict[str, Tensor]:
    names = archive.namelist()
    root = next(name for name in [*names, "data.pkl"] if name.endswith("data.pkl")).removesuffix("data.pkl")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
        raise ValueError("saved on a big-endian machine; save it again on a little-endian one")
    with archive.open(f"{root}data.pkl") as file:
        content = _items(InertUnpickler(file).load())
    if "state_dict" in content:
        content = _items(content["state_dict"])

    storages: dict[tuple, Tensor] = {}  # tensors may share one

    def storage(record: Record) -> Tensor:
        _, kind, file, _, elements = record.args[1]
        dtype = DTYPES[kind.named]
        if (file, dtype) not in storages:
            data = bytearray(archive.read(f"{root}data/{file}"))
            storages[file, dtype] = (
                torch.frombuffer(data, dtype=dtype, count=elements) if data else torch.empty(0, dtype=dtype)
            )
        return storages[file, dtype]

    def tensor(value) -> Tensor | None:
        named = value.named if isinstance(value, Record) else None
        if named == "torch._utils._rebuild_parameter":
            return tensor(value.args[0])
        if named == "torch._utils._rebuild_tensor_v2":
            base, offset, size, stride = value.args[:4]
            return storage(base).as_strided(size, stride, offset)  # raises when out of bounds
        return None

    tensors = {name: tensor(value) for name, value in content.items() if isinstance(name, str)}
    return {name: value for name, value in tensors.items() if value is not None}


def _items(value) -> dict:
    """The items of a dict, or of a record of a class that is filled like one (OrderedDict)."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Record):
        return value.items
    raise TypeError(f"expected a dict of tensors, found {type(value).__name__}")
