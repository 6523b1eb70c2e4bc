"""A released or training checkpoint as a folder that from_pretrained reads.

    python -m model.convert TVTSv2_ViT_B_16.pth tvtsv2-b-16/
    python -m model.convert results/demo/model_best.pth demo/ --transformers

Without --transformers it is for `from model import TVTSv2; TVTSv2.from_pretrained("tvtsv2-b-16/")`.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from utils.commands import CommandParser
from utils.errors import one_line_interrupts

from .checkpoint import CheckpointError, LoadReport, fill, guess_variant, read_state_dict
from .class_head import head_of
from .transformers_folder import write_transformers_folder
from .tvtsv2 import TVTSv2, create_model
from .variants import get_variant

WRITTEN = ("model.safetensors", "config.json")  # by both


def convert(
    source: str | Path,
    folder: str | Path,
    overwrite: bool = False,
    *,
    transformers: bool = False,
    arch: str | None = None,
) -> str:
    """Write model.safetensors and config.json to the folder; returns what was done, to be printed.

    With `transformers` the folder also gets the code, the tokenizer and a card; a classification head of the
    checkpoint is left out there.

    Raises:
        FileNotFoundError, ValueError: as read_model.
        FileExistsError: the folder holds a model already, and `overwrite` is False.
    """
    there = [str(Path(folder) / name) for name in WRITTEN if (Path(folder) / name).exists()]
    if there and not overwrite:
        raise FileExistsError(f"{' and '.join(there)} would be replaced; name another folder, or --overwrite")
    model, found = read_model(source, arch)
    report = str(found)
    if transformers:
        if model.head is not None:
            model.head, report = None, f"{report}\n  left out: head.*, the classification head"
        write_transformers_folder(model, folder)
        how = f'AutoModel.from_pretrained("{folder}", trust_remote_code=True)'
    else:
        model.save_pretrained(folder)
        how = f'TVTSv2.from_pretrained("{folder}")'
    return f"{report}\n{model.variant.name} written to {folder}; load it with {how}"


def read_model(source: str | Path, arch: str | None = None) -> tuple[TVTSv2, LoadReport]:
    """The model that a checkpoint is of, with its weights.

    The variant, its num_frames and which heads there are, are read off the tensors; `arch` names the variant
    instead.

    Raises:
        FileNotFoundError, CheckpointError: as load_checkpoint. ValueError: an unknown `arch`.
    """
    state = read_state_dict(source)
    variant = get_variant(arch) if arch else guess_variant(state)
    if variant is None:
        raise CheckpointError(f"{source} looks like none of the TVTSv2 models; its sizes fit no variant")
    has_sort_head = any(name.startswith("pred_model.") for name in state)
    num_frames = len(state.get("video_model.temporal_embedding", ())) or None
    head = head_of(state)
    names = None if head is None else head.class_names
    model = create_model(variant.name, has_sort_head, num_frames, class_names=names)
    return model, fill(model, state, source, variant.name)


@one_line_interrupts()
def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 when the checkpoint cannot be used or the folder not written."""
    parser = CommandParser("python -m model.convert", __doc__)
    parser.add_argument("source", help="a released or training checkpoint (.pth, .safetensors, .dcp)")
    parser.add_argument("folder", help="where to write model.safetensors and config.json")
    parser.add_argument("--overwrite", action="store_true", help="replace a model that is there")
    parser.add_argument(
        "--transformers",
        action="store_true",
        help="for AutoModel and AutoProcessor of transformers, with the code that they need",
    )
    parser.add_argument("--arch", metavar="NAME", help="which model it is (default: read off the weights)")
    args = parser.parse_args(argv)
    try:
        print(
            convert(args.source, args.folder, args.overwrite, transformers=args.transformers, arch=args.arch)
        )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
