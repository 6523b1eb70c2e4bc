"""Read every video of a config once, and list those that cannot be read.

    python -m data_loader.check configs/demo.json
    python -m data_loader.check downstream/configs/msrvtt.json --workers 8 --timeout 30

Exit status: 0 all can be read, 1 some cannot, 2 the config or its data cannot be used.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from joblib import cpu_count
from torch.utils.data import DataLoader
from tqdm import tqdm

from data_loader import build_dataset
from data_loader.dataset import VideoDataset
from data_loader.failures import Failure
from data_loader.loader import worker_options
from data_loader.shard_files import locate
from utils.commands import CommandParser
from utils.config import load_config, read_json, resolve_path
from utils.errors import MISTAKES, one_line_interrupts
from utils.files import WriteError, check_folder, write_text
from utils.schema import EvaluationConfig, PretrainingConfig
from utils.text import counted, one_line

TIMEOUT_S = 60.0  # for a video, where the config gives none


@one_line_interrupts()
def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 when all can be read, 1 when some cannot, 2 when the config or its data cannot be used."""
    cores = cpu_count()
    parser = CommandParser("python -m data_loader.check", __doc__)
    parser.add_argument("config", type=Path, help="a config of pre-training or of an evaluation")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("unreadable.tsv"),
        help="list to write if there are any; a path with a line break, a tab or bytes that "
        "are not UTF-8 stands in it as a JSON string",
    )
    parser.add_argument("--workers", type=int, default=cores, help="processes that read")
    parser.add_argument("--reader", help="see data_loader/video/ (the config's)")
    parser.add_argument(
        "--timeout", type=float, help=f"seconds a video may take (the config's, or {TIMEOUT_S:g})"
    )
    args = parser.parse_args(argv)
    options = {key: value for key in ("reader", "timeout") if (value := getattr(args, key)) is not None}
    try:
        sets = [(entry, open_entry({**entry, **options})) for entry in config_entries(args.config)]
        check_folder(args.output.absolute().parent)
    except (*MISTAKES, WriteError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    rows = ["type\tsplit\tpath\treason"]
    for entry, dataset in sets:
        for failure in check(dataset, f"{entry['type']} {entry['split']}", args.workers):
            rows.append("\t".join((entry["type"], entry["split"], *map(one_line, failure))))
    number = counted(len(rows) - 1, "unreadable videos")
    if len(rows) == 1 and not args.output.exists():
        print(number)
        return 0
    write_text("".join(f"{row}\n" for row in rows), args.output)
    if len(rows) == 1:
        print(f"{number}; {args.output.resolve()}, the list of before, is empty now")
        return 0
    print(f"{number}, listed in {args.output.resolve()}")
    return 1


def config_entries(path: Path) -> Iterator[dict[str, Any]]:
    """The data sets of a config, each with what `build_dataset` needs to open it, and its split.

    Raises FileNotFoundError, ConfigError (a ValueError).
    """
    written = read_json(resolve_path(path))
    is_evaluation = isinstance(written, Mapping) and ("task" in written or "type" in written.get("data", {}))
    if is_evaluation:
        config = load_config(EvaluationConfig, path)
        common = {"meta": config.meta, "reader": config.reader, "timeout": config.read_timeout}
        entries = [{"split": "test", **config.data.options()}]
    else:
        data = load_config(PretrainingConfig, path).data
        common = {"meta": data.meta, "reader": data.reader, "timeout": data.read_timeout}
        sets = [("train", entry) for entry in data.train]
        sets += [("val", entry) for entry in ([] if data.held_out else data.val)]
        entries = [{"split": split, **entry.options()} for split, entry in sets]
    for entry in entries:
        entry = {**common, **entry}
        located = {"root": locate(entry["root"]), "meta": resolve_path(entry["meta"])}
        yield {**entry, **located, "timeout": entry["timeout"] or TIMEOUT_S}


def open_entry(entry: dict[str, Any]) -> VideoDataset:
    """A data set as it is evaluated: the same frames each time, unreadable files noted."""
    entry = {**entry, "view": "test", "allow_missing": True}
    return build_dataset(entry.pop("type"), entry.pop("split"), **entry)


def check(dataset: VideoDataset, name: str, workers: int) -> Iterator[Failure]:
    """Every unreadable video of a data set.

    Each file is read within the time limit and in a process of its own, so that a decoder may hang or crash.
    """
    loader = DataLoader(
        dataset, batch_size=8, collate_fn=failures_of, **worker_options(workers, prefetch_factor=2)
    )
    yield from dataset.records.damage
    with tqdm(total=len(dataset), desc=name, unit="video") as bar:
        for size, failures in loader:
            yield from failures
            bar.update(size)


def failures_of(items: list[dict]) -> tuple[int, list[Failure]]:
    """What is left of a batch: its size and what is missing."""
    return len(items), [item["missing"] for item in items if "missing" in item]


if __name__ == "__main__":
    sys.exit(main())
