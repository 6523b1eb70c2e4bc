"""WebVid, DiDeMo and LSMDC."""

import argparse
from collections import defaultdict
from pathlib import Path
from typing import Any

from data_loader.captions import LSMDC, lsmdc_file
from data_loader.prepare.common import (
    add_command,
    add_drop_missing,
    find_by_stem,
    infer,
    keep,
    report_missing,
    write_table,
)
from data_loader.records import first_row, need_column, read_json, read_table

WEBVID = """WebVid from its csv files

The columns videoid, page_dir and name, as in results_2M_train.csv and results_2M_val.csv of
https://maxbain.com/webvid-dataset. Writes webvid_{train,val}.tsv. Videos:
ROOT/{train,val}/<page_dir>/<videoid>.mp4."""

DIDEMO = """DiDeMo from its json files

https://github.com/LisaAnne/LocalizingMoments distributes train_data.json and test_data.json: a list of
{video, description}. Writes didemo/DiDeMo_{train,test}.tsv, all descriptions of a video joined to one
caption. Videos: anywhere below ROOT, found by their names, whatever the suffix."""

LSMDC_TEXT = """LSMDC from its csv file

LSMDC16_challenge_1000_publictect.csv as the site (https://sites.google.com/site/describingmovies)
distributes it, tab-separated, the clip first and the caption last, header or not. Writes the same file,
with a header. Videos: ROOT/<film>/<clip>.avi."""


def add_commands(commands: Any) -> None:
    parser = add_command(commands, "webvid", build_webvid, WEBVID, "data/WebVid")
    parser.add_argument("--train", type=Path, help="results_2M_train.csv")
    parser.add_argument("--val", type=Path, help="results_2M_val.csv")
    add_drop_missing(parser)
    parser = add_command(commands, "didemo", build_didemo, DIDEMO, "data/didemo")
    parser.add_argument("--train", type=Path, help="train_data.json")
    parser.add_argument("--test", type=Path, help="test_data.json")
    add_drop_missing(parser)
    parser = add_command(commands, "lsmdc", build_lsmdc, LSMDC_TEXT, "data/lsmdc")
    parser.add_argument("list", type=Path, help="LSMDC16_challenge_1000_publictect.csv")
    add_drop_missing(parser)


def given(args: argparse.Namespace, *splits: str) -> dict[str, Path]:
    files = {split: getattr(args, split) for split in splits if getattr(args, split)}
    if not files:
        raise ValueError(f"name an annotation file: {', '.join(f'--{split}' for split in splits)}")
    return files


def write_captions(
    args: argparse.Namespace, path: Path, captions: list[str], paths: list[str], files: list[str]
) -> None:
    """The list of captions and paths; `files` are the paths as they should lie below the root."""
    there = report_missing(path, files, args.root)
    if args.drop_missing:
        captions, paths = keep(there, captions, paths)
    write_table(path, {"caption": captions, "path": paths})


def build_webvid(args: argparse.Namespace) -> None:
    for split, source in given(args, "train", "val").items():
        table = read_table(source, "videos of WebVid", sep=",")
        captions = list(need_column(table, "name", source))
        folders, names = need_column(table, "page_dir", source), need_column(table, "videoid", source)
        paths = [f"{folder}/{name}" for folder, name in zip(folders, names, strict=True)]
        files = [f"{split}/{path}.mp4" for path in paths]
        write_captions(args, args.meta / f"webvid_{split}.tsv", captions, paths, files)
    infer("column names; the folders are those of the official download script")


def build_didemo(args: argparse.Namespace) -> None:
    there = find_by_stem(args.root)
    for split, source in given(args, "train", "test").items():
        descriptions = defaultdict(list)
        for record in read_json(source, "the descriptions of DiDeMo"):
            if not isinstance(record, dict) or not {"video", "description"} <= record.keys():
                raise ValueError(
                    f'{source} must be a list of {{"video", "description", …}}, found {record!r}'
                )
            descriptions[record["video"]].append(record["description"].strip())
        paths = [there.get(Path(video).stem, video) for video in descriptions]
        captions = [" ".join(texts) for texts in descriptions.values()]
        write_captions(args, args.meta / f"didemo/DiDeMo_{split}.tsv", captions, paths, paths)
    infer("descriptions joined by a space, in the file's order; column names")


def build_lsmdc(args: argparse.Namespace) -> None:
    what = "clips and captions of LSMDC"
    first = first_row(args.list, what)
    table = read_table(args.list, what, header=not (first and "." in first[0]))
    table.columns = ["clip", *(f"column{i}" for i in range(1, table.shape[1] - 1)), "caption"]
    path = args.meta / LSMDC.LIST
    files = [lsmdc_file(clip) for clip in table["clip"]]
    there = report_missing(path, files, args.root)
    write_table(path, table[there] if args.drop_missing else table)
