"""How the model is spread over the ranks: a copy on each (DDP), or a slice on each (FSDP2)."""

import contextlib
import inspect
import warnings
from collections.abc import Iterator
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from model import ModelOutput, TVTSv2
from trainer.precision import Precision
from utils.processes import DistContext

# Whether DDP sends the buffers around before each forward; PyTorch 2.14 has renamed it.
_ARGUMENTS = inspect.signature(nn.parallel.DistributedDataParallel).parameters
BUFFERS = "forward_sync_buffers" if "forward_sync_buffers" in _ARGUMENTS else "broadcast_buffers"


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
) -> "DataParallel | FullyShardedDataParallel":
    """Spread `model` over the ranks, in place. Build the optimiser afterwards, on the engine's `model`.

    Args:
        name: "ddp", a copy of the model on each rank, or "fsdp", a slice on each.
        model: a TVTSv2 on the CPU or the device, with the same weights on every rank.
        compiled: whether to torch.compile it, with `options`; None: on a GPU.
        blocks_per_unit: of FSDP, how many blocks gather their weights in one message.
        reshard_after_forward: of FSDP, whether a block drops the gathered weights between its forward and its
            backward, and gathers them anew: less memory, more messages.
    """
    engine: DataParallel | FullyShardedDataParallel
    if name == "fsdp":
        engine = FullyShardedDataParallel(model, context, precision, blocks_per_unit, reshard_after_forward)
    else:
        engine = DataParallel(model, context)
    if context.device.type == "cuda" if compiled is None else compiled:
        # It would cut graphs into pieces to overlap them with DDP's messages; ours are as small as that.
        torch._dynamo.config.optimize_ddp = False
        if engine.sharded:
            options["blocks_a_region"] = 1  # FSDP's hooks stand around single blocks
        engine.model.compile_towers(**options)
    return engine


class DataParallel:
    """A copy of the model on every rank, whose gradients DDP averages; on one process the model itself."""

    sharded = False

    def __init__(self, model: TVTSv2, context: DistContext):
        self.model = model.to(context.device)
        self.wrapped: nn.Module = self.model
        if context.world_size > 1:
            self.wrapped = nn.parallel.DistributedDataParallel(
                self.model,
                device_ids=[context.device] if context.device.type == "cuda" else None,
                # WebVid batches never reach the sort head: which parameters get a gradient differs by step.
                find_unused_parameters=True,
                gradient_as_bucket_view=True,
                **{BUFFERS: False},  # they are constants
            )

    def __call__(self, batch: dict[str, Any]) -> ModelOutput:
        """A forward that a backward is to follow."""
        return self.wrapped(batch)

    def synchronising(self, on: bool) -> contextlib.AbstractContextManager:
        """Whether the backwards within exchange gradients, or only add them up on each rank."""
        if on or self.wrapped is self.model:
            return contextlib.nullcontext()
        return self.wrapped.no_sync()

    def whole(self) -> contextlib.AbstractContextManager:
        """Within, every rank may use `model` by itself, without the others doing the same."""
        return contextlib.nullcontext()


class FullyShardedDataParallel:
    """A slice of every parameter, gradient and optimiser state on each rank (FSDP2).

    A few blocks at a time, a unit, gather their weights just before they run, in the precision of the
    arithmetic, and drop them after their backward, if not before; gradients are averaged in float32. Each
    unit costs the host time: with one a block, H/14 keeps an H200 waiting for a third of the step.
    `load_state_dict` of the model takes whole tensors as ever.

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
        # The video embeddings are a view of the tokens; nothing changes either in place, as it warns against.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module")
        mesh = init_device_mesh(context.device.type, (context.world_size,))
        # Autocast says what is computed in which format, as it does for DDP: inputs are not cast, and what
        # stands outside the blocks (embeddings, first and last norm, projections) is gathered in float32.
        in_float32 = MixedPrecisionPolicy(reduce_dtype=torch.float32, cast_forward_inputs=False)
        in_blocks = MixedPrecisionPolicy(
            param_dtype=precision.dtype, reduce_dtype=torch.float32, cast_forward_inputs=False
        )
        self.reshard_after_forward = reshard_after_forward
        for blocks in map(list, model.stacks):
            for start in range(0, len(blocks), blocks_per_unit):
                # From the CPU unit by unit: the model need not fit into one GPU.
                fully_shard(
                    blocks[start : start + blocks_per_unit],
                    mesh=mesh,
                    mp_policy=in_blocks,
                    reshard_after_forward=reshard_after_forward,
                )
        self.model = fully_shard(model, mesh=mesh, mp_policy=in_float32)
        self.model.register_load_state_dict_pre_hook(_slice_whole_tensors)

    def __call__(self, batch: dict[str, Any]) -> ModelOutput:
        """A forward that a backward is to follow."""
        return self.model(batch)

    @contextlib.contextmanager
    def synchronising(self, on: bool) -> Iterator[None]:
        """Whether the backwards within exchange gradients, or only add them up, whole, on each rank."""
        self.model.set_requires_gradient_sync(on)
        self.model.set_is_last_backward(on)
        try:
            yield
        finally:
            self.model.set_requires_gradient_sync(True)
            self.model.set_is_last_backward(True)

    @contextlib.contextmanager
    def whole(self) -> Iterator[None]:
        """Within, every rank may use `model` by itself, without the others doing the same.

        The weights stay gathered meanwhile, so that ranks may differ in how often they call the model.
        """
        parts = [module for module in self.model.modules() if isinstance(module, FSDPModule)]
        for part in parts:
            part.unshard()
            part.set_reshard_after_forward(False, recurse=False)
        try:
            yield
        finally:
            for part in parts:
                part.set_reshard_after_forward(
                    self.reshard_after_forward and part is not self.model, recurse=False
                )
                part.reshard()


def slice_like(whole: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """This rank's part of a whole tensor, on the device and cut as `like` is; all ranks hold the same."""
    if not isinstance(like, DTensor) or isinstance(whole, DTensor) or whole.shape != like.shape:
        return whole
    whole = whole.to(like.device)
    return distribute_tensor(whole, like.device_mesh, like.placements, src_data_rank=None)


def _slice_whole_tensors(model: nn.Module, state_dict: dict[str, torch.Tensor], *_: Any) -> None:
    """For load_state_dict of a sharded model: whole tensors, as files hold them, become slices."""
    for name, parameter in model.named_parameters():
        if name in state_dict:
            state_dict[name] = slice_like(state_dict[name], parameter)
