"""Distributed checkpoints: a folder to which each rank writes its slices, read by any number of ranks.

A `checkpoint-epochN.dcp/` holds safetensors files (one a rank, so nothing in them can be run), `trainer.pth`
with everything that is no slice of a tensor, and `files.json` with the size of each file, by which a folder
is known to be whole.
"""

import json
import logging
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.tensor import DTensor

from model import load_checkpoint
from model.checkpoint import SIZES, check_whole
from model.torch_files import check_torch_file
from trainer.engine import slice_like
from utils.files import UNFINISHED, RunWriteError, flush_folder
from utils.processes import DistContext

logger = logging.getLogger(__name__)

REST = "trainer.pth"
WEIGHTS, OPTIMIZER = "state_dict.", "optimizer."  # how the names of the tensors begin


def save_sharded(state: Mapping[str, Any], path: Path, context: DistContext) -> None:
    """Write a trainer's `state` under a temporary name, then rename it: a folder of the right name is whole.

    Every rank is to call it. Of `state`, the DTensors in "state_dict" and "optimizer" are written by all
    ranks, a slice each; the rest is rank 0's.

    Raises:
        RunWriteError: on every rank, when the disk is full or the folder cannot be written on any of them; an
            earlier folder of that name is untouched.
    """
    unfinished = path.with_name(f".{path.name}{UNFINISHED}")
    tensors, rest = _split(state)
    fault = None
    if context.is_main:
        shutil.rmtree(unfinished, ignore_errors=True)
    context.barrier()
    try:
        dcp.save(
            tensors,
            storage_writer=dcp.HuggingFaceStorageWriter(str(unfinished), save_distributed=True),
            no_dist=not dist.is_initialized(),
        )
        if context.is_main:
            _finish(unfinished, rest, path)
    except (OSError, RuntimeError) as error:
        fault = str(error)
    except dcp.api.CheckpointException as error:  # on every rank, with what failed on any
        fault = "; ".join(f"rank {rank}: {cause}" for rank, (cause, _) in error.failures.items())
    faults = [found for found in context.gather_objects(fault) if found]
    if faults:
        if context.is_main:
            shutil.rmtree(unfinished, ignore_errors=True)
        raise RunWriteError.of(path, OSError(faults[0]))


def _finish(unfinished: Path, rest: Mapping[str, Any], path: Path) -> None:
    with (unfinished / REST).open("wb") as file:
        torch.save(dict(rest), file)
        file.flush()
        os.fsync(file.fileno())
    sizes = {file.name: file.stat().st_size for file in sorted(unfinished.iterdir())}
    with (unfinished / SIZES).open("w") as file:
        json.dump(sizes, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    remove_sharded(path)
    unfinished.replace(path)
    flush_folder(path.parent)


def remove_sharded(path: Path) -> None:
    """Delete a distributed checkpoint, if there is one; while half deleted, it has no checkpoint's name."""
    if path.exists():
        doomed = path.with_name(f".{path.name}.removed{UNFINISHED}")
        shutil.rmtree(doomed, ignore_errors=True)
        path.replace(doomed)
        shutil.rmtree(doomed)


def read_rest(path: Path) -> dict[str, Any]:
    """What a distributed checkpoint holds beside its tensors, after a look at whether it is whole.

    Raises:
        ValueError: a file is missing or has another size than it was written with.
    """
    check_whole(path)
    check_torch_file(path / REST)
    return torch.load(path / REST, map_location="cpu", weights_only=True)


def restore(path: Path, state: Mapping[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Fill model and optimiser from a checkpoint, whichever engine and number of ranks wrote it.

    Every rank is to call it. `state` is what `read_checkpoint(path)` gave.

    Raises:
        ValueError: the checkpoint is of another model.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if path.is_dir():
        optimizer_state = _load_tensors(path, model, parameters)
        for index, values in state["optimizer"]["state"].items():
            optimizer_state.setdefault(index, {}).update(values)
    else:
        load_checkpoint(model, path)
        optimizer_state = {
            index: {name: slice_like(value, parameters[index]) for name, value in values.items()}
            for index, values in state["optimizer"]["state"].items()
        }
    optimizer.load_state_dict({**state["optimizer"], "state": optimizer_state})


def _split(state: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors that the ranks share, by name, and the rest of the state."""
    tensors = {WEIGHTS + name: value for name, value in state["state_dict"].items()}
    plain: dict[int, dict[str, Any]] = {}
    for index, values in state["optimizer"]["state"].items():
        plain[index] = {}
        for name, value in values.items():
            if isinstance(value, DTensor):
                tensors[f"{OPTIMIZER}{index}.{name}"] = value
            else:
                plain[index][name] = value
    return tensors, {**state, "state_dict": {}, "optimizer": {**state["optimizer"], "state": plain}}


def _load_tensors(
    path: Path, model: nn.Module, parameters: list[nn.Parameter]
) -> dict[int, dict[str, torch.Tensor]]:
    """Read this rank's slices: the weights into the model, the optimiser's tensors by parameter and name."""
    reader = dcp.HuggingFaceStorageReader(str(path))
    wanted = {WEIGHTS + name: value for name, value in model.state_dict().items()}
    stored = reader.read_metadata().state_dict_metadata
    if {name for name in stored if name.startswith(WEIGHTS)} != set(wanted):
        raise ValueError(f"{path} does not fit this model: its parameters have other names")
    optimizer_state: dict[int, dict[str, torch.Tensor]] = {}
    for key in stored:
        if key.startswith(OPTIMIZER):
            _, index, name = key.split(".")
            wanted[key] = torch.zeros_like(parameters[int(index)], requires_grad=False)
            optimizer_state.setdefault(int(index), {})[name] = wanted[key]
    for key, tensor in wanted.items():
        if stored[key].size != tensor.shape:
            raise ValueError(
                f"{path} does not fit this model: {key} is {list(stored[key].size)} there, "
                f"{list(tensor.shape)} here"
            )
    with warnings.catch_warnings():  # without other processes it tells so, which is no news
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        dcp.load(wanted, storage_reader=reader, no_dist=not dist.is_initialized())
    return optimizer_state
