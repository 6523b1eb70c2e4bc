"""Timing of whole steps on random data: alternating rounds, medians, peak memory, where the time goes."""

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from tqdm import tqdm

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}

# Kinds of kernels, by what their names hold; the first that fits counts.
KINDS = {
    "LayerNorm": ("_add_norm", "layer_norm", "layernorm"),
    "elementwise": ("triton_", "elementwise", "_activation"),
    "matrix products": ("gemm", "nvjet", "cutlass", "cublas", "_mm", "xmma"),
    "attention": ("flash", "fmha", "attention", "class_token", "cudnn"),
    "optimiser": ("multi_tensor", "adam"),
    "reductions": ("reduce",),
    "copies": ("memcpy", "memset", "copy"),
}


@dataclass
class Runner:
    """One way to do the step, and what was measured of it."""

    name: str
    step: Callable[[], object]
    clips: int  # that a step handles
    flops_per_clip: int
    seconds: list[float] = field(default_factory=list)  # a step, one number a round
    peak_bytes: int = 0
    start_seconds: float = 0.0  # the first steps, with what they compile

    def row(self, device: torch.device, measured_tflops: float | None) -> dict[str, Any]:
        """What the benchmark reports, as plain JSON values."""
        median = statistics.median(self.seconds)
        tflops = self.clips / median * self.flops_per_clip / 1e12
        return {
            "name": self.name,
            "clips_per_s": round(self.clips / median, 2),
            "ms_per_step": round(1e3 * median, 3),
            "spread": round((max(self.seconds) - min(self.seconds)) / median, 4),
            "model_tflops": round(tflops, 3),
            "share_of_matrix_rate": round(tflops / measured_tflops, 4) if measured_tflops else None,
            "peak_gib": round(self.peak_bytes / 2**30, 2) if device.type == "cuda" else None,
            "first_steps_s": round(self.start_seconds, 1),
        }


def measure(
    builders: dict[str, Callable[[], Runner]], device: torch.device, rounds: int, steps: int
) -> tuple[list[Runner], dict[str, str]]:
    """Build the runners one after the other, then time them in alternating rounds.

    Peak memory is of the first steps, above what earlier runners hold.

    Returns:
        The runners with their times, and name -> reason for those that did not fit into memory.
    """
    runners, failed = [], {}
    with tqdm(total=len(builders) * (1 + rounds), unit="round", leave=False) as bar:
        for name, build in builders.items():
            bar.set_description(f"{name}, first steps")
            try:
                runners.append(_start(build, device))
            except torch.OutOfMemoryError as error:
                failed[name] = str(error).split(". ")[0]
            bar.update()
        for _ in range(rounds):
            for runner in runners:
                bar.set_description(f"{runner.name}, {steps} steps")
                runner.step()  # the other's memory goes back to the allocator before the clock starts
                _synchronize(device)
                start = time.perf_counter()
                for _ in range(steps):
                    runner.step()
                _synchronize(device)
                runner.seconds.append((time.perf_counter() - start) / steps)
                bar.update()
    return runners, failed


def _start(build: Callable[[], Runner], device: torch.device) -> Runner:
    """A runner after its first steps. One that does not fit into memory leaves nothing there for the next."""
    before = _allocated(device)
    runner = build()
    start = time.perf_counter()
    for _ in range(3):
        runner.step()
    _synchronize(device)
    runner.start_seconds = time.perf_counter() - start
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for _ in range(2):
        runner.step()
    _synchronize(device)
    runner.peak_bytes = _peak(device) - before
    return runner


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int = 8192, repeats: int = 10) -> float:
    """TFLOP/s of a large matrix product on random data: what the card gives at best."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    for _ in range(3):
        a @ b
    _synchronize(device)
    start = time.perf_counter()
    for _ in range(repeats):
        a @ b
    _synchronize(device)
    return 2 * size**3 * repeats / (time.perf_counter() - start) / 1e12


def kernel_times(step: Callable[[], object], steps: int = 3) -> tuple[dict[str, float], list[tuple]]:
    """GPU milliseconds a step by kind of kernel, and (name, milliseconds, calls a step), longest first."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        for _ in range(steps):
            step()
        torch.cuda.synchronize()
    kinds: dict[str, float] = defaultdict(float)
    kernels = []
    for event in profile.key_averages():
        ms = event.self_device_time_total / steps / 1e3
        if not ms:
            continue
        name = event.key.lower()
        kind = next((k for k, parts in KINDS.items() if any(part in name for part in parts)), "elementwise")
        kinds[kind] += ms
        kernels.append((event.key, ms, event.count / steps))
    return dict(kinds), sorted(kernels, key=lambda row: -row[1])


def dtype_of(precision: str) -> torch.dtype:
    """What autocast computes in; of fp8, what is left to it."""
    return DTYPES.get(precision, torch.bfloat16)


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype_of(precision))


@contextmanager
def full_float32() -> Iterator[None]:
    """Float32 without TF32, as evaluation computes."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def add_common_arguments(
    parser: argparse.ArgumentParser, batch_size: int, precisions: Sequence[str] = tuple(DTYPES)
) -> None:
    group = parser.add_argument_group("how it is timed")
    group.add_argument("--batch-size", type=int, default=batch_size, help="clips a step")
    group.add_argument("--frames", type=int, default=None, help="frames a clip (default: the variant's)")
    group.add_argument("--precision", choices=precisions, default="bf16", help="of the arithmetic")
    group.add_argument("--rounds", type=int, default=5, help="alternating rounds")
    group.add_argument("--steps", type=int, default=10, help="steps a round")
    group.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cuda or cpu")
    group.add_argument("--no-reference", action="store_true", help="time ours alone")
    group.add_argument(
        "--no-compile", action="store_true", help="ours without torch.compile (always so on a CPU)"
    )
    group.add_argument("--profile", action="store_true", help="also say where the GPU's time goes (ours)")
    group.add_argument("--json", metavar="FILE", help="write the figures to a file, too")


def add_recomputation(parser: argparse.ArgumentParser) -> None:
    def number_or_mlp(text: str) -> int | str:
        return text if text == "mlp" else int(text)

    parser.add_argument(
        "--activation-checkpointing",
        type=number_or_mlp,
        default=0,
        metavar="K|mlp",
        help="recompute every k-th block, or the activations in all MLPs (mlp), 0 for none",
    )


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _allocated(device: torch.device) -> int:
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else 0


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
