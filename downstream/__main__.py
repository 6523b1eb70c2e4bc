"""All commands below one name: `python -m downstream …` in a clone, `tvtsv2 …` installed by pip."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

ROOT = (__package__ or "").removesuffix("downstream")  # "tvtsv2." where pip has installed it
PROG = "tvtsv2" if ROOT else "python -m downstream"
GROUPS = {  # name -> the module whose main it is, imported when it is asked for, and what it does
    "features and search": {
        "features": ("downstream.feature_extraction", "features of your own videos, or texts"),
        "search": ("downstream.search", "find videos, or moments in them, by a text, a picture or a video"),
    },
    "tests": {
        "test": ("test", "zero-shot tests on one data set, or on all there are"),
        "retrieval": ("downstream.retrieval", "the same of texts and videos alone"),
        "recognition": ("downstream.recognition", "the same of classes alone"),
        "multiple_choice": ("downstream.multiple_choice", "the same of options alone"),
        "probe": ("downstream.probe", "linear, k-NN, few-shot and attentive probes"),
        "linear_probe": ("downstream.linear_probe", "the linear probe of the paper"),
        "sorting": ("downstream.sorting", "how often the sort head puts transcripts in order"),
        "mteb": ("downstream.mteb_tasks", "tasks of mteb, the shared benchmark"),
        "table": ("downstream.table", "many results in one table"),
    },
    "training": {
        "train": ("train", "pre-train or fine-tune a model, as a config says"),
        "curves": ("trainer.curves", "draw a run's losses and validation"),
        "demo": ("downstream.demo", "data, pre-training and all tests in small"),
    },
    "data": {
        "prepare": ("data_loader.prepare.__main__", "the lists of a data set, or shards of videos"),
        "reencode": ("data_loader.prepare.videos", "re-encode a folder of videos so that they load fast"),
        "check": ("data_loader.check", "read every video of a config, and list those that cannot be read"),
        "demo_data": ("data_loader.demo", "the videos and lists of the demo"),
    },
    "weights": {
        "download": (
            "model.download",
            "fetch released weights, lists of data sets and CLIP's weights by name",
        ),
        "convert": ("model.convert", "a checkpoint for from_pretrained, or for transformers"),
        "export": ("model.export", "a tower as a graph, for torch.export or ONNX"),
        "summary": ("model.summary", "what a model or its training costs"),
    },
}
COMMANDS = {name: command for group in GROUPS.values() for name, command in group.items()}


def listing() -> str:
    """The commands, a line each."""
    return "\n\n".join(
        "\n".join([f"{title}:", *(f"  {name:16}{about}" for name, (_, about) in group.items())])
        for title, group in GROUPS.items()
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command with the arguments behind its name; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog=PROG,
        usage=f"{PROG} COMMAND …",
        description="TVTSv2: features of videos and texts that work out of the box.",
        epilog=f"{listing()}\n\n{PROG} COMMAND --help says more of one.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=COMMANDS, metavar="COMMAND", help="one of those below")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="…", help="its arguments")
    if not (sys.argv[1:] if argv is None else argv):
        parser.print_help()
        return 2
    args = parser.parse_args(argv)
    sys.argv[0] = f"{PROG} {args.command}"  # by which the records of its results call it
    status: int = import_module(ROOT + COMMANDS[args.command][0]).main(args.arguments)
    return status


if __name__ == "__main__":
    sys.exit(main())
