"""Captions on spans of long videos: InternVid, Panda-70M, HowTo100M and Vript, as lists for the type "csv".

Each split becomes `meta_data`/<set>/<split>.tsv with the columns path, caption, start and end. The sets have
tens of millions of rows, so that rows are written as they are read.
"""

import argparse
import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from data_loader.prepare.common import add_command, infer, one_line, videos_by_stem, write_json
from data_loader.prepare.formats import caption_of
from data_loader.prepare.span_formats import (
    SpanRow,
    howto100m_rows,
    howto100m_videos,
    internvid_rows,
    panda70m_rows,
    span_of,
    vript_rows,
)
from data_loader.prepare.yttemporal import is_validation
from data_loader.text_rows import exact
from utils.files import whole_file
from utils.text import counted

LISTS = """
Writes {0}/{{train,val,test}}.tsv, one for each that is named; without --val a share of the videos of --train
validates. Videos: anywhere below ROOT, called by their ids, whatever the suffix. Left out, and counted:
empty captions, rows that come twice, spans that do not end after their start{1}."""

INTERNVID = """InternVid, captions on spans of YouTube's videos

https://huggingface.co/datasets/OpenGVLab/InternVid distributes InternVid-10M-flt.jsonl: YoutubeID,
Start_timestamp, End_timestamp, Caption and UMT_Score a line."""

PANDA = """Panda-70M, captions on spans of YouTube's videos

https://github.com/snap-research/Panda-70M distributes csv files with a video a row: videoID, and lists
timestamp, caption and matching_score."""

HOWTO = """HowTo100M, what is said in instruction videos of YouTube, line by line

https://www.di.ens.fr/willow/research/howto100m/ distributes raw_caption.json (and caption.json, without stop
words): {video: {start, end, text}}; a folder with a csv (start, end, text) a video is read as well."""

VRIPT = """Vript, long captions on the scenes of videos

https://huggingface.co/datasets/Mutonix/Vript distributes vript_long_videos_captions.jsonl and
vript_short_videos_captions.jsonl, and in zip files <video>_caption.json; name the former, or the folder of
the latter. With --cuts and the folder of <video>_cut_meta.json, which lie beside the clips, a row is a span
of the whole video, without it the file of a scene, <scene>.mp4."""


SPLITS = ("train", "val", "test")


def add_commands(commands: Any) -> None:
    parsers = {}
    for name, about, more, train in (
        ("internvid", INTERNVID, ", and those below --min-score", "InternVid-10M-flt.jsonl --min-score 0.4"),
        ("panda70m", PANDA, ", and those below --min-score", "panda70m_training_2m.csv"),
        ("howto100m", HOWTO, "", "raw_caption.json"),
        ("vript", VRIPT, "", "vript_captions/"),
    ):
        about += LISTS.format(name, more)
        given = (partial(build, name), about, f"data/{name}", f"--train {train}")
        parser = parsers[name] = add_command(commands, name, *given)
        for split in SPLITS:
            parser.add_argument(f"--{split}", type=Path, nargs="+", help="files, or folders, of this list")
        parser.add_argument("--val-share", type=float, default=0.001, help="without --val: share of videos")
        parser.add_argument("--drop-missing", action="store_true", help="leave out videos that are not there")
        parser.set_defaults(min_score=None, cuts=None, transcripts=False)
    for name, score in (("internvid", "UMT_Score"), ("panda70m", "matching_score")):
        parsers[name].add_argument("--min-score", type=float, help=f"least {score} of a row that is kept")
    parsers["vript"].add_argument("--cuts", type=Path, help="folder of <video>_cut_meta.json")
    parsers["howto100m"].add_argument(
        "--transcripts",
        action="store_true",
        help='for the type "narrated": a video a row, what is said in it in ROOT/transcripts/<id>.json',
    )


class Videos:
    """Where the videos lie below a folder, by their ids."""

    def __init__(self, root: Path):
        self.by_stem = videos_by_stem(root)
        several = {name: files for name, files in self.by_stem.items() if len(files) > 1}
        for name, files in list(several.items())[:10]:
            print(f"{name}: of {', '.join(map(str, files))} the lists take {files[0]}")
        if len(several) > 10:
            print(f"… and so for {counted(len(several) - 10, 'more videos')}")

    def place(self, name: str) -> str | None:
        files = self.by_stem.get(name)
        return str(files[0]) if files else None


class SplitList:
    """A list that is written row by row, and the count of what went into it and what did not."""

    def __init__(self, path: Path, file: TextIO, columns: Sequence[str]):
        self.path = path
        self.writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        self.writer.writerow(columns)
        self.rows = 0
        self.videos: set[str] = set()  # their paths
        self.missing: set[str] = set()
        self.left_out: Counter[str] = Counter()
        self.examples: dict[str, str] = {}

    def write(self, *cells: str) -> None:
        self.writer.writerow(cells)
        self.rows += 1
        self.videos.add(cells[0])

    def leave_out(self, why: str, where: str) -> None:
        self.left_out[why] += 1
        self.examples.setdefault(why, where)

    def report(self, root: Path) -> None:
        line = f"{self.path}: {counted(self.rows, 'rows')} of {counted(len(self.videos), 'videos')}"
        if self.missing:
            line += f"; {counted(len(self.missing), 'videos')} missing below {root}, e.g. {min(self.missing)}"
        print(line)
        for why, number in self.left_out.items():
            print(f"{self.path}: left out: {counted(number, 'rows')} {why}, e.g. {self.examples[why]}")


@contextmanager
def split_list(path: Path, columns: Sequence[str]) -> Iterator[SplitList]:
    """A list, whole or absent."""
    with whole_file(path) as unfinished, open(unfinished, "w", encoding="utf-8", newline="") as file:
        yield SplitList(path, file, columns)


class SplitLists:
    """The list of a split, and for training maybe that of the share of videos that validates.

    first, val: the two; the same where there is no such share.
    """

    def __init__(self, first: SplitList, val: SplitList, args: argparse.Namespace):
        self.first, self.val, self.args = first, val, args
        self.videos = Videos(args.root)

    def list_of(self, video: str) -> SplitList:
        """All rows of a video, also those of its scenes, go into one list."""
        return self.val if is_validation(video.partition("-Scene-")[0], self.args.val_share) else self.first

    def place(self, video: str, where: str) -> str | None:
        """Where a video lies, or would; None, which is counted, where it is gone and to be left out."""
        place, target = self.videos.place(video), self.list_of(video)
        if place is None:
            target.missing.add(video)
            if self.args.drop_missing:
                target.leave_out("of videos that are not there", where)
                return None
        return place or f"{video}.mp4"


@contextmanager
def split_lists(
    args: argparse.Namespace, folder: Path, split: str, columns: Sequence[str]
) -> Iterator[SplitLists]:
    """Says at the end what went into the lists. Raises ValueError where that of the split would be empty."""
    shared = split == "train" and not args.val and args.val_share > 0
    with (
        split_list(folder / f"{split}.tsv", columns) as first,
        split_list(folder / "val.tsv", columns) if shared else nullcontext(first) as val,
    ):
        yield SplitLists(first, val, args)
        for each in dict.fromkeys((first, val)):
            each.report(args.root)
        if not first.rows:
            raise ValueError(f"{first.path} would be empty")
        for other in SPLITS:
            if not getattr(args, other) and other != split and not (shared and other == "val"):
                refuse_overlap(folder / f"{other}.tsv", first)


def refuse_overlap(stale: Path, written: SplitList) -> None:
    """ValueError where `stale`, a list of an earlier call, has videos of one that is written now."""
    if not stale.exists():
        return
    with open(stale, encoding="utf-8", newline="") as file:
        for row in csv.reader(file, delimiter="\t"):
            if row and row[0] in written.videos:
                raise ValueError(
                    f"{stale}, of an earlier call, has {row[0]}, too, which {written.path} would have now: "
                    "name the files of both in one call, or delete it"
                )


def build(name: str, args: argparse.Namespace) -> None:
    given = {split: getattr(args, split) for split in SPLITS if getattr(args, split)}
    if not given:
        raise ValueError("name the files: --train, --val or --test")
    if not 0 <= args.val_share < 1:
        raise ValueError(f"--val-share is {args.val_share}; it is a share of the videos, from 0 to below 1")
    for path in (path for paths in given.values() for path in paths):
        if not path.exists():
            raise FileNotFoundError(f"{path} is missing: the captions of {name}")
    for split, paths in given.items():
        if args.transcripts:
            write_transcripts(args, split, paths)
        else:
            write_rows(args, name, split, paths)
    if args.val_share and given.keys() == {"train"}:
        infer("which videos validate: those that a hash of their id picks")
    if name == "vript":
        infer("the caption of a scene is its content, without title, kind of shot and movement of the camera")


def write_rows(args: argparse.Namespace, name: str, split: str, paths: Iterable[Path]) -> None:
    readers: dict[str, Callable[[Path], Iterator[SpanRow]]] = {
        "internvid": internvid_rows,
        "panda70m": panda70m_rows,
        "howto100m": howto100m_rows,
        "vript": partial(vript_rows, cuts=args.cuts),
    }
    whole = name == "vript" and args.cuts is None
    columns = ("path", "caption") if whole else ("path", "caption", "start", "end")
    seen: set[int] = set()
    with split_lists(args, args.meta / name, split, columns) as lists:
        for row in (row for path in paths for row in readers[name](path)):
            text, (start, end) = one_line(row.text), span_of(row)
            identity = hash((row.video, text, start, end))
            target = lists.list_of(row.video)
            if not text:
                target.leave_out("without a caption", row.where)
            elif args.min_score is not None and (row.score is None or row.score < args.min_score):
                target.leave_out(f"with a score below {args.min_score:g}", row.where)
            elif start is not None and end is not None and end <= start:
                target.leave_out("whose span does not end after its start", row.where)
            elif identity in seen:
                target.leave_out("that come twice", row.where)
            elif place := lists.place(row.video, row.where):
                seen.add(identity)
                times = () if whole else ["" if t is None else exact(t) for t in (start, end)]
                target.write(place, text, *times)


def write_transcripts(args: argparse.Namespace, split: str, paths: Iterable[Path]) -> None:
    """A transcript a video, in the form of Whisper's, and lists of videos and transcripts."""
    seen: set[str] = set()
    with split_lists(args, args.meta / "howto100m", split, ("path", "transcript")) as lists:
        for video, lines in (each for path in paths for each in howto100m_videos(path)):
            where, target = f"{video} of {', '.join(map(str, paths))}", lists.list_of(video)
            segments = []
            for number, (start, end, text) in enumerate(lines):
                row = SpanRow(video, caption_of(text, where), start, end, None, f"{where}, line {number}")
                begin, stop = span_of(row)
                if begin is None or stop is None:
                    raise ValueError(f"{row.where}: it has no start or no end")
                if row.text:
                    segments.append({"start": begin, "end": stop, "text": row.text})
            if Path(video).name != video:
                raise ValueError(f"{where}: the id is no name of a file")
            if not segments:
                target.leave_out("without words", where)
            elif video in seen:
                target.leave_out("of videos that an earlier row has", where)
            elif place := lists.place(video, where):
                seen.add(video)
                name = f"transcripts/{video}.json"
                write_json(args.root / name, {"segments": segments})
                target.write(place, name)
