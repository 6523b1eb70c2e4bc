"""How long a pre-training takes and what it needs, from measured rates."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measured:
    """Whole training steps in bf16 on one GPU: four texts of 77 tokens a clip, both losses, AdamW.

    rate: clips a second. batch: clips. memory: GiB at the peak.
    """

    rate: float
    batch: int
    memory: int | None
    source: str
    how: str = ""


H200 = "benchmarks/train_step.py on one NVIDIA H200, PyTorch 2.11, commit b5fec00"
H100 = "benchmarks/train_step.py on one NVIDIA H100 80GB, PyTorch 2.11, November 2026"
MLP = "arch.activation_checkpointing=mlp"
RATES = {
    "H200": {
        "TVTSv2_B_32": Measured(849, 64, 21, H200),
        "TVTSv2_B_16": Measured(470, 64, 36, H200),
        "TVTSv2_H_14": Measured(89, 32, 61, H200, MLP),
    },
    "H100": {
        "TVTSv2_B_32": Measured(780, 64, 21, H100),
        "TVTSv2_B_16": Measured(437, 64, 36, H100),
        "TVTSv2_H_14": Measured(85, 32, 61, H100, MLP),
    },
}
# Of N times one GPU: two H200s and four H100s of one host (benchmarks/scaling.py); more were not measured.
EFFICIENCY = {1: 1.0, 2: 0.96, 4: 0.957}

# What one core of an Intel Xeon loads, in clips a second (benchmarks/data_loading.py), and what a clip reads
# of a disk, in MB: its 12 frames of a prepared video, or a whole Kinetics video of 340×256.
CORE_RATE = {"prepared by scripts/prepare_videos.sh": 51, "340×256 as they are": 5.3}
CLIP_MEGABYTES = {"prepared by scripts/prepare_videos.sh": 0.12, "340×256 as they are": 1.35}


def plan(
    name: str,
    gpus: int,
    samples: float,
    epochs: float,
    card: str = "H200",
    rate: float | None = None,
    efficiency: float | None = None,
) -> str:
    """The plan as text.

    samples: clips of an epoch, over all GPUs. rate: clips a second on one GPU, for another card or another
    config than those measured. efficiency: the rate of all GPUs as a share of `gpus` times that of one.

    Raises ValueError: numbers out of their range, or nothing was measured for this model and card.
    """
    for what, number in (("gpus", gpus), ("samples", samples), ("epochs", epochs), ("rate", rate)):
        if number is not None and not 0 < number < float("inf"):
            raise ValueError(f"--{what} is {number:g}; it must be more than 0")
    if efficiency is not None and not 0 < efficiency <= 1:
        raise ValueError(f"--efficiency is {efficiency:g}; it must be more than 0 and at most 1")
    measured = RATES[card].get(name)
    if rate is not None:
        one, source = rate, "--rate"
    elif measured is not None:
        one, source = measured.rate, measured.source
    else:
        raise ValueError(f"the rate of {name} was not measured on an {card}: give yours with --rate")
    share = efficiency or EFFICIENCY.get(gpus) or EFFICIENCY[4 if gpus > 2 else 2]
    total = one * gpus * share
    hours = samples * epochs / total / 3600
    lines = [
        f"plan of {name}: {samples:,.0f} samples × {epochs:g} epochs on {gpus} GPUs",
        _line("clips a second, one GPU", f"{one:,.0f}"),
        _line("clips a second, all GPUs", f"{total:,.0f}", f"{share:.1%} of {gpus} times one"),
        _line("hours", f"{hours:,.1f}"),
        _line("GPU-hours", f"{hours * gpus:,.1f}"),
    ]
    if rate is None and measured:
        memory = f"at {measured.batch} clips a GPU{measured.how and ' with ' + measured.how}"
        lines.append(_line("GiB of memory, each GPU", f"{measured.memory}", memory))
    for kind, core_rate in CORE_RATE.items():
        lines += [
            f"loading videos {kind}",
            _line("cores in all, fully busy", f"{total / core_rate:,.0f}", f"{one / core_rate:,.0f} a GPU"),
            _line("MB a second from disks", f"{total * CLIP_MEGABYTES[kind]:,.0f}"),
        ]
    lines.append("sources")
    lines.append(f"  rate: {source}")
    if efficiency:
        lines.append("  efficiency: --efficiency")
    elif gpus in EFFICIENCY:
        lines.append(f"  efficiency: benchmarks/scaling.py, {gpus} GPUs of one host")
    else:
        lines.append(f"  efficiency: that of 2 to 4 GPUs of one host; {gpus} were not measured, a network")
        lines.append(
            "  between hosts may cost more: measure with benchmarks/scaling.py and give --efficiency"
        )
    lines.append("  loading: benchmarks/data_loading.py, videos of 10 s; yours may differ")
    return "\n".join(lines)


def _line(what: str, figure: str, note: str = "") -> str:
    return f"  {what:<28}{figure:>16}" + (f"  ({note})" if note else "")
