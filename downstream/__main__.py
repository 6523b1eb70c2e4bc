"""What most people need as one command: `python -m downstream …` in a clone, `tvtsv2 …` installed by pip."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

ROOT = (__package__ or "").removesuffix("downstream")  # "tvtsv2." where pip has installed it
PROG = "tvtsv2" if ROOT else "python -m downstream"
COMMANDS = {  # name -> the module whose main it is, imported when it is asked for, and what it does
    "features": ("downstream.feature_extraction", "features of your own videos, or texts"),
    "search": ("downstream.search", "find videos, or moments in them, by a text"),
    "test": ("test", "zero-shot tests on one data set, or on all there are"),
    "train": ("train", "pre-train a model, as a config says"),
    "download": ("model.download", "fetch released weights, lists of data sets and CLIP's weights by name"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command with the arguments behind its name; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="TVTSv2: features of videos and texts that work out of the box.",
        epilog="\n".join(
            [
                "commands:",
                *(f"  {name:10}{about}" for name, (_, about) in COMMANDS.items()),
                f"\n{PROG} COMMAND --help lists a command's options.",
            ]
        ),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of the commands below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="…", help="its arguments")
    args = parser.parse_args(argv)
    sys.argv[0] = f"{PROG} {args.command}"  # by which its help and the records of its results call it
    status: int = import_module(ROOT + COMMANDS[args.command][0]).main(args.arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
