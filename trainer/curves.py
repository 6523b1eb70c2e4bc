"""Draw a run's metrics.jsonl as a picture: losses, retrieval and ordering accuracy.

python -m trainer.curves results/demo
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no screen needed
from matplotlib import pyplot as plt

from utils.commands import CommandParser
from utils.errors import one_line_interrupts, user_errors

Rows = Sequence[Mapping[str, Any]]


def draw_curves(run_dir: Path, output: Path | None = None) -> Path:
    """Losses, retrieval and ordering accuracy against the step, into `output` (default: run_dir/curves.png).

    Raises:
        FileNotFoundError: the run has no metrics.jsonl.
    """
    source = run_dir / "metrics.jsonl"
    if not source.is_file():
        raise FileNotFoundError(f"no {source}: is {run_dir} the folder of a training run?")
    rows = [json.loads(line) for line in source.read_text().splitlines()]
    steps = [row for row in rows if row["kind"] == "step"]
    checks = [row for row in rows if row["kind"] == "validation"]
    figure, (losses, retrieval, order) = plt.subplots(1, 3, figsize=(13, 3.6), layout="constrained")
    for name in dict.fromkeys(row["set"] for row in steps):
        mine = [row for row in steps if row["set"] == name]
        _plot_smooth(losses, mine, "contrastive", f"contrastive, {name}")
        if "sorting" in mine[0]:
            _plot_smooth(losses, mine, "sorting", f"sorting, {name}")
    for key in _keys(checks, "_t2v_R1"):
        _plot(retrieval, checks, key, key.removesuffix("_t2v_R1"))
    for key in _keys(checks, "_order_accuracy"):
        _plot(order, checks, key, key.removesuffix("_order_accuracy"))
    _label(losses, "training loss", "loss")
    _label(retrieval, "validation, text to video", "R@1 (%)")
    _label(order, "validation, transcripts in order", "wholly right (%)")
    output = output or run_dir / "curves.png"
    figure.savefig(output, dpi=110)
    plt.close(figure)
    return output


def _keys(rows: Rows, ending: str) -> list[str]:
    return sorted({key for row in rows for key in row if key.endswith(ending)})


def _plot(axes: Any, rows: Rows, key: str, label: str) -> None:
    shown = [row for row in rows if key in row]
    axes.plot([row["step"] for row in shown], [row[key] for row in shown], marker="o", label=label)


def _plot_smooth(axes: Any, rows: Rows, key: str, label: str, span: int = 20) -> None:
    """Means of up to `span` steps each: single steps are too noisy to read."""
    parts = [rows[i : i + span] for i in range(0, len(rows), span)]
    means = [sum(row[key] for row in part) / len(part) for part in parts]
    axes.plot([part[-1]["step"] for part in parts], means, label=label)


def _label(axes: Any, title: str, unit: str) -> None:
    axes.set(title=title, xlabel="step", ylabel=unit)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    if axes.lines:
        axes.legend(fontsize="small")


@one_line_interrupts()
def main(argv: Sequence[str] | None = None) -> int:
    parser = CommandParser("python -m trainer.curves", __doc__)
    parser.add_argument("run_dir", type=Path, help="folder of a training run, with its metrics.jsonl")
    parser.add_argument("--output", type=Path, help="picture to write (default: RUN_DIR/curves.png)")
    args = parser.parse_args(argv)
    with user_errors():
        print(draw_curves(args.run_dir, args.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
