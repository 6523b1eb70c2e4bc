"""Evaluate a trained model, on the data set and task that a config names, or on all there are.

python test.py --config downstream/configs/msrvtt.json --arch TVTSv2_B_16 --checkpoint TVTSv2_ViT_B_16.pth
python test.py --all --arch TVTSv2_B_16
"""

import sys
from argparse import Namespace
from collections.abc import Sequence

from downstream import multiple_choice, recognition, retrieval
from downstream.commands import run_all, run_command
from downstream.options import chosen_models, evaluation_parser

PROTOCOLS = (retrieval.PROTOCOL, recognition.PROTOCOL, multiple_choice.PROTOCOL)
ALL = ("msrvtt", "didemo", "lsmdc", "hmdb51", "ucf101", "k400", "ssv2_mc")
ALL_OF_DEMO = ("demo_msrvtt", "demo_hmdb51", "demo_ssv2")  # for the demo's own model


def parse(argv: Sequence[str] | None) -> Namespace:
    parser = evaluation_parser(
        "Zero-shot retrieval, recognition or multiple choice, whichever the config asks for.",
        "examples:\n"
        "  python test.py --config downstream/configs/msrvtt.json --arch TVTSv2_B_16\n"
        "  python test.py --folder my_videos --arch TVTSv2_B_16\n"
        "  python test.py --all --arch TVTSv2_H_14\n"
        "  python test.py --dataset msrvtt --model TVTSv2_B_16 "
        "--model open_clip:ViT-B-16:CLIP/models/ViT-B-16.pt\n"
        "  torchrun --nproc_per_node 8 test.py --dataset k400 --arch TVTSv2_H_14 --precision bf16",
    )
    parser.add_argument(
        "--all",
        action="store_true",
        help=f"every data set that is there of {', '.join(ALL)} (or of the demo's, with "
        "its model); prints the paper's tables with ours beside",
    )
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    names = ALL_OF_DEMO if any(model.arch == "TVTSv2_Demo" for model in chosen_models(args)) else ALL
    return run_all(args, names, PROTOCOLS) if args.all else run_command(args, PROTOCOLS)


if __name__ == "__main__":
    sys.exit(main())
