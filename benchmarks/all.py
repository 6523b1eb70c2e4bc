"""Every figure of speed in docs/performance.md, one benchmark after the other.

Each runs in a process of its own, so that one that fails costs no other. What it prints and its figures go to
NAME.log and NAME.json below --output. The whole takes most of an hour on one GPU, more where reading is slow.

    python benchmarks/all.py
    python benchmarks/all.py --only eight       # what a host of eight GPUs is for
"""

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # to run as a file from anywhere

import torch

from utils.commands import CommandParser

HERE = Path(__file__).resolve().parent
RECOMPUTED = "--activation-checkpointing mlp"
HOSTS = {"two": 2, "four": 4, "eight": 8}  # by their GPUs

# Name -> a file of this folder with its arguments; behind torchrun:N where it is started in N processes.
BENCHMARKS = {
    "train-B_32": "train_step --arch TVTSv2_B_32 --batch-size 64 --profile",
    "train-B_32-256": "train_step --arch TVTSv2_B_32 --batch-size 256 --no-reference",
    "train-B_16": "train_step --arch TVTSv2_B_16 --batch-size 64 --profile",
    "train-B_16-mask-0": "train_step --arch TVTSv2_B_16 --batch-size 64 --no-reference --mask-ratio 0",
    "train-B_16-mask-0.7": "train_step --arch TVTSv2_B_16 --batch-size 64 --no-reference --mask-ratio 0.7",
    "train-H_14": "train_step --arch TVTSv2_H_14 --batch-size 32 --activation-checkpointing mlp "
    "--no-reference --profile",
    "train-H_14-2": "train_step --arch TVTSv2_H_14 --batch-size 2 --no-reference --rounds 2",
    "inference-B_32": "inference --arch TVTSv2_B_32 --profile",
    "inference-B_16": "inference --arch TVTSv2_B_16 --profile",
    "inference-H_14": "inference --arch TVTSv2_H_14 --profile --rounds 3",
    "loading": "data_loading --gpu-rate B/32=849 B/16=470 H/14=89 --workers 1 4 8 16",
    "end-to-end-B_16": "end_to_end --arch TVTSv2_B_16 --workers 8 --raw-steps 40",
    "end-to-end-H_14": "end_to_end --arch TVTSv2_H_14 --workers 4 --batch-size 32 --steps 60 --raw-steps 20 "
    "--warm-up 20 --set arch.activation_checkpointing=mlp",
    "fp8-train-B_16": "train_step --arch TVTSv2_B_16 --batch-size 64 --precision fp8 "
    "--no-reference --profile",
    "fp8-train-H_14": "train_step --arch TVTSv2_H_14 --batch-size 32 --precision fp8 "
    "--no-reference --profile",
    "fp8-inference-B_16": "inference --arch TVTSv2_B_16 --precision fp8 --no-reference",
    "fp8-inference-H_14": "inference --arch TVTSv2_H_14 --precision fp8 --no-reference --rounds 3",
    "precision-B_16": "precision --arch TVTSv2_B_16",
    "precision-H_14": "precision --arch TVTSv2_H_14",
    "checkpoints-H_14": "checkpoints --arch TVTSv2_H_14",
    "features-B_16": "feature_extraction --arch TVTSv2_B_16 --workers 16",
    "search": "search",
    **{
        f"{word}-{name}": f"scaling {line} --gpus {gpus}"
        for word, most in HOSTS.items()
        for name, line, gpus in (
            ("ddp-B_16", "--arch TVTSv2_B_16", f"1,{most}"),
            ("ddp-B_16-exact", "--arch TVTSv2_B_16 --gather exact", most),
            ("ddp-B_16-lean", "--arch TVTSv2_B_16 --gather lean", most),
            ("ddp-H_14", f"--arch TVTSv2_H_14 --batch-size 32 {RECOMPUTED}", f"1,{most}"),
            ("fsdp-H_14", f"--arch TVTSv2_H_14 --engine fsdp --batch-size 24 {RECOMPUTED}", f"1,{most}"),
        )
    },
    **{
        f"{word}-{name}": f"torchrun:{most} {line}"
        for word, most in HOSTS.items()
        for name, line in (
            ("messages", "network --measure"),
            ("checkpoints-fsdp-H_14", "checkpoints --arch TVTSv2_H_14 --engine fsdp"),
        )
    },
}


def gpus_of(name: str) -> int:
    """The number of GPUs that a benchmark needs."""
    first, *words = BENCHMARKS[name].split()
    gpus = words[words.index("--gpus") + 1] if "--gpus" in words else first.partition(":")[2] or "1"
    return max(map(int, gpus.split(",")))


def command_of(name: str) -> list[str]:
    """What runs a benchmark: its file and arguments behind Python, or behind torchrun:PROCESSES."""
    module, *arguments = BENCHMARKS[name].split()
    launcher = []
    if module.startswith("torchrun:"):
        processes = module.partition(":")[2]
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", processes]
        module, *arguments = arguments
    return [sys.executable, *launcher, str(HERE / f"{module}.py"), *arguments]


def run(name: str, output: Path) -> int:
    """Run one benchmark, showing and keeping what it prints. Returns its exit status."""
    command = [*command_of(name), "--json", str(output / f"{name}.json")]
    print(f"\n=== {name}: {BENCHMARKS[name]}", flush=True)
    with (
        (output / f"{name}.log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process,
    ):
        assert process.stdout is not None  # a pipe
        for line in process.stdout:
            print(line, end="", flush=True)
            log.write(line)
    return process.returncode


def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser("python benchmarks/all.py", __doc__)
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        help=f"how the names begin of those to run: {' '.join(BENCHMARKS)}",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=HERE.parent / "results/benchmarks",
        help="for logs and figures (default: results/benchmarks)",
    )
    args = parser.parse_args(argv)
    begins = tuple(args.only or [""])
    for word in begins:
        if not any(name.startswith(word) for name in BENCHMARKS):
            parser.error(f"no benchmark begins with {word!r}; there are {', '.join(BENCHMARKS)}")
    args.output.mkdir(parents=True, exist_ok=True)

    outcome = {}
    for name in (name for name in BENCHMARKS if name.startswith(begins)):
        if 1 < gpus_of(name) > torch.cuda.device_count():
            outcome[name] = f"left out: it needs {gpus_of(name)} GPUs"
            continue
        start = time.perf_counter()
        status = run(name, args.output)
        seconds = f"{time.perf_counter() - start:.0f} s"
        outcome[name] = seconds if status == 0 else f"failed ({status}) after {seconds}"
    print(f"\nlogs and figures: {args.output}")
    for name, what in outcome.items():
        print(f"{name:<{max(map(len, outcome))}}  {what}")
    return int(any(what.startswith("failed") for what in outcome.values()))


if __name__ == "__main__":
    sys.exit(main())
