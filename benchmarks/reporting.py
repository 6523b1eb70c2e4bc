"""What the benchmarks of steps report: figures of each runner, their ratio, and where the GPU's time goes."""

import argparse
from collections.abc import Callable, Sequence
from typing import Any

import torch

from benchmarks import common
from benchmarks.timing import Runner, dtype_of, full_float32, kernel_times, matrix_rate, measure

LONGEST_KERNELS = 30


def against_reference(
    title: str, args: argparse.Namespace, build: Callable[[argparse.Namespace, str, str, bool], Runner]
) -> int:
    """Time ours, and unless `args.no_reference` plain eager PyTorch with it. Returns the exit status.

    build: of the arguments, a name, an attention backend and whether to compile, makes a runner.
    """
    compiled = not args.no_compile and args.device != "cpu"
    builders = {"ours": lambda: build(args, "ours", "auto", compiled)}
    if not args.no_reference:
        builders["plain eager"] = lambda: build(args, "plain eager", "sdpa", False)
    with full_float32():
        runners, failed = measure(builders, torch.device(args.device), args.rounds, args.steps)
        report(title, args, runners, failed)
    return 0 if runners else 1


def report(title: str, args: argparse.Namespace, runners: Sequence[Runner], failed: dict[str, str]) -> None:
    """Print the figures, and write them to `args.json` if it is given.

    failed: name -> reason, of what could not be run.
    """
    device = torch.device(args.device)
    on_gpu = device.type == "cuda"
    rate = matrix_rate(device, dtype_of(args.precision)) if on_gpu else None
    rows = [runner.row(device, rate) for runner in runners]
    metadata: dict[str, Any] = {"arguments": vars(args), "failed": failed, "matrix_tflops": rate}
    tables = {f"{args.arch}, batch {args.batch_size}, {args.precision}": rows}
    if args.profile and on_gpu and runners:
        kinds, kernels = kernel_times(runners[0].step)
        total = sum(kinds.values())
        tables["where the GPU's time goes"] = [
            {"name": kind, "ms": ms, "share": ms / total}
            for kind, ms in sorted(kinds.items(), key=lambda pair: -pair[1])
        ]
        tables["longest kernels"] = [
            {"name": name[:80], "ms": ms, "calls": calls} for name, ms, calls in kernels[:LONGEST_KERNELS]
        ]
    if len(rows) > 1:
        metadata["ratio"] = round(rows[0]["clips_per_s"] / rows[1]["clips_per_s"], 3)
    common.report(title, tables, args.json, **metadata)
    if rate:
        print(f"an 8192×8192 matrix product runs at {rate:.0f} TFLOP/s here")
    for name, reason in failed.items():
        print(f"{name}: {reason}")
    if "ratio" in metadata:
        print(f"{rows[0]['name']} is {metadata['ratio']:.2f} times as fast as {rows[1]['name']}")
