"""The files of torch.save and torch.jit.save, read without torch.load and without TorchScript.

`torch.load` with weights_only=True refuses a file that names a class it does not know, and the training
checkpoints of the official release do (their `config` is an object of the training script). `torch.jit.load`
runs code that the archive brings along. Here such a file is data (utils.inert_pickle): when its pickle has
ended, the records that describe tensors become tensors, with their bounds checked; the rest is dropped.
"""

import io
import math
import mmap
import re
import struct
import zipfile
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from utils.inert_pickle import (
    DAMAGED,
    MAX_BYTES,
    Record,
    check_file,
    check_pickle,
    inert_unpickler,
    load_plain,
)

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
# Before 2020 torch.save wrote five pickles (magic number, version, the machine's sizes, the object, the names
# of the storages), then the storages.
LEGACY_PICKLES, LEGACY_MAGIC = 5, 0x1950A86A20F9469CFC6C
MAX_CODE = 2**22  # bytes of the code of a scripted class


def check_torch_file(path: str | Path) -> None:
    """See that torch.load(path, weights_only=True) will not crash, hang or take more memory than the file.

    Raises:
        FileNotFoundError, ValueError: it is no regular file, or no whole torch.save file; names it.
    """
    with _naming(path), _Archive(path) as archive:
        archive.check()


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Name -> tensor of a weights file: torch.save's, as of today or of before 2020, or TorchScript's.

    Of torch.save's it is what lies under "state_dict", or the file's own dict if it has none. The tensors are
    views of the file, mapped into memory: it is read where they are used, and writing to them does not change
    it. TorchScript's code is not looked at, but for which tensors are parameters and buffers.

    Raises:
        FileNotFoundError, ValueError: it is no regular file, or what it holds makes no sense; names it.
    """
    with _naming(path), _Archive(path) as archive:
        content = archive.load()
        if archive.is_torchscript:
            return dict(archive.module_tensors(content))
        content = _items(content)
        if "state_dict" in content:
            content = _items(content["state_dict"])
        found = ((name, archive.tensor(value)) for name, value in content.items())
        tensors = {name: tensor for name, tensor in found if tensor is not None}
        odd = next((name for name in tensors if not isinstance(name, str)), None)
        if odd is not None:
            raise ValueError(f"the name of a tensor in it is no text but a {type(odd).__name__}")
        return tensors


class _naming:
    """Whatever is wrong within becomes a ValueError that names the file."""

    def __init__(self, path: str | Path):
        self.path = path

    def __enter__(self) -> None:
        check_file(self.path)

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if isinstance(error, (*DAMAGED, zipfile.BadZipFile)):
            reason = str(error) or type(error).__name__
            raise ValueError(f"{self.path} cannot be read as a torch.save archive: {reason}") from error


class _Archive:
    """A torch.save file: its pickles, and its storages by their names."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.file = self.path.open("rb")
        self.size = self.path.stat().st_size
        self.zip = zipfile.ZipFile(self.file) if zipfile.is_zipfile(self.file) else None
        self.places: dict[str, tuple[int, int]] = {}  # storage -> offset, bytes
        self.storages: dict[tuple[str, torch.dtype], Tensor] = {}  # tensors may share one
        self.root = ""
        if self.zip is not None:
            self._find_members(self.zip)

    def __enter__(self) -> "_Archive":
        return self

    def __exit__(self, *_: Any) -> None:
        self.file.close()

    @property
    def is_torchscript(self) -> bool:
        return self.zip is not None and f"{self.root}constants.pkl" in self.zip.namelist()

    def _find_members(self, archive: zipfile.ZipFile) -> None:
        members = archive.infolist()
        found = [member.filename for member in members if member.filename.endswith("data.pkl")]
        if not found:
            raise ValueError("there is no data.pkl in it")
        self.root = min(found, key=len).removesuffix("data.pkl")
        needed = {
            member.filename.removeprefix(self.root): member
            for member in members
            if re.match(rf"{re.escape(self.root)}(data/|data\.pkl$|byteorder$)", member.filename)
        }
        # torch stores them as they are. Packed ones, or many names for the same bytes, could be of any size.
        if any(member.compress_type != zipfile.ZIP_STORED for member in needed.values()):
            raise ValueError("its tensors are compressed; torch.save does not do that")
        if sum(member.file_size for member in needed.values()) > self.size:
            raise ValueError("it claims to hold more than the file has")
        self.places = {name.removeprefix("data/"): self._place(member) for name, member in needed.items()}
        if "byteorder" in self.places and self._read("byteorder") != b"little":
            raise ValueError("saved on a big-endian machine; save it again on a little-endian one")

    def _place(self, member: zipfile.ZipInfo) -> tuple[int, int]:
        """Where the bytes of a stored member lie: behind its header, whose last fields tell its length."""
        self.file.seek(member.header_offset)
        header = self.file.read(30)
        name, extra = struct.unpack("<HH", header[26:30])
        offset = member.header_offset + 30 + name + extra
        if header[:4] != b"PK\3\4" or offset + member.file_size > self.size:
            raise ValueError(f"{member.filename} is cut off")
        return offset, member.file_size

    def check(self) -> None:
        """Go through all pickles without carrying them out."""
        if self.zip is not None:
            check_pickle(io.BytesIO(self._read("data.pkl")))
            return
        self.file.seek(0)
        for _ in range(LEGACY_PICKLES):
            check_pickle(self.file)

    def load(self) -> Any:
        """The object in the file, its storages being found."""
        if self.zip is not None:
            return load_plain(io.BytesIO(self._read("data.pkl")))
        self.file.seek(0)
        magic, *_ = (load_plain(self.file) for _ in range(LEGACY_PICKLES - 2))
        if magic != LEGACY_MAGIC:
            raise ValueError("it does not begin as torch.save's files do")
        unpickler = inert_unpickler(self.file)
        content = unpickler.load()
        dtypes = {pid[2]: storage_dtype(pid) for pid in unpickler.persistent}
        for key in load_plain(self.file):
            (elements,) = struct.unpack("<q", self.file.read(8))
            size = elements * dtypes[key].itemsize
            offset = self.file.tell()
            if not 0 <= size <= self.size - offset:
                raise ValueError("it is cut off")
            self.places[key] = offset, size
            self.file.seek(offset + size)
        return content

    def _read(self, name: str) -> bytes:
        """A small member, without its checksum, which torch may leave out and does not look at."""
        offset, size = self.places[name]
        if size > MAX_BYTES:
            raise ValueError(f"its {name} has more than {MAX_BYTES // 2**20} MB")
        self.file.seek(offset)
        return self.file.read(size)

    def tensor(self, value: Any) -> Tensor | None:
        """The tensor, or parameter, that a record describes; None if it describes something else."""
        named = value.named if isinstance(value, Record) else None
        if named == "torch._utils._rebuild_parameter":
            return self.tensor(value.args[0])
        if named == "torch._utils._rebuild_tensor_v2":
            base, offset, size, stride = value.args[:4]
            storage = self._storage(base)
            if math.prod(size) > storage.numel():  # by a stride of 0: a copy would take all of that
                raise ValueError(f"a tensor of {list(size)} claims to be larger than what is stored of it")
            return storage.as_strided(size, stride, offset)  # raises when out of bounds
        return None

    def _storage(self, record: Record) -> Tensor:
        key, dtype = record.args[1][2], storage_dtype(record.args[1])
        if (key, dtype) not in self.storages:
            offset, size = self.places[key]
            if not size:
                self.storages[key, dtype] = torch.empty(0, dtype=dtype)
            else:
                count = size // dtype.itemsize
                self.storages[key, dtype] = torch.frombuffer(
                    self.mapped, dtype=dtype, count=count, offset=offset
                )
        return self.storages[key, dtype]

    @cached_property
    def mapped(self) -> mmap.mmap:
        """The file in memory; what is written there is this process's own."""
        return mmap.mmap(self.file.fileno(), 0, access=mmap.ACCESS_COPY)

    def module_tensors(self, module: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
        """The names and tensors of a scripted module's state_dict."""
        if not isinstance(module, Record) or not isinstance(module.state, dict):
            return
        kept = self._declared(module.named)
        for name, value in module.state.items():
            tensor = self.tensor(value)
            if tensor is None:
                yield from self.module_tensors(value, f"{prefix}{name}.")
            elif kept is None or name in kept:
                yield f"{prefix}{name}", tensor

    def _declared(self, named: str) -> set[str] | None:
        """The parameters and buffers that the code of a scripted class declares; None where there is no code.

        Other tensors are attributes, or buffers that a state_dict leaves out.
        """
        assert self.zip is not None
        place, _, name = named.rpartition(".")
        file = f"{self.root}code/{place.replace('.', '/')}.py"
        if file not in self.zip.namelist():
            return None
        with self.zip.open(file) as member:
            code = member.read(MAX_CODE).decode()
        found = re.search(rf"^class {re.escape(name)}\(.*?(?=^class |\Z)", code, re.MULTILINE | re.DOTALL)
        lists = re.findall(
            r"^  __(?:parameters|buffers)__ = \[(.*)\]", found[0] if found else "", re.MULTILINE
        )
        return {item for items in lists for item in re.findall(r'"([^"]*)"', items)} if lists else None


def storage_dtype(pid: Any) -> torch.dtype:
    """The element type of a storage, by what a pickle says of it."""
    return DTYPES[pid[1].named]


def _items(value: Any) -> dict[Any, Any]:
    """The items of a dict, or of a record of a class that is filled like one (OrderedDict)."""
    if isinstance(value, dict):
        return value
    if isinstance(value, Record):
        return value.items
    raise TypeError(f"expected a dict of tensors, found {type(value).__name__}")
