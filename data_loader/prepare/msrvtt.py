"""MSR-VTT: the captions, the lists of all cuts that can be told, the queries of the 1k-A test."""

import argparse
import pickle
from pathlib import Path
from typing import Any

from data_loader.lists import first_repeated, need_text, read_json, read_table
from data_loader.msrvtt import LISTS
from data_loader.prepare.common import (
    add_command,
    infer,
    refuse_stale,
    report_missing,
    write_json,
    write_lines,
)
from utils.files import whole_file

TEXT = """MSR-VTT from its json, the common 1k-A csv, or both

The json of the MSR-VTT challenge ({"videos": [{"video_id", "split"}], "sentences": [{"video_id",
"caption"}]}; one file or train_val_videodatainfo.json and test_videodatainfo.json) gives the captions and
the cuts full-val and full-test. MSRVTT_JSFUSION_test.csv (columns video_id, sentence) gives the 1k-A test
("jsfusion"); alone it is enough for that. Writes msrvtt/MSR_VTT.json, and the lists into
ROOT/high-quality/structured-symlinks. Videos: ROOT/videos/all/<video_id>.mp4."""


def add_commands(commands: Any) -> None:
    parser = add_command(
        commands, "msrvtt", build, TEXT, "data/msrvtt", "--test-csv MSRVTT_JSFUSION_test.csv"
    )
    parser.add_argument("--json", type=Path, nargs="+", default=[], help="the challenge's json file or files")
    parser.add_argument("--test-csv", type=Path, help="MSRVTT_JSFUSION_test.csv")
    parser.add_argument(
        "--train-csv", type=Path, help="MSRVTT_train.9k.csv; else all videos outside the test"
    )


def build(args: argparse.Namespace) -> None:
    if not args.json and not args.test_csv:
        raise ValueError("name --json, --test-csv or both")
    captions: dict[str, list[str]] = {}
    splits: dict[str, list[str]] = {}
    for path in args.json:
        read_challenge(path, captions, splits)
    lists = {name: splits[split] for name, split in FULL.items() if splits.get(split)}
    folder = args.root / LISTS
    numbers = None
    if args.test_csv:
        queries = read_queries(args.test_csv)
        numbers = {name: find_caption(captions.setdefault(name, []), text) for name, text in queries.items()}
        lists["val_list_jsfusion.txt"] = list(queries)
        lists["train_list_jsfusion.txt"] = training_videos(args, captions, queries)
    written = [folder / name for name in (*lists, *([QUERIES] if numbers is not None else []))]
    before = [folder / name for name in (*FULL, *JSFUSION, QUERIES) if (folder / name).exists()]
    refuse_stale(folder, written, before, "name all files, --json and --test-csv, in one call")
    annotations = [{"image_id": name, "caption": text} for name, texts in captions.items() for text in texts]
    write_json(args.meta / "msrvtt/MSR_VTT.json", {"annotations": annotations})
    if numbers is not None:
        with whole_file(folder / QUERIES) as unfinished:
            unfinished.write_bytes(pickle.dumps(numbers))
    for name, videos in lists.items():
        write_lines(folder / name, videos)
        report_missing(folder / name, [f"videos/all/{video}.mp4" for video in videos], args.root)
    infer("the lists of the cuts miech, val and public_server_* cannot be told from these files")


FULL = {"train_list_full.txt": "train", "val_list_full.txt": "validate", "test_list_full.txt": "test"}
JSFUSION = ("train_list_jsfusion.txt", "val_list_jsfusion.txt")
QUERIES = "jsfusion_val_caption_idx.pkl"


def read_queries(path: Path) -> dict[str, str]:
    """The sentence of each test video. Raises ValueError where a video has two: the test asks for one."""
    table = read_table(path, "the 1k-A test of MSR-VTT", sep=",", join_lines=True)
    names, sentences = table.column("video_id"), table.column("sentence")
    if repeated := first_repeated(names):
        first, second = repeated
        raise ValueError(
            f"{table.where(second)}: {names[second]} has a sentence in line {table.lines[first]} already; "
            "the test has one query a video"
        )
    return dict(zip(names, sentences, strict=True))


def read_challenge(path: Path, captions: dict[str, list[str]], splits: dict[str, list[str]]) -> None:
    """Add a json's captions by video, in its order, and its videos by split."""
    content = read_json(path, "the annotations of MSR-VTT")
    try:
        for number, sentence in enumerate(content["sentences"]):
            name = need_text(sentence["video_id"], f"{path}: video_id of sentence {number}")
            caption = need_text(sentence["caption"], f"{path}: caption of sentence {number} ({name})")
            captions.setdefault(name, []).append(caption)
        for number, video in enumerate(content["videos"]):
            name = need_text(video["video_id"], f"{path}: video_id of video {number}")
            splits.setdefault(video["split"], []).append(name)
    except (KeyError, TypeError) as error:
        what = '"videos" with "video_id" and "split", and "sentences" with "video_id" and "caption"'
        raise ValueError(f"{path} must hold {what}: {error!r}") from error


def find_caption(captions: list[str], text: str) -> int:
    """The place of a sentence among a video's captions, where it is added if it is none of them."""
    for i, caption in enumerate(captions):
        if caption.split() == text.split():
            return i
    captions.append(text)
    return len(captions) - 1


def training_videos(args: argparse.Namespace, captions: dict, test: dict) -> list[str]:
    if args.train_csv:
        table = read_table(args.train_csv, "training videos of MSR-VTT", sep=",")
        return table.column("video_id")
    return [name for name in captions if name not in test]
