"""WebVid, DiDeMo and LSMDC."""

import argparse
from pathlib import Path
from typing import Any

from data_loader.captions import LSMDC_LIST, lsmdc_file, read_lsmdc
from data_loader.lists import need_text, read_json, read_table
from data_loader.prepare.common import (
    add_command,
    add_drop_missing,
    find_videos,
    infer,
    keep,
    one_line,
    report_missing,
    write_table,
)
from utils.text import counted

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
    parser = add_command(
        commands,
        "webvid",
        build_webvid,
        WEBVID,
        "data/WebVid",
        "--train results_2M_train.csv --val results_2M_val.csv",
    )
    parser.add_argument("--train", type=Path, help="results_2M_train.csv")
    parser.add_argument("--val", type=Path, help="results_2M_val.csv")
    add_drop_missing(parser)
    parser = add_command(commands, "didemo", build_didemo, DIDEMO, "data/didemo", "--test test_data.json")
    parser.add_argument("--train", type=Path, help="train_data.json")
    parser.add_argument("--test", type=Path, help="test_data.json")
    add_drop_missing(parser)
    parser = add_command(
        commands, "lsmdc", build_lsmdc, LSMDC_TEXT, "data/lsmdc", "LSMDC16_challenge_1000_publictect.csv"
    )
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
        table = read_table(source, "videos of WebVid", sep=",", join_lines=True)
        captions = [one_line(caption) for caption in table.column("name", may_be_empty=True)]
        folders, names = table.column("page_dir"), table.column("videoid")
        paths = [f"{folder}/{name}" for folder, name in zip(folders, names, strict=True)]
        if not all(captions):
            first = table.where(captions.index(""))
            print(f"left out: {counted(captions.count(''), 'videos')} without a caption, e.g. {first}")
            captions, paths = keep([bool(caption) for caption in captions], captions, paths)
        files = [f"{split}/{path}.mp4" for path in paths]
        write_captions(args, args.meta / f"webvid_{split}.tsv", captions, paths, files)
    infer("column names; the folders are those of the official download script")


def build_didemo(args: argparse.Namespace) -> None:
    for split, source in given(args, "train", "test").items():
        descriptions: dict[str, list[str]] = {}
        records = read_json(source, "the descriptions of DiDeMo")
        for number, record in enumerate(records if isinstance(records, list) else [records]):
            if not isinstance(record, dict) or not {"video", "description"} <= record.keys():
                raise ValueError(
                    f'{source} must be a list of {{"video", "description", …}}, found {record!r}'
                )
            place = f"{source}: entry {number}"
            video = need_text(record["video"], f"{place}, video")
            description = need_text(record["description"], f"{place} ({video}), description")
            descriptions.setdefault(video, []).append(one_line(description))
        there = find_videos(args.root, descriptions)
        paths = [there.get(video, video) for video in descriptions]
        captions = [" ".join(texts) for texts in descriptions.values()]
        write_captions(args, args.meta / f"didemo/DiDeMo_{split}.tsv", captions, paths, paths)
    infer("descriptions joined by a space, in the file's order; column names")


def build_lsmdc(args: argparse.Namespace) -> None:
    table = read_lsmdc(args.list)
    names = ["clip", *(f"column{i}" for i in range(1, len(table.names) - 1)), "caption"]
    path = args.meta / LSMDC_LIST
    table.column(-1)  # every clip has a caption
    there = report_missing(path, [lsmdc_file(clip) for clip in table.column(0)], args.root)
    columns = keep(there, *table.columns) if args.drop_missing else table.columns
    write_table(path, dict(zip(names, columns, strict=True)))
