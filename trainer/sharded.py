"""Distributed checkpoints: a folder to which each rank writes its slices, read by any number of ranks.

A `checkpoint-epochN.dcp/` holds a safetensors file of each rank, with slices of the weights and of the
optimiser's state, both by the names of the parameters; `trainer.pth` with everything that is not sliced; and
`files.json` with the size of each file, by which a folder is known to be whole.
"""

import json
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor

from model import TVTSv2
from model.checkpoint import SIZES, CheckpointError, check_weights, check_whole
from model.torch_files import check_torch_file
from utils.files import UNFINISHED, RunWriteError, flush_folder
from utils.processes import DistContext

REST = "trainer.pth"
WEIGHTS, OPTIMIZER = "state_dict.", "optimizer."  # how the names of the tensors begin


def save_sharded(state: Mapping[str, Any], path: Path, context: DistContext) -> None:
    """Write a trainer's `state` under a temporary name, then rename it: a folder of the right name is whole.

    Every rank has to call it. Of `state`, "optimizer" is that of get_optimizer_state_dict; all DTensors in it
    and in "state_dict" are written by all ranks, a slice each; the rest is rank 0's.

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
            process_group=context.group,
            no_dist=context.world_size == 1,
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


def _split(state: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors that the ranks share, by name, and the rest of the state."""
    tensors = {WEIGHTS + name: value for name, value in state["state_dict"].items()}
    rest: dict[str, dict[str, Any]] = {}
    for parameter, values in state["optimizer"]["state"].items():
        rest[parameter] = {}
        for name, value in values.items():
            if isinstance(value, DTensor):
                tensors[f"{OPTIMIZER}{parameter}.{name}"] = value
            else:
                rest[parameter][name] = value
    return tensors, {**state, "state_dict": {}, "optimizer": {**state["optimizer"], "state": rest}}


def _finish(unfinished: Path, rest: Mapping[str, Any], path: Path) -> None:
    with (unfinished / REST).open("wb") as file:
        torch.save(dict(rest), file)
        file.flush()
        os.fsync(file.fileno())
    sizes = {each.name: each.stat().st_size for each in sorted(unfinished.iterdir())}
    with (unfinished / SIZES).open("w") as listing:
        json.dump(sizes, listing, indent=1)
        listing.flush()
        os.fsync(listing.fileno())
    remove_sharded(path)
    unfinished.replace(path)
    flush_folder(path.parent)


def remove_sharded(path: Path) -> None:
    """Delete a distributed checkpoint, if there is one; it loses its name before its files."""
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


def restore_sharded(
    path: Path,
    saved: Mapping[str, Any],
    model: TVTSv2,
    optimizer: torch.optim.Optimizer,
    context: DistContext,
) -> None:
    """Fill model and optimiser from a distributed checkpoint, each rank its slices.

    Every rank has to call it, with an optimiser that has not taken a step. `saved` is what `read_rest(path)`
    holds of the optimiser.

    Raises:
        ValueError: as checkpoint.restore; on every rank, whichever rank's slices are at fault.
    """
    reader = dcp.HuggingFaceStorageReader(str(path))
    stored = {
        key: tensor.size
        for key, tensor in reader.read_metadata().state_dict_metadata.items()
        if isinstance(tensor, TensorStorageMetadata)
    }
    weights = {WEIGHTS + name: value for name, value in model.state_dict().items()}
    _check_sizes(weights, {key: size for key, size in stored.items() if key.startswith(WEIGHTS)}, path)
    # New moments, which the checkpoint's are read into.
    own: dict[str, Any] = get_optimizer_state_dict(model, optimizer)
    names = _parameter_names(saved, own, path)
    state: dict[str, dict[str, Any]] = {}
    moments = {}
    for key, name in names.items():
        state[name] = dict(saved["state"].get(key, {}))
        for moment, value in own["state"][name].items():
            if (place := f"{OPTIMIZER}{key}.{moment}") in stored:
                moments[place] = state[name][moment] = value
    _check_sizes(moments, {key: size for key, size in stored.items() if key not in weights}, path)
    with warnings.catch_warnings():  # without other processes it warns of that
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        dcp.load({**weights, **moments}, storage_reader=reader, no_dist=not dist.is_initialized())
    _check_finite(weights, path, context)
    groups = [{**group, "params": [names[key] for key in group["params"]]} for group in saved["param_groups"]]
    set_optimizer_state_dict(
        model,
        optimizer,
        {"state": {name: values for name, values in state.items() if values}, "param_groups": groups},
        options=StateDictOptions(strict=False),  # a parameter that had no gradient yet has no state
    )


def _check_sizes(wanted: Mapping[str, torch.Tensor], stored: Mapping[str, torch.Size], path: Path) -> None:
    if wanted.keys() != stored.keys():
        raise ValueError(f"{path} does not fit this model: its parameters have other names")
    for key, tensor in wanted.items():
        if stored[key] != tensor.shape:
            raise ValueError(
                f"{path} does not fit this model: {key} is {list(stored[key])} there, "
                f"{list(tensor.shape)} here"
            )


def _parameter_names(saved: Mapping[str, Any], own: Mapping[str, Any], path: Path) -> dict[str | int, str]:
    """How a checkpoint's optimiser state refers to each trained parameter -> the parameter's name.

    Older checkpoints number the parameters in the order of the optimiser's groups; all others use the names.
    """
    there = [key for group in saved["param_groups"] for key in group["params"]]
    here = [name for group in own["param_groups"] for name in group["params"]]
    by_number = all(isinstance(key, int) for key in there) and len(there) == len(here)
    names = dict(zip(there, here if by_number else there, strict=True))
    different = sorted(map(str, {*names.values()} ^ {*here}))
    if different:
        raise ValueError(
            f"{path} is of a run that trained other parameters: {', '.join(different[:3])}"
            f"{' …' if len(different) > 3 else ''}; set arch as it was there"
        )
    return names


def _check_finite(weights: Mapping[str, torch.Tensor], path: Path, context: DistContext) -> None:
    """Raises CheckpointError, on every rank, where any rank's slice of a weight holds NaN or infinity."""
    slices = {
        key.removeprefix(WEIGHTS): weight.to_local() if isinstance(weight, DTensor) else weight
        for key, weight in weights.items()
    }
    fault = None
    try:
        check_weights(slices, path)
    except CheckpointError as error:
        fault = str(error)
    faults = [found for found in context.gather_objects(fault) if found]
    if faults:
        raise CheckpointError(faults[0])
