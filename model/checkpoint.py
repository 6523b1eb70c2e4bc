"""Weights files into models: official or our own, `.pth`, `.safetensors` or a folder of them."""

import json
import math
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from utils.inert_pickle import check_file

from .checks import CheckpointError, check_weights
from .torch_files import read_tensors
from .variants import VARIANTS, Variant

if TYPE_CHECKING:
    from .tvtsv2 import TVTSv2

EXPECTED = (
    "what torch.save wrote (.pth, .pt, .bin), a .safetensors file, a .dcp folder or one of save_pretrained"
)
HEADS = ("pred_model", "head")  # parts that a model and a file may have or not
SIZES = "files.json"  # of a distributed checkpoint: how many bytes each of its other files has


@dataclass(frozen=True)
class LoadReport:
    """What became of a file's tensors; `print` it."""

    path: str
    loaded: list[str]  # names of the model's that the file filled
    fresh: list[str]  # names of the model's that keep their initial values
    ignored: list[str]  # names of the file's that the model has no use for

    def __str__(self) -> str:
        lines = [f"{self.path}: loaded {len(self.loaded)} tensors"]
        lines += [f"  keeps its initial value: {group}" for group in _grouped(self.fresh)]
        lines += [f"  ignored in the file: {group}" for group in _grouped(self.ignored)]
        return "\n".join(lines)


def load_checkpoint(model: "TVTSv2", path: str | Path) -> LoadReport:
    """Fill a TVTSv2 from a released or training checkpoint, official or ours, or a save_pretrained folder.

    A training checkpoint may be a distributed one, a `.dcp` folder. The sort head and the classification head
    alone may be missing on either side: released files have none. Everything else must match.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: it cannot be read, is of another variant, or has tensors missing, left over or of
            another shape; the message lists them.
    """
    return load_state(model, read_state_dict(path), path)


class WithoutValues(TorchFunctionMode):
    """Models made within have no values, which a file is going to bring: drawing them takes seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return kwargs["tensor"] if func in DRAWN else func(*args, **(kwargs or {}))


DRAWN = {nn.init.kaiming_uniform_, nn.init.normal_, nn.init.uniform_}


def load_state(model: "TVTSv2", state: Mapping[str, Tensor], path: str | Path) -> LoadReport:
    """`load_checkpoint` of what `read_state_dict` gave. Raises CheckpointError."""
    found = guess_variant(state)
    if found and found.name != model.variant.name:
        raise CheckpointError(
            f"{path}: this looks like {found.name}, and the model is {model.variant.name}; "
            f'take that one: --arch {found.name} of a command, create_model("{found.name}") in Python'
        )
    if any(name.startswith("visual.") for name in state):
        raise CheckpointError(f"{path} holds CLIP's own weights; start from them with load_clip_weights")
    there = state.get("head.names")
    if model.head is not None and there is not None and not torch.equal(there, model.head.names.cpu()):
        raise CheckpointError(f"{path}: its classification head is for other classes than the data's")
    in_file = [part for part in HEADS if any(name.startswith(f"{part}.") for name in state)]
    in_model = [part for part in HEADS if getattr(model, part) is not None]
    return fill(model, state, path, model.variant.name, _all_but(in_file), _all_but(in_model))


def _all_but(parts: Sequence[str]) -> str:
    """A pattern of the names of the heads that are none of these."""
    return "|".join(rf"{part}\." for part in HEADS if part not in parts) or "(?!)"


def read_state_dict(path: str | Path) -> dict[str, Tensor]:
    """Parameter name -> tensor on the CPU, `module.` prefixes removed, whatever the form of the file.

    Nothing that a file's pickle names is run: it is read as data (model.torch_files).

    Raises:
        FileNotFoundError, CheckpointError: as load_checkpoint.
    """
    path = Path(path)
    distributed = path.is_dir() and any(path.glob("shard-*.safetensors"))
    if path.is_dir() and not distributed:
        path = path / "model.safetensors"
    if not distributed and not path.exists():
        raise FileNotFoundError(
            f"no weights file {path}; check the path, expected is {EXPECTED}. What was released, "
            "python -m model.download fetches (--help lists it)"
        )
    try:
        if distributed:
            state = _read_distributed(path)
        elif check_file(path).suffix == ".safetensors":
            state = load_file(path)
        else:
            state = _read_pickled(path)
    except CheckpointError:
        raise
    except (SafetensorError, RuntimeError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path} is not a readable weights file, maybe only partly downloaded: {error}"
        ) from error
    if not state:
        raise CheckpointError(f"{path} holds no tensors under `state_dict` nor by themselves")
    return {name.removeprefix("module."): value for name, value in state.items()}


def check_whole(folder: Path) -> None:
    """Look whether a distributed checkpoint is whole; where slices are missing, reading gives random numbers.

    Raises:
        ValueError: a file is missing or has another size than it was written with.
    """
    if not (folder / SIZES).is_file():
        raise ValueError(f"{SIZES} is missing")
    sizes = json.loads((folder / SIZES).read_text())
    wrong = [name for name, size in sizes.items() if not _has_size(folder / name, size)]
    if wrong:
        raise ValueError(f"{', '.join(wrong)} missing or cut short")


def _has_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _read_distributed(folder: Path) -> dict[str, Tensor]:
    """The weights of a training checkpoint to which each process wrote its slices, put together."""
    import torch.distributed.checkpoint as dcp  # it takes longer to import than all of model/
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata

    check_whole(folder)
    reader = dcp.HuggingFaceStorageReader(str(folder))
    stored = reader.read_metadata().state_dict_metadata
    wanted = {
        name: tensor
        for name, tensor in stored.items()
        if name.startswith("state_dict.") and isinstance(tensor, TensorStorageMetadata)
    }
    claimed = sum(math.prod(tensor.size) * tensor.properties.dtype.itemsize for tensor in wanted.values())
    if claimed > sum(file.stat().st_size for file in folder.iterdir()):
        raise ValueError(f"its tensors claim {claimed} bytes, more than its files have")
    state = {name: torch.empty(tensor.size, dtype=tensor.properties.dtype) for name, tensor in wanted.items()}
    with warnings.catch_warnings():  # it tells that it reads in one process, which is meant
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        try:
            dcp.load(state, storage_reader=reader, no_dist=True)
        except dcp.CheckpointException as error:
            raise ValueError(str(error)) from error
    return {name.removeprefix("state_dict."): value for name, value in state.items()}


def _read_pickled(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        begin = file.read(40)
    # A zip archive, or in the old format a pickle of protocol 2: what begins otherwise is not cut off either.
    if begin and not begin.startswith((b"PK", b"\x80")):
        raise CheckpointError(f"{path} is no weights file, it begins with {begin!r}; expected is {EXPECTED}")
    return read_tensors(path)


def guess_variant(state: Mapping[str, Tensor]) -> Variant | None:
    """Whose state_dict this is by its sizes; None when no variant's."""
    conv = state.get("video_model.conv1.weight")
    depth = sum(
        re.fullmatch(r"video_model\.transformer\.resblocks\.\d+\.ln_1\.weight", name) is not None
        for name in state
    )
    for variant in VARIANTS.values():
        patch = (3, variant.patch_size, variant.patch_size)
        if conv is not None and conv.shape == (variant.video_width, *patch) and depth == variant.video_layers:
            return variant
    return None


def fill(
    model: nn.Module,
    state: Mapping[str, Tensor],
    path: str | Path,
    model_name: str,
    may_be_fresh: str = "(?!)",
    may_be_ignored: str = "(?!)",
) -> LoadReport:
    """Copy `state` into the model, strictly but for names that start with what the two patterns match.

    Raises:
        CheckpointError: lists what is missing, left over and of another shape, or names a tensor with NaN or
            infinity in it. The model is left as it was.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in state]
    extra = [name for name in state if name not in own]
    common = [name for name in own if name in state]
    faults = {
        "missing in the file": [name for name in missing if not re.match(may_be_fresh, name)],
        "left over in the file": [name for name in extra if not re.match(may_be_ignored, name)],
        "of another shape": [
            f"{name} (file {list(state[name].shape)}, model {list(own[name].shape)})"
            for name in common
            if state[name].shape != own[name].shape
        ],
    }
    if any(faults.values()):
        lists = "\n".join(f"  {what}: {group}" for what, names in faults.items() for group in _grouped(names))
        raise CheckpointError(f"{path} does not fit {model_name}:\n{lists}")
    check_weights({name: state[name] for name in common}, path)
    model.load_state_dict({name: state[name] for name in common}, strict=False)
    return LoadReport(str(path), loaded=common, fresh=missing, ignored=extra)


def _grouped(names: list[str]) -> list[str]:
    """Names with the block numbers starred out, each once, with how many it stands for."""
    groups = Counter(re.sub(r"\.\d+\.", ".*.", name) for name in names)
    return [name if count == 1 else f"{name} ({count} tensors)" for name, count in groups.items()]
