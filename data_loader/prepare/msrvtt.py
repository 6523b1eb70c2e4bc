"""MSR-VTT: the captions, the lists of all cuts that can be told, the queries of the 1k-A test."""

import argparse
import pickle
from pathlib import Path
from typing import Any

from data_loader.msrvtt import MSRVTT
from data_loader.prepare.common import add_command, infer, report_missing, write_json, write_lines
from data_loader.records import need_column, read_json, read_table

TEXT = """MSR-VTT from its json, the common 1k-A csv, or both

The json of the MSR-VTT challenge ({"videos": [{"video_id", "split"}], "sentences": [{"video_id",
"caption"}]}; one file or train_val_videodatainfo.json and test_videodatainfo.json) gives the captions and
the cuts full-val and full-test. MSRVTT_JSFUSION_test.csv (columns video_id, sentence) gives the 1k-A test
("jsfusion"); alone it is enough for that. Writes msrvtt/MSR_VTT.json, and the lists into
ROOT/high-quality/structured-symlinks. Videos: ROOT/videos/all/<video_id>.mp4."""


def add_commands(commands: Any) -> None:
    parser = add_command(commands, "msrvtt", build, TEXT, "data/msrvtt")
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
    lists = {name: splits.get(split, []) for name, split in FULL.items()}
    folder = args.root / MSRVTT.LISTS
    if args.test_csv:
        table = read_table(args.test_csv, "the 1k-A test of MSR-VTT", sep=",")
        names = [need_column(table, column, args.test_csv) for column in ("video_id", "sentence")]
        queries = dict(zip(*names, strict=True))
        numbers = {name: find_caption(captions.setdefault(name, []), text) for name, text in queries.items()}
        lists["val_list_jsfusion.txt"] = list(queries)
        lists["train_list_jsfusion.txt"] = training_videos(args, captions, queries)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "jsfusion_val_caption_idx.pkl").write_bytes(pickle.dumps(numbers))
    annotations = [{"image_id": name, "caption": text} for name, texts in captions.items() for text in texts]
    write_json(args.meta / "msrvtt/MSR_VTT.json", {"annotations": annotations})
    for name, videos in lists.items():
        if videos:
            write_lines(folder / name, videos)
            report_missing(folder / name, [f"videos/all/{video}.mp4" for video in videos], args.root)
    infer("the lists of the cuts miech, val and public_server_* cannot be told from these files")


FULL = {"train_list_full.txt": "train", "val_list_full.txt": "validate", "test_list_full.txt": "test"}


def read_challenge(path: Path, captions: dict[str, list[str]], splits: dict[str, list[str]]) -> None:
    """Add a json's captions by video, in its order, and its videos by split."""
    content = read_json(path, "the annotations of MSR-VTT")
    try:
        for sentence in content["sentences"]:
            captions.setdefault(sentence["video_id"], []).append(sentence["caption"])
        for video in content["videos"]:
            splits.setdefault(video["split"], []).append(video["video_id"])
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
        return list(need_column(table, "video_id", args.train_csv))
    return [name for name in captions if name not in test]
