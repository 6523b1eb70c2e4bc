"""Probes of the frozen video tower on labelled videos: what its features say of classes new to it.

python downstream/probe.py --probe knn --dataset hmdb51 --arch TVTSv2_B_16
python downstream/probe.py --probe attentive --folder my_videos --set probe.epochs=10
"""

import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # to run as a file from anywhere
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from downstream import linear_probe
from downstream.commands import run_command
from downstream.options import evaluation_parser
from downstream.probes import attentive, few_shot, knn

PROBES = {
    "linear": linear_probe.PROTOCOL,
    "knn": knn.PROTOCOL,
    "few-shot": few_shot.PROTOCOL,
    "attentive": attentive.PROTOCOL,
}


def main(argv: Sequence[str] | None = None) -> int:
    parser = evaluation_parser("python downstream/probe.py", __doc__, linear_probe.DATASETS)
    parser.add_argument(
        "--probe",
        choices=PROBES,
        required=True,
        help="linear: logistic regression; knn: votes of the nearest training videos, as DINOv2; few-shot: a "
        "few training videos a class, drawn several times; attentive: an attention layer over all tokens, as "
        "V-JEPA 2",
    )
    args = parser.parse_args(argv)
    linear_probe.refuse_without_labels(parser, args)
    return run_command(args, [PROBES[args.probe]])


if __name__ == "__main__":
    sys.exit(main())
