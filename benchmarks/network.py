"""What the GPUs of a training send each other in a step, how long that takes, and what limits: on paper.

    python benchmarks/network.py --arch TVTSv2_B_16 --gpus 80
    python benchmarks/network.py --arch TVTSv2_H_14 --engine fsdp --gpus 80
    torchrun --nproc_per_node 2 benchmarks/network.py --measure

On paper: rings, as NCCL makes them, in which each GPU sends (and receives) 2(W-1)/W of what W GPUs sum up,
and (W-1)/W of what they gather or scatter; a ring leaves and enters each host once, whatever GPUs it has. No
time to begin a message is counted. DDP's gradients may travel while the backward computes, two thirds of a
step, and FSDP's weights during the forward before it: "hidden" counts what is longer of the two, "not hidden"
their sum. The loss's embeddings hide behind nothing. The step alone is measured: see `model.plan`, `--rate`.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, get_args

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run as a file from anywhere

import torch
import torch.distributed as dist
from torch._subclasses.fake_tensor import FakeTensorMode

from benchmarks import common
from model import VARIANTS, TVTSv2, create_model
from model.loss import Gather, contrastive_loss
from model.plan import RATES
from utils.commands import CommandParser
from utils.errors import user_errors
from utils.processes import DistContext, leaving_group, setup

FORWARD = 1 / 3  # of a step's arithmetic; the backward is twice that
ALL_REDUCE = "all-reduce"


class Message(NamedTuple):
    """What all ranks send each other in a step. payload: bytes of the whole sum, or of all parts together.

    hides_behind: the share of the step's arithmetic during which it may travel.
    """

    name: str
    kind: str
    payload: int
    hides_behind: float

    def bytes_sent(self, gpus: int) -> float:
        """By each GPU, in a ring."""
        return (2 if self.kind == ALL_REDUCE else 1) * (gpus - 1) / gpus * self.payload


def messages(model: TVTSv2, engine: str, gather: str, batch: int, gpus: int) -> list[Message]:
    """Those of a step of `batch` clips a GPU in bf16; some of a few bytes are left out (norms, losses)."""
    in_blocks = {id(p) for stack in model.stacks for p in stack.parameters()}
    blocks, others, trained = 0, 0, 0
    for parameter in model.parameters():
        blocks += parameter.numel() * (id(parameter) in in_blocks)
        others += parameter.numel() * (id(parameter) not in in_blocks)
        trained += parameter.numel() * parameter.requires_grad
    embeddings = 4 * 2 * model.variant.embed_dim * batch * gpus
    found = [Message("embeddings of the loss", "all-gather", embeddings, 0)]
    if gather != "official":
        found.append(Message("their gradients", "reduce-scatter", embeddings, 0))
    if engine == "ddp":
        return [Message("gradients", ALL_REDUCE, 4 * trained, 1 - FORWARD), *found]
    return [
        Message("weights", "all-gather", 2 * blocks + 4 * others, FORWARD),
        Message("gradients", "reduce-scatter", 4 * trained, 1 - FORWARD),
        *found,
    ]


def step_seconds(found: Sequence[Message], gpus: int, arithmetic: float, rate: float) -> tuple[float, float]:
    """A step of so much arithmetic where messages travel at `rate` bytes a second, hidden and not."""
    hidden, left = 0.0, 1.0
    for message in found:
        travels = message.bytes_sent(gpus) / rate
        hidden += max(travels, message.hides_behind * arithmetic)
        left -= message.hides_behind
    return hidden + left * arithmetic, arithmetic + sum(m.bytes_sent(gpus) for m in found) / rate


def on_paper(args: argparse.Namespace) -> dict[str, list[dict[str, Any]]]:
    """The tables. Raises ValueError where no rate is known."""
    with FakeTensorMode():
        model = create_model(args.arch)
    known = RATES[args.card].get(args.arch)
    batch = args.batch_size or (known.batch if known else None)
    rate_alone = args.rate or (known.rate if known else None)
    if batch is None or rate_alone is None:
        raise ValueError(
            f"the rate of {args.arch} was not measured on an {args.card}: give --batch-size and --rate"
        )
    arithmetic = batch / rate_alone
    found = messages(model, args.engine, args.gather, batch, args.gpus)
    links = {"NVLink": args.nvlink * 1e9}
    if args.gpus > args.per_host:
        network = args.network / 8 * 1e9
        links = {
            f"{args.network:g} Gb/s a host": network,
            f"{args.network:g} Gb/s a GPU": min(network * args.per_host, args.nvlink * 1e9),
            "all by NVLink": args.nvlink * 1e9,
        }
    sent = [
        {
            "name": f"{message.name} ({message.kind})",
            "GB a GPU": message.bytes_sent(args.gpus) / 1e9,
            **{f"ms, {link}": 1e3 * message.bytes_sent(args.gpus) / rate for link, rate in links.items()},
        }
        for message in found
    ]
    steps = []
    for link, rate in links.items():
        hidden, behind = step_seconds(found, args.gpus, arithmetic, rate)
        steps.append(
            {
                "name": link,
                "arithmetic, ms": 1e3 * arithmetic,
                "hidden, ms": 1e3 * hidden,
                "not hidden, ms": 1e3 * behind,
                "efficiency, hidden": f"{arithmetic / hidden:.1%}",
                "not hidden": f"{arithmetic / behind:.1%}",
                "limit": "arithmetic" if hidden < 1.05 * arithmetic else "network",
            }
        )
    return {f"sent in a step, {args.gpus} GPUs, batch {batch} each": sent, "a step": steps}


def seconds(call: Callable[[], Any], context: DistContext, rounds: int = 20) -> float:
    """The median time of a call that all ranks make."""
    taken = []
    for _ in range(rounds + 3):
        if context.device.type == "cuda":
            torch.cuda.synchronize()
        context.barrier()
        begin = time.perf_counter()
        call()
        if context.device.type == "cuda":
            torch.cuda.synchronize()
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken[3:])


def measured(args: argparse.Namespace, context: DistContext) -> dict[str, list[dict[str, Any]]]:
    """All-reduces, whose rate is that of a ring, and the loss over all ranks, forward and backward."""
    W, device = context.world_size, context.device
    rates = []
    for size in (2**20, 2**24, args.largest):
        payload = torch.ones(size // 4, device=device)
        taken = seconds(partial(dist.all_reduce, payload), context)
        rates.append(
            {
                "name": f"{size / 2**20:g} MiB",
                "ms": 1e3 * taken,
                "GB/s of a ring": 2 * (W - 1) / W * size / taken / 1e9,
            }
        )
    batch, width = args.batch_size or 64, VARIANTS[args.arch].embed_dim
    video, text = (torch.randn(batch, width, device=device, requires_grad=True) for _ in range(2))

    def loss(mode: Gather) -> None:
        contrastive_loss(video, text, 0.05, mode).backward()

    rows = [{"name": mode, "ms": 1e3 * seconds(partial(loss, mode), context)} for mode in get_args(Gather)]
    return {f"all-reduce, {W} processes": rates, f"the loss of {W} times {batch} clips": rows}


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser("python benchmarks/network.py", __doc__)
    add = parser.add_argument
    add("--arch", choices=VARIANTS, default="TVTSv2_B_16", help="the model")
    add("--engine", choices=("ddp", "fsdp"), default="ddp", help="how processes share the weights")
    add("--gather", choices=get_args(Gather), default="official", help="how the loss gathers embeddings")
    add("--batch-size", type=int, help="clips a GPU (default: that of the measured rate)")
    add("--json", metavar="FILE", help="write the figures to a file, too")
    add = parser.add_argument_group("on paper").add_argument
    add("--gpus", type=int, default=80, help="in all")
    add("--per-host", type=int, default=8, help="GPUs of a host")
    add("--card", choices=RATES, default="H100", help="whose measured rate to take")
    add("--rate", type=float, help="clips a second that you measured on one GPU")
    add("--nvlink", type=float, default=330, help="GB/s of a ring within a host")
    add("--network", type=float, default=400, help="Gb/s of a network card")
    add = parser.add_argument_group("measured").add_argument
    add("--measure", action="store_true", help="all-reduces and the loss on this machine's GPUs, by torchrun")
    add("--largest", type=int, default=2**30, help="bytes of the largest all-reduce")
    add("--device", help="cuda or cpu (default: a GPU where there is one)")
    args = parser.parse_args(argv)
    title = f"messages of a training, {args.arch}, {args.engine}, {args.gather}"
    with user_errors():
        if min(args.gpus, args.per_host, args.nvlink, args.network) <= 0 or (args.rate or 1) <= 0:
            raise ValueError("numbers of GPUs and rates must be more than 0")
        if not args.measure:
            common.report(title, on_paper(args), args.json, arguments=vars(args))
            return 0
        context = setup(args.device)
        if context.world_size == 1:
            raise ValueError("--measure is for several processes: torchrun --nproc_per_node 2 ...")
        with leaving_group():
            tables = measured(args, context)
        if context.is_main:
            common.report(title, tables, args.json, arguments=vars(args))
    return 0


if __name__ == "__main__":
    sys.exit(main())
