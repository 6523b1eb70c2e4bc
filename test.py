"""Zero-shot retrieval, recognition or multiple choice, whichever a config asks for, or all there are.

    python test.py --dataset msrvtt --arch TVTSv2_B_16 --checkpoint TVTSv2_ViT_B_16.pth
    python test.py --config downstream/configs/msrvtt.json --set data.root=/disk/msrvtt
    python test.py --folder my_videos --arch TVTSv2_B_16
    python test.py --all --arch TVTSv2_H_14
    python test.py --dataset msrvtt --model TVTSv2_B_16 --model open_clip:ViT-B-16:CLIP/models/ViT-B-16.pt
    torchrun --nproc_per_node 8 test.py --dataset k400 --arch TVTSv2_H_14 --precision bf16

Stopped half-way, the same command goes on where it was. Exit status: 0 done, 1 some videos or data sets could
not be used (named), 2 a mistake in the command or a file it names, 130 stopped by Ctrl-C.
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
    parser = evaluation_parser("python test.py", __doc__)
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
