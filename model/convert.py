"""A released or training checkpoint as from_pretrained reads it: python -m model.convert IN OUT_DIR"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .checkpoint import CheckpointError, fill, guess_variant, read_state_dict
from .tvtsv2 import create_model

WRITTEN = ("model.safetensors", "config.json")  # by save_pretrained


def convert(source: str | Path, folder: str | Path, overwrite: bool = False) -> str:
    """Write model.safetensors and config.json to the folder; returns what was done, to be printed.

    The variant, its num_frames and whether there is a sort head are read off the tensors.

    Raises:
        FileNotFoundError, CheckpointError: as load_checkpoint.
        FileExistsError: the folder holds a model already, and `overwrite` is False.
    """
    there = [str(Path(folder) / name) for name in WRITTEN if (Path(folder) / name).exists()]
    if there and not overwrite:
        raise FileExistsError(f"{' and '.join(there)} would be replaced; name another folder, or --overwrite")
    state = read_state_dict(source)
    variant = guess_variant(state)
    if variant is None:
        raise CheckpointError(f"{source} looks like none of the TVTSv2 models; its sizes fit no variant")
    has_sort_head = any(name.startswith("pred_model.") for name in state)
    num_frames = len(state.get("video_model.temporal_embedding", ())) or None
    model = create_model(variant.name, sort_head=has_sort_head, num_frames=num_frames)
    report = fill(model, state, source, variant.name)
    model.save_pretrained(folder)
    return f'{report}\n{variant.name} written to {folder}; load it with TVTSv2.from_pretrained("{folder}")'


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0, or 2 when the checkpoint cannot be used or the folder not written."""
    parser = argparse.ArgumentParser(
        prog="python -m model.convert", description="Convert a TVTSv2 checkpoint for TVTSv2.from_pretrained."
    )
    parser.add_argument("source", help="a released or training checkpoint (.pth, .safetensors, .dcp)")
    parser.add_argument("folder", help="where to write model.safetensors and config.json")
    parser.add_argument("--overwrite", action="store_true", help="replace a model that is there")
    args = parser.parse_args(argv)
    try:
        print(convert(args.source, args.folder, args.overwrite))
    except (CheckpointError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
