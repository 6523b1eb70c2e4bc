"""What a benchmark of steps prints and writes: a table, ratios, the machine, and JSON."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.timing import DTYPES, Runner, kernel_times, matrix_rate

COLUMNS = {
    "clips_per_s": "clips/s",
    "ms_per_step": "ms/step",
    "model_tflops": "TFLOP/s",
    "share_of_matrix_rate": "of matrix rate",
    "peak_gib": "peak GiB",
    "first_steps_s": "first steps, s",
}


def report(title: str, args: argparse.Namespace, runners: Sequence[Runner], failed: dict[str, str]) -> None:
    """Print the figures, and write them to `args.json` if it is given."""
    device = torch.device(args.device)
    on_gpu = device.type == "cuda"
    rate = matrix_rate(device, DTYPES[args.precision]) if on_gpu else None
    rows = [runner.row(device, rate) for runner in runners]
    card = torch.cuda.get_device_name(device) if on_gpu else "CPU"
    print(f"{title}, {args.arch}, batch {args.batch_size}, {args.precision}")
    print(f"{card}, PyTorch {torch.__version__}")
    if rate:
        print(f"an 8192×8192 matrix product runs at {rate:.0f} TFLOP/s here")
    print("".join(f"{head:>16}" for head in ["", *COLUMNS.values()]))
    for row in rows:
        print(f"{row['name']:>16}" + "".join(f"{_cell(row[key]):>16}" for key in COLUMNS))
    for name, reason in failed.items():
        print(f"{name:>16}  {reason}")
    result: dict[str, Any] = {
        "title": title, "card": card, "torch": torch.__version__, "matrix_tflops": rate,
        "arguments": vars(args), "rows": rows, "failed": failed,
    }  # fmt: skip
    if len(rows) > 1:
        result["ratio"] = round(rows[0]["clips_per_s"] / rows[1]["clips_per_s"], 3)
        print(f"{rows[0]['name']} is {result['ratio']:.2f} times as fast as {rows[1]['name']}")
    if args.profile and on_gpu:
        result["kernel_ms"], kernels = kernel_times(runners[0].step)
        total = sum(result["kernel_ms"].values())
        print(f"GPU time of a step, {total:.1f} ms:")
        for kind, ms in sorted(result["kernel_ms"].items(), key=lambda pair: -pair[1]):
            print(f"  {ms:8.2f} ms  {100 * ms / total:4.1f} %  {kind}")
        for name, ms, calls in kernels[:30]:
            print(f"    {ms:8.3f} ms  {calls:6.1f} ×  {name[:110]}")
    if args.json:
        Path(args.json).write_text(json.dumps(result, indent=1))


def _cell(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}" if value < 1000 else f"{value:,.0f}"
