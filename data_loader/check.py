"""`python -m data_loader.check CONFIG`: read every video of a config once and list those that cannot be
read."""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader
from tqdm import tqdm

from data_loader import build_dataset
from data_loader.cores import usable_cores
from data_loader.loader import worker_options
from data_loader.records import read_json

REPOSITORY = Path(__file__).resolve().parent.parent


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 when all can be read, 1 when some cannot, 2 when the config or its data cannot be used."""
    cores = usable_cores()
    parser = argparse.ArgumentParser(prog="python -m data_loader.check", description=__doc__)
    parser.add_argument("config", type=Path, help="a config of pre-training or of an evaluation")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("unreadable.tsv"),
        help="list to write if there are any (%(default)s)",
    )
    parser.add_argument("--workers", type=int, default=cores, help="processes that read (%(default)s)")
    parser.add_argument("--reader", default="decord", help="see data_loader/video.py (%(default)s)")
    parser.add_argument("--timeout", type=float, default=60, help="seconds a video may take (%(default)s)")
    args = parser.parse_args(argv)
    try:
        entries = list(config_entries(args.config))
        unreadable = [line for entry in entries for line in check(entry, args)]
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not unreadable and not args.output.exists():
        print("0 unreadable videos")
        return 0
    lines = ["type\tsplit\tpath\treason", *("\t".join(line) for line in unreadable)]
    args.output.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(unreadable)} unreadable videos, listed in {args.output.resolve()}")
    return 1 if unreadable else 0


def config_entries(path: Path) -> Iterator[dict[str, Any]]:
    """The data sets of a config, each with type, split, root and meta."""
    path = resolve(path)
    config, base = read_json(path, "a config"), path.with_name("base.json")
    defaults = read_json(base, "the configs' defaults") if base.is_file() else {}
    data = {**defaults.get("data", {}), **config.get("data", {})}
    meta = data.pop("meta", config.get("meta", defaults.get("meta", "meta_data")))
    if "type" in data:
        yield located({"split": "test", "meta": meta, **data}, path)
        return
    if not data.get("train") and not data.get("val"):
        raise ValueError(f'{path} has no "data" with "train" and "val", nor one with "type" and "root"')
    for split in ("train", "val"):
        for entry in data.get(split, []):
            yield located({"split": split, "meta": meta, **entry}, path)


def located(entry: dict[str, Any], config: Path) -> dict[str, Any]:
    if not {"type", "root"} <= entry.keys():
        raise ValueError(f'{config}: the data set {json.dumps(entry)} needs "type" and "root"')
    return {**entry, "root": resolve(Path(entry["root"])), "meta": resolve(Path(entry["meta"]))}


def resolve(path: Path) -> Path:
    """A path as given where it exists, else from the repository's folder."""
    path = path.expanduser()
    return path if path.is_absolute() or path.exists() else REPOSITORY / path


def check(entry: dict[str, Any], args: argparse.Namespace) -> Iterator[tuple[str, str, str, str]]:
    """(type, split, path, reason) of every unreadable video of a data set.

    Reads the frames of an evaluation clip, each file within the time limit and in a process of its own, so
    that a decoder may hang or crash.
    """
    entry = dict(entry)
    kind, split = entry.pop("type"), entry.pop("split")
    options = {"view": "test", "allow_missing": True, "reader": args.reader, "timeout": args.timeout}
    dataset = build_dataset(kind, split, **{**entry, **options})
    loader = DataLoader(
        dataset,
        batch_size=8,
        collate_fn=missing_of,
        **worker_options(args.workers, prefetch_factor=2),
    )
    with tqdm(total=len(dataset), desc=f"{kind} {split}", unit="video") as bar:
        for batch in loader:
            for path, reason in batch["missing"]:
                yield kind, split, path, reason.replace("\t", " ")
            bar.update(batch["size"])


def missing_of(items: list[dict]) -> dict[str, Any]:
    """What is left of a batch: its size and what is missing."""
    missing = [item["missing"] for item in items if "missing" in item]
    return {"size": len(items), "missing": missing}


if __name__ == "__main__":
    sys.exit(main())
