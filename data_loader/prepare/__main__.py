"""Make the lists of a data set in meta_data/, of what its own site distributes, or shards of videos.

python -m data_loader.prepare msrvtt --help
python -m data_loader.prepare msrvtt --json train_val_videodatainfo.json --test-csv MSRVTT_JSFUSION_test.csv
"""

import argparse
import sys
from collections.abc import Sequence

from data_loader.prepare import captions, labels, msrvtt, sets, shards, spans, ssv2, yttemporal
from utils.commands import CommandParser
from utils.errors import MISTAKES, one_line_interrupts
from utils.files import WriteError


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = CommandParser("python -m data_loader.prepare", __doc__)
    commands = parser.add_subparsers(metavar="dataset", required=True, help="what to make; each has a --help")
    for module in (yttemporal, captions, msrvtt, labels, ssv2, sets, spans, shards):
        module.add_commands(commands)
    return parser.parse_args(argv)


@one_line_interrupts()
def main(argv: Sequence[str] | None = None) -> int:
    args = parse(argv)
    try:
        args.build(args)
    except (*MISTAKES, WriteError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
