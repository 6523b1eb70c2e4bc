"""Where and in which number format the model runs: a copy (DDP) or a slice (FSDP2) of it on each rank."""

import contextlib
import inspect
import logging
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from model import ModelOutput, TVTSv2
from model.fp8 import train_in_fp8
from model.kernels import check_fp8
from utils.processes import DistContext

logger = logging.getLogger(__name__)

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}

# DDP's option to send the buffers around before each forward; PyTorch 2.14 has renamed it.
_ARGUMENTS = inspect.signature(DistributedDataParallel).parameters
BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _ARGUMENTS else "broadcast_buffers"


@dataclass(frozen=True)
class Precision:
    """The format of the model's arithmetic; weights, losses and the optimiser stay in float32.

    `name` is bf16, fp16, fp32 or fp8, which is bf16 but for the layers of `train_in_fp8`; `dtype` what the
    device computes in under autocast, None for float32.
    """

    name: str
    device: torch.device

    @property
    def dtype(self) -> torch.dtype | None:
        if self.name == "fp8":
            return torch.bfloat16 if self.device.type == "cuda" else None
        return DTYPES[self.name]

    def autocast(self) -> contextlib.AbstractContextManager:
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.dtype)

    def scaler(self) -> torch.amp.GradScaler:
        """Scales the loss so that small gradients survive in fp16; does nothing in the other formats."""
        return torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")


def choose_precision(wanted: str, device: torch.device) -> Precision:
    """`trainer.precision` on this device: bf16 becomes fp32 where the device has no fast bf16.

    Raises:
        ValueError: fp16 without a GPU, or fp8 on one that has none. A CPU has, slowly.
    """
    if wanted == "fp8":
        check_fp8(device)
    if wanted == "bf16" and not (
        device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    ):
        logger.info("bf16 is not fast on this device: training in fp32")
        return Precision("fp32", device)
    if wanted == "fp16" and device.type != "cuda":
        raise ValueError("trainer.precision fp16 needs a GPU; use fp32")
    return Precision(wanted, device)


def build_engine(
    name: Literal["ddp", "fsdp"],
    model: TVTSv2,
    context: DistContext,
    precision: Precision,
    compiled: bool | None = None,
    *,
    blocks_per_unit: int = 4,
    reshard_after_forward: bool = False,
    **options: Any,
) -> "Engine":
    """Spread `model` over the ranks, in place. Build the optimiser afterwards, on the engine's `model`.

    Args:
        name: "ddp", a copy of the model on each rank, or "fsdp", a slice on each.
        model: a TVTSv2 on the CPU or the device, with the same weights on every rank.
        compiled: whether to torch.compile it, with `options`; None: on a GPU.
        blocks_per_unit: of FSDP, how many blocks gather their weights in one message.
        reshard_after_forward: of FSDP, whether a block drops the gathered weights between its forward and its
            backward, and gathers them anew: less memory, more messages.
    """
    engine: Engine
    if precision.name == "fp8":
        train_in_fp8(model)
    if name == "fsdp":
        engine = FullyShardedDataParallel(model, context, precision, blocks_per_unit, reshard_after_forward)
    else:
        engine = DataParallel(model, context)
    if context.device.type == "cuda" if compiled is None else compiled:
        # It would split graphs, for DDP to send gradients in between; our regions are small enough.
        torch._dynamo.config.optimize_ddp = False
        if engine.sharded:
            options["blocks_a_region"] = 1  # FSDP's hooks run before and after single blocks
        engine.model.compile_towers(**options)
    return engine


class DataParallel:
    """A copy of the model on every rank, whose gradients DDP averages; on one process the model itself."""

    sharded = False

    def __init__(self, model: TVTSv2, context: DistContext):
        self.model = model.to(context.device)
        self.wrapped: TVTSv2 | DistributedDataParallel = self.model
        if context.world_size > 1:
            constant: dict[str, Any] = {BUFFERS: False}
            self.wrapped = DistributedDataParallel(
                self.model,
                device_ids=[context.device] if context.device.type == "cuda" else None,
                # WebVid batches never reach the sort head: which parameters get a gradient differs by step.
                find_unused_parameters=True,
                gradient_as_bucket_view=True,
                **constant,
            )

    def __call__(self, batch: Mapping[str, Any]) -> ModelOutput:
        """The forward pass of a training step: a backward has to follow."""
        return self.wrapped(batch)

    def synchronising(self, on: bool) -> contextlib.AbstractContextManager:
        """Whether the backwards within exchange gradients, or only add them up on each rank."""
        if on or not isinstance(self.wrapped, DistributedDataParallel):
            return contextlib.nullcontext()
        return self.wrapped.no_sync()

    def whole(self) -> contextlib.AbstractContextManager:
        """Within, a rank may call `model` on its own, whether or not the others do."""
        return contextlib.nullcontext()


class FullyShardedDataParallel:
    """A slice of every parameter, gradient and optimiser state on each rank (FSDP2).

    A few blocks at a time, a unit, gather their weights just before they run, in the precision of the
    arithmetic, and drop them after their backward, if not before; gradients are averaged in float32. Each
    unit costs the host time: with one a block, H/14 keeps an H200 waiting for a third of the step.
    `load_state_dict` of the model takes whole tensors, as files hold them.

    Args:
        blocks_per_unit, reshard_after_forward: see `build_engine`.
    """

    sharded = True

    def __init__(
        self,
        model: TVTSv2,
        context: DistContext,
        precision: Precision,
        blocks_per_unit: int,
        reshard_after_forward: bool,
    ):
        if not dist.is_initialized():  # one process without torchrun
            backend = "nccl" if context.device.type == "cuda" else "gloo"
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
        # It warns that outputs which are views, as the video embeddings are, must not be changed in place.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module")
        mesh = init_device_mesh(context.device.type, (context.world_size,))
        # As with DDP, autocast decides what is computed in which format: inputs are not cast, and what is
        # outside the blocks (embeddings, first and last norm, projections) is gathered in float32.
        in_float32 = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
        in_blocks = MixedPrecisionPolicy(
            param_dtype=precision.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        self.reshard_after_forward = reshard_after_forward
        for stack in model.stacks:
            blocks = list(stack)
            for start in range(0, len(blocks), blocks_per_unit):
                # Units move from the CPU one by one: the model need not fit into one GPU.
                fully_shard(
                    blocks[start : start + blocks_per_unit],
                    mesh=mesh,
                    mp_policy=in_blocks,
                    reshard_after_forward=reshard_after_forward,
                )
        self.root = fully_shard(model, mesh=mesh, mp_policy=in_float32)  # the same object, as FSDP's type
        self.model = model
        self.model.register_load_state_dict_pre_hook(_slice_whole_tensors)

    def __call__(self, batch: Mapping[str, Any]) -> ModelOutput:
        """The forward pass of a training step: a backward has to follow."""
        return self.model(batch)

    @contextlib.contextmanager
    def synchronising(self, on: bool) -> Iterator[None]:
        """Whether the backwards within exchange gradients, or only add them up, whole, on each rank."""
        self.root.set_requires_gradient_sync(on)
        self.root.set_is_last_backward(on)
        try:
            yield
        finally:
            self.root.set_requires_gradient_sync(True)
            self.root.set_is_last_backward(True)

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Within, a rank may call `model` on its own, whether or not the others do.

        The weights stay gathered meanwhile, so that ranks may differ in how often they call the model.
        """
        units = [module for module in self.model.modules() if isinstance(module, FSDPModule)]
        for unit in units:
            unit.unshard()
            unit.set_reshard_after_forward(False, recurse=False)
        try:
            yield
        finally:
            for unit in units:
                unit.set_reshard_after_forward(
                    self.reshard_after_forward and unit is not self.root, recurse=False
                )
                unit.reshard()


Engine = DataParallel | FullyShardedDataParallel


def slice_like(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This rank's slice of a whole tensor that all ranks hold, on the device and in the layout of `like`."""
    if not isinstance(like, DTensor) or isinstance(whole, DTensor) or whole.shape != like.shape:
        return whole
    whole = whole.to(like.device)
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)


def _slice_whole_tensors(model: nn.Module, state_dict: dict[str, torch.Tensor], *_: Any) -> None:
    """For load_state_dict of a sharded model: whole tensors, as files hold them, become slices."""
    for name, parameter in model.named_parameters():
        if name in state_dict:
            state_dict[name] = slice_like(state_dict[name], parameter)
